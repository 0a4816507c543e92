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
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core import streams
from dacrl_env.core.checks import real
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option


class CheckpointWhenBest:
    """Save while the score is the best so far, restore when it has fallen far below it.

    Of equal scores the newest networks are kept. Before training nothing happens.

    Args:
        fall: how far below the best of the run the score has to be.
        shuffle: a control: every member goes by the scores of another, drawn anew for
            each decision.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: a fall that is no positive number; at `reset`, an algorithm without
            a register.
    """

    action_mode = "values"

    def __init__(
        self, fall: float = 0.1, shuffle: bool = False, **config: Option
    ) -> None:
        if not real("fall", fall) > 0:
            raise ValueError(f"fall must be positive, got {fall}")
        self.fall, self.shuffle, self.config = float(fall), shuffle, config
        self.hyperparameters = ("checkpoint", *config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        arguments = {"fall": self.fall, **self.config}
        return {**arguments, "shuffle": True} if self.shuffle else arguments

    def shuffled(self) -> CheckpointWhenBest:
        """The same rule by the scores of others: a control."""
        return CheckpointWhenBest(self.fall, True, **self.config)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check the configuration."""
        envs.to_actions({**self.config, "checkpoint": "save"})
        self.envs = envs
        self._keys = envs.policy_keys[:1] if self.shuffle else None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        known = infos["env_steps"] > 0
        score = np.where(known, infos["score"], np.nan)
        whose = streams.seen_by(self._keys, infos["env_steps"])
        best = infos["objectives"]["best"][whose]
        option = kept_or_restored(score[whose], best, self.fall)
        return self.envs.to_actions({**self.config, "checkpoint": option})


def kept_or_restored(
    score: ArrayLike, best: ArrayLike, fall: ArrayLike
) -> NDArray[np.object_]:
    """What happens to the register of each run ``(P,)``.

    Args:
        score: ``(P,)`` observed last; NaN: nothing is known, and nothing happens.
        best: ``(P,)`` of the run so far, the last one included.
        fall: below the best, from which on the best is restored.
    """
    now, highest, least = (np.asarray(x, np.float64) for x in (score, best, fall))
    option = np.full(now.shape, "none", object)
    option[now < highest - least] = "restore"
    option[now >= highest] = "save"
    return option
