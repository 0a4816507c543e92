"""The Pareto front of a fit with several objectives: table, figures, hypervolume."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dacrl_env.comparison.drawing import COLOURS, DPI, save
from dacrl_env.comparison.page_figures import is_wide
from dacrl_env.comparison.pages import numbers
from dacrl_env.methods.lineages import complete, has_lines
from dacrl_env.methods.objectives import COST, IDEAL, check_point, hypervolume, sign
from dacrl_env.policies import Fitted, Policy, identity

TITLES = {
    "final": "observed final score",
    "best": "best observed score",
    "auc": "observed auc",
    COST: "floating-point operations of a run",
}
BEYOND = 1.1  # times the dearest run: the cost of a default reference point
MOST = 2_000  # runs in a figure, evenly spaced


def objectives(fitted: Fitted) -> list[str]:
    """Names of the objectives of a front; none where there is no front."""
    return list(fitted.front[0].values) if fitted.front else []


def settings_of(policy: Policy) -> dict[str, Any]:
    """What a policy is, by name: values of a static one, else what it is made of."""
    content = identity(policy)
    arguments = dict(content["arguments"])
    if content["kind"] != "static":
        return {"kind": content["kind"], **arguments}
    configuration = arguments.pop("configuration", {})
    return {**arguments, **configuration}


def table(fitted: Fitted) -> pd.DataFrame:
    """The front, a row a policy, the best in the first objective first.

    Returns:
        Columns ``number`` from 1 up, the objectives by name, ``online`` (judged score
        of the tuning runs, see `dacrl_env.policies.Fitted`), and what the policy is.
    """
    return pd.DataFrame(
        [
            {
                "number": number,
                **point.values,
                "online": np.nan if point.online is None else point.online,
                **settings_of(point.policy),
            }
            for number, point in enumerate(fitted.front, start=1)
        ]
    )


@dataclass(frozen=True)
class Hypervolume:
    """How good a front is, in one number.

    Attributes:
        share: of the box between the reference point and what is ideal (score 1, cost
            0) that the front dominates: 0 is none of it. Scores above 1 can make it
            larger than 1.
        reference: point, by name of objective.
    """

    share: float
    reference: Mapping[str, float]

    def __str__(self) -> str:
        point = ", ".join(f"{k} {v:.4g}" for k, v in self.reference.items())
        return f"{self.share:.4f} (reference point {point})"


def hypervolume_of(
    fitted: Fitted, reference: Mapping[str, float] | None = None
) -> Hypervolume:
    """Hypervolume of a front.

    Args:
        fitted: with a front.
        reference: point, by name of objective; of those left out, scores have 0, a
            random policy, and cost has 1.1 times that of the dearest run that was
            tried, which differs between fits. (At the cost of the dearest run itself, a
            front of runs that all cost alike would be worth nothing.)

    Raises:
        ValueError: no front, or see `check_point`.
    """
    names = objectives(fitted)
    if not names:
        raise ValueError("a hypervolume is of a front; this fit has none")
    given = dict(reference or {})
    check_point(given, names)
    point = dict.fromkeys(names, 0.0)
    if COST in names:
        tried = _runs(fitted)[COST].to_list() if has_lines(fitted.trace) else []
        own = [one.values[COST] for one in fitted.front]
        point[COST] = BEYOND * max([*tried, *own])
    point |= given
    ideal = np.array([IDEAL.get(name, 1.0) for name in names])
    signs = np.array([sign(name) for name in names])
    low = signs * np.array(list(point.values()))
    sides = signs * ideal - low
    values = [[one.values[name] for name in names] for one in fitted.front]
    scaled = (signs * np.array(values) - low) / sides
    return Hypervolume(hypervolume(scaled, [0.0] * len(names)), point)


@dataclass(frozen=True)
class Front:
    """What is told of a front.

    Attributes:
        table: `table` of it.
        hypervolume: of it.
    """

    table: pd.DataFrame
    hypervolume: Hypervolume


def front_of(fitted: Fitted, reference: Mapping[str, float] | None = None) -> Front:
    """Table and hypervolume of a front; arguments and errors of `hypervolume_of`."""
    return Front(table(fitted), hypervolume_of(fitted, reference))


def _runs(fitted: Fitted) -> pd.DataFrame:
    """Objectives of all runs that were trained to the end, a row a run."""
    trace = fitted.trace
    assert trace is not None
    scores = trace["score"].to_numpy(np.float64)
    rows = [one.rows for one in complete(trace)]
    # what is observed at every decision has the same share of a run
    found = {
        "final": [scores[r[-1]] for r in rows],
        "best": [scores[r].max() for r in rows],
        "auc": [scores[r].mean() for r in rows],
    }
    if COST in trace:
        cost = trace[COST].to_numpy(np.float64)
        found[COST] = [cost[r[-1]] for r in rows]
    return pd.DataFrame(found)


def _shown_runs(fitted: Fitted) -> pd.DataFrame:
    runs = _runs(fitted) if has_lines(fitted.trace) else pd.DataFrame()
    if len(runs) > MOST:
        runs = runs.iloc[np.linspace(0, len(runs) - 1, MOST).round().astype(int)]
    return runs


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Objectives that are drawn against the first, across and up."""
    return [(across, names[0]) for across in names[1:]]


def draw(fitted: Fitted, path: str | os.PathLike[str]) -> Path:
    """Draw a front and the runs behind it, the first objective against the others.

    Args:
        fitted: with a front.
        path: PNG file to write, or PDF or SVG.
    """
    pairs, runs = _pairs(objectives(fitted)), _shown_runs(fitted)
    figure = Figure((5.2 * len(pairs), 3.8), DPI, layout="constrained")
    for axis, (x, y) in zip(
        figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True
    ):
        if x in runs and y in runs:
            axis.plot(
                runs[x], runs[y], ".", color="0.6", markersize=4, label="runs tried"
            )
        front = _sorted(fitted, x, y)
        axis.plot(
            *front, color=COLOURS[1], marker="o", markersize=5, label="Pareto front",
            # of more objectives than are drawn, a line would mean nothing
            linestyle="-" if len(pairs) == 1 else "none",
            drawstyle="steps-post" if x == COST else "steps-pre",
        )  # fmt: skip
        for number, point in enumerate(fitted.front, start=1):
            if len(fitted.front) <= 30:
                axis.annotate(
                    str(number), (point.values[x], point.values[y]), fontsize=7,
                    xytext=(3, 3), textcoords="offset points",
                )  # fmt: skip
        if x == COST and is_wide(np.array([*front[0], *runs.get(x, [])])):
            axis.set_xscale("log")
        axis.set_xlabel(TITLES[x])
        axis.set_ylabel(TITLES[y])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return save(figure, path)


def _sorted(fitted: Fitted, x: str, y: str) -> tuple[list[float], list[float]]:
    points = sorted((one.values[x], one.values[y]) for one in fitted.front)
    across, up = zip(*points, strict=True)
    return list(across), list(up)


def page_figure(fitted: Fitted) -> dict[str, Any]:
    """The same for a page, as ``page.js`` takes it."""
    names, runs = objectives(fitted), _shown_runs(fitted)
    panels = []
    for x, y in _pairs(names):
        order = sorted(
            range(len(fitted.front)),
            key=lambda k: (fitted.front[k].values[x], fitted.front[k].values[y]),
        )
        front = [fitted.front[k].values for k in order]
        across = np.array([one[x] for one in front])
        every = np.array([*across, *runs.get(x, [])])
        panels.append(
            {
                "title": TITLES[y],
                "x": {"title": TITLES[x], "log": x == COST and is_wide(every)},
                "line": ("hv" if x == COST else "vh") if len(names) == 2 else None,
                "front": {
                    "x": numbers(across),
                    "y": numbers([one[y] for one in front]),
                    "names": [f"{k + 1}" for k in order],
                },
                "runs": {
                    "x": numbers(runs[x] if x in runs and y in runs else []),
                    "y": numbers(runs[y] if x in runs and y in runs else []),
                },
            }
        )
    return {"kind": "points", "panels": panels}
