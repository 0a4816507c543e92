"""CartPole-v1: balance a pole on a cart (Barto, Sutton and Anderson 1983).

The arithmetic, in double precision and in the same order, of Gymnasium's
``CartPole-v1`` with Euler integration.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import cos, sin
from dacrl_env.kernels.random_numbers import draw, uniform


class CartPole(NamedTuple):
    """Variables: position m, velocity m/s, angle rad, angular velocity rad/s."""

    features: int = 4
    actions: int = 2
    variables: int = 4
    max_episode_steps: int = 500


PHYSICS = {
    "gravity": 9.8,  # m/s²
    "mass_cart": 1.0,  # kg
    "mass_pole": 0.1,  # kg
    "half_length": 0.5,  # m, half the pole
    "force": 10.0,  # N
}

_SECONDS = 0.02  # between steps
_MAX_ANGLE = 12 * 2 * math.pi / 360
_MAX_POSITION = 2.4


@compiled
def reset(env, key, episode, physics, variables):
    """All four variables uniform in ± 0.05."""
    drawn = draw(key, episode)
    for k in range(4):
        variables[k] = -0.05 + 0.1 * uniform(drawn, k)


@compiled
def step(env, variables, action, physics, drawn):
    """Push left (0) or right (1) for 0.02 s."""
    x, x_dot, theta, theta_dot = variables[0], variables[1], variables[2], variables[3]
    gravity, mass_cart, mass_pole = physics[0], physics[1], physics[2]
    half_length, push = physics[3], physics[4]
    total_mass = mass_pole + mass_cart
    pole_moment = mass_pole * half_length
    force = push if action[0] == 1.0 else -push
    cosine, sine = cos(theta), sin(theta)
    temp = (force + pole_moment * (theta_dot * theta_dot) * sine) / total_mass
    theta_acc = (gravity * sine - cosine * temp) / (
        half_length * (4.0 / 3.0 - mass_pole * (cosine * cosine) / total_mass)
    )
    x_acc = temp - pole_moment * theta_acc * cosine / total_mass
    x = x + _SECONDS * x_dot
    theta = theta + _SECONDS * theta_dot
    variables[0], variables[1] = x, x_dot + _SECONDS * x_acc
    variables[2], variables[3] = theta, theta_dot + _SECONDS * theta_acc
    return 1.0, abs(x) > _MAX_POSITION or abs(theta) > _MAX_ANGLE


@compiled
def observe(env, variables, observation):
    """The variables in single precision."""
    for k in range(4):
        observation[k] = np.float32(variables[k])
