"""MinAtar's Freeway: cross eight lanes of cars, again and again, for 2,501 steps.

Each crossing is worth 1 and gives the cars new speeds. Whoever is hit by a car starts
anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.inner_envs.minatar.common import (
    EDGE,
    LAST,
    MAX_EPISODE_STEPS,
    SIDE,
    USUALLY_STICKY,
    clamped,
    nothing,
    show,
    taken,
)
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, draw, uniform

# variables after the last action; of each lane's car its place, the time until it moves
# and the time between its moves, negative if it drives to the left
PLACE, WAIT, TIME_LEFT, CARS = range(1, 5)
_LANES = 8
WAITS, SPEEDS = CARS + _LANES, CARS + 2 * _LANES
CHICKEN, CAR, TRAILS = range(3)  # channels; from TRAILS on one for each speed
NOTHING, UP, DOWN = range(3)  # actions

_SLOWEST = 5  # steps between the moves of a car
_CHANNELS = TRAILS + _SLOWEST
_COLUMN = 4  # of the chicken

PHYSICS = {
    "sticky": USUALLY_STICKY,  # probability
    "move_interval": 3.0,  # steps between moves of the chicken
}
_MOVE_INTERVAL = 1


class Freeway(NamedTuple):
    """Variables: last action, chicken, time left, cars."""

    features: int = SIDE * SIDE * _CHANNELS
    actions: int = 3
    variables: int = CARS + 3 * _LANES
    # it ends when the time is up, and one step is left when there is none left
    max_episode_steps: int = MAX_EPISODE_STEPS + 1


@compiled
def reset(env, key, episode, physics, variables):
    """All cars in the left column, with random speeds; the chicken at the bottom."""
    variables[LAST] = 0.0
    variables[PLACE] = EDGE
    variables[WAIT] = physics[_MOVE_INTERVAL]
    variables[TIME_LEFT] = MAX_EPISODE_STEPS
    for i in range(_LANES):
        variables[CARS + i] = 0.0
    _drive(variables, draw(key, episode), 0)


@compiled
def step(env, variables, action, physics, drawn):
    """Nothing, up, down (0 to 2)."""
    act = taken(variables, action, physics, drawn)
    place = variables[PLACE]
    if act != NOTHING and variables[WAIT] <= 0.0:
        variables[WAIT] += physics[_MOVE_INTERVAL]
        place = clamped(place - 1.0 if act == UP else place + 1.0)
    reward = 0.0
    if place == 0.0:
        reward = 1.0
        _drive(variables, drawn, 1)
        place = EDGE * 1.0
    for i in range(_LANES):
        x, lane = variables[CARS + i], i + 1
        if x == _COLUMN and place == lane:
            place = EDGE * 1.0
        if variables[WAITS + i] == 0.0:
            speed = variables[SPEEDS + i]
            variables[WAITS + i] = abs(speed)
            x = _next(x, speed)
            variables[CARS + i] = x
            if x == _COLUMN and place == lane:
                place = EDGE * 1.0
        else:
            variables[WAITS + i] -= 1.0
    if variables[WAIT] > 0.0:
        variables[WAIT] -= 1.0
    variables[PLACE] = place
    variables[TIME_LEFT] -= 1.0
    return reward, variables[TIME_LEFT] < 0.0


@compiled
def observe(env, variables, observation):
    """Chicken, cars, and behind each car how fast it is (10, 10, 7)."""
    nothing(observation)
    show(observation, _CHANNELS, CHICKEN, variables[PLACE], _COLUMN)
    for i in range(_LANES):
        x, speed = variables[CARS + i], variables[SPEEDS + i]
        show(observation, _CHANNELS, CAR, i + 1, x)
        trail = TRAILS + np.int64(abs(speed)) - 1
        show(observation, _CHANNELS, trail, i + 1, _next(x, -speed))


@compiled
def _drive(variables, drawn, lane):
    """Give all cars new speeds, 1 to 5 in either direction, by 16 lanes of a draw."""
    for i in range(_LANES):
        wait = 1.0 + below(drawn, lane + i, _SLOWEST)
        left = uniform(drawn, lane + _LANES + i) < 0.5
        variables[WAITS + i] = wait
        variables[SPEEDS + i] = -wait if left else wait


@compiled
def _next(x, speed):
    """The next cell in a direction; after the last one comes the first."""
    if speed > 0.0:
        return x + 1.0 if x < EDGE else 0.0
    return x - 1.0 if x > 0.0 else EDGE * 1.0
