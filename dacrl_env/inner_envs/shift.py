"""Physical constants that change in the course of a training run, unannounced.

A learner that is tuned for one environment meets another one at some step: what is the
best configuration then changes for a reason other than learning itself.

The steps and the factors are constants themselves, so that an instance sets them and
the members of one population may differ: beside the K constants of the given
environment there is ``shift_at``, the number of steps that an environment takes, in all
its episodes, before the shift; for each constant ``shift_<name>``, its factor; and
``shift_period``, the steps from the shift to the constants' return, from there to the
next shift, and so on. By default nothing ever changes, and what shifted stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dacrl_env.inner_envs import dynamics
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.views import vector

NEVER = 1e12  # a step no run comes to; finite, since instances are compared by ratios


class Shifted(NamedTuple):
    """An environment whose constants are multiplied by factors from a step on."""

    env: Any
    features: int
    actions: int
    variables: int
    max_episode_steps: int


def shifted(env: Any) -> Shifted:
    """An environment that may shift, of another one."""
    return Shifted(env, env.features, env.actions, env.variables, env.max_episode_steps)


def with_shift(physics: Mapping[str, float]) -> dict[str, float]:
    """Names and default values of the constants (2 K + 2,), from those of (K,)."""
    factors = {f"shift_{name}": 1.0 for name in physics}
    return {**physics, "shift_at": NEVER, **factors, "shift_period": NEVER}


@compiled
def changes(lifetime, offset, period):
    """How many changes there were before a step; a period has one step at least."""
    if lifetime < offset:
        return 0
    return 1 + np.int64((lifetime - offset) // max(period, 1.0))


@compiled
def in_force(env, physics, lifetime, room):
    """Constants after some steps; their factors are one: they do not change again."""
    K = len(physics) // 2 - 1
    at, period = physics[K], physics[2 * K + 1]
    is_shifted = changes(lifetime, at, period) % 2 == 1
    for k in range(K):
        room[k] = physics[k] * physics[K + 1 + k] if is_shifted else physics[k]
        room[K + 1 + k] = 1.0
    room[K], room[2 * K + 1] = at, period
    return vector(room, 0, len(physics))


@compiled
def reset(env, key, episode, physics, variables):
    """As the given environment, with constants that are `in_force`."""
    dynamics.reset(env.env, key, episode, physics, variables)


@compiled
def step(env, variables, action, physics, drawn):
    """As the given environment, with constants that are `in_force`."""
    return dynamics.step(env.env, variables, action, physics, drawn)


@compiled
def observe(env, variables, observation):
    """As the given environment: observations do not tell of the shift."""
    dynamics.observe(env.env, variables, observation)
