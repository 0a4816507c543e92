"""MountainCarContinuous-v0: the car of MountainCar, whose motor has any power.

A. Moore, "Efficient Memory-Based Learning for Robot Control", PhD thesis, University of
Cambridge, 1990. The arithmetic of Gymnasium's ``MountainCarContinuous-v0``, operation
by operation, for actions in single precision, which is that of its action space;
actions are rounded to it.

Gymnasium keeps the state in single precision, but the start of an episode in double
precision, so that sums are single in all steps but the first. Here a state is such a
start if its position is no number of single precision. One of 2²⁹ starts is one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import cos
from dacrl_env.kernels.random_numbers import draw, uniform


class MountainCarContinuous(NamedTuple):
    """Variables: position, velocity per step, both without units."""

    features: int = 2
    actions: int = 0  # continuous: share of the power, negative to the left
    variables: int = 2
    max_episode_steps: int = 999


ACTION_LOW, ACTION_HIGH = (-1.0,), (1.0,)
PHYSICS = {
    "power": 0.0015,  # change of velocity in a step
    "gravity": 0.0025,  # the same
}

_MIN_POSITION, _MAX_POSITION = -1.2, 0.6
_MAX_SPEED = 0.07
_GOAL_POSITION = 0.45


@compiled
def reset(env, key, episode, physics, variables):
    """At rest, the position uniform in [-0.6, -0.4)."""
    variables[0] = -0.6 + 0.2 * uniform(draw(key, episode), 0)
    variables[1] = 0.0


@compiled
def step(env, variables, action, physics, drawn):
    """Push by a share of the power: −0.1 times its square, +100 at the goal.

    The push is clipped to ± 1; what it costs is not.
    """
    position, velocity = variables[0], variables[1]
    power, gravity = physics[0], physics[1]
    given = _single(action[0])
    share = min(max(given, -1.0), 1.0)
    single = position == _single(position)
    pull = gravity * cos(_rounded(3.0 * position, single))
    if share == given:
        push = _single(_single(share * _single(power)) - _single(pull))
    else:  # Gymnasium's bounds are Python's numbers, which are double
        push = _rounded(share * power - pull, single)
    fastest = _rounded(_MAX_SPEED, single)
    velocity = _rounded(velocity + push, single)
    velocity = min(max(velocity, -fastest), fastest)
    leftmost, rightmost = (
        _rounded(_MIN_POSITION, single),
        _rounded(_MAX_POSITION, single),
    )
    position = _rounded(position + velocity, single)
    position = min(max(position, leftmost), rightmost)
    if position == leftmost and velocity < 0.0:  # the wall stops the car
        velocity = 0.0
    arrived = position >= _rounded(_GOAL_POSITION, single) and velocity >= 0.0
    variables[0], variables[1] = _single(position), _single(velocity)
    return (100.0 if arrived else 0.0) - given * given * 0.1, arrived


@compiled
def _single(x):
    """The nearest number of single precision.

    Sums and products of such numbers, computed in double precision and rounded, are
    those of single precision.
    """
    return np.float64(np.float32(x))


@compiled
def _rounded(x, single):
    return _single(x) if single else x


@compiled
def observe(env, variables, observation):
    """The variables in single precision."""
    for k in range(2):
        observation[k] = np.float32(variables[k])
