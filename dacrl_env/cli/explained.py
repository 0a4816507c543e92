"""What is said of an error: a line, or the traceback of a user's own code."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path

from gymnasium.error import Error

from dacrl_env.core import memory
from dacrl_env.core.processes import WorkerDiedError


def explain(error: BaseException, full: bool) -> str | None:
    """What is said of an error; None: it is no user's, and Python says it all.

    Errors in users' code are shown from that code on. What else users got wrong is one
    line.

    Args:
        error: with ``dacrl_blame``, if it is known whose code it left.
        full: the whole traceback.
    """
    whose, lines = getattr(error, "dacrl_blame", None), _users_lines(error)
    about = traceback.format_exception_only(error)
    if full:
        return "".join(traceback.format_exception(error)).rstrip()
    if whose is None and not lines:
        line = _line(error)
        return None if line is None else f"dacrl: {line}"
    place = f"your {whose}" if whose else "your code"
    if isinstance(error, SyntaxError):
        text = f"dacrl: {type(error).__name__} in {place}\n{''.join(about)}"
    else:
        said = f": {error}" if str(error) else ""
        text = f"dacrl: {type(error).__name__} in {place}{said}\n{lines}"
    return f"{text.rstrip()}\n(all of it with dacrl --traceback)"


def _users_lines(error: BaseException) -> str:
    """The traceback from a user's code on; empty: it is not in it.

    A worker process passes its traceback on as text.
    """
    frames = traceback.extract_tb(error.__traceback__)
    for first, frame in enumerate(frames):
        if not frame.filename.startswith(_not_users()) and not _is_cython(frame):
            return "".join(traceback.format_list(frames[first:]))
    return str(getattr(error, "dacrl_traceback", ""))


def _is_cython(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is of a library's compiled code, whose file is elsewhere."""
    name = Path(frame.filename)
    return name.suffix in (".pyx", ".pxd", ".pxi") and not name.exists()


def _not_users() -> tuple[str, ...]:
    """Where files of this package, of Python and of installed packages are.

    What has no file, as ``<frozen …>`` and a dataclass's ``<string>``, is nobody's.
    """
    names = ("", ".agents", ".baselines", ".benchmarks")
    modules = [sys.modules.get(f"dacrl_env{name}") for name in names]
    own = [str(Path(str(m.__file__)).parent) for m in modules if m is not None]
    paths = sysconfig.get_paths()
    places = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    return ("<", *own, *places, *installed)


def _line(error: BaseException) -> str | None:
    """What there is to say of an error; None: it is a fault of ours."""
    if memory.ran_out(error):
        about = " ".join(str(error).split())
        return f"out of memory{f' ({about})' if about else ''}; finished work is kept"
    if isinstance(error, ValueError | OSError | ImportError | Error | WorkerDiedError):
        return str(error)
    return None
