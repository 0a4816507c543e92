"""Any registered Gymnasium environment as an inner environment, stepped one by one.

Much slower than batched dynamics, and limited to Box observations and Discrete or Box
actions; for environments that have no batched implementation.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs.batched import Transition
from dacrl_env.learners import streams
from dacrl_env.snapshot import copy_rows

_BOX2D_ENVS = "gymnasium.envs.box2d"


@dataclass
class AdapterState:
    """P × N environment objects and what is counted about them."""

    envs: Any  # (P, N) array of environment objects
    keys: streams.UInts  # (P, N)
    observations: NDArray[Any]  # (P, N, *observation_shape), current
    returns: NDArray[np.float64]  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N)
    episodes: NDArray[np.int64]  # (P, N) begun so far


class GymnasiumAdapter:
    """Inner environments made by ``gymnasium.make``.

    Episode ``e`` of an environment is seeded with bits of ``(key, e)``, so that no two
    episodes share a seed and a run is reproducible.

    Args:
        env_id: Gymnasium id.
        kwargs: passed to ``gymnasium.make``.
        reuse: let every `init` take over the environment objects of the one before,
            which saves making them; earlier states become invalid.

    Raises:
        ImportError: an environment of Gymnasium's that needs Box2D, without it.
        ValueError: observations that are no Box, or actions that are neither Discrete
            nor Box.
    """

    physics: Mapping[str, float] = {}

    def __init__(
        self, env_id: str, kwargs: Mapping[str, Any], reuse: bool = False
    ) -> None:
        self.env_id = env_id
        self.kwargs = dict(kwargs)
        self._pool: list[gym.Env[Any, Any]] | None = [] if reuse else None
        if needs_box2d(env_id):
            _import_box2d(env_id)
        probe = self._make()
        observations, actions = probe.observation_space, probe.action_space
        if not isinstance(observations, gym.spaces.Box) or not isinstance(
            actions, gym.spaces.Discrete | gym.spaces.Box
        ):
            raise ValueError(
                f"inner environment {env_id} has observations {observations} and "
                f"actions {actions}; learners need Box observations and Discrete or "
                "Box actions"
            )
        self.observation_shape = observations.shape
        self.observation_dtype = observations.dtype
        self._action_space = actions
        if isinstance(actions, gym.spaces.Discrete):
            self.num_actions = int(actions.n)
            self.action_low = self.action_high = np.empty(0)
        else:
            self.num_actions = 0
            self.action_low = actions.low.ravel().astype(np.float64)
            self.action_high = actions.high.ravel().astype(np.float64)
        if self._pool is None:
            probe.close()
        else:
            self._pool.append(probe)

    def _make(self) -> gym.Env[Any, Any]:
        return gym.make(self.env_id, disable_env_checker=True, **self.kwargs)

    def init(
        self,
        keys: streams.UInts,
        physics: NDArray[np.float64],
        lifetime: NDArray[np.int64] | None = None,
    ) -> AdapterState:
        """Environments at the start of their first episode; keys ``(P, N)``.

        There are no constants, so ``physics`` and ``lifetime`` mean nothing here.
        """
        envs = np.empty(keys.shape, object)
        for k, place in enumerate(np.ndindex(keys.shape)):
            if self._pool is None:
                envs[place] = self._make()
            else:
                if k == len(self._pool):
                    self._pool.append(self._make())
                envs[place] = self._pool[k]
        state = AdapterState(
            envs=envs,
            keys=keys,
            observations=np.empty(
                (*keys.shape, *self.observation_shape), self.observation_dtype
            ),
            returns=np.zeros(keys.shape),
            lengths=np.zeros(keys.shape, np.int64),
            episodes=np.zeros(keys.shape, np.int64),
        )
        for place in np.ndindex(keys.shape):
            self._reset(state, place)
        return state

    def _reset(self, state: AdapterState, place: tuple[int, ...]) -> None:
        word = streams.bits(state.keys[place][None], state.episodes[place][None], 1)
        observation, _ = state.envs[place].reset(seed=int(word[0, 0] >> np.uint64(33)))
        state.observations[place] = observation
        state.returns[place] = 0.0
        state.lengths[place] = 0

    def restart(
        self,
        state: AdapterState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members' environments at their first start, with new keys."""
        if self._pool is None:
            self._close(state.envs[members])
        copy_rows(state, members, self.init(keys, physics))

    def close(self, state: AdapterState) -> None:
        """Close all environments, which end whatever they hold outside of Python."""
        self._close(state.envs)
        self._close(np.array(self._pool or [], object))

    def _close(self, envs: NDArray[Any]) -> None:
        for env in envs.ravel():
            env.close()

    def begin_episodes(self, state: AdapterState) -> None:
        """Leave every running episode and start the next one."""
        state.episodes += 1
        for place in np.ndindex(state.keys.shape):
            self._reset(state, place)

    def reseed(self, state: AdapterState, members: NDArray[np.int64]) -> None:
        """Give members' running episodes random numbers that follow from their keys.

        Objects that were copied would go on with those of the original. It is
        Gymnasium's generator of the environment, ``np_random``, that is replaced.
        """
        for i in members:
            for place in np.ndindex(state.keys.shape[1:]):
                at = (i, *place)
                words = streams.bits(state.keys[at][None], state.episodes[at][None], 2)
                # the first is the seed of the episode's start
                generator = np.random.default_rng(int(words[0, 1]))
                state.envs[at].unwrapped.np_random = generator

    def _native(self, action: Any) -> Any:
        """An action as the environment itself takes it."""
        space = self._action_space
        if isinstance(space, gym.spaces.Discrete):
            return int(action) + int(space.start)
        return action.astype(space.dtype).reshape(space.shape)

    def step(self, state: AdapterState, actions: NDArray[Any]) -> Transition:
        """Advance every environment by one step, ``state`` in place."""
        shape = state.keys.shape
        observations = np.empty_like(state.observations)
        rewards = np.empty(shape)
        terminated = np.empty(shape, bool)
        done = np.empty(shape, bool)
        for place in np.ndindex(shape):
            result = state.envs[place].step(self._native(actions[place]))
            observations[place], rewards[place], terminated[place], truncated, _ = (
                result
            )
            done[place] = terminated[place] or truncated
        returns, lengths = state.returns + rewards, state.lengths + 1
        state.observations = observations.copy()
        state.returns, state.lengths = returns.copy(), lengths.copy()
        for place in zip(*np.nonzero(done), strict=True):
            state.episodes[place] += 1
            self._reset(state, place)
        return Transition(observations, rewards, terminated, done, returns, lengths)


def needs_box2d(env_id: str) -> bool:
    """Whether Gymnasium makes this id with Box2D, the extra ``box2d``.

    Such environments cannot be saved: see :mod:`dacrl_env.snapshot`.
    """
    spec = gym.registry.get(env_id.rpartition(":")[2])
    entry_point = None if spec is None else spec.entry_point
    return isinstance(entry_point, str) and entry_point.startswith(_BOX2D_ENVS)


def _import_box2d(env_id: str) -> None:
    """Import Box2D before Gymnasium does.

    Its types, made by SWIG, warn in C that they lack an attribute. Where warnings are
    errors nobody there looks at the exception, and the interpreter crashes.

    Raises:
        ImportError: Box2D is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("Box2D")
    except ImportError as error:
        raise ImportError(
            f"inner environment {env_id} needs Box2D: pip install 'dacrl-env[box2d]'"
        ) from error
