"""What is read of a PPO of Stable-Baselines3: of a member's, or of a user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dacrl_env.algorithms.sb3 import setters
from dacrl_env.algorithms.sb3.members import one_observation

SUMS = ("loss", "grad_norm", "kl", "entropy")
SETTERS = setters.PPO


def trained(model: Any) -> list[Tensor]:
    """The parameters that the optimisers change."""
    return [*model.policy.parameters()]


def optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """A gradient step is a step of the first."""
    return [model.policy.optimizer]


def learning(model: Any, row: Mapping[str, float]) -> AbstractContextManager[None]:
    """In which gradient steps are taken."""
    return nullcontext()


def noted(model: Any) -> tuple[list[float], Callable[[], None]]:
    """Numbers that the log lacks, and what ends taking note: here, nothing."""
    return [], lambda: None


def means(model: Any, notes: list[float]) -> dict[str, float]:
    """Means over the gradient steps just done, from the model's log."""
    logged = model.logger.name_to_value
    entropy = -float(logged["train/entropy_loss"])
    # "train/loss" is that of the last minibatch alone
    loss = float(logged["train/policy_gradient_loss"])
    loss -= model.ent_coef * entropy
    loss += model.vf_coef * float(logged["train/value_loss"])
    kl = float(logged["train/approx_kl"])
    return {"loss": loss, "kl": kl, "entropy": entropy}


def samples(model: Any, steps: int) -> int:
    """Transitions that so many gradient steps on one rollout have used.

    With ``target_kl`` the last epoch may be left unfinished.
    """
    rollout, batch = model.n_envs * model.n_steps, int(model.batch_size)
    epochs, rest = divmod(steps, -(-rollout // batch))
    return epochs * rollout + rest * batch


def probe(model: Any, row: Mapping[str, float]) -> dict[str, Tensor]:
    """Values of the current observations."""
    inputs, _ = model.policy.obs_to_tensor(model._last_obs)
    value = model.policy.predict_values(inputs)
    return {"value_mean": value.mean(), "value_std": value.std(correction=0)}


def count_flops(model: Any) -> tuple[int, int]:
    """Floating-point operations per action, and per sample of an update."""
    policy, inputs = model.policy, one_observation(model)
    with FlopCounterMode(display=False) as act:
        actions = policy(inputs)[0]
    with FlopCounterMode(display=False) as learn:
        values, log_probs, _ = policy.evaluate_actions(inputs, actions)
        (values.sum() + log_probs.sum()).backward()
    policy.zero_grad()
    return act.get_total_flops(), learn.get_total_flops()


def values_of(model: Any) -> dict[str, Any]:
    """Hyperparameters as the model has them; of a schedule, None."""
    return {
        "learning_rate": setters.steady_value(model.lr_schedule),
        "clip_range": setters.steady_value(model.clip_range),
        "batch_size": model.batch_size,
        "gamma": model.gamma,
        "gae_lambda": model.gae_lambda,
        "n_epochs": model.n_epochs,
        "ent_coef": model.ent_coef,
        "vf_coef": model.vf_coef,
        "max_grad_norm": model.max_grad_norm,
        "stop_early": model.target_kl is not None,
        "target_kl": model.target_kl,
    }
