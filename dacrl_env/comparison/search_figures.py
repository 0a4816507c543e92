"""Figures of how a search went: rungs of brackets, and lineages of forked runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dacrl_env.comparison.courses import Curve
from dacrl_env.comparison.page_figures import MOST, Figure, is_wide
from dacrl_env.comparison.tables import cell
from dacrl_env.methods.lineages import Copy, Line, complete

SCORE = "observed score"
_TALL, _LOW = 240, 100  # pixels of a panel
_PANELS = 8  # of brackets, at most

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bracket:
    """Runs that were started together, and given up in steps.

    Attributes:
        rungs: (runs, decisions) up to each point where some were given up, and to the
            end.
        lines: of all generations that had these rungs.
    """

    rungs: tuple[tuple[int, int], ...]
    lines: list[Line]

    @property
    def title(self) -> str:
        """As people read it."""
        runs = " → ".join(f"{n:,}" for n, _ in self.rungs)
        ends = ", ".join(f"{end:,}" for _, end in self.rungs)
        return f"{runs} runs up to decision {ends}"


def brackets(every: Sequence[Line]) -> list[Bracket]:
    """Brackets in which runs were given up, those of most runs first.

    Args:
        every: lines of a trace without copies.
    """
    found: dict[tuple[tuple[int, int], ...], list[Line]] = {}
    for generation in sorted({one.generation for one in every}):
        lines = [one for one in every if one.generation == generation]
        ends = np.array([one.decisions for one in lines])
        rungs = tuple(
            (int((ends >= end).sum()), int(end)) for end in sorted(set(ends.tolist()))
        )
        found.setdefault(rungs, []).extend(lines)
    several = [Bracket(rungs, lines) for rungs, lines in found.items() if rungs[1:]]
    return sorted(several, key=lambda one: (-one.rungs[0][0], -len(one.lines)))


def rungs_figure(
    trace: pd.DataFrame, shown: Sequence[Bracket]
) -> tuple[dict[str, Any], list[str]]:
    """Scores of all runs of brackets, a panel for each, up to where they were given up.

    Args:
        trace: of the fit.
        shown: brackets of it, one at least.

    Returns:
        The figure, and sentences on what is left out of it.
    """
    said = []
    if len(shown) > _PANELS:
        said.append(
            f"Of {len(shown)} kinds of brackets the {_PANELS} of most runs are shown."
        )
    shown = shown[:_PANELS]
    scores = trace["score"].to_numpy(np.float64)
    every = [one for bracket in shown for one in bracket.lines]
    longest = max(one.decisions for one in every)
    kept = _spaced(every, max(1, MOST // longest))
    if len(kept) < len(every):
        said.append(f"Of {len(every):,} runs {len(kept):,}, evenly spaced, are shown.")
    names = [
        f"start {one.generation}, run {int(one.members[0])}: "
        + (
            "trained to the end"
            if one.decisions == longest
            else f"given up after decision {one.decisions}"
        )
        for one in kept
    ]
    figure = Figure("decisions of a run", bounds=(0, longest))
    figure.show_runs = True
    for bracket in shown:
        own = {id(one) for one in bracket.lines}
        panel = figure.add_panel(
            bracket.title, _TALL, lines=[0, 1], marks=[end for _, end in bracket.rungs]
        )
        mine = [one if id(one) in own else None for one in kept]
        figure.add_runs(0, panel, _table(mine, scores, longest), names)
        ended = complete(trace, bracket.lines)
        if ended:
            best = max(ended, key=lambda one: float(scores[one.rows[-1]]))
            values = scores[best.rows]
            steps = np.arange(1.0, best.decisions + 1)
            figure.add_curve(0, panel, Curve(steps, values, values, values))
    return figure.data(), said


def rungs_table(
    trace: pd.DataFrame, shown: Sequence[Bracket]
) -> tuple[list[str], list[list[str]]]:
    """What each rung had, as heads and columns of cells."""
    scores = trace["score"].to_numpy(np.float64)
    heads = ["bracket", "up to decision", "runs", "went on", "best score", "median"]
    heads.append("rank of the later best")
    rows = []
    for number, bracket in enumerate(shown, start=1):
        starts = len({one.generation for one in bracket.lines})
        ended = complete(trace, bracket.lines)
        best = max(ended, key=lambda one: float(scores[one.rows[-1]]), default=None)
        for k, (runs, end) in enumerate(bracket.rungs):
            alive = [one for one in bracket.lines if one.decisions >= end]
            then = np.array([scores[one.rows[end - 1]] for one in alive])
            on = bracket.rungs[k + 1][0] if k + 1 < len(bracket.rungs) else 0
            rank = "–"
            if best is not None:
                group = [one for one in alive if one.generation == best.generation]
                own = scores[best.rows[end - 1]]
                above = sum(bool(scores[g.rows[end - 1]] > own) for g in group)
                rank = f"{above + 1} of {len(group)}"
            rows.append(
                [
                    f"{number}, {starts:,} times" if starts > 1 else f"{number}",
                    f"{end:,}",
                    f"{runs:,}",
                    f"{on:,}" if on else "–",
                    f"{np.nanmax(then):.4f}",
                    f"{np.nanmedian(then):.4f}",
                    rank,
                ]
            )
    return heads, [list(column) for column in zip(*rows, strict=True)]


def lineages_figure(
    trace: pd.DataFrame, every: Sequence[Line], found: Sequence[Copy], names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Whose state runs went on from, and scores and values along the way.

    Args:
        trace: of the fit.
        every: its lines.
        found: its copies, one at least.
        names: columns of hyperparameters that are numbers.

    Returns:
        The figure, of the generation with most copies, and sentences on the lineage of
        the run that ended best and on what is left out.
    """
    numbers = [one.generation for one in found]
    generation = max(set(numbers), key=numbers.count)
    lines = [one for one in every if one.generation == generation]
    scores = trace["score"].to_numpy(np.float64)
    longest = max(one.decisions for one in lines)
    ended = complete(trace, lines) or [o for o in lines if o.decisions == longest]
    best = max(ended, key=lambda one: float(scores[one.rows[-1]]))
    members = int(max(one.members.max() for one in lines)) + 1
    kept = _spaced(lines, max(1, MOST // longest // (2 + len(names))))
    figure = Figure("decisions of a run", bounds=(0, longest))
    figure.show_runs = True
    shown = [
        f"{_path(one)}{'' if one.decisions == longest else ', where it ended'}"
        for one in kept
    ]
    panels: list[tuple[str, Floats | None, int]] = [
        ("member", None, max(120, min(14 * members, 420))),
        (SCORE, scores, _TALL),
        *((name, trace[name].to_numpy(np.float64), _LOW) for name in names),
    ]
    for name, values, height in panels:
        more: dict[str, Any] = {}
        if values is None:
            more["range"] = [-0.6, members - 0.4]
        elif name == SCORE:
            more["lines"] = [0, 1]
        else:
            more["log"] = is_wide(values)
        title = name.removeprefix("hp/").replace("_", " ")
        panel = figure.add_panel(title, height, **more)
        shape = "linear" if name == SCORE else "vh"
        each = _table(kept, values, longest)
        own = _table([best], values, longest).iloc[0]
        if shape == "vh":  # a value holds up to the decision that it stands at
            each.insert(0, 0, each.iloc[:, 0])
            own = pd.concat([pd.Series({0: own.iloc[0]}), own])
        figure.add_runs(0, panel, each, shown, shape)
        steps = own.index.to_numpy(np.float64)
        drawn = own.to_numpy(np.float64)
        figure.add_curve(0, panel, Curve(steps, drawn, drawn, drawn), shape)
    said = [f"The run that ended best: {_path(best)}."]
    starts = len({one.generation for one in every})
    if starts > 1:
        said.append(
            f"Of {starts:,} starts, the one with most copies is shown, start "
            f"{generation}."
        )
    if len(kept) < len(lines):
        said.append(f"Of {len(lines):,} runs {len(kept):,}, evenly spaced, are shown.")
    return figure.data(), said


def copies_table(
    trace: pd.DataFrame, found: Sequence[Copy], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Who was copied from whom, when, with values before and after.

    Args:
        trace: of the fit.
        found: its copies, as many as are shown.
        names: columns of hyperparameters.

    Returns:
        Heads, and columns of cells.
    """
    keys = zip(trace["generation"], trace["step"], trace["member"], strict=True)
    at = {key: k for k, key in enumerate(keys)}
    scores = trace["score"].to_numpy(np.float64)
    changed = [
        name
        for name in names
        if any(
            str(trace[name].iloc[c.first])
            != str(trace[name].iloc[at[c.generation, c.decisions, c.donor]])
            for c in found
        )
    ]
    rows = []
    for one in found:
        own = at.get((one.generation, one.decisions, one.member))
        donor = at[one.generation, one.decisions, one.donor]
        rows.append(
            [
                f"{one.decisions:,}",
                f"{one.member}",
                f"{one.donor}",
                "–" if own is None else f"{scores[own]:.4f}",
                f"{scores[donor]:.4f}",
                *(
                    f"{cell(trace[n].iloc[donor])} → {cell(trace[n].iloc[one.first])}"
                    for n in changed
                ),
            ]
        )
    heads = ["after decision", "member", "went on as", "its score", "score of that one"]
    heads += [name.removeprefix("hp/") for name in changed]
    return heads, [list(column) for column in zip(*rows, strict=True)]


def _spaced(every: Sequence[Line], most: int) -> list[Line]:
    """Evenly spaced ones, at most so many."""
    places = np.linspace(0, len(every) - 1, min(len(every), most)).round()
    return [every[k] for k in places.astype(int)]


def _table(
    kept: Sequence[Line | None], values: Floats | None, longest: int
) -> pd.DataFrame:
    """Values by run and decision, NaN where there is none; None: numbers of members."""
    table = np.full((len(kept), longest), np.nan)
    for row, one in zip(table, kept, strict=True):
        if one is not None:
            row[: one.decisions] = one.members if values is None else values[one.rows]
    return pd.DataFrame(table, columns=np.arange(1, longest + 1))


def _path(line: Line) -> str:
    """Members that a run went through, and up to which decision."""
    turns = np.flatnonzero(np.diff(line.members)) + 1
    starts = [0, *turns.tolist()]
    parts = [
        f"member {int(line.members[a])} to decision {b}"
        for a, b in zip(starts, [*starts[1:], line.decisions], strict=True)
    ]
    shown = parts if len(parts) <= 6 else [*parts[:3], "…", *parts[-2:]]
    return ", then ".join(shown)
