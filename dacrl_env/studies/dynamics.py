"""What `oracle` found on tasks: its rows, its table and its pages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.stats import shown
from dacrl_env.core.files import write_text
from dacrl_env.policies import Cost
from dacrl_env.tasks import Option

# a task without this is tagged: gain, and scores that leave room in both directions
LEAST_GAIN, ROOM = 0.05, (0.2, 0.9)


@dataclass(frozen=True)
class Dynamics:
    """What dynamics are worth on a task.

    Args:
        task: id.
        rows: columns ``task``, ``what``, ``point`` (share of the budget; NaN: none, or
            the mean over the points), ``value`` with ``low`` and ``high`` (95 %) and
            ``runs`` (independent ones behind it). What: scores of ``default``,
            ``static`` and ``schedule``; differences of them, paired by test seed; gains
            of branching ``pooled`` and ``per run``, each with a ``control``.
        costs: inner environment steps by part: ``search``, ``test``, ``branching``.
        configurations: those that were tried in branching, continuing first.
        tags: see `tags`.
        note: what is missing and why; empty: nothing.
    """

    task: str
    rows: pd.DataFrame
    costs: dict[str, Cost]
    configurations: list[dict[str, Option]]
    tags: tuple[str, ...]
    note: str = ""


def tags(rows: pd.DataFrame) -> tuple[str, ...]:
    """``("smoke",)`` for a task where configuring dynamically is worth little.

    That is one whose tuned static score leaves no room, or where none of the gains
    (schedule − static; pooled and per run, means over the branching points) reaches
    `LEAST_GAIN`. By point estimates; intervals are in the table.

    Args:
        rows: of one task, see `Dynamics`.
    """
    value = rows[rows["point"].isna()].set_index("what")["value"]
    static = float(value["static"])
    found = [value.get(w, np.nan) for w in ("schedule − static", "pooled", "per run")]
    room = ROOM[0] <= static <= ROOM[1]
    return () if room and np.nanmax(found) >= LEAST_GAIN else ("smoke",)


# columns of the table, by what is in the rows
_SHOWN = (
    *("default", "static", "schedule"),
    *("schedule − static", "schedule − default"),
    *("pooled", "per run", "control, pooled", "control, per run"),
)
_ABOUT = f"""\
Final scores by the report stream, 0 = random actions, 1 = the reference return.
*Default*, *static* (tuned) and *schedule* (the best open-loop one found at the same
budget by the same searcher): test runs, and their differences paired by seed. *Pooled*
and *per run*: gain of switching the configuration once, at a branching point, over
continuing, mean over the points; pooled is one choice for all runs, as a schedule could
make it, per run needs the state. Choices by 100 evaluation episodes at the end of
forks, values by the report of others. *Control*: the same where all forks have the
incumbent's configuration; its interval has to cover zero. 95 % intervals, over test
runs (bootstrap) or over incumbent runs (Student's). *Steps*: training and evaluation,
of search, test runs and branching together. *smoke*: the static score is outside
{ROOM[0]}–{ROOM[1]}, or no gain reaches {LEAST_GAIN}."""


def table(results: Sequence[Dynamics]) -> pd.DataFrame:
    """One row a task.

    Returns:
        ``task``; for everything that is measured, such as ``schedule − static``, the
        value and ``… low`` and ``… high``; ``search steps``, ``test steps`` and
        ``branching steps`` (training and evaluation); ``tags`` and ``note``.
    """
    lines = []
    for result in results:
        line: dict[str, Any] = {"task": result.task}
        control = result.rows["what"].str.startswith("control")
        rows = result.rows[result.rows["point"].isna() | control].set_index("what")
        for what in _SHOWN:
            found = what in rows.index
            for column, suffix in (("value", ""), ("low", " low"), ("high", " high")):
                line[what + suffix] = rows.loc[what, column] if found else np.nan
        for part in ("search", "test", "branching"):
            cost = result.costs.get(part, Cost())
            line[f"{part} steps"] = cost.env_steps + cost.eval_steps
        lines.append(line | {"tags": " ".join(result.tags), "note": result.note})
    return pd.DataFrame(lines)


def markdown(results: Sequence[Dynamics]) -> str:
    """The table and, below it, the branching points one by one."""
    wide = table(results)
    head = ["task", *_SHOWN, "steps", "tags"]
    lines = [
        _ABOUT,
        "",
        _line(head),
        _line(["---", *["---:"] * (len(head) - 2), "---"]),
    ]
    for line in wide.to_dict("records"):
        numbers = [shown([line[w + s] for s in ("", " low", " high")]) for w in _SHOWN]
        steps = sum(line[f"{part} steps"] for part in ("search", "test", "branching"))
        cells = [line["task"], *numbers, f"{steps / 1e6:.3g} M", line["tags"] or "–"]
        lines.append(_line(cells))
    rows = pd.concat([result.rows for result in results], ignore_index=True)
    rows = rows[rows["point"].notna() & ~rows["what"].str.startswith("control")]
    if len(rows):
        shares = sorted(rows["point"].unique())
        lines += ["", "Gains at the branching points, by share of the run budget:", ""]
        lines.append(_line(["task", "choice", *(f"{share:.0%}" for share in shares)]))
        lines.append(_line(["---", "---", *["---:"] * len(shares)]))
        for (task, what), group in rows.groupby(["task", "what"], sort=False):
            at = group.set_index("point")[["value", "low", "high"]]
            at = at.reindex(shares)
            cells = [shown(row) for row in at.to_numpy().tolist()]
            lines.append(_line([str(task), str(what), *cells]))
    notes = [result.note for result in results if result.note]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines)


def write(results: Sequence[Dynamics], directory: str | os.PathLike[str]) -> Path:
    """Write ``dynamics.csv`` (`table`), ``points.csv`` (all rows), ``dynamics.md``.

    Returns:
        Path of ``dynamics.md``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "dynamics.csv", table(results).to_csv(index=False))
    rows = pd.concat([result.rows for result in results], ignore_index=True)
    write_text(folder / "points.csv", rows.to_csv(index=False))
    path = folder / "dynamics.md"
    write_text(path, markdown(results) + "\n")
    return path


def render(result: Dynamics) -> str:
    """All rows of a task as plain text for a terminal."""
    lines = []
    for row in result.rows.to_dict("records"):
        at = "" if np.isnan(row["point"]) else f" at {row['point']:.0%}"
        number = shown([row["value"], row["low"], row["high"]])
        lines.append(f"  {row['what'] + at:28}{number:>26}  {row['runs']} runs")
    for part, cost in result.costs.items():
        lines.append(
            f"  {part} took {cost.env_steps:,} training and {cost.eval_steps:,} "
            "evaluation steps"
        )
    return "\n".join([*lines, *([f"  {result.note}"] if result.note else [])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
