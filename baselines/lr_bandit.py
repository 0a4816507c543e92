"""A bandit over learning rates, rewarded by progress.

Donâncio, Barrier, South and Forbes 2024, "Dynamic learning rate for deep reinforcement
learning: a bandit approach" (LRRL, arXiv 2410.12598): every round one of K learning
rates is used, and an adversarial bandit learns from how performance has changed since.
The bandit is Exp3 (Auer, Cesa-Bianchi, Freund and Schapire 2002, "The nonstochastic
multiarmed bandit problem"): sums of feedback over the probability that the arm had,
softmax, and a share of uniform exploration.

    p = (1 − γ) softmax(w) + γ / K
    w[arm] ← w[arm] + η f / p[arm]

A round is a decision; f is the observed score minus the mean of those of the rounds
before it, at most a window back. Step size, exploration and rates are our choice: the
paper's are for hundreds of rounds, a run here has a few dozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.kernels.elementary import exp
from dacrl_env.outer.vector_env import PopulationEnv

Floats = NDArray[np.float64]

_FACTORS = np.array([0.25, 1.0, 4.0])  # of the default


class LearningRateBandit:
    """Exp3 over learning rates, a bandit for each member.

    A run's draws follow from its own seed, whatever population it stands in.

    Args:
        rates: K learning rates; None: a quarter of the default, the default, and four
            times it, as far as they are in range.
        step: η, for scores that lie between 0 and 1 most of the time.
        exploration: γ, share of uniformly drawn rates.
        window: rounds that progress is measured against.
        decisions: rounds of a run; None: the task's. With more of them than
            evaluations, some see no news.

    Raises:
        ValueError: fewer than two rates, step not positive, exploration outside
            (0, 1], or window below 1; at `reset`, a rate out of range, or a learner
            without learning rate.
    """

    action_mode = "values"
    hyperparameters = ("learning_rate",)

    def __init__(
        self,
        rates: Sequence[float] | None = None,
        step: float = 0.5,
        exploration: float = 0.1,
        window: int = 3,
        decisions: int | None = None,
    ) -> None:
        if rates is not None and len(rates) < 2:
            raise ValueError(f"rates must be at least two, got {rates}")
        if not step > 0:
            raise ValueError(f"step must be positive, got {step}")
        if not 0 < exploration <= 1:
            raise ValueError(f"exploration must lie in (0, 1], got {exploration}")
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.given, self.step = rates, step
        self.exploration, self.window = exploration, window
        self.decisions = decisions

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start a bandit for every member, with nothing learned."""
        h, P = envs.settings.number("learning_rate"), envs.num_envs
        near = np.unique(np.clip(h.default * _FACTORS, h.low, h.high))
        self.rates = near if self.given is None else np.array(self.given, float)
        h.check(self.rates)
        self.envs = envs
        self.weights = np.zeros((P, len(self.rates)))
        self.arms = np.zeros(P, np.int64)
        self.chances = np.ones(P)  # that the arm was drawn with
        self.scores = np.full((P, self.window), np.nan)  # newest first

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        score = infos["score"]
        new = (infos["env_steps"] == 0) | np.isnan(self.scores[:, 0])
        self.weights[new], self.scores[new] = 0.0, np.nan
        old = np.flatnonzero(~new)
        progress = score[old] - np.nanmean(self.scores[old], 1)
        gain = self.step * progress / self.chances[old]
        self.weights[old, self.arms[old]] += gain
        self.scores[:, 1:] = self.scores[:, :-1].copy()
        self.scores[:, 0] = score
        chances = probabilities(self.weights, self.exploration)
        draws = streams.uniforms(self.envs.policy_keys, infos["env_steps"], 1)
        # the last may fall short of one by rounding
        self.arms = (chances.cumsum(1)[:, :-1] <= draws).sum(1)
        self.chances = np.take_along_axis(chances, self.arms[:, None], 1)[:, 0]
        return self.envs.to_actions({"learning_rate": self.rates[self.arms]})


def probabilities(weights: Floats, exploration: float) -> Floats:
    """Of the arms ``(P, K)``."""
    likely = exp(weights - weights.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    return np.asarray((1 - exploration) * likely + exploration / weights.shape[1])
