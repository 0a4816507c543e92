"""Everything local that a class, function or module depends on."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from dacrl_env.core import sources
from dacrl_env.core.bytecode import place, reads, within
from dacrl_env.core.digests import digest, short
from dacrl_env.core.sources import CODE, NoSource, Unknown, module_of, name_of
from dacrl_env.core.values import Values, as_text


class Walk:
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
        return {n: short(self._files[n]) for n in self._done if n in self._files}

    def digest(self) -> str:
        """Of all that was found, whatever the order."""
        parts = sorted(self._files.items())
        parts += [("", text.encode()) for text in sorted(self._texts)]
        values = "\n".join(sorted(map(as_text, self._values)))
        return digest([*parts, ("values", values.encode())])[:32]

    def refer(self, who: str, name: str, value: Any, strict: bool = True) -> None:
        """Add what something refers to; ``strict``: it must be known what it is."""
        if isinstance(value, ModuleType) and not _local(value):
            return
        if type(value).__module__ == "logging":
            return  # tells what happens, and changes nothing
        try:
            values = Values(self._code, self._named_by)
            self._values.append([who, name, values.of(value)])
        except Unknown as error:
            if strict and self._strict:
                where = f"{who} refers to {name!r}: " if name else ""
                raise NoSource(f"{where}{error}") from error

    def _named_by(self, text: str) -> str:
        """Add the module of an entry point; its text."""
        self.add_module(text.partition(":")[0])
        return text

    def _code(self, thing: Any) -> dict[str, Any]:
        """Add a class, function or module and what it refers to; its name and place."""
        if id(thing) in self._seen:
            return self._seen[id(thing)][1]
        about: dict[str, Any] = {"!code": name_of(thing)}
        self._seen[id(thing)] = thing, about
        name, module = module_of(thing)
        local = sources.origin(name, module) == "local"
        if isinstance(thing, FunctionType):
            in_file = local and _in_file(thing, module)
            if in_file and not sources.same_file(
                thing.__code__.co_filename, str(getattr(module, "__file__", ""))
            ):
                in_file = False  # executed in the module, but not from its file
            if local:  # two of one name in one text are told apart
                about["place"] = place(thing.__code__, in_file)
            self._function(thing, name, local, in_file)
        elif local and isinstance(thing, ModuleType):  # any of it may be used
            self.add_module(name)
            for key, value in vars(thing).items():
                if key[:2] != "__":
                    self.refer(name, key, value)
        elif local and not isinstance(thing, type):
            raise NoSource(f"{name_of(thing)} is compiled")
        elif local:
            self._class(thing, name, module)
        return about

    def _class(self, kind: type, name: str, module: ModuleType | None) -> None:
        who = name_of(kind)
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
        code, who = function.__code__, name_of(function)
        if in_file:
            self.add_module(name)
        elif local:
            self._texts.append(sources.text_of(function))
        code_alone = (*CODE, MethodType, functools.partial)
        refers = [*enclosed(function).items()]
        if hasattr(function, "__wrapped__"):
            refers.append(("wrapped", function.__wrapped__))
        if local:
            refers.append(("defaults", function.__defaults__))
            refers.append(("keyword defaults", function.__kwdefaults__))
            for names in reads(code):
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
        names, modules = within(code)
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
        raise NoSource(f"{name_of(thing)} is compiled ({path})")
    return True


def _generated(kind: type, name: str, part: Any) -> bool:
    """Whether a method was made of the fields of its class, by dataclasses, say."""
    fields = hasattr(kind, "__dataclass_fields__") or hasattr(kind, "_fields")
    if not fields or not isinstance(part, FunctionType):
        return False
    made: Any = inspect.unwrap(part)
    return made.__code__.co_filename == "<string>" and name[:2] == name[-2:] == "__"


def _local(thing: Any) -> bool:
    """Whether something is a local module."""
    return (
        isinstance(thing, ModuleType)
        and sources.origin(thing.__name__, thing) == "local"
    )


def enclosed(function: FunctionType) -> dict[str, Any]:
    """Values of an enclosing function that a function holds, by name."""
    found = {}
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            found[name] = cell.cell_contents
    return found
