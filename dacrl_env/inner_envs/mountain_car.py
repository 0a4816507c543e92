"""MountainCar-v0: drive an underpowered car out of a valley (Moore 1990).

A. Moore, "Efficient Memory-Based Learning for Robot Control", PhD thesis, University of
Cambridge. The arithmetic, in double precision and in the same order, of Gymnasium's
``MountainCar-v0``, so that trajectories agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class MountainCar:
    """Dynamics. Variables: position, velocity per step, both without units."""

    observation_shape: tuple[int, ...] = (2,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 3
    max_episode_steps = 200
    uniforms_per_reset = 1
    physics: Mapping[str, float] = {
        "force": 0.001,  # change of velocity in a step
        "gravity": 0.0025,  # the same
    }

    _MIN_POSITION = -1.2
    _MAX_POSITION = 0.6
    _MAX_SPEED = 0.07
    _GOAL_POSITION = 0.5

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        """At rest, the position uniform in [-0.6, -0.4)."""
        variables = np.zeros((*uniforms.shape[:-1], 2))
        variables[..., 0] = -0.6 + 0.2 * uniforms[..., 0]
        return variables

    def step(
        self, variables: Floats, actions: NDArray[np.int64], physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Push left (0), not at all (1) or right (2); every step costs 1."""
        position, velocity = variables[..., 0], variables[..., 1]
        force, gravity = physics[..., 0], physics[..., 1]
        velocity = velocity + ((actions - 1) * force + np.cos(3 * position) * -gravity)
        velocity = np.minimum(np.maximum(velocity, -self._MAX_SPEED), self._MAX_SPEED)
        position = position + velocity
        position = np.maximum(position, self._MIN_POSITION)
        position = np.minimum(position, self._MAX_POSITION)
        # the wall on the left stops the car
        stopped = (position == self._MIN_POSITION) & (velocity < 0)
        velocity = np.where(stopped, 0.0, velocity)
        following = np.empty_like(variables)
        following[..., 0] = position
        following[..., 1] = velocity
        terminated = (position >= self._GOAL_POSITION) & (velocity >= 0)
        return following, np.full(terminated.shape, -1.0), terminated

    def observe(self, variables: Floats) -> NDArray[Any]:
        """The variables in single precision."""
        return variables.astype(np.float32)
