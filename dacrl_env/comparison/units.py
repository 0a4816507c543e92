"""Units of work: found in the store, or run here or in worker processes and kept.

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
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

import pandas as pd
from tqdm import tqdm

from dacrl_env.core import child, processes
from dacrl_env.core.locks import Busy, about, unit_lock
from dacrl_env.core.processes import ATTEMPTS, Worker, WorkerDiedError
from dacrl_env.core.store import Store

Job = tuple[Callable[..., pd.DataFrame], tuple[Any, ...]]
Key = dict[str, Any] | None  # None: the unit is not kept

LOOK_SECONDS = 0.5  # between looks at units that others are running
_REPORT_SECONDS = 0.1  # between reports of a worker's steps
_WAIT_SECONDS = 0.2  # for workers, before other things are looked at


def run_units(
    store: Store | None,
    keys: Sequence[Key],
    jobs: Sequence[Job],
    sizes: Sequence[int],
    workers: int,
    bar: Any,
) -> list[pd.DataFrame]:
    """Frames of all units; those in the store are read, the others run and kept.

    Args:
        store: None: nothing is kept.
        keys: of the units; None: this one is not kept.
        jobs: that make them, called with ``progress``.
        sizes: inner environment steps of each, for the progress bar.
        workers: processes.
        bar: the progress bar.

    Raises:
        ValueError: a job cannot be passed to another process.
        Busy: a job needs what this very process holds elsewhere.
        WorkerDiedError: a unit was the end of several workers.
        Exception: whatever a job raises; units that are finished are kept.
    """
    units = [_Unit(*parts) for parts in zip(keys, jobs, sizes, strict=True)]
    queue = _Queue(units, bar)
    for number, unit in enumerate(units):
        if store is not None and unit.key is not None and unit.key in store:
            queue.read(number, store)
        else:
            queue.todo.append(number)
    if workers == 1 or len(queue.todo) < 2:
        _run_here(queue, store)
    else:
        _run_in_workers(queue, store, min(workers, len(queue.todo)))
    return [queue.frames[number] for number in range(len(units))]


@dataclass
class _Unit:
    key: Key
    job: Job
    size: int
    shown: int = 0  # steps of it that the bar has
    attempts: int = 0  # workers that died of it
    announced: bool = False  # that somebody else is running it


@dataclass
class _Queue:
    """What is to be done, what others are doing, and what is done."""

    units: list[_Unit]
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


def _perform(
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


# -- in this process ------------------------------------------------------------------


def _run_here(queue: _Queue, store: Store | None) -> None:
    while queue.todo or queue.busy:
        if not queue.todo:
            queue.announce()
            time.sleep(LOOK_SECONDS)
            queue.try_again()
            continue
        number = queue.todo.popleft()
        unit = queue.units[number]

        def progress(steps: int, number: int = number) -> None:
            queue.progress(number, steps)

        result = _perform(store, unit.key, unit.job, progress)
        if isinstance(result, Busy):
            queue.is_busy(number, result)
        else:
            queue.frames[number] = result


# -- in workers -----------------------------------------------------------------------


@dataclass
class _Hand:
    """A worker and what it is doing."""

    worker: Worker
    ready: bool = False  # it has imported what it needs
    number: int | None = None  # of the unit that it has


def _run_in_workers(queue: _Queue, store: Store | None, workers: int) -> None:
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
                    _hand_out(queue, store, hand)
            if not open_units:
                queue.announce()
            for hand in _speaking(hands):
                try:
                    answer = hand.worker.pipe.recv()
                except (EOFError, OSError):
                    hands.remove(hand)
                    died_early = 0 if hand.ready else died_early + 1
                    _has_died(queue, hand, died_early)
                else:
                    _take(queue, store, hand, *answer)
    finally:
        processes.end(hand.worker for hand in hands)


def _speaking(hands: list[_Hand]) -> list[_Hand]:
    """Workers that have something to say, or have died; waits for a while."""
    by_pipe = {hand.worker.pipe: hand for hand in hands}
    if not by_pipe:
        time.sleep(_WAIT_SECONDS)
    ready = connection.wait(list(by_pipe), _WAIT_SECONDS)
    return [by_pipe[pipe] for pipe in ready]  # type: ignore[index]


def _hand_out(queue: _Queue, store: Store | None, hand: _Hand) -> None:
    number = queue.todo.popleft()
    unit = queue.units[number]
    what = "the work" if unit.key is None else about(unit.key)
    directory = None if store is None else store.directory
    hand.number = number
    data = processes.pack((directory, unit.key, unit.job), what)
    with suppress(ConnectionError):  # it has died, which the pipe's end tells
        hand.worker.pipe.send_bytes(data)


def _take(
    queue: _Queue, store: Store | None, hand: _Hand, kind: str, content: Any
) -> None:
    """Do what a worker's answer asks for."""
    if kind == "ready":
        hand.ready = True
        return
    number = hand.number
    assert number is not None
    if kind == "steps":
        queue.progress(number, content)
        return
    hand.number = None
    if kind == "failed":
        raise processes.unpack_error(content)
    if kind == "busy":
        if content.owner is not None and content.owner.is_here:
            raise content  # it would wait for this process
        queue.is_busy(number, content)
    elif content is not None:
        queue.frames[number] = content
    else:
        assert store is not None
        queue.read(number, store)


def _has_died(queue: _Queue, hand: _Hand, early: int) -> None:
    """Have its unit done again.

    Raises:
        WorkerDiedError: for the last time.
    """
    how = hand.worker.join()
    processes.end([hand.worker])
    time.sleep(_WAIT_SECONDS)  # what ended it may be meant for this process, too
    number = hand.number
    if number is None:
        if early >= ATTEMPTS:
            raise WorkerDiedError(
                f"{early} workers died one after the other before they could begin, "
                f"the last with {how}; finished work is kept"
            )
        return
    unit = queue.units[number]
    unit.attempts += 1
    queue.progress(number, -unit.shown)
    what = "a unit of work" if unit.key is None else about(unit.key)
    if unit.attempts >= ATTEMPTS:
        raise WorkerDiedError(
            f"{unit.attempts} workers died of {what}, the last with {how}; finished "
            "work is kept"
        )
    warnings.warn(
        f"a worker died with {how}; {what} is begun again by another one",
        RuntimeWarning,
        stacklevel=2,
    )
    queue.todo.appendleft(number)


# -- in a worker ----------------------------------------------------------------------


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
    """Do units of work until the parent closes the pipe."""
    pipe.send(("ready", None))
    while True:
        try:
            pipe.send(_answer(pipe.recv_bytes(), _Steps(pipe)))
        except (EOFError, ConnectionError):  # the parent is gone
            return


def _answer(data: bytes, steps: _Steps) -> tuple[str, Any]:
    try:
        directory, key, job = processes.unpack(data)
        store = None if directory is None else Store(directory)
        result = _perform(store, key, job, steps)
        steps.tell()
    except BaseException as failure:  # whatever users' code raises, a SystemExit too
        if child.leaving():
            raise
        return "failed", processes.pack_error(failure)
    if isinstance(result, Busy):
        return "busy", result
    return "done", result if store is None or key is None else None
