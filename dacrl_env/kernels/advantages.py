"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""

from __future__ import annotations

import numpy as np

from dacrl_env.kernels.compiling import compiled


@compiled
def gae(rewards, values, going_on, gamma, decay, advantages):
    """Advantages of T successive steps of one environment.

    Args:
        rewards: (T,) with the bootstrap of truncated episodes.
        values: (T + 1,) of what was seen before each step, and after the last.
        going_on: (T,) 0 where an episode ended.
        gamma: discount.
        decay: discount times λ.
        advantages: (T,) written to.
    """
    advantage = np.float32(0.0)
    for t in range(len(rewards) - 1, -1, -1):
        following = gamma * values[t + 1] * going_on[t]
        delta = rewards[t] + following - values[t]
        advantage = delta + decay * going_on[t] * advantage
        advantages[t] = advantage
