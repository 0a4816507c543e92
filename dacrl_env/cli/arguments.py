"""What arguments of the command line mean: numbers, seeds, options of a task."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from dacrl_env.core.checks import whole_numbers


def count(text: str) -> int:
    """A whole number, also written as 5e6."""
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text} is not a whole number")


def seeds_of(option: str, text: str) -> range:
    """Seeds from 0, by their number, or from one up to another, which is left out."""
    first, colon, end = text.rpartition(":")
    try:
        seeds = range(count(first) if colon else 0, count(end))
    except argparse.ArgumentTypeError:
        raise ValueError(
            f"{option} takes a number, or first:end such as 128:256; got {text!r}"
        ) from None
    if not seeds or seeds.start < 0:
        least = "seeds from 0 up, the end above the first" if colon else "at least 1"
        raise ValueError(f"{option} must be {least}, got {text}")
    return seeds


def task_options(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Options of the environment that were given."""
    from dacrl_env.comparison.comparison import compare
    from dacrl_env.core.specs import literal

    names = ("decision_interval", "eval_interval", "feedback", "hyperparameters")
    # what `compare` calls otherwise than the command line
    otherwise = {"budget": "run_budget", "store": "out", "tuning_budget": "budget"}
    given = {name: getattr(options, name) for name in names}
    given["budget"] = options.run_budget
    given = {name: value for name, value in given.items() if value is not None}
    taken = inspect.signature(compare).parameters
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
        if name in taken or name == "budget":
            own = otherwise.get(name, name)
            hint = f"; --{own.replace('_', '-')} is for that"
            raise ValueError(
                f"{name} cannot be given by --set{hint if own in vars(options) else ''}"
            )
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = literal(value)
    return _whole(given, task)


def _whole(given: dict[str, Any], task: str) -> dict[str, Any]:
    """Options in which 2e3 is 2000 where a whole number is taken."""
    from dacrl_env.outer.settings import resolve
    from dacrl_env.tasks.registration import IMPLEMENTATIONS, get_task, load_learner

    given = whole_numbers(resolve, given)
    name, by = get_task(task).algorithm, given.get("implementation", "compiled")
    if by in IMPLEMENTATIONS and name in IMPLEMENTATIONS[by]:
        given = whole_numbers(load_learner(name, by).config_class, given)
    return given
