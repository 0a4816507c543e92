"""What a fork costs beside the training between two decisions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks.registration import get_task

from .throughput import one_core, versions

TASK = "dacrl/DQN-CartPole-v0"
# share of the members that continue from another one
SHARES = (0.25, 1.0)


def measure(
    task: str = TASK, populations: Sequence[int] = (64,), repeats: int = 5
) -> dict[str, Any]:
    """Processor time of forks and of outer steps, in turns, on one core.

    Args:
        task: id; its replay has its full capacity from the start.
        populations: sizes P.
        repeats: outer steps, each followed by one fork of either kind.

    Returns:
        Figures and what they were measured on, as JSON values.

    Raises:
        ValueError: an unknown task, a population below two, or repeats below one.
    """
    get_task(task)
    if min(populations, default=0) < 2 or repeats < 1:
        raise ValueError(
            "populations must be at least 2 and repeats at least 1, got "
            f"{list(populations)}, {repeats}"
        )
    rows = []
    with one_core():
        for P in populations:
            rows += _measure(task, P, repeats)
    return {"repeats": repeats, "versions": versions(), "rows": rows}


def _measure(task: str, P: int, repeats: int) -> list[dict[str, Any]]:
    env = PopulationEnv(task, P, num_threads=1, action_mode="continuous")
    env.reset(seed=0)
    middle = np.zeros((P, len(env.settings.controlled)))
    steps: list[float] = []
    forks: dict[float, list[float]] = {share: [] for share in SHARES}
    for _ in range(repeats + 1):
        steps.append(_seconds(lambda: env.step(middle)))
        for share in SHARES:
            parents = np.arange(P)
            children = max(1, round(share * P))
            parents[:children] = np.roll(np.arange(P), 1)[:children]
            forks[share].append(_seconds(lambda parents=parents: env.fork(parents)))
    step = median(steps[1:])  # the first turn warms up
    return [
        {
            "task": get_task(task).id,
            "P": P,
            "program": f"{share:.0%} of the members forked",
            "milliseconds": 1e3 * median(values[1:]),
            "step_milliseconds": 1e3 * step,
            "share_of_step": median(values[1:]) / step,
        }
        for share, values in forks.items()
    ]


def _seconds(program: Any) -> float:
    began = process_time()
    program()
    return process_time() - began


def render(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    of = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"Forks, processor time, median of {result['repeats']} turns ({of})",
        "",
        "| task | P | what | ms | outer step, ms | share of it |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['task']} | {row['P']} | {row['program']} "
        f"| {row['milliseconds']:,.1f} | {row['step_milliseconds']:,.0f} "
        f"| {row['share_of_step']:.1%} |"
        for row in result["rows"]
    ]
    return "\n".join(lines)
