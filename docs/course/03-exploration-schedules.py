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
# # 3. Exploration schedules
#
# **Question.** Should an agent explore as much at the end of a run as at its beginning?
#
# ## Theory
#
# An agent that only does what it believes to be best never learns that it is wrong. An
# agent that acts at random learns about states that a good agent never sees. ε-greedy
# is the simplest compromise: with probability ε the action is drawn at random (Sutton
# and Barto 2018, chapter 2).
#
# Early in a run estimates are poor, so following them is worth little, and exploring
# costs little. Later the estimates are better, and every random action spoils an
# episode. That is the argument for a *schedule*: ε falls from a high value to a low
# one. DQN on Atari let it fall from 1 to 0.1 on a straight line (Mnih et al. 2015).
#
# How much ε is needed depends on the task. Say that a reward is found only by k actions
# in a row that the greedy policy would not take, of n actions each. ε-greedy does that
# with a probability of (ε / n) to the power of k. The next cell prints it.

# %%
import matplotlib.pyplot as plt
import numpy as np

import dacrl_env

# %%
print("mean number of attempts until k unwanted actions of 2 follow each other")
for epsilon in (1.0, 0.5, 0.1, 0.05):
    attempts = (f"k={k}: {(2 / epsilon) ** k:.0e}" for k in (1, 5, 10))
    print(f"  ε = {epsilon:<4}", *attempts, sep="   ")

# %% [markdown]
# So ε-greedy explores what is near, and hardly anything that is far. CartPole needs
# little: the pole falls in all directions by itself. So the experiment can show what
# exploring costs, and hardly what it finds.
#
# ## Experiment
#
# Five ways to set ε, on the same seeds. Reported scores are of greedy episodes, in
# which nothing is random. So they say what a run has learned, and not what exploring
# cost. What it cost is in the returns of the training episodes. In its first 1,000
# steps DQN only fills its replay, and acts at random whatever ε is. So even ε = 0
# explores a little.

# %%
BUDGET, DECISIONS, SEEDS = 6_000, 20, 6
falls = f"start=1.0,end=0.05,fraction=0.5,decisions={DECISIONS}"
policies = {
    "0": "static,epsilon=0",
    "0.2": "static,epsilon=0.2",
    "1": "static,epsilon=1",
    "linear, 1 to 0.05": f"linear,hyperparameter=epsilon,{falls}",
    "exponential, 1 to 0.05": f"exponential,hyperparameter=epsilon,{falls}",
}
frame = dacrl_env.compare(
    "dacrl/DQN-CartPole-v1", policies, SEEDS, budget=BUDGET, feedback="train"
)
judged = frame.dropna(subset="report_score")


# %%
def interval(values, draws=2_000):
    """Mean of values, one a run, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


area = judged.groupby(["policy", "seed"])["report_score"].mean()
print("area under the learning curve, and its difference to the first row")
for name in policies:
    mean, low, high = interval(area[name])
    gain, least, most = interval(area[name] - area["0"])
    print(
        f"  {name:23} {mean:.2f} [{low:.2f}, {high:.2f}]"
        f"   {gain:+.2f} [{least:+.2f}, {most:+.2f}]"
    )

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for name in policies:
    of_it = frame[frame["policy"] == name]
    decided = of_it.dropna(subset="train_return").groupby("env_steps")
    applied = of_it.groupby("env_steps")["hp/epsilon"].mean().dropna()
    scores = (
        judged[judged["policy"] == name].groupby("env_steps")["report_score"].mean()
    )
    panels[0].step(applied.index, applied, where="pre", label=name)
    panels[1].plot(decided["train_return"].mean())
    panels[2].plot(scores)
panels[0].set(title="ε", xlabel="inner steps")
panels[1].set(title="Return of training episodes", xlabel="inner steps")
panels[2].set(title="Report score, greedy", xlabel="inner steps", ylim=(0, 1.05))
panels[0].legend(fontsize=8)
figure.savefig("03-exploration-schedules.png", dpi=120)

# %% [markdown]
# Compare the two panels on the right. A policy can learn well and still earn little
# while it learns. Which of both you care about is a matter of the *objective*, the
# subject of [notebook 7](07-objectives.py).
#
# ## How small this was
#
# Means of six runs hide how much single runs jump. The learning rate of this task was
# tuned at a constant ε, so it suits that ε better than any schedule. A schedule has its
# own numbers to tune: start, end and length. A fair comparison tunes each of the five
# at the same cost.
#
# ## Exercises
#
# 1. Draw the single runs of one policy instead of their mean. *Hint:* group by `seed`.
# 2. Let ε fall over the whole run, or over a tenth of it. Where do the curves differ?
#    *Hint:* `fraction` is the share of the run after which the end value holds.
# 3. On a task where a reward lies far away, holding a random action for some steps
#    helps (Dabney, Ostrovski and Barreto 2021). Try it on `dacrl/DQN-MountainCar-v0`.
#    *Hint:* `static,exploration=ez-greedy` sets it, the runs have to be longer, and one
#    run of the task takes a few seconds.
#
# ## Sources
#
# - Dabney, Ostrovski and Barreto 2021, "Temporally-extended ε-greedy exploration",
#   ICLR.
# - Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature
#   518.
# - Sutton and Barto 2018, "Reinforcement learning: an introduction", second edition,
#   MIT Press.
