"""What switching in the middle of runs gains on a task whose headroom is measured.

Runs of the kept ``static-tuned`` are branched, see :mod:`dacrl_env.studies.branching`,
into it and other configurations of the space that headroom was searched in. Rules are
one way of using state; here each run chooses from its own, whatever a rule would do.
But it chooses once, among few configurations, and by few forks, so that what it gains
is no bound of what state is worth. Events are not among the branches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dacrl_env.comparison import stats
from dacrl_env.comparison.executors import Executor
from dacrl_env.core.files import write_text
from dacrl_env.core.installed import version
from dacrl_env.core.store import Store
from dacrl_env.policies import Cost
from dacrl_env.policies.static import Static
from dacrl_env.policies.tuned import Tuned
from dacrl_env.studies import branching
from dacrl_env.tasks import Task
from dacrl_env.tasks import headroom as kept
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.rungs import STATIC

RUNS = 32  # of the incumbent
READINGS = ("pooled", "per run")
CONTROLS = tuple(f"control, {reading}" for reading in READINGS)
_COUNTS = ("runs", "configurations", "streams")


@dataclass(frozen=True)
class Branched:
    """What was measured on a task.

    Args:
        task: id.
        rows: as of :class:`~dacrl_env.studies.branching.Branching`.
        cost: of all runs and forks.
        settings: numbers of runs, configurations and streams.
    """

    task: str
    rows: pd.DataFrame
    cost: Cost
    settings: dict[str, int]

    @property
    def values(self) -> dict[str, stats.Estimate]:
        """By reading the mean gain over the points; of the control at its point."""
        rows = self.rows
        means = rows[rows["point"].isna() | rows["what"].isin(CONTROLS)]
        return {row["what"]: _estimate(row) for row in means.to_dict("records")}

    @property
    def points(self) -> dict[str, dict[str, stats.Estimate]]:
        """By reading, and by share of the budget, the gain of switching there."""
        found: dict[str, dict[str, stats.Estimate]] = {name: {} for name in READINGS}
        rows = self.rows[self.rows["what"].isin(READINGS)].dropna(subset="point")
        for row in rows.to_dict("records"):
            found[row["what"]][f"{row['point']:g}"] = _estimate(row)
        return found

    @property
    def entry(self) -> dict[str, Any]:
        """What is kept of it, as JSON values."""
        return {
            "values": {name: list(value) for name, value in self.values.items()},
            "points": {
                reading: {point: list(value) for point, value in each.items()}
                for reading, each in self.points.items()
            },
            "settings": self.settings,
            "version": version(),
        }


def branch(
    task: str | Task,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    runs: int = RUNS,
    configurations: int = branching.CONFIGURATIONS,
    streams: int = branching.STREAMS,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
) -> Branched:
    """Branch runs of a task's kept static configuration.

    Args:
        task: id or task. One that starts at a base, and is not measured itself, means
            the one before.
        store: a store or its directory; None: nothing is kept.
        runs: of the static configuration.
        configurations: branches, continuing among them.
        streams: forks of each run and branch that choose, and as many that are valued.
        num_threads: as in :func:`dacrl_env.compare`.
        executor: as in :func:`dacrl_env.compare`.
        show_progress: a progress bar on standard error.

    Raises:
        ValueError: headroom of the task is not measured, or numbers that are too small.
        SnapshotNotSupported: runs of the task cannot be copied.
        StoreError: a damaged file in the store.
    """
    task = get_task(task)
    if (before := kept.measured_as(task.id)) != task.id:
        task = get_task(before)
    settings = _entry(task.id)["settings"]
    incumbent = Tuned(STATIC).on(task).policy
    assert isinstance(incumbent, Static)
    found = branching.branching(
        task,
        incumbent.config,
        store=store,
        runs=runs,
        configurations=configurations,
        streams=streams,
        num_threads=num_threads,
        executor=executor,
        show_progress=show_progress,
        hyperparameters=settings["hyperparameters"],
        **{**settings.get("options", {}), **incumbent.configuration},
    )
    counts = dict(zip(_COUNTS, (runs, configurations, streams), strict=True))
    return Branched(task.id, found.rows, found.costs["branching"], counts)


def check_keep(task: str, settings: Mapping[str, int]) -> None:
    """Raise a ValueError if a smaller measurement would replace one that is kept.

    Args:
        task: id.
        settings: as of :class:`Branched`.
    """
    before = _entry(kept.measured_as(task)).get("branching", {}).get("settings", {})
    for name in _COUNTS:
        if settings[name] < before.get(name, 0):
            raise ValueError(
                f"what is kept of {task} has {name} {before[name]}; what replaces it "
                f"needs as many, got {settings[name]}: leave --keep out, or give more "
                f"--{name}"
            )


def keep(result: Branched) -> None:
    """Put a result into this package, beside the headroom of the task.

    Raises:
        ValueError: see `check_keep`; or ``headroom.json`` is damaged.
        OSError: it cannot be written.
    """
    check_keep(result.task, result.settings)
    kept.measured.cache_clear()  # others may have kept something since it was read
    entry = kept.measured()[result.task]
    kept.keep(result.task, {**entry, "branching": result.entry})


def render(result: Branched) -> str:
    """All gains as plain text for a terminal."""
    runs = result.settings["runs"]
    lines = [f"{result.task}, gains in final score over continuing, {runs} runs"]
    for name, value in result.values.items():
        lines.append(f"  {name:24}{stats.shown(value):>24}")
        for point, gain in result.points.get(name, {}).items():
            lines.append(f"    {f'at {float(point):.0%}':22}{stats.shown(gain):>24}")
    lines.append(f"{result.cost.env_steps:,} steps")
    return "\n".join(lines)


def write(result: Branched, directory: str | os.PathLike[str]) -> Path:
    """Write ``branching.json`` and ``branching.csv``.

    Returns:
        Path of ``branching.json``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    result.rows.to_csv(folder / "branching.csv", index=False)
    path = folder / "branching.json"
    content = {"task": result.task, **result.entry}
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path


def _entry(task: str) -> Mapping[str, Any]:
    entry = kept.measured().get(task, {})
    if "settings" not in entry:
        raise ValueError(
            f"no headroom of {task} is kept; dacrl headroom {task} --keep measures it"
        )
    return entry


def _estimate(row: Mapping[Any, Any]) -> stats.Estimate:
    return stats.Estimate(row["value"], row["low"], row["high"])
