# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Batch size
#
# **Question.** Does a larger batch help, and does the best learning rate change with
# it?
#
# ## Theory
#
# A gradient is an average over the samples of a batch. The average of B independent
# samples has a variance that is B times as small as that of one sample. Its standard
# deviation is therefore √B times as small: four times the work halves the error.
#
# A larger batch is worth its work while noise is what limits a step. McCandlish et al.
# (2018) put a number on that, the *gradient noise scale*: the variance of one sample's
# gradient, divided by the squared length of the true gradient. For batches far below
# it, twice the batch allows nearly twice the step. For batches far above it, more
# samples change almost nothing.
#
# Two rules of thumb follow. With plain SGD the learning rate should grow in proportion
# to the batch (Goyal et al. 2017). With Adam it should grow with the square root
# (Malladi et al. 2022). Both come from supervised learning. In deep RL small batches
# are sometimes better, perhaps because their noise helps to explore (Obando-Ceron,
# Bellemare and Castro 2023).

# %%
import matplotlib.pyplot as plt
import numpy as np

import dacrl_env

# %% [markdown]
# ## Noise of a gradient
#
# First the law by itself. This is a least-squares fit of five weights. We look at the
# gradient of the squared error at one point, from batches of several sizes.

# %%
generator = np.random.default_rng(0)
inputs = generator.standard_normal((20_000, 5))
targets = inputs @ np.ones(5) + generator.standard_normal(20_000)
each = inputs * (inputs @ np.zeros(5) - targets)[:, None]  # gradients at weights of 0
true = each.mean(axis=0)
noise_scale = each.var(axis=0).sum() / (true @ true)

sizes = np.array([1, 4, 16, 64, 256])
errors = []
for size in sizes:
    batches = each[generator.integers(len(each), size=(1_000, size))].mean(axis=1)
    errors.append(np.sqrt(((batches - true) ** 2).sum(axis=1).mean()))
errors = np.array(errors) / np.linalg.norm(true)
print(f"gradient noise scale: {noise_scale:.1f} samples")
for size, error in zip(sizes, errors, strict=True):
    print(f"  batch {size:3d}: error {error:.3f} of the gradient's length")

# %% [markdown]
# At a batch as large as the noise scale the error is as long as the gradient itself.
#
# ## Batch size and learning rate of DQN
#
# Now a grid over both, because neither can be judged alone. All cells have the same
# seeds, the same number of inner steps and the same number of gradient steps. So a
# larger batch does more work here, and does not get fewer steps for it.


# %%
def interval(values, draws=2_000):
    """Mean of values, one a run, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


# %%
BATCHES = [4, 16, 64]
RATES = [0.001, 0.01, 0.1]
SEEDS = 4
policies = {
    (batch, rate): f"static,batch_size={batch},learning_rate={rate}"
    for batch in BATCHES
    for rate in RATES
}
frame = dacrl_env.compare(
    "dacrl/DQN-CartPole-v1",
    {f"{batch} {rate}": text for (batch, rate), text in policies.items()},
    SEEDS,
    budget=4_000,
    feedback="train",
)
judged = frame.dropna(subset="report_score")
area = judged.groupby(["policy", "seed"])["report_score"].mean()
work = frame.groupby(["policy", "seed"])["flops"].last().groupby("policy").mean()

# %%
found = np.array([[interval(area[f"{b} {r}"]) for r in RATES] for b in BATCHES])
for b, batch in enumerate(BATCHES):
    for r, rate in enumerate(RATES):
        mean, low, high = found[b, r]
        print(f"batch {batch:3d}, rate {rate:5.3f}: {mean:.2f} [{low:.2f}, {high:.2f}]")
    best = RATES[found[b, :, 0].argmax()]
    operations = work[f"{batch} {best}"]
    print(f"  best rate of these: {best}; {operations:.1e} operations a run\n")

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
panels[0].loglog(sizes, errors, "o-", label="measured")
panels[0].loglog(sizes, np.sqrt(noise_scale / sizes), "--", label="√(noise scale / B)")
panels[0].axvline(noise_scale, color="grey", linewidth=0.8)
panels[0].set(
    xlabel="batch size B", ylabel="error / length", title="Noise of a gradient"
)
panels[0].legend()
top = found[:, :, 0].max()
image = panels[1].imshow(
    found[:, :, 0], cmap="Blues", vmin=0, vmax=max(top, 0.1), aspect="auto"
)
for b in range(len(BATCHES)):
    for r in range(len(RATES)):
        mean, low, high = found[b, r]
        text = f"{mean:.2f}\n[{low:.2f}, {high:.2f}]"
        colour = "white" if mean > 0.6 * top else "black"
        panels[1].text(r, b, text, ha="center", va="center", color=colour, fontsize=8)
panels[1].set_xticks(range(len(RATES)), [str(rate) for rate in RATES])
panels[1].set_yticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
panels[1].set(
    xlabel="learning rate", ylabel="batch size", title="DQN: area under the curve"
)
figure.colorbar(image, ax=panels[1], label="score")
figure.savefig("02-batch-size.png", dpi=120)

# %% [markdown]
# Look along the rows: is the best rate of a larger batch larger? Look along the
# columns: does a larger batch help at every rate? Then look at the intervals, and say
# which of your answers they allow.
#
# ## How small this was
#
# Four seeds and a coarse grid can show a large effect, and nothing else. The runs are a
# twelfth as long as the task's. The work of a run differs between the rows by what the
# last lines print, so the rows are equal in data and not in cost.
#
# ## Exercises
#
# 1. Make the comparison fair in work: give a batch of 64 a quarter of the gradient
#    steps of a batch of 16. *Hint:* `gradient_steps` is a hyperparameter of this task,
#    too, and can stand in the text after `static,`. Its default is in the table of
#    [tasks](../tasks.md).
# 2. The policy `noise-scale` sets the batch size to the measured noise scale while the
#    run goes on. Which sizes does it choose? *Hint:* it makes a frame with a column
#    `hp/batch_size`; draw it over `env_steps`.
# 3. Does PPO behave as DQN does? *Hint:* the task is `dacrl/PPO-CartPole-v0`, a run
#    needs a multiple of one rollout (`budget=20_480` works), and rates around 0.0003
#    are usual.
#
# ## Sources
#
# - Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour",
#   arXiv 1706.02677.
# - Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient
#   algorithms", NeurIPS.
# - McCandlish et al. 2018, "An empirical model of large-batch training", arXiv
#   1812.06162.
# - Obando-Ceron, Bellemare and Castro 2023, "Small batch deep reinforcement learning",
#   NeurIPS.
