"""Tables and figures of a suite: several policies on several tasks, put together."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dacrl_env.comparison import pages
from dacrl_env.comparison.aggregate import OBJECTIVES, Aggregates, aggregate
from dacrl_env.comparison.drawing import (
    COLOURS,
    DPI,
    STYLES,
    add_legend,
    escaped,
    printable,
    save,
    wrapped,
)
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.suite import Unfit
from dacrl_env.comparison.suite_page import suite_page
from dacrl_env.comparison.tables import aligned
from dacrl_env.comparison.verdict import single_fits
from dacrl_env.core.files import read_json, write_text
from dacrl_env.core.store import digest
from dacrl_env.core.version import __version__

ABOUT = "suite.json"  # in the folder of a suite

# columns of `Aggregates.overall`, and what is said of them
_VALUES = {
    "iqm": "IQM",
    "mean": "mean",
    "optimality_gap": "optimality gap",
    "rank": "average rank",
    "probability": "P(better)",
}
_BETTER = {"optimality_gap": "less", "rank": "less"}
_NOTE = """\
Scores are normalised returns: 0 is a random policy, 1 the task's reference. Every task
counts alike. *IQM* is the interquartile mean over all runs of all tasks, *optimality
gap* the mean of what runs lack to score 1, *average rank* the mean over tasks of a
policy's place by its mean score (1 is best, ties share their places), *P(better)* the
probability that a run of the policy beats one of the reference on the same task, ties
counted half, mean over tasks. *Failures* diverged or ended below 0.1. Brackets are 95 %
intervals of a bootstrap that draws runs within each task, seeds once for all policies
that have them, and fits of methods that were fitted several times; tasks are not drawn,
so that intervals speak of these tasks alone (Agarwal et al. 2021, "Deep Reinforcement
Learning at the Edge of the Statistical Precipice")."""


@dataclass(frozen=True)
class About:
    """What a suite is, kept in its folder from its beginning on.

    Attributes:
        name: as it was asked for.
        objective: "auc", "final" or "best".
        reference: policy that the others are compared with; None: the first.
        folders: of the comparisons on its tasks, by id of task.
        unfit: pairs that were left out.
    """

    name: str
    objective: str
    reference: str | None
    folders: Mapping[str, str]
    unfit: Sequence[Unfit] = field(default_factory=tuple)

    @property
    def folder(self) -> str:
        """Name of the folder: equal for equal tasks and settings."""
        return f"suite-{self.name}-{digest({'folders': dict(self.folders)})[:8]}"

    def write(self, directory: Path) -> None:
        """Keep it in its folder below a directory of comparisons."""
        folder = directory / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / ABOUT, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> About:
        """What `write` wrote.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            content = read_json(path.read_bytes())
            unfit = [Unfit(**one) for one in content.pop("unfit")]
            about = cls(**content, unfit=unfit)
            if about.objective not in OBJECTIVES:
                raise ValueError(f"unknown objective {about.objective!r}")
            about.folders.items()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {error}; the suite run again makes it") from None
        return about


class SuiteReport(NamedTuple):
    """What a suite came to."""

    path: Path  # of report.md
    aggregates: Aggregates
    page: Path  # of report.html


def write_suite(
    summaries: Mapping[str, pd.DataFrame],
    directory: str | os.PathLike[str],
    about: About,
    notes: Sequence[str] = (),
    made: Made | None = None,
    order: Sequence[str] = (),
) -> SuiteReport:
    """Writes ``report.md`` and ``report.html``, tables as CSV files and two figures.

    ``suite.csv`` has one row per task and run, ``aggregates.csv``, ``tasks.csv`` and
    ``profile.csv`` are the tables of `Aggregates`.

    Args:
        summaries: by id of task, result of `dacrl_env.comparison.report.summarize`.
        directory: of the comparisons; the folder of the suite is made in it.
        about: the suite.
        notes: what else there is to say, in sentences.
        made: how it was made, for the page; None: not known.
        order: of policies; others follow as they come.

    Raises:
        ValueError: as `aggregate`; nothing is written then.
    """
    if not summaries:
        raise ValueError("no task of the suite has results")
    parts = [runs.assign(task=task) for task, runs in summaries.items()]
    summary = pd.concat(parts, ignore_index=True)
    summary = summary[["task", *(c for c in summary if c != "task")]]
    found = aggregate(summary, about.objective, about.reference, order=order)
    folder = Path(directory) / about.folder
    about.write(Path(directory))
    write_text(folder / "suite.csv", summary.to_csv(index=False))
    write_text(folder / "aggregates.csv", found.overall.to_csv(index=False))
    write_text(folder / "tasks.csv", found.tasks.to_csv(index=False))
    write_text(folder / "profile.csv", found.profile.to_csv(index=False))
    figures = []
    if found.common:
        intervals(found, folder / "aggregates.png")
        profile(found, folder / "profile.png")
        figures = ["aggregates.png", "profile.png"]
    path = folder / "report.md"
    notes = [*notes, *_left_out(about)]
    write_text(path, _text(found, about, summary, notes, figures))
    page = suite_page(
        found,
        about.name,
        _facts(found, about, summary),
        _overall_cells(found),
        _task_cells(found),
        about.folders,
        [*notes, *found.notes],
        {name: (title, _BETTER.get(name, "more")) for name, title in _VALUES.items()},
        single_fits(summary),
        _NOTE,
        {
            "report.md": "the same as Markdown",
            **dict.fromkeys(figures, "a figure"),
            "suite.csv": "a row per task and run",
            "aggregates.csv": "all tasks together in full",
            "tasks.csv": "tasks in full",
        },
        made or Made(),
    ).write(folder / pages.NAME)
    return SuiteReport(path, found, page)


def _facts(found: Aggregates, about: About, summary: pd.DataFrame) -> dict[str, str]:
    """Settings, by name."""
    return {
        "Tasks": f"{len(about.folders)}",
        "Policies": ", ".join(map(str, found.overall["policy"])),
        "Reference": found.reference,
        "Objective": f"{found.objective} ({OBJECTIVES[found.objective]})",
        "Test runs": f"{len(summary):,}",
    }


def _left_out(about: About) -> list[str]:
    return [
        f"{one.policy} does not suit {one.task} and was left out: {one.reason}."
        for one in about.unfit
    ]


def _text(
    found: Aggregates,
    about: About,
    summary: pd.DataFrame,
    notes: Sequence[str],
    figures: Sequence[str],
) -> str:
    column = OBJECTIVES[found.objective]
    facts = {
        **_facts(found, about, summary), "Made with": f"dacrl-env {__version__}"
    }  # fmt: skip
    overall, tasks = _overall_cells(found), _task_cells(found)
    folders = {
        task: name for task, name in about.folders.items() if task in set(tasks["task"])
    }
    linked = tasks.assign(
        task=[f"[{escaped(t)}](../{folders[t]}/report.md)" for t in tasks["task"]]
    )
    parts = [
        f"# Suite {escaped(about.name)}",
        "\n".join(f"- {name}: {escaped(value)}" for name, value in facts.items()),
        *map(escaped, [*notes, *found.notes]),
        "## Over all tasks",
        _markdown(overall),
        "## Task by task",
        f"Mean {column} with its 95 % interval.",
        _markdown(linked, raw=("task",)),
    ]
    if figures:
        parts += [
            "## Figures",
            "![Aggregates with 95 % intervals](aggregates.png)",
            "![Performance profile](profile.png)",
            "The profile shows the share of runs above a score, mean over tasks, with "
            "its 95 % band. A curve that lies above another one everywhere is that of "
            "a policy that is better at any level.",
        ]
    parts += [
        "## How to read this",
        _NOTE,
        "`suite.csv` has one row per task and run, `aggregates.csv`, `tasks.csv` and "
        "`profile.csv` the numbers above in full.",
    ]
    return "\n\n".join(parts) + "\n"


def render(found: Aggregates, across: int | None = None) -> str:
    """Both tables as plain text for a terminal; intervals of the first alone.

    Args:
        found: what there is to show.
        across: letters of a line; None: as many as needed.
    """
    blocks = []
    for cells in (_overall_cells(found), _task_cells(found, brief=True)):
        columns = {printable(name): [*map(printable, cells[name])] for name in cells}
        blocks.append(aligned(columns, across, 1, rule=True))
    return "\n\n".join(blocks) + "\n"


def _overall_cells(found: Aggregates) -> pd.DataFrame:
    """What people read of all tasks together, as text."""
    rows = found.overall
    cells = {"policy": [str(name) for name in rows["policy"]]}
    cells["tasks"] = [str(number) for number in rows["tasks"]]
    for name, title in _VALUES.items():
        form = ".2f" if name == "rank" else ".3f"
        cells[title] = [
            _cell(value, low, high, form)
            for value, low, high in rows[
                [name, f"{name}_low", f"{name}_high"]
            ].itertuples(index=False)
        ]
    # pairs with the reference may be there on more tasks than all policies are
    for place, (whole, own) in enumerate(
        zip(rows["tasks"], rows["probability_tasks"], strict=True)
    ):
        if own and own != whole:
            cells["P(better)"][place] += f" on {own} tasks"
    cells["failures"] = [_cell(v, np.nan, np.nan, ".1%") for v in rows["failure"]]
    return pd.DataFrame(cells)


def _task_cells(found: Aggregates, brief: bool = False) -> pd.DataFrame:
    """Mean scores with a row per task and a column per policy, as text."""
    rows = found.tasks
    names = zip(rows["task"], rows["policy"], strict=True)
    bounds = zip(rows["mean"], rows["mean_low"], rows["mean_high"], strict=True)
    shown = {
        name: _cell(value, low, high, ".3f", brief)
        for name, (value, low, high) in zip(names, bounds, strict=True)
    }
    cells: dict[str, list[str]] = {"task": list(dict.fromkeys(rows["task"]))}
    for policy in found.overall["policy"]:
        cells[str(policy)] = [shown.get((task, policy), "–") for task in cells["task"]]
    return pd.DataFrame(cells)


def _cell(value: float, low: float, high: float, form: str, brief: bool = False) -> str:
    if np.isnan(value):
        return "–"
    if brief or np.isnan(low):
        return format(value, form)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _markdown(cells: pd.DataFrame, raw: Sequence[str] = ()) -> str:
    """A table; names are escaped but for columns that are Markdown already."""
    lines = [list(map(escaped, cells.columns))]
    lines.append([":--"] + ["--:"] * (cells.shape[1] - 1))
    for _, row in cells.iterrows():
        first = row.iloc[0] if cells.columns[0] in raw else escaped(row.iloc[0])
        lines.append([first, *row.iloc[1:]])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -- figures -------------------------------------------------------------------------


def _look(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": STYLES[place % len(STYLES)],
    }


def profile(found: Aggregates, path: str | os.PathLike[str]) -> Path:
    """Draws the performance profile: share of runs above a score, with its band.

    Args:
        found: with common tasks.
        path: PNG file to write.

    Raises:
        ValueError: no task has results of all policies.
    """
    _check_common(found)
    figure = Figure((6.5, 3.4), DPI, layout="constrained")
    axis = figure.subplots()
    handles: list[Any] = []
    names = list(found.overall["policy"])
    alpha = min(0.14, 0.8 / len(names))
    for place, policy in enumerate(names):
        rows = found.profile[found.profile["policy"] == policy]
        look = _look(place)
        handles += axis.step(
            rows["score"], rows["share"], where="post", linewidth=1.5, **look
        )
        axis.fill_between(
            rows["score"], rows["share_low"], rows["share_high"], step="post",
            color=look["color"], alpha=alpha, linewidth=0,
        )  # fmt: skip
    axis.set_xlim(found.profile["score"].min(), found.profile["score"].max())
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(f"score ({OBJECTIVES[found.objective].replace('_', ' ')})")
    axis.set_ylabel("share of runs above it")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    add_legend(figure, handles, names)
    return save(figure, path)


def intervals(found: Aggregates, path: str | os.PathLike[str]) -> Path:
    """Draws aggregates as points with their intervals, a panel for each of them.

    Args:
        found: with common tasks.
        path: PNG file to write.

    Raises:
        ValueError: no task has results of all policies.
    """
    _check_common(found)
    rows = found.overall
    names = list(rows["policy"])
    labels = wrapped(names, 26)
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = Figure((9.0, 0.9 + 0.3 * max(lines, 2)), DPI, layout="constrained")
    axes = figure.subplots(1, len(_VALUES), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))
    for axis, (name, title) in zip(axes, _VALUES.items(), strict=True):
        for place in places:
            value, low, high = (
                rows[f"{name}{end}"].iloc[place] for end in ("", "_low", "_high")
            )
            if np.isnan(value):  # the reference has no probability of improvement
                continue
            colour = COLOURS[place % len(COLOURS)]
            axis.plot(value, place, "o", color=colour, markersize=4)
            if not np.isnan(low):
                axis.plot([low, high], [place, place], color=colour, linewidth=1.5)
        if name == "probability":
            axis.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        better = _BETTER.get(name, "more")
        shown = textwrap.fill(title, 16)
        axis.set_title(f"{shown}\n({better} is better)", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7)
        axis.margins(x=0.12)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(places, labels, fontsize=8)
    for text in axes[0].get_yticklabels():
        text.set_parse_math(False)
    axes[0].set_ylim(len(names) - 0.5, -0.5)  # the first above
    return save(figure, path)


def _check_common(found: Aggregates) -> None:
    if not found.common:
        raise ValueError("no task has results of all policies")
