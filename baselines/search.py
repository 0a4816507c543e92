"""What the searchers share: candidates trained to the end, side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dacrl_env.policies import Cost, Fitted, Policy
from dacrl_env.trials import Trials

from .search_space import SearchSpace

Floats = NDArray[np.float64]


class Incumbent:
    """The best candidate so far, and the course of it.

    Args:
        space: of the candidates.
        trials: the account.
    """

    def __init__(self, space: SearchSpace, trials: Trials) -> None:
        self.space, self.trials = space, trials
        self.score = -np.inf
        self.online: float | None = None
        self.course: list[tuple[Cost, Policy]] = []

    def offer(
        self, candidates: Floats, scores: Floats, judged: Floats | None = None
    ) -> None:
        """Take note of candidates ``(n, k)`` with their scores ``(n,)``.

        Args:
            candidates: trained to the end.
            scores: to be compared; −∞ or NaN: diverged.
            judged: mean score by the report stream of each one's runs ``(n,)``.
        """
        ranked = np.where(np.isnan(scores), -np.inf, scores)
        best = int(np.argmax(ranked))
        if ranked[best] > self.score or not self.course:
            self.score = float(ranked[best])
            policy = self.space.policy(candidates[best], self.trials.decisions)
            self.online = None if judged is None else float(judged[best])
            self.course.append((self.trials.cost, policy))

    def fitted(self) -> Fitted:
        """The result of the method."""
        _, policy = self.course[-1]
        # the incumbent stands until all is spent
        course = [*self.course, (self.trials.cost, policy)]
        return Fitted(policy, self.trials.cost, course, self.online)


def check_candidates(trials: Trials, seeds: int, needed: int = 1) -> None:
    """Raise a ValueError if the budget is below ``needed`` full candidates."""
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    least = trials.steps * seeds * needed
    if trials.left < least:
        raise ValueError(
            f"a tuning budget of {trials.left:,} steps is below {needed} candidates on "
            f"{seeds} tuning seeds, which take {least:,}"
        )


def affordable(trials: Trials, seeds: int, population: int) -> int:
    """Candidates that train together next: as many as fit, and as are paid for.

    Args:
        trials: the account.
        seeds: tuning runs a candidate.
        population: runs side by side, at most; but one candidate at least.
    """
    return min(max(1, population // seeds), trials.left // (trials.steps * seeds))


def train(
    trials: Trials, space: SearchSpace, candidates: Floats, seeds: int, objective: str
) -> tuple[Floats, Floats]:
    """Mean objective and mean report score ``(n,)`` of candidates trained to the end.

    Every candidate is trained on the same ``seeds`` tuning seeds, which pairs them.
    """
    n = len(candidates)
    trials.begin(trials.tuning_seeds(seeds) * n)
    values = space.values(candidates, trials.decisions).repeat(seeds, axis=1)
    scores = trials.advance(values).objective(objective)
    judged = trials.judge()
    return scores.reshape(n, seeds).mean(1), judged.reshape(n, seeds).mean(1)
