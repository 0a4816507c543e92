"""How functions are compiled, and where compiled code is kept.

Numba compiles a function when it is first called with arguments of new types, and keeps
the code on disk. By itself it notices a change in the file of that function alone, not
in those that it calls. The folder is therefore named by a digest of all sources that
are compiled, and of Numba's version; the processor is part of Numba's own index.

Compiling takes ten seconds or more, so that whoever waits is told (`announced`).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core import caching, event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

PACKAGE = Path(__file__).parents[1]
QUIET = "DACRL_QUIET"  # environment variable
_COMPILED = ("kernels", "inner_envs", "algorithms")  # folders with compiled functions


class _NotOptimised(JITCodeLibrary):
    """What is optimised where it is called.

    By itself Numba optimises what is called once more with each caller, and with its
    callers. That is a quarter of the time of compiling, and nobody runs it.
    """

    def _optimize_final_module(self) -> None:
        pass


class _OnItsOwn(JITCodeLibrary):
    """What calls its own, optimised copies of its parts.

    Of several functions of one name a process takes the first. In one that has just
    compiled them, that would be the parts which are not optimised, and training would
    take twice the time.
    """

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:
            if function.linkage == llvm.Linkage.linkonce_odr:
                function.linkage = "internal"


class _Part(Compiler):
    """Compiles a function that compiled ones call."""

    kind: type[JITCodeLibrary] = _NotOptimised

    def __init__(self, typing: Any, target: Any, library: Any, *about: Any) -> None:
        if library is None:
            library = self.kind(target.codegen(), type(self).__name__)
            library.enable_object_caching()
        super().__init__(typing, target, library, *about)


class _Entry(_Part):
    """Compiles a function that Python calls."""

    kind = _OnItsOwn


# options of functions that compiled ones call
PART: Any = {"error_model": "numpy", "pipeline_class": _Part}


def compiled(function: Callable[..., Any]) -> Any:
    """A function that other compiled functions call.

    No ``fastmath``: every operation is rounded as IEEE 754 says, so that bits do not
    depend on what the compiler makes of it, and a member that diverges shows.

    Python must not call it, which would end the process: what takes Python's arguments
    apart is left out, since it would be a third of the time of compiling.
    """
    return _jit(function, no_cpython_wrapper=True, **PART)


def entry(function: Callable[..., Any]) -> Any:
    """A compiled function that Python calls.

    It lets go of Python's lock, so that threads train members side by side.
    """
    return _jit(function, nogil=True, pipeline_class=_Entry)


def external(name: str, signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function that compiled ones call by a name of the process, as they do C's."""

    def compile_now(function: Callable[..., Any]) -> Any:
        made = _callback(function, signature)
        llvm.add_symbol(name, made.address)
        return made

    return compile_now


def address_of(function: Callable[..., Any], signature: Any) -> int:
    """Where a function begins, compiled for a signature; it stays there."""
    _CALLED.append(_callback(function, signature))
    return int(_CALLED[-1].address)


_CALLED: list[Any] = []  # what has an address that somebody knows


def _callback(function: Callable[..., Any], signature: Any) -> Any:
    about: Any = {"error_model": "numpy", "pipeline_class": _Entry}
    return _kept(lambda **more: numba.cfunc(signature, **about, **more)(function))


class _Teller(event.Listener):
    """Says on stderr what is compiled, when the first function of it is."""

    def __init__(self) -> None:
        self.what: list[str] = []  # that is being done, the innermost last
        self.told: set[str] = set()
        self._lock = threading.Lock()

    def on_start(self, event: Any) -> None:
        with self._lock:
            what = self.what[-1] if self.what else None
            if what is None or what in self.told:
                return
            self.told.add(what)
        if not os.environ.get(QUIET):
            print(
                f"dacrl: compiling {what}; its code is kept, so that this happens once",
                file=sys.stderr,
            )

    def on_end(self, event: Any) -> None:
        """The next function follows, or nothing."""


_TELLER = _Teller()
event.register("numba:compile", _TELLER)


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say what is compiled, if anything is, once in a process.

    The environment variable ``DACRL_QUIET`` silences it.
    """
    _TELLER.what.append(what)
    try:
        yield
    finally:
        _TELLER.what.remove(what)


def _jit(function: Callable[..., Any], **options: Any) -> Any:
    options |= {"error_model": "numpy", "no_cfunc_wrapper": True}
    return _kept(lambda **more: numba.njit(function, **options, **more))


def _kept(make: Callable[..., Any]) -> Any:
    """What a decorator of Numba makes, its code kept in our folder."""
    folder = cache_folder()
    if folder is None:
        return make()
    config: Any = numba.config
    files: Any = caching
    before = config.CACHE_DIR, files.IndexDataCacheFile
    config.CACHE_DIR, files.IndexDataCacheFile = str(folder), _Files
    try:
        return make(cache=True)
    finally:
        config.CACHE_DIR, files.IndexDataCacheFile = before


class _Files(caching.IndexDataCacheFile):
    """Numba's files, with digests: what is damaged is not there, and compiled anew.

    Each has the key it is kept under. Numba's index does not hold that against two
    processes that write at once.
    """

    def load(self, key: Any) -> Any:
        name = self._load_index().get(key)
        kept = None if name is None else _unsealed(self._data_path(name))
        return kept[1] if kept is not None and kept[0] == key else None

    def _load_index(self) -> dict[Any, str]:
        stamp, overloads = _unsealed(self._index_path) or (None, {})
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        with self._open_for_write(self._index_path) as file:
            file.write(_sealed(self._dump((self._source_stamp, overloads))))

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))

    def _save_data(self, name: str, data: Any) -> None:
        with self._open_for_write(self._data_path(name)) as file:
            file.write(_sealed(self._dump(data)))


def _sealed(data: bytes) -> bytes:
    return hashlib.sha256(data).digest() + data


def _unsealed(path: str) -> Any:
    """What is in a file; None if there is none, or not what was written."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    if content != _sealed(content[32:]):
        _tell_damage(os.path.dirname(path))
        return None
    try:
        return pickle.loads(content[32:])
    except (ImportError, AttributeError):  # of types that this process does not know
        return None


@cache
def _tell_damage(folder: str) -> None:
    """Once for each folder."""
    warnings.warn(
        f"compiled code in {folder} is damaged, and compiled anew",
        RuntimeWarning,
        stacklevel=2,
    )


@cache
def cache_folder() -> Path | None:
    """Where compiled code is kept; None, with one warning, if it cannot be kept.

    In ``NUMBA_CACHE_DIR`` if that is set, else in the user's cache directory:
    ``$XDG_CACHE_HOME`` or ``~/.cache``, on Windows ``%LOCALAPPDATA%``.
    """
    try:
        folder = _root() / f"{digest()}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # no place, or no home
        warnings.warn(
            f"compiled code cannot be kept ({error}); everything is compiled anew in "
            "each process. Set NUMBA_CACHE_DIR to a directory that "
            "can be written to",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _root() -> Path:
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        return Path(named) / "dacrl-env"
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(place) / "dacrl-env"


@cache
def digest() -> str:
    """Of all compiled sources and of the compiler, 16 hexadecimal digits."""
    made = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for folder in _COMPILED:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            name = path.relative_to(PACKAGE).as_posix()
            made.update(name.encode() + path.read_bytes())
    return made.hexdigest()[:16]
