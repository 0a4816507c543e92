"""Tuned configurations that others have published, as a start and a yardstick.

They are those of RL Baselines3 Zoo (Raffin 2020, "RL Baselines3 Zoo",
github.com/DLR-RM/rl-baselines3-zoo, ``hyperparams/``, at commit 22e3ff2), for the
inner environments that tasks are on. What an entry does not name has the default of
Stable-Baselines3, which is that of the algorithm here. What cannot be expressed as a
static configuration of this package is named in ``without``: schedules have the value
that they begin with (a straight line to zero) or end with (epsilon), and exploration
that depends on states is left out. A size of a replay is its ``replay_window``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dacrl_env.tasks.task import Task

_ZOO = "RL Baselines3 Zoo, hyperparams/{}.yml, {}"


@dataclass(frozen=True)
class Public:
    """A published configuration.

    Args:
        source: where it stands.
        defaults: hyperparameters that differ from the algorithm's.
        configuration: static configuration that differs from the algorithm's.
        without: what cannot be expressed, in words.
    """

    source: str
    defaults: Mapping[str, str | bool | float]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


def _epsilon(share: float, steps: int) -> tuple[str, ...]:
    return (
        f"epsilon falls from 1 over the first {share:.0%} of {steps:,} steps; here it "
        "has its last value throughout",
    )


_LINEAR = (
    "learning rate and clip range fall in straight lines to zero; here they stay what "
    "they begin with",
)
_SDE = "state-dependent exploration"


def _rollouts(theirs: str, ours: str) -> str:
    return f"rollouts of {theirs} steps, which do not divide a decision; here {ours}"


PUBLIC: Mapping[tuple[str, str], Public] = {
    ("dqn", "CartPole-v1"): Public(
        _ZOO.format("dqn", "CartPole-v1"),
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "epsilon": 0.04,
            "replay_window": 100_000,
        },
        {"hidden_sizes": (256, 256), "learning_starts": 1_000},
        _epsilon(0.16, 50_000),
    ),
    ("dqn", "Acrobot-v1"): Public(
        _ZOO.format("dqn", "Acrobot-v1"),
        {
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "gamma": 0.99,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": 4,
            "epsilon": 0.1,
            "replay_window": 50_000,
        },
        {"hidden_sizes": (256, 256), "learning_starts": 0},
        _epsilon(0.12, 100_000),
    ),
    ("dqn", "MountainCar-v0"): Public(
        _ZOO.format("dqn", "MountainCar-v0"),
        {
            "learning_rate": 4e-3,
            "batch_size": 128,
            "gamma": 0.98,
            "target_update_interval": 600,
            "train_freq": 16,
            "gradient_steps": 8,
            "epsilon": 0.07,
            "replay_window": 10_000,
        },
        {"hidden_sizes": (256, 256), "learning_starts": 1_000},
        _epsilon(0.2, 120_000),
    ),
    ("dqn", "LunarLander-v3"): Public(
        _ZOO.format("dqn", "LunarLander-v3"),
        {
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "gamma": 0.99,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": 4,
            "epsilon": 0.1,
            "replay_window": 50_000,
        },
        {"hidden_sizes": (256, 256), "learning_starts": 0},
        _epsilon(0.12, 100_000),
    ),
    ("ppo", "CartPole-v1"): Public(
        _ZOO.format("ppo", "CartPole-v1"),
        {
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "batch_size": 256,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "n_epochs": 20,
        },
        {"num_inner_envs": 8, "rollout_length": 32},
        _LINEAR,
    ),
    ("ppo", "Acrobot-v1"): Public(
        _ZOO.format("ppo", "Acrobot-v1"),
        {"gamma": 0.99, "gae_lambda": 0.94, "n_epochs": 4},
        {
            "num_inner_envs": 16,
            "rollout_length": 320,
            "normalize_observations": True,
            "normalize_rewards": True,
        },
        (_rollouts("16 × 256", "16 × 320"),),
    ),
    ("ppo", "Pendulum-v1"): Public(
        _ZOO.format("ppo", "Pendulum-v1"),
        {"learning_rate": 1e-3, "gamma": 0.9, "gae_lambda": 0.95, "n_epochs": 10},
        {"num_inner_envs": 4, "rollout_length": 1_280},
        (_rollouts("4 × 1,024", "4 × 1,280"), _SDE),
    ),
    ("ppo", "MountainCarContinuous-v0"): Public(
        _ZOO.format("ppo", "MountainCarContinuous-v0"),
        {
            "learning_rate": 7.77e-5,
            "clip_range": 0.1,
            "batch_size": 256,
            "gamma": 0.9999,
            "gae_lambda": 0.9,
            "n_epochs": 10,
            "ent_coef": 0.00429,
            "vf_coef": 0.19,
            "max_grad_norm": 5.0,
        },
        {
            "num_inner_envs": 1,
            "rollout_length": 8,
            "normalize_observations": True,
            "normalize_rewards": True,
        },
        (_SDE, "a log deviation of −3.29 to begin with, and no orthogonal weights"),
    ),
    ("ppo", "LunarLander-v3"): Public(
        _ZOO.format("ppo", "LunarLander-v3"),
        {"gamma": 0.999, "gae_lambda": 0.98, "n_epochs": 4, "ent_coef": 0.01},
        {"num_inner_envs": 16, "rollout_length": 640},
        (_rollouts("16 × 1,024", "16 × 640"),),
    ),
    ("ppo", "MiniGrid-DoorKey-5x5-v0"): Public(
        _ZOO.format("ppo", "MiniGrid-DoorKey-5x5-v0"),
        {
            "learning_rate": 2.5e-4,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "n_epochs": 10,
        },
        {
            "num_inner_envs": 8,
            "rollout_length": 128,
            "normalize_observations": True,
            "normalize_rewards": True,
        },
        ("observations with the direction and the words of the mission",),
    ),
    ("sac", "Pendulum-v1"): Public(
        _ZOO.format("sac", "Pendulum-v1"),
        {"learning_rate": 1e-3},
        {"hidden_sizes": (256, 256)},
    ),
    ("sac", "MountainCarContinuous-v0"): Public(
        _ZOO.format("sac", "MountainCarContinuous-v0"),
        {
            "learning_rate": 3e-4,
            "batch_size": 512,
            "gamma": 0.9999,
            "tau": 0.01,
            "train_freq": 32,
            "gradient_steps": 32,
            "ent_rule": "set",
            "alpha": 0.1,
            "replay_window": 50_000,
        },
        {"hidden_sizes": (64, 64), "learning_starts": 0},
        (_SDE, "a log deviation of −3.67 to begin with"),
    ),
}
"""By algorithm and inner environment."""


def public(task: Task) -> Public | None:
    """What is published for the algorithm and inner environment of a task.

    Args:
        task: the task.

    Returns:
        The configuration; None where there is none.
    """
    return PUBLIC.get((task.algorithm, task.inner_env))
