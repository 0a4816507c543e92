"""DeepSea-v0, DeepSea10-v0: a treasure that one sequence of actions of many finds.

I. Osband et al. 2020, "Behaviour Suite for Reinforcement Learning" (arXiv:1908.03568),
experiment "deep_sea", by the rules of the package bsuite with its deterministic
transitions and rewards. A diver begins in the upper left corner of a grid of
``size`` × ``size`` cells. Each step takes it one row down, and one column to the right
or to the left, unless it is at that side. Going right costs 0.01 / size; in the last
column, which is reached in the last row alone, it finds the treasure, worth 1. After
``size`` steps the episode terminates. Always going right returns 0.99; of the
``2**size`` sequences of actions, no other one finds the treasure.

Which of the two actions means right is drawn for each cell, by an even chance, and is
the same in all episodes. ``mapping`` is the number of these draws: bsuite's
``mapping_seed``, with random numbers of our own, so that mappings are not those of
bsuite.

Observations have room for the largest size: the grid of 20 × 20 cells, row by row, with
1 at the diver's cell; in DeepSea10-v0, whose sizes end at 10, that of 10 × 10 cells. A
smaller grid is its upper left corner, and cells mean the same in both. After the last
step nothing is seen, as in bsuite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.random_numbers import draw, word

LARGEST = 20  # cells on a side
ROW, COLUMN, LENGTH = range(3)  # of variables
SIZE, MAPPING = range(2)  # of constants

PHYSICS = {
    "size": 10.0,  # cells on a side, a whole number from 1 to the largest
    "mapping": 42.0,  # number of the draws of actions; the one bsuite uses
}

_KEY = np.uint64(0x4445455053454131)  # of all mappings
_COST, _TREASURE = 0.01, 1.0
_1 = np.uint64(1)


class DeepSea(NamedTuple):
    """Variables: row, column, cells on a side."""

    features: int = LARGEST * LARGEST
    actions: int = 2
    variables: int = 3
    max_episode_steps: int = LARGEST
    largest: int = LARGEST  # cells on a side that there is room for


def with_room_for(size: int) -> DeepSea:
    """DeepSea of sizes up to one that is below 20."""
    return DeepSea(features=size * size, max_episode_steps=size, largest=size)


@compiled
def reset(env, key, episode, physics, variables):
    """In the upper left corner."""
    variables[ROW] = variables[COLUMN] = 0.0
    variables[LENGTH] = min(max(np.int64(physics[SIZE]), 1), env.largest)


@compiled
def step(env, variables, action, physics, drawn):
    """Down, to the side that the action (0 or 1) means in this cell."""
    size, column = variables[LENGTH], variables[COLUMN]
    cell = np.int64(variables[ROW]) * LARGEST + np.int64(column)
    reward = 0.0
    if np.int64(action[0]) == _right(physics, cell):
        if column == size - 1.0:
            reward += _TREASURE
        reward -= _COST / size
        variables[COLUMN] = min(column + 1.0, size - 1.0)
    else:
        variables[COLUMN] = max(column - 1.0, 0.0)
    variables[ROW] += 1.0
    return reward, variables[ROW] == size


@compiled
def observe(env, variables, observation):
    """Where the diver is, one of all cells; nothing at the end."""
    for k in range(len(observation)):
        observation[k] = np.float32(0.0)
    if variables[ROW] < variables[LENGTH]:
        row, column = np.int64(variables[ROW]), np.int64(variables[COLUMN])
        observation[row * env.largest + column] = np.float32(1.0)


@compiled
def _right(physics, cell):
    """The action that leads to the right."""
    mapping = draw(_KEY, np.int64(physics[MAPPING]))
    return np.int64(word(mapping, cell) & _1)


@entry
def _describe(numbers, into):
    for i in range(len(numbers)):
        mapping = draw(_KEY, numbers[i])
        for cell in range(into.shape[1]):
            into[i, cell] = np.int64(word(mapping, cell) & _1)


def mappings(numbers: ArrayLike) -> NDArray[np.int64]:
    """Which action leads to the right in each cell ``(n, 400)``, of mappings (n,)."""
    given = np.array(numbers, np.int64)
    into = np.empty((len(given), LARGEST * LARGEST), np.int64)
    _describe(given, into)
    return into
