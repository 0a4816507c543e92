"""EnvPool's C++ environments as inner environments, a whole population in one pool.

J. Weng et al., "EnvPool: A Highly Parallel Reinforcement Learning Environment
Execution Engine", NeurIPS 2022 Datasets and Benchmarks (arXiv 2206.10558).

What EnvPool cannot do, and what follows from it here:

- It cannot save an environment: ``snapshot()`` and ``fork`` raise
  ``SnapshotNotSupported``; ``snapshot(exact=False)`` keeps the learner, and a restored
  population begins new inner episodes.
- It takes seeds when a pool is made, and never again. So the first episode of an
  environment starts from its own seed and later ones from what its generator then
  gives: a run depends on its own keys and actions alone, but an episode in the middle
  of one cannot be repeated by itself. New keys need a new pool, at every `init` (an
  evaluation), `restart` and `begin_episodes`. That costs 10 to 60 µs an environment for
  CartPole, LunarLander and MiniGrid, 1.2 ms for MuJoCo's Ant, and 80 ms for Atari.
- Its flags cannot tell an episode that terminates with its last allowed step from one
  that ran out of time. Both count as truncated.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import installed, streams
from dacrl_env.core.snapshot import copy_rows
from dacrl_env.inner_envs import Transition, faults
from dacrl_env.inner_envs.images import is_image

RESERVED = (
    "num_envs",
    "batch_size",
    "max_num_players",
    "seed",
    "env_seed",
    "env_type",
    "gym_reset_return_info",
)  # arguments of a pool that are set here
OBSERVATION_KEY = "observation_key"


class Place:
    """Where one member's environments are: successive numbers of a pool.

    Args:
        pool: made by EnvPool; it goes with the last place that names it.
        first: number of the member's first environment.
    """

    __slots__ = ("first", "pool")

    def __init__(self, pool: Any, first: int) -> None:
        self.pool = pool
        self.first = first

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise TypeError("EnvPool cannot save environments")


@dataclass
class EnvPoolState:
    """P × N environments of some pools and what is counted about them."""

    places: Any  # (P,) array of `Place` objects
    keys: streams.UInts  # (P, N)
    observations: NDArray[Any]  # (P, N, *observation_shape), current
    returns: NDArray[np.float64]  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N)
    episodes: NDArray[np.int64]  # (P, N) begun so far


class EnvPoolAdapter:
    """Inner environments made by ``envpool.make``.

    One pool serves all members that started together, which is the whole population
    unless some of them ended early; every pool has one thread by default.

    Args:
        env_id: of EnvPool, see ``envpool.list_all_envs()``.
        kwargs: passed to ``envpool.make``, such as ``num_threads`` or
            ``max_episode_steps``. Where observations are a Dict, ``observation_key``
            names the one to use, as in ``{"observation_key": "image"}`` for MiniGrid.

    Raises:
        ImportError: EnvPool is not installed.
        ValueError: an id or argument that EnvPool does not know or that is set here,
            observations that are no Box, actions that are neither Discrete nor Box, or
            several players.
        InnerEnvError: in all methods: an observation or reward that is not finite.
    """

    physics: Mapping[str, float] = {}
    scales_images = False
    object_bytes = 10_000  # a guess: nobody knows

    def __init__(self, env_id: str, kwargs: Mapping[str, Any]) -> None:
        try:
            import envpool
        except ImportError as error:
            needed = f"inner environment {env_id} with backend 'envpool' needs EnvPool"
            raise installed.missing("envpool", needed) from error
        self.env_id = env_id
        self.kwargs = {"num_threads": 1, **kwargs}
        self._key = self.kwargs.pop(OBSERVATION_KEY, None)
        self._make = envpool.make
        spec = _spec(envpool, env_id, self.kwargs)
        if spec.config.max_num_players != 1:
            raise ValueError(
                f"inner environment {env_id} has {spec.config.max_num_players} players;"
                " learners need one"
            )
        with _quiet_spaces():
            observations: Any = spec.gymnasium_observation_space
            actions: Any = spec.gymnasium_action_space
        observations = self._select(observations)
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
        self.has_images = is_image(observations)
        self._action_space = actions
        if isinstance(actions, gym.spaces.Discrete):
            self.num_actions = int(actions.n)
            self.action_low = self.action_high = np.empty(0)
        else:
            self.num_actions = 0
            self.action_low = actions.low.ravel().astype(np.float64)
            self.action_high = actions.high.ravel().astype(np.float64)

    def _select(self, space: Any) -> Any:
        """The space of the observations that are used.

        Raises:
            ValueError: Dict observations of which none is chosen, or a wrong choice.
        """
        if not isinstance(space, gym.spaces.Dict):
            if self._key is not None:
                raise ValueError(
                    f"{OBSERVATION_KEY} {self._key!r} was given, but inner environment "
                    f"{self.env_id} has observations {space}"
                )
            return space
        if self._key not in space.spaces:
            boxes = [k for k, s in space.items() if isinstance(s, gym.spaces.Box)]
            raise ValueError(
                f"inner environment {self.env_id} has observations {space}; learners "
                f"need one Box: choose it by inner_env_kwargs={{{OBSERVATION_KEY!r}: "
                f"...}}, got {self._key!r}, valid: {', '.join(boxes)}"
            )
        return space[self._key]

    def init(
        self,
        keys: streams.UInts,
        physics: NDArray[np.float64],
        lifetime: NDArray[np.int64] | None = None,
    ) -> EnvPoolState:
        """Environments at the start of their first episode; keys ``(P, N)``.

        There are no constants, so ``physics`` and ``lifetime`` mean nothing here.
        """
        episodes = np.zeros(keys.shape, np.int64)
        places, observations = self._open(keys, episodes)
        return EnvPoolState(
            places=places,
            keys=keys,
            observations=observations,
            returns=np.zeros(keys.shape),
            lengths=np.zeros(keys.shape, np.int64),
            episodes=episodes,
        )

    def _open(
        self, keys: streams.UInts, episodes: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """A new pool: places ``(P,)`` in it and first observations ``(P, N, …)``.

        Environments are seeded with bits of ``(key, episode)``.
        """
        P, N = keys.shape
        words = streams.bits(keys, episodes, 1)[..., 0]
        with _quiet_spaces():  # which a pool makes when it is first used
            pool = self._make(
                self.env_id,
                env_type="gymnasium",
                num_envs=keys.size,
                seed=(words >> np.uint64(33)).ravel().tolist(),
                **self.kwargs,
            )
            observations, _ = pool.reset()
        places = np.empty(P, object)
        for i in range(P):
            places[i] = Place(pool, i * N)
        begun = self._of(observations).reshape(P, N, *self.observation_shape)
        self._check_finite(begun, np.zeros((P, N)), "at a reset")
        return places, begun

    def _check_finite(
        self, observations: NDArray[Any], rewards: NDArray[np.float64], when: str
    ) -> None:
        """Raise an InnerEnvError for values ``(P, N, …)`` that are not finite."""
        if faults.all_finite(rewards) and faults.all_finite(observations):
            return
        each = observations.reshape(rewards.size, *self.observation_shape)
        bad = faults.not_finite(each, rewards.ravel())
        if bad is not None:
            raise faults.named(self.env_id, bad[1], when)

    def _of(self, observations: Any) -> NDArray[Any]:
        chosen: NDArray[Any] = (
            observations if self._key is None else observations[self._key]
        )
        return chosen

    def restart(
        self,
        state: EnvPoolState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members' environments at their first start, with new keys.

        They move to a pool of their own; the others' goes on.
        """
        copy_rows(state, members, self.init(keys, physics))

    def begin_episodes(self, state: EnvPoolState) -> None:
        """Leave every running episode and start the next one.

        From keys and episode numbers alone, so that all runs continue alike that are
        restored from one snapshot, wherever their environments were before.
        """
        state.episodes += 1
        state.places[...], state.observations = self._open(state.keys, state.episodes)
        state.returns[...] = 0.0
        state.lengths[...] = 0

    def _native(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions ``(m, N)`` or ``(m, N, A)`` as a pool takes them: ``(m × N, …)``."""
        space = self._action_space
        if isinstance(space, gym.spaces.Discrete):
            return actions.ravel() + int(space.start)
        return actions.astype(space.dtype).reshape(-1, *space.shape)

    def step(self, state: EnvPoolState, actions: NDArray[Any]) -> Transition:
        """Advance every environment by one step, ``state`` in place.

        A pool left to itself would reset ended environments by the next step, and give
        that back as if it were one. They are reset at once instead.
        """
        P, N = state.keys.shape
        observations = np.empty_like(state.observations)
        rewards = np.empty((P, N))
        terminated = np.empty((P, N), bool)
        done = np.empty((P, N), bool)
        parts = list(_by_pool(state.places, N))
        for pool, members, numbers in parts:
            pool.send(self._native(actions[members]), numbers)
        for pool, members, _ in parts:
            seen, reward, ended, timed_out, _ = pool.recv()
            shape = len(members), N
            observations[members] = self._of(seen).reshape(
                *shape, *self.observation_shape
            )
            rewards[members] = reward.reshape(shape)
            terminated[members] = ended.reshape(shape)
            done[members] = (ended | timed_out).reshape(shape)
        returns, lengths = state.returns + rewards, state.lengths + 1
        self._check_finite(observations, rewards, "at a step")
        result = Transition(observations, rewards, terminated, done, returns, lengths)
        if done.any():
            # the result keeps what it has
            observations, returns = observations.copy(), returns.copy()
            lengths = lengths.copy()
            for pool, members, numbers in parts:
                i, j = np.nonzero(done[members])
                if len(i):
                    fresh, _ = pool.reset(numbers.reshape(-1, N)[i, j])
                    observations[members[i], j] = self._of(fresh)
            state.episodes += done
            returns[done] = 0.0
            lengths[done] = 0
        state.observations = observations
        state.returns, state.lengths = returns, lengths
        return result

    def reseed(self, state: EnvPoolState, members: NDArray[np.int64]) -> None:
        """Not possible: a pool takes its seeds when it is made."""

    def close(self, state: EnvPoolState | None = None) -> None:
        """Pools end with the last place that names them."""


def _by_pool(
    places: NDArray[Any], N: int
) -> Iterator[tuple[Any, NDArray[np.int64], NDArray[np.int32]]]:
    """Every pool with its members ``(m,)`` and their environments ``(m × N,)``."""
    pools: dict[int, Any] = {}
    members: dict[int, list[int]] = {}
    for i, place in enumerate(places):
        pools[id(place.pool)] = place.pool
        members.setdefault(id(place.pool), []).append(i)
    for key, pool in pools.items():
        first = np.array([places[i].first for i in members[key]])
        numbers = (first[:, None] + np.arange(N)).ravel()
        yield pool, np.array(members[key]), numbers.astype(np.int32)


def _spec(envpool: Any, env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """EnvPool's description of an environment.

    Raises:
        ValueError: it does not know the id or an argument, or the argument is set here.
    """
    known = envpool.list_all_envs()
    if env_id not in known:
        near = difflib.get_close_matches(env_id, known) or known[:3]
        raise ValueError(
            f"EnvPool has no environment {env_id!r}; near: {', '.join(near)}; all: "
            "envpool.list_all_envs()"
        )
    fixed = [name for name in kwargs if name in RESERVED]
    if fixed:
        raise ValueError(
            f"{', '.join(fixed)} of {env_id} cannot be given: the population sets it"
        )
    try:
        return envpool.make_spec(env_id, **kwargs)
    except TypeError as error:
        fields = envpool.make_spec(env_id).config._fields
        valid = [name for name in fields if name not in RESERVED]
        raise ValueError(
            f"EnvPool cannot make {env_id} ({error}); valid arguments: "
            f"{', '.join(valid)}, {OBSERVATION_KEY}"
        ) from error


@contextmanager
def _quiet_spaces() -> Iterator[None]:
    """EnvPool's bounds are double precision, of which Gymnasium warns each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*precision lowered by casting")
        yield
