"""A mix of MiniGrid's rooms as levels: some to train on, others to judge on.

A level is a number. It decides kind and size of the room, in turn

    Empty 5×5, 6×6, 7×7, 8×8; DoorKey 5×5, 6×6, 8×8; LavaGap 5×5, 6×6, 7×7,

and its layout, by random numbers of its own. So a level is the same in every run.
Instances have levels of the same kinds with other layouts: those that are counted from
``first`` on.
Levels 0 to 199 are trained on, 20 of each kind and size; levels 200 to 399 are held
out. Every evaluation episode, observed or reported, takes one of the levels held out,
every training episode one of the others. Rooms of few layouts have them in both:
LavaGap has 3, 8 and 15, DoorKey 48, 816 and 20,400.

## Action Space
As MiniGrid: turn left, right, go forward, pick up, drop, toggle, nothing (0 to 6).

## Observation Space
The agent's view (7, 7, 3) as :mod:`~dacrl_env.inner_envs.minigrid_rooms` has it. It
tells neither the level nor the size of the room.

## Rewards
1 − 0.9 × the used part of the level's steps at the goal, which ends the episode, as
lava does. Levels have the limits of steps of their kinds: 4, DoorKey 10, for each cell
of the square. Beyond it an episode is truncated.

## Starting State
The level's. In Empty the agent begins anywhere, as in MiniGrid's Empty-Random.

Mixes of MiniGrid's levels of different difficulty are what M. Jiang, E. Grefenstette
and T. Rocktäschel 2021, "Prioritized Level Replay" (arXiv 2010.03934), train on; see
:mod:`dacrl_env.algorithms.level_replay`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs import minigrid, minigrid_rooms
from dacrl_env.inner_envs.minigrid_rooms import (
    DOOR_KEY,
    EMPTY_RANDOM,
    LAVA_GAP,
    LEVEL,
    LIMIT,
    act,
    lay_out,
    look,
)
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, draw

MIX = (
    *((EMPTY_RANDOM, size) for size in (5, 6, 7, 8)),
    *((DOOR_KEY, size) for size in (5, 6, 8)),
    *((LAVA_GAP, size) for size in (5, 6, 7)),
)
_KEY = np.uint64(0x6C6576656C730A01)  # of the random numbers of levels

PHYSICS = {"first": 1.0}  # number of the first layout
_FIRST = 0


class MiniGridLevels(NamedTuple):
    """The mix; variables are those of the rooms."""

    kinds: NDArray[np.int64]  # (10,) in turn
    sizes: NDArray[np.int64]  # (10,)
    levels: int  # to train on
    held_out: int  # those that follow
    max_episode_steps: int  # of the longest level
    features: int = minigrid.VIEW**2 * 3
    actions: int = minigrid.ACTIONS
    variables: int = minigrid_rooms.VARIABLES


def minigrid_levels(levels: int = 200, held_out: int = 200) -> MiniGridLevels:
    """The mix, with numbers of levels of each set."""
    kinds, sizes = np.array(MIX).T.copy()
    longest = max(minigrid_rooms.room(*about).max_episode_steps for about in MIX)
    return MiniGridLevels(kinds, sizes, levels, held_out, longest)


@compiled
def reset(env, key, episode, physics, variables):
    """Any level that is trained on, all equally likely."""
    begin_level(env, below(draw(key, episode), 0, env.levels), physics, variables)


@compiled
def hold_out(env, key, physics, variables):
    """The start of an evaluation episode: any level that is held out."""
    level = env.levels + below(draw(key, 0), 0, env.held_out)
    begin_level(env, level, physics, variables)


@compiled
def begin_level(env, level, physics, variables):
    """Put variables at the start of a level."""
    which = level % len(env.kinds)
    drawn = draw(_KEY, np.int64(physics[_FIRST]) - 1 + level)
    lay_out(env.kinds[which], env.sizes[which], drawn, variables)
    variables[LEVEL] = level


@compiled
def level_of(env, variables):
    """The level that an episode takes place in."""
    return int(variables[LEVEL])


@compiled
def limit(env, variables):
    """Steps after which the running episode is truncated."""
    return int(variables[LIMIT])


@compiled
def step(env, variables, action, physics, drawn):
    """As in the rooms."""
    return act(variables, int(action[0]))


@compiled
def observe(env, variables, observation):
    """As in the rooms: the level is not seen."""
    look(variables, observation)
