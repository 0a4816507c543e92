"""Whether arguments are what they should be: types, whole numbers, seeds, names."""

from __future__ import annotations

import difflib
import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    bool: (bool, np.bool_),
    str: (str,),
    type(None): (type(None),),
    tuple: (tuple, list),
    Sequence: (Sequence,),
    Mapping: (Mapping,),
}


def meant(name: Any, valid: Iterable[Any]) -> str:
    """`` (did you mean 'x'?)`` for the valid name that is nearest, or nothing.

    Names that are far may have a part that is near.
    """
    by_letters = {str(v).lower(): str(v) for v in valid}
    letters = str(name).lower()
    near = difflib.get_close_matches(letters, by_letters, n=1)
    if not near:
        by_letters = {
            part: full
            for whole, full in reversed(by_letters.items())  # the first one stays
            for part in re.split(r"[-_/:.]", whole)
            if len(part) > 3
        }
        near = difflib.get_close_matches(letters, by_letters, n=1, cutoff=0.8)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""


def forgiven(name: str, valid: Iterable[str]) -> str:
    """The valid name that differs in case, hyphens and underscores alone, or the name.

    Args:
        name: as it was given.
        valid: names; of several that fit none is taken.
    """
    names = list(valid)
    fits = [] if name in names else [v for v in names if _plain(v) == _plain(name)]
    return fits[0] if len(fits) == 1 else name


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def unknown(what: str, name: Any, valid: Iterable[Any]) -> str:
    """The message for a name that is none of the valid ones."""
    names = list(valid)
    listed = ", ".join(map(str, names))
    return f"unknown {what} {name!r}{meant(name, names)}; valid: {listed}"


def whole_numbers(
    factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments in which 2e3 is 2000, where a signature says int and not float.

    For values that were written as texts: the number of steps is often written so.
    Values that are no whole numbers stay as they are.

    Args:
        factory: function or class that takes them.
        arguments: by name.
    """
    given = dict(arguments)
    for name, kinds in _kinds(factory, given).items():
        value = given[name]
        if int in kinds and float not in kinds and isinstance(value, float):
            given[name] = int(value) if value.is_integer() else value
    return given


def _kinds(factory: Callable[..., Any], names: Iterable[str]) -> dict[str, list[Any]]:
    """What annotations say of arguments: the types of a union, or the one type.

    Arguments without an annotation that can be read are left out.
    """
    read = _read_class if inspect.isclass(factory) else _read
    parameters, rest, hints = read(factory)
    if hints is None:
        return {}
    return {n: _parts(hints.get(n if n in parameters else rest)) for n in names}


def _read(factory: Callable[..., Any]) -> tuple[set[str], str, dict[str, Any] | None]:
    """Names of parameters, the one of ``**rest``, and annotations if they are known."""
    parameters = inspect.signature(factory).parameters
    rest = "".join(n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD)
    try:
        hints = get_type_hints(
            factory.__init__ if inspect.isclass(factory) else factory
        )
    except (AttributeError, NameError, TypeError):
        return set(parameters), rest, None
    return set(parameters), rest, hints


_read_class = functools.lru_cache(64)(_read)


def _parts(hint: Any) -> list[Any]:
    """The types of a union, or the one type."""
    return [*get_args(hint)] if get_origin(hint) in (Union, UnionType) else [hint]


def check_types(
    whose: str, factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """Raise a ValueError if an argument is not what its annotation says.

    Numbers, strings, None, dataclasses, sequences and mappings are told apart, also in
    sequences and mappings; other annotations, and those that cannot be read, are passed
    over.

    Args:
        whose: what has the arguments, for the message.
        factory: function or class that takes them.
        arguments: by name.
    """
    for name, hints in _kinds(factory, arguments).items():
        _check_type(f"{whose}: {name}", arguments[name], hints)


def _check_type(what: str, value: Any, hints: list[Any], inner: bool = False) -> None:
    valid = [get_origin(hint) or hint for hint in hints]
    if not all(kind in _TYPES or is_dataclass(kind) for kind in valid):
        return
    if inner and int in valid:  # of any kind that is whole; `whole` looks at those
        return
    types = tuple(t for kind in valid for t in _TYPES.get(kind, (kind,)))
    wrong = isinstance(value, bool) and bool not in types
    wrong |= isinstance(value, str) and str not in types  # is a sequence, too
    if wrong or not isinstance(value, types):
        names = ["None" if k is type(None) else k.__name__ for k in valid]
        raise ValueError(f"{what} must be of type {' or '.join(names)}, got {value!r}")
    for hint in hints:
        contained, args = get_origin(hint), get_args(hint)
        if contained is Mapping and isinstance(value, Mapping):
            for key, item in value.items():
                _check_type(f"a name in {what}", key, _parts(args[0]))
                _check_type(f"{what}[{key!r}]", item, _parts(args[1]), inner=True)
        elif contained is Sequence or args[1:] == (...,):
            several = isinstance(value, Sequence) and not isinstance(value, str)
            for k, item in enumerate(value if several else ()):
                _check_type(f"{what}[{k}]", item, _parts(args[0]), inner=True)


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number as an int, also of one that is written as 256.0 or 2e3.

    Args:
        name: of the option, for the message.
        value: of any kind of number.
        least: smallest that is valid.

    Raises:
        ValueError: it is none, or smaller.
    """
    number = _whole(value)
    if number is None or number < least:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}"
        )
    return number


def real(what: str, value: Any) -> int | float:
    """A finite real number as one of Python's, also of numpy's.

    Raises:
        ValueError: text, a truth value, more than one number, NaN, ….
    """
    if isinstance(value, np.generic | np.ndarray) and value.shape == ():
        value = value.item()
    # what is not equal to itself is NaN; a whole number may be too large for a double
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) < np.inf
    ):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return value


def seed(value: Any) -> int:
    """A seed as an int.

    Raises:
        ValueError: no integer, or not from 0 to 2**63 - 1.
    """
    if not isinstance(value, bool | np.bool_):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if 0 <= number < 2**63:
                return number
    raise ValueError(f"seeds must be whole numbers from 0 to 2**63 - 1, got {value!r}")


def plain(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without numpy's numbers and arrays; whole floats are ints where asked.

    Args:
        factory: function or class that takes them.
        arguments: by name.
    """
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    result = {}
    for name, value in arguments.items():
        kinds = get_args(hints.get(name)) or (hints.get(name),)
        if isinstance(value, np.generic | np.ndarray):
            value = value.tolist()
        if int in kinds and isinstance(value, float):
            number = _whole(value)
            value = value if number is None else number
        result[name] = value
    return result


def _whole(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, float | np.floating):
        return int(value) if float(value).is_integer() else None
    try:
        return operator.index(value)
    except TypeError:
        return None


_KINDS = {
    "O": "objects",
    "U": "text",
    "S": "bytes",
    "c": "complex numbers",
    "M": "dates",
    "m": "spans of time",
}


def real_numbers(given: Any, what: str) -> NDArray[Any]:
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
