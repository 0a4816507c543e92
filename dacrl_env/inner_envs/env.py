"""Compiled environments as any other inner environment: P × N of them, from Python.

Learners that are compiled, too, step them without coming back to Python; they take
`CompiledEnv.env` and `CompiledEnv.tuple_of` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.snapshot import copy_rows
from dacrl_env.inner_envs import (
    Transition,
    acrobot,
    cartpole,
    cartpole_swingup,
    deep_sea,
    dynamics,
    minigrid,
    minigrid_levels,
    minigrid_rooms,
    mountain_car,
    mountain_car_continuous,
    pendulum,
    reversals,
    shift,
    switching,
    two_colours,
)
from dacrl_env.inner_envs.images import is_image_array
from dacrl_env.inner_envs.minatar import (
    asterix,
    breakout,
    freeway,
    seaquest,
    space_invaders,
)
from dacrl_env.inner_envs.minatar.common import SIDE
from dacrl_env.kernels.compiling import entry

Floats = NDArray[np.float64]


@dataclass
class CompiledState:
    """All there is to P × N environments."""

    keys: streams.UInts  # (P, N)
    physics: Floats  # (P, K) physical constants
    variables: Floats  # (P, N, S)
    observations: NDArray[Any]  # (P, N, *observation_shape), current
    returns: Floats  # (P, N) of the running episode
    lengths: NDArray[np.int64]  # (P, N) of the running episode
    episodes: NDArray[np.int64]  # (P, N) begun so far
    lifetime: NDArray[np.int64]  # (P, N) steps taken, in all episodes


class CompiledEnv:
    """P × N environments that move by compiled code, reset automatically.

    Episode ``e`` of an environment starts from the random numbers at ``(key, e)``.

    Args:
        env: the named tuple of an environment, see
            :mod:`~dacrl_env.inner_envs.dynamics`.
        physics: names and default values of its physical constants.
        shape: of an observation; None: ``(features,)``.
        dtype: of an observation.
        bounds: of continuous actions, ``(A,)`` each.
    """

    scales_images = False
    object_bytes = 0

    def __init__(
        self,
        env: Any,
        physics: Mapping[str, float],
        shape: tuple[int, ...] | None = None,
        dtype: type = np.float32,
        bounds: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
    ) -> None:
        self.env = env
        self.physics = physics
        self.observation_shape = (env.features,) if shape is None else shape
        self.observation_dtype: np.dtype[Any] = np.dtype(dtype)
        self.has_images = is_image_array(self.observation_shape, self.observation_dtype)
        self.num_actions: int = env.actions
        self.num_levels: int = getattr(env, "levels", 0)  # to train on; 0: no levels
        self.action_low, self.action_high = (np.array(b, np.float64) for b in bounds)

    def init(
        self,
        keys: streams.UInts,
        physics: Floats,
        lifetime: NDArray[np.int64] | None = None,
    ) -> CompiledState:
        """Environments at the start of their first episode.

        Args:
            keys: ``(P, N)``.
            physics: ``(P, K)`` constants of each member, ordered as ``self.physics``.
            lifetime: ``(P,)``, for evaluations: the constants are, and remain, those
                in force after so many steps of one training environment, and episodes
                begin in levels that are held out. None: a life begins, in whose course
                they may change.
        """
        P, N = keys.shape
        state = CompiledState(
            keys=np.ascontiguousarray(keys, np.uint64).copy(),
            physics=np.array(physics, np.float64, order="C"),
            variables=np.zeros((P, N, self.env.variables)),
            observations=np.zeros(
                (P, N, *self.observation_shape), self.observation_dtype
            ),
            returns=np.zeros((P, N)),
            lengths=np.zeros((P, N), np.int64),
            episodes=np.zeros((P, N), np.int64),
            lifetime=np.zeros((P, N), np.int64),
        )
        if lifetime is not None:
            _fix_physics(lifetime, self.env, self.tuple_of(state), self.room())
        _begin_all(self.env, self.tuple_of(state), self.room())
        if lifetime is not None and self.num_levels:
            _hold_out_all(self.env, self.tuple_of(state))
        self.observe(state)
        return state

    def tuple_of(self, state: CompiledState) -> dynamics.EnvState:
        """The same arrays, as compiled functions take them."""
        fields = dynamics.EnvState._fields
        return dynamics.EnvState._make(getattr(state, name) for name in fields)

    def room(self) -> Floats:
        """Memory for the constants that are in force."""
        return np.zeros(max(len(self.physics), 1))

    def observe(self, state: CompiledState) -> None:
        """Set the observations to what variables say."""
        P, N = state.keys.shape
        seen = np.empty((P, N, self.env.features), np.float32)
        _observe_all(self.env, self.tuple_of(state), seen)
        state.observations[...] = seen.reshape(P, N, *self.observation_shape)

    def restart(
        self,
        state: CompiledState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: Floats,
    ) -> None:
        """Put some members' environments at their first start, with new keys."""
        copy_rows(state, members, self.init(keys, physics))

    def begin_episodes(self, state: CompiledState) -> None:
        """Leave every running episode and start the next one."""
        state.episodes += 1
        _begin_all(self.env, self.tuple_of(state), self.room())
        self.observe(state)

    def step(self, state: CompiledState, actions: NDArray[Any]) -> Transition:
        """Advance every environment by one step, ``state`` in place.

        Args:
            state: changed; ended environments are at their next episode's start.
            actions: ``(P, N)`` numbers of actions, or continuous ``(P, N, A)``.
        """
        P, N = state.keys.shape
        following = np.empty((P, N, self.env.features), np.float32)
        rewards, returns = np.empty((P, N)), np.empty((P, N))
        terminated, done = np.empty((P, N), bool), np.empty((P, N), bool)
        lengths = np.empty((P, N), np.int64)
        given = np.ascontiguousarray(actions, np.float64).reshape(P, N, -1)
        told = (following, rewards, terminated, done, returns, lengths)
        _step_all(given, self.env, self.tuple_of(state), self.room(), *told)
        self.observe(state)
        seen = following.reshape(P, N, *self.observation_shape)
        return Transition(seen.astype(self.observation_dtype, copy=False), *told[1:])

    def reseed(self, state: CompiledState, members: NDArray[np.int64]) -> None:
        """Nothing to do: whatever is drawn follows from the keys."""

    def close(self, state: CompiledState | None = None) -> None:
        """Nothing to do."""


@entry
def _begin_all(env, envs, room):
    """Put all environments at the start of their episodes."""
    P, N = envs.keys.shape
    for p in range(P):
        for n in range(N):
            dynamics.begin_episode(p, n, env, envs, room)


@entry
def _hold_out_all(env, envs):
    """Put all environments at the start of levels that are held out."""
    P, N = envs.keys.shape
    for p in range(P):
        for n in range(N):
            physics = dynamics.physics_of(p, envs)
            variables = dynamics.variables_of(p, n, envs)
            dynamics.hold_out(env, envs.keys[p, n], physics, variables)


@entry
def _fix_physics(lifetime, env, envs, room):
    """Let constants be, and remain, what they are after ``lifetime`` (P,) steps."""
    for p in range(len(lifetime)):
        now = dynamics.in_force(env, dynamics.physics_of(p, envs), lifetime[p], room)
        for k in range(len(now)):
            envs.physics[p, k] = now[k]


@entry
def _observe_all(env, envs, seen):
    """Write what all environments show (P, N, D)."""
    P, N = envs.keys.shape
    for p in range(P):
        for n in range(N):
            dynamics.observe(env, dynamics.variables_of(p, n, envs), seen[p, n])


@entry
def _step_all(
    actions, env, envs, room, following, rewards, terminated, done, returns, lengths
):
    """Step all environments; the rest is as in `Transition`, written to."""
    P, N = envs.keys.shape
    for p in range(P):
        for n in range(N):
            reward, over, cut = dynamics.advance(p, n, actions[p, n], env, envs, room)
            variables = dynamics.variables_of(p, n, envs)
            dynamics.observe(env, variables, following[p, n])
            rewards[p, n], terminated[p, n], done[p, n] = reward, over, over or cut
            returns[p, n], lengths[p, n] = envs.returns[p, n], envs.lengths[p, n]
            if over or cut:
                dynamics.begin_next(p, n, env, envs, room)


# -- those that there are --------------------------------------------------------------


def _classic(module: Any, env: Any) -> CompiledEnv:
    return CompiledEnv(env, module.PHYSICS, bounds=_bounds(module))


def _bounds(module: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return getattr(module, "ACTION_LOW", ()), getattr(module, "ACTION_HIGH", ())


def _shifted(module: Any, env: Any) -> CompiledEnv:
    physics = shift.with_shift(module.PHYSICS)
    return CompiledEnv(shift.shifted(env), physics, bounds=_bounds(module))


def _reversible(module: Any, env: Any) -> CompiledEnv:
    physics = reversals.with_reversals(module.PHYSICS)
    return CompiledEnv(reversals.reversible(env), physics, bounds=_bounds(module))


def _grid(env: Any, module: Any = minigrid) -> CompiledEnv:
    side = math.isqrt(env.features // 3)
    return CompiledEnv(env, module.PHYSICS, (side, side, 3), np.uint8)


def _room(kind: int, size: int) -> CompiledEnv:
    return _grid(minigrid_rooms.room(kind, size))


def _minatar(module: Any, env: Any) -> CompiledEnv:
    shape = SIDE, SIDE, env.features // SIDE**2
    return CompiledEnv(env, module.PHYSICS, shape, np.bool_)


ENVS: dict[str, Callable[[], CompiledEnv]] = {
    "CartPole-v1": lambda: _classic(cartpole, cartpole.CartPole()),
    "Acrobot-v1": lambda: _classic(acrobot, acrobot.Acrobot()),
    "MountainCar-v0": lambda: _classic(mountain_car, mountain_car.MountainCar()),
    "Pendulum-v1": lambda: _classic(pendulum, pendulum.Pendulum()),
    "MountainCarContinuous-v0": lambda: _classic(
        mountain_car_continuous, mountain_car_continuous.MountainCarContinuous()
    ),
    "MiniGrid-Empty-5x5-v0": lambda: _grid(minigrid.empty_5x5()),
    "MiniGrid-DoorKey-5x5-v0": lambda: _grid(minigrid.door_key_5x5()),
    "MiniGrid-Empty-6x6-v0": lambda: _room(minigrid_rooms.EMPTY_ROOM, 6),
    "MiniGrid-Empty-8x8-v0": lambda: _room(minigrid_rooms.EMPTY_ROOM, 8),
    "MiniGrid-Empty-Random-5x5-v0": lambda: _room(minigrid_rooms.EMPTY_RANDOM, 5),
    "MiniGrid-Empty-Random-6x6-v0": lambda: _room(minigrid_rooms.EMPTY_RANDOM, 6),
    "MiniGrid-DoorKey-6x6-v0": lambda: _room(minigrid_rooms.DOOR_KEY, 6),
    "MiniGrid-DoorKey-8x8-v0": lambda: _room(minigrid_rooms.DOOR_KEY, 8),
    "MiniGrid-LavaGapS5-v0": lambda: _room(minigrid_rooms.LAVA_GAP, 5),
    "MiniGrid-LavaGapS6-v0": lambda: _room(minigrid_rooms.LAVA_GAP, 6),
    "MiniGrid-LavaGapS7-v0": lambda: _room(minigrid_rooms.LAVA_GAP, 7),
    "MinAtar/Breakout-v1": lambda: _minatar(breakout, breakout.Breakout()),
    "MinAtar/SpaceInvaders-v1": lambda: _minatar(
        space_invaders, space_invaders.SpaceInvaders()
    ),
    "MinAtar/Asterix-v1": lambda: _minatar(asterix, asterix.Asterix()),
    "MinAtar/Freeway-v1": lambda: _minatar(freeway, freeway.Freeway()),
    "MinAtar/Seaquest-v1": lambda: _minatar(seaquest, seaquest.Seaquest()),
    # no Gymnasium ids: these exist here alone
    "CartPoleSwingup-v0": lambda: _classic(
        cartpole_swingup, cartpole_swingup.CartPoleSwingup()
    ),
    "TwoColours-v0": lambda: _classic(two_colours, two_colours.TwoColours()),
    "SwitchingMDP-v0": lambda: _classic(switching, switching.SwitchingMDP()),
    "FourMDPs-v0": lambda: CompiledEnv(
        switching.SwitchingMDP(), {**switching.PHYSICS, "worlds": 4.0}
    ),
    "TwoMDPs-v0": lambda: CompiledEnv(
        switching.SwitchingMDP(), {**switching.PHYSICS, "worlds": 2.0}
    ),
    "DeepSea-v0": lambda: _classic(deep_sea, deep_sea.DeepSea()),
    "DeepSea10-v0": lambda: _classic(deep_sea, deep_sea.with_room_for(10)),
    "MiniGridLevels-v0": lambda: _grid(
        minigrid_levels.minigrid_levels(), minigrid_levels
    ),
    "CartPoleShift": lambda: _shifted(cartpole, cartpole.CartPole()),
    "PendulumShift": lambda: _shifted(pendulum, pendulum.Pendulum()),
    "CartPoleSwingupShift": lambda: _shifted(
        cartpole_swingup, cartpole_swingup.CartPoleSwingup()
    ),
    "AcrobotReversals": lambda: _reversible(acrobot, acrobot.Acrobot()),
    "MountainCarReversals": lambda: _reversible(
        mountain_car, mountain_car.MountainCar()
    ),
    "PendulumReversals": lambda: _reversible(pendulum, pendulum.Pendulum()),
    "DeepSea10Reversals": lambda: _reversible(deep_sea, deep_sea.with_room_for(10)),
}
