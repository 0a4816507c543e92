"""Digests of files and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def digest(parts: Iterable[tuple[str, bytes]]) -> str:
    """Of names and contents, in their order."""
    result = hashlib.sha256()
    for name, content in parts:
        label = name.encode("utf-8", "surrogateescape")
        result.update(f"{len(label)} {len(content)} ".encode() + label + content)
    return result.hexdigest()


def short(data: bytes) -> str:
    """Of one content, in 32 characters."""
    return hashlib.sha256(data).hexdigest()[:32]
