"""Compare policies and methods on the same test runs, with everything charged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.evaluation import (
    BATCH,
)
from dacrl_env.comparison.executors import Executor
from dacrl_env.comparison.given import (
    Given,
    MethodLike,
    PolicyLike,
    Several,
    checked_seeds,
    given,
)
from dacrl_env.comparison.order import task_first
from dacrl_env.comparison.plan import (
    Expected,
    Plan,
    bar_of,
    expected_of,
    make_plan,
)
from dacrl_env.comparison.work import (
    compare_plans,
    evaluate_plans,
    fit_all,
    fit_plans,
    labelled,
    of_fit,
)
from dacrl_env.core.progress import progress
from dacrl_env.core.store import Store
from dacrl_env.core.trackers import Tracker
from dacrl_env.methods.objectives import with_objectives
from dacrl_env.policies import (
    Cost,
    Fitted,
    Method,
    Policy,
)
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import get_task

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
    plan = planned(
        task,
        policies,
        seeds,
        methods=methods,
        tuning_budget=tuning_budget,
        runs=runs,
        total=total,
        shuffled=shuffled,
        policy_seeds=policy_seeds,
        store=store,
        num_threads=num_threads,
        executor=executor,
        split=split,
        batch=batch,
        tracker=tracker,
        trajectories=trajectories,
        **task_kwargs,
    )
    with bar_of([plan], show_progress) as bar:
        return compare_plans([plan], bar)[0]


def compare_several(
    several: Sequence[Mapping[str, Any]], show_progress: bool = False
) -> list[pd.DataFrame]:
    """Several comparisons at once, whose units are done side by side.

    Args:
        several: the arguments of `compare` for each; the same store and executor.
        show_progress: a progress bar on standard error.

    Returns:
        The frame of each.
    """
    plans = [planned(**arguments) for arguments in several]
    # one executor, and not one for each that was named
    plans = [replace(plan, runner=plans[0].runner) for plan in plans]
    with bar_of(plans, show_progress) as bar:
        return compare_plans(plans, bar)


def planned(
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
    tell: bool = True,
    **task_kwargs: Any,
) -> Plan:
    """What `compare` is to do, checked.

    ``tell=False`` says nothing about decisions, and measures no returns of the task.

    Raises:
        ValueError, OSError: as `compare`.
    """
    return make_plan(
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
        tell=tell,
        tracker=tracker,
        trajectories=trajectories,
    )


def check(
    task: str | Task, *arguments: Any, tested: bool = True, **named: Any
) -> Expected:
    """What `compare` checks before anything is run; for comparisons still to come.

    Args:
        task: as in `compare`.
        *arguments: of `compare`.
        tested: False leaves out the test runs: it is then what `fit` checks.
        **named: of `compare`.

    Returns:
        What it will take, with nothing in the store.

    Raises:
        ValueError, OSError: as `compare`.
    """
    return expected_of(planned(task, *arguments, tell=False, **named), tested)


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
    plan = make_plan(
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
    with bar_of([plan], show_progress) as bar:
        fits = fit_all(plan, bar)
        subjects = [
            (fit, Fitted(policy, cost, about=fit.fitted.about))
            for fit in fits
            for cost, policy in _spread(fit.fitted)
        ]
        wanted = [
            (of_fit(replace(fit, fitted=fitted), "test", "anytime"), plan.seeds)
            for fit, fitted in subjects
        ]
        tested = len(wanted) * len(plan.seeds)
        bar.total = plan.fitting_steps + tested * plan.steps
        frames = evaluate_plans([plan], [wanted], bar)
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
    plan = make_plan(
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
    with bar_of([plan], show_progress) as bar:
        return fit_all(plan, bar, first=first)[0].fitted


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
        make_plan(
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
        return [fit.fitted for fit in fit_plans(plans, bar, firsts)]


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
