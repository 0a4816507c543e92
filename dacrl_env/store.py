"""Results on disk: one Parquet file per finished unit of work.

A unit (a policy on a batch of seeds, one fit, …) is named by its *key*, a JSON-able
dict of everything that determines the result. A file appears under its final name only
when it is complete and on disk, so an interrupted comparison goes on where it stopped:
work whose key is in the store is skipped.

The key is in the file itself and is compared on every access. A file that cannot be
trusted raises `StoreError`; it never counts as finished, is never redone in silence and
is never changed. Files hold columns of plain values alone; nothing is unpickled.
"""

import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FORMAT_VERSION = 1
_KEY = b"dacrl_env.key"
_FORMAT = b"dacrl_env.format"
_T = TypeVar("_T")


class StoreError(ValueError):
    """A file of the store is damaged, foreign or too new; the message names it."""


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
        """File of a key, whether it exists or not: readable prefix, then a hash.

        Raises:
            ValueError: If the key is not JSON-able (see `canonical`).
        """
        text = canonical(key)
        words = [v for _, v in sorted(key.items()) if isinstance(v, str)]
        prefix = re.sub(r"[^A-Za-z0-9]+", "-", "_".join(words))[:80].strip("-")
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.directory / f"{prefix or 'unit'}-{digest}.parquet"

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
        metadata = {_KEY: canonical(key), _FORMAT: str(FORMAT_VERSION)}
        table = table.replace_schema_metadata(metadata)
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                # Page checksums let a flipped bit be noticed when the file is read.
                pq.write_table(table, file, write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # also an interrupt; a kill leaves a harmless file
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(self.directory)
        return path

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
        # Temporaries end in `.tmp-…` and so do not match the pattern.
        texts = (_read_key(path) for path in self.directory.glob("*.parquet"))
        return [json.loads(text) for text in sorted(texts)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterates over `keys()`."""
        return iter(self.keys())

    def _has(self, path: Path, text: str) -> bool:
        if not path.exists():
            return False
        if _read_key(path) != text:
            raise _error(path, "it holds another key than the one its name stands for")
        return True

    def _table(self, key: Mapping[str, Any]) -> pa.Table:
        path, text = self.path(key), canonical(key)
        if not self._has(path, text):
            raise KeyError(f"not in the store {self.directory}: {text}")
        table = _parquet(
            path,
            lambda file: pq.read_table(
                file, use_threads=False, page_checksum_verification=True
            ),
        )
        return table.replace_schema_metadata(None)


def canonical(key: Mapping[str, Any]) -> str:
    """One JSON text per key: names sorted, tuples as lists, no spaces.

    Raises:
        ValueError: If the key is not a dict or has, at any depth, a name that is not a
            string, a NaN or infinity, or a value JSON does not know.
    """
    if not isinstance(key, Mapping):
        raise ValueError(f"a key must be a dict, not {type(key).__name__}")
    return json.dumps(_plain(key, "key"), sort_keys=True, separators=(",", ":"))


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


def _read_key(path: Path) -> str:
    """Canonical key in the footer of a file that is ours, complete and readable."""
    schema = _parquet(path, lambda file: pq.ParquetFile(file).schema_arrow)
    metadata = schema.metadata or {}
    if _KEY not in metadata or _FORMAT not in metadata:
        raise _error(path, "it was not written by dacrl-env")
    version = metadata[_FORMAT].decode(errors="replace")
    if version != str(FORMAT_VERSION):
        raise StoreError(
            f"{path} has format {version}, but this dacrl-env reads format "
            f"{FORMAT_VERSION}. Update dacrl-env, or delete that file; the unit is "
            "then run again."
        )
    try:
        text = metadata[_KEY].decode()
        name = Store(path.parent).path(json.loads(text)).name
    except ValueError as error:
        raise _error(path, f"its key cannot be read ({error})") from error
    if name != path.name:  # a copy by hand would otherwise count every run twice
        raise _error(path, f"its name does not match its key, which belongs in {name}")
    return text


def _parquet(path: Path, read: Callable[[Any], _T]) -> _T:
    """Applies `read` to the opened file and names the file if it is damaged."""
    with path.open("rb") as file:  # a missing permission is no damage: raised as it is
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


def _sync_directory(directory: Path) -> None:
    """Makes a rename durable; Windows has no such call and needs none."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
