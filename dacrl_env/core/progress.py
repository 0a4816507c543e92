"""Progress of long work on standard error: a bar, or lines without a terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SECONDS = 10.0  # between two lines


class _Bar(tqdm):
    """A bar that is full when its work is done, if less was to do than was thought."""

    def __exit__(self, kind: Any, *others: Any) -> None:
        if kind is None and self.n:
            self.total = self.n
        super().__exit__(kind, *others)


class _Lines(_Bar):
    """Whole lines, for files that somebody reads afterwards."""

    _closed = False

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write how far it is, in a line of its own."""
        if self.n and msg != "":
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return True

    def close(self) -> None:
        """Write the last line, if there was a first one."""
        if not (self.disable or self._closed) and self.n > self.last_print_n:
            self.display()
        self._closed = True


def progress(total: int, what: str, shown: bool, unit: str = "steps") -> Any:
    """A bar of steps, with the time that is left.

    Args:
        total: steps; it may be changed.
        what: is done.
        shown: whether it is.
        unit: what is counted.

    Returns:
        A tqdm bar, a context manager with ``update`` and ``total``.
    """
    given: dict[str, Any] = {
        "total": total,
        "unit": f" {unit}",
        "unit_scale": True,
        "desc": what,
        "disable": not shown,
    }
    if sys.stderr.isatty():
        return _Bar(**given)
    text = (
        "{desc}: {percentage:.0f}% of {total_fmt}{unit}, {remaining} left, {rate_fmt}"
    )
    return _Lines(**given, mininterval=SECONDS, maxinterval=SECONDS, bar_format=text)
