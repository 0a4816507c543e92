"""The mix of MiniGrid's rooms: what levels are, and which ones episodes take."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import constants, keys, random_actions, start

from dacrl_env.core import snapshot
from dacrl_env.inner_envs import dynamics
from dacrl_env.inner_envs import minigrid_levels as mix
from dacrl_env.inner_envs import minigrid_rooms as rooms
from dacrl_env.inner_envs.env import ENVS, CompiledEnv
from dacrl_env.kernels.compiling import entry

ID = "MiniGridLevels-v0"


@entry
def _begin(env: Any, physics: Any, variables: Any) -> None:
    for level in range(len(variables)):
        dynamics.begin_level(env, level, physics, variables[level])


def levels(count: int = 400, first: float = 1.0) -> NDArray[np.float64]:
    """Starts of all levels."""
    env = ENVS[ID]().env
    variables = np.zeros((count, env.variables))
    _begin(env, np.array([first]), variables)
    return variables


def level_numbers(state: Any) -> NDArray[np.int64]:
    return np.asarray(state.variables[..., rooms.LEVEL], np.int64)


def test_levels_are_of_all_kinds_in_turn() -> None:
    every = levels()
    assert every[:, rooms.LEVEL].tolist() == [*range(400)]
    for level, variables in enumerate(every):
        kind, size = mix.MIX[level % 10]
        cells = variables[rooms.CELLS :].reshape(rooms.SIDE, rooms.SIDE)
        assert cells[size - 2, size - 2] == rooms.GOAL
        assert (cells[size - 1 :] == rooms.WALL).all()
        assert (cells[:, size - 1 :] == rooms.WALL).all()
        assert (rooms.LAVA in cells) == (kind == rooms.LAVA_GAP)
        assert (rooms.KEY in cells) == (kind == rooms.DOOR_KEY)
        each = 10 if kind == rooms.DOOR_KEY else 4
        assert variables[rooms.LIMIT] == each * size**2
        assert variables[rooms.SEES_THROUGH] == (kind == rooms.EMPTY_RANDOM)


def test_levels_of_one_kind_have_different_layouts() -> None:
    every = levels()
    rest = np.delete(every, rooms.LEVEL, 1)
    for which, (kind, size) in enumerate(mix.MIX):
        layouts = len(np.unique(rest[which::10], axis=0))  # of 40
        if (kind, size) == (rooms.DOOR_KEY, 8):
            assert layouts == 40
        assert layouts >= (3 if kind == rooms.LAVA_GAP else 15)


def test_instances_have_layouts_of_their_own() -> None:
    usual, other = levels(), levels(first=401.0)
    np.testing.assert_array_equal(other[:, rooms.LEVEL], usual[:, rooms.LEVEL])
    np.testing.assert_array_equal(other[:, rooms.LIMIT], usual[:, rooms.LIMIT])
    start_of, rest = slice(0, rooms.LEVEL), slice(rooms.CELLS, None)
    same = (other[:, rest] == usual[:, rest]).all(1)
    same &= (other[:, start_of] == usual[:, start_of]).all(1)
    assert 0.01 < same.mean() < 0.2  # rooms of few layouts have them all
    # its levels are those that follow, where these are of the same kinds
    longer = levels(count=800)[400:]
    np.testing.assert_array_equal(
        np.delete(other, rooms.LEVEL, 1), np.delete(longer, rooms.LEVEL, 1)
    )
    env = ENVS[ID]()
    given = constants(env, 30, first=401.0)
    state = env.init(keys(30, 20), given)
    judged = env.init(keys(30, 20), given, np.zeros(30, np.int64))
    for begun, numbers in ((state, range(200)), (judged, range(200, 400))):
        for variables in begun.variables.reshape(600, -1):
            level = int(variables[rooms.LEVEL])
            assert level in numbers
            np.testing.assert_array_equal(variables, other[level])


def test_training_and_evaluation_have_different_levels() -> None:
    env, state = start(ID, P=50, N=20)
    counts = Counter(level_numbers(state).ravel().tolist())
    for _ in range(9):
        env.begin_episodes(state)
        counts.update(level_numbers(state).ravel().tolist())
    assert {*counts} == {*range(200)}
    check_even(counts, 200)
    judged = env.init(keys(100, 50), constants(env, 100), np.zeros(100, np.int64))
    counts = Counter(level_numbers(judged).ravel().tolist())
    assert {*counts} == {*range(200, 400)}
    check_even(counts, 200)
    # what is shown is what the level is
    now = judged.observations.copy()
    env.observe(judged)
    np.testing.assert_array_equal(now, judged.observations)


def check_even(counts: Counter[int], possible: int) -> None:
    seen = np.array([*counts.values()])
    expected = seen.sum() / possible
    free = possible - 1
    assert ((seen - expected) ** 2 / expected).sum() <= free + 4 * np.sqrt(2 * free)


def test_a_level_is_the_same_in_every_episode() -> None:
    every = levels()
    _, state = start(ID, P=20, N=10)
    for variables in state.variables.reshape(200, -1):
        np.testing.assert_array_equal(variables, every[int(variables[rooms.LEVEL])])


def test_episodes_end_as_those_of_their_kind(tmp_path: Any) -> None:
    """Truncated at the limit of the level; terminated at the goal and in lava."""
    env, state = start(ID, P=8, N=25)
    rng, ended = np.random.default_rng(0), Counter[str]()
    lengths = np.zeros((8, 25), int)
    for k in range(700):
        if k == 300:  # through a file, into other environments
            snapshot.Snapshot({}, snapshot.capture(state)).save(tmp_path / "state")
            state = env.init(keys(8, 25, seed=9), constants(env, 8))
            saved = snapshot.Snapshot.load(tmp_path / "state")
            snapshot.restore(state, saved)
        before = state.variables.copy()
        step = env.step(state, random_actions(env, rng, 8, 25))
        lengths += 1
        limit = before[..., rooms.LIMIT]
        assert (lengths <= limit).all()
        truncated = step.done & ~step.terminated
        np.testing.assert_array_equal(truncated, (lengths == limit) & ~step.terminated)
        np.testing.assert_array_equal(step.lengths, lengths)
        reached = step.terminated & (step.rewards > 0)
        np.testing.assert_array_equal(
            step.rewards[reached], (1 - 0.9 * (lengths / limit))[reached]
        )
        assert (step.rewards[~reached] == 0).all()
        kinds = np.array(mix.MIX)[before[..., rooms.LEVEL].astype(int) % 10, 0]
        drowned = step.terminated & ~reached
        assert (kinds[drowned] == rooms.LAVA_GAP).all()
        ended += Counter(
            cut=int(truncated.sum()), goal=int(reached.sum()), lava=int(drowned.sum())
        )
        on = ~step.done
        np.testing.assert_array_equal(
            level_numbers(state)[on], before[..., rooms.LEVEL][on]
        )
        lengths[step.done] = 0
    assert min(ended.values()) > 50


def test_episodes_do_not_depend_on_the_company() -> None:
    env, state = start(ID, P=4, N=3)
    alone = env.init(state.keys[2:3, 1:2], state.physics[2:3])
    rng = np.random.default_rng(0)
    for _ in range(1500):
        actions = random_actions(env, rng, 4, 3)
        step, single = env.step(state, actions), env.step(alone, actions[2:3, 1:2])
        for one, several in zip(single, step, strict=True):
            assert one[0, 0].tobytes() == several[2, 1].tobytes()
        assert alone.variables[0, 0].tobytes() == state.variables[2, 1].tobytes()
    assert state.episodes[2, 1] > 3


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MiniGrid-DoorKey-8x8-v0", ID])
def test_only_environments_of_levels_have_a_number_of_them(env_id: str) -> None:
    env: CompiledEnv = ENVS[env_id]()
    assert env.num_levels == (200 if env_id == ID else 0)
