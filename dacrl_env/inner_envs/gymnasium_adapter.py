"""Any registered Gymnasium environment as an inner environment, stepped one by one.

Much slower than batched dynamics, and limited to Box observations and Discrete or Box
actions; for environments that have no batched implementation.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import installed, streams
from dacrl_env.core.blame import RAISED, mark
from dacrl_env.core.snapshot import copy_rows
from dacrl_env.inner_envs import Transition, faults, first_use, objects
from dacrl_env.inner_envs.images import is_image

# objects that play evaluation episodes, at most: as many as the last report of a member
# has, with which the networks of members are seldom asked about few of them
AT_ONCE = 100
# an action beyond this in a space without bounds, and what comes of it, is the work of
# a learner that diverges
_FAR = 1e6
_BOX2D_ENVS = "gymnasium.envs.box2d"
_MINIGRID_NAMES = ("MiniGrid-", "BabyAI-")  # where it has not registered them
_NOTHING = object()  # where a call has not returned

Constants = tuple[float, ...]  # of an environment, (K,)

_warned: set[str] = set()  # ids of which copies draw what their originals draw


@dataclass
class AdapterState:
    """P × N environment objects and what is counted about them."""

    envs: Any  # (P, N) array of `objects.Owned`
    keys: streams.UInts  # (P, N)
    observations: NDArray[Any]  # (P, N, *observation_shape), current
    returns: NDArray[np.float64]  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N)
    episodes: NDArray[np.int64]  # (P, N) begun so far


class GymnasiumAdapter:
    """Inner environments made by ``gymnasium.make``.

    Episode ``e`` of an environment is seeded with bits of ``(key, e)``, so that no two
    episodes share a seed and a run is reproducible. That an episode follows from its
    seed is checked when a process first uses an environment, see
    :mod:`~dacrl_env.inner_envs.first_use`; observations and rewards are checked at
    every step, bounds of observations at the first.

    Objects are closed by `close`, or when nobody has them any more.

    Args:
        env_id: Gymnasium id.
        kwargs: passed to ``gymnasium.make``.
        reuse: let every `init` take over the environment objects of the one before,
            which saves making them; earlier states become invalid.
        stateful: see :class:`~dacrl_env.tasks.Task`.
        numbers: gives arguments of the constructor that instances may change, with the
            values that they have here, once an environment could be made; see
            :func:`~dacrl_env.tasks.constructors.numbers_taken`. They are its `physics`.

    Raises:
        ImportError: an environment that needs Box2D or MiniGrid, without it.
        ValueError: observations that are no Box, or actions that are neither Discrete
            nor Box; here and in `init` and `restart`: constants that make an
            environment of other shapes, or a fraction for a whole number.
        InnerEnvError: state outlives a reset; here and in all methods: what the
            environment gives is not as declared, or not finite.
    """

    scales_images = False
    object_bytes = 10_000  # a guess: nobody knows
    at_once = AT_ONCE

    def __init__(
        self,
        env_id: str,
        kwargs: Mapping[str, Any],
        reuse: bool = False,
        stateful: bool = False,
        numbers: Callable[[], Mapping[str, bool | int | float]] = dict,
    ) -> None:
        self.env_id = env_id
        self.kwargs = dict(kwargs)
        if needs_box2d(env_id):
            _import_box2d(env_id)
        if _is_of_minigrid(env_id):
            installed.require("minigrid", f"inner environment {env_id} needs MiniGrid")
        probe = self._made({})
        observations, actions = probe.observation_space, probe.action_space
        self._close([probe])
        self._numbers = dict(numbers())
        self.physics = {name: float(own) for name, own in self._numbers.items()}
        if not isinstance(observations, gym.spaces.Box) or not isinstance(
            actions, gym.spaces.Discrete | gym.spaces.Box
        ):
            raise ValueError(
                f"inner environment {env_id} has observations {observations} and "
                f"actions {actions}; learners need Box observations and Discrete or "
                f"Box actions{_flattened(observations)}"
            )
        self.observation_shape = observations.shape
        self.observation_dtype = observations.dtype
        self.has_images = is_image(observations)
        self._declared = faults.Declared(observations)
        self._castable = self._declared.castable
        self._action_space = actions
        if isinstance(actions, gym.spaces.Discrete):
            self.num_actions = int(actions.n)
            self._first_action = int(actions.start)
            self.action_low = self.action_high = np.empty(0)
        else:
            self.num_actions = 0
            self.action_low = actions.low.ravel().astype(np.float64)
            self.action_high = actions.high.ravel().astype(np.float64)
        self._pool: dict[Constants, list[objects.Owned]] | None = None
        self._draws = first_use.check(self, stateful)
        if reuse:
            self._pool = {}

    def _make(self, constants: Constants) -> objects.Owned:
        """An environment with some constants; as it is where they are its own."""
        changed = self._arguments(constants)
        env = self._made(changed)
        if changed and not self._fits(env):
            seen, actions = env.observation_space, env.action_space
            self._close([env])
            raise ValueError(
                f"inner environment {self.env_id} made with {changed} has observations "
                f"{seen} and actions {actions}; instances must leave shapes and "
                "actions as they are"
            )
        return env

    def _arguments(self, constants: Constants) -> dict[str, bool | int | float]:
        """Arguments of the constructor that differ from those it has anyway."""
        changed = {}
        for (name, own), value in zip(self._numbers.items(), constants, strict=True):
            if value == own:
                continue
            kind = type(own)
            if kind(value) != value:
                kinds = {bool: "0 or 1", int: "a whole number"}
                raise ValueError(
                    f"{name} of inner environment {self.env_id} must be {kinds[kind]}, "
                    f"got {value:g}"
                )
            changed[name] = kind(value)
        return changed

    def _fits(self, env: objects.Owned) -> bool:
        """Whether an environment is to be seen and acted in as the others."""
        seen = env.observation_space
        return (
            isinstance(seen, gym.spaces.Box)
            and (seen.shape, seen.dtype)
            == (self.observation_shape, self.observation_dtype)
            and env.action_space == self._action_space
        )

    def _made(self, changed: Mapping[str, Any]) -> objects.Owned:
        given = {**self.kwargs, **changed}
        try:
            env = gym.make(self.env_id, disable_env_checker=True, **given)
        except gym.error.Error:  # an unknown id, a missing package
            raise
        except RAISED as error:
            made = f"made with {changed}" if changed else "made"
            mark(error, f"inner environment {self.env_id}, when it is {made}")
            raise
        return objects.owned(env)

    # -- episodes ---------------------------------------------------------------

    def init(
        self,
        keys: streams.UInts,
        physics: NDArray[np.float64],
        lifetime: NDArray[np.int64] | None = None,
    ) -> AdapterState:
        """Environments at the start of their first episode; keys ``(P, N)``.

        Args:
            keys: ``(P, N)``.
            physics: ``(P, K)`` constants of each member, ordered as ``self.physics``.
            lifetime: means nothing here: constants do not change.
        """
        state = AdapterState(
            envs=self._objects(physics, keys.shape[1]),
            keys=keys,
            observations=np.empty(
                (*keys.shape, *self.observation_shape), self.observation_dtype
            ),
            returns=np.zeros(keys.shape),
            lengths=np.zeros(keys.shape, np.int64),
            episodes=np.zeros(keys.shape, np.int64),
        )
        self._reset(state, np.ones(keys.shape, bool))
        return state

    def _objects(self, physics: NDArray[np.float64], N: int) -> NDArray[np.object_]:
        """Environments ``(P, N)`` with constants ``(P, K)``, from the pool if any."""
        pool = {} if self._pool is None else self._pool
        rows = [tuple(row) for row in physics.tolist()]
        if sum(map(len, pool.values())) > AT_ONCE:
            for other in pool.keys() - set(rows):
                del pool[other]  # whoever has the last one closes it
        envs, taken = np.empty((len(rows), N), object), Counter[Constants]()
        for place in np.ndindex(envs.shape):
            row = rows[place[0]]
            ready = pool.setdefault(row, [])
            if taken[row] == len(ready):
                ready.append(self._make(row))
            envs[place] = ready[taken[row]]
            taken[row] += 1
        return envs

    def _reset(self, state: AdapterState, which: NDArray[np.bool_]) -> None:
        """Begin episodes, in the environments of a mask ``(P, N)``."""
        state.returns[which] = 0.0
        state.lengths[which] = 0
        seeds = _seeds(state.keys[which], state.episodes[which])
        for seed, place in zip(
            seeds, zip(*np.nonzero(which), strict=True), strict=True
        ):
            result: Any = _NOTHING
            try:
                result = state.envs[place].env.reset(seed=seed)
                observation, _ = result
                state.observations[place] = self._declared.taken(observation)
            except RAISED as error:
                fault = self._fault(
                    error,
                    result,
                    "reset() must return observation and info",
                    f"at the reset with seed {seed}",
                )
                if fault is None:
                    raise
                raise fault from None
            begun = state.observations[place]
            if not faults.all_finite(begun):
                what = faults.not_finite(begun[None], np.zeros(1))
                if what is not None:
                    when = f"at the reset with seed {seed}"
                    raise faults.named(self.env_id, what[1], when)

    def restart(
        self,
        state: AdapterState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members' environments at their first start, with new keys."""
        if self._pool is None:
            self._close(state.envs[members].ravel())
        copy_rows(state, members, self.init(keys, physics))

    def next_episodes(
        self, state: AdapterState, members: NDArray[np.int64], keys: streams.UInts
    ) -> None:
        """Let some members' environments play episodes of other keys.

        They keep their constants.

        Args:
            state: changed in place.
            members: ``(m,)``.
            keys: ``(m, N)``.
        """
        state.keys[members] = keys
        state.episodes[members] = 0
        which = np.zeros(state.keys.shape, bool)
        which[members] = True
        self._reset(state, which)

    def begin_episodes(self, state: AdapterState) -> None:
        """Leave every running episode and start the next one."""
        state.episodes += 1
        self._reset(state, np.ones(state.keys.shape, bool))

    def step(self, state: AdapterState, actions: NDArray[Any]) -> Transition:
        """Advance every environment by one step, ``state`` in place."""
        result = self.advance(state, actions)
        if np.count_nonzero(result.done):
            # the result keeps what it has
            state.observations = state.observations.copy()
            state.returns, state.lengths = state.returns.copy(), state.lengths.copy()
            state.episodes += result.done
            self._reset(state, result.done)
        return result

    def advance(self, state: AdapterState, actions: NDArray[Any]) -> Transition:
        """`step`, after which episodes that have ended stay so."""
        shape, declared = state.keys.shape, self.observation_shape
        envs = state.envs.ravel()
        observations = np.empty((*shape, *declared), self.observation_dtype)
        rewards = np.empty(shape)
        terminated, done = np.empty(shape, bool), np.empty(shape, bool)
        # views, one place after the other
        each = observations.reshape(len(envs), *declared)
        earned, over, left = rewards.ravel(), terminated.ravel(), done.ravel()
        dtype, castable = self.observation_dtype, self._castable
        numbers, array = faults.NUMBERS, np.ndarray
        k: int = 0
        result: Any = _NOTHING
        try:
            for k, (env, action) in enumerate(
                zip(envs, self._native(actions), strict=True)
            ):
                result = _NOTHING
                result = env.env.step(action)
                seen, reward, ended, truncated, _ = result
                if (
                    type(seen) is not array
                    or seen.shape != declared
                    or (seen.dtype is not dtype and seen.dtype not in castable)
                ):
                    seen = self._declared.taken(seen)
                if type(reward) not in numbers:
                    reward = faults.number(reward)
                each[k], earned[k] = seen, reward
                over[k], left[k] = ended, ended or truncated
        except RAISED as error:
            fault = self._fault(
                error,
                result,
                "step() must return observation, reward, terminated, truncated and "
                "info",
                self._moment(state, k),
            )
            if fault is None:
                raise
            raise fault from None
        returns, lengths = state.returns + rewards, state.lengths + 1
        if not (faults.all_finite(earned) and faults.all_finite(observations)):
            self._check_finite(state, actions, each, earned)
        state.observations, state.returns, state.lengths = (
            observations,
            returns,
            lengths,
        )
        return Transition(observations, rewards, terminated, done, returns, lengths)

    def _native(self, actions: NDArray[Any]) -> Iterable[Any]:
        """Actions as the environments themselves take them, one after the other."""
        space = self._action_space
        if isinstance(space, gym.spaces.Discrete):
            numbers = actions.ravel()
            if self._first_action:
                numbers = numbers + self._first_action
            dtype = space.dtype
            return numbers if numbers.dtype == dtype else numbers.astype(dtype)
        native = actions.astype(space.dtype).reshape(-1, *space.shape)
        # numbers of a space of shape () remain arrays
        return native if space.shape else [native[k, ...] for k in range(len(native))]

    # -- faults -----------------------------------------------------------------

    def _moment(self, state: AdapterState, k: int) -> str:
        """When the k-th environment takes its next step, for messages."""
        place = np.unravel_index(k, state.keys.shape)
        (seed,) = _seeds(state.keys[place][None], state.episodes[place][None])
        return f"at step {state.lengths[place] + 1} of the episode with seed {seed}"

    def _fault(
        self, error: BaseException, result: Any, wanted: str, when: str
    ) -> faults.InnerEnvError | None:
        """What to raise for an error; None: the environment's own, which is marked.

        Args:
            error: that was caught.
            result: of the call of the environment, if it returned.
            wanted: what it should have returned.
            when: it was called.
        """
        if isinstance(error, faults.Fault):
            return faults.named(self.env_id, error, when)
        if result is not _NOTHING:
            given = f"{faults.shown(result)}, but {wanted}"
            return faults.named(self.env_id, given, when)
        mark(error, f"inner environment {self.env_id}, {when}")
        return None

    def _check_finite(
        self,
        state: AdapterState,
        actions: NDArray[Any],
        observations: NDArray[Any],
        rewards: NDArray[np.float64],
    ) -> None:
        """Raise an InnerEnvError for values that are not finite.

        Observations ``(n, …)`` and rewards ``(n,)`` are of one environment after the
        other, actions ``(P, N, …)``. Where actions have no bounds, a learner that
        diverges takes environments as far as numbers go; what comes of that is its own
        failure.
        """
        n = len(rewards)
        excused = np.zeros(n, bool)
        if not self.num_actions:
            given = np.abs(actions.reshape(n, -1))
            before = np.abs(state.observations.reshape(n, -1))
            bounded = np.isfinite([self.action_low, self.action_high]).all()
            far = ~(given <= _FAR).all(1) | ~(before <= _FAR).all(1)
            excused = far if not bounded else ~np.isfinite(given).all(1)
        kept = np.flatnonzero(~excused)
        bad = faults.not_finite(observations[kept], rewards[kept])
        if bad is not None:
            k, fault = bad
            raise faults.named(self.env_id, fault, self._moment(state, kept[k]))

    def check_bounds(
        self, state: AdapterState, when: str, observations: NDArray[Any]
    ) -> None:
        """Raise an InnerEnvError for observations ``(P, N, …)`` beyond their bounds."""
        for observation in observations.reshape(-1, *self.observation_shape):
            try:
                self._declared.check_bounds(observation)
            except faults.Fault as fault:
                raise faults.named(self.env_id, fault, when) from None

    # -- objects ----------------------------------------------------------------

    def close(self, state: AdapterState | None = None) -> None:
        """Close environments, which end whatever they hold outside of Python.

        Args:
            state: whose environments are closed, beside those kept for the next `init`.
        """
        envs = [] if state is None else list(state.envs.ravel())
        pool, self._pool = self._pool, None if self._pool is None else {}
        self._close([*envs, *itertools.chain(*(pool or {}).values())])

    def _close(self, envs: Any) -> None:
        """Close all of them, also if that fails for some."""
        failure: BaseException | None = None
        for env in envs:
            try:
                env.close()
            except RAISED as error:
                mark(error, f"inner environment {self.env_id}, close()")
                failure = failure or error
        if failure is not None:
            raise failure

    def reseed(self, state: AdapterState, members: NDArray[np.int64]) -> None:
        """Give members' running episodes random numbers that follow from their keys.

        Objects that were copied would go on with those of the original. All generators
        that are found in them are seeded anew, see `objects.reseed`. Where there are
        none although episodes depend on their seeds, a warning says so, once.
        """
        for i in members:
            for place in np.ndindex(state.keys.shape[1:]):
                at = (i, *place)
                words = streams.bits(state.keys[at][None], state.episodes[at][None], 2)
                # the first is the seed of the episode's start
                found = objects.reseed(state.envs[at], int(words[0, 1]))
                if self._draws and not found and self.env_id not in _warned:
                    _warned.add(self.env_id)
                    warnings.warn(
                        f"copies of inner environment {self.env_id} may draw the same "
                        "random numbers as their originals until the episode ends: no "
                        "generator was found in the object (use self.np_random)",
                        RuntimeWarning,
                        stacklevel=2,
                    )


def _seeds(keys: streams.UInts, episodes: NDArray[np.int64]) -> list[int]:
    """What the episodes ``(n,)`` of environments with some keys ``(n,)`` begin from."""
    words = streams.bits(keys, episodes, 1)[:, 0]
    seeds: list[int] = (words >> np.uint64(33)).tolist()
    return seeds


def _flattened(observations: gym.Space[Any]) -> str:
    """What makes a Box of observations that are none, for a message."""
    if isinstance(observations, gym.spaces.Box) or not observations.is_np_flattenable:
        return ""
    return (
        "; register_task(..., wrappers=[gymnasium.wrappers.FlattenObservation]) makes "
        "a Box of these"
    )


def needs_box2d(env_id: str) -> bool:
    """Whether Gymnasium makes this id with Box2D, the extra ``box2d``.

    Such environments cannot be saved: see :mod:`dacrl_env.core.snapshot`.
    """
    spec = gym.registry.get(env_id.rpartition(":")[2])
    entry_point = None if spec is None else spec.entry_point
    return isinstance(entry_point, str) and entry_point.startswith(_BOX2D_ENVS)


def _is_of_minigrid(env_id: str) -> bool:
    """Whether Gymnasium makes this id with MiniGrid, the extra ``minigrid``."""
    module, _, name = env_id.rpartition(":")
    spec = gym.registry.get(name)
    if spec is None:
        return module == "minigrid" or name.startswith(_MINIGRID_NAMES)
    entry_point = spec.entry_point
    return isinstance(entry_point, str) and entry_point.startswith("minigrid.")


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
        needed = f"inner environment {env_id} needs Box2D"
        raise installed.missing("box2d", needed) from error
