"""Compiled environments against the packages they come from, step by step.

Of MinAtar's games, which draw random numbers in their steps: see `test_minatar`.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import quick
from numpy.typing import NDArray
from stepping import CLASSIC, GRIDS, constants, moved, random_actions, start

from dacrl_env.inner_envs import minigrid as grid
from dacrl_env.inner_envs.env import ENVS

# sine and cosine may differ in the last bit
TOLERANCE = 1e-12
# which grows in the course of an episode
GROWN = 1e-9
CHAOTIC = ["Acrobot-v1"]
# those that are the original for actions in single precision
SINGLE = ["MountainCarContinuous-v0"]

# of random states, beyond the limits where there are any: middle and half width
STATES = {
    "CartPole-v1": ([0, 0, 0, 0], [3.2, 4.0, 0.28, 4.0]),
    "Acrobot-v1": ([0, 0, 0, 0], [np.pi, np.pi, 4 * np.pi, 9 * np.pi]),
    "MountainCar-v0": ([-0.3, 0], [0.9, 0.07]),
    "Pendulum-v1": ([0, 0], [10.0, 8.0]),
    "MountainCarContinuous-v0": ([-0.3, 0], [0.9, 0.07]),
}
# what Gymnasium calls a constant, where it is one number that can be set
ATTRIBUTES = {
    "CartPole-v1": {
        "gravity": "gravity",
        "mass_cart": "masscart",
        "mass_pole": "masspole",
        "half_length": "length",
        "force": "force_mag",
    },
    "Acrobot-v1": {
        "link_length_1": "LINK_LENGTH_1",
        "link_mass_1": "LINK_MASS_1",
        "link_mass_2": "LINK_MASS_2",
        "link_com_pos_1": "LINK_COM_POS_1",
        "link_com_pos_2": "LINK_COM_POS_2",
        "link_moi": "LINK_MOI",
    },
    "MountainCar-v0": {"force": "force", "gravity": "gravity"},
    "Pendulum-v1": {"gravity": "g", "mass": "m", "length": "l"},
    "MountainCarContinuous-v0": {"power": "power"},
}


def make_original(env_id: str) -> Any:
    if env_id in GRIDS:
        pytest.importorskip("minigrid")
    original = gym.make(env_id, disable_env_checker=True)
    original.reset(seed=0)
    return original


def actions_of(env_id: str, rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    """Random actions, in the precision in which both do the same."""
    actions = random_actions(ENVS[env_id](), rng, *shape)
    return actions.astype(np.float32) if env_id in SINGLE else actions


def native(action: NDArray[Any]) -> Any:
    return action if action.ndim else int(action)


def image(observation: Any) -> NDArray[Any]:
    return observation["image"] if isinstance(observation, dict) else observation


@functools.cache
def cell_codes() -> dict[Any, int]:
    return {
        None: grid.EMPTY,
        ("wall", "grey"): grid.WALL,
        ("goal", "green"): grid.GOAL,
        ("key", "yellow"): grid.KEY,
        ("door", True, False): grid.DOOR_OPEN,
        ("door", False, False): grid.DOOR_CLOSED,
        ("door", False, True): grid.DOOR_LOCKED,
    }


def code(thing: Any) -> int:
    if thing is None:
        return cell_codes()[None]
    if thing.type == "door":
        assert thing.color == "yellow"
        return cell_codes()["door", thing.is_open, thing.is_locked]
    return cell_codes()[thing.type, thing.color]


def read_world(inner: Any) -> NDArray[np.uint8]:
    """A MiniGrid environment's state as our row of bytes."""
    assert (inner.width, inner.height) == (grid.SIZE, grid.SIZE)
    agent = [*inner.agent_pos, inner.agent_dir, code(inner.carrying)]
    return np.array([*agent, *map(code, inner.grid.grid)], np.uint8)


def write_world(inner: Any, world: NDArray[np.uint8]) -> None:
    """Put a MiniGrid environment into a state."""
    from minigrid.core.world_object import Door, Goal, Key, Wall

    things = {
        grid.EMPTY: lambda: None,
        grid.WALL: Wall,
        grid.GOAL: Goal,
        grid.KEY: lambda: Key("yellow"),
        grid.DOOR_OPEN: lambda: Door("yellow", is_open=True),
        grid.DOOR_CLOSED: lambda: Door("yellow"),
        grid.DOOR_LOCKED: lambda: Door("yellow", is_locked=True),
    }
    column, row, direction, load, *cells = world.tolist()
    inner.agent_pos, inner.agent_dir = (column, row), direction
    inner.carrying = things[load]()
    inner.grid.grid = [things[cell]() for cell in cells]


def variables_of(tables: Any, original: Any) -> NDArray[np.float64]:
    """The original's state as our variables."""
    inner = original.unwrapped
    if isinstance(tables, grid.MiniGrid):
        (number,) = np.flatnonzero((tables.worlds == read_world(inner)).all(1))
        return np.array([number, inner.step_count], np.float64)
    return np.array(inner.state, np.float64)


def put(original: Any, variables: NDArray[np.float64]) -> None:
    inner = original.unwrapped
    inner.state = variables.copy()
    inner.steps_beyond_terminated = None  # of CartPole


def random_states(env_id: str, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    middle, width = STATES[env_id]
    return middle + np.array(width) * rng.uniform(-1, 1, (n, len(middle)))


# -- step by step ---------------------------------------------------------------


@pytest.mark.parametrize("env_id", CLASSIC + GRIDS)
def test_says_of_itself_what_the_original_does(env_id: str) -> None:
    env, original = ENVS[env_id](), make_original(env_id)
    space = original.observation_space
    space = space["image"] if isinstance(space, gym.spaces.Dict) else space
    assert env.observation_shape == space.shape
    assert env.observation_dtype == space.dtype
    actions = original.action_space
    if env.num_actions:
        assert env.num_actions == actions.n
        assert len(env.action_low) == len(env.action_high) == 0
    else:
        np.testing.assert_array_equal(env.action_low, actions.low)
        np.testing.assert_array_equal(env.action_high, actions.high)
    limit = original.spec.max_episode_steps
    limit = original.unwrapped.max_steps if limit is None else limit
    assert env.env.max_episode_steps == limit


@pytest.mark.parametrize("env_id", quick(CLASSIC, "CartPole-v1", "Pendulum-v1"))
def test_random_states_move_as_in_the_original(env_id: str) -> None:
    rng, n = np.random.default_rng(0), 3000
    env, original = ENVS[env_id](), make_original(env_id).unwrapped
    variables = random_states(env_id, rng, n)
    actions = actions_of(env_id, rng, n)
    after, seen, rewards, terminated = moved(env, variables, actions, constants(env, n))
    for k in range(n):
        put(original, variables[k])
        observation, reward, over, _, _ = original.step(native(actions[k]))
        state = np.array(original.state)
        np.testing.assert_allclose(after[k], state, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(seen[k], observation, rtol=2e-7, atol=1e-7)
        assert rewards[k] == pytest.approx(float(reward), rel=1e-12, abs=TOLERANCE)
        assert terminated[k] == over
    if env_id != "Pendulum-v1":
        assert 0.02 < terminated.mean() < 0.8


@pytest.mark.parametrize("env_id", CLASSIC + GRIDS)
def test_whole_episodes_are_those_of_the_original(env_id: str) -> None:
    P, N = 2, 2
    env, state = start(env_id, P, N)
    steps = max(600, 2 * env.env.max_episode_steps + 100)
    originals = {place: make_original(env_id) for place in np.ndindex(P, N)}
    exact = env_id in GRIDS
    tolerance = {"rtol": 0, "atol": 0 if exact else GROWN}
    shown = {"rtol": 0, "atol": 0 if exact else 2e-6}
    rng, ended = np.random.default_rng(1), 0

    def begin(place: tuple[int, ...], seed: int) -> None:
        observation, _ = originals[place].reset(seed=seed)
        state.variables[place] = variables_of(env.env, originals[place])
        env.observe(state)
        ours = state.observations[place]
        np.testing.assert_allclose(ours, image(observation), rtol=0, atol=1e-7)

    for k, place in enumerate(originals):
        begin(place, k)
    for k in range(steps):
        actions = actions_of(env_id, rng, P, N)
        step = env.step(state, actions)
        for place, original in originals.items():
            observation, reward, terminated, truncated, _ = original.step(
                native(actions[place])
            )
            ours = step.observations[place]
            np.testing.assert_allclose(ours, image(observation), **shown)
            np.testing.assert_allclose(step.rewards[place], reward, **tolerance)
            assert step.terminated[place] == terminated
            assert step.done[place] == (terminated or truncated)
            if step.done[place]:
                ended += 1
                begin(place, 4 * k + place[0] * N + place[1])
            else:
                theirs = variables_of(env.env, original)
                np.testing.assert_allclose(state.variables[place], theirs, **tolerance)
                if env_id in CHAOTIC:
                    state.variables[place] = theirs
    assert ended >= 8


def test_states_of_single_precision_move_as_in_the_original() -> None:
    """To the last bit; among them are walls, the highest speed and arrivals."""
    rng, n, env_id = np.random.default_rng(3), 20_000, "MountainCarContinuous-v0"
    env, original = ENVS[env_id](), make_original(env_id).unwrapped
    states = random_states(env_id, rng, n).astype(np.float32)
    states[:2000, 1] = np.float32(0.07) * rng.choice([-1, 1], 2000)
    actions = actions_of(env_id, rng, n)
    after, seen, rewards, terminated = moved(env, states, actions, constants(env, n))
    for k in range(n):
        original.state = states[k].copy()
        observation, reward, over, _, _ = original.step(actions[k])
        assert after[k].tolist() == original.state.tolist()
        assert seen[k].tolist() == observation.tolist()
        assert (rewards[k], terminated[k]) == (pytest.approx(reward, rel=1e-14), over)
    assert 0.02 < terminated.mean() < 0.8
    assert (np.abs(after[:, 1]) == np.float32(0.07)).mean() > 0.02
    assert (after[:, 0] == np.float32(-1.2)).mean() > 0.005


def balance(observations: NDArray[np.float32]) -> NDArray[np.int64]:
    """A policy that keeps CartPole's pole up for ever."""
    weights = np.array([0.1, 0.3, 3.0, 1.0])
    return (observations @ weights > 0).astype(np.int64)


def test_an_episode_that_does_not_end_is_cut_as_the_original_is() -> None:
    env, state = start("CartPole-v1", P=2, N=2)
    original = make_original("CartPole-v1")
    for k in range(1, 501):
        put(original, state.variables[0, 0])
        actions = balance(state.observations)
        step = env.step(state, actions)
        _, _, terminated, truncated, _ = original.step(int(actions[0, 0]))
        assert not terminated
        assert not step.terminated.any()
        assert step.done.all() if truncated else not step.done.any()
        assert (step.lengths == k).all()
        assert (step.returns == k).all()
    assert truncated
    assert (state.lengths == 0).all()
    assert (state.returns == 0).all()


@pytest.mark.parametrize("env_id", GRIDS)
def test_every_action_in_every_state_of_a_grid_does_the_same(env_id: str) -> None:
    original = make_original(env_id).unwrapped
    env = ENVS[env_id]()
    worlds, A, limit = env.env.worlds, env.num_actions, env.env.max_episode_steps
    places = [*np.ndindex(len(worlds), A)]
    variables = np.array([(s, i % limit) for i, (s, _) in enumerate(places)], float)
    actions = np.array([action for _, action in places])
    after, seen, rewards, terminated = moved(
        env, variables, actions, np.empty((len(places), 0))
    )
    for i, (s, action) in enumerate(places):
        write_world(original, worlds[s])
        original.step_count = i % limit
        observation, reward, over, truncated, _ = original.step(action)
        np.testing.assert_array_equal(seen[i], observation["image"])
        assert (rewards[i], terminated[i]) == (reward, over)
        assert after[i, 1] == original.step_count
        np.testing.assert_array_equal(worlds[int(after[i, 0])], read_world(original))
        assert truncated == (after[i, 1] >= limit)
    # the goal is reached by going forward, from some states
    assert 0 < terminated.sum() == terminated[actions == grid.FORWARD].sum()


def test_the_numbers_of_a_grid_stand_for_its_states_in_order() -> None:
    for env_id in GRIDS:
        as_rows = [row.tobytes() for row in ENVS[env_id]().env.worlds]
        assert as_rows == sorted(set(as_rows))
    assert len(ENVS["MiniGrid-Empty-5x5-v0"]().env.worlds) == 9 * 4


@pytest.mark.parametrize("env_id", ATTRIBUTES)
def test_changed_constants_do_as_in_the_original(env_id: str) -> None:
    rng, env, n = np.random.default_rng(2), ENVS[env_id](), 50
    variables = random_states(env_id, rng, n)
    actions = actions_of(env_id, rng, n)
    # Acrobot's gravity is a number in the middle of the original's code
    assert env.physics.keys() - ATTRIBUTES[env_id] <= {"gravity"}
    usual = moved(env, variables, actions, constants(env, n))[0]
    for name, attribute in ATTRIBUTES[env_id].items():
        original = make_original(env_id).unwrapped
        value = 1.3 * env.physics[name]
        assert getattr(original, attribute) == env.physics[name]
        setattr(original, attribute, value)
        if env_id == "CartPole-v1":  # which derives these two when it is made
            original.total_mass = original.masspole + original.masscart
            original.polemass_length = original.masspole * original.length
        after, _, rewards, _ = moved(
            env, variables, actions, constants(env, n, **{name: value})
        )
        assert (after != usual).any(1).mean() > 0.3
        for k in range(n):
            put(original, variables[k])
            _, reward, *_ = original.step(native(actions[k]))
            state = np.array(original.state)
            np.testing.assert_allclose(after[k], state, rtol=TOLERANCE, atol=TOLERANCE)
            assert rewards[k] == pytest.approx(float(reward), rel=1e-12, abs=TOLERANCE)


# -- starts ---------------------------------------------------------------------


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov statistic of two samples, in units of its spread."""
    both = np.sort(np.concatenate([a, b]))
    below = (np.searchsorted(np.sort(x), both, "right") / len(x) for x in (a, b))
    gap = np.abs(np.subtract(*below)).max()
    return float(gap * np.sqrt(len(a) * len(b) / (len(a) + len(b))))


@pytest.mark.parametrize("env_id", CLASSIC)
def test_starts_are_distributed_as_in_the_original(env_id: str) -> None:
    _, state = start(env_id, P=500, N=6)
    ours = state.variables.reshape(3000, -1)
    original = make_original(env_id)
    theirs = []
    for seed in range(600):
        original.reset(seed=seed)
        theirs.append(np.array(original.unwrapped.state, np.float64))
    for a, b in zip(ours.T, np.stack(theirs).T, strict=True):
        assert distance(a, b) < 1.95  # exceeded once in a thousand
        # which does not tell much of the ends
        assert a.min() == pytest.approx(b.min(), abs=0.02 * np.ptp(b))
        assert a.max() == pytest.approx(b.max(), abs=0.02 * np.ptp(b))
    spread = ours.std(0) > 0
    r = np.corrcoef(ours[:, spread].T)
    assert np.abs(r - np.eye(spread.sum())).max() < 4 / np.sqrt(3000)


def layouts(worlds: NDArray[np.uint8]) -> dict[bytes, int]:
    rows, counts = np.unique(worlds, axis=0, return_counts=True)
    return {row.tobytes(): int(n) for row, n in zip(rows, counts, strict=True)}


@pytest.mark.parametrize(
    ("env_id", "possible"),
    [("MiniGrid-Empty-5x5-v0", 1), ("MiniGrid-DoorKey-5x5-v0", 48)],
)
def test_layouts_are_distributed_as_in_the_original(env_id: str, possible: int) -> None:
    env, state = start(env_id, P=600, N=8)
    assert (state.variables[..., 1] == 0).all()
    ours = layouts(env.env.worlds[state.variables[..., 0].ravel().astype(int)])
    original = make_original(env_id)
    rows = []
    for seed in range(1000):
        original.reset(seed=seed)
        rows.append(read_world(original.unwrapped))
    theirs = layouts(np.stack(rows))
    assert len(ours) == possible
    assert ours.keys() == theirs.keys()
    for counts in (ours, theirs):
        seen = np.array([*counts.values()])
        expected = seen.sum() / possible
        free = possible - 1
        chi_square = ((seen - expected) ** 2 / expected).sum()
        assert chi_square <= free + 4 * np.sqrt(2 * free)
