"""What a worker process runs first, before anything heavy is imported.

Run as a program by `processes.start`, with the number of a pipe's descriptor and of the
parent process as arguments. It needs the standard library alone, since importing torch
takes seconds, in which a parent can die and a terminal can interrupt.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType

POLL = 0.1  # seconds between looks at the parent
GRACE = 0.6  # seconds in which a process may close what it holds, before it is killed


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind without a word, so that whatever is open gets closed."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    raise SystemExit(128 + number)


def leaving() -> bool:
    """Whether this process has been asked to end."""
    return signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def _watch(parent: int) -> None:
    """End when the parent has: then this process belongs to another one."""
    while os.getppid() == parent:
        time.sleep(POLL)
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def main() -> None:
    """Call the function that comes through the pipe, and end."""
    # a terminal interrupts all its processes: the parent decides what that means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _leave)
    status = 0
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # all were held back until here
        descriptor, parent = map(int, sys.argv[1:3])
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
        _call(descriptor)
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    # the interpreter would take torch apart for half a second
    os._exit(status)


def _call(descriptor: int) -> None:
    pipe: Connection = Connection(descriptor)
    try:
        path, arguments, (module, name), given = pipe.recv()
    except (EOFError, ConnectionError):  # the parent is gone
        return
    sys.path[:], sys.argv[:] = path, arguments
    getattr(importlib.import_module(module), name)(pipe, *given)


if __name__ == "__main__":
    main()
