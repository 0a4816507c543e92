"""Results on disk: one Parquet file per finished unit of work.

A unit (a policy on a batch of seeds, one fit, …) is named by its *key*, a JSON-able
dict of everything that determines the result. A file appears under its final name only
when it is complete and on disk, so an interrupted comparison goes on where it stopped:
work whose key is in the store is skipped.

The key is in the file itself and is compared on every access, as is a digest of its
rows. Beside it are the time of writing and the versions of this package and its
libraries, which are no part of the key. A file that cannot be trusted raises
`StoreError`; it never counts as finished, is never redone in silence and is never
changed. Files hold columns of plain values alone; nothing is unpickled.
"""

import hashlib
import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dacrl_env.core import installed
from dacrl_env.core.files import write_whole

FORMAT_VERSION = 2
_KEY = b"dacrl_env.key"
_FORMAT = b"dacrl_env.format"
_ABOUT = b"dacrl_env.about"  # time and versions
_ROWS = b"dacrl_env.rows"  # digest of the rows
_SEAL = b"dacrl_env.seal"  # digest of all of these
PART = "seeds"  # in a key: which part of the same work a unit is
# in a key: what may change under one name, so that its results are out of date
VERSIONED = ("version", "definition", "origin", "fitted")
_T = TypeVar("_T")


class StoreError(ValueError):
    """A file of the store is damaged, foreign or too new; the message names it."""


@dataclass(frozen=True)
class Entry:
    """A finished unit, without its rows.

    Args:
        key: what it is.
        written: when, in nanoseconds since 1970.
        versions: of this package and its libraries, by name.
    """

    key: dict[str, Any]
    written: int
    versions: dict[str, str]


class Store:
    """Finished units of work in one directory.

    Several processes may share the directory. Two that write the same key do not
    disturb each other: each writes its own temporary file and the later rename stands.

    Args:
        directory: Where the files are; made by the first `write`.

    Raises:
        NotADirectoryError: If `directory` is a file.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise NotADirectoryError(f"{self.directory} is not a directory")

    def path(self, key: Mapping[str, Any]) -> Path:
        """File of a key, whether it exists or not: readable prefix, then hashes.

        The hashes are of what has results under one name, of the work, and of its part
        (see `versions` and `parts`).

        Raises:
            ValueError: If the key is not JSON-able (see `canonical`).
        """
        name, work, part = _hashes(key)
        words = [v for _, v in sorted(key.items()) if isinstance(v, str)]
        prefix = re.sub(r"[^A-Za-z0-9]+", "-", "_".join(words))[:70].strip("-")
        return self.directory / f"{prefix or 'unit'}-{name}-{work}-{part}.parquet"

    def write(self, key: Mapping[str, Any], frame: pd.DataFrame) -> Path:
        """Stores a finished unit durably and atomically; the index is not kept.

        Args:
            key: What the unit is.
            frame: Its rows, in columns of one type each.

        Returns:
            The file.

        Raises:
            StoreError: If a file that cannot be trusted has that name already.
            ValueError: If the key is not JSON-able or a column has mixed types.
        """
        path = self.path(key)
        self._has(path, canonical(key))  # refuses to replace what it cannot read
        table = pa.Table.from_pandas(frame, preserve_index=False)
        versions = {"dacrl-env": installed.version(), **installed.libraries()}
        about = {"written": time.time_ns(), "versions": versions}
        metadata = {
            _KEY: canonical(key),
            _FORMAT: str(FORMAT_VERSION),
            _ABOUT: canonical(about),
            _ROWS: _digest_of(table),
        }
        metadata[_SEAL] = _seal(*(metadata[n] for n in (_KEY, _ABOUT, _ROWS)))
        sink = pa.BufferOutputStream()
        # Page checksums let a flipped bit be noticed when the file is read.
        pq.write_table(
            table.replace_schema_metadata(metadata), sink, write_page_checksum=True
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, sink.getvalue().to_pybytes())
        return path

    def parts(self, key: Mapping[str, Any]) -> list[Entry]:
        """Finished units that differ from a key at most in their `PART`.

        Raises:
            StoreError: If one of their files cannot be trusted.
        """
        _, work, _ = _hashes(key)
        found = self._entries(f"*-{work}-????????.parquet")
        return [entry for entry in found if _hashes(entry.key)[1] == work]

    def versions(self, key: Mapping[str, Any]) -> list[Entry]:
        """Finished units that differ at most in `PART` and what is `VERSIONED`.

        Raises:
            StoreError: If one of their files cannot be trusted.
        """
        name, _, _ = _hashes(key)
        found = self._entries(f"*-{name}-????????????????-????????.parquet")
        return [entry for entry in found if _hashes(entry.key)[0] == name]

    def __contains__(self, key: Mapping[str, Any]) -> bool:
        """Whether the unit is finished.

        Raises:
            StoreError: If its file is there but cannot be trusted.
        """
        return self._has(self.path(key), canonical(key))

    def read(self, key: Mapping[str, Any]) -> pd.DataFrame:
        """Rows of one unit.

        Raises:
            KeyError: If the unit is not in the store.
            StoreError: If its file cannot be trusted.
        """
        return self._table(key).to_pandas()

    def read_all(self, keys: Iterable[Mapping[str, Any]] | None = None) -> pd.DataFrame:
        """Rows of several units, one below the other.

        Args:
            keys: Units in the order wanted; None reads all, in the order of `keys()`.

        Returns:
            A frame with the union of the columns, NaN where a unit lacks one; an empty
            frame for no units.

        Raises:
            KeyError: If one of `keys` is not in the store.
            StoreError: If a file cannot be trusted.
        """
        tables = [self._table(key) for key in (self.keys() if keys is None else keys)]
        if not tables:
            return pd.DataFrame()
        # Concatenated in Arrow, which promotes an all-null column to the type it has
        # elsewhere; pandas has changed its mind about that between versions.
        return pa.concat_tables(tables, promote_options="permissive").to_pandas()

    def keys(self) -> list[dict[str, Any]]:
        """Keys of all finished units, in the order of their JSON text.

        Raises:
            StoreError: If a Parquet file in the directory cannot be trusted.
        """
        return [entry.key for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """All finished units, in the order of the JSON text of their keys.

        Those of an older format are left out, with one warning.

        Raises:
            StoreError: If a Parquet file in the directory cannot be trusted.
        """
        # Temporaries end in `.tmp-…` and so do not match the pattern.
        return self._entries("*.parquet")

    def _entries(self, pattern: str) -> list[Entry]:
        found, old = [], 0
        for path in self.directory.glob(pattern):
            try:
                found.append(_read_entry(path))
            except FileNotFoundError:  # went since the folder was listed
                continue
            except _OldFormatError:
                old += 1
        if old:
            warnings.warn(
                f"{old} results in {self.directory} were written by an older "
                "dacrl-env and are left out; they can be deleted",
                stacklevel=3,
            )
        return sorted(found, key=lambda entry: canonical(entry.key))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterates over `keys()`."""
        return iter(self.keys())

    def _has(self, path: Path, text: str) -> bool:
        try:
            entry = _read_entry(path)
        except FileNotFoundError:
            return False
        if canonical(entry.key) != text:
            raise _error(path, "it holds another key than the one its name stands for")
        return True

    def _table(self, key: Mapping[str, Any]) -> pa.Table:
        path, text = self.path(key), canonical(key)
        try:
            with_metadata = self._has(path, text) and _parquet(
                path,
                lambda file: pq.read_table(
                    file,
                    use_threads=False,
                    pre_buffer=False,  # by threads, which memory may not suffice for
                    page_checksum_verification=True,
                ),
            )
        except FileNotFoundError:  # went in between
            with_metadata = False
        if not with_metadata:
            raise KeyError(f"not in the store {self.directory}: {text}")
        table = with_metadata.replace_schema_metadata(None)
        if _digest_of(table) != with_metadata.schema.metadata[_ROWS].decode():
            raise _error(path, "it is damaged (its rows are not those that it had)")
        return table


def canonical(key: Mapping[str, Any]) -> str:
    """One JSON text per key: names sorted, tuples as lists, no spaces.

    Raises:
        ValueError: If the key is not a dict or has, at any depth, a name that is not a
            string, a NaN or infinity, or a value JSON does not know.
    """
    if not isinstance(key, Mapping):
        raise ValueError(f"a key must be a dict, not {type(key).__name__}")
    return json.dumps(_plain(key, "key"), sort_keys=True, separators=(",", ":"))


def digest(key: Mapping[str, Any]) -> str:
    """Of the `canonical` text of a key, in hexadecimal digits."""
    return _sha(canonical(key).encode())


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold")
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{where} has the name {name!r}, not a string")
        return {
            name: _plain(item, f"{where}[{name!r}]") for name, item in value.items()
        }
    raise ValueError(
        f"{where} is a {type(value).__module__}.{type(value).__name__}; use None, "
        "bool, int, float, str, list, tuple or dict"
    )


class _OldFormatError(StoreError):
    """Written by an older version of this package."""


def _read_entry(path: Path) -> Entry:
    """What the footer of a file says, which is ours, complete and readable."""
    schema = _parquet(path, lambda file: pq.ParquetFile(file).schema_arrow)
    metadata = schema.metadata or {}
    if _KEY not in metadata or _FORMAT not in metadata:
        raise _error(path, "it was not written by dacrl-env")
    version = metadata[_FORMAT].decode(errors="replace")
    if version == "1" and _SEAL not in metadata:
        raise _OldFormatError(
            f"{path} has format 1, of an older dacrl-env; this one reads format "
            f"{FORMAT_VERSION}. Delete that file; the unit is then run again."
        )
    if version != str(FORMAT_VERSION):
        raise StoreError(
            f"{path} has format {version}, but this dacrl-env reads format "
            f"{FORMAT_VERSION}. Update dacrl-env, or delete that file; the unit is "
            "then run again."
        )
    try:
        key, about, rows, seal = (
            metadata[name].decode() for name in (_KEY, _ABOUT, _ROWS, _SEAL)
        )
        if _seal(key, about, rows) != seal:
            raise ValueError("it is not what was written")
        entry = Entry(json.loads(key), **json.loads(about))
        name = Store(path.parent).path(entry.key).name
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _error(path, f"its key cannot be read ({error})") from error
    if name != path.name:  # a copy by hand would otherwise count every run twice
        raise _error(path, f"its name does not match its key, which belongs in {name}")
    return entry


def _hashes(key: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of what has results under one name, of the work, and of its part."""
    whole = json.loads(canonical(key))
    work = {k: v for k, v in whole.items() if k != PART}
    name = {k: v for k, v in work.items() if k not in VERSIONED}
    return digest(name)[:8], digest(work)[:16], digest(whole)[:8]


def _seal(key: str, about: str, rows: str) -> str:
    return _sha("\n".join((key, about, rows)).encode())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of(table: pa.Table) -> str:
    """Of names, types and values of all columns."""
    found = hashlib.sha256(f"{table.num_rows} {table.num_columns}".encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        # what Parquet calls the elements of lists differs from what Arrow does
        shown = f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)
        found.update(f"\n{len(name)} {name} {shown} ".encode())
        array = column.combine_chunks()
        found.update(np.packbits(array.is_null().to_numpy(False)).tobytes())
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            values = array.fill_null(0).to_numpy(False)
            found.update(np.ascontiguousarray(values).tobytes())
        else:
            found.update(json.dumps(array.to_pylist(), default=repr).encode())
    return found.hexdigest()


def _parquet(path: Path, read: Callable[[Any], _T]) -> _T:
    """Applies `read` to the opened file and names the file if it is damaged."""
    # a missing file or permission is no damage: raised as it is
    with path.open("rb") as file:
        try:
            return read(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise _error(path, f"it is damaged or cut short ({what})") from error


def _error(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} cannot be used: {what}. Delete that file (or move it elsewhere); the "
        "unit is then run again."
    )
