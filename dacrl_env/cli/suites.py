"""``dacrl compare`` on several tasks, and reports of what it made."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dacrl_env.cli.arguments import count, say_expected, seeds_of, task_options
from dacrl_env.cli.kept import (
    check_labels,
    keep_labels,
    keep_made,
    made_of,
    with_labels,
)
from dacrl_env.cli.listing import width
from dacrl_env.core.checks import unknown

OBJECTIVES = ("auc", "final", "best")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `compare` takes for several tasks to its parser."""
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="several tasks, instead of one"
    )
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="all tasks with a tag: state, schedule, smoke; or default (those of "
        "state and schedule), or all",
    )
    parser.add_argument(
        "--skip-unfit",
        action="store_true",
        help="leave out policies on tasks that they do not suit",
    )
    parser.add_argument(
        "--budget-runs",
        type=count,
        metavar="N",
        help="instead of --budget: a tuning budget of N runs of each task",
    )
    add_objective(parser)


def add_objective(parser: argparse.ArgumentParser) -> None:
    """Add what suites are judged by to a parser."""
    parser.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="what a suite is judged by: the mean of the report scores of a run, the "
        "last, or the best (default: auc)",
    )


def wanted(options: argparse.Namespace) -> bool:
    """Whether several tasks are to be compared on."""
    return options.tasks is not None or options.suite is not None


def check_arguments(options: argparse.Namespace) -> None:
    """Raise a ValueError for arguments of `compare` that exclude each other."""
    given = {"a task": options.task, "--tasks": options.tasks, "--suite": options.suite}
    there = [name for name, value in given.items() if value is not None]
    if not there:
        raise ValueError("which task? one by its place, several by --tasks or --suite")
    if len(there) > 1:
        raise ValueError(f"{' and '.join(there)} exclude each other")
    if options.budget is not None and options.budget_runs is not None:
        raise ValueError("--budget and --budget-runs exclude each other")
    if wanted(options):
        if options.anytime:
            raise ValueError("--anytime takes one task, by its place")
        return
    for name in ("skip_unfit", "budget_runs", "objective"):
        if getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for several tasks, by --tasks or --suite")


def compare(
    options: argparse.Namespace, tuning: dict[str, Any], labels: Mapping[str, str]
) -> Any:
    """Compare on every task, write its report, and that of the suite.

    Args:
        options: of the command line.
        tuning: arguments of `dacrl_env.compare` about methods and seeds of policies.
        labels: of policies and methods, by what they stand for.

    Raises:
        ValueError: as `dacrl_env.comparison.suite.plan_suite`, or an unknown suite or
            reference.
    """
    from dacrl_env.comparison import report
    from dacrl_env.comparison.results import folder_of
    from dacrl_env.comparison.suite import (
        Unfit,
        checked_tasks,
        expected,
        plan_suite,
        run_suite,
    )
    from dacrl_env.comparison.suite_report import About, render, write_suite
    from dacrl_env.tasks.headroom import suite
    from dacrl_env.tasks.registration import get_task, listed

    seeds = seeds_of("--seeds", options.seeds)
    asked = options.tasks
    if asked is None:
        asked = suite(options.suite, listed())
    tasks = [get_task(task) for task in checked_tasks(asked)]
    each = {task.id: task_options(options, task.id) for task in tasks}
    specs = [*options.policies, *options.methods]
    check_labels(options.out, specs, labels)
    names = [labels.get(name, name) for name in specs]
    valid = list(names)
    if tuning.get("shuffled"):
        valid += [f"{labels.get(name, name)} shuffled" for name in options.methods]
    if options.reference is not None and options.reference not in valid:
        raise ValueError(unknown("reference", options.reference, valid))
    plans, unfit = plan_suite(
        tasks,
        options.policies,
        seeds,
        methods=options.methods,
        tuning_runs=options.budget_runs,
        skip_unfit=options.skip_unfit,
        task_options=each,
        store=None if options.dry_run else options.out / "results",
        num_threads=options.num_threads,
        executor=options.executor,
        **tuning,
    )
    if options.dry_run:
        for one in unfit:
            print(f"{one.policy} is left out on {one.task}: {one.reason}")
        return say_expected([expected(plan) for plan in plans])
    folders = {}
    for plan in plans:
        given = dict(each[plan.task.id])
        if tuning.get("total"):
            given.setdefault("feedback", "train")
        folders[plan.task.id] = folder_of(plan.task, given)
    if labels:
        keep_labels(options.out, labels)
    about = About(
        options.suite or f"{len(tasks)}-tasks",
        options.objective or OBJECTIVES[0],
        options.reference or names[0],
        folders,
        [Unfit(u.task, labels.get(u.policy, u.policy), u.reason) for u in unfit],
    )
    about.write(options.out)  # also of a suite that is interrupted
    before = _shown_in(options.out / about.folder)
    summaries = {}
    for plan, results in run_suite(plans, show_progress=options.shown):
        frame, task = with_labels(results, labels), plan.task.id
        known = about.reference in set(frame["policy"])
        first = about.reference if known else None
        notes = [
            f"{u.policy} was left out: {u.reason}"
            for u in about.unfit
            if u.task == task
        ]
        folder = options.out / folders[task]
        made = keep_made(
            folder, options.line, specs, about.reference, labels, each[task]
        )
        written = report.write_report(frame, folder, first, notes, made)
        summaries[task] = report.summarize(frame)
        print(f"{task}: {written.path}")
    made = keep_made(
        options.out / about.folder, options.line, specs, about.reference, labels, {}
    )
    found = write_suite(summaries, options.out, about, made=made, order=names)
    print()
    print(render(found.aggregates, width()))
    _say_notes(found.aggregates.notes, about)
    print(f"\nreport: {found.path}\npage: {found.page}")
    dropped = before - set(found.aggregates.overall["policy"])
    if dropped:
        print(
            f"the report before also had {', '.join(sorted(dropped))}; all in one: "
            f"dacrl report {options.out}"
        )
    return {
        "report": str(found.path),
        "policies": json.loads(found.aggregates.overall.to_json(orient="records")),
        "tasks": {task: str(options.out / name) for task, name in folders.items()},
    }


def report_all(
    directory: Path,
    found: Mapping[str, Any],
    reference: str | None,
    objective: str | None,
    labels: Mapping[str, str],
) -> None:
    """Write the reports of all suites in a directory anew, from what is kept there.

    Args:
        directory: of the comparisons.
        found: of `dacrl_env.comparison.results.stored`.
        reference: None: that of the suite.
        objective: None: that of the suite.
        labels: of policies and methods, by what they stand for.

    Raises:
        ValueError: a damaged file of a suite; or an objective is given and there is no
            suite.
    """
    from dataclasses import replace

    from dacrl_env.comparison.report import summarize
    from dacrl_env.comparison.suite_report import ABOUT, About, render, write_suite

    paths = sorted(directory.glob(f"suite-*/{ABOUT}"))
    if objective is not None and not paths:
        raise ValueError(f"--objective is for suites, and {directory} has none")
    for path in paths:
        about = About.read(path)
        summaries, notes = {}, []
        for task, folder in about.folders.items():
            if folder in found:
                summaries[task] = summarize(found[folder].frame)
                notes += [f"{task}: {note}" for note in found[folder].notes]
            else:
                notes.append(f"{task} has no results yet.")
        there = {name for runs in summaries.values() for name in runs["policy"]}
        if not there:
            print(f"dacrl: {path.parent}: no task has results", file=sys.stderr)
            continue
        first = about.reference if reference is None else reference
        about = replace(
            about,
            reference=first if first in there else None,
            objective=objective or about.objective,
        )
        made = made_of(path.parent)
        order = [labels.get(name, name) for name in made.policies]
        written = write_suite(summaries, directory, about, notes, made, order)
        print(f"{path.parent.name}\n")
        print(render(written.aggregates, width()))
        _say_notes([*notes, *written.aggregates.notes], about)
        print(f"\nreport: {written.path}\npage: {written.page}")


def _say_notes(notes: list[str], about: Any) -> None:
    for note in notes:
        print(note)
    for one in about.unfit:
        print(f"{one.policy} was left out on {one.task}: {one.reason}")


def _shown_in(folder: Path) -> set[str]:
    """Policies that the report of a suite in a folder shows."""
    import pandas as pd

    try:
        return set(pd.read_csv(folder / "aggregates.csv", dtype=str)["policy"])
    except (OSError, ValueError, KeyError):
        return set()
