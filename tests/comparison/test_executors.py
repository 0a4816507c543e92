"""Who does units of work makes no difference to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from cases import slow

import dacrl_env
from dacrl_env.comparison import executors, units
from dacrl_env.comparison.executors import all_compiled, runner
from dacrl_env.core.processes import EXECUTORS, WorkerDiedError, usable_cores
from dacrl_env.core.store import Store
from dacrl_env.learners.threads import default_threads
from dacrl_env.tasks.registration import get_task

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SHORT = {"budget": 400, "decision_interval": 200, "eval_episodes": 2}
SHORT |= {"learning_starts": 100}


class Bar:
    def update(self, steps):
        pass


def compared(**options):
    frame = dacrl_env.compare(
        CARTPOLE,
        ["default", "random"],
        4,
        methods=["random-search,population=2"],
        tuning_budget=800,
        runs=2,
        batch=2,
        **SHORT,
        **options,
    )
    return frame.drop(columns="wall_seconds")


@pytest.fixture(scope="module")
def alone():
    return compared(num_threads=1)


def check(frame, alone):
    pd.testing.assert_frame_equal(frame, alone)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"num_threads": 8}, True),  # more than there are cores
        slow({"num_threads": 3, "executor": "processes"}, True),
        slow({"num_threads": 2}, True),
        slow({"num_threads": 2}, False),
        slow({"num_threads": 8}, False),
        slow({"num_threads": 2, "executor": "processes"}, False),
        slow({"num_threads": 2, "executor": "processes"}, True),
    ],
)
def test_neither_threads_nor_processes_change_anything(
    alone, options, stored, tmp_path
):
    check(compared(store=tmp_path if stored else None, **options), alone)


def threads():
    return ThreadPoolExecutor(2)


def processes():
    return ProcessPoolExecutor(2, get_context("spawn"))


@pytest.mark.parametrize(
    ("make", "stored"),
    [
        (threads, True),
        slow(threads, False),
        slow(processes, True),
        slow(processes, False),
    ],
)
def test_executors_of_concurrent_futures(alone, make, stored, tmp_path):
    with make() as executor:
        frame = compared(store=tmp_path if stored else None, executor=executor)
    check(frame, alone)
    if stored:  # 2 fits; of four policies two units each
        assert len(list(tmp_path.glob("*.parquet"))) == 2 + 4 * 2


class Now:
    """An executor that does everything when it is asked to; the first ``lost`` die."""

    def __init__(self, lost=0):
        self.lost, self.asked = lost, 0

    def submit(self, function, /, *arguments):
        self.asked += 1
        future = Future()
        if self.asked <= self.lost:
            future.set_exception(ConnectionError("the node is gone"))
        else:
            future.set_result(function(*arguments))
        return future


def test_a_unit_that_is_lost_is_done_again(alone):
    executor = Now(lost=2)
    with pytest.warns(RuntimeWarning, match="ConnectionError: the node is gone.*begun"):
        check(compared(executor=executor), alone)
    assert executor.asked == 2 + 2 + 4 * 2


@pytest.mark.filterwarnings("ignore:a worker died")
def test_a_unit_that_is_lost_again_and_again_ends_it():
    with pytest.raises(WorkerDiedError, match=r"3 workers died of.*the node is gone"):
        compared(executor=Now(lost=1000))


def test_an_executor_that_is_over():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(WorkerDiedError, match=r"takes no more work.*finished work is"):
        compared(executor=executor)


class Few(Now):
    """Takes two units at a time, of three cores each, within a context."""

    most, cores = 2, 3

    def __init__(self):
        super().__init__()
        self.under_way, self.opened_with = [], []

    @contextmanager
    def opened(self, directory):
        self.opened_with.append(directory)
        yield
        self.opened_with.append("closed")

    def submit(self, function, /, *arguments):
        assert len(self.opened_with) == 1
        self.under_way = [f for f in self.under_way if not f.taken]
        assert len(self.under_way) < self.most
        future = super().submit(function, *arguments)
        future.taken = False
        result = future.result

        def taken():
            future.taken = True
            return result()

        future.result = taken
        self.under_way.append(future)
        return future


def test_what_more_an_executor_may_say(tmp_path):
    executor = Few()
    store = Store(tmp_path)
    jobs = [(_number, (k,)) for k in range(5)]
    keys = [{"kind": "test", "run": k} for k in range(5)]
    frames = units.run_units(
        store, keys, jobs, [1] * 5, runner(executor, 1, True), Bar()
    )
    assert [frame["threads"][0] for frame in frames] == [3] * 5
    assert executor.opened_with == [tmp_path, "closed"]
    units.run_units(store, keys, jobs, [1] * 5, runner(executor, 1, True), Bar())
    assert executor.opened_with == [tmp_path, "closed"]  # all of it was in the store


def test_what_another_program_runs_is_not_submitted(tmp_path, monkeypatch, capsys):
    """A job that waited in a queue would find its unit busy, again and again."""
    monkeypatch.setattr(units, "LOOK_SECONDS", 0.05)
    key = {"kind": "test", "run": 0}
    holder = f"""
import time
from pathlib import Path
from dacrl_env.core.locks import unit_lock
with unit_lock(Path({str(tmp_path)!r}), {key!r}):
    print("held", flush=True)
    input()
"""
    executor = Now()
    command = [sys.executable, "-c", holder]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        threading.Timer(
            1.0, lambda: (other.stdin.write("\n"), other.stdin.flush())
        ).start()
        (frame,) = units.run_units(
            Store(tmp_path), [key], [(_number, (0,))], [1], runner(executor, 1, True),
            Bar(),
        )  # fmt: skip
    assert executor.asked == 1
    assert frame["number"].tolist() == [0]
    assert f"is in use by process {other.pid}" in capsys.readouterr().err


def test_users_modules_are_found_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    places = executors._places()
    assert str(tmp_path) in places
    before = sys.path[:-1]
    monkeypatch.setattr(sys, "path", [*before])
    kind, _ = executors._alone(b"nothing", [*places, str(tmp_path / "none")])
    assert kind == "failed"
    assert sys.path == [*before, str(tmp_path)]


def test_what_a_unit_raises_is_raised():
    def work(number, progress):
        raise KeyError(f"unit {number}")

    with pytest.raises(KeyError, match="unit 0"):
        units.run_units(
            None, [None], [(work, (0,))], [1], runner(Now(), 1, True), Bar()
        )


class Later(Now):
    """An executor that never does anything."""

    def __init__(self):
        super().__init__()
        self.futures = []

    def submit(self, function, /, *arguments):
        self.futures.append(Future())
        return self.futures[-1]


def test_interrupted_what_has_not_begun_is_taken_back():
    executor = Later()

    class Interrupted(Bar):
        def update(self, steps):
            raise AssertionError("nothing is done")

    pid = os.getpid()
    previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            units.run_units(
                None, [None] * 3, [(_number, (k,)) for k in range(3)], [1] * 3,
                runner(executor, 1, True), Interrupted(),
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert [future.cancelled() for future in executor.futures] == [True] * 3


def _number(number, progress):
    return pd.DataFrame({"number": [number], "threads": [default_threads()]})


@pytest.mark.parametrize(
    ("executor", "cores", "count", "expected"),
    [
        ("threads", 1, 3, 1),
        ("threads", 6, 3, 6),
        ("processes", 6, 3, 2),  # cores that are left over are threads
        ("processes", 6, 1, 6),
        slow("processes", 2, 3, 1),
        (Now(), 6, 3, 1),
    ],
)
def test_every_unit_knows_its_threads(executor, cores, count, expected):
    frames = units.run_units(
        None, [None] * count, [(_number, (k,)) for k in range(count)], [1] * count,
        runner(executor, cores, True), Bar(),
    )  # fmt: skip
    assert [frame["number"][0] for frame in frames] == list(range(count))
    assert [frame["threads"][0] for frame in frames] == [expected] * count
    assert default_threads() == usable_cores()  # as before


class Slow(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


@pytest.mark.parametrize(
    ("task", "options", "compiled"),
    [
        (CARTPOLE, {}, True),
        (QUADRATIC, {}, True),
        ("dacrl/PPO-PendulumShift-v0", {}, True),
        (CARTPOLE, {"implementation": "sb3"}, False),
        ("dacrl/DQN-LunarLander-v0", {}, False),
    ],
)
def test_the_default_follows_from_what_steps_the_environments(task, options, compiled):
    assert all_compiled(get_task(task), options) is compiled
    chosen = runner(None, 2, all_compiled(get_task(task), options))
    assert isinstance(chosen, executors.Threads if compiled else executors.Processes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"executor": "dask"}, f"'dask'; valid: {', '.join(EXECUTORS)}, or an object"),
        ({"executor": 3}, "unknown executor 3; valid"),
        ({"executor": ThreadPoolExecutor}, "is a class; give an executor"),
        ({"num_threads": 0}, "num_threads must be"),
        ({"num_threads": -1}, "num_threads must be"),
        ({"num_threads": 1.5}, "num_threads must be"),
        ({"num_threads": "2"}, "num_threads must be"),
    ],
)
def test_what_is_neither(given, words):
    began = time.monotonic()
    with pytest.raises(ValueError, match=words):
        compared(**given)
    assert time.monotonic() - began < 60  # before any training
