"""Parameters of tests that have a case for each task and something else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import pytest

from dacrl_env import Task

_SB3 = [int(part) for part in re.findall(r"\d+", version("stable-baselines3"))[:2]]
# the oldest one that is supported has none, which is said where they are asked for
sb3_n_steps = pytest.mark.skipif(
    _SB3 < [2, 7], reason="n-step returns came with stable-baselines3 2.7"
)

# one of every kind of path through learners and inner environments
OFTEN = (
    "dacrl/DQN-CartPole-v0",
    "dacrl/DQN-LunarLander-v0",
    "dacrl/NoisyQuadratic-v0",
    "dacrl/PPO-CartPole-v0",
    "dacrl/PPO-Pendulum-v0",
    "dacrl/SAC-Pendulum-v0",
)


def seldom(task: Task) -> bool:
    """Whether tests of a task are slow ones, since those of another show as much.

    Each pair of an algorithm and an inner environment takes seconds to compile. Of
    MinAtar's games, whose rules have tests of their own, one stands for all, and its
    short tasks for the long ones.
    """
    return "MinAtar" in task.id and "Breakout-short" not in task.id


def slow(*values: Any) -> Any:
    """Parameters of a test that is a slow one: others show most of what it shows."""
    return pytest.param(*values, marks=pytest.mark.slow)


def quick(names: Iterable[str], *few: str) -> list[Any]:
    """Names, of which all but a few are left to the slow tests."""
    return [name if name in few else slow(name) for name in names]


def cases(pairs: Iterable[Sequence[Any]]) -> list[Any]:
    """Parameters whose first is a task; those of the other tasks are slow tests."""
    return [pytest.param(*pair) if pair[0] in OFTEN else slow(*pair) for pair in pairs]


def varied(tasks: Iterable[str], variations: Iterable[Any]) -> list[Any]:
    """Every variation with two tasks, and one in turn with each other task.

    Args:
        tasks: ids.
        variations: single parameters, or tuples of several.
    """
    tasks, variations = list(tasks), list(variations)
    rows = [
        (task, *(v if isinstance(v, tuple) else (v,)))
        for task, v in itertools.product(tasks, variations)
    ]
    result = []
    for i, row in enumerate(rows):
        task, variation = divmod(i, len(variations))
        in_turn = variation == task % len(variations)
        often = row[0] in ("dacrl/DQN-CartPole-v0", "dacrl/PPO-CartPole-v0")
        result.append(pytest.param(*row) if often or in_turn else slow(*row))
    return result
