"""MinAtar's Asterix: collect treasure and avoid enemies, both of which cross the world.

Treasure is worth 1; an enemy ends the game. About every hundred steps things appear
more often, and every other time they move faster, too.
"""

from __future__ import annotations

from typing import NamedTuple

from dacrl_env.inner_envs.minatar.common import (
    EDGE,
    LAST,
    MAX_EPISODE_STEPS,
    SIDE,
    USUALLY_STICKY,
    clamped,
    get_harder,
    may_get_harder,
    nothing,
    outside,
    show,
    show_trail,
    taken,
)
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, uniform

# variables after the last action
X, Y, SPAWN_INTERVAL, SPAWN_TIMER, MOVE_INTERVAL, MOVE_TIMER = range(1, 7)
RAMP_TIMER, RAMPS = 7, 8
# and of the thing in each of eight rows its column, whether it moves to the right, and
# whether it is treasure
_SLOTS = 8
THINGS = 9
RIGHTWARDS, TREASURES = THINGS + _SLOTS, THINGS + 2 * _SLOTS
NONE = -1.0  # the column of no thing
PLAYER, ENEMY, TRAIL, TREASURE = range(4)  # channels
NOTHING, LEFT, UP, RIGHT, DOWN = range(5)  # actions

_CHANNELS = 4
_RAMP_INTERVAL = 100.0  # steps
_LEAST_MOVE = 1.0  # step between moves, as hard as it gets

PHYSICS = {
    "sticky": USUALLY_STICKY,  # probability
    "spawn_interval": 10.0,  # steps between things that appear, at first
    "move_interval": 5.0,  # steps between moves of things, at first
}
_SPAWN, _MOVE = 1, 2


class Asterix(NamedTuple):
    """Variables: last action, player, timers, things."""

    features: int = SIDE * SIDE * _CHANNELS
    actions: int = 5
    variables: int = THINGS + 3 * _SLOTS
    max_episode_steps: int = MAX_EPISODE_STEPS


@compiled
def reset(env, key, episode, physics, variables):
    """The player in the middle, alone."""
    variables[LAST] = 0.0
    variables[X] = variables[Y] = 5.0
    variables[SPAWN_INTERVAL] = variables[SPAWN_TIMER] = physics[_SPAWN]
    variables[MOVE_INTERVAL] = variables[MOVE_TIMER] = physics[_MOVE]
    variables[RAMP_TIMER] = _RAMP_INTERVAL
    variables[RAMPS] = 0.0
    for i in range(_SLOTS):
        _remove(variables, i)


@compiled
def step(env, variables, action, physics, drawn):
    """Nothing, left, up, right, down (0 to 4)."""
    act = taken(variables, action, physics, drawn)
    if variables[SPAWN_TIMER] <= 0.0:
        _spawn(variables, drawn)
        variables[SPAWN_TIMER] += variables[SPAWN_INTERVAL]
    if act == LEFT:
        variables[X] = clamped(variables[X] - 1.0)
    elif act == RIGHT:
        variables[X] = clamped(variables[X] + 1.0)
    elif act == UP:  # first and last row belong to nobody
        variables[Y] = max(variables[Y] - 1.0, 1.0)
    elif act == DOWN:
        variables[Y] = min(variables[Y] + 1.0, EDGE - 1.0)
    reward, over = 0.0, False
    row = int(variables[Y]) - 1
    if variables[THINGS + row] == variables[X]:
        if variables[TREASURES + row] == 1.0:
            _remove(variables, row)
            reward += 1.0
        else:
            over = True
    if variables[MOVE_TIMER] <= 0.0:
        variables[MOVE_TIMER] += variables[MOVE_INTERVAL]
        _move(variables)
        if variables[THINGS + row] == variables[X]:
            if variables[TREASURES + row] == 1.0:
                _remove(variables, row)
                reward += 1.0
            else:
                over = True
    variables[SPAWN_TIMER] -= 1.0
    variables[MOVE_TIMER] -= 1.0
    _ramp(variables)
    return reward, over


@compiled
def observe(env, variables, observation):
    """Player, enemies, where things came from, treasure (10, 10, 4)."""
    nothing(observation)
    show(observation, _CHANNELS, PLAYER, variables[Y], variables[X])
    for i in range(_SLOTS):
        x, row = variables[THINGS + i], i + 1
        if x != NONE:
            channel = TREASURE if variables[TREASURES + i] == 1.0 else ENEMY
            right = variables[RIGHTWARDS + i] == 1.0
            show(observation, _CHANNELS, channel, row, x)
            show_trail(observation, _CHANNELS, TRAIL, row, x, right)


@compiled
def _spawn(variables, drawn):
    """Let something appear at a side of a row that has nothing; uses lanes 1 to 3."""
    free = 0
    for i in range(_SLOTS):
        free += 1 if variables[THINGS + i] == NONE else 0
    if free == 0:
        return
    right = uniform(drawn, 1) < 0.5
    treasure = uniform(drawn, 2) < 1.0 / 3.0
    which = below(drawn, 3, free)
    for i in range(_SLOTS):
        if variables[THINGS + i] == NONE:
            if which == 0:
                variables[THINGS + i] = 0.0 if right else EDGE
                variables[RIGHTWARDS + i] = 1.0 if right else 0.0
                variables[TREASURES + i] = 1.0 if treasure else 0.0
                return
            which -= 1


@compiled
def _remove(variables, i):
    variables[THINGS + i] = NONE
    variables[RIGHTWARDS + i] = variables[TREASURES + i] = 0.0


@compiled
def _move(variables):
    """Move all things; those that leave the world are gone."""
    for i in range(_SLOTS):
        if variables[THINGS + i] == NONE:
            continue
        variables[THINGS + i] += 1.0 if variables[RIGHTWARDS + i] == 1.0 else -1.0
        if outside(variables[THINGS + i]):
            _remove(variables, i)


@compiled
def _ramp(variables):
    """Make the game harder, if it is time."""
    if not may_get_harder(variables, SPAWN_INTERVAL, MOVE_INTERVAL, _LEAST_MOVE):
        return
    if variables[RAMP_TIMER] >= 0.0:
        variables[RAMP_TIMER] -= 1.0
    else:
        get_harder(variables, SPAWN_INTERVAL, MOVE_INTERVAL, _LEAST_MOVE, RAMPS)
        variables[RAMP_TIMER] = _RAMP_INTERVAL
