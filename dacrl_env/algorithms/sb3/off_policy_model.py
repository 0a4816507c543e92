"""What is read of a DQN or a SAC of Stable-Baselines3."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from torch import Tensor

from dacrl_env.algorithms.sb3 import setters

PROBE_BATCH = 256  # transitions the signals of an interval are computed from


def samples(model: Any, steps: int) -> int:
    """Transitions that so many gradient steps have used."""
    return steps * int(model.batch_size)


def batch(model: Any) -> Any:
    """Transitions to look at. Draws from the global generator of numpy."""
    normalizer = model._vec_normalize_env
    return model.replay_buffer.sample(PROBE_BATCH, env=normalizer)


def bootstrapped(batch: Any, gamma: float, following: Tensor) -> Tensor:
    """Targets ``(B, 1)`` of a batch, from values ``(B, 1)`` of what follows it."""
    discounts = getattr(batch, "discounts", None)
    discounts = gamma if discounts is None else discounts
    goal: Tensor = batch.rewards + (1 - batch.dones) * discounts * following
    return goal


def values_of(model: Any) -> dict[str, Any]:
    """Hyperparameters as the model has them; None: no number says it."""
    every = model.train_freq
    by_step = every.unit == TrainFrequencyUnit.STEP
    freq = every.frequency * model.n_envs if by_step else None
    return {
        "learning_rate": setters.steady_value(model.lr_schedule),
        "batch_size": model.batch_size,
        "gamma": model.gamma,
        "train_freq": freq,
        # a negative number: as many as there were steps
        "gradient_steps": freq if model.gradient_steps < 0 else model.gradient_steps,
        "tau": model.tau,
        "n_step": getattr(model, "n_steps", 1),
    }
