"""What `dacrl references` has measured: returns of instances, seconds of runs.

Both are read from ``references.json``, which that command writes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("references.json")

# reversed actions return what they do otherwise
SAME = {
    "AcrobotReversals": "Acrobot-v1",
    "MountainCarReversals": "MountainCar-v0",
    "PendulumReversals": "Pendulum-v1",
    "DeepSea10Reversals": "DeepSea10-v0",
}
"""Inner environments on whose instances returns are those on another one's."""


@functools.cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def returns(inner_env: str) -> Mapping[str, Mapping[str, float]]:
    """``random``, ``reference`` and ``floor`` by name of instance; empty: not measured.

    Args:
        inner_env: id of the inner environment.
    """
    section = _content()["instances"].get(SAME.get(inner_env, inner_env), {})
    found: Mapping[str, Mapping[str, float]] = section.get("returns", {})
    return found


def seconds() -> Mapping[str, Mapping[str, Any]]:
    """``seconds`` of a run, ``population`` and ``processor``, by id of task."""
    found: Mapping[str, Mapping[str, Any]] = _content()["seconds"]
    return found
