"""Physical constants that change once in the course of a training run, unannounced.

A learner that is tuned for one environment meets another one at some step: what is the
best configuration then changes for a reason other than learning itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs.batched import Dynamics, Floats
from dacrl_env.inner_envs.cartpole import CartPole
from dacrl_env.inner_envs.pendulum import Pendulum

NEVER = 1e12  # a step no run comes to; finite, since instances are compared by ratios


class Shifted:
    """Dynamics whose constants are multiplied by factors from a certain step on.

    The step and the factors are constants themselves, so that an instance sets them
    and the members of one population may differ: beside the ``K`` constants of the
    given dynamics there is ``shift_at``, the number of steps that an environment takes,
    in all its episodes, before the shift; and for each constant ``shift_<name>``, its
    factor. By default nothing ever changes.

    Args:
        dynamics: with constant physics.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.observation_shape = dynamics.observation_shape
        self.observation_dtype = dynamics.observation_dtype
        self.num_actions = dynamics.num_actions
        self.action_low: Floats = getattr(dynamics, "action_low", np.empty(0))
        self.action_high: Floats = getattr(dynamics, "action_high", np.empty(0))
        self.max_episode_steps = dynamics.max_episode_steps
        self.uniforms_per_reset = dynamics.uniforms_per_reset
        factors = {f"shift_{name}": 1.0 for name in dynamics.physics}
        self.physics: Mapping[str, float] = {
            **dynamics.physics,
            "shift_at": NEVER,
            **factors,
        }
        self._K = len(dynamics.physics)

    def in_force(self, physics: Floats, lifetime: NDArray[np.int64]) -> Floats:
        """Constants ``(…, 2 K + 1)`` after ``lifetime`` ``(…)`` steps.

        Their factors are one: what is in force now does not change any more.
        """
        K = self._K
        shifted = lifetime >= physics[..., K]
        now = physics.copy()
        now[..., K + 1 :] = 1.0
        np.multiply(
            physics[..., :K],
            physics[..., K + 1 :],
            out=now[..., :K],
            where=shifted[..., None],
        )
        return now

    def initial(self, uniforms: Floats, physics: Floats) -> NDArray[Any]:
        """Starting variables of the given dynamics."""
        return self.dynamics.initial(uniforms, physics[..., : self._K])

    def step(
        self, variables: NDArray[Any], actions: NDArray[Any], physics: Floats
    ) -> tuple[NDArray[Any], Floats, NDArray[np.bool_]]:
        """A step of the given dynamics; ``physics`` are those `in_force`."""
        return self.dynamics.step(variables, actions, physics[..., : self._K])

    def observe(self, variables: NDArray[Any]) -> NDArray[Any]:
        """Observations of the given dynamics: they do not tell of the shift."""
        return self.dynamics.observe(variables)


def shifted_cartpole() -> Shifted:
    """CartPole-v1 that may shift."""
    return Shifted(CartPole())


def shifted_pendulum() -> Shifted:
    """Pendulum-v1 that may shift."""
    return Shifted(Pendulum())
