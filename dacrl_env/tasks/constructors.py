"""Numbers that constructors of inner environments take: what instances may change."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from dacrl_env.tasks.wrapping import wrapped

# of `gymnasium.make`, and of `wrapping.wrapped`: limits are no constants
_LIMITS = ("max_episode_steps", "original_limit")
_KINDS = (bool, int, float)


def numbers_taken(
    env_id: str, kwargs: Mapping[str, Any]
) -> dict[str, bool | int | float]:
    """Arguments by name, with the values they have: given, registered, or by default.

    Args:
        env_id: of an inner environment of Gymnasium's; one that it does not know has
            none.
        kwargs: of a task, for it.

    Returns:
        Those whose value is a bool, an int or a float, of Python's or numpy's, in the
        constructor's order.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)  # as gymnasium.make does
    spec = gym.registry.get(name)
    if spec is None or spec.entry_point is None:
        return {}
    make, registered = _original(spec)
    values = {**_defaults(make), **registered, **kwargs}
    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in values.items()
    }
    return {
        name: value
        for name, value in plain.items()
        if type(value) in _KINDS and name not in _LIMITS
    }


def _original(spec: EnvSpec) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """What makes the environment within the wrappers of a task, and its arguments."""
    make: Any = spec.entry_point
    if isinstance(make, functools.partial) and make.func is wrapped:
        inner = make.args[0]
        return _original(inner) if isinstance(inner, EnvSpec) else (inner, {})
    return load_env_creator(make) if isinstance(make, str) else make, spec.kwargs


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # of C, without a signature
        return {}
    return {name: p.default for name, p in parameters.items()}
