"""One configuration for the whole run: the default of practice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv


class Static:
    """The same hyperparameters at every decision.

    Args:
        **config: name to value; what is left out keeps the task's default, so that
            no argument at all is the task's default configuration.

    Raises:
        ValueError: at `reset`, for an unknown name or a value out of range.
    """

    action_mode = "values"

    def __init__(self, **config: float) -> None:
        self.config = config
        self.hyperparameters = tuple(config)
        self.extremes = {name: (value, value) for name, value in config.items()}

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        return self.config

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate the configuration into actions."""
        self.actions = envs.to_actions(self.config)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """The same actions ``(P, d)``."""
        return self.actions
