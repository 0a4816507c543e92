"""The command ``dacrl``.

It lies outside of the package, whose import takes a moment in which an interrupt would
be a traceback.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"dacrl: interrupted before it began; the same command begins anew\n")
    os._exit(128 + number)


def program() -> None:
    """Run it; see `dacrl_env.cli.commands.program`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    from dacrl_env.cli.commands import program

    program()


if __name__ == "__main__":
    program()
