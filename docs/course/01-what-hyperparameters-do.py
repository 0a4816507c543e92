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
# # 1. What hyperparameters do
#
# **Question.** One number of a training run is changed, the learning rate. How much
# does the result change?
#
# ## Theory
#
# *Parameters* are what an agent learns: the weights of its networks. *Hyperparameters*
# are what we set: learning rate, batch size, exploration. In reinforcement learning
# they have one more effect than elsewhere. The agent makes its own data. So a
# hyperparameter changes how it learns, and through that what it learns from.
#
# The smallest model of learning is gradient descent on a parabola, ½ h θ², where h is
# its curvature. A step of size α makes the new θ equal to (1 − α h) θ. Three things can
# happen:
#
# - α is far below 1 / h: each step changes little, and learning is slow.
# - α is near 1 / h: learning is fast.
# - α is above 2 / h: each step goes too far, θ grows, and the run diverges.
#
# Real gradients are noisy, which adds a cost. Near the optimum the loss then stays at a
# level that grows with α (Schaul, Zhang and LeCun 2013). A good rate is a compromise
# between speed and noise.
#
# That hyperparameters decide what a deep RL algorithm reaches was shown many times
# (Henderson et al. 2018; Eimer, Lindauer and Raileanu 2023).

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np

import dacrl_env

# %% [markdown]
# ## One run
#
# In `dacrl_env` one outer episode is one complete training run. The task below is
# gradient descent on a noisy parabola. Each run draws a curvature and a noise, and
# shows them to nobody. A score of 0 is that of untrained parameters. A score of 1 is
# what the best possible learning rates reach on average. A score below 0 is worse than
# no training.

# %%
env = gym.make("dacrl/NoisyQuadratic-v0", action_mode="values")
env.reset(seed=0)
ended = False
while not ended:
    action = env.unwrapped.to_action({"learning_rate": 0.1})
    _, _, ended, _, info = env.step(action)
print(f"score {info['score']:.3f} after {info['env_steps']} gradient steps")

# %% [markdown]
# ## Many runs
#
# One run tells little, because it has its own luck. `compare` runs several settings on
# the same seeds, so that all of them meet the same luck. A mean then needs an interval.
# The bootstrap makes one (Efron 1979): draw as many runs as there are, with
# replacement, take their mean, and do so a few thousand times. The middle 95 % of these
# means are the interval.


# %%
def interval(values, draws=2_000):
    """Mean of values, one a run, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


def sweep(task, rates, seeds, **options):
    """Mean final score and its interval for each learning rate."""
    policies = {f"{rate:g}": f"static,learning_rate={rate}" for rate in rates}
    frame = dacrl_env.compare(task, policies, seeds, **options)
    judged = frame.dropna(subset="report_score")
    final = judged.groupby(["policy", "seed"])["report_score"].last()
    return np.array([interval(final[name]) for name in policies])


# %%
QUADRATIC_RATES = np.geomspace(1e-3, 10, 9)
quadratic = sweep("dacrl/NoisyQuadratic-v0", QUADRATIC_RATES, 32, decision_interval=10)

# %% [markdown]
# The same with a deep RL algorithm: DQN (Mnih et al. 2015) on CartPole. A score of 0 is
# that of random actions, and 1 is the highest return there is. Runs are cut to 5,000
# steps, so that this page stays short. During the first 1,000 of them DQN only fills
# its replay. `feedback="train"` leaves out the evaluations that a policy could look at,
# since these policies look at nothing.

# %%
DQN_RATES = [1e-4, 1e-3, 1e-2, 1e-1]
SEEDS = 5
dqn = sweep("dacrl/DQN-CartPole-v1", DQN_RATES, SEEDS, budget=5_000, feedback="train")

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for panel, title, rates, found in (
    (panels[0], "SGD on a noisy quadratic", QUADRATIC_RATES, quadratic),
    (panels[1], "DQN on CartPole", DQN_RATES, dqn),
):
    mean, low, high = found.T
    panel.errorbar(rates, mean, (mean - low, high - mean), marker="o", capsize=3)
    panel.set(xscale="log", xlabel="learning rate", ylabel="final score", title=title)
    panel.grid(alpha=0.3)
figure.savefig("01-what-hyperparameters-do.png", dpi=120)

# %%
for title, rates, found in (
    ("noisy quadratic", QUADRATIC_RATES, quadratic),
    ("DQN on CartPole", DQN_RATES, dqn),
):
    print(title)
    for rate, (mean, low, high) in zip(rates, found, strict=True):
        print(f"  learning rate {rate:8.4f}: score {mean:6.2f} [{low:.2f}, {high:.2f}]")
    best, worst = found[:, 0].argmax(), found[:, 0].argmin()
    print(f"  best of these: {rates[best]:g}; worst of these: {rates[worst]:g}\n")

# %% [markdown]
# Read the figure with the three cases of the theory in mind. Where is learning slow,
# where is it fast, where does it go too far? Note that the horizontal axis is
# logarithmic: neighbours on it differ by a factor.
#
# ## How small this was
#
# Few seeds and short runs make wide intervals. Rates whose intervals overlap widely are
# not told apart here. Only one hyperparameter moved, and the others stayed at values
# that were tuned for runs ten times as long. [Notebook 5](05-how-many-seeds.py) is
# about how many seeds a claim needs.
#
# ## Exercises
#
# 1. Sweep another hyperparameter of DQN, such as `gamma` or `tau`. *Hint:* `dacrl list
#    knobs dqn` shows names and ranges. Write them into the text after `static,`.
# 2. Does the best rate of the quadratic change if runs have 200 steps instead of 50?
#    *Hint:* `budget=200` is an option of `sweep`, as it is of `compare`. What does the
#    theory say about long runs and noise?
# 3. Replace the mean by the worst run in `interval`. Is the best rate still the same?
#    *Hint:* think of who uses the result, somebody who trains once or a hundred times.
#
# ## Sources
#
# - Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics
#   7.
# - Eimer, Lindauer and Raileanu 2023, "Hyperparameters in reinforcement learning and
#   how to tune them", ICML.
# - Henderson et al. 2018, "Deep reinforcement learning that matters", AAAI.
# - Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature
#   518.
# - Schaul, Zhang and LeCun 2013, "No more pesky learning rates", ICML.
