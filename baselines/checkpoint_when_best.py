"""Keep the best networks, and go back to them after a fall.

Deep Q-learning often solves a task and forgets it again. Practitioners keep the best
checkpoint to return it; here the run itself goes back to it and learns on, with the
replay that it has by then, as OpenAI et al. 2019 ("Dota 2 with large scale deep
reinforcement learning") did by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option


class CheckpointWhenBest:
    """Save on a new best score, restore when the score has fallen far below it.

    Args:
        fall: how far below the best of the run the score has to be.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: a fall that is not positive; at `reset`, an algorithm without a
            register.
    """

    action_mode = "values"
    independent = True

    def __init__(self, fall: float = 0.1, **config: Option) -> None:
        if not fall > 0:
            raise ValueError(f"fall must be positive, got {fall}")
        self.fall, self.config = fall, config
        self.hyperparameters = ("checkpoint", *config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check the configuration; nothing is the best yet."""
        envs.to_actions({**self.config, "checkpoint": "save"})
        self.envs, self.best = envs, np.full(envs.num_envs, -np.inf)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        score = np.asarray(infos["score"], np.float64)
        self.best[infos["env_steps"] == 0] = -np.inf
        option = np.full(len(score), "none", object)
        option[score < self.best - self.fall] = "restore"
        option[score > self.best] = "save"
        self.best = np.maximum(self.best, score)
        return self.envs.to_actions({**self.config, "checkpoint": option})
