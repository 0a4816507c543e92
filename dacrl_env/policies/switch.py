"""Two configurations, chosen between by the score: a small tuned controller.

A schedule knows the time alone. A rule that also looks at how the run is doing is worth
comparing with it when both were found by the same searcher at the same cost: what the
rule gains is what looking is worth. `FreezeWhenGood` is the special case whose second
configuration does not learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.checks import real
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option


class Switch:
    """One configuration below a score, another at and above it.

    Before the first decision nothing is known, and the one below it holds.

    Args:
        threshold: score.
        below: name to value.
        above: name to value, of the same hyperparameters; others keep their default.
        shuffle: a control: every member goes by the score of another, drawn anew for
            each decision.

    Raises:
        ValueError: no or different hyperparameters, or a threshold that is no finite
            number; at `reset`, unknown names or values out of range.
    """

    action_mode = "values"

    def __init__(
        self,
        threshold: float,
        below: Mapping[str, Option],
        above: Mapping[str, Option],
        shuffle: bool = False,
    ) -> None:
        if not below or set(below) != set(above):
            raise ValueError(
                "both configurations need the same hyperparameters, at least one; got "
                f"{', '.join(below) or 'none'} and {', '.join(above) or 'none'}"
            )
        self.threshold = float(real("threshold", threshold))
        self.below, self.above = dict(below), dict(above)
        self.shuffle = shuffle
        self.hyperparameters = tuple(below)
        self.extremes = extremes(
            {name: (self.below[name], self.above[name]) for name in self.below}
        )

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        sides = {"below": self.below, "above": self.above}
        arguments = {"threshold": self.threshold, **sides}
        return {**arguments, "shuffle": True} if self.shuffle else arguments

    def shuffled(self) -> Switch:
        """The same rule by the scores of others: a control."""
        return Switch(self.threshold, self.below, self.above, shuffle=True)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate both configurations into actions."""
        self._below = envs.to_actions(self.below)
        self._above = envs.to_actions(self.above)
        self._keys = envs.policy_keys[:1] if self.shuffle else None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        steps = infos["env_steps"]
        score = infos["score"][streams.seen_by(self._keys, steps)]
        good = (steps > 0) & (score >= self.threshold)
        return np.where(good[:, None], self._above, self._below)
