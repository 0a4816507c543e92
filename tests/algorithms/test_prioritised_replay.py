"""Prioritised replay: the tree of sums, what is drawn, weights, what stays exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from populations import Runs, make_runs

from dacrl_env.algorithms import replay
from dacrl_env.core import snapshot
from dacrl_env.kernels import sum_tree
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.random_numbers import draw
from dacrl_env.kernels.views import held


@entry
def _changed(tree, places, weights):
    for i in range(len(places)):
        sum_tree.change(tree, places[i], weights[i])


@entry
def _found(tree, xs, into):
    for i in range(len(xs)):
        into[i] = sum_tree.find(tree, xs[i])


@entry
def _drawn(p, key, times, B, run, memory, places, weights):
    run, memory = held(run), held(memory)
    for t in range(times):
        replay.draw_by_priority(p, draw(key, t), B, run, memory)
        for b in range(B):
            places[t, b] = memory.places[b]
            weights[t, b] = memory.columns.reshape(-1)[replay.WEIGHT * B + b]


def filled(n: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """A tree over n weights, some of them zero, and the weights."""
    rng = np.random.default_rng(seed)
    weights = (rng.random(n) * (rng.random(n) < 0.7)).astype(np.float32)
    weights[rng.integers(n)] = 1.0
    tree = np.zeros(2 * sum_tree.leaves(n), np.float32)
    _changed(tree, rng.permutation(n), np.zeros(n, np.float32))
    order = rng.permutation(n)
    _changed(tree, order, weights[order])
    return tree, weights


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100])
def test_every_node_is_the_sum_of_its_children(n: int) -> None:
    tree, weights = filled(n)
    L = len(tree) // 2
    assert n <= L
    np.testing.assert_array_equal(tree[L : L + n], weights)
    for k in range(1, L):
        assert tree[k] == tree[2 * k] + tree[2 * k + 1]
    assert tree[1] == pytest.approx(weights.sum(), rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100])
def test_places_are_found_in_proportion_and_never_without_weight(n: int) -> None:
    tree, weights = filled(n)
    ends = np.cumsum(weights, dtype=np.float64)
    xs = np.linspace(0, 1, 2001, dtype=np.float32) * tree[1]  # the end included
    found = np.empty(len(xs), np.int64)
    _found(tree, xs, found)
    assert (weights[found] > 0).all()
    expected = np.minimum(np.searchsorted(ends, xs, side="right"), n - 1)
    near = np.abs(ends[found] - xs) < 1e-4 * tree[1]
    near |= np.abs(ends[found] - weights[found] - xs) < 1e-4 * tree[1]
    assert ((found == expected) | near).all()


def trained(P: int = 2, steps: int = 200, **options: Any) -> Runs:
    given = {"train_freq": 4, "replay_capacity": 128, "priority_alpha": 0.6, **options}
    runs = make_runs(P, **given)
    runs.train(steps)
    return runs


def drawn(runs: Runs, p: int, times: int, B: int) -> tuple[Any, Any]:
    run = runs.learner._run(runs.state, runs.values)
    memory = runs.learner._make_memory(1, B)
    places, weights = np.empty((times, B), np.int64), np.empty((times, B))
    _drawn(p, np.uint64(5), times, B, run, memory, places, weights)
    return places, weights


def expected_weights(runs: Runs, p: int) -> NDArray[np.float64]:
    """Powers of the priorities of what may be drawn, at their places ``(N · C,)``."""
    values, priorities = runs.values, runs.state.replay.priorities[p]
    N, C = priorities.shape
    written = runs.state.env_steps[p] // N
    size = min(written, C, max(int(values["replay_window"][p]) // N, 1))
    result = np.zeros((N, C))
    for k in range(written - size, written):
        result[:, k % C] = priorities[:, k % C] ** values["priority_alpha"][p]
    return result.ravel()


@pytest.mark.parametrize(
    "options",
    [{}, {"num_inner_envs": 2}, {"replay_window": 40}, {"priority_alpha": 1.0}],
)
@pytest.mark.parametrize("steps", [100, 200, 400])
def test_the_tree_is_that_of_the_priorities(
    options: dict[str, Any], steps: int
) -> None:
    runs = trained(steps=steps, **options)
    for p in range(2):
        drawn(runs, p, 1, 8)  # plants it, where nothing was drawn since a change
        tree = runs.state.replay.tree[p]
        expected = expected_weights(runs, p)
        got = tree[len(tree) // 2 :][: len(expected)]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert len(set(np.round(got[got > 0], 6))) > 10


def test_draws_are_in_proportion_and_weights_make_up_for_it() -> None:
    runs = trained(priority_beta=0.5)
    priorities = runs.state.replay.priorities
    priorities[...] = np.random.default_rng(0).uniform(0.1, 5, priorities.shape)
    runs.state.replay.made_for[:] = np.nan  # so that the tree is made anew
    places, weights = drawn(runs, 0, 4_000, 16)
    shares = expected_weights(runs, 0)
    shares /= shares.sum()
    counts = np.bincount(places.ravel(), minlength=len(shares)) / places.size
    np.testing.assert_allclose(counts, shares, atol=4e-3)
    assert np.corrcoef(counts, shares)[0, 1] > 0.99
    size = np.count_nonzero(shares)
    expected = (size * shares[places]) ** -0.5
    expected /= expected.max(1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_an_exponent_of_zero_is_even_replay_bit_for_bit() -> None:
    """Whatever the other exponent, and with no room for priorities at all."""
    even = make_runs(2, replay_capacity=128)
    other = make_runs(2, replay_capacity=128, priority_beta=0.9)
    for runs in (even, other):
        runs.train(400)
    without = {"replay.priorities", "replay.tree", "replay.made_for"}
    without.add("replay.top_priority")
    for p in range(2):
        assert set(even.differences(other, p)) <= without


def test_it_begins_when_it_is_asked_for() -> None:
    late = trained(priority_alpha=0.0)
    assert np.isnan(late.state.replay.made_for).all()
    assert set(late.state.replay.priorities.ravel()) == {1.0}  # all are new
    late.values["priority_alpha"][:] = 0.6
    late.train(100)
    assert (late.state.replay.made_for[:, replay.ALPHA] == 0.6).all()
    assert len(set(late.state.replay.priorities[0].ravel())) > 20


def test_what_is_written_while_replay_is_even_is_in_the_tree_afterwards() -> None:
    runs = trained(1, 100)
    runs.values["priority_alpha"][:] = 0.0
    runs.train(30)
    runs.values["priority_alpha"][:] = 0.6
    drawn(runs, 0, 1, 8)
    tree, expected = runs.state.replay.tree[0], expected_weights(runs, 0)
    assert np.count_nonzero(expected) == 128
    np.testing.assert_allclose(tree[len(tree) // 2 :][:128], expected, rtol=1e-5)


def test_new_transitions_have_the_highest_priority_so_far() -> None:
    runs = trained(train_freq=1_000, steps=120)
    runs.state.replay.top_priority[:] = [3.0, 5.0]
    runs.train(1)
    newest = (runs.state.env_steps - 1) % runs.state.replay.priorities.shape[2]
    got = [runs.state.replay.priorities[p, 0, newest[p]] for p in range(2)]
    assert got == [3.0, 5.0]


def test_members_that_learned_alike_go_on_alike() -> None:
    """From a copy of the state, tree and priorities included."""
    one, two = trained(P=1), trained(P=1)
    snapshot.replace_leaves(
        two.state, lambda name, _: dict(snapshot.leaves(one.state))[name].copy()
    )
    for runs in (one, two):
        runs.train(100)
    assert one.differences(two, 0) == []
    two.state.replay.made_for[:] = np.nan  # made anew, it is the same
    for runs in (one, two):
        runs.train(100)
    assert one.differences(two, 0) == []


def test_errors_that_are_not_finite_can_still_be_drawn() -> None:
    runs = trained(learning_rate=[1e-3, 1e3])
    runs.train(400)
    assert np.isfinite(runs.state.replay.priorities).all()
    assert np.isfinite(runs.state.replay.tree[0]).all()
