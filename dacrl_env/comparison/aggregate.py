"""What several tasks say of policies together: aggregates with stratified bootstrap.

Tasks are strata: the bootstrap resamples runs within each task, never tasks, so that
intervals say how these tasks would come out with other runs (Agarwal et al. 2021).
Within a task, a draw of seeds is shared by all policies that were run on the same
seeds, since what is easy or hard about a seed is common to them; of methods that were
fitted several times, fits are drawn, too, as in `dacrl_env.comparison.stats`. All
statistics of a comparison come from the same draws.

A task counts as much as any other, whatever the number of its runs. What is said of all
tasks together covers those that have results of every policy: means over different
tasks do not compare.

References:
    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021 (stratified bootstrap, interquartile mean, performance
    profile, probability of improvement, optimality gap).
    Dolan and Moré, "Benchmarking optimization software with performance profiles",
    Mathematical Programming 91, 2002 (performance profiles).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dacrl_env.core.checks import unknown

Array = npt.NDArray[np.float64]

OBJECTIVES = {"auc": "report_auc", "final": "report_final", "best": "report_best"}
"""What runs are judged by, and the column of a summary that holds it."""

LEVEL = 0.95
GOAL = 1.0
"""The score that the optimality gap is taken from: the reference return of a task."""

_BLOCK = 2**21  # resampled values held at once: 16 MB, whatever the number of runs
_POINTS = 101  # of a performance profile


@dataclass(frozen=True)
class Aggregates:
    """Result of `aggregate`.

    All intervals are of 95 %; bounds are NaN where a task has a single run of a policy.

    Attributes:
        objective: "auc", "final" or "best".
        reference: policy that the others are compared with.
        overall: one row per policy: `policy`, `tasks` (that count), `iqm`, `mean`,
            `optimality_gap` (mean of what runs lack to score 1) and `rank` (1 is best)
            over the `common` tasks, `failure` (share of their runs); `probability` that
            a run is better than one of the reference, mean over the
            `probability_tasks` tasks that have both; each value with `_low` and
            `_high`, but for shares.
        tasks: one row per task and policy with results: `task`, `policy`, `runs` (test
            runs), `fits`, `mean`, `mean_low`, `mean_high`, `iqm`, `iqm_low`,
            `iqm_high`, `rank` (among the policies of the task), `failure`.
        profile: one row per policy and score: `policy`, `score`, `share` of runs above
            it, mean over the common tasks, `share_low`, `share_high`.
        common: tasks that have results of all policies.
        notes: what does not follow from the tables, in sentences.
    """

    objective: str
    reference: str
    overall: pd.DataFrame
    tasks: pd.DataFrame
    profile: pd.DataFrame
    common: list[str]
    notes: list[str] = field(default_factory=list)


def aggregate(
    summary: pd.DataFrame,
    objective: str = "auc",
    reference: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    order: Sequence[str] = (),
) -> Aggregates:
    """Aggregates of several policies over several tasks.

    Args:
        summary: results of `dacrl_env.comparison.report.summarize` of several tasks,
            one after the other, with a column `task`.
        objective: "auc", "final" or "best".
        reference: policy that the others are compared with; None: the first one.
        resamples: number of bootstrap samples.
        seed: of this call's own generator; equal calls give equal intervals.
        order: of policies; those that are not in it follow as they come.

    Raises:
        ValueError: an unknown objective or reference, no rows, a score that is not
            finite, or two rows of a task, policy, run and seed.
    """
    if objective not in OBJECTIVES:
        raise ValueError(unknown("objective", objective, OBJECTIVES))
    if resamples < 1:
        raise ValueError(f"resamples must be positive, not {resamples}")
    _check(summary, OBJECTIVES[objective])
    there = list(summary["policy"].unique())
    policies = list(dict.fromkeys([*(p for p in order if p in there), *there]))
    first = policies[0] if reference is None else reference
    if first not in policies:
        raise ValueError(unknown("reference", first, policies))
    cells = _cells(summary, OBJECTIVES[objective], resamples, seed)
    tasks = list(summary["task"].unique())
    common = [task for task in tasks if all((task, p) in cells for p in policies)]
    per_task = _per_task(cells, tasks, policies)
    ranks = _mean_ranks(cells, common, policies)
    scores = _grid([cells[task, p].scores for task in common for p in policies])
    overall, profiles = [], []
    for place, policy in enumerate(policies):
        own = [cells[task, policy] for task in common]
        line: dict[str, Any] = {"policy": policy, "tasks": len(common)}
        known = bool(own) and min(len(cell.scores) for cell in own) > 1
        pooled = _pooled(own, scores)
        for name in ("iqm", "mean", "optimality_gap"):
            line |= _estimate(name, *pooled[name], known)
        line |= _estimate("rank", *ranks[place], known)
        failures = [cell.failure for cell in own]
        line["failure"] = float(np.mean(failures)) if own else math.nan
        both = [t for t in tasks if (t, policy) in cells and (t, first) in cells]
        pairs = [(cells[task, policy], cells[task, first]) for task in both]
        line |= _improvement([] if policy == first else pairs)
        overall.append(line)
        if own:
            profiles.append(_profile(policy, scores, *pooled["share"], known))
    columns = ["policy", "score", "share", "share_low", "share_high"]
    profile = pd.concat(profiles) if profiles else pd.DataFrame(columns=columns)
    return Aggregates(
        objective,
        first,
        pd.DataFrame(overall),
        per_task,
        profile.reset_index(drop=True),
        common,
        _notes(cells, tasks, policies, common),
    )


# -- the runs of a policy on a task, and their resamples -----------------------------


@dataclass(frozen=True)
class _Cell:
    """Runs of one policy on one task.

    Args:
        scores: of n runs ``(n,)``.
        fit: number of the fit of each run ``(n,)``.
        label: number of the seed of each run ``(n,)``.
        fits: how often each of F fits is in a resample ``(resamples, F)``.
        seeds: how often each of S seeds is in a resample ``(resamples, S)``.
        failure: share of runs that failed.
    """

    scores: Array
    fit: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    fits: Array
    seeds: Array
    failure: float

    def shares(self, rows: slice) -> Array:
        """Weight of every run in some of the resamples, sums 1: ``(rows, n)``."""
        counts = self.fits[rows][:, self.fit] * self.seeds[rows][:, self.label]
        return counts / counts.sum(1, keepdims=True)


def _check(summary: pd.DataFrame, column: str) -> None:
    needed = ["task", "policy", "run", "seed", column, "failure"]
    missing = [name for name in needed if name not in summary]
    if missing:
        raise ValueError(f"the summary lacks the columns {missing}")
    if summary.empty:
        raise ValueError("the summary has no runs")
    wrong = ~np.isfinite(summary[column].to_numpy(dtype=np.float64))
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {len(summary)} runs have a {column} that is NaN or "
            "infinite; a diverged run counts as the task's floor score"
        )
    twice = summary.duplicated(["task", "policy", "run", "seed"])
    if twice.any():
        one = summary.loc[twice, ["task", "policy", "run", "seed"]].iloc[0].to_dict()
        raise ValueError(f"{int(twice.sum())} runs are there twice, the first: {one}")


def _cells(
    summary: pd.DataFrame, column: str, resamples: int, seed: int
) -> dict[tuple[str, str], _Cell]:
    """All cells by task and policy; seeds are drawn once for all that have the same."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], _Cell] = {}
    for task, of_task in summary.groupby("task", sort=False):
        drawn: dict[tuple[int, ...], Array] = {}
        for policy, rows in of_task.groupby("policy", sort=False):
            # in a fixed order: policies that are equal have equal sums
            runs = rows.sort_values(["run", "seed"])
            labels, label = np.unique(runs["seed"], return_inverse=True)
            _, fit = np.unique(runs["run"], return_inverse=True)
            named = tuple(labels.tolist())
            if named not in drawn:
                drawn[named] = _draw(len(named), resamples, rng)
            there = np.zeros((fit.max() + 1, len(labels)))
            there[fit, label] = 1
            fits = _fits(there, drawn[named], rng)
            scores = runs[column].to_numpy(dtype=np.float64)
            failure = float(runs["failure"].mean())
            cell = _Cell(scores, fit, label, fits, drawn[named], failure)
            found[str(task), str(policy)] = cell
    return found


def _draw(n: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each of n is drawn, of n draws with replacement: (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)


def _fits(there: Array, seeds: Array, rng: np.random.Generator) -> Array:
    """Draws of fits such that every resample has runs.

    Args:
        there: 1 where a fit has a run of a seed, ``(F, S)``.
        seeds: draws of seeds ``(resamples, S)``.
        rng: generator.
    """
    chances = seeds @ there.T  # runs that a fit would bring, (resamples, F)
    drawn = _draw(len(there), len(seeds), rng)
    empty = (drawn * chances).sum(1) == 0
    while empty.any():  # only where fits lack seeds
        drawn[empty] = _draw(len(there), int(empty.sum()), rng)
        empty = (drawn * chances).sum(1) == 0
    return drawn


# -- statistics ----------------------------------------------------------------------


def _blocks(resamples: int, values: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, values))
    for start in range(0, resamples, step):
        yield slice(start, min(start + step, resamples))


def _pooled(cells: Sequence[_Cell], taus: Array) -> dict[str, tuple[Any, Any]]:
    """Statistics over the runs of some tasks, and the same of every resample.

    Args:
        cells: of one policy, one a task.
        taus: scores of a profile ``(points,)``.

    Returns:
        ``iqm``, ``mean``, ``optimality_gap``: a number and ``(resamples,)``; ``share``
        of runs above each of the scores: ``(points,)`` and ``(resamples, points)``.
    """
    names = ("iqm", "mean", "optimality_gap")
    if not cells:
        nothing = np.empty(0)
        return {**dict.fromkeys(names, (math.nan, nothing)), "share": (taus, nothing)}
    scores = np.concatenate([cell.scores for cell in cells])
    order = np.argsort(scores, kind="stable")
    values = scores[order]
    # as many as there would be, were all tasks to have the runs of the largest
    most = max(len(cell.scores) for cell in cells)
    above = (values[:, None] > taus).astype(np.float64)  # (n, points)
    gap = np.maximum(GOAL - values, 0)
    whole = np.concatenate(
        [np.full(len(c.scores), most / len(c.scores)) for c in cells]
    )

    def statistics(weights: Array) -> dict[str, Array]:
        share = weights / weights.sum(1, keepdims=True)
        return {
            "iqm": _weighted_iqm(values, weights),
            "mean": share @ values,
            "optimality_gap": share @ gap,
            "share": share @ above,
        }

    point = {name: found[0] for name, found in statistics(whole[order][None]).items()}
    parts = []
    for rows in _blocks(len(cells[0].seeds), len(values)):
        weights = np.concatenate([most * cell.shares(rows) for cell in cells], axis=1)
        parts.append(statistics(weights[:, order]))
    return {
        name: (point[name], np.concatenate([part[name] for part in parts]))
        for name in (*names, "share")
    }


def _weighted_iqm(values: Array, weights: Array) -> Array:
    """`dacrl_env.comparison.stats.iqm` of values that are there several times.

    Args:
        values: ascending ``(n,)``.
        weights: how often each is there, of every sample ``(samples, n)``.
    """
    upper = np.cumsum(weights, axis=1)
    total = upper[:, -1:]
    # sums of shares end a little beside the whole number that is meant
    cut = np.floor(total / 4 + 1e-6)
    inside = np.clip(upper, cut, total - cut)
    kept = np.diff(inside, axis=1, prepend=cut)
    result: Array = (kept @ values) / (total - 2 * cut)[:, 0]
    return result


def _wins(cell: _Cell, other: _Cell) -> tuple[float, Array]:
    """Probability that a run of the first beats one of the other, and resamples."""
    above = cell.scores[:, None] > other.scores
    equal = cell.scores[:, None] == other.scores
    wins = above + 0.5 * equal  # (n, m)
    rows = _blocks(len(cell.seeds), len(cell.scores) + len(other.scores))
    drawn = [np.sum((cell.shares(r) @ wins) * other.shares(r), axis=1) for r in rows]
    return float(wins.mean()), np.concatenate(drawn)


def _improvement(pairs: Sequence[tuple[_Cell, _Cell]]) -> dict[str, float]:
    """Mean over tasks of the probability of improvement, with its interval."""
    found = [_wins(cell, other) for cell, other in pairs]
    known = bool(pairs) and min(len(c.scores) for pair in pairs for c in pair) > 1
    value = float(np.mean([value for value, _ in found])) if found else math.nan
    drawn = np.mean([drawn for _, drawn in found], axis=0) if found else np.empty(0)
    line = _estimate("probability", value, drawn, known)
    return {**line, "probability_tasks": len(pairs)}


def _means(cell: _Cell) -> tuple[float, Array]:
    """Mean score of a cell, and of every resample of it."""
    blocks = _blocks(len(cell.seeds), len(cell.scores))
    drawn = [cell.shares(rows) @ cell.scores for rows in blocks]
    return float(cell.scores.mean()), np.concatenate(drawn)


def _ranked(means: Array) -> Array:
    """Ranks along the first axis, 1 the highest; ties have the mean of their places.

    Rounding of sums, which differs with the number of runs, makes no ranks.
    """
    close = 1e-9 * (1 + np.abs(means).max(0))
    gaps = means[:, None] - means  # (policies, policies, ...)
    higher = (gaps < -close).sum(1)
    tied = (np.abs(gaps) <= close).sum(1)
    ranks: Array = higher + (tied + 1) / 2
    return ranks


def _mean_ranks(
    cells: dict[tuple[str, str], _Cell], tasks: Sequence[str], policies: Sequence[str]
) -> list[tuple[float, Array]]:
    """Of each policy its mean rank over tasks, and that of every resample."""
    if not tasks:
        return [(math.nan, np.empty(0))] * len(policies)
    points, draws = [], []
    for task in tasks:
        means = [_means(cells[task, policy]) for policy in policies]
        points.append(_ranked(np.array([value for value, _ in means])))
        draws.append(_ranked(np.stack([drawn for _, drawn in means])))
    point, drawn = np.mean(points, axis=0), np.mean(draws, axis=0)
    return [(float(a), b) for a, b in zip(point, drawn, strict=True)]


def _estimate(name: str, value: float, drawn: Array, known: bool) -> dict[str, float]:
    """A value with the percentiles of its resamples as columns."""
    low = high = math.nan
    if known and len(drawn):
        low, high = map(float, np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return {name: float(value), f"{name}_low": low, f"{name}_high": high}


# -- tables --------------------------------------------------------------------------


def _per_task(
    cells: dict[tuple[str, str], _Cell], tasks: Sequence[str], policies: Sequence[str]
) -> pd.DataFrame:
    lines = []
    for task in tasks:
        there = [policy for policy in policies if (task, policy) in cells]
        means = {policy: _means(cells[task, policy]) for policy in there}
        ranks = _ranked(np.array([means[policy][0] for policy in there]))
        for policy, rank in zip(there, ranks, strict=True):
            cell = cells[task, policy]
            runs, fits = len(cell.scores), cell.fits.shape[1]
            line: dict[str, Any] = {"task": task, "policy": policy, "runs": runs}
            line["fits"] = fits
            pooled = _pooled([cell], np.zeros(1))
            for name, found in (("mean", means[policy]), ("iqm", pooled["iqm"])):
                line |= _estimate(name, found[0], found[1], runs > 1)
            line |= {"rank": float(rank), "failure": cell.failure}
            lines.append(line)
    return pd.DataFrame(lines)


def _grid(scores: Sequence[Array]) -> Array:
    """Scores of a profile: from the lowest to the highest run, at most from -0.25 on.

    Below a random policy there are floors as low as -78, which would squeeze the rest.
    """
    if not scores:
        return np.linspace(0, 1, _POINTS)
    every = np.concatenate(scores)
    low = min(0.0, max(-0.25, float(every.min())))
    return np.linspace(low, max(1.0, float(every.max())), _POINTS)


def _profile(
    policy: str, scores: Array, share: Array, drawn: Array, known: bool
) -> pd.DataFrame:
    low = high = np.full(len(scores), math.nan)
    if known:
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    columns = {"score": scores, "share": share, "share_low": low, "share_high": high}
    return pd.DataFrame({"policy": policy, **columns})


def _notes(
    cells: dict[tuple[str, str], _Cell],
    tasks: Sequence[str],
    policies: Sequence[str],
    common: Sequence[str],
) -> list[str]:
    notes = []
    missing = [
        f"{policy} on {task}"
        for task in tasks
        for policy in policies
        if (task, policy) not in cells
    ]
    if missing:
        about = (
            f"Aggregates and ranks cover the {len(common)} of {len(tasks)} tasks that "
            "have results of all policies"
            if common
            else "No task has results of all policies, so that there are no aggregates"
        )
        notes.append(f"{about}; there is none of {', '.join(missing)}.")
    sizes = {len(cell.scores) / cell.fits.shape[1] for cell in cells.values()}
    if len(sizes) > 1:
        notes.append(
            "Numbers of test runs differ; every task counts alike all the same."
        )
    return notes
