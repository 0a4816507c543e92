"""Arguments of Stable-Baselines3's algorithms: the user's, checked, and ours."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from dacrl_env.algorithms.sb3.front import ConvolutionalFront
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.kernels.dense import ACTIVATIONS
from dacrl_env.learners.networks import image_of
from dacrl_env.tasks.registration import load

# arguments of all algorithms that are not a user's, and who sets them
OURS = {
    "env": "the task",
    "learning_rate": "hyperparameter learning_rate",
    "batch_size": "hyperparameter batch_size",
    "gamma": "hyperparameter gamma",
    "tensorboard_log": "nobody: runs are silent",
    "verbose": "nobody: runs are silent",
    "seed": "the run's streams",
    "device": "device",
    "_init_setup_model": "this learner",
}
NOT_NORMALISED = (
    "Stable-Baselines3 leaves it to an environment wrapper, whose statistics would be "
    'no part of a run; implementation="compiled" has it'
)
# arguments of a policy that the convolution in front takes
_FRONT = (
    "features_extractor_class",
    "features_extractor_kwargs",
    "share_features_extractor",
)


def names(algorithm: type) -> list[str]:
    """The arguments that an algorithm of Stable-Baselines3 has."""
    return [*inspect.signature(algorithm).parameters]


def refuse(config: Any, name: str, why: str) -> None:
    """Raise ValueError where an option is on that Stable-Baselines3 does not have.

    The message names the way out: whoever reads it may not have set the option, since
    tasks have a configuration of their own.
    """
    given = getattr(config, name)
    if given:
        off = type(given)(0)
        raise ValueError(
            f'{name} must be {off} with implementation="sb3": {why}; where the task '
            f"has set it, pass {name}={off}"
        )


def check(config: Any, algorithm: type, ours: Mapping[str, str]) -> None:
    """Check what all configurations share, and set ``sb3_kwargs`` to JSON values.

    Args:
        config: of a learner; its ``sb3_kwargs`` are replaced.
        algorithm: of Stable-Baselines3.
        ours: arguments that are not a user's, and who sets them.

    Raises:
        ValueError: an unknown activation; an argument that does not exist, that is
            set elsewhere, or that has no name; or ``conv_channels`` beside another
            policy or features extractor.
    """
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {config.activation!r}; valid: {', '.join(ACTIVATIONS)}"
        )
    given = config.sb3_kwargs
    if not isinstance(given, Mapping):
        raise ValueError(f"sb3_kwargs must be a mapping, got {given!r}")
    valid = [name for name in names(algorithm) if name not in ours]
    taken = [f"{name!r} (set by {ours[name]})" for name in given if name in ours]
    unknown = [repr(n) for n in given if n not in ours and n not in valid]
    for what, wrong in (("cannot set", taken), ("has unknown", unknown)):
        if wrong:
            raise ValueError(
                f"sb3_kwargs {what} {', '.join(wrong)}; valid: {', '.join(valid)}"
            )
    if getattr(config, "conv_channels", 0):
        _check_front(given)
    object.__setattr__(config, "sb3_kwargs", _named(given, "sb3_kwargs"))


def _check_front(given: Mapping[str, Any]) -> None:
    """Raise ValueError where something else stands in the convolution's place."""
    policy, own = given.get("policy", "MlpPolicy"), given.get("policy_kwargs") or {}
    wrong = [] if policy == "MlpPolicy" else [f"policy {policy!r}"]
    wrong += [f"policy_kwargs {name!r}" for name in _FRONT if name in own]
    if wrong:
        raise ValueError(
            f"conv_channels makes a features extractor of its own, beside which there "
            f"is no room for {', '.join(wrong)} of sb3_kwargs; pass conv_channels=0"
        )


def of(config: Any, env: InnerEnv) -> dict[str, Any]:
    """The user's arguments and those that follow from what all algorithms share.

    Args:
        config: of a learner.
        env: inner environment. Whether its images are scaled is the default of
            Stable-Baselines3, and a user's to change, for policies of other kinds than
            "MlpPolicy".

    Raises:
        ValueError: ``conv_channels`` where observations are no images.
    """
    given = _resolved(dict(config.sb3_kwargs))
    given.setdefault("policy", "MlpPolicy")
    activation = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
    policy_kwargs: dict[str, Any] = {
        "net_arch": list(config.hidden_sizes),
        "activation_fn": activation[config.activation],
    }
    if given["policy"] == "MlpPolicy":
        policy_kwargs["normalize_images"] = env.scales_images
    if getattr(config, "conv_channels", 0):
        policy_kwargs["features_extractor_class"] = ConvolutionalFront
        policy_kwargs["features_extractor_kwargs"] = {
            "image": image_of(env),
            "channels": config.conv_channels,
            "activation_fn": activation[config.activation],
        }
    policy_kwargs.update(given.get("policy_kwargs") or {})
    return {**given, "policy_kwargs": policy_kwargs, "device": "cpu", "verbose": 0}


def _named(value: Any, where: str) -> Any:
    """JSON values, in which classes and functions are named: for headers of files."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _named(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_named(v, f"{where}[{k}]") for k, v in enumerate(value)]
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if name.isidentifier() and getattr(inspect.getmodule(value), name, None) is value:
        return f"{module}:{name}"
    raise ValueError(
        f"{where} is {value!r}; use JSON values and names of classes and functions "
        'as in "torch.nn:ELU"'
    )


def _resolved(value: Any) -> Any:
    """The inverse of `_named`: names are imported."""
    if isinstance(value, dict):
        return {k: _resolved(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolved(v) for v in value]
    return load(value) if isinstance(value, str) and ":" in value else value
