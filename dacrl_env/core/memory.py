"""How much memory there is, asked before much of it is taken.

A process that takes more than there is is killed by the system, without a word.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_LITTLE = 2**26  # bytes that nobody asks for
# of torch, threads and libraries that are loaded
_OUT = (
    "can't allocate memory",
    "not enough memory",
    "can't start new thread",
    "failed to map segment",
)


def ran_out(error: BaseException) -> bool:
    """Whether an error comes of memory that there was not."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, MemoryError) or any(w in str(chain) for w in _OUT):
            return True
        if isinstance(chain, OSError) and chain.errno == errno.ENOMEM:
            return True
        before = None if chain.__suppress_context__ else chain.__context__
        chain = chain.__cause__ or before
    return False


def check(size: int, parts: Mapping[str, int], values: Mapping[str, object]) -> None:
    """Refuse what would not fit.

    Args:
        size: number of runs.
        parts: bytes that are needed, by the option that they depend on most.
        values: of these options.

    Raises:
        ValueError: more is needed than there is.
    """
    needed = sum(parts.values())
    if needed < _LITTLE:
        return
    free = available()
    if free is None or needed <= free:
        return
    most = max(parts, key=lambda name: parts[name])
    value = "" if values[most] is None else f"={values[most]!r}"
    runs = "one run needs" if size == 1 else f"{size:,} runs need"
    raise ValueError(
        f"{runs} about {_in_words(needed)} of memory, {_in_words(parts[most])} of it "
        f"for {most}{value}; there are {_in_words(free)}: take fewer runs, "
        f"or a smaller {most}"
    )


def available() -> int | None:
    """Bytes that this process can still take; None: the system does not say."""
    known = [_of_system(), _of_container(), _of_process()]
    return min((max(n, 0) for n in known if n is not None), default=None)


def _of_system() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):  # what there is in all
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_container() -> int | None:
    """What control groups leave, of both versions."""
    top = Path("/sys/fs/cgroup")
    paths = [""]
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        paths += [line.split(":", 2)[-1].lstrip("/") for line in lines]
    left = []
    for path in dict.fromkeys(paths):
        for folder, most, used in (
            (top / path, "memory.max", "memory.current"),
            (
                top / "memory" / path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
        ):
            with suppress(OSError, ValueError):  # "max": no limit
                limit = int((folder / most).read_text())
                left.append(limit - int((folder / used).read_text()) + _cached(folder))
    return min(left, default=None)


def _cached(folder: Path) -> int:
    """Bytes of files that a control group would give up first."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0


def _of_process() -> int | None:
    """What a limit on the address space leaves (``ulimit -v``)."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return limit - pages * resource.getpagesize()
    return limit


def _in_words(number: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 10**6:,.0f} MB"
