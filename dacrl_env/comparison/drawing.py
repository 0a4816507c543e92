"""How figures and tables of comparisons look: colours, legends, files, names."""

import io
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dacrl_env.core.checks import unknown
from dacrl_env.core.files import write_whole

# Okabe and Ito's colour-blind safe palette without its yellow, which is faint on white.
# Seven colours and four line styles have no common factor, so 28 policies look
# different, and where lines coincide the dashes let the one below show through.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", (0, (6, 1.2)), (0, (3, 1)), (0, (6, 1, 1.5, 1)))
DPI = 150
LETTERS = 76  # of ordinary text, across a figure


def add_legend(figure: Figure, handles: list[Any], names: Sequence[Any]) -> None:
    """Names as they are, in as many columns as fit, above a figure that grows by them.

    No mathematics, and none that is hidden.
    """
    places = [str(number) for number in range(len(names))]
    ways = [(columns, LETTERS) for columns in range(min(4, len(names)), 0, -1)]
    for across, letters in (*ways, (1, LETTERS // 2), (1, LETTERS // 4)):
        for wider in figure.legends:
            wider.remove()
        legend = figure.legend(
            handles, places, loc="outside upper center", ncols=across,
            frameon=False, fontsize=9,
        )  # fmt: skip
        shown = wrapped(names, letters)
        for text, name in zip(legend.get_texts(), shown, strict=True):
            text.set_parse_math(False)
            text.set_text(name)
        with any_letters():
            box = legend.get_window_extent()
        if box.width <= figure.bbox.width:
            break
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


def wrapped(names: Sequence[Any], letters: int) -> list[str]:
    """Names on at most four lines, after commas and spaces where there are some.

    The middle of those that are longer is left out, with their place if that is all
    that tells them apart.
    """
    line = rf".{{1,{letters}}}$|.{{{letters // 2},{letters - 1}}}[, ]|.{{1,{letters}}}"
    every = [re.findall(line, printable(name)) for name in names]
    cut = [[*k[:2], "…", *k[-1:]] if len(k) > 4 else k for k in every]
    for place, lines in enumerate(cut):
        if cut.count(lines) > 1 and len(every[place]) > 4:
            lines = [*lines[:2], f"… ({place + 1}) …", lines[-1]]
        every[place] = lines
    return ["\n".join(lines) for lines in every]


@contextmanager
def any_letters() -> Iterator[None]:
    """A box stands for what the font does not have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


# formats without pixels, and what would differ from one time to the next
VECTOR = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure, whole or not at all; returns the path.

    It is a PNG file, or PDF or SVG where the path ends so.

    Raises:
        ValueError: it ends otherwise.
    """
    kind = Path(path).suffix[1:].lower()
    if kind not in ("png", *VECTOR):
        raise ValueError(unknown("kind of figure", kind, ["png", *VECTOR]))
    if kind in VECTOR:
        data = io.BytesIO()
        with any_letters():
            figure.savefig(data, format=kind, metadata=VECTOR[kind])
        write_whole(path, data.getvalue())
        return Path(path)
    canvas = FigureCanvasAgg(figure)
    with any_letters():
        canvas.draw()
    # A palette of 256 colours loses nothing one can see and is a third of the size.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    data = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(data, "PNG", dpi=(DPI, DPI))
    write_whole(path, data.getvalue())
    return Path(path)


def printable(name: Any) -> str:
    """A name on one line: control characters and line ends as their escapes."""
    return "".join(
        repr(letter)[1:-1] if is_control(letter) else letter for letter in str(name)
    )


def is_control(letter: str) -> bool:
    """Whether a letter is a control, a line end, or a byte that is no text."""
    return unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs")


def escaped(text: Any) -> str:
    """A text that means itself in Markdown."""
    shown = re.sub(r"([\\`*\[\]<>|$~])", r"\\\1", printable(text))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", shown)
