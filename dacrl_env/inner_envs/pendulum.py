"""Pendulum-v1: swing a pendulum up and hold it, with continuous torque.

The arithmetic, in double precision and in the same order, of Gymnasium's
``Pendulum-v1``, so that trajectories agree with it (for actions in double precision;
Gymnasium computes the torque's part of cost and motion in the precision of the action).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Pendulum:
    """Dynamics. Variables: angle rad (0 is upright), angular velocity rad/s."""

    observation_shape: tuple[int, ...] = (3,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 0  # continuous: torque N m
    action_low: Floats = np.array([-2.0])
    action_high: Floats = np.array([2.0])
    max_episode_steps = 200
    uniforms_per_reset = 2
    physics: Mapping[str, float] = {
        "gravity": 10.0,  # m/s²
        "mass": 1.0,  # kg
        "length": 1.0,  # m
    }

    _SECONDS = 0.05  # between steps
    _MAX_SPEED = 8.0  # rad/s
    _MAX_TORQUE = 2.0  # N m

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        """Angle uniform in ± π, velocity in ± 1."""
        return (2 * uniforms - 1) * (math.pi, 1.0)

    def step(
        self, variables: Floats, actions: Floats, physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Apply a torque ``(…, 1)``, clipped to ± 2 N m, for 0.05 s."""
        angle, velocity = variables[..., 0], variables[..., 1]
        gravity, mass, length = (physics[..., k] for k in range(3))
        torque = np.maximum(actions[..., 0], -self._MAX_TORQUE)
        torque = np.minimum(torque, self._MAX_TORQUE)
        upright = np.remainder(angle + math.pi, 2 * math.pi) - math.pi
        cost = upright**2 + 0.1 * velocity**2 + 0.001 * torque**2
        acceleration = (
            3 * gravity / (2 * length) * np.sin(angle)
            + 3.0 / (mass * length**2) * torque
        )
        velocity = velocity + acceleration * self._SECONDS
        velocity = np.minimum(np.maximum(velocity, -self._MAX_SPEED), self._MAX_SPEED)
        following = np.empty_like(variables)
        following[..., 0] = angle + velocity * self._SECONDS
        following[..., 1] = velocity
        return following, -cost, np.zeros(cost.shape, bool)

    def observe(self, variables: Floats) -> NDArray[Any]:
        """Cosine and sine of the angle, and the velocity, in single precision."""
        observations = np.empty((*variables.shape[:-1], 3), np.float32)
        angle = variables[..., 0]
        observations[..., 0] = np.cos(angle)
        observations[..., 1] = np.sin(angle)
        observations[..., 2] = variables[..., 1]
        return observations
