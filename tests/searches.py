"""What tests of searches share: tasks that are quick, and names of methods."""

from __future__ import annotations

from typing import Any

import numpy as np

from dacrl_env import Number
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.settings import resolve
from dacrl_env.policies.static import Static

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL: dict[str, Any] = {
    "budget": 2_000,
    "decision_interval": 500,
    "learning_starts": 100,
    "eval_episodes": 1,
}
# few decisions, so that a round of brackets is small
SHORT: dict[str, Any] = {"decision_interval": 10}
METHODS = (
    "grid-search",
    "random-search",
    "successive-halving,eta=2",
    "hyperband,eta=2",
    "tpe,generation=3,startup=3",
    "smac,eta=2",
    "cma-es,generation=4,seeds=1",
    "sequential-halving",
)
STEERED = "cma-es,generation=4,seeds=1,family='gate'"  # by what runs show
# the others choose one of the candidates they have tried
CHOOSERS = [spec for spec in METHODS if not spec.startswith("cma-es")]
PAIRED = [spec for spec in CHOOSERS if spec != "sequential-halving"]  # on given seeds
SEARCHERS = (
    "random-search",
    "hyperband",
    "tpe",
    "smac",
    "cma-es,seeds=1",
    "sequential-halving",
)
HALVING = ("successive-halving", "hyperband", "smac")
DQN_NAMES = (
    "learning_rate",
    "epsilon",
    "batch_size",
    "gamma",
    "target_update_interval",
    "train_freq",
    "gradient_steps",
    "max_grad_norm",
    "replay_window",
)
STABLE = {"learning_rate": (1e-4, 1e-1)}  # of rates at which no run diverges


def controlled(task: str, *names: str) -> tuple[Number, ...]:
    return resolve(task, hyperparameters=names or None).controlled


def quadratic_trials(tuning_budget: int = 10_000, **options: Any) -> Trials:
    return Trials(QUADRATIC, tuning_budget, 0, Static(), **options)


def rates(*columns: float, decisions: int = 50) -> np.ndarray:
    return np.tile(np.array(columns)[:, None], (decisions, 1, 1))
