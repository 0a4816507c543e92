"""Arguments that commands share, and what they mean: numbers, seeds, options."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacrl_env.core.checks import whole_numbers
from dacrl_env.core.processes import EXECUTORS, usable_cores

if TYPE_CHECKING:
    from dacrl_env.comparison.plan import Expected


def executor_of(text: Any) -> str:
    """The name of an executor, with arguments or without."""
    from dacrl_env.core.checks import unknown
    from dacrl_env.core.specs import read_spec

    try:
        name, _ = read_spec(str(text), "executor")
    except ValueError as error:
        raise WrongTypeError(str(error)) from None
    if name not in EXECUTORS:
        raise WrongTypeError(unknown("executor", name, EXECUTORS))
    return str(text)


class WrongTypeError(argparse.ArgumentTypeError, ValueError):
    """An argument that is not what is taken, on the line or in a file."""


def count(text: Any) -> int:
    """A whole number, also written as 5e6."""
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError, TypeError):
        pass
    raise WrongTypeError(f"{text} is not a whole number")


def seeds_of(option: str, text: str) -> range:
    """Seeds from 0, by their number, or from one up to another, which is left out."""
    first, colon, end = text.rpartition(":")
    try:
        seeds = range(count(first) if colon else 0, count(end))
    except argparse.ArgumentTypeError:
        raise ValueError(
            f"{option} takes a number, or first:end such as 128:256; got {text!r}"
        ) from None
    if not seeds or seeds.start < 0:
        least = "seeds from 0 up, the end above the first" if colon else "at least 1"
        raise ValueError(f"{option} must be {least}, got {text}")
    return seeds


def task_options(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Options of the environment that were given."""
    from dacrl_env.comparison.comparison import compare
    from dacrl_env.core.specs import literal

    names = ("decision_interval", "eval_interval", "feedback", "hyperparameters")
    # what `compare` calls otherwise than the command line
    otherwise = {"budget": "run_budget", "store": "out", "tuning_budget": "budget"}
    given = {name: getattr(options, name) for name in names}
    given["budget"] = options.run_budget
    given = {name: value for name, value in given.items() if value is not None}
    taken = inspect.signature(compare).parameters
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
        if name in taken or name == "budget":
            own = otherwise.get(name, name)
            hint = f"; --{own.replace('_', '-')} is for that"
            raise ValueError(
                f"{name} cannot be given by --set{hint if own in vars(options) else ''}"
            )
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = literal(value)
    return _whole(given, task)


def _whole(given: dict[str, Any], task: str) -> dict[str, Any]:
    """Options in which 2e3 is 2000 where a whole number is taken."""
    from dacrl_env.outer.settings import resolve
    from dacrl_env.tasks.registration import IMPLEMENTATIONS, get_task, load_learner

    given = whole_numbers(resolve, given)
    name, by = get_task(task).algorithm, given.get("implementation", "compiled")
    if by in IMPLEMENTATIONS and name in IMPLEMENTATIONS[by]:
        given = whole_numbers(load_learner(name, by).config_class, given)
    return given


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the test seeds, and what `add_executor` and `add_run` do."""
    add_seeds(parser, "test runs")
    add_executor(parser)
    add_run(parser)


def add_branches(parser: argparse.ArgumentParser, runs: int) -> None:
    """Add how many runs are branched, into how many, and how often."""
    parser.add_argument(
        "--runs", type=count, default=runs, help="of the incumbent that are branched"
    )
    parser.add_argument(
        "--configurations", type=count, default=6, metavar="K", help="branches of each"
    )
    parser.add_argument(
        "--streams",
        type=count,
        default=2,
        metavar="S",
        help="forks of each run and branch that choose, and as many that are valued",
    )


def add_seeds(parser: argparse.ArgumentParser, what: str = "runs") -> None:
    """Add the seeds of runs."""
    parser.add_argument(
        "--seeds",
        default="64",
        metavar="SEEDS",
        help=f"{what}: their number, or their seeds: 128:256 are 128 to 255",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add how much is said, and in which form."""
    parser.add_argument(
        "--quiet", action="store_true", help="say nothing but what is wrong"
    )
    parser.add_argument(
        "--json",
        dest="as_json",
        action="store_true",
        help="write what came out as JSON, and nothing else, to standard output",
    )


def add_trajectories(parser: argparse.ArgumentParser) -> None:
    """Add that observations and actions are kept."""
    parser.add_argument(
        "--trajectories",
        action="store_true",
        help="also keep what policies saw and did at each decision, for "
        "dacrl_env.read_results",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add that nothing is to be run."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, and say what it would take, by what runs of the "
        "default were measured to take",
    )


def say_expected(expected: Sequence[Expected]) -> list[dict[str, Any]]:
    """Print what a command would take; the same as JSON values."""
    for one in expected:
        parts = [f"{one.tuning_steps:,} training steps of tuning"] * bool(
            one.tuning_steps
        )
        if one.test_runs:
            parts.append(
                f"{one.test_runs:,} test runs ({one.test_steps:,} training steps)"
            )
        about = "" if one.seconds is None else f"; about {_duration(one.seconds)}"
        cores = f" on {one.cores} core{'s' * (one.cores > 1)}" if about else ""
        print(f"{one.task}: {', '.join(parts)}{about}{cores}")
    known = [one.seconds for one in expected if one.seconds is not None]
    if len(expected) > 1 and known:
        unknown = len(expected) - len(known)
        without = f", without {unknown} of unknown time" if unknown else ""
        print(f"all: about {_duration(sum(known))}{without}")
    print("nothing was run (--dry-run)")
    return [asdict(one) for one in expected]


def as_json(value: Any) -> Any:
    """What JSON has no word for."""
    import numpy as np

    return value.item() if isinstance(value, np.generic) else str(value)


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(seconds, 1):.0f} s"


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the number of threads."""
    parser.add_argument(
        "--num-threads",
        type=count,
        default=usable_cores(),
        metavar="CORES",
        help="to use; default: as many as this process may, which its affinity and its "
        "container limit (here %(default)s)",
    )


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Add the number of threads, and who runs units of work."""
    add_threads(parser)
    parser.add_argument(
        "--executor",
        type=executor_of,
        metavar=f"{{{','.join(EXECUTORS)}}}",
        help="threads: one unit of work after the other, its members in threads; "
        "processes: units side by side; ray, submitit: units on a cluster, with "
        "arguments as in ray,address=HOST:PORT,cores=2 or "
        "submitit,slurm_partition=short,timeout_min=60 (extras ray, slurm); default: "
        "threads where all of the inner run is compiled",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add where results go, and what runs are."""
    add_out(parser)
    add_options(parser)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add where results go."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that results are kept in; the same command goes on with them",
    )


TASK = "id, as `dacrl list tasks` has them, or module:id of your own"
POLICY = "name, as `dacrl list policies` has them, module:Class or file, with arguments"
METHOD = "name, as `dacrl list methods` has them, or module:Class, with arguments"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what runs are."""
    parser.add_argument(
        "--run-budget",
        type=count,
        metavar="STEPS",
        help="inner environment steps of a run; default: the task's",
    )
    parser.add_argument(
        "--decision-interval",
        type=count,
        metavar="STEPS",
        help="inner environment steps between decisions; default: as the policy or the "
        "task has it",
    )
    parser.add_argument(
        "--eval-interval",
        type=count,
        metavar="STEPS",
        help="inner environment steps between evaluations; default: those between "
        "decisions",
    )
    parser.add_argument(
        "--feedback",
        choices=("eval", "train"),
        help="what observed scores are made of: evaluation episodes, which are "
        "charged, or training episodes; default: eval, or train where a task is judged "
        "by training",
    )
    parser.add_argument(
        "--hyperparameters",
        nargs="+",
        metavar="NAME",
        help="what actions set, as `dacrl list knobs` has them; default: as the policy "
        "or the task has it",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other options of the environment, as gymnasium.make takes them: "
        "eval_episodes=5 instances=test fixed=\"{'gamma':0.9}\"",
    )
