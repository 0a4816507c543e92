"""What is read of a SAC of Stable-Baselines3: of a member's, or of a user's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dacrl_env.algorithms.sb3 import off_policy_model, setters
from dacrl_env.algorithms.sb3.members import is_not_finite, one_observation
from dacrl_env.algorithms.soft import SET
from dacrl_env.learners import sac

SUMS = sac.SAC.sums
SETTERS = setters.SAC
_PROBED = ("td_error", "value_mean", "value_std")


def trained(model: Any) -> list[Tensor]:
    """What the optimisers change; critics and actor may share a features extractor."""
    both = [*model.critic.parameters(), *model.actor.parameters()]
    learned = [] if model.log_ent_coef is None else [model.log_ent_coef]
    return [*dict.fromkeys(both), *learned]


def optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Of critics, actor and temperature: a gradient step is a step of the first."""
    return setters.optimizers_of(model)


@contextmanager
def learning(model: Any, row: Mapping[str, float]) -> Iterator[None]:
    """In which gradient steps are taken: the temperature is learned, or set."""
    if row["ent_rule"] != SET:
        yield
        return
    alpha = torch.tensor(row["alpha"], dtype=torch.float32, device=model.device)
    model.ent_coef_tensor = alpha
    if model.log_ent_coef is not None:
        with torch.no_grad():
            model.log_ent_coef.fill_(math.log(row["alpha"]))
    # its optimiser is there again afterwards, for the state and for others
    optimizer, model.ent_coef_optimizer = model.ent_coef_optimizer, None
    try:
        yield
    finally:
        model.ent_coef_optimizer = optimizer


def noted(model: Any) -> tuple[list[float], Callable[[], None]]:
    """Log probabilities that gradient steps begin with, and what ends taking note.

    Stable-Baselines3 does not tell of the entropy. The list is to be emptied.
    """
    notes: list[float] = []
    actor = model.actor
    draw = actor.action_log_prob
    actor.action_log_prob = functools.partial(_noted, draw, notes)

    def stop() -> None:
        del actor.action_log_prob

    return notes, stop


def _noted(
    draw: Callable[[Tensor], tuple[Tensor, Tensor]],
    notes: list[float],
    observations: Tensor,
) -> tuple[Tensor, Tensor]:
    """Actions and log probabilities; the mean of those that the actor learns from."""
    actions, log_probs = draw(observations)
    if log_probs.requires_grad:  # not of actions that targets are computed with
        notes.append(float(log_probs.detach().mean()))
    return actions, log_probs


def means(model: Any, notes: list[float]) -> dict[str, float]:
    """Means over the gradient steps just done, from the model's log and `noted`."""
    logged = model.logger.name_to_value
    return {
        "loss": float(logged["train/critic_loss"]),
        "actor_loss": float(logged["train/actor_loss"]),
        "entropy": -float(np.mean(notes)),
        "temperature": float(logged["train/ent_coef"]),
    }


samples = off_policy_model.samples


def probe(model: Any, row: Mapping[str, float]) -> dict[str, Tensor]:
    """Temporal-difference error and values of a sample of the replay.

    Those of the first critic; NaN where the actor has no distribution.
    """
    batch = off_policy_model.batch(model)
    if model.use_sde:
        model.actor.reset_noise()
    try:
        next_observations = batch.next_observations
        actions, log_probs = model.actor.action_log_prob(next_observations)
    except (ValueError, RuntimeError) as error:
        if not is_not_finite(error):
            raise
        return dict.fromkeys(_PROBED, torch.tensor(math.nan))
    following = model.critic_target(next_observations, actions)
    least = torch.cat(following, 1).amin(1, keepdim=True)
    least = least - temperature(model) * log_probs.reshape(-1, 1)
    goal = off_policy_model.bootstrapped(batch, row["gamma"], least)
    taken = model.critic(batch.observations, batch.actions)[0]
    probed = (taken - goal).abs().mean(), taken.mean(), taken.std()
    return dict(zip(_PROBED, probed, strict=True))


def temperature(model: Any) -> Tensor:
    """The learned one, or the one that was set."""
    known: Tensor
    if model.log_ent_coef is None:
        known = model.ent_coef_tensor
    else:
        known = model.log_ent_coef.exp()
    return known


def count_flops(model: Any) -> tuple[int, int]:
    """Floating-point operations per action, and per sample of an update."""
    inputs = one_observation(model)
    with FlopCounterMode(display=False) as act, torch.no_grad():
        model.actor(inputs)
    with FlopCounterMode(display=False) as learn:
        actions, log_probs = model.actor.action_log_prob(inputs)
        with torch.no_grad():
            following, _ = model.actor.action_log_prob(inputs)
            model.critic_target(inputs, following)
        sum(model.critic(inputs, following)).sum().backward()
        values = torch.cat(model.critic(inputs, actions), 1)
        (log_probs.sum() - values.amin(1).sum()).backward()
    model.policy.zero_grad()
    return act.get_total_flops(), learn.get_total_flops()


def values_of(model: Any) -> dict[str, Any]:
    """Hyperparameters as the model has them; of a schedule, None."""
    fixed = model.ent_coef_optimizer is None
    return {
        **off_policy_model.values_of(model),
        "ent_rule": "set" if fixed else "auto",
        # what is learned is no setting
        "alpha": float(model.ent_coef_tensor) if fixed else None,
        "target_entropy": float(model.target_entropy) / setters.components(model),
    }
