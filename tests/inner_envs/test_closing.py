"""Users' inner environments are closed when done, and never more than are needed."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import quick, slow
from users_envs import OPTIONS, Walk, task_on

import dacrl_env
from dacrl_env.inner_envs import objects
from dacrl_env.inner_envs.gymnasium_adapter import AT_ONCE, GymnasiumAdapter
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.studies import branching

SMALL = {**OPTIONS, "budget": 200, "decision_interval": 50}


class Account:
    """How many objects hold something, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = self.made = self.twice = 0

    def opened(self) -> None:
        self.now += 1
        self.made += 1
        self.most = max(self.most, self.now)

    def __deepcopy__(self, memo: Any) -> Account:
        return self


class Holding(Walk):
    """Holds something from its making, or copying, to `close`."""

    account = Account()

    def __init__(self) -> None:
        self.open = True
        self.account.opened()

    def __deepcopy__(self, memo: Any) -> Holding:
        twin: Holding = type(self).__new__(type(self))
        for name, value in self.__dict__.items():
            setattr(twin, name, copy.deepcopy(value, memo))
        twin.open = True
        self.account.opened()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.account.opened()

    def step(self, action: Any) -> Any:
        assert self.open, "stepped after it was closed"
        return super().step(action)

    def close(self) -> None:
        self.account.twice += not self.open
        self.account.now -= self.open
        self.open = False


def holding(**more: Any) -> tuple[type[Holding], Account]:
    account = Account()
    return type("Holding", (Holding,), {"account": account, **more}), account


def all_closed(account: Account) -> bool:
    gc.collect()
    assert account.twice == 0
    assert account.made > 2
    return account.now == 0


# -- whatever runs them ---------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["compiled", slow("sb3")])
def test_evaluate(implementation):
    entry, account = holding()
    with task_on(entry) as task:
        dacrl_env.evaluate(
            task, "default", range(3), implementation=implementation, **SMALL
        )
        assert all_closed(account)
        assert account.most <= 3 + AT_ONCE  # a population and its evaluation


@pytest.mark.slow
def test_compare_with_fits():
    entry, account = holding()
    with task_on(entry) as task:
        dacrl_env.compare(
            task,
            ["default", "random"],
            range(3),
            methods=["random-search,population=2"],
            tuning_budget=800,
            runs=1,
            **SMALL,
        )
        assert all_closed(account)
        assert account.most <= 3 + AT_ONCE


METHODS = [
    "random-search",
    "hyperband,eta=2",
    "race,seeds=1,finalists=1,fresh=1",
    "sequential-halving,candidates=4",
    "pbt,population=4",
    "pb2,population=4",
    "tpe,generation=2",
]


@pytest.mark.parametrize(
    "method", quick(METHODS, "sequential-halving,candidates=4", "pbt,population=4")
)
def test_fit(method):
    entry, account = holding()
    with task_on(entry) as task:
        dacrl_env.fit(task, method, 2400, 0, **SMALL)
        assert all_closed(account)


def test_controllers():
    entry, account = holding()
    method = "controller-ppo,population=2,trial_runs=2,trials=1"
    with task_on(entry) as task:
        dacrl_env.fit(task, method, 1600, 0, **SMALL)
        assert all_closed(account)


def test_branching():
    entry, account = holding()
    with task_on(entry) as task:
        branching.branching(
            task, runs=2, configurations=2, streams=1, points=[0.5], **SMALL
        )
        assert all_closed(account)


def test_outer_environments_that_nobody_has_any_more():
    entry, account = holding()
    with task_on(entry) as task:
        env = DynamicConfigEnv(task, **SMALL)
        envs = PopulationEnv(task, 2, **SMALL)
        for one in (env, envs):
            one.reset(seed=0)
        assert account.now == 1 + 2 + 2 + 4
        del env, envs, one
        assert all_closed(account)


def test_after_an_error_in_the_middle():
    def step(self: Any, action: Any) -> Any:
        self.account.steps = getattr(self.account, "steps", 0) + 1
        if self.account.steps > 400:
            raise KeyError("mine")
        return Holding.step(self, action)

    for run in (
        lambda task: dacrl_env.evaluate(task, "default", [0, 1], **SMALL),
        lambda task: dacrl_env.fit(task, "pbt,population=4", 2400, 0, **SMALL),
    ):
        entry, account = holding(step=step)
        with task_on(entry) as task:
            with pytest.raises(KeyError, match="mine"):
                run(task)
            assert all_closed(account)


def test_after_an_interrupt_in_the_middle():
    def step(self: Any, action: Any) -> Any:
        self.account.steps = getattr(self.account, "steps", 0) + 1
        if self.account.steps == 400:
            raise KeyboardInterrupt
        return Holding.step(self, action)

    entry, account = holding(step=step)
    with task_on(entry) as task:
        with pytest.raises(KeyboardInterrupt):
            dacrl_env.evaluate(task, "default", [0, 1], **SMALL)
        assert all_closed(account)


# -- never more than are needed --------------------------------------------------------


@pytest.mark.parametrize(
    ("P", "N"), [(1, 1), pytest.param(3, 2, marks=pytest.mark.slow)]
)
def test_no_more_than_a_population_and_its_evaluation(P, N):
    entry, account = holding()
    options = {**SMALL, "num_inner_envs": N, "report": True}
    with task_on(entry) as task:
        envs = PopulationEnv(task, P, **options)
        for seed in range(3):
            envs.reset(seed=seed)
            for _ in range(5):
                envs.step(np.zeros((P, 3)))
        assert account.most <= P * N + min(100, AT_ONCE)
        envs.close()
        assert all_closed(account)


def test_selecting_and_forking_close_what_they_replace():
    entry, account = holding()
    with task_on(entry) as task:
        trials = Trials(task, 4000, 0, dacrl_env.get_method("pbt"), **SMALL)
        trials.begin([0, 1, 2, 3])
        values = np.tile(trials.settings.controlled[0].default, (1, 4, 3))
        values[..., 1:] = [h.default for h in trials.controlled[1:]]
        evaluating = 4 * 2
        trials.advance(values)
        assert account.now == 4 + evaluating
        trials.fork(np.array([0, 0, 0, 3]))
        trials.advance(values)
        assert account.now == 4 + evaluating
        trials.select(np.array([1, 3]))
        trials.advance(values[:, :2])
        gc.collect()
        assert account.now == 2 + 2 * 2
        trials.begin([5])
        assert account.now == 1 + 2
        del trials
        assert all_closed(account)


def test_snapshots_close_their_copies():
    entry, account = holding()
    with task_on(entry) as task:
        envs = PopulationEnv(task, 2, **SMALL)
        envs.reset(seed=0)
        before = account.now
        snap = envs.snapshot()
        part = snap.select([1])
        assert account.now == before + 2 + 1
        envs.restore(snap)
        assert account.now == before + 2 + 1
        del snap, part
        gc.collect()
        assert account.now == before
        envs.close()
        assert all_closed(account)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(x)])
def test_copies_of_objects_are_closed_by_themselves(copied):
    entry, account = holding()
    with task_on(entry) as task:
        env = objects.owned(gym.make(task.inner_env))
        if copied is copy.deepcopy:
            twin = copied(env)
        else:
            # a class of this very module
            twin = pickle.loads(pickle.dumps(objects.Owned(Holding())))
            account = Holding.account
        now = account.now
        twin.close()
        assert account.now == now - 1
        twin.close()
        del twin
        gc.collect()
        assert account.now == now - 1
        env.close()


def test_all_are_closed_if_one_of_them_fails():
    def close(self: Any) -> None:
        Holding.close(self)
        if self.account.now == 1 and self.angry:
            raise OSError("cannot say goodbye")

    entry, account = holding(close=close, angry=False)
    with task_on(entry) as task:
        adapter = GymnasiumAdapter(task.inner_env, {})
        keys = np.arange(1, 4, dtype=np.uint64)[:, None]
        state = adapter.init(keys, np.zeros((3, 0)))
        entry.angry = True  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="goodbye") as caught:
            adapter.close(state)
        assert account.now == 0
        assert caught.value.__notes__ == [
            f"in the user's inner environment {task.inner_env}, close()"
        ]


# -- processes ------------------------------------------------------------------------

FILES = """
import os, sys, tempfile
import gymnasium as gym, numpy as np, dacrl_env

class Files(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def __init__(self, folder):
        self.folder = folder
        self.name = tempfile.mkstemp(dir=folder)[1]
    def close(self):
        os.remove(self.name)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, False, self.t >= 20, {}

if "Files-v0" not in gym.registry:
    gym.register("Files-v0", "files:Files", kwargs={"folder": sys.argv[-1]})
TASK = dacrl_env.Task(
    id="my/Files-v0", inner_env="Files-v0", algorithm="dqn", budget=200, decisions=4,
    random_return=0, reference_return=20, floor_return=-1,
)
OPTIONS = {"learning_starts": 50, "eval_episodes": 2, "hidden_sizes": (8,)}

if __name__ == "__main__":
    exec(sys.argv[1])
"""


def in_process(tmp_path: Path, code: str) -> tuple[int, list[Path], str]:
    """Exit status, what is left open, and standard error of a program."""
    folder = tmp_path / "open"
    folder.mkdir()
    (tmp_path / "files.py").write_text(FILES)
    done = subprocess.run(
        [sys.executable, "files.py", textwrap.dedent(code), str(folder)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    return done.returncode, list(folder.iterdir()), done.stderr


def test_at_the_end_of_a_program_and_not_by_its_forks(tmp_path):
    code = """
    env = dacrl_env.DynamicConfigEnv(TASK, **OPTIONS)
    env.reset(seed=0)
    before = len(os.listdir(sys.argv[-1]))
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    assert len(os.listdir(sys.argv[-1])) == before == 3
    env.step(np.zeros(3))
    """
    assert in_process(tmp_path, code) == (0, [], "")


def test_at_the_end_of_a_program_that_fails(tmp_path):
    code = """
    env = dacrl_env.DynamicConfigEnv(TASK, **OPTIONS)
    env.reset(seed=0)
    raise SystemError("something else")
    """
    status, left, stderr = in_process(tmp_path, code)
    assert (status, left) == (1, [])
    assert "something else" in stderr
