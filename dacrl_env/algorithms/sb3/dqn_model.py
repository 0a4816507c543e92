"""What is read of a DQN of Stable-Baselines3: of a member's, or of a user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dacrl_env.algorithms.sb3 import off_policy_model, setters
from dacrl_env.algorithms.sb3.members import one_observation

SUMS = ("loss", "grad_norm")
SETTERS = setters.DQN


def trained(model: Any) -> list[Tensor]:
    """The parameters that the optimisers change."""
    return [*model.q_net.parameters()]


def optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """A gradient step is a step of the first."""
    return [model.policy.optimizer]


def learning(model: Any, row: Mapping[str, float]) -> AbstractContextManager[None]:
    """In which gradient steps are taken."""
    return nullcontext()


def means(model: Any, notes: list[float]) -> dict[str, float]:
    """Means over the gradient steps just done, from the model's log."""
    return {"loss": float(model.logger.name_to_value["train/loss"])}


def noted(model: Any) -> tuple[list[float], Callable[[], None]]:
    """Numbers that the log lacks, and what ends taking note: here, nothing."""
    return [], lambda: None


samples = off_policy_model.samples


def probe(model: Any, row: Mapping[str, float]) -> dict[str, Tensor]:
    """Temporal-difference error and values of a sample of the replay."""
    batch = off_policy_model.batch(model)
    following = model.q_net_target(batch.next_observations).amax(1, keepdim=True)
    goal = off_policy_model.bootstrapped(batch, row["gamma"], following)
    taken = model.q_net(batch.observations).gather(1, batch.actions.long())
    return {
        "td_error": (taken - goal).abs().mean(),
        "value_mean": taken.mean(),
        "value_std": taken.std(),
    }


def count_flops(model: Any) -> tuple[int, int]:
    """Floating-point operations per action, and per sample of an update."""
    inputs = one_observation(model)
    with FlopCounterMode(display=False) as act:
        model.q_net(inputs)
    with FlopCounterMode(display=False) as learn:
        model.q_net_target(inputs)
        model.q_net(inputs).sum().backward()
    model.policy.zero_grad()
    return act.get_total_flops(), learn.get_total_flops()


def values_of(model: Any) -> dict[str, Any]:
    """Hyperparameters as the model has them; of a schedule, None."""
    return {
        **off_policy_model.values_of(model),
        "max_grad_norm": model.max_grad_norm,
        "epsilon": setters.steady_value(model.exploration_schedule),
        "target_update_interval": model.target_update_interval,
    }
