"""Units of work: found in the store, or run by an executor and kept.

Several programs may work for one store. Whoever runs a unit holds its lock, looks into
the store once more, runs it and writes it there before giving the lock back. The others
take what is free meanwhile; when nothing else is left they wait, and read the result.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd
from tqdm import tqdm

from dacrl_env.core import child, processes
from dacrl_env.core.locks import Busy, about, held, unit_lock
from dacrl_env.core.store import Store
from dacrl_env.learners.threads import granted

Job = tuple[Callable[..., pd.DataFrame], tuple[Any, ...]]
Key = dict[str, Any] | None  # None: the unit is not kept

LOOK_SECONDS = 0.5  # between looks at units that others are running


class Runner(Protocol):
    """Has units done; see `executors.py`."""

    @property
    def travels(self) -> bool:
        """Whether units go to other processes."""
        ...

    @property
    def at_once(self) -> int:
        """Units that are under way at a time."""
        ...

    def run(self, queue: Queue, store: Store | None) -> None:
        """Empty a queue."""
        ...


def run_units(
    store: Store | None,
    keys: Sequence[Key],
    jobs: Sequence[Job],
    sizes: Sequence[int],
    runner: Runner,
    bar: Any,
) -> list[pd.DataFrame]:
    """Frames of all units; those in the store are read, the others run and kept.

    Args:
        store: None: nothing is kept.
        keys: of the units; None: this one is not kept.
        jobs: that make them, called with ``progress``.
        sizes: inner environment steps of each, for the progress bar.
        runner: has them done.
        bar: the progress bar.

    Raises:
        ValueError: a job cannot be passed to another process.
        Busy: a job needs what this very process holds elsewhere.
        WorkerDiedError: a unit was the end of several workers.
        Exception: whatever a job raises; units that are finished are kept.
    """
    units = [Unit(*parts) for parts in zip(keys, jobs, sizes, strict=True)]
    queue = Queue(units, bar)
    for number, unit in enumerate(units):
        if store is not None and unit.key is not None and unit.key in store:
            queue.read(number, store)
        else:
            queue.todo.append(number)
    runner.run(queue, store)
    return [queue.frames[number] for number in range(len(units))]


@dataclass
class Unit:
    """Of work, and what became of it."""

    key: Key
    job: Job
    size: int
    shown: int = 0  # steps of it that the bar has
    attempts: int = 0  # workers that died of it
    announced: bool = False  # that somebody else is running it


@dataclass
class Queue:
    """What is to be done, what others are doing, and what is done."""

    units: list[Unit]
    bar: Any
    todo: deque[int] = field(default_factory=deque)
    busy: dict[int, Busy] = field(default_factory=dict)  # by number of the unit
    frames: dict[int, pd.DataFrame] = field(default_factory=dict)
    looked: float = 0.0  # when units that others run were last tried

    def progress(self, number: int, steps: int) -> None:
        """Take note of steps of a unit."""
        self.units[number].shown += steps
        self.bar.update(steps)

    def read(self, number: int, store: Store) -> None:
        """Take a unit's frame from the store."""
        unit = self.units[number]
        assert unit.key is not None
        self.frames[number] = store.read(unit.key)
        self.progress(number, unit.size - unit.shown)

    def is_busy(self, number: int, busy: Busy) -> None:
        """Somebody else is running a unit."""
        self.busy[number] = busy

    def try_again(self) -> None:
        """Let units that others were running be tried, every now and then."""
        if self.busy and time.monotonic() - self.looked >= LOOK_SECONDS:
            self.looked = time.monotonic()
            self.todo.extend(self.busy)
            self.busy.clear()

    def announce(self) -> None:
        """Say once whom this process waits for, when it has nothing else to do."""
        new = [number for number in self.busy if not self.units[number].announced]
        if not new:
            return
        for number in new:
            self.units[number].announced = True
        others = f"; and {len(new) - 1} more such units" if len(new) > 1 else ""
        line = f"dacrl: waiting, {self.busy[new[0]]}{others}"
        tqdm.write(line, file=sys.stderr)


def perform(
    store: Store | None, key: Key, job: Job, progress: Callable[[int], Any]
) -> pd.DataFrame | Busy:
    """The frame of a unit, which is in the store by then; or who is running it.

    Raises:
        Busy: the job needs what this very process holds elsewhere.
    """
    function, arguments = job
    if store is None or key is None:
        return function(*arguments, progress=progress)
    try:
        lock = unit_lock(store.directory, key)
    except Busy as busy:
        return busy
    with lock:
        if key in store:  # finished by another process meanwhile
            return store.read(key)
        try:
            frame = function(*arguments, progress=progress)
        except Busy as busy:
            if busy.owner is not None and busy.owner.is_here:
                raise
            return busy
        with processes.held():  # it is finished, so that it will be kept
            store.write(key, frame)
    return frame


# -- elsewhere ------------------------------------------------------------------------


def packed(store: Store | None, unit: Unit, num_threads: int) -> bytes:
    """A unit for another process.

    Raises:
        ValueError: it cannot be passed on.
    """
    what = "the work" if unit.key is None else about(unit.key)
    directory = None if store is None else store.directory
    return processes.pack((directory, unit.key, unit.job, num_threads), what)


def is_open(queue: Queue, store: Store | None, number: int) -> bool:
    """Whether a unit is to be given away; else it is read, or known to be busy.

    Where a job waits in a queue, one that finds its unit busy has waited for nothing.
    """
    key = queue.units[number].key
    if store is None or key is None:
        return True
    if key in store:  # finished by another program meanwhile
        queue.read(number, store)
        return False
    busy = held(store.directory, key)
    if busy is not None:
        queue.is_busy(number, busy)
    return busy is None


def answer(data: bytes, progress: Callable[[int], Any]) -> tuple[str, Any]:
    """Do a packed unit: "done", "busy" or "failed", and what belongs to it."""
    try:
        directory, key, job, num_threads = processes.unpack(data)
        store = None if directory is None else Store(directory)
        with granted(num_threads):
            result = perform(store, key, job, progress)
    except BaseException as failure:  # whatever users' code raises, a SystemExit too
        if child.leaving():
            raise
        return "failed", processes.pack_error(failure)
    if isinstance(result, Busy):
        return "busy", result
    return "done", result if store is None or key is None else None


def take(
    queue: Queue, store: Store | None, number: int, kind: str, content: Any
) -> None:
    """Do what an `answer` asks for.

    Raises:
        BaseException: what the unit raised.
    """
    if kind == "failed":
        raise processes.unpack_error(content)
    if kind == "busy":
        if content.owner is not None and content.owner.is_here:
            raise content  # it would wait for this process
        queue.is_busy(number, content)
    elif content is not None:
        unit = queue.units[number]
        queue.frames[number] = content
        queue.progress(number, unit.size - unit.shown)
    else:
        assert store is not None
        queue.read(number, store)


def lost(queue: Queue, number: int, how: str) -> None:
    """Have a unit done again by another worker than the one that died of it.

    Raises:
        WorkerDiedError: too many have died of it.
    """
    unit = queue.units[number]
    unit.attempts += 1
    queue.progress(number, -unit.shown)
    what = "a unit of work" if unit.key is None else about(unit.key)
    if unit.attempts >= processes.ATTEMPTS:
        raise processes.WorkerDiedError(
            f"{unit.attempts} workers died of {what}, the last with {how}; finished "
            "work is kept"
        )
    warnings.warn(
        f"a worker died with {how}; {what} is begun again by another one",
        RuntimeWarning,
        stacklevel=2,
    )
    queue.todo.appendleft(number)
