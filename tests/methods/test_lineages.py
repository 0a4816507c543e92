"""Runs followed through forks and rungs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dacrl_env.methods.lineages import complete, copies, has_lines, lines


def trace_of(rows: list[tuple[int, int, int, float]]) -> pd.DataFrame:
    """Rows (member, parent, step, score) of one generation."""
    names = ["member", "parent", "step", "score"]
    return pd.DataFrame(rows, columns=names).assign(generation=0)


# two runs; after decision 1 both go on from the second one
FORKED = trace_of(
    [(0, 0, 1, 0.1), (1, 1, 1, 0.5), (0, 1, 2, 0.6), (1, 1, 2, 0.7), (0, 0, 3, 0.9),
     (1, 1, 3, 0.8)]
)  # fmt: skip
# three runs, of which the last goes on, as number 0
SELECTED = trace_of([(k, k, 1, k) for k in range(3)] + [(0, 2, 2, 5.0)])


def test_lines_of_forked_runs_have_their_beginning_in_common() -> None:
    given_up, first, second = lines(FORKED)
    assert given_up.rows.tolist() == [0]
    assert (first.members.tolist(), first.rows.tolist()) == ([1, 0, 0], [1, 2, 4])
    assert (second.members.tolist(), second.rows.tolist()) == ([1, 1, 1], [1, 3, 5])
    (copy,) = copies(FORKED)
    assert (copy.decisions, copy.member, copy.donor, copy.first) == (1, 0, 1, 2)


def test_a_new_number_is_no_copy() -> None:
    assert copies(SELECTED) == []
    found = lines(SELECTED)
    assert [one.members.tolist() for one in found] == [[0], [1], [2, 0]]
    assert [one.decisions for one in complete(SELECTED)] == [2]


def test_generations_are_told_apart_whatever_the_order_of_rows() -> None:
    both = pd.concat([FORKED, SELECTED.assign(generation=1)], ignore_index=True)
    mixed = both.sample(frac=1, random_state=0).reset_index(drop=True)
    scores = mixed["score"].to_numpy()
    seen = [(one.generation, scores[one.rows].tolist()) for one in lines(mixed)]
    assert seen == [
        (0, [0.1]),
        (0, [0.5, 0.6, 0.9]),
        (0, [0.5, 0.7, 0.8]),
        (1, [0.0]),
        (1, [1.0]),
        (1, [2.0, 5.0]),
    ]


def test_runs_that_diverged_are_not_complete() -> None:
    diverged = FORKED.assign(diverged=[False] * 5 + [True])
    assert [one.rows[-1] for one in complete(diverged)] == [4]
    assert complete(FORKED.assign(score=np.nan)) == []
    assert not has_lines(None)
    assert not has_lines(FORKED[["step"]])
    assert not has_lines(FORKED[:0])
