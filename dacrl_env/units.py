"""Units of work: found in the store, or run here or in worker processes and kept."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

import pandas as pd

from dacrl_env.store import Store

Job = tuple[Callable[..., pd.DataFrame], tuple[Any, ...]]


def run_units(
    store: Store | None,
    keys: list[dict[str, Any]],
    jobs: list[Job],
    sizes: list[int],
    workers: int,
    bar: Any,
) -> list[pd.DataFrame]:
    """Frames of all units; those in the store are read, the others run and kept.

    Args:
        store: None: nothing is kept.
        keys: of the units.
        jobs: that make them.
        sizes: inner environment steps of each, for the progress bar.
        workers: processes.
        bar: the progress bar.
    """
    frames: dict[int, pd.DataFrame] = {}
    todo: dict[int, Job] = {}
    for number, key in enumerate(keys):
        if store is not None and key in store:
            frames[number] = store.read(key)
            bar.update(sizes[number])
        else:
            todo[number] = jobs[number]
    for number, frame in _run(todo, workers, bar.update):
        if store is not None:
            store.write(keys[number], frame)
        frames[number] = frame
    return [frames[number] for number in range(len(keys))]


_counter: Any = None  # steps done by all workers; set in each worker process


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Two comparisons that write the same store would waste each other's work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _count(steps: int) -> None:
    with _counter.get_lock():
        _counter.value += steps


def _work(job: Job) -> pd.DataFrame:
    function, arguments = job
    return function(*arguments, progress=_count)


def _run(
    jobs: dict[int, Job], workers: int, progress: Callable[[int], Any]
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Results in the order they are ready."""
    if workers == 1 or len(jobs) < 2:
        for number, (function, arguments) in jobs.items():
            yield number, function(*arguments, progress=progress)
        return
    # spawn: a forked child would inherit torch's threads in an unknown state
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    shown = 0
    with ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(counter,)
    ) as pool:
        pending: dict[Future[pd.DataFrame], int] = {
            pool.submit(_work, job): number for number, job in jobs.items()
        }
        try:
            while pending:
                done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                progress(counter.value - shown)
                shown = counter.value
                for future in done:
                    yield pending.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
