"""Parameters of tests that have a case for each task and something else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import pytest

from dacrl_env import TASKS
from dacrl_env.tasks import bases

_SB3 = [int(part) for part in re.findall(r"\d+", version("stable-baselines3"))[:2]]
# the oldest one that is supported has none, which is said where they are asked for
sb3_n_steps = pytest.mark.skipif(
    _SB3 < [2, 7], reason="n-step returns came with stable-baselines3 2.7"
)

# one of every kind of path through learners and inner environments; in this order, two
# processes that compile what they need do not compile the same
OFTEN = (
    "dacrl/DQN-CartPole-v0",
    "dacrl/PPO-CartPole-v0",
    "dacrl/PPO-Pendulum-v0",
    "dacrl/SAC-Pendulum-v0",
    "dacrl/DQN-LunarLander-v0",
    "dacrl/NoisyQuadratic-v0",
)
# these and what they leave out: convolutions, levels of training and evaluation,
# discrete actions of SAC, and algorithms that change
EVERY_KIND = (
    *OFTEN,
    "dacrl/DQN-MinAtar-Breakout-short-v0",
    "dacrl/DiscreteSAC-CartPole-v0",
    "dacrl/PPO-MiniGridLevels-v0",
    "dacrl/Pipeline-CartPole-v0",
)


def registered() -> list[str]:
    """Ids of the tasks of the table.

    What is compiled is of an algorithm and an inner environment. A task that starts at
    a base has those of the one in the table, and may take long: tests of all tasks
    leave it to ``tests/tasks/test_bases.py``.
    """
    return [task for task in TASKS if bases.original(task) == task]


def slow(*values: Any) -> Any:
    """Parameters of a test that is a slow one: others show most of what it shows."""
    return pytest.param(*values, marks=pytest.mark.slow)


def but_smac(specs: Iterable[str]) -> list[Any]:
    """Methods, of which SMAC is left to the slow tests: it takes seconds to start."""
    return [slow(spec) if spec.startswith("smac") else spec for spec in specs]


def quick(names: Iterable[str], *few: str) -> list[Any]:
    """Names, of which all but a few are left to the slow tests."""
    return [name if name in few else slow(name) for name in names]


def cases(pairs: Iterable[Sequence[Any]]) -> list[Any]:
    """Parameters whose first is a task; those of the other tasks are slow tests."""
    return [pytest.param(*pair) if pair[0] in OFTEN else slow(*pair) for pair in pairs]


def varied(tasks: Iterable[str], variations: Iterable[Any]) -> list[Any]:
    """Every variation with two tasks, and one in turn with others of every kind.

    Args:
        tasks: ids.
        variations: single parameters, or tuples of several.
    """
    tasks, variations = list(tasks), list(variations)
    kinds = [task for task in tasks if task in EVERY_KIND]
    result = []
    for task, (k, v) in itertools.product(tasks, enumerate(variations)):
        row = (task, *(v if isinstance(v, tuple) else (v,)))
        often = task in ("dacrl/DQN-CartPole-v0", "dacrl/PPO-CartPole-v0")
        in_turn = task in kinds and k == kinds.index(task) % len(variations)
        result.append(pytest.param(*row) if often or in_turn else slow(*row))
    return result
