"""The command line, ``dacrl`` or ``python -m dacrl_env``."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

from dacrl_env.cli import (
    exporting,
    fit_pages,
    fitting,
    importances,
    listing,
    measuring,
    suites,
    terminal,
    tuning,
)
from dacrl_env.cli.arguments import (
    POLICY,
    TASK,
    add_dry_run,
    add_evaluation,
    add_output,
    add_trajectories,
    as_json,
    count,
    say_expected,
    seeds_of,
    task_options,
)
from dacrl_env.cli.explained import explain
from dacrl_env.cli.interrupts import Interrupts, answered
from dacrl_env.cli.kept import (
    check_labels,
    keep_labels,
    keep_made,
    kept_labels,
    made_of,
    nothing_lost,
    take_labels,
    with_labels,
)
from dacrl_env.cli.listing import width
from dacrl_env.cli.parser import Commands, Parser
from dacrl_env.core import memory
from dacrl_env.core.checks import unknown
from dacrl_env.core.places import check_file, check_folder
from dacrl_env.core.version import __version__


def main(arguments: Sequence[str] | None = None, after: Any = None) -> int:
    """Run a command; returns the exit status.

    What a user got wrong is one line on standard error and status 2. An interrupt is
    one line and status 130 (Ctrl-C) or 143 (SIGTERM), see `interrupts`.

    Args:
        arguments: of the command line; None: those of this process.
        after: what signals do afterwards; None: what they did before.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # of what a terminal does not have
    with terminal.safe(), answered("dacrl: interrupted", after) as interrupts:
        try:
            _obey(arguments, interrupts)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            if isinstance(error, SystemExit) and not hasattr(error, "dacrl_blame"):
                raise  # ours, after a usage
            # what was interrupted may make another error of it
            if interrupts.number is None and not isinstance(error, KeyboardInterrupt):
                explained = explain(error, "--traceback" in (arguments or sys.argv))
                if explained is None:
                    raise
                print(explained, file=sys.stderr)
                return 2
            interrupts.say()
            return interrupts.status
        if interrupts.number is not None:
            interrupts.say()
            return interrupts.status
    return 0


def program() -> NoReturn:
    """``dacrl``: `main`, and nothing after an interrupt that could hold up its end."""
    try:
        status = main(after=signal.SIG_DFL)
    except Exception as error:
        if not memory.ran_out(error):
            raise
        # there may be too little to say more
        os.write(2, b"dacrl: out of memory; finished work is kept\n")
        status = 2
    except KeyboardInterrupt:  # all was done by then
        status = 128 + signal.SIGINT
    # signals end it now: there is nothing left that could be lost, or said
    terminal.flush()
    if status > 128:
        os._exit(status)
    sys.exit(status)


def _obey(arguments: Sequence[str] | None, interrupts: Interrupts) -> None:
    options = _parser().read(arguments)
    interrupts.line = _way_on(options)
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError(
            "the working directory does not exist any more; change to another one"
        ) from None
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)  # module:Class, as under `python -m`
    out: Path | None = getattr(options, "out", None)
    new = out is not None and not out.exists()
    if not getattr(options, "dry_run", False):
        _check_places(options)
    written = getattr(options, "as_json", False)
    options.shown = not getattr(options, "quiet", False)  # progress
    with ExitStack() as stack:
        if written or not options.shown:
            null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(null))
        try:
            result = options.command(options)
        except BaseException:
            if new and out is not None:  # nothing is left of what was refused
                with suppress(OSError):
                    out.rmdir()
            raise
    if written and result is not None:
        print(json.dumps(result, indent=2, default=as_json))


def _way_on(options: argparse.Namespace) -> str:
    """What is said when a command is interrupted."""
    going_on = (_compare, _evaluate, fitting.fit, measuring.defaults, measuring.oracle)
    if options.command in (*going_on, tuning.headroom, tuning.tune_static):
        return (
            f"dacrl: interrupted; finished work is kept in {options.out}, the same "
            "command goes on"
        )
    if options.command is measuring.references and (
        options.instances or options.seconds
    ):
        return "dacrl: interrupted; what was measured to its end is in the file"
    return "dacrl: interrupted; nothing is kept, the same command begins anew"


def _check_places(options: argparse.Namespace) -> None:
    """Raise an OSError if what a command makes cannot be written."""
    out, file = getattr(options, "out", None), getattr(options, "json", None)
    if options.command is measuring.references:
        out, file = None, out if options.instances or options.seconds else None
    if out is not None:
        check_folder(out)
    if file is not None:
        check_file(file)


# -- options ------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="dacrl",
        description="Compare ways of configuring reinforcement learning "
        "while it trains.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = Commands(parser)

    listing.add_commands(commands)

    compare = commands.add_parser(
        "compare", help="run policies on one or more tasks, report how they differ"
    )
    compare.add_argument(
        "task",
        nargs="?",
        help=TASK,
    )
    suites.add_arguments(compare)
    compare.add_argument(
        "--policies",
        nargs="+",
        default=[],
        metavar="POLICY",
        help="names, module:Class or files, with arguments: "
        "linear-epsilon,fraction=0.5; a label before an equals sign is shown instead: "
        "slow=linear-epsilon,fraction=0.5",
    )
    compare.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="what tunes a policy first: random-search hyperband pbt …; with labels as "
        "policies",
    )
    compare.add_argument(
        "--budget",
        "--tuning-budget",
        type=count,
        metavar="STEPS",
        help="training steps that each fit of a method may spend: 5e6",
    )
    compare.add_argument(
        "--runs",
        "--fits",
        type=count,
        default=5,
        metavar="FITS",
        help="independent fits of each method",
    )
    compare.add_argument(
        "--total",
        action="store_true",
        help="the tuning budget includes the run of the final policy; feedback comes "
        "from training episodes, which cost nothing more",
    )
    compare.add_argument(
        "--shuffled",
        action="store_true",
        help="also run trained controllers with shuffled observations, as a control",
    )
    compare.add_argument(
        "--anytime",
        type=count,
        default=0,
        metavar="SEEDS",
        help="also test what the methods would have returned earlier",
    )
    add_evaluation(compare)
    compare.add_argument(
        "--policy-seeds",
        metavar="SEEDS",
        help="those of --policies, where they are to be others",
    )
    compare.add_argument(
        "--reference",
        metavar="POLICY",
        help="what the others are compared with (default: the first policy)",
    )
    add_trajectories(compare)
    add_output(compare)
    add_dry_run(compare)
    compare.set_defaults(command=_compare)

    evaluate = commands.add_parser("evaluate", help="run one policy on a task")
    evaluate.add_argument("task", help=TASK)
    evaluate.add_argument("policy", help=POLICY)
    add_evaluation(evaluate)
    add_trajectories(evaluate)
    add_output(evaluate)
    add_dry_run(evaluate)
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser("report", help="write tables and figures of a store")
    report.add_argument("directory", type=Path, help="--out of an earlier comparison")
    report.add_argument(
        "--reference",
        metavar="POLICY",
        help="what the others are compared with; default: that of the comparison",
    )
    report.add_argument(
        "--figures",
        nargs="+",
        choices=("pdf", "svg"),
        default=[],
        help="write the curves in these formats, too",
    )
    suites.add_objective(report)
    add_output(report)
    report.set_defaults(command=_report)

    fitting.add_command(commands)
    importances.add_command(commands)
    tuning.add_commands(commands)
    measuring.add_commands(commands)
    exporting.add_command(commands)

    everywhere: dict[str, Any] = {
        "action": "store_true",
        "help": "all of an error in your own code",
    }
    for each in (parser, *parser.commands.values()):  # before the command, or after it
        each.add_argument("--traceback", **everywhere)
    return parser


def _compare(options: argparse.Namespace) -> Any:
    from dacrl_env.comparison.comparison import anytime

    suites.check_arguments(options)
    if options.methods and options.budget is None and options.budget_runs is None:
        raise ValueError("--methods need a tuning --budget, such as 5e6")
    tuning: dict[str, Any] = {
        "tuning_budget": options.budget,
        "runs": options.runs,
        "total": options.total,
    }
    shown = {
        **tuning,
        "shuffled": options.shuffled,
        "trajectories": options.trajectories,
    }
    if options.anytime < 0:
        raise ValueError(f"--anytime must be at least 0, got {options.anytime}")
    if options.policy_seeds is not None:
        shown["policy_seeds"] = seeds_of("--policy-seeds", options.policy_seeds)
    labels = take_labels(options.policies) | take_labels(options.methods)
    if suites.wanted(options):
        return suites.compare(options, shown, labels)
    folder, result = _run(
        options, options.policies, options.reference, options.methods, shown, labels
    )
    if options.methods and options.anytime and not options.dry_run:
        from dacrl_env.comparison import report
        from dacrl_env.core.files import write_text

        course = anytime(
            options.task,
            options.methods,
            range(options.anytime),
            store=options.out / "results",
            num_threads=options.num_threads,
            executor=options.executor,
            show_progress=options.shown,
            **tuning,
            **task_options(options, options.task),
        )
        course = course.replace({"policy": labels})
        files = (folder / "anytime.csv", folder / "anytime.png")
        with nothing_lost(*files):
            write_text(files[0], course.to_csv(index=False))
            report.anytime(course, files[1])
        print(f"anytime: {files[1]}")
        result["anytime"] = str(files[0])
    return result


def _evaluate(options: argparse.Namespace) -> Any:
    asked = {"trajectories": options.trajectories}
    return _run(options, [options.policy], None, tuning=asked)[1]


def _run(
    options: argparse.Namespace,
    policies: list[str],
    reference: str | None,
    methods: Sequence[str] = (),
    tuning: dict[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[Path, Any]:
    """Compare, and write the report; its folder, and what came out as JSON values."""
    from dacrl_env.comparison import report
    from dacrl_env.comparison.comparison import check, compare
    from dacrl_env.comparison.results import folder_of
    from dacrl_env.tasks.registration import get_task

    seeds = seeds_of("--seeds", options.seeds)
    labels = labels or {}
    given = task_options(options, options.task)
    task = get_task(options.task)
    names = [labels.get(name, name) for name in (*policies, *methods)]
    check_labels(options.out, [*policies, *methods], labels)
    valid = list(names)
    if tuning and tuning.get("shuffled"):
        valid += [f"{labels.get(name, name)} shuffled" for name in methods]
    if reference is not None and reference not in valid:
        raise ValueError(unknown("reference", reference, valid))
    asked: dict[str, Any] = {
        "methods": methods,
        "num_threads": options.num_threads,
        "executor": options.executor,
        **(tuning or {}),
        **given,
    }
    if options.dry_run:
        return options.out, say_expected([check(task, policies, seeds, **asked)])
    asked |= {"store": options.out / "results", "show_progress": options.shown}
    frame = compare(task, policies, seeds, **asked)
    if labels:
        keep_labels(options.out, labels)
    frame = with_labels(frame, labels)
    if (tuning or {}).get("total"):
        given.setdefault("feedback", "train")
    folder: Path = options.out / folder_of(task, given)
    dropped = _shown_in(folder) - set(frame["policy"])
    made = keep_made(
        folder, options.line, [*policies, *methods], reference, labels, given
    )
    written = report.write_report(frame, folder, reference, made=made)
    print(report.render(written.table, width()))
    if len(names) > 1:
        print(f"differences from {written.reference}, paired by seed:\n")
        print(report.render(written.paired, width()).rstrip("\n"))
        for note in written.alone:
            print(note)
    print(f"\nreport: {written.path}\npage: {written.page}")
    if dropped:
        print(
            f"the report before also had {', '.join(sorted(dropped))}; all in one: "
            f"dacrl report {options.out}"
        )
    return folder, _came_out(written)


def _came_out(written: Any) -> dict[str, Any]:
    """A report as JSON values."""
    tables = {"policies": written.table, "paired": written.paired}
    rows = {name: json.loads(t.to_json(orient="records")) for name, t in tables.items()}
    return {"report": str(written.path), **rows}


def _shown_in(folder: Path) -> set[str]:
    """Policies that the report in a folder shows."""
    import pandas as pd

    try:
        return set(pd.read_csv(folder / "table.csv", dtype=str)["policy"])
    except (OSError, ValueError, KeyError):
        return set()


def _report(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from dacrl_env.comparison import report
    from dacrl_env.comparison.results import stored

    labels, ways = kept_labels(options.directory), {}

    def order(folder: str) -> Sequence[str]:
        ways[folder] = made_of(options.directory / folder)
        return ways[folder].policies

    fits = fit_pages.report(options.directory, options.figures)
    try:
        found = stored(options.directory / "results", labels, order)
    except FileNotFoundError:
        if not fits:
            raise
        if options.reference is not None:
            raise ValueError(
                f"--reference {options.reference} is for comparisons; in "
                f"{options.directory} there are fits alone"
            ) from None
        return {"fits": fits}
    reference = options.reference
    names = {name: list(kept.frame["policy"].unique()) for name, kept in found.items()}
    every = dict.fromkeys(policy for policies in names.values() for policy in policies)
    if reference is not None and reference not in every:
        raise ValueError(f"unknown reference {reference!r}; valid: {', '.join(every)}")
    result: dict[str, Any] = {"fits": fits} if fits else {}
    for folder, kept in found.items():
        made = replace(ways[folder], settings=kept.settings, versions=kept.versions)
        first = reference
        if first is None and made.reference is not None:  # that of the comparison
            first = labels.get(made.reference, made.reference)
        known = first in names[folder]
        notes = kept.notes
        if reference is not None and not known:
            notes = [*notes, f"{reference} has no results here."]
        written = report.write_report(
            kept.frame,
            options.directory / folder,
            first if known else None,
            notes,
            made,
        )
        for kind in options.figures:
            report.curves(kept.frame, options.directory / folder / f"curves.{kind}")
        result[folder] = _came_out(written)
        if len(found) > 1:
            print(f"{folder}\n")
        print(report.render(written.table, width()))
        for note in notes:
            print(note)
        print(f"\nreport: {written.path}\npage: {written.page}")
    suites.report_all(options.directory, found, reference, options.objective, labels)
    return result


if __name__ == "__main__":
    program()
