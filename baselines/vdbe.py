"""Explore while values are changing: value-difference based exploration.

Tokic 2010, "Adaptive ε-greedy exploration in reinforcement learning based on value
differences" (KI 2010, LNCS 6359). After a step of size α along the temporal-difference
error δ,

    f = (1 − exp(−|α δ| / σ)) / (1 + exp(−|α δ| / σ))
    ε ← w f + (1 − w) ε

from ε = 1 on. The paper has an ε for every state and updates it at every step, with w
one over the number of actions. Here there is one ε a run, updated at every decision
from the mean absolute error that the observation shows: it tells how unsettled values
are as a whole, not where. A network has no step size of that kind; α is part of σ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.elementary import tanh
from dacrl_env.outer.observations import unsquash
from dacrl_env.outer.vector_env import PopulationEnv

Floats = NDArray[np.float64]

_ROW = "signal/td_error"


class VDBE:
    """Epsilon that follows the mean absolute temporal-difference error.

    Args:
        sigma: inverse sensitivity, in units of reward: f is about δ / 2σ for small
            errors. With the default an error of one, what DQN shows on tasks with a
            reward of ± 1 a step, is an epsilon of 0.1, Stable-Baselines3's constant.
            Where rewards are rarer, errors are smaller: MiniGrid's are about 0.02.
        weight: of the newest error, the paper's δ; None: one over the number of
            actions, as there.
        initial: epsilon at the start.

    Raises:
        ValueError: sigma not positive, weight or initial outside [0, 1]; at `reset`, a
            learner without epsilon.
    """

    action_mode = "values"
    hyperparameters = ("epsilon",)

    def __init__(
        self, sigma: float = 5.0, weight: float | None = None, initial: float = 1.0
    ) -> None:
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        if weight is not None and not 0 <= weight <= 1:
            raise ValueError(f"weight must lie between 0 and 1, got {weight}")
        if not 0 <= initial <= 1:
            raise ValueError(f"initial must lie between 0 and 1, got {initial}")
        self.sigma, self.weight, self.initial = sigma, weight, initial

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start every member at the initial epsilon."""
        envs.to_actions({"epsilon": self.initial})  # raises without epsilon
        self.envs = envs
        self.row = envs.observation_names.index(_ROW)
        given = self.weight
        self.range = envs.settings.number("epsilon").ends
        self.w = 1 / envs.population.env.num_actions if given is None else given
        self.epsilons = np.full(envs.num_envs, self.initial)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        error = unsquash(observations[:, self.row])
        moved = self.w * surprise(error, self.sigma) + (1 - self.w) * self.epsilons
        self.epsilons = np.where(infos["env_steps"] == 0, self.initial, moved)
        return self.envs.to_actions({"epsilon": np.clip(self.epsilons, *self.range)})


def surprise(error: Floats, sigma: float) -> Floats:
    """The paper's f, in [0, 1): a hyperbolic tangent."""
    return tanh(np.abs(error) / (2 * sigma))
