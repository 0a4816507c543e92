"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846).

Runs train side by side. After every few decisions the worst of them continue from the
state of one of the best, with hyperparameters that differ a little. What comes out is
the *lineage* of the run that ends best: the values that were applied to it and to those
it descends from, decision by decision, as a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.actions import twelve_digits
from dacrl_env.checks import unknown
from dacrl_env.policies import Fitted
from dacrl_env.store import Store
from dacrl_env.tasks import LEAST_COMPLEMENT, Hyperparameter, Task
from dacrl_env.trials import Observed, Trials, check_objective, check_usable

from .open_loop import OpenLoop
from .search import with_default
from .search_space import SearchSpace

EXPLOITS = ("both", "weights")
LARGEST = 64  # members, where the budget alone would decide
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


def truncation(scores: Floats, quantile: float, generator: np.random.Generator) -> Ints:
    """Whose state each member continues from.

    The worst share of the members draws uniformly from the best share; so does every
    member that diverged, which is never a donor. If all have, nobody exploits. Equal
    scores are ranked by lot.

    Args:
        scores: ``(P,)``; −∞: diverged.
        quantile: the share, at most one half, rounded down to members.
        generator: draws lots and donors.

    Returns:
        Parents ``(P,)``; the member itself where it goes on.
    """
    P, n = len(scores), _count(quantile, len(scores))
    order = np.lexsort((generator.random(P), scores))  # from the worst
    parents, alive = np.arange(P), scores > -np.inf
    donors = order[P - n :]
    donors = donors[alive[donors]]
    exploits = ~alive
    exploits[order[:n]] = True
    if len(donors):
        parents[exploits] = generator.choice(donors, int(exploits.sum()))
    return parents


def explore(
    values: Floats,
    space: SearchSpace,
    factors: Sequence[float],
    resample: float,
    generator: np.random.Generator,
) -> Floats:
    """Values ``(m, k)`` perturbed, or drawn anew from the space.

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
        perturb(h, values[:, k], factor[:, k]) for k, h in enumerate(space.searched)
    ]
    return np.where(anew, fresh, np.stack(moved, -1))


def perturb(h: Hyperparameter, values: Floats, factors: Floats) -> Floats:
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
    return twelve_digits(np.clip(moved, low, high))


def lineage(parents: Sequence[Ints], applied: Sequence[Floats], member: int) -> Floats:
    """Values ``(decisions, d)`` applied to the run that a member ends with.

    Args:
        parents: ``(P,)`` for each exploit, whose run the members went on with.
        applied: ``(K, P, d)`` for each round, one more than exploits.
        member: whose run it is in the last round.
    """
    parts = [applied[-1][:, member]]
    for before, values in zip(parents[::-1], applied[-2::-1], strict=True):
        member = int(before[member])
        parts.append(values[:, member])
    return np.concatenate(parts[::-1])


# -- the frame that PB2 shares ----------------------------------------------------


@dataclass
class Course:
    """What a population has done; a round is the time between two exploits."""

    rounds: list[Observed] = field(default_factory=list)
    parents: list[Ints] = field(default_factory=list)  # after each round but the last

    def values(self, space: SearchSpace) -> list[Floats]:
        """Applied values ``(P, k)`` of the searched hyperparameters, in each round."""
        columns = searched(space)
        return [seen.applied[-1][:, columns] for seen in self.rounds]


# values (m, k) for the members that exploit, after the last round so far
Explore = Callable[[Course, Ints], Floats]


def evolve(
    trials: Trials,
    space: SearchSpace,
    generator: np.random.Generator,
    changed: Explore,
    *,
    population: int | None,
    interval: int,
    quantile: float,
    objective: str,
    default_first: bool = False,
) -> Fitted:
    """Train a population, exploiting after every ``interval`` decisions.

    Args:
        trials: the account.
        space: the first generation is uniform in it.
        generator: draws that generation, lots and donors.
        changed: gives members that exploit their new values.
        population: see `PBT`, as the other arguments.
        interval: decisions.
        quantile: share.
        objective: name.
        default_first: see `PBT`.

    Raises:
        ValueError: the budget is below the population's runs, the interval leaves no
            exploit, the inner environments cannot be copied, or all members diverged.
    """
    P = _size(trials, population, quantile)
    if interval >= trials.decisions:
        raise ValueError(
            f"an interval of {interval} leaves no exploit in runs of "
            f"{trials.decisions} decisions; valid: below that number"
        )
    columns, course = searched(space), Course()
    trials.check_fork()  # in a rehearsal, which ends with the next line
    trials.begin(trials.tuning_seeds(P))
    trials.check_fork()
    candidates = space.sample(generator, P)
    if default_first:
        candidates = with_default(space, candidates)
    values = space.values(candidates, 1)[0]
    left = trials.decisions
    while True:
        K = min(interval, left)
        seen = trials.advance(np.tile(values, (K, 1, 1)))
        course.rounds.append(seen)
        left -= K
        if not left:
            break
        parents = truncation(seen.objective(objective), quantile, generator)
        children = descendants(parents)
        if len(children):
            trials.fork(parents)
            values[np.ix_(children, columns)] = changed(course, parents)
        course.parents.append(parents)
    scores = seen.objective(objective)
    best = int(np.argmax(scores))
    check_usable(float(scores[best]), trials)
    # what was applied, not what was asked for: caps and rounding are part of it
    table = lineage(course.parents, [seen.applied for seen in course.rounds], best)
    schedule = {
        h.name: table[:, k].tolist()
        for h, k in zip(space.searched, columns, strict=True)
    }
    online = float(trials.judge()[best])
    return trials.fitted(OpenLoop(schedule), online=online)


def searched(space: SearchSpace) -> Ints:
    """Columns ``(k,)`` of the searched hyperparameters among the controlled ones."""
    names = [h.name for h in space.controlled]
    return np.array([names.index(h.name) for h in space.searched])


def decoded(space: SearchSpace, candidates: Floats) -> Floats:
    """Values ``(n, k)`` of candidates ``(n, k)``."""
    return np.array([list(row.values()) for row in space.decode(candidates)])


def descendants(parents: Ints) -> Ints:
    """Members that continue from another's state."""
    return np.flatnonzero(parents != np.arange(len(parents)))


def check_population(population: int | None, interval: int, quantile: float) -> None:
    """Raise a ValueError for values of `PBT` that no task allows."""
    if not 0 < quantile <= 0.5:
        raise ValueError(f"quantile must lie in (0, 0.5], got {quantile}")
    for name, value in (("interval", interval), ("population", population)):
        if name == "population" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{name} must be a whole number of at least 1, got {value!r}"
            )
    if population is not None and population < (least := _least(quantile)):
        raise ValueError(
            f"a population of {population} has nobody in a quantile of {quantile}; "
            f"it needs at least {least} members"
        )


def _count(quantile: float, P: int) -> int:
    """Members in a quantile; 0.29 of 100 are 29, although the product is below."""
    return int(np.floor(quantile * P + 1e-9))


def _least(quantile: float) -> int:
    return int(np.ceil(1 / quantile - 1e-9))


def _size(trials: Trials, population: int | None, quantile: float) -> int:
    """Members, all paid for."""
    paid, least = trials.left // trials.steps, _least(quantile)
    P = max(least, min(LARGEST, paid)) if population is None else int(population)
    if paid < P:
        raise ValueError(
            f"a tuning budget of {trials.left:,} steps is below a population of {P} "
            f"runs, which take {P * trials.steps:,}; a quantile of {quantile} needs "
            f"at least {least} members"
        )
    return P
