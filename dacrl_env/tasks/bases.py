"""Bases: the best static configuration known of a task, and the task that starts there.

A gain over a weak configuration is no gain. Where a task of the table was written with
a configuration and a better static one is known, ``bases.json`` has the better one, and
a task with the next version number has it for its defaults: the base of
``dacrl/DQN-CartPole-v0`` makes ``dacrl/DQN-CartPole-v1``. The older task stays what it
is, works wherever it is named, and is not listed any more.

``dacrl tune-static --keep`` writes the file; entries may be written by hand, too, where
a configuration comes from elsewhere (`dacrl_env.tasks.public`)::

    {"tasks": {id: {"defaults": {name: value}, "configuration": {name: value},
                    "controlled": [name], "importance": {name: share},
                    "objective": "auc", "score": [value, low, high], "source": "...",
                    "version": "..."}}}

``defaults`` are hyperparameters and ``configuration`` is static configuration, both
where they differ from those of the task named. ``controlled`` is optional: the knobs
that matter there; without it the task's own stay. ``importance`` is optional, too: what
share of the difference between good and other candidates each knob has
(`dacrl_env.studies.importance`), which is shown alone. ``score`` is the mean report
score of runs of the base on the tuning split, on seeds that it was not chosen by, with
its 95 % interval; ``objective`` says of which score, ``source`` where the base is from,
and ``settings``, if they are there, what was searched and how.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from dacrl_env.core.checks import unknown
from dacrl_env.core.files import read_json, write_text
from dacrl_env.tasks.table import TABLE
from dacrl_env.tasks.task import Task

PATH = Path(__file__).with_name("bases.json")
OBJECTIVES = ("auc", "final")
_NEEDED = ("defaults", "configuration", "objective", "score", "source")
_FIELDS = (*_NEEDED, "controlled", "importance", "settings", "version")
_VERSION = re.compile(r"-v(\d+)$")


@functools.cache
def stored() -> Mapping[str, Mapping[str, Any]]:
    """Entries of the file by id of the task of the table; none if there is no file.

    Raises:
        ValueError: the file is there and is not as this module's text says.
    """
    try:
        data = PATH.read_bytes()
    except FileNotFoundError:
        return {}
    if not data.strip():
        return {}
    try:
        tasks = read_json(data).get("tasks", {})
        if not isinstance(tasks, Mapping):
            raise ValueError(f"tasks must be an object of entries, got {tasks!r}")
        for name, entry in tasks.items():
            check_entry(name, entry)
    except ValueError as error:
        raise ValueError(f"{PATH}: {error}") from error
    found: Mapping[str, Mapping[str, Any]] = tasks
    return found


def check_entry(name: str, entry: Any) -> None:
    """Raise a ValueError unless an entry is as the file's are.

    Whether the algorithm has the hyperparameters is not asked, which would load it.

    Args:
        name: id of the task of the table.
        entry: of the file.
    """
    known = [task.id for task in TABLE]
    if name not in known:
        raise ValueError(unknown("task", name, known))
    if not isinstance(entry, Mapping):
        raise ValueError(f"the entry of {name} must be an object, got {entry!r}")
    for field in entry:
        if field not in _FIELDS:
            raise ValueError(f"{name}: {unknown('field', field, _FIELDS)}")
    for field in _NEEDED:
        if field not in entry:
            raise ValueError(f"{name}: {field!r} is missing")
    for field in ("defaults", "configuration", "importance"):
        if not isinstance(entry.get(field, {}), Mapping):
            raise ValueError(f"{name}: {field} must be an object, got {entry[field]!r}")
    if entry["objective"] not in OBJECTIVES:
        raise ValueError(
            f"{name}: {unknown('objective', entry['objective'], OBJECTIVES)}"
        )
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise ValueError(f"{name}: source must say where the base is from")
    score = entry["score"]
    numbers = isinstance(score, list | tuple) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
        for x in score
    )
    if not numbers or len(score) != 3 or score[1] > score[2]:
        raise ValueError(f"{name}: score must be [value, low, high], got {score!r}")
    controlled = entry.get("controlled")
    names = isinstance(controlled, list | tuple) and all(
        isinstance(h, str) for h in controlled
    )
    if controlled is not None and not (names and controlled):
        raise ValueError(
            f"{name}: controlled must be a list of names, or left out; got "
            f"{controlled!r}"
        )
    made_of(next(task for task in TABLE if task.id == name), entry)


def following(task: str) -> str:
    """The id with the next version number.

    Args:
        task: id.

    Raises:
        ValueError: it has no version.
    """
    found = _VERSION.search(task)
    if found is None:
        raise ValueError(f"the id {task!r} has no version, such as -v0")
    return f"{task[: found.start()]}-v{int(found[1]) + 1}"


def newer(task: str) -> str | None:
    """The id of the task that starts at the base of this one; None: it has no base."""
    return following(task) if task in stored() else None


def original(task: str) -> str:
    """The id of the task whose base is the default of this one; else its own."""
    return next((name for name in stored() if following(name) == task), task)


def alike(task: str) -> str:
    """The id of the task whose tuned policies are this one's, too.

    They set every hyperparameter, and so are the same on the task that a base was found
    for and on the one that starts there; unless the base has static configuration,
    which they do not set.

    Args:
        task: id.
    """
    name = original(task)
    return name if name == task or not stored()[name]["configuration"] else task


def of_table(task: str) -> bool:
    """Whether an id is that of a task of the table, or of one that a base makes."""
    return original(task) in [row.id for row in TABLE]


def made_of(task: Task, entry: Mapping[str, Any]) -> Task:
    """The task that starts at a base.

    Args:
        task: of the table.
        entry: of the file.

    Raises:
        ValueError: a value of a type that a task has not.
    """
    controlled = entry.get("controlled")
    ranges = dict(task.ranges)
    for name, value in entry["defaults"].items():
        if name in ranges and isinstance(value, int | float):
            low, high = ranges[name]
            ranges[name] = (min(low, value), max(high, value))
    return replace(
        task,
        id=following(task.id),
        defaults={**task.defaults, **entry["defaults"]},
        configuration={
            **task.configuration,
            **{k: _tuples(v) for k, v in entry["configuration"].items()},
        },
        controlled=task.controlled if controlled is None else tuple(controlled),
        ranges=ranges,
    )


def made() -> list[Task]:
    """The tasks that bases make, in the order of the table.

    Raises:
        ValueError: the file is damaged.
    """
    return [made_of(task, stored()[task.id]) for task in TABLE if task.id in stored()]


def keep(task: str, entry: Mapping[str, Any]) -> str:
    """Put a base into the file, in place of an earlier one of the task.

    An entry that does not say what is controlled, or what matters, keeps what the
    earlier one said.

    Args:
        task: id of a task of the table, or of one that a base makes: then values that
            the entry does not have are those of that base.
        entry: as the text of this module shows it.

    Returns:
        The id of the task that starts at the base.

    Raises:
        ValueError: no such task, an entry that is none, or the file is damaged.
        OSError: it cannot be written.
    """
    with FileLock(f"{PATH}.lock"):
        stored.cache_clear()  # others may have kept something since it was read
        name = original(task)
        before = dict(stored().get(name, {}))
        entry = dict(entry)
        for field in ("controlled", "importance"):
            if field in before:
                entry.setdefault(field, before[field])
        if task != name:
            for field in ("defaults", "configuration"):
                entry[field] = {**before[field], **entry[field]}
        check_entry(name, entry)
        tasks = {**stored(), name: entry}
        content = {"tasks": dict(sorted(tasks.items()))}
        write_text(PATH, json.dumps(content, indent=2) + "\n")
    stored.cache_clear()
    return following(name)


def shown(task: str) -> str:
    """The base that a task starts at, such as ``auc 0.56 [0.54, 0.58], from …``.

    Args:
        task: id.

    Returns:
        The text; a dash for a task that starts at no base.
    """
    name = original(task)
    if name == task:
        return "–"
    entry = stored()[name]
    value, low, high = entry["score"]
    return (
        f"{entry['objective']} {value:.3f} [{low:.3f}, {high:.3f}], from "
        f"{entry['source']}"
    )


def shown_importance(task: str, most: int = 6) -> str:
    """What matters of a task that starts at a base, such as ``epsilon 0.41, tau 0.2``.

    Args:
        task: id.
        most: knobs that are shown.

    Returns:
        The text; a dash where it is not measured.
    """
    shares = stored().get(original(task), {}).get("importance", {})
    ranked = sorted(shares.items(), key=lambda pair: -pair[1])[:most]
    return ", ".join(f"{name} {share:.2f}" for name, share in ranked) or "–"


def _tuples(value: Any) -> Any:
    """Lists, which JSON has alone, as the tuples that they stand for."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
