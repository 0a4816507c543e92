"""Compare policies and methods on the same test runs, with everything charged.

Work is done in units: one fit of a method, or one policy on a batch of seeds. With a
store, finished units are kept, and found again by the next call with the same
arguments; a fit that was interrupted goes on from its journal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from tqdm import tqdm

from dacrl_env.evaluation import (
    BATCH,
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
)
from dacrl_env.provenance import NoSource, check_files, files_of, version
from dacrl_env.registration import get_task
from dacrl_env.results import (
    arranged,
    divide,
    fit_frame,
    fitted_of,
    independent,
    named,
    origin_of,
    renew,
    tell_unnamed,
    unit_key,
)
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
        **task_kwargs: options of the environment.

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
        subjects = [
            (_Subject(name, 0, get_policy(name), split), own_seeds) for name in policies
        ]
        subjects += [(_of_fit(fit, split), plan.seeds) for fit in fits]
        if shuffled:
            others = [
                (_of_fit(_shuffled(fit), split), plan.seeds)
                for fit in fits
                if hasattr(fit.fitted.policy, "shuffled")
            ]
            subjects += others
            bar.total += len(others) * len(plan.seeds) * plan.steps
        frames = _evaluate_all(plan, subjects, batch, workers, bar)
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
            (fit, Fitted(policy, cost, about=fit.fitted.about))
            for fit in fits
            for cost, policy in _spread(fit.fitted)
        ]
        given = [
            (_of_fit(replace(fit, fitted=fitted), "test", "anytime"), plan.seeds)
            for fit, fitted in subjects
        ]
        tested = len(given) * len(plan.seeds)
        bar.total = plan.fitting_steps + tested * plan.steps
        frames = _evaluate_all(plan, given, BATCH, workers, bar)
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
    origin: Any  # of the method; None: it cannot be told


@dataclass(frozen=True)
class _Subject:
    """A policy that is evaluated."""

    name: str
    run: int
    policy: Policy
    split: str
    kind: str = "evaluate"
    origin: Any = None  # of a fit
    unnamed: bool = False  # what it is made by cannot be told, as was said

    def key(self, plan: _Plan) -> dict[str, Any]:
        """Of its results, with seeds left open.

        Raises:
            NoSource: of the policy, the task or an option it cannot be told.
        """
        fitted = self.policy if isinstance(self.policy, Fitted) else None
        origin = self.origin
        if origin is None:
            origin = origin_of(self.policy, self.name)
        return unit_key(
            plan.task,
            self.name,
            [],
            self.split,
            plan.options,
            self.run,
            fitted,
            self.kind,
            origin,
        )


@dataclass(frozen=True)
class _Same:
    """What processes must agree on: this package, and files of users' modules."""

    version: str
    files: dict[str, str]

    def check(self) -> None:
        """Raise a ValueError in a process that has others."""
        if version() != self.version:
            raise ValueError(
                "dacrl-env was changed while this ran; the same command runs it anew"
            )
        check_files(self.files)


def _same(plan: _Plan, thing: Any) -> _Same:
    """Of a policy or method and the task of a plan."""
    things = [type(thing), *filter(callable, plan.options.values())]
    env = plan.task.inner_env
    spec = gym.registry.get(env.rpartition(":")[2]) if isinstance(env, str) else None
    things += [] if spec is None or spec.entry_point is None else [spec.entry_point]
    try:
        return _Same(version(), files_of(*things))
    except NoSource:  # it is run, and not kept
        return _Same(version(), {})


def _of_fit(fit: _Fit, split: str, kind: str = "evaluate") -> _Subject:
    origin = fit.origin
    return _Subject(
        fit.method, fit.run, fit.fitted, split, kind, origin, origin is None
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


def _shuffled(fit: _Fit) -> _Fit:
    """A trained controller with the same account, that sees what others observe."""
    policy: Any = fit.fitted.policy
    found = fit.fitted
    fitted = Fitted(policy.shuffled(), found.cost, task=found.task, about=found.about)
    return replace(fit, method=f"{fit.method} shuffled", fitted=fitted)


# -- doing it -------------------------------------------------------------------


def _fit_all(plan: _Plan, workers: int, bar: Any, first: int = 0) -> list[_Fit]:
    """All runs of all methods, from the store where they are in it."""
    units = [(name, first + run) for name in plan.methods for run in range(plan.runs)]
    makers = {name: get_method(name) for name in plan.methods}
    keys = named(
        plan.store,
        [
            partial(
                fit_key, plan.task, makers[name], plan.tuning_budget, run, plan.options
            )
            for name, run in units
        ],
    )
    same = {name: _same(plan, maker) for name, maker in makers.items()}
    jobs = []
    for (name, run), key in zip(units, keys, strict=True):
        keeps = plan.store is not None and key is not None
        directory = plan.store.directory if plan.store is not None and keeps else None
        given = (name, plan.task, plan.tuning_budget, run, directory, plan.options)
        jobs.append((_fit_unit, (same[name], *given)))
    sizes = [plan.tuning_budget] * len(units)
    frames = run_units(plan.store, keys, jobs, sizes, workers, bar)
    for key in keys:
        if plan.store is not None and key is not None:
            path = journal_path(plan.store.directory, key)
            shutil.rmtree(path, ignore_errors=True)
    fits = []
    for (name, run), key, frame in zip(units, keys, frames, strict=True):
        fitted = fitted_of(frame)
        fitted.task, fitted.settings = plan.task.id, dict(plan.options)
        fitted.about = {"method": name, "budget": plan.tuning_budget}
        origin = None if key is None else {k: key[k] for k in ("origin", "arguments")}
        fits.append(_Fit(name, run, fitted, origin))
    return fits


def _evaluate_all(
    plan: _Plan,
    wanted: list[tuple[_Subject, list[int]]],
    batch: int,
    workers: int,
    bar: Any,
) -> list[pd.DataFrame]:
    """A frame for each policy on its seeds; what is in the store is not run again."""
    store, reasons = plan.store, []
    keys: list[Any] = []
    jobs: list[Any] = []
    found: list[list[dict[str, Any]]] = []  # units in the store, of each policy
    runs: list[list[int]] = []  # numbers of those that are run
    for subject, seeds in wanted:
        key = None
        # of a fit without a name it has been said already
        if store is not None and not subject.unnamed:
            try:
                key = subject.key(plan)
            except NoSource as error:
                reasons.append(str(error))
        mixed = independent(subject.policy, plan.options)
        kept, parts = divide(store, key, seeds, batch, mixed)
        bar.update(plan.steps * len(kept))
        found.append(list({id(unit): unit for unit in kept.values()}.values()))
        runs.append(list(range(len(jobs), len(jobs) + len(parts))))
        same = _same(plan, subject.policy)
        keys += [None if key is None else {**key, "seeds": part} for part in parts]
        given = (plan.task, plan.options)
        jobs += [(_evaluate_unit, (same, subject, part, *given)) for part in parts]
    tell_unnamed(reasons)
    there = [store is not None and key is not None and key in store for key in keys]
    sizes = [plan.steps * len(job[1][2]) for job in jobs]
    made = run_units(store, keys, jobs, sizes, workers, bar)
    frames = []
    for (_, seeds), units, numbers in zip(wanted, found, runs, strict=True):
        own = [store.read(unit) for unit in units] if store is not None else []
        own += [made[number] for number in numbers]
        frames.append(arranged(own, seeds, batch))
    if store is not None:
        again = [key for key, old in zip(keys, there, strict=True) if old]
        renew(store, [*again, *(unit for units in found for unit in units)])
    return frames


def _fit_unit(
    same: _Same,
    method: str,
    task: Task,
    budget: int,
    seed: int,
    directory: Path | None,
    options: dict[str, Any],
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    store = None if directory is None else Store(directory)
    made = get_method(method)
    same.check()
    fitted = made.fit(task, budget, seed, store, progress, **options)
    return fit_frame(fitted)


def _evaluate_unit(
    same: _Same,
    subject: _Subject,
    seeds: list[int],
    task: Task,
    options: dict[str, Any],
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    same.check()
    return evaluate(
        subject.policy,
        task,
        seeds,
        subject.split,
        name=subject.name,
        run=subject.run,
        progress=progress,
        **options,
    )
