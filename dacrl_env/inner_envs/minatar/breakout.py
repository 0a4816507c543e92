"""MinAtar's Breakout: keep a ball in play with a paddle, and break bricks with it.

The ball moves along diagonals. A brick that is hit is worth 1 and reflects the ball;
one that the ball meets right after another is passed through. When all are broken,
three rows of new ones appear as the ball comes down. The game is lost when the ball
passes the paddle.
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
    cell,
    clamped,
    has,
    nothing,
    outside,
    show,
    show_row,
    taken,
)
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, draw

# variables after the last action; directions are −1 or 1, bricks are rows of bits
PADDLE, X, Y, RIGHTWARDS, DOWNWARDS, STRUCK, BEFORE_X, BEFORE_Y, BRICKS = range(1, 10)
PADDLE_SHOWN, BALL, TRAIL, BRICK = range(4)  # channels
NOTHING, LEFT, RIGHT = range(3)  # actions

_CHANNELS = 4
_TOP, _ROWS = 1, 3  # of the bricks
_WHOLE_ROW = 2**SIDE - 1

PHYSICS = {"sticky": USUALLY_STICKY}  # probability


class Breakout(NamedTuple):
    """Variables: last action, paddle, ball and its way, rows of bricks."""

    features: int = SIDE * SIDE * _CHANNELS
    actions: int = 3
    variables: int = BRICKS + _ROWS
    max_episode_steps: int = MAX_EPISODE_STEPS


@compiled
def reset(env, key, episode, physics, variables):
    """The ball at the left or the right edge, equally likely, on its way down."""
    right = below(draw(key, episode), 0, 2) == 1
    variables[LAST] = 0.0
    variables[PADDLE] = 4.0
    variables[X] = variables[BEFORE_X] = EDGE if right else 0.0
    variables[Y] = variables[BEFORE_Y] = 3.0
    variables[RIGHTWARDS] = -1.0 if right else 1.0
    variables[DOWNWARDS] = 1.0
    variables[STRUCK] = 0.0
    _build(variables)


@compiled
def step(env, variables, action, physics, drawn):
    """Nothing, paddle to the left, to the right (0 to 2)."""
    act = taken(variables, action, physics, drawn)
    paddle = variables[PADDLE]
    if act == LEFT:
        paddle = clamped(paddle - 1.0)
    elif act == RIGHT:
        paddle = clamped(paddle + 1.0)
    before_x, before_y = variables[X], variables[Y]
    x, y = before_x + variables[RIGHTWARDS], before_y + variables[DOWNWARDS]
    turns_x = outside(x)  # at a wall
    turns_y = False
    struck = False
    reward = 0.0
    over = False
    x = clamped(x)
    if y < 0.0:
        y, turns_y = 0.0, True
    elif _is_brick(variables, y, x):
        struck = True
        if variables[STRUCK] == 0.0:
            reward = 1.0
            row = BRICKS + np.int64(y) - _TOP
            variables[row] -= cell(x)
            y, turns_y = before_y, True
    elif y == EDGE:
        if not _any_bricks(variables):
            _build(variables)
        if before_x == paddle:
            y, turns_y = before_y, True
        elif x == paddle:  # it comes to the side of the paddle, and goes back
            y, turns_y, turns_x = before_y, True, not turns_x
        else:
            over = True
    if turns_x:
        variables[RIGHTWARDS] = -variables[RIGHTWARDS]
    if turns_y:
        variables[DOWNWARDS] = -variables[DOWNWARDS]
    variables[PADDLE], variables[X], variables[Y] = paddle, x, y
    variables[BEFORE_X], variables[BEFORE_Y] = before_x, before_y
    variables[STRUCK] = 1.0 if struck else 0.0
    return reward, over


@compiled
def observe(env, variables, observation):
    """Paddle, ball, where the ball was, and bricks (10, 10, 4)."""
    nothing(observation)
    show(observation, _CHANNELS, PADDLE_SHOWN, EDGE, variables[PADDLE])
    show(observation, _CHANNELS, BALL, variables[Y], variables[X])
    show(observation, _CHANNELS, TRAIL, variables[BEFORE_Y], variables[BEFORE_X])
    for i in range(_ROWS):
        show_row(observation, _CHANNELS, BRICK, _TOP + i, variables[BRICKS + i])


@compiled
def _build(variables):
    for i in range(_ROWS):
        variables[BRICKS + i] = _WHOLE_ROW


@compiled
def _any_bricks(variables):
    left = 0.0
    for i in range(_ROWS):
        left += variables[BRICKS + i]
    return left != 0.0


@compiled
def _is_brick(variables, y, x):
    row = np.int64(y) - _TOP
    return row >= 0 and row < _ROWS and has(variables[BRICKS + row], x)
