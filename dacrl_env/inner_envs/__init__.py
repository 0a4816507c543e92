"""Inner environments: batched dynamics and adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs.batched import Transition


class NoEnv:
    """Stands where a learner needs no inner environment."""

    observation_shape: tuple[int, ...] = ()
    num_actions = 0
    has_images = False
    action_low = np.full(1, -np.inf)
    action_high = np.full(1, np.inf)
    physics: Mapping[str, float] = {}


class InnerEnv(Protocol):
    """P × N environments that reset by themselves, their state held by the caller.

    The state is a dataclass whose arrays start with the population axis; its
    ``observations`` ``(P, N, *observation_shape)`` are the current ones.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype[Any]
    num_actions: int  # 0: actions are continuous
    action_low: NDArray[np.float64]  # (A,) bounds; empty where actions are discrete
    action_high: NDArray[np.float64]
    physics: Mapping[str, float]  # constants that instances may change
    has_images: bool  # as `images.is_image` says
    scales_images: bool  # whether networks see them divided by 255; see `Task`

    def init(
        self,
        keys: NDArray[np.uint64],
        physics: NDArray[np.float64],
        lifetime: NDArray[np.int64] | None = None,
    ) -> Any:
        """Environments at their first start; keys ``(P, N)``, physics ``(P, K)``.

        Evaluations in the middle of a run give ``lifetime`` ``(P,)``, the steps each
        training environment has taken: constants that change in the course of a run
        then remain as they are at that time.
        """
        ...

    def restart(
        self,
        state: Any,
        members: NDArray[np.int64],
        keys: NDArray[np.uint64],
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members' environments at their first start, with new keys."""
        ...

    def begin_episodes(self, state: Any) -> None:
        """Leave every running episode and start the next one."""
        ...

    def step(self, state: Any, actions: NDArray[Any]) -> Transition:
        """One step of every environment; changes the state.

        Actions are numbers ``(P, N)``, or continuous ``(P, N, A)`` within the bounds:
        clipping is the learner's task.
        """
        ...
