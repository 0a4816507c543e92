"""Inner environments that tests make up: dynamics as pure array functions.

A *dynamics* object says how one environment moves; `BatchedEnv` adds what all share:
time limits, automatic resets from counter-based streams, episode statistics. Arrays
are ``(P, N, …)``: members, then inner environments of a member.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.snapshot import copy_rows
from dacrl_env.inner_envs import Transition
from dacrl_env.inner_envs.images import is_image_array

Floats = NDArray[np.float64]


class Dynamics(Protocol):
    """What is particular to one environment. ``(…)`` stands for any batch shape.

    Two things are optional. Dynamics with continuous actions have ``num_actions`` 0
    and their bounds, ``action_low`` and ``action_high`` ``(A,)``; what goes beyond
    them is clipped or not as in the original. Dynamics whose constants change in the
    course of a training run have a method ``in_force(physics, lifetime)``: the
    constants ``(…, K)`` after ``lifetime`` ``(…)`` steps, shaped so that they do not
    change any more.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype[Any]
    num_actions: int
    max_episode_steps: int
    uniforms_per_reset: int
    physics: Mapping[str, float]  # names and default values of the physical constants

    def initial(self, uniforms: Floats, physics: Floats) -> NDArray[Any]:
        """Starting variables ``(…, S)`` from uniform numbers ``(…, k)``."""
        ...

    def step(
        self, variables: NDArray[Any], actions: NDArray[Any], physics: Floats
    ) -> tuple[NDArray[Any], Floats, NDArray[np.bool_]]:
        """Next variables ``(…, S)``, reward ``(…)`` and termination ``(…)``.

        Actions are numbers ``(…)``, or continuous ``(…, A)``.
        """
        ...

    def observe(self, variables: NDArray[Any]) -> NDArray[Any]:
        """Observations ``(…, *observation_shape)`` in the environment's dtype."""
        ...


@dataclass
class EnvState:
    """All there is to P × N environments."""

    keys: streams.UInts  # (P, N)
    physics: Floats  # (P, N, K) physical constants
    variables: NDArray[Any]  # (P, N, S)
    observations: NDArray[Any]  # (P, N, *observation_shape), current
    returns: Floats  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N) of the running episode
    episodes: NDArray[np.int64]  # (P, N) begun so far
    lifetime: NDArray[np.int64]  # (P, N) steps taken, in all episodes


class BatchedEnv:
    """P × N environments with the given dynamics, reset automatically.

    Episode ``e`` of an environment starts from the uniform numbers at ``(key, e)``.
    """

    scales_images = False
    object_bytes = 0

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.observation_shape = dynamics.observation_shape
        self.observation_dtype = dynamics.observation_dtype
        self.has_images = is_image_array(self.observation_shape, self.observation_dtype)
        self.num_actions = dynamics.num_actions
        self.action_low: Floats = getattr(dynamics, "action_low", np.empty(0))
        self.action_high: Floats = getattr(dynamics, "action_high", np.empty(0))
        self.physics = dynamics.physics
        self._changing = getattr(dynamics, "in_force", None)

    def init(
        self,
        keys: streams.UInts,
        physics: Floats,
        lifetime: NDArray[np.int64] | None = None,
    ) -> EnvState:
        """Environments at the start of their first episode.

        Args:
            keys: ``(P, N)``.
            physics: ``(P, K)`` constants of each member, ordered as ``self.physics``.
            lifetime: ``(P,)``, for evaluations: the constants are, and remain, those
                in force after so many steps of one training environment. None: a life
                begins, in whose course they may change.
        """
        if lifetime is not None:
            physics = self._in_force(physics, lifetime)
        constants = np.repeat(physics[:, None], keys.shape[1], axis=1)
        episodes = np.zeros(keys.shape, np.int64)
        lived = np.zeros(keys.shape, np.int64)
        variables = self._initial(keys, episodes, constants, lived)
        return EnvState(
            keys=keys,
            physics=constants,
            variables=variables,
            observations=self.dynamics.observe(variables),
            returns=np.zeros(keys.shape),
            lengths=np.zeros(keys.shape, np.int64),
            episodes=episodes,
            lifetime=lived,
        )

    def restart(
        self,
        state: EnvState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: Floats,
    ) -> None:
        """Put some members' environments at their first start, with new keys."""
        copy_rows(state, members, self.init(keys, physics))

    def begin_episodes(self, state: EnvState) -> None:
        """Leave every running episode and start the next one."""
        state.episodes += 1
        state.variables[...] = self._initial(
            state.keys, state.episodes, state.physics, state.lifetime
        )
        state.observations = self.dynamics.observe(state.variables)
        state.returns[...] = 0.0
        state.lengths[...] = 0

    def _initial(
        self,
        keys: streams.UInts,
        episodes: NDArray[np.int64],
        physics: Floats,
        lifetime: NDArray[np.int64],
    ) -> NDArray[Any]:
        u = streams.uniforms(keys, episodes, self.dynamics.uniforms_per_reset)
        return self.dynamics.initial(u, self._in_force(physics, lifetime))

    def _in_force(self, physics: Floats, lifetime: NDArray[np.int64]) -> Floats:
        """Constants ``(…, K)`` as they are after ``lifetime`` ``(…)`` steps."""
        if self._changing is None:
            return physics
        changed: Floats = self._changing(physics, lifetime)
        return changed

    def reseed(self, state: EnvState, members: NDArray[np.int64]) -> None:
        """Nothing to do: whatever is drawn follows from the keys."""

    def close(self, state: EnvState | None = None) -> None:
        """Nothing to do."""

    def step(self, state: EnvState, actions: NDArray[Any]) -> Transition:
        """Advance every environment by one step, ``state`` in place.

        Args:
            state: changed; ended environments are at their next episode's start.
            actions: ``(P, N)`` numbers of actions, or continuous ``(P, N, A)``.
        """
        variables, rewards, terminated = self.dynamics.step(
            state.variables, actions, self._in_force(state.physics, state.lifetime)
        )
        state.lifetime += 1
        observations = self.dynamics.observe(variables)
        lengths = state.lengths + 1
        returns = state.returns + rewards
        done = terminated | (lengths >= self.dynamics.max_episode_steps)
        result = Transition(observations, rewards, terminated, done, returns, lengths)
        if np.count_nonzero(done):  # a fifth of the time of any()
            # the result keeps what it has, which may be a view of the variables
            variables, observations = variables.copy(), observations.copy()
            returns, lengths = returns.copy(), lengths.copy()
            state.episodes[done] += 1
            fresh = self._initial(
                state.keys[done],
                state.episodes[done],
                state.physics[done],
                state.lifetime[done],
            )
            variables[done] = fresh
            observations[done] = self.dynamics.observe(fresh)
            returns[done] = 0.0
            lengths[done] = 0
        state.variables, state.observations = variables, observations
        state.returns, state.lengths = returns, lengths
        return result
