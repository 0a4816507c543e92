"""Doing what a comparison is to do, in units: fits, and policies on batches of seeds.

With a store, finished units are kept, and found again by the next call with the same
arguments; a fit that was interrupted goes on from its journal.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd

from dacrl_env.comparison.before import (
    check_policy,
)
from dacrl_env.comparison.evaluation import (
    run_policy,
)
from dacrl_env.comparison.plan import Plan
from dacrl_env.comparison.results import (
    arranged,
    divide,
    fitted_of,
    independent,
    named,
    origin_of,
    renew,
    tell_unnamed,
    unit_key,
)
from dacrl_env.comparison.returned import written
from dacrl_env.comparison.units import run_units
from dacrl_env.core.blame import blame_if_users, is_users
from dacrl_env.core.installed import version
from dacrl_env.core.provenance import NoSource, check_files, files_of
from dacrl_env.core.store import Store
from dacrl_env.core.trackers import TrackedRun, Tracker, tracked
from dacrl_env.methods.trials import fit_key, forget_journal
from dacrl_env.policies import (
    Fitted,
    Method,
    Policy,
    get_method,
)
from dacrl_env.tasks import Task

Wanted = list[tuple["Subject", list[int]]]  # policies, and the seeds of each


@dataclass(frozen=True)
class Fit:
    """One run of a method."""

    method: str
    run: int
    fitted: Fitted
    origin: Any  # of the method; None: it cannot be told


@dataclass(frozen=True)
class Subject:
    """A policy that is evaluated."""

    name: str
    run: int
    policy: Policy
    split: str
    kind: str = "evaluate"
    spec: str | None = None  # the text that it was given as; None: it was an object
    origin: Any = None  # of a fit
    unnamed: bool = False  # what it is made by cannot be told, as was said

    def key(self, plan: Plan) -> dict[str, Any]:
        """Of its results, with seeds left open.

        Raises:
            NoSource: of the policy, the task or an option it cannot be told.
        """
        fitted = self.policy if isinstance(self.policy, Fitted) else None
        origin = self.origin
        if origin is None:
            origin = origin_of(self.policy, self.spec)
        key = unit_key(
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
        return key | ({"trajectories": True} if plan.trajectories else {})


@dataclass(frozen=True)
class Same:
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


def same_of(plan: Plan, thing: Any) -> Same:
    """Of a policy or method and the task of a plan."""
    things = [type(thing), *filter(callable, plan.options.values())]
    env = plan.task.inner_env
    spec = gym.registry.get(env.rpartition(":")[2]) if isinstance(env, str) else None
    things += [] if spec is None or spec.entry_point is None else [spec.entry_point]
    try:
        return Same(version(), files_of(*things))
    except NoSource:  # it is run, and not kept
        return Same(version(), {})


def of_fit(fit: Fit, split: str, kind: str = "evaluate") -> Subject:
    """What a fit returned, to be evaluated."""
    origin = fit.origin
    return Subject(
        fit.method,
        fit.run,
        fit.fitted,
        split,
        kind,
        origin=origin,
        unnamed=origin is None,
    )


def shuffled_of(fit: Fit) -> Fit:
    """A trained controller with the same account, that sees what others observe."""
    policy: Any = fit.fitted.policy
    found = fit.fitted
    fitted = Fitted(policy.shuffled(), found.cost, task=found.task, about=found.about)
    return replace(fit, method=f"{fit.method} shuffled", fitted=fitted)


def with_shuffled(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels by name, those of shuffled controllers, too."""
    shown = {f"{name} shuffled": f"{label} shuffled" for name, label in labels.items()}
    return {**shown, **labels}


def fit_all(plan: Plan, bar: Any, first: int = 0) -> list[Fit]:
    """All runs of all methods, from the store where they are in it."""
    return fit_plans([plan], bar, [first])


def fit_plans(plans: Sequence[Plan], bar: Any, firsts: Sequence[int]) -> list[Fit]:
    """The same of several plans with one store and one who does units of work."""
    works = [_fits_of(plan, first) for plan, first in zip(plans, firsts, strict=True)]
    keys = [key for work in works for key in work.keys]
    jobs = [job for work in works for job in work.jobs]
    sizes = [work.plan.tuning_budget for work in works for _ in work.units]
    store, doing = plans[0].store, plans[0].runner
    frames = iter(run_units(store, keys, jobs, sizes, doing, bar))
    for key in keys:
        if store is not None and key is not None:
            forget_journal(store.directory, key)
    fits = []
    for work in works:
        plan = work.plan
        for (name, run), key in zip(work.units, work.keys, strict=True):
            fitted = fitted_of(next(frames))
            fitted.task, fitted.settings = plan.task.id, dict(plan.options)
            fitted.about = {"method": name, "budget": plan.tuning_budget}
            origin = None
            if key is not None:
                origin = {k: key[k] for k in ("origin", "arguments")}
            fits.append(Fit(name, run, fitted, origin))
    return fits


@dataclass(frozen=True)
class _Fits:
    """Units of work that are the fits of a plan."""

    plan: Plan
    units: list[tuple[str, int]]  # method and run
    keys: list[Any]
    jobs: list[Any]


def _fits_of(plan: Plan, first: int) -> _Fits:
    units = [(name, first + run) for name in plan.methods for run in range(plan.runs)]
    makers = {name: plan.method(name) for name in plan.methods}
    keys = named(
        plan.store,
        [
            partial(
                fit_key, plan.task, makers[name], plan.tuning_budget, run, plan.options
            )
            for name, run in units
        ],
    )
    same = {name: same_of(plan, maker) for name, maker in makers.items()}
    jobs = []
    for (name, run), key in zip(units, keys, strict=True):
        keeps = plan.store is not None and key is not None
        directory = plan.store.directory if plan.store is not None and keeps else None
        maker = (same[name], name, plan.objects.get(name))
        shown = TrackedRun("fit", plan.task.id, plan.labels.get(name, name), run)
        told = (plan.tracker, shown)
        about = (plan.task, plan.tuning_budget, run, directory, plan.options, *told)
        jobs.append((fit_unit, (*maker, *about)))
    return _Fits(plan, units, keys, jobs)


def compare_plans(plans: Sequence[Plan], bar: Any) -> list[pd.DataFrame]:
    """Results of each of several plans, which share a store and who does the units."""
    fits = iter(fit_plans(plans, bar, [0] * len(plans)))
    wanted = []
    for plan in plans:
        own = [next(fits) for _ in range(len(plan.methods) * plan.runs)]
        subjects = [
            (
                Subject(name, 0, plan.policy(name), plan.split, spec=plan.spec(name)),
                plan.policy_seeds,
            )
            for name in plan.policies
        ]
        subjects += [(of_fit(fit, plan.split), plan.seeds) for fit in own]
        if plan.shuffled:
            others = [
                (of_fit(shuffled_of(fit), plan.split), plan.seeds)
                for fit in own
                if hasattr(fit.fitted.policy, "shuffled")
            ]
            subjects += others
            bar.total += len(others) * len(plan.seeds) * plan.steps
        wanted.append(subjects)
    made = iter(evaluate_plans(plans, wanted, bar))
    found = []
    for plan, subjects in zip(plans, wanted, strict=True):
        frames = [next(made) for _ in subjects]
        found.append(labelled(pd.concat(frames, ignore_index=True), plan.labels))
    return found


def labelled(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Results whose policies have their labels for names."""
    shown = with_shuffled(labels)
    return frame.assign(policy=[shown.get(name, name) for name in frame["policy"]])


def evaluate_plans(
    plans: Sequence[Plan], wanted: Sequence[Wanted], bar: Any
) -> list[pd.DataFrame]:
    """A frame for each policy on its seeds; what is in the store is not run again.

    Args:
        plans: with one store and one who does the units.
        wanted: of each plan policies and their seeds.
        bar: of progress.

    Returns:
        The frames of the first plan's policies, then those of the next.
    """
    store, reasons = plans[0].store, []
    works = []
    for plan, subjects in zip(plans, wanted, strict=True):
        for subject, seeds in subjects:
            key = None
            # of a fit without a name it has been said already
            if store is not None and not subject.unnamed:
                try:
                    key = subject.key(plan)
                except NoSource as error:
                    reasons.append(str(error))
            works.append(_evaluation_of(plan, subject, seeds, key, bar))
    tell_unnamed(reasons)
    keys = [key for work in works for key in work.keys]
    jobs = [job for work in works for job in work.jobs]
    sizes = [work.plan.steps * len(job[1][2]) for work in works for job in work.jobs]
    there = [store is not None and key is not None and key in store for key in keys]
    made = iter(run_units(store, keys, jobs, sizes, plans[0].runner, bar))
    frames = []
    for work in works:
        own = [store.read(unit) for unit in work.found] if store is not None else []
        own += [next(made) for _ in work.jobs]
        frames.append(arranged(own, work.seeds, work.plan.batch))
    if store is not None:
        again = [key for key, old in zip(keys, there, strict=True) if old]
        renew(store, [*again, *(unit for work in works for unit in work.found)])
    return frames


@dataclass(frozen=True)
class _Evaluation:
    """Of a policy: what is in the store, and units of work."""

    plan: Plan
    seeds: list[int]
    found: list[dict[str, Any]]  # units in the store
    keys: list[Any]
    jobs: list[Any]


def _evaluation_of(
    plan: Plan, subject: Subject, seeds: list[int], key: Any, bar: Any
) -> _Evaluation:
    mixed = independent(subject.policy, plan.options)
    kept, parts = divide(plan.store, key, seeds, plan.batch, mixed)
    bar.update(plan.steps * len(kept))
    same = same_of(plan, subject.policy)
    shown = with_shuffled(plan.labels).get(subject.name, subject.name)
    given = (plan.task, plan.options, plan.trajectories, plan.tracker, shown)
    return _Evaluation(
        plan,
        seeds,
        list({id(unit): unit for unit in kept.values()}.values()),
        [None if key is None else {**key, "seeds": part} for part in parts],
        [(evaluate_unit, (same, subject, part, *given)) for part in parts],
    )


def fit_unit(
    same: Same,
    name: str,
    method: Method | None,
    task: Task,
    budget: int,
    seed: int,
    directory: Path | None,
    options: dict[str, Any],
    tracker: Tracker | None,
    shown: TrackedRun,
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    """One run of a method, which is made here unless it was given as an object."""
    store = None if directory is None else Store(directory)
    made = get_method(name) if method is None else copy.deepcopy(method)
    same.check()
    with blame_if_users(made, f"method {name}, fit()"), tracked(tracker, shown):
        fitted = made.fit(task, budget, seed, store, progress, **options)

    def suits(policy: Policy) -> None:
        if is_users(type(made).fit):
            check_policy(policy, "it", task, "test", options)

    return written(fitted, name, seed, directory, suits)


def evaluate_unit(
    same: Same,
    subject: Subject,
    seeds: list[int],
    task: Task,
    options: dict[str, Any],
    trajectories: bool,
    tracker: Tracker | None,
    shown: str,
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    """One policy on a batch of seeds."""
    same.check()
    return run_policy(
        copy.deepcopy(subject.policy),
        task,
        seeds,
        subject.split,
        name=subject.name,
        run=subject.run,
        progress=progress,
        tracker=tracker,
        label=shown,
        trajectories=trajectories,
        **options,
    )
