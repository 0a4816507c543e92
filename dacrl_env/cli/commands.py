"""The command line, ``dacrl`` or ``python -m dacrl_env``."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shlex
import signal
import sys
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from gymnasium.error import Error

from dacrl_env.cli import exporting, listing, suites, terminal, tuning
from dacrl_env.cli.arguments import (
    add_dry_run,
    add_evaluation,
    add_executor,
    add_output,
    add_run,
    add_threads,
    count,
    say_expected,
    seeds_of,
    task_options,
)
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
from dacrl_env.cli.parser import Commands, Parser
from dacrl_env.core import memory
from dacrl_env.core.checks import unknown
from dacrl_env.core.places import check_file, check_folder
from dacrl_env.core.processes import WorkerDiedError
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
                explained = _explain(error, "--traceback" in (arguments or sys.argv))
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
    if not getattr(options, "dry_run", False):
        _check_places(options)
    as_json = getattr(options, "as_json", False)
    options.shown = not getattr(options, "quiet", False)  # progress
    with ExitStack() as stack:
        if as_json or not options.shown:
            null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(null))
        result = options.command(options)
    if as_json and result is not None:
        print(json.dumps(result, indent=2, default=_as_json))


def _as_json(value: Any) -> Any:
    """What JSON has no word for."""
    import numpy as np

    return value.item() if isinstance(value, np.generic) else str(value)


def _way_on(options: argparse.Namespace) -> str:
    """What is said when a command is interrupted."""
    going_on = (_compare, _evaluate, _fit, _defaults, _oracle)
    if options.command in (*going_on, tuning.headroom, tuning.tune_static):
        return (
            f"dacrl: interrupted; finished work is kept in {options.out}, the same "
            "command goes on"
        )
    if options.command is _references and (options.instances or options.seconds):
        return "dacrl: interrupted; what was measured to its end is in the file"
    return "dacrl: interrupted; nothing is kept, the same command begins anew"


def _line(error: BaseException) -> str | None:
    """What there is to say of an error; None: it is a fault of ours."""
    if memory.ran_out(error):
        about = " ".join(str(error).split())
        return f"out of memory{f' ({about})' if about else ''}; finished work is kept"
    if isinstance(error, ValueError | OSError | ImportError | Error | WorkerDiedError):
        return str(error)
    return None


# -- errors and warnings ------------------------------------------------------------


def _explain(error: BaseException, full: bool) -> str | None:
    """What is said of an error; None: it is no user's, and Python says it all.

    Errors in users' code are shown from that code on. What else users got wrong is one
    line.

    Args:
        error: with ``dacrl_blame``, if it is known whose code it left.
        full: the whole traceback.
    """
    whose, lines = getattr(error, "dacrl_blame", None), _users_lines(error)
    about = traceback.format_exception_only(error)
    if full:
        return "".join(traceback.format_exception(error)).rstrip()
    if whose is None and not lines:
        line = _line(error)
        return None if line is None else f"dacrl: {line}"
    place = f"your {whose}" if whose else "your code"
    if isinstance(error, SyntaxError):
        text = f"dacrl: {type(error).__name__} in {place}\n{''.join(about)}"
    else:
        said = f": {error}" if str(error) else ""
        text = f"dacrl: {type(error).__name__} in {place}{said}\n{lines}"
    return f"{text.rstrip()}\n(all of it with dacrl --traceback)"


def _users_lines(error: BaseException) -> str:
    """The traceback from a user's code on; empty: it is not in it.

    A worker process passes its traceback on as text.
    """
    frames = traceback.extract_tb(error.__traceback__)
    for first, frame in enumerate(frames):
        if not frame.filename.startswith(_not_users()) and not _is_cython(frame):
            return "".join(traceback.format_list(frames[first:]))
    return str(getattr(error, "dacrl_traceback", ""))


def _is_cython(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is of a library's compiled code, whose file is elsewhere."""
    name = Path(frame.filename)
    return name.suffix in (".pyx", ".pxd", ".pxi") and not name.exists()


def _not_users() -> tuple[str, ...]:
    """Where files of this package, of Python and of installed packages are.

    What has no file, as ``<frozen …>`` and a dataclass's ``<string>``, is nobody's.
    """
    names = ("", ".agents", ".baselines", ".benchmarks")
    modules = [sys.modules.get(f"dacrl_env{name}") for name in names]
    own = [str(Path(str(m.__file__)).parent) for m in modules if m is not None]
    paths = sysconfig.get_paths()
    places = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    return ("<", *own, *places, *installed)


def _check_places(options: argparse.Namespace) -> None:
    """Raise an OSError if what a command makes cannot be written."""
    out, file = getattr(options, "out", None), getattr(options, "json", None)
    if options.command is _references:
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
        help="id, as `dacrl tasks` lists them, or module:id of your own",
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
    add_output(compare)
    add_dry_run(compare)
    compare.set_defaults(command=_compare)

    evaluate = commands.add_parser("evaluate", help="run one policy on a task")
    evaluate.add_argument("task")
    evaluate.add_argument("policy")
    add_evaluation(evaluate)
    add_output(evaluate)
    add_dry_run(evaluate)
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
    fit.add_argument(
        "--budget",
        "--tuning-budget",
        type=count,
        required=True,
        metavar="STEPS",
        help="training steps that the fit may spend",
    )
    fit.add_argument("--seed", type=count, default=0, help="of the fit")
    add_threads(fit)
    add_run(fit)
    add_output(fit)
    add_dry_run(fit)
    fit.set_defaults(command=_fit)

    report = commands.add_parser("report", help="write tables and figures of a store")
    report.add_argument("directory", type=Path, help="--out of an earlier comparison")
    report.add_argument("--reference", metavar="POLICY")
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

    defaults = commands.add_parser(
        "defaults", help="learning curves of the default configuration on every task"
    )
    defaults.add_argument("--seeds", type=count, default=16)
    defaults.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_executor(defaults)
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
        type=count,
        metavar="STEPS",
        help="training steps of the search, for each of the two; default: 24 runs",
    )
    dynamics.add_argument("--seeds", type=count, default=32, help="number of test runs")
    dynamics.add_argument(
        "--runs", type=count, default=8, help="runs of the incumbent that are branched"
    )
    dynamics.add_argument(
        "--configurations", type=count, default=6, metavar="K", help="branches of each"
    )
    dynamics.add_argument(
        "--streams",
        type=count,
        default=2,
        metavar="S",
        help="forks of each run and branch that choose, and as many that are valued",
    )
    add_executor(dynamics)
    dynamics.add_argument(
        "--markdown", action="store_true", help="as the table in docs/dynamics.md"
    )
    add_run(dynamics)
    dynamics.set_defaults(command=_oracle)

    tuning.add_commands(commands)
    exporting.add_command(commands)

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
        help="instead: every task at several sizes and numbers of threads",
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
        "--threads", nargs="+", type=count, metavar="W", help="for --all, default 1 2"
    )
    bench.add_argument(
        "--populations",
        "--population",
        nargs="+",
        type=count,
        metavar="P",
        help="default 1 8 32 64; --phases 64, --all 1 8 64 256, --fork 64, "
        "--scaling 64 … 1024",
    )
    bench.add_argument("--repeats", type=count, help="default 5, others 3, no --phases")
    bench.add_argument(
        "--seconds", type=float, help="of each measurement, at least, default 1 or 0.5"
    )
    bench.add_argument("--json", type=Path, help="also write the figures to a file")
    bench.set_defaults(command=_bench)

    warm_up = commands.add_parser(
        "warm-up", help="compile what tasks need, before it is needed"
    )
    warm_up.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    warm_up.set_defaults(command=_warm_up)

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
        "--episodes", type=count, help="default 200,000; of each instance 10,000"
    )
    references.add_argument(
        "--runs", type=count, help="of the default; default 64, of each instance 4"
    )
    references.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="some instances, for --instances of a task; what is known of others stays",
    )
    references.add_argument(
        "--population", type=count, help="for --seconds, default 64"
    )
    references.add_argument(
        "--out", type=Path, metavar="FILE", help="default: the package's own"
    )
    references.set_defaults(command=_references)
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
    shown = {**tuning, "shuffled": options.shuffled}
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
    return _run(options, [options.policy], None)[1]


def _fit(options: argparse.Namespace) -> Any:
    from dacrl_env.comparison import pages
    from dacrl_env.comparison.comparison import check, fit
    from dacrl_env.comparison.fit_page import fit_page
    from dacrl_env.comparison.made import Made
    from dacrl_env.core import trackers
    from dacrl_env.policies.protocol import NETWORK, to_json
    from dacrl_env.tasks.registration import get_task

    task, method = _fit_what(options)
    if options.dry_run:
        expected = check(
            task, methods=[method], seeds=1, tuning_budget=options.budget, runs=1,
            num_threads=options.num_threads, tested=False,
            **task_options(options, task),
        )  # fmt: skip
        return say_expected([expected])
    fitted = fit(
        method,
        task,
        options.budget,
        options.seed,
        store=options.out / "results",
        num_threads=options.num_threads,
        show_progress=options.shown,
        tracker=trackers.tensorboard(options.out / "tensorboard"),
        **task_options(options, task),
    )
    about = {"method": method, "budget": options.budget, "seed": options.seed}
    path, own = _keep_policy(options.out, fitted, about)
    made = Made(
        commands=[f"dacrl {shlex.join(options.line)}"],
        settings=task_options(options, task),
    )
    folder = options.out / "fits" / own.stem
    folder.mkdir(parents=True, exist_ok=True)
    beside = f"../../policies/{own.name}"
    page = fit_page(fitted, method, get_task(task).id, beside, made)
    written = page.write(folder / pages.NAME)
    study = _keep_study(options, method, fitted)
    cost = fitted.cost
    found = to_json(fitted.policy)
    if found["kind"] == NETWORK:
        found = {"kind": NETWORK}  # without its weights
    print(f"found: {json.dumps(found, default=_as_json)}"[:1000])
    if fitted.online is not None:
        print(f"score in its tuning runs: {fitted.online:.3f}")
    print(
        f"spent {cost.env_steps:,} training, {cost.eval_steps:,} evaluation and "
        f"{cost.gradient_steps:,} gradient steps"
    )
    print(f"policy: {path}\npage: {written}")
    if study is not None:
        print(f"study: {study}")
    return {
        "policy": str(path), "page": str(written), "found": found,
        "online": fitted.online, "cost": asdict(cost),
        "study": None if study is None else str(study),
    }  # fmt: skip


def _keep_study(options: argparse.Namespace, method: str, fitted: Any) -> Path | None:
    """Write the runs of a fit as a study of Optuna, where both are there.

    A journal that cannot be used, as a damaged one, costs no fit: it is said.
    """
    from dacrl_env.integrations import optuna
    from dacrl_env.policies import get_method

    if not (optuna.is_installed() and optuna.has_runs(fitted)):
        return None
    path: Path = options.out / "optuna.journal"
    objective = getattr(get_method(method), "objective", "final")
    if objective not in optuna.OBJECTIVES:
        objective = "final"
    try:
        optuna.to_study(
            fitted, optuna.journal(path), seed=options.seed, objective=objective
        )
    except (OSError, ValueError, KeyError) as error:
        print(f"dacrl: no study was written to {path}: {error!r}", file=sys.stderr)
        return None
    return path


def _keep_policy(out: Path, fitted: Any, about: dict[str, Any]) -> tuple[Path, Path]:
    """Write the policy of a fit: under a name of its own, and as the latest one.

    Returns:
        The file of the latest one, and that of its own name.
    """
    from dacrl_env.core.files import write_whole
    from dacrl_env.policies import fitted_bytes, policy_suffix

    folder, suffix = out / "policies", policy_suffix(fitted.policy)
    latest, data = out / f"policy{suffix}", fitted_bytes(fitted, about)
    folder.mkdir(parents=True, exist_ok=True)
    before = latest.read_bytes() if latest.is_file() else None
    own = folder / _policy_name(data, about, suffix)
    write_whole(own, data)
    if before is not None and before != data:
        old = folder / _policy_name(before, _about_policy(latest), suffix)
        if not old.is_file():
            write_whole(old, before)
        print(f"{latest} was that of another fit, which is kept as {old}")
    write_whole(latest, data)
    return latest, own


def _policy_name(data: bytes, about: Mapping[str, Any], suffix: str) -> str:
    """Of the file of a fit: method, budget, seed, and a digest of all that is in it."""
    words = [str(about.get("method", "policy"))[:40]]
    words += [f"{k}{about[k]}" for k in ("budget", "seed") if k in about]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", "_".join(words)).strip("-")
    return f"{readable}-{hashlib.sha256(data).hexdigest()[:8]}{suffix}"


def _about_policy(path: Path) -> Mapping[str, Any]:
    """What a policy file says of its fit; nothing if it cannot be read."""
    from dacrl_env.policies import load_fitted

    try:
        return load_fitted(path).about or {}
    except ValueError:
        return {}


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
    print(report.render(written.table))
    if len(names) > 1:
        print()
        print(report.render(written.paired))
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

    found = stored(options.directory / "results", labels, order)
    reference = options.reference
    names = {name: list(kept.frame["policy"].unique()) for name, kept in found.items()}
    every = dict.fromkeys(policy for policies in names.values() for policy in policies)
    if reference is not None and reference not in every:
        raise ValueError(f"unknown reference {reference!r}; valid: {', '.join(every)}")
    result = {}
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
        print(report.render(written.table))
        for note in notes:
            print(note)
        print(f"\nreport: {written.path}\npage: {written.page}")
    suites.report_all(options.directory, found, reference, options.objective, labels)
    return result


def _defaults(options: argparse.Namespace) -> None:
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
        print(report.render(report.table(report.summarize(frame))))
    with nothing_lost(options.out / "defaults.png"):
        report.gallery(frames, options.out / "defaults.png")
    print(f"\nfigure: {options.out / 'defaults.png'}")


def _oracle(options: argparse.Namespace) -> None:
    from dacrl_env.studies import oracle
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
        oracle.check(name, **each[name])
    results = []
    files = ("dynamics.csv", "points.csv", "dynamics.md")
    with nothing_lost(*(options.out / name for name in files)):
        for name in names:
            found = oracle.oracle(name, **each[name], show_progress=options.shown)
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


def _warm_up(options: argparse.Namespace) -> None:
    from dacrl_env.outer.warm_up import warm_up

    warm_up(options.tasks or None, print)


def _bench(options: argparse.Namespace) -> None:
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


def _references(options: argparse.Namespace) -> None:
    from dacrl_env.studies import references
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
        figures = references.measure(task.id, **given("episodes", "runs"))
        print(references.render(figures))
        return
    path = measured.PATH if options.out is None else options.out
    if options.instances:
        envs = references.varied_envs() if task is None else [task.inner_env]
        for env in envs:
            section = references.measure_instances(
                env, **given("episodes", "runs"), only=options.only
            )
            some = bool(options.only)
            references.save("instances", env, section, path, some)
    if options.seconds:
        for name in every if task is None else [task.id]:
            entry = references.measure_seconds(name, **given("population"))
            references.save("seconds", name, entry, path)
    print(f"written: {path}")


if __name__ == "__main__":
    program()
