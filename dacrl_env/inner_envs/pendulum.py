"""Pendulum-v1: swing a pendulum up and hold it, with continuous torque.

The arithmetic, in double precision and in the same order, of Gymnasium's
``Pendulum-v1`` (for actions in double precision; Gymnasium computes the torque's part
of cost and motion in the precision of the action).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import cos, sin
from dacrl_env.kernels.random_numbers import draw, uniform


class Pendulum(NamedTuple):
    """Variables: angle rad (0 is upright), angular velocity rad/s."""

    features: int = 3
    actions: int = 0  # continuous: torque N m
    variables: int = 2
    max_episode_steps: int = 200


ACTION_LOW, ACTION_HIGH = (-2.0,), (2.0,)
PHYSICS = {
    "gravity": 10.0,  # m/s²
    "mass": 1.0,  # kg
    "length": 1.0,  # m
}

_SECONDS = 0.05  # between steps
_MAX_SPEED = 8.0  # rad/s
_MAX_TORQUE = 2.0  # N m


@compiled
def reset(env, key, episode, physics, variables):
    """Angle uniform in ± π, velocity in ± 1."""
    drawn = draw(key, episode)
    variables[0] = (2.0 * uniform(drawn, 0) - 1.0) * math.pi
    variables[1] = 2.0 * uniform(drawn, 1) - 1.0


@compiled
def step(env, variables, action, physics, drawn):
    """Apply a torque, clipped to ± 2 N m, for 0.05 s."""
    angle, velocity = variables[0], variables[1]
    gravity, mass, length = physics[0], physics[1], physics[2]
    torque = min(max(action[0], -_MAX_TORQUE), _MAX_TORQUE)
    turn = 2.0 * math.pi
    shifted = angle + math.pi
    upright = shifted - turn * math.floor(shifted / turn) - math.pi
    cost = upright * upright + 0.1 * (velocity * velocity) + 0.001 * (torque * torque)
    acceleration = (
        3.0 * gravity / (2.0 * length) * sin(angle)
        + 3.0 / (mass * (length * length)) * torque
    )
    velocity = velocity + acceleration * _SECONDS
    velocity = min(max(velocity, -_MAX_SPEED), _MAX_SPEED)
    variables[0], variables[1] = angle + velocity * _SECONDS, velocity
    return -cost, False


@compiled
def observe(env, variables, observation):
    """Cosine and sine of the angle, and the velocity, in single precision."""
    observation[0] = np.float32(cos(variables[0]))
    observation[1] = np.float32(sin(variables[0]))
    observation[2] = np.float32(variables[1])
