"""Inner environments as users write them, for the tests of what is checked of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from dacrl_env.tasks import Task

_numbers = itertools.count()

# small runs of DQN
OPTIONS: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "learning_starts": 50,
    "eval_episodes": 2,
    "hidden_sizes": (8,),
}


class Walk(gym.Env[Any, Any]):
    """A random walk of 20 steps; what it observes and earns can be changed."""

    observation_space = gym.spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = 0.0, 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.x += self.np_random.uniform(-1, 1) + float(np.sum(action))
        self.t += 1
        return self.seen(), self.earned(), False, self.t >= 20, {}

    def seen(self) -> Any:
        return np.array([self.x, self.t], np.float32)

    def earned(self) -> Any:
        return 1.0


@contextmanager
def task_on(entry: Any, **fields: Any) -> Iterator[Task]:
    """A task on an inner environment that is registered for as long."""
    number = next(_numbers)
    name = f"dacrl-tests/Users{number}-v0"
    gym.register(name, entry)
    try:
        yield Task(
            **{
                "id": f"dacrl-tests/DQN-Users{number}-v0",
                "inner_env": name,
                "algorithm": "dqn",
                "budget": 400,
                "decisions": 4,
                "random_return": 0.0,
                "reference_return": 20.0,
                "floor_return": -100.0,
                **fields,
            }
        )
    finally:
        del gym.registry[name]
