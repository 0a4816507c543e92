"""Commands that measure: defaults, oracle, bench, references; and ``dacrl warm-up``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dacrl_env.cli.arguments import (
    add_branches,
    add_executor,
    add_out,
    add_run,
    count,
    task_options,
)
from dacrl_env.cli.kept import nothing_lost
from dacrl_env.cli.listing import width


def add_commands(commands: Any) -> None:
    """Add the commands to the others of a parser."""
    every = commands.add_parser(
        "defaults", help="learning curves of the default configuration on every task"
    )
    every.add_argument(
        "--seeds", type=count, default=16, help="number of test runs of each task"
    )
    add_out(every)
    add_executor(every)
    every.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="some of them; default: all"
    )
    every.set_defaults(command=defaults)

    dynamics = commands.add_parser(
        "oracle",
        help="what dynamics are worth: tuned schedule beside tuned static "
        "configuration, and switching in the middle of runs",
    )
    dynamics.add_argument("task", nargs="?", help="or --tasks; default: all")
    dynamics.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="several tasks, instead of one"
    )
    dynamics.add_argument(
        "--budget",
        type=count,
        metavar="STEPS",
        help="training steps of the search, for each of the two; default: 24 runs",
    )
    dynamics.add_argument("--seeds", type=count, default=32, help="number of test runs")
    add_branches(dynamics, runs=8)
    add_executor(dynamics)
    dynamics.add_argument(
        "--markdown", action="store_true", help="as the table in docs/dynamics.md"
    )
    add_run(dynamics)
    dynamics.set_defaults(command=oracle)

    speed = commands.add_parser(
        "bench", help="measure throughput beside Stable-Baselines3"
    )
    speed.add_argument(
        "--phases",
        action="store_true",
        help="instead: shares of the time by phase, of default runs",
    )
    speed.add_argument(
        "--all",
        action="store_true",
        help="instead: every task at several sizes and numbers of threads",
    )
    speed.add_argument(
        "--scaling",
        action="store_true",
        help="instead: how time and memory grow with the population",
    )
    speed.add_argument(
        "--fork",
        action="store_true",
        help="instead: what a fork costs beside an outer step",
    )
    speed.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="for --phases and --all; one task for --scaling and --fork",
    )
    speed.add_argument(
        "--threads", nargs="+", type=count, metavar="W", help="for --all, default 1 2"
    )
    speed.add_argument(
        "--populations",
        "--population",
        nargs="+",
        type=count,
        metavar="P",
        help="default 1 8 32 64; --phases 64, --all 1 8 64 256, --fork 64, "
        "--scaling 64 … 1024",
    )
    speed.add_argument("--repeats", type=count, help="default 5, others 3, no --phases")
    speed.add_argument(
        "--seconds", type=float, help="of each measurement, at least, default 1 or 0.5"
    )
    speed.add_argument("--json", type=Path, help="also write the figures to a file")
    speed.set_defaults(command=bench)

    compiling = commands.add_parser(
        "warm-up", help="compile what tasks need, before it is needed"
    )
    compiling.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    compiling.set_defaults(command=warm_up)

    scores = commands.add_parser(
        "references", help="measure the returns that scores are normalised by"
    )
    scores.add_argument("task", nargs="?", help="--instances, --seconds: or all")
    scores.add_argument(
        "--instances",
        action="store_true",
        help="of the instances of the task's inner environment; into the file",
    )
    scores.add_argument(
        "--seconds",
        action="store_true",
        help="processor time of one run; into the file",
    )
    scores.add_argument(
        "--episodes", type=count, help="default 200,000; of each instance 10,000"
    )
    scores.add_argument(
        "--runs", type=count, help="of the default; default 64, of each instance 4"
    )
    scores.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="some instances, for --instances of a task; what is known of others stays",
    )
    scores.add_argument("--population", type=count, help="for --seconds, default 64")
    scores.add_argument(
        "--out", type=Path, metavar="FILE", help="default: the package's own"
    )
    scores.set_defaults(command=references)


def defaults(options: argparse.Namespace) -> None:
    """Run the default configuration on every task, and draw it."""
    from dacrl_env.comparison import report
    from dacrl_env.comparison.comparison import check, compare
    from dacrl_env.tasks.registration import listed

    if options.seeds < 1:
        raise ValueError("--seeds must be at least 1")
    frames = {}
    part = -(-options.seeds // max(1, options.num_threads))  # a unit for every core
    given: dict[str, Any] = {
        "policies": ["default"],
        "seeds": options.seeds,
        "store": options.out / "results",
        "num_threads": options.num_threads,
        "executor": options.executor,
    }
    tasks = list(dict.fromkeys(options.tasks or [t.id for t in listed()]))
    for task in tasks:  # a wrong one must not come to light after hours
        check(task, **given)
    for task in tasks:
        frames[task] = compare(task, **given, batch=part, show_progress=options.shown)
    for task, frame in frames.items():
        print(f"\n{task}")
        print(report.render(report.table(report.summarize(frame)), width()))
    with nothing_lost(options.out / "defaults.png"):
        report.gallery(frames, options.out / "defaults.png")
    print(f"\nfigure: {options.out / 'defaults.png'}")


def oracle(options: argparse.Namespace) -> None:
    """Measure what dynamics are worth."""
    from dacrl_env.studies import dynamics
    from dacrl_env.studies import oracle as study
    from dacrl_env.tasks.registration import listed

    if options.seeds < 2:
        raise ValueError(f"--seeds must be at least 2, got {options.seeds}")
    single = [] if options.task is None else [options.task]
    names = list(dict.fromkeys([*single, *(options.tasks or [])]))
    names = names or [task.id for task in listed()]
    given: dict[str, Any] = {
        "store": options.out / "results",
        "tuning_budget": options.budget,
        "seeds": range(options.seeds),
        "runs": options.runs,
        "configurations": options.configurations,
        "streams": options.streams,
        "num_threads": options.num_threads,
        "executor": options.executor,
    }
    each = {name: {**given, **task_options(options, name)} for name in names}
    for name in names:  # what is wrong must not come to light after hours
        study.check(name, **each[name])
    results = []
    files = ("dynamics.csv", "points.csv", "dynamics.md")
    with nothing_lost(*(options.out / name for name in files)):
        for name in names:
            found = study.oracle(name, **each[name], show_progress=options.shown)
            results.append(found)
            path = dynamics.write(results, options.out)
    if options.markdown:
        print(dynamics.markdown(results))
        return
    for found in results:
        print(
            f"\n{found.task}{' (' + ', '.join(found.tags) + ')' if found.tags else ''}"
        )
        print(dynamics.render(found))
    print(f"\ntable: {path}")


def warm_up(options: argparse.Namespace) -> None:
    """Compile what tasks need."""
    from dacrl_env.outer import warm_up as compiling

    compiling.warm_up(options.tasks or None, print)


def bench(options: argparse.Namespace) -> None:
    """Measure throughput."""
    from dacrl_env.benchmarks import forking, phases, scaling, suite, throughput

    # what each kind of measurement takes, and where it is made
    kinds: dict[str, tuple[Any, tuple[str, ...]]] = {
        "phases": (phases, ("tasks", "populations", "seconds")),
        "all": (suite, ("tasks", "populations", "threads", "repeats", "seconds")),
        "scaling": (scaling, ("tasks", "populations", "repeats", "seconds")),
        "fork": (forking, ("tasks", "populations", "repeats")),
        "": (throughput, ("populations", "repeats", "seconds")),
    }
    chosen = [name for name in kinds if name and getattr(options, name)]
    if len(chosen) > 1:
        raise ValueError(f"--{' and --'.join(chosen)} exclude each other")
    module, takes = kinds[chosen[0] if chosen else ""]
    given = {}
    for name in ("tasks", "populations", "threads", "repeats", "seconds"):
        value = getattr(options, name)
        if value is not None and name not in takes:
            able = [f"--{k}" for k, (_, names) in kinds.items() if k and name in names]
            raise ValueError(
                f"--{name} cannot be given here"
                + (f"; it can with {', '.join(able)}" if able else "")
            )
        if value is not None:
            given[name] = value
    if (options.scaling or options.fork) and "tasks" in given:
        if len(given["tasks"]) > 1:
            raise ValueError(f"--{chosen[0]} takes one task, got {given['tasks']}")
        (given["task"],) = given.pop("tasks")
    result = module.measure(**given)
    print(module.render(result))
    if options.json is not None:
        throughput.save(result, options.json)


def references(options: argparse.Namespace) -> None:
    """Measure the returns that scores are normalised by."""
    from dacrl_env.studies import references as study
    from dacrl_env.tasks import measured
    from dacrl_env.tasks.registration import get_task, listed

    def given(*names: str) -> dict[str, Any]:
        found = {name: getattr(options, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    task = None if options.task is None else get_task(options.task)
    every = [known.id for known in listed()]
    if options.only and not (options.instances and task is not None):
        raise ValueError("--only names instances: it needs --instances and a task")
    if not options.instances and not options.seconds:
        if task is None:
            raise ValueError(f"which task? valid: {', '.join(every)}")
        figures = study.measure(task.id, **given("episodes", "runs"))
        print(study.render(figures))
        return
    path = measured.PATH if options.out is None else options.out
    if options.instances:
        envs = study.varied_envs() if task is None else [task.inner_env]
        for env in envs:
            section = study.measure_instances(
                env, **given("episodes", "runs"), only=options.only
            )
            some = bool(options.only)
            study.save("instances", env, section, path, some)
    if options.seconds:
        for name in every if task is None else [task.id]:
            entry = study.measure_seconds(name, **given("population"))
            study.save("seconds", name, entry, path)
    print(f"written: {path}")
