"""Units of work on a Ray cluster; the extra ``ray``.

Each unit is one task of Ray's, which Ray itself never tries again: a unit that is lost
is begun again by `comparison.executors`, as those of all executors are.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dacrl_env.core import checks
from dacrl_env.core.installed import require
from dacrl_env.core.processes import usable_cores

# After a minute without its head Ray ends the process that uses it, without a word.
PATIENCE = 20.0  # seconds that a head may be silent
_LOOK_SECONDS = 2.0  # between looks at the head
_CONNECT_SECONDS = 5.0


class RayExecutor:
    """Gives units of work to Ray.

    Where this process has called ``ray.init``, that is used. Elsewhere it is called
    when the first unit is given away; Ray stays there until the process ends.

    Args:
        address: of the head, ``host:port`` or ``ray://host:port``. None: as Ray finds
            one, that is ``RAY_ADDRESS``, or a cluster that ``ray start`` has begun on
            this machine, or else a Ray of its own. "local": a Ray of its own.
        workers: processors of a Ray of its own; None: those that this process may use.
        cores: processors of a unit, which trains as many members at a time.
        memory_gb: that Ray sets aside for a unit; None: nothing is said of it.

    Raises:
        ImportError: Ray is not installed.
        ValueError: a number that is none.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cores: int = 1,
        memory_gb: float | None = None,
    ) -> None:
        require("ray", "executor 'ray' needs Ray")
        self.address = address
        self.workers = None if workers is None else checks.whole("workers", workers)
        self.cores = checks.whole("cores", cores)
        if memory_gb is not None and not memory_gb > 0:
            raise ValueError(f"memory_gb must be above 0, got {memory_gb!r}")
        self.memory_gb = memory_gb
        self._head: _Head | None = None
        self._remote: dict[Callable[..., Any], Any] = {}

    @contextmanager
    def opened(self, directory: Path | None) -> Iterator[None]:
        """Connected to Ray.

        Args:
            directory: of the store, which all nodes have to see.

        Raises:
            ConnectionError: there is no head where one should be.
            ValueError: no node has so many cores, and none will.
        """
        import ray

        began = not ray.is_initialized()
        if began:
            self._connect()
        self._head = _Head(_address_in_use())
        self._check_cores(own=began and _is_own(self.address))
        try:
            yield
        finally:
            self._remote.clear()  # functions belong to a connection
            self._head = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> RayFuture:
        """Call a function on some node."""
        import ray

        if self._head is None:
            raise RuntimeError("it is used within opened()")
        if function not in self._remote:
            options: dict[str, Any] = {"num_cpus": self.cores, "max_retries": 0}
            if self.memory_gb is not None:
                options["memory"] = int(self.memory_gb * 2**30)
            self._remote[function] = ray.remote(**options)(function)
        return RayFuture(self._remote[function].remote(*arguments), self._head)

    def _connect(self) -> None:
        import ray

        address = self.address or os.environ.get("RAY_ADDRESS")
        if address is not None and not _is_own(address) and address != "auto":
            _check_head(address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if _is_own(address):
            cores = usable_cores() if self.workers is None else self.workers
            options |= {"num_cpus": cores, "include_dashboard": False}
        try:
            with _own_signals(), _no_statistics():
                ray.init(address=address, **options)
        except Exception as error:  # of whatever kind Ray has for it
            text = " ".join(str(error).split())
            place = "here" if _is_own(address) else f"at {address}"
            raise ConnectionError(
                f"there is no Ray {place} ({type(error).__name__}: {text})"
            ) from error

    def _check_cores(self, own: bool) -> None:
        """Say that a unit waits for a node that may never come."""
        import ray

        most = max((n["Resources"].get("CPU", 0) for n in ray.nodes()), default=0)
        if self.cores <= most:
            return
        said = f"a unit takes {self.cores} cores, and no node of Ray has above {most:g}"
        if own:
            raise ValueError(said)
        warnings.warn(f"{said}; units wait for one", RuntimeWarning, stacklevel=6)


class RayFuture:
    """A unit that Ray has."""

    def __init__(self, reference: Any, head: _Head) -> None:
        self._reference, self._head = reference, head

    def done(self) -> bool:
        """Whether there is a result or an error.

        Raises:
            ConnectionError: the head is gone.
        """
        import ray

        self._head.check()
        ready, _ = ray.wait([self._reference], timeout=0, fetch_local=False)
        return bool(ready)

    def result(self) -> Any:
        """What the function returned; raises that it was lost."""
        import ray

        return ray.get(self._reference)

    def cancel(self) -> bool:
        """Leave it. Ray ends what runs, too, when this process ends."""
        import ray

        if not self._head.is_silent():  # else it would wait for an answer
            ray.cancel(self._reference)
        return True


class _Head:
    """Of a cluster, looked at every now and then."""

    def __init__(self, address: str | None) -> None:
        self._address = address  # None: it cannot be looked at
        self._looked = self._answered = time.monotonic()

    def check(self) -> None:
        """Raise a ConnectionError when it has been silent for too long."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if self._address is None or _answers(self._address):
            self._answered = time.monotonic()
        if self.is_silent() and time.monotonic() - self._answered >= PATIENCE:
            raise ConnectionError(
                f"the Ray head at {self._address} is gone; finished work is kept"
            )

    def is_silent(self) -> bool:
        """Whether it did not answer when it was last looked at."""
        return self._answered < self._looked


def _is_own(address: str | None) -> bool:
    """Whether Ray is started here, where none is found."""
    return address is None or address == "local"


def _address_in_use() -> str | None:
    """Of the head; None: a client that does not know it."""
    import ray

    try:
        return str(ray.get_runtime_context().gcs_address)
    except Exception:  # a client's contexts have less
        return None


def _check_head(address: str) -> None:
    """Raise an error in five seconds, where Ray takes a minute.

    Raises:
        ValueError: no address.
        ConnectionError: nobody answers there.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"an address of Ray is host:port or ray://host:port, got {address!r}"
        )
    if not _answers(address):
        raise ConnectionError(
            f"no Ray head answers at {address}; is it running (ray start --head), and "
            "can it be reached from here?"
        )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray answers signals by its own handlers; they are put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _no_statistics() -> Iterator[None]:
    """A Ray that is begun here tells nobody, unless the user says so."""
    added: Mapping[str, str] = {
        name: value
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0"}.items()
        if name not in os.environ
    }
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
