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
# # 6. Search spaces and importance
#
# **Question.** Which hyperparameters are worth searching, and over which ranges?
#
# ## Theory
#
# A *search space* says which hyperparameters are searched, between which values, and on
# which scale. It is a decision of ours, and often matters more than the method.
#
# - **Scale.** What acts by its order of magnitude, such as a learning rate, is drawn on
#   a log scale. A discount γ acts by 1 / (1 − γ), the number of steps it looks ahead,
#   so it is drawn on a log scale of 1 − γ.
# - **Range.** A range that is too narrow misses the optimum. One that is too wide makes
#   most candidates useless.
# - **Which.** Each further hyperparameter dilutes the search. Usually few of them
#   explain most of the differences (Bergstra and Bengio 2012).
#
# *Importance* measures that. Say that candidates are drawn at random, and their scores
# have some variance. The *main effect* of a hyperparameter is the share of the variance
# that remains if we average over all others. That is the first term of a functional
# analysis of variance, fANOVA (Hutter, Hoos and Leyton-Brown 2014). What a main effect
# does not show are *interactions*, where the best value of one depends on another.

# %%
import importlib.util

import matplotlib.pyplot as plt
import numpy as np

import dacrl_env

# %% [markdown]
# ## What a scale does
#
# The range of learning rates is 1e-6 to 0.1. The cell counts which share of the draws
# falls into each decade, on both scales.

# %%
generator = np.random.default_rng(0)
low, high = 1e-6, 1e-1
draws = {
    "linear": generator.uniform(low, high, 10_000),
    "log": 10 ** generator.uniform(np.log10(low), np.log10(high), 10_000),
}
for scale, values in draws.items():
    counts = np.histogram(np.log10(values), bins=np.arange(-6, 0))[0]
    shares = (f"from 1e{k - 6}: {n / len(values):.1%}" for k, n in enumerate(counts))
    print(f"{scale:6}", *shares, sep="   ")

# %% [markdown]
# ## A random search over six hyperparameters
#
# Each candidate is one run on one seed, the same for all. `trace` has a row for each
# run and decision. The last row of a run has its final observed score. Its mean over
# the decisions is an area, and has less noise.

# %%
NAMES = ["learning_rate", "epsilon", "batch_size", "gamma", "n_step", "tau"]
RUN, CANDIDATES = 3_000, 40
fitted = dacrl_env.fit(
    "dacrl/DQN-CartPole-v1",
    "random-search,objective='auc'",
    tuning_budget=CANDIDATES * RUN,
    seed=0,
    run_budget=RUN,
    hyperparameters=NAMES,
    eval_episodes=3,
)
runs = fitted.trace.groupby(["generation", "member"])
table = runs[[f"hp/{name}" for name in NAMES]].last()
table.columns = NAMES
score = runs["score"].mean().to_numpy()
print(f"{len(score)} candidates; scores from {score.min():.2f} to {score.max():.2f}")

# %% [markdown]
# ## Main effects
#
# We cut the range of each hyperparameter into three parts, on its own scale, with
# equally many candidates in each. The variance of the three mean scores, as a share of
# the whole variance, estimates the main effect.
#
# Such a share is never zero, even of a hyperparameter that does nothing: three means of
# noise differ, too. So we shuffle the scores and see what chance gives. Bars that are
# not above the line of chance say nothing.

# %%
PARTS = 3


def main_effect(values, scores):
    """Share of the variance of scores that parts of a range explain."""
    order = np.argsort(values, kind="stable")
    parts = np.array_split(scores[order], PARTS)
    means = np.concatenate([np.full(len(part), part.mean()) for part in parts])
    return means.var() / scores.var()


effects, lows, highs = [], [], []
for name in NAMES:
    values = table[name].to_numpy(dtype=float)
    resampled = []
    for _ in range(500):
        chosen = generator.integers(len(score), size=len(score))
        resampled.append(main_effect(values[chosen], score[chosen]))
    effects.append(main_effect(values, score))
    lows.append(np.percentile(resampled, 2.5))
    highs.append(np.percentile(resampled, 97.5))
values = table[NAMES[0]].to_numpy(dtype=float)
chance = np.percentile(
    [main_effect(values, generator.permutation(score)) for _ in range(2_000)], 95
)
print(f"95 % of shuffled scores give less than {chance:.2f}")
for name, effect, least, most in zip(NAMES, effects, lows, highs, strict=True):
    verdict = "above chance" if effect > chance else "not told from chance"
    print(f"  {name:14} {effect:.2f} [{least:.2f}, {most:.2f}]  {verdict}")
print(f"sum of the main effects: {sum(effects):.2f}")

# %% [markdown]
# Resampled candidates contain some twice, which makes shares larger. So the intervals
# lie too high, and the line of chance is the better guide.
#
# Optuna has better estimators. PED-ANOVA (Watanabe, Bansal and Hutter 2023) asks
# another question: which hyperparameters tell the best candidates from the rest? The
# runs of a fit become a study of Optuna by `to_study`.

# %%
if importlib.util.find_spec("optuna") is None:
    print("for PED-ANOVA: pip install 'dacrl-env[optuna]'")
else:
    import warnings

    import optuna

    from dacrl_env.integrations.optuna import to_study

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = to_study(fitted, seed=0, objective="auc")
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    for name, share in found.items():
        print(f"  {name:20} {share:.2f}")

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for scale, values in draws.items():
    panels[0].hist(np.log10(values), bins=30, alpha=0.6, label=f"{scale} scale")
panels[0].set(xlabel="log10 of the learning rate", title="10,000 draws")
panels[0].legend(fontsize=8)
panels[1].barh(NAMES[::-1], effects[::-1])
panels[1].axvline(chance, color="black", linestyle="--", label="chance (95 %)")
panels[1].set(xlabel="share of the variance", title="Main effects")
panels[1].legend(fontsize=8)
most = NAMES[int(np.argmax(effects))]
panels[2].plot(table[most], score, "o", alpha=0.6)
if most in ("learning_rate", "tau", "batch_size"):
    panels[2].set_xscale("log")
panels[2].set(xlabel=most, ylabel="area", title="The one with the largest effect")
figure.savefig("06-search-spaces-and-importance.png", dpi=120)

# %% [markdown]
# ## How small this was
#
# One seed a candidate means that part of the variance is luck, which no hyperparameter
# explains. Three parts of a range are a coarse cut. And importance is that *of this
# space*: if a range is narrowed to good values, its hyperparameter becomes unimportant.
# Runs of a sixteenth of the usual length favour what learns fast.
#
# ## Exercises
#
# 1. Narrow the learning rate to good values and repeat. What happens to the effects of
#    the others? *Hint:* a `dacrl_env.Number` in place of a name gives a range, as in
#    `dacrl_env.Number("learning_rate", 0.01, 0.1, 0.03, "log")`.
# 2. Find an interaction. *Hint:* cut two hyperparameters into two parts each, and
#    compare the four means with the sum of the two main effects.
# 3. Let `tpe` choose the candidates, a method that learns from scores, and compute the
#    effects again. Can they be trusted? *Hint:* write `tpe` for `random-search`, and
#    look at where its candidates lie.
#
# ## Sources
#
# - Bergstra and Bengio 2012, "Random search for hyper-parameter optimization", JMLR 13.
# - Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing
#   hyperparameter importance", ICML.
# - Watanabe, Bansal and Hutter 2023, "PED-ANOVA: efficiently quantifying hyperparameter
#   importance in arbitrary subspaces", IJCAI.
