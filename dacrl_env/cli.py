"""The command line, ``dacrl`` or ``python -m dacrl_env``."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.error import Error

from dacrl_env.version import __version__

if TYPE_CHECKING:
    import pandas as pd

LABELS = "labels.json"  # in the directory of a comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    What a user got wrong is one line on standard error and status 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # module:Class, as under `python -m`
    try:
        if getattr(options, "out", None) is not None and options.command != _references:
            options.out.mkdir(parents=True, exist_ok=True)
        options.command(options)
    except (ValueError, OSError, ImportError, Error) as error:
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
    compare.add_argument(
        "task", help="id, as `dacrl tasks` lists them, or module:id of your own"
    )
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
        type=_count,
        metavar="STEPS",
        help="training steps that each run of a method may spend on tuning: 5e6",
    )
    compare.add_argument(
        "--runs", type=int, default=5, help="independent runs of each method"
    )
    compare.add_argument(
        "--total",
        action="store_true",
        help="the budget includes the run of the final policy; feedback comes from "
        "training episodes, which cost nothing more",
    )
    compare.add_argument(
        "--shuffled",
        action="store_true",
        help="also run trained controllers with shuffled observations, as a control",
    )
    compare.add_argument(
        "--anytime",
        type=int,
        default=0,
        metavar="SEEDS",
        help="also test what the methods would have returned earlier",
    )
    _evaluation_arguments(compare)
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
    compare.set_defaults(command=_compare)

    evaluate = commands.add_parser("evaluate", help="run one policy on a task")
    evaluate.add_argument("task")
    evaluate.add_argument("policy")
    _evaluation_arguments(evaluate)
    evaluate.set_defaults(command=_evaluate)

    fit = commands.add_parser("fit", help="tune a policy with a method")
    fit.add_argument("place_task", nargs="?", metavar="task")
    fit.add_argument(
        "place_method",
        nargs="?",
        metavar="method",
        help="as `dacrl tasks` lists them, with arguments",
    )
    fit.add_argument("--task", help="instead of the first place")
    fit.add_argument("--method", help="instead of the second place")
    fit.add_argument("--budget", type=_count, required=True, metavar="STEPS")
    fit.add_argument("--seed", type=int, default=0, help="of the method run")
    _run_arguments(fit)
    fit.set_defaults(command=_fit)

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

    dynamics = commands.add_parser(
        "oracle",
        help="what dynamics are worth: tuned schedule beside tuned static "
        "configuration, and switching in the middle of runs",
    )
    dynamics.add_argument("task", nargs="?", help="or --tasks; default: all")
    dynamics.add_argument("--tasks", nargs="+", metavar="TASK")
    dynamics.add_argument(
        "--budget",
        type=_count,
        metavar="STEPS",
        help="training steps of the search, for each of the two; default: 24 runs",
    )
    dynamics.add_argument("--seeds", type=int, default=32, help="number of test runs")
    dynamics.add_argument(
        "--runs", type=int, default=8, help="runs of the incumbent that are branched"
    )
    dynamics.add_argument(
        "--configurations", type=int, default=6, metavar="K", help="branches of each"
    )
    dynamics.add_argument(
        "--streams",
        type=int,
        default=2,
        metavar="S",
        help="forks of each run and branch that choose, and as many that are valued",
    )
    dynamics.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes"
    )
    dynamics.add_argument(
        "--markdown", action="store_true", help="as the table in docs/dynamics.md"
    )
    _run_arguments(dynamics)
    dynamics.set_defaults(command=_oracle)

    bench = commands.add_parser(
        "bench", help="measure throughput beside Stable-Baselines3"
    )
    bench.add_argument(
        "--phases",
        action="store_true",
        help="instead: shares of the time by phase, of default runs",
    )
    bench.add_argument(
        "--all",
        action="store_true",
        help="instead: every task at several sizes and numbers of workers",
    )
    bench.add_argument(
        "--scaling",
        action="store_true",
        help="instead: how time and memory grow with the population",
    )
    bench.add_argument(
        "--fork",
        action="store_true",
        help="instead: what a fork costs beside an outer step",
    )
    bench.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="for --phases and --all; one task for --scaling and --fork",
    )
    bench.add_argument(
        "--workers", nargs="+", type=int, metavar="W", help="for --all, default 1 2"
    )
    bench.add_argument(
        "--populations",
        "--population",
        nargs="+",
        type=int,
        metavar="P",
        help="default 1 8 32 64; --phases 64, --all 1 8 64 256, --fork 64, "
        "--scaling 64 … 1024",
    )
    bench.add_argument("--repeats", type=int, help="default 5, others 3, no --phases")
    bench.add_argument(
        "--seconds", type=float, help="of each measurement, at least, default 1 or 0.5"
    )
    bench.add_argument("--json", type=Path, help="also write the figures to a file")
    bench.set_defaults(command=_bench)

    references = commands.add_parser(
        "references", help="measure the returns that scores are normalised by"
    )
    references.add_argument("task", nargs="?", help="--instances, --seconds: or all")
    references.add_argument(
        "--instances",
        action="store_true",
        help="of the instances of the task's inner environment; into the file",
    )
    references.add_argument(
        "--seconds",
        action="store_true",
        help="processor time of one run; into the file",
    )
    references.add_argument(
        "--episodes", type=int, help="default 200,000; of each instance 10,000"
    )
    references.add_argument(
        "--runs", type=int, help="of the default; default 64, of each instance 4"
    )
    references.add_argument("--population", type=int, help="for --seconds, default 64")
    references.add_argument(
        "--out", type=Path, metavar="FILE", help="default: the package's own"
    )
    references.set_defaults(command=_references)
    return parser


def _evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds",
        default="64",
        metavar="SEEDS",
        help="test runs: their number, or their seeds: 128:256 are 128 to 255",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes"
    )
    _run_arguments(parser)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--run-budget",
        type=_count,
        metavar="STEPS",
        help="inner environment steps of a run",
    )
    parser.add_argument("--decision-interval", type=int, metavar="STEPS")
    parser.add_argument("--eval-interval", type=int, metavar="STEPS")
    parser.add_argument("--feedback", choices=("eval", "train"))
    parser.add_argument("--hyperparameters", nargs="+", metavar="NAME")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other options of the environment, as gymnasium.make takes them: "
        "eval_episodes=5 instances=test fixed=\"{'gamma':0.9}\"",
    )


def _count(text: str) -> int:
    """A whole number, also written as 5e6."""
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text} is not a whole number")


def _seeds(option: str, text: str) -> range:
    """Seeds from 0, by their number, or from one up to another, which is left out."""
    first, colon, end = text.rpartition(":")
    try:
        seeds = range(int(first) if colon else 0, int(end))
    except ValueError:
        raise ValueError(
            f"{option} takes a number, or first:end such as 128:256; got {text!r}"
        ) from None
    if not seeds or seeds.start < 0:
        least = "seeds from 0 up, the end above the first" if colon else "at least 1"
        raise ValueError(f"{option} must be {least}, got {text}")
    return seeds


def _tasks(options: argparse.Namespace) -> None:
    from dacrl_env.policies import METHODS, POLICIES, pretrained
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
        if task.tags:
            print(f"  tags               {', '.join(task.tags)}")
    print(f"policies: {', '.join(POLICIES)}, module:Class, or a policy file")
    print(f"policies that come with the package: {', '.join(pretrained())}")
    print(f"methods: {', '.join(METHODS)}, or module:Class")


def _compare(options: argparse.Namespace) -> None:
    from dacrl_env.comparison import anytime

    if options.methods and options.budget is None:
        raise ValueError("--methods need a tuning --budget, such as 5e6")
    tuning: dict[str, Any] = {
        "tuning_budget": options.budget,
        "runs": options.runs,
        "total": options.total,
    }
    shown = {**tuning, "shuffled": options.shuffled}
    if options.anytime < 0:
        raise ValueError(f"--anytime must be at least 0, got {options.anytime}")
    if options.policy_seeds is not None:
        shown["policy_seeds"] = _seeds("--policy-seeds", options.policy_seeds)
    labels = _take_labels(options.policies) | _take_labels(options.methods)
    _run(options, options.policies, options.reference, options.methods, shown, labels)
    if options.methods and options.anytime:
        from dacrl_env import report

        course = anytime(
            options.task,
            options.methods,
            range(options.anytime),
            store=options.out / "results",
            workers=options.workers,
            show_progress=True,
            **tuning,
            **_task_options(options),
        )
        course = course.replace({"policy": labels})
        course.to_csv(options.out / "anytime.csv", index=False)
        print(f"anytime: {report.anytime(course, options.out / 'anytime.png')}")


def _take_labels(specs: list[str]) -> dict[str, str]:
    """Cut the labels off policies or methods; they come back by what is left."""
    labels = {}
    for k, spec in enumerate(specs):
        label, equals, rest = spec.partition("=")
        # the equals signs of arguments come after a comma, those of files after a name
        if equals and not set(label) & set(",:/."):
            if not label.strip() or not rest:
                raise ValueError(f"{spec!r} should read LABEL=POLICY")
            specs[k], labels[rest] = rest, label
    return labels


def _labelled(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Results whose policies have their labels for names."""
    shuffled = {
        f"{name} shuffled": f"{label} shuffled" for name, label in labels.items()
    }
    return frame.replace({"policy": {**labels, **shuffled}})


def _kept_labels(directory: Path) -> dict[str, str]:
    """Labels of the comparisons in a directory, the latest ones.

    Raises:
        ValueError: the file that has them is damaged.
    """
    path = directory / LABELS
    if not path.exists():
        return {}
    try:
        labels = json.loads(path.read_text())
        if not all(isinstance(label, str) for label in dict(labels).values()):
            raise TypeError
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} should be a JSON object, name to label; without the file, names "
            "are shown"
        ) from error
    return dict(labels)


def _evaluate(options: argparse.Namespace) -> None:
    _run(options, [options.policy], None)


def _fit(options: argparse.Namespace) -> None:
    from dacrl_env.comparison import fit
    from dacrl_env.policies import policy_suffix, save_fitted

    task, method = _fit_what(options)
    fitted = fit(
        method,
        task,
        options.budget,
        options.seed,
        store=options.out / "results",
        show_progress=True,
        **_task_options(options),
    )
    path = options.out / f"policy{policy_suffix(fitted.policy)}"
    about = {"method": method, "budget": options.budget, "seed": options.seed}
    save_fitted(fitted, path, about)
    cost = fitted.cost
    print(
        f"spent {cost.env_steps:,} training, {cost.eval_steps:,} evaluation and "
        f"{cost.gradient_steps:,} gradient steps"
    )
    print(f"policy: {path}")


def _fit_what(options: argparse.Namespace) -> tuple[str, str]:
    """Task and method of a fit, by place or by name, each once."""
    found = []
    for name, place, value in (
        ("task", options.place_task, options.task),
        ("method", options.place_method, options.method),
    ):
        if (place is None) == (value is None):
            raise ValueError(f"one {name} is needed: by place, or as --{name}")
        found.append(place if value is None else value)
    return found[0], found[1]


def _task_options(options: argparse.Namespace) -> dict[str, Any]:
    """Options of the environment that were given."""
    from dacrl_env.comparison import compare
    from dacrl_env.policies import literal

    names = ("decision_interval", "eval_interval", "feedback", "hyperparameters")
    given = {name: getattr(options, name) for name in names}
    given["budget"] = options.run_budget
    given = {name: value for name, value in given.items() if value is not None}
    taken = inspect.signature(compare).parameters
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
        if name in given or name in taken or name == "budget":
            raise ValueError(f"{name} cannot be given by --set, or not twice")
        given[name] = literal(value)
    return given


def _run(
    options: argparse.Namespace,
    policies: list[str],
    reference: str | None,
    methods: Sequence[str] = (),
    tuning: dict[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    from dacrl_env import report
    from dacrl_env.comparison import compare

    seeds = _seeds("--seeds", options.seeds)
    labels = labels or {}
    kept = _kept_labels(options.out)
    names = [labels.get(name, name) for name in (*policies, *methods)]
    if labels and len(set(names)) < len(names):
        raise ValueError(f"labels and names must differ, got {', '.join(names)}")
    if reference is not None and reference not in names:
        raise ValueError(f"unknown reference {reference!r}; valid: {', '.join(names)}")
    frame = compare(
        options.task,
        policies,
        seeds,
        methods=methods,
        store=options.out / "results",
        workers=options.workers,
        show_progress=True,
        **(tuning or {}),
        **_task_options(options),
    )
    frame = _labelled(frame, labels)
    path = report.write_report(frame, options.out, reference)
    if labels:
        taken = set(labels.values())
        kept = {name: label for name, label in kept.items() if label not in taken}
        (options.out / LABELS).write_text(json.dumps({**kept, **labels}, indent=1))
    summary = report.summarize(frame)
    print(report.render(report.table(summary)))
    if len(names) > 1:
        print()
        print(report.render(report.paired(summary, reference or names[0])))
    print(f"\nreport: {path}")


def _report(options: argparse.Namespace) -> None:
    from dacrl_env import report
    from dacrl_env.results import stored

    groups = stored(options.directory / "results")
    for folder, unlabelled in groups.items():
        frame = _labelled(unlabelled, _kept_labels(options.directory))
        directory = options.directory / folder if len(groups) > 1 else options.directory
        path = report.write_report(frame, directory, options.reference)
        print(report.render(report.table(report.summarize(frame))))
        print(f"\nreport: {path}")


def _defaults(options: argparse.Namespace) -> None:
    from dacrl_env import report
    from dacrl_env.comparison import compare
    from dacrl_env.registration import TASKS

    for name, least in (("seeds", 1), ("workers", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}")
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


def _oracle(options: argparse.Namespace) -> None:
    from dacrl_env.baselines import oracle
    from dacrl_env.registration import TASKS, get_task

    if options.seeds < 2:
        raise ValueError(f"--seeds must be at least 2, got {options.seeds}")
    single = [] if options.task is None else [options.task]
    names = [*single, *(options.tasks or [])] or list(TASKS)
    for name in names:  # a wrong one must not come to light after hours
        get_task(name)
    results = []
    for name in dict.fromkeys(names):
        found = oracle.oracle(
            name,
            store=options.out / "results",
            tuning_budget=options.budget,
            seeds=range(options.seeds),
            runs=options.runs,
            configurations=options.configurations,
            streams=options.streams,
            workers=options.workers,
            show_progress=True,
            **_task_options(options),
        )
        results.append(found)
        path = oracle.write(results, options.out)
    if options.markdown:
        print(oracle.markdown(results))
        return
    for found in results:
        print(
            f"\n{found.task}{' (' + ', '.join(found.tags) + ')' if found.tags else ''}"
        )
        print(oracle.render(found))
    print(f"\ntable: {path}")


def _bench(options: argparse.Namespace) -> None:
    from dacrl_env.benchmarks import forking, phases, scaling, suite, throughput

    # what each kind of measurement takes, and where it is made
    kinds: dict[str, tuple[Any, tuple[str, ...]]] = {
        "phases": (phases, ("tasks", "populations", "seconds")),
        "all": (suite, ("tasks", "populations", "workers", "repeats", "seconds")),
        "scaling": (scaling, ("tasks", "populations", "repeats", "seconds")),
        "fork": (forking, ("tasks", "populations", "repeats")),
        "": (throughput, ("populations", "repeats", "seconds")),
    }
    chosen = [name for name in kinds if name and getattr(options, name)]
    if len(chosen) > 1:
        raise ValueError(f"--{' and --'.join(chosen)} exclude each other")
    module, takes = kinds[chosen[0] if chosen else ""]
    given = {}
    for name in ("tasks", "populations", "workers", "repeats", "seconds"):
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


def _references(options: argparse.Namespace) -> None:
    from dacrl_env import measured, references
    from dacrl_env.registration import TASKS, get_task

    def given(*names: str) -> dict[str, Any]:
        found = {name: getattr(options, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    task = None if options.task is None else get_task(options.task)
    if not options.instances and not options.seconds:
        if task is None:
            raise ValueError(f"which task? valid: {', '.join(TASKS)}")
        figures = references.measure(task.id, **given("episodes", "runs"))
        print(references.render(figures))
        return
    path = measured.PATH if options.out is None else options.out
    if options.instances:
        envs = references.varied_envs() if task is None else [task.inner_env]
        for env in envs:
            section = references.measure_instances(env, **given("episodes", "runs"))
            references.save("instances", env, section, path)
    if options.seconds:
        for name in TASKS if task is None else [task.id]:
            entry = references.measure_seconds(name, **given("population"))
            references.save("seconds", name, entry, path)
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
