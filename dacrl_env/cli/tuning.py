"""``dacrl headroom``, what confirms it, its page, and ``dacrl tune-static``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dacrl_env.cli.arguments import (
    TASK,
    add_branches,
    add_evaluation,
    add_executor,
    add_out,
    add_run,
    add_seeds,
    count,
    seeds_of,
    task_options,
)
from dacrl_env.cli.kept import nothing_lost


def add_commands(commands: Any) -> None:
    """Add the commands to the others of a parser."""
    room = commands.add_parser(
        "headroom",
        help="what schedules and state are worth above a strongly tuned static "
        "configuration",
    )
    room.add_argument("task", help=TASK)
    room.add_argument(
        "--runs", type=count, default=1_000, help="tuning of each rung, in runs"
    )
    room.add_argument(
        "--fits", type=count, default=3, help="independent tunings of each rung"
    )
    room.add_argument("--objective", default="auc", help="auc (default) or final")
    _add_search(room)
    room.add_argument(
        "--rungs", nargs="+", metavar="RUNG", help="some of them, static-tuned first"
    )
    room.add_argument(
        "--keep",
        action="store_true",
        help="also keep the gains in this package, from which the task's tags follow, "
        "and of each rung a policy, such as freeze-tuned",
    )
    add_evaluation(room)
    room.set_defaults(command=headroom, seeds="128")

    again = commands.add_parser(
        "headroom-confirm",
        help="what headroom --keep has found, once more, on test seeds that were held "
        "back",
    )
    again.add_argument("task", help=TASK)
    again.add_argument(
        "--keep",
        action="store_true",
        help="also keep the result in this package, beside the headroom of the task",
    )
    add_seeds(again, "test runs")
    add_executor(again)
    add_out(again)
    again.set_defaults(command=headroom_confirm, seeds="128:256")

    branches = commands.add_parser(
        "headroom-branch",
        help="what switching in the middle of runs gains, from the static "
        "configuration that headroom --keep has found",
    )
    branches.add_argument("task", help=TASK)
    add_branches(branches, runs=32)
    branches.add_argument(
        "--keep",
        action="store_true",
        help="also keep the result in this package, beside the headroom of the task",
    )
    add_executor(branches)
    add_out(branches)
    branches.set_defaults(command=headroom_branch)

    page = commands.add_parser(
        "headroom-page", help="a page of all that headroom --keep has measured"
    )
    page.add_argument(
        "directory", type=Path, help="headroom.md and headroom.png are written to it"
    )
    page.set_defaults(command=headroom_page)

    steady = commands.add_parser(
        "tune-static",
        help="the strongest static configuration of a task: search all numbers and "
        "choices, then choose on fresh seeds",
    )
    _add_static(steady)
    add_executor(steady)
    add_run(steady)
    steady.set_defaults(command=tune_static)


def _add_static(parser: argparse.ArgumentParser) -> None:
    """Add what ``tune-static`` takes beside options of runs."""
    parser.add_argument("task", help=TASK)
    parser.add_argument(
        "--runs", type=count, default=1_000, help="of each search (default: 1000)"
    )
    parser.add_argument(
        "--fits",
        type=count,
        default=3,
        metavar="K",
        help="independent searches; 0: choose from what is known (default: 3)",
    )
    parser.add_argument(
        "--probes",
        type=count,
        default=0,
        metavar="N",
        help="runs of candidates all over the space, by which it is told how much each "
        "knob matters; 0: by the first rounds of the searches (default: 0)",
    )
    parser.add_argument("--objective", default="auc", help="auc (default) or final")
    _add_search(parser)
    parser.add_argument(
        "--configurations",
        default="none",
        metavar="none|all",
        help="all: also search sizes of networks, activations, what networks see of "
        "observations, and rollouts",
    )
    parser.add_argument(
        "--seeds",
        type=count,
        default=128,
        metavar="S",
        help="runs of each finalist, on fresh tuning seeds; the winner has as many "
        "more (default: 128)",
    )
    parser.add_argument(
        "--first-seed",
        type=count,
        default=1_000,
        metavar="SEED",
        help="of the first search; take another one where the task's default came from "
        "an earlier one (default: 1000)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the result in this package: as static-tuned of the task, and as the "
        "base that the task's next version starts at",
    )
    parser.add_argument(
        "--controlled",
        nargs="+",
        metavar="NAME",
        help="with --keep: what actions of that version set (default: with --probes "
        "the fewest knobs that have 0.8 of the importance, else as before)",
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    """Add what sequential halving over the wide space takes."""
    parser.add_argument(
        "--most-work",
        type=float,
        default=4.0,
        metavar="TIMES",
        help="floating-point operations of a candidate, as a multiple of the default's",
    )
    parser.add_argument(
        "--generations",
        type=count,
        default=3,
        metavar="G",
        help="of a search, which begin around the winner of the one before",
    )


def headroom(options: argparse.Namespace) -> None:
    """Tune all rungs, test them, and keep what was found if that is asked for."""
    from dacrl_env.studies import headroom as study
    from dacrl_env.studies import keeping
    from dacrl_env.tasks.registration import get_task
    from dacrl_env.tasks.rungs import RUNGS

    given = task_options(options, options.task)
    seeds = seeds_of("--seeds", options.seeds)
    if options.keep:  # what is wrong must not come to light after hours
        task = get_task(options.task)
        settings = {
            "runs": options.runs,
            "fits": options.fits,
            "seeds": [min(seeds), max(seeds)],
            "rungs": options.rungs or study.suitable(task),
        }
        keeping.check_keep_headroom(task, given, settings)
    files = ["headroom.json", "runs.csv"]
    files += [f"{rung}-{k}.json" for rung in RUNGS for k in range(options.fits)]
    with nothing_lost(*(options.out / name for name in files)):
        result = study.headroom(
            options.task,
            store=options.out / "results",
            objective=options.objective,
            runs=options.runs,
            fits=options.fits,
            seeds=seeds,
            rungs=options.rungs,
            most_work=options.most_work,
            generations=options.generations,
            num_threads=options.num_threads,
            executor=options.executor,
            show_progress=options.shown,
            **given,
        )
        path = study.write(result, options.out)
    kept = keeping.keep_headroom(result) if options.keep else {}
    print(study.render(result))
    print(f"\n{path}")
    _say_kept(kept.values())


def headroom_confirm(options: argparse.Namespace) -> None:
    """Run the kept policies on other seeds, and keep what came out if that is asked."""
    from dacrl_env.studies import confirming as study

    seeds = seeds_of("--seeds", options.seeds)
    if options.keep:
        study.check_keep(options.task, seeds)
    with nothing_lost(options.out / "confirmed.json", options.out / "runs.csv"):
        result = study.confirm(
            options.task,
            store=options.out / "results",
            seeds=seeds,
            num_threads=options.num_threads,
            executor=options.executor,
            show_progress=options.shown,
        )
        path = study.write(result, options.out)
    print(study.render(result))
    print(f"\n{path}")
    if options.keep:
        study.keep(result)


def headroom_branch(options: argparse.Namespace) -> None:
    """Branch runs of the kept static configuration, and keep what came out if asked."""
    from dacrl_env.studies import headroom_branching as study

    counts = {
        name: getattr(options, name) for name in ("runs", "configurations", "streams")
    }
    if options.keep:
        study.check_keep(options.task, counts)
    with nothing_lost(options.out / "branching.json", options.out / "branching.csv"):
        result = study.branch(
            options.task,
            store=options.out / "results",
            **counts,
            num_threads=options.num_threads,
            executor=options.executor,
            show_progress=options.shown,
        )
        path = study.write(result, options.out)
    print(study.render(result))
    print(f"\n{path}")
    if options.keep:
        study.keep(result)


def headroom_page(options: argparse.Namespace) -> None:
    """Write the page."""
    from dacrl_env.studies import headroom_page as study

    for path in study.write(options.directory):
        print(path)


def tune_static(options: argparse.Namespace) -> None:
    """Tune, write what was found, and keep it if that is asked for."""
    from dacrl_env.studies import keeping
    from dacrl_env.studies import tune_static as study
    from dacrl_env.tasks.registration import get_task

    given = task_options(options, options.task)
    if options.keep:  # what is wrong must not come to light after hours
        keeping.check_keep(
            get_task(options.task),
            given,
            options.objective,
            options.seeds,
            options.controlled,
        )
    elif options.controlled is not None:
        raise ValueError("--controlled is for --keep")
    files = ("tune-static.json", "trials.csv", "runs.csv", "static-tuned.json")
    with nothing_lost(*(options.out / name for name in files)):
        result = study.tune_static(
            options.task,
            store=options.out / "results",
            objective=options.objective,
            runs=options.runs,
            fits=options.fits,
            probes=options.probes,
            seeds=options.seeds,
            first=options.first_seed,
            most_work=options.most_work,
            generations=options.generations,
            configurations=options.configurations,
            num_threads=options.num_threads,
            executor=options.executor,
            show_progress=options.shown,
            **given,
        )
        path = study.write(result, options.out)
    print(study.render(result))
    print(f"\n{path}")
    if options.keep:
        new, written = keeping.keep_static(result, options.controlled)
        _say_kept(written)
        if new is not None:
            print(f"kept: {new} starts at it")
        if not written:
            print("the base that is there has won again, and stays")


def _say_kept(paths: Iterable[Path]) -> None:
    """Name the files that were written into the package."""
    for path in paths:
        print(f"kept: {path}")
