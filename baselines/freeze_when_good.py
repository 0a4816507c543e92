"""Stop learning while things go well: the simplest reactive rule, as a yardstick.

Deep Q-learning often solves a task and forgets it again. A controller that only learns
to freeze has learned early stopping, so controllers are compared with this rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option


class FreezeWhenGood:
    """The smallest learning rate while the score is at or above a threshold.

    Args:
        threshold: score.
        **config: the configuration otherwise; what is left out keeps its default.
    """

    action_mode = "values"

    def __init__(self, threshold: float = 0.6, **config: Option) -> None:
        self.threshold = threshold
        self.config = config
        self.hyperparameters = ("learning_rate", *config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate both configurations into actions."""
        smallest = envs.settings.number("learning_rate").low
        self.learn = envs.to_actions(self.config)
        self.freeze = envs.to_actions({**self.config, "learning_rate": smallest})

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        good = infos["score"] >= self.threshold
        return np.where(good[:, None], self.freeze, self.learn)
