"""Keyword arguments of an environment, checked and completed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from dacrl_env.actions import ACTION_MODES, check_names, check_range
from dacrl_env.checks import check_types
from dacrl_env.learners.streams import SPLITS
from dacrl_env.registration import IMPLEMENTATIONS, get_task, load_learner
from dacrl_env.rewards import Reward, get_reward
from dacrl_env.tasks import (
    DEFAULT_INSTANCE,
    REPORT_POINTS,
    Hyperparameter,
    Instance,
    Task,
)

FEEDBACK = ("eval", "train")


@dataclass(frozen=True)
class Settings:
    """What an environment was made with; see `resolve`."""

    task: Task
    implementation: str  # of the learner
    hyperparameters: tuple[Hyperparameter, ...]  # all, with the task's defaults
    controlled: tuple[Hyperparameter, ...]
    config: Any  # the learner's configuration dataclass
    action_mode: str
    reward: Reward
    split: str
    budget: int
    decision_interval: int
    eval_interval: int
    eval_episodes: int
    feedback: str
    device: str
    instances: tuple[Instance, ...]
    observe_instance: bool
    history: int
    report: bool
    report_steps: tuple[int, ...]  # where in the run the report evaluates

    def __deepcopy__(self, memo: dict[int, Any]) -> Settings:
        """Nothing here changes, but a reward of the user's may have a state."""
        return replace(self, reward=copy.deepcopy(self.reward, memo))

    def shaping(self) -> dict[str, Any]:
        """What a snapshot must agree with, as JSON values."""
        return {
            "config": {
                k: list(v) if isinstance(v, tuple) else v
                for k, v in asdict(self.config).items()
            },
            "controlled": [h.name for h in self.controlled],
            "budget": self.budget,
            "split": self.split,
            "instances": {
                i.name: {k: float(v) for k, v in i.physics.items()}
                for i in self.instances
            },
        }


def resolve(
    task: str | Task,
    *,
    hyperparameters: Sequence[str | Hyperparameter] | None = None,
    fixed: Mapping[str, float] | None = None,
    action_mode: str = "continuous",
    reward: str | Callable[..., Any] = "progress",
    split: str = "tuning",
    learner: str = "torch",
    budget: int | None = None,
    decision_interval: int | None = None,
    eval_interval: int | None = None,
    eval_episodes: int = 10,
    feedback: str = "eval",
    device: str = "cpu",
    instances: str | Sequence[str | Instance] | None = None,
    observe_instance: bool = False,
    history: int = 1,
    report: bool = False,
    **configuration: Any,
) -> Settings:
    """Check the keyword arguments of an environment and fill in the defaults.

    Args:
        task: id or task.
        hyperparameters: what an action sets, in this order: names, or
            :class:`Hyperparameter` objects that narrow the range or move the default.
        fixed: values of hyperparameters that are not controlled.
        action_mode: "continuous", "relative", "discrete" or "multidiscrete".
        reward: "progress", "best", "auc", "final" or a function of a
            :class:`~dacrl_env.rewards.RewardContext`.
        split: "tuning" or "test"; the two never share a random stream.
        learner: implementation of the learner, "torch" or "sb3".
        budget: inner environment steps of a run.
        decision_interval: inner environment steps between decisions.
        eval_interval: inner environment steps between evaluations.
        eval_episodes: episodes of an evaluation.
        feedback: what a policy sees: evaluation episodes ("eval") or finished training
            episodes ("train", which costs nothing).
        device: torch device of networks and replay.
        instances: "train", "test", names, or instances; None: the inner environment as
            it is, or for tasks that always vary the set of the split.
        observe_instance: add the instance's physical constants to the observation.
        history: decisions stacked in the observation.
        report: also evaluate with the report stream, as `evaluate` does.
        **configuration: fields of the learner's configuration.

    Raises:
        ValueError: an unknown name, a value out of range, or steps that do not divide.
    """
    task = get_task(task)
    _one_of("learner", learner, IMPLEMENTATIONS)
    learner_class = load_learner(task.learner, learner)
    _one_of("split", split, SPLITS)
    _one_of("feedback", feedback, FEEDBACK)
    _one_of("action_mode", action_mode, ACTION_MODES)
    config_names = [f.name for f in fields(learner_class.config_class)]
    unknown = [name for name in configuration if name not in config_names]
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(map(repr, unknown))} of {task.id}; valid "
            f"options: {', '.join(_OPTIONS)}; valid configuration of {task.learner}: "
            f"{', '.join(config_names)}"
        )
    check_types(f"learner {task.learner}", learner_class.config_class, configuration)
    config = learner_class.config_class(**{**task.configuration, **configuration})

    known = _with_defaults(learner_class.hyperparameters, task.defaults)
    if hyperparameters is None:
        hyperparameters = task.controlled or learner_class.controlled
    if isinstance(hyperparameters, str):
        hyperparameters = (hyperparameters,)
    controlled = _controlled(hyperparameters, known)
    names = [h.name for h in controlled]
    if not isinstance(fixed, Mapping | None):
        raise ValueError(f"fixed must be a dict of name to value, got {fixed!r}")
    if fixed:
        check_names(fixed, list(known), "hyperparameter")
        twice = [name for name in fixed if name in names]
        if twice:
            raise ValueError(
                f"{', '.join(twice)} cannot be both controlled and fixed; "
                f"controlled: {', '.join(names)}"
            )
        known = _with_defaults(known.values(), fixed)
    known |= {h.name: h for h in controlled}

    unit = learner_class.granularity(config)
    budget = task.budget if budget is None else budget
    for name, steps in (
        ("budget", budget),
        ("decision_interval", decision_interval),
        ("eval_interval", eval_interval),
    ):
        if steps is not None:
            _positive(name, steps)
    budget = int(budget)  # not numpy's: it goes into the headers of snapshots
    if decision_interval is None:
        _divides(f"{task.decisions} decisions", task.decisions, "budget", budget)
        decision_interval = budget // task.decisions
    eval_interval = decision_interval if eval_interval is None else eval_interval
    # the least that can be trained
    least = "one step of the inner environments"
    if hasattr(config, "rollout_length"):
        least = "one rollout, num_inner_envs × rollout_length"
    for name, steps in (
        ("budget", budget),
        ("decision_interval", decision_interval),
        ("eval_interval", eval_interval),
    ):
        _divides(least, unit, name, steps)
    _divides("decision_interval", decision_interval, "budget", budget)
    _divides("eval_interval", eval_interval, "budget", budget)
    longer = max(decision_interval, eval_interval)
    if longer % min(decision_interval, eval_interval):
        raise ValueError(
            f"decision_interval {decision_interval} and eval_interval {eval_interval} "
            "must divide one by the other"
        )
    _positive("eval_episodes", eval_episodes)
    _positive("history", history)
    if report and budget < REPORT_POINTS * unit:
        raise ValueError(
            f"budget {budget} is too small to report at {REPORT_POINTS} points; "
            f"at least {REPORT_POINTS * unit} is needed"
        )
    marks = (k * budget // REPORT_POINTS // unit * unit for k in _report_numbers())
    return Settings(
        task=task,
        implementation=learner,
        hyperparameters=tuple(known.values()),
        controlled=controlled,
        config=config,
        action_mode=action_mode,
        reward=get_reward(reward),
        split=split,
        budget=budget,
        decision_interval=decision_interval,
        eval_interval=eval_interval,
        eval_episodes=eval_episodes,
        feedback=feedback,
        device=_device(device),
        instances=_instances(task, instances, split),
        observe_instance=observe_instance,
        history=history,
        report=report,
        report_steps=tuple(marks),
    )


def _report_numbers() -> range:
    return range(REPORT_POINTS + 1)


_OPTIONS = (
    "hyperparameters",
    "fixed",
    "action_mode",
    "reward",
    "split",
    "learner",
    "budget",
    "decision_interval",
    "eval_interval",
    "eval_episodes",
    "feedback",
    "device",
    "instances",
    "observe_instance",
    "history",
    "report",
)


def _one_of(name: str, value: Any, valid: Any) -> None:
    if value not in tuple(valid):
        raise ValueError(f"unknown {name} {value!r}; valid: {', '.join(valid)}")


def _positive(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _divides(what: str, part: int, name: str, whole: int) -> None:
    if whole % part:
        below = whole // part * part
        near = [n for n in (below, below + part) if n]
        raise ValueError(
            f"{name} {whole} does not divide by {what}"
            + ("" if what[0].isdigit() else f" ({part})")
            + f"; {', '.join(str(n) for n in near)} would"
        )


def _with_defaults(
    hyperparameters: Any, defaults: Mapping[str, float]
) -> dict[str, Hyperparameter]:
    known = {h.name: h for h in hyperparameters}
    check_names(defaults, list(known), "hyperparameter")
    for name, value in defaults.items():
        if not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        check_range(known[name], value)
        known[name] = replace(known[name], default=value)
    return known


def _controlled(
    chosen: Sequence[str | Hyperparameter], known: Mapping[str, Hyperparameter]
) -> tuple[Hyperparameter, ...]:
    names = [h.name if isinstance(h, Hyperparameter) else h for h in chosen]
    check_names(names, list(known), "hyperparameter")
    if not names:
        raise ValueError(f"no hyperparameter to control; valid: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"hyperparameters named twice: {', '.join(names)}")
    result = []
    for name, h in zip(names, chosen, strict=True):
        if isinstance(h, Hyperparameter):
            check_range(known[name], (h.low, h.high))
            if (h.scale, h.integer) != (known[name].scale, known[name].integer):
                raise ValueError(
                    f"{name} has scale {known[name].scale!r} and integer="
                    f"{known[name].integer}; only its range and default can be changed"
                )
            result.append(h)
        else:
            result.append(known[name])
    return tuple(result)


def _device(device: str) -> str:
    import torch

    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {device!r}; valid: cpu, cuda") from error
    if wanted.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; valid: cpu, cuda")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available here; valid: cpu")
    return str(wanted)


def _instances(
    task: Task, instances: str | Sequence[str | Instance] | None, split: str
) -> tuple[Instance, ...]:
    sets = {"train": task.train_instances, "test": task.test_instances}
    if instances is None:
        if not task.always_varied:
            return (DEFAULT_INSTANCE,)
        return sets["train" if split == "tuning" else "test"]
    if isinstance(instances, str) and instances in sets:
        return sets[instances]
    if isinstance(instances, str) or not isinstance(instances, Sequence):
        raise ValueError(
            f"unknown instances {instances!r}; valid: train, test, or a list"
        )
    known = (DEFAULT_INSTANCE, *task.train_instances, *task.test_instances)
    by_name = {i.name: i for i in known}
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
