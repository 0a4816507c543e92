"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name, flush it, and rename it, durably.

    Whoever reads sees the old file or the new one; several writers do not disturb each
    other, and the last rename stands. A kill leaves at most a file ``….tmp-…``, which
    counts for nothing.

    Args:
        path: of the file; its directory exists.
        data: all that is in it.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt, too
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # a full disk names none
        raise
    _sync_directory(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_whole` of a text in UTF-8; what that cannot hold becomes ``?``."""
    write_whole(path, text.encode("utf-8", "replace"))


def read_json(data: bytes | str, nan: bool = False) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        data: what is in the file.
        nan: whether numbers may be NaN or infinite, which JSON does not know.

    Raises:
        ValueError: it is none: cut short, nested too deeply, with repeated names or
            such numbers; the message is one line.
    """
    constant = float if nan else _no_constant
    try:
        content = json.loads(
            data, parse_constant=constant, object_pairs_hook=_no_repetition
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a JSON object")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return content


def _sync_directory(directory: Path) -> None:
    """Make a rename durable; Windows has no such call and needs none."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
