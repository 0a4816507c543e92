"""Between actions and hyperparameters.

Every number has a *unit axis* on which equal distances are equal factors (log scales)
or equal sums (linear ones). Continuous actions place the default at 0 and the bounds at
± 1; relative ones move along the axis from the current value. For the options of a
choice a component's range is divided into equal bins: the bin around 0 is the default,
or in relative mode the option that holds, and the others follow in their order. An
event happens above 0.5; one of two kinds does below −0.5, too. In mode ``values`` an
action is the values themselves, which are applied to the last bit; options of choices
and events have their positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core.checks import meant, real_numbers
from dacrl_env.core.isolation import as_usual
from dacrl_env.kernels import elementary
from dacrl_env.tasks import Choice, Event, Knob, Number

ACTION_MODES = ("continuous", "relative", "discrete", "multidiscrete", "values")
_FACTOR = 4.0  # a relative action of ± 1 multiplies or divides by this
_FRACTION = 0.25  # or, on linear scales, moves by this share of the range
_STEPS = np.array([-0.5, 0.0, 0.5])  # discrete: half of that each, ÷ 2 and × 2
_HAPPENS = 0.5  # above it an event does

Floats = NDArray[np.float64]


class Axis(Protocol):
    """One component of an action; arrays ``(P,)``, values as codes."""

    num_steps: int  # actions in discrete modes

    def continuous(self, a: Floats) -> Floats:
        """Values that actions in [-1, 1] ask for."""
        ...

    def relative(self, a: Floats, current: Floats) -> Floats:
        """Values that actions in [-1, 1] ask for, from the current ones."""
        ...

    def stepped(self, a: NDArray[np.int64], current: Floats) -> Floats:
        """Values that actions 0 … num_steps − 1 ask for."""
        ...

    def to_continuous(self, values: Floats) -> Floats:
        """Inverse of `continuous`."""
        ...

    def to_relative(self, values: Floats, current: Floats) -> Floats:
        """Inverse of `relative`, as far as one step goes."""
        ...


class _NumberAxis:
    num_steps = len(_STEPS)

    def __init__(self, number: Number) -> None:
        self.number = number
        ends = (number.low, number.default, number.high)
        self.low, self.default, self.high = (float(number.to_unit(x)) for x in ends)
        self.reach = float(elementary.log(_FACTOR))
        if number.scale == "linear":
            self.reach = _FRACTION * (self.high - self.low)

    def continuous(self, a: Floats) -> Floats:
        below = self.default + a * (self.default - self.low)
        above = self.default + a * (self.high - self.default)
        values = self.number.from_unit(np.where(a < 0, below, above))
        # the three marks exactly, without the rounding of logarithms
        for mark, end in ((-1, "low"), (0, "default"), (1, "high")):
            values = np.where(a == mark, getattr(self.number, end), values)
        return values

    def relative(self, a: Floats, current: Floats) -> Floats:
        moved = self.number.to_unit(current) + a * self.reach
        return np.where(a == 0, current, self.number.from_unit(moved))  # exact

    def stepped(self, a: NDArray[np.int64], current: Floats) -> Floats:
        return self.relative(_STEPS[a], current)

    def to_continuous(self, values: Floats) -> Floats:
        offset = self.number.to_unit(values) - self.default
        span = np.where(offset < 0, self.default - self.low, self.high - self.default)
        return np.divide(offset, span, out=np.zeros_like(offset), where=span > 0)

    def to_relative(self, values: Floats, current: Floats) -> Floats:
        moved = self.number.to_unit(values) - self.number.to_unit(current)
        return np.clip(moved / self.reach, -1, 1)


class _ChoiceAxis:
    def __init__(self, choice: Choice) -> None:
        self.default = choice.start
        self.num_steps = len(choice.options)

    def continuous(self, a: Floats) -> Floats:
        return self.relative(a, np.full_like(a, self.default))

    def relative(self, a: Floats, current: Floats) -> Floats:
        n = self.num_steps
        bins = np.minimum(np.floor((a + 1) / 2 * n), n - 1)
        return (bins - n // 2 + current) % n

    def stepped(self, a: NDArray[np.int64], current: Floats) -> Floats:
        return a.astype(np.float64)

    def to_continuous(self, values: Floats) -> Floats:
        return self.to_relative(values, np.full_like(values, self.default))

    def to_relative(self, values: Floats, current: Floats) -> Floats:
        n = self.num_steps
        bins = (values - current + n // 2) % n
        # the middle of a bin, but 0 for what holds
        return np.where(values == current, 0.0, (2 * bins + 1) / n - 1)


class _EventAxis:
    def __init__(self, event: Event) -> None:
        self.num_steps = len(event.options)

    def continuous(self, a: Floats) -> Floats:
        happens = np.where(a > _HAPPENS, 1.0, 0.0)
        return np.where((a < -_HAPPENS) & (self.num_steps > 2), 2.0, happens)

    def relative(self, a: Floats, current: Floats) -> Floats:
        return self.continuous(a)

    def stepped(self, a: NDArray[np.int64], current: Floats) -> Floats:
        return a.astype(np.float64)

    def to_continuous(self, values: Floats) -> Floats:
        return np.array([0.0, 1.0, -1.0])[values.astype(np.int64)]

    def to_relative(self, values: Floats, current: Floats) -> Floats:
        return self.to_continuous(values)


def _axis(knob: Knob) -> Axis:
    if isinstance(knob, Number):
        return _NumberAxis(knob)
    return _ChoiceAxis(knob) if isinstance(knob, Choice) else _EventAxis(knob)


class ActionMap:
    """Meaning of the actions that set some hyperparameters.

    Args:
        hyperparameters: those an action sets, in the order of its components.
        mode: one of `ACTION_MODES`.

    Raises:
        ValueError: unknown mode, or more joint actions than a discrete space has.
    """

    @as_usual
    def __init__(self, hyperparameters: Sequence[Knob], mode: str) -> None:
        if mode not in ACTION_MODES:
            raise ValueError(
                f"unknown action_mode {mode!r}; valid: {', '.join(ACTION_MODES)}"
            )
        self.hyperparameters = tuple(hyperparameters)
        self.names = tuple(h.name for h in hyperparameters)
        self.mode = mode
        self._axes = [_axis(h) for h in self.hyperparameters]
        self._start = np.array([h.start for h in self.hyperparameters])
        self._low, self._high = np.array([h.ends for h in self.hyperparameters]).T
        steps = [axis.num_steps for axis in self._axes]
        self.space: spaces.Space[Any]
        if mode == "discrete":
            joint = math.prod(steps)
            if joint > np.iinfo(np.int64).max:
                raise ValueError(
                    f"action_mode 'discrete' would have {joint:.3g} actions, one for "
                    f"each combination of {', '.join(self.names)}; control fewer, or "
                    "use 'multidiscrete'"
                )
            self.space = spaces.Discrete(joint)
        elif mode == "multidiscrete":
            self.space = spaces.MultiDiscrete(steps)
        elif mode == "values":
            self.space = spaces.Box(self._low, self._high, dtype=np.float64)
        else:
            self.space = spaces.Box(-1.0, 1.0, (len(steps),), np.float32)

    def defaults(self, P: int) -> Floats:
        """Default values ``(P, d)``."""
        return np.tile(self._start, (P, 1))

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
                h.check(a[:, k])
            return np.clip(a, self._low, self._high)
        if self.mode == "discrete":
            a = self._digits(a.astype(np.int64)).astype(np.float64)
        columns = []
        for k, axis in enumerate(self._axes):
            if self.mode == "continuous":
                columns.append(axis.continuous(a[:, k]))
            elif self.mode == "relative":
                columns.append(axis.relative(a[:, k], current[:, k]))
            else:
                columns.append(axis.stepped(a[:, k].astype(np.int64), current[:, k]))
        return np.stack(columns, -1)

    def _digits(self, joint: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions of the components ``(P, d)``; the last one changes fastest."""
        columns = []
        for axis in reversed(self._axes):
            columns.append(joint % axis.num_steps)
            joint = joint // axis.num_steps
        return np.stack(columns[::-1], -1)

    @as_usual
    def to_actions(self, config: Mapping[str, Any], current: Floats) -> Floats:
        """Actions ``(P, d)`` that ask for given values; none of a discrete mode do.

        A relative action goes as far towards them as one step can.

        Args:
            config: name to value, or to values ``(P,)``: numbers, and options of
                choices and events. Names left out keep their current value in relative
                mode and get their default otherwise.
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
        for k, h in enumerate(self.hyperparameters):
            if h.name in config:
                given = h.codes(config[h.name])
                if given.shape not in ((), (len(current),)):
                    raise ValueError(
                        f"{h.name} has shape {given.shape}; expected a value, or "
                        f"{len(current)} of them, one a member"
                    )
                values[:, k] = given
            elif self.mode == "relative" and h.held:
                values[:, k] = current[:, k]
        if self.mode == "values":
            return values
        columns = [
            axis.to_continuous(values[:, k])
            if self.mode == "continuous"
            else axis.to_relative(values[:, k], current[:, k])
            for k, axis in enumerate(self._axes)
        ]
        return np.stack(columns, -1)

    def _checked(self, actions: ArrayLike, P: int) -> Floats:
        a = real_numbers(actions, "actions")
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
        steps = np.array([axis.num_steps for axis in self._axes])
        limits = np.prod(steps) if self.mode == "discrete" else steps
        if ((a != np.floor(a)) | (a < 0) | (a >= limits)).any():
            most = ", ".join(map(str, dict.fromkeys(np.atleast_1d(limits - 1))))
            raise ValueError(
                f"{self.mode} actions must be integers from 0 to {most}, "
                f"got {a.tolist()}"
            )
        return a


def check_names(names: Any, valid: Sequence[str], what: str) -> None:
    """Raise a ValueError that lists the valid names, if one is unknown."""
    unknown = [name for name in names if name not in valid]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise ValueError(
            f"unknown {what} {listed}{meant(unknown[0], valid)}; "
            f"valid: {', '.join(valid)}"
        )
