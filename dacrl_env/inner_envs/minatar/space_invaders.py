"""MinAtar's Space Invaders: shoot aliens, which shoot back and come down.

An alien is worth 1. Aliens move to a side until one of them is at the edge, then all
come down by a row; the fewer there are, the faster they move. The one that is nearest
shoots. When all are shot, there are new ones, which are faster still. The game is lost
when a bullet or an alien hits the cannon, or when aliens would leave the last row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.inner_envs.minatar.common import (
    EDGE,
    MAX_EPISODE_STEPS,
    SIDE,
    USUALLY_STICKY,
    cell,
    clamped,
    count,
    has,
    nothing,
    show,
    show_row,
    taken,
)
from dacrl_env.kernels.compiling import compiled

# variables after the last action; the direction is −1 or 1, and there are ten rows of
# bits of aliens, of the player's bullets, and of the aliens'
CANNON, DIRECTION, MOVE_INTERVAL, MOVE_TIMER, SHOT_TIMER, RELOAD, ALIENS = range(1, 8)
BULLETS, BOMBS = ALIENS + SIDE, ALIENS + 2 * SIDE
CANNON_SHOWN, ALIEN, TO_LEFT, TO_RIGHT, BULLET, BOMB = range(6)  # channels
NOTHING, LEFT, RIGHT, FIRE = range(4)  # actions

_CHANNELS = 6
_COOL_DOWN = 5.0  # steps between the player's shots
_FASTEST = 6.0  # interval of moves that new aliens come to
_WAVE_ROWS = 4
_WAVE = 0b0011111100  # columns

PHYSICS = {
    "sticky": USUALLY_STICKY,  # probability
    "move_interval": 12.0,  # steps between moves of aliens, at most
    "shot_interval": 10.0,  # steps between shots of aliens
}
_MOVE, _SHOT = 1, 2


class SpaceInvaders(NamedTuple):
    """Variables: last action, cannon, direction, timers, rows of cells."""

    features: int = SIDE * SIDE * _CHANNELS
    actions: int = 4
    variables: int = BOMBS + SIDE
    max_episode_steps: int = MAX_EPISODE_STEPS


@compiled
def reset(env, key, episode, physics, variables):
    """A wave of aliens on its way to the left."""
    for k in range(len(variables)):
        variables[k] = 0.0
    variables[CANNON] = 5.0
    variables[DIRECTION] = -1.0
    variables[MOVE_INTERVAL] = variables[MOVE_TIMER] = physics[_MOVE]
    variables[SHOT_TIMER] = physics[_SHOT]
    _arrive(variables)


@compiled
def step(env, variables, action, physics, drawn):
    """Nothing, left, right, fire (0 to 3)."""
    act = taken(variables, action, physics, drawn)
    if act == FIRE and variables[RELOAD] == 0.0:
        _put(variables, BULLETS + EDGE, variables[CANNON])
        variables[RELOAD] = _COOL_DOWN
    elif act == LEFT:
        variables[CANNON] = clamped(variables[CANNON] - 1.0)
    elif act == RIGHT:
        variables[CANNON] = clamped(variables[CANNON] + 1.0)
    cannon = variables[CANNON]
    for row in range(EDGE):
        variables[BULLETS + row] = variables[BULLETS + row + 1]
        variables[BOMBS + EDGE - row] = variables[BOMBS + EDGE - row - 1]
    variables[BULLETS + EDGE] = variables[BOMBS] = 0.0
    over = has(variables[BOMBS + EDGE], cannon)
    over |= has(variables[ALIENS + EDGE], cannon)
    if variables[MOVE_TIMER] <= 0.0:
        most = variables[MOVE_INTERVAL]
        variables[MOVE_TIMER] += min(_aliens(variables) * 1.0, most)
        over |= _move(variables)
        over |= has(variables[ALIENS + EDGE], cannon)
    if variables[SHOT_TIMER] <= 0.0:
        variables[SHOT_TIMER] += physics[_SHOT]
        _shoot(variables, np.int64(cannon))
    reward = 0.0
    for row in range(SIDE):
        aliens = np.int64(variables[ALIENS + row])
        bullets = np.int64(variables[BULLETS + row])
        hit = aliens & bullets
        reward += count(hit)
        variables[ALIENS + row], variables[BULLETS + row] = aliens ^ hit, bullets ^ hit
    if variables[RELOAD] > 0.0:
        variables[RELOAD] -= 1.0
    variables[MOVE_TIMER] -= 1.0
    variables[SHOT_TIMER] -= 1.0
    if _aliens(variables) == 0:
        if variables[MOVE_INTERVAL] > _FASTEST:
            variables[MOVE_INTERVAL] = max(variables[MOVE_INTERVAL] - 1.0, _FASTEST)
        _arrive(variables)
    return reward, over


@compiled
def observe(env, variables, observation):
    """Cannon, aliens, again where they go, bullets of both (10, 10, 6)."""
    nothing(observation)
    show(observation, _CHANNELS, CANNON_SHOWN, EDGE, variables[CANNON])
    going = TO_LEFT if variables[DIRECTION] < 0.0 else TO_RIGHT
    for row in range(SIDE):
        aliens = variables[ALIENS + row]
        show_row(observation, _CHANNELS, ALIEN, row, aliens)
        show_row(observation, _CHANNELS, going, row, aliens)
        show_row(observation, _CHANNELS, BULLET, row, variables[BULLETS + row])
        show_row(observation, _CHANNELS, BOMB, row, variables[BOMBS + row])


@compiled
def _arrive(variables):
    for row in range(_WAVE_ROWS):
        variables[ALIENS + row] = _WAVE


@compiled
def _put(variables, row, column):
    variables[row] = np.int64(variables[row]) | cell(column)


@compiled
def _aliens(variables):
    """How many there are."""
    found = 0
    for row in range(SIDE):
        found += count(variables[ALIENS + row])
    return found


@compiled
def _move(variables):
    """Move all aliens to a side, or down; whether that ends the game."""
    edge = 0 if variables[DIRECTION] < 0.0 else EDGE
    down = False
    for row in range(SIDE):
        down |= has(variables[ALIENS + row], edge)
    if not down:
        for row in range(SIDE):
            aliens = np.int64(variables[ALIENS + row])
            moved = aliens >> 1 if variables[DIRECTION] < 0.0 else aliens << 1
            variables[ALIENS + row] = moved
        return False
    variables[DIRECTION] = -variables[DIRECTION]
    lowest = variables[ALIENS + EDGE]
    for row in range(EDGE, 0, -1):
        variables[ALIENS + row] = variables[ALIENS + row - 1]
    variables[ALIENS] = lowest
    return lowest != 0.0


@compiled
def _shoot(variables, cannon):
    """A bomb in the place of the lowest alien in the nearest column that has any.

    Of two columns that are equally near the left one counts.
    """
    for distance in range(SIDE):
        for side in range(2):
            column = cannon - distance if side == 0 else cannon + distance
            if column < 0 or column > EDGE:
                continue
            for row in range(EDGE, -1, -1):
                if has(variables[ALIENS + row], column):
                    _put(variables, BOMBS + row, column)
                    return
