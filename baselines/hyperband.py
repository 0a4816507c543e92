"""Successive halving and Hyperband (Li et al. 2018): poor candidates stop early.

"Hyperband: A novel bandit-based approach to hyperparameter optimization", JMLR 18.
Successive halving trains many candidates a little, goes on with the best share of them
to eta times as much, and so on until the last have a complete run. How early scores can
be trusted is not known, so Hyperband does it in brackets, from many candidates that
are judged early to few that are never stopped.

The fidelity is the number of decisions of a run. A promoted run goes on from where it
stood, so that only the increment is trained and charged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from dacrl_env.core.store import Store
from dacrl_env.methods.rungs import (
    Rungs,
    brackets,
    check_bracket,
    check_eta,
    race,
    shrink,
)
from dacrl_env.methods.search import Incumbent, search_space, with_default
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Task


@dataclass(frozen=True)
class SuccessiveHalving:
    """Candidates drawn uniformly; the first bracket of Hyperband, over and over.

    When what is left of the budget does not pay for a whole bracket, the last ones have
    fewer candidates. Only candidates trained to the end can become the result.

    Args:
        eta: one in eta candidates is promoted, to eta times the fidelity.
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        seeds: tuning runs a candidate.
        objective: of a run: "final", "best" or "auc" of the observed score so far.
        default_first: the first candidate keeps every default; it is charged as any.

    Raises:
        ValueError: eta below 2; see `SearchSpace` and `Trials`.
    """

    eta: int = 3
    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    seeds: int = 1
    objective: str = "final"
    default_first: bool = False

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_eta(self.eta)

    def brackets(self, longest: int) -> list[Rungs]:
        """Those that are gone through, for complete runs of ``longest`` decisions."""
        return brackets(longest, self.eta)[:1]

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
        """The best of the candidates that were trained to the end.

        Raises:
            ValueError: the budget is below the first bracket.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family)
        generator = np.random.default_rng((seed, 0))
        table = self.brackets(trials.decisions)
        check_bracket(trials, table[0], self.seeds)
        best = Incumbent(space, trials)
        unit = self.seeds * trials.settings.decision_interval
        for whole in cycle(table):
            # runs that diverge leave steps for further candidates
            rungs = shrink(whole, self.eta, trials.left // unit)
            if not rungs:
                return best.fitted()
            candidates = space.sample(generator, rungs[0][0])
            if self.default_first and not best.course:
                candidates = with_default(space, candidates)
            race(best, candidates, rungs, self.seeds, self.objective)
        raise AssertionError("a cycle has no end")


@dataclass(frozen=True)
class Hyperband(SuccessiveHalving):
    """All brackets one after the other, over and over; else successive halving."""

    def brackets(self, longest: int) -> list[Rungs]:
        """Those that are gone through, for complete runs of ``longest`` decisions."""
        return brackets(longest, self.eta)
