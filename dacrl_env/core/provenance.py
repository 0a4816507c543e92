"""Results come from this package, libraries, users' code and values: what names them.

Results in a store are named by everything that they depend on. Three things go into
such a name beside plain numbers and texts:

- `version`: this package, told apart by its own sources, so that two commits never
  share a result;
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

import copyreg
import dis
import functools
import glob
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import os
import platform
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np

from dacrl_env.core import sources
from dacrl_env.core.sources import OWN, NoSource
from dacrl_env.core.version import __version__

__all__ = [
    "NoSource",
    "check_files",
    "described",
    "entry_source",
    "files_of",
    "libraries",
    "outlined",
    "source",
    "version",
]

_PARTS = ("agents", "baselines")  # of the package, which lie elsewhere in a checkout
_LEFT_OUT = "benchmarks"  # on which no result depends
_LIBRARIES = (
    "numpy",
    "torch",
    "gymnasium",
    "stable-baselines3",
    "safetensors",
    "box2d",
    "cma",
    "envpool",
    "minigrid",
    "optuna",
    "sb3-contrib",
    "smac",
)


# -- this package and libraries ---------------------------------------------------


@functools.cache
def version() -> str:
    """The package's version and a digest of all its sources that results depend on.

    The same in a checkout and from a wheel. The files are read once a process.
    """
    return f"{__version__}+{_digest(_own_files())[:12]}"


def _own_files() -> Iterator[tuple[str, bytes]]:
    """Names and contents, in the order of names."""
    places = {"": Path(__file__).parents[1]}
    for part in _PARTS:
        spec = importlib.util.find_spec(f"{OWN}.{part}")
        if spec is None or spec.origin is None:
            raise ImportError(f"{OWN}.{part} is missing: install {OWN} again")
        places[part] = Path(spec.origin).parent
    found = {
        (Path(part) / path.relative_to(folder)).as_posix(): path
        for part, folder in places.items()
        for path in folder.rglob("*.py")
    }
    found["tasks/references.json"] = places[""] / "tasks" / "references.json"
    for path in (places["agents"] / "pretrained").iterdir():
        if path.suffix in (".json", ".safetensors"):
            found[f"agents/pretrained/{path.name}"] = path
    for name, path in sorted(found.items()):
        if name.partition("/")[0] != _LEFT_OUT:
            yield name, path.read_bytes()


def libraries() -> dict[str, str]:
    """Versions of Python and of installed libraries that results may depend on."""
    return dict(_installed())


@functools.cache
def _installed() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _distribution(module: str) -> str:
    """Name and version of what a module was installed with, and its files' digest.

    The digest tells apart what was installed twice under one version.
    """
    top = module.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top)
    if not names:
        raise NoSource(f"{module} was installed without saying in which version")
    found = importlib.metadata.distribution(min(names))
    lines = (found.read_text("RECORD") or "").splitlines()
    own = [
        n for n in lines if n.startswith((f"{top}/", f"{top}.")) and ".pyc," not in n
    ]
    digest = _short("\n".join(sorted(own)).encode())[:12]
    return f"{found.metadata['Name']} {found.version} {digest}"


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    """Of names and contents, in their order."""
    digest = hashlib.sha256()
    for name, content in parts:
        label = name.encode("utf-8", "surrogateescape")
        digest.update(f"{len(label)} {len(content)} ".encode() + label + content)
    return digest.hexdigest()


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


# -- values -----------------------------------------------------------------------


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
    near = () if given_to is None else _near(given_to, ("",))
    return _Values(_named, _entry_described, near).of(value)


def _named(thing: Any) -> dict[str, str]:
    """Name and source of a class or function; those of this package have a version."""
    found = source(thing)
    return {"!code": _name(thing)} | ({} if found == OWN else {"source": found})


def outlined(value: Any) -> Any:
    """A value as JSON: as `described`, where that is possible, else as far as it is.

    What functions enclose is written out.
    """
    return _Outline().of(value)


class _Unknown(NoSource):
    """A value that cannot be described."""


_CODE = (type, FunctionType, BuiltinFunctionType, np.ufunc)
# whose objects are what a policy is used on
_USED = tuple(f"{OWN}.outer.{name}" for name in ("env", "population", "vector_env"))


class _Values:
    """Describes values.

    Args:
        code: describes a class or function.
        entry: describes a text ``module:name`` of a local module.
        near: folders where users' code, whose values these are, may look for files.
    """

    def __init__(
        self,
        code: Callable[[Any], dict[str, str]],
        entry: Callable[[str], Any],
        near: tuple[str, ...] = (),
    ) -> None:
        self._code, self._entry, self._near = code, entry, near
        self._above: list[Any] = []  # what the present value lies in

    def of(self, value: Any) -> Any:
        """A value as JSON; see `described`."""
        if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
            value = value.item()
        kind = type(value)
        if value is None or kind in (bool, int):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"!float": repr(value)}
        if kind is str:
            if _ENTRY.fullmatch(value) and _is_local(value.partition(":")[0]):
                return self._entry(value)
            return self._text(value)
        for depth, outer in enumerate(reversed(self._above)):
            if outer is value:
                return {"!above": depth}
        self._above.append(value)
        before = self._near
        self._near = _near(value, before)
        try:
            return self._contained(kind, value)
        except RecursionError:
            raise _Unknown(f"a {_name(kind)} is nested too deeply") from None
        finally:
            self._above.pop()
            self._near = before

    def _text(self, text: str) -> Any:
        """A text; with what is in the files that it may name."""
        if not self._near and not ("." in text or os.sep in text):
            return text
        found = _files_named(text, self._near)
        return text if found is None else {"!file": text, "digest": found}

    def _contained(self, kind: type, value: Any) -> Any:
        if kind in (list, tuple, range):
            return [self.of(item) for item in value]
        if kind in (dict, OrderedDict, defaultdict, MappingProxyType):
            return self._mapping(value)
        if kind in (set, frozenset):
            return {"!set": sorted(map(self.of, value), key=_json)}
        if kind in (bytes, bytearray):
            return {"!bytes": _short(bytes(value))}
        if isinstance(value, np.ndarray):
            return self._array(value)
        if kind is BuiltinFunctionType and not isinstance(
            value.__self__, ModuleType | None
        ):
            return {"!method": value.__name__, "of": self.of(value.__self__)}
        if isinstance(value, (*_CODE, ModuleType)) or _compiled(value):
            return self._code(value)
        if isinstance(value, Enum):
            return {"!enum": value.name, "class": self._code(kind)}
        if isinstance(value, os.PathLike):
            name = os.fsdecode(os.fspath(value))
            return {"!path": name, "digest": _files_named(name, self._near)}
        if isinstance(value, functools.partial):
            about = {"!partial": self.of(value.func), "args": self.of(value.args)}
            return about | {"keywords": self.of(value.keywords)}
        if isinstance(value, MethodType):
            made = self._code(value.__func__)
            return {"!method": made, "of": self.of(value.__self__)}
        # of lru_cache or a class method; a user's own has a state
        own = sources.origin(*_module_of(kind)) == "local"
        if not own and hasattr(value, "__wrapped__"):
            return {"!wrapped": self.of(value.__wrapped__)}
        if isinstance(value, np.random.Generator):
            return {"!generator": self.of(value.bit_generator.state)}
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            numbers = flat.view(torch.uint8).numpy()
            return {
                "!tensor": str(value.dtype),
                "shape": list(value.shape),
                "digest": _short(numbers.tobytes()),
            }
        return self._object(kind, value)

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        if all(type(key) is str and key[:1] != "!" for key in value):
            return {key: self.of(item) for key, item in value.items()}
        pairs = [[self.of(key), self.of(item)] for key, item in value.items()]
        return {"!dict": sorted(pairs, key=_json)}

    def _array(self, value: Any) -> Any:
        about: dict[str, Any] = {"!array": str(value.dtype.descr)}
        about["shape"] = list(value.shape)
        if value.dtype.hasobject:
            about["values"] = [self.of(item) for item in value.ravel().tolist()]
        else:
            about["digest"] = _short(np.ascontiguousarray(value).tobytes())
        if isinstance(value, np.ma.MaskedArray):
            about["mask"] = self._array(np.ma.getmaskarray(value))
        return about

    def _object(self, kind: type, value: Any) -> Any:
        """Class and state, in the way that pickling would keep them."""
        if kind.__module__ in _USED:
            raise _Unknown(f"it holds a {kind.__name__}, as after a run")
        about: dict[str, Any] = {"!object": self._code(kind)}
        if isinstance(value, set | frozenset):
            about["content"] = sorted(map(self.of, value), key=_json)
            return about | {"state": self.of(getattr(value, "__dict__", {}))}
        try:
            made = value.__reduce_ex__(2)
        except Exception as error:
            raise _Unknown(
                f"a {_name(kind)} cannot be described ({type(error).__name__}: {error})"
            ) from error
        if isinstance(made, str):  # the name of something global
            return about | {"name": made}
        how, arguments, *more = made
        state, items, pairs = [*more, None, None, None][:3]
        if how is not copyreg.__newobj__:  # type: ignore[attr-defined]
            about["how"] = self.of(how)
        else:
            arguments = arguments[1:]  # without the class
        if arguments:
            about["arguments"] = self.of(arguments)
        if state is not None:
            about["state"] = self.of(state)
        if items is not None:
            about["items"] = [self.of(item) for item in items]
        if pairs is not None:
            about["pairs"] = self._mapping(dict(pairs))
        return about


class _Outline(_Values):
    """As `_Values`; of what cannot be described, what can be told."""

    def __init__(self) -> None:
        super().__init__(self._outlined, _entry_described)

    def of(self, value: Any) -> Any:
        """A value as JSON."""
        try:
            return super().of(value)
        except NoSource:
            return {"!unknown": _name(type(value))}

    def _outlined(self, thing: Any) -> dict[str, Any]:
        """What a class or function encloses, and its source or else its code."""
        about: dict[str, Any] = {"!code": _name(thing)}
        members = vars(thing).values() if isinstance(thing, type) else [thing]
        parts = [part for member in members for part in sources.parts(member)]
        functions = [part for part in parts if isinstance(part, FunctionType)]
        if isinstance(thing, FunctionType):
            about["enclosed"] = {k: self.of(v) for k, v in _enclosed(thing).items()}
        try:
            return about | _named(thing)
        except NoSource:
            code = [sources.fingerprint(f.__code__) for f in functions]
            return about | {"source": _short(repr(code).encode())}


def _compiled(value: Any) -> bool:
    """Whether something is a function that Cython or the like has made."""
    return callable(value) and type(value).__name__ == "cython_function_or_method"


def _entry_described(text: str) -> Any:
    return {"!entry": text, "source": entry_source(text)}


_MODULE = re.compile(r"[^\W\d][\w.]*")
_ENTRY = re.compile(f"{_MODULE.pattern}:{_MODULE.pattern}")


def _is_local(name: str) -> bool:
    """Whether there is a local module of that name; nothing is imported."""
    top = name.partition(".")[0]
    if top in sys.modules:
        return sources.origin(top, sys.modules[top]) == "local"
    return sources.found(top) is not None


# -- files that are named in values -----------------------------------------------

_LONGEST = 4096  # of paths
# in a folder that is named: more is not read
_MOST_FILES = 10_000
_MOST_BYTES = 2**30


def _near(thing: Any, before: tuple[str, ...]) -> tuple[str, ...]:
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
        code = isinstance(thing, (*_CODE, ModuleType))
        name, module = _module_of(thing if code else type(thing))
    origin = sources.origin(name, module)
    if origin == OWN:
        return ()
    if origin != "local":
        return before
    file = getattr(module, "__file__", None)
    return ("",) if file is None else (os.path.dirname(os.path.abspath(file)), "")


def _files_named(name: str, near: tuple[str, ...]) -> str | None:
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
        raise _Unknown(f"{name} names a file that cannot be read: {error}") from error
    return _digest(sorted(parts))[:32]


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
                raise _Unknown(
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


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _name(thing: Any) -> str:
    """Module and name; a program that is run has no name, the same in its workers."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", "?")
    module = getattr(thing, "__module__", None) or "builtins"
    return f"{'' if module in sources.MAIN else module}:{name}"


# -- sources ----------------------------------------------------------------------


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
    if not isinstance(thing, (*_CODE, ModuleType, MethodType, functools.partial)):
        thing = type(thing)
    if isinstance(thing, MethodType):
        thing = thing.__func__
    walk = _Walk()
    walk.refer("", "", thing)
    if isinstance(thing, functools.partial) or walk.found:
        return walk.digest()
    name, module = _module_of(thing)
    origin = sources.origin(name, module)
    if origin == "installed":
        return _distribution(name)
    return walk.digest() if origin == "local" else origin


def files_of(*things: Any) -> dict[str, str]:
    """Local modules that classes, functions or entry points depend on.

    Programs that are run are left out: in another process they have another name.

    Returns:
        Digests of their files, by name of the module.

    Raises:
        NoSource: as `source`.
    """
    walk = _Walk(strict=False)
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
        if found is None or _short(found.content) != digest:
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
        return _distribution(name)
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


def _module_of(thing: Any) -> tuple[str, ModuleType | None]:
    """Name and module of a class, function or module; "" where it was made nowhere."""
    if isinstance(thing, ModuleType):
        return thing.__name__, thing
    if isinstance(thing, FunctionType):  # not what a decorator has copied
        name = str(thing.__globals__.get("__name__") or "")
        return name, sys.modules.get(name)
    name = getattr(thing, "__module__", None) or "builtins"
    name = name if isinstance(name, str) else "builtins"  # some metaclasses
    module = sys.modules.get(name)
    if name == "builtins" and not hasattr(module, thing.__name__):
        return "", None  # executed in a dictionary that has no name
    return name, module


class _Walk:
    """Collects everything local that something depends on.

    Args:
        strict: whether all values that local code refers to have to be described.
    """

    def __init__(self, strict: bool = True) -> None:
        self._strict = strict
        self._files: dict[str, bytes] = {}  # by name of the module
        self._done: set[str] = set()  # names of modules
        self._texts: list[str] = []  # of what has no file
        self._values: list[Any] = []  # who refers to what by which name
        # by identity: what is kept alive with it, and its description
        self._seen: dict[int, tuple[Any, dict[str, Any]]] = {}

    @property
    def found(self) -> bool:
        """Whether there is anything local."""
        return bool(self._files or self._texts)

    def files(self) -> dict[str, str]:
        """Digests of the files of modules, programs left out."""
        return {n: _short(self._files[n]) for n in self._done if n in self._files}

    def digest(self) -> str:
        """Of all that was found, whatever the order."""
        parts = sorted(self._files.items())
        parts += [("", text.encode()) for text in sorted(self._texts)]
        values = "\n".join(sorted(map(_json, self._values)))
        return _digest([*parts, ("values", values.encode())])[:32]

    def refer(self, who: str, name: str, value: Any, strict: bool = True) -> None:
        """Add what something refers to; ``strict``: it must be known what it is."""
        if isinstance(value, ModuleType) and not _local(value):
            return
        if type(value).__module__ == "logging":
            return  # tells what happens, and changes nothing
        try:
            values = _Values(self._code, self._named_by)
            self._values.append([who, name, values.of(value)])
        except _Unknown as error:
            if strict and self._strict:
                place = f"{who} refers to {name!r}: " if name else ""
                raise NoSource(f"{place}{error}") from error

    def _named_by(self, text: str) -> str:
        """Add the module of an entry point; its text."""
        self.add_module(text.partition(":")[0])
        return text

    def _code(self, thing: Any) -> dict[str, Any]:
        """Add a class, function or module and what it refers to; its name and place."""
        if id(thing) in self._seen:
            return self._seen[id(thing)][1]
        about: dict[str, Any] = {"!code": _name(thing)}
        self._seen[id(thing)] = thing, about
        name, module = _module_of(thing)
        local = sources.origin(name, module) == "local"
        if isinstance(thing, FunctionType):
            in_file = local and _in_file(thing, module)
            if in_file and not sources.same_file(
                thing.__code__.co_filename, str(getattr(module, "__file__", ""))
            ):
                in_file = False  # executed in the module, but not from its file
            if local:  # two of one name in one text are told apart
                about["place"] = _place(thing.__code__, in_file)
            self._function(thing, name, local, in_file)
        elif local and isinstance(thing, ModuleType):  # any of it may be used
            self.add_module(name)
            for key, value in vars(thing).items():
                if key[:2] != "__":
                    self.refer(name, key, value)
        elif local and not isinstance(thing, type):
            raise NoSource(f"{_name(thing)} is compiled")
        elif local:
            self._class(thing, name, module)
        return about

    def _class(self, kind: type, name: str, module: ModuleType | None) -> None:
        who = _name(kind)
        if _in_file(kind, module):
            self.add_module(name)
        for key, member in vars(kind).items():
            parts = sources.parts(member)
            own = [part for part in parts if not _generated(kind, key, part)]
            if own:
                self._values.append([who, key, [self._code(part) for part in own]])
            special = key[:2] == key[-2:] == "__" or key == "_abc_impl"
            if not parts and not special and not hasattr(member, "__objclass__"):
                self.refer(who, key, member)
        for field in getattr(kind, "__dataclass_fields__", {}).values():
            for part in (field.default, field.default_factory):
                self.refer(who, field.name, part)
        bases = [self._code(base) for base in (*kind.__mro__[1:], type(kind))]
        self._values.append([who, "bases", bases])

    def _function(
        self, function: FunctionType, name: str, local: bool, in_file: bool
    ) -> None:
        code, who = function.__code__, _name(function)
        if in_file:
            self.add_module(name)
        elif local:
            self._texts.append(sources.text_of(function))
        code_alone = (*_CODE, MethodType, functools.partial)
        refers = [*_enclosed(function).items()]
        if hasattr(function, "__wrapped__"):
            refers.append(("wrapped", function.__wrapped__))
        if local:
            refers.append(("defaults", function.__defaults__))
            refers.append(("keyword defaults", function.__kwdefaults__))
            for names in _reads(code):
                refers += self._read(function.__globals__, names)
            refers += self._imported(code, name if in_file else None)
        for key, value in refers:
            # of a decorator of others it matters what it decorates
            if local or isinstance(value, code_alone):
                self.refer(who, key, value, local)

    def _read(
        self, known: Mapping[str, Any], names: Sequence[str]
    ) -> Iterator[tuple[str, Any]]:
        """Add modules on the way to what is read by names; its name and value."""
        for k, name in enumerate(names):
            if name not in known:
                name = "__getattr__" if k else name  # of a module
            if name not in known:
                return
            value = known[name]
            if not _local(value) or k == len(names) - 1:
                yield ".".join(names[: k + 1]), value
                return
            self.add_module(value.__name__)
            known = vars(value)

    def _imported(self, code: CodeType, name: str | None) -> Iterator[tuple[str, Any]]:
        """Add modules that a function imports by itself; what it may read of them.

        That is what they have under any of the names in the function.

        Args:
            code: of the function.
            name: of the module whose file it is in, if there is one.
        """
        names, modules = _within(code)
        if not modules:
            return
        found = None if name is None else sources.found(name)
        for module in sorted(modules) if found is None else found.imports:
            self.add_module(module)
            loaded = sys.modules.get(module)
            known = vars(loaded) if _local(loaded) else {}
            for key in sorted(names & known.keys()):
                if not isinstance(known[key], ModuleType):
                    yield f"{module}.{key}", known[key]

    def add_module(self, name: str) -> None:
        """Add a local module's file, and those of all local modules it imports."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name in self._done:
                continue
            self._done.add(name)
            found = sources.found(name)
            if found is not None:
                label = Path(found.path).stem if name in sources.MAIN else name
                self._files[label] = found.content
                # the package that it lies in is imported before it
                waiting += [name.rpartition(".")[0], *found.imports]


def _in_file(thing: Any, module: ModuleType | None) -> bool:
    """Whether a class or function should be in the file of its module.

    Raises:
        NoSource: the file is no Python source.
    """
    path = getattr(module, "__file__", None)
    if module is None or path is None or path[:1] == "<":
        return False
    if not sources.is_python(module):
        raise NoSource(f"{_name(thing)} is compiled ({path})")
    return True


def _generated(kind: type, name: str, part: Any) -> bool:
    """Whether a method was made of the fields of its class, by dataclasses, say."""
    fields = hasattr(kind, "__dataclass_fields__") or hasattr(kind, "_fields")
    if not fields or not isinstance(part, FunctionType):
        return False
    made: Any = inspect.unwrap(part)
    return made.__code__.co_filename == "<string>" and name[:2] == name[-2:] == "__"


def _place(code: CodeType, in_file: bool) -> Any:
    """Line and column where code begins; in a cell's function its own first line."""
    first = 0 if in_file else code.co_firstlineno
    places = [
        (line - first, column)
        for line, end_line, column, end in code.co_positions()
        if line is not None and column is not None and (line, column) != (end_line, end)
    ]
    if places:
        return min(places)
    return _short(repr(sources.fingerprint(code)).encode())  # -X no_debug_ranges


def _enclosed(function: FunctionType) -> dict[str, Any]:
    """Values of an enclosing function that a function holds, by name."""
    found = {}
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            found[name] = cell.cell_contents
    return found


def _local(thing: Any) -> bool:
    """Whether something is a local module."""
    return (
        isinstance(thing, ModuleType)
        and sources.origin(thing.__name__, thing) == "local"
    )


_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR")


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _reads(code: CodeType) -> list[tuple[str, ...]]:
    """Names that code looks up in its module, with the attributes it takes of each."""
    found: set[tuple[str, ...]] = set()
    for part in _codes(code):
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


def _within(code: CodeType) -> tuple[set[str], set[str]]:
    """All names in code, and the modules that it imports, relative ones as written."""
    names: set[str] = set()
    modules: set[str] = set()
    for part in _codes(code):
        names.update(part.co_names)
        steps = dis.get_instructions(part)
        modules |= {i.argval for i in steps if i.opname == "IMPORT_NAME"}
    if {"import_module", "__import__"} & names:
        texts = {c for part in _codes(code) for c in part.co_consts}
        modules |= {t for t in texts if isinstance(t, str) and _MODULE.fullmatch(t)}
    return names, modules
