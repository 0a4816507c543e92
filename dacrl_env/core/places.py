"""Whether files can be written where they are to be, before the work for them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_folder(directory: str | os.PathLike[str]) -> None:
    """Make a directory, and raise an OSError if nothing can be written to it."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".dacrl-", dir=directory)
        try:
            os.write(handle, bytes(4096))
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        raise type(error)(
            f"results cannot be written to {directory}: {error.strerror}"
        ) from error


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if a file cannot be written: there is no folder for it, say."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory, and should be a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} cannot be written")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {path.parent} for {path.name}")
    check_folder(path.parent)
