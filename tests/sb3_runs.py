"""Small populations of Stable-Baselines3's algorithms, and tasks with them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval
from dacrl_env.core import streams
from dacrl_env.core.snapshot import is_opaque, leaves
from dacrl_env.inner_envs.env import ENVS, CompiledEnv
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks import Number, Task
from dacrl_env.tasks.registration import IMPLEMENTATIONS, load_learner

ALGORITHMS = tuple(IMPLEMENTATIONS["sb3"])
REPLAYING = ("dqn", "sac")
DQN_ID = "dacrl/DQN-CartPole-v0"
CONFIG: dict[str, dict[str, Any]] = {
    "dqn": {"hidden_sizes": (8,), "learning_starts": 20},
    "ppo": {"hidden_sizes": (8,), "num_inner_envs": 2, "rollout_length": 8},
    "sac": {"hidden_sizes": (8,), "learning_starts": 20},
}
# rates at which a few dozen steps change a lot
FAST: dict[str, dict[str, float]] = {
    "dqn": {"target_update_interval": 40},
    "ppo": {"learning_rate": 1e-2, "n_epochs": 3, "batch_size": 6},
    "sac": {"learning_rate": 1e-2, "batch_size": 32, "train_freq": 4},
}
UNIT = {"dqn": 16, "ppo": 16, "sac": 16}
INNER = {"dqn": "CartPole-v1", "ppo": "CartPole-v1", "sac": "Pendulum-v1"}


def inner_of(name: str) -> CompiledEnv:
    return ENVS[INNER[name]]()


def cartpole() -> CompiledEnv:
    return ENVS["CartPole-v1"]()


def short() -> CompiledEnv:
    """Every episode is cut off before the pole can fall."""
    env = cartpole()
    env.env = env.env._replace(max_episode_steps=5)
    return env


@dataclass
class Runs:
    """A population without an outer environment."""

    learner: Any
    state: Any
    values: dict[str, NDArray[np.float64]]
    interval: Interval

    def train(self, steps: int) -> None:
        with torch.no_grad():  # as the engine does
            self.learner.train(self.state, self.values, steps, self.interval)

    def rows(self, i: int) -> dict[str, bytes]:
        """Every bit of one member, environment objects excepted."""
        return {
            name: np.asarray(leaf[i]).tobytes()
            for name, leaf in leaves(self.state)
            if not is_opaque(leaf)
        }

    def differences(self, other: Runs, i: int = 0, j: int | None = None) -> list[str]:
        mine, theirs = self.rows(i), other.rows(i if j is None else j)
        return [name for name in mine if mine[name] != theirs[name]]


def physics_of(env: Any, m: int) -> NDArray[np.float64]:
    return np.tile([*env.physics.values()], (m, 1)).astype(np.float64)


def keys_of(members: list[int], seed: int = 0) -> streams.UInts:
    return np.stack([streams.member_keys("tuning", seed, i, 0) for i in members])


def make(
    name: str,
    members: list[int] | None = None,
    env: Any = None,
    budget: int = 4_000,
    **overrides: Any,
) -> Runs:
    members = [0] if members is None else members
    env = inner_of(name) if env is None else env
    kind = load_learner(name, "sb3")
    values = {}
    for h in kind.hyperparameters:
        value = overrides.pop(h.name, FAST[name].get(h.name, h.default))
        code = value if isinstance(h, Number) else h.codes(value)
        values[h.name] = np.full(len(members), code, np.float64)
    config = kind.config_class(**{**CONFIG[name], **overrides})
    given = {n: v[0] for n, v in values.items() if n in kind.unchanging}
    learner = kind(env, env, config, budget, given)
    with torch.no_grad():
        state = learner.init(keys_of(members), physics_of(env, len(members)))
    return Runs(learner, state, values, learner.begin_interval(state))


def globals_now() -> tuple[Any, ...]:
    own: Any = np.random.get_state()  # noqa: NPY002
    return (
        random.getstate(),
        own[1].tobytes(),
        own[2:],
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        tuple(sorted(np.geterr().items())),
        tuple(map(str, warnings.filters)),
    )


@pytest.fixture(autouse=True)
def globals_kept() -> Iterator[None]:
    """Tests may seed global generators; others must not notice."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(kept[0])
    np.random.set_state(kept[1])  # noqa: NPY002
    torch.set_rng_state(kept[2])


class Counting(CompiledEnv):
    steps = 0

    def __init__(self, name: str = "dqn") -> None:
        own = inner_of(name)
        bounds = own.action_low, own.action_high
        super().__init__(own.env, own.physics, bounds=bounds)

    def step(self, state: Any, actions: Any) -> Any:
        self.steps += state.keys.size
        return super().step(state, actions)


PPO_TASK = Task(
    id="dacrl/PPO-SB3Learner-v0",
    inner_env="CartPole-v1",
    algorithm="ppo",
    budget=128,
    random_return=22.2,
    reference_return=500.0,
    floor_return=0.0,
    decisions=4,
    configuration=CONFIG["ppo"],
)
OPTIONS: dict[str, dict[str, Any]] = {
    "dqn": {
        "budget": 400,
        "decision_interval": 100,
        "learning_starts": 60,
        "hidden_sizes": (8,),
        "replay_capacity": 150,
    },
    "ppo": {"budget": 128},
}
OPTIONS["sac"] = OPTIONS["dqn"]
TASKS: dict[str, Any] = {
    "dqn": DQN_ID,
    "ppo": PPO_TASK,
    "sac": "dacrl/SAC-Pendulum-v0",
}


def single(name: str, **options: Any) -> DynamicConfigEnv:
    options = {"implementation": "sb3", "eval_episodes": 2, **OPTIONS[name], **options}
    return DynamicConfigEnv(TASKS[name], **options)


def vector(name: str, num_envs: int = 3, **options: Any) -> PopulationEnv:
    options = {"implementation": "sb3", "eval_episodes": 2, **OPTIONS[name], **options}
    return PopulationEnv(TASKS[name], num_envs, **options)
