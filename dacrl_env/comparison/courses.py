"""What figures of a comparison show over inner steps: scores and applied values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dacrl_env.comparison import option_panels, stats

Array = npt.NDArray[np.float64]


class Curve(NamedTuple):
    """A curve and its band, each of shape ``(points,)``.

    Attributes:
        steps: inner training environment steps.
        middle: mean or median.
        low: lower end of the band.
        high: upper end.
    """

    steps: Array
    middle: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Courses:
    """Of all policies on one task.

    Attributes:
        policies: in order of first appearance.
        names: columns ``hp/<name>`` that some policy applied.
        options: of those that are no numbers.
        end: inner environment steps of the longest run.
        scores: by policy, see `learning_curve`.
        values: by policy and column of numbers, see `applied`.
        chosen: by policy and column with options, see `per_run`.
    """

    policies: Sequence[str]
    names: Sequence[str]
    options: Mapping[str, option_panels.Options]
    end: float
    scores: Mapping[str, Curve]
    values: Mapping[tuple[str, str], Curve]
    chosen: Mapping[tuple[str, str], pd.DataFrame]


def courses(frame: pd.DataFrame) -> Courses:
    """Scores and applied values of every policy.

    Args:
        frame: rows of one task, as `dacrl_env.comparison.report.summarize` takes them.
    """
    names = [c for c in frame.columns if c.startswith("hp/") and frame[c].notna().any()]
    options = option_panels.found(frame, names)
    reports = np.unique(frame.loc[frame["report_score"].notna(), "env_steps"])
    scores: dict[str, Curve] = {}
    values: dict[tuple[str, str], Curve] = {}
    chosen: dict[tuple[str, str], pd.DataFrame] = {}
    for policy in frame["policy"].unique():
        rows = frame[frame["policy"] == policy]
        scores[policy] = learning_curve(rows, reports)
        for name in names:
            if rows[name].isna().all():  # this policy controls something else
                continue
            if name not in options:
                values[policy, name] = applied(rows, name)
                continue
            told = rows[rows[name].notna()]
            if options[name].is_event:  # without report points between decisions
                told = told[told["reward"].notna()]
            chosen[policy, name] = per_run(told, name).bfill(axis=1)
    end = float(frame["env_steps"].max())
    return Courses(list(scores), names, options, end, scores, values, chosen)


def learning_curve(rows: pd.DataFrame, reports: npt.NDArray[Any]) -> Curve:
    """Mean report score of one policy and its 95 % bootstrap band.

    A diverged run counts as the floor from where it diverged.

    Args:
        rows: of the policy.
        reports: inner environment steps of the report points of all policies.
    """
    scores = scores_of_runs(rows, reports)
    values = scores.to_numpy(dtype=np.float64)
    fits, seeds = (scores.index.get_level_values(name) for name in ("run", "seed"))
    bounds = [
        stats.bootstrap_interval(v, groups=fits, shared=seeds, resamples=500)
        for v in values.T
    ]
    low, high = np.asarray(bounds).reshape(-1, 2).T
    return Curve(scores.columns.to_numpy(), values.mean(axis=0), low, high)


def scores_of_runs(rows: pd.DataFrame, reports: npt.NDArray[Any]) -> pd.DataFrame:
    """Report scores of one policy, as `per_run`, at the points that all its runs have.

    Args:
        rows: of the policy.
        reports: inner environment steps of the report points of all policies.
    """
    known = rows[rows["report_score"].notna()]
    diverged = known["diverged"].astype(bool)
    scores = per_run(known[~diverged], "report_score").reindex(columns=reports)
    floor = known[diverged].groupby(["run", "seed"])["report_score"].last()
    scores = scores.reindex(scores.index.union(floor.index)).T
    # The floor from where a run has ended; other policies' report points are left out.
    scores[floor.index] = scores[floor.index].bfill().fillna(floor)
    return scores.dropna().T


def applied(rows: pd.DataFrame, name: str) -> Curve:
    """Median of a policy's values, and their range from 10 % to 90 %, as steps.

    A value holds during the interval that ends at its row.

    Args:
        rows: of the policy.
        name: of the column.
    """
    values = values_of_runs(rows, name)
    drawn = values.quantile([0.5, 0.1, 0.9]).to_numpy(dtype=np.float64)  # (3, points)
    return Curve(values.columns.to_numpy(dtype=np.float64), *drawn)


def values_of_runs(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Values of one policy, as `per_run`, from step 0 on.

    Args:
        rows: of the policy.
        name: of the column.
    """
    values = per_run(rows[rows[name].notna()], name)
    # A run without a row at some step is inside an interval that ends at a later one;
    # after its last row it has ended, and is left out.
    values = values.bfill(axis=1)
    first = values.iloc[:, 0]
    values.insert(0, 0, first, allow_duplicates=True)  # the first interval
    return values


def per_run(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Values with a row per (run, seed) and a column per number of steps, ascending."""
    steps = rows.groupby(["run", "seed", "env_steps"])[column].last().unstack()
    return steps.sort_index(axis=1)
