"""``dacrl importance``: which knobs mattered in fits."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dacrl_env.cli.arguments import add_output, count
from dacrl_env.cli.listing import width

TABLE = "importance.csv"


def add_command(commands: Any) -> None:
    """Add the command to the others of a parser."""
    parser = commands.add_parser(
        "importance", help="how much each hyperparameter mattered in fits"
    )
    parser.add_argument(
        "directories",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="--out of dacrl fit; fits that differ in their seed alone are one group",
    )
    parser.add_argument(
        "--objective", metavar="NAME", help="one of those of the fits (default: all)"
    )
    parser.add_argument(
        "--evaluators",
        nargs="+",
        default=None,
        metavar="NAME",
        help="fanova: shares of the main effects on scores over the space; ped-anova: "
        "what tells the best tenth from the others (default: both)",
    )
    parser.add_argument(
        "--draws",
        type=count,
        default=None,
        help="of the bootstrap behind the intervals, of each fit (default: 50)",
    )
    parser.add_argument(
        "--seed", type=count, default=0, help="of the bootstrap and of forests"
    )
    add_output(parser)
    parser.set_defaults(command=importance)


def importance(options: argparse.Namespace) -> Any:
    """Find importance, print it, and write it into the first of the folders."""
    from dacrl_env.core.files import write_text
    from dacrl_env.core.progress import progress
    from dacrl_env.integrations.optuna import read_studies
    from dacrl_env.studies import importance_of_fits as study

    every = [one for folder in options.directories for one in read_studies(folder)]
    wanted = [
        1
        for one in every
        for name in study.objectives_of(one)
        if options.objective in (None, name)
    ]
    evaluators = list(dict.fromkeys(options.evaluators or study.EVALUATORS))
    draws = study.DRAWS if options.draws is None else options.draws
    total = len(wanted) * len(evaluators) * draws
    with progress(total, "importance", options.shown, "draws") as bar:
        found = study.importance_of_fits(
            every,
            options.objective,
            evaluators,
            draws,
            options.seed,
            bar.update,
        )
    path = options.directories[0] / TABLE
    write_text(path, found.table.to_csv(index=False))
    for text in study.render(found, width()):
        print(text)
    print(f"table: {path}")
    rows = json.loads(found.table.to_json(orient="records"))
    return {"table": str(path), "importance": rows, "notes": found.notes}
