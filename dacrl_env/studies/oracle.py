"""What dynamics are worth on a task, as two numbers with 95 % intervals.

(a) *Open loop*: the best schedule found at a tuning budget beside the best static
configuration found at the same budget by the same searcher (`Race`), both judged by the
reports on the same test seeds.

(b) *Branching*: runs of the incumbent configuration are stopped at shares of the
budget, and go on under several configurations, see `branching`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison import stats
from dacrl_env.comparison.comparison import check as check_comparison
from dacrl_env.comparison.comparison import compare, fit
from dacrl_env.comparison.executors import Executor
from dacrl_env.comparison.given import checked_seeds
from dacrl_env.comparison.report import summarize
from dacrl_env.core.store import Store
from dacrl_env.policies import Cost
from dacrl_env.policies.static import Static
from dacrl_env.studies.branching import (
    CONFIGURATIONS,
    POINTS,
    RUNS,
    STREAMS,
    branching,
    check_numbers,
    planned,
    row_of,
    why_not,
)
from dacrl_env.studies.dynamics import Dynamics, tags
from dacrl_env.tasks import Option, Task
from dacrl_env.tasks.registration import get_task

SEARCH_RUNS = 24  # tuning budget of each family, in complete runs
TEST_SEEDS = 32

_STATIC, _SCHEDULE = "race,family=static", "race,family=schedule"


def oracle(
    task: str | Task,
    *,
    store: Store | str | os.PathLike[str],
    tuning_budget: int | None = None,
    seeds: int | Sequence[int] = range(TEST_SEEDS),
    runs: int = RUNS,
    configurations: int = CONFIGURATIONS,
    streams: int = STREAMS,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> Dynamics:
    """Measure both numbers; finished units of work are found in the store.

    Args:
        task: id or task.
        store: a store or its directory.
        tuning_budget: inner environment steps of training, for each family's search;
            None: `SEARCH_RUNS` complete runs.
        seeds: of the test runs, at least 2. A number n is range(n).
        runs: of the incumbent, the tuned static configuration.
        configurations: branches, continuing among them; drawn from the search space,
            half of them near the incumbent.
        streams: forks of each run and configuration that choose, and as many that are
            valued.
        num_threads: as in :func:`dacrl_env.compare`.
        executor: as in :func:`dacrl_env.compare`.
        show_progress: progress bars on standard error.
        **task_kwargs: options of the environment.

    Returns:
        Where the runs of a task cannot be copied, (a) alone, with a note.

    Raises:
        ValueError: unknown names or options, or numbers that are too small.
        StoreError: a damaged file in the store.
    """
    task = get_task(task)
    store = store if isinstance(store, Store) else Store(store)
    check(
        task,
        store=store,
        tuning_budget=tuning_budget,
        seeds=seeds,
        runs=runs,
        configurations=configurations,
        streams=streams,
        num_threads=num_threads,
        executor=executor,
        **task_kwargs,
    )
    spend = _spend(task, tuning_budget, task_kwargs)
    note = why_not(task, task_kwargs)
    frame = compare(
        task,
        ["default"],
        seeds,
        methods=[_STATIC, _SCHEDULE],
        tuning_budget=spend,
        runs=1,
        store=store,
        num_threads=num_threads,
        executor=executor,
        show_progress=show_progress,
        **task_kwargs,
    )
    parts, costs = [open_loop(frame)], _costs(frame)
    tried: list[dict[str, Option]] = []
    if not note:
        # compare has just put it there
        tuned = fit(task, _STATIC, spend, 0, store=store, **task_kwargs).policy
        assert isinstance(tuned, Static)
        found = branching(
            task,
            tuned.config,
            store=store,
            runs=runs,
            configurations=configurations,
            streams=streams,
            num_threads=num_threads,
            executor=executor,
            show_progress=show_progress,
            **task_kwargs,
        )
        parts.append(found.rows)
        costs |= found.costs
        tried = found.configurations
    rows = pd.concat(parts, ignore_index=True)
    rows.insert(0, "task", task.id)
    return Dynamics(task.id, rows, costs, tried, tags(rows), note)


def check(
    task: str | Task,
    *,
    store: Store | str | os.PathLike[str],
    tuning_budget: int | None,
    seeds: int | Sequence[int],
    runs: int,
    configurations: int,
    streams: int,
    num_threads: int | None,
    executor: str | Executor | None,
    **task_kwargs: Any,
) -> None:
    """What `oracle` checks before anything is run; for measurements still to come.

    Raises:
        ValueError, OSError: as `oracle`.
    """
    task = get_task(task)
    check_numbers(runs, configurations, streams, task_kwargs)
    if len(checked_seeds(seeds)) < 2:
        raise ValueError(f"at least 2 seeds are needed for intervals, got {seeds!r}")
    check_comparison(
        task,
        ["default"],
        seeds,
        methods=[_STATIC, _SCHEDULE],
        tuning_budget=_spend(task, tuning_budget, task_kwargs),
        runs=1,
        store=store,
        num_threads=num_threads,
        executor=executor,
        **task_kwargs,
    )
    if not why_not(task, task_kwargs):
        planned(task, {}, runs, configurations, streams, POINTS, 0, task_kwargs)


def _spend(task: Task, tuning_budget: int | None, options: Mapping[str, Any]) -> int:
    """Training steps of the search, for each of the two families."""
    steps: int = options.get("budget") or task.budget
    return SEARCH_RUNS * steps if tuning_budget is None else int(tuning_budget)


def open_loop(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of (a) from the frame of `compare`."""
    final = summarize(frame).pivot(
        index="seed", columns="policy", values="report_final"
    )
    names = {"default": "default", "static": _STATIC, "schedule": _SCHEDULE}
    scores = {name: final[column].to_numpy() for name, column in names.items()}
    rows = []
    for name, score in scores.items():
        interval = stats.bootstrap_interval(score)
        rows.append(row_of(name, np.nan, (float(score.mean()), *interval), len(score)))
    for better, worse in (
        ("schedule", "static"),
        ("schedule", "default"),
        ("static", "default"),
    ):
        gap = stats.paired_difference(scores[better], scores[worse])
        rows.append(row_of(f"{better} − {worse}", np.nan, gap, len(final)))
    return pd.DataFrame(rows)


def _costs(frame: pd.DataFrame) -> dict[str, Cost]:
    """Of tuning and of test runs, from the frame of `compare`."""
    last = frame.groupby(["policy", "seed"]).tail(1)
    fits = last.groupby("policy").first()
    return {
        "search": Cost(
            int(fits["tuning_env_steps"].sum()), int(fits["tuning_eval_steps"].sum())
        ),
        "test": Cost(int(last["env_steps"].sum()), int(last["eval_steps"].sum())),
    }
