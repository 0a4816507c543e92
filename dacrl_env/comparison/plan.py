"""What a comparison is to do: checked, before hours of work, and what it takes."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
)
from dacrl_env.comparison.executors import Executor, all_compiled, runner
from dacrl_env.comparison.given import (
    Given,
    checked_seeds,
)
from dacrl_env.comparison.units import Runner
from dacrl_env.core.progress import progress
from dacrl_env.core.store import Store
from dacrl_env.core.trackers import Tracker, check_tracker
from dacrl_env.outer.decisions import tell_intervals
from dacrl_env.policies import (
    Method,
    Policy,
    get_method,
    get_policy,
)
from dacrl_env.policies.tuned import on
from dacrl_env.tasks import Task, bases, measured
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.returns import assumed, filled


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


def expected_of(plan: Plan, tested: bool) -> Expected:
    """What a plan takes, with tests or without."""
    fits = len(plan.methods) * plan.runs
    runs = len(plan.policies) * len(plan.policy_seeds)
    runs = tested * (runs + fits * len(plan.seeds) * (1 + plan.shuffled))
    steps = runs * plan.steps
    names, times = (plan.task.id, bases.original(plan.task.id)), measured.seconds()
    known = next((times[name] for name in names if name in times), None)
    seconds, cores = None, getattr(plan.runner, "num_threads", 1)
    if known is not None:
        each = known["seconds"] / plan.task.budget
        seconds = (plan.fitting_steps + steps) * each / cores
    return Expected(plan.task.id, plan.fitting_steps, runs, steps, seconds, cores)


@dataclass(frozen=True)
class Plan:
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
    split: str
    batch: int
    shuffled: bool
    tracker: Tracker | None
    trajectories: bool

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


def make_plan(
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
) -> Plan:
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
    if total and options.get("feedback") is None:
        options["feedback"] = "train"
    if total and options["feedback"] != "train":
        raise ValueError(
            "an equal total budget needs feedback='train': evaluation episodes take as "
            "many steps as they last"
        )
    spend = 0
    if methods.names:
        spend = tuning_steps(task, tuning_budget, total, options)
    plan = Plan(
        task,
        policies.names,
        methods.names,
        seeds,
        spend,
        int(runs),
        None,
        options,
        own,
        labels,
        {**policies.objects, **methods.objects},
        units,
        split,
        int(batch),
        shuffled,
        tracker,
        bool(trajectories),
    )
    check_copies(plan.objects)
    for name in plan.policies:
        check_policy(plan.policy(name), name, task, split, options)
        if tell:
            tell_intervals(plan.policy(name), name, task, options, stacklevel=5)
    member = member_bytes(task, options) if plan.methods else 0
    for name in plan.methods:
        check_method(plan.method(name), name, task, spend, split, options)
    if units.travels:
        check_travel([task, options, tracker, *plan.objects.values()])
    if store is not None:  # which makes a folder, where nothing else is wrong
        store = store if isinstance(store, Store) else Store(store)
        if units.travels:  # to where other directories are current
            store = Store(store.directory.absolute())
        check_store(plan, store, member)
        plan = replace(plan, store=store)
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


def check_store(plan: Plan, store: Store, member: int) -> None:
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


def bar_of(plans: Sequence[Plan], shown: bool) -> Any:
    """A bar of progress over all inner environment steps of plans."""
    total = 0
    for plan in plans:
        runs = len(plan.policies) * len(plan.policy_seeds)
        runs += len(plan.methods) * plan.runs * len(plan.seeds)
        total += plan.fitting_steps + runs * plan.steps
    what = plans[0].task.id if len(plans) == 1 else f"{len(plans)} tasks"
    return progress(total, what, shown)
