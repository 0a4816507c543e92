"""Begin networks anew now and then, and keep the replay.

Nikishin et al. 2022, "The primacy bias in deep reinforcement learning" (ICML): networks
that learned much from their first data learn later data badly. Resetting them, or their
last layers, at equal distances recovers at once where many gradient steps are made for
each environment step. Shrinking and perturbing them instead is that of D'Oro et al.
2023 ("Sample-efficient reinforcement learning by breaking the replay ratio barrier").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.checks import unknown, whole
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option

EVENTS = ("reset_head", "reset_all", "shrink_perturb")


class ResetEvery:
    """The same event at equal distances, the first one of them after the start.

    Args:
        times: how often in a run.
        event: "reset_head", "reset_all" or "shrink_perturb".
        until: share of the run after which there is none.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: fewer than one time, another event, or a share outside (0, 1]; at
            `reset`, an algorithm without the event.
    """

    action_mode = "values"
    independent = True

    def __init__(
        self,
        times: int = 3,
        event: str = "reset_head",
        until: float = 1.0,
        **config: Option,
    ) -> None:
        if event not in EVENTS:
            raise ValueError(unknown("event", event, EVENTS))
        if not 0 < until <= 1:
            raise ValueError(f"until must lie in (0, 1], got {until}")
        self.times, self.event, self.until = whole("times", times), event, until
        self.config = config
        self.hyperparameters = (event, *config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check the configuration."""
        self.quiet = envs.to_actions(self.config)
        self.loud = envs.to_actions({**self.config, self.event: True})
        s = envs.settings
        due = s.budget * self.until / (self.times + 1) * np.arange(1, self.times + 1)
        # at the decisions that come next
        self.at = np.unique(np.ceil(due / s.decision_interval) * s.decision_interval)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        now = np.isin(infos["env_steps"], self.at)
        return np.where(now[:, None], self.loud, self.quiet)
