"""Configuring a reinforcement-learning run while it trains, as an environment.

Importing this package registers its environments with Gymnasium. It loads neither
torch nor pandas; those come with the first environment or evaluation.
"""

from __future__ import annotations

from typing import Any

from dacrl_env.core.version import __version__
from dacrl_env.tasks import Choice, Event, Instance, Number, Task
from dacrl_env.tasks.registration import TASKS, get_task, load, register_task

Hyperparameter = Number  # as it was called when there were numbers alone

# public names that need heavy imports, loaded when they are first used
_LAZY = {
    "DynamicConfigEnv": "dacrl_env.outer.env:DynamicConfigEnv",
    "PopulationEnv": "dacrl_env.outer.vector_env:PopulationEnv",
    "Snapshot": "dacrl_env.core.snapshot:Snapshot",
    "SnapshotError": "dacrl_env.core.snapshot:SnapshotError",
    "SnapshotNotSupported": "dacrl_env.core.snapshot:SnapshotNotSupported",
    "MLflow": "dacrl_env.core.trackers:MLflow",
    "Method": "dacrl_env.policies:Method",
    "Policy": "dacrl_env.policies:Policy",
    "TensorBoard": "dacrl_env.core.trackers:TensorBoard",
    "TrackedRun": "dacrl_env.core.trackers:TrackedRun",
    "Tracker": "dacrl_env.core.trackers:Tracker",
    "WandB": "dacrl_env.core.trackers:WandB",
    "compare": "dacrl_env.comparison.comparison:compare",
    "compare_suite": "dacrl_env.comparison.suite:compare_suite",
    "evaluate": "dacrl_env.comparison.evaluation:evaluate",
    "fit": "dacrl_env.comparison.comparison:fit",
    "get_method": "dacrl_env.policies:get_method",
    "get_policy": "dacrl_env.policies:get_policy",
    "read_results": "dacrl_env.comparison.results:read_results",
}

__all__ = [
    "TASKS",
    "Choice",
    "DynamicConfigEnv",
    "Event",
    "Hyperparameter",
    "Instance",
    "MLflow",
    "Method",
    "Number",
    "Policy",
    "PopulationEnv",
    "Snapshot",
    "SnapshotError",
    "SnapshotNotSupported",
    "Task",
    "TensorBoard",
    "TrackedRun",
    "Tracker",
    "WandB",
    "__version__",
    "compare",
    "compare_suite",
    "evaluate",
    "fit",
    "get_method",
    "get_policy",
    "get_task",
    "read_results",
    "register_task",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(_LAZY[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
