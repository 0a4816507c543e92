"""How often a run is decided on and evaluated, where a policy has a wish.

Decisions have to divide the run, evaluations too, and the longer of the two intervals
has to be a multiple of the shorter one. Where a policy says how many decisions it is
made for, evaluations stay where the task has them, so that all policies are charged
alike; if that cannot be, they are moved to the nearest place that fits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dacrl_env.outer.settings import granularity
from dacrl_env.tasks import Task


@dataclass(frozen=True)
class Intervals:
    """What was found.

    Args:
        options: of the environment that the policy adds: none, or the intervals.
        note: how they differ from what was asked for; empty: they do not.
    """

    options: dict[str, int]
    note: str = ""


def intervals(policy: Any, task: Task, options: Mapping[str, Any]) -> Intervals:
    """Intervals that suit a policy; none, if it has no wish or they are given.

    Args:
        policy: with ``decisions``, ``decisions_near`` or ``decision_interval``, or not.
        task: the task.
        options: of the environment, as given.

    Raises:
        ValueError: it is made for a number of decisions that runs cannot have.
    """
    exact, near, wanted = (
        getattr(policy, name, None)
        for name in ("decisions", "decisions_near", "decision_interval")
    )
    budget = task.budget if options.get("budget") is None else options["budget"]
    whole = isinstance(budget, int | np.integer) and budget >= 1
    asked = options.get("decision_interval") is None and (exact or near or wanted)
    if not asked or not whole:
        return Intervals({})
    budget, unit = int(budget), granularity(task, options)
    if budget % unit:
        return Intervals({})  # making the environment says what is wrong
    usual = budget // task.decisions
    given = options.get("eval_interval")
    note = ""
    if not wanted:
        valid = _divisors(budget // unit)
        if exact:
            if exact not in valid:
                raise ValueError(_impossible(exact, budget, unit, valid))
            wanted = budget // exact
        else:
            assert near is not None
            number = _nearest(near, _nesting(valid, budget, unit, given, usual))
            wanted = budget // number
            if number != near:
                note = f"{number} decisions a run instead of {near}, which {budget:,} "
                note += "steps cannot have"
    found = {"decision_interval": int(wanted)}
    if given is None:
        found["eval_interval"] = _evaluations(usual, int(wanted), budget, unit)
        if found["eval_interval"] != usual:
            note += "; " if note else ""
            note += f"evaluations every {found['eval_interval']:,} steps instead of "
            note += f"{budget / task.decisions:,.6g}"
    return Intervals(found, note)


def tell_intervals(
    policy: Any, name: str, task: Task, options: Mapping[str, Any], stacklevel: int = 3
) -> None:
    """Warn of intervals that are others than what was asked for."""
    note = intervals(policy, task, options).note
    if note:
        warnings.warn(f"{name}: {note}", stacklevel=stacklevel)


def _divisors(n: int) -> list[int]:
    small = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return sorted({*small, *(n // k for k in small)})


def _nearest(wanted: float, numbers: Sequence[int]) -> int:
    """By their ratio; of equal ones the first."""
    return min(numbers, key=lambda n: abs(math.log(n / wanted)))


def _nest(a: int, b: int) -> bool:
    return max(a, b) % min(a, b) == 0


def _nesting(
    numbers: list[int], budget: int, unit: int, given: int | None, usual: int
) -> list[int]:
    """Numbers of decisions beside which evaluations can be where they should be."""
    place = usual if given is None else given
    whole = isinstance(place, int | np.integer) and place >= 1
    if not whole or budget % place or place % unit:
        return numbers
    return [n for n in numbers if _nest(budget // n, place)]


def _evaluations(usual: int, decision: int, budget: int, unit: int) -> int:
    """The interval of evaluations that is nearest to the usual one."""
    places = [unit * k for k in _divisors(budget // unit)]
    places = [place for place in places if _nest(place, decision)]
    return _nearest(max(usual, 1), places) if places else max(usual, 1)


def _impossible(exact: int, budget: int, unit: int, valid: list[int]) -> str:
    near = sorted(sorted(valid, key=lambda n: abs(math.log(n / exact)))[:4])
    least = exact * unit
    below = max(budget // least, 1) * least
    return (
        f"the policy is made for {exact} decisions a run, which do not divide a budget "
        f"of {budget:,}{f' into parts of {unit:,}' if unit > 1 else ''}; valid near "
        f"{exact}: {', '.join(map(str, near))}; or budgets such as {below:,} and "
        f"{below + least:,}"
    )
