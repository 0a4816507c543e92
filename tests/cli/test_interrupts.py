"""Ctrl-C, SIGTERM, closed pipes and streams: one line, and what is finished is kept."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cases import slow

from dacrl_env.cli import commands, interrupts
from dacrl_env.cli.commands import main
from dacrl_env.cli.interrupts import answered
from dacrl_env.comparison import comparison

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
DACRL = [sys.executable, "-c", "from dacrl_command import program; program()"]
KEPT = "dacrl: interrupted; finished work is kept in {out}, the same command goes on"


def group(number: int) -> list[int]:
    """Processes of a group that are running."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(of) == number and state != "Z":
            found.append(int(stat.parent.name))
    return found


def _as_in_a_terminal() -> None:
    """Else a program that is started in the background ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Command:
    """A command, in a process group of its own, as a terminal starts it."""

    arguments: Sequence[str]
    folder: Path
    program: Sequence[str] = tuple(DACRL)

    def __post_init__(self) -> None:
        started.append(self)
        self.folder.mkdir(exist_ok=True)
        self.errors = (self.folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            [*self.program, *self.arguments],
            stdout=subprocess.DEVNULL, stderr=self.errors, start_new_session=True,
            preexec_fn=_as_in_a_terminal,
        )  # fmt: skip

    def wait_for(self, pattern: str) -> None:
        """Until there are files."""
        deadline = time.monotonic() + 100
        while not list(self.folder.glob(pattern)):
            assert self.process.poll() is None, self.lines()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self, *numbers: int, apart: float = 0.15) -> float:
        """Send signals to the group; the seconds that it took to end."""
        began = time.monotonic()
        for number in numbers:
            os.killpg(self.process.pid, number)
            time.sleep(apart if len(numbers) > 1 else 0)
        self.process.wait(60)
        return time.monotonic() - began

    def lines(self) -> list[str]:
        """Of standard error, without the bars."""
        self.errors.seek(0)
        parts = self.errors.read().replace("\r", "\n").split("\n")
        return [p for p in parts if p.strip() and "steps/s" not in p]


started: list[Command] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A test that fails leaves no process."""
    yield
    for command in started:
        with suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.wait()
        command.errors.close()
    started.clear()


def compare(out: Path, workers: int) -> list[str]:
    """Units of a second, of which there are enough."""
    policies = ["--policies", "default", "random", "--run-budget", "1000"]
    rest = [
        "--seeds",
        "1000",
        "--num-threads",
        str(workers),
        "--executor",
        "processes",
        "--out",
        str(out),
    ]
    small = ["--set", "learning_starts=200", "hidden_sizes=(16,)", "eval_episodes=2"]
    return ["compare", CARTPOLE, *policies, *rest, *small]


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [
        slow(signal.SIGINT, 130, 2),
        (signal.SIGTERM, 143, 1),
        slow(signal.SIGTERM, 143, 2),
    ],
)
def test_a_comparison_is_interrupted(tmp_path, number, status, workers):
    command = Command(compare(tmp_path / "out", workers), tmp_path)
    command.wait_for("out/results/*.parquet")
    assert command.stop(number) < 2
    assert group(command.process.pid) == []
    assert command.process.returncode == status
    assert command.lines() == [KEPT.format(out=tmp_path / "out")]
    assert list(tmp_path.glob("out/results/*.parquet"))


@pytest.mark.slow
def test_threads_of_workers_are_interrupted(tmp_path):
    """Those of a controller's training, in a worker of a comparison."""
    out = tmp_path / "out"
    method = "controller-ppo,population=2,trial_runs=2"
    arguments = ["compare", CARTPOLE, "--methods", method, "--budget", "1e7"]
    arguments += ["--runs", "2", "--seeds", "1", "--out", str(out)]
    arguments += ["--num-threads", "4", "--executor", "processes"]
    command = Command(arguments, tmp_path)
    deadline = time.monotonic() + 100
    while len(group(command.process.pid)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(8)
    assert command.stop(signal.SIGINT) < 2
    assert group(command.process.pid) == []
    assert command.process.returncode == 130
    assert command.lines() == [KEPT.format(out=out)]


@pytest.mark.parametrize("seconds", [slow(0.15), 1.0, slow(3.0)])
def test_a_second_ctrl_c_kills_at_once(tmp_path, seconds):
    """During imports, too; one line all the same."""
    command = Command(compare(tmp_path / "out", 2), tmp_path)
    time.sleep(seconds)
    assert command.stop(signal.SIGINT, signal.SIGINT, signal.SIGINT) < 2
    time.sleep(0.2)
    assert group(command.process.pid) == []
    assert command.process.returncode in (130, -signal.SIGINT)  # one to a shell
    (line,) = command.lines()
    assert line.startswith("dacrl: interrupted")


STUCK = """
import hashlib, sys, time
from dacrl_env.comparison import comparison

begun = sys.argv.pop(1)

def stuck(*about, **more):
    open(begun, "w")
    while True:
        try:
            WORK
        except KeyboardInterrupt:
            pass

comparison.compare = stuck
from dacrl_command import program
program()
"""


# one swallows the interrupt, the other is deep in compiled code
@pytest.mark.parametrize(
    "work", [slow("time.sleep(100)"), "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"]
)
def test_a_program_that_does_not_unwind_is_ended(tmp_path, work):
    out = tmp_path / "out"
    script = STUCK.replace("WORK", work)
    program = [sys.executable, "-c", script, str(tmp_path / "begun")]
    command = Command(compare(out, 1), tmp_path, program)
    command.wait_for("begun")
    time.sleep(0.2)
    assert command.stop(signal.SIGINT) < 2
    assert command.process.returncode == 130
    assert command.lines() == [KEPT.format(out=out)]


@pytest.mark.slow
def test_an_ignored_ctrl_c_stays_ignored(tmp_path):
    """As after nohup, or in the background of a script."""
    program = [
        sys.executable, "-c",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from dacrl_command import program; program()",
    ]  # fmt: skip
    out = tmp_path / "out"
    arguments = ["evaluate", QUADRATIC, "default", "--seeds", "2", "--num-threads", "1"]
    command = Command([*arguments, "--out", str(out)], tmp_path, program)
    time.sleep(1)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.process.wait(60) == 0
    assert list(out.glob("*/report.md"))


API = """
import os, signal, sys, threading, time
import dacrl_env

def interrupt():
    while not [f for f in os.listdir(sys.argv[1]) if f.endswith(".parquet")]:
        time.sleep(0.05)
    os.killpg(0, signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
began = []
try:
    dacrl_env.compare("dacrl/DQN-CartPole-v0", ["default", "random"], range(1000),
                      store=sys.argv[1], num_threads=2, executor="processes",
                      show_progress=True, budget=1_000,
                      learning_starts=200, hidden_sizes=(16,), eval_episodes=2)
except KeyboardInterrupt as error:
    kept = len([f for f in os.listdir(sys.argv[1]) if f.endswith(".parquet")])
    left = os.popen(f"pgrep -c -P {os.getpid()} -f [c]hild.py").read().strip()
    print(type(error).__name__, kept > 0, left, file=sys.stderr)
"""


@pytest.mark.slow
def test_in_python_it_is_a_keyboard_interrupt(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    command = Command([str(store)], tmp_path, [sys.executable, "-c", API])
    assert command.process.wait(100) == 0
    assert command.lines() == ["KeyboardInterrupt True 0"]
    assert group(command.process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_main_puts_everything_back(tmp_path, monkeypatch, capsys, number):
    """Called in a program, it leaves that as it was."""

    def interrupted(*about: Any, **more: Any) -> None:
        signal.raise_signal(number)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    threads, streams = threading.active_count(), (sys.stdout, sys.stderr)
    monkeypatch.setattr(comparison, "compare", interrupted)
    arguments = ["evaluate", QUADRATIC, "default", "--out", str(tmp_path)]
    assert main(arguments) == 128 + number
    assert capsys.readouterr().err == KEPT.format(out=tmp_path) + "\n"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert (threading.active_count(), (sys.stdout, sys.stderr)) == (threads, streams)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_a_library_makes_an_error_of_is_one(
    tmp_path, monkeypatch, capsys
):
    def compare(*about: Any, **more: Any) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except interrupts.Stopped as stopped:
            raise ImportError("cannot be imported") from stopped

    monkeypatch.setattr(comparison, "compare", compare)
    arguments = ["evaluate", QUADRATIC, "default", "--out", str(tmp_path)]
    assert main(arguments) == 130
    assert capsys.readouterr().err == KEPT.format(out=tmp_path) + "\n"


def test_what_the_compiler_would_ignore_is_raised_again():
    """Errors in what llvmlite calls are printed, and nobody hears of them."""
    code = compile(
        "import os, signal, time\n"
        "def _raw_object_cache_notify():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.1)\n"
        "    return 'whole'",
        "site-packages/llvmlite/binding/executionengine.py",
        "exec",
    )
    names: dict = {}
    exec(code, names)
    told = []
    before = signal.getsignal(signal.SIGALRM)
    with answered("dacrl: interrupted"):
        try:
            told.append(names["_raw_object_cache_notify"]())
            time.sleep(1)
            told.append("never")
        except KeyboardInterrupt:
            told.append("heard")
    assert told == ["whole", "heard"]
    assert signal.getsignal(signal.SIGALRM) == before


def _deletes(interrupt: Callable[[], None]) -> None:
    class Deleted:
        def __del__(self) -> None:
            interrupt()

    Deleted()


def _refers_weakly(interrupt: Callable[[], None]) -> None:
    thing = Mock()
    weakref.finalize(thing, interrupt)
    del thing


def _forgets_a_module_s_lock(interrupt: Callable[[], None]) -> None:
    code = "def cb(reference, name):\n    interrupt()"
    names: dict[str, Any] = {"interrupt": interrupt}
    exec(compile(code, "<frozen importlib._bootstrap>", "exec"), names)
    names["cb"](None, "name")


@pytest.mark.parametrize("work", [_deletes, _refers_weakly, _forgets_a_module_s_lock])
def test_where_errors_are_ignored_an_interrupt_waits(work, capsys):
    told = []

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        told.append("whole")

    with answered("dacrl: interrupted"):
        try:
            work(interrupt)
            time.sleep(1)
            told.append("never")
        except KeyboardInterrupt:
            told.append("heard")
    assert told == ["whole", "heard"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("when", "expected"), [("signal", []), ("wakeup", ["after"])])
def test_a_signal_at_the_very_end_says_nothing(monkeypatch, capsys, when, expected):
    """Neither that nothing had begun, nor a traceback."""
    did: list[str] = []
    real, wakeup = signal.signal, signal.set_wakeup_fd

    def after(number: int, frame: Any) -> None:
        did.append("after")

    def restored(number: int, handler: Any) -> Any:
        if when == "signal" and (number, handler) == (signal.SIGINT, after):
            os.kill(os.getpid(), signal.SIGINT)
        return real(number, handler)

    def woken(descriptor: int, **more: Any) -> int:
        if when == "wakeup" and descriptor == -1:
            os.kill(os.getpid(), signal.SIGINT)
        return wakeup(descriptor, **more)

    handler = signal.signal(signal.SIGINT, lambda *_: did.append("before it began"))
    monkeypatch.setattr(signal, "signal", restored)
    monkeypatch.setattr(signal, "set_wakeup_fd", woken)
    try:
        assert main(["tasks"], after) == 0
        time.sleep(0.05)
    finally:
        real(signal.SIGINT, handler)
    assert did == expected
    assert capsys.readouterr().err == ""


def test_in_another_thread_main_works_without_signals(capsys):
    status = []
    thread = threading.Thread(target=lambda: status.append(main(["tasks"])))
    thread.start()
    thread.join()
    assert status == [0]


# -- streams ------------------------------------------------------------------------


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which dacrl is the command."""
    folder.mkdir(exist_ok=True)
    dacrl = f"{sys.executable} -c 'from dacrl_command import program; program()'"
    script = f'set -o pipefail; dacrl() {{ {dacrl} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


SMALL = f"compare {QUADRATIC} --policies default random --seeds 4 --out out"


@pytest.mark.parametrize(
    "line",
    [
        slow("dacrl tasks | head -1"),
        "dacrl tasks | true",
        slow(f"dacrl {SMALL} --num-threads 1 | true"),
        slow(f"dacrl {SMALL} --num-threads 2 --executor processes 2>&1 | head -c 1"),
    ],
)
def test_a_reader_that_leaves_is_no_error(tmp_path, line):
    done = shell(line, tmp_path)
    assert (done.returncode, done.stderr.count("dacrl:")) == (0, 0), done.stderr
    assert "Error" not in done.stderr
    if "out" in line:  # the work is done and kept
        assert list(tmp_path.glob("out/*/report.md"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "closed", [slow(">&-"), slow("2>&-"), slow("<&-"), "<&- >&- 2>&-"]
)
def test_closed_streams_do_no_harm(tmp_path, closed):
    done = shell(
        f"dacrl {SMALL} --num-threads 2 --executor processes {closed}", tmp_path
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("out/*/report.md"))


def test_a_full_disk_is_one_line(tmp_path):
    done = shell("dacrl tasks > /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "dacrl: [Errno 28] No space left on device: '<stdout>'\n"


@pytest.mark.parametrize("command", [slow("tasks"), SMALL])
def test_a_deleted_working_directory_is_one_line(tmp_path, command):
    done = shell(f"mkdir gone; cd gone; rmdir ../gone; dacrl {command}", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "dacrl: the working directory does not exist any more; change to another one\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("kilobytes", [200_000, 300_000])
def test_too_little_memory_is_one_line(tmp_path, kilobytes):
    done = shell(
        f"ulimit -v {kilobytes}; dacrl {SMALL} --num-threads 2 --executor processes",
        tmp_path,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9"),
        RuntimeError("can't start new thread"),
        ImportError("/lib/x.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_exhausted_memory_is_one_line(tmp_path, monkeypatch, capsys, error):
    # whose frames are no user's code
    monkeypatch.setattr(comparison, "compare", Mock(side_effect=error))
    arguments = ["evaluate", QUADRATIC, "default", "--out", str(tmp_path)]
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("dacrl: out of memory")
    assert text.count("\n") == 1


def test_memory_may_be_exhausted_while_an_error_is_explained(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(comparison, "compare", Mock(side_effect=MemoryError()))
    monkeypatch.setattr(commands, "explain", Mock(side_effect=MemoryError()))
    line = ["evaluate", QUADRATIC, "default", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["dacrl", *line])
    monkeypatch.chdir(tmp_path)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            commands.program()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 2
    assert capfd.readouterr().err == "dacrl: out of memory; finished work is kept\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("numpy", "libgfortran.so: failed to map segment"),
        slow("gymnasium", "no such thing"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_one_line(tmp_path, name, said):
    text = f"try:\n    raise ImportError({said!r})\nexcept ImportError as error:\n"
    (tmp_path / f"{name}.py").write_text(
        f"{text}    raise ImportError('many') from error"
    )
    run = f"PYTHONPATH={tmp_path} dacrl tasks"
    done = shell(run, tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"dacrl: it cannot be loaded: {said}\n"
    assert "Traceback" in shell(f"{run} --traceback", tmp_path).stderr


def test_our_own_faults_are_not_hidden(tmp_path, monkeypatch):
    fault = RuntimeError("a fault of ours")
    monkeypatch.setattr(comparison, "compare", Mock(side_effect=fault))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(["evaluate", QUADRATIC, "default", "--out", str(tmp_path)])


DIES = """
import os, signal, sys, dacrl_env.comparison.work as work
def dies(*about, progress):
    os.kill(os.getpid(), signal.SIGKILL)
work.evaluate_unit = dies
dies.__module__ = "__main__"
from dacrl_command import program
program()
"""


@pytest.mark.slow
def test_workers_that_die_are_one_line_each(tmp_path):
    out = tmp_path / "out"
    arguments = ["compare", QUADRATIC, "--policies", "default", "random", "--seeds"]
    arguments += [
        "2",
        "--num-threads",
        "2",
        "--executor",
        "processes",
        "--out",
        str(out),
    ]
    command = Command(arguments, tmp_path, [sys.executable, "-c", DIES])
    assert command.process.wait(100) == 2
    lines = command.lines()
    warned = [line for line in lines if "is begun again by another one" in line]
    assert len(warned) >= 2
    assert all(
        line.startswith("dacrl: a worker died with exit code -9") for line in warned
    )
    assert lines[-1].startswith("dacrl: 3 workers died of evaluate")
    assert set(lines) == {*warned, lines[-1]}
