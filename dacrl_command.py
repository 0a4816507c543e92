"""The command ``dacrl``.

It lies outside of the package, whose import takes a moment in which an interrupt would
be a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"dacrl: interrupted before it began; the same command begins anew\n")
    os._exit(128 + number)


def program() -> None:
    """Run it; see `dacrl_env.cli.commands.program`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        from dacrl_env.cli.commands import program
    except (ImportError, MemoryError) as error:
        if "--traceback" in sys.argv:
            raise
        first: BaseException = error  # of those that led to one another
        while first.__context__ is not None:
            first = first.__context__
        about = str(first) or "out of memory"
        os.write(2, f"dacrl: it cannot be loaded: {about}\n".encode())
        sys.exit(1)

    program()


if __name__ == "__main__":
    program()
