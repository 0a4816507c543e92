"""One configuration for the whole run: the default of practice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks import Option


def extremes(values: Mapping[str, Iterable[Option]]) -> dict[str, tuple[float, float]]:
    """Smallest and largest of the numbers among values, by name."""
    found = {}
    for name, every in values.items():
        numbers = [float(v) for v in every if isinstance(v, int | float | np.number)]
        if numbers:
            found[name] = min(numbers), max(numbers)
    return found


class Static:
    """The same hyperparameters at every decision.

    Args:
        configuration: static configuration of the runs (such as ``hidden_sizes``),
            where they are not given another one; None: the task's.
        **config: name to value, a number or an option of a choice; what is left out
            keeps the task's default, so that no argument at all is the task's default
            configuration.

    Raises:
        ValueError: at `reset`, for an unknown name or a value out of range.
    """

    action_mode = "values"

    def __init__(
        self, configuration: Mapping[str, Any] | None = None, **config: Option
    ) -> None:
        self.configuration = dict(configuration or {})
        self.config = config
        self.hyperparameters = tuple(config)
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def __repr__(self) -> str:
        """What makes it again."""
        given = (f"{name}={value!r}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({', '.join(given)})"

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        if not self.configuration:
            return self.config
        return {"configuration": self.configuration, **self.config}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate the configuration into actions."""
        self.actions = envs.to_actions(self.config)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """The same actions ``(P, d)``."""
        return self.actions
