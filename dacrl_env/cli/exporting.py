"""``dacrl export``: episodes of a policy, for programs that learn from data."""

from __future__ import annotations

import argparse
from typing import Any

from dacrl_env.cli.arguments import (
    POLICY,
    TASK,
    add_options,
    add_seeds,
    add_threads,
    seeds_of,
    task_options,
)


def add_command(commands: Any) -> None:
    """Add the command to the others of a parser."""
    parser = commands.add_parser(
        "export",
        help="keep a policy's outer episodes as a data set of Minari (extra minari)",
    )
    parser.add_argument("task", help=TASK)
    parser.add_argument("policy", help=POLICY)
    parser.add_argument(
        "--minari",
        required=True,
        metavar="NAME",
        help="of the data set: linear-v0, or dqn-cartpole/linear-v0; it must be new",
    )
    parser.add_argument(
        "--split",
        choices=("tuning", "test"),
        default="tuning",
        help="of the seeds; default: tuning, which leaves test runs to be seen by "
        "nothing that learns",
    )
    add_seeds(parser)
    add_threads(parser)
    add_options(parser)
    parser.set_defaults(command=export)


def export(options: argparse.Namespace) -> None:
    """Run the policy, and write the data set."""
    from dacrl_env.core.progress import progress
    from dacrl_env.integrations.minari import check_name
    from dacrl_env.integrations.minari import export as to_minari
    from dacrl_env.tasks.registration import get_task

    check_name(options.minari)
    seeds = seeds_of("--seeds", options.seeds)
    task, given = get_task(options.task), task_options(options, options.task)
    total = len(seeds) * (given.get("budget") or task.budget)
    with progress(total, task.id, True) as bar:
        data = to_minari(
            task,
            options.policy,
            options.minari,
            seeds,
            options.split,
            num_threads=options.num_threads,
            progress=bar.update,
            **given,
        )
    print(f"{data.total_episodes} episodes, {data.total_steps} decisions: {data.id}")
    print(f"minari.load_dataset({data.id!r}) reads them from {data.storage.data_path}")
