"""New random hyperparameters at every decision: what any controller should beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.outer.vector_env import PopulationEnv


class DynamicRandom:
    """Actions uniform over the continuous action space, drawn anew at each decision.

    A run's draws follow from its own seed, whatever population it stands in.
    """

    action_mode = "continuous"

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Remember the population whose streams are used."""
        self.envs = envs

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)`` in ± 1."""
        lanes = len(self.envs.settings.controlled)
        return (
            2 * streams.uniforms(self.envs.policy_keys, infos["env_steps"], lanes) - 1
        )
