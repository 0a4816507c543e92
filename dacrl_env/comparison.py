"""Compare policies and methods on the same test runs, with everything charged.

Work is done in units: one fit of a method, or one policy on a batch of seeds. With a
store, finished units are kept, and found again by the next call with the same
arguments; a fit that was interrupted goes on from its journal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
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
    get_method,
    get_policy,
    source,
)
from dacrl_env.registration import get_task
from dacrl_env.results import fit_frame, fitted_of, unit_key
from dacrl_env.store import Store
from dacrl_env.tasks import Task
from dacrl_env.trials import fit_key, journal_path
from dacrl_env.units import run_units
from dacrl_env.vector_env import PopulationEnv

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
