"""A race in two stages: many candidates on few seeds, then the best on fresh ones.

A single tuning seed decides by luck, and the best of many is overestimated. So
candidates are screened on a few seeds first, the poorer of them only for the first part
of a run; the finalists then run on seeds that had no part in their selection. What
counts is the mean over all seeds of a finalist. The idea is that of racing (Maron and
Moore 1994, "Hoeffding races", NIPS) with stages of fixed length.

The default configuration is one of the candidates. Half of the others lie near it, half
anywhere in the space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.store import Store
from dacrl_env.methods.rungs import promote
from dacrl_env.methods.search import (
    Incumbent,
    around,
    check_candidates,
    default_candidate,
    go_on,
    search_space,
)
from dacrl_env.methods.search_space import ROWS
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Race:
    """Screening on few seeds, a final on fresh ones.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        rows: observation rows of the family "gate".
        seeds: tuning runs a candidate in the screening.
        finalists: candidates in the final.
        fresh: tuning runs of a finalist, on seeds that nobody has run on.
        eta: after the first 1 / eta of the run one in eta candidates goes on, but no
            fewer than the finalists.
        objective: of a run: "final", "best" or "auc" of the observed score so far.

    Raises:
        ValueError: numbers out of range; see also `SearchSpace` and `Trials`.
    """

    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    rows: Sequence[str] = ROWS
    seeds: int = 2
    finalists: int = 3
    fresh: int = 4
    eta: int = 4
    objective: str = "final"

    def __post_init__(self) -> None:
        check_objective(self.objective)
        for name, least in (("seeds", 1), ("finalists", 1), ("fresh", 1), ("eta", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {value!r}"
                )

    def rungs(self, longest: int, affordable: int) -> tuple[int, int, int]:
        """Candidates, those of them that are screened to the end, and when.

        Args:
            longest: decisions of a complete run.
            affordable: decisions of one run that are paid for.

        Returns:
            Candidates, survivors, and decisions before the others are given up; no
            candidates if not even the finalists can be paid for.
        """
        early = max(1, longest // self.eta)
        left = affordable - self.finalists * self.fresh * longest

        def cost(n: int) -> int:
            return self.seeds * (n * early + survivors(n) * (longest - early))

        def survivors(n: int) -> int:
            return max(self.finalists, n // self.eta)

        n = self.finalists
        if cost(n) > left:
            return 0, 0, early
        while cost(n + 1) <= left:
            n += 1
        return n, survivors(n), early

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
        """The best of the finalists.

        Raises:
            ValueError: the budget is below the runs of the finalists.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family, self.rows)
        generator = np.random.default_rng((seed, 0))
        check_candidates(trials, self.seeds + self.fresh, self.finalists)
        whole, S = trials.decisions, self.seeds
        affordable = trials.left // trials.settings.decision_interval
        n, kept, early = self.rungs(whole, affordable)
        candidates = around(space, default_candidate(space), generator, n)

        def screened(alive: NDArray[np.int64], start: int, end: int) -> Floats:
            seen = go_on(trials, space, candidates[alive], S, start, end)
            return seen.objective(self.objective).reshape(-1, S)

        trials.begin(trials.tuning_seeds(S) * n)
        alive = np.arange(n)
        scores = screened(alive, 0, early)
        if early < whole:
            survivors = promote(scores.mean(1), kept)
            trials.select((survivors[:, None] * S + np.arange(S)).ravel())
            alive, scores = alive[survivors], screened(survivors, early, whole)
        best = promote(scores.mean(1), self.finalists)
        finalists = candidates[alive[best]]

        trials.begin(trials.tuning_seeds(self.fresh, first=S) * len(best))
        final = go_on(trials, space, finalists, self.fresh, 0, whole)
        again = final.objective(self.objective).reshape(-1, self.fresh)
        judged = trials.judge().reshape(-1, self.fresh).mean(1)
        result = Incumbent(space, trials)
        result.settle()  # none of the finalists could be had for less
        result.offer(finalists, np.hstack([scores[best], again]).mean(1), judged)
        return result.fitted()
