"""Lower the learning rate when the score has stopped improving.

The rule of torch.optim.lr_scheduler.ReduceLROnPlateau, applied to evaluation scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv


class ReduceOnPlateau:
    """Multiply the learning rate by a factor after decisions without a better score.

    Args:
        factor: below one.
        patience: decisions without improvement, with the last of which the rate falls;
            one more than the ``patience`` of torch's scheduler.
        improvement: least gain of the score that counts as one.
        learning_rate: at the start; None: the task's default.

    Raises:
        ValueError: factor outside (0, 1) or patience below 1.
    """

    action_mode = "values"
    hyperparameters = ("learning_rate",)

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 4,
        improvement: float = 0.01,
        learning_rate: float | None = None,
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.factor, self.patience = factor, patience
        self.improvement, self.initial = improvement, learning_rate

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start every member at the initial learning rate."""
        self.envs = envs
        rate = envs.settings.number("learning_rate")
        self.low = rate.low
        self.first = rate.default if self.initial is None else self.initial
        envs.to_actions({"learning_rate": self.first})  # raises if out of range
        P = envs.num_envs
        self.rates = np.full(P, self.first)
        self.best = np.full(P, -np.inf)
        self.waited = np.zeros(P, np.int64)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        new = infos["env_steps"] == 0
        self.rates[new], self.best[new] = self.first, -np.inf
        better = infos["score"] > self.best + self.improvement
        self.best = np.where(better, infos["score"], self.best)
        self.waited = np.where(better | new, 0, self.waited + 1)
        late = self.waited >= self.patience
        lowered = np.maximum(self.rates * self.factor, self.low)
        self.rates = np.where(late, lowered, self.rates)
        self.waited[late] = 0
        return self.envs.to_actions({"learning_rate": self.rates})
