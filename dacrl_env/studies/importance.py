"""How much each knob matters, from the candidates of a search, as Optuna has it.

PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: efficiently quantifying
hyperparameter importance in arbitrary subspaces", IJCAI): how far the distribution of
each knob among the best tenth of candidates lies from that among all. It says which
knobs tell good configurations from others, not how much a score changes.

fANOVA (Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing
hyperparameter importance", ICML): how much of the variance of the score over the whole
space a random forest, fitted to the candidates, gives to each knob alone, as a share of
the main effects: of the sum over knobs. What knobs do together, their interactions, is
in no share.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.methods.search import quiet
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Knob, Number

LEAST = 20  # candidates, below which nothing is said
BEST = 0.1  # share of the candidates that are told from all,
FEWEST = 5  # … but at least so many
EVALUATORS = ("fanova", "ped-anova")
TREES = 64  # of fANOVA's forest, as Optuna has them
FIELD = "configuration/"  # how columns of static configuration begin


def trials_of(
    fitted: Fitted, number: int, fields: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Complete runs of a fit, a row each, in the order of their starts.

    Args:
        fitted: of a method whose runs are neither forked nor given up.
        number: of the fit.
        fields: static configuration of runs that have no other, of the fields that
            were searched.

    Returns:
        Columns ``fit``, ``start`` (fresh starts before it), ``member``,
        ``configuration/<field>`` (as JSON), ``hp/<name>``, and the observed scores
        ``final`` and ``auc``.
    """
    assert fitted.trace is not None
    trace = fitted.trace.sort_values(["generation", "member", "step"])
    runs = trace.groupby(["generation", "member"], sort=True)
    last = runs.tail(1).reset_index(drop=True)
    columns: dict[str, Any] = {
        "fit": number,
        "start": last["generation"],
        "member": last["member"],
    }
    texts = last.get("configuration", pd.Series([None] * len(last)))
    found = [json.loads(text) if isinstance(text, str) else {} for text in texts]
    for name, own in (fields or {}).items():
        columns[f"{FIELD}{name}"] = [json.dumps(c.get(name, own)) for c in found]
    columns |= {str(n): last[n] for n in last if str(n).startswith("hp/")}
    columns["final"] = last["score"]
    # every decision has the same share of a run
    columns["auc"] = runs["score"].mean().to_numpy()
    return pd.DataFrame(columns)


def importance(
    trials: pd.DataFrame,
    knobs: Sequence[Knob],
    objective: str,
    evaluator: str = "ped-anova",
) -> dict[str, float]:
    """Importance of knobs and fields, the largest first; they sum up to 1.

    Args:
        trials: rows of `trials_of`; those with equal values are one candidate.
        knobs: numbers and choices that were searched, with their ranges.
        objective: "final" or "auc".
        evaluator: of `EVALUATORS`. What fANOVA says is of candidates that were drawn
            uniformly.

    Returns:
        By name, of fields ``configuration/<field>``; empty where there are fewer than
        `LEAST` candidates, where all are alike, or without Optuna.
    """
    if importlib.util.find_spec("optuna") is None:
        return {}
    by_name = {f"hp/{h.name}": h for h in knobs}
    columns = [str(name) for name in trials]
    names = [n for n in columns if n in by_name or n.startswith(FIELD)]
    names = [n for n in names if trials[n].nunique() > 1]
    if not names:
        return {}
    means = trials.groupby(names, sort=False, dropna=False)[objective].mean()
    table = means.reset_index()
    if len(table) < LEAST:
        return {}
    places: dict[str, list[Any]] = {}
    for name in names:
        h = by_name.get(name)
        if isinstance(h, Number):
            low, high = (float(h.to_unit(end)) for end in (h.low, h.high))
            u = (h.to_unit(table[name].to_numpy(float)) - low) / (high - low)
            places[name] = np.clip(u, 0.0, 1.0).tolist()
        else:
            places[name] = table[name].astype(str).tolist()
    found = shares(places, table[objective].tolist(), evaluator)
    ranked = sorted(found.items(), key=lambda pair: -pair[1])
    return {name.removeprefix("hp/"): round(value, 4) for name, value in ranked}


def check_evaluators(evaluators: Sequence[str]) -> None:
    """Raise a ModuleNotFoundError where a package is missing that they need.

    Args:
        evaluators: of `EVALUATORS`.
    """
    needed = {"optuna": "importance needs Optuna"}
    if "fanova" in evaluators:
        needed["sklearn"] = "fANOVA needs scikit-learn"
    for package, words in needed.items():
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{words}: pip install 'dacrl-env[optuna]'", name=package
            )


def shares(
    places: Mapping[str, list[Any]],
    scores: Sequence[float],
    evaluator: str = "ped-anova",
    seed: int = 0,
    trees: int = TREES,
) -> dict[str, float]:
    """Importance by name, divided by its sum: of fANOVA shares of the main effects.

    Args:
        places: by name, of each candidate: positions in [0, 1], or texts.
        scores: of the candidates; more is better.
        evaluator: of `EVALUATORS`.
        seed: of fANOVA's forest; PED-ANOVA draws nothing.
        trees: of that forest, over which importance is averaged.

    Returns:
        Nothing where no knob has any importance.
    """
    import optuna
    from optuna.importance import (
        FanovaImportanceEvaluator,
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    spaces: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0)
        if isinstance(values[0], float)
        else optuna.distributions.CategoricalDistribution(sorted(set(values)))
        for name, values in places.items()
    }
    with quiet("optuna"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental there
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            optuna.trial.create_trial(
                params={name: values[k] for name, values in places.items()},
                distributions=spaces,
                value=float(score),
            )
            for k, score in enumerate(scores)
        )
        made: Any = FanovaImportanceEvaluator(n_trees=trees, seed=seed)
        if evaluator == "ped-anova":
            made = PedAnovaImportanceEvaluator(
                target_quantile=max(BEST, FEWEST / len(scores))
            )
        found = get_param_importances(study, evaluator=made, normalize=False)
    total = sum(found.values())
    return {n: float(found.get(n, 0.0)) / total for n in places} if total else {}
