"""Results of studies as part of this package: bases of tasks, and tuned policies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dacrl_env.core.files import write_whole
from dacrl_env.outer.settings import own_hyperparameters
from dacrl_env.policies import Fitted, fitted_bytes, load_fitted
from dacrl_env.policies.static import Static
from dacrl_env.policies.tuned import check_kept, place
from dacrl_env.studies.finalists import BASE
from dacrl_env.studies.headroom import Headroom, wide
from dacrl_env.studies.tune_static import TunedStatic
from dacrl_env.tasks import Event, Task, bases, headroom
from dacrl_env.tasks.registration import (
    ALGORITHMS,
    check_task,
    enter_bases,
    get_task,
    load,
)
from dacrl_env.tasks.rungs import STATIC

MATTERS = 0.8
"""What actions set by default has together this share of the importance."""


def keep_static(
    result: TunedStatic, controlled: Sequence[str] | None = None
) -> tuple[str | None, list[Path]]:
    """Put a static configuration into this package.

    The policy is from then on the task's ``static-tuned``. Where it is not the task's
    default, it is also the base that the next version of the task starts at. Where the
    base that is kept has won again, all stays as it is.

    Args:
        result: of runs as the task has them.
        controlled: what actions of that version set by default; None: what matters by
            probes (`mattering`), and what they set before if there were none.

    Returns:
        Id of the task that starts at the base, None if there is no new one; and the
        files of policies.

    Raises:
        ValueError: see `check_keep`.
        OSError: a file cannot be written.
    """
    task, settings = result.task, result.settings
    check_keep(
        task, settings["options"], result.objective, settings["seeds"], controlled
    )
    if result.chosen.name == BASE:
        if told := _told(result, controlled):
            bases.keep(task.id, {**bases.stored()[task.id], **told})
            enter_bases()
        return None, []
    fitted, new = result.fitted(), None
    policies = {task.id: Static()}
    if result.chosen.policy.arguments():
        new = bases.keep(task.id, entry(result, controlled))
        enter_bases()
        before = bases.original(task.id)
        base = bases.stored()[before]
        policies = {before: Static(base["configuration"], **base["defaults"])}
        policies[new] = Static()  # which starts at it
    written = []
    for name, policy in policies.items():
        kept = Fitted(policy, fitted.cost, (), fitted.online, name, None, {})
        written.append(place(name, STATIC))
        write_whole(written[-1], fitted_bytes(kept, result.about()))
    return new, written


def entry(
    result: TunedStatic, controlled: Sequence[str] | None = None
) -> dict[str, Any]:
    """The entry of a result in ``bases.json``."""
    chosen = result.chosen
    about: dict[str, Any] = {
        "defaults": chosen.policy.config,
        "configuration": chosen.policy.configuration,
        "objective": result.objective,
        "score": list(result.score),
        "source": f"{chosen.source}, chosen by dacrl tune-static",
        "settings": result.settings,
        "version": result.settings["version"],
    }
    found: dict[str, Any] = json.loads(json.dumps(about | _told(result, controlled)))
    return found


def _told(result: TunedStatic, controlled: Sequence[str] | None) -> dict[str, Any]:
    """What is known anew of knobs: which are to be controlled, and what matters."""
    if not (result.settings["probes"] and result.importance):
        return {} if controlled is None else {"controlled": list(controlled)}
    if controlled is None:
        controlled = mattering(result.task, result.importance)
    return {"controlled": list(controlled), "importance": result.importance}


def mattering(task: Task, importance: Mapping[str, float]) -> list[str]:
    """The fewest knobs that have `MATTERS` of the importance, and the task's events.

    Args:
        task: whose events are those that its actions set.
        importance: share of each knob, the largest first.
    """
    before = np.cumsum([0.0, *importance.values()])
    found = [
        name for name, sum_ in zip(importance, before, strict=False) if sum_ < MATTERS
    ]
    own = own_hyperparameters(task, load(ALGORITHMS[task.algorithm]).hyperparameters)
    events = [name for name in task.controlled or () if isinstance(own[name], Event)]
    return [*found, *events]


def check_keep(
    task: Task,
    options: Mapping[str, Any],
    objective: str,
    seeds: int,
    controlled: Sequence[str] | None = None,
) -> None:
    """Raise a ValueError if what would be found cannot be kept in the package.

    Args:
        task: to be one of this package.
        options: of the environment; none are to be given.
        objective: that of the base which is kept, if there is one.
        seeds: of each finalist, no fewer than what is kept was chosen on.
        controlled: names of hyperparameters, or None.
    """
    check_kept(task, options)
    base = bases.stored().get(bases.original(task.id), {})
    if base and objective != base["objective"]:
        raise ValueError(
            f"the base that is kept of {task.id} was chosen by {base['objective']}, "
            f"not by {objective}; leave --keep out"
        )
    least = max(base.get("settings", {}).get("seeds", 0), _chosen_on(task))
    if seeds < least:
        raise ValueError(
            f"the static configuration that is kept of {task.id} was chosen on "
            f"{least} seeds; what replaces it needs as many, got {seeds}: leave "
            "--keep out, or give more --seeds"
        )
    if controlled is not None:
        about = {"defaults": {}, "configuration": {}, "controlled": list(controlled)}
        check_task(bases.made_of(task, about))


def _chosen_on(task: Task) -> int:
    """Seeds that the static fit was chosen on which `keep_headroom` has kept; or 0."""
    path = place(task.id, STATIC)
    about = (load_fitted(path).about if path.is_file() else None) or {}
    if about.get("study") != "headroom" or "seeds" not in about:
        return 0
    return (_number(about["seeds"]) + 1) // 2


def check_keep_headroom(
    task: Task, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Raise a ValueError if headroom of a task cannot be kept in the package.

    Args:
        task: to be one of this package.
        options: of the environment; hyperparameters, if they are given, have to be all
            numbers and choices, for policies that are kept set each of them.
        settings: ``runs``, ``fits``, ``seeds`` (the first and the last) and ``rungs``;
            what is kept already is not replaced by less.
    """
    check_kept(task, options)
    every = {h.name for h in wide(task)}
    left_out = every - set(options.get("hyperparameters") or every)
    if left_out:
        raise ValueError(
            "what is kept is of all numbers and choices; leave --keep out, or add "
            f"{', '.join(sorted(left_out))}"
        )
    before = headroom.measured().get(task.id, {}).get("settings")
    if before is None:
        return
    fewer = [
        f"{name} {mine}, and has {theirs}"
        for name, mine, theirs in (
            *((n, settings[n], before[n]) for n in ("runs", "fits")),
            ("seeds", _number(settings["seeds"]), _number(before["seeds"])),
        )
        if mine < theirs
    ]
    lacking = [rung for rung in before["rungs"] if rung not in settings["rungs"]]
    if lacking:
        fewer.append(f"{', '.join(lacking)} not, and has it")
    if fewer:
        raise ValueError(
            f"what is kept of {task.id} is not replaced by less: this would have "
            f"{'; '.join(fewer)}. Leave --keep out, or measure as much"
        )


def _number(seeds: Sequence[int]) -> int:
    """Of seeds from a first to a last one."""
    return seeds[1] - seeds[0] + 1


def keep_headroom(result: Headroom) -> dict[str, Path]:
    """Put measured gains, and a tuned policy a rung, into this package.

    Of the fits of a rung the one is kept whose runs had the best mean report score on
    the tuning split, on seeds that no search has used. A ``static-tuned`` of
    `keep_static`, which was chosen on more, stays unless that score is above its
    interval, by the same objective.

    Returns:
        Files of policies by rung.

    Raises:
        ValueError: see `check_keep_headroom`.
        OSError: a file cannot be written.
    """
    task, settings = get_task(result.task), result.settings
    names = settings["hyperparameters"]
    options = {**settings["options"], "hyperparameters": names}
    check_keep_headroom(task, options, settings)
    headroom.keep(result.task, result.entry)
    written = {}
    for rung, k in result.kept.items():
        path, fitted = place(task.id, rung), result.policies[rung][k]
        if rung == STATIC and not _is_beaten(path, result):
            continue
        kept = Fitted(fitted.policy, fitted.cost, (), fitted.online, task.id, None, {})
        about = {"study": "headroom", "rung": rung, "fit": k, **settings}
        write_whole(path, fitted_bytes(kept, about))
        written[rung] = path
    return written


def _is_beaten(path: Path, result: Headroom) -> bool:
    """Whether the static rung is stronger than a policy file of `keep_static`."""
    if not path.is_file():
        return True
    about = load_fitted(path).about or {}
    if about.get("study") != "tune-static":
        return True
    highest = about["score"][2]
    found = max(result.chosen_by[STATIC])
    return bool(about["objective"] == result.objective and found > highest)
