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
# # 8. PBT, dynamic configuration, meta-gradients
#
# **Question.** Is it worth changing hyperparameters while a run goes on, and who should
# do it?
#
# ## Theory
#
# There are three kinds of answers, by what they may look at:
#
# - a **static configuration** looks at nothing;
# - a **schedule** looks at time;
# - a **rule** or a learned controller looks at the state of the run.
#
# Each kind contains the one before, so the best of each kind is at least as good.
# Whether it is better by enough depends on the task. *Dynamic algorithm configuration*
# treats the third kind as a problem of reinforcement learning: a policy observes the
# run and sets hyperparameters (Biedenkapp et al. 2020; Adriaensen et al. 2022).
#
# Two other ways change values within a run. *Population-based training* lets bad runs
# of a population go on from copies of good ones, with values changed a little
# (Jaderberg et al. 2017). *Meta-gradients* differentiate what an update achieves with
# respect to its hyperparameters, and move these along the gradient (Xu, van Hasselt and
# Silver 2018). The first ends in a schedule. The second is a rule.

# %%
import matplotlib.pyplot as plt
import numpy as np

import dacrl_env


# %%
def interval(values, draws=2_000):
    """Mean of values, one a run, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


# %% [markdown]
# ## Where the best of each kind is known
#
# On the noisy quadratic the best static rate, the best schedule and the best possible
# rule were computed in advance. That rule sees the hidden curvature h, noise σ and mean
# square distance v, and takes the step α = h v / (h² v + σ²). It follows from the
# expected loss after one step, ½ h ((1 − α h)² v + α² σ²), whose derivative in α it
# sets to zero.

# %%
kinds = {
    kind: f"dacrl_env.baselines.quadratic:{name}"
    for kind, name in (
        ("static", "BestStatic"),
        ("schedule", "BestSchedule"),
        ("rule", "Optimal"),
    )
}
frame = dacrl_env.compare("dacrl/NoisyQuadratic-v0", kinds, 64)
judged = frame.dropna(subset="report_score")
final = judged.groupby(["policy", "seed"])["report_score"].last()
for kind in kinds:
    mean, low, high = interval(final[kind])
    gain, least, most = interval(final[kind] - final["static"])
    print(
        f"{kind:9} {mean:.2f} [{low:.2f}, {high:.2f}]   "
        f"beyond static, paired: {gain:+.2f} [{least:+.2f}, {most:+.2f}]"
    )

# %% [markdown]
# Here the rule has much to gain, since each run has a curvature of its own. That is how
# the task was made. Deep RL does not tell us in advance.
#
# ## Population-based training of DQN
#
# Eight runs train side by side. After every second decision the worst quarter copies
# the best quarter, networks and hyperparameters, and changes the copied values. What
# comes out is the *lineage* of the winner: the values that were applied to it and to
# those it descends from. That is a schedule, which can be applied to fresh runs.

# %%
RUN, POPULATION = 4_000, 8
fitted = dacrl_env.fit(
    "dacrl/DQN-CartPole-v1",
    f"pbt,population={POPULATION},interval=2",
    tuning_budget=POPULATION * RUN,
    seed=0,
    run_budget=RUN,
    eval_episodes=3,
)
trace = fitted.trace
copies = int((trace["parent"] != trace["member"]).sum())
print(f"{copies} copies in {trace['step'].max()} decisions")

# %% [markdown]
# ## Meta-gradients, a rule, and all of them on fresh runs
#
# The policy `meta-gradients` starts from a learning rate that is far too small, so that
# there is something to find. It looks at a batch, makes the update in thought, measures
# the loss on another batch, and differentiates through both. That is greedy: it
# improves the next update, and not the run. Greedy choices prefer rates that are too
# small (Wu et al. 2018), so a first look should go to where the rate ends.
#
# `freeze-when-good` is the simplest rule: it all but stops learning while the score is
# high. A controller that learns should beat it.

# %%
SEEDS, LOW = 4, 3e-4
policies = {
    "default": "default",
    "too small": f"static,learning_rate={LOW}",
    "PBT's lineage": fitted,
    "meta-gradients": f"meta-gradients,meta_step=0.3,decisions=20,learning_rate={LOW}",
    "freeze-when-good": "freeze-when-good,threshold=0.9",
}
frame = dacrl_env.compare(
    "dacrl/DQN-CartPole-v1", policies, SEEDS, budget=RUN, eval_episodes=3
)
judged = frame.dropna(subset="report_score")
area = judged.groupby(["policy", "seed"])["report_score"].mean()
for name in policies:
    mean, low, high = interval(area[name])
    gain, least, most = interval(area[name] - area["default"])
    print(
        f"{name:17} {mean:.2f} [{low:.2f}, {high:.2f}]   "
        f"beyond the default, paired: {gain:+.2f} [{least:+.2f}, {most:+.2f}]"
    )
print(f"PBT used {fitted.cost.env_steps:,} training steps before its first test run.")

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
scores = trace.set_index(["step", "member"])["score"]
for row in trace.itertuples():
    if row.step > 1:
        before = scores[row.step - 1, row.parent]
        copied = row.parent != row.member
        panels[0].plot(
            [row.step - 1, row.step],
            [before, row.score],
            color="C3" if copied else "grey",
            linewidth=1.5 if copied else 0.8,
        )
panels[0].plot([], color="C3", label="goes on from a copy")
panels[0].set(xlabel="decision", ylabel="observed score", title="The population of PBT")
panels[0].legend(fontsize=8)
for name in policies:
    mine = frame[frame["policy"] == name]
    colour = panels[2].plot([], label=name)[0].get_color()
    for _, run in mine.dropna(subset="hp/learning_rate").groupby("seed"):
        rate = run.set_index("env_steps")["hp/learning_rate"]
        panels[1].plot(rate, drawstyle="steps-pre", color=colour, alpha=0.5)
    of_it = judged[judged["policy"] == name]
    panels[2].plot(of_it.groupby("env_steps")["report_score"].mean(), color=colour)
panels[1].set(yscale="log", xlabel="inner steps", title="Learning rate, a line a run")
panels[2].set(
    xlabel="inner steps", ylabel="report score", title="Test runs", ylim=(0, 1.05)
)
panels[2].legend(fontsize=8)
figure.savefig("08-dynamic-configuration.png", dpi=120)

# %% [markdown]
# ## How small this was
#
# One fit of PBT, with eight members, says nothing about PBT in general: another seed
# finds another lineage. PBT had more steps than the rest, and whoever compares methods
# has to give each the same. The lineage was made on runs that were selected among
# eight, and selection is part of what it reached there. Four test seeds can show large
# differences alone. What was measured with more is on the page [what dynamics are
# worth](../dynamics.md).
#
# ## Exercises
#
# 1. Fit PBT with three other seeds. How different are the lineages, and their test
#    scores? *Hint:* `compare` takes `methods=["pbt,population=8,interval=2"]` and
#    `runs`.
# 2. What is the schedule worth, and what the population? *Hint:* compare the lineage
#    with a static configuration of its median values.
# 3. Write a rule of your own, such as one that halves the learning rate after a fall of
#    the score. *Hint:* [a policy of your own](../own-policy.md) has a class to start
#    from.
#
# ## Sources
#
# - Adriaensen et al. 2022, "Automated dynamic algorithm configuration", JAIR 75.
# - Biedenkapp et al. 2020, "Dynamic algorithm configuration: foundation of a new
#   meta-algorithmic framework", ECAI.
# - Jaderberg et al. 2017, "Population based training of neural networks", arXiv
#   1711.09846.
# - Wu et al. 2018, "Understanding short-horizon bias in stochastic meta-optimization",
#   ICLR.
# - Xu, van Hasselt and Silver 2018, "Meta-gradient reinforcement learning", NeurIPS.
