"""Compare policies and methods on the same test runs, with everything charged.

Work is done in units: one fit of a method, or one policy on a batch of seeds. With a
store, finished units are kept, and found again by the next call with the same
arguments; a fit that was interrupted goes on from its journal.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from dacrl_env.comparison.before import (
    check_copies,
    check_method,
    check_policy,
    check_room,
    check_travel,
    member_bytes,
)
from dacrl_env.comparison.evaluation import (
    BATCH,
    check_options,
    check_trajectories,
    run_policy,
)
from dacrl_env.comparison.executors import Executor, all_compiled, runner
from dacrl_env.comparison.given import (
    Given,
    MethodLike,
    PolicyLike,
    Several,
    checked_seeds,
    given,
)
from dacrl_env.comparison.order import task_first
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
from dacrl_env.comparison.units import Runner, run_units
from dacrl_env.core.blame import blame_if_users, is_users
from dacrl_env.core.installed import version
from dacrl_env.core.progress import progress
from dacrl_env.core.provenance import NoSource, check_files, files_of
from dacrl_env.core.store import Store
from dacrl_env.core.trackers import TrackedRun, Tracker, check_tracker, tracked
from dacrl_env.methods.objectives import with_objectives
from dacrl_env.methods.trials import fit_key, forget_journal
from dacrl_env.outer.decisions import tell_intervals
from dacrl_env.policies import (
    Cost,
    Fitted,
    Method,
    Policy,
    get_method,
    get_policy,
)
from dacrl_env.policies.tuned import on
from dacrl_env.tasks import Task, bases, measured
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.returns import assumed, filled

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
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    split: str = "test",
    batch: int = BATCH,
    show_progress: bool = False,
    tracker: Tracker | None = None,
    trajectories: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """Run several policies, and those that methods make, on the same seeds.

    Policies and methods are given one or several, as names, objects, or classes that
    need no arguments; policies also as paths of policy files, or as models of
    Stable-Baselines3 (see :func:`dacrl_env.policies.from_sb3`). A mapping has labels,
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
        runs: independent fits of each method; the unit of resampling.
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
        num_threads: cores to use; None: those that this process may use. No result
            depends on it.
        executor: "threads": one unit of work after the other, whose members are trained
            in threads. "processes": as many units side by side, in worker processes. Or
            an executor as those of :mod:`concurrent.futures`, for a cluster: "ray" and
            "submitit" (Slurm), with arguments as in "ray,cores=2", or an object of
            one's own, such as a ``RayExecutor``. None: threads where all of the inner
            run is compiled, processes elsewhere.
        split: "test" or "tuning".
        batch: seeds of a unit of work.
        show_progress: a progress bar on standard error.
        tracker: told of fits and test runs while they go on, see
            :class:`dacrl_env.Tracker`; not of those that are in the store.
        trajectories: also keep observations and actions of the test runs, as
            `evaluate` does. They are units of their own in a store.
        **task_kwargs: options of the environment.

    Returns:
        The frames of `evaluate`, one policy after the other; the ``run`` column holds
        the number of the fit.

    Raises:
        ValueError: unknown names or options, a budget below what a method needs, or
            no seeds in common; before anything is run. A method of one's own is asked
            in advance if it has ``check``, see :class:`dacrl_env.Method`.
        OSError: the store cannot be written, or has no room; before anything is run.
        StoreError: a damaged file in the store; nothing in it is changed.
        ConnectionError: the cluster of an executor is gone; finished work is kept.
        ImportError: the extra of an executor is not installed.
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
        num_threads=num_threads,
        executor=executor,
        batch=batch,
        shuffled=shuffled,
        policy_seeds=policy_seeds,
        tracker=tracker,
        trajectories=trajectories,
    )
    with _bar(plan, show_progress) as bar:
        own_seeds = plan.policy_seeds
        missing = len(own_seeds) - len(plan.seeds)
        bar.total += len(plan.policies) * missing * plan.steps
        fits = _fit_all(plan, bar)
        subjects = [
            (
                _Subject(name, 0, plan.policy(name), split, spec=plan.spec(name)),
                own_seeds,
            )
            for name in plan.policies
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
        frames = _evaluate_all(plan, subjects, batch, bar)
    return labelled(pd.concat(frames, ignore_index=True), plan.labels)


def check(
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
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    split: str = "test",
    batch: int = BATCH,
    tracker: Tracker | None = None,
    trajectories: bool = False,
    tested: bool = True,
    **task_kwargs: Any,
) -> Expected:
    """What `compare` checks before anything is run; for comparisons still to come.

    ``tested=False`` leaves out the test runs: it is then what `fit` checks.

    Returns:
        What it will take, with nothing in the store.

    Raises:
        ValueError, OSError: as `compare`.
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
        num_threads=num_threads,
        executor=executor,
        batch=batch,
        shuffled=shuffled,
        policy_seeds=policy_seeds,
        tell=False,
        tracker=tracker,
        trajectories=trajectories,
    )
    return _expected(plan, shuffled, tested)


def labelled(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Results whose policies have their labels for names."""
    shown = _with_shuffled(labels)
    return frame.assign(policy=[shown.get(name, name) for name in frame["policy"]])


def _with_shuffled(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels by name, those of shuffled controllers, too."""
    shown = {f"{name} shuffled": f"{label} shuffled" for name, label in labels.items()}
    return {**shown, **labels}


def anytime(
    task: str | Task,
    methods: Several[MethodLike],
    seeds: int | Sequence[int] = range(16),
    *,
    tuning_budget: int,
    runs: int = 5,
    total: bool = False,
    store: Store | str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
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
        num_threads: as in `compare`.
        executor: as in `compare`.
        show_progress: a progress bar on standard error.
        **task_kwargs: options of the environment.

    Returns:
        Columns ``policy, run, seed``, ``steps`` (training and evaluation steps spent on
        tuning when the incumbent was found) and ``report_final`` (report score at
        the end of its test run).

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
        num_threads=num_threads,
        executor=executor,
    )
    with _bar(plan, show_progress) as bar:
        fits = _fit_all(plan, bar)
        subjects = [
            (fit, Fitted(policy, cost, about=fit.fitted.about))
            for fit in fits
            for cost, policy in _spread(fit.fitted)
        ]
        wanted = [
            (_of_fit(replace(fit, fitted=fitted), "test", "anytime"), plan.seeds)
            for fit, fitted in subjects
        ]
        tested = len(wanted) * len(plan.seeds)
        bar.total = plan.fitting_steps + tested * plan.steps
        frames = _evaluate_all(plan, wanted, BATCH, bar)
    columns = ["policy", "run", "seed"]
    ends = []
    for frame in frames:
        end = frame.groupby(columns, sort=False).tail(1)
        spent = end["tuning_env_steps"] + end["tuning_eval_steps"]
        ends.append(end[columns].assign(steps=spent, report_final=end["report_score"]))
    return labelled(pd.concat(ends, ignore_index=True), plan.labels)


@task_first("method")
def fit(
    task: str | Task,
    method: MethodLike,
    tuning_budget: int | None = None,
    seed: int = 0,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
    run_budget: int | None = None,
    objectives: str | Sequence[str] | None = None,
    tracker: Tracker | None = None,
    **task_kwargs: Any,
) -> Fitted:
    """Run a method once; with a store, an interrupted fit goes on.

    ``fit(task, method, budget=8_000, seed=0)`` works, too: where no tuning budget is
    given otherwise, ``budget`` is it. Beside one it is the length of a run, as for
    ``gymnasium.make``; ``run_budget`` always is.

    Args:
        task: id or task.
        method: name as `get_method` takes it, object, or class without arguments.
        tuning_budget: inner environment steps of training on the tuning split.
        seed: of the fit.
        store: a store or its directory.
        num_threads: members that are trained at a time; None: as many as there are
            cores that this process may use. No result depends on it.
        executor: as in `compare`; the fit is one unit of work. None: this process.
        show_progress: a progress bar on standard error.
        run_budget: inner environment steps of one run; None: the task's.
        objectives: what the method searches by, of the observed scores "final", "best"
            and "auc", and "cost", the floating-point operations of a run. Several give
            a Pareto front, ``Fitted.front``; the policy is the best in the first.
            "report_auc" and so on stand for the observed scores of that name, since no
            search sees judged ones. None: those of the method.
        tracker: told of the fit while it goes on, see :class:`dacrl_env.Tracker`; not
            of one that is in the store.
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
    if objectives is not None:
        wanted = [objectives] if isinstance(objectives, str) else list(objectives)
        method = with_objectives(method, wanted)
    one = given(method, "method")
    if len(one.names) != 1:
        raise ValueError(f"one method is fitted at a time, got {', '.join(one.names)}")
    plan = _plan(
        task,
        Given(),
        one,
        [0],
        tuning_budget,
        1,
        False,
        store,
        task_kwargs,
        num_threads=num_threads,
        executor="threads" if executor is None else executor,
        tracker=tracker,
    )
    with _bar(plan, show_progress) as bar:
        return _fit_all(plan, bar, first=first)[0].fitted


def fit_several(
    task: str | Task,
    wanted: Sequence[tuple[Method, int, Mapping[str, Any]]],
    tuning_budget: int,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
) -> list[Fitted]:
    """Run methods once each, side by side where the executor does that.

    Args:
        task: id or task.
        wanted: of each fit the method, the seed and the options of the environment.
        tuning_budget: of each, as in `fit`.
        store: a store or its directory.
        num_threads: as in `compare`.
        executor: as in `compare`.
        show_progress: a progress bar on standard error.

    Raises:
        ValueError, OSError, StoreError: as `fit`.
    """
    plans = [
        _plan(
            task,
            Given(),
            given(method, "method"),
            [0],
            tuning_budget,
            1,
            False,
            store,
            dict(options),
            num_threads=num_threads,
            executor=executor,
        )
        for method, _, options in wanted
    ]
    total = sum(plan.fitting_steps for plan in plans)
    with progress(total, get_task(task).id, show_progress) as bar:
        firsts = [seed for _, seed, _ in wanted]
        return [fit.fitted for fit in _fit_plans(plans, bar, firsts)]


# -- what is to be done ---------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What a comparison takes.

    Args:
        task: id.
        tuning_steps: inner environment steps of training, of all fits.
        test_runs: complete runs.
        test_steps: inner environment steps of training in them.
        seconds: about, on ``cores``, by what runs of the default were measured to take
            on some machine (``dacrl references --seconds``); None: they were not.
        cores: that are used.
    """

    task: str
    tuning_steps: int
    test_runs: int
    test_steps: int
    seconds: float | None
    cores: int


def _expected(plan: _Plan, shuffled: bool, tested: bool) -> Expected:
    fits = len(plan.methods) * plan.runs
    runs = len(plan.policies) * len(plan.policy_seeds)
    runs = tested * (runs + fits * len(plan.seeds) * (1 + shuffled))
    steps = runs * plan.steps
    known = measured.seconds().get(bases.original(plan.task.id))
    seconds, cores = None, getattr(plan.runner, "num_threads", 1)
    if known is not None:
        each = known["seconds"] / plan.task.budget
        seconds = (plan.fitting_steps + steps) * each / cores
    return Expected(plan.task.id, plan.fitting_steps, runs, steps, seconds, cores)


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
    runner: Runner
    tracker: Tracker | None = None
    trajectories: bool = False

    def policy(self, name: str) -> Policy:
        """A policy of its own for a unit of work."""
        thing = self.objects.get(name)
        made = get_policy(name) if thing is None else copy.deepcopy(thing)
        policy: Policy = on(made, self.task)
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
    origin: Any  # of the method; None: it cannot be told


@dataclass(frozen=True)
class _Subject:
    """A policy that is evaluated."""

    name: str
    run: int
    policy: Policy
    split: str
    kind: str = "evaluate"
    spec: str | None = None  # the text that it was given as; None: it was an object
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
        fit.method,
        fit.run,
        fit.fitted,
        split,
        kind,
        origin=origin,
        unnamed=origin is None,
    )


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
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    batch: int = BATCH,
    shuffled: bool = False,
    policy_seeds: int | Sequence[int] | None = None,
    tell: bool = True,
    tracker: Tracker | None = None,
    trajectories: bool = False,
) -> _Plan:
    """What is wrong should come to light before hours of work.

    Returns of the task that are measured on first use are, if ``tell``, at the end.
    """
    asked, seeds = get_task(task), checked_seeds(seeds)
    task = assumed(asked)
    names = [*policies.names, *methods.names]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"policies or methods must be given, and once each; got {names}"
        )
    labels = {**policies.labels, **methods.labels}
    shown = [labels.get(name, name) for name in names]
    if len(set(shown)) < len(shown):
        raise ValueError(f"labels and names must differ, got {', '.join(shown)}")
    for what, number in (("batch", batch), ("runs", runs)):
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
    check_tracker(tracker)
    check_trajectories(trajectories)
    units = runner(executor, num_threads, all_compiled(task, options))
    if total and options.setdefault("feedback", "train") != "train":
        raise ValueError(
            "an equal total budget needs feedback='train': evaluation episodes take as "
            "many steps as they last"
        )
    if store is not None and not isinstance(store, Store):
        store = Store(store)
    if store is not None and units.travels:  # to where other directories are current
        store = Store(store.directory.absolute())
    spend = 0
    if methods.names:
        spend = tuning_steps(task, tuning_budget, total, options)
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
        units,
        tracker,
        bool(trajectories),
    )
    check_copies(plan.objects)
    for name in plan.policies:
        check_policy(plan.policy(name), name, task, split, options)
        if tell:
            tell_intervals(plan.policy(name), name, task, options, stacklevel=4)
    member = member_bytes(task, options) if plan.methods else 0
    for name in plan.methods:
        check_method(plan.method(name), name, task, spend, split, options)
    if units.travels:
        check_travel([task, options, tracker, *plan.objects.values()])
    if store is not None:
        _check_store(plan, store, member)
    return replace(plan, task=filled(asked)) if tell else plan


def tuning_steps(
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


def _check_store(plan: _Plan, store: Store, member: int) -> None:
    """Raise an OSError if the store cannot be written, or has too little room.

    Args:
        plan: what is to be done.
        store: where it is kept.
        member: bytes of the state of one run.
    """
    tests = len(plan.policies) * len(plan.policy_seeds)
    tests += len(plan.methods) * plan.runs * len(plan.seeds)
    members = [getattr(plan.method(n), "population", None) for n in plan.methods]
    sizes = [n if isinstance(n, int) else 64 for n in members]
    paid = plan.tuning_budget // plan.steps
    at_once = min(plan.runner.at_once, len(plan.methods) * plan.runs)
    journals = at_once * min(max(sizes, default=0), paid) * member
    check_room(store.directory, tests, journals)


def _bar(plan: _Plan, shown: bool) -> Any:
    tested = len(plan.policies) + len(plan.methods) * plan.runs
    total = plan.fitting_steps + tested * len(plan.seeds) * plan.steps
    return progress(total, plan.task.id, shown)


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


def _fit_all(plan: _Plan, bar: Any, first: int = 0) -> list[_Fit]:
    """All runs of all methods, from the store where they are in it."""
    return _fit_plans([plan], bar, [first])


def _fit_plans(plans: Sequence[_Plan], bar: Any, firsts: Sequence[int]) -> list[_Fit]:
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
            fits.append(_Fit(name, run, fitted, origin))
    return fits


@dataclass(frozen=True)
class _Fits:
    """Units of work that are the fits of a plan."""

    plan: _Plan
    units: list[tuple[str, int]]  # method and run
    keys: list[Any]
    jobs: list[Any]


def _fits_of(plan: _Plan, first: int) -> _Fits:
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
    same = {name: _same(plan, maker) for name, maker in makers.items()}
    jobs = []
    for (name, run), key in zip(units, keys, strict=True):
        keeps = plan.store is not None and key is not None
        directory = plan.store.directory if plan.store is not None and keeps else None
        maker = (same[name], name, plan.objects.get(name))
        shown = TrackedRun("fit", plan.task.id, plan.labels.get(name, name), run)
        told = (plan.tracker, shown)
        about = (plan.task, plan.tuning_budget, run, directory, plan.options, *told)
        jobs.append((_fit_unit, (*maker, *about)))
    return _Fits(plan, units, keys, jobs)


def _evaluate_all(
    plan: _Plan,
    wanted: list[tuple[_Subject, list[int]]],
    batch: int,
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
        shown = _with_shuffled(plan.labels).get(subject.name, subject.name)
        given = (plan.task, plan.options, plan.trajectories, plan.tracker, shown)
        jobs += [(_evaluate_unit, (same, subject, part, *given)) for part in parts]
    tell_unnamed(reasons)
    there = [store is not None and key is not None and key in store for key in keys]
    sizes = [plan.steps * len(job[1][2]) for job in jobs]
    made = run_units(store, keys, jobs, sizes, plan.runner, bar)
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


def _evaluate_unit(
    same: _Same,
    subject: _Subject,
    seeds: list[int],
    task: Task,
    options: dict[str, Any],
    trajectories: bool,
    tracker: Tracker | None,
    shown: str,
    progress: Callable[[int], Any],
) -> pd.DataFrame:
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
