"""Work that compiled code does, divided among threads.

Compiled functions let go of Python's lock, so that threads compute side by side. What
is computed depends neither on their number nor on who does what.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from dacrl_env.core.processes import usable_cores
from dacrl_env.tasks import is_worker

Job = TypeVar("Job")
_granted: ContextVar[int | None] = ContextVar("_granted", default=None)


def default_threads() -> int:
    """What `granted` says, else the cores this process may use; in a worker, 1."""
    number = _granted.get()
    if number is not None:
        return number
    return 1 if is_worker() else usable_cores()


@contextmanager
def granted(number: int) -> Iterator[None]:
    """Populations made meanwhile, by whoever, have so many threads by default."""
    token = _granted.set(number)
    try:
        yield
    finally:
        _granted.reset(token)


def spread(
    jobs: Iterable[Job], work: Callable[[int, Job], None], num_threads: int
) -> None:
    """Do all jobs; whoever is free takes the next one.

    The calling thread is one of those that work. When it is interrupted, or anything
    is raised, the others end after the job that they are at.

    Args:
        jobs: in the order in which they are begun.
        work: is called with the number of the thread, from 0 on, and a job.
        num_threads: at least 1.

    Raises:
        BaseException: what was raised first.
    """
    pending = iter([*jobs])
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for job in pending:
                if failures:
                    return
                work(number, job)
        except BaseException as error:
            failures.append(error)

    others = [
        threading.Thread(target=run, args=(number,), daemon=True)
        for number in range(1, num_threads)
    ]
    try:
        for thread in others:
            thread.start()
        run(0)
    except BaseException as error:  # an interrupt between two jobs
        failures.append(error)
    for thread in others:
        if thread.ident is not None:
            thread.join()
    if failures:
        raise failures[0]
