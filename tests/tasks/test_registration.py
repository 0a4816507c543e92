"""Users' tasks: registered again, made by classes and functions, in other processes."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

import dacrl_env
from dacrl_env import TASKS
from dacrl_env.tasks import registration

FIELDS: dict[str, Any] = {
    "algorithm": "dqn",
    "budget": 200,
    "decisions": 4,
    "random_return": 0.0,
    "reference_return": 5.0,
    "floor_return": -1.0,
}
FAST = {"learning_starts": 100, "eval_episodes": 1}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    tasks, registry = dict(TASKS), dict(gym.registry)
    yield
    for table, before in ((TASKS, tasks), (gym.registry, registry)):
        table.clear()
        table.update(before)


def toy(length: int = 5) -> type[gym.Env[Any, Any]]:
    """A class that has no name in a module, as those of notebooks."""

    class Toy(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.t = 0
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            self.t += 1
            return np.zeros(2, np.float32), 1.0, False, self.t >= length, {}

    return Toy


def register(inner_env: Any, name: str = "own/Toy-v0", **fields: Any) -> dacrl_env.Task:
    return dacrl_env.register_task(id=name, inner_env=inner_env, **{**FIELDS, **fields})


def evaluated(task: Any) -> float:
    """Return of the only episode length there is."""
    envs = dacrl_env.PopulationEnv(task, 1, **FAST)
    _, infos = envs.reset(seed=0)
    envs.close()
    return float(infos["eval_return"][0])


# -- made by ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner_env",
    [
        toy(),
        lambda: toy()(),
        lambda **kwargs: gym.wrappers.TimeLimit(toy(9)(), 5),
        gym.envs.registration.EnvSpec("Elsewhere-v0", toy(9), max_episode_steps=5),
    ],
    ids=["class", "function", "wrapped", "spec"],
)
def test_whatever_makes_an_environment_can_be_a_task_s(inner_env: Any) -> None:
    task = register(inner_env)
    assert task.inner_env == "own/Toy.inner-v0"
    assert evaluated("own/Toy-v0") == 5
    env = gym.make("own/Toy-v0", **FAST)
    env.reset(seed=0)
    env.step(env.action_space.sample())


def test_options_go_to_what_makes_it() -> None:
    assert evaluated(register(toy(9), inner_env_kwargs={"max_episode_steps": 3})) == 3
    maker = lambda length=5: toy(length)()  # noqa: E731
    other = register(maker, "own/Other-v0", inner_env_kwargs={"length": 4})
    assert evaluated(other) == 4


def test_a_specification_that_gymnasium_has_is_taken_as_its_id() -> None:
    task = register(gym.spec("CartPole-v1"))
    assert task.inner_env == "CartPole-v1"


def test_a_task_of_ones_own_needs_an_id() -> None:
    with pytest.raises(ValueError, match="register_task"):
        dacrl_env.Task(id="own/Toy-v0", inner_env=toy(), **FIELDS)  # type: ignore[arg-type]
    with pytest.raises(gym.error.Error):
        register(toy(), "no id/ at all!")
    with pytest.raises(ValueError, match=r"an id or a dacrl_env\.Task"):
        dacrl_env.get_task(None)  # type: ignore[arg-type]


# -- again ----------------------------------------------------------------------------


def test_the_same_again_is_fine() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # as a cell of a notebook, with a class of its own each time
            task = register(toy())
            register("CartPole-v1", "own/Pole-v0")
            register(lambda: gym.make("CartPole-v1"), "own/Lambda-v0")
            assert dacrl_env.register_task(task) == task
            dacrl_env.register_task(dacrl_env.get_task("own/Pole-v0"))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("own/Pole-v0", {"reference_return": 4.0}, "another reference_return"),
        ("own/Pole-v0", {"budget": 400, "tags": ("a",)}, "another budget, tags"),
        ("own/Toy-v0", {"inner_env": "Acrobot-v1"}, "another inner_env"),
        ("own/Toy-v0", {"inner_env": lambda: gym.make("Acrobot-v1")}, "inner_env"),
    ],
)
def test_another_one_takes_its_place_with_a_warning(
    name: str, change: dict[str, Any], words: str
) -> None:
    first = {"inner_env": "CartPole-v1" if "Pole" in name else toy(), **FIELDS}
    dacrl_env.register_task(id=name, **first)
    with pytest.warns(UserWarning, match=words) as caught:
        second = dacrl_env.register_task(id=name, **{**first, **change})
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert dacrl_env.get_task(name) is second
    env = gym.make(name, **FAST).unwrapped
    assert env.settings.task == second  # type: ignore[attr-defined]


def test_an_edited_function_takes_the_place_of_the_other() -> None:
    register(lambda: toy(5)())
    assert evaluated("own/Toy-v0") == 5
    with pytest.warns(UserWarning, match="inner_env"):
        register(lambda: toy(7)())
    assert evaluated("own/Toy-v0") == 7


def test_an_inner_environment_registered_again_is_picked_up() -> None:
    gym.register("Inner-v0", toy(5))
    register("Inner-v0")
    assert evaluated("own/Toy-v0") == 5
    with pytest.warns(UserWarning, match="Overriding"):
        gym.register("Inner-v0", toy(7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register("Inner-v0")
    assert evaluated("own/Toy-v0") == 7


@pytest.mark.parametrize("name", ["dacrl/DQN-CartPole-v0", "dacrl/NoisyQuadratic-v0"])
def test_tasks_of_the_package_keep_their_ids(name: str) -> None:
    with pytest.raises(ValueError, match="task of this package"):
        register("Acrobot-v1", name)
    with pytest.raises(ValueError, match="taken"):
        dacrl_env.register_task(TASKS[name])


# -- elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_of_gymnasium_know_a_user_s_task(context: str) -> None:
    register(toy(), inner_env_kwargs={"max_episode_steps": 3})
    envs = gym.make_vec(
        "own/Toy-v0",
        num_envs=1,
        vectorization_mode="async",
        vector_kwargs={"context": context},
        **FAST,
    )
    _, infos = envs.reset(seed=0)
    assert infos["eval_return"] == [3.0]
    envs.close()


@pytest.mark.slow
def test_workers_of_stable_baselines3_know_a_user_s_task() -> None:
    register(lambda: toy(4)())
    spec = gym.spec("own/Toy-v0")
    envs = SubprocVecEnv([lambda: gym.make(spec, **FAST)], start_method="spawn")
    envs.reset()
    assert envs.reset_infos[0]["eval_return"] == 4.0
    envs.close()


def forget() -> None:
    """As in a process where nobody has registered anything."""
    for name in [n for n in gym.registry if n.startswith(("own/", "Mine"))]:
        del gym.registry[name]
        TASKS.pop(name, None)


@pytest.mark.parametrize(
    "entry_point",
    [
        toy(),
        lambda: toy()(),
        # by a name of Gymnasium's own, under another id
        "gymnasium.envs.classic_control:CartPoleEnv",
    ],
    ids=["class", "function", "name"],
)
def test_a_task_takes_its_inner_environment_along(entry_point: Any) -> None:
    gym.register("Mine-v0", entry_point, max_episode_steps=5)
    packed = pickle.dumps(register("Mine-v0"))
    forget()
    assert evaluated(pickle.loads(packed)) == 5


def test_a_specification_takes_its_task_along() -> None:
    register(toy())
    spec = gym.spec("own/Toy-v0")
    assert json.loads(spec.to_json())["kwargs"] == {"task": "own/Toy-v0"}
    again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    assert again.kwargs == spec.kwargs
    assert copy.deepcopy(spec) == spec
    packed = pickle.dumps(spec)
    forget()
    assert "own/Toy-v0" not in TASKS
    env = gym.make(pickle.loads(packed), **FAST)
    assert env.reset(seed=0)[1]["eval_return"] == 5
    assert "own/Toy-v0" in TASKS


def test_what_arrives_takes_no_place_here_but_does_in_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = register(toy(), reference_return=4.0)
    packed = pickle.dumps(gym.spec("own/Toy-v0"))
    with pytest.warns(UserWarning, match="reference_return"):
        new = register(toy())
    pickle.loads(packed)
    assert TASKS["own/Toy-v0"] is new
    monkeypatch.setattr(registration, "is_worker", lambda: True)
    pickle.loads(packed)
    assert TASKS["own/Toy-v0"] == old


def test_what_cannot_be_sent_is_said_and_can_be_used_here() -> None:
    lock = threading.Lock()

    def make() -> Any:
        with lock:
            return toy()()

    task = register(make)
    with pytest.raises(ValueError, match=r"own/Toy\.inner-v0 cannot be sent .*lock"):
        pickle.dumps(task)
    assert copy.deepcopy(task) == copy.copy(task) == task
    assert evaluated(task) == 5
