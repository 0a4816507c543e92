"""A schedule written out: a value for every decision, whatever happens.

What tuned schedules and the lineages of population-based training become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option


class OpenLoop:
    """Hyperparameters follow a table; those not in it keep their default.

    Args:
        values: name to one value a decision, applied to the last bit: numbers, options
            of a choice, or of an event what happens.

    Raises:
        ValueError: no hyperparameter, or tables of different lengths; at `reset`,
            unknown names or values out of range.
    """

    action_mode = "values"

    def __init__(self, values: Mapping[str, Sequence[Option]]) -> None:
        lengths = {name: len(column) for name, column in values.items()}
        if not lengths or 0 in lengths.values() or len(set(lengths.values())) > 1:
            raise ValueError(
                "a schedule needs one value a decision for each hyperparameter, "
                f"equally many; got {lengths}"
            )
        self.values = {name: [_plain(v) for v in c] for name, c in values.items()}
        self.hyperparameters = tuple(self.values)
        self.extremes = extremes(self.values)
        self.decisions = next(iter(lengths.values()))

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        return {"values": self.values}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check the table against the environment."""
        self.envs = envs
        for name, column in self.values.items():
            for value in dict.fromkeys(column):
                envs.to_actions({name: value})

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)`` for the values at each member's decision."""
        return self.envs.to_actions(self.at(infos["env_steps"]))

    def at(self, env_steps: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Values ``(P,)`` by name, after inner steps ``(P,)``; see `reset`."""
        row = env_steps * self.decisions // self.envs.settings.budget
        return {name: _array(column)[row] for name, column in self.values.items()}


def _plain(value: Any) -> Option:
    """A number as a float; texts and truth values as they are."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | bool) else float(value)


def _array(column: Sequence[Option]) -> NDArray[Any]:
    numbers = all(isinstance(v, float) for v in column)
    return np.array(column, float if numbers else object)
