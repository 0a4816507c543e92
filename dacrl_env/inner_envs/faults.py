"""What inner environments must not give, found and named."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

# types of rewards that need no second look
NUMBERS = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.int32})
# how far beyond its bounds an observation may lie, as a share of their distance (or of
# the bound, where there is only one): rounding, and sensors that are a little off
_BEYOND = 0.01
# numbers beyond it are not finite to networks, which compute in single precision
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 200  # letters of a value in a message


class InnerEnvError(ValueError):
    """An inner environment gave what it must not give; the message names both."""

    dacrl_blame = None  # the message says it all: no traceback is needed


class Fault(Exception):  # noqa: N818 - no error yet: nobody knows where it happened
    """What is wrong with a value, to follow "inner environment … gave"."""


@dataclass(frozen=True)
class Declared:
    """What observations are declared to be.

    Args:
        space: of the environment.
    """

    space: gym.spaces.Box

    @cached_property
    def castable(self) -> frozenset[np.dtype[Any]]:
        """Types of numbers that lose nothing but digits as the declared one."""
        kinds = "?bBhHiIlLqQefdg"
        wanted = self.space.dtype
        return frozenset(
            dtype
            for dtype in map(np.dtype, kinds)
            if np.can_cast(dtype, wanted, "safe")
            or (wanted.kind == "f" and np.can_cast(dtype, wanted, "same_kind"))
        )

    def taken(self, observation: Any) -> NDArray[Any]:
        """An observation as an array that can be cast to what is declared.

        Raises:
            Fault: another shape, or numbers that would be others after the cast.
        """
        space = self.space
        try:
            array = np.asarray(observation)
        except Exception as error:
            raise Fault(
                f"an observation that is no array ({error}): {shown(observation)}; "
                f"declared is {space}"
            ) from None
        if array.shape != space.shape:
            raise Fault(
                f"an observation of shape {list(array.shape)}, but declares shape "
                f"{list(space.shape)}: {shown(observation)}; its observation_space is "
                f"{space}"
            )
        if array.dtype in self.castable:
            return array
        exact = False
        if array.dtype.kind in "biu" and space.dtype.kind in "biu":
            exact = bool((array.astype(space.dtype) == array).all())
        if not exact:
            raise Fault(
                f"an observation of dtype {array.dtype}, but declares {space.dtype}, "
                f"as which its numbers would be others: {shown(observation)}; its "
                f"observation_space is {space}"
            )
        return array

    def check_bounds(self, observation: NDArray[Any]) -> None:
        """Whether an observation lies within its bounds, or close to them.

        Raises:
            Fault: it does not.
        """
        low, high = (b.astype(np.float64) for b in (self.space.low, self.space.high))
        distance = high - low
        # where there is one bound: that bound
        bound = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
        scale = np.where(
            np.isfinite(distance), distance, np.maximum(1.0, np.abs(bound))
        )
        slack = _BEYOND * scale
        seen = observation.astype(np.float64)
        outside = (seen < low - slack) | (seen > high + slack)
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            raise Fault(
                f"an observation outside of its bounds: {seen[at]:g}{_index(at)}, "
                f"declared between {low[at]:g} and {high[at]:g}; its observation_space "
                f"is {self.space}, and where its numbers have no bounds they are "
                "declared as -inf and inf"
            )


def number(reward: Any) -> float:
    """A reward as a number.

    Raises:
        Fault: it is none.
    """
    array: Any = None
    with suppress(Exception):
        array = np.asarray(reward)
    if array is None or array.shape != () or array.dtype.kind not in "biuf":
        raise Fault(f"the reward {shown(reward)}; rewards are single numbers")
    return float(array)


def all_finite(values: NDArray[Any]) -> bool:
    """Whether all values are finite, in single precision, too."""
    return int(np.count_nonzero(_finite(values))) == values.size


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(values) <= _LARGEST)


def not_finite(
    observations: NDArray[Any], rewards: NDArray[np.float64]
) -> tuple[int, str] | None:
    """The first environment that gave a value that is not finite, and what it was.

    Args:
        observations: ``(n, …)``; there may be none.
        rewards: ``(n,)``.
    """
    axes = tuple(range(1, observations.ndim))
    bad = ~_finite(observations).all(axes) | ~_finite(rewards)
    if not bad.any():
        return None
    k = int(np.argmax(bad))
    if not _finite(rewards[k]):
        return (
            k,
            f"the reward {rewards[k]}; rewards must be finite{_single(rewards[k])}",
        )
    at = tuple(int(i) for i in np.argwhere(~_finite(observations[k]))[0])
    value = observations[k][at]
    return k, (
        f"an observation with {value}{_index(at)}: {shown(observations[k])}; "
        f"observations must be finite{_single(value)}"
    )


def _single(value: Any) -> str:
    return ", in single precision, too" if np.isfinite(value) else ""


def named(env_id: str, fault: Fault | str, when: str) -> InnerEnvError:
    """The error that names environment, fault and when it happened."""
    return InnerEnvError(f"inner environment {env_id} gave {fault} ({when})")


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of a user's class
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _index(at: tuple[int, ...]) -> str:
    return f" at index {', '.join(map(str, at))}" if at else ""
