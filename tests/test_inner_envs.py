"""Batched dynamics against the packages they come from, for all that are registered."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dacrl_env import snapshot
from dacrl_env.inner_envs import minigrid as grid
from dacrl_env.inner_envs.batched import BatchedEnv, EnvState
from dacrl_env.inner_envs.cartpole import CartPole
from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter
from dacrl_env.inner_envs.pendulum import Pendulum
from dacrl_env.inner_envs.shift import (
    NEVER,
    Shifted,
    shifted_cartpole,
    shifted_pendulum,
)
from dacrl_env.registration import BATCHED_ENVS, load

# those that change their physics have no original; they are tested at the end
IDS = [name for name in BATCHED_ENVS if not name.endswith("Shift")]
GRIDS = [env_id for env_id in IDS if env_id.startswith("MiniGrid")]
CLASSIC = [env_id for env_id in IDS if env_id not in GRIDS]
TOLERANCE = 1e-10
# where differences in the last bit grow in the course of an episode
CHAOTIC = ["Acrobot-v1"]

# of random states, beyond the limits where there are any: middle and half width
STATES = {
    "CartPole-v1": ([0, 0, 0, 0], [3.2, 4.0, 0.28, 4.0]),
    "Acrobot-v1": ([0, 0, 0, 0], [np.pi, np.pi, 4 * np.pi, 9 * np.pi]),
    "MountainCar-v0": ([-0.3, 0], [0.9, 0.07]),
    "Pendulum-v1": ([0, 0], [10.0, 8.0]),
}
# what Gymnasium calls a constant, where it is one number that can be set
ATTRIBUTES = {
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
}


def keys(P: int, N: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (P, N), np.uint64)


def constants(env: Any, P: int, **changed: Any) -> NDArray[np.float64]:
    """Physics ``(P, K)``; changed ones are numbers or one per member."""
    columns = [np.full(P, changed.pop(k, v), float) for k, v in env.physics.items()]
    assert not changed
    return np.stack(columns, -1) if columns else np.zeros((P, 0))


def start(dynamics: Any, P: int, N: int, **changed: Any) -> tuple[BatchedEnv, EnvState]:
    env = BatchedEnv(dynamics)
    return env, env.init(keys(P, N), constants(env, P, **changed))


def make(env_id: str) -> Any:
    return load(BATCHED_ENVS[env_id])()


def make_original(env_id: str) -> gym.Env[Any, Any]:
    if env_id in GRIDS:
        pytest.importorskip("minigrid")
    original = gym.make(env_id, disable_env_checker=True)
    original.reset(seed=0)
    return original


def random_actions(env: Any, rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    if env.num_actions:
        return rng.integers(0, env.num_actions, shape)
    # some of them beyond the bounds
    size = (*shape, len(env.action_low))
    return 1.5 * rng.uniform(env.action_low, env.action_high, size)


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
    column, row, direction, load_, *cells = world.tolist()
    inner.agent_pos, inner.agent_dir = (column, row), direction
    inner.carrying = things[load_]()
    inner.grid.grid = [things[cell]() for cell in cells]


def number(dynamics: grid.MiniGrid, world: NDArray[np.uint8]) -> int:
    (found,) = np.flatnonzero((dynamics.worlds == world).all(1))
    return int(found)


def variables_of(dynamics: Any, original: gym.Env[Any, Any]) -> NDArray[Any]:
    """The original's state as our variables."""
    inner: Any = original.unwrapped
    if isinstance(dynamics, grid.MiniGrid):
        return np.array([number(dynamics, read_world(inner)), inner.step_count])
    return np.array(inner.state, np.float64)


def put(original: gym.Env[Any, Any], variables: NDArray[np.float64]) -> None:
    inner: Any = original.unwrapped
    inner.state = variables.copy()
    inner.steps_beyond_terminated = None  # of CartPole


# -- step by step ---------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_says_of_itself_what_the_original_does(env_id):
    dynamics, original = make(env_id), make_original(env_id)
    env = BatchedEnv(dynamics)
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
    assert original.spec is not None
    limit = original.spec.max_episode_steps
    limit = original.unwrapped.max_steps if limit is None else limit
    assert dynamics.max_episode_steps == limit


@pytest.mark.parametrize("env_id", CLASSIC)
def test_random_states_move_as_in_the_original(env_id):
    rng, n = np.random.default_rng(0), 2000
    dynamics, original = make(env_id), make_original(env_id).unwrapped
    middle, width = STATES[env_id]
    variables = middle + np.array(width) * rng.uniform(-1, 1, (n, len(middle)))
    actions = random_actions(dynamics, rng, n)
    before = variables.copy()
    after, rewards, terminated = dynamics.step(
        variables, actions, constants(dynamics, n)
    )
    np.testing.assert_array_equal(variables, before)
    observations = dynamics.observe(after)
    assert after.dtype == rewards.dtype == np.float64
    assert observations.dtype == dynamics.observation_dtype
    for k in range(n):
        put(original, variables[k])
        observation, reward, over, _, _ = original.step(native(actions[k]))
        state = np.array(original.state)
        np.testing.assert_allclose(after[k], state, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(observations[k], observation, rtol=0, atol=4e-6)
        assert rewards[k] == pytest.approx(float(reward), rel=0, abs=TOLERANCE)
        assert terminated[k] == over
    if env_id != "Pendulum-v1":
        assert 0.02 < terminated.mean() < 0.8


@pytest.mark.parametrize("env_id", IDS)
def test_whole_episodes_are_those_of_the_original(env_id):
    P, N, steps = 2, 2, 1100 if env_id == "Acrobot-v1" else 600
    env, state = start(make(env_id), P, N)
    originals = {place: make_original(env_id) for place in np.ndindex(P, N)}
    exact = env_id in GRIDS
    tolerance = {"rtol": 0, "atol": 0 if exact else TOLERANCE}
    rng, ended = np.random.default_rng(1), 0

    def begin(place: tuple[int, ...], seed: int) -> None:
        observation, _ = originals[place].reset(seed=seed)
        state.variables[place] = variables_of(env.dynamics, originals[place])
        ours = env.dynamics.observe(state.variables[place])
        np.testing.assert_allclose(ours, image(observation), rtol=0, atol=1e-7)

    for k, place in enumerate(originals):
        begin(place, k)
    for k in range(steps):
        actions = random_actions(env, rng, P, N)
        step = env.step(state, actions)
        for place, original in originals.items():
            observation, reward, terminated, truncated, _ = original.step(
                native(actions[place])
            )
            np.testing.assert_allclose(
                step.observations[place],
                image(observation),
                rtol=0,
                atol=0 if exact else 4e-6,
            )
            np.testing.assert_allclose(step.rewards[place], reward, **tolerance)
            assert step.terminated[place] == terminated
            assert step.done[place] == (terminated or truncated)
            if step.done[place]:
                ended += 1
                begin(place, 4 * k + place[0] * N + place[1])
            else:
                theirs = variables_of(env.dynamics, original)
                np.testing.assert_allclose(state.variables[place], theirs, **tolerance)
                if env_id in CHAOTIC:
                    state.variables[place] = theirs
    assert ended >= 8


@pytest.mark.parametrize("env_id", GRIDS)
def test_every_action_in_every_state_of_a_grid_does_the_same(env_id):
    dynamics, original = make(env_id), make_original(env_id).unwrapped
    S, A = len(dynamics.worlds), dynamics.num_actions
    steps = np.arange(S * A).reshape(S, A) % dynamics.max_episode_steps
    variables = np.empty((S, A, 2), np.int64)
    variables[..., 0] = np.arange(S)[:, None]
    variables[..., 1] = steps
    actions = np.tile(np.arange(A), (S, 1))
    after, rewards, terminated = dynamics.step(variables, actions, np.empty((S, A, 0)))
    images = dynamics.observe(after)
    for place in np.ndindex(S, A):
        write_world(original, dynamics.worlds[place[0]])
        original.step_count = int(steps[place])
        observation, reward, over, truncated, _ = original.step(place[1])
        np.testing.assert_array_equal(images[place], observation["image"])
        assert (rewards[place], terminated[place]) == (reward, over)
        assert after[place][1] == original.step_count
        world = dynamics.worlds[after[place][0]]
        np.testing.assert_array_equal(world, read_world(original))
        assert truncated == (after[place][1] >= dynamics.max_episode_steps)
    # the goal is reached by going forward, from some states
    assert 0 < terminated.sum() == terminated[:, grid.FORWARD].sum()
    assert images.flags.c_contiguous


def test_changed_constants_do_as_in_the_original():
    rng = np.random.default_rng(2)
    for env_id, names in ATTRIBUTES.items():
        dynamics = make(env_id)
        assert set(names) <= set(dynamics.physics)
        middle, width = STATES[env_id]
        variables = middle + np.array(width) * rng.uniform(-1, 1, (50, len(middle)))
        actions = random_actions(dynamics, rng, 50)
        for name, attribute in names.items():
            original = make_original(env_id).unwrapped
            value = 1.3 * dynamics.physics[name]
            assert getattr(original, attribute) == dynamics.physics[name]
            setattr(original, attribute, value)
            physics = constants(dynamics, 50, **{name: value})
            after, rewards, _ = dynamics.step(variables, actions, physics)
            for k in range(50):
                put(original, variables[k])
                _, reward, *_ = original.step(native(actions[k]))
                np.testing.assert_allclose(
                    after[k], np.array(original.state), rtol=0, atol=TOLERANCE
                )
                assert rewards[k] == pytest.approx(float(reward), rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("env_id", IDS)
def test_any_batch_shape_gives_the_same(env_id):
    dynamics, rng = make(env_id), np.random.default_rng(3)
    u = rng.uniform(size=(2, 3, dynamics.uniforms_per_reset))
    physics = constants(dynamics, 6).reshape(2, 3, -1)
    variables = dynamics.initial(u, physics)
    actions = random_actions(dynamics, rng, 2, 3)
    after, rewards, terminated = dynamics.step(variables, actions, physics)
    images = dynamics.observe(after)
    assert rewards.shape == terminated.shape == (2, 3)
    assert rewards.dtype == np.float64
    assert images.shape == (2, 3, *dynamics.observation_shape)
    for place in np.ndindex(2, 3):
        one = dynamics.initial(u[place], physics[place])
        np.testing.assert_array_equal(one, variables[place])
        one, reward, over = dynamics.step(one, actions[place], physics[place])
        np.testing.assert_allclose(one, after[place], rtol=0, atol=1e-14)
        assert reward == pytest.approx(rewards[place], rel=0, abs=1e-14)
        assert over == terminated[place]
        ours = dynamics.observe(one)
        np.testing.assert_allclose(ours, images[place], rtol=0, atol=4e-6)


# -- starts ---------------------------------------------------------------------


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov statistic of two samples, in units of its spread."""
    both = np.sort(np.concatenate([a, b]))
    below = (np.searchsorted(np.sort(x), both, "right") / len(x) for x in (a, b))
    gap = np.abs(np.subtract(*below)).max()
    return float(gap * np.sqrt(len(a) * len(b) / (len(a) + len(b))))


@pytest.mark.parametrize("env_id", CLASSIC)
def test_starts_are_distributed_as_in_the_original(env_id):
    _, state = start(make(env_id), P=500, N=6)
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
def test_layouts_are_distributed_as_in_the_original(env_id, possible):
    dynamics = make(env_id)
    _, state = start(dynamics, P=600, N=8)
    assert (state.variables[..., 1] == 0).all()
    ours = layouts(dynamics.worlds[state.variables[..., 0].ravel()])
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


def test_the_numbers_of_a_grid_stand_for_its_states_in_order():
    for env_id in GRIDS:
        dynamics = make(env_id)
        as_rows = [row.tobytes() for row in dynamics.worlds]
        assert as_rows == sorted(set(as_rows))
    assert len(make("MiniGrid-Empty-5x5-v0").worlds) == 9 * 4


# -- the environment around the dynamics ----------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_an_ended_episode_gives_its_last_observation_and_starts_anew(env_id):
    dynamics = make(env_id)
    env, state = start(dynamics, P=2, N=2)
    lengths, returns = np.zeros((2, 2), int), np.zeros((2, 2))
    rng, ended = np.random.default_rng(0), 0
    for k in range(1, 620):
        actions = random_actions(env, rng, 2, 2)
        old, episodes = state.variables.copy(), state.episodes.copy()
        after, rewards, terminated = dynamics.step(old, actions, state.physics)
        step = env.step(state, actions)
        lengths, returns = lengths + 1, returns + rewards
        np.testing.assert_array_equal(step.observations, dynamics.observe(after))
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(
            step.done, terminated | (lengths == dynamics.max_episode_steps)
        )
        np.testing.assert_array_equal(step.lengths, lengths)
        np.testing.assert_array_equal(step.returns, returns)
        now = dynamics.observe(state.variables)
        np.testing.assert_array_equal(state.observations, now)
        np.testing.assert_array_equal(state.variables[~step.done], after[~step.done])
        np.testing.assert_array_equal(state.episodes, episodes + step.done)
        np.testing.assert_array_equal(state.lifetime, k)
        lengths[step.done], returns[step.done] = 0, 0
        np.testing.assert_array_equal(state.lengths, lengths)
        np.testing.assert_array_equal(state.returns, returns)
        ended += step.done.sum()
    assert ended >= 4


@pytest.mark.parametrize(
    ("env_id", "name"),
    [(env_id, name) for env_id in IDS for name in make(env_id).physics],
)
def test_each_constant_is_the_members_own(env_id, name):
    dynamics, rng = make(env_id), np.random.default_rng(0)
    changed = np.array([1.0, 1.3, 1.0]) * dynamics.physics[name]
    env, state = start(dynamics, P=3, N=2, **{name: changed})
    plain, usual = start(dynamics, P=3, N=2)
    for _ in range(10):
        actions = random_actions(env, rng, 3, 2)
        env.step(state, actions)
        plain.step(usual, actions)
    same = [0, 2]
    np.testing.assert_array_equal(state.variables[same], usual.variables[same])
    assert (state.variables[1] != usual.variables[1]).any(-1).all()


@pytest.mark.parametrize("env_id", IDS)
def test_a_saved_state_goes_on_as_before(env_id, tmp_path):
    env, state = start(make(env_id), P=2, N=2)
    rng = np.random.default_rng(0)
    for _ in range(30):
        env.step(state, random_actions(env, rng, 2, 2))
    snapshot.Snapshot({}, snapshot.capture(state)).save(tmp_path / "state")
    saved = snapshot.Snapshot.load(tmp_path / "state")
    other = env.init(keys(2, 2, seed=9), constants(env, 2))
    snapshot.restore(other, saved)
    for _ in range(260):
        actions = random_actions(env, rng, 2, 2)
        ours, theirs = env.step(state, actions), env.step(other, actions)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("env_id", GRIDS)
def test_a_learner_takes_grids_as_they_are(env_id, make_runs):
    runs = make_runs(members=2, env=BatchedEnv(make(env_id)), learning_starts=8)
    runs.train(48)
    assert runs.state.replay.observations.dtype == torch.uint8
    assert runs.state.gradient_steps.tolist() == [10, 10]
    assert np.isfinite(runs.state.parameters.numpy()).all()


# -- shifts ---------------------------------------------------------------------

SHIFTED = [shifted_cartpole, shifted_pendulum]


@pytest.mark.parametrize("factory", SHIFTED)
def test_by_default_nothing_shifts(factory):
    shifted = factory()
    env, state = start(shifted, P=2, N=2)
    plain, usual = start(shifted.dynamics, P=2, N=2)
    assert [*env.physics] == [
        *plain.physics,
        "shift_at",
        *(f"shift_{name}" for name in plain.physics),
    ]
    assert env.num_actions == plain.num_actions
    np.testing.assert_array_equal(env.action_low, plain.action_low)
    np.testing.assert_array_equal(env.action_high, plain.action_high)
    rng = np.random.default_rng(0)
    for _ in range(250):
        actions = random_actions(env, rng, 2, 2)
        for a, b in zip(
            env.step(state, actions), plain.step(usual, actions), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("factory", SHIFTED)
def test_constants_shift_once_at_each_members_step(factory):
    shifted = factory()
    at = np.array([57, 230, NEVER, 0])
    factors = np.array([1.5, 0.5, 2.0, 0.8])
    changes = {"shift_gravity": factors, "shift_" + [*shifted.dynamics.physics][1]: 1.1}
    env, state = start(shifted, P=4, N=2, shift_at=at, **changes)
    # the same by hand
    plain, by_hand = start(shifted.dynamics, P=4, N=2)
    rng = np.random.default_rng(0)
    for k in range(500):
        due = at == k
        by_hand.physics[due, :, 0] *= factors[due, None]
        by_hand.physics[due, :, 1] *= 1.1
        actions = random_actions(env, rng, 4, 2)
        ours, theirs = env.step(state, actions), plain.step(by_hand, actions)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    # in the middle of a life of several episodes
    assert (state.episodes >= 2).all()
    assert (state.lifetime == 500).all()
    assert (by_hand.physics[[0, 1, 3], :, 0] != plain.physics["gravity"]).all()
    assert (by_hand.physics[2, :, 0] == plain.physics["gravity"]).all()


def test_a_life_outlasts_episodes_and_ends_with_a_restart():
    shifted = Shifted(Pendulum())
    env, state = start(shifted, P=2, N=1, shift_at=12, shift_mass=3.0)
    rng = np.random.default_rng(0)

    def masses() -> list[float]:
        """What a step of each member shows its mass to be."""
        state.variables[...] = 0.0  # upright: nothing but the torque moves it
        step = env.step(state, np.ones((2, 1, 1)))
        return (0.05 * 3.0 / step.observations[:, 0, 2]).tolist()

    for _ in range(10):
        env.step(state, random_actions(env, rng, 2, 1))
    env.begin_episodes(state)
    assert state.lifetime.tolist() == [[10], [10]]
    assert masses() == pytest.approx([1, 1])
    saved = snapshot.capture(state)
    assert masses() == pytest.approx([1, 1])
    assert masses() == pytest.approx([3, 3])
    env.begin_episodes(state)
    assert masses() == pytest.approx([3, 3])
    physics = constants(env, 1, shift_at=1, shift_mass=5.0)
    env.restart(state, np.array([1]), keys(1, 1), physics)
    assert state.lifetime.tolist() == [[14], [0]]
    assert masses() == pytest.approx([3, 1])
    assert masses() == pytest.approx([3, 5])
    snapshot.restore(state, snapshot.Snapshot({}, saved))
    assert masses() == pytest.approx([1, 1])
    assert masses() == pytest.approx([3, 3])


def test_evaluations_see_the_constants_of_their_time_only():
    shifted = Shifted(CartPole())
    env = BatchedEnv(shifted)
    at, factor = np.array([100, 101, 99, 1000]), 4.0
    physics = constants(env, 4, shift_at=at, shift_gravity=factor)
    state = env.init(keys(4, 3), physics, lifetime=np.array([100, 100, 100, 0]))
    gravity = np.array([factor, 1.0, factor, 1.0]) * 9.8
    plain = BatchedEnv(CartPole())
    usual = plain.init(keys(4, 3), constants(plain, 4, gravity=gravity))
    rng = np.random.default_rng(0)
    for _ in range(1200):  # past every shift
        actions = rng.integers(0, 2, (4, 3))
        ours, theirs = env.step(state, actions), plain.step(usual, actions)
        np.testing.assert_array_equal(ours.observations, theirs.observations)
    # where nothing can change, the time makes no difference
    late = plain.init(keys(4, 3), constants(plain, 4), lifetime=np.full(4, 10**6))
    np.testing.assert_array_equal(late.physics[:, 0], constants(plain, 4))


# -- adapter --------------------------------------------------------------------


def test_the_adapter_takes_continuous_actions():
    adapter = GymnasiumAdapter("Pendulum-v1", {})
    batched, ours = start(Pendulum(), P=2, N=2)
    assert adapter.num_actions == batched.num_actions == 0
    np.testing.assert_array_equal(adapter.action_low, batched.action_low)
    np.testing.assert_array_equal(adapter.action_high, batched.action_high)
    theirs = adapter.init(keys(2, 2), np.zeros((2, 0)), lifetime=np.zeros(2, np.int64))
    for place in np.ndindex(2, 2):
        theirs.envs[place].unwrapped.state = ours.variables[place].copy()
    rng = np.random.default_rng(0)
    for _ in range(200):
        # exact in single precision, as the adapter passes them on
        actions = rng.uniform(-2.5, 2.5, (2, 2, 1)).astype(np.float32).astype(float)
        a, b = batched.step(ours, actions), adapter.step(theirs, actions)
        np.testing.assert_allclose(a.observations, b.observations, rtol=0, atol=1e-4)
        np.testing.assert_allclose(a.rewards, b.rewards, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(a.done, b.done)
    assert a.done.all()
    assert not a.terminated.any()


class Table(gym.Env[Any, Any]):
    """Takes a table of actions and shows it."""

    observation_space = gym.spaces.Box(-9.0, 9.0, (2, 3), np.float64)
    action_space = gym.spaces.Box(
        np.array([[-1, -2, -3], [-4, -5, -6]], np.float32),
        np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros((2, 3)), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return action.astype(np.float64), 0.0, False, False, {}


def test_the_adapter_gives_actions_their_shape():
    gym.register("dacrl-tests/Table-v0", Table)
    try:
        adapter = GymnasiumAdapter("dacrl-tests/Table-v0", {})
        assert adapter.action_low.tolist() == [-1, -2, -3, -4, -5, -6]
        assert adapter.action_high.tolist() == [1, 2, 3, 4, 5, 6]
        assert adapter.action_low.dtype == np.float64
        state = adapter.init(keys(1, 2), np.zeros((1, 0)))
        actions = np.array([[[1, 2, 3, 4, 5, 6], [-1, -2, -3, -4, -5, -6]]]) / 2
        step = adapter.step(state, actions)
        np.testing.assert_array_equal(step.observations.reshape(1, 2, 6), actions)
    finally:
        del gym.registry["dacrl-tests/Table-v0"]


def test_the_adapter_says_where_actions_are_discrete():
    adapter = GymnasiumAdapter("CartPole-v1", {})
    assert adapter.num_actions == 2
    assert len(adapter.action_low) == len(adapter.action_high) == 0
