"""Random search (Bergstra and Bengio 2012): as many candidates as the budget pays for.

"Random search for hyper-parameter optimization", JMLR 13. Each candidate is trained to
the end on every tuning seed; the best mean counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dacrl_env.core.store import Store
from dacrl_env.methods.objectives import aims, check_objectives
from dacrl_env.methods.search import (
    Incumbent,
    affordable,
    check_candidates,
    check_most_work,
    default_candidate,
    search_space,
    train,
    with_default,
    within,
)
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Task


@dataclass(frozen=True)
class RandomSearch:
    """Candidates drawn uniformly, on the scales of the hyperparameters.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        seeds: tuning runs a candidate.
        objective: of a run: "final", "best" or "auc" of the observed score.
        population: runs trained side by side.
        default_first: the first candidate keeps every default; it is charged as any.
        most_work: candidates take at most so many times the floating-point operations
            of the default, in the mean over a run; others are drawn again. None: any.
        objectives: several instead of the one, the first of which says which policy is
            returned; "cost" is that of a run in floating-point operations. The fit then
            has a Pareto front.

    Raises:
        ValueError: see `SearchSpace` and `Trials`.
    """

    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    seeds: int = 1
    objective: str = "final"
    population: int = 64
    default_first: bool = False
    most_work: float | None = None
    objectives: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_most_work(self.most_work, self.family)
        check_objectives(self.objective, self.objectives)

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
        """The best of all candidates that the budget pays for.

        Raises:
            ValueError: the budget is below one candidate.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family)
        generator = np.random.default_rng((seed, 0))
        check_candidates(trials, self.seeds)
        first = default_candidate(space)  # stays whatever its work
        drawn = partial(space.sample, generator)
        best = Incumbent(space, trials, aims(self))
        # runs that diverge leave steps for further candidates
        while n := affordable(trials, self.seeds, self.population):
            candidates = np.vstack([first, space.sample(generator, n)])
            candidates = within(trials, space, candidates, self.most_work, drawn)[1:]
            if self.default_first and not best.course:
                candidates = with_default(space, candidates)
            best.offer(
                candidates,
                *train(trials, space, candidates, self.seeds, aims(self)),
            )
        return best.fitted()
