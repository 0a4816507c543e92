"""SwitchingMDP-v0, FourMDPs-v0, TwoMDPs-v0: a small maze that is another at times.

A world is a grid of 5 × 5 cells with walls between some of them. One cell is the goal:
coming to it is worth 1, and puts the agent on another cell, all as likely. Each other
cell has a worth of its own between −0.1 and 0.1, which counts whenever a step ends
there; a wall or the edge of the grid leaves the agent where it is.

The agent sees its cell alone, and neither the world nor that it changes. The next of
``worlds`` worlds follows after ``offset`` steps that the environment has taken in all
its episodes, and another one every ``period`` steps from then on; after the last of
them comes the first again. With few worlds, as in FourMDPs-v0 and TwoMDPs-v0, they come
back before long, with 1,000 they do not in any run. What was learned in one of them is
of no use in the next: where random moves score 0 and the best policy of a world 1, that
of another world scores 0 or less in most (``tests/inner_envs/test_switching.py``).

**Worlds follow from their numbers**: walls, goal and worths of world
``first + stage − 1`` are draws of random numbers at that address, so that nothing is
stored, and instances with other ``first`` have other worlds.

**Nobody is walled in.** Between a cell and those above and to the left of it are two
places for a wall. One of them, drawn, is open (at the upper and the left edge the only
one there is), so that from each cell a way leads up and to the left to the corner, and
from there to any other: a maze of binary trees (J. Buck 2015, "Mazes for Programmers").
The other one is open by a chance of 1/4. Some 12 of the 40 places have a wall.

Episodes are stretches of 100 steps, which are truncated and do not terminate, and
begin on any cell but the goal. An evaluation sees the world of its time of training,
until its end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.inner_envs.grid import (
    ACTIONS,
    CELLS,
    DOWN,
    SIDE,
    UP,
    anywhere_but,
    beside,
)
from dacrl_env.inner_envs.shift import NEVER, changes
from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.random_numbers import below, draw, uniform, word
from dacrl_env.kernels.views import vector

PERIOD, OFFSET, WORLDS, FIRST_WORLD, STAGE = range(5)  # of constants

PHYSICS = {
    "period": 50_000.0,  # steps from a world to the next
    "offset": 50_000.0,  # steps in the first one
    "worlds": 1_000.0,  # how many there are
    "first": 1.0,  # number of the first one
    "stage": 1.0,  # which of them is there at first, from 1 to how many there are
}

_KEY = np.uint64(0x5357495443484D44)  # of all worlds
_WORTHS = CELLS  # lanes of a world: walls beside each cell, then worths, then the goal
_GOAL = 2 * CELLS
_REACHED, _MOST = 1.0, 0.1
_1, _2, _3 = (np.uint64(n) for n in (1, 2, 3))
_LEFT_IS_OPEN, _BOTH_ARE_OPEN = np.uint64(1), np.uint64(0)


class SwitchingMDP(NamedTuple):
    """Variables: place of the agent."""

    features: int = CELLS
    actions: int = ACTIONS
    variables: int = 1
    max_episode_steps: int = 100


@compiled
def in_force(env, physics, lifetime, room):
    """The world that is there after some steps, and remains."""
    switches = changes(lifetime, physics[OFFSET], physics[PERIOD])
    worlds = max(np.int64(physics[WORLDS]), 1)
    room[PERIOD] = room[OFFSET] = NEVER
    room[WORLDS], room[FIRST_WORLD] = physics[WORLDS], physics[FIRST_WORLD]
    room[STAGE] = 1 + (np.int64(physics[STAGE]) - 1 + switches) % worlds
    return vector(room, 0, len(physics))


@compiled
def reset(env, key, episode, physics, variables):
    """Any cell but the goal, with constants that are `in_force`."""
    goal = _goal(_world(physics))
    variables[0] = anywhere_but(draw(key, episode), 0, goal)


@compiled
def step(env, variables, action, physics, drawn):
    """Up, right, down, left (0 to 3), with constants that are `in_force`."""
    world = _world(physics)
    place = _moved(world, np.int64(variables[0]), np.int64(action[0]))
    goal = _goal(world)
    if place == goal:
        variables[0] = anywhere_but(drawn, 0, goal)
        return _REACHED, False
    variables[0] = place
    return _worth(world, place), False


@compiled
def observe(env, variables, observation):
    """The cell, one of 25."""
    for k in range(len(observation)):
        observation[k] = np.float32(0.0)
    observation[np.int64(variables[0])] = np.float32(1.0)


# -- worlds ----------------------------------------------------------------------------


@compiled
def _world(physics):
    """The draw that all of a world follows from."""
    number = np.int64(physics[FIRST_WORLD]) + np.int64(physics[STAGE]) - 1
    return draw(_KEY, number)


@compiled
def _goal(world):
    return below(world, _GOAL, CELLS)


@compiled
def _worth(world, place):
    return _MOST * (2.0 * uniform(world, _WORTHS + place) - 1.0)


@compiled
def _moved(world, place, action):
    """Where a move leads; a wall belongs to the cell below or to the right of it."""
    there = beside(place, action)
    if action in (UP, DOWN):
        return there if _is_open(world, max(place, there), True) else place
    return there if _is_open(world, max(place, there), False) else place


@compiled
def _is_open(world, place, upwards):
    """Whether there is no wall above a cell, or to the left of it."""
    row, column = place // SIDE, place % SIDE
    if row == 0 or column == 0:
        return True  # the only one that there is, or the edge itself
    bits = word(world, place)
    left_is_open = bits & _1 == _LEFT_IS_OPEN
    return upwards != left_is_open or (bits >> _1) & _3 == _BOTH_ARE_OPEN


@entry
def _describe(numbers, following, worths, goals):
    for i in range(len(numbers)):
        world = draw(_KEY, numbers[i])
        goals[i] = _goal(world)
        for place in range(CELLS):
            worths[i, place] = _worth(world, place)
            for action in range(ACTIONS):
                following[i, place, action] = _moved(world, place, action)
        worths[i, goals[i]] = _REACHED


class Worlds(NamedTuple):
    """What some worlds are like."""

    following: NDArray[np.int64]  # (n, 25, 4) cell that a move leads to, from each
    worths: NDArray[np.float64]  # (n, 25) reward of coming to each cell
    goals: NDArray[np.int64]  # (n,) cells


def describe(numbers: ArrayLike) -> Worlds:
    """What worlds ``(n,)`` are like, by their numbers."""
    given = np.array(numbers, np.int64)
    n = len(given)
    found = Worlds(
        np.empty((n, CELLS, ACTIONS), np.int64),
        np.empty((n, CELLS)),
        np.empty(n, np.int64),
    )
    _describe(given, *found)
    return found
