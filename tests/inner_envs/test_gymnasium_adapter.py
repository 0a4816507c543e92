from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import quick
from stepping import constants

from dacrl_env.inner_envs.env import ENVS, CompiledEnv
from dacrl_env.inner_envs.gymnasium_adapter import (
    AdapterState,
    GymnasiumAdapter,
    needs_box2d,
)
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import TASKS, make_inner_env

PROBE = "dacrl-tests/Probe-v0"
BOX2D = [t.id for t in TASKS.values() if needs_box2d(t.inner_env)]


class Probe(gym.Env[Any, Any]):
    """Observes its seed and the number of steps; ends at action 1.

    Actions are −1, 0, 1; the reward is the (sum of the) action.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
    ) -> None:
        box = gym.spaces.Box(-1.0, 2.0**31, (2,), np.float64)
        self.observation_space = observation_space or box
        self.action_space = action_space or gym.spaces.Discrete(3, start=-1)
        self.closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        return np.array([self.seed, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        observation = np.array([self.seed, self.steps], np.float64)
        return observation, float(np.sum(action)), bool(np.all(action == 1)), False, {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register(PROBE, Probe, max_episode_steps=5)
    yield
    del gym.registry[PROBE]


def keys(P: int, N: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, (P, N), np.uint64)


def start(P: int, N: int, **options: Any) -> tuple[GymnasiumAdapter, AdapterState]:
    adapter = GymnasiumAdapter(PROBE, {}, **options)
    return adapter, adapter.init(keys(P, N), np.zeros((P, 0)))


def task(**fields: Any) -> Task:
    return Task(
        id="dacrl-tests/Task-v0",
        algorithm="dqn",
        budget=100,
        random_return=22.0,
        reference_return=500.0,
        floor_return=0.0,
        **{"inner_env": "CartPole-v1", **fields},
    )


def test_the_task_says_which_backend():
    assert isinstance(make_inner_env(task()), CompiledEnv)
    assert isinstance(make_inner_env(task(backend="batched")), CompiledEnv)
    assert isinstance(make_inner_env(task(backend="gymnasium")), GymnasiumAdapter)
    assert isinstance(make_inner_env(task(inner_env=PROBE)), GymnasiumAdapter)
    # the compiled dynamics know nothing of the arguments of the original
    other = task(inner_env_kwargs={"sutton_barto_reward": True})
    adapter = make_inner_env(other)
    assert isinstance(adapter, GymnasiumAdapter)
    state = adapter.init(keys(1, 1), constants(adapter, 1))
    assert adapter.step(state, np.zeros((1, 1), np.int64)).rewards == 0


def test_means_the_same_as_compiled_dynamics():
    compiled, adapter = (
        make_inner_env(task()),
        make_inner_env(task(backend="gymnasium")),
    )
    assert isinstance(adapter, GymnasiumAdapter)
    assert adapter.observation_shape == compiled.observation_shape
    assert adapter.observation_dtype == compiled.observation_dtype
    assert adapter.num_actions == compiled.num_actions
    ours = compiled.init(keys(2, 2), constants(compiled, 2))
    theirs = adapter.init(keys(2, 2), constants(adapter, 2))
    fresh = np.ones((2, 2), bool)
    rng = np.random.default_rng(0)
    for _ in range(150):
        for place in zip(*np.nonzero(fresh), strict=True):
            # starts are drawn from other generators, so give them ours
            theirs.envs[place].unwrapped.state = ours.variables[place].copy()
        actions = rng.integers(0, 2, (2, 2))
        a, b = compiled.step(ours, actions), adapter.step(theirs, actions)
        for name in ("rewards", "terminated", "done", "returns", "lengths"):
            mine, other = getattr(a, name), getattr(b, name)
            np.testing.assert_array_equal(mine, other, err_msg=name)
            assert mine.dtype == other.dtype, name
        np.testing.assert_allclose(a.observations, b.observations, rtol=1e-5, atol=1e-7)
        assert a.observations.dtype == b.observations.dtype
        np.testing.assert_array_equal(ours.episodes, theirs.episodes)
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        np.testing.assert_array_equal(ours.returns, theirs.returns)
        on = ~a.done
        np.testing.assert_allclose(
            ours.observations[on], theirs.observations[on], rtol=1e-5, atol=1e-7
        )
        assert (np.abs(theirs.observations[a.done]) <= 0.05).all()
        fresh = a.done
    assert (ours.episodes >= 3).all()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_continuous_actions_mean_the_same(env_id: str):
    adapter = GymnasiumAdapter(env_id, {})
    compiled = ENVS[env_id]()
    ours = compiled.init(keys(2, 2), np.tile([*compiled.physics.values()], (2, 1)))
    assert adapter.num_actions == compiled.num_actions == 0
    np.testing.assert_array_equal(adapter.action_low, compiled.action_low)
    np.testing.assert_array_equal(adapter.action_high, compiled.action_high)
    theirs = adapter.init(keys(2, 2), np.zeros((2, 0)), lifetime=np.zeros(2, np.int64))
    for place in np.ndindex(2, 2):
        theirs.envs[place].unwrapped.state = ours.variables[place].copy()
    rng = np.random.default_rng(0)
    for _ in range(compiled.env.max_episode_steps):
        # exact in single precision, as the adapter passes them on
        actions = rng.uniform(-1.25, 1.25, (2, 2, 1)) * compiled.action_high
        actions = actions.astype(np.float32).astype(float)
        a, b = compiled.step(ours, actions), adapter.step(theirs, actions)
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


def test_actions_get_their_shape():
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


def test_discrete_actions_have_no_bounds():
    adapter = GymnasiumAdapter("CartPole-v1", {})
    assert adapter.num_actions == 2
    assert len(adapter.action_low) == len(adapter.action_high) == 0


def test_actions_may_start_anywhere():
    adapter, state = start(P=1, N=3)
    assert adapter.num_actions == 3
    step = adapter.step(state, np.array([[0, 1, 2]]))
    assert step.rewards.tolist() == [[-1, 0, 1]]
    assert step.terminated.tolist() == [[False, False, True]]


def test_actions_may_be_continuous():
    space = gym.spaces.Box(np.array([[-1], [-2]]), np.array([[1], [3]]), (2, 1))
    adapter = GymnasiumAdapter(PROBE, {"action_space": space})
    assert adapter.num_actions == 0
    assert adapter.action_low.tolist() == [-1, -2]
    assert adapter.action_high.tolist() == [1, 3]
    state = adapter.init(keys(1, 2), np.zeros((1, 0)))
    step = adapter.step(state, np.array([[[-0.5, 2.5], [1.0, 1.0]]]))
    assert step.rewards.tolist() == [[2, 2]]
    assert step.terminated.tolist() == [[False, True]]


def test_truncation_is_not_termination():
    adapter, state = start(P=2, N=1)
    for k in range(1, 6):
        ends = k == 5
        step = adapter.step(state, np.array([[1], [2 if ends else 0]]))
        assert step.done.tolist() == [[ends], [ends]]
        assert step.terminated.tolist() == [[False], [ends]]
        assert step.observations[..., 1].tolist() == [[k], [k]]
        assert step.returns.tolist() == [[0], [1 - (k - 1) if ends else -k]]
        assert step.lengths.tolist() == [[k], [k]]
        # the state is that of the next episode already
        assert (state.observations[..., 1] == (0 if ends else k)).all()
        assert (state.lengths == (0 if ends else k)).all()
    assert (state.returns == 0).all()
    assert (state.episodes == 1).all()


def test_no_two_episodes_share_a_seed():
    adapter, state = start(P=3, N=2)
    seeds = [state.observations[..., 0].copy()]
    for _ in range(20):
        step = adapter.step(state, np.full((3, 2), 2))
        np.testing.assert_array_equal(step.observations[..., 0], seeds[-1])
        seeds.append(state.observations[..., 0].copy())
    adapter.begin_episodes(state)
    seeds.append(state.observations[..., 0].copy())
    assert np.unique(seeds).size == 22 * 6
    # and the same keys give the same episodes
    again = adapter.init(keys(3, 2), np.zeros((3, 0)))
    np.testing.assert_array_equal(again.observations[..., 0], seeds[0])
    adapter.step(again, np.full((3, 2), 2))
    np.testing.assert_array_equal(again.observations[..., 0], seeds[1])


def test_restarted_members_begin_again_and_others_go_on():
    adapter, state = start(P=3, N=1)
    first = state.observations.copy()
    for _ in range(3):
        adapter.step(state, np.full((3, 1), 1))
    before = state.observations.copy()
    adapter.restart(state, np.array([1]), keys(3, 1)[[2]], np.zeros((1, 0)))
    np.testing.assert_array_equal(state.observations[1], first[2])
    np.testing.assert_array_equal(state.observations[[0, 2]], before[[0, 2]])
    step = adapter.step(state, np.full((3, 1), 1))
    assert step.lengths.ravel().tolist() == [4, 1, 4]
    assert step.observations[..., 1].ravel().tolist() == [4, 1, 4]


def test_environments_are_made_once_where_they_are_reused(monkeypatch):
    made, make = [], GymnasiumAdapter._made
    monkeypatch.setattr(
        GymnasiumAdapter, "_made", lambda self, x: made.append(1) or make(self, x)
    )
    start(P=1, N=1)  # the first use
    made.clear()
    adapter, state = start(P=2, N=3, reuse=True)
    assert len(made) == 1 + 6  # one to look at the spaces
    made.clear()
    assert len({id(env) for env in state.envs.ravel()}) == 6
    adapter.step(state, np.ones((2, 3), np.int64))
    second = adapter.init(keys(1, 4), np.zeros((1, 0)))
    assert not made
    assert {id(env) for env in second.envs.ravel()} <= {
        id(env) for env in state.envs.ravel()
    }
    np.testing.assert_array_equal(second.observations[..., 1], 0)
    adapter.init(keys(2, 4), np.zeros((2, 0)))
    assert len(made) == 2
    made.clear()
    _, first = start(P=2, N=1)
    assert len(made) == 1 + 2
    # what is drawn does not depend on it
    np.testing.assert_array_equal(
        first.observations, start(P=2, N=1, reuse=True)[1].observations
    )


@pytest.mark.parametrize(
    "spaces",
    [
        {"observation_space": gym.spaces.Discrete(7)},
        {"action_space": gym.spaces.MultiBinary(2)},
        {"action_space": gym.spaces.MultiDiscrete([2, 3])},
    ],
)
def test_other_spaces_are_refused(spaces):
    original = gym.make(PROBE, **spaces).unwrapped
    with pytest.raises(
        ValueError, match="Box observations and Discrete or Box"
    ) as error:
        GymnasiumAdapter(PROBE, spaces)
    assert PROBE in str(error.value)
    assert str(original.observation_space) in str(error.value)
    assert str(original.action_space) in str(error.value)
    advised = "FlattenObservation" in str(error.value)
    assert advised == ("observation_space" in spaces)


# -- Box2D -----------------------------------------------------------------------------


def test_which_environments_need_box2d():
    needing = ("LunarLander-v3", "BipedalWalker-v3", "gymnasium:CarRacing-v3")
    assert all(map(needs_box2d, needing))
    assert not any(map(needs_box2d, ("CartPole-v1", PROBE, "CartPoleShift", "")))
    assert len(BOX2D) >= 2


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    message = r"LunarLander-v3 needs Box2D: pip install 'dacrl-env\[box2d\]'"
    for name in BOX2D:
        for make in (gym.make, gym.make_vec):
            with pytest.raises(ImportError, match=message):
                make(name)
    # nothing else asks for it
    gym.make("dacrl/DQN-CartPole-v0").reset(seed=0)


WARNINGS_AS_ERRORS = """
import sys
import gymnasium as gym
import dacrl_env
options = {"budget": 1024, "decision_interval": 1024, "eval_episodes": 1}
env = gym.make(sys.argv[1], **options)
env.reset(seed=0)
env.step(env.action_space.sample())
print(env.unwrapped.population.env.env_id)
"""


@pytest.mark.parametrize("task", quick(BOX2D, *BOX2D[:1]))
def test_box2d_is_safe_where_warnings_are_errors(task):
    # in a process of its own, for the interpreter would crash
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", WARNINGS_AS_ERRORS, task],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == "LunarLander-v3"


def test_copies_that_are_reseeded_have_random_numbers_of_their_own():
    adapter, state = start(P=3, N=2)
    for one in state.envs.ravel():
        one.unwrapped.np_random = np.random.default_rng(0)  # as copies have
    adapter.reseed(state, np.array([0, 2]))

    def drawn():
        return np.array(
            [[e.unwrapped.np_random.random() for e in r] for r in state.envs]
        )

    first = drawn()
    assert np.unique(first[[0, 2]]).size == 4
    np.testing.assert_array_equal(first[1], np.random.default_rng(0).random())
    # by their keys and episodes alone
    adapter.reseed(state, np.array([2, 0]))
    np.testing.assert_array_equal(drawn()[[0, 2]], first[[0, 2]])
    state.episodes[2] += 1
    adapter.reseed(state, np.array([2]))
    assert (drawn()[2] != first[2]).all()


def test_environments_are_closed_when_others_take_their_place():
    adapter, state = start(P=2, N=2)
    old = state.envs.copy()
    adapter.restart(state, np.array([1]), keys(1, 2), np.zeros((1, 0)))
    assert [one.unwrapped.closed for one in old[1]] == [True, True]
    assert [one.unwrapped.closed for one in old[0]] == [False, False]
    assert not any(one.unwrapped.closed for one in state.envs[1])
    adapter.close(state)
    assert all(one.unwrapped.closed for one in state.envs.ravel())
    # those of evaluations are kept from one to the next, and closed at the end
    pool = GymnasiumAdapter(PROBE, {}, reuse=True)
    first = pool.init(keys(1, 2), np.zeros((1, 0)))
    pool.close(first)
    assert all(one.unwrapped.closed for one in first.envs.ravel())


@pytest.mark.slow
def test_outer_environments_close_inner_ones():
    options = {"budget": 400, "decision_interval": 100, "learning_starts": 100}
    task = Task(
        id="dacrl-tests/DQN-Probe-v0", inner_env=PROBE, algorithm="dqn", budget=400,
        random_return=0.0, reference_return=1.0, floor_return=-10.0,
        backend="gymnasium",
    )  # fmt: skip
    env = DynamicConfigEnv(task, **options)
    env.reset(seed=0)
    envs = PopulationEnv(task, 2, **options)
    envs.reset(seed=0)
    inner = [
        one
        for outer in (env, envs)
        for one in outer.population.state.learner.envs.envs.ravel()
    ]
    assert not any(one.unwrapped.closed for one in inner)
    env.close()
    envs.close()
    assert all(one.unwrapped.closed for one in inner)


class Noisy(Probe):
    """Observes a random number at every step."""

    def __init__(self) -> None:
        super().__init__(gym.spaces.Box(-1.0, 2.0**31, (2,), np.float32))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation.astype(np.float32), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, *others = super().step(0)
        return self.np_random.random(2, np.float32), *others  # type: ignore[return-value]


def test_forks_draw_random_numbers_of_their_own_within_an_episode():
    gym.register("dacrl-tests/Noisy-v0", Noisy, max_episode_steps=400)
    task = Task(
        id="dacrl-tests/DQN-Noisy-v0", inner_env="dacrl-tests/Noisy-v0",
        algorithm="dqn", budget=400, random_return=0.0, reference_return=1.0,
        floor_return=-10.0,
    )  # fmt: skip
    options = {"decision_interval": 10, "feedback": "train", "learning_starts": 100}
    envs = PopulationEnv(task, 3, **options)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 3)))
    for shared in (True, False):
        envs.fork([0, 0, 0], shared_streams=shared)
        envs.step(np.zeros((3, 3)))
        assert (envs.population.state.learner.envs.episodes == 0).all()
        seen = envs.population.state.learner.envs.observations
        assert len(np.unique(seen[..., 0])) == (1 if shared else 3)
    del gym.registry["dacrl-tests/Noisy-v0"]
