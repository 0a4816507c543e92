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
# # 4. Search: grid, random, Hyperband
#
# **Question.** Some training steps may be spent on finding a configuration. On which
# candidates should they be spent, and on how much of each?
#
# ## Theory
#
# A search tries *candidates*. Its *tuning budget* is the number of inner training steps
# that it may use in all.
#
# **Which candidates.** A grid of n candidates over d hyperparameters has only n to the
# power of 1/d values of each. If just one of them matters, the others waste the grid.
# Random candidates have n different values of each (Bergstra and Bengio 2012). The next
# cell draws that.
#
# **How much of each.** Most candidates look poor early. *Successive halving* trains
# many candidates a little, goes on with the best third, trains these three times as
# long, and so on (Jamieson and Talwalkar 2016). That fails if good candidates start
# slowly. Nobody knows that beforehand, so *Hyperband* hedges: it runs several such
# *brackets*, from many candidates that are stopped early to few that are never stopped
# (Li et al. 2018).

# %%
import matplotlib.pyplot as plt
import numpy as np

import dacrl_env

# %%
generator = np.random.default_rng(3)
axis = (np.arange(3) + 0.5) / 3
grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
drawn = generator.random((9, 2))
for name, points in (("grid", grid), ("random", drawn)):
    values = len(np.unique(points[:, 0]))
    print(f"{name}: {len(points)} candidates, {values} values of each hyperparameter")

# %% [markdown]
# ## Three searches at one tuning budget
#
# The noisy quadratic has one hyperparameter, and its runs take no time. So each method
# can be *fitted* many times: each fit has a random stream of its own, spends the same
# budget, and returns a configuration. That is then tested on fresh seeds. A run has 50
# steps. The budget pays for 40 complete runs.
#
# Every candidate trains on four seeds. `seeds=4` says so, and is paid from the budget.


# %%
def interval(values, draws=2_000):
    """Mean of values, one a fit, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


FITS, RUN = 10, 50
methods = {
    name: f"{name},seeds=4,space={{'learning_rate': (1e-3, 1e1)}}"
    for name in ("grid-search", "random-search", "hyperband")
}
frame = dacrl_env.compare(
    "dacrl/NoisyQuadratic-v0",
    ["default"],
    seeds=16,
    methods=methods,
    tuning_budget=40 * RUN,
    runs=FITS,
    decision_interval=5,
)
judged = frame.dropna(subset="report_score")
final = judged.groupby(["policy", "run", "seed"])["report_score"].last()
of_fits = final.groupby(["policy", "run"]).mean()
print(f"score on test runs; mean and interval over {FITS} fits")
for name in methods:
    mean, low, high = interval(of_fits[name])
    print(f"  {name:14} {mean:.3f} [{low:.3f}, {high:.3f}]")
print(f"  the default, which took no search: {of_fits['default'].mean():.3f}")

# %% [markdown]
# The default was set by people who know the best rate of this task. A search begins
# without that knowledge, so it has to find again what they knew.
#
# The unit here is the fit, and not the test run. A method is judged by what it finds on
# average, so fits are what the interval resamples.
#
# ## Hyperband on DQN
#
# Now one fit of Hyperband on CartPole, to see its brackets. Three hyperparameters are
# searched: learning rate, ε and batch size. The frame `trace` has a row for each run
# and decision, and says which run each one goes on from. So we can draw every run as
# far as it came.

# %%
RUN = 4_000
fitted = dacrl_env.fit(
    "dacrl/DQN-CartPole-v1",
    "hyperband",
    tuning_budget=8 * RUN,
    seed=0,
    run_budget=RUN,
    eval_episodes=3,
)
trace = fitted.trace
print("found:", {name: float(f"{x:.3g}") for name, x in fitted.policy.config.items()})
print(f"cost: {fitted.cost.env_steps:,} training steps, of {8 * RUN:,}")
for bracket, rows in trace.groupby("generation"):
    alive = rows.groupby("step").size()
    rungs = alive[alive != alive.shift(-1)]  # where some were given up, and the end
    course = ", ".join(f"{n} to decision {step}" for step, n in rungs.items())
    print(f"bracket {bracket}: {course}")

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
panels[0].plot(*grid.T, "s", label="grid")
panels[0].plot(*drawn.T, "o", label="random")
panels[0].plot(grid[:, 0], np.full(9, -0.06), "|", color="C0", markersize=12)
panels[0].plot(drawn[:, 0], np.full(9, -0.12), "|", color="C1", markersize=12)
panels[0].set(xlabel="a hyperparameter that matters", ylabel="one that does not")
panels[0].set_title("Nine candidates")
panels[0].set_ylim(top=1.3)  # room for the legend
panels[0].legend(loc="upper right", ncols=2, fontsize=8)

found = np.array([interval(of_fits[name]) for name in methods])
mean, low, high = found.T
for k, name in enumerate(methods):
    spread = np.linspace(-0.2, 0.2, FITS)
    panels[1].plot(k + spread, of_fits[name], ".", color="grey", alpha=0.6)
panels[1].errorbar(
    range(len(methods)), mean, (mean - low, high - mean), fmt="o", capsize=3
)
panels[1].set_xticks(range(len(methods)), [name.replace("-", "\n") for name in methods])
panels[1].set(ylabel="test score", title="Noisy quadratic, a point a fit")

for bracket, rows in trace.groupby("generation"):
    scores = rows.set_index(["step", "member"])["score"]
    for row in rows.itertuples():
        if row.step > 1:
            before = scores[row.step - 1, row.parent]
            steps = [row.step - 1, row.step]
            panels[2].plot(steps, [before, row.score], color=f"C{bracket}", linewidth=1)
    panels[2].plot([], color=f"C{bracket}", label=f"bracket {bracket}")
panels[2].set(xlabel="decision", ylabel="observed score", title="Hyperband on DQN")
panels[2].legend(fontsize=8)
figure.savefig("04-search-and-hyperband.png", dpi=120)

# %% [markdown]
# In the panel on the right, curves end where a candidate was given up. Ask of each
# bracket: would another candidate have won, had it been trained to the end?
#
# ## How small this was
#
# One hyperparameter is where a grid is at its best, so the middle panel does not repeat
# what the left one says. The search on DQN is one fit, of which no interval can be
# given: it shows how Hyperband works, and not how well. The budget is that of eight
# runs, where studies use hundreds.
#
# ## Exercises
#
# 1. Test what was found: compare `fitted` with `"default"` on eight seeds, with
#    `budget=4_000`, the run budget of the fit. *Hint:* `compare` takes a mapping of
#    labels to policies, and a fit is a policy.
# 2. Are early scores a guide to late ones? *Hint:* fit `random-search` on DQN, take the
#    scores of its trace at decisions 2, 7 and 20, and rank-correlate them
#    (`frame.corr(method="spearman")`).
# 3. Give the three methods the budget of 100 runs. Which gains most? *Hint:* change one
#    number, and think of what the four seeds of each candidate limit.
#
# ## Sources
#
# - Bergstra and Bengio 2012, "Random search for hyper-parameter optimization", JMLR 13.
# - Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and
#   hyperparameter optimization", AISTATS.
# - Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter
#   optimization", JMLR 18.
