"""Evaluation episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs import InnerEnv


def play(
    act: Callable[[NDArray[Any]], NDArray[Any]],
    env: InnerEnv,
    keys: NDArray[np.uint64],
    physics: NDArray[np.float64],
    lifetime: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns ``(m, E)`` of one episode per environment, and steps ``(m,)``.

    Args:
        act: actions ``(m, E)`` or ``(m, E, A)`` for observations ``(m, E, …)``.
        env: makes the environments; they belong to this call.
        keys: ``(m, E)``.
        physics: ``(m, K)``.
        lifetime: ``(m,)`` steps that a training environment has taken, where physics
            change in the course of training.
    """
    state = env.init(keys, physics, lifetime)
    returns = np.zeros(keys.shape)
    running = np.ones(keys.shape, bool)
    steps = np.zeros(len(keys), np.int64)
    while running.any():
        step = env.step(state, act(state.observations))
        steps += running.sum(1)
        over = running & step.done
        if over.any():
            returns[over] = step.returns[over]
            running &= ~step.done
    return returns, steps
