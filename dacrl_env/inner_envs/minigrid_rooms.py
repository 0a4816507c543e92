"""MiniGrid's rooms of up to 8×8 cells: Empty, DoorKey and LavaGap, as minigrid 3.2.

M. Chevalier-Boisvert et al. 2023, "Minigrid & Miniworld: Modular & Customizable
Reinforcement Learning Environments for Goal-Oriented Tasks" (NeurIPS Datasets and
Benchmarks). Observations are the image alone: the agent's view of 7×7 cells, each as
(object, colour, state).

An 8×8 room with a key has some hundred thousand states, too many for the tables of
:mod:`~dacrl_env.inner_envs.minigrid`. Here the rules are applied in each step. Cells
lie in a square of 8×8, whatever the size of the room: outside of it are walls, as
minigrid shows them.

Variables: column, row, direction and load of the agent; steps taken in the episode, and
their limit; whether walls are seen through; number of the level, where there are levels
(:mod:`~dacrl_env.inner_envs.minigrid_levels`); the 64 cells, row by row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.inner_envs import minigrid
from dacrl_env.inner_envs.minigrid import (
    DOOR_CLOSED,
    DOOR_LOCKED,
    DOOR_OPEN,
    DROP,
    EMPTY,
    FORWARD,
    GOAL,
    KEY,
    LEFT,
    PICKUP,
    RIGHT,
    TOGGLE,
    UNSEEN,
    VIEW,
    WALL,
)
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, draw

SIDE = 8  # cells on a side of the largest room
LAVA = DOOR_LOCKED + 1
# object, colour and state of each thing, one after the other
_CODES = np.array([*minigrid.ENCODING.ravel(), 9, 0, 0], np.float32)  # lava is red

COLUMN, ROW, DIRECTION, LOAD, STEPS, LIMIT, SEES_THROUGH, LEVEL, CELLS = range(9)
VARIABLES = CELLS + SIDE**2
EMPTY_ROOM, EMPTY_RANDOM, DOOR_KEY, LAVA_GAP = range(4)  # kinds of rooms
_STEPS_A_CELL, _STEPS_A_CELL_WITH_KEY = 4.0, 10.0  # of the limit

PHYSICS: dict[str, float] = {}


class Room(NamedTuple):
    """Rooms of one kind and size; see the module's docstring for the variables."""

    kind: int
    size: int  # cells on a side, walls included
    max_episode_steps: int
    features: int = VIEW**2 * 3
    actions: int = minigrid.ACTIONS
    variables: int = VARIABLES


def room(kind: int, size: int) -> Room:
    """Rooms of a kind, with the original's limit of steps.

    Args:
        kind: `EMPTY_ROOM`, `EMPTY_RANDOM`, `DOOR_KEY` or `LAVA_GAP`.
        size: cells on a side, walls included.

    Raises:
        ValueError: a size that is not from 5 to 8.
    """
    if not 5 <= size <= SIDE:
        raise ValueError(f"rooms have 5 to {SIDE} cells on a side, got {size}")
    each = _STEPS_A_CELL_WITH_KEY if kind == DOOR_KEY else _STEPS_A_CELL
    return Room(kind, size, int(each) * size**2)


@compiled
def reset(env, key, episode, physics, variables):
    """A layout, of all that there are equally likely."""
    lay_out(env.kind, env.size, draw(key, episode), variables)


@compiled
def step(env, variables, action, physics, drawn):
    """Turn left, right, go forward, pick up, drop, toggle, or nothing (0 to 6).

    The goal ends the episode with 1 − 0.9 × the used part of its steps, lava with 0.
    """
    return act(variables, int(action[0]))


@compiled
def observe(env, variables, observation):
    """The agent's view (7, 7, 3): column and row, the agent at (3, 6)."""
    look(variables, observation)


# -- layouts ---------------------------------------------------------------------------


@compiled
def lay_out(kind, size, drawn, variables):
    """Put variables at the start of an episode in a room.

    Args:
        kind: of the room.
        size: of the room.
        drawn: a draw, of which the layout takes lanes.
        variables: (72,) written to.
    """
    inner, goal = size - 2, size - 2
    for k in range(SIDE * SIDE):
        row, column = k // SIDE, k % SIDE
        inside = 1 <= row <= inner and 1 <= column <= inner
        variables[CELLS + k] = EMPTY if inside else WALL
    variables[CELLS + goal * SIDE + goal] = GOAL
    variables[COLUMN] = variables[ROW] = 1.0
    variables[DIRECTION] = variables[STEPS] = variables[LEVEL] = 0.0
    variables[LOAD] = EMPTY
    each = _STEPS_A_CELL_WITH_KEY if kind == DOOR_KEY else _STEPS_A_CELL
    variables[LIMIT] = each * size * size
    variables[SEES_THROUGH] = kind in (EMPTY_ROOM, EMPTY_RANDOM)
    if kind == EMPTY_RANDOM:
        # the goal is the last of the cells
        _place_agent(below(drawn, 0, inner * inner - 1), inner, drawn, variables)
    elif kind == DOOR_KEY:
        _place_door_and_key(size, drawn, variables)
    elif kind == LAVA_GAP:
        column = 2 + below(drawn, 0, size - 4)
        gap = 1 + below(drawn, 1, inner)
        for row in range(1, size - 1):
            what = EMPTY if row == gap else LAVA
            variables[CELLS + row * SIDE + column] = what


@compiled
def _place_agent(cell, columns, drawn, variables):
    """Put the agent on a cell, of those in some columns, looking anywhere."""
    variables[COLUMN] = 1 + cell % columns
    variables[ROW] = 1 + cell // columns
    variables[DIRECTION] = below(drawn, 1, 4)


@compiled
def _place_door_and_key(size, drawn, variables):
    """A wall with a locked door; on its left the agent, and the key somewhere else."""
    wall = 2 + below(drawn, 2, size - 4)
    for row in range(size):
        variables[CELLS + row * SIDE + wall] = WALL
    door = 1 + below(drawn, 3, size - 3)
    variables[CELLS + door * SIDE + wall] = DOOR_LOCKED
    columns = wall - 1
    cells = columns * (size - 2)
    agent = below(drawn, 0, cells)
    _place_agent(agent, columns, drawn, variables)
    key = below(drawn, 4, cells - 1)
    if key >= agent:
        key += 1
    variables[CELLS + (1 + key // columns) * SIDE + 1 + key % columns] = KEY


# -- rules -----------------------------------------------------------------------------


@compiled
def ahead_of(direction):
    """Columns and rows to the cell ahead: right, down, left, up."""
    along = (1 - direction) if direction % 2 == 0 else 0
    return along, (2 - direction) if direction % 2 == 1 else 0


@compiled
def act(variables, action):
    """Change variables by an action; reward and termination."""
    variables[STEPS] += 1.0
    direction = int(variables[DIRECTION])
    if action == LEFT:
        variables[DIRECTION] = (direction + 3) % 4
        return 0.0, False
    if action == RIGHT:
        variables[DIRECTION] = (direction + 1) % 4
        return 0.0, False
    columns, rows = ahead_of(direction)
    column, row = int(variables[COLUMN]) + columns, int(variables[ROW]) + rows
    place = CELLS + row * SIDE + column
    front, load = int(variables[place]), int(variables[LOAD])
    if action == FORWARD:
        if front in (EMPTY, GOAL, DOOR_OPEN, LAVA):
            variables[COLUMN], variables[ROW] = column, row
        if front == GOAL:
            return 1.0 - 0.9 * (variables[STEPS] / variables[LIMIT]), True
        return 0.0, front == LAVA
    if action == PICKUP and front == KEY and load == EMPTY:
        variables[LOAD], variables[place] = KEY, EMPTY
    elif action == DROP and front == EMPTY and load == KEY:
        variables[LOAD], variables[place] = EMPTY, KEY
    elif action == TOGGLE:
        if front == DOOR_OPEN:
            variables[place] = DOOR_CLOSED
        elif front == DOOR_CLOSED or (front == DOOR_LOCKED and load == KEY):
            variables[place] = DOOR_OPEN
    return 0.0, False


# -- what is seen ----------------------------------------------------------------------


@compiled
def look(variables, observation):
    """Write the agent's view (7 · 7 · 3,).

    The view is turned so that the agent stands in the middle of the last row and looks
    towards the first.
    """
    ahead_columns, ahead_rows = ahead_of(int(variables[DIRECTION]))
    column_0, row_0 = int(variables[COLUMN]), int(variables[ROW])
    for column in range(VIEW):
        right = column - VIEW // 2
        for row in range(VIEW):
            far = VIEW - 1 - row
            x = column_0 + far * ahead_columns - right * ahead_rows
            y = row_0 + far * ahead_rows + right * ahead_columns
            thing = WALL
            if 0 <= x < SIDE and 0 <= y < SIDE:
                thing = int(variables[CELLS + y * SIDE + x])
            # the first number of a cell has the thing until all of them are known
            observation[(column * VIEW + row) * 3] = np.float32(thing)
    seen = -1  # a bit for each cell
    if variables[SEES_THROUGH] == 0.0:
        seen = visible(observation)
    # in its own cell the agent sees what it carries
    own = (VIEW // 2 * VIEW + VIEW - 1) * 3
    observation[own] = np.float32(variables[LOAD])
    for k in range(VIEW * VIEW):
        thing = int(observation[3 * k]) if (seen >> k) & 1 else UNSEEN
        for part in range(3):
            observation[3 * k + part] = _CODES[3 * thing + part]


@compiled
def visible(view):
    """Which cells are seen, a bit for each: minigrid's ``Grid.process_vis``.

    Row by row away from the agent, sight spreads from a cell that can be seen through
    to the next one at its side and to the two ahead of these. The thing in cell k is
    number 3 k of the view (147,).
    """
    clear = 0
    for k in range(VIEW * VIEW):
        thing = int(view[3 * k])
        if thing != WALL and thing != DOOR_CLOSED and thing != DOOR_LOCKED:
            clear |= 1 << k
    seen = 1 << (VIEW // 2 * VIEW + VIEW - 1)
    for row in range(VIEW - 1, -1, -1):
        for column in range(VIEW - 1):
            seen |= _spread(column * VIEW + row, VIEW, row, seen & clear)
        for column in range(VIEW - 1, 0, -1):
            seen |= _spread(column * VIEW + row, -VIEW, row, seen & clear)
    return seen


@compiled
def _spread(k, side, row, lit):
    """Cells that are seen because cell k is, where it can be seen through."""
    if not (lit >> k) & 1:
        return 0
    more = 1 << (k + side)
    if row > 0:
        more |= more >> 1 | 1 << (k - 1)
    return more
