"""Wrappers of Gymnasium around the inner environment of a task."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from dacrl_env.core.provenance import load

Wrapper: TypeAlias = str | Callable[..., Any]
# one, or with its arguments
WrapperLike: TypeAlias = Wrapper | tuple[Wrapper, Mapping[str, Any]]


def wrapped_spec(inner_env: Any, wrappers: Any, env_id: str) -> EnvSpec:
    """What Gymnasium makes a wrapped environment by.

    The original's ``reward_threshold`` is kept where all wrappers are of observations,
    which leave returns as they are. So is its ``max_episode_steps``, which counts steps
    of the original within the wrappers; see `with_limit` for another one.

    Args:
        inner_env: id, class, function that makes an environment, or specification.
        wrappers: one or several, the innermost first: classes, functions of an
            environment, or texts ``"module:name"``; or pairs of these with a dict of
            arguments.
        env_id: of the wrapped environment.

    Raises:
        ValueError: an environment that Gymnasium does not know, or something that is no
            wrapper.
    """
    if isinstance(inner_env, str):
        inner_env = _registered(inner_env)
    if not isinstance(inner_env, EnvSpec) and not callable(inner_env):
        raise ValueError(
            "wrappers are put around an inner_env that is an id of Gymnasium's, a "
            f"class, a function or a specification; got {inner_env!r}"
        )
    layers = tuple(_layer(given) for given in _several(wrappers))
    threshold = getattr(inner_env, "reward_threshold", None)
    if not all(_of_observations(make) for make, _ in layers):
        threshold = None
    entry_point = functools.partial(wrapped, inner_env, layers)
    return EnvSpec(env_id, entry_point=entry_point, reward_threshold=threshold)


def wrapped(
    inner_env: EnvSpec | Callable[..., Any],
    layers: Sequence[tuple[Callable[..., Any], Mapping[str, Any]]],
    *,
    original_limit: int | None = None,
    **kwargs: Any,
) -> Any:
    """The environment in its wrappers.

    Args:
        inner_env: what makes the original.
        layers: wrappers with their arguments, the innermost first.
        original_limit: steps of an episode of the original; None: as it is registered.
        **kwargs: of the original.

    Raises:
        ValueError: a wrapper returns no environment.
    """
    if isinstance(inner_env, EnvSpec):
        env: Any = gym.make(
            inner_env,
            max_episode_steps=original_limit,
            disable_env_checker=True,
            **kwargs,
        )
    else:
        env = inner_env(**kwargs)
    for make, options in layers:
        env = make(env, **options)
        if not isinstance(env, gym.Env):
            name = getattr(make, "__name__", repr(make))
            raise ValueError(
                f"wrapper {name} returned {env!r}, which is no environment"
            )
    return env


def with_limit(env_id: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for ``gymnasium.make``, with a limit that the original has, too.

    ``gymnasium.make`` keeps ``max_episode_steps`` to itself, and puts the limit around
    all wrappers. There a limit above the original's own would change nothing.

    Args:
        env_id: of the inner environment.
        kwargs: of a task, for it.
    """
    spec, limit = gym.registry.get(env_id), kwargs.get("max_episode_steps")
    make = None if spec is None else spec.entry_point
    if limit is None or not isinstance(make, functools.partial):
        return dict(kwargs)
    if make.func is not wrapped or not isinstance(make.args[0], EnvSpec):
        return dict(kwargs)
    return {**kwargs, "original_limit": limit}


def _registered(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gym.registry.get(name)
    if spec is None:
        raise ValueError(
            f"wrappers are put around environments of Gymnasium's, which does not know "
            f"{env_id!r}"
        )
    return replace(spec)  # later changes of the registration are no part of the task


def _several(wrappers: Any) -> list[Any]:
    pair = (
        isinstance(wrappers, tuple)
        and len(wrappers) == 2
        and isinstance(wrappers[1], Mapping)
    )
    one = pair or not isinstance(wrappers, list | tuple)
    return [wrappers] if one else list(wrappers)


def _layer(given: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    make, options = given, {}
    if isinstance(given, tuple):
        if len(given) != 2 or not isinstance(given[1], Mapping):
            raise ValueError(
                f"a wrapper with arguments is a pair (wrapper, dict), got {given!r}"
            )
        make, options = given[0], dict(given[1])
    if isinstance(make, str) and ":" in make:
        try:
            make = load(make)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot load the wrapper {make!r}: {error}") from error
    if not callable(make):
        raise ValueError(
            "a wrapper is a class, a function of an environment, or module:name; got "
            f"{make!r}"
        )
    return make, options


def _of_observations(make: Any) -> bool:
    return isinstance(make, type) and issubclass(make, gym.ObservationWrapper)
