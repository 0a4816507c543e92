"""What `dacrl headroom` found, once more, on test seeds that were held back.

The policies are those that ``dacrl headroom TASK --keep`` has put into the package, one
of each rung, chosen on the tuning split. The rule is the one that was chosen then, the
open loop the better one on these seeds, which favours the open loop. Values of a
schedule and of state are means of differences of runs on the same seed, with 95 %
intervals over seeds. A schedule sets numbers and choices, and no events. So a rule that
restarts networks, or swaps them, is also compared with its own configuration and such
events at equal distances, the best one of several numbers of them. (A rule that swaps
goes on to freeze networks that do well; the times of swaps alone are others.)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison import stats
from dacrl_env.comparison.comparison import compare
from dacrl_env.comparison.executors import Executor
from dacrl_env.comparison.given import checked_seeds
from dacrl_env.comparison.report import summarize
from dacrl_env.core.files import write_text
from dacrl_env.core.installed import version
from dacrl_env.core.store import Store
from dacrl_env.policies.restart_when_poor import RestartWhenPoor
from dacrl_env.policies.swap_when_fallen import SwapWhenFallen
from dacrl_env.policies.tuned import Tuned
from dacrl_env.tasks import Task
from dacrl_env.tasks import headroom as kept
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.rungs import SCHEDULE, STATIC

SEEDS = range(128, 256)
SHUFFLED = "rule, shuffled"
RESTARTS = (1, 2, 4, 8)  # in a run, at equal distances
SWAPS = (*RESTARTS, 16)


@dataclass(frozen=True)
class Confirmed:
    """What was measured on a task.

    Args:
        task: id.
        objective: what is compared, "final" or "auc".
        values: by name an estimate with its interval: mean scores of each policy,
            ``schedule``, ``state``, and ``looking``, what the rule scores above its
            shuffled self; of rules that restart or swap networks also ``spaced``, what
            it scores above the best of events at equal distances.
        seeds: the first and the last of the test runs.
        frame: test runs, a row each.
    """

    task: str
    objective: str
    values: dict[str, stats.Estimate]
    seeds: tuple[int, int]
    frame: pd.DataFrame

    @property
    def entry(self) -> dict[str, Any]:
        """What is kept of it, as JSON values."""
        return {
            "objective": self.objective,
            "seeds": list(self.seeds),
            "values": {name: list(value) for name, value in self.values.items()},
            "version": version(),
        }


def confirm(
    task: str | Task,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    seeds: int | Sequence[int] = SEEDS,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
) -> Confirmed:
    """Run the kept policies of a task on seeds that nothing was chosen by.

    Args:
        task: id or task. One that starts at a base, and is not measured itself, means
            the one before.
        store: a store or its directory; None: nothing is kept.
        seeds: of the test runs, at least 2.
        num_threads: as in :func:`dacrl_env.compare`.
        executor: as in :func:`dacrl_env.compare`.
        show_progress: progress bars on standard error.

    Raises:
        ValueError: headroom of the task is not measured; or seeds that it was measured
            on.
        StoreError: a damaged file in the store.
    """
    task = get_task(task)
    if (before := kept.measured_as(task.id)) != task.id:
        task = get_task(before)
    test_seeds = checked_seeds(seeds)
    entry = kept.measured().get(task.id, {})
    if "best" not in entry:
        raise ValueError(
            f"no headroom of {task.id} is kept; dacrl headroom {task.id} --keep "
            "measures it"
        )
    _check_fresh(test_seeds, entry["settings"]["seeds"])
    rule = entry["best"][1]
    policies: dict[str, Any] = {"default": "default"}
    for rung in entry["settings"]["rungs"]:
        if rung in (STATIC, SCHEDULE, rule):
            policies[rung] = Tuned(rung).on(task).policy
    policies[SHUFFLED] = policies[rule].shuffled()
    spaced = {}
    if isinstance(policies[rule], RestartWhenPoor | SwapWhenFallen):
        restarts = isinstance(policies[rule], RestartWhenPoor)
        for n in RESTARTS if restarts else SWAPS:
            distance = math.ceil(task.decisions / (n + 1))
            times = (task.decisions - 1) // distance
            events = "restarts" if restarts else "swaps"
            spaced[f"{times} {events}"] = policies[rule].every(distance)
    policies |= spaced
    frame = summarize(
        compare(
            task,
            policies,
            test_seeds,
            store=store,
            num_threads=num_threads,
            executor=executor,
            show_progress=show_progress,
        )
    )
    metric = f"report_{entry['objective']}"
    scores = frame.pivot(index="seed", columns="policy", values=metric)
    values = {name: _mean(scores[name]) for name in policies}
    open_loops = [name for name in (SCHEDULE, STATIC) if name in scores]
    if SCHEDULE in scores:
        values["schedule"] = _mean(scores[SCHEDULE] - scores[STATIC])
    open_loop = max(open_loops, key=lambda name: values[name].value)
    values["state"] = _mean(scores[rule] - scores[open_loop])
    values["looking"] = _mean(scores[rule] - scores[SHUFFLED])
    if spaced:
        best = max(spaced, key=lambda name: values[name].value)
        values["spaced"] = _mean(scores[rule] - scores[best])
    ends = min(test_seeds), max(test_seeds)
    return Confirmed(task.id, entry["objective"], values, ends, frame)


def check_keep(task: str, seeds: Sequence[int]) -> None:
    """Raise a ValueError if a result on fewer seeds would replace one that is kept.

    Args:
        task: id.
        seeds: of the test runs.
    """
    entry = kept.measured().get(kept.measured_as(task), {})
    first, last = entry.get("confirmed", {}).get("seeds", (0, -1))
    if len(seeds) < last + 1 - first:
        raise ValueError(
            f"what is kept of {task} was confirmed on seeds {first} to {last}; what "
            f"replaces it needs as many, got {len(seeds)}: leave --keep out, or give "
            "more --seeds"
        )


def keep(result: Confirmed) -> None:
    """Put a result into this package, beside the headroom that it confirms.

    Raises:
        ValueError: see `check_keep`; or ``headroom.json`` is damaged.
        OSError: it cannot be written.
    """
    check_keep(result.task, sorted(result.frame["seed"].unique()))
    kept.measured.cache_clear()  # others may have kept something since it was read
    entry = kept.measured()[result.task]
    kept.keep(result.task, {**entry, "confirmed": result.entry})


def render(result: Confirmed) -> str:
    """All values as plain text for a terminal."""
    first, last = result.seeds
    lines = [f"{result.task}, {result.objective}, test seeds {first} to {last}"]
    for name, value in result.values.items():
        lines.append(f"  {name:24}{stats.shown(value):>24}")
    return "\n".join(lines)


def write(result: Confirmed, directory: str | os.PathLike[str]) -> Path:
    """Write ``confirmed.json`` and ``runs.csv``.

    Returns:
        Path of ``confirmed.json``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    result.frame.to_csv(folder / "runs.csv", index=False)
    content: Mapping[str, Any] = {"task": result.task, **result.entry}
    path = folder / "confirmed.json"
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path


def _check_fresh(seeds: Sequence[int], used: Sequence[int]) -> None:
    if len(seeds) < 2:
        raise ValueError(f"intervals need at least 2 seeds, got {len(seeds)}")
    first, last = used
    if any(first <= seed <= last for seed in seeds):
        raise ValueError(
            f"headroom was measured on seeds {first} to {last}; seeds that confirm it "
            f"are others, such as {last + 1}:{2 * last + 2 - first}"
        )


def _mean(scores: pd.Series) -> stats.Estimate:
    low, high = stats.bootstrap_interval(scores.to_numpy(), np.mean)
    return stats.Estimate(float(scores.mean()), low, high)
