"""Hyperparameters of Stable-Baselines3's models: setting them, and reading them.

A setter changes what a hyperparameter means to a model, everywhere that the model keeps
it. It gets all values, since a few have a meaning together alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

Row = Mapping[str, float]  # values by name, choices by the position of their option
Setter = Callable[[Any, Row], None]


def constant(value: float) -> Callable[[float], float]:
    """A schedule of Stable-Baselines3."""
    return lambda progress_remaining: value


def apply(
    model: Any, setters: Mapping[str, Setter], row: Row, names: Iterable[str]
) -> None:
    """Set hyperparameters of a model.

    Args:
        model: of Stable-Baselines3; changed.
        setters: of its algorithm.
        row: all values.
        names: those to set; what there is no setter for is none of the model's.
    """
    for name in names:
        if name in setters:
            setters[name](model, row)


def optimizers_of(model: Any) -> list[Any]:
    """All whose learning rate is the model's."""
    policy = model.policy
    if hasattr(policy, "critic") and hasattr(policy, "actor"):
        own = [policy.critic.optimizer, policy.actor.optimizer]
        temperature = getattr(model, "ent_coef_optimizer", None)
        return own if temperature is None else [*own, temperature]
    return [policy.optimizer]


def learning_rate(model: Any, row: Row) -> None:
    """Of the optimisers, and of the schedule that ``train`` sets it from."""
    model.learning_rate = row["learning_rate"]
    model.lr_schedule = constant(row["learning_rate"])
    for optimizer in optimizers_of(model):
        for group in optimizer.param_groups:
            group["lr"] = row["learning_rate"]


def batch_size(model: Any, row: Row) -> None:
    """Of minibatches."""
    model.batch_size = int(row["batch_size"])


def plain(name: str) -> Setter:
    """A setter of an attribute of the same name."""

    def set_it(model: Any, row: Row) -> None:
        setattr(model, name, row[name])

    return set_it


def whole(name: str) -> Setter:
    """A setter of an attribute of the same name that is a whole number."""

    def set_it(model: Any, row: Row) -> None:
        setattr(model, name, int(row[name]))

    return set_it


SHARED: Mapping[str, Setter] = {
    "learning_rate": learning_rate,
    "batch_size": batch_size,
}


def _gamma(model: Any, row: Row) -> None:
    model.gamma = row["gamma"]
    if getattr(model.replay_buffer, "n_steps", 1) > 1:
        model.replay_buffer.gamma = row["gamma"]


def _train_freq(model: Any, row: Row) -> None:
    calls = -(-int(row["train_freq"]) // model.n_envs)
    model.train_freq = TrainFreq(calls, TrainFrequencyUnit.STEP)


def _replay_window(model: Any, row: Row) -> None:
    model.replay_buffer.window = max(int(row["replay_window"]) // model.n_envs, 1)


OFF_POLICY: Mapping[str, Setter] = {
    **SHARED,
    "gamma": _gamma,
    "train_freq": _train_freq,
    "gradient_steps": whole("gradient_steps"),
    "replay_window": _replay_window,
    "tau": plain("tau"),
}


def _epsilon(model: Any, row: Row) -> None:
    model.exploration_rate = row["epsilon"]
    model.exploration_schedule = constant(row["epsilon"])


DQN: Mapping[str, Setter] = {
    **OFF_POLICY,
    "max_grad_norm": plain("max_grad_norm"),
    "epsilon": _epsilon,
    "target_update_interval": whole("target_update_interval"),
}


def _on_policy_gamma(model: Any, row: Row) -> None:
    # the buffer computes the advantages, with what it was built with
    model.gamma = model.rollout_buffer.gamma = row["gamma"]


def _gae_lambda(model: Any, row: Row) -> None:
    model.gae_lambda = model.rollout_buffer.gae_lambda = row["gae_lambda"]


def _clip_range(model: Any, row: Row) -> None:
    model.clip_range = constant(row["clip_range"])


def _target_kl(model: Any, row: Row) -> None:
    model.target_kl = row["target_kl"] if row["stop_early"] else None


PPO: Mapping[str, Setter] = {
    **SHARED,
    "gamma": _on_policy_gamma,
    "gae_lambda": _gae_lambda,
    "clip_range": _clip_range,
    "n_epochs": whole("n_epochs"),
    "ent_coef": plain("ent_coef"),
    "vf_coef": plain("vf_coef"),
    "max_grad_norm": plain("max_grad_norm"),
    "stop_early": _target_kl,
    "target_kl": _target_kl,
}


def components(model: Any) -> int:
    """Of an action."""
    return int(model.action_space.shape[0])


def _target_entropy(model: Any, row: Row) -> None:
    model.target_entropy = row["target_entropy"] * components(model)


def _at_updates(model: Any, row: Row) -> None:
    """`sac_model.learning` has it in effect where gradient steps are taken."""


SAC: Mapping[str, Setter] = {
    **OFF_POLICY,
    "target_entropy": _target_entropy,
    "ent_rule": _at_updates,
    "alpha": _at_updates,
}


def steady_value(schedule: Any) -> float | None:
    """What a schedule of the model says all the time; None: it changes."""
    first, middle, last = (float(schedule(x)) for x in (1.0, 0.5, 0.0))
    return first if first == middle == last else None
