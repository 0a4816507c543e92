"""Who does units of work: this process, worker processes, or somebody else's executor.

Units are not run in threads side by side: methods and users' code draw from the
generators of the process, and change its settings. Threads train the members of a unit.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Protocol

from dacrl_env.comparison.units import (
    LOOK_SECONDS,
    Queue,
    Runner,
    answer,
    is_open,
    lost,
    packed,
    perform,
    take,
)
from dacrl_env.core import checks, processes
from dacrl_env.core.checks import meant
from dacrl_env.core.locks import Busy
from dacrl_env.core.processes import ATTEMPTS, EXECUTORS, Worker, WorkerDiedError
from dacrl_env.core.specs import read_spec
from dacrl_env.core.store import Store
from dacrl_env.learners.threads import default_threads, granted
from dacrl_env.tasks import Task
from dacrl_env.tasks.backends import backend_of
from dacrl_env.tasks.registration import load

_REPORT_SECONDS = 0.1  # between reports of a worker's steps
_WAIT_SECONDS = 0.2  # for workers, before other things are looked at
_LONGEST = 300  # characters of what is said of a lost unit
# imported when they are asked for
CLUSTERS = {
    "ray": "dacrl_env.integrations.ray_executor:RayExecutor",
    "submitit": "dacrl_env.integrations.submitit_executor:SubmititExecutor",
}


class Future(Protocol):
    """What `Executor.submit` returns; as those of :mod:`concurrent.futures`."""

    def done(self) -> bool:
        """Whether there is a result or an error."""
        ...

    def result(self) -> Any:
        """What the function returned; raises what it raised, or that it was lost."""
        ...

    def cancel(self) -> bool:
        """Leave it, if it has not begun."""
        ...


class Executor(Protocol):
    """As those of :mod:`concurrent.futures`; dask, Ray, submitit and loky have some."""

    def submit(self, function: Any, /, *arguments: Any) -> Future:
        """Call a function somewhere, some time."""
        ...


def all_compiled(task: Task, options: Mapping[str, Any]) -> bool:
    """Whether no step of the inner run is Python's."""
    ours = options.get("implementation", "compiled") == "compiled"
    return ours and backend_of(task) in ("batched", "none")


def is_elsewhere(executor: str | Executor | None) -> bool:
    """Whether units are done by somebody else, who may take those of many tasks."""
    return executor is not None and executor not in ("threads", "processes")


def runner(
    executor: str | Executor | None, num_threads: int | None, compiled: bool
) -> Runner:
    """Who does the units.

    Args:
        executor: "threads", "processes", or an executor; "ray" and "submitit" may have
            arguments, as "ray,cores=2". None: threads where all of the inner run is
            compiled, processes elsewhere.
        num_threads: cores to use; None: those that this process may use.
        compiled: whether all of the inner run is.

    Raises:
        ValueError: neither a name nor an executor, or no number of cores.
        ImportError: an executor's extra is not installed.
    """
    if num_threads is None:
        num_threads = default_threads()
    num_threads = checks.whole("num_threads", num_threads)
    if executor is None:
        executor = "threads" if compiled else "processes"
    if executor == "threads" or (executor == "processes" and num_threads == 1):
        return Threads(num_threads)
    if executor == "processes":
        return Processes(num_threads)
    if isinstance(executor, str):
        name, arguments = read_spec(executor, "executor")
        if name in CLUSTERS:
            return Elsewhere(_named(executor, name, arguments))
        if name in EXECUTORS:
            raise ValueError(f"executor {name!r} takes no arguments, got {executor!r}")
    if isinstance(executor, type):
        raise ValueError(f"{executor.__name__} is a class; give an executor of it")
    if isinstance(executor, str) or not callable(getattr(executor, "submit", None)):
        near = meant(executor, EXECUTORS) if isinstance(executor, str) else ""
        raise ValueError(
            f"unknown executor {executor!r}{near}; valid: {', '.join(EXECUTORS)}, or "
            "an object with submit(function, *arguments), as those of "
            "concurrent.futures"
        )
    return Elsewhere(executor)


def _named(spec: str, name: str, arguments: dict[str, Any]) -> Executor:
    """An executor of a cluster.

    Raises:
        ValueError: arguments that it does not take.
        ImportError: its extra is not installed.
    """
    factory = load(CLUSTERS[name])
    taken = inspect.signature(factory).parameters
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        wrong = [key for key in arguments if key not in taken]
        near = meant(wrong[0], taken) if wrong else ""
        raise ValueError(
            f"executor {spec!r}: {error}{near}; arguments: {', '.join(taken)}"
        ) from None
    arguments = checks.whole_numbers(factory, arguments)
    checks.check_types(f"executor {spec!r}", factory, arguments)
    made: Executor = factory(**arguments)
    return made


# -- in this process ------------------------------------------------------------------


@dataclass(frozen=True)
class Threads:
    """One unit after the other in this process, its members in threads."""

    num_threads: int
    travels = False
    at_once = 1

    def run(self, queue: Queue, store: Store | None) -> None:
        """Empty a queue."""
        with granted(self.num_threads):
            while queue.todo or queue.busy:
                if queue.todo:
                    self._do(queue, store, queue.todo.popleft())
                    continue
                queue.announce()
                time.sleep(LOOK_SECONDS)
                queue.try_again()

    def _do(self, queue: Queue, store: Store | None, number: int) -> None:
        def progress(steps: int) -> None:
            queue.progress(number, steps)

        unit = queue.units[number]
        result = perform(store, unit.key, unit.job, progress)
        if isinstance(result, Busy):
            queue.is_busy(number, result)
        else:
            queue.frames[number] = result


# -- in workers -----------------------------------------------------------------------


@dataclass(frozen=True)
class Processes:
    """Units side by side, in a worker process each; cores left over are threads."""

    num_threads: int
    travels = True

    @property
    def at_once(self) -> int:
        """Units that are under way at a time."""
        return self.num_threads

    def run(self, queue: Queue, store: Store | None) -> None:
        """Empty a queue.

        Raises:
            WorkerDiedError: a unit was the end of several workers.
        """
        if len(queue.todo) < 2:
            Threads(self.num_threads).run(queue, store)
            return
        workers = min(self.num_threads, len(queue.todo))
        _run_in_workers(queue, store, workers, self.num_threads // workers)


@dataclass
class _Hand:
    """A worker and what it is doing."""

    worker: Worker
    ready: bool = False  # it has imported what it needs
    number: int | None = None  # of the unit that it has


def _run_in_workers(
    queue: Queue, store: Store | None, workers: int, threads: int
) -> None:
    hands: list[_Hand] = []
    died_early = 0  # workers in a row that died before they were ready
    try:
        while queue.todo or queue.busy or any(h.number is not None for h in hands):
            queue.try_again()
            open_units = len(queue.todo) + sum(h.number is not None for h in hands)
            while len(hands) < min(workers, open_units):
                hands.append(_Hand(processes.start(_serve)))
            for hand in hands:
                if hand.ready and hand.number is None and queue.todo:
                    _hand_out(queue, store, hand, threads)
            if not open_units:
                queue.announce()
            for hand in _speaking(hands):
                try:
                    kind, content = hand.worker.pipe.recv()
                except (EOFError, OSError):
                    hands.remove(hand)
                    died_early = 0 if hand.ready else died_early + 1
                    _has_died(queue, hand, died_early)
                else:
                    _heard(queue, store, hand, kind, content)
    finally:
        processes.end(hand.worker for hand in hands)


def _speaking(hands: list[_Hand]) -> list[_Hand]:
    """Workers that have something to say, or have died; waits for a while."""
    by_pipe = {hand.worker.pipe: hand for hand in hands}
    if not by_pipe:
        time.sleep(_WAIT_SECONDS)
    ready = connection.wait(list(by_pipe), _WAIT_SECONDS)
    return [by_pipe[pipe] for pipe in ready]  # type: ignore[index]


def _hand_out(queue: Queue, store: Store | None, hand: _Hand, threads: int) -> None:
    hand.number = queue.todo.popleft()
    data = packed(store, queue.units[hand.number], threads)
    with suppress(ConnectionError):  # it has died, which the pipe's end tells
        hand.worker.pipe.send_bytes(data)


def _heard(
    queue: Queue, store: Store | None, hand: _Hand, kind: str, content: Any
) -> None:
    """Do what a worker says."""
    if kind == "ready":
        hand.ready = True
        return
    number = hand.number
    assert number is not None
    if kind == "steps":
        queue.progress(number, content)
        return
    hand.number = None
    take(queue, store, number, kind, content)


def _has_died(queue: Queue, hand: _Hand, early: int) -> None:
    """Have its unit done again.

    Raises:
        WorkerDiedError: for the last time.
    """
    how = hand.worker.join()
    processes.end([hand.worker])
    time.sleep(_WAIT_SECONDS)  # what ended it may be meant for this process, too
    if hand.number is not None:
        lost(queue, hand.number, how)
    elif early >= ATTEMPTS:
        raise WorkerDiedError(
            f"{early} workers died one after the other before they could begin, "
            f"the last with {how}; finished work is kept"
        )


class _Steps:
    """Tells the parent how many steps were done, not too often."""

    def __init__(self, pipe: connection.Connection) -> None:
        self.pipe, self.steps, self.told = pipe, 0, time.monotonic()

    def __call__(self, steps: int) -> None:
        self.steps += steps
        if time.monotonic() - self.told >= _REPORT_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Whatever has not been told."""
        self.pipe.send(("steps", self.steps))
        self.steps, self.told = 0, time.monotonic()


def _serve(pipe: connection.Connection) -> None:
    """Do units of work until the parent closes the pipe; runs in a worker."""
    pipe.send(("ready", None))
    while True:
        try:
            data, steps = pipe.recv_bytes(), _Steps(pipe)
            result = answer(data, steps)
            steps.tell()
            pipe.send(result)
        except (EOFError, ConnectionError):  # the parent is gone
            return


# -- elsewhere ------------------------------------------------------------------------


@dataclass(frozen=True)
class Elsewhere:
    """Units are what an executor is given; the store is the meeting point.

    Where a store is used, whoever does a unit has to see its directory. Interrupted,
    units that have not begun are taken back; others go on, and are kept.

    An executor may have more than `Executor` says: ``opened(directory)``, a context in
    which it is used, with the directory of the store or None; ``cores``, that a unit
    has; ``most``, the number of units that it takes at a time.
    """

    executor: Executor
    travels = True
    at_once = 1  # or more, which only the executor knows

    def run(self, queue: Queue, store: Store | None) -> None:
        """Empty a queue.

        Raises:
            WorkerDiedError: a unit was lost several times.
            ConnectionError: nobody is there to do units.
        """
        given: dict[int, Future] = {}  # by number of the unit
        if not queue.todo:
            return
        opened = getattr(self.executor, "opened", None)
        directory = None if store is None else store.directory
        with nullcontext() if opened is None else opened(directory):
            try:
                while queue.todo or queue.busy or given:
                    queue.try_again()
                    self._give(queue, store, given)
                    done = [number for number in given if given[number].done()]
                    if not done:
                        if not given:
                            queue.announce()
                        time.sleep(_WAIT_SECONDS)
                    for number in done:
                        self._finish(queue, store, number, given.pop(number))
            finally:
                for future in given.values():
                    future.cancel()

    def _give(
        self, queue: Queue, store: Store | None, given: dict[int, Future]
    ) -> None:
        """Give away what is to be done, as long as more is taken."""
        most = getattr(self.executor, "most", None)
        cores = getattr(self.executor, "cores", 1)
        while queue.todo and (most is None or len(given) < most):
            number = queue.todo.popleft()
            if is_open(queue, store, number):
                data = packed(store, queue.units[number], cores)
                given[number] = self._submitted(data)

    def _submitted(self, data: bytes) -> Future:
        try:
            return self.executor.submit(_alone, data, _places())
        except Exception as error:
            raise WorkerDiedError(
                f"the executor takes no more work ({_said(error)}); finished work is "
                "kept"
            ) from error

    def _finish(
        self, queue: Queue, store: Store | None, number: int, future: Future
    ) -> None:
        try:
            kind, content = future.result()
        except Exception as error:  # a node or a process is gone
            lost(queue, number, _said(error))
        else:
            take(queue, store, number, kind, content)


def _said(error: Exception) -> str:
    """An error on one line: of clusters they are pages."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f"{type(error).__name__}: {text}"


def _places() -> list[str]:
    """Where modules are looked for here, as other processes can find it."""
    return [os.path.abspath(place) for place in sys.path]


def _alone(data: bytes, places: Sequence[str]) -> tuple[str, Any]:
    """Do a unit, with modules of users' that lie beside their programs."""
    sys.path += [p for p in places if p not in sys.path and os.path.exists(p)]
    return answer(data, _ignore)


def _ignore(steps: int) -> None:
    """Nobody is told how far a unit is."""
