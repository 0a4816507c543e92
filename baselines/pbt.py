"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846).

Runs train side by side. After every few decisions the worst of them continue from the
state of one of the best, with hyperparameters that differ a little. What comes out is
the *lineage* of the run that ends best: the values that were applied to it and to those
it descends from, decision by decision, as a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.checks import unknown
from dacrl_env.core.store import Store
from dacrl_env.methods.evolution import (
    Course,
    check_population,
    decoded,
    descendants,
    evolve,
)
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import LEAST_COMPLEMENT, Number, Task

EXPLOITS = ("both", "weights")
_FIRST_SHARE = 0.01  # of a linear range: where a growing factor takes a value of 0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PBT:
    """Truncation selection, and perturbation by factors.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        population: members, each charged as a full run; None: as many as the budget
            pays for, at most 64. What is left is not spent.
        interval: decisions between two exploits, the ready interval. There is none
            after the last decision.
        quantile: share of the members that exploits, and share that is copied.
        factors: one of them, drawn uniformly, multiplies a value (see `perturb`).
        resample: probability for a hyperparameter to be drawn anew instead.
        objective: what members are compared by: "final" (the observed score at the
            decision), "best" or "auc" of the lineage so far.
        exploit: what comes from the donor: "both" its weights and hyperparameters,
            which are then perturbed, as in the paper; or its "weights" alone, and the
            member's own hyperparameters are perturbed. The others keep all in either.
        default_first: the first member begins with the defaults.

    Raises:
        ValueError: values outside of their ranges, or a population too small for the
            quantile; see also `SearchSpace` and `Trials`.
    """

    space: Mapping[str, Sequence[float]] | None = None
    population: int | None = None
    interval: int = 1
    quantile: float = 0.25
    factors: Sequence[float] = (0.8, 1.2)
    resample: float = 0.25
    objective: str = "final"
    exploit: str = "both"
    default_first: bool = False

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_population(self.population, self.interval, self.quantile)
        factors = np.asarray(self.factors, np.float64)
        valid = np.isfinite(factors) & (factors > 0) & (factors != 1)
        if factors.ndim != 1 or not len(factors) or not valid.all():
            raise ValueError(
                "factors must be one or more positive numbers other than 1, such as "
                f"(0.8, 1.2); got {self.factors!r}"
            )
        if not 0 <= self.resample <= 1:
            raise ValueError(f"resample must lie in [0, 1], got {self.resample}")
        if self.exploit not in EXPLOITS:
            raise ValueError(unknown("exploit", self.exploit, EXPLOITS))

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
        """The lineage of the best member at the end.

        Raises:
            ValueError: the budget is below the population's runs, or the interval
                leaves no exploit.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = SearchSpace(trials.controlled, self.space)
        generator = np.random.default_rng((seed, 0))

        def changed(course: Course, parents: Ints) -> Floats:
            children = descendants(parents)
            source = parents[children] if self.exploit == "both" else children
            before = course.values(space)[-1][source]
            return explore(before, space, self.factors, self.resample, generator)

        return evolve(
            trials,
            space,
            generator,
            changed,
            population=self.population,
            interval=self.interval,
            quantile=self.quantile,
            objective=self.objective,
            default_first=self.default_first,
        )


# -- operators ------------------------------------------------------------------


def explore(
    values: Floats,
    space: SearchSpace,
    factors: Sequence[float],
    resample: float,
    generator: np.random.Generator,
) -> Floats:
    """Values ``(m, k)`` perturbed, or drawn anew from the space.

    A choice, of which nothing is near, is drawn anew or stays.

    Args:
        values: ``(m, k)`` of the searched hyperparameters.
        space: what new ones are drawn from, uniformly on the scales.
        factors: to multiply by.
        resample: probability, for each value, of a new draw.
        generator: of all draws.
    """
    fresh = decoded(space, space.sample(generator, len(values)))
    anew = generator.random(values.shape) < resample
    factor = generator.choice(np.asarray(factors, np.float64), values.shape)
    moved = [
        perturb(h, values[:, k], factor[:, k])
        if isinstance(h, Number)
        else values[:, k]
        for k, h in enumerate(space.searched)
    ]
    return np.where(anew, fresh, np.stack(moved, -1))


def perturb(h: Number, values: Floats, factors: Floats) -> Floats:
    """Values ``(m,)`` times factors ``(m,)``, within the range.

    On scales that are logarithmic in one minus the value, that distance is multiplied.
    A linear value of 0 would stay there for ever: a factor above 1 takes it to a
    hundredth of the range. Integers are rounded, and move by at least one in the
    direction of the factor, up to the end of the range.
    """
    if h.scale == "log_complement":
        complement = 1 - values
        if h.high == 1:  # at 1 it would stay for ever
            complement = np.maximum(complement, LEAST_COMPLEMENT)
        moved = 1 - complement * factors
        if h.high == 1:
            moved = np.where(moved > 1 - LEAST_COMPLEMENT, 1.0, moved)
    else:
        first = _FIRST_SHARE * (h.high - h.low)
        stuck = (values == 0) & (factors > 1)
        moved = np.where(stuck, first, values * factors)
    low, high = h.low, h.high
    if h.integer:
        low, high = np.ceil(low), np.floor(high)
        rounded = np.rint(moved)
        moved = np.where(rounded == values, values + np.sign(moved - values), rounded)
    return np.clip(moved, low, high)
