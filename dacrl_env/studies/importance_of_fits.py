"""How much each knob matters, from the studies of fits: ``dacrl importance``.

Fits that differ in their seed alone are a group; of several of one seed the newest
counts. Importance is found for each fit, and its mean and standard deviation over the
fits are given. The interval is the mean and 1.96 standard errors on both sides, within
0 and 1. The error is a bootstrap's: fits are drawn with replacement where there are
several, then candidates of each, and forests have other seeds in every draw. So it
covers what other seeds and other candidates would have changed, and what is left to a
forest's chance. (Quantiles of the draws would not
do: with candidates that are there twice, knobs seem to decide more than they do.)

fANOVA takes seconds for a few hundred candidates. In draws its forests are small, which
makes intervals somewhat wider, and draws of a fit are made once and combined.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.tables import aligned
from dacrl_env.core.checks import unknown
from dacrl_env.methods.trials import COST
from dacrl_env.studies.importance import EVALUATORS, LEAST, check_evaluators, shares
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.returns import known

if TYPE_CHECKING:
    import optuna

Floats = np.ndarray[Any, np.dtype[np.float64]]

DRAWS, COMBINED = 50, 1_000  # of each fit, and of their combinations
# what the importance of a knob is a share of
TITLES = {"fanova": "fanova, of main effects", "ped-anova": "ped-anova"}
FEW_TREES = 4  # of a forest in a draw
ABOUT = ("task", "method", "budget")  # what groups are told apart by, in tables
UNTOLD = ("seed",)  # what fits of a group differ in
BELOW_FLOOR = 0.1  # what a run that diverged counts as, as searches are told


@dataclass(frozen=True)
class Candidates:
    """Candidates of one fit, for one objective.

    Attributes:
        places: by knob, of each candidate: positions in [0, 1], or texts.
        scores: of each; more is better.
        complete: runs that were trained to the end.
        diverged: runs that diverged.
        given_up: runs that were ended before.
    """

    places: dict[str, list[Any]]
    scores: list[float]
    complete: int
    diverged: int
    given_up: int


@dataclass
class Found:
    """Importance of the knobs of several groups of fits.

    Attributes:
        table: a row per group, objective, evaluator and knob: ``group`` (from 1 up),
            ``task``, ``method``, ``budget``, ``options`` (of the environment and what
            else tells groups apart; empty: none), ``objective``, ``evaluator``,
            ``knob``, ``mean`` and ``deviation`` (over fits; NaN of one), ``low`` and
            ``high`` (95 % interval of the mean), ``fits``, ``candidates``,
            ``diverged``, ``given_up``.
        notes: what was left out, and what is to be known of it, in sentences.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def objectives_of(study: optuna.Study) -> list[str]:
    """Names of what the values of its trials are."""
    names = study.user_attrs.get("objective", "final")
    return [names] if isinstance(names, str) else list(names)


def candidates_of(study: optuna.Study, objective: str) -> Candidates:
    """Runs of a study as candidates; runs of equal values are one, with their mean.

    A run that diverged counts as a tenth of the scale below the task's floor, or below
    the lowest score if the floor should be higher: what searches are told. In costs it
    is left out. So are runs that were given up, whose scores are those of shorter runs,
    and knobs that not all runs have.

    Args:
        study: of `dacrl_env.integrations.optuna.to_study`.
        objective: of it.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    k, direction = objectives_of(study).index(objective), 1.0
    if objective == COST:
        direction = -1.0
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    diverged = [t for t in trials if t.state == TrialState.FAIL]
    values = [direction * t.values[k] for t in complete]
    used = list(complete)
    if objective != COST and diverged:
        floor = min([_floor(study), *values]) - BELOW_FLOOR
        used += diverged
        values += [floor] * len(diverged)
    names = [n for n in (used[0].params if used else ()) if _is_shared(n, used)]
    places = {name: _places(name, used) for name in names}
    rows = pd.DataFrame({**places, "": values})
    varied = [name for name in names if rows[name].nunique() > 1]
    means = (
        rows.groupby(varied, sort=False)[""].mean().reset_index()
        if varied
        else rows.iloc[:1]
    )
    return Candidates(
        {name: means[name].tolist() for name in varied},
        means[""].tolist(),
        len(complete),
        len(diverged),
        len(trials) - len(complete) - len(diverged),
    )


def _floor(study: optuna.Study) -> float:
    """The lowest score of the task; ∞ where it is not known here. Measures nothing."""
    try:
        task = get_task(str(study.user_attrs.get("task")))
        returns = known(task)
    except (ValueError, ImportError):
        return math.inf
    if returns is None:
        return math.inf
    return (returns.floor - returns.random) / (returns.reference - returns.random)


def _is_shared(name: str, trials: Sequence[Any]) -> bool:
    return all(name in trial.params for trial in trials)


def _places(name: str, trials: Sequence[Any]) -> list[Any]:
    """Positions in [0, 1] on the scale of a knob, or options as texts."""
    spaces = [trial.distributions[name] for trial in trials]
    given = [trial.params[name] for trial in trials]
    if not hasattr(spaces[0], "low"):
        return [str(value) for value in given]
    scale = np.log if spaces[0].log else np.asarray
    low, high = min(s.low for s in spaces), max(s.high for s in spaces)
    ends = scale(np.array([low, high], np.float64))
    if ends[0] == ends[1]:
        return [0.0] * len(given)
    at = (scale(np.array(given, np.float64)) - ends[0]) / (ends[1] - ends[0])
    positions: list[Any] = np.clip(at, 0.0, 1.0).tolist()
    return positions


def importance_of_fits(
    every: Sequence[optuna.Study],
    objective: str | None = None,
    evaluators: Sequence[str] = EVALUATORS,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> Found:
    """Importance of knobs in groups of fits that differ in their seed alone.

    Args:
        every: studies of fits.
        objective: one of theirs; None: all.
        evaluators: of `EVALUATORS`.
        draws: of the bootstrap, of each fit.
        seed: of the bootstrap and of fANOVA's forests.
        progress: called with draws done since its last call; there are as many for each
            study, objective and evaluator.

    Raises:
        ValueError: an unknown evaluator or objective, no draws, or no fit of which
            anything can be said; the message says why.
        ModuleNotFoundError: fANOVA without scikit-learn.
    """
    for name in evaluators:
        if name not in EVALUATORS:
            raise ValueError(unknown("evaluator", name, EVALUATORS))
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    check_evaluators(evaluators)
    evaluators = list(dict.fromkeys(evaluators))
    names = dict.fromkeys(name for study in every for name in objectives_of(study))
    if objective is not None and objective not in names:
        raise ValueError(unknown("objective", objective, list(names)))
    groups: dict[tuple[str, str], list[optuna.Study]] = {}
    singly, notes = _one_per_seed(every)
    for text, study in singly:
        for name in objectives_of(study):
            if objective in (None, name):
                groups.setdefault((text, name), []).append(study)
    numbers = {text: k for k, text in enumerate(dict.fromkeys(t for t, _ in groups), 1)}
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for (text, name), group in groups.items():
        usable = []
        for study in group:
            one = candidates_of(study, name)
            problem = _problem(one, name)
            if problem is None:
                usable.append(one)
            else:
                problems.append(f"{study.study_name}: {problem}")
        if usable:
            attributes = group[0].user_attrs
            about = {"group": numbers[text], **{k: attributes.get(k) for k in ABOUT}}
            about["options"] = _options_of(attributes)
            for evaluator in evaluators:
                found = _of_group(usable, evaluator, draws, seed, progress)
                told = {**about, "objective": name, "evaluator": evaluator}
                rows += [{**told, **row} for row in found]
            notes += _notes(group, usable, name)
    if not rows:
        raise ValueError(
            "; ".join(dict.fromkeys(problems)) or "there are no fits in the journals"
        )
    notes += [f"left out: {problem}" for problem in dict.fromkeys(problems)]
    return Found(pd.DataFrame(rows), list(dict.fromkeys(notes)))


def _one_per_seed(
    every: Sequence[optuna.Study],
) -> tuple[list[tuple[str, optuna.Study]], list[str]]:
    """Studies with a text of their group, one of each seed, and what was left out.

    Of studies of one seed the newest counts; without times the last.
    """
    found: dict[tuple[str, str], optuna.Study] = {}
    notes = []
    for study in every:
        attributes = study.user_attrs
        rest = {k: v for k, v in attributes.items() if k not in UNTOLD}
        text = json.dumps(rest, sort_keys=True, default=repr)
        # fits that do not say their seed are told apart by their candidates
        seed = attributes.get("seed")
        key = text, repr(_content(study)) if seed is None else repr(seed)
        before = found.get(key)
        if before is None:
            found[key] = study
            continue
        newest = study if _written(study) >= _written(before) else before
        if _content(before) != _content(study):
            older = before if newest is study else study
            notes.append(
                f"left out: {older.study_name}: an older fit of seed {seed} that "
                f"differs from {newest.study_name}"
            )
        found[key] = newest
    return [(text, study) for (text, _), study in found.items()], notes


def _content(study: optuna.Study) -> list[Any]:
    trials = study.get_trials(deepcopy=False)
    return [(t.state, t.params, t.values) for t in trials]


def _written(study: optuna.Study) -> float:
    """When the last of its runs was written, in seconds since 1970."""
    times = (t.datetime_complete for t in study.get_trials(deepcopy=False))
    return max((t.timestamp() for t in times if t is not None), default=-math.inf)


def _options_of(attributes: Mapping[str, Any]) -> str:
    """What tells a group apart beside `ABOUT`, as text."""
    told = dict(attributes.get("options") or {})
    left = (*ABOUT, *UNTOLD, "options", "objective")
    told |= {k: v for k, v in attributes.items() if k not in left}
    return ", ".join(f"{name}={value}" for name, value in sorted(told.items()))


def _problem(one: Candidates, objective: str) -> str | None:
    """Why nothing can be said of a fit; None: something can."""
    if len(one.scores) < LEAST:
        told = [f"{one.diverged} runs diverged"] * bool(one.diverged)
        told += [f"{one.given_up} were given up before their end"] * bool(one.given_up)
        more = f" ({', '.join(told)})" if told else ""
        return (
            f"{len(one.scores)} candidates{more}; importance takes at least {LEAST} "
            "that were trained to the end"
        )
    if len(set(one.scores)) == 1:
        return (
            f"all {len(one.scores)} candidates have the same {objective}, so that no "
            "knob has any importance"
        )
    if not one.places:
        return "no knob differs between the candidates"
    return None


def _of_group(
    fits: Sequence[Candidates],
    evaluator: str,
    draws: int,
    seed: int,
    progress: Callable[[int], Any] | None,
) -> list[dict[str, Any]]:
    """Rows of fits that differ in their seed alone, the most important knob first."""
    knobs = list(dict.fromkeys(name for one in fits for name in one.places))

    def table(found: Sequence[Mapping[str, float]]) -> Floats:
        return np.array([[one.get(name, 0.0) for name in knobs] for one in found])

    each = table([shares(one.places, one.scores, evaluator, seed) for one in fits])
    drawn = np.empty((len(fits), draws, len(knobs)))
    for k, one in enumerate(fits):
        generator = np.random.default_rng((seed, k))
        found = []
        for _ in range(draws):
            found.append(_drawn(one, evaluator, generator))
            if progress is not None:
                progress(1)
        drawn[k] = table(found)
    generator = np.random.default_rng((seed, len(fits)))
    which = generator.integers(len(fits), size=(COMBINED, len(fits)))
    draw = generator.integers(draws, size=which.shape)
    errors = drawn[which, draw].mean(axis=1).std(axis=0, ddof=1)
    means = each.mean(axis=0)
    alone = len(fits) == 1
    deviations = np.full(len(knobs), np.nan) if alone else each.std(axis=0, ddof=1)
    counts = {
        "fits": len(fits),
        "candidates": sum(len(one.scores) for one in fits),
        "diverged": sum(one.diverged for one in fits),
        "given_up": sum(one.given_up for one in fits),
    }
    return [
        {
            "knob": knobs[k],
            "mean": float(means[k]),
            "deviation": float(deviations[k]),
            "low": float(max(0.0, means[k] - 1.96 * errors[k])),
            "high": float(min(1.0, means[k] + 1.96 * errors[k])),
            **counts,
        }
        for k in np.argsort(-means, kind="stable")
    ]


def _drawn(
    one: Candidates, evaluator: str, generator: np.random.Generator
) -> dict[str, float]:
    """Importance with candidates drawn with replacement."""
    rows = generator.integers(len(one.scores), size=len(one.scores)).tolist()
    places = {n: [values[r] for r in rows] for n, values in one.places.items()}
    scores = [one.scores[r] for r in rows]
    if len(set(scores)) == 1:
        return {}
    return shares(places, scores, evaluator, int(generator.integers(2**31)), FEW_TREES)


def _notes(
    group: Sequence[optuna.Study], usable: Sequence[Candidates], objective: str
) -> list[str]:
    """What is to be known of a group's candidates."""
    notes = []
    if any(one.diverged for one in usable):
        notes.append(
            "runs that diverged are left out of cost"
            if objective == COST
            else f"runs that diverged count as {BELOW_FLOOR:g} below the task's floor"
        )
    if any(one.given_up for one in usable):
        notes.append("runs that were given up are left out")
    if any(t.user_attrs.get("varied") for s in group for t in s.get_trials(False)):
        notes.append("values changed during runs; importance is of the last ones")
    return notes


def render(found: Found, across: int) -> list[str]:
    """What people read of it, in parts.

    Args:
        found: result of `importance_of_fits`.
        across: letters of a line.
    """
    parts = []
    several = found.table["group"].nunique() > 1
    for _, rows in found.table.groupby(["group", "objective"], sort=False):
        first = rows.iloc[0]
        counted = [
            f"{first['fits']} fit{'s' if first['fits'] > 1 else ''}",
            f"{first['candidates']:,} candidates",
            *([f"{first['diverged']:,} diverged"] if first["diverged"] else []),
            *([f"{first['given_up']:,} given up"] if first["given_up"] else []),
        ]
        budget = first["budget"]
        more = f", budget {int(budget):,}" if pd.notna(budget) else ""
        more += f", {first['options']}" if first["options"] else ""
        number = f"group {first['group']}: " if several else ""
        parts.append(
            f"{number}{first['objective']} of {first['method']} on {first['task']}"
            f"{more}: {', '.join(counted)}"
        )
        by = {name: some.set_index("knob") for name, some in rows.groupby("evaluator")}
        knobs = list(dict.fromkeys(rows["knob"]))
        columns = {"knob": knobs}
        for name in dict.fromkeys(rows["evaluator"]):
            own = by[name]
            columns[f"{TITLES[name]} [95 %]"] = [
                f"{own['mean'][k]:.3f} [{own['low'][k]:.3f}, {own['high'][k]:.3f}]"
                for k in knobs
            ]
            if first["fits"] > 1:
                columns[f"{name} deviation"] = [
                    f"{own['deviation'][k]:.3f}" for k in knobs
                ]
        parts.append(f"{aligned(columns, across, 1)}\n")
    return [*parts, *found.notes]
