"""Evaluation episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs import InnerEnv
from dacrl_env.snapshot import take_rows

Act = Callable[[NDArray[Any]], NDArray[Any]]
LONGEST = 100_000  # steps of an evaluation episode before it is taken for endless
_WORTH_IT = 0.75  # members are left out once no more than this share of them goes on


def play(
    policy: Callable[[NDArray[np.int64]], Act],
    env: InnerEnv,
    keys: NDArray[np.uint64],
    physics: NDArray[np.float64],
    lifetime: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns ``(m, E)`` of one episode per environment, and steps ``(m,)``.

    Members whose episodes are all over are left out of the rest. Single episodes are
    not: how many observations a member's network is asked about decides its last bit.

    Args:
        policy: gives, for rows of the members, what gives their actions ``(r, E)`` or
            ``(r, E, A)`` for observations ``(r, E, …)``.
        env: makes the environments; they belong to this call.
        keys: ``(m, E)``.
        physics: ``(m, K)``.
        lifetime: ``(m,)`` steps that a training environment has taken, where physics
            change in the course of training.

    Raises:
        RuntimeError: an episode does not end.
    """
    state = env.init(keys, physics, lifetime)
    returns, steps = np.zeros(keys.shape), np.zeros(len(keys), np.int64)
    rows, running = np.arange(len(keys)), np.ones(keys.shape, bool)
    act = policy(rows)
    for _ in range(LONGEST):
        step = env.step(state, act(state.observations))
        steps[rows] += running.sum(1)
        over = running & step.done
        if not over.any():
            continue
        members, episodes = np.nonzero(over)
        returns[rows[members], episodes] = step.returns[over]
        running &= ~step.done
        on = running.any(1)
        if not on.any():
            return returns, steps
        if on.sum() <= _WORTH_IT * len(rows):
            rows, running, state = rows[on], running[on], take_rows(state, on)
            act = policy(rows)
    raise RuntimeError(
        f"an evaluation episode has not ended after {LONGEST:,} steps; give the inner "
        "environment a time limit: max_episode_steps in gymnasium.register, or in the "
        "task's inner_env_kwargs"
    )
