"""The same policies and methods on several tasks.

One comparison is done after the other, or, where units of work are done by a cluster,
all at once.

What is wrong on any task comes to light before anything is trained on the first.
`dacrl_env.comparison.aggregate` says what the tasks come to together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dacrl_env.comparison.comparison import check, compare, compare_several
from dacrl_env.comparison.executors import is_elsewhere
from dacrl_env.comparison.given import Given, MethodLike, PolicyLike, Several, given
from dacrl_env.comparison.plan import Expected, tuning_steps
from dacrl_env.policies import get_method, get_policy
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import get_task

_PROBE = "default"  # a policy that suits every task: what is wrong then is the task's


@dataclass(frozen=True)
class Unfit:
    """A policy or method that a task is not compared with.

    Attributes:
        task: id.
        policy: name or label.
        reason: why it does not suit the task.
    """

    task: str
    policy: str
    reason: str


@dataclass(frozen=True)
class TaskPlan:
    """What is compared on one task of a suite.

    Attributes:
        task: the task.
        policies: those that suit it, as `compare` takes them.
        methods: the same.
        options: all other keyword arguments of `compare`.
    """

    task: Task
    policies: Mapping[str, Any]
    methods: Mapping[str, Any]
    options: Mapping[str, Any]


def compare_suite(
    tasks: Iterable[str | Task],
    policies: Several[PolicyLike] = (),
    seeds: int | Sequence[int] = range(64),
    *,
    methods: Several[MethodLike] = (),
    tuning_budget: int | None = None,
    tuning_runs: int | None = None,
    skip_unfit: bool = False,
    task_options: Mapping[str, Mapping[str, Any]] | None = None,
    show_progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Run the same policies on several tasks.

    Args:
        tasks: ids or tasks, each once.
        policies: as in `dacrl_env.compare`, for every task.
        seeds: of the test runs, the same on every task.
        methods: as there.
        tuning_budget: as there, the same on every task.
        tuning_runs: instead: the tuning budget in runs of each task, whose lengths
            differ.
        skip_unfit: leave out what does not suit a task, instead of an error.
        task_options: options of the environment for single tasks, by id.
        show_progress: a progress bar for each task on standard error.
        **options: other arguments of `dacrl_env.compare` (``store``, ``runs``,
            ``total``, …) and options of the environment, for all tasks.

    Returns:
        The frames of `dacrl_env.compare`, one task after the other; the ``task`` column
        tells them apart. Pairs that were left out have no rows.

    Raises:
        ValueError: before anything is run: as `dacrl_env.compare`, with the task and
            the policy named; no task, or one given twice; a policy that suits no task.
        OSError, StoreError: as `dacrl_env.compare`.
    """
    plans, _ = plan_suite(
        tasks,
        policies,
        seeds,
        methods=methods,
        tuning_budget=tuning_budget,
        tuning_runs=tuning_runs,
        skip_unfit=skip_unfit,
        task_options=task_options,
        **options,
    )
    frames = [frame for _, frame in run_suite(plans, show_progress)]
    return pd.concat(frames, ignore_index=True)


def plan_suite(
    tasks: Iterable[str | Task],
    policies: Several[PolicyLike] = (),
    seeds: int | Sequence[int] = range(64),
    *,
    methods: Several[MethodLike] = (),
    tuning_budget: int | None = None,
    tuning_runs: int | None = None,
    skip_unfit: bool = False,
    task_options: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> tuple[list[TaskPlan], list[Unfit]]:
    """What `compare_suite` runs, checked; nothing is trained.

    Returns:
        A plan for each task that something suits, and what is left out.

    Raises:
        ValueError, OSError: as `compare_suite`.
    """
    made = [get_task(task) for task in checked_tasks(tasks)]
    own = task_options or {}
    strange = [name for name in own if name not in {task.id for task in made}]
    if strange:
        raise ValueError(f"task_options has {strange[0]!r}, which is none of the tasks")
    things: dict[str, dict[str, Any]] = {
        "policies": _by_name(given(policies, "policy"), get_policy),
        "methods": _by_name(given(methods, "method"), get_method),
    }
    if not any(things.values()):
        raise ValueError("policies or methods must be given")
    if tuning_budget is not None and tuning_runs is not None:
        raise ValueError(
            "tuning_budget and tuning_runs are both what a method may spend; give one"
        )
    plans, unfit = [], []
    for task in made:
        whole = {**options, **own.get(task.id, {}), "seeds": seeds}
        if tuning_runs is not None:
            length = whole.get("budget") or task.budget
            whole["tuning_budget"] = tuning_runs * length
        elif tuning_budget is not None:
            whole["tuning_budget"] = tuning_budget
        _check(task, policies={_PROBE: _PROBE}, **whole)
        if things["methods"]:
            budget, total = whole.get("tuning_budget"), whole.get("total", False)
            with _naming(task):
                tuning_steps(task, budget, total, whole)
        fitting: dict[str, dict[str, Any]] = {"policies": {}, "methods": {}}
        for kind, several in things.items():
            for name, thing in several.items():
                try:
                    check(task, **{kind: {name: thing}, **whole})
                except ValueError as error:
                    unfit.append(Unfit(task.id, name, _reason(error, name)))
                    if not skip_unfit:
                        raise _refusal(unfit[-1], error) from error
                else:
                    fitting[kind][name] = thing
        if not any(fitting.values()):
            continue
        # together, for what only several have: names that are alike, pairs of seeds
        _check(task, **fitting, **whole)
        plans.append(TaskPlan(task, **fitting, options=whole))
    for name in (name for several in things.values() for name in several):
        if sum(u.policy == name for u in unfit) == len(made):
            reason = next(u.reason for u in unfit if u.policy == name)
            raise ValueError(f"{name} suits none of the tasks: {reason}")
    return plans, unfit


def expected(plan: TaskPlan) -> Expected:
    """What a plan takes."""
    return check(plan.task, plan.policies, methods=plan.methods, **plan.options)


def run_suite(
    plans: Sequence[TaskPlan], show_progress: bool = False
) -> Iterator[tuple[TaskPlan, pd.DataFrame]]:
    """Do what `plan_suite` planned, task by task, or at once on a cluster.

    Yields:
        A plan, and the frame of its comparison.
    """
    several = [
        {
            "task": plan.task,
            "policies": plan.policies,
            "methods": plan.methods,
            **plan.options,
        }
        for plan in plans
    ]
    if is_elsewhere(plans[0].options.get("executor")):
        yield from zip(plans, compare_several(several, show_progress), strict=True)
        return
    for plan, arguments in zip(plans, several, strict=True):
        yield plan, compare(**arguments, show_progress=show_progress)


def checked_tasks(tasks: Iterable[str | Task]) -> list[str | Task]:
    """Tasks of a suite, each once.

    Raises:
        ValueError: none, an unknown one, or one given twice.
    """
    if isinstance(tasks, str | Task):
        tasks = [tasks]
    several = list(tasks)
    if not several:
        raise ValueError("no tasks are given")
    ids = [get_task(task).id for task in several]
    for task in ids:
        if ids.count(task) > 1:
            raise ValueError(f"task {task!r} is given twice; once each is enough")
    return several


def _by_name(things: Given, get: Any) -> dict[str, Any]:
    """Policies or methods as a mapping that `compare` takes, made once as a check."""
    found = {}
    for name in things.names:
        # the text of a program's own is read by `compare` as it is here
        main = name.startswith("__main__:")
        thing = name if main else things.objects.get(name, name)
        if isinstance(thing, str):
            get(thing)
        found[things.labels.get(name, name)] = thing
    return found


def _check(task: Task, **arguments: Any) -> None:
    """`check` with the task named in what is wrong."""
    with _naming(task):
        check(task, **arguments)


@contextmanager
def _naming(task: Task) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _named(error, f"{task.id}: {error}") from error


def _reason(error: ValueError, name: str) -> str:
    """What a message says beside the name of the policy."""
    text = str(error)
    for word in ("policy", "method"):
        text = text.removeprefix(f"{word} {name}: ")
    return text


def _refusal(unfit: Unfit, error: ValueError) -> ValueError:
    return _named(
        error,
        f"{unfit.task}: {unfit.policy} does not suit the task: {unfit.reason} "
        "(skip_unfit, on the command line --skip-unfit, leaves such pairs out)",
    )


def _named(error: ValueError, text: str) -> ValueError:
    """Another message for an error, whose code it comes from being kept."""
    other = ValueError(text)
    for name in ("dacrl_blame", "dacrl_traceback"):
        if hasattr(error, name):
            setattr(other, name, getattr(error, name))
    return other
