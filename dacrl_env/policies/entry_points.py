"""Policies and methods that other distributions offer by name.

A package names them in its ``pyproject.toml``::

    [project.entry-points."dacrl.policies"]
    my-rule = "my_package.rules:MyRule"

    [project.entry-points."dacrl.methods"]
    my-search = "my_package.searches:MySearch"

Nothing is looked up before a name is asked for that this package has not, or a list is,
and nothing is imported before it is used or listed. The specification of such names is
https://packaging.python.org/en/latest/specifications/entry-points/.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from dacrl_env.core.blame import RAISED
from dacrl_env.core.checks import forgiven
from dacrl_env.core.specs import NOT_IN_LABELS, POLICY_SUFFIXES

GROUPS = {"policy": "dacrl.policies", "method": "dacrl.methods"}
_TOLD: set[tuple[str, ...]] = set()  # what was warned of


@dataclass(frozen=True)
class Offered:
    """A policy or method of another distribution.

    Args:
        what: "policy" or "method".
        name: that it is found by.
        entry: ``"module:name"`` of what makes it.
        distribution: its name and version.
        fault: why it cannot be used; None: nothing is known against it.
    """

    what: str
    name: str
    entry: str
    distribution: str
    fault: str | None = None

    def load(self) -> Any:
        """What makes it.

        Raises:
            ValueError: it cannot be used or imported, or makes nothing.
        """
        if self.fault is not None:
            raise ValueError(self._unusable(self.fault))
        try:
            thing = metadata.EntryPoint(self.name, self.entry, "").load()
        except RAISED as error:
            raise ValueError(
                self._unusable(f"{type(error).__name__}: {error}")
            ) from error
        if not callable(thing):
            raise ValueError(
                self._unusable(
                    f"it is a {type(thing).__name__}, nothing that makes one; a class "
                    "or a function does"
                )
            )
        return thing

    def _unusable(self, why: str) -> str:
        return (
            f"{self.what} {self.name!r} of the distribution {self.distribution} cannot "
            f"be used: {self.entry}: {' '.join(why.split())}"
        )


def offered(
    what: str, shipped: Mapping[str, tuple[str, dict[str, Any]]]
) -> dict[str, Offered]:
    """What other distributions offer, by name, in order.

    A name that this package has, but for case, hyphens and underscores, stays this
    package's; one warning says whose is not used. A name that several distributions
    have, as alike, has a fault.

    Args:
        what: "policy" or "method".
        shipped: names of this package, of both kinds, with their entries.
    """
    found: dict[str, Offered] = {}
    for point in sorted(_points(GROUPS[what]), key=lambda p: (p.name, p.value)):
        one = Offered(
            what, point.name, point.value, _called(point.dist), _fault_of(point)
        )
        own = forgiven(one.name, shipped)
        if own in shipped:
            _tell_clash(one, own, shipped[own][0])
            continue
        name = forgiven(one.name, found)
        other = found.get(name)
        if other is not None:
            if (other.entry, other.distribution) == (one.entry, one.distribution):
                continue
            of = f"{one.distribution} ({one.entry})"
            alike = "" if one.name == name else f", written {one.name!r}"
            why = f"the distribution {of} has the same name{alike}; module:Class says "
            one = Offered(what, name, other.entry, other.distribution, f"{why}which")
        found[name] = one
    return found


def _points(group: str) -> list[metadata.EntryPoint]:
    """Entry points of a group, of all distributions whose lists can be read.

    Of each of the others one warning says why not.
    """
    try:
        return list(metadata.entry_points(group=group))
    except Exception:  # one damaged list; the others are none the worse
        points: list[metadata.EntryPoint] = []
        seen: set[str] = set()
        for distribution in metadata.distributions():
            name = _called(distribution).partition(" ")[0].lower().replace("-", "_")
            if name in seen:  # hidden by one that is before it on the path
                continue
            seen.add(name)
            try:
                points += distribution.entry_points.select(group=group)
            except Exception as error:
                _tell_damage(_called(distribution), error)
        return points


def _called(distribution: Any) -> str:
    """Name and version of a distribution; where it does not say, of its folder."""
    try:
        name, version = distribution.metadata["Name"], distribution.version
    except Exception:
        name = version = None
    if name is None:
        folder = getattr(getattr(distribution, "_path", None), "name", "without a name")
        name, _, version = folder.rpartition(".")[0].partition("-")
    return f"{name or 'without a name'} {version or ''}".rstrip()


def _fault_of(point: metadata.EntryPoint) -> str | None:
    unreadable = {*NOT_IN_LABELS, *"='\""}
    if set(point.name) & unreadable or point.name.endswith(POLICY_SUFFIXES):
        return f"a name has none of {' '.join(sorted(unreadable))} and no ending"
    try:
        named = bool(point.attr)
    except AttributeError:  # what the pattern of entry points does not fit
        named = False
    return None if named else "an entry is module:Class"


def _tell_damage(distribution: str, error: Exception) -> None:
    if ("damaged", distribution) in _TOLD:
        return
    _TOLD.add(("damaged", distribution))
    warnings.warn(
        f"the entry points of the distribution {distribution} cannot be read "
        f"({type(error).__name__}: {error}); its policies and methods have no names",
        stacklevel=2,
    )


def _tell_clash(one: Offered, own: str, entry: str) -> None:
    key = (one.what, one.name, one.distribution)
    if key in _TOLD:
        return
    _TOLD.add(key)
    warnings.warn(
        f"the {one.what} {one.name!r} of the distribution {one.distribution} "
        f"({one.entry}) is not used by this name: {own!r} is {entry} of dacrl-env; "
        f"{one.entry} names the other",
        stacklevel=2,
    )
