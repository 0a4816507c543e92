"""What members collect before algorithms on policy learn from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.views import aligned


class Rollout(NamedTuple):
    """What T steps of the N environments of R members gave."""

    observations: NDArray[np.float32]  # (R, N, T + 1, I) as the networks saw them
    actions: NDArray[np.float32]  # (R, N, T, A), or (R, N, T, 1) numbers of actions
    columns: NDArray[np.float32]  # (R, 4, N, T)
    values: NDArray[np.float32]  # (R, N, T + 1)
    rewards: NDArray[np.float32]  # (R, N, T) with the bootstrap of truncated episodes
    going_on: NDArray[np.float32]  # (R, N, T) 0 where an episode ended


def make_rollout(R: int, fixed: Any) -> Rollout:
    """Memory for the rollouts of R members, by the algorithm's ``Fixed``."""
    N, T = fixed.N, fixed.T
    return Rollout(
        observations=aligned(R, N, T + 1, int(fixed.actor.sizes[0])),
        actions=aligned(R, N, T, fixed.A if fixed.continuous else 1),
        columns=aligned(R, 4, N, T),
        values=aligned(R, N, T + 1),
        rewards=aligned(R, N, T),
        going_on=aligned(R, N, T),
    )
