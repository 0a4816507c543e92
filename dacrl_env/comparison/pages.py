"""HTML pages that need nothing else: one file each, with its scripts and its data.

Templates, style and script lie in ``html/``; in ``html/vendored/`` are Plotly.js (its
bundle ``basic``) and Tablesort as npm has them, with their licences. Whatever a page
shows is escaped by Jinja2 where it is text, and by `Page.data` where scripts read it. A
content security policy names the scripts by their hashes and forbids all requests, so
that a page can do no more than it was made to, whatever names stand in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from dacrl_env.comparison.drawing import COLOURS, STYLES, printable, wrapped
from dacrl_env.core.files import write_text

NAME = "report.html"
DIGITS = 4  # of numbers in figures
HTML = Path(__file__).with_name("html")
VENDORED = {
    "plotly-basic.min.js": "plotly.js-basic-dist-min 4.1.1",
    "tablesort.min.js": "tablesort 5.7.1",
}
"""Files of other projects, and the packages of npm that they are from."""

_SCRIPTS = (*(f"vendored/{name}" for name in VENDORED), "page.js")
# Plotly makes style sheets and images of its own; nothing is asked of any host
_POLICY = (
    "default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
)


class Table(NamedTuple):
    """Cells as text.

    Attributes:
        heads: of the columns.
        rows: of cells.
        texts: number of columns, from the first, that are texts; the rest are numbers.
        links: addresses that cells of the first column lead to, relative; none: no
            links.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    links: Sequence[str] = ()


@dataclass
class Page:
    """What a page shows, from its top.

    Attributes:
        title: of the page.
        headline: the verdict, in a sentence.
        verdict: more of it, sentences.
        verdict_table: what it rests on.
        notes: sentences.
        figures: plain data, see ``page.js``.
        policies: names in the order of their colours.
        sections: headings, with paragraphs and tables below them.
        facts: settings, by name.
        commands: that make the results again.
        more: files beside the page, by what is in them.
    """

    title: str
    headline: str
    verdict: Sequence[str] = ()
    verdict_table: Table | None = None
    notes: Sequence[str] = ()
    figures: Sequence[Mapping[str, Any]] = ()
    policies: Sequence[str] = ()
    sections: Sequence[Section] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    more: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it, whole or not at all; returns the path."""
        write_text(path, self.html())
        return Path(path)

    def html(self) -> str:
        """The whole file."""
        scripts = _scripts()
        return (
            _templates()
            .get_template("page.html")
            .render(
                page=self,
                looks=[look(place) for place in range(len(self.policies))],
                data=self.data(),
                scripts=[Markup(text) for text in scripts],
                csp=_POLICY.format(hashes=" ".join(map(_hash, scripts))),
            )
        )

    def data(self) -> Markup:
        """What scripts read: JSON, in which nothing can end the element it is in."""
        shown = wrapped(self.policies, 40)
        policies = [
            {"label": label.split("\n"), **look(place)}
            for place, label in enumerate(shown)
        ]
        content = {"policies": policies, "figures": list(self.figures)}
        return htmlsafe_json_dumps(content, allow_nan=False, separators=(",", ":"))


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        title: heading.
        before: paragraphs above the tables.
        tables: that can be sorted.
        after: paragraphs below them.
        figure: index of a figure that is shown above the tables; None: none.
    """

    title: str
    before: Sequence[str] = ()
    tables: Sequence[Table] = ()
    after: Sequence[str] = ()
    figure: int | None = None


def look(place: int) -> dict[str, str]:
    """Colour and dashes of the policy at a place, those that figures have."""
    style = STYLES[place % len(STYLES)]
    dashes = (
        "" if isinstance(style, str) else " ".join(f"{n * 1.5:g}" for n in style[1])
    )
    return {"colour": COLOURS[place % len(COLOURS)], "dashes": dashes}


def numbers(values: Any) -> list[float | int | None]:
    """Values for a figure, rounded to `DIGITS`; None where there is none."""
    return [number(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def number(value: float) -> float | int | None:
    """A value for a figure, see `numbers`."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:  # steps, and other whole numbers
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def paragraphs(markdown: str) -> list[str]:
    """Paragraphs of plain text of a note in Markdown that has emphasis and code."""
    text = re.sub(r"(?<!\w)\*([^*]+)\*(?!\w)", r"\1", markdown.replace("`", ""))
    return [" ".join(part.split()) for part in text.split("\n\n")]


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HTML),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["printable"] = printable
    return made


@functools.cache
def _scripts() -> tuple[str, ...]:
    return tuple((HTML / name).read_text(encoding="utf-8") for name in _SCRIPTS)


@functools.cache
def _hash(script: str) -> str:
    """Of a script, as content security policies name it."""
    found = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(found).decode()}'"
