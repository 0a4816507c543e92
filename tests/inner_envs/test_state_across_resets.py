"""State that outlives reset(), and random numbers that do not follow from the seed."""

from __future__ import annotations

import dataclasses
import importlib.util
import random
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import (
    FlattenObservation,
    FrameStackObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    RescaleAction,
    TimeAwareObservation,
    TransformObservation,
)
from users_envs import OPTIONS, Walk, task_on

import dacrl_env
from dacrl_env.inner_envs import first_use
from dacrl_env.inner_envs.faults import InnerEnvError
from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.tasks.registration import make_inner_env

HAS_BOX2D = importlib.util.find_spec("Box2D") is not None


class MyNormalize(gym.ObservationWrapper[Any, Any, Any]):
    """As CleanRL's older scripts have it."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.obs_rms = [0.0, 0]

    def observation(self, seen: Any) -> Any:
        self.obs_rms[1] += 1
        self.obs_rms[0] += (seen[0] - self.obs_rms[0]) / self.obs_rms[1]
        return seen - np.float32(self.obs_rms[0])


class Curriculum(Walk):
    """Gets harder with every episode."""

    level = 0

    def reset(self, **options: Any) -> Any:
        self.level += 1
        return super().reset(**options)

    def earned(self) -> Any:
        return 1.0 - 0.01 * self.level


class LeftOver(Walk):
    """Forgets to reset what it keeps."""

    x = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        gym.Env.reset(self, seed=seed)
        self.t = 0
        return self.seen(), {}


class Unseeded(Walk):
    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        self.x = np.random.default_rng().random()
        return self.seen(), {}


class Falsy(Walk):
    """Takes a seed for a wish."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=None)


class GlobalNumpy(Walk):
    """Seeds the global generator, from which others draw, too."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.x += np.random.random()  # noqa: NPY002
        return super().step(action)


class GlobalPython(Walk):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        random.seed(seed)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.x += random.random()
        return super().step(action)


class DrawnOnce(Walk):
    """Every object has a goal of its own."""

    def __init__(self) -> None:
        self.goal = np.random.default_rng().random()

    def earned(self) -> Any:
        return self.goal


class SharedByAll(Walk):
    """What one object does the others see."""

    steps: list[int] = []  # noqa: RUF012

    def reset(self, **options: Any) -> Any:
        self.steps.clear()
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.steps.append(1)
        return super().step(action)

    def earned(self) -> Any:
        return float(len(self.steps))


def normalised() -> Any:
    return NormalizeObservation(gym.make("CartPole-v1"))


def reward_normalised() -> Any:
    env = RecordEpisodeStatistics(gym.make("CartPole-v1"))
    return TransformObservation(NormalizeReward(env), lambda x: x, None)


REFUSED = [
    (normalised, ["state outlives reset()", "NormalizeObservation keeps running"]),
    (reward_normalised, ["state outlives reset()", "NormalizeReward keeps running"]),
    (lambda: MyNormalize(Walk()), ["state outlives", "MyNormalize keeps running"]),
    (Curriculum, ["state outlives reset()"]),
    (LeftOver, ["state outlives reset()"]),
    (Unseeded, ["random numbers do not follow from its seed", "self.np_random"]),
    (Falsy, ["random numbers do not follow from its seed"]),
    (GlobalNumpy, ["two objects", "global random generators"]),
    (GlobalPython, ["two objects", "global random generators"]),
    (DrawnOnce, ["two objects", "drawn when an object is made"]),
    (SharedByAll, ["two objects", "attributes of classes"]),
]


@pytest.mark.parametrize(("entry", "words"), REFUSED)
def test_an_episode_that_does_not_follow_from_its_seed_is_refused(entry, words):
    with task_on(entry) as task:
        for _ in range(2):  # and again
            with pytest.raises(InnerEnvError) as caught:
                DynamicConfigEnv(task, **OPTIONS)
            for word in [task.inner_env, "stateful=True", *words]:
                assert word in str(caught.value)
        # who knows that
        known = dataclasses.replace(task, stateful=True)
        DynamicConfigEnv(known, **OPTIONS).reset(seed=0)


@pytest.mark.parametrize("make", [normalised, reward_normalised])
def test_the_option_that_replaces_a_wrapper_is_named_and_exists(make):
    with task_on(make) as task, pytest.raises(InnerEnvError) as caught:
        DynamicConfigEnv(task, **OPTIONS)
    assert "PPO has normalisation" in str(caught.value)
    assert "DQN has none" in str(caught.value)
    for option in ("normalize_observations", "normalize_rewards"):
        assert f"{option}=True" in str(caught.value)
        dacrl_env.DynamicConfigEnv("dacrl/PPO-CartPole-v0", **{option: True})


def test_the_switch_is_part_of_the_definition():
    with task_on(Walk) as task:
        other = dataclasses.replace(task, stateful=True)
        assert task.definition() != other.definition()


def test_it_is_looked_at_once_a_process_and_registration(monkeypatch):
    looked = []
    check = first_use._check
    monkeypatch.setattr(
        first_use, "_check", lambda *args: looked.append(1) or check(*args)
    )
    with task_on(Walk) as task:
        for _ in range(2):
            DynamicConfigEnv(task, **OPTIONS)
        assert len(looked) == 1
        gym.registry.pop(task.inner_env)
        gym.register(task.inner_env, Curriculum)  # as an edited cell of a notebook
        with pytest.raises(InnerEnvError, match="outlives"):
            DynamicConfigEnv(task, **OPTIONS)
        other = dataclasses.replace(task, inner_env_kwargs={"max_episode_steps": 7})
        with pytest.raises(InnerEnvError, match="outlives"):
            DynamicConfigEnv(other, **OPTIONS)


class Drawing(Walk):
    """Touches the global generators, without being led by them."""

    made = 0
    closed = 0
    steps = 0

    def __init__(self) -> None:
        type(self).made += 1

    def close(self) -> None:
        type(self).closed += 1

    def step(self, action: Any) -> Any:
        np.random.random()  # noqa: NPY002
        random.random()
        type(self).steps += 1
        return super().step(action)


def test_the_look_is_short_and_leaves_nothing_behind():
    entry = type("Drawing", (Drawing,), {})
    with task_on(entry) as task:
        before = np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
        adapter = make_inner_env(task)
        after = np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
        assert before == after
        assert isinstance(adapter, GymnasiumAdapter)
        assert entry.made == entry.closed == 3
        assert entry.steps == 4 * first_use.STEPS < 100


@pytest.mark.parametrize("ends", [1, 3])
def test_episodes_that_end_within_the_look_are_followed_by_others(ends):
    class Short(Walk):
        def step(self, action: Any) -> Any:
            assert self.t < ends, "stepped after its end"
            seen, reward, _, _, info = super().step(action)
            return seen, reward, self.t == ends, False, info

    with task_on(Short) as task:
        make_inner_env(task)


# -- what has to pass -----------------------------------------------------------------


def one_hot(name: str) -> Any:
    env = gym.make(name)
    return FlattenObservation(env)


def image(name: str) -> Any:
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(gym.make(name))


GYMNASIUM = [
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
]
BOX2D = ["LunarLander-v3", "BipedalWalker-v3", "BipedalWalkerHardcore-v3"]
WRAPPED = {
    "FrozenLake": lambda: one_hot("FrozenLake-v1"),
    "Taxi": lambda: one_hot("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"),
    "CliffWalking": lambda: one_hot(
        "CliffWalking-v1" if "CliffWalking-v1" in gym.registry else "CliffWalking-v0"
    ),
    "Blackjack": lambda: one_hot("Blackjack-v1"),
    "MiniGrid": lambda: image("MiniGrid-DoorKey-5x5-v0"),
    "frames": lambda: FrameStackObservation(gym.make("CartPole-v1"), 3),
    "time": lambda: TimeAwareObservation(gym.make("CartPole-v1")),
    "statistics": lambda: RecordEpisodeStatistics(gym.make("CartPole-v1")),
    "rescaled": lambda: RescaleAction(gym.make("Pendulum-v1"), -1, 1),
    "deterministic": lambda: Still(),
}


class Still(Walk):
    def step(self, action: Any) -> Any:
        seen = super().step(action)
        self.x = 0.0
        return seen[0] * 0, *seen[1:]


@pytest.mark.parametrize("name", GYMNASIUM)
def test_gymnasiums_own_environments_pass(name):
    GymnasiumAdapter(name, {})


@pytest.mark.skipif(not HAS_BOX2D, reason="needs Box2D: dacrl-env[box2d]")
@pytest.mark.parametrize("name", BOX2D)
def test_those_of_box2d_pass(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        GymnasiumAdapter(name, {})


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_those_that_users_wrap_pass(make):
    with task_on(make) as task:
        assert isinstance(make_inner_env(task), GymnasiumAdapter)


@pytest.mark.skipif(not HAS_BOX2D, reason="needs Box2D: dacrl-env[box2d]")
def test_episodes_of_a_walker_do_not_depend_on_those_before():
    """Its world, which it keeps, would make them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = GymnasiumAdapter("BipedalWalker-v3", {})
    keys = np.array([[11], [12], [13]], np.uint64)
    state = adapter.init(keys[:1], np.zeros((1, 0)))
    actions = np.random.default_rng(0).uniform(-1, 1, (150, 1, 1, 4))

    def course(key):
        adapter.next_episodes(state, np.array([0]), key[None])
        return np.concatenate(
            [adapter.advance(state, a).observations.ravel() for a in actions]
        )

    first = course(keys[1])
    course(keys[2])
    np.testing.assert_array_equal(course(keys[1]), first)
