"""Returns of tasks that were registered without: measured on first use, and kept.

They are kept in the user's cache directory, by all that they depend on: this package's
version with a digest of its sources, the inner environment and a user's algorithm with
their sources, the budget and the configuration. Where a source cannot be told they are
kept as long as the process lasts.
`dacrl_env.studies.returns` measures them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacrl_env.core import installed
from dacrl_env.core.files import read_json, write_text
from dacrl_env.core.provenance import NoSource, load
from dacrl_env.tasks.task import RETURNS, Returns, Task

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
_KEPT: dict[str, tuple[Task, dict[str, Any]]] = {}  # of this process, by id of the task


def filled(task: Task) -> Task:
    """A task with all three returns; those that it was not given are measured.

    Raises:
        ValueError: they cannot be measured; the message says which one is to be given.
    """
    if not task.missing_returns:
        return task
    record = _kept(task)
    if record is None:
        measure: Callable[[Task], dict[str, Any]] = load(
            "dacrl_env.studies.returns:measure"
        )
        print(
            f"dacrl: measuring {', '.join(task.missing_returns)} of {task.id}; what is "
            "found is kept",
            file=sys.stderr,
        )
        record = measure(task)
        print(f"dacrl: {task.id}: {_text(record)}", file=sys.stderr)
        _keep(task, record)
    return _with(task, record)


def assumed(task: Task) -> Task:
    """A task with made-up returns for those that are missing, to check it before."""
    floor, reference = task.floor_return, task.reference_return
    random = task.random_return
    if random is None:
        if floor is not None and reference is not None:
            random = (floor + reference) / 2
        elif floor is not None:
            random = floor + 1
        else:
            random = 0.0 if reference is None else reference - 1
    return replace(
        task,
        random_return=random,
        reference_return=random + 1 if reference is None else reference,
        floor_return=random - 1 if floor is None else floor,
    )


def shown(task: Task) -> str:
    """The returns of a task in one line, and how they were found; measures nothing."""
    if not task.missing_returns:
        returns = task.returns
        return f"random {returns.random:g}, reference {returns.reference:g}, floor " + (
            f"{returns.floor:g}"
        )
    record = _kept(task)
    if record is not None:
        return _text(record)
    given = [
        f"{name.partition('_')[0]} {getattr(task, name):g}"
        for name in RETURNS
        if getattr(task, name) is not None
    ]
    return ", ".join([*given, "measured on first use"])


def known(task: Task) -> Returns | None:
    """The returns of a task, if it has been given them or they are kept."""
    if not task.missing_returns:
        return task.returns
    record = _kept(task)
    return None if record is None else _with(task, record).returns


def carried(task: Task) -> Task:
    """A task as it goes to another process: with the returns that are known here."""
    record = _kept(task) if task.missing_returns else None
    return task if record is None else _with(task, record)


def forget(task_id: str) -> None:
    """What this process keeps of a task, which is registered anew."""
    _KEPT.pop(task_id, None)


def _with(task: Task, record: Mapping[str, Any]) -> Task:
    return replace(task, **{name: record[name] for name in RETURNS})


def _text(record: Mapping[str, Any]) -> str:
    about = record["about"]
    return ", ".join(
        f"{short} {record[name]:.6g}" + (f" ({about[name]})" if name in about else "")
        for name in RETURNS
        for short in [name.partition("_")[0]]
    )


# -- what is kept --------------------------------------------------------------------


def _kept(task: Task) -> dict[str, Any] | None:
    """What was found of a task, here or by another process."""
    before = _KEPT.get(task.id)
    if before is not None and before[0] == task:
        return before[1]
    path = _path(task)
    if path is None:
        return None
    try:
        record = read_json(path.read_bytes())
        if record["format"] != FORMAT or not isinstance(record["about"], dict):
            return None
        if not all(math.isfinite(record[name]) for name in RETURNS):
            return None
        _with(task, record)
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged
        return None
    _KEPT[task.id] = task, record
    return record


def _keep(task: Task, record: dict[str, Any]) -> None:
    _KEPT[task.id] = task, record
    path = _path(task)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"format": FORMAT, **record}, indent=1) + "\n")
    except OSError as error:
        warnings.warn(
            f"returns of {task.id} cannot be kept in {path.parent} ({error}); each "
            "process measures them anew",
            RuntimeWarning,
            stacklevel=3,
        )


def _path(task: Task) -> Path | None:
    """The file of a task's returns; None: what they depend on cannot be told."""
    # by its name, since it knows of tasks' returns
    definition_of: Callable[[Task], dict[str, Any]] = load(
        "dacrl_env.tasks.registration:definition_of"
    )
    try:
        definition = definition_of(assumed(task))
    except NoSource:
        return None
    given = {name: getattr(task, name) for name in RETURNS}
    about = {**definition, **given, "version": installed.version()}
    text = json.dumps(about, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return _folder() / f"{name}.json"


def _folder() -> Path:
    """In the user's cache directory."""
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(place) / "dacrl-env" / "returns"
