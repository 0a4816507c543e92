"""A learning rate that keeps updates of PPO at a wanted size.

What practitioners do on robots, with the constants of the libraries that made it known:
rsl_rl (Rudin et al. 2022, "Learning to walk in minutes using massively parallel deep
reinforcement learning") wants a divergence of 0.01 between the policy that played and
the one that was learned, and divides the rate by 1.5 where it is above twice that,
multiplies it by 1.5 where it is below a half, between 1e-5 and 1e-2; rl_games wants
0.008, between 1e-6 and 1e-2. They do so after every minibatch; here it is after every
decision, by the mean divergence that the observation shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.observations import unsquash
from dacrl_env.outer.vector_env import PopulationEnv

_ROW = "signal/kl"


class AdaptiveKL:
    """The rate goes down where updates are large, and up where they are small.

    Args:
        desired: divergence, in nats.
        factor: by which the rate changes at a decision.
        low: smallest rate.
        high: largest rate.
        initial: rate at the start; None: the default.

    Raises:
        ValueError: values that are not positive, a factor of at most 1, an inverted
            range; at `reset`, an algorithm without such a divergence, or rates outside
            of the task's range.
    """

    action_mode = "values"
    independent = True
    hyperparameters = ("learning_rate",)

    def __init__(
        self,
        desired: float = 0.01,
        factor: float = 1.5,
        low: float = 1e-5,
        high: float = 1e-2,
        initial: float | None = None,
    ) -> None:
        if not (desired > 0 and factor > 1 and 0 < low < high):
            raise ValueError(
                "desired must be positive, factor above 1 and low between 0 and high, "
                f"got {desired=}, {factor=}, {low=}, {high=}"
            )
        self.desired, self.factor = desired, factor
        self.low, self.high, self.initial = low, high, initial
        self.extremes = {"learning_rate": (low, high)}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start every member at the initial rate."""
        if _ROW not in envs.observation_names:
            raise ValueError(
                f"adaptive-kl goes by {_ROW}, which PPO shows; "
                f"{envs.settings.task.algorithm} does not"
            )
        rate = envs.settings.number("learning_rate")
        rate.check((self.low, self.high))
        start = rate.default if self.initial is None else self.initial
        rate.check(start)
        self.envs, self.row = envs, list(envs.observation_names).index(_ROW)
        self.start = float(np.clip(start, self.low, self.high))
        self.rates = np.full(envs.num_envs, self.start)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        kl = unsquash(observations[:, self.row])
        rates = np.where(kl > 2 * self.desired, self.rates / self.factor, self.rates)
        rates = np.where(kl < self.desired / 2, self.rates * self.factor, rates)
        rates = np.clip(rates, self.low, self.high)
        self.rates = np.where(infos["env_steps"] == 0, self.start, rates)
        return self.envs.to_actions({"learning_rate": self.rates})
