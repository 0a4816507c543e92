"""What `dacrl headroom` has measured: what tuning beyond a static configuration gains.

It is read from ``headroom.json``, which that command writes to with ``--keep``::

    {"tasks": {id: {"schedule": [value, low, high], "state": [value, low, high],
                    "objective": "auc", "version": "..."}}}

``schedule`` is the gain of the best open-loop schedule over the best static
configuration, ``state`` that of the best closed-loop policy over the best schedule,
both as differences of scores with their 95 % interval. A task that starts at a base has
the figures of the one that the base was found for, see `measured_as`. Tags of a task
that is measured follow from its figures, see `tags_of`; suites are named by tags, see
`suite`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from dacrl_env.core.checks import unknown
from dacrl_env.core.files import write_text
from dacrl_env.tasks import bases
from dacrl_env.tasks.task import Task

PATH = Path(__file__).with_name("headroom.json")
LEAST = 0.05
"""A gain below this score is too small for a tag, however certain it is."""

KINDS = ("state", "schedule")
"""What gains are measured of; also the tags of tasks that have them."""

_RULED = (*KINDS, "smoke")  # tags that follow from figures
SUITES = (*_RULED, "default", "all")


@functools.cache
def measured() -> Mapping[str, Mapping[str, Any]]:
    """Entries of the file by id of task; none if there is no file, or an empty one.

    Raises:
        ValueError: the file is there and is not as this module's text says.
    """
    try:
        text = PATH.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    if not text.strip():
        return {}
    try:
        tasks = json.loads(text).get("tasks", {})
        for name, entry in tasks.items():
            for kind in KINDS:
                _check_gain(name, kind, entry.get(kind))
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"{PATH}: {error}") from error
    found: Mapping[str, Mapping[str, Any]] = tasks
    return found


def _check_gain(name: str, kind: str, gain: Any) -> None:
    if gain is None:
        return
    # an interval need not hold its value: percentiles of a bootstrap are none of it
    finite = len(gain) == 3 and all(math.isfinite(number) for number in gain)
    if not finite or gain[1] > gain[2]:
        raise ValueError(
            f"{PATH}: {kind} of {name} must be [value, low, high], got {gain}"
        )


def measured_as(task: str) -> str:
    """The id of the task that figures of this one are of; its own if there are none.

    A task that starts at a base, and is not measured itself, has those of the one
    before: the policies compared set every hyperparameter, see `bases.alike`.

    Args:
        task: id.
    """
    before = bases.alike(task)
    return before if task not in measured() and before in measured() else task


def entry_of(task: str) -> Mapping[str, Any]:
    """What is measured of a task, see `measured_as`; empty: nothing.

    Args:
        task: id.
    """
    return measured().get(measured_as(task), {})


def tags_of(task: Task) -> tuple[str, ...]:
    """Tags of a task: by its figures where they are measured, else those of the table.

    See `ruled`; tags of other kinds stay.

    Args:
        task: the task.
    """
    entry = entry_of(task.id)
    if all(entry.get(kind) is None for kind in KINDS):
        return task.tags
    return (*ruled(entry), *(tag for tag in task.tags if tag not in _RULED))


def ruled(gains: Mapping[str, Any]) -> tuple[str, ...]:
    """Tags by figures.

    ``state`` and ``schedule``: the interval of that gain lies above zero, and the gain
    is at least `LEAST`. Where the policies that are kept were run on seeds that were
    held back, the interval lies above zero there, too. ``smoke``: neither.

    Args:
        gains: of each kind that is measured ``(value, low, high)``; and ``confirmed``,
            whose ``values`` are those on seeds that were held back.
    """
    again = gains.get("confirmed", {}).get("values", {})
    known = {kind: gains[kind] for kind in KINDS if gains.get(kind) is not None}
    passed = [
        kind
        for kind, (value, low, _) in known.items()
        if value >= LEAST and low > 0 and (kind not in again or again[kind][1] > 0)
    ]
    return tuple(passed) or ("smoke",)


def better_rule(task: str) -> str | None:
    """The rung of a task whose rule was the better one on the tuning split, if known.

    Args:
        task: id.
    """
    best = entry_of(task).get("best")
    return None if best is None else str(best[1])


def keep(task: str, entry: Mapping[str, Any]) -> None:
    """Put the figures of a task into the file, in place of earlier ones.

    Args:
        task: id.
        entry: as the text of this module shows it.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be written.
    """
    with FileLock(f"{PATH}.lock"):
        measured.cache_clear()  # others may have kept something since it was read
        tasks = {**measured(), task: dict(entry)}
        content = {"tasks": dict(sorted(tasks.items()))}
        write_text(PATH, json.dumps(content, indent=2) + "\n")
    measured.cache_clear()


def shown(task: str, separator: str = ", ") -> str:
    """Figures of a task as a text such as ``state +0.12 [+0.05, +0.19]``.

    Args:
        task: id.
        separator: between the two figures.

    Returns:
        The text; a dash where nothing is measured.
    """
    entry = entry_of(task)
    parts = []
    for kind in KINDS:
        if entry.get(kind) is not None:
            value, low, high = entry[kind]
            parts.append(f"{kind} {value:+.3f} [{low:+.3f}, {high:+.3f}]")
    objective = f" ({entry['objective']})" if parts and "objective" in entry else ""
    return separator.join(parts) + objective if parts else "–"


def suite(name: str, tasks: Iterable[Task]) -> list[str]:
    """Ids of the tasks of a suite, in the order they are given.

    Args:
        name: a tag; ``default``, those tagged state or schedule; or ``all``.
        tasks: to choose from, such as ``TASKS.values()``.

    Raises:
        ValueError: no such suite, or no task is in it.
    """
    tags = {task.id: tags_of(task) for task in tasks}
    if name == "all":
        return list(tags)
    if name == "default":
        found = [task for task, own in tags.items() if {*KINDS} & {*own}]
    else:
        known = dict.fromkeys([*_RULED, *(tag for own in tags.values() for tag in own)])
        if name not in known:
            raise ValueError(unknown("suite", name, [*known, "default", "all"]))
        found = [task for task, own in tags.items() if name in own]
    if not found:
        raise ValueError(
            f"no task is in the suite {name!r}: tags state and schedule follow from "
            "what dacrl headroom has measured, see dacrl tasks"
        )
    return found
