"""Compare policies and methods on the same test runs, with everything charged.

Work is done in units: one fit of a method, or one policy on a batch of seeds. With a
store, finished units are kept, and found again by the next call with the same
arguments; a fit that was interrupted goes on from its journal.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from dacrl_env.evaluation import (
    BATCH,
    batches,
    check_made_for,
    check_options,
    checked_seeds,
    evaluate,
    suitable_options,
)
from dacrl_env.policies import (
    Cost,
    Fitted,
    Policy,
    from_json,
    get_method,
    get_policy,
    identity,
    source,
    to_json,
)
from dacrl_env.registration import get_task
from dacrl_env.store import Store, canonical
from dacrl_env.tasks import Task
from dacrl_env.trials import fit_key, journal_path
from dacrl_env.vector_env import PopulationEnv
from dacrl_env.version import __version__

ANYTIME_POINTS = 12  # incumbents of a fit that are tested, spread over its budget


def compare(
    task: str | Task,
    policies: Sequence[str] = (),
    seeds: Sequence[int] = range(64),
    *,
    methods: Sequence[str] = (),
    tuning_budget: int | None = None,
    runs: int = 5,
    total: bool = False,
    shuffled: bool = False,
    policy_seeds: Sequence[int] | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    workers: int = 1,
    split: str = "test",
    batch: int = BATCH,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """Run several policies, and those that methods make, on the same seeds.

    Args:
        task: id or task.
        policies: names, as `get_policy` takes them.
        seeds: of the test runs, the same for every policy.
        methods: names, as `get_method` takes them.
        tuning_budget: inner environment steps of training that each run of a method
            may spend on the tuning split.
        runs: independent runs of each method; the unit of resampling.
        total: count the run of the final policy, too, so that ``tuning_budget`` is all
            that a method uses; feedback is then that of training episodes, which cost
            nothing more.
        shuffled: also run each trained controller with its observations shuffled
            among the runs, under the name ``"<method> shuffled"``: what is lost is what
            the observation was worth.
        policy_seeds: of the test runs of ``policies``; None: ``seeds``. A method has
            ``runs`` test runs of every seed, and more seeds here even that out.
            Differences are paired by the seeds that both have.
        store: a store or its directory; None: nothing is kept.
        workers: processes, of one torch thread each.
        split: "test" or "tuning".
        batch: seeds of a unit of work.
        show_progress: a progress bar on standard error.
        **task_kwargs: options of the environment; with a store, JSON values.

    Returns:
        The frames of `evaluate`, one policy after the other; the ``run`` column holds
        the number of the method run.

    Raises:
        ValueError: unknown names or options, or no seeds in common; before anything
            is run. What a method's own arguments have against the task comes to light
            when its turn comes; what is done by then is in the store.
        StoreError: a damaged file in the store; nothing in it is changed.
    """
    plan = _plan(
        task, policies, methods, seeds, tuning_budget, runs, total, store, task_kwargs
    )
    _check_workers(workers, batch)
    if shuffled and methods and min(batch, len(plan.seeds)) < 2:
        raise ValueError(
            "a shuffled policy needs runs side by side, seeds and a batch of at least "
            f"2; got {len(plan.seeds)} and {batch}"
        )
    own_seeds = plan.seeds if policy_seeds is None else checked_seeds(policy_seeds)
    if methods and not set(own_seeds) & set(plan.seeds):
        raise ValueError("policy_seeds and seeds must have seeds in common, for pairs")
    with _bar(plan, show_progress) as bar:
        bar.total += len(policies) * (len(own_seeds) - len(plan.seeds)) * plan.steps
        fits = _fit_all(plan, workers, bar)
        fitted: list[tuple[str, int, Policy]]
        fitted = [(fit.method, fit.run, fit.fitted) for fit in fits]
        if shuffled:
            fitted += [
                (f"{fit.method} shuffled", fit.run, _shuffled(fit.fitted))
                for fit in fits
                if hasattr(fit.fitted.policy, "shuffled")
            ]
            bar.total += (len(fitted) - len(fits)) * len(plan.seeds) * plan.steps
        units = [
            _Unit(name, 0, get_policy(name), part, split)
            for name in policies
            for part in batches(own_seeds, batch)
        ]
        units += [
            _Unit(name, run, policy, part, split)
            for name, run, policy in fitted
            for part in batches(plan.seeds, batch)
        ]
        frames = _evaluate_all(plan, units, workers, bar)
    return pd.concat(frames, ignore_index=True)


def anytime(
    task: str | Task,
    methods: Sequence[str],
    seeds: Sequence[int] = range(16),
    *,
    tuning_budget: int,
    runs: int = 5,
    total: bool = False,
    store: Store | str | os.PathLike[str] | None = None,
    workers: int = 1,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """What methods would have returned earlier, on the test split.

    Args:
        task: id or task.
        methods: names, as in `compare`; its fits are found in the store.
        seeds: of the test runs.
        tuning_budget: as in `compare`, like the rest.
        runs: of each method.
        total: as in `compare`.
        store: a store or its directory.
        workers: processes.
        show_progress: a progress bar on standard error.
        **task_kwargs: options of the environment.

    Returns:
        Columns ``policy, run, seed``, ``steps`` (training and evaluation steps spent on
        tuning when the incumbent was found) and ``final`` (report score at the end of
        its test run).

    Raises:
        ValueError, StoreError: as `compare`.
    """
    plan = _plan(
        task, (), methods, seeds, tuning_budget, runs, total, store, task_kwargs
    )
    _check_workers(workers, 1)
    with _bar(plan, show_progress) as bar:
        fits = _fit_all(plan, workers, bar)
        subjects = [
            (fit, cost, policy) for fit in fits for cost, policy in _spread(fit.fitted)
        ]
        units = [
            _Unit(fit.method, fit.run, Fitted(policy, cost), part, "test", "anytime")
            for fit, cost, policy in subjects
            for part in batches(plan.seeds)
        ]
        tested = sum(len(unit.seeds) for unit in units)
        bar.total = plan.fitting_steps + tested * plan.steps
        frames = _evaluate_all(plan, units, workers, bar)
    columns = ["policy", "run", "seed"]
    ends = []
    for frame in frames:
        end = frame.groupby(columns, sort=False).tail(1)
        spent = end["tuning_env_steps"] + end["tuning_eval_steps"]
        ends.append(end[columns].assign(steps=spent, final=end["report_score"]))
    return pd.concat(ends, ignore_index=True)


def fit(
    method: str,
    task: str | Task,
    budget: int,
    seed: int,
    /,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> Fitted:
    """Run a method once; with a store, an interrupted fit goes on.

    Args:
        method: name, as `get_method` takes it.
        task: id or task.
        budget: inner environment steps of training on the tuning split.
        seed: of the method run.
        store: a store or its directory.
        show_progress: a progress bar on standard error.
        **task_kwargs: options of the environment.

    Raises:
        ValueError: unknown names or options, or too small a budget.
        StoreError: a damaged file in the store.
    """
    plan = _plan(task, (), [method], [0], budget, 1, False, store, task_kwargs)
    with _bar(plan, show_progress) as bar:
        return _fit_all(plan, 1, bar, first=seed)[0].fitted


def stored(directory: str | os.PathLike[str]) -> dict[str, pd.DataFrame]:
    """Comparisons in a store, by a name made of task and settings.

    Where units overlap in policy, run and seed, the larger one counts.

    Raises:
        FileNotFoundError: no such directory, or nothing in it.
        ValueError: one name stands for several results of a method: it was fitted at
            two budgets, or its policy file has changed.
        StoreError: a damaged file.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"no results in {directory}")
    store = Store(directory)
    groups: dict[str, list[dict[str, Any]]] = {}
    for key in store.keys():  # noqa: SIM118 - not a dict
        if key["kind"] != "evaluate":
            continue
        about = {k: key[k] for k in ("version", "definition", "settings", "split")}
        digest = hashlib.sha256(canonical(about).encode()).hexdigest()[:8]
        name = f"{key['task'].replace('/', '-')}-{digest}"
        groups.setdefault(name, []).append(key)
    if not groups:
        raise FileNotFoundError(f"no results in {directory}")
    frames = {}
    for name, keys in groups.items():
        taken: set[tuple[str, int, int]] = set()
        made: dict[tuple[str, int], dict[str, Any] | None] = {}
        parts = []
        for key in sorted(keys, key=lambda key: -len(key["seeds"])):
            who = key["policy"], key["run"]
            if made.setdefault(who, key["fitted"]) != key["fitted"]:
                raise ValueError(_ambiguous(*who, made[who], key["fitted"]))
            fresh = [s for s in key["seeds"] if (*who, s) not in taken]
            taken.update((*who, s) for s in fresh)
            if fresh:
                frame = store.read(key)
                parts.append(frame[frame["seed"].isin(fresh)])
        frames[name] = pd.concat(parts, ignore_index=True)
    return frames


def _ambiguous(name: str, run: int, *fits: dict[str, Any] | None) -> str:
    steps = [f"{fit['cost']['env_steps']:,}" if fit else "no" for fit in fits]
    return (
        f"{name!r}, run {run}, stands for several results of a method in this store, "
        f"after {' and '.join(steps)} steps of tuning; give them directories of their "
        "own, or delete what is out of date"
    )


def unit_key(
    task: Task,
    policy: str,
    seeds: list[int],
    split: str,
    options: dict[str, Any],
    run: int = 0,
    fitted: Fitted | None = None,
    kind: str = "evaluate",
    digest: str | None = None,
) -> dict[str, Any]:
    """What names a unit of work in the store: everything its result depends on.

    ``digest`` is of the file of a user's policy, see `policies.source`.
    """
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    made = None
    if fitted is not None:
        cost, online = asdict(fitted.cost), fitted.online
        made = {"policy": identity(fitted.policy), "cost": cost, "online": online}
    return {
        "kind": kind,
        "version": __version__,
        "task": task.id,
        # a user's task may change under the same id
        "definition": task.definition(),
        "settings": settings,
        "policy": policy,
        "run": run,
        "fitted": made,
        "split": split,
        "seeds": seeds,
        **({} if digest is None else {"source": digest}),
    }


# -- what is to be done ---------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """A comparison, checked."""

    task: Task
    policies: list[str]
    methods: list[str]
    seeds: list[int]
    tuning_budget: int
    runs: int
    store: Store | None
    options: dict[str, Any]  # of the environment

    @property
    def steps(self) -> int:
        """Inner environment steps of one run."""
        return int(self.options.get("budget") or self.task.budget)

    @property
    def fitting_steps(self) -> int:
        """Inner environment steps of all runs of all methods."""
        return self.tuning_budget * len(self.methods) * self.runs


@dataclass(frozen=True)
class _Fit:
    """One run of a method."""

    method: str
    run: int
    fitted: Fitted


@dataclass(frozen=True)
class _Unit:
    """A policy on a batch of seeds."""

    name: str
    run: int
    policy: Policy
    seeds: list[int]
    split: str
    kind: str = "evaluate"

    def key(self, plan: _Plan) -> dict[str, Any]:
        fitted = self.policy if isinstance(self.policy, Fitted) else None
        return unit_key(
            plan.task,
            self.name,
            self.seeds,
            self.split,
            plan.options,
            self.run,
            fitted,
            self.kind,
            source(self.policy),
        )


def _plan(
    task: str | Task,
    policies: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    tuning_budget: int | None,
    runs: int,
    total: bool,
    store: Store | str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> _Plan:
    """What is wrong should come to light before hours of work."""
    task, seeds = get_task(task), checked_seeds(seeds)
    names = [*policies, *methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"policies or methods must be given, and once each; got {names}"
        )
    options = dict(options)
    check_options(options)
    if total and options.setdefault("feedback", "train") != "train":
        raise ValueError(
            "an equal total budget needs feedback='train': evaluation episodes take as "
            "many steps as they last"
        )
    for name in policies:
        policy = get_policy(name)
        check_made_for(policy, task, name, options)
        suitable = suitable_options(policy, task, options)
        suitable.pop("num_workers", None)  # for a single member, tried here
        policy.reset(PopulationEnv(task, 1, **suitable), 0)
    spend = 0
    if methods:
        steps = options.get("budget") or task.budget
        if tuning_budget is None:
            raise ValueError(
                f"methods need a tuning budget, of at least one run ({steps:,} steps)"
            )
        if runs < 1:
            raise ValueError(f"runs must be at least 1, got {runs}")
        spend = int(tuning_budget) - total * steps
        if spend < steps:
            least = (1 + total) * steps
            raise ValueError(
                f"a tuning budget of {tuning_budget:,} is too small for {task.id}; at "
                f"least {least:,} steps are needed"
            )
        for name in methods:
            if not is_dataclass(get_method(name)):
                raise ValueError(
                    f"the method {name!r} is no dataclass, whose fields tell its fits "
                    "apart"
                )
        PopulationEnv(task, 1, **{**options, "num_workers": 1})
    if store is not None and not isinstance(store, Store):
        store = Store(store)
    return _Plan(
        task, list(policies), list(methods), seeds, spend, runs, store, options
    )


def _check_workers(workers: int, batch: int) -> None:
    if workers < 1 or batch < 1:
        raise ValueError(
            f"workers and batch must be at least 1, got {workers} and {batch}"
        )


def _bar(plan: _Plan, shown: bool) -> Any:
    tested = len(plan.policies) + len(plan.methods) * plan.runs
    return tqdm(
        total=plan.fitting_steps + tested * len(plan.seeds) * plan.steps,
        unit=" steps",
        unit_scale=True,
        desc=plan.task.id,
        disable=not shown,
    )


def _spread(fitted: Fitted) -> list[tuple[Cost, Policy]]:
    """At most `ANYTIME_POINTS` of the incumbents, the first and the last among them."""
    course = fitted.incumbents
    if len(course) <= ANYTIME_POINTS:
        return course
    spent = np.log([1 + cost.env_steps for cost, _ in course])
    wanted = np.linspace(spent[0], spent[-1], ANYTIME_POINTS)
    # the incumbent that stands at each of the points
    at = np.searchsorted(spent, wanted + 1e-9, side="right") - 1
    return [course[k] for k in np.unique(at)]


def _shuffled(fitted: Fitted) -> Fitted:
    """A trained controller with the same account, that sees what others observe."""
    policy: Any = fitted.policy
    return Fitted(policy.shuffled(), fitted.cost, task=fitted.task)


# -- doing it -------------------------------------------------------------------


def _fit_all(plan: _Plan, workers: int, bar: Any, first: int = 0) -> list[_Fit]:
    """All runs of all methods, from the store where they are in it."""
    units = [(name, first + run) for name in plan.methods for run in range(plan.runs)]
    keys = [
        fit_key(plan.task, get_method(name), plan.tuning_budget, run, plan.options)
        for name, run in units
    ]
    directory = None if plan.store is None else plan.store.directory
    jobs = [
        (_fit_unit, (name, plan.task, plan.tuning_budget, run, directory, plan.options))
        for name, run in units
    ]
    sizes = [plan.tuning_budget] * len(units)
    frames = run_units(plan.store, keys, jobs, sizes, workers, bar)
    if directory is not None:
        for key in keys:
            shutil.rmtree(journal_path(directory, key), ignore_errors=True)
    fits = []
    for (name, run), frame in zip(units, frames, strict=True):
        fitted = fitted_of(frame)
        fitted.task, fitted.settings = plan.task.id, dict(plan.options)
        fits.append(_Fit(name, run, fitted))
    return fits


def _evaluate_all(
    plan: _Plan, units: list[_Unit], workers: int, bar: Any
) -> list[pd.DataFrame]:
    keys = [unit.key(plan) for unit in units]
    jobs = [(_evaluate_unit, (unit, plan.task, plan.options)) for unit in units]
    sizes = [plan.steps * len(unit.seeds) for unit in units]
    return run_units(plan.store, keys, jobs, sizes, workers, bar)


def _fit_unit(
    method: str,
    task: Task,
    budget: int,
    seed: int,
    directory: Path | None,
    options: dict[str, Any],
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    store = None if directory is None else Store(directory)
    fitted = get_method(method).fit(task, budget, seed, store, progress, **options)
    return fit_frame(fitted)


def _evaluate_unit(
    unit: _Unit, task: Task, options: dict[str, Any], progress: Callable[[int], Any]
) -> pd.DataFrame:
    return evaluate(
        unit.policy,
        task,
        unit.seeds,
        unit.split,
        name=unit.name,
        run=unit.run,
        progress=progress,
        **options,
    )


def fit_frame(fitted: Fitted) -> pd.DataFrame:
    """A fit as rows: one an incumbent, the last being the result; then its trace."""
    incumbents = pd.DataFrame(
        [
            {
                "row": "incumbent",
                **asdict(cost),
                "online": np.nan if fitted.online is None else fitted.online,
                "policy": json.dumps(to_json(policy), sort_keys=True),
            }
            for cost, policy in fitted.incumbents
        ]
    )
    if fitted.trace is None:
        return incumbents
    return pd.concat([incumbents, fitted.trace.assign(row="trace")], ignore_index=True)


def fitted_of(frame: pd.DataFrame) -> Fitted:
    """The fit that `fit_frame` wrote."""
    course: list[tuple[Cost, Policy]] = []
    incumbents = frame[frame["row"] == "incumbent"]
    for row in incumbents.to_dict("records"):
        cost = Cost(
            int(row["env_steps"]),
            int(row["eval_steps"]),
            int(row["gradient_steps"]),
            float(row["flops"]),
        )
        course.append((cost, from_json(json.loads(row["policy"]))))
    online = float(incumbents["online"].iloc[-1])
    trace = None
    if "generation" in frame:
        trace = frame[frame["row"] == "trace"]
        trace = trace.drop(columns=["row", "online", "policy", *asdict(Cost())])
        whole = ["generation", "member", "parent", "step"]
        trace = trace.astype(dict.fromkeys(whole, np.int64)).reset_index(drop=True)
    cost, policy = course[-1]
    online_score = None if np.isnan(online) else online
    return Fitted(policy, cost, course, online_score, trace=trace)


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
