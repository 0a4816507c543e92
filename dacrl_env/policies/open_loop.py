"""A schedule written out: a value for every decision, whatever happens.

What tuned schedules and the lineages of population-based training become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv


class OpenLoop:
    """Hyperparameters follow a table; those not in it keep their default.

    Args:
        values: name to one value a decision, applied to the last bit.

    Raises:
        ValueError: no hyperparameter, or tables of different lengths; at `reset`,
            unknown names or values out of range.
    """

    action_mode = "values"

    def __init__(self, values: Mapping[str, Sequence[float]]) -> None:
        lengths = {name: len(column) for name, column in values.items()}
        if not lengths or 0 in lengths.values() or len(set(lengths.values())) > 1:
            raise ValueError(
                "a schedule needs one value a decision for each hyperparameter, "
                f"equally many; got {lengths}"
            )
        self.values = {name: [float(v) for v in c] for name, c in values.items()}
        self.hyperparameters = tuple(self.values)
        self.extremes = {n: (min(c), max(c)) for n, c in self.values.items()}
        self.decisions = next(iter(lengths.values()))

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        return {"values": self.values}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check the table against the environment."""
        self.envs = envs
        for name, column in self.values.items():
            for value in (min(column), max(column)):
                envs.to_actions({name: value})

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)`` for the values at each member's decision."""
        budget = self.envs.settings.budget
        row = infos["env_steps"] * self.decisions // budget
        return self.envs.to_actions(
            {name: np.array(c)[row] for name, c in self.values.items()}
        )
