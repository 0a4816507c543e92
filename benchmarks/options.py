"""What choices, events, convolutions and SAC do to complete runs: docs/options.md.

``python -m dacrl_env.benchmarks.options --out DIRECTORY`` runs all of it, or what is
named, and writes a table of each experiment, a figure of the curves and the page's
tables to the directory. What is finished is found there again. Seeds are those of the
test split, from 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dacrl_env.comparison import report
from dacrl_env.comparison.comparison import compare
from dacrl_env.core.checks import unknown
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.task import Task

_ZOO = {
    "learning_rate": 2.3e-3,
    "train_freq": 256,
    "gradient_steps": 128,
    "target_update_interval": 10,
    "epsilon": 0.04,
    "batch_size": 64,
}


@dataclass(frozen=True)
class Experiment:
    """Policies on a task; the first of them is what the others are compared with.

    Args:
        title: heading of its table.
        task: id of a task.
        policies: by label.
        seeds: test runs of each policy.
        defaults: hyperparameters of the task instead of its own; None: its own.
        hyperparameters: controlled ones; None: the task's.
    """

    title: str
    task: str
    policies: Mapping[str, str]
    seeds: int
    defaults: Mapping[str, Any] | None = None
    hyperparameters: tuple[str, ...] | None = None

    def made(self) -> Task:
        """The task, with these defaults."""
        task = get_task(self.task)
        return task if self.defaults is None else replace(task, defaults=self.defaults)


_DEFAULT = {"default": "default"}
EXPERIMENTS = {
    "restore": Experiment(
        "Checkpoints that are restored: DQN-CartPole, the public configuration",
        "dacrl/DQN-CartPole-v0",
        {
            **_DEFAULT,
            "freeze-when-good": "freeze-when-good",
            "checkpoint-when-best, fall 0.1": "checkpoint-when-best",
            "checkpoint-when-best, fall 0.5": "checkpoint-when-best,fall=0.5",
        },
        128,
        _ZOO,
        ("learning_rate", "epsilon", "checkpoint"),
    ),
    "n-step": Experiment(
        "Returns of several steps: DQN-Acrobot, the algorithm's defaults",
        "dacrl/DQN-Acrobot-v0",
        {"n_step 1": "static,n_step=1", "n_step 3": "static,n_step=3"},
        32,
        {},
        ("n_step",),
    ),
    "resets": Experiment(
        "Resets at a high replay ratio: DQN-CartPole, 4 gradient steps a step",
        "dacrl/DQN-CartPole-v0",
        {**_DEFAULT, "reset-every": "reset-every"},
        16,
        {"train_freq": 1, "gradient_steps": 4},
        ("learning_rate", "reset_all", "reset_head"),
    ),
    "sac-pendulum": Experiment(
        "SAC on Pendulum", "dacrl/SAC-Pendulum-v0", _DEFAULT, 16
    ),
    "sac-swingup": Experiment(
        "SAC on the swing-up of CartPole", "dacrl/SAC-CartPoleSwingup-v0", _DEFAULT, 8
    ),
    "breakout": Experiment(
        "DQN behind a convolution on MinAtar Breakout",
        "dacrl/DQN-MinAtar-Breakout-v0",
        _DEFAULT,
        6,
    ),
    "freeway": Experiment(
        "DQN behind a convolution on MinAtar Freeway",
        "dacrl/DQN-MinAtar-Freeway-v0",
        _DEFAULT,
        6,
    ),
}
FIGURE = ("sac-pendulum", "sac-swingup", "breakout", "freeway")


def run(name: str, out: Path, num_threads: int | None = None) -> pd.DataFrame:
    """The runs of an experiment.

    Args:
        name: of `EXPERIMENTS`.
        out: directory of the store.
        num_threads: as in :func:`dacrl_env.compare`.

    Returns:
        The frame of `compare`.
    """
    e = EXPERIMENTS[name]
    controlled: dict[str, Any] = (
        {"hyperparameters": e.hyperparameters} if e.hyperparameters else {}
    )
    return compare(
        e.made(),
        dict(e.policies),
        e.seeds,
        store=out / "results",
        num_threads=num_threads,
        show_progress=True,
        **controlled,
    )


def markdown(name: str, frame: pd.DataFrame) -> str:
    """Scores, returns and differences of an experiment as a Markdown table."""
    e = EXPERIMENTS[name]
    summary = report.summarize(frame)
    table = report.table(summary)
    references = e.made()
    first = next(iter(e.policies))
    gains = {}
    if len(e.policies) > 1:
        differences = report.paired(summary, first)
        for row in differences.to_dict("records"):
            if row["metric"] == "report_final":
                value, low, high = (
                    row[f"difference{x}"] for x in ("", "_low", "_high")
                )
                gains[row["policy"]] = _number(value, low, high, "+")
    lines = [
        f"### {e.title}",
        "",
        f"{e.seeds} runs of {references.budget:,} steps, `{name}`.",
        "",
        "| policy | report_final | report_auc | final return | final − first |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    span = references.returns.reference - references.returns.random
    for row in table.to_dict("records"):
        final = [row[f"report_final_{k}"] for k in ("mean", "mean_low", "mean_high")]
        auc = [row[f"report_auc_{k}"] for k in ("mean", "mean_low", "mean_high")]
        at_end = references.returns.random + span * final[0]
        lines.append(
            f"| {row['policy']} | {_number(*final)} | {_number(*auc)} "
            f"| {at_end:.4g} | {gains.get(row['policy'], '–')} |"
        )
    return "\n".join(lines)


def _number(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--num-threads", type=int, metavar="CORES")
    given = parser.parse_args()
    for name in given.names:
        if name not in EXPERIMENTS:
            parser.error(unknown("experiment", name, EXPERIMENTS))
    frames = {
        name: run(name, given.out, given.num_threads)
        for name in given.names or EXPERIMENTS
    }
    text = "\n\n".join(markdown(name, frame) for name, frame in frames.items())
    (given.out / "options.md").write_text(text + "\n", encoding="utf-8")
    drawn = {EXPERIMENTS[n].task: frames[n] for n in FIGURE if n in frames}
    if drawn:
        report.gallery(drawn, given.out / "options.png")
    print(text)


if __name__ == "__main__":
    main()
