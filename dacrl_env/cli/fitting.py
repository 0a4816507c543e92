"""``dacrl fit``: tune a policy, and keep it with its page, its curve and its study."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dacrl_env.cli import fit_pages
from dacrl_env.cli.arguments import (
    METHOD,
    TASK,
    add_dry_run,
    add_executor,
    add_output,
    add_run,
    as_json,
    count,
    say_expected,
    task_options,
)


def add_command(commands: Any) -> None:
    """Add the command to the others of a parser."""
    parser = commands.add_parser("fit", help="tune a policy with a method")
    parser.add_argument("place_task", nargs="?", metavar="task", help=TASK)
    parser.add_argument(
        "place_method",
        nargs="?",
        metavar="method",
        help=METHOD,
    )
    parser.add_argument("--task", help="instead of the first place")
    parser.add_argument("--method", help="instead of the second place")
    parser.add_argument(
        "--budget",
        "--tuning-budget",
        type=count,
        required=True,
        metavar="STEPS",
        help="training steps that the fit may spend",
    )
    parser.add_argument("--seed", type=count, default=0, help="of the fit")
    parser.add_argument(
        "--objectives",
        nargs="+",
        metavar="NAME",
        help="what the search compares by: final, best or auc of the observed score, "
        "and cost, the floating-point operations of a run. Several, as in "
        "--objectives auc cost, give a Pareto front; the policy is the best in the "
        "first",
    )
    parser.add_argument(
        "--reference-point",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="of the front's hypervolume (default: score 0, and 1.1 times the "
        "cost of the dearest run)",
    )
    add_executor(parser)
    add_run(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(command=fit)


def fit(options: argparse.Namespace) -> Any:
    """Tune, and keep what was found."""
    from dacrl_env.comparison.comparison import check
    from dacrl_env.comparison.comparison import fit as fit_method
    from dacrl_env.comparison.made import Made
    from dacrl_env.core import trackers
    from dacrl_env.policies.protocol import NETWORK, to_json

    task, method = _fit_what(options)
    reference = _reference_point(options, method)
    if options.dry_run:
        expected = check(
            task, methods=[method], seeds=1, tuning_budget=options.budget, runs=1,
            num_threads=options.num_threads, executor=options.executor, tested=False,
            **task_options(options, task),
        )  # fmt: skip
        return say_expected([expected])
    fitted = fit_method(
        task,
        method,
        options.budget,
        options.seed,
        store=options.out / "results",
        num_threads=options.num_threads,
        executor=options.executor,
        show_progress=options.shown,
        tracker=trackers.tensorboard(options.out / "tensorboard"),
        **task_options(options, task),
    )
    about = {"method": method, "budget": options.budget, "seed": options.seed}
    path, own = _keep_policy(options.out, fitted, about)
    made = Made(
        policies=[method],
        commands=[f"dacrl {shlex.join(options.line)}"],
        settings=task_options(options, task),
    )
    kept = fit_pages.keep(options.out, own.stem, fitted, about, made, reference)
    study = _keep_study(options, method, fitted)
    cost = fitted.cost
    found = to_json(fitted.policy)
    if found["kind"] == NETWORK:
        found = {"kind": NETWORK}  # without its weights
    print(f"found: {json.dumps(found, default=as_json)}"[:1000])
    if fitted.online is not None:
        print(f"score in its tuning runs: {fitted.online:.3f}")
    print(
        f"spent {cost.env_steps:,} training, {cost.eval_steps:,} evaluation and "
        f"{cost.gradient_steps:,} gradient steps"
    )
    fit_pages.say(kept)
    print(f"policy: {path}\npage: {kept.page}")
    if study is not None:
        print(f"study: {study}")
    result: dict[str, Any] = {
        "policy": str(path), "page": str(kept.page), "found": found,
        "online": fitted.online, "cost": asdict(cost),
        "study": None if study is None else str(study),
    }  # fmt: skip
    if kept.front is not None:
        result["front"] = json.loads(kept.front.table.to_json(orient="records"))
        result["hypervolume"] = asdict(kept.front.hypervolume)
    return result


def _reference_point(options: argparse.Namespace, method: str) -> dict[str, float]:
    """That of the hypervolume, as far as it was given.

    Raises:
        ValueError: it is not of the objectives, or no numbers.
    """
    from dacrl_env.methods.objectives import check_point, observed_names
    from dacrl_env.policies import get_method

    point = {}
    for text in options.reference_point:
        name, _, value = text.partition("=")
        (name,) = observed_names([name])
        try:
            point[name] = float(value)
        except ValueError:
            raise ValueError(
                f"--reference-point takes NAME=VALUE with a number, got {text!r}"
            ) from None
    if point:
        names = getattr(get_method(method), "objectives", ())
        if not names:
            raise ValueError("--reference-point is for several --objectives")
        check_point(point, names)
    return point


def _keep_study(options: argparse.Namespace, method: str, fitted: Any) -> Path | None:
    """Write the runs of a fit as a study of Optuna, where both are there.

    A journal that cannot be used, as a damaged one, costs no fit: it is said.
    """
    from dacrl_env.integrations import optuna
    from dacrl_env.policies import get_method

    if not (optuna.is_installed() and optuna.has_runs(fitted)):
        return None
    path: Path = options.out / optuna.JOURNAL
    made = get_method(method)
    objective: Any = list(getattr(made, "objectives", ()))
    objective = objective or getattr(made, "objective", "final")
    if isinstance(objective, str) and objective not in optuna.OBJECTIVES:
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
    """Task and method of a fit, by place or by name, each once; with its objectives."""
    from dacrl_env.methods.objectives import JUDGED, observed_names, with_objectives

    found = []
    for name, place, value in (
        ("task", options.place_task, options.task),
        ("method", options.place_method, options.method),
    ):
        named = any(word.partition("=")[0] == f"--{name}" for word in options.words)
        if place is not None and named:
            raise ValueError(
                f"the {name} is given twice: {place}, and --{name} {value}"
            )
        if place is None and value is None:
            raise ValueError(f"one {name} is needed: by place, or as --{name}")
        found.append(value if place is None else place)  # a file may have the other
    task, method = found
    if options.objectives:
        method = with_objectives(method, options.objectives)
        judged = [n for n in options.objectives if n.startswith(JUDGED)]
        if judged:
            print(
                f"dacrl: no search sees {', '.join(judged)}, by which policies are "
                f"judged; it goes by the observed {', '.join(observed_names(judged))} "
                "of its tuning runs",
                file=sys.stderr,
            )
    return task, method
