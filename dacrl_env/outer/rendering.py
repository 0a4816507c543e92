"""One run as it went so far, as a line of text or as an image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.tasks import Event, Knob, Number, Option

RENDER_MODES = ("ansi", "rgb_array")
WIDTH, HEIGHT = 640, 480  # pixels, of which video codecs want multiples of 16
# Okabe and Ito's colours without yellow, which is faint on white
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")  # as many as there may be colours times over
_NAMED = 10  # values that are written out beside the curves
_LETTERS = 30  # of a line there
_DPI = 100
_LEFT, _SPAN, _BESIDE = 0.1, 0.48, 0.61  # shares of the width


def check_render_mode(mode: Any) -> None:
    """Raise a ValueError for a mode that there is not; None is one."""
    if mode is not None and mode not in RENDER_MODES:
        raise ValueError(
            f"unknown render_mode {mode!r}; valid: {', '.join(RENDER_MODES)}, None"
        )


@dataclass(frozen=True)
class _Point:
    """What is shown of a decision; the first is the beginning."""

    decision: int
    env_steps: int
    score: float
    reward: float | None  # None: of the beginning, which has none
    values: Mapping[str, Option]  # as applied; inactive ones are left out
    diverged: bool


class Course:
    """What is rendered of one run; after a snapshot, from there on.

    A copy has the same course. The figure, which draws it, is no part of it.

    Args:
        title: of the image.
        budget: inner environment steps of the run.
        decisions: of the run.
        knobs: the controlled hyperparameters.
    """

    def __init__(
        self, title: str, budget: int, decisions: int, knobs: Sequence[Knob]
    ) -> None:
        self.title, self.budget, self.decisions = title, budget, decisions
        self.knobs = tuple(knobs)
        self.points: list[_Point] = []
        self._figure: _Figure | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_figure": None}

    def begin(self, decision: int, info: Mapping[str, Any]) -> None:
        """Forget what was, and begin with what is.

        Args:
            decision: that have been taken.
            info: of the environment.
        """
        self.points.clear()
        self.add(decision, info, None)

    def add(self, decision: int, info: Mapping[str, Any], reward: float | None) -> None:
        """Take note of a decision.

        Args:
            decision: its number, from 1 on.
            info: after it.
            reward: of it.
        """
        shown = info["hyperparameters"]
        values = {h.name: shown[h.name] for h in self.knobs if h.name in shown}
        steps, score = int(info["env_steps"]), float(info["score"])
        point = _Point(decision, steps, score, reward, values, bool(info["diverged"]))
        self.points.append(point)

    def line(self) -> str:
        """The last decision: its number, the values set, the score and the reward.

        Events are named when they happen; values that are inactive are not.
        """
        last = self.points[-1]
        values = [
            f"{h.name}={_text(last.values[h.name])}"
            for h in self.knobs
            if h.name in last.values and not _is_quiet(h, last.values[h.name])
        ]
        told = [f"score {last.score:.3f}"]
        if last.reward is not None:
            told.append(f"reward {last.reward:+.3f}")
        if last.diverged:
            told.append("diverged")
        return (
            f"decision {last.decision} of {self.decisions}, {last.env_steps:,} of "
            f"{self.budget:,} steps: {' '.join(values) or '–'} | {', '.join(told)}"
        )

    def image(self) -> NDArray[np.uint8]:
        """Score and values over steps, ``(480, 640, 3)``."""
        if self._figure is None:
            self._figure = _Figure(self)
        return self._figure.drawn(self)


def _is_quiet(knob: Knob, value: Option) -> bool:
    """Whether it is an event that did not happen."""
    return isinstance(knob, Event) and value == knob.default


def _text(value: Option) -> str:
    """A value as people read it."""
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _place(knob: Knob, value: Option | None) -> float:
    """Where a value lies in its range, 0 to 1 on its unit axis; NaN: inactive."""
    if value is None:
        return math.nan
    low, high = knob.ends
    if isinstance(knob, Number):
        at, low, high = knob.to_unit([float(value), low, high]).tolist()
    else:
        at = float(knob.options.index(value))
    return min(max((at - low) / ((high - low) or 1.0), 0.0), 1.0)


class _Figure:
    """Draws a course by matplotlib's Agg, outside of pyplot: nothing is left open.

    What stays is drawn once, and again where scores leave the axis. A frame is that and
    the curves and numbers on it.
    """

    def __init__(self, course: Course) -> None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with matplotlib.rc_context({"text.usetex": False}):
            figure = Figure((WIDTH / _DPI, HEIGHT / _DPI), _DPI)
            figure.set_layout_engine("none")
            self.canvas = FigureCanvasAgg(figure)
            figure.text(
                _LEFT, 0.95, course.title, fontsize=11, parse_math=False, va="center"
            )
            self.upper: Any = figure.add_axes((_LEFT, 0.53, _SPAN, 0.37))
            lower: Any = figure.add_axes((_LEFT, 0.1, _SPAN, 0.37))
            self.upper.set_ylabel("score")
            lower.set_xlabel("inner environment steps")
            lower.set_ylabel("values")
            lower.set_yticks([0, 1], ["low", "high"])
            lower.set_ylim(-0.05, 1.05)
            self.upper.tick_params(labelbottom=False)
            for axes in (self.upper, lower):
                axes.set_xlim(0, course.budget)
                axes.grid(alpha=0.3)
                axes.spines[["top", "right"]].set_visible(False)
            (self.score,) = self.upper.plot([], [], ".-", color="#000000")
            self.now = figure.text(_BESIDE, 0.9, "", fontsize=9, va="top")
            self.lines, self.texts = [], []
            for k, _ in enumerate(course.knobs):
                look = {
                    "color": _COLOURS[k % len(_COLOURS)],
                    "linestyle": _STYLES[k // len(_COLOURS) % len(_STYLES)],
                }
                self.lines += lower.plot([], [], drawstyle="steps-pre", **look)
                if k < _NAMED:
                    y = 0.46 - 0.036 * k
                    text = figure.text(
                        _BESIDE, y, "", fontsize=8, va="center", parse_math=False,
                        color=look["color"],
                    )  # fmt: skip
                    self.texts.append(text)
            if len(course.knobs) > _NAMED:
                more = f"and {len(course.knobs) - _NAMED} more"
                figure.text(_BESIDE, 0.46 - 0.036 * _NAMED, more, fontsize=8)
        self.moving = [self.score, self.now, *self.lines, *self.texts]
        for artist in self.moving:
            artist.set_animated(True)  # left out of what stays
        self.still: Any = None
        self.range = (0.0, 1.0)  # of scores, that what stays was drawn for

    def drawn(self, course: Course) -> NDArray[np.uint8]:
        """The image ``(480, 640, 3)`` of a course."""
        last = course.points[-1]
        steps = [point.env_steps for point in course.points]
        scores = [point.score for point in course.points]
        self.score.set_data(steps, scores)
        told = [f"decision {last.decision} of {course.decisions}"]
        told += [f"score {last.score:.3f}"]
        told += [] if last.reward is None else [f"reward {last.reward:+.3f}"]
        told += ["diverged"] if last.diverged else []
        self.now.set_text("\n".join(told))
        for knob, line in zip(course.knobs, self.lines, strict=True):
            places = [_place(knob, p.values.get(knob.name)) for p in course.points]
            line.set_data(steps, places)
        for knob, text in zip(course.knobs, self.texts, strict=False):
            value = last.values.get(knob.name)
            name = knob.name if value is None else f"{knob.name} {_text(value)}"
            text.set_text(name if len(name) <= _LETTERS else f"{name[:_LETTERS]}…")
        with warnings.catch_warnings():
            # letters that the font does not have are shown as boxes
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            # in steps of 0.2, so that they are left seldom
            ends = min(0.0, *scores), max(1.0, *scores)
            self._prepare((math.floor(5 * ends[0]) / 5, math.ceil(5 * ends[1]) / 5))
            for artist in self.moving:
                self.canvas.figure.draw_artist(artist)
        pixels = np.asarray(self.canvas.buffer_rgba())
        return np.ascontiguousarray(pixels[..., :3])

    def _prepare(self, scores: tuple[float, float]) -> None:
        """Draw what stays, for scores in a range."""
        if self.still is None or scores != self.range:
            low, high = self.range = scores
            margin = 0.05 * (high - low)
            self.upper.set_ylim(low - margin, high + margin)
            self.canvas.draw()
            self.still = self.canvas.copy_from_bbox(self.canvas.figure.bbox)
        self.canvas.restore_region(self.still)
