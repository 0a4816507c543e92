"""Many writers: one a unit of work, known to be alive; the others wait for it."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pytest
from cases import slow
from tqdm import tqdm

import dacrl_env
from dacrl_env.comparison import units
from dacrl_env.comparison.executors import runner
from dacrl_env.core import locks
from dacrl_env.core.locks import Busy, unit_lock
from dacrl_env.core.store import Store, StoreError
from dacrl_env.methods import trials
from dacrl_env.policies import get_method

QUADRATIC = "dacrl/NoisyQuadratic-v0"
METHOD = "random-search,population=2"
KEY = {"kind": "evaluate", "policy": "mine", "task": "some/Task-v0", "seeds": [3, 4]}

HOLD = """
import sys, time
from pathlib import Path
from dacrl_env.core.locks import unit_lock
lock = unit_lock(Path(sys.argv[1]), {key!r})
print("held", flush=True)
time.sleep(60)
"""


class Bar:
    def update(self, steps: int) -> None:
        pass


def holder(directory: Path, code: str = HOLD) -> subprocess.Popen[str]:
    """Another process, which holds a lock."""
    command = [sys.executable, "-c", code.format(key=KEY), str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


# -- the lock ------------------------------------------------------------------


def test_who_holds_a_lock_is_named(tmp_path):
    with unit_lock(tmp_path, KEY):
        here = rf"this process, {os.getpid()} on \S+, since \d{{4}}-"
        with pytest.raises(
            Busy, match=f"evaluate mine some/Task-v0 seeds 3 to 4.*{here}"
        ):
            unit_lock(tmp_path, KEY)
        unit_lock(tmp_path, {**KEY, "seeds": [5]}).release()
    unit_lock(tmp_path, KEY).release()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, slow(signal.SIGSEGV), slow(signal.SIGTERM)]
)
def test_the_lock_of_a_dead_process_is_free_at_once(tmp_path, number):
    process = holder(tmp_path)
    with pytest.raises(Busy, match=f"in use by process {process.pid} on "):
        unit_lock(tmp_path, KEY)
    process.send_signal(number)
    process.wait()
    unit_lock(tmp_path, KEY).release()


def test_a_fork_does_not_keep_its_parent_s_lock(tmp_path):
    # the child has begun before anybody is told
    fork = """import os
told, tell = os.pipe()
if not os.fork():
    os.write(tell, b"x")
    time.sleep(5)
    os._exit(0)
os.read(told, 1)
print("held\""""
    forks = HOLD.replace('print("held"', fork)
    process = holder(tmp_path, forks)
    with pytest.raises(Busy):
        unit_lock(tmp_path, KEY)
    process.kill()
    process.wait()
    unit_lock(tmp_path, KEY).release()


def test_an_owner_that_cannot_be_read_is_somebody(tmp_path):
    with unit_lock(tmp_path, KEY):
        (file,) = (tmp_path / "locks").iterdir()
        file.write_text('{"pid": "x')
        with pytest.raises(Busy, match="in use by another process"):
            unit_lock(tmp_path, KEY)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_once(tmp_path, monkeypatch, number):
    def fails(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    import fcntl

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.warns(RuntimeWarning, match="has no locks") as caught:
        dacrl_env.fit(QUADRATIC, METHOD, 200, 0, store=tmp_path)
    assert len(caught) == 1
    dacrl_env.fit(QUADRATIC, METHOD, 200, 1, store=tmp_path)


def test_other_errors_of_locks_are_errors(tmp_path):
    (tmp_path / "locks").write_text("a file")
    with pytest.raises(FileExistsError):
        unit_lock(tmp_path, KEY)


# -- journals ------------------------------------------------------------------


def test_two_of_one_journal_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0)
    values = np.full((1, 2, 1), 0.1)
    about = (QUADRATIC, 400, 0, get_method(METHOD))
    first = trials.Trials(*about, store=Store(tmp_path))
    first.begin([1, 2])
    first.advance(values)
    with pytest.raises(Busy, match=f"journal of fit RandomSearch.*{os.getpid()}"):
        trials.Trials(*about, store=Store(tmp_path))
    expected = first.advance(values)  # as if nothing had been
    first.close()
    second = trials.Trials(*about, store=Store(tmp_path))
    second.begin([1, 2])
    second.advance(values)
    np.testing.assert_array_equal(second.advance(values).scores, expected.scores)
    second.advance(values)
    with pytest.raises(Busy):
        first.advance(values)
    second.close()
    with pytest.raises(StoreError, match="was gone on with elsewhere"):
        first.advance(values)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ArithmeticError])
def test_what_failed_in_a_notebook_can_be_run_again(tmp_path, error):
    def fails(steps: int) -> None:
        raise error

    method = get_method(METHOD)
    with pytest.raises(error) as kept:  # with its frames, as a notebook keeps them
        method.fit(QUADRATIC, 200, 0, Store(tmp_path), fails)
    fitted = method.fit(QUADRATIC, 200, 0, Store(tmp_path))
    assert fitted.cost.env_steps
    assert kept.value is not None


def test_a_forgotten_journal_is_free(tmp_path):
    about = (QUADRATIC, 400, 0, get_method(METHOD))
    trials.Trials(*about, store=Store(tmp_path))
    gc.collect()
    trials.Trials(*about, store=Store(tmp_path)).close()


def test_checkpoints_of_a_controller_have_one_writer(tmp_path):
    method = get_method("controller-ppo,population=4,trial_runs=2,n_epochs=1")
    busy = []

    def again(steps: int) -> None:
        if not busy:
            with pytest.raises(Busy, match="fit ControllerPPO") as caught:
                method.fit(QUADRATIC, 1_000, 0, Store(tmp_path))
            busy.append(caught.value)

    method.fit(QUADRATIC, 1_000, 0, Store(tmp_path), again)
    assert busy[0].owner.is_here
    method.fit(QUADRATIC, 1_000, 0, Store(tmp_path))


def test_a_journal_in_use_is_not_removed(tmp_path):
    """By a comparison that has found the fit in the store."""
    dacrl_env.fit(QUADRATIC, METHOD, 200, 0, store=tmp_path)
    about = (QUADRATIC, 200, 0, get_method(METHOD))
    mine = trials.Trials(*about, store=Store(tmp_path))
    folder = mine._journal.path  # type: ignore[union-attr]
    folder.mkdir(parents=True)
    dacrl_env.fit(QUADRATIC, METHOD, 200, 0, store=tmp_path)
    assert folder.exists()
    mine.close()
    dacrl_env.fit(QUADRATIC, METHOD, 200, 0, store=tmp_path)
    assert not folder.exists()


# -- units ---------------------------------------------------------------------


def _ones(progress: Any) -> pd.DataFrame:
    return pd.DataFrame({"value": [1]})


def _two(progress: Any) -> pd.DataFrame:
    return pd.DataFrame({"value": [2]})


@pytest.mark.parametrize("workers", [slow(1), 2])
def test_a_unit_that_another_runs_is_waited_for_and_read(
    tmp_path, capsys, monkeypatch, workers
):
    store, process = Store(tmp_path), holder(tmp_path)
    said, write = threading.Event(), tqdm.write

    def told(*about: Any, **options: Any) -> None:
        write(*about, **options)
        said.set()

    monkeypatch.setattr(tqdm, "write", told)

    def finish() -> None:
        assert said.wait(60)
        time.sleep(1)
        store.write(KEY, pd.DataFrame({"value": [7]}))
        process.kill()

    thread = threading.Thread(target=finish)
    thread.start()
    others = [{**KEY, "seeds": [k]} for k in (7, 8)]
    frames = units.run_units(
        store, [KEY, *others], [(_ones, ()), (_two, ()), (_two, ())], [1] * 3,
        runner("processes", workers, True), Bar(),
    )  # fmt: skip
    thread.join()
    process.wait()
    assert [frame["value"][0] for frame in frames] == [7, 2, 2]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "dacrl: waiting, evaluate mine some/Task-v0 seeds 3 to 4"
    )
    assert f"is in use by process {process.pid} on" in lines[0]


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_a_unit_whose_owner_dies_is_taken_over(tmp_path, workers):
    process = holder(tmp_path)
    threading.Timer(3, process.kill).start()
    frames = units.run_units(
        Store(tmp_path), [KEY, {**KEY, "seeds": [9]}], [(_ones, ()), (_two, ())],
        [1, 1], runner("processes", workers, True), Bar(),
    )  # fmt: skip
    process.wait()
    assert [frame["value"][0] for frame in frames] == [1, 2]


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_nobody_waits_for_oneself(tmp_path, workers):
    """For a journal that this process has open elsewhere."""
    plan = {"tuning_budget": 200, "seeds": [0], "store": tmp_path}
    plan |= {"num_threads": workers, "executor": "processes"}
    about = (QUADRATIC, 200, 1, get_method(METHOD))
    mine = trials.Trials(*about, store=Store(tmp_path))
    with pytest.raises(Busy, match="by this process"):
        dacrl_env.compare(QUADRATIC, methods=[METHOD], runs=2, **plan)
    mine.close()
    dacrl_env.compare(QUADRATIC, methods=[METHOD], runs=2, **plan)


@pytest.mark.slow
def test_two_threads_of_one_process_share_the_work(tmp_path):
    results: list[Any] = []

    def compare() -> None:
        frame = dacrl_env.compare(
            QUADRATIC, ["default"], range(4), methods=[METHOD], tuning_budget=500,
            runs=3, batch=2, store=tmp_path,
        )  # fmt: skip
        results.append(frame.drop(columns="wall_seconds"))

    threads = [threading.Thread(target=compare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pd.testing.assert_frame_equal(*results)


# one command, whose units are noted where they are run
COMMAND = """
import os, sys
from dacrl_env.comparison import work
from dacrl_env.methods import trials
from dacrl_env.cli.commands import main

trials.CHECKPOINT_SECONDS = 0.5
fit, evaluate = work.fit_unit, work.evaluate_unit

def noted(run):
    def unit(*about, progress):
        frame = run(*about, progress)
        with open(sys.argv[1], "a") as file:
            print(os.getpid(), run.__name__, hash(repr(about[:6])), file=file)
        return frame
    return unit

work.fit_unit = noted(fit)
work.evaluate_unit = noted(evaluate)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_many_processes_share_the_work_of_one_command(tmp_path, killed):
    log, out = tmp_path / "log", tmp_path / "out"
    command = [sys.executable, "-c", COMMAND, str(log), "compare", QUADRATIC]
    command += ["--methods", "pbt,population=4,interval=5", "hyperband", "--budget"]
    command += ["4000", "--runs", "3", "--seeds", "2", "--num-threads", "1"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    processes = [
        subprocess.Popen(
            [*command, "--out", str(out)], text=True, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    if killed:
        while not list(out.glob("results/fit*.parquet")):
            assert processes[0].poll() is None
            time.sleep(0.01)
        processes[0].kill()
    outputs = [process.communicate()[0] for process in processes]
    assert [p.returncode for p in processes] == [-9 if killed else 0, 0, 0]
    assert len(set(outputs[1:] if killed else outputs)) == 1
    done = Counter(line.split(" ", 1)[1] for line in log.read_text().splitlines())
    # a kill may fall between the run of a unit and its file
    assert sum(done.values()) - len(done) <= killed
    assert len(done) == 6 + 6
    assert list(out.glob("results/fits/*")) == []


def test_the_version_of_filelock_keeps_its_files(tmp_path):
    """Who removed them at the release could divide those who wait for one."""
    path = tmp_path / "a.lock"
    lock = filelock.FileLock(path)
    with lock:
        path.write_text(json.dumps("owner"))
    assert path.exists()
    assert locks.FileLock is filelock.FileLock
