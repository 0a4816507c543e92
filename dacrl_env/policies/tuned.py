"""Tuned policies that come with the package, by names that mean each task's own.

``static-tuned`` is the strongest static configuration known of a task (`dacrl
tune-static`), ``open-loop-tuned`` a schedule; the others are rules, tuned by one
searcher at one budget (`dacrl headroom`), and ``rule-tuned`` is the better one of them.
One name so means the same kind of policy on every task of a suite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.checks import unknown
from dacrl_env.policies import protocol
from dacrl_env.policies.protocol import Fitted
from dacrl_env.tasks import Task, bases
from dacrl_env.tasks.headroom import better_rule
from dacrl_env.tasks.registration import TASKS, listed
from dacrl_env.tasks.rungs import BEST_RULE, COMMANDS, NAMES

if TYPE_CHECKING:
    from dacrl_env.outer.vector_env import PopulationEnv


class Tuned:
    """The policy of a rung that was tuned for the task it is run on.

    Args:
        rung: "static-tuned", "open-loop-tuned", "freeze-tuned",
            "frozen-schedule-tuned", "checkpoint-tuned", "restart-tuned",
            "swap-tuned", "switch-tuned", or "rule-tuned".
        any_task: let it run with runs of another length, decision interval or feedback
            than it was tuned for.

    Raises:
        ValueError: an unknown rung; when a task is known, that it has none.
    """

    action_mode = "values"

    def __init__(self, rung: str, any_task: bool = False) -> None:
        if rung not in NAMES:
            raise ValueError(unknown("rung", rung, NAMES))
        self.rung, self.any_task = rung, any_task

    def on(self, task: Task) -> Fitted:
        """The policy of a task.

        Raises:
            ValueError: there is none, with what there is and what makes it; or its file
                is damaged.
        """
        path = _found(task.id, self.rung)
        if path is None:
            raise ValueError(_missing(task, self.rung))
        fitted = protocol.load_fitted(path)
        if fitted.task not in (task.id, bases.alike(task.id)):
            raise ValueError(f"{path} is of {fitted.task}, not of {task.id}")
        if self.any_task:
            return protocol.load_fitted(path, any_task=True)
        fitted.task = task.id
        return fitted

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """As the policy of the task of ``envs``, which has to control what it sets."""
        self._policy = self.on(envs.settings.task).policy
        self._policy.reset(envs, seed)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """As the policy of the task."""
        return self._policy.act(observations, infos)


def on(policy: Any, task: Task) -> Any:
    """A policy as it is on a task: `Tuned` ones become that of the task.

    Raises:
        ValueError: see `Tuned.on`.
    """
    return policy.on(task) if isinstance(policy, Tuned) else policy


def place(task: str, rung: str) -> Path:
    """The file of a tuned policy, which need not be there.

    Args:
        task: id.
        rung: one of `RUNGS`.
    """
    words = task.removeprefix("dacrl/").lower()
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return protocol.folder_of_pretrained() / f"{slug}-{rung}.json"


def tuned(task: str) -> list[str]:
    """Names that a tuned policy of a task goes by.

    Args:
        task: id.
    """
    return [name for name in NAMES if _found(task, name) is not None]


def _found(task: str, name: str) -> Path | None:
    """The file that a name stands for on a task, if it is there."""
    rung = better_rule(task) if name == BEST_RULE else name
    if rung is None:
        return None
    paths = (place(task, rung), place(bases.alike(task), rung))
    return next((path for path in paths if path.is_file()), None)


def check_kept(task: Task, options: Mapping[str, Any]) -> None:
    """Raise a ValueError if results of a task cannot be kept in the package.

    Args:
        task: to be one of this package as it is registered.
        options: of the environment; what is kept is of runs as the task has them.
    """
    if not bases.of_table(task.id) or TASKS.get(task.id) != task:
        raise ValueError(
            f"{task.id} is no task of this package, which keeps results of its own; "
            "leave --keep out, and take the files in --out"
        )
    given = [name for name in options if name != "hyperparameters"]
    if given:
        raise ValueError(
            "what is kept is of runs as the task has them; leave --keep out, or "
            f"{', '.join(given)}"
        )


def _missing(task: Task, rung: str) -> str:
    own = ", ".join(tuned(task.id))
    others = [t.id for t in listed() if rung in tuned(t.id)]
    text = f"{task.id} has no {rung} policy; it has {own or 'no tuned one'}"
    text += f"; {rung} is there for {', '.join(others) or 'no task'}"
    command = COMMANDS[rung].format(task=task.id)
    if not bases.of_table(task.id):
        return f"{text}; {command} makes one, a file to be named instead"
    return f"{text}; {command} --keep makes it"
