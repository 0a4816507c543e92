"""Runs of a fit from their first decision to where each ended, through forks and rungs.

A trace has a row for each member and decision, with the member that it continues from.
Where runs were selected, members have new numbers; where they were forked, two of them
continue from one. A line follows the parents of one member back to its first decision,
so that lines of forked runs have their beginning in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NEEDED = frozenset({"generation", "member", "parent", "step", "score"})  # in a trace

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """One run.

    Attributes:
        generation: fresh starts before it.
        members: ``(n,)`` what it was called at each of its decisions.
        rows: ``(n,)`` places of these decisions in the trace.
    """

    generation: int
    members: Ints
    rows: Ints

    @property
    def decisions(self) -> int:
        """How far it came."""
        return len(self.rows)


def has_lines(trace: pd.DataFrame | None) -> bool:
    """Whether a trace is as those of this package."""
    return trace is not None and {*trace.columns} >= NEEDED and len(trace) > 0


def lines(trace: pd.DataFrame) -> list[Line]:
    """All runs, by generation, then by the decision and the member that each ended at.

    Args:
        trace: of a fit.
    """
    columns = {
        name: trace[name].to_numpy(np.int64)
        for name in ("generation", "member", "parent", "step")
    }
    found: list[Line] = []
    for generation in np.unique(columns["generation"]):
        (rows,) = np.nonzero(columns["generation"] == generation)
        steps, members, parents = (
            columns[name][rows].tolist() for name in ("step", "member", "parent")
        )
        at = {
            key: k for k, key in enumerate(zip(steps, members, strict=True))
        }  # of equal ones the last
        before = [
            at.get((step - 1, parent), -1)
            for step, parent in zip(steps, parents, strict=True)
        ]
        continued = set(before)
        for key in sorted(at):
            k = at[key]
            if k in continued:
                continue
            places = [k]
            while before[places[-1]] >= 0:
                places.append(before[places[-1]])
            places.reverse()
            found.append(
                Line(
                    int(generation),
                    np.array([members[p] for p in places]),
                    rows[places],
                )
            )
    return found


def complete(trace: pd.DataFrame, every: list[Line] | None = None) -> list[Line]:
    """Those of a trace that were trained to the end and did not diverge."""
    longest = int(trace["step"].max())
    failed = trace.get("diverged", pd.Series(False, trace.index))
    failed = failed.to_numpy(bool) | ~np.isfinite(trace["score"].to_numpy(np.float64))
    return [
        one
        for one in (lines(trace) if every is None else every)
        if one.decisions == longest and not failed[one.rows[-1]]
    ]


@dataclass(frozen=True)
class Copy:
    """A run that went on from another one's state.

    Attributes:
        generation: fresh starts before it.
        decisions: that both had had.
        member: whose own run ended there.
        donor: whose state it goes on from.
        first: place in the trace of its first decision afterwards.
    """

    generation: int
    decisions: int
    member: int
    donor: int
    first: int


def copies(trace: pd.DataFrame) -> list[Copy]:
    """Where runs went on as copies of others, in the order of the trace.

    A member that merely has a new number, as after a rung, is none.
    """
    later = trace["step"].to_numpy() > 1
    generation, step, member, parent = (
        trace[name].to_numpy(np.int64)
        for name in ("generation", "step", "member", "parent")
    )
    children = trace[later].groupby(["generation", "step", "parent"])["member"].size()
    return [
        Copy(
            int(generation[row]),
            int(step[row]) - 1,
            int(member[row]),
            int(parent[row]),
            int(row),
        )
        for row in np.flatnonzero(later & (member != parent))
        if children.loc[(generation[row], step[row], parent[row])] > 1
    ]
