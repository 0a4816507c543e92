"""Notebooks as text, in jupytext's percent format, and as Markdown for the site.

A cell begins at a line ``# %%``, or ``# %% [markdown]`` where it is text, each line of
which is a comment. Before the first cell there may be a header between two lines
``# ---``. Specification: https://jupytext.readthedocs.io/en/latest/formats-scripts.html
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEADER = re.compile(r"\A# ---\n.*?^# ---\n", re.DOTALL | re.MULTILINE)
_CELL = re.compile(r"^# %%(?: (\[markdown\]))?\n", re.MULTILINE)
_COMMENT = re.compile(r"^# ?", re.MULTILINE)
_FENCES = ("```", "````")  # a longer one around code that has the shorter


class Cell(NamedTuple):
    """A cell of a notebook: "markdown" or "code", and its source."""

    kind: str
    source: str


def cells(text: str) -> list[Cell]:
    """The cells of a notebook.

    Raises:
        ValueError: something stands before the first cell.
    """
    before, *parts = _CELL.split(_HEADER.sub("", text, count=1))
    if before.strip():
        raise ValueError(f"before the first cell there is {before.strip()[:40]!r}")
    found = []
    for marker, source in zip(parts[::2], parts[1::2], strict=True):
        if marker:
            found.append(Cell("markdown", _COMMENT.sub("", source).strip()))
        else:
            found.append(Cell("code", source.strip("\n")))
    return found


def markdown(text: str) -> str:
    """A notebook as a page: its text, and its code in blocks, without outputs."""
    blocks = []
    for kind, source in cells(text):
        fence = _FENCES["```" in source]
        code = f"{fence}python\n{source}\n{fence}"
        blocks.append(source if kind == "markdown" else code)
    return "\n\n".join(blocks) + "\n"
