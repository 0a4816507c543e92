"""Batched inner environments: explicit state, dynamics as pure array functions.

A *dynamics* object says how one environment moves; `BatchedEnv` adds what all share:
time limits, automatic resets from counter-based streams, episode statistics. Arrays
are ``(P, N, …)``: members, then inner environments of a member.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.learners import streams
from dacrl_env.snapshot import copy_rows

Floats = NDArray[np.float64]


class Dynamics(Protocol):
    """What is particular to one environment. ``(…)`` stands for any batch shape."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype[Any]
    num_actions: int
    max_episode_steps: int
    uniforms_per_reset: int
    physics: Mapping[str, float]  # names and default values of the physical constants

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        """Starting variables ``(…, S)`` from uniform numbers ``(…, k)``."""
        ...

    def step(
        self, variables: Floats, actions: NDArray[np.int64], physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Next variables ``(…, S)``, reward ``(…)`` and termination ``(…)``."""
        ...

    def observe(self, variables: Floats) -> NDArray[Any]:
        """Observations ``(…, *observation_shape)`` in the environment's dtype."""
        ...


class Transition(NamedTuple):
    """What one step gave, before automatic resets; arrays ``(P, N, …)``."""

    observations: NDArray[Any]  # after the step: the last one where an episode ended
    rewards: Floats
    terminated: NDArray[np.bool_]
    done: NDArray[np.bool_]  # terminated or truncated
    returns: Floats  # of the episode up to now
    lengths: NDArray[np.int64]


@dataclass
class EnvState:
    """All there is to P × N environments."""

    keys: streams.UInts  # (P, N)
    physics: Floats  # (P, N, K) physical constants
    variables: Floats  # (P, N, S)
    observations: NDArray[Any]  # (P, N, *observation_shape), current
    returns: Floats  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N) of the running episode
    episodes: NDArray[np.int64]  # (P, N) begun so far


class BatchedEnv:
    """P × N environments with the given dynamics, reset automatically.

    Episode ``e`` of an environment starts from the uniform numbers at ``(key, e)``.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.observation_shape = dynamics.observation_shape
        self.observation_dtype = dynamics.observation_dtype
        self.num_actions = dynamics.num_actions
        self.physics = dynamics.physics

    def init(self, keys: streams.UInts, physics: Floats) -> EnvState:
        """Environments at the start of their first episode.

        Args:
            keys: ``(P, N)``.
            physics: ``(P, K)`` constants of each member, ordered as ``self.physics``.
        """
        constants = np.repeat(physics[:, None], keys.shape[1], axis=1)
        episodes = np.zeros(keys.shape, np.int64)
        variables = self._initial(keys, episodes, constants)
        return EnvState(
            keys=keys,
            physics=constants,
            variables=variables,
            observations=self.dynamics.observe(variables),
            returns=np.zeros(keys.shape),
            lengths=np.zeros(keys.shape, np.int64),
            episodes=episodes,
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
        state.variables[...] = self._initial(state.keys, state.episodes, state.physics)
        state.observations = self.dynamics.observe(state.variables)
        state.returns[...] = 0.0
        state.lengths[...] = 0

    def _initial(
        self, keys: streams.UInts, episodes: NDArray[np.int64], physics: Floats
    ) -> Floats:
        u = streams.uniforms(keys, episodes, self.dynamics.uniforms_per_reset)
        return self.dynamics.initial(u, physics)

    def step(self, state: EnvState, actions: NDArray[np.int64]) -> Transition:
        """Advance every environment by one step, ``state`` in place.

        Args:
            state: changed; ended environments are at their next episode's start.
            actions: ``(P, N)``.
        """
        variables, rewards, terminated = self.dynamics.step(
            state.variables, actions, state.physics
        )
        observations = self.dynamics.observe(variables)
        lengths = state.lengths + 1
        returns = state.returns + rewards
        done = terminated | (lengths >= self.dynamics.max_episode_steps)
        result = Transition(observations, rewards, terminated, done, returns, lengths)
        if done.any():
            observations, returns = observations.copy(), returns.copy()
            lengths = lengths.copy()
            state.episodes[done] += 1
            fresh = self._initial(
                state.keys[done], state.episodes[done], state.physics[done]
            )
            variables[done] = fresh
            observations[done] = self.dynamics.observe(fresh)
            returns[done] = 0.0
            lengths[done] = 0
        state.variables, state.observations = variables, observations
        state.returns, state.lengths = returns, lengths
        return result
