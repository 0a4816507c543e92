"""Between actions and hyperparameters.

Every hyperparameter has a *unit axis* on which equal distances are equal factors (log
scales) or equal sums (linear ones). Continuous actions place the default at 0 and the
bounds at ± 1; relative ones move along the axis from the current value. In mode
``values`` an action is the values themselves, which are applied to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core.checks import meant
from dacrl_env.core.isolation import as_usual
from dacrl_env.kernels import elementary
from dacrl_env.tasks import Hyperparameter

ACTION_MODES = ("continuous", "relative", "discrete", "multidiscrete", "values")
_ENDS = ("low", "default", "high")
_FACTOR = 4.0  # a relative action of ± 1 multiplies or divides by this
_FRACTION = 0.25  # or, on linear scales, moves by this share of the range
_CHOICES = np.array([-0.5, 0.0, 0.5])  # discrete: half of that each, ÷ 2 and × 2

Floats = NDArray[np.float64]


class ActionMap:
    """Meaning of the actions that set some hyperparameters.

    Args:
        hyperparameters: those an action sets, in the order of its components.
        mode: one of `ACTION_MODES`.

    Raises:
        ValueError: unknown mode.
    """

    @as_usual
    def __init__(self, hyperparameters: Sequence[Hyperparameter], mode: str) -> None:
        if mode not in ACTION_MODES:
            raise ValueError(
                f"unknown action_mode {mode!r}; valid: {', '.join(ACTION_MODES)}"
            )
        self.hyperparameters = tuple(hyperparameters)
        self.names = tuple(h.name for h in hyperparameters)
        self.mode = mode
        d = len(self.hyperparameters)
        self._ends = {  # values of the two bounds and of the default, ``(d,)``
            end: np.array([float(getattr(h, end)) for h in self.hyperparameters])
            for end in _ENDS
        }
        self.space: spaces.Space[Any]
        if mode == "discrete":
            self.space = spaces.Discrete(3**d)
        elif mode == "multidiscrete":
            self.space = spaces.MultiDiscrete([3] * d)
        elif mode == "values":
            low, high = self._ends["low"], self._ends["high"]
            self.space = spaces.Box(low, high, dtype=np.float64)
        else:
            self.space = spaces.Box(-1.0, 1.0, (d,), np.float32)
        self._low, self._default, self._high = (
            np.array([h.to_unit(getattr(h, end)) for h in self.hyperparameters])
            for end in _ENDS
        )
        linear = np.array([h.scale == "linear" for h in self.hyperparameters], bool)
        self._reach = np.where(
            linear, _FRACTION * (self._high - self._low), elementary.log(_FACTOR)
        )

    def defaults(self, P: int) -> Floats:
        """Default values ``(P, d)``."""
        return np.tile(self._ends["default"], (P, 1))

    @as_usual
    def to_values(self, actions: ArrayLike, current: Floats) -> Floats:
        """Values ``(P, d)`` that actions ask for, not yet rounded or capped.

        Args:
            actions: ``(P, d)``, or ``(P,)`` in discrete mode; any real dtype.
                Components outside of ± 1 are clipped.
            current: values ``(P, d)`` that relative actions start from.

        Raises:
            ValueError: wrong shape, not a real number, NaN or infinite, no element of a
                discrete space, or a value outside its range.
        """
        a = self._checked(actions, len(current))
        if self.mode == "values":
            for k, h in enumerate(self.hyperparameters):
                check_range(h, a[:, k])
            return np.clip(a, self._ends["low"], self._ends["high"])
        if self.mode == "continuous":
            below = self._default + a * (self._default - self._low)
            above = self._default + a * (self._high - self._default)
            values = self._from_unit(np.where(a < 0, below, above))
            # the three marks exactly, without the rounding of logarithms
            for mark, end in ((-1, "low"), (0, "default"), (1, "high")):
                values = np.where(a == mark, self._ends[end], values)
            return values
        if self.mode == "discrete":
            powers = 3 ** np.arange(len(self.names))[::-1]
            a = np.floor_divide(a[:, None], powers) % 3
        if self.mode != "relative":
            a = _CHOICES[a.astype(np.int64)]
        values = self._from_unit(self._to_unit(current) + a * self._reach)
        return np.where(a == 0, current, values)  # holding is exact

    @as_usual
    def to_actions(self, config: Mapping[str, ArrayLike], current: Floats) -> Floats:
        """Actions ``(P, d)`` that ask for given values; none of a discrete mode do.

        A relative action goes as far towards them as one step can.

        Args:
            config: name to value, or to values ``(P,)``; names left out keep their
                current value in relative mode and get their default otherwise.
            current: values ``(P, d)``.

        Raises:
            ValueError: an unknown name, a value outside its range, or a mode that
                cannot express it.
        """
        if self.mode in ("discrete", "multidiscrete"):
            raise ValueError(
                "to_action needs action_mode values, continuous or relative, not "
                f"{self.mode}"
            )
        if not isinstance(config, Mapping):
            raise ValueError(
                f"to_action takes a dict of names and values, got {config!r}; valid "
                f"names: {', '.join(self.names)}"
            )
        check_names(config, self.names, "hyperparameter")
        values = self.defaults(len(current))
        if self.mode == "relative":
            values = current.copy()
        for k, h in enumerate(self.hyperparameters):
            if h.name in config:
                given = _real(config[h.name], h.name)
                if given.shape not in ((), (len(current),)):
                    raise ValueError(
                        f"{h.name} has shape {given.shape}; expected a number, or "
                        f"{len(current)} of them, one a member"
                    )
                values[:, k] = given
                check_range(h, values[:, k])
        if self.mode == "values":
            return values
        position = self._to_unit(values)
        if self.mode == "relative":
            return np.clip((position - self._to_unit(current)) / self._reach, -1, 1)
        offset = position - self._default
        span = np.where(
            offset < 0, self._default - self._low, self._high - self._default
        )
        return np.divide(offset, span, out=np.zeros_like(offset), where=span > 0)

    def scaled(self, values: Floats) -> Floats:
        """Values ``(P, d)`` as positions between the bounds, in [-1, 1]."""
        share = (self._to_unit(values) - self._low) / (self._high - self._low)
        return np.clip(2 * share - 1, -1, 1)

    def _to_unit(self, values: Floats) -> Floats:
        columns = zip(self.hyperparameters, values.T, strict=True)
        return np.stack([h.to_unit(v) for h, v in columns], -1)

    def _from_unit(self, positions: Floats) -> Floats:
        columns = zip(self.hyperparameters, positions.T, strict=True)
        return np.stack([h.from_unit(x) for h, x in columns], -1)

    def _checked(self, actions: ArrayLike, P: int) -> Floats:
        a = _real(actions, "actions")
        shape = (P,) if self.mode == "discrete" else (P, len(self.names))
        if a.shape != shape:
            what = ", ".join(self.names)
            raise ValueError(
                f"actions have shape {a.shape}, expected {shape} "
                f"({self.mode} mode, setting {what})"
            )
        a = a.astype(np.float64)
        if not np.isfinite(a).all():
            raise ValueError(f"actions must be finite, got {a.tolist()}")
        if self.mode == "values":
            return a
        if self.mode in ("continuous", "relative"):
            return np.clip(a, -1.0, 1.0)
        choices = 3 ** len(self.names) if self.mode == "discrete" else 3
        if ((a != np.floor(a)) | (a < 0) | (a >= choices)).any():
            raise ValueError(
                f"{self.mode} actions must be integers from 0 to {choices - 1}, "
                f"got {a.tolist()}"
            )
        return a


_KINDS = {
    "O": "objects",
    "U": "text",
    "S": "bytes",
    "c": "complex numbers",
    "M": "dates",
    "m": "spans of time",
}


def _real(given: Any, what: str) -> NDArray[Any]:
    """Real numbers as an array.

    Raises:
        ValueError: something else, one clear line for each kind.
    """
    _refuse_names_and_masks(given, what)
    try:
        a = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what} are not an array of numbers: {reason}") from error
    if a.dtype.kind in "biuf":
        return a
    kind = _KINDS.get(a.dtype.kind, f"dtype {a.dtype}")
    if a.dtype.kind == "O":
        odd = [x for x in a.ravel() if not isinstance(x, int | float | np.number)]
        kind = f"{odd[0]!r}" if odd else kind
    raise ValueError(f"{what} must be real numbers, got {kind}")


def _refuse_names_and_masks(given: Any, what: str) -> None:
    """Raise a ValueError where numpy would take something for numbers silently."""
    if isinstance(given, Mapping):
        raise ValueError(
            f"{what} must be numbers, not a dict; env.unwrapped.to_action(...) makes "
            "an action of names and values, to_actions(...) those of a population"
        )
    if isinstance(given, list | tuple):
        for part in given:
            _refuse_names_and_masks(part, what)
    elif isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ValueError(f"{what} must be numbers, got a masked array with masked ones")


def check_names(names: Any, valid: Sequence[str], what: str) -> None:
    """Raise a ValueError that lists the valid names, if one is unknown."""
    unknown = [name for name in names if name not in valid]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise ValueError(
            f"unknown {what} {listed}{meant(unknown[0], valid)}; "
            f"valid: {', '.join(valid)}"
        )


def check_range(hyperparameter: Hyperparameter, values: ArrayLike) -> None:
    """Raise a ValueError if a value lies outside the hyperparameter's range."""
    h, x = hyperparameter, np.asarray(values, np.float64)
    # a relative tolerance of rounding errors: a value may have gone through logarithms
    slack = 1e-9 * max(abs(h.low), abs(h.high))
    if not ((x >= h.low - slack) & (x <= h.high + slack)).all():
        raise ValueError(
            f"{h.name} = {x.tolist()} lies outside its range [{h.low}, {h.high}]"
        )
