"""Inner environments get what their action space gives."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import slow
from users_envs import OPTIONS, Walk, task_on

from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter
from dacrl_env.outer.env import DynamicConfigEnv


class Looking(Walk):
    """Takes actions that its space gives, and no others."""

    def step(self, action: Any) -> Any:
        given = self.action_space.sample()
        assert type(action) is type(given), type(action)
        assert action.dtype == given.dtype
        assert np.shape(action) == np.shape(given)
        assert self.action_space.contains(action)
        if isinstance(action, np.ndarray):
            action[...] = 0  # theirs to write to
        return super().step(action)


DISCRETE = [
    gym.spaces.Discrete(2),
    gym.spaces.Discrete(3, start=-1),
    gym.spaces.Discrete(2, start=7),
]
if "dtype" in inspect.signature(gym.spaces.Discrete).parameters:  # not in 1.1
    DISCRETE.append(gym.spaces.Discrete(3, dtype=np.int32, start=-1))
    DISCRETE.append(gym.spaces.Discrete(3, dtype=np.uint8))
BOXES = [
    gym.spaces.Box(-1, 1, (1,), np.float32),
    gym.spaces.Box(-1, 1, (2, 3), np.float64),
    gym.spaces.Box(0, 3, (), np.float32),
    gym.spaces.Box(-1, 1, (2,), np.float16),
]


def run(space: gym.Space[Any], algorithm: str, implementation: str) -> None:
    options = dict(OPTIONS)
    if algorithm == "ppo":
        del options["learning_starts"]
        options |= {"num_inner_envs": 2, "rollout_length": 50}
    entry = type("Looking", (Looking,), {"action_space": space})
    with task_on(entry, algorithm=algorithm) as task:
        env = DynamicConfigEnv(task, **{**options, "implementation": implementation})
        env.reset(seed=0)
        env.step(np.zeros(3))


@pytest.mark.parametrize("implementation", ["compiled", slow("sb3")])
@pytest.mark.parametrize("space", DISCRETE, ids=str)
@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
def test_discrete(space, algorithm, implementation):
    run(space, algorithm, implementation)


@pytest.mark.parametrize("implementation", ["compiled", slow("sb3")])
@pytest.mark.parametrize("space", BOXES, ids=str)
def test_boxes(space, implementation):
    run(space, "ppo", implementation)


def test_actions_are_nobody_elses():
    """Whoever writes to an action changes nothing but that."""
    entry = type("Looking", (Looking,), {"action_space": BOXES[1]})
    with task_on(entry) as task:
        adapter = GymnasiumAdapter(task.inner_env, {})
        keys = np.array([[1], [2]], np.uint64)
        state = adapter.init(keys, np.zeros((2, 0)))
        actions = np.full((2, 1, 6), 0.5)
        adapter.step(state, actions)
        assert (actions == 0.5).all()
