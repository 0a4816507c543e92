"""How much each knob matters, from the candidates of a search.

PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: efficiently quantifying
hyperparameter importance in arbitrary subspaces", IJCAI), as Optuna has it: how far the
distribution of each knob among the best tenth of candidates lies from that among all.
It says which knobs tell good configurations from others, not how much a score changes.
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
    trials: pd.DataFrame, knobs: Sequence[Knob], objective: str
) -> dict[str, float]:
    """Importance of knobs and fields, the largest first; they sum up to 1.

    Args:
        trials: rows of `trials_of`; those with equal values are one candidate.
        knobs: numbers and choices that were searched, with their ranges.
        objective: "final" or "auc".

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
    found = _ped_anova(places, table[objective].tolist())
    total = sum(found.values())
    ranked = sorted(found.items(), key=lambda pair: -pair[1])
    shares = {name.removeprefix("hp/"): value for name, value in ranked}
    return {n: round(v / total, 4) for n, v in shares.items()} if total else {}


def _ped_anova(
    places: Mapping[str, list[Any]], scores: Sequence[float]
) -> dict[str, float]:
    """Importance by name of positions in [0, 1], or of texts."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    spaces: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0)
        if isinstance(values[0], float)
        else optuna.distributions.CategoricalDistribution(sorted(set(values)))
        for name, values in places.items()
    }
    with quiet("optuna"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental there
        study = optuna.create_study(direction="maximize")
        for k, score in enumerate(scores):
            given = {name: values[k] for name, values in places.items()}
            study.add_trial(
                optuna.trial.create_trial(
                    params=given, distributions=spaces, value=float(score)
                )
            )
        evaluator = PedAnovaImportanceEvaluator(
            target_quantile=max(BEST, FEWEST / len(scores))
        )
        found = get_param_importances(study, evaluator=evaluator, normalize=False)
    return {name: float(found.get(name, 0.0)) for name in places}
