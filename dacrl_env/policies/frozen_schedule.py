"""A schedule that all but stops learning while things go well.

A schedule knows the time, a rule the score. This closed loop knows both: where its
threshold is never reached it is the schedule, and so it tells what looking adds to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.checks import real
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.tasks import Option

RATE = "learning_rate"


class FrozenSchedule:
    """A schedule, with the smallest learning rate at and above a score.

    Before the first decision nothing is known, and the schedule holds.

    Args:
        threshold: score.
        values: name to one value a decision, as of `OpenLoop`; the learning rate is one
            of them.
        shuffle: a control: every member goes by the score of another, drawn anew for
            each decision.

    Raises:
        ValueError: no learning rate, tables of different lengths, or a threshold that
            is no finite number; at `reset`, unknown names or values out of range.
    """

    action_mode = "values"

    def __init__(
        self,
        threshold: float,
        values: Mapping[str, Sequence[Option]],
        shuffle: bool = False,
    ) -> None:
        if RATE not in values:
            raise ValueError(
                f"a schedule that freezes needs {RATE}; got "
                f"{', '.join(values) or 'nothing'}"
            )
        self.schedule = OpenLoop(values)
        self.threshold, self.shuffle = float(real("threshold", threshold)), shuffle
        self.hyperparameters = self.schedule.hyperparameters
        self.extremes = self.schedule.extremes
        self.decisions = self.schedule.decisions

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        arguments = {"threshold": self.threshold, **self.schedule.arguments()}
        return {**arguments, "shuffle": True} if self.shuffle else arguments

    def shuffled(self) -> FrozenSchedule:
        """The same rule by the scores of others: a control."""
        return FrozenSchedule(self.threshold, self.schedule.values, shuffle=True)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check the table against the environment."""
        self.schedule.reset(envs, seed)
        self._smallest = envs.settings.number(RATE).low
        self._keys = envs.policy_keys[:1] if self.shuffle else None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        steps = infos["env_steps"]
        score = infos["score"][streams.seen_by(self._keys, steps)]
        good = (steps > 0) & (score >= self.threshold)
        values = self.schedule.at(steps)
        values[RATE] = np.where(good, self._smallest, values[RATE])
        return self.schedule.envs.to_actions(values)
