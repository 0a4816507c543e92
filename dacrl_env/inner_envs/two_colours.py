"""TwoColours-v0: take the object that is worth something, which is not told.

The grid world of S. Flennerhag et al. 2022, "Bootstrapped Meta-Learning"
(arXiv:2109.04504), and of J. Luketina et al. 2022, "Meta-Gradients in Non-Stationary
Environments" (arXiv:2209.06159). An agent and two objects are on different cells of a
grid of 5 × 5 cells. Taking one object, by moving to its cell, is worth 1, taking the
other −1; the taken one is then placed on a free cell, all as likely. A step that takes
nothing costs 0.04. At the edge of the grid the agent stays where it is.

Which object is the good one swaps after ``offset`` steps that the environment has taken
in all its episodes, and every ``period`` steps from then on. The original swaps after
each 100,000 steps. Where an agent trains in several environments at once, steps are
those of each. Observations do not tell: what was learned becomes wrong.

The original is one stream without an end. Here a stretch of 100 steps is an episode,
which is truncated and does not terminate, and begins with agent and objects placed
anew. That is some 30 objects for an agent that knows what to do, so that the return
depends little on the start, and evaluations of ten episodes remain cheap. An evaluation
sees the worth of objects as it is at that time of training, until its end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.inner_envs.grid import (
    ACTIONS,
    CELLS,
    SIDE,
    anywhere_but,
    anywhere_but_two,
    beside,
)
from dacrl_env.inner_envs.shift import NEVER, changes
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, draw
from dacrl_env.kernels.views import vector

AGENT, OBJECTS = 0, 1  # of variables: places of the agent and of two objects
PERIOD, OFFSET, GOOD = range(3)  # of constants

PHYSICS = {
    "period": 100_000.0,  # steps from a swap to the next
    "offset": 100_000.0,  # steps before the first
    "good": 1.0,  # the object that is worth 1 before the first: 1 or 2
}

_TAKEN, _NOTHING = 1.0, -0.04  # rewards


class TwoColours(NamedTuple):
    """Variables: places of the agent and of the two objects."""

    features: int = 3 * 2 * SIDE
    actions: int = ACTIONS
    variables: int = 3
    max_episode_steps: int = 100


@compiled
def in_force(env, physics, lifetime, room):
    """The object that is good after some steps, and remains so."""
    swaps = changes(lifetime, physics[OFFSET], physics[PERIOD])
    room[PERIOD] = room[OFFSET] = NEVER
    room[GOOD] = 1 + (np.int64(physics[GOOD]) - 1 + swaps) % 2
    return vector(room, 0, len(physics))


@compiled
def reset(env, key, episode, physics, variables):
    """Agent and objects on different cells, all as likely."""
    drawn = draw(key, episode)
    agent = below(drawn, 0, CELLS)
    one = anywhere_but(drawn, 1, agent)
    variables[AGENT], variables[OBJECTS] = agent, one
    variables[OBJECTS + 1] = anywhere_but_two(drawn, 2, agent, one)


@compiled
def step(env, variables, action, physics, drawn):
    """Up, right, down, left (0 to 3), with constants that are `in_force`."""
    place = beside(np.int64(variables[AGENT]), np.int64(action[0]))
    variables[AGENT] = place
    for which in range(2):
        if variables[OBJECTS + which] == place:
            other = np.int64(variables[OBJECTS + 1 - which])
            variables[OBJECTS + which] = anywhere_but_two(drawn, 0, place, other)
            return _TAKEN if physics[GOOD] == 1 + which else -_TAKEN, False
    return _NOTHING, False


@compiled
def observe(env, variables, observation):
    """Column and row of agent, first and second object: six times one of five."""
    for k in range(len(observation)):
        observation[k] = np.float32(0.0)
    for which in range(3):
        place = np.int64(variables[which])
        observation[2 * SIDE * which + place % SIDE] = np.float32(1.0)
        observation[2 * SIDE * which + SIDE + place // SIDE] = np.float32(1.0)
