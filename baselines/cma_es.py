"""Covariance matrix adaptation (Hansen and Ostermeier 2001), by the package `cma`.

"Completely derandomized self-adaptation in evolution strategies", Evolutionary
Computation 9. Candidates are drawn from a normal distribution that moves towards the
better half of every generation and takes its shape. Of noisy scores it averages many,
where a choice of the best takes the luckiest: what comes out is the mean of the
distribution, not a candidate that was tried.

With the family "gate" this is direct policy search for a controller, as in augmented
random search (Mania et al. 2018, arXiv 1803.07055), where very small policies were
enough for much harder tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dacrl_env.core.installed import require
from dacrl_env.core.isolation import as_usual
from dacrl_env.core.store import Store
from dacrl_env.methods.objectives import Tellable
from dacrl_env.methods.search import (
    check_candidates,
    default_candidate,
    go_on,
    search_space,
)
from dacrl_env.methods.search_space import ROWS
from dacrl_env.methods.trials import Trials, check_objective, check_usable
from dacrl_env.policies import Cost, Fitted, Policy
from dacrl_env.tasks import Task


@dataclass(frozen=True)
class CMAES:
    """Candidates from a normal distribution, which begins around the default.

    All candidates of a generation are trained on the same tuning seeds, and each
    generation on fresh ones. A choice without an order (the shape of a schedule) is an
    axis in equal parts.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        rows: observation rows of the family "gate".
        seeds: tuning runs a candidate; of few, a generation follows what suits just
            them.
        objective: of a run: "final", "best" or "auc" of the observed score.
        generation: candidates of one, trained side by side.
        sigma: initial standard deviation, as a share of a range.
        start: name to value of what is searched ("learning_rate", …), around which the
            distribution begins, instead of what keeps the default.
        default_first: the first candidate is where the distribution begins; it is
            charged as any.

    Raises:
        ValueError: numbers out of range; see `SearchSpace` and `Trials`.
        ImportError: without cma.
    """

    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    rows: Sequence[str] = ROWS
    seeds: int = 4
    objective: str = "final"
    generation: int = 12
    sigma: float = 0.08
    start: Mapping[str, float] | None = None
    default_first: bool = False

    def __post_init__(self) -> None:
        check_objective(self.objective)
        if self.generation < 4:
            raise ValueError(f"generation must be at least 4, got {self.generation}")
        if not 0 < self.sigma <= 1:
            raise ValueError(f"sigma must lie in (0, 1], got {self.sigma}")
        require("cma", "CMA-ES needs cma")

    @as_usual  # the library's numbers underflow
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
        """The mean of the distribution after all generations the budget pays for.

        Raises:
            ValueError: the budget is below one generation.
        """
        import cma

        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family, self.rows)
        check_candidates(trials, self.seeds, self.generation)
        generator = np.random.default_rng((seed, 0))
        options = {
            "popsize": self.generation,
            "bounds": [0, 1],
            # from a generator of our own instead of the global one
            "randn": lambda *shape: generator.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
            "verb_log": 0,
        }
        search = cma.CMAEvolutionStrategy(
            default_candidate(space, self.start), self.sigma, options
        )
        if self.default_first:
            search.inject([search.mean], force=True)
        tellable = Tellable(trials)
        course: list[tuple[Cost, Policy]] = []
        best = -np.inf
        n, S = self.generation, self.seeds
        while trials.left >= trials.steps * S * n:
            asked = search.ask()
            trials.begin(trials.tuning_seeds(S, first=S * len(course)) * n)
            seen = go_on(trials, space, np.array(asked), S, 0, trials.decisions)
            scores = seen.objective(self.objective).reshape(n, S).mean(1)
            best = max(best, float(scores.max()))
            search.tell(asked, [-score for score in tellable(scores)])
            mean = np.clip(search.result.xfavorite, 0, 1)
            course.append((trials.cost, space.policy(mean, trials.decisions)))
        check_usable(best, trials)
        return trials.fitted(course[-1][1], course)
