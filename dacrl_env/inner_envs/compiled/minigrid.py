"""MiniGrid-Empty-5x5-v0 and MiniGrid-DoorKey-5x5-v0, stepped by compiled code.

The rules, the layouts and the views are those of :mod:`dacrl_env.inner_envs.minigrid`,
which applies them once to every state that can be reached. A step here is a look-up in
its tables.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs import minigrid as worlds
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import draw, uniform


class MiniGrid(NamedTuple):
    """Variables: number of the state, steps taken in the episode."""

    following: NDArray[np.int64]  # (S · 7,) next state, by state × 7 + action
    arrives: NDArray[np.bool_]  # (S · 7,) whether that is at the goal
    images: NDArray[np.uint8]  # (S, 147) what is seen
    starts: NDArray[np.int64]  # (n,) states in which an episode begins, equally likely
    max_episode_steps: int
    features: int = worlds.VIEW**2 * 3
    actions: int = worlds.MiniGrid.num_actions
    variables: int = 2


PHYSICS: dict[str, float] = {}


def tables(batched: worlds.MiniGrid) -> MiniGrid:
    """What compiled code needs of the environment that steps in batches."""
    return MiniGrid(
        following=batched.following,
        arrives=batched.arrives,
        images=batched.images.reshape(len(batched.images), -1),
        starts=batched.starts,
        max_episode_steps=batched.max_episode_steps,
    )


@functools.cache
def empty_5x5() -> MiniGrid:
    """An empty room: from the upper left corner to the lower right one."""
    return tables(worlds.empty_5x5())


@functools.cache
def door_key_5x5() -> MiniGrid:
    """A locked door between the agent, with the key at its side, and the goal."""
    return tables(worlds.door_key_5x5())


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
    place = int(variables[0]) * 7 + int(action[0])
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
