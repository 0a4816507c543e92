from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dacrl_env import snapshot
from dacrl_env.learners import replay, streams

if TYPE_CHECKING:
    from conftest import MakeRuns

CPU = torch.device("cpu")
KEYS = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)


@dataclass
class Filled:
    """A replay memory and, beside it, plain lists of what went in.

    The first feature of an observation is the number of the transition in its ring,
    the second names the ring; the one after the step is the negative of them minus one.
    """

    memory: replay.Replay
    written: NDArray[np.int64]  # (P,)
    history: dict[tuple[int, int], list[dict[str, float]]] = field(default_factory=dict)

    @property
    def rings(self) -> int:
        return self.memory.transitions.shape[1]

    def add(self, rng: np.random.Generator, times: int) -> None:
        """Write random transitions; episodes end in either way."""
        P, N = self.memory.transitions.shape[:2]
        for _ in range(times):
            observations = np.empty((P, N, 2, 2))
            rows = np.empty((P, N, 4))
            for p, n in np.ndindex(P, N):
                past = self.history.setdefault((p, n), [])
                end = rng.random()
                step = {
                    "action": float(rng.integers(4)),
                    "reward": float(rng.normal()),
                    "terminated": float(end < 0.15),
                    "done": float(end < 0.3),
                }
                observations[p, n, 0] = len(past), p * N + n
                observations[p, n, 1] = -observations[p, n, 0] - 1
                rows[p, n] = (
                    step["action"],
                    step["reward"],
                    1 - step["terminated"],
                    step["done"],
                )
                past.append(step)
            dtype = torch.empty(0, dtype=self.memory.observations.dtype).numpy().dtype
            self.memory.writer()(
                self.written, observations.astype(dtype), rows.astype(np.float32)
            )
            self.written += 1

    def sample(
        self,
        B: int,
        n_step: int = 1,
        gamma: float = 0.9,
        members: list[int] | None = None,
        draw: int = 0,
        window: list[int] | None = None,
    ) -> replay.Batch:
        P = len(self.written)
        who = np.arange(P) if members is None else np.array(members)
        discount = torch.tensor([gamma - 0.1 * int(p) for p in who]).view(-1, 1, 1)
        weights = torch.full((len(who), B, 1), 1 / B)
        words = streams.bits(KEYS[who], np.full(len(who), draw), B)
        written = self.written[who]
        newest = None if window is None else np.array(window)
        return self.memory.sample(
            who, written, words, weights, discount, n_step, newest
        )


def fill(
    P: int, N: int, capacity: int, times: int, dtype: torch.dtype = torch.float32
) -> Filled:
    memory = replay.Replay.allocate(P, N, capacity, 2, dtype, CPU)
    filled = Filled(memory, np.zeros(P, np.int64))
    filled.add(np.random.default_rng(0), times)
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


def sampled(batch: replay.Batch) -> NDArray[np.int64]:
    """Numbers of the sampled transitions ``(m, B)``."""
    return batch.observations[..., 0].long().numpy()


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [1, 3, 5, 7, 12])
def test_the_newest_transitions_are_kept(N, times):
    filled = fill(P=2, N=N, capacity=5 * N, times=times)
    assert filled.memory.transitions.shape == (2, N, 5, 4)
    stored = filled.memory.observations[..., 0, 0]
    newest = range(max(0, times - 5), times)
    for p, n in np.ndindex(2, N):
        kept = stored[p, n, : len(newest)] if times < 5 else stored[p, n]
        assert sorted(kept.tolist()) == list(newest)
        for number in newest:  # each at its place
            row = filled.memory.transitions[p, n, number % 5].tolist()
            step = filled.history[p, n][number]
            expected = [
                step["action"],
                np.float32(step["reward"]),
                1 - step["terminated"],
                step["done"],
            ]
            assert row == expected


def test_members_write_at_their_own_positions():
    memory = replay.Replay.allocate(3, 2, 8, 1, torch.float32, CPU)
    observations = np.ones((3, 2, 2, 1), np.float32)
    rows = np.ones((3, 2, 4), np.float32)
    memory.writer()(np.array([0, 5, 2]), observations, rows)
    places = memory.transitions[..., 0].nonzero().tolist()
    assert places == [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1], [2, 0, 2], [2, 1, 2]]
    assert memory.observations.flatten(3).any(-1).nonzero().tolist() == places


def test_capacity_is_shared_by_the_rings():
    memory = replay.Replay.allocate(2, 3, 10, 4, torch.float32, CPU)
    assert memory.observations.shape == (2, 3, 3, 2, 4)


def test_bytes_stay_bytes():
    filled = fill(P=2, N=1, capacity=8, times=5, dtype=torch.uint8)
    assert filled.memory.observations.dtype == torch.uint8
    assert filled.memory.observations.nbytes == 2 * 8 * 2 * 2
    for n_step in (1, 3):
        batch = filled.sample(16, n_step)
        assert batch.observations.dtype == torch.float32
        assert batch.next_observations.dtype == torch.float32
        assert set(sampled(batch).flatten()) == set(range(5))
    batch = filled.sample(16)
    for p, rows in enumerate(sampled(batch)):
        kept = filled.memory.observations[p, 0, rows].float()
        assert torch.equal(batch.observations[p], kept[:, 0])
        assert torch.equal(batch.next_observations[p], kept[:, 1])


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [1, 4, 10, 23])
@pytest.mark.parametrize("n_step", [1, 2, 3, 7])
@pytest.mark.parametrize("window", [None, 4])
def test_returns_equal_a_slow_reference(N, times, n_step, window):
    filled = fill(P=3, N=N, capacity=10 * N, times=times)
    gamma, B = 0.9, 128
    newest = None if window is None else [window * N] * 3
    batch = filled.sample(B, n_step, gamma, window=newest)
    assert batch.actions.dtype == torch.int64
    assert batch.weights.shape == (3, B, 1)
    numbers, kinds = sampled(batch), set()
    for p, b in np.ndindex(3, B):
        ring = int(batch.observations[p, b, 1]) - p * N
        past = filled.history[p, ring]
        start, own_gamma = int(numbers[p, b]), gamma - 0.1 * p
        total, last, bootstrap = slow_n_step(past, start, n_step, own_gamma)
        assert start >= times - (window or 10)
        assert batch.actions[p, b] == past[start]["action"]
        assert batch.returns[p, b].item() == pytest.approx(total, abs=1e-5)
        # what follows is what followed the last transition of the window
        assert batch.next_observations[p, b].tolist() == [
            -last - 1,
            -(p * N + ring) - 1,
        ]
        discount = own_gamma ** (last - start + 1) * bootstrap
        assert batch.discounts[p, b].item() == pytest.approx(discount, abs=1e-6)
        cut = last - start + 1 < n_step
        done, over = past[last]["done"], past[last]["terminated"]
        kinds.add("terminated" if over else "truncated" if done else "newest" * cut)
    if times == 23 and n_step > 1 and not window:  # all of them were there to be tested
        assert kinds == {"terminated", "truncated", "newest", ""}


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [4, 10, 13])
def test_returns_do_not_go_on_beyond_an_episode_that_was_left(N, times):
    filled = fill(P=6, N=N, capacity=10 * N, times=times)
    filled.memory.end_episodes(filled.written)
    for past in filled.history.values():
        past[-1]["done"] = 1.0  # not terminated, where it was not: it bootstraps
    filled.add(np.random.default_rng(1), 3)
    batch = filled.sample(256, 5, 0.9)
    numbers, ended = sampled(batch), 0
    for p, b in np.ndindex(6, 256):
        ring = int(batch.observations[p, b, 1]) - p * N
        start = int(numbers[p, b])
        past = filled.history[p, ring]
        total, last, _ = slow_n_step(past, start, 5, 0.9 - 0.1 * p)
        assert batch.returns[p, b].item() == pytest.approx(total, abs=1e-5)
        assert batch.next_observations[p, b, 0] == -last - 1
        ended += last == times - 1 > start
    assert ended


def test_nothing_is_left_where_nothing_was_begun():
    memory = replay.Replay.allocate(2, 1, 10, 2, torch.float32, CPU)
    memory.end_episodes(np.array([0, 3]))
    assert memory.transitions[..., replay.DONE].nonzero().tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("N", [1, 3])
def test_only_filled_rows_are_sampled_and_each_equally_often(N):
    filled = fill(P=2, N=N, capacity=40 * N, times=1)
    for times, rows in ((1, 1), (7, 7), (40, 40), (53, 40)):
        filled.add(np.random.default_rng(times), times - int(filled.written[0]))
        batch = filled.sample(400 * N * rows, draw=times)
        for p in range(2):
            ring = batch.observations[p, :, 1].long().numpy() - p * N
            number = sampled(batch)[p] - (times - rows)
            assert ((ring >= 0) & (ring < N)).all()
            counts = np.bincount(ring * rows + number, minlength=N * rows)
            assert len(counts) == N * rows
            freedom = counts.size - 1
            statistic = ((counts - 400) ** 2 / 400).sum()
            assert abs(statistic - freedom) <= 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("times", [5, 40, 53])
def test_the_newest_of_a_window_are_sampled_each_equally_often(N, times):
    filled = fill(P=3, N=N, capacity=40 * N, times=times)
    windows = [7 * N + N - 1, 2, 40 * N]  # what is left over is dropped; one at least
    batch = filled.sample(4_000, window=windows)
    for p, window in enumerate(windows):
        rows = min(max(window // N, 1), times, 40)
        ring = batch.observations[p, :, 1].long().numpy() - p * N
        number = sampled(batch)[p] - (times - rows)
        assert number.min() == 0
        counts = np.bincount(ring * rows + number, minlength=N * rows)
        assert len(counts) == N * rows
        expected, freedom = 4_000 / counts.size, counts.size - 1
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - freedom) <= 5 * np.sqrt(2 * max(freedom, 1))


def test_a_window_that_leaves_nothing_out_changes_nothing():
    for times in (5, 23):
        filled = fill(P=2, N=2, capacity=20, times=times)
        for mine, theirs in zip(
            filled.sample(32, window=[20, 1_000]), filled.sample(32), strict=True
        ):
            assert torch.equal(mine, theirs)


def test_members_at_different_positions_sample_their_own():
    filled = fill(P=3, N=2, capacity=10, times=5)
    filled.written[:] = [1, 3, 5]  # as if the others had restarted
    numbers = sampled(filled.sample(256))
    assert [set(row.tolist()) for row in numbers] == [
        {0},
        {0, 1, 2},
        {0, 1, 2, 3, 4},
    ]


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_batch_depends_on_the_member_and_the_draw_alone(n_step):
    filled = fill(P=4, N=2, capacity=20, times=15)
    every = filled.sample(32, n_step, draw=9)
    some = filled.sample(32, n_step, members=[3, 1], draw=9)
    for mine, theirs in zip(some, every, strict=True):
        assert torch.equal(mine, theirs[[3, 1]])
    # a narrower batch is the first part of a wider one
    narrow = filled.sample(5, n_step, draw=9)
    assert torch.equal(narrow.returns, every.returns[:, :5])
    other = filled.sample(32, n_step, draw=10)
    assert not torch.equal(other.observations, every.observations)
    assert not torch.equal(every.observations[0, :, 0], every.observations[1, :, 0])


def test_sampling_changes_nothing():
    filled = fill(P=2, N=1, capacity=8, times=12)
    before = [leaf.clone() for _, leaf in snapshot.leaves(filled.memory)]
    for n_step in (1, 3):
        batch = filled.sample(32, n_step)
        batch.returns.mul_(0)  # learners compute in place
        batch.discounts.mul_(0)
    for (_, leaf), old in zip(snapshot.leaves(filled.memory), before, strict=True):
        assert torch.equal(leaf, old)


def test_memory_of_a_large_population(make_runs: MakeRuns):
    runs = make_runs(64, budget=50_000, hidden_sizes=(64, 64))
    memory = runs.state.replay
    arrays = [leaf for _, leaf in snapshot.leaves(memory)]
    assert memory.transitions.shape[:3] == (64, 1, 50_000)
    # 2 × 4 features and 4 further numbers of 4 bytes
    assert sum(a.nbytes for a in arrays) == 64 * 50_000 * 12 * 4
    assert sum(leaf.nbytes for _, leaf in snapshot.leaves(runs.state)) < 1e9
    places = [a.data_ptr() for a in arrays]
    runs.train(60)
    after = [leaf for _, leaf in snapshot.leaves(runs.state.replay)]
    assert [a.data_ptr() for a in after] == places
    assert [a.shape for a in after] == [a.shape for a in arrays]
