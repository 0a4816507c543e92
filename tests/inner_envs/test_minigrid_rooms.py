"""Rooms of MiniGrid against the package minigrid, step by step."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import quick
from numpy.typing import NDArray
from stepping import ROOMS, constants, moved, start

from dacrl_env.inner_envs import minigrid_rooms as rooms
from dacrl_env.inner_envs.env import ENVS

minigrid = pytest.importorskip("minigrid")

CASES = [*ROOMS, "MiniGrid-Empty-5x5-v0", "MiniGrid-DoorKey-5x5-v0"]
SMALLEST = {  # which the registry has as tables
    "MiniGrid-Empty-5x5-v0": rooms.EMPTY_ROOM,
    "MiniGrid-DoorKey-5x5-v0": rooms.DOOR_KEY,
}
POSSIBLE = {  # layouts
    "MiniGrid-Empty-6x6-v0": 1,
    "MiniGrid-Empty-8x8-v0": 1,
    "MiniGrid-Empty-Random-5x5-v0": 8 * 4,
    "MiniGrid-Empty-Random-6x6-v0": 15 * 4,
    "MiniGrid-LavaGapS5-v0": 3,
    "MiniGrid-LavaGapS6-v0": 2 * 4,
    "MiniGrid-LavaGapS7-v0": 3 * 5,
    # cells of the agent, of the key, directions, doors, by column of the wall
    "MiniGrid-DoorKey-6x6-v0": (4 * 3 + 8 * 7) * 4 * 3,
}


def made(env_id: str) -> Any:
    if env_id not in SMALLEST:
        return ENVS[env_id]()
    env = ENVS["MiniGrid-LavaGapS5-v0"]()
    env.env = rooms.room(SMALLEST[env_id], 5)
    return env


def make_original(env_id: str) -> Any:
    original = gym.make(env_id, disable_env_checker=True)
    original.reset(seed=0)
    return original


@functools.cache
def codes() -> dict[Any, int]:
    return {
        ("wall", "grey"): rooms.WALL,
        ("goal", "green"): rooms.GOAL,
        ("key", "yellow"): rooms.KEY,
        ("lava", "red"): rooms.LAVA,
        ("door", True, False): rooms.DOOR_OPEN,
        ("door", False, False): rooms.DOOR_CLOSED,
        ("door", False, True): rooms.DOOR_LOCKED,
    }


def code(thing: Any) -> int:
    if thing is None:
        return rooms.EMPTY
    if thing.type == "door":
        assert thing.color == "yellow"
        return codes()["door", thing.is_open, thing.is_locked]
    return codes()[thing.type, thing.color]


def read(original: Any) -> NDArray[np.float64]:
    """The original's state as our variables."""
    inner = original.unwrapped
    cells = np.full((rooms.SIDE, rooms.SIDE), rooms.WALL)
    things = np.array([code(thing) for thing in inner.grid.grid])
    cells[: inner.height, : inner.width] = things.reshape(inner.height, inner.width)
    agent = [*inner.agent_pos, inner.agent_dir, code(inner.carrying)]
    rest = [inner.step_count, inner.max_steps, inner.see_through_walls, 0]
    return np.array([*agent, *rest, *cells.ravel()], np.float64)


@pytest.mark.parametrize("env_id", ROOMS)
def test_says_of_itself_what_the_original_does(env_id: str) -> None:
    env, original = ENVS[env_id](), make_original(env_id)
    space = original.observation_space["image"]
    assert env.observation_shape == space.shape
    assert env.observation_dtype == space.dtype
    assert env.num_actions == original.action_space.n
    assert env.env.max_episode_steps == original.unwrapped.max_steps


def clever(variables: NDArray[np.float64], rng: np.random.Generator) -> int:
    """An action that is often the useful one, so that doors open and goals are met."""
    direction = int(variables[rooms.DIRECTION])
    along = ((1, 0), (0, 1), (-1, 0), (0, -1))[direction]
    column, row = variables[rooms.COLUMN] + along[0], variables[rooms.ROW] + along[1]
    front = int(variables[rooms.CELLS + int(row) * rooms.SIDE + int(column)])
    useful = {
        rooms.KEY: rooms.PICKUP,
        rooms.DOOR_CLOSED: rooms.TOGGLE,
        rooms.DOOR_LOCKED: rooms.TOGGLE,
        rooms.DOOR_OPEN: rooms.FORWARD,
        rooms.GOAL: rooms.FORWARD,
    }
    if front in useful and rng.random() < 0.6:
        return useful[front]
    p = [0.2, 0.2, 0.4, 0.05, 0.05, 0.05, 0.05]
    return int(rng.choice(7, p=p))


@pytest.mark.parametrize(
    "env_id",
    quick(
        CASES, "MiniGrid-DoorKey-5x5-v0",
    ),
)  # fmt: skip
def test_whole_episodes_are_those_of_the_original(env_id: str) -> None:
    """Also what is seen, and each of the variables, after every step."""
    env, original = made(env_id), make_original(env_id)
    rng, ended, met = np.random.default_rng(1), Counter[str](), Counter[int]()
    limit = original.unwrapped.max_steps
    for episode in range(60):
        observation, _ = original.reset(seed=episode)
        state = read(original)
        if episode % 10 == 9:  # soon truncated
            original.unwrapped.step_count = limit - 5
            state[rooms.STEPS] = limit - 5
        over = False
        while not over:
            action = clever(state, rng)
            after, seen, rewards, stops = moved(
                env, state[None], np.array([action]), np.zeros((1, 0))
            )
            observation, reward, terminated, truncated, _ = original.step(action)
            state = read(original)
            np.testing.assert_array_equal(after[0], state)
            np.testing.assert_array_equal(seen[0], observation["image"])
            assert (rewards[0], stops[0]) == (reward, terminated)
            met.update(np.unique(observation["image"][..., 0]).tolist())
            over = terminated or truncated
            if over:
                kind = "goal" if reward else "lava" if terminated else "cut"
                ended[kind] += 1
    assert ended["goal"] > 2
    assert ended["cut"] >= 2
    assert (ended["lava"] > 5) == ("Lava" in env_id)
    assert (met[9] > 0) == ("Lava" in env_id)
    assert (met[4] > 0) == (met[5] > 0) == ("DoorKey" in env_id)


@pytest.mark.parametrize("env_id", CASES)
def test_any_view_is_that_of_the_original(env_id: str) -> None:
    """From every cell, in every direction, also with a key on the way."""
    env, original = made(env_id), make_original(env_id)
    for seed in range(12):
        original.reset(seed=seed)
        inner = original.unwrapped
        doors = [thing for thing in inner.grid.grid if thing and thing.type == "door"]
        for door in doors:
            door.is_locked, door.is_open = bool(seed % 2), seed % 3 == 0
            door.is_locked &= not door.is_open
        free = [
            (x, y)
            for x in range(1, inner.width - 1)
            for y in range(1, inner.height - 1)
            if (thing := inner.grid.get(x, y)) is None or thing.can_overlap()
        ]
        states, images = [], []
        for cell in free:
            for direction in range(4):
                inner.agent_pos, inner.agent_dir = cell, direction
                states.append(read(original))
                images.append(inner.gen_obs()["image"])
        # doing nothing shows the state as it is
        n = len(states)
        _, seen, *_ = moved(env, np.stack(states), np.full(n, 6), np.zeros((n, 0)))
        np.testing.assert_array_equal(seen, np.stack(images))
        assert n >= 4 * 4


@pytest.mark.parametrize("env_id", quick(POSSIBLE, "MiniGrid-DoorKey-6x6-v0"))
def test_layouts_are_distributed_as_in_the_original(env_id: str) -> None:
    _, state = start(env_id, P=600, N=20)
    assert (state.variables[..., rooms.STEPS] == 0).all()
    ours = Counter(row.tobytes() for row in state.variables.reshape(12_000, -1))
    original, theirs = make_original(env_id), set[bytes]()
    for seed in range(1500):
        original.reset(seed=seed)
        theirs.add(read(original).tobytes())
    possible = POSSIBLE[env_id]
    assert len(ours) == possible
    assert theirs <= ours.keys()
    assert len(theirs) >= 0.6 * possible
    counts = np.array([*ours.values()])
    # chi-square, where all are equally likely; of walls first, where they are not
    if "DoorKey" not in env_id:
        expected = counts.sum() / possible
        chi_square = ((counts - expected) ** 2 / expected).sum()
        free = possible - 1
        assert chi_square <= free + 4 * np.sqrt(2 * free)


@pytest.mark.parametrize(
    "env_id", ["MiniGrid-DoorKey-6x6-v0", "MiniGrid-DoorKey-8x8-v0"]
)
def test_each_part_of_a_layout_is_as_likely_as_in_the_original(env_id: str) -> None:
    _, state = start(env_id, P=300, N=20)
    original, rows = make_original(env_id), []
    for seed in range(3000):
        original.reset(seed=seed)
        rows.append(read(original))
    ours, theirs = state.variables.reshape(6000, -1), np.stack(rows)

    def parts(v: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
        cells = v[:, rooms.CELLS :].astype(int)
        door = (cells == rooms.DOOR_LOCKED).argmax(1)
        key = (cells == rooms.KEY).argmax(1)
        agent = (v[:, rooms.ROW] * rooms.SIDE + v[:, rooms.COLUMN]).astype(int)
        given = door % rooms.SIDE * 64  # what is left of the wall
        directions = v[:, rooms.DIRECTION].astype(int)
        return {
            "door": door, "agent": given + agent, "key": given + key,
            "direction": directions, "apart": agent - key,
        }  # fmt: skip

    for name, a in parts(ours).items():
        b = parts(theirs)[name]
        both = np.union1d(a, b)
        x = np.array([(a == value).sum() for value in both])
        y = np.array([(b == value).sum() for value in both])
        # chi-square of two samples of different sizes
        ratio = np.sqrt(len(b) / len(a))
        chi_square = ((ratio * x - y / ratio) ** 2 / (x + y)).sum()
        free = len(both) - 1
        assert chi_square <= free + 4 * np.sqrt(2 * free), name
    assert (parts(ours)["apart"] != 0).all()


def test_a_room_has_a_size_that_fits() -> None:
    for size in (4, 9):
        with pytest.raises(ValueError, match="5 to 8"):
            rooms.room(rooms.DOOR_KEY, size)
    assert len(constants(ENVS["MiniGrid-LavaGapS5-v0"](), 1)[0]) == 0
