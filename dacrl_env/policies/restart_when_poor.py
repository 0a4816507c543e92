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
from dacrl_env.core.checks import whole
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option

EVENT = "reset_all"


class RestartWhenPoor:
    """All networks begin anew where the score is below a threshold at equal distances.

    Replay and inner environments go on, as with ``reset-every``.

    Args:
        threshold: score.
        times: how often in a run it looks.
        shuffle: a control: every member goes by the score of another, drawn anew for
            each decision.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: fewer than one time; at `reset`, an algorithm without the event.
    """

    action_mode = "values"

    def __init__(
        self,
        threshold: float = 0.2,
        times: int = 3,
        shuffle: bool = False,
        **config: Option,
    ) -> None:
        self.threshold, self.times = float(threshold), whole("times", times)
        self.shuffle, self.config = shuffle, config
        self.hyperparameters = (EVENT, *config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        rule = {"threshold": self.threshold, "times": self.times}
        arguments: dict[str, Any] = {**rule, **self.config}
        return {**arguments, "shuffle": True} if self.shuffle else arguments

    def shuffled(self) -> RestartWhenPoor:
        """The same rule by the scores of others: a control."""
        return RestartWhenPoor(self.threshold, self.times, True, **self.config)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate the configuration with and without the event into actions."""
        self._go_on = envs.to_actions(self.config)
        self._anew = envs.to_actions({**self.config, EVENT: True})
        self._interval = envs.settings.decision_interval
        self._decisions = envs.settings.budget // self._interval
        self._keys = envs.policy_keys[:1] if self.shuffle else None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        score = infos["score"]
        if self._keys is not None:
            steps = infos["env_steps"][:1]
            score = score[streams.others(self._keys, steps, len(score))]
        decision = infos["env_steps"] // self._interval
        looks = is_due(decision, self.times, self._decisions)
        poor = looks & (score < self.threshold)
        return np.where(poor[:, None], self._anew, self._go_on)


def is_due(decision: ArrayLike, times: ArrayLike, decisions: int) -> NDArray[np.bool_]:
    """Whether a rule that looks ``times`` times in a run does so at a decision.

    Args:
        decision: its number, from 0 on; before the first nothing is due.
        times: looks, at equal distances between the start and the end of the run, each
            at the decision that comes next.
        decisions: of a run.
    """
    now, n = np.asarray(decision, np.int64), np.asarray(times, np.int64) + 1
    # shares of the run that are over now and one decision ago: a multiple of 1 / n lies
    # between them
    passed = now * n // decisions, (now - 1) * n // decisions
    return np.asarray((now > 0) & (passed[0] > passed[1]))
