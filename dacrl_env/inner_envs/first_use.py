"""What is checked of an inner environment when a process first uses it.

Runs are reproducible, members independent, and evaluations harmless only if an episode
follows from its seed and its actions. So two objects play a few steps, the first of
them twice from one seed, the other between steps of the first: all three courses must
be the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.isolation import globals_kept
from dacrl_env.core.snapshot import take_rows
from dacrl_env.inner_envs.faults import InnerEnvError

if TYPE_CHECKING:
    from dacrl_env.inner_envs.gymnasium_adapter import AdapterState, GymnasiumAdapter

STEPS = 12  # of each course
# attributes by which wrappers of other packages keep running statistics
_STATISTICS = ("obs_rms", "ret_rms", "return_rms", "rew_rms", "reward_rms", "rms")
# Gymnasium's wrappers that do, and what does the same as a part of the run
_INSTEAD = {
    "NormalizeObservation": "normalize_observations",
    "NormalizeReward": "normalize_rewards",
}
_SWITCH = (
    "Whoever knows that, and can do without runs that repeat, sets stateful=True of "
    "the task (dacrl_env.register_task, or dataclasses.replace of a task)."
)

# courses: observations and what else a step gave
Course = list[tuple[NDArray[Any], ...]]
# what has passed: specification of the registration by id, arguments and switch
_passed: dict[tuple[str, str, bool], tuple[Any, bool]] = {}


def check(adapter: GymnasiumAdapter, stateful: bool) -> bool:
    """Let an environment play, unless this process has done so; changes nothing.

    Args:
        adapter: of the environment.
        stateful: courses may differ, see `Task`; observations and rewards are checked
            all the same.

    Returns:
        Whether its episodes depend on their seeds.

    Raises:
        InnerEnvError: courses differ that should be the same; or what the adapter has
            to say about observations and rewards.
    """
    name = (adapter.env_id, repr(sorted(adapter.kwargs.items())), stateful)
    spec = gym.registry.get(adapter.env_id.rpartition(":")[2])
    if name in _passed and _passed[name][0] is spec:
        return _passed[name][1]
    # users' environments may draw from global generators, and seed them
    with globals_kept():
        draws = _check(adapter, stateful)
    _passed[name] = (spec, draws)
    return draws


def _check(adapter: GymnasiumAdapter, stateful: bool) -> bool:
    keys = streams.bits(np.zeros(3, np.uint64), np.arange(3), 1)
    count = 1 if stateful else 2  # two objects, unless one is enough
    physics = np.tile([*adapter.physics.values()], (count, 1))
    state = adapter.init(np.repeat(keys[:1], count, 0), physics)
    try:
        adapter.check_bounds(state, "at a reset", state.observations)
        actions = _actions(adapter)
        one = take_rows(state, [0])
        first = list(_course(adapter, one, keys[1], actions, bounds=True))
        if stateful:
            return True
        again = list(_course(adapter, one, keys[1], actions))
        fresh, others = [], []
        two = take_rows(state, [1])
        for a, b in zip_longest(
            _course(adapter, two, keys[1], actions),
            _course(adapter, one, keys[2], actions),
        ):
            fresh.append(a)
            others.append(b)
        if not (_same(first, again) and _same(first, fresh)):
            raise InnerEnvError(_refusal(adapter, one, first, again, fresh))
        return not _same(first, others)
    finally:
        adapter.close(state)


def _actions(adapter: GymnasiumAdapter) -> list[NDArray[Any]]:
    """Random actions, each as `GymnasiumAdapter.step` takes them."""
    generator = np.random.default_rng(0)  # not the space's, which others may share
    if adapter.num_actions:
        return list(generator.integers(0, adapter.num_actions, (STEPS, 1, 1)))
    low, high = adapter.action_low, adapter.action_high
    low = np.where(np.isfinite(low), low, np.minimum(high, 0.0) - 1.0)
    high = np.where(np.isfinite(high), high, low + 2.0)
    return list(generator.uniform(low, high, (STEPS, 1, 1, len(low))))


def _course(
    adapter: GymnasiumAdapter,
    state: AdapterState,
    key: streams.UInts,
    actions: list[NDArray[Any]],
    bounds: bool = False,
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Play from a reset on; episodes that end are followed by others."""
    adapter.next_episodes(state, np.array([0]), key[None])
    yield (state.observations.copy(),)
    for k, action in enumerate(actions):
        step = adapter.step(state, action)
        if bounds and k == 0:
            adapter.check_bounds(state, "at the first step", step.observations)
        yield (
            step.observations.copy(),
            step.rewards,
            step.terminated,
            step.done,
            state.observations.copy(),
        )


def _same(one: Course, other: Course) -> bool:
    return _differs(one, other) is None


def _differs(one: Course, other: Course) -> int | None:
    """The first step at which two courses differ; 0 is the reset."""
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        if not all(map(np.array_equal, a, b)):
            return k
    return None


def _refusal(
    adapter: GymnasiumAdapter,
    state: AdapterState,
    first: Course,
    again: Course,
    fresh: Course,
) -> str:
    """What is wrong, what may be the reason, and what to do."""
    name = f"inner environment {adapter.env_id}"
    outlives, differs = _differs(first, again), _differs(first, fresh)
    if outlives is None:
        what = (
            f"two objects of {name}, reset with one seed, part at step {differs}: "
            "something is drawn when an object is made, or all objects share something "
            "(attributes of classes, modules, global random generators)"
        )
    elif differs is None:
        what = (
            f"{name}, reset twice with one seed, plays differently from step "
            f"{outlives} on, while a fresh object repeats the first course: state "
            "outlives reset()"
        )
    else:
        what = (
            f"{name}, reset twice with one seed, plays differently from step "
            f"{outlives} on: state outlives reset(), or random numbers do not follow "
            "from its seed (use self.np_random, after super().reset(seed=seed))"
        )
    keeping = _keeping(state.envs[0, 0])
    sentences = [
        what,
        "Runs would not repeat, and members and evaluations would disturb each other.",
    ]
    if keeping:
        sentences.append(
            f"{', '.join(keeping)} {'keeps' if len(keeping) == 1 else 'keep'} running "
            "statistics over episodes. PPO has normalisation that is part of a run: "
            f"{' and '.join(f'{option}=True' for option in _INSTEAD.values())}; DQN "
            "has none, scale by fixed numbers there (gymnasium.wrappers: "
            "RescaleObservation, TransformObservation, TransformReward)."
        )
    return " ".join([f"{sentences[0]}.", *sentences[1:], _SWITCH])


def _keeping(env: Any) -> list[str]:
    """Names of layers of an environment that are known to keep statistics."""
    found = []
    while env is not None:
        kinds = {kind.__name__ for kind in type(env).__mro__}
        if kinds & set(_INSTEAD) or set(vars(env)) & set(_STATISTICS):
            found.append(type(env).__name__)
        env = env.env if isinstance(env, gym.Wrapper) else None
    return found
