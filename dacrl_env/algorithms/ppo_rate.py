"""PPO's learning rate: as set, or by how far each step moves the policy.

The adaptive rate is that of rsl_rl (Rudin et al. 2022, "Learning to walk in minutes
using massively parallel deep reinforcement learning"): divided or multiplied by FACTOR
where the policy has moved more than twice, or less than half, as far as is desired.
"""

from __future__ import annotations

import numpy as np

from dacrl_env.kernels.compiling import compiled

AS_SET, KL_ADAPTIVE = range(2)  # options of the rule
LOWEST_RATE, HIGHEST_RATE, FACTOR = 1e-5, 1e-2, 1.5


@compiled
def rate_of(p, kl, moved, run):
    """The learning rate of a step: as set, or by the divergence of the minibatch.

    An adaptive rate begins at the rate that is set, and again when another one is.
    """
    values, state = run.values, run.state
    as_set = values.learning_rate[p]
    if values.lr_rule[p] != KL_ADAPTIVE:
        state.rate_from[p] = np.nan
        return as_set
    if state.rate_from[p] != as_set:
        state.rate_from[p] = state.rate[p] = as_set
    if moved:
        rate, desired = state.rate[p], values.desired_kl[p]
        if kl > 2.0 * desired:
            state.rate[p] = max(rate / FACTOR, LOWEST_RATE)
        elif kl < 0.5 * desired:
            state.rate[p] = min(rate * FACTOR, HIGHEST_RATE)
    return state.rate[p]
