"""A copy of an environment or a population goes on by itself, bit for bit."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from cases import slow
from gymnasium.vector import AsyncVectorEnv

import dacrl_env
from dacrl_env import PopulationEnv, SnapshotNotSupported
from dacrl_env.core.snapshot import is_opaque, leaves
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import resolve

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "cloudpickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
}
COPIES_APART = ("deepcopy", "pickle")


class Drifting(gym.Env[np.ndarray, int]):
    """An object with a state and a generator of its own."""

    observation_space = gym.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.np_random.normal(size=2)
        return self.at.astype(np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.at = 0.9 * self.at + self.np_random.normal(size=2) + 0.1 * action
        done = bool(self.np_random.random() < 0.05)
        return self.at.astype(np.float32), float(self.at[0]), done, False, {}


gym.register("dacrl-tests/Drifting-copies-v0", Drifting, max_episode_steps=37)
OBJECTS = dacrl_env.Task(
    id="dacrl-tests/DQN-Drifting-v0",
    inner_env="dacrl-tests/Drifting-copies-v0",
    algorithm="dqn",
    budget=400,
    random_return=0.0,
    reference_return=100.0,
    floor_return=-1e6,
)
PENDULUMS = replace(
    OBJECTS, id="dacrl-tests/P-v0", inner_env="Pendulum-v1", algorithm="ppo"
)
SHORT: dict[str, Any] = {"budget": 400, "decision_interval": 100, "eval_episodes": 1}
SMALL_DQN = {**SHORT, "learning_starts": 50, "hidden_sizes": (8,)}
SMALL_PPO = {
    **SHORT,
    "num_inner_envs": 2,
    "rollout_length": 25,
    "hidden_sizes": (8,),
    "fixed": {"n_epochs": 2},
}
SB3 = {"implementation": "sb3", "feedback": "train"}
SB3_DQN, SB3_PPO = {**SMALL_DQN, **SB3}, {**SMALL_PPO, **SB3}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dqn": ("dacrl/DQN-CartPole-v0", SMALL_DQN),
    "dqn, training feedback": (
        "dacrl/DQN-CartPole-v0",
        {**SMALL_DQN, "feedback": "train", "history": 2, "fixed": {"n_step": 3}},
    ),
    "dqn, bytes": ("dacrl/DQN-MiniGrid-Empty-5x5-v0", SMALL_DQN),
    "dqn, objects": (OBJECTS, {**SMALL_DQN, "num_inner_envs": 2}),
    "ppo": ("dacrl/PPO-CartPole-v0", {**SMALL_PPO, "normalize_rewards": True}),
    "ppo, continuous": ("dacrl/PPO-Pendulum-v0", SMALL_PPO),
    "ppo, objects": (replace(OBJECTS, algorithm="ppo"), SMALL_PPO),
    "ppo, continuous objects": (
        replace(PENDULUMS, backend="gymnasium"),
        {**SMALL_PPO, "normalize_observations": True},
    ),
    "sgd": ("dacrl/NoisyQuadratic-v0", {"budget": 50}),
    "sb3 dqn": ("dacrl/DQN-CartPole-v0", SB3_DQN),
    "sb3 dqn, objects": (OBJECTS, SB3_DQN),
    "sb3 ppo": ("dacrl/PPO-CartPole-v0", SB3_PPO),
    "sb3 ppo, objects": (replace(OBJECTS, algorithm="ppo"), SB3_PPO),
}


def single(kind: str) -> Any:
    task, options = KINDS[kind]
    return dacrl_env.DynamicConfigEnv(task, **options)


def vector(kind: str, **more: Any) -> Any:
    task, options = KINDS[kind]
    return PopulationEnv(task, 2, **{**options, **more})


def bits(env: Any) -> dict[str, bytes]:
    """Every bit of a state; wall clock and objects excepted."""
    return {
        name: np.asarray(leaf).tobytes()
        for name, leaf in leaves(env.unwrapped.population.state)
        if name != "wall_seconds" and not is_opaque(leaf)
    }


def without_clock(info: Any) -> Any:
    """An info in which equal runs are equal, with arrays as bytes."""
    if isinstance(info, dict):
        return {k: without_clock(v) for k, v in info.items() if "wall_sec" not in k}
    if isinstance(info, np.ndarray):
        every = [without_clock(x) for x in info] if info.dtype == object else None
        return every or (info.dtype.str, info.shape, info.tobytes())
    return info


def played(env: Any, steps: int, first: int = 0) -> list[Any]:
    """What some steps with actions that differ give."""
    seen = []
    for k in range(first, first + steps):
        level = 0.3 * np.cos(k)
        observation, reward, ended, _, info = env.step(
            np.full(env.action_space.shape, level, np.float32)
        )
        now = observation.tobytes(), np.asarray(reward).tobytes(), np.copy(ended)
        seen.append((now[0], now[1], now[2].tolist(), without_clock(info), bits(env)))
        if getattr(env, "num_envs", None) is None and ended:
            observation, info = env.reset()
            seen.append((observation.tobytes(), without_clock(info), bits(env)))
    return seen


def reset(env: Any) -> list[Any]:
    observation, info = env.reset(seed=5)
    return [(observation.tobytes(), without_clock(info), bits(env))]


def assert_goes_on(make: Callable[[], Any], copied: Callable[[Any], Any]) -> None:
    """A copy at every stage, the original and one never copied do the same."""
    expected_env = make()
    expected = reset(expected_env) + played(expected_env, 6)
    env = make()
    fresh = copied(env)
    seen = reset(env)
    begun = copied(env)
    seen += played(env, 1)
    on_its_way = copied(env)
    seen += played(env, 2, 1)
    later = copied(env)
    of_a_copy = copied(later)
    seen += played(env, 3, 3)
    assert seen == expected
    assert reset(fresh) + played(fresh, 6) == expected
    # what a copy does is nothing to others
    for twin, done in ((begun, 0), (on_its_way, 1), (later, 3), (of_a_copy, 3)):
        steps = expected[1:] if done == 0 else expected[1 + done :]
        assert played(twin, 6 - done, done)[-len(steps) :] == steps
        twin.close()
    assert bits(env) == bits(expected_env)
    for each in (env, expected_env, fresh):
        each.close()


# every way for one kind, the two that differ most for the others
WAYS = [
    (kind, way)
    for kind in KINDS
    for way in (COPIES if kind == "dqn, objects" else COPIES_APART)
]
SEVERAL = ("sb3 ppo", "sb3 ppo, objects", "sb3 dqn, objects")  # much as "sb3 dqn"
APART = [
    slow(kind, way) if way == "deepcopy" or kind in SEVERAL else (kind, way)
    for kind, way in WAYS
]
# the two of a kind in turn
TURNS = [
    slow(kind, way)
    if (kind != "dqn, objects" and k % 4 in (0, 3)) or kind.startswith("sb3")
    else (kind, way)
    for k, (kind, way) in enumerate(WAYS)
]


@pytest.mark.parametrize(("kind", "way"), APART)
def test_single_environments(kind: str, way: str) -> None:
    assert_goes_on(lambda: single(kind), COPIES[way])


@pytest.mark.parametrize(("kind", "way"), TURNS)
def test_populations(kind: str, way: str) -> None:
    assert_goes_on(lambda: vector(kind), COPIES[way])


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", [slow("dqn"), "ppo, objects", "sgd"])
def test_populations_without_an_outer_environment(kind: str, way: str) -> None:
    task, options = KINDS[kind]
    runs = Population(resolve(task, **options), 2)
    zeros = np.zeros(2, np.int64)
    runs.start(np.arange(2), np.array([3, 4]), zeros, zeros)
    runs.advance(runs.actions.defaults(2))
    twin = COPIES[way](runs)
    for each in (runs, twin):
        each.advance(each.actions.defaults(2))
    assert [
        name
        for (name, a), (_, b) in zip(
            leaves(runs.state), leaves(twin.state), strict=True
        )
        if name != "wall_seconds"
        and not is_opaque(a)
        and np.asarray(a).tobytes() != np.asarray(b).tobytes()
    ] == []


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "cloudpickle"])
@pytest.mark.parametrize("task", ["dacrl/DQN-CartPole-v0", "dacrl/NoisyQuadratic-v0"])
def test_wrappers_of_gymnasium(task: str, way: str) -> None:
    options = SMALL_DQN if "DQN" in task else {"budget": 50}
    env = gym.make(task, **options)
    assert "OrderEnforcing<PassiveEnvChecker<" in str(env)
    env = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(env, 3))
    reset(env)
    played(env, 1)
    twin = COPIES[way](env)
    for each in (env, twin):
        each.action_space.seed(1)
    ours, theirs = played(env, 3, 1), played(twin, 3, 1)
    for each in ours, theirs:
        [info.pop("episode", None) for *_, info, _ in each]  # has the time
    assert ours == theirs
    np.testing.assert_array_equal(env.action_space.sample(), twin.action_space.sample())
    assert twin.spec == env.spec


def test_spaces_and_generators_go_on_alike() -> None:
    env = single("dqn")
    env.action_space.seed(3)
    env.reset()  # a seed of Gymnasium's generator
    env.action_space.sample()
    for way in COPIES.values():
        twin = way(env)
        a, b = copy.deepcopy(env), twin
        np.testing.assert_array_equal(a.action_space.sample(), b.action_space.sample())
        assert a.np_random.integers(2**31) == b.np_random.integers(2**31)
        assert a.reset()[1] == b.reset()[1]  # the next episode of the seed
        assert bits(a) == bits(b)


def _handed_over(env: Any) -> Callable[[], Any]:
    return lambda: copy.deepcopy(env)


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("dqn", "fork"),
        slow("dqn", "spawn"),
        slow("dqn, objects", "fork"),
        slow("dqn, objects", "spawn"),
    ],
)
def test_copies_in_an_async_vector_env(kind: str, context: str) -> None:
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {context}")
    env = single(kind)
    reset(env)
    played(env, 1)
    envs = AsyncVectorEnv([_handed_over(env)] * 2, context=context)
    level = np.full((2, 3), 0.3 * np.cos(1), np.float32)
    envs.step_async(level)
    observations, rewards, *_ = envs.step_wait()
    envs.close()
    expected = env.step(level[0])
    for i in range(2):
        assert observations[i].tobytes() == expected[0].tobytes()
        assert rewards[i] == expected[1]


def test_nothing_kept_beside_the_state_is_copied() -> None:
    env = single("dqn")
    bare = len(pickle.dumps(env))
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones(3))
    assert len(pickle.dumps(env)) < 1.1 * bare
    twin = copy.deepcopy(env)
    assert twin.population.learner is not env.population.learner
    assert twin.population.learner._memories == {}
    for (name, mine), (_, theirs) in zip(
        leaves(env.population.state), leaves(twin.population.state), strict=True
    ):
        assert not np.shares_memory(np.asarray(mine), np.asarray(theirs)), name


def test_a_learner_with_its_state() -> None:
    runs = single("dqn").population
    runs.start(*np.zeros((4, 1), np.int64))
    runs.advance(runs.actions.defaults(1))
    learner, state = copy.deepcopy((runs.learner, runs.state.learner))
    values = dict(zip(runs.names, runs.state.applied.T, strict=True))
    for each, its in ((runs.learner, runs.state.learner), (learner, state)):
        each.train(its, values, 50, each.begin_interval(its))
    np.testing.assert_array_equal(state.parameters, runs.state.learner.parameters)


def test_a_copy_in_inference_mode_can_be_trained() -> None:
    env = single("dqn")
    env.reset(seed=0)
    with torch.inference_mode():
        twin = copy.deepcopy(env)
    assert played(twin, 4) == played(env, 4)


class Counting:
    """A reward with a state."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, context: Any) -> Any:
        self.calls += 1
        return np.full_like(context.score, self.calls)


@pytest.mark.parametrize("way", COPIES)
def test_a_reward_with_a_state_is_copied_with_it(way: str) -> None:
    task, options = KINDS["sgd"]
    env = dacrl_env.DynamicConfigEnv(task, **options, reward=Counting())
    env.reset(seed=0)
    assert env.step(np.zeros(1))[1] == 1
    twin = COPIES[way](env)
    assert [env.step(np.zeros(1))[1] for _ in range(2)] == [2, 3]
    assert [twin.step(np.zeros(1))[1] for _ in range(2)] == [2, 3]
    assert twin.settings.reward is twin.population.settings.reward


def test_a_step_that_was_left_stays_left_in_a_copy() -> None:
    def failing(context: Any) -> Any:
        raise KeyboardInterrupt

    task, options = KINDS["sgd"]
    env = dacrl_env.DynamicConfigEnv(task, **options, reward=failing)
    env.reset(seed=0)
    with pytest.raises(KeyboardInterrupt):
        env.step(np.zeros(1))
    twin = copy.deepcopy(env)
    with pytest.raises(gym.error.ResetNeeded, match="did not reach its end"):
        twin.step(np.zeros(1))


# -- what cannot be copied ----------------------------------------------------------


class Uncopyable(Drifting):
    """A copy raises, as does pickling."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise TypeError("a simulator in another language")

    def __reduce__(self) -> Any:
        raise TypeError("a simulator in another language")


class Forgetful(gym.utils.EzPickle, Drifting):
    """A copy would be a new environment, as with Gymnasium's Box2D and MuJoCo."""


class Holding(Drifting):
    """Has what no other process can have."""

    def __init__(self) -> None:
        self.waits = (n for n in range(3))


for _kind in (Uncopyable, Forgetful, Holding):
    gym.register(f"dacrl-tests/{_kind.__name__}-copies-v0", _kind, max_episode_steps=37)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", ["Uncopyable", "Forgetful", "Holding"])
def test_environments_that_cannot_be_copied_are_named(name: str, way: str) -> None:
    inner = f"dacrl-tests/{name}-copies-v0"
    task = replace(OBJECTS, inner_env=inner)
    env = dacrl_env.DynamicConfigEnv(task, **SMALL_DQN)
    envs = PopulationEnv(task, 2, **SMALL_DQN)
    every = [env, envs]
    for each in every:
        for stage in range(3):
            if stage == 1:
                each.reset(seed=0)
            elif stage == 2:
                each.step(np.zeros(each.action_space.shape))
            before = bits(each)
            with pytest.raises(SnapshotNotSupported, match=inner) as caught:
                COPIES[way](each)
            assert "\n" not in str(caught.value)
            assert bits(each) == before
        with pytest.raises(SnapshotNotSupported, match=inner):
            each.snapshot()
        each.step(np.zeros(each.action_space.shape))  # goes on
        each.close()
