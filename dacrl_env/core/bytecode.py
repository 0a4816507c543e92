"""What compiled code of Python refers to."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType
from typing import Any

from dacrl_env.core.digests import short
from dacrl_env.core.sources import MODULE_NAME, fingerprint

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR")


def codes(code: CodeType) -> Iterator[CodeType]:
    """Code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def reads(code: CodeType) -> list[tuple[str, ...]]:
    """Names that code looks up in its module, with the attributes it takes of each."""
    found: set[tuple[str, ...]] = set()
    for part in codes(code):
        names: tuple[str, ...] = ()
        for step in dis.get_instructions(part):
            if step.opname == "EXTENDED_ARG":
                continue
            if names and step.opname in _ATTRIBUTES:
                names += (step.argval,)
                continue
            found.add(names)
            names = (step.argval,) if step.opname in _LOADS else ()
    return sorted(found - {()})


def within(code: CodeType) -> tuple[set[str], set[str]]:
    """All names in code, and the modules that it imports, relative ones as written."""
    names: set[str] = set()
    modules: set[str] = set()
    for part in codes(code):
        names.update(part.co_names)
        steps = dis.get_instructions(part)
        modules |= {i.argval for i in steps if i.opname == "IMPORT_NAME"}
    if {"import_module", "__import__"} & names:
        texts = {c for part in codes(code) for c in part.co_consts}
        modules |= {t for t in texts if isinstance(t, str) and MODULE_NAME.fullmatch(t)}
    return names, modules


def place(code: CodeType, in_file: bool) -> Any:
    """Line and column where code begins; in a cell's function its own first line."""
    first = 0 if in_file else code.co_firstlineno
    places = [
        (line - first, column)
        for line, end_line, column, end in code.co_positions()
        if line is not None and column is not None and (line, column) != (end_line, end)
    ]
    if places:
        return min(places)
    return short(repr(fingerprint(code)).encode())  # -X no_debug_ranges
