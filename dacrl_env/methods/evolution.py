"""The frame of population-based training: runs that go on from others' states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dacrl_env.methods.search import with_default
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Observed, Trials, check_usable
from dacrl_env.policies import Fitted
from dacrl_env.policies.open_loop import OpenLoop

LARGEST = 64  # members, where the budget alone would decide
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
        trials.controlled[k].name: [*map(trials.controlled[k].native, table[:, k])]
        for k in columns
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
