"""One order of arguments: the task comes first.

Calls of `evaluate`, `fit` and Minari's `export` with the policy or method before the
task work in version 0.1, with a warning.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dacrl_env.tasks.registration import is_task

_P = ParamSpec("_P")
_R = TypeVar("_R")


def task_first(second: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator of functions whose first arguments are the task and something else.

    Where the first is no task and the second is one, they change places, and a
    DeprecationWarning says so at the place of the call. So does a task by keyword
    beside the other one by position.

    Args:
        second: name of the other argument.
    """

    def decorated(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            given, named = list(args), dict(kwargs)
            if len(given) == 1 and "task" in named and second not in named:
                given.insert(1, named.pop("task"))
            elif len(given) < 2 or is_task(given[0]) or not is_task(given[1]):
                return function(*args, **kwargs)
            name = function.__name__
            warnings.warn(
                f"the task comes first: write {name}(task, {second}, ...); "
                f"{name}({second}, task, ...) is no longer taken from version 0.2 on",
                DeprecationWarning,
                stacklevel=2,
            )
            given[:2] = given[1::-1]
            return function(*given, **named)  # type: ignore[arg-type]

        return called

    return decorated
