"""Begin networks anew where a run is stuck, and nowhere else.

How long a randomised search takes often has a heavy tail: some runs are stuck, and to
give them up for fresh ones takes less time than to wait (Luby et al. 1993, "Optimal
speedup of Las Vegas algorithms"; Gomes et al. 1998, "Boosting combinatorial search
through randomization"). A schedule of restarts also gives up the runs that do well.
This rule looks at the score first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core import streams
from dacrl_env.core.checks import real, whole
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option

EVENT = "reset_all"
ABOVE_ALL = 1e9  # scores


class RestartWhenPoor:
    """All networks begin anew where the score is poor, after some patience.

    That is so where a run never got anywhere, and where it was good and no longer is,
    for the environment changed. Replay and inner environments go on, as with
    ``reset-every``.

    Args:
        threshold: score.
        patience: decisions that networks have had before they may be given up.
        shuffle: a control: every member goes by the score of another, drawn anew for
            each decision.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: patience below 1, or a threshold that is no finite number; at
            `reset`, an algorithm without the event.
    """

    action_mode = "values"

    def __init__(
        self,
        threshold: float = 0.2,
        patience: int = 5,
        shuffle: bool = False,
        **config: Option,
    ) -> None:
        self.threshold = float(real("threshold", threshold))
        self.patience = whole("patience", patience)
        self.shuffle, self.config = shuffle, config
        self.hyperparameters = (EVENT, *config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        rule = {"threshold": self.threshold, "patience": self.patience}
        arguments: dict[str, Any] = {**rule, **self.config}
        return {**arguments, "shuffle": True} if self.shuffle else arguments

    def shuffled(self) -> RestartWhenPoor:
        """The same rule by the scores of others: a control."""
        return RestartWhenPoor(self.threshold, self.patience, True, **self.config)

    def every(self, decisions: int) -> RestartWhenPoor:
        """Restarts at equal distances, whatever the score: a control."""
        return RestartWhenPoor(ABOVE_ALL, decisions, False, **self.config)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate the configuration with and without the event into actions."""
        self._go_on = envs.to_actions(self.config)
        self._anew = envs.to_actions({**self.config, EVENT: True})
        self._ages = np.zeros(envs.num_envs, np.int64)
        self._keys = envs.policy_keys[:1] if self.shuffle else None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        steps = infos["env_steps"]
        score = infos["score"][streams.seen_by(self._keys, steps)]
        self._ages = np.where(steps == 0, 0, self._ages + 1)
        poor = is_given_up(score, self._ages, self.threshold, self.patience)
        self._ages[poor] = 0
        return np.where(poor[:, None], self._anew, self._go_on)


def is_given_up(
    score: ArrayLike, age: ArrayLike, threshold: ArrayLike, patience: ArrayLike
) -> NDArray[np.bool_]:
    """Which networks ``(P,)`` begin anew.

    Args:
        score: ``(P,)`` observed last; NaN: nothing is known.
        age: ``(P,)`` decisions that the networks have had.
        threshold: scores below which networks are given up.
        patience: fewest decisions before that.
    """
    return np.asarray((np.asarray(age) >= patience) & (np.asarray(score) < threshold))
