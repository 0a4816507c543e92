"""Results come from this package, libraries, users' code and values: what names them.

Results in a store are named by everything that they depend on. Three things go into
such a name beside plain numbers and texts:

- `dacrl_env.core.installed.version`: this package, told apart by its own sources, so
  that two commits never share a result;
- `source`: what a user's class or function depends on;
- `described`: values of any kind as JSON, equal ones alike, different ones not.

**What `source` covers.** The files of the class or function and of its base classes,
and all local modules that these import, transitively, wherever in a file the import
stands. Local is what is neither this package, nor Python's, nor installed. What has no
file (a cell of a notebook) is covered by its own text. Values that the code refers to
are covered as they are: by a global name, as an attribute of a local module or of its
class, as a default, in an enclosing function. They have to be such that they can be
described. Not covered are data files that the code opens by itself, modules and
attributes of them under a computed name, and environment variables. Files that an
argument may name are covered (`described`).

**Which version of a file.** The one that was imported, see `dacrl_env.core.sources`; a
module that is not imported yet is read anew each time, and has no values until then.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

from dacrl_env.core import sources
from dacrl_env.core.code_walk import Walk, enclosed
from dacrl_env.core.digests import short
from dacrl_env.core.installed import distribution
from dacrl_env.core.named_files import folders_near
from dacrl_env.core.sources import CODE, OWN, NoSource, module_of, name_of
from dacrl_env.core.values import Values

__all__ = [
    "NoSource",
    "check_files",
    "described",
    "entry_source",
    "files_of",
    "load",
    "outlined",
    "source",
]


def described(value: Any, given_to: Any = None) -> Any:
    """A value as JSON: equal values alike, different ones not.

    Sequences (list, tuple, range) are alike; so are numpy's scalars and Python's
    numbers. A whole number, its floating-point twin and a truth value differ, as do an
    array and a list. Functions and classes are their name and `source`; objects are
    their class, its source, and their state, which is what pickling would keep. A path,
    and a text with a dot or a folder in it, that names a file stands for what is in the
    file, too; a text ``module:name`` of a local module for its `source`. Names that
    begin with ``!`` are this function's own.

    Users' code may take any text that it is given for the name of a file. So in its
    arguments, and in the state of users' objects, a text stands for all files and
    folders of that name, and files of that name with a suffix: where this runs, in the
    folder of the code, and (without another suffix) in folders right below these.

    Args:
        value: to be described.
        given_to: class, function or ``module:name`` that it is an argument of.

    Raises:
        NoSource: a value that cannot be described, a class without source, or a folder
            with too much in it.
    """
    near = () if given_to is None else folders_near(given_to, ("",))
    return Values(_named, _entry_described, near).of(value)


def _named(thing: Any) -> dict[str, str]:
    """Name and source of a class or function; those of this package have a version."""
    found = source(thing)
    return {"!code": name_of(thing)} | ({} if found == OWN else {"source": found})


def outlined(value: Any) -> Any:
    """A value as JSON: as `described`, where that is possible, else as far as it is.

    What functions enclose is written out.
    """
    return _Outline().of(value)


class _Outline(Values):
    """As `Values`; of what cannot be described, what can be told."""

    def __init__(self) -> None:
        super().__init__(self._outlined, _entry_described)

    def of(self, value: Any) -> Any:
        """A value as JSON."""
        try:
            return super().of(value)
        except NoSource:
            return {"!unknown": name_of(type(value))}

    def _outlined(self, thing: Any) -> dict[str, Any]:
        """What a class or function encloses, and its source or else its code."""
        about: dict[str, Any] = {"!code": name_of(thing)}
        members = vars(thing).values() if isinstance(thing, type) else [thing]
        parts = [part for member in members for part in sources.parts(member)]
        functions = [part for part in parts if isinstance(part, FunctionType)]
        if isinstance(thing, FunctionType):
            about["enclosed"] = {k: self.of(v) for k, v in enclosed(thing).items()}
        try:
            return about | _named(thing)
        except NoSource:
            code = [sources.fingerprint(f.__code__) for f in functions]
            return about | {"source": short(repr(code).encode())}


def _entry_described(text: str) -> Any:
    return {"!entry": text, "source": entry_source(text)}


def source(thing: Any) -> str:
    """What a class, function or module depends on; of an object, what its class does.

    Returns:
        ``"dacrl_env"`` for what is of this package, ``"python"`` for Python's own; name
        and version of the distribution, with a digest of its files, for what is
        installed; else a digest of everything local that it depends on, see the
        documentation of `dacrl_env.core.provenance`.

    Raises:
        NoSource: there is none, or it is not what was imported; the message says why.
    """
    if not isinstance(thing, (*CODE, ModuleType, MethodType, functools.partial)):
        thing = type(thing)
    if isinstance(thing, MethodType):
        thing = thing.__func__
    walk = Walk()
    walk.refer("", "", thing)
    if isinstance(thing, functools.partial) or walk.found:
        return walk.digest()
    name, module = module_of(thing)
    origin = sources.origin(name, module)
    if origin == "installed":
        return distribution(name)
    return walk.digest() if origin == "local" else origin


def files_of(*things: Any) -> dict[str, str]:
    """Local modules that classes, functions or entry points depend on.

    Programs that are run are left out: in another process they have another name.

    Returns:
        Digests of their files, by name of the module.

    Raises:
        NoSource: as `source`.
    """
    walk = Walk(strict=False)
    for thing in things:
        if isinstance(thing, str):
            walk.add_module(thing.partition(":")[0])
        else:
            walk.refer("", "", thing)
    return walk.files()


def check_files(files: Mapping[str, str]) -> None:
    """Whether modules are the same here as where `files_of` was asked.

    Raises:
        ValueError: one was edited in between; the message names it.
    """
    for name, digest in files.items():
        try:
            found = sources.found(name)
        except NoSource:  # of what runs here nobody knows what it is
            found = None
        if found is None or short(found.content) != digest:
            raise ValueError(
                f"the module {name} was edited while this ran, so that its processes "
                "have different versions; the same command runs the new one"
            )


def entry_source(entry: Any) -> str:
    """`source` of an entry point: of ``"module:name"`` or of what stands for one.

    What is installed is not imported for it.

    Raises:
        NoSource: as `source`; or there is no such thing.
    """
    if not isinstance(entry, str):
        return source(entry)
    name = entry.partition(":")[0]
    top = name.partition(".")[0]
    module, file = sys.modules.get(top), None
    if module is None:
        spec = importlib.util.find_spec(top)
        if spec is None:
            raise NoSource(f"there is no module {top}, which {entry} names")
        file = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    origin = sources.origin_of(top, file) if file else sources.origin(top, module)
    if origin == "installed":
        return distribution(name)
    if origin == OWN:
        return origin
    try:
        return source(load(entry))
    except (ImportError, AttributeError) as error:
        raise NoSource(f"{entry} cannot be imported: {error}") from error


def load(entry: str) -> Any:
    """The object that ``"module:name"`` names; the name may have dots."""
    module, _, name = entry.partition(":")
    thing: Any = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing
