"""What learners with a replay share: its size, what fits into it, what empties it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.replay import DONE
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.kernels.sum_tree import leaves

Floats = NDArray[np.float64]

LARGEST = 100_000  # transitions of a replay whose size nobody has set
MAX_UPDATE_RATIO = 4  # gradient steps per environment step, at most


def check(config: Any) -> None:
    """Raise a ValueError if a configuration's replay cannot be.

    Args:
        config: with ``num_inner_envs``, ``replay_capacity`` and ``learning_starts``.
    """
    if config.num_inner_envs < 1:
        raise ValueError("num_inner_envs must be at least 1")
    if config.learning_starts < 0:
        raise ValueError("learning_starts must not be negative")
    capacity = config.replay_capacity
    if capacity is not None and capacity < config.num_inner_envs:
        raise ValueError(
            f"replay_capacity {capacity} is below num_inner_envs = "
            f"{config.num_inner_envs}"
        )


def capacity_of(config: Any, budget: int) -> int:
    """Transitions kept a member, a multiple of its inner environments."""
    capacity = config.replay_capacity
    capacity = min(budget, LARGEST) if capacity is None else capacity
    N = config.num_inner_envs
    return max(capacity // N, 1) * N


def constrain(values: dict[str, Floats], config: Any, budget: int) -> None:
    """Cap requested values in place to what can be applied together."""
    capacity = capacity_of(config, budget)
    for name in ("batch_size", "replay_window"):
        values[name] = np.minimum(values[name], capacity)
    kept = capacity // config.num_inner_envs
    values["n_step"] = np.minimum(values["n_step"], kept)
    most = MAX_UPDATE_RATIO * values["train_freq"]
    values["gradient_steps"] = np.minimum(values["gradient_steps"], most)


def samples_per_step(values: Mapping[str, Floats]) -> Floats:
    """Transitions ``(n,)`` used in updates, an environment step, by values ``(n,)``."""
    return values["batch_size"] * values["gradient_steps"] / values["train_freq"]


def bytes_of(
    config: Any, budget: int, env: InnerEnv, columns: int, known: Mapping[str, float]
) -> int:
    """About what the replay of one member takes.

    Args:
        config: of the learner.
        budget: environment steps of a run.
        env: the inner environment.
        columns: of an action.
        known: hyperparameters that no action sets.
    """
    features = math.prod(env.observation_shape)
    capacity = capacity_of(config, budget)
    row = 2 * features * env.observation_dtype.itemsize + 12 + 4 * columns
    priorities = 4 * capacity + 8 * leaves(capacity)
    return capacity * row + (known.get("priority_alpha") != 0.0) * priorities


def clear(state: Any, members: NDArray[np.int64], N: int) -> None:
    """Forget all transitions of some members with N inner environments each."""
    state.replay.first[members] = state.env_steps[members] // N
    state.replay.made_for[members] = np.nan


def leave_episodes(state: Any, N: int) -> None:
    """Let no n-step return go on from one episode into another."""
    capacity = state.replay.transitions.shape[2]
    begun = np.flatnonzero(state.env_steps)
    newest = (state.env_steps[begun] // N - 1) % capacity
    state.replay.transitions[begun, :, newest, DONE] = 1.0
