"""Acrobot-v1: swing up two links by a torque at the joint between them (Sutton 1996).

R. Sutton, "Generalization in Reinforcement Learning: Successful Examples Using Sparse
Coarse Coding", NeurIPS 8, with the equations of Sutton and Barto's book. The
arithmetic, in double precision and in the same order, of Gymnasium's ``Acrobot-v1``,
so that trajectories agree with it, until a last bit that differs (its squares are
powers) has grown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Acrobot:
    """Dynamics. Variables: angles rad, angular velocities rad/s, of links 1 and 2.

    Link 1 hangs down at angle 0; the angle of link 2 is relative to link 1.
    The length of link 2 is no constant here: in the original it is drawn only.
    """

    observation_shape: tuple[int, ...] = (6,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 3
    max_episode_steps = 500
    uniforms_per_reset = 4
    physics: Mapping[str, float] = {
        "gravity": 9.8,  # m/s²
        "link_length_1": 1.0,  # m
        "link_mass_1": 1.0,  # kg
        "link_mass_2": 1.0,  # kg
        "link_com_pos_1": 0.5,  # m, centre of mass from the link's upper end
        "link_com_pos_2": 0.5,  # m
        "link_moi": 1.0,  # kg m², moment of inertia of either link
    }

    _SECONDS = 0.2  # between steps
    _MAX_SPEEDS = np.array([4 * math.pi, 9 * math.pi])  # rad/s

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        """All four variables uniform in ± 0.1, in single precision as the original."""
        start = -0.1 + 0.2 * uniforms
        return start.astype(np.float32).astype(np.float64)

    def step(
        self, variables: Floats, actions: NDArray[np.int64], physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Torque of −1, 0 or 1 N m for 0.2 s; every step on the way costs 1."""
        pendulum = _DoublePendulum(actions - 1, physics)
        # the variables first, so that a stage is a few operations on all four at once
        start = np.empty((4, *variables.shape[:-1]))
        for k in range(4):
            start[k] = variables[..., k]
        seconds = self._SECONDS
        k1 = pendulum.derivative(start)
        k2 = pendulum.derivative(start + seconds / 2 * k1)
        k3 = pendulum.derivative(start + seconds / 2 * k2)
        k4 = pendulum.derivative(start + seconds * k3)
        end = start + seconds / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        following = np.empty_like(variables)
        for k in range(4):
            following[..., k] = end[k]
        _wrap(following[..., :2])
        speeds = following[..., 2:]
        np.maximum(speeds, -self._MAX_SPEEDS, out=speeds)
        np.minimum(speeds, self._MAX_SPEEDS, out=speeds)
        first, second = following[..., 0], following[..., 1]
        terminated = -np.cos(first) - np.cos(second + first) > 1.0
        return following, np.where(terminated, 0.0, -1.0), terminated

    def observe(self, variables: Floats) -> NDArray[Any]:
        """Cosine and sine of both angles, and the velocities, in single precision."""
        observations = np.empty((*variables.shape[:-1], 6), np.float32)
        angles = variables[..., :2]
        observations[..., 0:4:2] = np.cos(angles)
        observations[..., 1:4:2] = np.sin(angles)
        observations[..., 4:] = variables[..., 2:]
        return observations


class _DoublePendulum:
    """The equations of motion, with all that stays the same during a step."""

    def __init__(self, torque: NDArray[np.int64], physics: Floats) -> None:
        g, l1, m1, m2, lc1, lc2, moi = (physics[..., k] for k in range(7))
        self.torque = torque
        self.m2 = m2
        self.moi = moi
        self.l1_lc2 = l1 * lc2
        self.lc2_square = lc2**2
        self.m1_lc1_square = m1 * lc1**2
        self.squares = l1**2 + self.lc2_square
        self.m2_l1_lc2 = m2 * l1 * lc2
        self.weight_1 = (m1 * lc1 + m2 * l1) * g
        self.weight_2 = m2 * lc2 * g
        self.m2_lc2_square_moi = m2 * self.lc2_square + moi

    def derivative(self, y: Floats) -> Floats:
        """Of angles and velocities ``(4, …)`` by time."""
        theta1, theta2, dtheta1, dtheta2 = y
        angles = np.empty((3, *y.shape[1:]))
        angles[0] = theta2
        angles[1] = theta1 + theta2
        angles[2] = theta1
        angles[1:] -= math.pi / 2
        cos_2, cos_12, cos_1 = np.cos(angles)
        sin_2 = np.sin(theta2)
        m2_l1_lc2 = self.m2_l1_lc2
        coupling = self.l1_lc2 * cos_2
        d1 = self.m1_lc1_square + self.m2 * (self.squares + 2 * coupling)
        d1 = d1 + self.moi + self.moi
        d2 = self.m2 * (self.lc2_square + coupling) + self.moi
        phi2 = self.weight_2 * cos_12
        phi1 = (
            -m2_l1_lc2 * dtheta2**2 * sin_2
            - 2 * m2_l1_lc2 * dtheta2 * dtheta1 * sin_2
            + self.weight_1 * cos_1
            + phi2
        )
        rates = np.empty_like(y)
        rates[0], rates[1] = dtheta1, dtheta2
        ddtheta2 = (
            self.torque + d2 / d1 * phi1 - m2_l1_lc2 * dtheta1**2 * sin_2 - phi2
        ) / (self.m2_lc2_square_moi - d2**2 / d1)
        rates[3] = ddtheta2
        rates[2] = -(d2 * ddtheta2 + phi1) / d1
        return rates


def _wrap(angles: Floats) -> None:
    """Bring angles into [-π, π] in place, by whole turns."""
    beyond = np.abs(angles) - math.pi
    if (beyond > 0).any():
        turns = np.copysign(np.ceil(beyond / (2 * math.pi)), angles)
        angles -= 2 * math.pi * turns
