"""Training where Python steps the inner environments, those of all members at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import drivers
from dacrl_env.algorithms.drivers import Linked
from dacrl_env.algorithms.interval import EPISODES, LENGTHS, RETURNS, Interval
from dacrl_env.inner_envs import InnerEnv, Transition


class Part(NamedTuple):
    """Members that follow each other and have one algorithm."""

    first: int
    last: int  # the one after the last
    linked: Linked  # its rollout has a place for every member of the population


def train(
    env: InnerEnv, envs: Any, parts: Sequence[Part], steps: int, interval: Interval
) -> None:
    """Train all members for some environment steps, whole rollouts.

    Args:
        env: inner environment.
        envs: its state, P × N.
        parts: all members, each in one of them.
        steps: environment steps of a member.
        interval: of all members; episodes are counted.
    """
    P, N = envs.observations.shape[:2]
    columns = parts[0].linked.link.actions.shape[1]
    actions, given = np.zeros((P, N, columns)), np.zeros((3, P, N))
    seen = flat(envs.observations)
    for i in range(steps // N):
        for first, last, linked in parts:
            t = i % linked.link.T
            drivers.act_all(first, last, t, seen, actions, linked)
        step = env.step(envs, native(env, actions))
        following, now = flat(step.observations), flat(envs.observations)
        given[0], given[1], given[2] = step.rewards, step.terminated, step.done
        for first, last, linked in parts:
            told = seen, following, now, actions, given, linked
            drivers.learn_all(first, last, i % linked.link.T, *told)
        if np.count_nonzero(step.done):
            _count(step, interval)
        seen = now


def flat(observations: NDArray[Any]) -> NDArray[np.float32]:
    """Observations ``(P, N, D)`` of ``(P, N, …)``."""
    P, N = observations.shape[:2]
    # a copy: environments may go on in the same memory
    return np.array(observations.reshape(P, N, -1), np.float32, order="C")


def native(env: InnerEnv, actions: NDArray[np.float64]) -> NDArray[Any]:
    """Actions ``(…, A)`` as environments take them."""
    return actions[..., 0].astype(np.int64) if env.num_actions else actions


def _count(step: Transition, interval: Interval) -> None:
    """Count the episodes that a step ended."""
    for k, what in (
        (EPISODES, 1.0),
        (RETURNS, step.returns),
        (LENGTHS, step.lengths),
    ):
        interval.finished[:, k] += np.where(step.done, what, 0.0).sum(1)
