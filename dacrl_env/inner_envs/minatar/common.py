"""What MinAtar's games have in common: sticky actions, rows of cells, what is shown."""

from __future__ import annotations

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import uniform

SIDE = 10  # cells on a side of the world
EDGE = SIDE - 1
# Freeway's is the only game of the five that ends by itself, after as long
MAX_EPISODE_STEPS = 2_500

LAST = 0  # of variables: the action that was last taken
STICKY = 0  # of constants: how likely it is taken once more
USUALLY_STICKY = 0.1


@compiled
def taken(variables, action, physics, drawn):
    """The action that is really taken; uses lane 0."""
    if uniform(drawn, 0) >= physics[STICKY]:
        variables[LAST] = action[0]
    return np.int64(variables[LAST])


@compiled
def clamped(place):
    """The cell of a row that is nearest to a place."""
    return min(max(place, 0.0), EDGE * 1.0)


@compiled
def outside(place):
    """Whether a place is none of a row's cells."""
    return place < 0.0 or place > EDGE


# -- games that get harder


@compiled
def may_get_harder(variables, spawn_interval, move_interval, least):
    """Whether a game is not yet as hard as it gets.

    The last three are the places of the steps between things that appear and between
    moves, and the fewest steps between moves.
    """
    return variables[spawn_interval] > 1.0 or variables[move_interval] > least


@compiled
def get_harder(variables, spawn_interval, move_interval, least, times):
    """Let things appear more often and, every other time, move more often.

    ``times`` is the place of how often that has happened.
    """
    if variables[times] % 2.0 == 1.0:
        variables[move_interval] = _shorter(variables[move_interval], least)
    variables[spawn_interval] = _shorter(variables[spawn_interval], 1.0)
    variables[times] += 1.0


@compiled
def _shorter(interval, least):
    return max(interval - 1.0, least) if interval > least else interval


# -- rows of ten cells, each as one number whose bits are the cells, the left one first


@compiled
def has(row, column):
    """Whether there is something in a cell."""
    return (np.int64(row) >> np.int64(column)) & 1 == 1


@compiled
def cell(column):
    """A row that has something in one cell alone."""
    return np.int64(1) << np.int64(column)


@compiled
def count(row):
    """How many cells have something."""
    left, found = np.int64(row), 0
    while left != 0:
        left &= left - 1
        found += 1
    return found


# -- observations ----------------------------------------------------------------------


@compiled
def nothing(observation):
    """Show nothing."""
    for k in range(len(observation)):
        observation[k] = np.float32(0.0)


@compiled
def show(observation, channels, channel, row, column):
    """Show something in a cell."""
    place = (np.int64(row) * SIDE + np.int64(column)) * channels + channel
    observation[place] = np.float32(1.0)


@compiled
def show_trail(observation, channels, channel, row, column, right):
    """Show where something came from that moves to the right, or to the left."""
    behind = column - 1.0 if right else column + 1.0
    if not outside(behind):
        show(observation, channels, channel, row, behind)


@compiled
def show_row(observation, channels, channel, row, cells):
    """Show the cells of a row that have something."""
    left = np.int64(cells)
    place = (np.int64(row) * SIDE) * channels + channel
    while left != 0:
        if left & 1 == 1:
            observation[place] = np.float32(1.0)
        left >>= 1
        place += channels
