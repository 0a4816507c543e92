"""Values of any kind as JSON; see `dacrl_env.core.provenance.described`."""

from __future__ import annotations

import copyreg
import functools
import json
import math
import os
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from enum import Enum
from types import BuiltinFunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np

from dacrl_env.core import sources
from dacrl_env.core.digests import short
from dacrl_env.core.named_files import files_named, folders_near
from dacrl_env.core.sources import (
    CODE,
    MODULE_NAME,
    OWN,
    Unknown,
    module_of,
    name_of,
)

_ENTRY = re.compile(f"{MODULE_NAME.pattern}:{MODULE_NAME.pattern}")
# whose objects are what a policy is used on
_USED = tuple(f"{OWN}.outer.{name}" for name in ("env", "population", "vector_env"))


class Values:
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
        self._near = folders_near(value, before)
        try:
            return self._contained(kind, value)
        except RecursionError:
            raise Unknown(f"a {name_of(kind)} is nested too deeply") from None
        finally:
            self._above.pop()
            self._near = before

    def _text(self, text: str) -> Any:
        """A text; with what is in the files that it may name."""
        if not self._near and not ("." in text or os.sep in text):
            return text
        found = files_named(text, self._near)
        return text if found is None else {"!file": text, "digest": found}

    def _contained(self, kind: type, value: Any) -> Any:
        if kind in (list, tuple, range):
            return [self.of(item) for item in value]
        if kind in (dict, OrderedDict, defaultdict, MappingProxyType):
            return self._mapping(value)
        if kind in (set, frozenset):
            return {"!set": sorted(map(self.of, value), key=as_text)}
        if kind in (bytes, bytearray):
            return {"!bytes": short(bytes(value))}
        if isinstance(value, np.ndarray):
            return self._array(value)
        if kind is BuiltinFunctionType and not isinstance(
            value.__self__, ModuleType | None
        ):
            return {"!method": value.__name__, "of": self.of(value.__self__)}
        if isinstance(value, (*CODE, ModuleType)) or _compiled(value):
            return self._code(value)
        if isinstance(value, Enum):
            return {"!enum": value.name, "class": self._code(kind)}
        if isinstance(value, os.PathLike):
            name = os.fsdecode(os.fspath(value))
            return {"!path": name, "digest": files_named(name, self._near)}
        if isinstance(value, functools.partial):
            about = {"!partial": self.of(value.func), "args": self.of(value.args)}
            return about | {"keywords": self.of(value.keywords)}
        if isinstance(value, MethodType):
            made = self._code(value.__func__)
            return {"!method": made, "of": self.of(value.__self__)}
        # of lru_cache or a class method; a user's own has a state
        own = sources.origin(*module_of(kind)) == "local"
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
                "digest": short(numbers.tobytes()),
            }
        return self._object(kind, value)

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        if all(type(key) is str and key[:1] != "!" for key in value):
            return {key: self.of(item) for key, item in value.items()}
        pairs = [[self.of(key), self.of(item)] for key, item in value.items()]
        return {"!dict": sorted(pairs, key=as_text)}

    def _array(self, value: Any) -> Any:
        about: dict[str, Any] = {"!array": str(value.dtype.descr)}
        about["shape"] = list(value.shape)
        if value.dtype.hasobject:
            about["values"] = [self.of(item) for item in value.ravel().tolist()]
        else:
            about["digest"] = short(np.ascontiguousarray(value).tobytes())
        if isinstance(value, np.ma.MaskedArray):
            about["mask"] = self._array(np.ma.getmaskarray(value))
        return about

    def _object(self, kind: type, value: Any) -> Any:
        """Class and state, in the way that pickling would keep them."""
        if kind.__module__ in _USED:
            raise Unknown(f"it holds a {kind.__name__}, as after a run")
        about: dict[str, Any] = {"!object": self._code(kind)}
        if isinstance(value, set | frozenset):
            about["content"] = sorted(map(self.of, value), key=as_text)
            return about | {"state": self.of(getattr(value, "__dict__", {}))}
        try:
            made = value.__reduce_ex__(2)
        except Exception as error:
            raise Unknown(
                f"a {name_of(kind)} cannot be described "
                f"({type(error).__name__}: {error})"
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


def _compiled(value: Any) -> bool:
    """Whether something is a function that Cython or the like has made."""
    return callable(value) and type(value).__name__ == "cython_function_or_method"


def _is_local(name: str) -> bool:
    """Whether there is a local module of that name; nothing is imported."""
    top = name.partition(".")[0]
    if top in sys.modules:
        return sources.origin(top, sys.modules[top]) == "local"
    return sources.found(top) is not None


def as_text(value: Any) -> str:
    """What is JSON, as text: equal values alike."""
    return json.dumps(value, sort_keys=True)
