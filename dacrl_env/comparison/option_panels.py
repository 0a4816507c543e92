"""Panels of a figure that show choices and events.

A choice has a band for each policy, divided by the share of runs with each option; an
event has marks where it happened, the larger the more runs it did in.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dacrl_env.tasks.registration import ALGORITHMS, TASKS, load

_MARKS = ("v", "^", "s")
_EDGE = 0.1  # between the bands of policies, as a share of their height


class Options(NamedTuple):
    """What a column may say."""

    shown: tuple[Any, ...]  # options; of an event those that happen
    is_event: bool


def found(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, Options]:
    """The columns among ``names`` that are no numbers, and their options.

    Args:
        frame: rows of one task.
        names: of columns, ``hp/<name>``.
    """
    task = TASKS.get(str(frame["task"].iloc[0]))
    every = load(ALGORITHMS[task.algorithm]).hyperparameters if task else ()
    known = {f"hp/{h.name}": h for h in every}
    result = {}
    for name in names:
        if is_numeric(frame[name]):
            continue
        event = name in known and not known[name].held
        options = sorted(frame[name].dropna().unique().tolist(), key=str)
        if name in known:
            options = [*known[name].options]
        result[name] = Options(tuple(options[1:] if event else options), event)
    return result


def is_numeric(column: pd.Series) -> bool:
    """Whether what a column says are numbers, and no truths."""
    truths = {type(value) for value in column.dropna().unique()} & {bool, np.bool_}
    return pd.api.types.is_numeric_dtype(column.dtype) and not truths


def draw(
    axis: Axes, values: pd.DataFrame, options: Options, place: int, colour: str
) -> None:
    """One policy, at height ``place``.

    Args:
        axis: of the panel.
        values: a row a run, and a column for the end of each interval.
        options: of the column.
        place: number of the policy.
        colour: of the policy.
    """
    steps, every = shares(values, options)
    bottom = np.zeros(len(steps) - 1)
    for k, share in enumerate(every):
        if options.is_event:  # at the beginning of the interval
            at, size = steps[:-1][share > 0], share[share > 0]
            axis.scatter(
                at, np.full(len(at), place + 0.5), s=6 + 30 * size, color=colour,
                marker=_MARKS[k], linewidths=0,
            )  # fmt: skip
            continue
        low, high = (
            place + _EDGE + (1 - 2 * _EDGE) * np.concatenate([x[:1], x])
            for x in (bottom, bottom + share)
        )
        grey = _grey(k, options)
        axis.fill_between(steps, low, high, step="pre", color=grey, linewidth=0)
        bottom += share
    if not options.is_event:
        ends = [place + _EDGE, place + 1 - _EDGE]
        axis.plot([0, 0], ends, color=colour, linewidth=4, solid_capstyle="butt")


def shares(
    values: pd.DataFrame, options: Options
) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
    """Share of runs with each option, of those that have not ended.

    Args:
        values: a row a run, and a column for the end of each interval.
        options: of the column.

    Returns:
        Ends of intervals with 0 before them, ``(intervals + 1,)``, and of each option
        shares ``(intervals,)``.
    """
    steps = np.concatenate([[0.0], values.columns.to_numpy(dtype=np.float64)])
    alive = values.notna().sum().to_numpy(dtype=np.float64)
    found = [
        (values == option).sum().to_numpy(dtype=np.float64) / alive
        for option in options.shown
    ]
    return steps, found


def finish(axis: Axes, name: str, options: Options, policies: int) -> None:
    """Label a panel in which so many policies were drawn."""
    axis.set_ylim(policies, 0)  # the first policy above
    axis.set_yticks([])
    axis.set_ylabel(textwrap.fill(name.removeprefix("hp/").replace("_", " "), 14))
    looks: list[Any] = [
        Line2D([], [], linestyle="", color="0.3", marker=_MARKS[k])
        if options.is_event
        else Patch(color=_grey(k, options))
        for k, _ in enumerate(options.shown)
    ]
    if options.shown == (True,):  # there is nothing to tell apart
        return
    axis.legend(
        looks, [str(option) for option in options.shown], loc="center left",
        bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7, handlelength=1,
    )  # fmt: skip


def _grey(k: int, options: Options) -> str:
    return str(0.9 - 0.7 * k / max(len(options.shown) - 1, 1))
