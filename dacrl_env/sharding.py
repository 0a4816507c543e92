"""A population in several processes, each of which trains some of the members.

The state is shared memory: a worker holds views of its members' rows and trains them in
place, while snapshot, restore, fork and everything that is shown work on all rows in
the process of the environment. Members do not depend on their company, so neither do
they on the number of workers.

Before a worker changes anything it copies its rows, of a replay those alone that a step
writes. If it dies, its members are put back to the last outer step, another worker
takes its place and does the step again.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from gymnasium import error
from numpy.typing import NDArray

from dacrl_env import child, processes
from dacrl_env import snapshot as snapshots
from dacrl_env.learners.replay import Replay
from dacrl_env.population import Floats, Ints, Outcome, Population
from dacrl_env.processes import ATTEMPTS, Worker, WorkerDiedError
from dacrl_env.settings import Settings

_LINE = 64  # bytes of a cache line, where arrays start
_SHARED_MEMORY = Path("/dev/shm")


class Shards:
    """The operations of a `Population`, done by workers.

    Args:
        population: whose state moves to shared memory.
        num_workers: processes, of one torch thread each.

    Raises:
        ValueError: more workers than members, another device than the processor, or
            options that cannot be passed to another process.
        MemoryError: the system has less shared memory than is needed.
    """

    def __init__(self, population: Population, num_workers: int) -> None:
        settings, size = population.settings, population.size
        if num_workers > size:
            raise ValueError(f"num_workers {num_workers} exceeds the {size} members")
        if settings.device != "cpu":
            raise ValueError(
                f"num_workers shares the processor's cores; device is "
                f"{settings.device!r}, which takes num_workers=1"
            )
        self.population = population
        memory = _Memory.of(population.state, settings.decision_interval)
        self._packed = processes.pack(
            (settings, memory), "what an environment with several workers was given"
        )
        _adopt(population.state, memory.state())
        population.close()  # the workers have environments of their own
        places = np.array_split(np.arange(size), num_workers)
        self._shares = [
            _Share(settings, memory, k, slice(int(p[0]), int(p[-1]) + 1))
            for k, p in enumerate(places)
        ]
        self._kept = [memory.kept(share.rows) for share in self._shares]
        self._replacing = False
        self._begun = memory.begun
        self._unfinished = False  # rows were not put back
        self._opaque = any(
            snapshots.is_opaque(leaf) for _, leaf in snapshots.leaves(population.state)
        )
        self._workers: list[Worker | None] = [None] * num_workers
        self._end = weakref.finalize(self, _stop, self._workers)
        _OWN.add(self)
        self._start_missing()
        self._replacing = True  # who is started from now on

    def __reduce__(self) -> tuple[Any, ...]:
        """What is copied or pickled: a copy has workers and shared memory of its own.

        Raises:
            SnapshotNotSupported: the inner environments cannot be copied.
        """
        open_ = self._end.alive
        if open_ and self._opaque:
            self._fetch_objects()
        return _copied, (self.population, len(self._shares), open_)

    # -- operations of a population --------------------------------------------

    def start(
        self,
        members: Ints,
        seeds: Ints,
        seed_members: Ints,
        episodes: Ints,
        instance: int | None = None,
    ) -> None:
        """See :meth:`Population.start`."""
        jobs = {}
        for number, share in enumerate(self._shares):
            rows = share.rows
            mine = (members >= rows.start) & (members < rows.stop)
            if mine.any():
                named = (members[mine] - rows.start, seeds[mine], seed_members[mine])
                jobs[number] = ("start", (*named, episodes[mine], instance))
        self._run(jobs)

    def advance(self, requested: Floats) -> Outcome:
        """See :meth:`Population.advance`."""
        outcomes = self._run_all("advance", lambda rows: (requested[rows],))
        return Outcome(
            rewards=np.concatenate([o.rewards for o in outcomes]),
            ended=np.concatenate([o.ended for o in outcomes]),
        )

    def snapshot(self, exact: bool = True) -> snapshots.Snapshot:
        """See :meth:`Population.snapshot`."""
        self._check_whole()
        if exact and self._opaque:
            self._fetch_objects()
        try:
            return self.population.snapshot(exact)
        finally:
            self.population.close()  # copies that were fetched

    def restore(self, snap: snapshots.Snapshot) -> None:
        """See :meth:`Population.restore`."""
        self.population.check(snap)
        snapshots.restore(self.population.state, snap)
        self._unfinished = False
        if not snap.header["exact"]:
            self._run_all("begin_episodes", lambda _: ())
        elif self._opaque:
            self._hand_out_objects()
            self.population.close()  # the workers have copies

    def fork(self, parents: Any, shared_streams: bool = False) -> None:
        """See :meth:`Population.fork`."""
        self._check_whole()
        if self._opaque:
            self._fetch_objects()
        self.population.fork(parents, shared_streams)
        if self._opaque:
            self._hand_out_objects()
            self.population.close()  # the workers have copies

    def close(self) -> None:
        """End the workers, which close their inner environments."""
        self._end()

    def _check_whole(self) -> None:
        """Raise a ResetNeeded if members are in the middle of a job."""
        if self._unfinished:
            raise error.ResetNeeded(
                "the last step was interrupted, and again before it was undone, so "
                "that the runs are between two decisions: restore() a snapshot, or "
                "make the environment anew"
            )

    # -- environment objects, which cannot be shared ---------------------------

    def _fetch_objects(self) -> None:
        """Copy the workers' environment objects to this process.

        Raises:
            SnapshotNotSupported: they cannot be copied.
        """
        answers = self._run_all("objects", lambda _: ())
        for answer in answers:
            if isinstance(answer, snapshots.SnapshotNotSupported):
                raise answer
        parts = [pickle.loads(answer) for answer in answers]
        for name, leaf in snapshots.leaves(self.population.state):
            if snapshots.is_opaque(leaf):
                leaf[...] = np.concatenate([part[name] for part in parts])

    def _hand_out_objects(self) -> None:
        objects = {
            name: leaf
            for name, leaf in snapshots.leaves(self.population.state)
            if snapshots.is_opaque(leaf)
        }
        self._run_all(
            "take_objects", lambda rows: ({k: v[rows] for k, v in objects.items()},)
        )

    # -- workers ----------------------------------------------------------------

    def _run_all(
        self, name: str, arguments: Callable[[slice], tuple[Any, ...]]
    ) -> list[Any]:
        jobs = {k: (name, arguments(s.rows)) for k, s in enumerate(self._shares)}
        results = self._run(jobs)
        return [results[number] for number in jobs]

    def _run(self, jobs: dict[int, tuple[str, tuple[Any, ...]]]) -> dict[int, Any]:
        """Have workers do their jobs, and return their results.

        If one of the jobs fails, or is interrupted, all members are as before, but for
        environment objects, which cannot be shared: their inner episodes begin anew.
        """
        if not self._end.alive:
            raise error.ClosedEnvironmentError(
                "the environment is closed, or was made in another process, to which "
                "its workers belong"
            )
        self._check_whole()
        self._start_missing()
        self._begun[:] = False
        attempts = dict.fromkeys(jobs, 1)
        results: dict[int, Any] = {}
        try:
            for number in jobs:
                self._send(number, jobs[number])
            while len(results) < len(jobs):
                for number in self._ready(jobs.keys() - results.keys()):
                    try:
                        data = self._worker(number).pipe.recv_bytes()
                    except (EOFError, OSError):
                        self._replace(number, attempts[number])
                        attempts[number] += 1
                        self._send(number, jobs[number])
                        continue
                    failure, result = pickle.loads(data)
                    if failure is not None:
                        raise processes.unpack_error(failure)
                    results[number] = result
        except BaseException:
            self._unfinished = True
            _stop(self._workers)
            for number in jobs:
                self._put_back(number)
            self._unfinished = False
            raise
        return results

    def _send(self, number: int, job: tuple[str, tuple[Any, ...]]) -> None:
        data = cloudpickle.dumps(job)
        with suppress(ConnectionError):  # it has died, which `_ready` finds out
            self._worker(number).pipe.send_bytes(data)

    def _ready(self, numbers: Iterable[int]) -> list[int]:
        """Workers that have something to say, or have died."""
        pipes = {self._worker(number).pipe: number for number in numbers}
        return [pipes[pipe] for pipe in connection.wait(list(pipes))]  # type: ignore[index]

    def _worker(self, number: int) -> Worker:
        worker = self._workers[number]
        assert worker is not None
        return worker

    def _replace(self, number: int, attempt: int) -> None:
        """Put another worker in the place of one that has died."""
        rows, worker = self._shares[number].rows, self._worker(number)
        what = (
            f"worker {number} with members {rows.start} to {rows.stop - 1} died with "
            f"{worker.join()}"
        )
        processes.end([worker])
        if attempt == ATTEMPTS:
            raise WorkerDiedError(f"{what}, {attempt} times in the same outer step")
        lost = "; its inner episodes begin anew" if self._opaque else ""
        warnings.warn(
            f"{what}; it is started again from the last outer step{lost}",
            RuntimeWarning,
            stacklevel=2,
        )
        self._put_back(number)
        self._begun[number] = False
        self._workers[number] = None
        self._start_missing()

    def _put_back(self, number: int) -> None:
        """The members of a worker as they were before its job, if it had begun."""
        if self._begun[number]:
            self._kept[number].put_back()

    def _start_missing(self) -> None:
        for number, share in enumerate(self._shares):
            if self._workers[number] is None:
                rows, file = share.rows, share.memory.file
                about = (number, rows.start, rows.stop, self._replacing)
                self._workers[number] = processes.start(
                    _serve, self._packed, *about, files=(file,)
                )


_OWN: weakref.WeakSet[Shards] = weakref.WeakSet()  # made in this process


def _leave_to_the_parent() -> None:
    """In a forked child, forget the workers of the process that made them."""
    for shards in _OWN:
        shards._end.detach()
    _OWN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


def _copied(population: Population, num_workers: int, open_: bool) -> Shards:
    shards = Shards(population, num_workers)
    if not open_:
        shards.close()
    elif shards._opaque:
        shards._hand_out_objects()
    return shards


# -- shared memory ----------------------------------------------------------------


Arrays = dict[str, NDArray[Any]]
# what a replay keeps, and how many steps its member has taken
_REPLAY, _STEPS = "learner.replay.", "learner.env_steps"


@dataclass(frozen=True)
class _Memory:
    """The arrays of a state, and room for what a job changes of them."""

    places: dict[str, _Place]  # of the arrays, by name
    before: dict[str, _Place]  # of as much as jobs change of each
    flags: _Place  # by number of the worker: it has begun to change its rows
    file: int  # descriptor of what is shared
    data: NDArray[np.uint8]  # the bytes there

    @classmethod
    def of(cls, state: Any, interval: int) -> _Memory:
        """Memory for a state, and a copy of it.

        Args:
            state: of a population.
            interval: steps of a member that a job takes, at most.

        Raises:
            MemoryError: there is not enough of it.
        """
        arrays = snapshots.capture(state, opaque=False)
        is_replay = isinstance(getattr(state.learner, "replay", None), Replay)
        places: dict[str, _Place] = {}
        before: dict[str, _Place] = {}
        length = 0
        for into, whole in ((places, True), (before, False)):
            for name, a in arrays.items():
                shape = a.shape
                if not whole and is_replay and name.startswith(_REPLAY):
                    P, N, C, *row = shape
                    shape = (P, N, min(C, interval // N + 1), *row)
                into[name] = _Place(length, a.dtype.str, shape)
                length += -(-into[name].nbytes // _LINE) * _LINE
        flags = _Place(length, "?", (len(next(iter(arrays.values()))),))
        length += flags.nbytes
        _check_room(length)
        folder = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(length)
            descriptor = os.dup(file.fileno())
        memory = cls(places, before, flags, descriptor, _mapped(descriptor))
        weakref.finalize(memory, os.close, descriptor)
        for name, view in memory.state().items():
            view[...] = arrays[name]
        return memory

    def __reduce__(self) -> tuple[Any, ...]:
        """For a worker, which inherits the descriptor."""
        return _attached, (self.places, self.before, self.flags, self.file)

    @property
    def begun(self) -> NDArray[np.bool_]:
        """By number of the worker: it has begun to change its rows."""
        return self._views({"begun": self.flags})["begun"]

    def state(self) -> Arrays:
        """Views of the arrays by name."""
        return self._views(self.places)

    def kept(self, rows: slice) -> _Kept:
        """What is kept of some members."""
        state, before = self.state(), self._views(self.before)
        return _Kept(
            {name: view[rows] for name, view in state.items()},
            {name: view[rows] for name, view in before.items()},
        )

    def _views(self, places: dict[str, _Place]) -> Arrays:
        return {
            name: self.data[place.offset : place.offset + place.nbytes]
            .view(place.dtype)
            .reshape(place.shape)
            for name, place in places.items()
        }


def _mapped(descriptor: int) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)


def _attached(places: Any, before: Any, flags: _Place, file: int) -> _Memory:
    return _Memory(places, before, flags, file, _mapped(file))


@dataclass(frozen=True)
class _Place:
    """Where an array lies."""

    offset: int  # bytes
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Kept:
    """Members as they were before a job.

    Of a replay, with rings of C rows, only R are kept: the newest, which may be closed,
    and those that an outer step writes.
    """

    state: Arrays
    before: Arrays

    def keep(self) -> None:
        """Copy what the next job may change."""
        for name, kept in self.before.items():
            kept[...] = self.state[name][self._changing(name, self.state)]

    def put_back(self) -> None:
        """Undo what has been done since."""
        for name, kept in self.before.items():
            self.state[name][self._changing(name, self.before)] = kept

    def _changing(self, name: str, old: Arrays) -> Any:
        """Index of what the job changes of an array, by the steps taken before it."""
        kept, whole = self.before[name].shape, self.state[name].shape
        if kept == whole:
            return ...
        P, N, R = kept[:3]
        rows = (old[_STEPS][:, None, None] // N - 1 + np.arange(R)) % whole[2]
        return np.arange(P)[:, None, None], np.arange(N)[:, None], rows


def _check_room(needed: int) -> None:
    """Without room the process would be killed when it first writes there."""
    if not _SHARED_MEMORY.is_dir():
        return  # the system keeps shared memory elsewhere
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if needed > free:
        raise MemoryError(
            f"{needed / 1e6:,.0f} MB of shared memory are needed, {_SHARED_MEMORY} has "
            f"{free / 1e6:,.0f} MB left; give a container more (--shm-size), or take "
            "fewer members, a smaller replay_capacity, or num_workers=1"
        )


def _adopt(state: Any, views: Arrays) -> None:
    """Let the arrays of a state be these views, whatever it holds now."""

    def adopted(name: str, leaf: Any) -> Any:
        if name not in views:
            return leaf
        view = views[name]
        return torch.from_numpy(view) if isinstance(leaf, torch.Tensor) else view

    snapshots.replace_leaves(state, adopted)


# -- in a worker ------------------------------------------------------------------


@dataclass(frozen=True)
class _Share:
    """What a worker is told."""

    settings: Settings
    memory: _Memory
    number: int
    rows: slice


def _stop(workers: list[Worker | None]) -> None:
    processes.end(worker for worker in workers if worker is not None)
    workers[:] = [None] * len(workers)


def _serve(
    pipe: connection.Connection,
    packed: bytes,
    number: int,
    first: int,
    end: int,
    replacing: bool,
) -> None:
    """Do jobs until the other end is closed, or this process is asked to end."""
    settings, memory = processes.unpack(packed)
    shard = _Shard(_Share(settings, memory, number, slice(first, end)), replacing)
    try:
        while True:
            try:
                name, arguments = pickle.loads(pipe.recv_bytes())
                pipe.send_bytes(_answer(shard, name, arguments))
            except (EOFError, ConnectionError):  # the parent is gone
                return
    finally:
        shard.close()


def _answer(shard: _Shard, name: str, arguments: tuple[Any, ...]) -> bytes:
    try:
        shard.keep()
        return cloudpickle.dumps((None, getattr(shard, name)(*arguments)))
    except BaseException as failure:  # whatever users' code raises, a SystemExit too
        if child.leaving():
            raise
        return cloudpickle.dumps((processes.pack_error(failure), None))


class _Shard:
    """A worker's members: a population on views of their rows.

    Args:
        share: what it is told.
        replacing: it takes the place of another, whose environment objects are lost.
    """

    def __init__(self, share: _Share, replacing: bool) -> None:
        rows, self._share = share.rows, share
        self._population = Population(share.settings, rows.stop - rows.start)
        self._kept = share.memory.kept(rows)
        state = self._population.state
        _adopt(state, self._kept.state)
        self._leaves = dict(snapshots.leaves(state))
        opaque = any(map(snapshots.is_opaque, self._leaves.values()))
        if opaque and replacing:
            self.begin_episodes()

    def close(self) -> None:
        """Close the inner environments."""
        self._population.close()

    def keep(self) -> None:
        """Copy the rows before they change."""
        self._kept.keep()
        self._share.memory.begun[self._share.number] = True

    def _settle(self) -> None:
        """Put into shared memory what has replaced an array of the state."""

        def settled(name: str, leaf: Any) -> Any:
            mine = self._leaves[name]
            if leaf is not mine:
                mine[...] = leaf
            return mine

        snapshots.replace_leaves(self._population.state, settled)

    def start(self, *arguments: Any) -> None:
        self._population.start(*arguments)
        self._settle()

    def advance(self, requested: Floats) -> Outcome:
        outcome = self._population.advance(requested)
        self._settle()
        return outcome

    def begin_episodes(self) -> None:
        self._population.begin_episodes()
        self._settle()

    def objects(self) -> bytes | snapshots.SnapshotNotSupported:
        """The environment objects, pickled; or why not, which harms nobody."""
        try:
            return cloudpickle.dumps(snapshots.objects(self._population.state))
        except snapshots.SnapshotNotSupported as failure:
            return failure
        except (pickle.PicklingError, AttributeError, TypeError) as failure:
            return snapshots.SnapshotNotSupported(
                "environment objects cannot be passed between processes "
                f"({failure}); take num_workers=1, or snapshot(exact=False)"
            )

    def take_objects(self, objects: dict[str, NDArray[Any]]) -> None:
        """Use these environment objects, which nobody else has."""
        for name, array in objects.items():
            self._leaves[name][...] = array
