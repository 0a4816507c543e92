"""What DQN remembers, and what it draws of it, against plain lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from populations import Runs, Stepped, make_runs

from dacrl_env.algorithms import dqn, drivers
from dacrl_env.algorithms.interval import Run, begin
from dacrl_env.algorithms.replay import ACTIONS, DONE
from dacrl_env.core import snapshot
from dacrl_env.inner_envs import Transition
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.kernels import dense
from dacrl_env.learners.dqn import DQN, DQNConfig

KEYS = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)


@dataclass
class Shown:
    """State of `Numbered`."""

    observations: NDArray[np.float32]  # (P, N, 2)


@dataclass
class Numbered:
    """Environments that number their steps, and keep what they gave in lists.

    The first feature of an observation is the number of the step, the second names the
    environment; the one after the step is the negative of them minus one. Episodes end
    in either way.
    """

    history: dict[tuple[int, int], list[dict[str, float]]] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    observation_shape = (2,)
    observation_dtype = np.dtype(np.float32)
    num_actions = 4
    scales_images = False
    action_low = action_high = np.empty(0)
    physics = {}  # noqa: RUF012

    def init(self, keys: Any, physics: Any, lifetime: Any = None) -> Shown:
        P, N = keys.shape
        seen = np.zeros((P, N, 2), np.float32)
        seen[..., 1] = np.arange(P * N).reshape(P, N)
        return Shown(seen)

    def begin_episodes(self, state: Shown) -> None:
        pass

    def step(self, state: Shown, actions: Any) -> Transition:
        P, N = actions.shape
        end = self.rng.random((P, N))
        rewards, terminated, done = self.rng.normal(size=(P, N)), end < 0.15, end < 0.3
        for p, n in np.ndindex(P, N):
            step = {
                "action": float(actions[p, n]),
                "reward": float(rewards[p, n]),
                "terminated": float(terminated[p, n]),
                "done": float(done[p, n]),
            }
            self.history.setdefault((p, n), []).append(step)
        after = -state.observations - 1
        state.observations[..., 0] += 1  # in place: learners must have copied
        nothing = np.zeros((P, N))
        return Transition(
            after, rewards, terminated, done, nothing, nothing.astype(int)
        )


@dataclass
class Filled:
    """A population that has acted at random, and beside it what happened."""

    runs: Runs

    @property
    def history(self) -> dict[tuple[int, int], list[dict[str, float]]]:
        return self.runs.learner.env.history

    def add(self, times: int) -> None:
        self.runs.train(times * self.runs.learner.fixed.N)

    def sample(
        self, B: int, members: list[int] | None = None, draw: int = 0
    ) -> dqn.Batch:
        runs = self.runs
        state, values, P = runs.state, runs.values, len(runs.state.env_steps)
        who = np.arange(P) if members is None else np.array(members)
        keys = KEYS[who] + np.uint64(1_000 * draw)
        values = {name: v[who] for name, v in values.items()}
        some = snapshot.take_rows(state, who)
        return dqn.Batch(*runs.learner.probe(some, values, keys, B))


def fill(P: int, N: int, capacity: int, times: int, **config: Any) -> Filled:
    """A population whose environments have taken so many steps each."""
    gamma = config.pop("gamma", [0.9 - 0.1 * p for p in range(P)])
    runs = make_runs(
        P,
        Numbered(),
        num_inner_envs=N,
        replay_capacity=capacity,
        learning_starts=10_000,
        gamma=gamma,
        **config,
    )
    filled = Filled(runs)
    filled.add(times)
    return filled


def slow_n_step(
    past: list[dict[str, float]], start: int, n: int, gamma: float
) -> tuple[float, int, bool]:
    """Return, number of the last transition, and whether to bootstrap from it."""
    total = 0.0
    for k in range(n):
        now = past[start + k]
        total += gamma**k * now["reward"]
        if now["done"] or start + k == len(past) - 1:
            break
    return total, start + k, not now["terminated"]


def numbers(batch: dqn.Batch) -> NDArray[np.int64]:
    """Of the sampled transitions ``(m, B)``."""
    return np.asarray(batch.observations)[..., 0].astype(int)


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [1, 3, 5, 7, 12])
def test_the_newest_transitions_are_kept(N: int, times: int) -> None:
    filled = fill(P=2, N=N, capacity=5 * N, times=times)
    state = filled.runs.state
    assert state.replay.transitions.shape == (2, N, 5, 4)
    for p, n in np.ndindex(2, N):
        for number in range(max(0, times - 5), times):  # each at its place
            step = filled.history[p, n][number]
            assert state.replay.transitions[p, n, number % 5].tolist() == [
                np.float32(step["reward"]),
                1 - step["terminated"],
                step["done"],
                step["action"],
            ]
            before, after = state.replay.observations[p, n, number % 5].tolist()
            assert before == [number, p * N + n]
            assert after == [-number - 1, -(p * N + n) - 1]
    unwritten = state.replay.transitions[:, :, times:]
    assert not unwritten.any()


def test_members_write_at_their_own_positions() -> None:
    runs = make_runs(3, Numbered(), num_inner_envs=2, replay_capacity=16)
    runs.state.env_steps[:] = [0, 10, 4]
    runs.train(2)
    written = runs.state.replay.observations.any((3, 4))
    places = [[0, 0, 0], [0, 1, 0], [1, 0, 5], [1, 1, 5], [2, 0, 2], [2, 1, 2]]
    assert np.argwhere(written).tolist() == places


def test_capacity_is_shared_by_the_rings() -> None:
    state = fill(P=2, N=3, capacity=10, times=1).runs.state
    assert state.replay.observations.shape == (2, 3, 3, 2, 2)


def test_bytes_stay_bytes() -> None:
    """And are scaled as they enter the network."""
    net = dense.make_network(2, (16, 16), 4, "relu")
    parts = np.array([0, net.weights[-1], net.row])
    fixed = dqn.Fixed(net, 1, 1, 2, 4, 0, 1 / 255, parts, False)
    state = dqn.make_state(1, fixed, 8, np.uint8, 3)
    assert state.replay.observations.nbytes == 8 * 2 * 2
    rng = np.random.default_rng(0)
    kept = state.replay.observations
    kept[...] = rng.integers(0, 256, kept.shape)
    state.replay.transitions[..., ACTIONS], state.env_steps[:] = range(8), 8
    values = dqn.Values(*np.ones((len(dqn.Values._fields), 1)))
    values.replay_window[:] = 100
    interval = begin(state.parameters, ("loss", "grad_norm"))
    run = Run(fixed, values, drivers.arrays_of(dqn.Arrays, state), interval)
    memory = dqn.make_memory(fixed, 64, 1)
    dqn.batch_of(0, KEYS[0], 64, run, memory)
    rows = memory.taken[:64, 0].astype(int)
    assert set(rows) == set(range(8))
    kept = state.replay.observations[0, 0, rows].astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(memory.inputs[:64], kept[:, 0], rtol=1e-6)
    np.testing.assert_allclose(memory.next_inputs[:64], kept[:, 1], rtol=1e-6)


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [1, 4, 10, 23])
@pytest.mark.parametrize("n_step", [1, 2, 3, 7])
@pytest.mark.parametrize("window", [None, 4])
def test_returns_equal_a_slow_reference(
    N: int, times: int, n_step: int, window: int | None
) -> None:
    newest = 100_000 if window is None else window * N
    filled = fill(
        P=3, N=N, capacity=10 * N, times=times, n_step=n_step, replay_window=newest
    )
    B = 128
    batch, kinds = filled.sample(B), set()
    for p, b in np.ndindex(3, B):
        ring = int(batch.observations[p, b, 1]) - p * N
        past = filled.history[p, ring]
        start, gamma = int(numbers(batch)[p, b]), 0.9 - 0.1 * p
        total, last, bootstrap = slow_n_step(past, start, n_step, gamma)
        assert start >= times - (window or 10)
        assert batch.actions[p, b] == past[start]["action"]
        assert batch.returns[p, b] == pytest.approx(total, abs=1e-5)
        # what follows is what followed the last transition of the window
        assert batch.next_observations[p, b].tolist() == [
            -last - 1,
            -(p * N + ring) - 1,
        ]
        discount = gamma ** (last - start + 1) * bootstrap
        assert batch.discounts[p, b] == pytest.approx(discount, abs=1e-6)
        cut = last - start + 1 < n_step
        done, over = past[last]["done"], past[last]["terminated"]
        kinds.add("terminated" if over else "truncated" if done else "newest" * cut)
    if times == 23 and n_step > 1 and not window:  # all of them were there to be tested
        assert kinds == {"terminated", "truncated", "newest", ""}


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [4, 10, 13])
def test_returns_do_not_go_on_beyond_an_episode_that_was_left(
    N: int, times: int
) -> None:
    filled = fill(P=6, N=N, capacity=10 * N, times=times, n_step=5)
    filled.runs.learner.begin_episodes(filled.runs.state)
    for past in filled.history.values():
        past[-1]["done"] = 1.0  # not terminated, where it was not: it bootstraps
    filled.add(3)
    batch, ended = filled.sample(256), 0
    for p, b in np.ndindex(6, 256):
        ring = int(batch.observations[p, b, 1]) - p * N
        start = int(numbers(batch)[p, b])
        past = filled.history[p, ring]
        total, last, _ = slow_n_step(past, start, 5, 0.9 - 0.1 * p)
        assert batch.returns[p, b] == pytest.approx(total, abs=1e-5)
        assert batch.next_observations[p, b, 0] == -last - 1
        ended += last == times - 1 > start
    assert ended


def test_nothing_is_left_where_nothing_was_begun() -> None:
    runs = make_runs(2, Numbered(), replay_capacity=10)
    runs.state.env_steps[:] = [0, 3]
    runs.learner.begin_episodes(runs.state)
    done = runs.state.replay.transitions[..., DONE]
    assert np.argwhere(done).tolist() == [[1, 0, 2]]


def _equally_often(counts: NDArray[np.int64]) -> bool:
    expected, freedom = counts.sum() / counts.size, counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return bool(abs(statistic - freedom) <= 5 * np.sqrt(2 * max(freedom, 1)))


@pytest.mark.parametrize("N", [1, 3])
def test_only_filled_rows_are_sampled_and_each_equally_often(N: int) -> None:
    filled, done = fill(P=2, N=N, capacity=40 * N, times=1), 1
    for times, rows in ((1, 1), (7, 7), (40, 40), (53, 40)):
        filled.add(times - done)
        done = times
        batch = filled.sample(400 * N * rows, draw=times)
        for p in range(2):
            ring = batch.observations[p, :, 1].astype(int) - p * N
            number = numbers(batch)[p] - (times - rows)
            assert ((ring >= 0) & (ring < N)).all()
            counts = np.bincount(ring * rows + number, minlength=N * rows)
            assert len(counts) == N * rows
            assert _equally_often(counts)


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [5, 40, 53])
def test_the_newest_of_a_window_are_sampled_each_equally_often(
    N: int, times: int
) -> None:
    windows = [7 * N + N - 1, 2, 40 * N]  # what is left over is dropped; one at least
    filled = fill(P=3, N=N, capacity=40 * N, times=times, replay_window=windows)
    batch = filled.sample(4_000)
    for p, window in enumerate(windows):
        rows = min(max(window // N, 1), times, 40)
        ring = batch.observations[p, :, 1].astype(int) - p * N
        number = numbers(batch)[p] - (times - rows)
        assert number.min() == 0
        counts = np.bincount(ring * rows + number, minlength=N * rows)
        assert len(counts) == N * rows
        assert _equally_often(counts)


def test_a_window_that_leaves_nothing_out_changes_nothing() -> None:
    for times in (5, 23):
        filled = fill(P=2, N=2, capacity=20, times=times, replay_window=[20, 1_000])
        whole = filled.sample(32)
        filled.runs.values["replay_window"][:] = 100_000
        for mine, theirs in zip(whole, filled.sample(32), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_members_at_different_positions_sample_their_own() -> None:
    filled = fill(P=3, N=2, capacity=10, times=5)
    filled.runs.state.env_steps[:] = [2, 6, 10]  # as if the others had restarted
    assert [set(row) for row in numbers(filled.sample(256)).tolist()] == [
        {0},
        {0, 1, 2},
        {0, 1, 2, 3, 4},
    ]


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_batch_depends_on_the_member_and_the_draw_alone(n_step: int) -> None:
    filled = fill(P=4, N=2, capacity=20, times=15, n_step=n_step)
    every = filled.sample(32, draw=9)
    some = filled.sample(32, members=[3, 1], draw=9)
    for mine, theirs in zip(some, every, strict=True):
        np.testing.assert_array_equal(mine, theirs[[3, 1]])
    # a narrower batch is the first part of a wider one
    narrow = filled.sample(5, draw=9)
    np.testing.assert_array_equal(narrow.returns, every.returns[:, :5])
    other = filled.sample(32, draw=10)
    assert (other.observations != every.observations).any()
    assert (every.observations[0, :, 0] != every.observations[1, :, 0]).any()


def test_sampling_changes_nothing() -> None:
    filled = fill(P=2, N=1, capacity=8, times=12, n_step=3)
    before = [filled.runs.member(i) for i in range(2)]
    batch = filled.sample(32)
    batch.returns[:] = 0  # whoever has it may compute in place
    assert [filled.runs.member(i) for i in range(2)] == before


@pytest.mark.parametrize("stepped", [False, True])
def test_memory_of_a_large_population(stepped: bool) -> None:
    env: Any = Stepped(ENVS["CartPole-v1"]()) if stepped else ENVS["CartPole-v1"]()
    runs = make_runs(64, env, budget=50_000, hidden_sizes=(64, 64))
    state = runs.state
    assert state.replay.transitions.shape[:3] == (64, 1, 50_000)
    # 2 × 4 features and 4 further numbers of 4 bytes
    kept = 64 * 50_000 * 12 * 4
    assert state.replay.observations.nbytes + state.replay.transitions.nbytes == kept
    whole = sum(leaf.nbytes for _, leaf in snapshot.leaves(state))
    assert whole < 1e9
    told = DQN.member_bytes(DQNConfig(), 50_000, env, {})
    assert sum(told.values()) * 64 == pytest.approx(whole, rel=0.05)
    own = ("parameters", "target", "mean", "square", "replay.transitions")

    def places() -> list[int]:
        leaves = dict(snapshot.leaves(state))
        return [leaves[name].ctypes.data for name in own]

    before = places()
    runs.train(60)
    assert places() == before
