"""Grid search: every combination of equally spaced values.

What is equal are factors or sums, as the scale of each hyperparameter says; the ends
of the ranges belong to the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.store import Store
from dacrl_env.methods.search import (
    Incumbent,
    check_candidates,
    default_candidate,
    search_space,
    train,
)
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Task


def most_points(candidates: int, dimensions: int) -> int:
    """The most points an axis of a grid of at most ``candidates``, but at least 2."""
    if not dimensions:
        return 2
    points = max(2, round(candidates ** (1 / dimensions)) + 1)
    while points > 2 and points**dimensions > candidates:
        points -= 1
    return points


def distinct(space: SearchSpace, points: int) -> NDArray[np.float64]:
    """Candidates ``(n, k)`` of a grid; those that round to the same values once."""
    grid = space.grid(points)
    seen: dict[tuple[float, ...], int] = {}
    for row, parameters in enumerate(space.decode(grid)):
        seen.setdefault(tuple(parameters.values()), row)
    return grid[list(seen.values())]


@dataclass(frozen=True)
class GridSearch:
    """All candidates of a grid.

    Args:
        points: on each axis of a number; None: the most that the budget pays for, at
            least 2.
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        seeds: tuning runs a candidate.
        objective: of a run: "final", "best" or "auc" of the observed score.
        population: runs trained side by side.
        default_first: what keeps every default is tried before the grid; it is
            charged as any.

    Raises:
        ValueError: see `SearchSpace` and `Trials`.
    """

    points: int | None = None
    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    seeds: int = 1
    objective: str = "final"
    population: int = 64
    default_first: bool = False

    def __post_init__(self) -> None:
        check_objective(self.objective)

    def fit(
        self,
        task: str | Task,
        budget: int,
        seed: int,
        /,
        store: Store | None = None,
        progress: Callable[[int], Any] | None = None,
        **task_kwargs: Any,
    ) -> Fitted:
        """The best candidate of the grid.

        Raises:
            ValueError: the budget does not pay for the grid.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family)
        check_candidates(trials, self.seeds)
        options = math.prod(space.choices.values())
        dimensions = len(space.dimensions) - len(space.choices)
        points = self.points
        if points is None:
            paid = trials.left // (trials.steps * self.seeds)
            points = most_points((paid - self.default_first) // options, dimensions)
        # first the number alone: a grid that is too large may not fit into memory
        number = options * max(points, 1) ** dimensions + self.default_first
        check_candidates(trials, self.seeds, number)
        candidates = distinct(space, points)
        if self.default_first:
            candidates = np.vstack([default_candidate(space), candidates])
        best = Incumbent(space, trials)
        size = max(1, self.population // self.seeds)
        for first in range(0, len(candidates), size):
            some = candidates[first : first + size]
            best.offer(some, *train(trials, space, some, self.seeds, self.objective))
        return best.fitted()
