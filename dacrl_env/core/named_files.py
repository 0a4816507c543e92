"""Files and folders that values of users' code name."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from types import MethodType, ModuleType
from typing import Any

from dacrl_env.core import sources
from dacrl_env.core.digests import digest
from dacrl_env.core.sources import CODE, OWN, Unknown, module_of

_LONGEST = 4096  # of paths
# in a folder that is named: more is not read
_MOST_FILES = 10_000
_MOST_BYTES = 2**30


def folders_near(thing: Any, before: tuple[str, ...]) -> tuple[str, ...]:
    """Folders where code looks for files that it is told the name of.

    Args:
        thing: a class, a function, an object, or ``module:name``.
        before: what holds for what is neither this package nor local.
    """
    if type(thing) is str:
        name = thing.partition(":")[0]
        module = sys.modules.get(name)
    else:
        while isinstance(thing, functools.partial):
            thing = thing.func
        thing = thing.__func__ if isinstance(thing, MethodType) else thing
        code = isinstance(thing, (*CODE, ModuleType))
        name, module = module_of(thing if code else type(thing))
    origin = sources.origin(name, module)
    if origin == OWN:
        return ()
    if origin != "local":
        return before
    file = getattr(module, "__file__", None)
    return ("",) if file is None else (os.path.dirname(os.path.abspath(file)), "")


def files_named(name: str, near: tuple[str, ...]) -> str | None:
    """Digest of all files and folders that a name may mean; None: there are none.

    Args:
        name: a text or path.
        near: folders to search; none: the file of exactly that name is meant.
    """
    path = os.path.normpath(os.path.expandvars(os.path.expanduser(name)))
    if not name or len(path) >= _LONGEST or "\0" in path:
        return None
    found: dict[str, tuple[str, str]] = {}  # by path: where it was found
    if not near and os.path.isfile(name):
        found[name] = "", name
    for k, folder in enumerate(near):
        beside = os.path.join(folder, path)
        below = os.path.join(glob.escape(folder), "*", glob.escape(path))
        suffixed = f"{glob.escape(beside)}.*"
        for place in (beside, *glob.glob(below), *glob.glob(suffixed)):
            if os.path.exists(place):
                label = place.removeprefix(os.path.join(folder, ""))
                found.setdefault(os.path.realpath(place), (f"{k} {label}", place))
    if not found:
        return None
    try:
        parts = [
            (f"{label}/{inner}", digest)
            for label, place in found.values()
            for inner, digest in _contents(place)
        ]
    except OSError as error:
        raise Unknown(f"{name} names a file that cannot be read: {error}") from error
    return digest(sorted(parts))[:32]


def _contents(place: str) -> Iterator[tuple[str, bytes]]:
    """Names and digests of what is in a folder; of a file itself."""
    files, size = [place], 0
    if os.path.isdir(place):
        files = []
        for folder, inner, names in os.walk(place, onerror=_fail, followlinks=True):
            inner[:] = [name for name in inner if name != "__pycache__"]
            more = [os.path.join(folder, name) for name in names]
            size += sum(os.path.getsize(file) for file in more if os.path.exists(file))
            files += more
            if len(files) > _MOST_FILES or size > _MOST_BYTES:
                raise Unknown(
                    f"{place}, which an argument names, is a folder of more than "
                    f"{_MOST_FILES} files or {_MOST_BYTES >> 20} MiB"
                )
        yield "", b""
    for path in files:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            yield os.path.relpath(path, place), digest


def _fail(error: OSError) -> None:
    raise error
