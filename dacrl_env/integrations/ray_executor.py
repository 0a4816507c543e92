"""Units of work on a Ray cluster; the extra ``ray``.

Each unit is one task of Ray's, which Ray itself never tries again: a unit that is lost
is begun again by `comparison.executors`, as those of all executors are.

Ray is used by a process of its own, the driver. Where a head is gone Ray waits in
silence for a minute and then ends the process that uses it; and it answers signals, and
writes to standard output. None of that reaches the process that wants units done.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dacrl_env.core import checks, processes
from dacrl_env.core.installed import require
from dacrl_env.core.processes import Worker, usable_cores

PATIENCE = 20.0  # seconds that a head may be silent
_LOOK_SECONDS = 2.0  # between looks at the head
_CONNECT_SECONDS = 5.0
_POLL_SECONDS = 0.1  # between a driver's looks at its units
_END_SECONDS = 10.0  # for a driver to leave Ray, or to end its own


class RayExecutor:
    """Gives units of work to Ray, as long as it is `opened`.

    Args:
        address: of the head, ``host:port`` or ``ray://host:port``. None: the Ray that
            this process has called ``ray.init`` for, or else as Ray finds one, that is
            ``RAY_ADDRESS``, or a cluster that ``ray start`` has begun on this machine,
            or a Ray of its own. "local": a Ray of its own.
        workers: processors of a Ray of its own; None: those that this process may use.
        cores: processors of a unit, which trains as many members at a time.
        memory_gb: that Ray sets aside for a unit; None: nothing is said of it.

    Raises:
        ImportError: Ray is not installed.
        ValueError: an address or a number that is none.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cores: int = 1,
        memory_gb: float | None = None,
    ) -> None:
        require("ray", "executor 'ray' needs Ray")
        if address not in (None, "local", "auto"):
            _place(str(address))
        self.address = address
        self.workers = None if workers is None else checks.whole("workers", workers)
        self.cores = checks.whole("cores", cores)
        if memory_gb is not None and not memory_gb > 0:
            raise ValueError(f"memory_gb must be above 0, got {memory_gb!r}")
        self.memory_gb = memory_gb
        self._driver: _Driver | None = None

    @contextmanager
    def opened(self, directory: Path | None) -> Iterator[None]:
        """Connected to Ray.

        Args:
            directory: of the store, which all nodes have to see.

        Raises:
            ConnectionError: there is no head where one should be.
            ValueError: no node has so many cores, and none will.
        """
        address = self._address()
        if address is not None and address != "auto":
            _check_head(address)
        options: dict[str, Any] = {"num_cpus": self.cores, "max_retries": 0}
        if self.memory_gb is not None:
            options["memory"] = int(self.memory_gb * 2**30)
        cores = usable_cores() if self.workers is None else self.workers
        started = self.address if address is None else address
        driver = _Driver(processes.start(_drive, started, cores, options), started)
        try:
            driver.wait_until_ready()
            self._check_cores(driver)
            self._driver = driver
            yield
        finally:
            self._driver = None
            driver.end()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> RayFuture:
        """Call a function of a module on some node."""
        if self._driver is None:
            raise RuntimeError("it is used within opened()")
        return self._driver.submit(function, arguments)

    def _address(self) -> str | None:
        """Of the head; None: Ray finds one, or a Ray of its own."""
        ray = sys.modules.get("ray")
        if self.address is None and ray is not None and ray.is_initialized():
            return str(ray.get_runtime_context().gcs_address)
        given = self.address
        if given is None or given == "auto":
            given = os.environ.get("RAY_ADDRESS") or given
        return None if given == "local" else given

    def _check_cores(self, driver: _Driver) -> None:
        """Say that a unit waits for a node that may never come."""
        if self.cores <= driver.most_cores:
            return
        said = (
            f"a unit takes {self.cores} cores, and no node of Ray has above "
            f"{driver.most_cores:g}"
        )
        if driver.is_own:
            raise ValueError(said)
        warnings.warn(f"{said}; units wait for one", RuntimeWarning, stacklevel=6)


@dataclass
class RayFuture:
    """A unit that Ray has."""

    driver: _Driver
    number: int

    def done(self) -> bool:
        """Whether there is a result or an error.

        Raises:
            ConnectionError: the head is gone.
        """
        self.driver.look()
        return self.number in self.driver.answers

    def result(self) -> Any:
        """What the function returned; raises that it was lost."""
        while not self.done():
            time.sleep(_POLL_SECONDS)
        result, lost = self.driver.answers.pop(self.number)
        if lost is not None:
            raise RuntimeError(lost)
        return result

    def cancel(self) -> bool:
        """Nothing: Ray ends what belongs to a driver, when that ends."""
        return True


class _Driver:
    """The process that uses Ray, and what it has told."""

    def __init__(self, worker: Worker, address: str | None) -> None:
        self.answers: dict[int, tuple[Any, str | None]] = {}  # result or error
        self.most_cores, self.is_own = 0.0, False
        self._worker, self._address = worker, address
        self._head: str | None = None
        self._given = 0
        self._looked = self._answered = time.monotonic()

    def wait_until_ready(self) -> None:
        """Raise a ConnectionError if it cannot use Ray."""
        where = "here" if self._address in (None, "local") else f"at {self._address}"
        try:
            kind, *about = self._worker.pipe.recv()
        except (EOFError, OSError):
            how = self._worker.join()
            raise ConnectionError(f"there is no Ray {where} ({how})") from None
        if kind == "failed":
            raise ConnectionError(f"there is no Ray {where} ({about[0]})")
        self._head, self.most_cores, self.is_own = about
        self._looked = self._answered = time.monotonic()

    def submit(
        self, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> RayFuture:
        self._given += 1
        with suppress(ConnectionError):  # it has ended, which the pipe's end tells
            self._worker.pipe.send((self._given, function, arguments))
        return RayFuture(self, self._given)

    def look(self) -> None:
        """Take what was told.

        Raises:
            ConnectionError: the head is gone.
        """
        try:
            while self._worker.pipe.poll():
                number, result, lost = self._worker.pipe.recv()
                self.answers[number] = result, lost
        except (EOFError, OSError):
            raise self._gone(self._worker.join()) from None
        now = time.monotonic()
        if self._head is None or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if _answers(self._head):
            self._answered = now
        elif now - self._answered >= PATIENCE:
            raise self._gone(f"silent for {PATIENCE:g} seconds")

    def end(self) -> None:
        """Leave Ray; one of its own ends."""
        self._worker.pipe.close()  # which it takes for the end
        if self._answered == self._looked:  # else Ray would wait for its head
            with suppress(subprocess.TimeoutExpired):
                self._worker.process.wait(_END_SECONDS)
        processes.end([self._worker], 0.0)

    def _gone(self, how: str) -> ConnectionError:
        where = "" if self._head is None else f" at {self._head}"
        return ConnectionError(
            f"the Ray head{where} is gone ({how}); finished work is kept"
        )


# -- in the driver -------------------------------------------------------------------


def _drive(
    pipe: Connection, address: str | None, cores: int, options: Mapping[str, Any]
) -> None:
    """Do what comes through the pipe until it ends; runs in a worker."""
    os.dup2(2, 1)  # standard output is for results
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    own: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False}
    if address not in (None, "local"):
        own = {}
    try:
        try:
            ray.init(address=address, **told, **own)
        except ValueError:  # there is a cluster already, whose processors are its own
            ray.init(address=address, **told)
    except Exception as error:  # of whatever kind Ray has for it
        pipe.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"))
        return
    head = None
    with suppress(Exception):  # a client's contexts have less
        head = str(ray.get_runtime_context().gcs_address)
    most = max((n["Resources"].get("CPU", 0.0) for n in ray.nodes()), default=0.0)
    pipe.send(("ready", head, most, _is_own()))
    remote: dict[Callable[..., Any], Any] = {}
    numbers: dict[Any, int] = {}  # of units, by what Ray calls them
    with suppress(EOFError, ConnectionError):  # the parent is gone
        while True:
            if pipe.poll(_POLL_SECONDS):
                number, function, arguments = pipe.recv()
                if function not in remote:
                    remote[function] = ray.remote(**options)(function)
                numbers[remote[function].remote(*arguments)] = number
                continue
            waiting = list(numbers)
            if not waiting:
                continue
            done, _ = ray.wait(
                waiting, num_returns=len(waiting), timeout=0, fetch_local=False
            )
            for reference in done:
                result, lost = None, None
                try:
                    result = ray.get(reference)
                except Exception as error:  # a node or a process is gone
                    lost = f"{type(error).__name__}: {error}"
                pipe.send((numbers.pop(reference), result, lost))


def _is_own() -> bool:
    """Whether Ray was begun by this process."""
    from ray._private import worker

    node = worker._global_node
    return bool(node is not None and node.head)


# -- heads ---------------------------------------------------------------------------


def _place(address: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: it is no address.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"an address of Ray is host:port or ray://host:port, got {address!r}"
        )
    return host.strip("[]"), int(port)


def _check_head(address: str) -> None:
    """Raise a ConnectionError in seconds, where Ray takes a minute.

    Raises:
        ValueError: it is no address.
    """
    _place(address)
    if not _answers(address):
        raise ConnectionError(
            f"no Ray head answers at {address}; is it running (ray start --head), and "
            "can it be reached from here?"
        )


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_place(address), _CONNECT_SECONDS):
            return True
    except OSError:
        return False
