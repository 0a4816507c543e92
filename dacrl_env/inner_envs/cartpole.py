"""CartPole-v1: balance a pole on a cart (Barto, Sutton and Anderson 1983).

The arithmetic, in double precision and in the same order, of Gymnasium's
``CartPole-v1`` with Euler integration, so that trajectories agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class CartPole:
    """Dynamics. Variables: position m, velocity m/s, angle rad, angular velocity."""

    observation_shape: tuple[int, ...] = (4,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 2
    max_episode_steps = 500
    uniforms_per_reset = 4
    physics: Mapping[str, float] = {
        "gravity": 9.8,  # m/s²
        "mass_cart": 1.0,  # kg
        "mass_pole": 0.1,  # kg
        "half_length": 0.5,  # m, half the pole
        "force": 10.0,  # N
    }

    _SECONDS = 0.02  # between steps
    _MAX_ANGLE = 12 * 2 * math.pi / 360
    _MAX_POSITION = 2.4

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        """All four variables uniform in ± 0.05."""
        return -0.05 + 0.1 * uniforms

    def step(
        self, variables: Floats, actions: NDArray[np.int64], physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Push left (0) or right (1) for 0.02 s."""
        _, x_dot, theta, theta_dot = (variables[..., k] for k in range(4))
        gravity, mass_cart, mass_pole, half_length, push = (
            physics[..., k] for k in range(5)
        )
        total_mass = mass_pole + mass_cart
        pole_moment = mass_pole * half_length
        force = np.where(actions == 1, push, -push)
        cos, sin = np.cos(theta), np.sin(theta)
        temp = (force + pole_moment * np.square(theta_dot) * sin) / total_mass
        theta_acc = (gravity * sin - cos * temp) / (
            half_length * (4.0 / 3.0 - mass_pole * np.square(cos) / total_mass)
        )
        x_acc = temp - pole_moment * theta_acc * cos / total_mass
        rates = np.empty_like(variables)
        for k, rate in enumerate((x_dot, x_acc, theta_dot, theta_acc)):
            rates[..., k] = rate
        following = variables + self._SECONDS * rates
        terminated = (np.abs(following[..., 0]) > self._MAX_POSITION) | (
            np.abs(following[..., 2]) > self._MAX_ANGLE
        )
        return following, np.ones(terminated.shape), terminated

    def observe(self, variables: Floats) -> NDArray[Any]:
        """The variables in single precision."""
        return variables.astype(np.float32)
