"""Several objectives: what they are, which candidates are best, and how good they are.

A candidate is dominated by another one that is at least as good in every objective and
better in one. Those that none dominates are the Pareto front. What is compared here is
*oriented*: scores, and costs with the opposite sign, so that more is better; −∞ stands
for a candidate of which a run diverged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.checks import unknown
from dacrl_env.methods.trials import COST, OBJECTIVES, Trials
from dacrl_env.policies import get_method
from dacrl_env.policies.front import FrontPoint
from dacrl_env.tasks import Number

VALID = (*OBJECTIVES, COST)
# methods that take several; `tests/methods/test_objectives.py` looks at all of them
TAKE_SEVERAL = ("random-search", "random-schedules", "tpe", "smac")
JUDGED = "report_"  # how names of judged scores begin
IDEAL = {COST: 0.0}  # what is best to have; of scores it is 1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def observed_names(names: Sequence[str]) -> list[str]:
    """Objectives, those of judged scores by the names of what a search can see instead.

    ``report_auc`` is what policies are judged by, on runs that no search sees. What a
    search compares by is the ``auc`` that it observes.
    """
    judged = {f"{JUDGED}{name}": name for name in OBJECTIVES}
    return [judged.get(name, name) for name in names]


def check_objectives(objective: str, objectives: Sequence[str]) -> None:
    """Check fields of a method that takes one objective or several.

    Args:
        objective: the one, where there are not several.
        objectives: several, or none.

    Raises:
        ValueError: unknown ones, one alone or given twice, costs first, or both fields
            given.
    """
    if not len(objectives):
        return
    if objective != OBJECTIVES[0]:
        raise ValueError(
            f"objective={objective!r} and objectives={tuple(objectives)!r} are both "
            "given; give one of them"
        )
    for name in objectives:
        if name not in VALID:
            raise ValueError(unknown("objective", name, VALID))
    if len(objectives) < 2 or len(set(objectives)) < len(objectives):
        raise ValueError(
            f"objectives are several, each once; got {', '.join(objectives)}"
        )
    if objectives[0] == COST:
        raise ValueError(
            "the first objective decides which policy is returned, and by cost it is "
            f"the cheapest, whatever it scores; begin with one of "
            f"{', '.join(OBJECTIVES)}"
        )


def check_counted(trials: Trials, objectives: Sequence[str]) -> None:
    """Raise a ValueError where cost is an objective and no operations are counted."""
    if COST in objectives and not trials.counts_operations():
        raise ValueError(
            f"cost is no objective on {trials.task.id}: no operations are counted there"
        )


def with_objectives(method: Any, names: Sequence[str]) -> Any:
    """A method that searches for the given objectives.

    Args:
        method: name with arguments, object, or class without arguments.
        names: of objectives, judged ones as in `observed_names`. One alone is the
            ``objective`` of any method that has one.

    Raises:
        ValueError: the method takes none or not several, has others of its own, cost
            alone, or see `check_objectives`.
    """
    names = observed_names(names)
    if names == [COST]:
        raise ValueError(
            "cost is an objective beside a score, which comes first: auc cost"
        )
    made: Any = get_method(method) if isinstance(method, str) else method
    made = made() if isinstance(made, type) else made
    own = {f.name for f in fields(made)} if is_dataclass(made) else set()
    field, value = ("objectives", tuple(names))
    if len(names) == 1:
        field, value = "objective", names[0]  # type: ignore[assignment]
    shown = method if isinstance(method, str) else type(made).__name__
    if field not in own:
        if field == "objective":
            raise ValueError(f"method {shown} takes no objective")
        raise ValueError(
            f"method {shown} does not take several objectives; those that do: "
            f"{', '.join(TAKE_SEVERAL)}"
        )
    other = "objectives" if field == "objective" else "objective"
    there = getattr(made, other, None)
    if there and there != OBJECTIVES[0]:
        raise ValueError(
            f"{other}={there!r} of method {shown} and {field}={value!r} are both "
            "given; give one of them"
        )
    if not isinstance(method, str):
        return replace(made, **{field: value})
    before = getattr(made, field)
    if tuple(before) == tuple(value):  # it says so itself
        return method
    if f"{field}=" in method:
        raise ValueError(
            f"method {method} has other objectives than {', '.join(names)}; give them "
            "once"
        )
    spec = f"{method},{field}={value!r}"
    get_method(spec)  # which checks them
    return spec


def check_point(point: Mapping[str, float], names: Sequence[str]) -> None:
    """Check what is given of a reference point of a hypervolume.

    Args:
        point: values by name of objective.
        names: of the objectives.

    Raises:
        ValueError: an unknown name, or a value that is not finite or no worse than
            score 1 or cost 0.
    """
    for name, value in point.items():
        if name not in names:
            raise ValueError(unknown("objective", name, names))
        if not math.isfinite(value):
            raise ValueError(f"a reference point is finite; got {name} {value:g}")
        if not sign(name) * (value - IDEAL.get(name, 1.0)) < 0:
            raise ValueError(
                f"a reference point lies below score 1 and above cost 0; got {name} "
                f"{value:g}"
            )


def aims(method: Any) -> str | tuple[str, ...]:
    """The objective that a method compares candidates by, or its several ones."""
    return tuple(method.objectives) or str(method.objective)


def sign(name: str) -> float:
    """What turns an objective into one of which more is better."""
    return -1.0 if name == COST else 1.0


def nondominated(values: Floats) -> NDArray[np.bool_]:
    """Which of the oriented values ``(n, m)`` no others dominate.

    Of equal ones all are. Those with a −∞ or NaN are not.
    """
    values = np.asarray(values, np.float64)
    result = np.array([bool(np.isfinite(row).all()) for row in values])
    known = np.flatnonzero(result)
    for k in known:
        others = values[known]
        better = (others >= values[k]).all(axis=1) & (others > values[k]).any(axis=1)
        result[k] = not np.any(better)
    return result


def hypervolume(values: Floats, reference: Sequence[float]) -> float:
    """Volume of what oriented values dominate above a reference point.

    Exact, by cutting the volume into slices along the last objective, which takes time
    that grows with the number of points to the power of objectives less one (Zitzler
    1999, "Evolutionary algorithms for multiobjective optimization", section 3.1.2,
    which introduces the measure).

    Args:
        values: ``(n, m)``; points that are not above the reference in all objectives
            add nothing.
        reference: ``(m,)``.

    Returns:
        In the product of the objectives' units.
    """
    low = np.asarray(reference, np.float64)
    points = np.asarray(values, np.float64).reshape(-1, len(low))
    points = points[np.isfinite(points).all(1) & (points > low).all(1)]
    if not len(points):
        return 0.0
    if len(low) == 1:
        return float(points[:, 0].max() - low[0])
    # below each of these heights, the points that reach it
    points = points[np.argsort(-points[:, -1], kind="stable")]
    ends = np.append(points[1:, -1], low[-1])
    depths = points[:, -1] - ends
    return float(
        sum(
            depth * hypervolume(points[: k + 1, :-1], low[:-1].tolist())
            for k, depth in enumerate(depths)
            if depth > 0
        )
    )


class Tried:
    """Candidates that were trained to the end, with several objectives of each.

    Args:
        names: of the objectives.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.candidates: list[Floats] = []
        self.values: list[Floats] = []
        self.judged: list[float | None] = []

    def add(self, candidates: Floats, values: Floats, judged: Floats | None) -> None:
        """Take note of candidates ``(n, k)`` with oriented values ``(n, m)``."""
        self.candidates += list(candidates)
        self.values += list(values)
        self.judged += [None] * len(values) if judged is None else judged.tolist()

    def front(self, policy: Any) -> list[FrontPoint]:
        """The Pareto front, the best in the first objective first.

        Args:
            policy: made of a candidate ``(k,)``.
        """
        values = np.array(self.values)
        (best,) = np.nonzero(nondominated(values))
        # of equal ones the first
        _, first = np.unique(values[best], axis=0, return_index=True)
        best = best[np.sort(first)]
        best = best[np.lexsort((best, -values[best, 0]))]
        signs = [sign(name) for name in self.names]
        return [
            FrontPoint(
                policy(self.candidates[k]),
                {
                    name: float(s * value)
                    for name, s, value in zip(self.names, signs, values[k], strict=True)
                },
                self.judged[k],
            )
            for k in best
        ]


class Tellable:
    """Scores that models of other packages can take: finite ones.

    A candidate that diverged is told as a tenth of the scale below the task's floor, or
    below the lowest score so far if the floor should be higher. −∞ would distort, or
    end, a fit of a model.

    Of costs the dearest so far stands for the floor, and a tenth of it is the scale.
    Where none is known, that is `dearest`.

    Args:
        trials: whose task has the floor.
        objective: what is told.
    """

    def __init__(self, trials: Trials, objective: str = "final") -> None:
        self._is_cost = objective == COST
        self._trials = trials
        self.lowest = 0.0 if self._is_cost else trials.task.floor_score

    def __call__(self, scores: Floats) -> list[float]:
        """Scores ``(n,)`` to tell, or costs with the opposite sign."""
        finite = np.isfinite(scores)
        self.lowest = min([self.lowest, *scores[finite]])
        worst = self.lowest
        if self._is_cost and not worst and not finite.all():
            worst = -dearest(self._trials)
        step = -0.1 * worst if self._is_cost else 0.1
        return [float(s) for s in np.where(finite, scores, worst - step)]


def dearest(trials: Trials) -> float:
    """Floating-point operations that the dearest training of a run takes.

    It has the dearest value of every hyperparameter at once. Evaluation is left out.
    """
    knobs = trials.controlled
    values = np.array([h.start for h in knobs], np.float64)
    for k, h in enumerate(knobs):
        ends = [h.low, h.high] if isinstance(h, Number) else range(len(h.options))
        rows = np.repeat(values[None], len(ends), axis=0)
        rows[:, k] = list(ends)
        values = rows[np.argmax(trials.operations(rows))]
    return float(trials.operations(values[None])[0]) * trials.steps


class TellableSeveral:
    """As `Tellable`, of several objectives.

    Args:
        trials: whose task has the floor.
        objectives: names.
    """

    def __init__(self, trials: Trials, objectives: Sequence[str]) -> None:
        self._each = [Tellable(trials, name) for name in objectives]

    def __call__(self, values: Floats) -> list[list[float]]:
        """Oriented values ``(n, m)`` to tell."""
        columns = [
            tell(column) for tell, column in zip(self._each, values.T, strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]
