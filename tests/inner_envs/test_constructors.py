"""Numbers that a constructor takes, as constants of instances."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stepping import constants, keys

import dacrl_env
from dacrl_env.inner_envs import gymnasium_adapter
from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter
from dacrl_env.learners.rollout import play
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks.constructors import numbers_taken
from dacrl_env.tasks.registration import TASKS, make_inner_env

HILL = "dacrl-tests/Hill-v0"
OWN = {"pull": -10.0, "size": 2, "windy": False}


class Hill(gym.Env[Any, Any]):
    """Three steps, each of which returns what the constructor was given."""

    action_space = gym.spaces.Discrete(2)

    def __init__(
        self,
        name: str = "hill",
        pull: float = -10.0,
        size: int = 2,
        windy: bool = False,
        high: float | None = None,
    ) -> None:
        if pull > 0:
            raise AssertionError("pull must be negative")
        self.pull, self.size, self.windy = pull, size, windy
        self.observation_space = gym.spaces.Box(-1, 9, (size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = self.pull + 100.0 * self.windy
        return self._seen(), reward, self.steps == 3, False, {}

    def _seen(self) -> Any:
        return np.full(self.size, self.steps, np.float32)


def made(pull: float = -1.0) -> Hill:
    return Hill(pull=pull)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    before, tasks = set(gym.registry), set(TASKS)
    gym.register(HILL, Hill)
    yield
    for name in set(gym.registry) - before:
        del gym.registry[name]
    for name in set(TASKS) - tasks:
        del TASKS[name]


@pytest.fixture
def task() -> dacrl_env.Task:
    return dacrl_env.register_task(
        id="dacrl-tests/DQN-Hill-v0",
        inner_env=HILL,
        algorithm="dqn",
        budget=60,
        decisions=3,
        configuration={"learning_starts": 10},
        random_return=-30.0,
        reference_return=300.0,
        floor_return=-1e4,
        train_instances=(
            dacrl_env.Instance("steep", {"pull": -20.0}),
            dacrl_env.Instance("windy", {"windy": 1.0}),
        ),
    )


def adapter_of(**options: Any) -> GymnasiumAdapter:
    return GymnasiumAdapter(
        HILL, {}, numbers=lambda: numbers_taken(HILL, {}), **options
    )


def test_bools_whole_numbers_and_fractions_are_constants():
    assert numbers_taken(HILL, {}) == OWN
    assert list(numbers_taken(HILL, {})) == list(OWN)  # in the constructor's order
    kinds = {name: type(value) for name, value in numbers_taken(HILL, {}).items()}
    assert kinds == {"pull": float, "size": int, "windy": bool}


def test_what_is_given_goes_before_what_is_registered_and_that_before_defaults():
    steep = "dacrl-tests/Steep-v0"
    gym.register(steep, Hill, kwargs={"pull": -3.0, "high": 5.0})
    registered = OWN | {"pull": -3.0, "high": 5.0}
    assert numbers_taken(steep, {}) == registered
    given = numbers_taken(steep, {"pull": np.float32(-4.0), "name": "x"})
    assert given == registered | {"pull": -4.0}
    assert type(given["pull"]) is float


def test_limits_are_no_constants():
    assert numbers_taken(HILL, {"max_episode_steps": 5}) == OWN


@pytest.mark.parametrize("make", [made, functools.partial(Hill, pull=-1.0)])
def test_functions_take_numbers_too(make: Any):
    gym.register("dacrl-tests/Made-v0", make)
    assert numbers_taken("dacrl-tests/Made-v0", {})["pull"] == -1.0


def test_what_has_no_signature_and_what_is_unknown_have_none():
    gym.register("dacrl-tests/Of-C-v0", dict)
    assert numbers_taken("dacrl-tests/Of-C-v0", {}) == {}
    assert numbers_taken("dacrl-tests/Of-C-v0", {"size": 3}) == {"size": 3}
    assert numbers_taken("dacrl-tests/Nowhere-v0", {}) == {}


@pytest.mark.parametrize("inner_env", [HILL, Hill])
def test_those_within_wrappers_are_the_originals(inner_env: Any):
    wrapped = dacrl_env.register_task(
        id="dacrl-tests/DQN-WrappedHill-v0",
        inner_env=inner_env,
        inner_env_kwargs={"max_episode_steps": 2},
        wrappers=[gym.wrappers.FlattenObservation],
        algorithm="dqn",
        budget=60,
        random_return=-30.0,
        reference_return=300.0,
        floor_return=-1e4,
    )
    adapter = make_inner_env(wrapped)
    assert adapter.physics == OWN
    state = adapter.init(keys(1, 1), constants(adapter, 1, pull=-7.0))
    assert state.envs[0, 0].unwrapped.pull == -7.0


def test_each_member_has_its_own():
    adapter = adapter_of()
    assert adapter.physics == {"pull": -10.0, "size": 2.0, "windy": 0.0}
    given = constants(adapter, 3, pull=np.array([-10.0, -5.0, -1.5]), windy=[0, 0, 1])
    state = adapter.init(keys(3, 2), given)
    step = adapter.step(state, np.zeros((3, 2), np.int64))
    np.testing.assert_array_equal(step.rewards, [[-10.0] * 2, [-5.0] * 2, [98.5] * 2])
    assert [type(env.unwrapped.windy) for env in state.envs[:, 0]] == [bool] * 3
    adapter.restart(state, np.array([0]), keys(1, 2), given[[2]])
    step = adapter.step(state, np.zeros((3, 2), np.int64))
    np.testing.assert_array_equal(step.rewards, [[98.5] * 2, [-5.0] * 2, [98.5] * 2])


def test_objects_are_taken_over_by_those_of_the_same_constants(
    monkeypatch: pytest.MonkeyPatch,
):
    adapter = adapter_of(reuse=True)
    pulls = np.array([-1.0, -2.0])
    first = adapter.init(keys(2, 2), constants(adapter, 2, pull=pulls)).envs.copy()
    turned = adapter.init(keys(2, 2), constants(adapter, 2, pull=pulls[::-1])).envs
    assert (turned == first[::-1]).all()
    more = adapter.init(keys(1, 3), constants(adapter, 1, pull=-1.0)).envs
    assert (more[0, :2] == first[0]).all()
    assert more[0, 2] not in first
    # where there are many, those that nobody asks for are let go of
    monkeypatch.setattr(gymnasium_adapter, "AT_ONCE", 4)
    adapter.init(keys(1, 1), constants(adapter, 1, pull=-1.0))
    again = adapter.init(keys(1, 2), constants(adapter, 1, pull=-2.0)).envs
    assert not set(again[0]) & set(first[1])


def test_evaluation_episodes_have_the_constants_of_their_member(
    monkeypatch: pytest.MonkeyPatch,
):
    adapter = adapter_of(reuse=True)
    given = constants(adapter, 5, pull=np.array([-1.0, -2.0, -1.0, -3.0, -2.0]))

    def policy(rows: Any) -> Any:
        return lambda seen: np.zeros(seen.shape[:2], np.int64)

    for at_once in (3, 100):
        monkeypatch.setattr(adapter, "at_once", at_once, raising=False)
        returns, steps = play(policy, adapter, keys(5, 4), given)
        np.testing.assert_array_equal(returns, 3 * np.repeat(given[:, :1], 4, 1))
        np.testing.assert_array_equal(steps, [12] * 5)


def test_constants_that_no_environment_can_have_are_refused(task: dacrl_env.Task):
    def make(**physics: float) -> None:
        PopulationEnv(task, 1, instances=[dacrl_env.Instance("mine", physics)])

    with pytest.raises(ValueError, match=r"size of .*Hill-v0 must be a whole number"):
        make(size=2.5)
    with pytest.raises(ValueError, match=r"windy of .*Hill-v0 must be 0 or 1, got 2"):
        make(windy=2.0)
    with pytest.raises(ValueError, match=r"made with \{'size': 3\} has .* as they are"):
        make(size=3.0)
    with pytest.raises(ValueError, match=r"unknown .*'pul'.* valid: pull, size, windy"):
        make(pul=1.0)
    with pytest.raises(AssertionError, match="pull must be negative") as caught:
        make(pull=1.0)
    assert f"{HILL}, when it is made with {{'pull': 1.0}}" in caught.value.__notes__[0]


def test_runs_take_instances_of_the_task(task: dacrl_env.Task):
    envs = PopulationEnv(task, 3, instances="train", feedback="train")
    names = ["windy", "steep", "windy"]
    envs.reset(seed=1, options={"instance": names})
    population = envs.population
    population.advance(population.actions.defaults(3))
    state = population.state.learner.envs
    assert [env.unwrapped.pull for env in state.envs[:, 0]] == [-10.0, -20.0, -10.0]
    assert [env.unwrapped.windy for env in state.envs[:, 0]] == [True, False, True]
    returns, _ = population.play(np.arange(3), "report", np.zeros(3, int), 2)
    np.testing.assert_array_equal(returns, [[270.0] * 2, [-60.0] * 2, [270.0] * 2])


def test_constants_are_seen_beside_the_environments_own(task: dacrl_env.Task):
    env = PopulationEnv(task, 2, instances="train", observe_instance=True)
    seen, _ = env.reset(seed=1, options={"instance": ["steep", "windy"]})
    row = {name: k for k, name in enumerate(env.population.observation_names)}
    np.testing.assert_allclose(seen[:, row["instance/pull"]], [0.5, 0.0])
    np.testing.assert_array_equal(seen[:, row["instance/size"]], [0.0, 0.0])
    np.testing.assert_array_equal(seen[:, row["instance/windy"]], [0.0, 1.0])
