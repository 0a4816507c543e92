"""Prioritised level replay: the choice against its definition, scores by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dacrl_env.algorithms import level_replay
from dacrl_env.algorithms.level_replay import NO_CHOICE, Levels, chances
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.random_numbers import draw

INFINITE = float("inf")


@entry
def _choose(p: int, keys: Any, about: Any, table: Any, into: Any) -> None:
    for i in range(len(keys)):
        drawn = draw(keys[i], 0)
        into[i] = level_replay.choose(p, drawn, about[0], about[1], about[2], table)


@entry
def _score(p: int, advantages: Any, going_on: Any, levels: Any, table: Any) -> None:
    level_replay.score(p, advantages, going_on, levels, table)


@entry
def _begin(p: int, level: int, table: Any) -> None:
    level_replay.begin(p, level, table)


@entry
def _forget(p: int, table: Any) -> None:
    level_replay.forget(p, table)


def chosen(
    table: Levels, *about: float, p: int = 0, n: int = 20_000, seed: int = 5
) -> NDArray[np.int64]:
    keys = np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)
    into = np.zeros(n, np.int64)
    _choose(p, keys, np.array(about, float), table, into)
    return into


def filled(L: int, seen: int, P: int = 2, seed: int = 1) -> Levels:
    """A table some of whose levels have scores, two of them equal ones."""
    rng = np.random.default_rng(seed)
    table = Levels.of(P, L)
    table.begun[...] = 3 * L
    for p in range(P):
        known = rng.permutation(L)[:seen]
        table.seen[p, known] = True
        table.scores[p, known] = rng.uniform(0, 1, seen)
        table.latest[p, known] = rng.integers(1, 3 * L, seen)
        if seen > 2:
            table.scores[p, known[0]] = table.scores[p, known[1]]
    return table


def chi_square(counts: NDArray[Any], expected: NDArray[np.float64]) -> float:
    """In standard deviations above its mean."""
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    # rare ones together
    rare = possible & (expected < 5)
    parts = [(counts[i], expected[i]) for i in np.flatnonzero(possible & ~rare)]
    if rare.any() and expected[rare].sum() >= 1:
        parts.append((counts[rare].sum(), expected[rare].sum()))
    seen, awaited = np.array(parts, float).T
    free = max(len(seen) - 1, 1)
    return float((((seen - awaited) ** 2 / awaited).sum() - free) / np.sqrt(2 * free))


ABOUT = [
    (1.0, 0.1, 0.1),
    (1.0, 0.1, 0.0),
    (1.0, 1.0, 0.3),
    (0.5, 0.3, 0.1),
    (0.7, 5.0, 1.0),
    (1.0, INFINITE, 0.0),
    (0.3, 100.0, 0.5),
]


@pytest.mark.parametrize("seen", [0, 1, 7, 12])
@pytest.mark.parametrize("about", ABOUT)
def test_levels_are_drawn_as_the_definition_says(
    about: tuple[float, float, float], seen: int
) -> None:
    table = filled(12, seen)
    for p in (0, 1):
        expected = chances(table, *about, p=p)
        assert expected.sum() == pytest.approx(1)
        levels = chosen(table, *about, p=p)
        counts = np.bincount(levels, minlength=12)
        assert chi_square(counts, 20_000 * expected) < 4


def test_a_temperature_without_limit_is_uniform() -> None:
    table = filled(200, 200)
    counts = np.bincount(chosen(table, 1.0, INFINITE, 0.0), minlength=200)
    assert chi_square(counts, np.full(200, 100.0)) < 4
    np.testing.assert_allclose(chances(table, 1.0, INFINITE, 0.0), 1 / 200)
    # a low one is not
    counts = np.bincount(chosen(table, 1.0, 0.1, 0.0), minlength=200)
    assert counts.argmax() == table.scores[0].argmax()
    assert counts.max() > 0.99 * 20_000


def test_the_definition_is_that_of_the_paper() -> None:
    """P ∝ (1 − ρ) rank^(−1/β) + ρ staleness, by hand."""
    table = Levels.of(1, 3)
    table.scores[0] = [0.2, 0.9, 0.5]
    table.seen[0] = True
    table.begun[0], table.latest[0] = 10, [10, 4, 8]
    ranks = np.array([3.0, 1.0, 2.0]) ** -2
    by_score, by_staleness = ranks / ranks.sum(), np.array([0, 6, 2]) / 8
    expected = 0.75 * by_score + 0.25 * by_staleness
    np.testing.assert_allclose(chances(table, 1.0, 0.5, 0.25), expected)
    # levels that have no score are played, too: in proportion to how many they are
    table.seen[0, 0] = False
    half = np.array([0, 4, 1]) / 5
    expected = np.array([1 / 3, 0, 0]) + 2 / 3 * half
    np.testing.assert_allclose(chances(table, 1.0, 0.5, 0.0), expected)
    expected = np.array([2 / 3, 0, 0]) + 1 / 3 * half
    np.testing.assert_allclose(chances(table, 0.5, 0.5, 0.0), expected)


def test_where_no_level_waits_all_are_alike() -> None:
    table = filled(4, 4)
    table.latest[...] = table.begun[:, None]
    counts = np.bincount(chosen(table, 1.0, 0.1, 1.0), minlength=4)
    assert chi_square(counts, np.full(4, 5_000.0)) < 4


def test_without_replay_the_environment_chooses() -> None:
    assert (chosen(filled(12, 7), 0.0, 0.1, 0.1, n=50) == NO_CHOICE).all()


def test_a_choice_is_a_level_whatever_the_scores_are() -> None:
    table = filled(12, 12)
    table.scores[0] = INFINITE
    assert {*chosen(table, 1.0, 50.0, 0.0).tolist()} == {*range(12)}
    table.scores[0] = 0.0
    assert {*chosen(table, 1.0, 50.0, 0.0).tolist()} == {*range(12)}


# -- scores --------------------------------------------------------------------------


def note(table: Levels, p: int, advantages: Any, going_on: Any, levels: Any) -> None:
    """Score levels by advantages, all ``(N, T)``."""
    given = np.array(advantages, np.float32), np.array(going_on, np.float32)
    _score(p, *given, np.array(levels), table)


def test_the_score_is_the_mean_absolute_advantage_of_an_episode() -> None:
    table = Levels.of(2, 5)
    note(
        table, 1,
        [[1.0, -3.0, 4.0, -6.0], [0.5, 0.5, -0.5, 2.5]],
        [[1, 0, 1, 1], [1, 1, 1, 1]],
        [[2, 2, 0, 0], [4, 4, 4, 4]],
    )  # fmt: skip
    assert table.seen[1].tolist() == [True, False, True, False, True]
    assert table.scores[1].tolist() == [5.0, 0.0, 2.0, 0.0, 1.0]
    # the episodes go on in the next rollout, one of them to its end at its end
    note(
        table, 1,
        [[-20.0, 3.0, 5.0, 4.0], [1.0, 1.0, 1.0, 3.0]],
        [[0, 1, 0, 1], [1, 1, 1, 0]],
        [[0, 3, 3, 2], [4, 4, 4, 4]],
    )  # fmt: skip
    assert table.scores[1].tolist() == [20.0, 0.0, 4.0, 4.0, 1.5]
    assert table.seen[1].tolist() == [True, False, True, True, True]
    # of others nothing is known
    assert not table.seen[0].any()
    assert not table.scores[0].any()


def test_a_score_that_is_no_number_is_none() -> None:
    table = Levels.of(1, 2)
    note(table, 0, [[np.nan, 1.0]], [[1, 0]], [[1, 1]])
    assert table.seen[0].tolist() == [False, True]
    assert table.scores[0].tolist() == [0.0, 0.0]
    assert (chosen(table, 1.0, 0.1, 0.0, n=50) >= 0).all()


def test_episodes_are_counted_when_they_begin() -> None:
    table = Levels.of(2, 3)
    for level in (2, 0, 2):
        _begin(1, level, table)
    assert table.begun.tolist() == [0, 3]
    assert table.latest.tolist() == [[0, 0, 0], [2, 0, 3]]
    full = filled(3, 3)
    _forget(1, full)
    for array in full:
        assert not array[1].any()
    assert full.seen[0].all()
