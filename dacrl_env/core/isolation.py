"""Settings of a process and of a thread that training needs, and puts back.

Torch and numpy have settings that belong to the process, or to a thread, and not to
whoever computes. Training changes some of them for as long as it lasts and must not
depend on the others. Several threads may train at a time, each its own environment.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

# numpy's own defaults, whatever the user has set for code of theirs
NUMPY_DEFAULTS = {
    "divide": "warn",
    "over": "warn",
    "under": "ignore",
    "invalid": "warn",
}
as_usual = np.errstate(**NUMPY_DEFAULTS)  # type: ignore[arg-type]  # decorates functions


@contextmanager
def inner_context() -> Iterator[None]:
    """Torch with one thread, no gradients, no denormal numbers; restored afterwards.

    More threads of torch or numpy make these small products slower, and give other
    bits. Adam's moments of units that have died fade to denormal numbers, with which
    some processors compute twenty times as slowly; here they are zeros. What numpy does
    about overflow and the like is what it does by default, whatever `numpy.seterr` says
    outside.
    """
    import torch

    ticket, flushed = object(), sys.float_info.min / 2 == 0.0
    try:
        _THREADS.enter(ticket)
        torch.set_flush_denormal(True)  # of this thread alone
        with torch.no_grad(), np.errstate(**NUMPY_DEFAULTS):  # type: ignore[arg-type]
            yield
    finally:
        torch.set_flush_denormal(flushed)
        _THREADS.leave(ticket)


@contextmanager
def globals_kept() -> Iterator[None]:
    """Put the global generators back as they were, also after an exception.

    One thread at a time can have them: others wait.
    """
    torch = sys.modules.get("torch")  # what nobody has imported has drawn nothing
    with _turn:
        kept = random.getstate(), np.random.get_state()  # noqa: NPY002
        drawn = None if torch is None else torch.get_rng_state()
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002
            if torch is not None:
                torch.set_rng_state(drawn)


_turn = threading.RLock()


@dataclass(frozen=True)
class _Entry:
    """What a thread has to put back."""

    thread: int
    torch: int
    blas: list[int]  # of the libraries that count for each thread


class _OneThread:
    """Limits torch and BLAS to one thread while anybody trains.

    Torch counts for each Python thread, and has a number that new ones start with.
    OpenBLAS and MKL count for the process: the first that comes in takes note of the
    number, the last to leave puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[object, _Entry] = {}
        self._known = threading.local()
        self._torch = 1  # outside
        self._blas: list[int] = []  # outside, of the libraries that count for all

    def enter(self, ticket: object) -> None:
        """Begin; what was begun under a ticket ends when it is left."""
        import torch

        with self._lock:
            threads = torch.get_num_threads()
            new = not hasattr(self._known, "thread")
            if self._inside and new and threads == 1:
                # the one that another thread has set, while it trains
                threads = self._torch
            self._known.thread = True
            if not self._inside:
                self._torch = threads
                self._blas = [library.get_num_threads() for library in _shared()]
            own = [library.get_num_threads() for library in _own()]
            self._inside[ticket] = _Entry(threading.get_ident(), threads, own)
            torch.set_num_threads(1)
            _set(_own(), [1] * len(own))
            _set(_shared(), [1] * len(self._blas))

    def leave(self, ticket: object) -> None:
        """End; nothing if it has not begun."""
        import torch

        with self._lock:
            entry = self._inside.pop(ticket, None)
            if entry is None:
                return
            if not self._inside:
                _set(_shared(), self._blas)
            _set(_own(), entry.blas)
            torch.set_num_threads(entry.torch)

    def forked(self) -> None:
        """In a child, where only the thread that forked is left."""
        self._lock = threading.Lock()  # another one may have had it
        here, before = threading.get_ident(), len(self._inside)
        self._inside = {k: e for k, e in self._inside.items() if e.thread == here}
        if before and not self._inside:
            _set(_shared(), self._blas)


@cache
def _libraries() -> tuple[list[Any], list[Any]]:
    """What multiplies numpy's matrices: by process, and by thread.

    To look for it takes longer than a step.
    """
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    by_thread = [
        library.internal_api == "blis"
        or getattr(library, "threading_layer", None) == "openmp"
        for library in libraries
    ]
    pairs = list(zip(libraries, by_thread, strict=True))
    return [a for a, own in pairs if not own], [a for a, own in pairs if own]


def _shared() -> list[Any]:
    return _libraries()[0]


def _own() -> list[Any]:
    return _libraries()[1]


def _set(libraries: list[Any], threads: list[int]) -> None:
    """Set numbers of threads, whichever thread has done so before.

    From version 3.8 on threadpoolctl lets the first that limits OpenBLAS decide until
    it is done, and passes over what others set in silence.
    """
    for library, number in zip(libraries, threads, strict=True):
        everybody = getattr(library, "clear_controlling_thread", None)
        if everybody is not None:
            everybody(force=True)
        library.set_num_threads(number)
        if everybody is not None:
            everybody(force=True)


_THREADS = _OneThread()


def _forked() -> None:
    """In a child, where only the thread that forked is left: nobody else has a turn."""
    global _turn
    _turn = threading.RLock()
    _THREADS.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
