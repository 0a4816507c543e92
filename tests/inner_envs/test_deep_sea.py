"""DeepSea against the rules of the package bsuite, written down in numpy.

bsuite itself is not installed. These are its rules for deterministic transitions
(google-deepmind/bsuite, ``bsuite/environments/deep_sea.py``), with our mapping.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import slow
from numpy.typing import NDArray
from stepping import constants, drawn, keys, start

from dacrl_env.inner_envs import deep_sea
from dacrl_env.inner_envs.env import ENVS

ID, SMALL = "DeepSea-v0", "DeepSea10-v0"


def mapping_of(number: int, size: int) -> NDArray[np.int64]:
    """Which action means right, ``(size, size)``."""
    words = drawn(deep_sea._KEY, number, 400)
    bits = np.array([word % 2 for word in words]).reshape(20, 20)
    return bits[:size, :size]


class Rules:
    """An episode of size × size cells."""

    def __init__(self, size: int, mapping: int, largest: int = 20) -> None:
        self.size, self.mapping = size, mapping_of(mapping, size)
        self.largest = largest
        self.row = self.column = 0

    def step(self, action: int) -> tuple[float, bool]:
        """Reward and termination."""
        right = action == self.mapping[self.row, self.column]
        reward = 0.0
        if right and self.column == self.size - 1:
            reward += 1.0
        if right:
            reward -= 0.01 / self.size
        there = self.column + (1 if right else -1)
        self.column = int(np.clip(there, 0, self.size - 1))
        self.row += 1
        return reward, self.row == self.size

    def seen(self) -> NDArray[np.float32]:
        grid = np.zeros((self.largest, self.largest), np.float32)
        if self.row < self.size:
            grid[self.row, self.column] = 1
        return grid.ravel()

    def right(self) -> int:
        return int(self.mapping[self.row, self.column])


@pytest.mark.parametrize(
    ("env_id", "largest", "skill"),
    [slow(ID, 20, 0.0), (ID, 20, 0.97), (SMALL, 10, 0.97)],
)
def test_every_step_follows_the_rules(env_id: str, largest: int, skill: float) -> None:
    sizes = np.minimum([10, 13, 20, 1, 2], largest)
    mappings = np.array([42, 7, 1_000_003, 0, 42])
    env, state = start(env_id, P=5, N=1, size=sizes, mapping=mappings)
    given = [(int(s), int(m), largest) for s, m in zip(sizes, mappings, strict=True)]
    rules, rng, ended = (
        [Rules(*g) for g in given],
        np.random.default_rng(0),
        np.zeros(5),
    )
    totals = np.zeros(5)
    for _ in range(2_000):
        for p, rule in enumerate(rules):
            np.testing.assert_array_equal(state.observations[p, 0], rule.seen())
        actions = rng.integers(0, 2, 5)
        clever = rng.random(5) < skill
        actions[clever] = np.array([rule.right() for rule in rules])[clever]
        told = [r.step(int(a)) for r, a in zip(rules, actions, strict=True)]
        step = env.step(state, actions[:, None])
        assert [*zip(step.rewards[:, 0], step.terminated[:, 0], strict=True)] == told
        np.testing.assert_array_equal(step.done, step.terminated)
        totals += [reward for reward, _ in told]
        for p, rule in enumerate(rules):
            np.testing.assert_array_equal(step.observations[p, 0], rule.seen())
            if step.done[p, 0]:
                assert not rule.seen().any()
                rules[p], ended[p] = Rules(*given[p]), ended[p] + 1
    assert (ended == 2_000 // sizes).all()
    assert (totals[:3] > 50).all() if skill else (totals[:3] < 3).all()


@pytest.mark.parametrize(("env_id", "size"), [(ID, 10), (ID, 20), (SMALL, 10)])
def test_always_going_right_returns_99_hundredths(env_id: str, size: int) -> None:
    env, state = start(env_id, P=1, N=1, size=size)
    rules = Rules(size, 42)
    for _ in range(size):
        action = rules.right()
        step = env.step(state, np.array([[action]]))
        rules.step(action)
    assert step.terminated.all()
    assert step.returns[0, 0] == pytest.approx(0.99)


def test_actions_mean_each_as_often_and_mappings_differ() -> None:
    maps = np.stack([mapping_of(number, 20) for number in range(50)])
    assert maps.mean() == pytest.approx(0.5, abs=0.015)
    same = [(a == b).mean() for a, b in itertools.pairwise(maps)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.02)
    assert len({m.tobytes() for m in maps}) == 50
    np.testing.assert_array_equal(deep_sea.mappings(range(50)), maps.reshape(50, -1))


@pytest.mark.parametrize(("env_id", "largest"), [(ID, 20), (SMALL, 10)])
def test_sizes_beyond_the_grid_are_the_nearest_that_there_are(
    env_id: str, largest: int
) -> None:
    env = ENVS[env_id]()
    sizes = np.array([largest + 5, largest + 0.9, 0.0])
    state = env.init(keys(3, 1), constants(env, 3, size=sizes))
    assert state.variables[:, 0, deep_sea.LENGTH].tolist() == [largest, largest, 1]
