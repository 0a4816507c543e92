"""Compare policies and methods on the same test runs, with everything charged.

Work is done in units: one fit of a method, or one policy on a batch of seeds. With a
store, finished units are kept, and found again by the next call with the same
arguments; a fit that was interrupted goes on from its journal.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from dacrl_env.before import (
    check_copies,
    check_method,
    check_policy,
    check_room,
    check_travel,
    member_bytes,
)
from dacrl_env.blame import blame_if_users
from dacrl_env.decisions import tell_intervals
from dacrl_env.evaluation import (
    BATCH,
    batches,
    check_options,
    run_policy,
)
from dacrl_env.given import (
    Given,
    MethodLike,
    PolicyLike,
    Several,
    checked_seeds,
    given,
)
from dacrl_env.policies import (
    Cost,
    Fitted,
    Method,
    Policy,
    get_method,
    get_policy,
    source,
)
from dacrl_env.registration import get_task
from dacrl_env.results import fitted_of, unit_key
from dacrl_env.returned import written
from dacrl_env.store import Store, canonical
from dacrl_env.tasks import Task
from dacrl_env.trials import fit_key, forget_journal
from dacrl_env.units import run_units

ANYTIME_POINTS = 12  # incumbents of a fit that are tested, spread over its budget


def compare(
    task: str | Task,
    policies: Several[PolicyLike] = (),
    seeds: int | Sequence[int] = range(64),
    *,
    methods: Several[MethodLike] = (),
    tuning_budget: int | None = None,
    runs: int = 5,
    total: bool = False,
    shuffled: bool = False,
    policy_seeds: int | Sequence[int] | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    workers: int = 1,
    split: str = "test",
    batch: int = BATCH,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """Run several policies, and those that methods make, on the same seeds.

    Policies and methods are given one or several, as names, objects, or classes that
    need no arguments; policies also as paths of policy files. A mapping has labels,
    which are in the ``policy`` column instead of names::

        compare(task, {"mine": Mine(depth=2), "slow": "linear-epsilon,fraction=0.5"}, 8)

    An object is called by its class, with those fields of a dataclass that differ from
    their defaults. Every unit of work has a copy of it, as it was when it was given.

    Args:
        task: id or task.
        policies: names as `get_policy` takes them, objects, classes or files.
        seeds: of the test runs, the same for every policy. A number n is range(n).
        methods: names as `get_method` takes them, objects or classes.
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
        ValueError: unknown names or options, a budget below what a method needs, or
            no seeds in common; before anything is run. A method of one's own is asked
            in advance if it has ``check``, see :class:`dacrl_env.Method`.
        OSError: the store cannot be written, or has no room; before anything is run.
        StoreError: a damaged file in the store; nothing in it is changed.
    """
    plan = _plan(
        task,
        given(policies, "policy"),
        given(methods, "method"),
        seeds,
        tuning_budget,
        runs,
        total,
        store,
        task_kwargs,
        split=split,
        workers=workers,
        batch=batch,
        shuffled=shuffled,
        policy_seeds=policy_seeds,
    )
    with _bar(plan, show_progress) as bar:
        own_seeds = plan.policy_seeds
        missing = len(own_seeds) - len(plan.seeds)
        bar.total += len(plan.policies) * missing * plan.steps
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
            _Unit(name, 0, plan.policy(name), part, split, spec=plan.spec(name))
            for name in plan.policies
            for part in batches(own_seeds, batch)
        ]
        units += [
            _Unit(name, run, policy, part, split)
            for name, run, policy in fitted
            for part in batches(plan.seeds, batch)
        ]
        frames = _evaluate_all(plan, units, workers, bar)
    return labelled(pd.concat(frames, ignore_index=True), plan.labels)


def check(
    task: str | Task,
    policies: Several[PolicyLike] = (),
    seeds: int | Sequence[int] = range(64),
    *,
    methods: Several[MethodLike] = (),
    tuning_budget: int | None = None,
    runs: int = 5,
    store: Store | str | os.PathLike[str] | None = None,
    workers: int = 1,
    **task_kwargs: Any,
) -> None:
    """What `compare` checks before anything is run; for comparisons still to come.

    Raises:
        ValueError, OSError: as `compare`.
    """
    _plan(
        task,
        given(policies, "policy"),
        given(methods, "method"),
        seeds,
        tuning_budget,
        runs,
        False,
        store,
        task_kwargs,
        workers=workers,
        tell=False,
    )


def labelled(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Results whose policies have their labels for names."""
    shown = {f"{name} shuffled": f"{label} shuffled" for name, label in labels.items()}
    shown |= labels
    return frame.assign(policy=[shown.get(name, name) for name in frame["policy"]])


def anytime(
    task: str | Task,
    methods: Several[MethodLike],
    seeds: int | Sequence[int] = range(16),
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
        methods: as in `compare`, whose fits are found in the store.
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
        task,
        Given(),
        given(methods, "method"),
        seeds,
        tuning_budget,
        runs,
        total,
        store,
        task_kwargs,
        workers=workers,
    )
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
    return labelled(pd.concat(ends, ignore_index=True), plan.labels)


def fit(
    method: MethodLike,
    task: str | Task,
    tuning_budget: int | None = None,
    seed: int = 0,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    show_progress: bool = False,
    run_budget: int | None = None,
    **task_kwargs: Any,
) -> Fitted:
    """Run a method once; with a store, an interrupted fit goes on.

    ``fit(method, task, budget=8_000, seed=0)`` works, too: where no tuning budget is
    given otherwise, ``budget`` is it. Beside one it is the length of a run, as for
    ``gymnasium.make``; ``run_budget`` always is.

    Args:
        method: name as `get_method` takes it, object, or class without arguments.
        task: id or task.
        tuning_budget: inner environment steps of training on the tuning split.
        seed: of the method run.
        store: a store or its directory.
        show_progress: a progress bar on standard error.
        run_budget: inner environment steps of one run; None: the task's.
        **task_kwargs: options of the environment.

    Raises:
        ValueError: unknown names or options, too small a budget, or a method that
            returned something that cannot be kept; the message says where it is.
        OSError: the store cannot be written.
        StoreError: a damaged file in the store.
    """
    if tuning_budget is None and "budget" in task_kwargs:
        tuning_budget = task_kwargs.pop("budget")
    if run_budget is not None:
        if task_kwargs.get("budget") is not None:
            raise ValueError(
                f"budget={task_kwargs['budget']!r} and run_budget={run_budget!r} are "
                "both the length of a run here; give one"
            )
        task_kwargs["budget"] = run_budget
    (first,) = checked_seeds([seed])
    one = given(method, "method")
    if len(one.names) != 1:
        raise ValueError(f"one method is fitted at a time, got {', '.join(one.names)}")
    plan = _plan(task, Given(), one, [0], tuning_budget, 1, False, store, task_kwargs)
    with _bar(plan, show_progress) as bar:
        return _fit_all(plan, 1, bar, first=first)[0].fitted


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
    policy_seeds: list[int]
    labels: dict[str, str]  # name to what is shown instead
    objects: dict[str, Any]  # policies and methods that were not given as texts

    def policy(self, name: str) -> Policy:
        """A policy of its own for a unit of work."""
        if name not in self.objects:
            return get_policy(name)
        policy: Policy = copy.deepcopy(self.objects[name])
        return policy

    def method(self, name: str) -> Method:
        """A method."""
        if name not in self.objects:
            return get_method(name)
        method: Method = self.objects[name]
        return method

    def spec(self, name: str) -> str | None:
        """The text that a policy was given as; None: it was an object."""
        return None if name in self.objects else name

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
    spec: str | None = ""  # the text that it was given as; None: it was an object

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
            _told_apart(self.policy, self.spec),
        )


def _told_apart(policy: Policy, spec: str | None) -> str | None:
    """What tells a policy from others of its name."""
    found = source(policy)
    if spec is not None:
        return found
    about = {"source": found, "state": repr(getattr(policy, "__dict__", policy))}
    return hashlib.sha256(canonical(about).encode()).hexdigest()[:16]


def _plan(
    task: str | Task,
    policies: Given,
    methods: Given,
    seeds: int | Sequence[int],
    tuning_budget: int | None,
    runs: int,
    total: bool,
    store: Store | str | os.PathLike[str] | None,
    options: dict[str, Any],
    *,
    split: str = "test",
    workers: int = 1,
    batch: int = BATCH,
    shuffled: bool = False,
    policy_seeds: int | Sequence[int] | None = None,
    tell: bool = True,
) -> _Plan:
    """What is wrong should come to light before hours of work."""
    task, seeds = get_task(task), checked_seeds(seeds)
    names = [*policies.names, *methods.names]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"policies or methods must be given, and once each; got {names}"
        )
    labels = {**policies.labels, **methods.labels}
    shown = [labels.get(name, name) for name in names]
    if len(set(shown)) < len(shown):
        raise ValueError(f"labels and names must differ, got {', '.join(shown)}")
    for what, number in (("workers", workers), ("batch", batch), ("runs", runs)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{what} must be at least 1, got {number!r}")
    own = seeds if policy_seeds is None else checked_seeds(policy_seeds, "policy_seeds")
    if methods.names and not set(own) & set(seeds):
        raise ValueError("policy_seeds and seeds must have seeds in common, for pairs")
    if shuffled and methods.names and min(batch, len(seeds)) < 2:
        raise ValueError(
            "a shuffled policy needs runs side by side, seeds and a batch of at least "
            f"2; got {len(seeds)} and {batch}"
        )
    options = dict(options)
    check_options(options)
    if total and options.setdefault("feedback", "train") != "train":
        raise ValueError(
            "an equal total budget needs feedback='train': evaluation episodes take as "
            "many steps as they last"
        )
    if store is not None and not isinstance(store, Store):
        store = Store(store)
    spend = 0
    if methods.names:
        spend = _spend(task, tuning_budget, total, options)
    plan = _Plan(
        task,
        policies.names,
        methods.names,
        seeds,
        spend,
        int(runs),
        store,
        options,
        own,
        labels,
        {**policies.objects, **methods.objects},
    )
    check_copies(plan.objects)
    for name in plan.policies:
        check_policy(plan.policy(name), name, task, split, options)
        if tell:
            tell_intervals(plan.policy(name), name, task, options, stacklevel=4)
    member = member_bytes(task, options) if plan.methods else 0
    for name in plan.methods:
        check_method(plan.method(name), name, task, spend, split, options)
    if workers > 1:
        check_travel([task, options, *plan.objects.values()])
    if store is not None:
        _check_store(plan, store, workers, member)
    return plan


def _spend(
    task: Task, tuning_budget: Any, total: bool, options: Mapping[str, Any]
) -> int:
    """Training steps that a method may spend on tuning.

    Raises:
        ValueError: none are given, or too few.
    """
    steps = task.budget if options.get("budget") is None else options["budget"]
    if not isinstance(steps, int | np.integer):
        raise ValueError(f"budget must be a whole number, got {steps!r}")
    if tuning_budget is None:
        raise ValueError(
            "methods need a tuning budget: tuning_budget, or --budget on the command "
            f"line, of at least one run ({steps:,} steps)"
        )
    if isinstance(tuning_budget, float) and tuning_budget.is_integer():
        tuning_budget = int(tuning_budget)  # 5e6
    if isinstance(tuning_budget, bool) or not isinstance(
        tuning_budget, int | np.integer
    ):
        raise ValueError(f"a tuning budget is a whole number, got {tuning_budget!r}")
    spend = int(tuning_budget) - total * int(steps)
    if spend < steps:
        least = (1 + total) * steps
        raise ValueError(
            f"a tuning budget of {tuning_budget:,} is too small for {task.id}; at "
            f"least {least:,} steps are needed"
        )
    return spend


def _check_store(plan: _Plan, store: Store, workers: int, member: int) -> None:
    """Raise an OSError if the store cannot be written, or has too little room.

    Args:
        plan: what is to be done.
        store: where it is kept.
        workers: processes.
        member: bytes of the state of one run.
    """
    tests = len(plan.policies) * len(plan.policy_seeds)
    tests += len(plan.methods) * plan.runs * len(plan.seeds)
    members = [getattr(plan.method(n), "population", None) for n in plan.methods]
    sizes = [n if isinstance(n, int) else 64 for n in members]
    paid = plan.tuning_budget // plan.steps
    at_once = min(workers, len(plan.methods) * plan.runs)
    journals = at_once * min(max(sizes, default=0), paid) * member
    check_room(store.directory, tests, journals)


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
        fit_key(plan.task, plan.method(name), plan.tuning_budget, run, plan.options)
        for name, run in units
    ]
    directory = None if plan.store is None else plan.store.directory
    about = (plan.task, plan.tuning_budget)
    jobs = [
        (
            _fit_unit,
            (name, plan.objects.get(name), *about, run, directory, plan.options),
        )
        for name, run in units
    ]
    sizes = [plan.tuning_budget] * len(units)
    frames = run_units(plan.store, keys, jobs, sizes, workers, bar)
    if directory is not None:
        for key in keys:
            forget_journal(directory, key)
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
    name: str,
    method: Method | None,
    task: Task,
    budget: int,
    seed: int,
    directory: Path | None,
    options: dict[str, Any],
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    """One run of a method, which is made here unless it was given as an object."""
    store = None if directory is None else Store(directory)
    made = get_method(name) if method is None else copy.deepcopy(method)
    with blame_if_users(made, f"method {name}"):
        fitted = made.fit(task, budget, seed, store, progress, **options)
    return written(fitted, name, seed, directory)


def _evaluate_unit(
    unit: _Unit, task: Task, options: dict[str, Any], progress: Callable[[int], Any]
) -> pd.DataFrame:
    return run_policy(
        copy.deepcopy(unit.policy),
        task,
        unit.seeds,
        unit.split,
        name=unit.name,
        run=unit.run,
        progress=progress,
        **options,
    )
