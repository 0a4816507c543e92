"""One writer a unit of work, known to be alive.

A lock is a file in the store that the operating system ties to a process (flock, by the
filelock package): it is free at once when its owner is gone, however that ended. The
file stays when the lock is released, since who removes it could divide those who wait
for it; it says who the last owner was, and that counts only while the lock is held.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dacrl_env.core.store import StoreError, canonical

# what file systems answer that have no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    pid: int
    host: str
    since: str  # local time

    @classmethod
    def here(cls) -> Owner:
        """This process, from now on."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%F %T"))

    @property
    def is_here(self) -> bool:
        """Whether that is this process."""
        return (self.pid, self.host) == (os.getpid(), socket.gethostname())

    def __str__(self) -> str:
        here = "this process, " if self.is_here else "process "
        return f"{here}{self.pid} on {self.host}, since {self.since}"


class Busy(StoreError):  # noqa: N818 - a state, that others wait for
    """Somebody else is writing what was asked for.

    Args:
        what: in words.
        owner: who is; None: that cannot be read.
    """

    def __init__(self, what: str, owner: Owner | None) -> None:
        super().__init__(what, owner)
        self.what, self.owner = what, owner

    def __str__(self) -> str:
        return f"{self.what} is in use by {self.owner or 'another process'}"


class Lock:
    """A lock that is held until `release`, or until it is forgotten.

    Args:
        directory: of the store.
        name: of its file.
        what: the same in words.

    Raises:
        Busy: somebody else holds it.
    """

    def __init__(self, directory: Path, name: str, what: str) -> None:
        path = _path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # no marker files where there are no locks: a dead process would leave them
        self._lock = FileLock(
            path, timeout=0, thread_local=False, fallback_to_soft=False
        )
        try:
            self._lock.acquire()
        except Timeout:
            raise Busy(what, _owner(path)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn(directory, error)
            return
        try:
            with suppress(OSError):  # for messages alone
                path.write_text(json.dumps(asdict(Owner.here())))
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        """Give it back; nothing where it is not held."""
        self._lock.release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *about: object) -> None:
        self.release()


def unit_lock(directory: Path, key: Mapping[str, Any]) -> Lock:
    """The lock of a unit of work; see `Lock`."""
    return Lock(directory, _digest(key), about(key))


def journal_lock(directory: Path, key: Mapping[str, Any]) -> Lock:
    """The lock of the journal, or the checkpoints, of a fit; see `Lock`."""
    return Lock(directory, f"{_digest(key)}-journal", f"the journal of {about(key)}")


def held(directory: Path, key: Mapping[str, Any]) -> Busy | None:
    """Who holds the lock of a unit of work; None: nobody, or there are no locks.

    It is free again at once, and who held it last is still told.
    """
    path = _path(directory, _digest(key))
    if not path.exists():
        return None
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        with lock:
            return None
    except Timeout:
        return Busy(about(key), _owner(path))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None


def about(key: Mapping[str, Any]) -> str:
    """A unit of work in words."""
    who = key.get("policy") or str(key.get("method", "")).rpartition(":")[2]
    number = key.get("seed", key.get("run"))
    words = [key.get("kind"), who, key.get("task")]
    words.append(None if number is None else f"run {number}")
    words.append(f"seeds {_range(key['seeds'])}" if key.get("seeds") else None)
    return " ".join(str(word) for word in words if word)


def _path(directory: Path, name: str) -> Path:
    return directory / "locks" / f"{name}.lock"


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(key).encode()).hexdigest()[:16]


def _range(seeds: list[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _owner(path: Path) -> Owner | None:
    try:
        content = json.loads(path.read_text())
        return Owner(int(content["pid"]), str(content["host"]), str(content["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


_warned: set[Path] = set()


def _warn(directory: Path, error: OSError) -> None:
    """Once a store: there are no locks."""
    if directory in _warned:
        return
    _warned.add(directory)
    warnings.warn(
        f"the file system of {directory} has no locks ({error.strerror}): let one "
        "process at a time write there",
        RuntimeWarning,
        stacklevel=4,
    )
