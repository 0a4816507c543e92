"""What every compiled environment offers, and what is the same for all of them.

An environment is a named tuple of constants and tables in a file of its own, with three
compiled functions of these names beside it; which are meant follows from the type of
the tuple when a caller is compiled:

- ``reset(env, key, episode, physics, variables)`` puts ``variables`` (S,) at the start
  of an episode, whose random numbers are those at ``(key, episode)``;
- ``step(env, variables, action, physics, drawn)`` changes them and returns reward and
  termination. ``action`` (A,) holds the number of a discrete action, or the components
  of a continuous one within the bounds; ``drawn`` is a draw of random numbers;
- ``observe(env, variables, observation)`` writes what an agent sees, (D,).

``physics`` (K,) are constants that instances may change.

Where episodes take place in numbered *levels*, the tuple says how many are trained on,
``levels``, and there are three functions more:

- ``level_of(env, variables)`` is the level of the running episode;
- ``begin_level(env, level, physics, variables)`` puts variables at the start of a
  level;
- ``hold_out(env, key, physics, variables)`` puts them at the start of a level that is
  held out for evaluations, which the key decides.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import draw
from dacrl_env.kernels.views import FIRST, vector

# the draws of steps lie beyond those of any episode's start
_STEPS = np.uint64(2**62)


class EnvState(NamedTuple):
    """All there is to P × N environments."""

    keys: NDArray[np.uint64]  # (P, N)
    physics: NDArray[np.float64]  # (P, K)
    variables: NDArray[np.float64]  # (P, N, S)
    returns: NDArray[np.float64]  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N) of the running episode
    episodes: NDArray[np.int64]  # (P, N) begun so far
    lifetime: NDArray[np.int64]  # (P, N) steps taken, in all episodes


# -- stubs, whose meaning follows from the type of the environment ---------------------


def reset(env, key, episode, physics, variables):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def step(env, variables, action, physics, drawn):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def observe(env, variables, observation):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def in_force(env, physics, lifetime, room):  # type: ignore[no-untyped-def]
    """Constants (K,) after ``lifetime`` steps, perhaps written to ``room`` (K,).

    They do not change any more: the function leaves them as they are. Environments
    whose constants are constant need not offer it.
    """
    raise NotImplementedError


def limit(env, variables):  # type: ignore[no-untyped-def]
    """Steps after which the running episode is truncated.

    Environments whose episodes all have the same limit need not offer it.
    """
    raise NotImplementedError


def hold_out(env, key, physics, variables):  # type: ignore[no-untyped-def]
    """See the module's docstring; without levels, evaluations begin as training."""
    raise NotImplementedError


def begin_level(env, level, physics, variables):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def level_of(env, variables):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def has_levels(env: Any) -> bool:
    """Whether episodes of an environment, by its type, take place in levels."""
    return _beside(env, "begin_level") is not None


def _beside(env: Any, name: str) -> Any:
    return getattr(sys.modules[env.instance_class.__module__], name, None)


@overload(reset)
def _reset(env, key, episode, physics, variables):  # type: ignore[no-untyped-def]
    function = _beside(env, "reset")
    return lambda env, key, episode, physics, variables: function(
        env, key, episode, physics, variables
    )


@overload(step)
def _step(env, variables, action, physics, drawn):  # type: ignore[no-untyped-def]
    function = _beside(env, "step")
    return lambda env, variables, action, physics, drawn: function(
        env, variables, action, physics, drawn
    )


@overload(observe)
def _observe(env, variables, observation):  # type: ignore[no-untyped-def]
    function = _beside(env, "observe")
    return lambda env, variables, observation: function(env, variables, observation)


@overload(in_force)
def _in_force(env, physics, lifetime, room):  # type: ignore[no-untyped-def]
    function = _beside(env, "in_force")
    if function is None:
        return lambda env, physics, lifetime, room: physics
    return lambda env, physics, lifetime, room: function(env, physics, lifetime, room)


@overload(limit)
def _limit(env, variables):  # type: ignore[no-untyped-def]
    function = _beside(env, "limit")
    if function is None:
        return lambda env, variables: env.max_episode_steps
    return lambda env, variables: function(env, variables)


@overload(hold_out)
def _hold_out(env, key, physics, variables):  # type: ignore[no-untyped-def]
    function = _beside(env, "hold_out")
    if function is None:
        return lambda env, key, physics, variables: None
    return lambda env, key, physics, variables: function(env, key, physics, variables)


@overload(begin_level)
def _begin_level(env, level, physics, variables):  # type: ignore[no-untyped-def]
    function = _beside(env, "begin_level")
    return lambda env, level, physics, variables: function(
        env, level, physics, variables
    )


@overload(level_of)
def _level_of(env, variables):  # type: ignore[no-untyped-def]
    function = _beside(env, "level_of")
    return lambda env, variables: function(env, variables)


# -- one of the P × N environments -----------------------------------------------------


@compiled
def physics_of(p, envs):
    """Constants (K,) of a member."""
    K = envs.physics.shape[1]
    return vector(envs.physics, p * K, K)


@compiled
def variables_of(p, n, envs):
    """Variables (S,) of an environment."""
    N, S = envs.variables.shape[1:]
    return vector(envs.variables, (p * N + n) * S, S)


@compiled
def begin_episode(p, n, env, envs, room):
    """Put an environment at the start of its episode."""
    physics = in_force(env, physics_of(p, envs), envs.lifetime[p, n], room)
    reset(env, envs.keys[p, n], envs.episodes[p, n], physics, variables_of(p, n, envs))
    envs.returns[p, n] = 0.0
    envs.lengths[p, n] = 0


@compiled
def advance(p, n, action, env, envs, room):
    """One step of an environment: reward, whether it terminated, whether truncated.

    An episode that is over waits for `begin_next`.
    """
    lifetime = envs.lifetime[p, n]
    physics = in_force(env, physics_of(p, envs), lifetime, room)
    drawn = draw(envs.keys[p, n], _STEPS + np.uint64(lifetime))
    variables = variables_of(p, n, envs)
    reward, terminated = step(env, variables, action, physics, drawn)
    envs.lifetime[p, n] = lifetime + 1
    envs.lengths[p, n] += 1
    envs.returns[p, n] += reward
    truncated = not terminated and envs.lengths[p, n] >= limit(env, variables)
    return reward, terminated, truncated


@compiled
def begin_next(p, n, env, envs, room):
    """Begin the next episode of an environment."""
    envs.episodes[p, n] += 1
    begin_episode(p, n, env, envs, room)


@compiled
def begin_evaluation(n, key, physics, lifetime, env, envs, room):
    """Put an environment of ``envs`` at the start of an evaluation episode.

    Args:
        n: its number.
        key: of the episode.
        physics: (K,) constants.
        lifetime: steps each training environment has taken: constants that change in
            the course of training remain as they are now.
        env: the environment.
        envs: (1, N) of which all have these constants and this lifetime.
        room: (K,).
    """
    now = in_force(env, physics, lifetime, room)
    for k in range(len(now)):
        envs.physics[0, k] = now[k]
    envs.keys[0, n] = key
    envs.episodes[0, n] = envs.lifetime[0, n] = 0
    begin_episode(FIRST, n, env, envs, room)
    hold_out(env, key, physics_of(FIRST, envs), variables_of(FIRST, n, envs))


def make_env_state(P: int, N: int, K: int, S: int) -> EnvState:
    """Memory for P × N environments of K constants and S variables."""
    return EnvState(
        keys=np.zeros((P, N), np.uint64),
        physics=np.zeros((P, K)),
        variables=np.zeros((P, N, S)),
        returns=np.zeros((P, N)),
        lengths=np.zeros((P, N), np.int64),
        episodes=np.zeros((P, N), np.int64),
        lifetime=np.zeros((P, N), np.int64),
    )
