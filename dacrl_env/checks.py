"""Whether arguments have the types that signatures say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
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
    parameters = inspect.signature(factory).parameters
    rest = "".join(n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD)
    try:
        hints = get_type_hints(
            factory.__init__ if inspect.isclass(factory) else factory
        )
    except (AttributeError, NameError, TypeError):
        return
    for name, value in arguments.items():
        hint = hints.get(name if name in parameters else rest)
        union = get_origin(hint) in (Union, UnionType)
        valid = [get_origin(kind) or kind for kind in get_args(hint)] if union else []
        valid = valid or [get_origin(hint) or hint]
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
