"""The state of members that change their algorithm: room for whichever they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.features import make_frequencies
from dacrl_env.algorithms.level_replay import Levels
from dacrl_env.algorithms.register import Register
from dacrl_env.algorithms.replay import Replay
from dacrl_env.kernels.moments import Moments
from dacrl_env.kernels.views import aligned


@dataclass
class PipelineState:
    """Everything P runs consist of; what a member's algorithm has not is not used.

    Rows are as long as the longest of all algorithms, whose own parts begin them. So
    any of them finds its arrays here by their names.
    """

    part: NDArray[np.int64]  # (P,) number of the algorithm with its features
    parameters: NDArray[np.float32]  # (P, row)
    target: NDArray[np.float32]  # (P, row)
    mean: NDArray[np.float32]  # (P, row) Adam's first moments
    square: NDArray[np.float32]  # (P, row) … second moments
    replay: Replay  # of the algorithms that have one
    held_action: NDArray[np.int64]  # (P, N) of DQN
    held_steps: NDArray[np.int64]  # (P, N)
    part_steps: NDArray[np.int64]  # (P, G) of the optimiser, with each part of a row
    register: Register
    observation_moments: Moments  # (P, D)
    frequencies: NDArray[np.float32]  # (P, D, whole lines), or (P, 0, 0)
    return_moments: Moments  # (P, 1) of PPO
    discounted: NDArray[np.float64]  # (P, N)
    rate: NDArray[np.float64]  # (P,)
    rate_from: NDArray[np.float64]  # (P,)
    levels: Levels
    keys: NDArray[np.uint64]  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far, with all algorithms
    gradient_steps: NDArray[np.int64]  # (P,)
    since_train: NDArray[np.int64]  # (P,)
    since_target: NDArray[np.int64]  # (P,)
    envs: Any = None  # state of the inner environments, P × N


def make_state(
    P: int,
    fixed: Sequence[Any],
    capacity: int,
    dtype: type,
    purposes: int,
    saved: bool,
    levels: int,
) -> PipelineState:
    """Memory for P runs; `begin` and the algorithms give it meaning.

    Args:
        P: members.
        fixed: of the algorithms, ``Fixed`` each.
        capacity: transitions kept of each inner environment.
        dtype: of observations as they are kept.
        purposes: keys of a member.
        saved: whether there is room for a register.
        levels: of the inner environment.
    """
    N, D = fixed[0].N, fixed[0].D
    row = max(int(f.parts[-1]) for f in fixed)
    G = max(len(f.parts) - 1 for f in fixed)
    prioritised = any(getattr(f, "prioritised", False) for f in fixed)
    return PipelineState(
        part=np.zeros(P, np.int64),
        parameters=aligned(P, row),
        target=aligned(P, row),
        mean=aligned(P, row),
        square=aligned(P, row),
        replay=Replay.of(P, N, capacity, D, 1, dtype, prioritised),
        held_action=np.zeros((P, N), np.int64),
        held_steps=np.zeros((P, N), np.int64),
        part_steps=np.zeros((P, G), np.int64),
        register=Register.of(P, 4, row if saved else 0, G),
        observation_moments=Moments.of(P, D),
        frequencies=make_frequencies(P, D, max(f.fourier_features for f in fixed)),
        return_moments=Moments.of(P, 1),
        discounted=np.zeros((P, N)),
        rate=np.zeros(P),
        rate_from=np.full(P, np.nan),
        levels=Levels.of(P, levels),
        keys=np.zeros((P, purposes), np.uint64),
        env_steps=np.zeros(P, np.int64),
        gradient_steps=np.zeros(P, np.int64),
        since_train=np.zeros(P, np.int64),
        since_target=np.zeros(P, np.int64),
    )


def blank(state: PipelineState, members: NDArray[np.int64]) -> None:
    """Forget what belongs to the algorithms of some members.

    Replay, inner environments and counts of steps are the members' own.
    """
    for array in (
        state.parameters,
        state.target,
        state.mean,
        state.square,
        state.held_action,
        state.held_steps,
        state.part_steps,
        state.register.steps,
        state.frequencies,
        state.discounted,
        state.rate,
        state.since_train,
        state.since_target,
    ):
        array[members] = 0
    state.register.is_saved[members] = False
    state.rate_from[members] = np.nan
    for moments in (state.observation_moments, state.return_moments):
        fresh = Moments.of(len(members), moments.mean.shape[1])
        for into, values in zip(moments, fresh, strict=True):
            into[members] = values


def forget(state: PipelineState, members: NDArray[np.int64]) -> None:
    """Put the replays of some members, which stand at their start, before it."""
    state.replay.first[members] = 0
    state.replay.made_for[members] = np.nan
    state.replay.top_priority[members] = 1.0
