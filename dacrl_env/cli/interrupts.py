"""What the command line does when it is told to end, by Ctrl-C or SIGTERM.

The first signal unwinds the program, so that workers and environments are ended and
bars closed. A second one, or a program that has not unwound in time, ends the process
where it stands. A thread sees to that: the main one may be deep in compiled code. (Code
that keeps Python's interpreter to itself, as a long ``sum(range(...))``, keeps this
thread waiting, too.)
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from dacrl_env.core import processes

UNWIND_SECONDS = 1.2  # that the first signal leaves
# within which signals are one: a terminal and what started the command both send it
SAME_SECONDS = 0.1

_AGAIN_SECONDS = 0.02  # until what nobody would hear is raised again
_END = 0  # beside the numbers of signals
_WEAK_REFERENCES = ("/weakref.py", "/_weakrefset.py")  # which call what is told of ends


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""


class Interrupts:
    """Whether the process was told to end, and what there is to say then.

    Args:
        line: that says how to go on; it may be set later.
    """

    def __init__(self, line: str) -> None:
        self.line = line
        self.number: int | None = None  # of the first signal
        self.before_alarm: Any = None  # what SIGALRM did before it was needed here
        self._unsaid = threading.Lock()

    @property
    def status(self) -> int:
        """Exit status after the signal."""
        return 128 + (self.number or signal.SIGINT)

    def say(self) -> None:
        """Write the line, once."""
        if self._unsaid.acquire(blocking=False):
            print(self.line, file=sys.stderr)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            self._unwind(number, frame)

    def _unwind(self, number: int, frame: FrameType | None) -> None:
        """Raise `Stopped`, as soon as somebody hears it."""
        if not _unheard(frame):
            raise Stopped
        handler = signal.signal(signal.SIGALRM, self._unwind)
        if self.before_alarm is None:
            self.before_alarm = handler
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)

    def _guard(self, descriptor: int) -> None:
        """End the process at the second signal, or when the first is not answered."""
        number = _next(descriptor, None)
        if number == _END:
            return
        time.sleep(SAME_SECONDS)
        while (same := _next(descriptor, 0)) is not None:
            if same == _END:
                return
        if _next(descriptor, UNWIND_SECONDS) == _END:
            return
        self.number = number
        processes.kill_all()
        if self._unsaid.acquire(blocking=False):
            # past the buffers, which the main thread may be in the middle of, and
            # below a bar that it has not closed
            with suppress(OSError):
                os.write(2, f"\n{self.line}\n".encode(errors="replace"))
        os._exit(self.status)


def _unheard(frame: FrameType | None) -> bool:
    """Whether errors are printed and ignored where a program is.

    That is where the compiler has called Python, and where something is deleted.
    """
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if name == "__del__" or file.endswith(_WEAK_REFERENCES):
            return True
        if "llvmlite" in file and name.startswith("_raw_"):
            return True
        if name == "cb" and file == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _next(descriptor: int, seconds: float | None) -> int | None:
    """The next signal, or `_END`; None: neither within so many seconds."""
    while select.select([descriptor], [], [], seconds)[0]:
        number = os.read(descriptor, 1)[0]
        if number == _END or number in processes.SIGNALS:
            return number
    return None


@contextmanager
def answered(line: str, after: Any = None) -> Iterator[Interrupts]:
    """Signals raise `Stopped` meanwhile, once; see `Interrupts`.

    Elsewhere than in the main thread, and where a signal is ignored (nohup), nothing
    changes.

    Args:
        line: see `Interrupts`.
        after: what signals do afterwards; None: what they did before.
    """
    interrupts = Interrupts(line)
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    guard = threading.Thread(target=interrupts._guard, args=(reading,), daemon=True)
    guard.start()
    waker = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, interrupts._raise)
        for number in processes.SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield interrupts
    finally:
        if interrupts.number is None:
            interrupts.number = _END  # the next signal is too late
        if interrupts.before_alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, interrupts.before_alarm)
        for number, handler in before.items():
            signal.signal(number, handler if after is None else after)
        signal.set_wakeup_fd(waker)
        os.write(writing, bytes([_END]))
        guard.join()
        os.close(reading)
        os.close(writing)


def _forget() -> None:
    """A fork is no command: signals mean to it what they mean to any program."""
    with suppress(ValueError):  # not the main thread
        handler = signal.getsignal(signal.SIGINT)
        if isinstance(getattr(handler, "__self__", None), Interrupts):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
