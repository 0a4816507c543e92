"""What tests of compiled inner environments have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.inner_envs import dynamics
from dacrl_env.inner_envs.env import ENVS, CompiledEnv, CompiledState
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.random_numbers import draw
from dacrl_env.kernels.views import vector

# those that change their physics have no original; they are tested by themselves, and
# so are levels, whose episodes have different limits
IDS = [n for n in ENVS if not n.endswith(("Shift", "Reversals", "Levels-v0"))]
GRIDS = ["MiniGrid-Empty-5x5-v0", "MiniGrid-DoorKey-5x5-v0"]  # that are tables
ROOMS = [name for name in IDS if name.startswith("MiniGrid") and name not in GRIDS]
GAMES = [env_id for env_id in IDS if env_id.startswith("MinAtar")]
# of dm_control; it is compared with MuJoCo in a file of its own
SWINGUP = "CartPoleSwingup-v0"
# described in papers alone, or by packages that are not installed; each is compared
# with plain Python in a file of its own
BY_RULES = [
    "TwoColours-v0",
    "SwitchingMDP-v0",
    "FourMDPs-v0",
    "TwoMDPs-v0",
    "DeepSea-v0",
    "DeepSea10-v0",
]
CLASSIC = [
    env_id
    for env_id in IDS
    if env_id not in (*GRIDS, *ROOMS, *GAMES, SWINGUP, *BY_RULES)
]

# one of every kind; tests of the others are slow ones
FEW = ("CartPole-v1", "Pendulum-v1", GRIDS[0], "MinAtar/Breakout-v1", "DeepSea-v0")

STEPS = 2**62  # where the draws of steps begin


def keys(P: int, N: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (P, N), np.uint64)


def constants(env: Any, P: int, **changed: Any) -> NDArray[np.float64]:
    """Physics ``(P, K)``; changed ones are numbers or one per member."""
    columns = [np.full(P, changed.pop(k, v), float) for k, v in env.physics.items()]
    assert not changed
    return np.stack(columns, -1) if columns else np.zeros((P, 0))


def start(
    env_id: str, P: int, N: int, **changed: Any
) -> tuple[CompiledEnv, CompiledState]:
    env = ENVS[env_id]()
    return env, env.init(keys(P, N), constants(env, P, **changed))


def drawn(key: np.uint64, counter: int, lanes: int) -> list[int]:
    """Words of 64 random bits at an address, as plain numbers."""
    at = np.array([counter], np.int64)
    return [int(w) for w in streams.bits(np.array([key]), at, lanes)[0]]


def below(word: int, high: int) -> int:
    """The integer in [0, high) that a word stands for."""
    return ((word >> 32) * high) >> 32


def random_actions(env: Any, rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    if env.num_actions:
        return rng.integers(0, env.num_actions, shape)
    # some of them beyond the bounds
    size = (*shape, len(env.action_low))
    return 1.5 * rng.uniform(env.action_low, env.action_high, size)


def moved(
    env: CompiledEnv,
    variables: NDArray[np.float64],
    actions: NDArray[Any],
    physics: NDArray[np.float64],
    keys: NDArray[np.uint64] | None = None,
    lifetime: NDArray[np.int64] | None = None,
) -> tuple[NDArray[Any], ...]:
    """One step from each of some states.

    Args:
        env: environment.
        variables: ``(n, S)``; not changed.
        actions: ``(n,)`` or ``(n, A)``.
        physics: ``(n, K)`` in force.
        keys: ``(n,)`` of the random numbers; None: zeros.
        lifetime: ``(n,)`` steps taken before; None: one after the other.

    Returns:
        Variables ``(n, S)`` after it, observations ``(n, *observation_shape)``,
        rewards ``(n,)`` and termination ``(n,)``.
    """
    n = len(variables)
    after = np.array(variables, np.float64, order="C")
    seen = np.zeros((n, env.env.features), np.float32)
    rewards, terminated = np.zeros(n), np.zeros(n, bool)
    given = np.ascontiguousarray(actions, np.float64).reshape(n, -1)
    keys = np.zeros(n, np.uint64) if keys is None else np.ascontiguousarray(keys)
    steps = STEPS + (np.arange(n) if lifetime is None else np.array(lifetime))
    constants, told = np.ascontiguousarray(physics), (seen, rewards, terminated)
    _move(after, given, constants, keys, steps, env.env, *told)
    shown = seen.astype(env.observation_dtype).reshape(n, *env.observation_shape)
    return after, shown, rewards, terminated


@entry
def _move(variables, actions, physics, keys, steps, env, seen, rewards, terminated):
    S, K = variables.shape[1], physics.shape[1]
    for k in range(len(variables)):
        one, given = vector(variables, k * S, S), vector(physics, k * K, K)
        result = dynamics.step(env, one, actions[k], given, draw(keys[k], steps[k]))
        rewards[k], terminated[k] = result
        dynamics.observe(env, one, seen[k])
