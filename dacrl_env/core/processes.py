"""Worker processes: started, ended, and never alive without their parent.

A worker is a fresh interpreter that runs `child.py`, whatever the program of its parent
is: that is not imported again, so that scripts and notebooks need no precautions. What
a worker is to do goes to it by cloudpickle (`pack`), which takes classes of notebooks,
lambdas and whatever else no module has.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle
import gymnasium as gym

from dacrl_env.core import child

# of units of work, by name
EXECUTORS = ("threads", "processes", "ray", "submitit")
ATTEMPTS = 3  # at one piece of work, before workers that die of it are given up
# what ends a process, and can be answered
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WorkerDiedError(RuntimeError):
    """A worker died again and again."""


@dataclass(eq=False)
class Worker:
    """A worker process, seen from its parent."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    owner: int  # the process that started it

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def join(self) -> str:
        """Wait until it has ended, or end it; how it ended, in words."""
        try:
            code = self.process.wait(child.GRACE)
        except subprocess.TimeoutExpired:  # it has closed its pipe alone
            self.kill()
            code = self.process.wait()
        if code >= 0:
            return f"exit code {code}"
        memory = "; is there too little memory?" if code == -signal.SIGKILL else ""
        with suppress(ValueError):
            return f"exit code {code} ({signal.Signals(-code).name}{memory})"
        return f"exit code {code}"


_alive: dict[int, Worker] = {}  # by process id; for those who have to end at once


def start(
    function: Callable[..., None], *arguments: Any, files: Sequence[int] = ()
) -> Worker:
    """Start a worker that calls ``function(pipe, *arguments)`` and then ends.

    Args:
        function: of a module.
        arguments: plain values; others as `pack` makes them.
        files: descriptors that it inherits, under the same numbers.

    Raises:
        NotImplementedError: on Windows.
    """
    if os.name != "posix":
        raise NotImplementedError(
            "worker processes need Linux, macOS or another POSIX system; take 1 worker"
        )
    here, there = multiprocessing.Pipe()
    command = [
        sys.executable,
        *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
        "-P",
        child.__file__,
        str(there.fileno()),
        str(os.getpid()),
    ]
    with held(), _inherited_by_children():
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(there.fileno(), *files)
        )
        worker = _alive[process.pid] = Worker(process, here, os.getpid())
    there.close()  # so that the pipe ends when the worker does
    called = function.__module__, function.__qualname__
    with suppress(ConnectionError):  # it has died, which the pipe's end tells
        here.send((sys.path, sys.argv, called, arguments))
    return worker


def end(workers: Iterable[Worker], grace: float = child.GRACE) -> None:
    """End workers, which may first close what they hold.

    Those of another process, of which this one is a fork, are left alone.

    Args:
        workers: running or not.
        grace: seconds that they have.
    """
    mine = [worker for worker in workers if worker.owner == os.getpid()]
    try:
        for worker in mine:
            worker.process.terminate()
        deadline = time.monotonic() + grace
        for worker in mine:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also when interrupted meanwhile
        for worker in mine:
            worker.process.kill()
        for worker in mine:
            worker.process.wait()
            worker.pipe.close()
            _alive.pop(worker.pid, None)


def kill_all() -> None:
    """Kill all workers of this process, from any thread."""
    for worker in list(_alive.values()):
        if worker.owner == os.getpid():
            worker.process.kill()


def _leave_to_the_parent() -> None:
    """A fork has no workers: it can neither wait for its parent's nor end them."""
    for worker in _alive.values():
        worker.process.returncode = 0  # else Python complains that they still run
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextmanager
def _inherited_by_children() -> Iterator[None]:
    """A process that is started meanwhile gets no signal before it is ready for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def held() -> Iterator[None]:
    """What is done here is done whole: signals are answered after it.

    Only the main thread is ever interrupted, so that elsewhere there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {}
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            before[number] = signal.signal(number, catch)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


# -- what travels to them -----------------------------------------------------------


def pack(value: Any, what: str) -> bytes:
    """A value for another process, by cloudpickle.

    Args:
        value: anything; functions and classes that no module has travel as they are.
        what: names it in an error.

    Raises:
        ValueError: it cannot be passed on.
    """
    try:
        return cloudpickle.dumps((_own_registrations(), value))
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as failure:
        raise ValueError(
            f"{what} cannot be passed to another process ({failure}); take "
            "executor='threads', or keep what cannot be passed out of it"
        ) from failure


def unpack(data: bytes) -> Any:
    """The value that was packed by another process."""
    registrations, value = pickle.loads(data)
    for name, spec in registrations.items():
        gym.registry.setdefault(name, pickle.loads(spec))
    return value


def _own_registrations() -> dict[str, bytes]:
    """Environments that the program itself registered, with what it wrote there.

    Those of modules are registered again where the modules are imported.
    """
    main = sys.modules["__main__"]
    found = {}
    for name, spec in gym.registry.items():
        entry = spec.entry_point
        if isinstance(entry, str) and entry.startswith("__main__:"):
            entry = getattr(main, entry.partition(":")[2], None)
        if callable(entry) and getattr(entry, "__module__", None) == "__main__":
            with suppress(pickle.PicklingError, AttributeError, TypeError, ValueError):
                found[name] = cloudpickle.dumps(replace(spec, entry_point=entry))
    return found


class RemoteTraceback(Exception):  # noqa: N818 - the cause of an error, as text
    """Where a worker was when it failed."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def pack_error(error: BaseException) -> bytes:
    """An error for another process: with its notes, attributes, and where it arose."""
    text = "".join(traceback.format_exception(error))
    for exception in (error, *_substitutes(error)):
        try:
            data = cloudpickle.dumps((exception, text))
            pickle.loads(data)  # there are some that can only be written
        except Exception:
            continue
        return data
    raise AssertionError("text can be passed on")


def unpack_error(data: bytes) -> BaseException:
    """The error, to be raised; its cause is the traceback of the other process."""
    error: BaseException
    error, text = pickle.loads(data)
    error.__cause__ = RemoteTraceback(text)
    return error


def _substitutes(error: BaseException) -> Iterator[BaseException]:
    """What says the same where an error itself cannot be passed on."""
    text = f"{type(error).__name__} in a worker: {error}"
    for attributes in (vars(error), {}):
        substitute = RuntimeError(text)
        for name, value in attributes.items():
            with suppress(Exception):
                pickle.loads(cloudpickle.dumps(value))
                setattr(substitute, name, value)
        yield substitute


# -- how many ------------------------------------------------------------------------


def usable_cores(root: Path = Path("/")) -> int:
    """Processors that this process may use: its affinity and its container's share.

    Args:
        root: where ``proc`` and ``sys`` are, for tests.

    Returns:
        At least 1; a share of a container's quota is rounded up. 1 on Windows, where
        there are no workers.
    """
    if os.name != "posix":
        return 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Processors that control groups allow, those of the parents included."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                yield from _quotas_of(root / "sys/fs/cgroup", path, _version_2)
            elif "cpu" in controllers.split(","):
                for mount in ("cpu", "cpu,cpuacct"):
                    place = root / "sys/fs/cgroup" / mount
                    yield from _quotas_of(place, path, _version_1)


def _quotas_of(
    mount: Path, path: str, quota: Callable[[Path], float | None]
) -> Iterator[float]:
    # within a container its own group may be the root of what is mounted
    below = Path(path.lstrip("/"))
    for folder in (mount / below, *(mount / part for part in below.parents), mount):
        with suppress(OSError, ValueError):
            allowed = quota(folder)
            if allowed is not None:
                yield allowed


def _version_2(folder: Path) -> float | None:
    most, period = (folder / "cpu.max").read_text().split()
    return None if most == "max" else int(most) / int(period)


def _version_1(folder: Path) -> float | None:
    most = int((folder / "cpu.cfs_quota_us").read_text())
    return most / int((folder / "cpu.cfs_period_us").read_text()) if most > 0 else None
