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
# # 5. How many seeds
#
# **Question.** Two configurations were run on a few seeds, and one has the higher mean.
# Is it better?
#
# ## Theory
#
# A *seed* decides all that is random in a run. Runs of one configuration on several
# seeds differ, often by more than two configurations do (Henderson et al. 2018). The
# mean of n runs has a standard error of s / √n, where s is the standard deviation over
# runs. Half the error takes four times the runs.
#
# Three things make few runs go further:
#
# - **Intervals** instead of points. They say what the data allow (Agarwal et al. 2021).
# - **Pairing.** If both configurations have the same seeds, what is easy or hard about
#   a seed falls out of the difference. The variance of the difference is the sum of
#   both variances minus twice their covariance.
# - **Planning.** The *power* of an experiment is the probability that it finds a
#   difference that is there. It should be computed before, and not after (Colas, Sigaud
#   and Oudeyer 2018).

# %%
import matplotlib.pyplot as plt
import numpy as np

import dacrl_env

# %% [markdown]
# ## Where the truth is known
#
# On the noisy quadratic a run takes no time, so we can have hundreds of them. Their
# mean is nearly the truth. Then we pretend to have only n seeds, many times, and see
# how often that would have misled us.

# %%
MANY = 512
rates = {"a": "static,learning_rate=0.1", "b": "static,learning_rate=0.06"}
frame = dacrl_env.compare("dacrl/NoisyQuadratic-v0", rates, MANY, decision_interval=10)
final = (
    frame.dropna(subset="report_score")
    .groupby(["policy", "seed"])["report_score"]
    .last()
)
a, b = final["a"].to_numpy(), final["b"].to_numpy()
print(
    f"mean of a {a.mean():.3f}, of b {b.mean():.3f}; difference {(a - b).mean():+.3f}"
)
print(f"standard deviation over runs: a {a.std():.3f}, b {b.std():.3f}")
print(f"of the paired difference: {(a - b).std():.3f}")
print(f"correlation of a and b over seeds: {np.corrcoef(a, b)[0, 1]:.2f}")

# %%
SIZES = [2, 3, 5, 10, 20, 50, 100]
generator = np.random.default_rng(0)
better = np.sign((a - b).mean())


def wrong_and_power(n, repeats=2_000):
    """Of experiments with n seeds: how often the means are in the wrong order, and how
    often a 95 % interval excludes zero, unpaired and paired."""
    first = generator.integers(MANY, size=(repeats, n))
    second = generator.integers(MANY, size=(repeats, n))
    outcomes = []
    for others in (second, first):  # other seeds for b, then the same seeds
        x, y = a[first], b[others]
        difference = (x - y).mean(axis=1)
        if others is first:
            error = (x - y).std(axis=1, ddof=1) / np.sqrt(n)
        else:
            error = np.sqrt((x.var(axis=1, ddof=1) + y.var(axis=1, ddof=1)) / n)
        wrong = (np.sign(difference) != better).mean()
        outcomes += [wrong, (np.abs(difference) > 2 * error).mean()]
    return outcomes


table = np.array([wrong_and_power(n) for n in SIZES])
print("seeds   wrong order: unpaired paired   interval without zero: unpaired paired")
for n, (wrong, power, wrong_paired, power_paired) in zip(SIZES, table, strict=True):
    print(f"{n:5d} {wrong:22.1%} {wrong_paired:6.1%} {power:32.1%} {power_paired:6.1%}")

# %% [markdown]
# An interval of two standard errors is meant for many runs. With two or three of them
# it is too narrow, so the first rows of the last columns look better than they are. A
# *t* interval would correct that.
#
# ## A deep RL algorithm
#
# There nobody knows the truth. DQN on CartPole, two learning rates, on the same seeds.

# %%
SEEDS = 20
frame = dacrl_env.compare(
    "dacrl/DQN-CartPole-v1",
    {"0.03": "static,learning_rate=0.03", "0.01": "static,learning_rate=0.01"},
    SEEDS,
    budget=4_000,
    feedback="train",
)
area = (
    frame.dropna(subset="report_score")
    .groupby(["policy", "seed"])["report_score"]
    .mean()
)
difference = (area["0.03"] - area["0.01"]).to_numpy()


def interval(values, draws=2_000):
    """Mean of values, one a run, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


growing = np.array([interval(difference[:n]) for n in range(3, SEEDS + 1)])
mean, low, high = growing[-1]
print(f"difference in area, {SEEDS} seeds: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
decided = "excludes" if low > 0 or high < 0 else "includes"
print(f"the interval {decided} zero")
needed = int(np.ceil((2 * difference.std(ddof=1) / 0.05) ** 2))
print(f"seeds for an interval of about ±0.05: {needed}")

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
panels[0].plot(SIZES, table[:, 0], "o-", label="other seeds")
panels[0].plot(SIZES, table[:, 2], "o-", label="paired")
panels[0].set(title="Means in the wrong order", ylabel="share of experiments")
panels[1].plot(SIZES, table[:, 1], "o-", label="other seeds")
panels[1].plot(SIZES, table[:, 3], "o-", label="paired")
panels[1].set(title="Interval without zero", ylim=(0, 1.05))
for panel in panels[:2]:
    panel.set(xscale="log", xlabel="seeds")
    panel.legend()
n = np.arange(3, SEEDS + 1)
panels[2].fill_between(n, growing[:, 1], growing[:, 2], alpha=0.3)
panels[2].plot(n, growing[:, 0])
panels[2].axhline(0, color="grey", linewidth=0.8)
panels[2].set(title="DQN: 0.03 minus 0.01", xlabel="seeds so far", ylabel="area")
figure.savefig("05-how-many-seeds.png", dpi=120)

# %% [markdown]
# The panel on the right shows a trap. Whoever looks after every seed and stops when the
# interval excludes zero will find differences that are not there. The number of seeds
# is chosen before.
#
# ## How small this was
#
# The first part is exact only up to the hundreds of runs it draws from. The quadratic
# has no rare failures, which deep RL has, and a mean of few runs does not show them. In
# the second part the interval is all there is.
#
# ## Exercises
#
# 1. Make the two rates of the first part nearly equal. How many seeds does the right
#    order now take? *Hint:* 0.1 and 0.11.
# 2. Give both the same rate. How often does an interval exclude zero by chance? *Hint:*
#    two policies with the same text have the same runs on the same seeds, so compare
#    one half of the seeds with the other.
# 3. Replace the mean by the interquartile mean, the mean of the middle half. Does it
#    need fewer seeds? *Hint:* sort along the last axis and cut a quarter at each end.
#
# ## Sources
#
# - Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
#   precipice", NeurIPS.
# - Colas, Sigaud and Oudeyer 2018, "How many random seeds? Statistical power analysis
#   in deep reinforcement learning experiments", arXiv 1806.08295.
# - Henderson et al. 2018, "Deep reinforcement learning that matters", AAAI.
