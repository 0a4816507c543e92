"""Run policies on the test split and judge them by the report stream."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from dacrl_env.policies import Policy, get_policy
from dacrl_env.registration import LEARNERS, get_task, load
from dacrl_env.store import Store, canonical
from dacrl_env.tasks import Task
from dacrl_env.vector_env import PopulationEnv, vector_info
from dacrl_env.version import __version__

BATCH = 32  # runs advanced together; also the unit of work in the store

_FIXED_COLUMNS = (
    "task",
    "policy",
    "run",
    "seed",
    "split",
    "instance",
    "member",
    "parent",
    "step",
    "env_steps",
    "eval_steps",
    "gradient_steps",
    "reward",
    "score",
    "report_score",
    "eval_return",
    "train_return",
    "diverged",
    "wall_seconds",
)


def evaluate(
    policy: str | Policy,
    task: str | Task,
    seeds: Sequence[int] = range(64),
    split: str = "test",
    *,
    name: str | None = None,
    run: int = 0,
    progress: Callable[[int], None] | None = None,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """Run a policy once per seed.

    Every run is judged by the report stream, which no policy sees: 20 episodes at each
    of 20 points on the way (and before training), 100 at the end. Their cost is not
    charged to the run.

    Args:
        policy: the policy, or its name as `get_policy` takes it.
        task: id or task.
        seeds: of the runs; paired between policies.
        split: "test" or "tuning".
        name: in the ``policy`` column; None: the policy's given or class name.
        run: number of the method run that made the policy.
        progress: called with inner environment steps done since its last call.
        **task_kwargs: options of the environment.

    Returns:
        A row per run and decision (and per report point between decisions), with the
        columns of the README.

    Raises:
        ValueError: unknown names, no seeds, or seeds given twice.
    """
    task = get_task(task)
    seeds = _checked_seeds(seeds)
    if isinstance(policy, str):
        name = policy if name is None else name
        policy = get_policy(policy)
    name = type(policy).__name__ if name is None else name
    options = _options(policy, task, task_kwargs)
    frames = [
        _evaluate_batch(policy, task, batch, split, name, run, progress, options)
        for batch in _batches(seeds)
    ]
    return pd.concat(frames, ignore_index=True)


def _checked_seeds(seeds: Sequence[int]) -> list[int]:
    result = [int(seed) for seed in seeds]
    if not result:
        raise ValueError("no seeds given")
    if len(set(result)) < len(result):
        raise ValueError(f"seeds are given twice: {result}")
    return result


def _batches(seeds: list[int], size: int = BATCH) -> Iterator[list[int]]:
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


def _options(policy: Policy, task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """Options of the environment that suits a policy, the given ones first."""
    options = dict(given)
    options.setdefault("action_mode", policy.action_mode)
    budget = options.get("budget") or task.budget
    wanted = getattr(policy, "decision_interval", None)
    decisions = getattr(policy, "decisions", None)
    if wanted is None and decisions is not None:
        wanted = budget // decisions
    if wanted is not None and options.get("decision_interval") is None:
        options["decision_interval"] = wanted
        # feedback as for every other policy, so that all are charged alike
        options.setdefault("eval_interval", budget // task.decisions)
    needed = getattr(policy, "hyperparameters", ())
    chosen = options.get("hyperparameters")
    if chosen is None:
        chosen = task.controlled or load(LEARNERS[task.learner]).controlled
    names = [getattr(h, "name", h) for h in chosen]
    missing = [name for name in needed if name not in names]
    options["hyperparameters"] = (*chosen, *missing)
    return options


def _evaluate_batch(
    policy: Policy,
    task: Task,
    seeds: list[int],
    split: str,
    name: str,
    run: int,
    progress: Callable[[int], None] | None,
    options: dict[str, Any],
) -> pd.DataFrame:
    P = len(seeds)
    envs = PopulationEnv(task, P, split=split, report=True, **options)
    observations, infos = envs.reset(seed=seeds)
    policy.reset(envs, seeds[0])
    # Runs that end early are not restarted here, unlike in PopulationEnv.step: what
    # they would do next is no part of the evaluation.
    population, state = envs.population, envs.population.state
    marks = np.array(envs.settings.report_steps)
    instances = [i.name for i in envs.settings.instances]
    common = {
        "task": task.id,
        "policy": name,
        "run": run,
        "seed": np.array(seeds),
        "split": split,
        "instance": np.array([instances[i] for i in state.instances], dtype=object),
        "member": np.arange(P),
        "parent": np.arange(P),
    }
    columns = {h.name: f"hp/{h.name}" for h in envs.settings.controlled}
    nothing = dict.fromkeys(columns.values(), np.nan)
    parts = [
        _rows(
            common,
            0,
            population.info(),
            np.zeros(P),
            state.reports[:, 0],
            state.wall_seconds,
            nothing,
        )
    ]
    running = np.ones(P, bool)
    step = 0
    while running.any():
        step += 1
        before = state.learner.env_steps.copy()
        actions = policy.act(observations, infos)
        outcome = population.advance(
            population.actions.to_values(actions, state.requested)
        )
        observations = population.observation()
        arrays = population.info()
        infos = vector_info(arrays, np.ones(P, bool))
        now = state.learner.env_steps
        applied = {
            column: arrays["hyperparameters"][h].astype(float)
            for h, column in columns.items()
        }
        for point in range(1, len(marks)):
            between = running & (before < marks[point]) & (marks[point] < now)
            between &= ~np.isnan(state.reports[:, point])
            if between.any():
                parts.append(
                    _between(
                        common, step, marks[point], state.reports[:, point], applied
                    )[between]
                )
        at = np.searchsorted(marks, now)
        on_mark = marks[np.minimum(at, len(marks) - 1)] == now
        reported = np.where(
            on_mark, state.reports[np.arange(P), np.minimum(at, len(marks) - 1)], np.nan
        )
        reported = np.where(state.diverged, task.floor_score, reported)
        rows = _rows(
            common,
            step,
            arrays,
            outcome.rewards,
            reported,
            state.wall_seconds,
            applied,
        )
        parts.append(rows[running])
        if progress is not None:
            progress(int((now - before)[running].sum()))
        running &= ~outcome.ended
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.sort_values(["seed", "env_steps"], kind="stable", ignore_index=True)
    return frame[[*_FIXED_COLUMNS, *columns.values()]]


def _rows(
    common: dict[str, Any],
    step: int,
    info: dict[str, Any],
    rewards: Any,
    reported: Any,
    wall_seconds: Any,
    applied: dict[str, Any],
) -> pd.DataFrame:
    names = ("env_steps", "eval_steps", "gradient_steps", "score", "eval_return")
    return pd.DataFrame(
        {
            **common,
            "step": step,
            **{key: info[key] for key in (*names, "train_return", "diverged")},
            "reward": rewards,
            "report_score": reported.copy(),
            "wall_seconds": wall_seconds.copy(),
            **applied,
        }
    )


def _between(
    common: dict[str, Any],
    step: int,
    env_steps: int,
    reported: Any,
    applied: dict[str, Any],
) -> pd.DataFrame:
    """Rows of a report point that lies between two decisions."""
    unknown = dict.fromkeys(
        (
            "eval_steps",
            "gradient_steps",
            "reward",
            "score",
            "eval_return",
            "train_return",
            "wall_seconds",
        ),
        np.nan,
    )
    return pd.DataFrame(
        {
            **common,
            "step": step,
            "env_steps": env_steps,
            "report_score": reported.copy(),
            "diverged": False,
            **unknown,
            **applied,
        }
    )


# -- comparing ------------------------------------------------------------------


def compare(
    task: str | Task,
    policies: Sequence[str],
    seeds: Sequence[int] = range(64),
    *,
    store: Store | str | os.PathLike[str] | None = None,
    workers: int = 1,
    split: str = "test",
    batch: int = BATCH,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """Run several policies on the same seeds.

    Work is done in units of one policy and up to 32 seeds. With a store, finished
    units are kept, and found again by the next call with the same arguments.

    Args:
        task: id or task.
        policies: names, as `get_policy` takes them.
        seeds: of the runs, the same for every policy.
        store: a store or its directory; None: nothing is kept.
        workers: processes, of one torch thread each.
        split: "test" or "tuning".
        batch: seeds of a unit of work.
        show_progress: a progress bar on standard error.
        **task_kwargs: options of the environment; with a store, JSON values.

    Returns:
        The frames of `evaluate`, one policy after the other.

    Raises:
        ValueError: unknown names or options; before anything is run.
        StoreError: a damaged file in the store; nothing in it is changed.
    """
    task = get_task(task)
    seeds = _checked_seeds(seeds)
    if not policies or len(set(policies)) < len(policies):
        raise ValueError(f"policies must be given, and once each; got {list(policies)}")
    if workers < 1 or batch < 1:
        raise ValueError(
            f"workers and batch must be at least 1, got {workers} and {batch}"
        )
    if store is not None and not isinstance(store, Store):
        store = Store(store)
    for name in policies:  # what is wrong should come to light before hours of work
        policy = get_policy(name)
        options = _options(policy, task, task_kwargs)
        policy.reset(PopulationEnv(task, 1, **{**options, "split": split}), 0)
    units = [
        (name, part, unit_key(task, name, part, split, task_kwargs))
        for name in policies
        for part in _batches(seeds, batch)
    ]
    frames: dict[int, pd.DataFrame] = {}
    todo = []
    for number, (_, _, key) in enumerate(units):
        if store is not None and key in store:
            frames[number] = store.read(key)
        else:
            todo.append(number)
    budget = task_kwargs.get("budget") or task.budget
    bar = tqdm(
        total=sum(len(part) for _, part, _ in units) * budget,
        initial=sum(len(units[n][1]) for n in frames) * budget,
        unit=" steps",
        unit_scale=True,
        desc=task.id,
        disable=not show_progress,
    )
    jobs = {n: (units[n][0], task, units[n][1], split, task_kwargs) for n in todo}
    with bar:
        for number, frame in _run(jobs, workers, bar.update):
            if store is not None:
                store.write(units[number][2], frame)
            frames[number] = frame
    return pd.concat([frames[n] for n in range(len(units))], ignore_index=True)


def stored(directory: str | os.PathLike[str]) -> dict[str, pd.DataFrame]:
    """Comparisons in a store, by a name made of task and settings.

    Where units overlap in policy and seed, the larger one counts.

    Raises:
        FileNotFoundError: no such directory, or nothing in it.
        StoreError: a damaged file.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"no results in {directory}")
    store = Store(directory)
    groups: dict[str, list[dict[str, Any]]] = {}
    for key in store.keys():  # noqa: SIM118 - not a dict
        about = {k: key[k] for k in ("version", "definition", "settings", "split")}
        digest = hashlib.sha256(canonical(about).encode()).hexdigest()[:8]
        name = f"{key['task'].replace('/', '-')}-{digest}"
        groups.setdefault(name, []).append(key)
    if not groups:
        raise FileNotFoundError(f"no results in {directory}")
    frames = {}
    for name, keys in groups.items():
        taken: set[tuple[str, int]] = set()
        parts = []
        for key in sorted(keys, key=lambda key: -len(key["seeds"])):
            fresh = [s for s in key["seeds"] if (key["policy"], s) not in taken]
            taken.update((key["policy"], s) for s in fresh)
            if fresh:
                frame = store.read(key)
                parts.append(frame[frame["seed"].isin(fresh)])
        frames[name] = pd.concat(parts, ignore_index=True)
    return frames


def unit_key(
    task: Task, policy: str, seeds: list[int], split: str, options: dict[str, Any]
) -> dict[str, Any]:
    """What names a unit of work in the store: everything its result depends on."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return {
        "kind": "evaluate",
        "version": __version__,
        "task": task.id,
        # a user's task may change under the same id
        "definition": asdict(replace(task, description="")),
        "settings": settings,
        "policy": policy,
        "run": 0,
        "split": split,
        "seeds": seeds,
    }


_counter: Any = None  # steps done by all workers; set in each worker process


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter


def _count(steps: int) -> None:
    with _counter.get_lock():
        _counter.value += steps


def _work(
    policy: str,
    task: Task,
    seeds: list[int],
    split: str,
    options: dict[str, Any],
) -> pd.DataFrame:
    return evaluate(policy, task, seeds, split, progress=_count, **options)


def _run(
    jobs: dict[int, tuple[Any, ...]], workers: int, progress: Callable[[int], Any]
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Results in the order they are ready."""
    if workers == 1 or len(jobs) < 2:
        for number, job in jobs.items():
            policy, task, seeds, split, options = job
            yield (
                number,
                evaluate(policy, task, seeds, split, progress=progress, **options),
            )
        return
    # spawn: a forked child would inherit torch's threads in an unknown state
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    shown = 0
    with ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(counter,)
    ) as pool:
        pending: dict[Future[pd.DataFrame], int] = {
            pool.submit(_work, *job): number for number, job in jobs.items()
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
