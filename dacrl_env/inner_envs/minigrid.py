"""MiniGrid-Empty-5x5-v0 and MiniGrid-DoorKey-5x5-v0, exactly as minigrid 3.2 has them.

M. Chevalier-Boisvert et al. 2023, "Minigrid & Miniworld: Modular & Customizable
Reinforcement Learning Environments for Goal-Oriented Tasks" (NeurIPS Datasets and
Benchmarks). Observations are the image alone: the agent's view of 7×7 cells, each as
(object, colour, state).

These worlds have some hundred states that can be reached. The rules are therefore
applied once, to all of them; a step is then a look-up of the next state, and its view
another one. A *world* is a row of 29 bytes: column, row, direction and load of the
agent, then the 5×5 cells row by row.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import draw, uniform

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

SIZE = 5  # cells on a side of the world, walls included
VIEW = 7  # cells on a side of the agent's view

# what a cell can hold, and how minigrid encodes it: object, colour, state
UNSEEN, EMPTY, WALL, GOAL, KEY, DOOR_OPEN, DOOR_CLOSED, DOOR_LOCKED = range(8)
ENCODING: Bytes = np.array(
    [
        (0, 0, 0),
        (1, 0, 0),
        (2, 5, 0),  # grey
        (8, 1, 0),  # green
        (5, 4, 0),  # yellow, as the door
        (4, 4, 0),
        (4, 4, 1),
        (4, 4, 2),
    ],
    np.uint8,
)
_ENTERED = (EMPTY, GOAL, DOOR_OPEN)  # what the agent can step on
_OPAQUE = (WALL, DOOR_CLOSED, DOOR_LOCKED)  # what the agent cannot see behind
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up

COLUMN, ROW, DIRECTION, LOAD, CELLS = range(5)  # of a world; cells from CELLS on
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
ACTIONS = 7

PHYSICS: dict[str, float] = {}


class MiniGrid(NamedTuple):
    """Variables: number of the state, steps taken in the episode."""

    worlds: Bytes  # (S, 29) all that can be reached, in order: the place is the number
    starts: Ints  # (n,) states in which an episode begins, equally likely
    following: Ints  # (S · 7,) next state, by state × 7 + action
    arrives: NDArray[np.bool_]  # (S · 7,) whether that is at the goal
    images: Bytes  # (S, 147) what is seen
    max_episode_steps: int
    features: int = VIEW**2 * 3
    actions: int = ACTIONS
    variables: int = 2


@compiled
def reset(env, key, episode, physics, variables):
    """One of the starts."""
    which = int(uniform(draw(key, episode), 0) * len(env.starts))
    variables[0], variables[1] = env.starts[which], 0.0


@compiled
def step(env, variables, action, physics, drawn):
    """Turn left, right, go forward, pick up, drop, toggle, or nothing (0 to 6).

    The goal ends the episode with 1 − 0.9 × the used part of its steps.
    """
    place = int(variables[0]) * env.actions + int(action[0])
    steps = variables[1] + 1.0
    variables[0], variables[1] = env.following[place], steps
    if env.arrives[place]:
        return 1.0 - 0.9 * (steps / env.max_episode_steps), True
    return 0.0, False


@compiled
def observe(env, variables, observation):
    """The agent's view (7, 7, 3): column and row, the agent at (3, 6)."""
    state = int(variables[0])
    for k in range(len(observation)):
        observation[k] = np.float32(env.images[state, k])


# -- the two worlds --------------------------------------------------------------------


@functools.cache
def empty_5x5() -> MiniGrid:
    """An empty room: from the upper left corner to the lower right one."""
    world = _room()
    world[[COLUMN, ROW]] = 1
    # 4 × SIZE² steps, and no need of hiding anything, are the original's
    return _tables(world[None], 4 * SIZE**2, see_through_walls=True)


@functools.cache
def door_key_5x5() -> MiniGrid:
    """A locked door between the agent, with the key at its side, and the goal.

    The original draws the wall's column from one possibility, then the agent's cell
    left of it (3), its direction (4), the door's row (2), and the key's cell, left of
    the wall and not under the agent (2): 48 layouts, equally likely.
    """
    starts = []
    for door in (1, 2):
        for row in (1, 2, 3):
            for key in {1, 2, 3} - {row}:
                for direction in range(4):
                    world = _room()
                    cells = world[CELLS:].reshape(SIZE, SIZE)
                    cells[:, 2] = WALL
                    cells[door, 2] = DOOR_LOCKED
                    cells[key, 1] = KEY
                    world[[COLUMN, ROW, DIRECTION]] = 1, row, direction
                    starts.append(world)
    return _tables(np.stack(starts), 10 * SIZE**2, see_through_walls=False)


def _room() -> Bytes:
    """A world ``(29,)`` with walls and goal; the agent is nowhere yet."""
    world = np.zeros(CELLS + SIZE**2, np.uint8)
    world[LOAD] = EMPTY
    cells = world[CELLS:].reshape(SIZE, SIZE)
    cells[:] = WALL
    cells[1:-1, 1:-1] = EMPTY
    cells[-2, -2] = GOAL
    return world


# -- the rules, applied to all states --------------------------------------------------


def _tables(starts: Bytes, max_episode_steps: int, see_through_walls: bool) -> MiniGrid:
    """What follows from the worlds (n, 29) in which an episode begins."""
    worlds = _reachable(starts)
    outcomes = [_act(worlds, action) for action in range(ACTIONS)]
    following = np.stack([_numbers(worlds, after) for after, _ in outcomes], -1)
    arrives = np.stack([arrives for _, arrives in outcomes], -1)
    return MiniGrid(
        worlds=worlds,
        starts=_numbers(worlds, starts),
        following=following.ravel(),
        arrives=arrives.ravel(),
        images=_images(worlds, see_through_walls).reshape(len(worlds), -1),
        max_episode_steps=max_episode_steps,
    )


def _act(worlds: Bytes, action: int) -> tuple[Bytes, NDArray[np.bool_]]:
    """Worlds ``(n, 29)`` after an action, and whether it led to the goal ``(n,)``."""
    worlds = worlds.copy()
    every = np.arange(len(worlds))
    ahead = _AHEAD[worlds[:, DIRECTION]]
    column, row = worlds[:, COLUMN] + ahead[:, 0], worlds[:, ROW] + ahead[:, 1]
    place = CELLS + row * SIZE + column  # of the cell in front of the agent
    front, load = worlds[every, place], worlds[:, LOAD].copy()
    arrives = np.zeros(len(worlds), bool)
    if action == LEFT:
        worlds[:, DIRECTION] = (worlds[:, DIRECTION] + 3) % 4
    elif action == RIGHT:
        worlds[:, DIRECTION] = (worlds[:, DIRECTION] + 1) % 4
    elif action == FORWARD:
        enters = np.isin(front, _ENTERED)
        worlds[enters, COLUMN], worlds[enters, ROW] = column[enters], row[enters]
        arrives = front == GOAL
    elif action == PICKUP:
        takes = (front == KEY) & (load == EMPTY)
        worlds[takes, LOAD], worlds[takes, place[takes]] = KEY, EMPTY
    elif action == DROP:
        puts = (front == EMPTY) & (load == KEY)
        worlds[puts, LOAD], worlds[puts, place[puts]] = EMPTY, KEY
    elif action == TOGGLE:
        opens = (front == DOOR_CLOSED) | ((front == DOOR_LOCKED) & (load == KEY))
        closes = front == DOOR_OPEN
        worlds[opens, place[opens]] = DOOR_OPEN
        worlds[closes, place[closes]] = DOOR_CLOSED
    return worlds, arrives


def _reachable(starts: Bytes) -> Bytes:
    """All worlds that actions can lead to from the starts, in lexicographic order."""
    known = fresh = np.unique(starts, axis=0)
    while len(fresh):
        after = [_act(fresh, action)[0] for action in range(ACTIONS)]
        fresh = np.unique(np.concatenate(after), axis=0)
        fresh = fresh[~np.isin(_whole(fresh), _whole(known))]
        known = np.concatenate([known, fresh])
    return np.unique(known, axis=0)


def _numbers(known: Bytes, worlds: Bytes) -> Ints:
    """Places ``(n,)`` of some worlds among the known, which are in order."""
    return np.searchsorted(_whole(known), _whole(worlds))


def _whole(worlds: Bytes) -> NDArray[np.void]:
    """Worlds ``(n,)`` as single values, which compare lexicographically."""
    row = np.dtype((np.void, worlds.shape[1]))
    return np.ascontiguousarray(worlds).view(row).ravel()


def _images(worlds: Bytes, see_through_walls: bool) -> Bytes:
    """What the agent sees in each world: ``(S, 7, 7, 3)``, by column and row.

    The view is turned so that the agent stands in the middle of the last row and
    looks towards the first.
    """
    ahead = _AHEAD[worlds[:, DIRECTION]][:, None, None]  # (S, 1, 1, 2)
    right = np.stack([-ahead[..., 1], ahead[..., 0]], -1)
    columns, rows = np.indices((VIEW, VIEW))[..., None]  # (7, 7, 1)
    agent = worlds[:, None, None, [COLUMN, ROW]].astype(np.int64)
    at = agent + (VIEW - 1 - rows) * ahead + (columns - VIEW // 2) * right
    inside = ((at >= 0) & (at < SIZE)).all(-1)
    at = at.clip(0, SIZE - 1)
    place = CELLS + at[..., 1] * SIZE + at[..., 0]
    every = np.arange(len(worlds))[:, None, None]
    view = np.where(inside, worlds[every, place], WALL)
    seen = np.ones(view.shape, bool) if see_through_walls else _visible(view)
    # in its own cell the agent sees what it carries
    view[:, VIEW // 2, VIEW - 1] = worlds[:, LOAD]
    return ENCODING[np.where(seen, view, UNSEEN)]


def _visible(view: Bytes) -> NDArray[np.bool_]:
    """Cells ``(S, 7, 7)`` that are seen: minigrid's ``Grid.process_vis``.

    Row by row away from the agent, sight spreads from a cell that can be seen through
    to the next one at its side and to the two ahead of these.
    """
    clear = ~np.isin(view, _OPAQUE)
    seen = np.zeros(view.shape, bool)
    seen[:, VIEW // 2, VIEW - 1] = True
    for row in reversed(range(VIEW)):
        for side in (1, -1):
            columns = range(VIEW - 1) if side == 1 else range(VIEW - 1, 0, -1)
            for column in columns:
                spreads = seen[:, column, row] & clear[:, column, row]
                seen[:, column + side, row] |= spreads
                if row > 0:
                    seen[:, column + side, row - 1] |= spreads
                    seen[:, column, row - 1] |= spreads
    return seen
