"""What policies, methods and seeds may be given as, and what they are then called.

One of them or several; as texts, objects, or classes that need no arguments; policies
also as paths of files, and as models of Stable-Baselines3. A mapping gives labels,
which results are shown under.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from dacrl_env.core import checks
from dacrl_env.policies import (
    Fitted,
    Method,
    Policy,
    checked,
    from_sb3,
    get_method,
    get_policy,
    is_model,
)

_T = TypeVar("_T")
PolicyLike: TypeAlias = str | os.PathLike[str] | Policy | type[Policy]
MethodLike: TypeAlias = str | Method | type[Method]
Several: TypeAlias = _T | Mapping[str, _T] | Iterable[_T]

_LONGEST = 80  # characters of a name


@dataclass(frozen=True)
class Given:
    """Policies or methods, in the order given.

    Args:
        names: of each, all different: the text it was given as, or what `name_of` says.
        labels: name to what is shown instead, for those that have a label.
        objects: those that were not given as texts, by name.
    """

    names: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)


def given(things: Several[Any], what: str) -> Given:
    """Policies or methods as users give them.

    Args:
        things: one or several.
        what: "policy" or "method".

    Raises:
        ValueError: something that is neither, or names or labels that are not unique.
    """
    if _is_one(things):
        labelled: list[tuple[str | None, Any]] = [(None, things)]
    elif isinstance(things, Mapping):
        labelled = list(things.items())
    elif isinstance(things, Iterable):
        labelled = [(None, thing) for thing in things]
    else:
        raise ValueError(
            f"{things!r} is no {what}: valid are names, objects, lists of these, and "
            "mappings from labels to these"
        )
    result = Given()
    texts = [os.fspath(t) for _, t in labelled if isinstance(t, str | os.PathLike)]
    for label, thing in labelled:
        if isinstance(thing, str | os.PathLike):
            name = os.fspath(thing)
            if what == "method" and name.startswith("__main__:"):
                # made here, since workers run another program
                result.objects[name] = one(name, what)
        else:
            made = one(thing, what)
            name = name_of(made)
            if label is not None and not is_dataclass(made):
                # which alone tells it from others of its class
                name = _checked_label(label)
                if name in texts:  # of another one
                    name = f"{name} ({type(made).__name__})"
            if name in result.names:
                raise ValueError(
                    f"two of the {_plural(what)} are called {name!r}; give them "
                    f"labels, as in {{'first': ..., 'second': ...}}"
                )
            result.objects[name] = made
        if name in result.names:
            raise ValueError(f"{what} {name!r} is given twice; once each is enough")
        result.names.append(name)
        if label is not None:
            result.labels[name] = _checked_label(label)
    return result


def one(thing: Any, what: str) -> Any:
    """A policy or method from a text, path, object or class.

    Raises:
        ValueError: it is none, or a class that needs arguments.
    """
    if isinstance(thing, str | os.PathLike):
        make: Any = get_method if what == "method" else get_policy
        return make(os.fspath(thing))
    if what == "policy" and is_model(thing):
        return from_sb3(thing)
    if isinstance(thing, Mapping | list | tuple):
        raise ValueError(f"one {what} is taken here, got {thing!r}")
    if inspect.isclass(thing):
        try:
            inspect.signature(thing).bind()
        except TypeError as error:
            raise ValueError(
                f"{what} {thing.__name__} is a class that needs arguments ({error}); "
                f"give an object, {thing.__name__}(...)"
            ) from error
        thing = thing()
    return checked(thing, what, f"a {type(thing).__name__}")


def name_of(thing: Any) -> str:
    """What an object is called: its class, with fields that differ from defaults."""
    kind = type(thing).__name__
    if isinstance(thing, Fitted):
        return f"{kind}({type(thing.policy).__name__})"
    if not is_dataclass(thing):
        return kind
    parts = []
    for f in fields(thing):
        default = f.default
        if f.default_factory is not MISSING:
            default = f.default_factory()
        value = repr(getattr(thing, f.name))
        if f.init and value != repr(default):
            parts.append(f"{f.name}={' '.join(value.split())}")
    text = f"{kind}({', '.join(parts)})" if parts else kind
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: _LONGEST - 11]}… {digest})"


def checked_seeds(seeds: Any, name: str = "seeds") -> list[int]:
    """Seeds from their number, or the seeds themselves.

    Args:
        seeds: a whole number n for 0, …, n − 1; or whole numbers.
        name: of the argument, for messages.

    Raises:
        ValueError: none, one given twice, or something else than whole numbers.
    """
    if isinstance(seeds, np.ndarray) and not seeds.ndim:
        seeds = seeds.item()
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
        if seeds < 1:
            raise ValueError(f"{name} must be at least 1, got {seeds}")
        return list(range(int(seeds)))
    if isinstance(seeds, str | bytes | Mapping) or not isinstance(seeds, Iterable):
        raise ValueError(
            f"{name} must be their number or a list of whole numbers, got {seeds!r}"
        )
    result = [_seed(seed, name) for seed in seeds]
    if not result:
        raise ValueError(f"no {name} given")
    if len(set(result)) < len(result):
        raise ValueError(f"{name} are given twice: {result}")
    return result


def _seed(seed: Any, name: str) -> int:
    try:
        return checks.seed(seed)
    except ValueError:
        raise ValueError(
            f"{name} must be whole numbers from 0 to 2**63 - 1, got {seed!r}"
        ) from None


def _is_one(things: Any) -> bool:
    return (
        isinstance(things, str | os.PathLike)
        or inspect.isclass(things)
        or hasattr(things, "act")
        or hasattr(things, "fit")
    )


def _plural(what: str) -> str:
    return {"policy": "policies"}.get(what, f"{what}s")


def _checked_label(label: Any) -> str:
    if isinstance(label, int | float):
        label = str(label)
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        raise ValueError(f"a label is a text of printable characters, got {label!r}")
    return label
