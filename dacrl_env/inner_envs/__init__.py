"""Inner environments: compiled ones, one file each, and adapters for any others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Transition(NamedTuple):
    """What one step gave, before automatic resets; arrays ``(P, N, …)``."""

    observations: NDArray[Any]  # after the step: the last one where an episode ended
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    done: NDArray[np.bool_]  # terminated or truncated
    returns: NDArray[np.float64]  # of the episode up to now
    lengths: NDArray[np.int64]


class NoEnv:
    """Stands where a learner needs no inner environment."""

    observation_shape: tuple[int, ...] = ()
    num_actions = 0
    has_images = False
    action_low = np.full(1, -np.inf)
    action_high = np.full(1, np.inf)
    physics: Mapping[str, float] = {}
    object_bytes = 0


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
    object_bytes: int  # about what an environment takes beside its arrays

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

    def reseed(self, state: Any, members: NDArray[np.int64]) -> None:
        """Let members' running episodes follow from keys that have been changed.

        What draws by its keys alone does so by itself.
        """
        ...

    def close(self, state: Any = None) -> None:
        """End what environments hold outside of Python."""
        ...
