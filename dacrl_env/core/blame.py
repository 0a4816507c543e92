"""Whose code an error comes from: a mark on exceptions that users' code raises.

What users bring (inner environments, policies, methods, rewards) is called from deep
within. An exception keeps its type and traceback on the way out, and gets a note
(:pep:`678`) that begins with "in the user's ", beside two attributes that a worker
process passes on, unlike tracebacks:

- ``dacrl_blame``: whose code, as in the note;
- ``dacrl_traceback``: the lines of the traceback from the user's code on.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gymnasium

# frames before the user's: this package, and what Gymnasium has around environments
_BETWEEN = (
    str(Path(__file__).parents[1]),
    str(Path(str(gymnasium.__file__)).parent),
)


# what users' code raises; an exit in it is no wish to end the program
RAISED = (Exception, SystemExit)


def mark(error: BaseException, what: str) -> None:
    """Say of an exception that it comes from a user's code, unless that was said.

    Args:
        error: caught in the frame that called the user's code.
        what: whose, as in "policy Mine, decision 3".
    """
    if hasattr(error, "dacrl_blame"):
        return
    error.dacrl_blame = what  # type: ignore[attr-defined]
    error.dacrl_traceback = _users_part(error)  # type: ignore[attr-defined]
    error.add_note(f"in the user's {what}")


@contextmanager
def blame(what: str) -> Iterator[None]:
    """`mark` exceptions that are raised within; they go on as they are."""
    try:
        yield
    except RAISED as error:
        mark(error, what)
        raise


def blame_if_users(thing: Any, what: str) -> AbstractContextManager[None]:
    """`blame`, if a function, class or object is not of this package."""
    return blame(what) if is_users(thing) else nullcontext()


def is_users(thing: Any) -> bool:
    """Whether a function, a class, or the class of an object is not of this package."""
    named = inspect.isroutine(thing) or inspect.isclass(thing)
    module = str(getattr(thing if named else type(thing), "__module__", None))
    return module.partition(".")[0] != __name__.partition(".")[0]


def _users_part(error: BaseException) -> str:
    """The traceback without the frames that lead to the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    first = 0
    while first < len(frames) and frames[first].filename.startswith(_BETWEEN):
        first += 1
    return "".join(traceback.format_list(frames[first:] or frames))
