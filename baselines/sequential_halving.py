"""Sequential halving over seeds (Karnin, Koren and Somekh 2013, ICML).

"Almost optimal exploration in multi-armed bandits": in every round the candidates that
are left share the same number of runs, and the better half stays. All runs are complete
ones. Few runs tell bad candidates from good ones; to tell good ones from each other
takes many, and they get them. Every round is on fresh tuning seeds, the same for all
candidates; what counts is a candidate's mean over all its runs. Of many runs of a good
candidate one may diverge: it counts with the task's floor, as it does in a test.

In a space of many dimensions the best of some hundred candidates is not near the best
there is. So the budget may be divided among generations: each is such a tournament, on
seeds of its own, and begins around the winner of the one before.

To be told from successive halving, where candidates that stay are trained for longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.store import Store
from dacrl_env.methods.rungs import promote
from dacrl_env.methods.search import (
    alike,
    around,
    check_most_work,
    default_candidate,
    go_on,
    search_space,
    within,
)
from dacrl_env.methods.search_space import FAMILIES, ROWS, SearchSpace
from dacrl_env.methods.trials import Trials, check_objective, check_usable
from dacrl_env.policies import Cost, Fitted, Policy
from dacrl_env.tasks import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SequentialHalving:
    """Ever fewer candidates on ever more seeds.

    What keeps the default, or `start`, is one of the candidates; half of the others lie
    near it, half anywhere in the space. Runs of different static configurations are
    trained in a population for each.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        rows: observation rows of the family "gate".
        candidates: at the beginning, at least 2; None: as many as one run each in the
            first round pays for.
        objective: of a run: "final", "best" or "auc" of the observed score.
        start: name to value of what is searched ("learning_rate", with the family
            "switch" "learning_rate/below"), by which the first candidate differs from
            what keeps the default.
        static_first: half of the budget finds a static configuration in the same way,
            and that instead of the default is what the first candidate keeps.
        most_work: candidates take at most so many times the floating-point operations
            of the default, in the mean over a run; others are drawn again. None: any.
        generations: tournaments, one after the other, with equal shares of the budget.
            The winner of each is the first candidate of the next, where what counts
            are fresh runs alone.
        keep_first: the first candidate, at which a tournament begins, takes part in all
            of its rounds: few runs that went badly do not lose it, and what replaces
            it was ahead on as many.
        configurations: of static configuration that is searched, too, with the family
            "static": name of a field to options. What runs have otherwise is one, also
            where it is not named.

    Raises:
        ValueError: numbers out of range, or static configurations first and again; see
            also `SearchSpace` and `Trials`.
    """

    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    rows: Sequence[str] = ROWS
    candidates: int | None = None
    objective: str = "final"
    start: Mapping[str, float] | None = None
    static_first: bool = False
    most_work: float | None = None
    generations: int = 1
    keep_first: bool = False
    configurations: Mapping[str, Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        check_objective(self.objective)
        n = self.candidates
        if n is not None and (not isinstance(n, int) or n < 2):
            raise ValueError(
                f"candidates must be a whole number of at least 2, or None; got {n!r}"
            )
        check_most_work(self.most_work, self.family)
        G = self.generations
        if not isinstance(G, int) or isinstance(G, bool) or G < 1:
            raise ValueError(
                f"generations must be a whole number of at least 1, got {G!r}"
            )
        if self.static_first and self.family == "static":
            raise ValueError(
                "static_first is for the families that begin at a static "
                f"configuration: {', '.join(FAMILIES[1:])}; the family is static"
            )

    def first_round(self, runs: int) -> int:
        """How many of the runs that are paid for make up the first round."""
        families = 2 if self.static_first else 1
        each = runs // (families * self.generations)
        n = self.candidates or most_candidates(each)
        return n * (each // (n * rounds(n)))

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
        """The one that is left.

        Raises:
            ValueError: the budget is below one run of each candidate in every round.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        families = ("static", self.family) if self.static_first else (self.family,)
        times = len(families) * self.generations
        runs = trials.left // trials.steps // times
        n = self.candidates or most_candidates(runs)
        if runs < n * rounds(n):
            often = {1: "", 2: ", twice"}.get(times, f", {times} times")
            raise ValueError(
                f"a tuning budget of {trials.left:,} steps is below {rounds(n)} rounds "
                f"of {n} runs{often}, which take "
                f"{times * n * rounds(n) * trials.steps:,}"
            )
        generator = np.random.default_rng((seed, 0))
        tournament = _Tournament(trials, self.objective, runs, self.keep_first)
        found: dict[str, float] = {}
        for family in families:
            space = search_space(
                trials, self.space, family, self.rows, self.configurations
            )
            start = space.constant(found)
            if family == self.family:
                start |= self.start or {}
            centre = default_candidate(space, start)
            for generation in range(self.generations):
                candidates = within(
                    trials,
                    space,
                    around(space, centre, generator, n),
                    self.most_work,
                    partial(_others, space, centre, generator),
                )
                last = family == families[-1] and generation == self.generations - 1
                centre = tournament.winner(space, candidates, judge=last)
            (found,) = space.decode(centre)
        return trials.fitted(
            tournament.course[-1][1], tournament.course, tournament.online
        )


class _Tournament:
    """Rounds of ever fewer candidates on ever more seeds, of which none comes twice.

    Args:
        trials: the account.
        objective: of a run.
        runs: of all candidates until one is left.
        keep_first: the first candidate takes part in all rounds.
    """

    def __init__(
        self, trials: Trials, objective: str, runs: int, keep_first: bool
    ) -> None:
        self.trials, self.objective, self.runs = trials, objective, runs
        self.keep_first = keep_first
        self.used = 0  # seeds
        self.course: list[tuple[Cost, Policy]] = []
        self.online: float | None = None  # of the winner, see `Fitted`

    def winner(
        self, space: SearchSpace, candidates: Floats, judge: bool = False
    ) -> Floats:
        """The candidate ``(k,)`` that is left of ``(n, k)``.

        Args:
            space: of the candidates.
            candidates: at least 2.
            judge: ask the report stream about the runs of the last round.

        Raises:
            ValueError: all runs of the winner failed.
        """
        trials, left, n = self.trials, candidates, len(candidates)
        scores, numbers = np.empty((n, 0)), np.arange(n)
        for k in range(rounds(n)):
            each = self.runs // (len(left) * rounds(n))
            last = k == rounds(n) - 1
            fresh, judged = self._fresh(space, left, each, judge and last)
            scores = np.hstack([scores, fresh])
            counted = np.where(np.isfinite(scores), scores, trials.task.floor_score)
            better = promote(counted.mean(1), math.ceil(len(left) / 2))
            if self.keep_first and not last and 0 not in numbers[better]:
                better[-1] = np.flatnonzero(numbers == 0)[0]
            left, scores, numbers = left[better], scores[better], numbers[better]
            self.course.append((trials.cost, space.policy(left[0], trials.decisions)))
        check_usable(float(scores[0].max()), trials)  # some run of it went well
        if judge:
            self.online = float(judged[better[0]])
        return left[0]

    def _fresh(
        self, space: SearchSpace, left: Floats, each: int, judge: bool
    ) -> tuple[Floats, Floats]:
        """Complete runs of the candidates ``(n, k)`` on the next seeds.

        Returns:
            Objectives ``(n, each)``, and ``(n,)`` what the report stream says of them,
            NaN if it is not asked.
        """
        trials, n = self.trials, len(left)
        seeds = trials.tuning_seeds(each, first=self.used)
        self.used += each
        result, judged = np.empty((n, each)), np.full(n, np.nan)
        for configuration, members in alike(space, left):
            trials.begin(seeds * len(members), configuration)
            seen = go_on(trials, space, left[members], each, 0, trials.decisions)
            result[members] = seen.objective(self.objective).reshape(-1, each)
            if judge:
                judged[members] = trials.judge().reshape(-1, each).mean(1)
        return result, judged


def _others(
    space: SearchSpace, centre: Floats, generator: np.random.Generator, n: int
) -> Floats:
    """Candidates ``(n, k)`` as at the beginning, the centre left out."""
    return around(space, centre, generator, n + 1)[1:]


def rounds(candidates: int) -> int:
    """Halvings, rounded up, that leave one of `candidates`."""
    return math.ceil(math.log2(candidates))


def most_candidates(runs: int) -> int:
    """As many as `runs` pay for with one run each in every round; 2 at least."""
    n = 2
    while (n + 1) * rounds(n + 1) <= runs:
        n += 1
    return n
