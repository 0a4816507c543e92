"""Acrobot-v1: swing up two links by a torque at the joint between them (Sutton 1996).

R. Sutton, "Generalization in Reinforcement Learning: Successful Examples Using Sparse
Coarse Coding", NeurIPS 8, with the equations of Sutton and Barto's book. The
arithmetic, in double precision and in the same order, of Gymnasium's ``Acrobot-v1``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import cos, sin
from dacrl_env.kernels.random_numbers import draw, uniform


class Acrobot(NamedTuple):
    """Variables: angles rad, angular velocities rad/s, of links 1 and 2.

    Link 1 hangs down at angle 0; the angle of link 2 is relative to link 1.
    """

    features: int = 6
    actions: int = 3
    variables: int = 4
    max_episode_steps: int = 500


# the length of link 2 is no constant here: in the original it is drawn only
PHYSICS = {
    "gravity": 9.8,  # m/s²
    "link_length_1": 1.0,  # m
    "link_mass_1": 1.0,  # kg
    "link_mass_2": 1.0,  # kg
    "link_com_pos_1": 0.5,  # m, centre of mass from the link's upper end
    "link_com_pos_2": 0.5,  # m
    "link_moi": 1.0,  # kg m², moment of inertia of either link
}

_SECONDS = 0.2  # between steps
_MAX_SPEED_1, _MAX_SPEED_2 = 4 * math.pi, 9 * math.pi  # rad/s


@compiled
def reset(env, key, episode, physics, variables):
    """All four variables uniform in ± 0.1, in single precision as the original."""
    drawn = draw(key, episode)
    for k in range(4):
        variables[k] = np.float64(np.float32(-0.1 + 0.2 * uniform(drawn, k)))


@compiled
def step(env, variables, action, physics, drawn):
    """Torque of −1, 0 or 1 N m for 0.2 s; every step on the way costs 1."""
    torque = action[0] - 1.0
    y = (variables[0], variables[1], variables[2], variables[3])
    # the classical method of Runge and Kutta
    k1 = _derivative(y, torque, physics)
    k2 = _derivative(_moved(y, k1, _SECONDS / 2), torque, physics)
    k3 = _derivative(_moved(y, k2, _SECONDS / 2), torque, physics)
    k4 = _derivative(_moved(y, k3, _SECONDS), torque, physics)
    for k in range(4):
        slope = k1[k] + 2.0 * k2[k] + 2.0 * k3[k] + k4[k]
        variables[k] = y[k] + _SECONDS / 6.0 * slope
    for k in range(2):
        variables[k] = _wrapped(variables[k])
    variables[2] = min(max(variables[2], -_MAX_SPEED_1), _MAX_SPEED_1)
    variables[3] = min(max(variables[3], -_MAX_SPEED_2), _MAX_SPEED_2)
    first, second = variables[0], variables[1]
    terminated = -cos(first) - cos(second + first) > 1.0
    return 0.0 if terminated else -1.0, terminated


@compiled
def _moved(y, rate, seconds):
    return (
        y[0] + seconds * rate[0],
        y[1] + seconds * rate[1],
        y[2] + seconds * rate[2],
        y[3] + seconds * rate[3],
    )


@compiled
def _derivative(y, torque, physics):
    """Of angles and velocities by time."""
    g, l1, m1, m2 = physics[0], physics[1], physics[2], physics[3]
    lc1, lc2, moi = physics[4], physics[5], physics[6]
    theta1, theta2, dtheta1, dtheta2 = y
    sin_2 = sin(theta2)
    l1_lc2 = l1 * lc2
    coupling = l1_lc2 * cos(theta2)
    squares = l1 * l1 + lc2 * lc2
    d1 = m1 * (lc1 * lc1) + m2 * (squares + 2.0 * coupling) + moi + moi
    d2 = m2 * (lc2 * lc2 + coupling) + moi
    phi2 = m2 * lc2 * g * cos(theta1 + theta2 - math.pi / 2)
    m2_l1_lc2 = m2 * l1 * lc2
    phi1 = (
        -m2_l1_lc2 * (dtheta2 * dtheta2) * sin_2
        - 2.0 * m2_l1_lc2 * dtheta2 * dtheta1 * sin_2
        + (m1 * lc1 + m2 * l1) * g * cos(theta1 - math.pi / 2)
        + phi2
    )
    ddtheta2 = (
        torque + d2 / d1 * phi1 - m2_l1_lc2 * (dtheta1 * dtheta1) * sin_2 - phi2
    ) / (m2 * (lc2 * lc2) + moi - d2 * d2 / d1)
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return dtheta1, dtheta2, ddtheta1, ddtheta2


@compiled
def _wrapped(angle):
    """An angle in [-π, π], by whole turns."""
    beyond = abs(angle) - math.pi
    if beyond > 0.0:
        turns = math.ceil(beyond / (2.0 * math.pi))
        angle -= math.copysign(2.0 * math.pi * turns, angle)
    return angle


@compiled
def observe(env, variables, observation):
    """Cosine and sine of both angles, and the velocities, in single precision."""
    for k in range(2):
        observation[2 * k] = np.float32(cos(variables[k]))
        observation[2 * k + 1] = np.float32(sin(variables[k]))
        observation[4 + k] = np.float32(variables[2 + k])
