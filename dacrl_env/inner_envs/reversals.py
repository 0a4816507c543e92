"""Actions that are reversed again and again, unannounced.

Of A discrete actions, a becomes A − 1 − a; a continuous one becomes its negative. What
an agent has learned to do is then the opposite of what it should do, until the next
reversal. Nothing else changes: returns that can be reached remain the same.

Beside the K constants of the given environment there is ``shift_at``, the number of
steps that an environment takes, in all its episodes, before the first reversal;
``shift_period``, the steps from each reversal to the next one; and ``shift_order``, 1,
or 2 where actions are reversed from the start. By default nothing ever changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dacrl_env.inner_envs import dynamics
from dacrl_env.inner_envs.shift import NEVER, changes
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.views import vector

_AT, _PERIOD, _ORDER = -3, -2, -1  # of constants
_GIVEN, _REVERSED = 1.0, 2.0  # orders


class Reversed(NamedTuple):
    """An environment whose actions may be reversed."""

    env: Any
    features: int
    actions: int
    variables: int
    max_episode_steps: int


def reversible(env: Any) -> Reversed:
    """An environment whose actions may be reversed, of another one."""
    return Reversed(
        env, env.features, env.actions, env.variables, env.max_episode_steps
    )


def with_reversals(physics: Mapping[str, float]) -> dict[str, float]:
    """Names and default values of the constants (K + 3,), from those of (K,)."""
    times = {"shift_at": NEVER, "shift_period": NEVER}
    return {**physics, **times, "shift_order": _GIVEN}


@compiled
def in_force(env, physics, lifetime, room):
    """Constants after some steps, of which none is a time: they do not change again."""
    for k in range(len(physics)):
        room[k] = physics[k]
    turned = changes(lifetime, physics[_AT], physics[_PERIOD])
    room[_AT] = room[_PERIOD] = NEVER
    room[_ORDER] = _GIVEN + (physics[_ORDER] - _GIVEN + turned) % 2
    return vector(room, 0, len(physics))


@compiled
def reset(env, key, episode, physics, variables):
    """As the given environment."""
    dynamics.reset(env.env, key, episode, physics, variables)


@compiled
def _reverse(env, action):
    """Reverse an action in place. Twice is exactly as before."""
    for k in range(len(action)):
        action[k] = env.actions - 1 - action[k] if env.actions > 0 else -action[k]


@compiled
def step(env, variables, action, physics, drawn):
    """As the given environment, with the action that is meant."""
    turned = physics[_ORDER] == _REVERSED
    if turned:
        _reverse(env, action)
    reward, terminated = dynamics.step(env.env, variables, action, physics, drawn)
    if turned:
        _reverse(env, action)  # the caller's
    return reward, terminated


@compiled
def observe(env, variables, observation):
    """As the given environment: observations do not tell of reversals."""
    dynamics.observe(env.env, variables, observation)
