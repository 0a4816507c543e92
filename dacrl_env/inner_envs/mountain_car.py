"""MountainCar-v0: drive an underpowered car out of a valley (Moore 1990).

A. Moore, "Efficient Memory-Based Learning for Robot Control", PhD thesis, University of
Cambridge. The arithmetic, in double precision and in the same order, of Gymnasium's
``MountainCar-v0``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import cos
from dacrl_env.kernels.random_numbers import draw, uniform


class MountainCar(NamedTuple):
    """Variables: position, velocity per step, both without units."""

    features: int = 2
    actions: int = 3
    variables: int = 2
    max_episode_steps: int = 200


PHYSICS = {
    "force": 0.001,  # change of velocity in a step
    "gravity": 0.0025,  # the same
}

_MIN_POSITION, _MAX_POSITION = -1.2, 0.6
_MAX_SPEED = 0.07
_GOAL_POSITION = 0.5


@compiled
def reset(env, key, episode, physics, variables):
    """At rest, the position uniform in [-0.6, -0.4)."""
    variables[0] = -0.6 + 0.2 * uniform(draw(key, episode), 0)
    variables[1] = 0.0


@compiled
def step(env, variables, action, physics, drawn):
    """Push left (0), not at all (1) or right (2); every step costs 1."""
    position, velocity = variables[0], variables[1]
    force, gravity = physics[0], physics[1]
    velocity += (action[0] - 1.0) * force + cos(3.0 * position) * -gravity
    velocity = min(max(velocity, -_MAX_SPEED), _MAX_SPEED)
    position = min(max(position + velocity, _MIN_POSITION), _MAX_POSITION)
    if position == _MIN_POSITION and velocity < 0.0:  # the wall stops the car
        velocity = 0.0
    variables[0], variables[1] = position, velocity
    return -1.0, position >= _GOAL_POSITION and velocity >= 0.0


@compiled
def observe(env, variables, observation):
    """The variables in single precision."""
    for k in range(2):
        observation[k] = np.float32(variables[k])
