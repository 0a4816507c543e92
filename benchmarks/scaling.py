"""How time and memory of a population grow with its size."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from dacrl_env.core import processes, snapshot

from . import suite
from .throughput import versions

TASK = "dacrl/DQN-CartPole-v0"
POPULATIONS = (64, 128, 256, 512, 1024)


def measure(
    task: str = TASK,
    populations: Sequence[int] = POPULATIONS,
    repeats: int = 3,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Throughput on one core, in turns, and memory of a process for each size.

    Args:
        task: id.
        populations: sizes P.
        repeats: measurements of each, in turns.
        seconds: of one measurement, at least.

    Returns:
        Figures and what they were measured on, as JSON values. Memory is what a process
        holds that has trained such a population for a decision and filled its replay,
        less the same of a population of one.

    Raises:
        ValueError: an unknown task, or sizes or repeats below one.
    """
    suite.check([task], populations, [1], repeats, seconds)
    rows = suite.measure_task(task, populations, [1], repeats, seconds, peers=False)
    least = _megabytes(task, 1)
    for row in rows:
        row["resident_megabytes"] = _megabytes(task, row["P"]) - least
    return {"repeats": repeats, "versions": versions(), "rows": rows}


def render(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    first = result["rows"][0]
    lines = [
        f"{first['task']}, one core, median of {result['repeats']} turns "
        f"({', '.join(f'{k} {v}' for k, v in result['versions'].items())})",
        "",
        f"| P | member-steps/s | time of a member-step, × that of P = {first['P']} | "
        "memory, MB | MB a member |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['P']} | {row['steps_per_second']:,.0f} "
        f"| {first['steps_per_second'] / row['steps_per_second']:.2f} "
        f"| {row['resident_megabytes']:,.0f} "
        f"| {row['resident_megabytes'] / row['P']:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def _megabytes(task: str, P: int) -> float:
    """Resident memory of a new process with such a population."""
    worker = processes.start(_train_once, task, P)
    try:
        megabytes: float = worker.pipe.recv()
    except EOFError:
        raise processes.WorkerDiedError(
            f"the process with {P} members died with {worker.join()}"
        ) from None
    finally:
        processes.end([worker])
    return megabytes


def _train_once(pipe: Connection, task: str, P: int) -> None:
    with suite.population(task, P, 1) as (run, env):
        run()
        # memory counts once it is written to, which takes a replay a whole run
        for _, leaf in snapshot.leaves(env.population.state):
            rows = np.asarray(leaf)
            for i in range(P):
                rows[i] = rows[i].copy()
        pipe.send(_resident())


def _resident() -> float:
    """Megabytes of this process; the most so far, where the system tells no more."""
    file = Path("/proc/self/statm")
    if file.exists():
        return int(file.read_text().split()[1]) * resource.getpagesize() / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)  # bytes, or kilobytes
