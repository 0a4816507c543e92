"""Two configurations, chosen between by the score: the smallest tuned controller.

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

from dacrl_env.vector_env import PopulationEnv


class Switch:
    """One configuration below a score, another at and above it.

    Before the first decision nothing is known, and the one below it holds.

    Args:
        threshold: score.
        below: name to value.
        above: name to value, of the same hyperparameters; others keep their default.

    Raises:
        ValueError: no or different hyperparameters; at `reset`, unknown names or values
            out of range.
    """

    action_mode = "continuous"

    def __init__(
        self, threshold: float, below: Mapping[str, float], above: Mapping[str, float]
    ) -> None:
        if not below or set(below) != set(above):
            raise ValueError(
                "both configurations need the same hyperparameters, at least one; got "
                f"{', '.join(below) or 'none'} and {', '.join(above) or 'none'}"
            )
        self.threshold = float(threshold)
        self.below, self.above = dict(below), dict(above)
        self.hyperparameters = tuple(below)

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        return {"threshold": self.threshold, "below": self.below, "above": self.above}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate both configurations into actions."""
        self._below = envs.to_actions(self.below)
        self._above = envs.to_actions(self.above)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        good = (infos["env_steps"] > 0) & (infos["score"] >= self.threshold)
        return np.where(good[:, None], self._above, self._below)
