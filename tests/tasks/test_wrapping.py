"""Wrappers around the inner environments of users' tasks."""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import (
    FlattenObservation,
    TimeAwareObservation,
    TransformReward,
)
from users_envs import OPTIONS, Walk

import dacrl_env
from dacrl_env.tasks.registration import TASKS, definition_of, make_inner_env

ID = "dacrl-tests/Wrapped-v0"


class Square(Walk):
    """Observes a matrix."""

    observation_space = gym.spaces.Box(-100.0, 100.0, (2, 2), np.float32)

    def seen(self) -> Any:
        return np.array([[self.x, self.t], [0, 0]], np.float32)


class Rewards(gym.RewardWrapper[Any, Any]):
    def __init__(self, env: gym.Env[Any, Any], factor: float = 2.0) -> None:
        super().__init__(env)
        self.factor = factor

    def reward(self, reward: Any) -> Any:
        return self.factor * reward


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    before = {*TASKS, *gym.registry}
    yield
    for name in {*TASKS, *gym.registry} - before:
        TASKS.pop(name, None)
        gym.registry.pop(name, None)


def registered(inner_env: Any, wrappers: Any, **more: Any) -> dacrl_env.Task:
    return dacrl_env.register_task(
        **{
            "id": ID, "inner_env": inner_env, "wrappers": wrappers, "algorithm": "dqn",
            "budget": 400, "random_return": 10, "reference_return": 100,
            "floor_return": -1,
        } | more
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["class", "function", "id", "module:id", "spec"])
def test_observations_are_flattened(kind: str) -> None:
    gym.register("dacrl-tests/Square-v0", Square)
    inner_env: Any = {
        "class": Square,
        "function": lambda: Square(),
        "id": "dacrl-tests/Square-v0",
        "module:id": "users_envs:dacrl-tests/Square-v0",
        "spec": gym.spec("dacrl-tests/Square-v0"),
    }[kind]
    task = registered(inner_env, FlattenObservation)
    frame = dacrl_env.evaluate(task, "default", 1, **OPTIONS)
    assert frame["eval_return"].iloc[-1] == 20
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(
    ("wrappers", "expected"),
    [
        (Rewards, 40),
        ((Rewards, {"factor": 3}), 60),
        ([Rewards, (Rewards, {"factor": 3})], 120),
        (["gymnasium.wrappers:FlattenObservation", Rewards], 40),
        ([lambda env: TransformReward(env, lambda r: 5 * r)], 100),
        ([], 20),
    ],
)
def test_wrappers_as_they_may_be_given(wrappers: Any, expected: float) -> None:
    task = registered(Walk, wrappers)
    frame = dacrl_env.evaluate(task, "default", 1, **OPTIONS)
    assert frame["eval_return"].iloc[-1] == expected


def test_the_innermost_is_first() -> None:
    env = gym.make(registered(Square, [FlattenObservation, Rewards]).inner_env)
    names = [type(env).__name__]
    while isinstance(env, gym.Wrapper):
        env = env.env
        names.append(type(env).__name__)
    assert names.index("Rewards") < names.index("FlattenObservation")


def test_a_compiled_environment_in_wrappers_is_stepped_by_python() -> None:
    task = registered("CartPole-v1", FlattenObservation)
    assert task.inner_env != "CartPole-v1"
    spec = gym.spec(task.inner_env)
    assert spec.reward_threshold == 475  # observations alone are changed
    env = gym.make(task.inner_env, max_episode_steps=7)
    env.reset(seed=0)
    ends = [any(env.step(k % 2)[2:4]) for k in range(7)]
    assert ends == [False] * 6 + [True]
    task = registered("CartPole-v1", Rewards, id="dacrl-tests/Other-v0")
    assert gym.spec(task.inner_env).reward_threshold is None


class Still(gym.Wrapper[Any, Any, Any, Any]):
    """The pole does not fall."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = self.env.step(action)
        return observation, reward, False, truncated, info


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 500), ({"max_episode_steps": 7}, 7), ({"max_episode_steps": 1000}, 1000)],
)
@pytest.mark.filterwarnings("ignore:.*You are calling 'step")
def test_a_limit_may_be_longer_than_the_environment_s_own(
    options: dict[str, int], expected: int
) -> None:
    wrappers = [TimeAwareObservation, FlattenObservation, Still]
    task = registered("CartPole-v1", wrappers, inner_env_kwargs=options)
    adapter = make_inner_env(task)
    env = gym.make(adapter.env_id, **adapter.kwargs)
    env.reset(seed=0)
    steps = 1
    while not any(env.step(steps % 2)[2:4]):
        steps += 1
    assert steps == expected


def test_results_are_named_by_wrappers() -> None:
    keys = []
    for k, wrappers in enumerate(
        [None, [], Rewards, (Rewards, {"factor": 3}), Rewards]
    ):
        task = registered(Walk, wrappers, id=f"dacrl-tests/Named{k}-v0")
        made = definition_of(task)["inner_env_made"]
        keys.append(repr({k: v for k, v in made.items() if k != "id"}))
    assert len(set(keys)) == 4
    assert keys[2] == keys[4]


def test_other_wrappers_are_another_environment() -> None:
    registered(Walk, Rewards)
    registered(Walk, [Rewards])  # the same
    with pytest.warns(UserWarning, match="another inner_env"):
        registered(Walk, (Rewards, {"factor": 3}))


def again(inner_env: Any, wrappers: Any, other: tuple[Any, Any]) -> None:
    """The same twice, each made by a call, is the same; the other one is another."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registered(inner_env(), wrappers())
        registered(inner_env(), wrappers())
    with pytest.warns(UserWarning, match="another inner_env"):
        registered(*other)


class Sized(Walk):
    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = size


@pytest.mark.parametrize("wrappers", [None, Rewards])
def test_a_partial_of_the_user_s_is_told_apart_by_its_arguments(wrappers: Any) -> None:
    again(
        lambda: functools.partial(Sized, size=np.zeros(3)),
        lambda: wrappers,
        (functools.partial(Sized, size=np.ones(3)), wrappers),
    )
    with pytest.warns(UserWarning, match="another inner_env"):
        registered(functools.partial(Sized, 3), wrappers)
    again(
        lambda: functools.partial(Sized, 3),
        lambda: wrappers,
        (functools.partial(Sized, 4), wrappers),
    )


def test_options_may_be_arrays() -> None:
    again(
        lambda: Walk,
        lambda: (Rewards, {"factor": np.array([2.0, 3.0])}),
        (Walk, (Rewards, {"factor": np.array([2.0, 4.0])})),
    )


@pytest.mark.parametrize("wrappers", [None, Rewards])
def test_options_of_a_specification_may_be_arrays(wrappers: Any) -> None:
    def spec(size: Any) -> Any:
        kwargs = {"size": np.array([1, size])}
        return gym.envs.registration.EnvSpec(
            "dacrl-tests/Sized-v0", entry_point=Sized, kwargs=kwargs
        )

    again(lambda: spec(2), lambda: wrappers, (spec(3), wrappers))
    gym.registry["dacrl-tests/Sized-v0"] = spec(2)
    assert dacrl_env.register_task(
        id="dacrl-tests/SizedTask-v0", inner_env=spec(2), algorithm="dqn", budget=400
    ).inner_env == "dacrl-tests/Sized-v0"  # fmt: skip


@pytest.mark.parametrize(
    ("inner_env", "wrappers", "more", "message"),
    [
        (Walk, [3], {}, "a wrapper is a class, a function .* got 3"),
        (Walk, "FlattenObservation", {}, "or module:name; got 'FlattenObservation'"),
        (Walk, "no_such_module:Wrapper", {}, "cannot load the wrapper"),
        (Walk, [(Rewards, 3)], {}, "is a pair"),
        ("NoSuch-v0", Rewards, {}, "does not know 'NoSuch-v0'"),
        ("CartPoleSwingup-v0", Rewards, {}, "does not know 'CartPoleSwingup-v0'"),
        (3, Rewards, {}, "got 3"),
        ("CartPole-v1", Rewards, {"backend": "batched"}, "with backend"),
    ],
)
def test_what_is_no_wrapper(
    inner_env: Any, wrappers: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        registered(inner_env, wrappers, **more)


def test_a_wrapper_that_returns_no_environment() -> None:
    task = registered(Walk, lambda env: None)
    with pytest.raises(ValueError, match="which is no environment"):
        dacrl_env.evaluate(task, "default", 1, **OPTIONS)
