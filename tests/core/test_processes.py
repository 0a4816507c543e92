"""Worker processes: what travels to them, how they fail, and that none outlives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cases import slow

from dacrl_env.comparison import executors, units
from dacrl_env.comparison.executors import runner
from dacrl_env.core import processes
from dacrl_env.core.processes import WorkerDiedError
from dacrl_env.core.store import Store

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SECONDS = 2.0  # that a process may outlive its parent


class Bar:
    """Counts what it is told."""

    total = 0

    def update(self, steps: int) -> None:
        self.total += steps


def group(number: int, children: bool = False) -> list[int]:
    """Processes of a group, or a process's children, that are running."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, of = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(parent if children else of) == number and state != "Z":
            found.append(int(stat.parent.name))
    return found


def run(
    work: Callable[..., Any],
    count: int,
    workers: int = 2,
    store: Store | None = None,
    bar: Any = None,
) -> list[pd.DataFrame]:
    """Units that call ``work(number)``."""

    def job(number: int, progress: Callable[[int], Any]) -> pd.DataFrame:
        value = work(number)
        progress(10)
        return pd.DataFrame({"value": [value], "pid": [os.getpid()]})

    keys = [{"kind": "test", "number": k} for k in range(count)]
    jobs = [(job, (k,)) for k in range(count)]
    bar = Bar() if bar is None else bar
    by = runner("processes", workers, compiled=True)
    return units.run_units(store, keys, jobs, [10] * count, by, bar)


# -- what travels ------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
def test_lambdas_and_local_classes_work_in_workers(tmp_path, stored):
    class Local:
        factor = 3

    store, bar = (Store(tmp_path) if stored else None), Bar()
    frames = run(lambda k: Local.factor * k, 5, store=store, bar=bar)
    assert [frame["value"][0] for frame in frames] == [0, 3, 6, 9, 12]
    assert os.getpid() not in {frame["pid"][0] for frame in frames}
    assert bar.total == 50
    assert len(list(tmp_path.glob("*.parquet"))) == (5 if stored else 0)


def test_what_cannot_travel_is_named():
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"test cannot be passed.*take executor"):
        run(lambda k: lock.locked(), 2)


# a program without the usual precaution, of which each worker would be a repetition
PROGRAM = """
from dataclasses import dataclass
import gymnasium as gym, numpy as np, dacrl_env
from dacrl_env.policies.static import Static
from dacrl_env.policies import Cost, Fitted

print("begun", flush=True)

class Inner(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t >= 20, False, {}

gym.register("Plain-v0", Inner)
gym.register("Named-v0", "__main__:Inner")
# a wrapper around what the program registered itself
gym.register("Outer-v0", lambda: gym.wrappers.TimeLimit(gym.make("Named-v0"), 7))
gym.register("Lambda-v0", lambda: gym.make("CartPole-v1"))

class Half:
    action_mode = "continuous"
    def reset(self, envs, seed):
        pass
    def act(self, observations, infos):
        return np.zeros((len(observations), 2))

options = dict(budget=400, decisions=4, random_return=0, reference_return=20,
               floor_return=-1)
small = dict(learning_starts=100, eval_episodes=1)
for name in ("Plain-v0", "Outer-v0", "Lambda-v0"):
    task = dacrl_env.register_task(
        id=f"my/{name}", inner_env=name, algorithm="dqn", **options
    )
    rewards = dict(small, reward=lambda context: context.score)
    env = gym.make_vec(f"my/{name}", num_envs=2, num_threads=2, **rewards)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    frame = dacrl_env.compare(f"my/{name}", ["default", "random"], [0],
                              num_threads=2, executor="processes", **small)
    print(name, len(frame) > 0, flush=True)

@dataclass(frozen=True)
class Middle:
    at: float = 0.01
    def fit(self, task, budget, seed, store=None, progress=None, **options):
        return Fitted(Static(learning_rate=self.at), Cost(budget))

frame = dacrl_env.compare(f"my/{name}", methods=["__main__:Middle,at=0.02"], seeds=2,
                          runs=2, tuning_budget=400, num_threads=2,
                          executor="processes", **small)
print(frame["policy"].iloc[0], frame["hp/learning_rate"].max())
"""


@pytest.mark.slow
def test_a_program_s_own_environments_work_in_workers(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    names = ("Plain-v0", "Outer-v0", "Lambda-v0")
    lines = ["begun", *(f"{n} True" for n in names), "__main__:Middle,at=0.02 0.02"]
    assert done.stdout.split("\n")[:-1] == lines


# -- errors --------------------------------------------------------------------------


class PickyError(Exception):
    """Can be written, and not read."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def _raise(error: BaseException) -> None:
    raise error


def _annotated(number: int) -> None:
    error = KeyError("no such thing")
    error.add_note("in the environment of user 7")
    error.dacrl_blame = ["file.py", 12]  # type: ignore[attr-defined]
    raise error


def test_an_error_keeps_its_notes_attributes_and_place():
    with pytest.raises(KeyError, match="no such thing") as caught:
        run(_annotated, 3)
    error: Any = caught.value
    assert error.__notes__ == ["in the environment of user 7"]
    assert error.dacrl_blame == ["file.py", 12]
    assert "in _annotated" in str(error.__cause__)


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (lambda: PickyError(1, 2), RuntimeError, "PickyError in a worker: 1 and 2"),
        slow(lambda: SystemExit("over"), SystemExit, "over"),
        (lambda: KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
        slow(lambda: ConnectionResetError("simulator"), OSError, "simulator"),
        slow(lambda: MemoryError("too much"), MemoryError, "too much"),
    ],
)
def test_whatever_a_job_raises_is_raised_and_all_workers_end(failure, kind, message):
    before = set(group(os.getpid(), children=True))
    with pytest.raises(kind, match=message):
        run(lambda k: _raise(failure()) if k == 0 else time.sleep(60), 3)
    assert set(group(os.getpid(), children=True)) == before


def test_what_was_finished_before_an_error_is_kept(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ArithmeticError):
        run(lambda k: _raise(ArithmeticError()) if k == 3 else k, 4, store=store)
    kept = [key["number"] for key in store.keys()]  # noqa: SIM118
    assert kept
    assert 3 not in kept


# -- workers that die -----------------------------------------------------------------


def _die_as_often_as_files_say(directory: Path, how: Callable[[], None]) -> None:
    for file in sorted(directory.glob("trouble-*")):
        file.unlink()
        how()


KILLS: list[Callable[[], None]] = [
    lambda: os.kill(os.getpid(), signal.SIGKILL),
    lambda: os.kill(os.getpid(), signal.SIGTERM),
]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(KILLS[0], id="SIGKILL"),
        pytest.param(KILLS[1], id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_the_unit_of_a_worker_that_dies_is_done_again(tmp_path, how):
    for k in range(2):
        (tmp_path / f"trouble-{k}").touch()

    def work(number: int) -> int:
        if number == 1:
            _die_as_often_as_files_say(tmp_path, how)
        return number

    bar = Bar()
    with pytest.warns(RuntimeWarning, match="a worker died with exit code") as caught:
        frames = run(work, 3, store=Store(tmp_path / "store"), bar=bar)
    assert [frame["value"][0] for frame in frames] == [0, 1, 2]
    assert len(caught) == 2
    assert bar.total == 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a worker died:RuntimeWarning")
def test_what_kills_every_worker_is_given_up(tmp_path):
    store = Store(tmp_path)

    def work(number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(WorkerDiedError, match=r"3 workers died of test.*SIGKILL"):
        run(work, 3, store=store)


@pytest.mark.slow
def test_workers_that_cannot_start_are_given_up(monkeypatch):
    monkeypatch.setattr(executors, "_serve", _dies_at_once)
    with pytest.raises(WorkerDiedError, match=r"before they could begin.*code 5"):
        run(lambda k: k, 3)


def _dies_at_once(pipe: Any) -> None:
    os._exit(5)


# -- the parent dies -------------------------------------------------------------------


# how it dies, after so many seconds; what it is doing in between
ORPHANS = """
import ctypes, os, sys, threading, time
how, seconds, what = sys.argv[1], float(sys.argv[2]), sys.argv[3]

def die():
    time.sleep(seconds)
    if how == "exit":
        os._exit(1)
    if how == "segfault":
        ctypes.string_at(0)

if what == "start-up":
    # imports that take for ever
    sys.path.insert(0, os.path.dirname(__file__))
    from dacrl_env.core import processes
    import slow
    processes.start(slow.serve)
    print("begun", flush=True)
    threading.Thread(target=die).start()
    time.sleep(60)
import dacrl_env
method = "controller-ppo,population=2,trial_runs=2"
print("begun", flush=True)
threading.Thread(target=die).start()
dacrl_env.compare("dacrl/DQN-CartPole-v0", methods=[method], runs=2, seeds=[0],
                  tuning_budget=10**7, num_threads=2, executor="processes")
"""
SLOW = """
import os, sys, time

def serve(pipe):
    pass

if os.path.basename(sys.modules["__main__"].__file__) == "child.py":
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("what", "how", "seconds"),
    [
        slow("start-up", "exit", 0.4),
        ("start-up", "kill", 0.0),
        slow("workers", "segfault", 6.0),
        slow("workers", "kill", 2.0),
        slow("workers", "hang-up", 1.0),
    ],
)
def test_no_process_outlives_its_parent(tmp_path, what, how, seconds):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "orphans.py").write_text(ORPHANS)
    command = [sys.executable, str(tmp_path / "orphans.py"), how, str(seconds), what]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"begun\n"
    if how in ("kill", "hang-up"):
        deadline = time.monotonic() + 60
        while len(group(parent.pid)) < 2:
            assert time.monotonic() < deadline, "it starts no process"
            time.sleep(0.02)
        time.sleep(seconds)  # in which they begin to work
        parent.send_signal(signal.SIGKILL if how == "kill" else signal.SIGHUP)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + SECONDS
    while left := group(parent.pid):
        assert time.monotonic() < deadline, f"{left} outlive their parent"
        time.sleep(0.02)


def test_a_fork_leaves_the_workers_of_its_parent_alone():
    worker = processes.start(_echo)
    try:
        child = os.fork()
        if not child:
            processes.end([worker])
            processes.kill_all()
            os._exit(0)
        os.waitpid(child, 0)
        worker.pipe.send("still there")
        assert worker.pipe.recv() == "still there"
    finally:
        processes.end([worker])
    assert not worker.is_alive()


def _echo(pipe: Any) -> None:
    while True:
        pipe.send(pipe.recv())


# -- signals that wait ----------------------------------------------------------------


def test_what_is_held_is_done_whole():
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with processes.held():
            signal.raise_signal(signal.SIGINT)
            done.append("first")
            signal.raise_signal(signal.SIGINT)
            done.append("second")
        done.append("not this")
    assert done == ["first", "second"]
    with pytest.raises(KeyboardInterrupt):  # the handler is back
        signal.raise_signal(signal.SIGINT)


# -- how many --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 16),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n0::/\n",
                # the container's own group is what is mounted
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            16,
        ),
    ],
)
def test_cores_that_may_be_used(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert processes.usable_cores(tmp_path) == cores


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="affinities are Linux's"
)
def test_workers_default_to_the_affinity(capsys):
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from dacrl_env.cli.commands import _parser; "
        "print(_parser().read(['evaluate', 't', 'p', '--out', 'o']).num_threads)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
