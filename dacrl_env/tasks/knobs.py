"""What an action may set: numbers, choices and events.

Wherever values are kept they are real numbers, their *codes*: a number is its own code,
a choice has the position of its option, and so has an event, whose first option is that
nothing happens. Users see, and give, the options themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core.checks import meant, real, real_numbers

Floats = NDArray[np.float64]
Scale = Literal["linear", "log", "log_complement"]
Option = str | bool | int | float
# where a "log_complement" axis that includes 1 ends: nearer to 1 is 1
LEAST_COMPLEMENT = 1e-5


@dataclass(frozen=True)
class Condition:
    """That a value is used with some options of a choice alone.

    Args:
        choice: its name.
        options: with which the value is used.
    """

    choice: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Number:
    """A number that an action may change at every outer step.

    Args:
        name: as in configurations and ``hp/<name>`` columns.
        low: smallest value.
        high: largest value.
        default: used where nothing is chosen; between low and high.
        scale: how ranges are divided: ``"linear"``, ``"log"``, or
            ``"log_complement"``, which is logarithmic in one minus the value. Such a
            range may end at 1: its axis then ends where one minus the value is 1e-5,
            and what lies beyond is exactly 1.
        integer: applied values are rounded.
        condition: of the algorithm: without one of these options the number has no
            meaning, and is *inactive*: asked for and not applied. So it is where the
            choice itself is inactive.

    Raises:
        ValueError: an inverted range, a default outside of it, or a range that the
            scale cannot divide.
    """

    name: str
    low: float
    high: float
    default: float
    scale: Scale = "linear"
    integer: bool = False
    condition: Condition | None = None
    held: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_name(self.name)
        for end in ("low", "high", "default"):
            what = f"{end} of {self.name}"
            object.__setattr__(self, end, real(what, getattr(self, end)))
        if self.scale not in get_args(Scale):
            raise ValueError(
                f"unknown scale {self.scale!r} of {self.name}; valid: "
                f"{', '.join(get_args(Scale))}"
            )
        if not isinstance(self.integer, bool | np.bool_):
            raise ValueError(
                f"integer of {self.name} must be True or False, got {self.integer!r}"
            )
        object.__setattr__(self, "integer", bool(self.integer))
        if not self.low < self.high:
            raise ValueError(
                f"range of {self.name} is inverted or empty: "
                f"low {self.low} must be below high {self.high}"
            )
        if not self.low <= self.default <= self.high:
            raise ValueError(
                f"default {self.default} of {self.name} lies outside its range "
                f"[{self.low}, {self.high}]"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"log range of {self.name} must start above 0")
        if self.scale == "log_complement":
            if self.high > 1:
                raise ValueError(
                    f"log_complement range of {self.name} must end at 1 or below, "
                    f"got {self.high}"
                )
            if self.high == 1 and self.low >= 1 - LEAST_COMPLEMENT:
                raise ValueError(
                    f"log_complement range of {self.name} up to 1 must start below "
                    f"{1 - LEAST_COMPLEMENT}, got {self.low}"
                )

    @property
    def start(self) -> float:
        """The code of the default."""
        return float(self.default)

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest code."""
        return float(self.low), float(self.high)

    def to_unit(self, values: ArrayLike) -> Floats:
        """Values on the axis where equal distances are equal factors (or sums)."""
        from dacrl_env.kernels import elementary  # the package's import takes no numba

        x = np.asarray(values, np.float64)
        if self.scale == "log":
            return elementary.log(x)
        if self.scale == "log_complement":
            if self.high == 1:
                x = np.minimum(x, 1 - LEAST_COMPLEMENT)
            return -elementary.log(1 - x)
        return x

    def from_unit(self, positions: ArrayLike) -> Floats:
        """Inverse of :meth:`to_unit`, clipped to the range."""
        from dacrl_env.kernels import elementary

        x = np.asarray(positions, np.float64)
        if self.scale == "log":
            x = elementary.exp(x)
        elif self.scale == "log_complement":
            complement = elementary.exp(-x)
            x = 1 - complement
            if (
                self.high == 1
            ):  # rounding may leave the end of the axis just out of reach
                x = np.where(complement < LEAST_COMPLEMENT * (1 + 1e-9), 1.0, x)
        return np.clip(x, self.low, self.high)

    def codes(self, given: Any) -> Floats:
        """What is given, a number or some, as codes.

        Raises:
            ValueError: something else, or a value outside of the range.
        """
        values = real_numbers(given, self.name)
        if values.dtype.kind == "b":
            raise ValueError(f"{self.name} must be a number, got {given!r}")
        self.check(values)
        return values.astype(np.float64)

    def check(self, codes: ArrayLike) -> None:
        """Raise a ValueError if a value lies outside of the range."""
        x = np.asarray(codes, np.float64)
        # a tolerance of rounding errors: a value may have gone through logarithms
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        if not ((x >= self.low - slack) & (x <= self.high + slack)).all():
            raise ValueError(
                f"{self.name} = {x.tolist()} lies outside its range "
                f"[{self.low}, {self.high}]"
            )

    def rounded(self, codes: Floats) -> Floats:
        """Codes as they are applied."""
        return np.rint(codes) if self.integer else codes

    def native(self, code: float) -> Option:
        """A code as users write it."""
        return code

    def shown(self, codes: Floats) -> NDArray[Any]:
        """Applied codes ``(n,)`` as users see them; NaN: inactive."""
        # of inactive ones there is none, and NaN is no integer
        whole = self.integer and not np.isnan(codes).any()
        return codes.astype(np.int64 if whole else np.float64)


class _Options:
    """What choices and events have in common."""

    name: str
    options: tuple[Option, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest code."""
        return 0.0, float(len(self.options) - 1)

    def codes(self, given: Any) -> Floats:
        """What is given, an option or some, as codes.

        Raises:
            ValueError: none of the options.
        """
        return _positions(self.name, self.options, given)

    def check(self, codes: ArrayLike) -> None:
        """Raise a ValueError if a code is that of no option."""
        _check_codes(self.name, self.options, codes)

    def rounded(self, codes: Floats) -> Floats:
        """Codes as they are applied."""
        return codes

    def native(self, code: float) -> Option:
        """A code as users write it."""
        return self.options[int(code)]

    def shown(self, codes: Floats) -> NDArray[Any]:
        """Applied codes ``(n,)`` as users see them; NaN: inactive, which is None."""
        inactive = np.isnan(codes)
        table = np.array([*self.options, None], object)
        found = table[np.where(inactive, -1, codes).astype(np.int64)]
        kinds = {type(option) for option in self.options}
        if inactive.any() or len(kinds) > 1 or str in kinds:
            return found
        return found.astype(kinds.pop())  # truth values and numbers, as Gymnasium does


@dataclass(frozen=True)
class Choice(_Options):
    """One of some options, which an action may change at every outer step.

    Args:
        name: as in configurations and ``hp/<name>`` columns.
        options: at least two, each once: texts, numbers or truth values.
        default: the option where nothing is chosen.
        condition: as of a `Number`.

    Raises:
        ValueError: fewer than two options, or the default is none of them.
    """

    name: str
    options: tuple[Option, ...]
    default: Option
    condition: Condition | None = None
    held: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_options(self.name, self.options)
        object.__setattr__(self, "options", tuple(self.options))
        _position(self.name, self.options, self.default)

    @property
    def start(self) -> float:
        """The code of the default."""
        return float(_position(self.name, self.options, self.default))


@dataclass(frozen=True)
class Event(_Options):
    """What an action may have happen at an outer step; nothing of it stays set.

    Args:
        name: as in configurations and ``hp/<name>`` columns.
        options: two or three, of which the first is that nothing happens.

    Raises:
        ValueError: another number of options, or one twice.
    """

    name: str
    options: tuple[Option, ...] = (False, True)
    condition: ClassVar[None] = None
    held: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_options(self.name, self.options)
        object.__setattr__(self, "options", tuple(self.options))
        if len(self.options) > 3:
            raise ValueError(
                f"event {self.name} has at most three options, nothing and two that "
                f"happen; got {', '.join(map(repr, self.options))}"
            )

    @property
    def default(self) -> Option:
        """That nothing happens."""
        return self.options[0]

    @property
    def start(self) -> float:
        """The code of the default."""
        return 0.0


Knob = Number | Choice | Event


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a hyperparameter needs a name, got {name!r}")


def _check_options(name: Any, options: Any) -> None:
    _check_name(name)
    listed = isinstance(options, Sequence) and not isinstance(options, str)
    if not listed or len(options) < 2:
        raise ValueError(f"{name} needs at least two options, got {options!r}")
    for option in options:
        if not isinstance(option, str | bool | int | float) or option != option:
            raise ValueError(
                f"options of {name} are texts, numbers and truth values, got {option!r}"
            )
    if len({_told_apart(option) for option in options}) < len(options):
        raise ValueError(f"options of {name} must differ, got {options!r}")


def _told_apart(option: Any) -> Any:
    """Numbers by value, truth values and texts by themselves."""
    if isinstance(option, bool | np.bool_):
        return "truth", bool(option)
    return option.item() if isinstance(option, np.generic) else option


def _position(name: str, options: Sequence[Option], given: Any) -> int:
    wanted = _told_apart(given)
    for k, option in enumerate(options):
        if _told_apart(option) == wanted:
            return k
    listed = ", ".join(map(repr, options))
    raise ValueError(
        f"{name} has no option {given!r}{meant(given, options)}; valid: {listed}"
    )


def _positions(name: str, options: Sequence[Option], given: Any) -> Floats:
    """Positions of an option, shape ``()``, or of some, ``(n,)``."""
    several = isinstance(given, list | tuple | np.ndarray) and np.ndim(given) > 0
    if not several:
        given = given.item() if isinstance(given, np.ndarray) else given
        return np.asarray(_position(name, options, given), np.float64)
    return np.array([_position(name, options, one) for one in given], np.float64)


def _check_codes(name: str, options: Sequence[Option], codes: ArrayLike) -> None:
    x = np.asarray(codes, np.float64)
    if not ((x == np.floor(x)) & (x >= 0) & (x < len(options))).all():
        listed = ", ".join(f"{k} is {option!r}" for k, option in enumerate(options))
        raise ValueError(f"{name} = {x.tolist()} is the number of no option; {listed}")
