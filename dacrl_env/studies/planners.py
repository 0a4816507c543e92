"""Agents that know the rules of an inner environment, for what it can return.

Each function takes constants ``(n, K)`` and makes an agent: actions ``(m, E)`` for
observations ``(m, E, D)``, whatever the number of the step, and the rows ``(m,)`` of
the constants that they are of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs import deep_sea, grid, switching, two_colours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Agent = Callable[[NDArray[Any], int, Ints], NDArray[Any]]

_DISCOUNT = 0.99
_SWEEPS = 1_000  # of value iteration; what is left of an error is below 1e-4 of it
_STEPS_OF = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # rows, columns of a move


def seek(constants: Floats) -> Agent:
    """Two Colours: the shortest way to the good object that avoids the other one."""
    ways = _ways()
    good = constants[:, two_colours.GOOD].astype(int) - 1

    def act(observations: NDArray[Any], step: int, rows: Ints) -> Ints:
        lead = observations.shape[:-1]
        coordinates = observations.reshape(*lead, 3, 2, grid.SIDE).argmax(-1)
        places = coordinates[..., 0] + grid.SIDE * coordinates[..., 1]
        agent, objects = places[..., 0], places[..., 1:]
        wanted = np.broadcast_to(good[rows][:, None, None], (*lead, 1))
        target = np.take_along_axis(objects, wanted, -1)[..., 0]
        other = np.take_along_axis(objects, 1 - wanted, -1)[..., 0]
        return ways[other, target, agent]

    return act


def plan(constants: Floats) -> Agent:
    """Worlds that switch: the best policy of the world that is there, for ever."""
    first = constants[:, switching.FIRST_WORLD]
    worlds = switching.describe(first + constants[:, switching.STAGE] - 1)
    actions = best_of(worlds)

    def act(observations: NDArray[Any], step: int, rows: Ints) -> Ints:
        return actions[rows[:, None], observations.argmax(-1)]

    return act


def best_of(worlds: switching.Worlds) -> Ints:
    """Actions ``(n, 25)`` of most value at a discount of 0.99, by value iteration."""
    n = len(worlds.goals)
    every = np.arange(n)[:, None, None]
    goal = np.arange(grid.CELLS) == worlds.goals[:, None]
    value = np.zeros((n, grid.CELLS))
    for _ in range(_SWEEPS):
        elsewhere = np.where(goal, 0, value).sum(1, keepdims=True) / (grid.CELLS - 1)
        after = worlds.worths + _DISCOUNT * np.where(goal, elsewhere, value)
        values = after[every, worlds.following]
        value = values.max(-1)
    return values.argmax(-1)


def dive(constants: Floats) -> Agent:
    """DeepSea: always to the right."""
    right = deep_sea.mappings(constants[:, deep_sea.MAPPING])

    def act(observations: NDArray[Any], step: int, rows: Ints) -> Ints:
        side = math.isqrt(observations.shape[-1])
        row, column = np.divmod(observations.argmax(-1), side)
        return right[rows[:, None], row * deep_sea.LARGEST + column]

    return act


@functools.cache
def _ways() -> Ints:
    """Moves ``(25, 25, 25)`` that lead around a place, to a second, from a third."""
    cells = np.arange(grid.CELLS)
    rows, columns = np.divmod(cells, grid.SIDE)
    to = np.stack([rows, columns], -1)[:, None] + _STEPS_OF
    to = to.clip(0, grid.SIDE - 1)
    following = grid.SIDE * to[..., 0] + to[..., 1]  # (25, 4)
    far = grid.CELLS
    distance = np.full((grid.CELLS,) * 3, far)
    distance[:, cells, cells] = 0
    closed = np.zeros_like(distance, bool)
    closed[cells, :, cells] = True
    for _ in range(far):
        distance = np.minimum(distance, 1 + distance[..., following].min(-1))
        distance[closed] = far
    return distance[..., following].argmin(-1)
