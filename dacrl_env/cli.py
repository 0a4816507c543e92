"""The command line, ``dacrl`` or ``python -m dacrl_env``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dacrl_env.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    What a user got wrong is one line on standard error and status 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"dacrl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "dacrl: interrupted; finished work is kept, the same command goes on",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dacrl",
        description="Compare ways of configuring reinforcement learning "
        "while it trains.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    tasks = commands.add_parser("tasks", help="list the tasks and policies")
    tasks.add_argument("--markdown", action="store_true", help="as docs/tasks.md")
    tasks.set_defaults(command=_tasks)

    compare = commands.add_parser(
        "compare", help="run policies on a task and report how they differ"
    )
    compare.add_argument("task", help="id, as `dacrl tasks` lists them")
    compare.add_argument(
        "--policies",
        nargs="+",
        required=True,
        metavar="POLICY",
        help="names or module:Class, with arguments: linear-epsilon,fraction=0.5",
    )
    _evaluation_arguments(compare)
    compare.add_argument(
        "--reference",
        metavar="POLICY",
        help="what the others are compared with (default: the first policy)",
    )
    compare.set_defaults(command=_compare)

    evaluate = commands.add_parser("evaluate", help="run one policy on a task")
    evaluate.add_argument("task")
    evaluate.add_argument("policy")
    _evaluation_arguments(evaluate)
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser("report", help="write tables and figures of a store")
    report.add_argument("directory", type=Path, help="--out of an earlier comparison")
    report.add_argument("--reference", metavar="POLICY")
    report.set_defaults(command=_report)

    defaults = commands.add_parser(
        "defaults", help="learning curves of the default configuration on every task"
    )
    defaults.add_argument("--seeds", type=int, default=16)
    defaults.add_argument("--out", type=Path, required=True, metavar="DIR")
    defaults.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    defaults.add_argument("--tasks", nargs="+", metavar="TASK")
    defaults.set_defaults(command=_defaults)

    bench = commands.add_parser(
        "bench", help="measure throughput beside Stable-Baselines3"
    )
    bench.add_argument("--populations", nargs="+", type=int, default=[1, 8, 32, 64])
    bench.add_argument("--repeats", type=int, default=5)
    bench.add_argument(
        "--seconds", type=float, default=1.0, help="of each measurement, at least"
    )
    bench.add_argument("--json", type=Path, help="also write the figures to a file")
    bench.set_defaults(command=_bench)

    references = commands.add_parser(
        "references", help="measure the returns that scores are normalised by"
    )
    references.add_argument("task")
    references.add_argument("--episodes", type=int, default=200_000)
    references.add_argument("--runs", type=int, default=64, help="of the default")
    references.set_defaults(command=_references)
    return parser


def _evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=64, help="number of test runs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes"
    )
    parser.add_argument("--budget", type=int, help="inner environment steps of a run")
    parser.add_argument("--decision-interval", type=int, metavar="STEPS")
    parser.add_argument("--eval-interval", type=int, metavar="STEPS")
    parser.add_argument("--feedback", choices=("eval", "train"))
    parser.add_argument("--hyperparameters", nargs="+", metavar="NAME")


def _tasks(options: argparse.Namespace) -> None:
    from dacrl_env.policies import POLICIES
    from dacrl_env.registration import LEARNERS, TASKS, load, markdown

    if options.markdown:
        print(markdown())
        return
    for task in TASKS.values():
        learner = load(LEARNERS[task.learner])
        controlled = task.controlled or learner.controlled
        print(f"{task.id}: {task.description}")
        inner = task.inner_env or "none"
        print(f"  inner environment  {inner}, learner {task.learner}")
        print(f"  budget             {task.budget:,} steps, {task.decisions} decisions")
        print(
            f"  returns            random {task.random_return:g}, reference "
            f"{task.reference_return:g}, floor {task.floor_return:g}"
        )
        print(f"  controlled         {', '.join(controlled)}")
        others = [h.name for h in learner.hyperparameters if h.name not in controlled]
        print(f"  can be controlled  {', '.join(others)}")
    print(f"policies: {', '.join(POLICIES)}, or module:Class")


def _compare(options: argparse.Namespace) -> None:
    _run(options, options.policies, options.reference)


def _evaluate(options: argparse.Namespace) -> None:
    _run(options, [options.policy], None)


def _run(
    options: argparse.Namespace, policies: list[str], reference: str | None
) -> None:
    from dacrl_env import report
    from dacrl_env.evaluation import compare

    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if reference is not None and reference not in policies:
        raise ValueError(
            f"unknown reference {reference!r}; valid: {', '.join(policies)}"
        )
    names = ("budget", "decision_interval", "eval_interval", "feedback")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given["hyperparameters"] = options.hyperparameters
    frame = compare(
        options.task,
        policies,
        range(options.seeds),
        store=options.out / "results",
        workers=options.workers,
        show_progress=True,
        **{name: value for name, value in given.items() if value is not None},
    )
    path = report.write_report(frame, options.out, reference)
    summary = report.summarize(frame)
    print(report.render(report.table(summary)))
    if len(policies) > 1:
        print()
        print(report.render(report.paired(summary, reference or policies[0])))
    print(f"\nreport: {path}")


def _report(options: argparse.Namespace) -> None:
    from dacrl_env import report
    from dacrl_env.evaluation import stored

    groups = stored(options.directory / "results")
    for folder, frame in groups.items():
        directory = options.directory / folder if len(groups) > 1 else options.directory
        path = report.write_report(frame, directory, options.reference)
        print(report.render(report.table(report.summarize(frame))))
        print(f"\nreport: {path}")


def _defaults(options: argparse.Namespace) -> None:
    from dacrl_env import report
    from dacrl_env.evaluation import compare
    from dacrl_env.registration import TASKS

    frames = {}
    half = -(-options.seeds // options.workers)  # a unit of work for every worker
    for task in options.tasks or TASKS:
        frames[task] = compare(
            task,
            ["default"],
            range(options.seeds),
            store=options.out / "results",
            workers=options.workers,
            batch=half,
            show_progress=True,
        )
    for task, frame in frames.items():
        print(f"\n{task}")
        print(report.render(report.table(report.summarize(frame))))
    print(f"\nfigure: {report.gallery(frames, options.out / 'defaults.png')}")


def _bench(options: argparse.Namespace) -> None:
    from dacrl_env.benchmarks import throughput

    result = throughput.measure(options.populations, options.repeats, options.seconds)
    print(throughput.render(result))
    if options.json is not None:
        throughput.save(result, options.json)


def _references(options: argparse.Namespace) -> None:
    from dacrl_env import references

    print(references.render(references.measure(**_without_command(options))))


def _without_command(options: argparse.Namespace) -> dict[str, Any]:
    return {k: v for k, v in vars(options).items() if k != "command"}


if __name__ == "__main__":
    sys.exit(main())
