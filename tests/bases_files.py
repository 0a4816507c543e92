"""Bases and tuned policies of a test alone, in place of the package's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from dacrl_env import TASKS
from dacrl_env.policies import protocol
from dacrl_env.tasks import bases, registration
from dacrl_env.tasks.table import TABLE

Write = Callable[[Any], Path]


def entry(**fields: Any) -> dict[str, Any]:
    """An entry of the file of bases."""
    return {
        "defaults": {},
        "configuration": {},
        "objective": "auc",
        "score": [0.5, 0.4, 0.6],
        "source": "a test",
        **fields,
    }


@contextmanager
def own_bases(folder: Path) -> Iterator[Write]:
    """Gives a function that writes a text, or entries, where bases are read.

    The tasks that they make are known until the end; the package's own are not.
    """
    tasks, registry, own = dict(TASKS), dict(gym.registry), set(registration._BUILT_IN)
    path = folder / "bases.json"

    def forget() -> None:
        bases.stored.cache_clear()
        for table, before in ((TASKS, tasks), (gym.registry, registry)):
            table.clear()
            table.update(before)
        registration._BUILT_IN.clear()
        registration._BUILT_IN.update(own)

    def write(content: Any) -> Path:
        forget()
        for name in own - {task.id for task in TABLE}:
            del TASKS[name], gym.registry[name]
            registration._BUILT_IN.discard(name)
        text = content if isinstance(content, str) else json.dumps({"tasks": content})
        path.write_text(text)
        if isinstance(content, Mapping):
            registration.enter_bases()
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bases, "PATH", path)
        try:
            yield write
        finally:
            forget()
    bases.stored.cache_clear()


def own_policies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where policies are looked for that come with the package."""
    place = folder / "pretrained"
    place.mkdir()
    monkeypatch.setattr(protocol, "folder_of_pretrained", lambda: place)
    return place
