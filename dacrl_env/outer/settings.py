"""Keyword arguments of an environment, checked and completed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from dacrl_env.core.checks import meant, real, unknown, whole
from dacrl_env.core.provenance import outlined
from dacrl_env.core.streams import SPLITS
from dacrl_env.outer.actions import ACTION_MODES, check_names
from dacrl_env.outer.intervals import Intervals
from dacrl_env.outer.rewards import REWARDS, Reward, get_reward
from dacrl_env.tasks import (
    DEFAULT_INSTANCE,
    JUDGED_BY,
    REPORT_POINTS,
    Choice,
    Event,
    Instance,
    Knob,
    Number,
    Option,
    Task,
)
from dacrl_env.tasks.backends import LEVELLED, OF_LEVELS, has_levels
from dacrl_env.tasks.registration import (
    IMPLEMENTATIONS,
    configured,
    get_task,
    load_learner,
)
from dacrl_env.tasks.returns import filled

FEEDBACK = tuple(JUDGED_BY.values())


@dataclass(frozen=True)
class Settings:
    """What an environment was made with; see `resolve`."""

    task: Task
    implementation: str  # of the algorithm
    hyperparameters: tuple[Knob, ...]  # all, with the task's defaults
    controlled: tuple[Knob, ...]
    config: Any  # the algorithm's configuration dataclass
    action_mode: str
    reward: Reward
    reward_made_of: Any  # as JSON, of a reward of the user's
    split: str
    budget: int
    decision_interval: int
    eval_interval: int
    eval_episodes: int
    feedback: str
    instances: tuple[Instance, ...]
    observe_instance: bool
    history: int
    report: bool
    report_steps: tuple[int, ...]  # where in the run the report evaluates

    def __deepcopy__(self, memo: dict[int, Any]) -> Settings:
        """Nothing here changes, but a reward of the user's may have a state."""
        return replace(self, reward=copy.deepcopy(self.reward, memo))

    def steady(self) -> dict[str, float]:
        """Values of the hyperparameters that no action sets."""
        set_by_actions = {h.name for h in self.controlled}
        return {
            h.name: h.start
            for h in self.hyperparameters
            if h.name not in set_by_actions
        }

    def number(self, name: str) -> Number:
        """A number that actions set.

        Raises:
            ValueError: actions do not set it, or it has options.
        """
        by_name = {h.name: h for h in self.controlled}
        check_names([name], list(by_name), "hyperparameter")
        found = by_name[name]
        if not isinstance(found, Number):
            kind = "a choice" if found.held else "an event"
            raise ValueError(
                f"{name} is {kind}, not a number; its options are "
                f"{', '.join(map(repr, found.options))}"
            )
        return found

    def shaping(self) -> dict[str, Any]:
        """What a snapshot must agree with, as JSON values.

        That is all that decides how its runs go on, or what is seen of them. Free are
        ``decision_interval``, which must divide what is left of the runs, and
        ``report`` (points that lie behind stay empty).
        """
        task = self.task
        return {
            "implementation": self.implementation,
            "config": _plain(asdict(self.config)),
            "controlled": [_shape(h) for h in self.controlled],
            "fixed": {
                h.name: h.default
                for h in self.hyperparameters
                if h.name not in [c.name for c in self.controlled]
            },
            "action_mode": self.action_mode,
            "reward": _name(self.reward),
            "reward_made_of": self.reward_made_of,
            "budget": self.budget,
            "eval_interval": self.eval_interval,
            "eval_episodes": self.eval_episodes,
            "feedback": self.feedback,
            "history": self.history,
            "observe_instance": self.observe_instance,
            "split": self.split,
            "judged_by": task.judged_by,
            "instances": {
                i.name: _plain({k: v for k, v in asdict(i).items() if k != "name"})
                for i in self.instances
            },
            "inner_env": task.inner_env,
            "backend": task.backend,
            "inner_env_kwargs": _plain(task.inner_env_kwargs),
            "scale_images": task.scale_images,
            "returns": [*task.returns],
        }


def _shape(knob: Knob) -> list[Any]:
    """What values of a controlled hyperparameter mean."""
    if isinstance(knob, Number):
        return [knob.name, knob.low, knob.high, knob.default]
    return [knob.name, *knob.options, knob.default]


def _plain(value: Any) -> Any:
    """JSON values; of what is none, a name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    return _name(value)


def _name(thing: Any) -> str:
    """What a function or class is known by, or the class of another object."""
    for name, reward in REWARDS.items():
        if thing is reward:
            return name
    while isinstance(thing, functools.partial):
        thing = thing.func
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    code: Any = getattr(thing, "__code__", None)
    unnamed = code is not None and "<lambda>" in named.__qualname__
    # lambdas of one function have one name
    line = f"line {code.co_firstlineno} of " if unnamed else ""
    return f"{line}{named.__module__}:{named.__qualname__}"


def resolve(
    task: str | Task,
    *,
    hyperparameters: str | Knob | Sequence[str | Knob] | None = None,
    fixed: Mapping[str, Option] | None = None,
    action_mode: str = "continuous",
    reward: str | Callable[..., Any] = "progress",
    split: str = "tuning",
    implementation: str = "compiled",
    budget: int | None = None,
    decision_interval: int | None = None,
    eval_interval: int | None = None,
    eval_episodes: int = 10,
    feedback: str | None = None,
    instances: str | Instance | Sequence[str | Instance] | None = None,
    observe_instance: bool = False,
    history: int = 1,
    report: bool = False,
    **configuration: Any,
) -> Settings:
    """Check the keyword arguments of an environment and fill in the defaults.

    Args:
        task: id or task.
        hyperparameters: what an action sets, in this order: names, or
            :class:`~dacrl_env.Number` objects with a range of their own, within the
            learner's, :class:`~dacrl_env.Choice` objects with some of its options, or
            either with another default; one of these stands for a list of one.
        fixed: values of hyperparameters that are not controlled, anywhere in the
            learner's range; options of choices.
        action_mode: "continuous", "relative", "discrete", "multidiscrete" or
            "values".
        reward: "progress", "best", "auc", "final" or a function of a
            :class:`~dacrl_env.outer.rewards.RewardContext`.
        split: "tuning" or "test"; the two never share a random stream.
        implementation: of the algorithm, "compiled" or "sb3".
        budget: inner environment steps of a run.
        decision_interval: inner environment steps between decisions.
        eval_interval: inner environment steps between evaluations.
        eval_episodes: episodes of an evaluation.
        feedback: what a policy sees: evaluation episodes ("eval") or finished training
            episodes ("train", which costs nothing); None: "eval", or "train" where the
            task is judged by training.
        instances: "train", "test", a name, an instance, or a list of names and
            instances; None: the inner environment as it is, or for tasks that always
            vary the set of the split.
        observe_instance: add the instance's physical constants to the observation.
        history: decisions stacked in the observation.
        report: also evaluate with the report stream, as `evaluate` does. A task that is
            judged by training always reports, at no cost.
        **configuration: fields of the algorithm's configuration.

    Raises:
        ValueError: an unknown name, a value out of range, or steps that do not divide.
    """
    task = filled(get_task(task))
    _one_of("implementation", implementation, IMPLEMENTATIONS)
    learner_class = load_learner(task.algorithm, implementation)
    _one_of("split", split, SPLITS)
    feedback = JUDGED_BY[task.judged_by] if feedback is None else feedback
    _one_of("feedback", feedback, FEEDBACK)
    _one_of("action_mode", action_mode, ACTION_MODES)
    config_names = [f.name for f in fields(learner_class.config_class)]
    others = [name for name in configuration if name not in config_names]
    if others:
        first = others[0]
        near = meant(first, [*_OPTIONS, *_OF_POPULATIONS, *config_names])
        if first == "learner":
            near = "; it is implementation now, 'compiled' or 'sb3'"
        elif first in _OF_POPULATIONS:
            near = "; make_vec takes it"
        elif first in [h.name for h in learner_class.hyperparameters]:
            fixed = {first: configuration[first]}
            near = (
                f"; it is a hyperparameter: {fixed=} keeps it, hyperparameters=[...] "
                "has actions set it"
            )
        raise ValueError(
            f"unknown option {', '.join(map(repr, others))} of {task.id}{near}; valid "
            f"options: {', '.join(_OPTIONS)}; of make_vec also: "
            f"{', '.join(_OF_POPULATIONS)}; valid configuration of {task.algorithm}: "
            f"{', '.join(config_names)}"
        )
    config = _config(task, learner_class, configuration)

    widest = {h.name: h for h in learner_class.hyperparameters}
    known = own_hyperparameters(task, learner_class.hyperparameters)
    if hyperparameters is None:
        hyperparameters = task.controlled or learner_class.controlled
    if isinstance(hyperparameters, str | Knob):
        hyperparameters = (hyperparameters,)
    controlled = _controlled(hyperparameters, known, widest)
    names = [h.name for h in controlled]
    if not isinstance(fixed, Mapping | None):
        raise ValueError(f"fixed must be a dict of name to value, got {fixed!r}")
    if fixed:
        _refuse_levels(fixed, known, widest)
        check_names(fixed, list(known), "hyperparameter")
        twice = [name for name in fixed if name in names]
        if twice:
            raise ValueError(
                f"{', '.join(twice)} cannot be both controlled and fixed; "
                f"controlled: {', '.join(names)}"
            )
        known |= _with_defaults([widest[name] for name in fixed], fixed)
    known |= {h.name: h for h in controlled}
    _check_implementation(learner_class, implementation, known, names)

    budget = whole("budget", task.budget if budget is None else budget)
    unit = learner_class.granularity(config)
    what = "one step of the inner environments"
    if hasattr(config, "rollout_length"):
        what = "one rollout, num_inner_envs × rollout_length"
    intervals = Intervals(
        budget=budget,
        decision=_interval("decision_interval", decision_interval),
        evaluation=_interval("eval_interval", eval_interval),
        decisions=task.decisions,
        unit=unit,
        unit_name=what,
    )
    budget, decision_interval, eval_interval = intervals.completed()
    starts = getattr(config, "learning_starts", None)
    if starts is not None and budget <= starts:
        raise ValueError(
            f"budget {budget} is not above learning_starts {starts}: nothing would "
            "ever be learned; give a larger budget, or a smaller learning_starts"
        )
    eval_episodes = whole("eval_episodes", eval_episodes)
    history = whole("history", history)
    for name, flag in (("observe_instance", observe_instance), ("report", report)):
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {flag!r}")
    if report and budget < REPORT_POINTS * unit:
        least = intervals.least_budget(REPORT_POINTS * unit)
        raise ValueError(
            f"budget {budget} is too small to report at {REPORT_POINTS} points; "
            f"at least {least} is needed"
        )
    reward = get_reward(reward)
    own = any(reward is known for known in REWARDS.values())
    marks = (k * budget // REPORT_POINTS // unit * unit for k in _report_numbers())
    return Settings(
        task=task,
        implementation=implementation,
        hyperparameters=tuple(known.values()),
        controlled=controlled,
        config=config,
        action_mode=action_mode,
        reward=reward,
        # now: it may have a state, which is no part of a run's
        reward_made_of=None if own else outlined(reward),
        split=split,
        budget=budget,
        decision_interval=decision_interval,
        eval_interval=eval_interval,
        eval_episodes=eval_episodes,
        feedback=feedback,
        instances=_instances(task, instances, split),
        observe_instance=bool(observe_instance),
        history=history,
        report=bool(report),
        report_steps=tuple(marks),
    )


def _check_implementation(
    learner_class: Any,
    implementation: str,
    known: Mapping[str, Knob],
    controlled: Sequence[str],
) -> None:
    """Refuse values that an implementation of the algorithm does not have."""
    only = {n: v for n, v in learner_class.only.items() if n in known}
    moving = {n: v for n, v in only.items() if n in controlled}
    set_otherwise = {
        n: v for n, v in only.items() if n not in moving and known[n].default != v
    }
    ways = []
    if moving:
        ways.append(f"pass hyperparameters=[...] without {', '.join(moving)}")
    if set_otherwise:
        ways.append(f"where the task has set others, pass fixed={set_otherwise!r}")
    if ways:
        values = ", ".join(f"{n}={v!r}" for n, v in {**moving, **set_otherwise}.items())
        raise ValueError(
            f"implementation={implementation!r} has only {values}; {' and '.join(ways)}"
        )
    wrong = [name for name in learner_class.unchanging if name in controlled]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)} cannot change during a run with "
            f"implementation={implementation!r}; fixed={{{wrong[0]!r}: ...}} keeps it"
        )


def granularity(task: Task, options: Mapping[str, Any]) -> int:
    """The least number of inner environment steps that runs are trained for.

    All budgets and intervals are multiples of it.

    Args:
        task: the task.
        options: of the environment, of which some are the algorithm's configuration.

    Raises:
        ValueError: an option of the wrong kind.
    """
    implementation = options.get("implementation", "compiled")
    _one_of("implementation", implementation, IMPLEMENTATIONS)
    learner_class = load_learner(task.algorithm, implementation)
    names = [f.name for f in fields(learner_class.config_class)]
    given = {name: options[name] for name in names if name in options}
    config = _config(task, learner_class, given)
    return int(learner_class.granularity(config))


def _config(task: Task, learner_class: Any, given: Mapping[str, Any]) -> Any:
    every = {**task.configuration, **given}
    return configured(task.algorithm, learner_class.config_class, every)


def _report_numbers() -> range:
    return range(REPORT_POINTS + 1)


_OPTIONS = (
    "hyperparameters",
    "fixed",
    "action_mode",
    "reward",
    "split",
    "implementation",
    "budget",
    "decision_interval",
    "eval_interval",
    "eval_episodes",
    "feedback",
    "instances",
    "observe_instance",
    "history",
    "report",
)


_OF_POPULATIONS = ("num_threads", "autoreset_mode")


def _one_of(name: str, value: Any, valid: Any) -> None:
    if value not in tuple(valid):
        raise ValueError(unknown(name, value, valid))


def _interval(name: str, steps: Any) -> int | None:
    return None if steps is None else whole(name, steps)


def _with_defaults(
    hyperparameters: Any, defaults: Mapping[str, Option]
) -> dict[str, Knob]:
    known = {h.name: h for h in hyperparameters}
    check_names(defaults, list(known), "hyperparameter")
    for name, value in defaults.items():
        knob = known[name]
        if isinstance(knob, Event):
            raise ValueError(
                f"{name} is an event, of which nothing stays set; an action may have "
                f"it happen: hyperparameters=[..., {name!r}]"
            )
        if isinstance(knob, Number):
            value = real(name, value)
            if knob.integer and not float(value).is_integer():
                raise ValueError(f"{name} must be a whole number, got {value!r}")
            knob.check(value)
        known[name] = replace(knob, default=value)
    return known


def own_hyperparameters(task: Task, hyperparameters: Sequence[Knob]) -> dict[str, Knob]:
    """A learner's hyperparameters with the ranges and defaults of a task, by name.

    Those that choose among levels are there where the inner environment has levels.

    Raises:
        ValueError: unknown names, or ranges or defaults that are none or lie outside.
    """
    known = {h.name: h for h in hyperparameters if not _lacks_levels(task, h.name)}
    check_names(task.ranges, list(known), "hyperparameter")
    for name, (low, high) in task.ranges.items():
        h = known[name]
        if not isinstance(h, Number):
            raise ValueError(f"{name} has options and no range: {h.options}")
        h.check((low, high))
        default = min(max(h.default, low), high)
        known[name] = replace(h, low=low, high=high, default=default)
    return _with_defaults(known.values(), task.defaults)


def _lacks_levels(task: Task, name: str) -> bool:
    """Whether a hyperparameter chooses among levels that a task does not have."""
    return name in OF_LEVELS and not has_levels(task)


def _refuse_levels(
    names: Iterable[str], known: Mapping[str, Knob], widest: Mapping[str, Knob]
) -> None:
    """Raise a ValueError for hyperparameters of levels, where there are none."""
    wrong = [name for name in names if name in widest and name not in known]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: the inner environment has no levels to choose from; "
            f"there are some in {', '.join(LEVELLED)}"
        )


def _controlled(
    chosen: Sequence[str | Knob],
    known: Mapping[str, Knob],
    widest: Mapping[str, Knob],
) -> tuple[Knob, ...]:
    if isinstance(chosen, Mapping | set | frozenset) or not isinstance(
        chosen, Iterable
    ):
        raise ValueError(
            "hyperparameters is a list of names, Number, Choice and Event objects, in "
            f"the order of an action's components; got {chosen!r}. A range is narrowed "
            "by Number(name, low, high, default, scale)"
        )
    chosen = tuple(chosen)
    wrong = [h for h in chosen if not isinstance(h, str | Knob)]
    if wrong:
        raise ValueError(
            "a hyperparameter is a name, a Number, a Choice or an Event, not "
            f"{wrong[0]!r}; valid names: {', '.join(known)}"
        )
    names = [h.name if isinstance(h, Knob) else h for h in chosen]
    _refuse_levels(names, known, widest)
    check_names(names, list(known), "hyperparameter")
    if not names:
        raise ValueError(f"no hyperparameter to control; valid: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"hyperparameters named twice: {', '.join(names)}")
    result = []
    for name, h in zip(names, chosen, strict=True):
        if isinstance(h, str):
            result.append(known[name])
            continue
        wide = widest[name]
        if type(h) is not type(wide):
            raise ValueError(
                f"{name} is a {type(wide).__name__}, not a {type(h).__name__}"
            )
        if isinstance(h, Number) and isinstance(wide, Number):
            wide.check(h.ends)
            if (h.scale, h.integer) != (wide.scale, wide.integer):
                raise ValueError(
                    f"{name} has scale {wide.scale!r} and integer={wide.integer}; "
                    "only its range and default can be changed"
                )
            h = replace(h, condition=wide.condition)
        elif isinstance(h, Choice) and isinstance(wide, Choice):
            wide.codes(h.options)  # raises for what is none of its options
            h = replace(h, condition=wide.condition)
        elif h != wide:
            raise ValueError(f"{name} is {wide}; nothing of an event can be changed")
        result.append(h)
    return tuple(result)


def _instances(
    task: Task,
    instances: str | Instance | Sequence[str | Instance] | None,
    split: str,
) -> tuple[Instance, ...]:
    sets = {"train": task.train_instances, "test": task.test_instances}
    if instances is None:
        if not task.always_varied:
            return (DEFAULT_INSTANCE,)
        return sets["train" if split == "tuning" else "test"]
    if isinstance(instances, str) and instances in sets:
        return sets[instances]
    known = (DEFAULT_INSTANCE, *task.train_instances, *task.test_instances)
    by_name = {i.name: i for i in known}
    if isinstance(instances, Instance) or (
        isinstance(instances, str) and instances in by_name
    ):
        instances = (instances,)
    if isinstance(instances, str) or not isinstance(instances, Sequence):
        raise ValueError(
            f"unknown instances {instances!r}{meant(instances, [*sets, *by_name])}; "
            f"valid: train, test, {', '.join(by_name)}, or a list"
        )
    names = [i for i in instances if isinstance(i, str)]
    check_names(names, list(by_name), "instance")
    if not instances:
        raise ValueError(f"no instance given; valid: {', '.join(by_name)}")
    wrong = [i for i in instances if not isinstance(i, str | Instance)]
    if wrong:
        raise ValueError(f"an instance is a name or an Instance, not {wrong[0]!r}")
    chosen = tuple(by_name[i] if isinstance(i, str) else i for i in instances)
    names = [i.name for i in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"instances must have names of their own, got {names}")
    return chosen
