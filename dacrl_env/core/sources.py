"""Files of users' modules: what was imported, and what that imports in turn.

A module's file is read when it is first asked for, and kept until the module is loaded
anew. If its code or its constants (numbers, texts and tuples of them) are not those in
memory by then, it was edited in between, and nobody knows what runs.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

OWN = "dacrl_env"
MAIN = ("__main__", "__mp_main__")  # names of a program, here and in its workers
CODE = (type, FunctionType, BuiltinFunctionType, np.ufunc)
MODULE_NAME = re.compile(r"[^\W\d][\w.]*")


class NoSource(ValueError):  # noqa: N818 - the name of the contract
    """What a result depends on cannot be told, so that it must not be kept."""


class Unknown(NoSource):
    """A value that cannot be described."""


@dataclass(frozen=True)
class File:
    """A local module: its file, what is in it, and names of what that imports."""

    path: str
    content: bytes
    imports: list[str]


# -- whose a module is ------------------------------------------------------------


def origin(name: str, module: ModuleType | None) -> str:
    """Whose a module is: "dacrl_env", "python", "installed" or "local".

    Args:
        name: of the module.
        module: None: it is not loaded.
    """
    file = getattr(module, "__file__", None)
    if file is None and module is not None:
        if getattr(module.__spec__, "origin", None) == "frozen":
            return "python"
        # a package without an __init__
        file = next(iter(getattr(module, "__path__", ())), None)
    return origin_of(name, file)


def origin_of(name: str, file: str | None) -> str:
    """As `origin`, by the module's name and file."""
    top = name.partition(".")[0]
    if top == OWN:
        return OWN
    if file is None:
        return "python" if top in sys.builtin_module_names else "local"
    path = os.path.realpath(file)
    if {"site-packages", "dist-packages"} & {*Path(path).parts, *Path(file).parts}:
        return "installed"
    return "python" if path.startswith(_python_folders()) else "local"


@functools.cache
def _python_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(
        os.path.realpath(paths[name]) + os.sep for name in ("stdlib", "platstdlib")
    )


def is_python(module: ModuleType) -> bool:
    """Whether a module's file is Python source, and not compiled code."""
    path = str(getattr(module, "__file__", ""))
    loader = getattr(module, "__loader__", None)
    return (
        path.endswith(".py")
        or module.__name__ in MAIN
        or isinstance(loader, importlib.machinery.SourceFileLoader)
    )


def name_of(thing: Any) -> str:
    """Module and name; a program that is run has no name, the same in its workers."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", "?")
    module = getattr(thing, "__module__", None) or "builtins"
    return f"{'' if module in MAIN else module}:{name}"


def module_of(thing: Any) -> tuple[str, ModuleType | None]:
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


# -- files ------------------------------------------------------------------------


# by name: the module and its specification when the file was read, and the file
_read: dict[str, tuple[ModuleType, Any, File]] = {}


def found(name: str) -> File | None:
    """The file of a local module; None if there is none, or the module is not local.

    Raises:
        NoSource: what is in the file is not what was imported.
    """
    module = sys.modules.get(name)
    if module is None:
        return _not_loaded(name) if name else None
    kept = _read.get(name)
    # a reload gives a module another specification
    if kept is not None and kept[0] is module and kept[1] is module.__spec__:
        return kept[2]
    path = getattr(module, "__file__", None)
    if path is None or origin(name, module) != "local":
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise NoSource(f"{path} was imported and cannot be read: {error}") from error
    package = getattr(module, "__package__", None) or ""
    text = is_python(module)
    result = File(path, content, _imports(content, package) if text else [])
    if text:
        _check_imported(module, path, content)
    _read[name] = module, module.__spec__, result
    return result


def _not_loaded(name: str) -> File | None:
    """As `found`, of a module that is not imported yet, and is not by this."""
    parts, spec, places = name.split("."), None, None
    for k in range(len(parts)):
        part = ".".join(parts[: k + 1])
        loaded = sys.modules.get(part)
        if loaded is not None:
            places = getattr(loaded, "__path__", None)
        else:
            try:
                spec = importlib.machinery.PathFinder.find_spec(part, places)
            except (ImportError, ValueError, AttributeError):
                return None
            places = None if spec is None else spec.submodule_search_locations
        if places is None and k < len(parts) - 1:
            return None
    path = None if spec is None else spec.origin
    if path is None or not os.path.isfile(path) or origin_of(name, path) != "local":
        return None
    content = Path(path).read_bytes()
    package = name.rpartition(".")[0] if places is None else name
    imports = _imports(content, package) if path.endswith(".py") else []
    return File(path, content, imports)


def _imports(content: bytes, package: str) -> list[str]:
    """Names of modules that a file imports, wherever in it that is written."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            # what is imported from it may be a module, too
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if called in ("import_module", "__import__"):
                names += _texts(first)
    return sorted({*names} - {""})


def _texts(node: ast.expr) -> list[str]:
    """A text that is written out, if it is one."""
    value = node.value if isinstance(node, ast.Constant) else None
    return [value] if isinstance(value, str) else []


# -- whether a file is what was imported --------------------------------------------


def text_of(function: FunctionType) -> str:
    """The text of a function that is in no module's file: in a cell, say.

    Raises:
        NoSource: there is none, or the function is another by now.
    """
    code = function.__code__
    try:
        # of the code: a function is taken for the one that it wraps
        text = inspect.getsource(code)
    except (OSError, TypeError, SyntaxError, IndexError):
        text = ""
    if not text:
        raise NoSource(
            f"{function.__qualname__} was made where no file or cell has its text"
        )
    if os.path.isfile(code.co_filename):  # may be another text by now
        content = Path(code.co_filename).read_bytes()
        compiled = _compiled(content, code.co_filename, None)
        _check_same([code], compiled, code.co_filename)
    return text


def fingerprint(code: CodeType) -> Any:
    """What code does, without the places of its lines."""
    constants = tuple(
        fingerprint(c) if isinstance(c, CodeType) else _constant(c)
        for c in code.co_consts
    )
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount)
    return (code.co_code, constants, names, counts, code.co_flags)


def same_file(path: str, other: str) -> bool:
    """Whether two paths lead to one file."""
    return path == other or os.path.realpath(path) == os.path.realpath(other)


def parts(member: Any) -> list[Any]:
    """Functions and classes that a member of a class or module consists of."""
    members: list[Any]
    if isinstance(member, staticmethod | classmethod):
        members = [member.__func__]
    elif isinstance(member, property):
        members = [member.fget, member.fset, member.fdel]
    elif isinstance(member, functools.cached_property | functools.partialmethod):
        members = [member.func]
    else:
        members = [member]
    return [part for part in members if isinstance(part, FunctionType | type)]


def _check_imported(module: ModuleType, path: str, content: bytes) -> None:
    """Raise NoSource if a module's file has other code or constants than its memory."""
    loader = getattr(module, "__loader__", None)
    if loader is not None and not hasattr(loader, "source_to_code"):
        return  # it changes code in a way that is not known here, as pytest's does
    _check_same(_live(module, path), _compiled(content, path, loader), path)
    for owner, name, written in _constants(ast.parse(content)):
        holder: Any = getattr(module, owner, None) if owner else module
        now = vars(holder).get(name) if hasattr(holder, "__dict__") else None
        if type(now) in _PLAIN and _constant(now) != _constant(written):
            raise NoSource(
                f"{path} says {name} = {written!r}, in memory it is {now!r}: edited "
                "since it was imported, or changed while running"
            )


_PLAIN = (bool, int, float, complex, str, bytes, tuple)


def _compiled(content: bytes, path: str, loader: Any) -> dict[str, list[Any]]:
    """Fingerprints of all code in a file, by qualified name."""
    try:
        if loader is None:
            top = compile(content, path, "exec", dont_inherit=True)
        else:
            top = loader.source_to_code(content, path)
    except (SyntaxError, ValueError) as error:
        raise NoSource(f"{path} is not what was imported: {error}") from error
    result: dict[str, list[Any]] = {}
    waiting = [top]
    while waiting:
        code = waiting.pop()
        result.setdefault(code.co_qualname, []).append(fingerprint(code))
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
    return result


def _check_same(
    live: Iterable[CodeType], compiled: Mapping[str, list[Any]], path: str
) -> None:
    for code in live:
        if fingerprint(code) not in compiled.get(code.co_qualname, []):
            raise NoSource(
                f"{path} was edited after it was imported: {code.co_qualname} differs"
            )


def _live(module: ModuleType, path: str) -> Iterator[CodeType]:
    """Code of the functions and methods of a module that are of its file."""
    waiting, seen = list(vars(module).values()), set()
    while waiting:
        for thing in parts(waiting.pop()):
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            if isinstance(thing, type):
                if thing.__module__ == module.__name__:
                    waiting += vars(thing).values()
            else:
                if same_file(thing.__code__.co_filename, path):
                    yield thing.__code__
                waiting.append(getattr(thing, "__wrapped__", None))


def _constant(value: Any) -> Any:
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(map(repr, value)))
    return (type(value).__name__, repr(value))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str, Any]]:
    """Class ("" for none), name and value of constants that are written once."""
    nodes = list(ast.walk(tree))
    varied = {n for node in nodes if isinstance(node, ast.Global) for n in node.names}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for name, body in (("", tree.body), *((c.name, c.body) for c in classes)):
        stored = list(_stored(body))
        for part in body:
            target = part.targets[0] if isinstance(part, ast.Assign) else None
            if isinstance(part, ast.AnnAssign):
                target = part.target
            if not isinstance(target, ast.Name) or stored.count(target.id) > 1:
                continue
            try:
                value = ast.literal_eval(part.value)  # type: ignore[attr-defined]
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue
            if target.id not in varied and type(value) in _PLAIN:
                yield name, target.id, value


def _stored(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module or class binds, functions and classes within it aside."""
    for part in body:
        if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield part.name
            continue
        for node in ast.walk(part):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                yield node.id
            elif isinstance(node, ast.alias):
                yield node.asname or node.name
