"""Whether arguments have the types that signatures say, and what was meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    str: (str,),
    type(None): (type(None),),
    tuple: (tuple, list),
    Sequence: (Sequence,),
    Mapping: (Mapping,),
}


def meant(name: Any, valid: Iterable[Any]) -> str:
    """`` (did you mean 'x'?)`` for the valid name that is nearest, or nothing."""
    by_letters = {str(v).lower(): str(v) for v in valid}
    near = difflib.get_close_matches(str(name).lower(), by_letters, n=1)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""


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
    parameters = inspect.signature(factory).parameters
    rest = "".join(n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD)
    try:
        hints = get_type_hints(
            factory.__init__ if inspect.isclass(factory) else factory
        )
    except (AttributeError, NameError, TypeError):
        return {}
    found = {}
    for name in names:
        hint = hints.get(name if name in parameters else rest)
        union = get_origin(hint) in (Union, UnionType)
        valid = [get_origin(kind) or kind for kind in get_args(hint)] if union else []
        found[name] = valid or [get_origin(hint) or hint]
    return found


def check_types(
    whose: str, factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """Raise a ValueError if an argument is not what its annotation says.

    Numbers, strings, None, sequences and mappings are told apart, what they contain is
    not looked at; other annotations, and those that cannot be read, are passed over.

    Args:
        whose: what has the arguments, for the message.
        factory: function or class that takes them.
        arguments: by name.
    """
    for name, valid in _kinds(factory, arguments).items():
        value = arguments[name]
        if not all(kind in _TYPES for kind in valid):
            continue
        types = tuple(kind for one in valid for kind in _TYPES[one])
        wrong = isinstance(value, bool) and bool not in types
        wrong |= isinstance(value, str) and str not in types  # is a sequence, too
        if wrong or not isinstance(value, types):
            names = ["None" if k is type(None) else k.__name__ for k in valid]
            raise ValueError(
                f"{whose}: {name} must be of type {' or '.join(names)}, got {value!r}"
            )
