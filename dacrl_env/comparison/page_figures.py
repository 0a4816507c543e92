"""Figures of pages as plain data, which ``html/page.js`` draws.

A figure has panels, one below the other, over the same steps. Steps and values of lines
are kept once each, in ``grids`` and ``values``, and named by their places there.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dacrl_env.comparison import option_panels
from dacrl_env.comparison.courses import (
    Courses,
    Curve,
    per_run,
    values_of_runs,
)
from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.pages import number, numbers

MOST = 250_000
"""Numbers of single runs in one page, at most: they take up to seven bytes each."""

SCORE = "score (0 random, 1 reference)"
STEPS = "inner training environment steps"
_TALL, _LOW = 260, 100  # pixels of a panel of scores, and of one of values
_BAND = 18  # pixels of a policy in a panel of choices


class _Places:
    """Lists, each kept once, by their places."""

    def __init__(self) -> None:
        self.lists: list[list[Any]] = []
        self._known: dict[str, int] = {}

    def of(self, values: list[Any]) -> int:
        text = json.dumps(values)
        if text not in self._known:
            self._known[text] = len(self.lists)
            self.lists.append(values)
        return self._known[text]


@dataclass
class Figure:
    """Curves in panels, in the making.

    Attributes:
        title: of the steps.
        bounds: of the steps that are shown; None: all.
        log: whether steps are on a logarithmic scale.
        panels: as ``page.js`` takes them.
        curves: means or medians with bands.
        shares: of runs with each option of a choice.
        events: marks.
        runs: single runs, by policy and panel.
        run_names: of single runs, by policy.
        show_runs: whether single runs are shown from the beginning.
    """

    title: str = STEPS
    bounds: Sequence[float] | None = None
    log: bool = False
    panels: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    shares: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    run_names: dict[int, list[str]] = field(default_factory=dict)
    show_runs: bool = False
    _grids: _Places = field(default_factory=_Places)
    _values: _Places = field(default_factory=_Places)

    def add_panel(self, title: str, height: int = _LOW, **more: Any) -> int:
        """Add a panel below the others; returns its place."""
        shown = textwrap.shorten(printable(title), 60, placeholder=" …")
        self.panels.append({"title": shown, "height": height, **more})
        return len(self.panels) - 1

    def add_curve(
        self, policy: int, panel: int, curve: Curve, shape: str = "linear"
    ) -> None:
        """Add a curve with its band; ``shape`` is how Plotly connects its points.

        A curve whose ends are its middle itself has no band.
        """
        single = curve.low is curve.middle
        self.curves.append(
            {
                "policy": policy,
                "panel": panel,
                "shape": shape,
                "grid": self._grids.of(numbers(curve.steps)),
                "y": numbers(curve.middle),
                "low": None if single else numbers(curve.low),
                "high": None if single else numbers(curve.high),
            }
        )

    def add_options(
        self,
        policy: int,
        panel: int,
        each: pd.DataFrame,
        options: option_panels.Options,
    ) -> None:
        """Add what runs chose, or the events in them.

        Args:
            policy: place of the policy.
            panel: place of the panel.
            each: result of `per_run`.
            options: of the column.
        """
        steps, shares = option_panels.shares(each, options)
        if not options.is_event:
            self.shares.append(
                {
                    "policy": policy,
                    "panel": panel,
                    "grid": self._grids.of(numbers(steps)),
                    "options": [printable(option) for option in options.shown],
                    # a value holds during the interval that ends at its step
                    "shares": [numbers([one[0], *one]) for one in shares],
                }
            )
            return
        for k, (option, share) in enumerate(zip(options.shown, shares, strict=True)):
            happened = share > 0  # at the beginning of the interval
            self.events.append(
                {
                    "policy": policy,
                    "panel": panel,
                    "option": "runs" if option is True else printable(option),
                    "number": k,
                    "at": numbers(steps[:-1][happened]),
                    "share": numbers(share[happened]),
                }
            )

    def add_runs(
        self,
        policy: int,
        panel: int,
        each: pd.DataFrame,
        names: Sequence[str],
        shape: str = "linear",
    ) -> None:
        """Add single runs.

        Args:
            policy: place of the policy.
            panel: place of the panel.
            each: values with a row per run and a column per number of steps; NaN where
                a run has none.
            names: of the runs, the same in all panels of a policy.
            shape: how Plotly connects points.
        """
        steps = each.columns.to_numpy(dtype=np.float64)
        series: list[list[int] | None] = []
        for values in each.to_numpy(dtype=np.float64):
            known = ~np.isnan(values)
            if not known.any():
                series.append(None)
                continue
            x, y = steps[known], values[known]
            if shape == "vh":
                use = _corners(y)
                x, y = x[use], y[use]
            series.append([self._grids.of(numbers(x)), self._values.of(numbers(y))])
        self.run_names[policy] = list(names)
        self.runs.append(
            {"policy": policy, "panel": panel, "shape": shape, "series": series}
        )

    def data(self) -> dict[str, Any]:
        """As ``page.js`` takes it."""
        bounds = self.bounds
        if bounds is not None and self.log:
            bounds = [float(np.log10(bound)) for bound in bounds]
        return {
            "kind": "curves",
            "x": {
                "title": self.title,
                "range": None if bounds is None else [*map(float, bounds)],
                "log": self.log,
            },
            "panels": self.panels,
            "curves": self.curves,
            "shares": self.shares,
            "events": self.events,
            "runs": self.runs,
            "runNames": self.run_names,
            "showRuns": self.show_runs,
            "grids": self._grids.lists,
            "values": self._values.lists,
        }


def _corners(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points steps need: a value holds up to its point, so the last of equals."""
    use = np.ones(len(values), dtype=np.bool_)
    use[:-1] = values[:-1] != values[1:]
    use[0] = True
    return use


def is_wide(values: npt.NDArray[np.float64]) -> bool:
    """Whether positive values cover so much that a logarithmic scale shows them."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() > 0 and known.max() > 100 * known.min())


def _around(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """A range from 0 to twice the one value that there is, as Plotly has none of it."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() < known.max() or known[0] == 0:
        return {}
    return {"range": sorted([0.0, 2 * float(known[0])])}


def course_figure(
    found: Courses, frame: pd.DataFrame, units: Mapping[str, str], most: int = MOST
) -> tuple[dict[str, Any], str]:
    """Learning curves above applied values, single runs included.

    Args:
        found: result of `courses` of the frame.
        frame: rows of one task.
        units: by name of hyperparameter.
        most: numbers of single runs, at most; where there are more, evenly spaced runs
            are kept.

    Returns:
        The figure, and a sentence on what of the single runs is shown.
    """
    figure = Figure(bounds=(0, found.end))
    score = figure.add_panel(SCORE, _TALL, lines=[0, 1])
    panels: dict[str, int] = {}
    for name in found.names:
        short = name.removeprefix("hp/").replace("_", " ")
        unit = units.get(name.removeprefix("hp/"))
        title = f"{short} ({unit})" if unit else short
        if name in found.options:
            many = len(found.policies)
            panels[name] = figure.add_panel(
                title, max(40, min(_BAND, 400 // many) * many), places=many
            )
            continue
        bands = [c for (_, other), c in found.values.items() if other == name]
        ends = np.concatenate([end for c in bands for end in (c.low, c.high)])
        held = _around(frame[name].to_numpy(np.float64))
        panels[name] = figure.add_panel(title, log=is_wide(ends), **held)
    every: dict[str, pd.MultiIndex] = {}
    for policy in found.policies:
        rows = frame.loc[frame["policy"] == policy, ["run", "seed"]]
        rows = rows.drop_duplicates().sort_values(["run", "seed"])
        every[policy] = pd.MultiIndex.from_frame(rows)
    with_scores, with_values = _kept_runs(found, every, most)
    for place, policy in enumerate(found.policies):
        figure.add_curve(place, score, found.scores[policy])
        rows = frame[frame["policy"] == policy]
        index = with_scores[policy]
        names = _run_names(index)
        known = rows[rows["report_score"].notna()]
        scores = per_run(known, "report_score").reindex(index)
        figure.add_runs(place, score, scores, names)
        for name, panel in panels.items():
            if (policy, name) in found.chosen:
                each = found.chosen[policy, name]
                figure.add_options(place, panel, each, found.options[name])
            if (policy, name) in found.values:
                figure.add_curve(place, panel, found.values[policy, name], "vh")
                values = values_of_runs(rows, name)
                values = values.reindex(with_values[policy]).reindex(index)
                figure.add_runs(place, panel, values, names, "vh")
    return figure.data(), _shown_runs(every, with_scores, with_values)


def _kept_runs(
    found: Courses, every: Mapping[str, pd.MultiIndex], most: int
) -> tuple[dict[str, pd.MultiIndex], dict[str, pd.MultiIndex]]:
    """Runs of each policy whose scores, and whose values, are shown singly.

    Scores come first; values have the rest.
    """
    points = {policy: len(found.scores[policy].steps) for policy in every}
    scores, left = _thinned(every, points, most)
    points = dict.fromkeys(every, 0)
    for (policy, _), curve in found.values.items():
        points[policy] += len(curve.steps)
    return scores, _thinned(scores, points, left)[0]


def _thinned(
    runs: Mapping[str, pd.MultiIndex], points: Mapping[str, int], most: int
) -> tuple[dict[str, pd.MultiIndex], int]:
    """Evenly spaced runs of each policy, and how many numbers are left of ``most``."""
    total = sum(points[policy] * len(index) for policy, index in runs.items())
    share = min(1.0, most / max(total, 1))
    kept = {}
    for policy, index in runs.items():
        number_of = max(1, int(len(index) * share))
        places = np.linspace(0, len(index) - 1, number_of).round().astype(int)
        kept[policy] = index[places]
    spent = sum(points[policy] * len(index) for policy, index in kept.items())
    return kept, most - spent


def _run_names(index: pd.MultiIndex) -> list[str]:
    fits = len(index.unique("run")) > 1
    return [f"fit {r}, seed {s}" if fits else f"seed {s}" for r, s in index]


def _shown_runs(
    every: Mapping[str, pd.MultiIndex],
    scores: Mapping[str, pd.MultiIndex],
    values: Mapping[str, pd.MultiIndex],
) -> str:
    """What of the single runs is in the figure."""
    there, *shown = (sum(map(len, runs.values())) for runs in (every, scores, values))
    parts = [
        f"of {there:,} runs {number_of:,}, evenly spaced by seed, show their {what} "
        "singly"
        for number_of, what in zip(shown, ("scores", "values"), strict=True)
        if number_of < there
    ]
    if not parts:
        return "Numbers in figures are rounded to four digits."
    said = "; ".join(parts)
    return (
        f"To keep this file small, {said}. Means, intervals and tables are of all "
        "runs. Numbers in figures are rounded to four digits."
    )


def forest_panel(
    title: str,
    better: str,
    rows: Iterable[tuple[int, float, float, float]],
    line: float | None = None,
) -> dict[str, Any]:
    """Values with their intervals, one below the other.

    Args:
        title: of the panel.
        better: below it, which values are better.
        rows: place of the policy, value, low and high (NaN: no interval).
        line: where the reference is; None: nowhere.
    """
    return {
        "title": title,
        "better": better,
        "line": line,
        "rows": [
            {
                "policy": place,
                "value": number(value),
                "low": number(low),
                "high": number(high),
            }
            for place, value, low, high in rows
            if np.isfinite(value)
        ],
    }
