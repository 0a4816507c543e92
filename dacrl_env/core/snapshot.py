"""Snapshots: one generic walk over any state dataclass.

A state is a dataclass of arrays (torch or numpy) whose first axis is the population,
or of further such dataclasses, or named tuples of arrays. That is all that saving,
restoring, selecting and forking need to know.

Files are safetensors with a JSON header; loading one executes nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from dacrl_env.core.files import write_whole
from dacrl_env.core.version import __version__

FORMAT = 2
_HEADER = "dacrl_env"
_SHOWN = 5  # options in which a snapshot differs, at most
_WIDTH = 80  # characters of a value that is shown
_PART = 2**18  # bytes that are moved at once


class SnapshotError(ValueError):
    """A snapshot that does not fit, or a file that is none."""


class SnapshotNotSupported(SnapshotError):  # noqa: N818 - the name of the contract
    """The inner environment cannot be saved; ``exact=False`` keeps the learner."""


def leaves(state: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and arrays of a state, in the order of its fields."""
    for name, value in _parts(state):
        if _is_node(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_node(value: Any) -> bool:
    """Whether something consists of named arrays: a dataclass, or a named tuple."""
    return is_dataclass(value) or (isinstance(value, tuple) and hasattr(value, "_make"))


def _parts(state: Any) -> list[tuple[str, Any]]:
    names = [f.name for f in fields(state)] if is_dataclass(state) else state._fields
    return [(name, getattr(state, name)) for name in names]


def replace_leaves(
    state: Any, replacement: Callable[[str, Any], Any], prefix: str = ""
) -> None:
    """Set every array of a state to what a function makes of its name and itself."""
    for name, value in _parts(state):
        if is_dataclass(value):
            replace_leaves(value, replacement, f"{prefix}{name}.")
        elif _is_node(value):
            arrays = (replacement(f"{prefix}{name}.{n}", a) for n, a in _parts(value))
            setattr(state, name, type(value)(*arrays))
        else:
            setattr(state, name, replacement(prefix + name, value))


def copy_rows(
    state: Any, rows: Any, source: Any, source_rows: Any = slice(None)
) -> None:
    """Set rows of every array of ``state`` from rows of an equally built one."""
    for (_, into), (_, from_) in zip(leaves(state), leaves(source), strict=True):
        into[rows] = from_[source_rows]


def take_rows(state: Any, rows: Any) -> Any:
    """A state of some rows, by indices or a mask; environment objects are the same."""
    parts = {
        name: take_rows(value, rows) if _is_node(value) else value[rows]
        for name, value in _parts(state)
    }
    return type(state)(**parts)


def is_opaque(leaf: Any) -> bool:
    """Whether a leaf holds Python objects, which no file can take."""
    return isinstance(leaf, np.ndarray) and leaf.dtype == object


def _is_tensor(leaf: Any) -> bool:
    """Whether a leaf is torch's, which need not have been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(leaf, torch.Tensor)


def _copy_objects(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of every object, one by one: an object that stands twice becomes two."""
    result = np.empty_like(array)
    for place in np.ndindex(array.shape):
        with _named_if_refused(array[place]):
            _refuse_to_forget(array[place])
            result[place] = copy.deepcopy(array[place])
    return result


@contextmanager
def _named_if_refused(env: Any) -> Iterator[None]:
    """Turn whatever a copy of an environment raises into SnapshotNotSupported."""
    try:
        yield
    except Exception as error:
        spec = getattr(env, "spec", None)
        name = type(env).__name__ if spec is None else spec.id
        raise SnapshotNotSupported(
            f"the inner environment {name} cannot be copied ({error}); "
            "use snapshot(exact=False), which keeps the learner and restarts "
            "the environments"
        ) from error


def _refuse_to_forget(env: Any) -> None:
    """Raise TypeError for an environment whose copy would silently start afresh.

    Gymnasium's simulators in C++ (Box2D, MuJoCo) are copied by calling the constructor
    again.
    """
    while env is not None:
        kind = type(env)
        if getattr(kind, "__getstate__", None) is EzPickle.__getstate__ and not hasattr(
            kind, "__deepcopy__"
        ):
            raise TypeError(f"{kind.__name__} copies its arguments, not its state")
        env = env.env if isinstance(env, gym.Wrapper) else None


def capture(
    state: Any, rows: Any = slice(None), opaque: bool = True
) -> dict[str, NDArray[Any]]:
    """A copy of every array, on the host.

    Args:
        state: what to copy.
        rows: of the population.
        opaque: whether to copy environment objects, too.

    Raises:
        SnapshotNotSupported: an environment object cannot be copied.
    """
    arrays = {}
    for name, leaf in leaves(state):
        if is_opaque(leaf):
            if opaque:
                arrays[name] = _copy_objects(leaf[rows])
        else:
            part = leaf[rows]
            if _is_tensor(part):
                part = part.numpy()
            # a slice is a view; choosing rows by index has made a copy
            arrays[name] = part.copy() if isinstance(rows, slice) else part
    return arrays


def objects(state: Any, rows: Any = slice(None)) -> dict[str, NDArray[Any]]:
    """Copies of the environment objects of some rows, alone.

    Raises:
        SnapshotNotSupported: one cannot be copied.
    """
    return {
        n: _copy_objects(leaf[rows]) for n, leaf in leaves(state) if is_opaque(leaf)
    }


def copied(state: Any) -> Any:
    """An equal state that shares no memory and no object with this one.

    Raises:
        SnapshotNotSupported: an environment object cannot be copied.
    """

    def copy_of(_: str, leaf: Any) -> Any:
        if _is_tensor(leaf):
            import torch

            with torch.inference_mode(False):  # memory that can be written to anywhere
                return leaf.clone()
        return _copy_objects(leaf) if is_opaque(leaf) else leaf.copy()

    result = take_rows(state, slice(None))
    replace_leaves(result, copy_of)
    return result


def packed(state: Any) -> Any:
    """A state that can be pickled: every environment object is bytes.

    They are pickled here, one by one, so that one that cannot be is named. Classes of
    scripts and notebooks go with them.

    Raises:
        SnapshotNotSupported: an environment object cannot be pickled.
    """

    def bytes_of(env: Any) -> bytes:
        with _named_if_refused(env):
            _refuse_to_forget(env)
            return bytes(cloudpickle.dumps(env))

    return _with_objects(state, bytes_of)


def unpacked(state: Any) -> Any:
    """The inverse of `packed`."""
    return _with_objects(state, pickle.loads)


def _with_objects(state: Any, replacement: Callable[[Any], Any]) -> Any:
    """A state on the same arrays, with each environment object replaced."""

    def replaced(_: str, leaf: Any) -> Any:
        if not is_opaque(leaf):
            return leaf
        result = np.empty_like(leaf)
        for place in np.ndindex(leaf.shape):
            result[place] = replacement(leaf[place])
        return result

    result = take_rows(state, slice(None))
    replace_leaves(result, replaced)
    return result


def move_rows(leaf: Any, rows: NDArray[np.int64], source: NDArray[np.int64]) -> None:
    """Set rows of an array from other rows of it, all as they were before.

    Done in parts that stay in the cache: a copy of a whole replay would be written to
    memory that the system has to provide first.
    """
    if _is_tensor(leaf):
        leaf = leaf.numpy()
    if leaf.nbytes < _PART or not leaf.flags.c_contiguous:
        leaf[rows] = leaf[source]
        return
    table = leaf.reshape(len(leaf), -1)  # a view
    width = max(1, _PART // (len(rows) * table.itemsize))
    for start in range(0, table.shape[1], width):
        part = table[:, start : start + width]
        part[rows] = part[source]


@dataclass(frozen=True)
class Snapshot:
    """The whole state of a population at a decision.

    Args:
        header: task, settings that shape the state, package version, exactness.
        arrays: by dotted name, population axis first.
    """

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def size(self) -> int:
        """Number of members."""
        return len(next(iter(self.arrays.values())))

    def select(self, members: Any) -> Snapshot:
        """A snapshot of some members (indices or a mask), in that order.

        Raises:
            SnapshotError: an index outside the population, or no member at all.
        """
        index = np.arange(self.size)
        try:
            chosen = index[np.asarray(members)]
        except IndexError as error:
            raise SnapshotError(
                f"members {members!r} do not fit a population of {self.size}; valid: "
                f"0 to {self.size - 1}"
            ) from error
        if chosen.size == 0:
            raise SnapshotError("select needs at least one member")
        arrays = {
            name: _copy_objects(a[chosen]) if is_opaque(a) else a[chosen]
            for name, a in self.arrays.items()
        }
        return Snapshot(self.header, arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file atomically.

        Raises:
            SnapshotNotSupported: the state holds environment objects.
        """
        from safetensors.numpy import save

        opaque = [name for name, a in self.arrays.items() if is_opaque(a)]
        if opaque:
            raise SnapshotNotSupported(
                f"{', '.join(opaque)}: environment objects cannot be written to a "
                "file; use snapshot(exact=False), which keeps the learner and restarts "
                "the environments"
            )
        arrays = {k: np.ascontiguousarray(a) for k, a in self.arrays.items()}
        header = {**self.header, "format": FORMAT}
        header["checksum"] = _checksum(header, arrays)
        data = save(arrays, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        write_whole(Path(path), data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Read a file that `save` wrote.

        Raises:
            SnapshotError: not such a file, damaged, or of a newer format.
            FileNotFoundError: no such file.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no snapshot file {path}")
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                # checked before reading: what follows differs in other formats
                if header["format"] != FORMAT:
                    raise SnapshotError(
                        f"{path} has format {header['format']!r}, written by dacrl-env "
                        f"{header.get('package')}; this version reads format {FORMAT}"
                    )
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise SnapshotError(
                f"{path} is not a dacrl-env snapshot: {error}"
            ) from error
        if header.pop("checksum", None) != _checksum(header, arrays):
            raise SnapshotError(f"{path} is damaged: its checksum does not match")
        header.pop("format")
        return cls(header, arrays)


def make_header(task: str, settings: dict[str, Any], exact: bool) -> dict[str, Any]:
    """What a snapshot says of itself."""
    return {
        "task": task,
        "settings": settings,
        "exact": exact,
        "package": __version__,
    }


def check(state: Any, snapshot: Snapshot, expected: dict[str, Any]) -> None:
    """Whether a snapshot fits a state.

    Args:
        state: of the same task, settings and population size.
        snapshot: what may be restored.
        expected: header of a snapshot of ``state``.

    Raises:
        SnapshotError: another task, other settings, size, or arrays.
    """
    if not isinstance(snapshot, Snapshot):
        raise SnapshotError(
            f"{_short(snapshot)} is no snapshot: take what snapshot() gives, or "
            "Snapshot.load(path)"
        )
    header = snapshot.header
    if not isinstance(header, Mapping) or not {*expected} <= {*header}:
        raise SnapshotError(f"the header of a snapshot has {', '.join(expected)}")
    differing = [
        line
        for key, name in (("task", "task"), ("settings", ""))
        for line in _differences(header[key], expected[key], name)
    ]
    if differing:
        more = len(differing) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        raise SnapshotError(
            f"the snapshot was made with {'; '.join(differing[:_SHOWN])}{rest}"
        )
    here = dict(leaves(state))
    size = len(next(iter(here.values())))
    if not snapshot.arrays:
        raise SnapshotError("the snapshot holds no arrays")
    if snapshot.size != size:
        raise SnapshotError(
            f"the snapshot holds {snapshot.size} members, this population {size}; "
            "use snapshot.select(members)"
        )
    exact = snapshot.header["exact"]
    wanted = {n for n, leaf in here.items() if exact or not is_opaque(leaf)}
    if wanted != set(snapshot.arrays):
        odd = sorted(wanted ^ set(snapshot.arrays))
        raise SnapshotError(f"arrays missing or unknown: {', '.join(odd)}")
    for name in wanted:
        a, leaf = snapshot.arrays[name], here[name]
        if tuple(a.shape) != tuple(leaf.shape) or _dtype(leaf) != a.dtype:
            raise SnapshotError(
                f"{name} is {a.dtype}{list(a.shape)}, expected "
                f"{_dtype(leaf)}{list(leaf.shape)}"
            )


def _differences(theirs: Any, mine: Any, name: str) -> Iterator[str]:
    """What differs between JSON values, by name."""
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        for key in [*mine, *(k for k in theirs if k not in mine)]:
            inner = f"{name}.{key}" if name else key
            yield from _differences(theirs.get(key), mine.get(key), inner)
    elif theirs != mine:
        yield f"{name or 'settings'} {_short(theirs)}, not {_short(mine)} as here"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else text[:_WIDTH] + "…"


def restore(state: Any, snapshot: Snapshot) -> None:
    """Set every array of a state that the snapshot fits (see `check`)."""
    for name, leaf in leaves(state):
        if name not in snapshot.arrays:  # an environment object of an inexact one
            continue
        a = snapshot.arrays[name]
        if _is_tensor(leaf):
            leaf = leaf.numpy()
        leaf[...] = _copy_objects(a) if is_opaque(a) else a


def _dtype(leaf: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = (leaf.numpy() if _is_tensor(leaf) else leaf).dtype
    return dtype


def _checksum(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    """Of the header without its checksum, and of every array."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        a = arrays[name]
        digest.update(f"{name} {a.dtype.str} {a.shape}".encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()
