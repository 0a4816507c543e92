"""An error in a user's code keeps its type, and says whose code it was."""

from __future__ import annotations

import pickle
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from users_envs import OPTIONS, Walk, task_on

import dacrl_env
from dacrl_env.core.blame import blame, blame_if_users, is_users, mark
from dacrl_env.outer import rewards
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.outer.vector_env import PopulationEnv


class MineError(Exception):
    """No kind that the package knows."""


def broken(method: str, when: int = 0, error: Exception | None = None) -> type[Walk]:
    """A walk one of whose methods fails, at its call of that number."""
    calls = 0

    def fails(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > when:
            raise MineError("here") if error is None else error
        return getattr(Walk, method)(self, *args, **kwargs)

    return type("Broken", (Walk,), {method: fails})


def evaluated(task: dacrl_env.Task, implementation: str = "compiled") -> None:
    dacrl_env.evaluate(
        task, "default", [0, 1], implementation=implementation, **OPTIONS
    )


def check(caught: Any, *words: str) -> None:
    """The error's own type and traceback, one note, and what processes pass on."""
    error = caught.value
    (note,) = error.__notes__
    assert note == f"in the user's {error.dacrl_blame}"
    for word in words:
        assert word in note
    shown = "".join(traceback.format_exception(error))
    assert "in fails\n" in shown
    lines = error.dacrl_traceback.splitlines()
    assert lines[0].startswith(f'  File "{Path(__file__)}"'), lines
    assert "dacrl_env/" not in error.dacrl_traceback
    assert 'raise MineError("here")' in error.dacrl_traceback
    twin = pickle.loads(pickle.dumps(error))
    assert twin.__notes__ == error.__notes__
    assert twin.dacrl_traceback == error.dacrl_traceback


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
@pytest.mark.parametrize(
    ("method", "when", "words"),
    [
        ("__init__", 0, ["when it is made"]),
        ("__init__", 3, ["when it is made"]),
        ("reset", 0, ["at the reset with seed"]),
        ("reset", 20, ["at the reset with seed"]),
        ("step", 0, ["at step 1 of the episode with seed"]),
        ("step", 150, ["at step ", "of the episode with seed"]),
    ],
)
def test_inner_environments(method, when, words, implementation):
    with task_on(broken(method, when)) as task:
        with pytest.raises(MineError, match="here") as caught:
            evaluated(task, implementation)
        check(caught, f"inner environment {task.inner_env}, ", *words)


def test_errors_keep_their_type_whatever_it_is():
    for error in (ValueError("x"), KeyError("x"), StopIteration("x"), OSError("x")):
        with task_on(broken("step", 150, error)) as task:
            with pytest.raises(type(error), match="x") as caught:
                evaluated(task)
            assert caught.value is error
            assert "inner environment" in error.dacrl_blame  # type: ignore[attr-defined]


def test_an_interrupt_is_nobodys():
    entry = type("E", (Walk,), {"step": lambda self, action: _interrupt()})
    with task_on(entry) as task, pytest.raises(KeyboardInterrupt) as caught:
        evaluated(task)
    assert not hasattr(caught.value, "dacrl_blame")


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_what_is_wrong_with_values_needs_no_traceback():
    entry = type("E", (Walk,), {"earned": lambda self: float("nan")})
    with task_on(entry) as task, pytest.raises(ValueError, match="nan") as caught:
        evaluated(task)
    assert caught.value.dacrl_blame is None
    assert not hasattr(caught.value, "__notes__")


def test_an_unknown_environment_is_nobodys():
    with task_on(Walk, inner_env="dacrl-tests/NoSuchEnv-v0") as task:
        with pytest.raises(Exception, match="NoSuchEnv") as caught:
            DynamicConfigEnv(task, **OPTIONS)
        assert not hasattr(caught.value, "dacrl_blame")


QUADRATIC = "dacrl/NoisyQuadratic-v0"


def test_rewards():
    def fails(context: Any) -> Any:
        raise MineError("here")

    env = PopulationEnv(QUADRATIC, 2, reward=fails)
    env.reset(seed=0)
    with pytest.raises(MineError) as caught:
        env.step(np.zeros((2, 1)))
    check(caught, "reward ", "fails")


class Policy:
    action_mode = "continuous"
    calls = 0

    def __init__(self, where: str) -> None:
        self.where = where

    def reset(self, envs: Any, seed: int) -> None:
        self.fails("reset")

    def act(self, observations: Any, infos: Any) -> Any:
        self.calls += 1
        self.fails("act")
        return np.zeros((len(observations), 1))

    def fails(self, where: str) -> None:
        if where == self.where and (where == "reset" or self.calls == 3):
            raise MineError("here")


@pytest.mark.parametrize(
    ("where", "words"), [("reset", "reset()"), ("act", "act() at decision 3")]
)
def test_policies(where, words):
    policy = Policy(where)
    with pytest.raises(MineError) as caught:
        dacrl_env.evaluate(QUADRATIC, policy, [0], name="mine")
    check(caught, "policy mine, ", words)


def test_policies_in_a_comparison_before_any_work():
    name = f"{__name__}:Policy,where=reset"
    with pytest.raises(MineError) as caught:
        dacrl_env.compare(QUADRATIC, [name], [0])
    check(caught, f"policy {name}")


def test_our_own_are_not_blamed():
    with pytest.raises(ValueError, match="unknown") as caught:
        dacrl_env.evaluate(QUADRATIC, "static,no_such_value=1", [0])
    assert not hasattr(caught.value, "dacrl_blame")
    assert not is_users(dacrl_env.get_policy("default"))
    assert not is_users(dacrl_env.get_method("random-search"))
    assert not is_users(rewards.progress)
    assert is_users(Policy("act"))
    assert is_users(Policy)
    assert is_users(_interrupt)
    assert is_users(lambda context: context)
    assert is_users(np.tanh)


def test_the_innermost_is_meant():
    with (
        pytest.raises(MineError) as caught,
        blame("method outer"),
        blame_if_users(Policy, "policy inner"),
    ):
        raise MineError("here")
    assert caught.value.__notes__ == ["in the user's policy inner"]
    mark(caught.value, "another")
    assert caught.value.__notes__ == ["in the user's policy inner"]


def _in_worker(number: int) -> None:
    with task_on(broken("step", 150)) as task:
        evaluated(task)


def test_other_processes_pass_it_on():
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.raises(MineError) as caught,
    ):
        pool.submit(_in_worker, 0).result()
    assert "inner environment" in caught.value.__notes__[0]
    assert 'raise MineError("here")' in caught.value.dacrl_traceback
