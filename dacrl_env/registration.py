"""The one table of tasks, learners and batched inner environments.

Implementations are named by strings and imported when an environment is made, so that
``import dacrl_env`` stays cheap.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from dacrl_env.tasks import Task

if TYPE_CHECKING:
    from dacrl_env.inner_envs import InnerEnv

LEARNERS = {"dqn": "dacrl_env.learners.dqn:DQN"}
BATCHED_ENVS = {
    "CartPole-v1": "dacrl_env.inner_envs.cartpole:CartPole",
    "Acrobot-v1": "dacrl_env.inner_envs.acrobot:Acrobot",
    "MountainCar-v0": "dacrl_env.inner_envs.mountain_car:MountainCar",
    "Pendulum-v1": "dacrl_env.inner_envs.pendulum:Pendulum",
    "MiniGrid-Empty-5x5-v0": "dacrl_env.inner_envs.minigrid:empty_5x5",
    "MiniGrid-DoorKey-5x5-v0": "dacrl_env.inner_envs.minigrid:door_key_5x5",
}

_TABLE = (
    Task(
        id="dacrl/DQN-CartPole-v0",
        inner_env="CartPole-v1",
        learner="dqn",
        budget=50_000,
        random_return=22.2,
        reference_return=500.0,
        floor_return=0.0,
        description="DQN on CartPole; good runs forget again",
    ),
)
TASKS: dict[str, Task] = {}


def load(entry_point: str) -> Any:
    """The object that ``"module:name"`` names."""
    module, _, name = entry_point.partition(":")
    return getattr(importlib.import_module(module), name)


def register_task(task: Task | None = None, /, **fields: Any) -> Task:
    """Make a task known to `gymnasium.make`, `gymnasium.make_vec` and the tools.

    Args:
        task: the task; or its fields by keyword, see :class:`dacrl_env.Task`.
        **fields: of a :class:`dacrl_env.Task`.

    Returns:
        The task.

    Raises:
        ValueError: the id is taken, or the learner or backend is unknown.
    """
    task = Task(**fields) if task is None else task
    if task.id in TASKS or task.id in gym.registry:
        raise ValueError(f"the id {task.id!r} is taken; choose another name or version")
    if task.learner not in LEARNERS:
        raise ValueError(
            f"unknown learner {task.learner!r}; valid: {', '.join(LEARNERS)}"
        )
    backends = ("auto", "batched", "gymnasium", "envpool")
    if task.backend not in backends:
        raise ValueError(
            f"unknown backend {task.backend!r}; valid: {', '.join(backends)}"
        )
    if task.backend == "batched" and task.inner_env not in BATCHED_ENVS:
        raise ValueError(
            f"no batched implementation of {task.inner_env!r}; "
            f"there is one of: {', '.join(BATCHED_ENVS)}"
        )
    TASKS[task.id] = task
    gym.register(
        id=task.id,
        entry_point="dacrl_env.env:DynamicConfigEnv",
        vector_entry_point="dacrl_env.vector_env:PopulationEnv",
        kwargs={"task": task.id},
    )
    return task


def get_task(task: str | Task) -> Task:
    """A task by id.

    Raises:
        ValueError: no such id; the message lists the valid ones.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; valid: {', '.join(TASKS)}")
    return TASKS[task]


def make_inner_env(task: Task, reuse: bool = False) -> InnerEnv:
    """The inner environment of a task.

    Args:
        task: names the environment and its backend.
        reuse: see :class:`~dacrl_env.inner_envs.gymnasium_adapter.GymnasiumAdapter`.
    """
    kwargs: Mapping[str, Any] = task.inner_env_kwargs
    batched = task.inner_env in BATCHED_ENVS and not kwargs
    if task.backend == "batched" or (task.backend == "auto" and batched):
        from dacrl_env.inner_envs.batched import BatchedEnv

        return BatchedEnv(load(BATCHED_ENVS[task.inner_env])(**kwargs))
    if task.backend == "envpool":
        from dacrl_env.inner_envs.envpool_adapter import EnvPoolAdapter

        return EnvPoolAdapter(task.inner_env, kwargs)
    from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter

    return GymnasiumAdapter(task.inner_env, kwargs, reuse)


for _task in _TABLE:
    register_task(_task)
