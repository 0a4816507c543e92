"""Evaluation episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.snapshot import take_rows
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.faults import InnerEnvError

Act = Callable[[NDArray[Any]], NDArray[Any]]
LONGEST = 100_000  # steps of an evaluation episode before it is taken for endless
_WORTH_IT = 0.75  # members are left out once no more than this share of them goes on


def play(
    policy: Callable[[NDArray[np.int64]], Act],
    env: InnerEnv,
    keys: NDArray[np.uint64],
    physics: NDArray[np.float64],
    lifetime: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns ``(m, E)`` of one episode per environment, and steps ``(m,)``.

    Members whose episodes are all over are left out of the rest. Single episodes are
    not: how many observations a member's network is asked about decides its last bit.
    Where environments are objects, few of them play all episodes in turns.

    Args:
        policy: gives, for rows of the members, what gives their actions ``(r, E)`` or
            ``(r, E, A)`` for observations ``(r, E, …)``.
        env: makes the environments; they belong to this call.
        keys: ``(m, E)``.
        physics: ``(m, K)``.
        lifetime: ``(m,)`` steps that a training environment has taken, where physics
            change in the course of training.

    Raises:
        InnerEnvError: an episode does not end.
    """
    at_once = getattr(env, "at_once", None)
    if at_once is not None:
        return _play_in_turns(policy, env, keys, physics, at_once)
    state = env.init(keys, physics, lifetime)
    returns, steps = np.zeros(keys.shape), np.zeros(len(keys), np.int64)
    rows, running = np.arange(len(keys)), np.ones(keys.shape, bool)
    act = policy(rows)
    for _ in range(LONGEST):
        step = env.step(state, act(state.observations))
        steps[rows] += running.sum(1)
        over = running & step.done
        if not over.any():
            continue
        members, episodes = np.nonzero(over)
        returns[rows[members], episodes] = step.returns[over]
        running &= ~step.done
        on = running.any(1)
        if not on.any():
            return returns, steps
        if on.sum() <= _WORTH_IT * len(rows):
            rows, running, state = rows[on], running[on], take_rows(state, on)
            act = policy(rows)
    raise _endless(env)


def _play_in_turns(
    policy: Callable[[NDArray[np.int64]], Act],
    env: Any,
    keys: NDArray[np.uint64],
    physics: NDArray[np.float64],
    at_once: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """`play`, with no more than ``at_once`` environment objects.

    Members of the same constants follow each other, as many at a time as find room. An
    action depends on where its observation stands among those of its member, but not on
    what the others are: returns are those of episodes that are all played at once.
    """
    m, E = keys.shape
    returns, steps = np.zeros(keys.shape), np.zeros(m, np.int64)
    together = max(1, at_once // E)
    alike: dict[bytes, list[int]] = {}
    for i in range(m):
        alike.setdefault(physics[i].tobytes(), []).append(i)
    for members in alike.values():
        for first in range(0, len(members), together):
            part = np.array(members[first : first + together])
            constants = physics[part[0]]
            returns[part], steps[part] = _turns(
                policy(part), env, keys[part], constants, at_once
            )
    return returns, steps


def _turns(
    act: Act,
    env: Any,
    keys: NDArray[np.uint64],
    constants: NDArray[np.float64],
    at_once: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Play episodes ``(r, E)``; the next one takes over the object of one that ended.

    Args:
        act: of r members.
        env: a :class:`~dacrl_env.inner_envs.gymnasium_adapter.GymnasiumAdapter`.
        keys: ``(r, E)``.
        constants: ``(K,)`` of all of them.
        at_once: objects, at most.

    Returns:
        Returns ``(r, E)`` and steps ``(r,)``.
    """
    returns, steps = np.zeros(keys.shape), np.zeros(len(keys), np.int64)
    places = np.argwhere(np.ones(keys.shape, bool))
    under_way, waiting = places[:at_once], places[at_once:]
    seen = np.zeros((*keys.shape, *env.observation_shape), env.observation_dtype)
    rows, columns = under_way.T
    state = env.init(keys[rows, columns][:, None], np.tile(constants, (len(rows), 1)))
    while len(under_way):
        rows, columns = under_way.T
        seen[rows, columns] = state.observations[:, 0]
        step = env.advance(state, act(seen)[rows, columns][:, None])
        steps += np.bincount(rows, minlength=len(steps))
        over = np.flatnonzero(step.done)
        if len(over):
            returns[rows[over], columns[over]] = step.returns[over, 0]
            freed, ended = over[: len(waiting)], over[len(waiting) :]
            if len(freed):
                under_way[freed], waiting = waiting[: len(freed)], waiting[len(freed) :]
                fresh = keys[tuple(under_way[freed].T)]
                env.next_episodes(state, freed, fresh[:, None])
            if len(ended):
                on = np.ones(len(under_way), bool)
                on[ended] = False
                under_way, state = under_way[on], take_rows(state, on)
        if len(under_way) and state.lengths.max() >= LONGEST:
            raise _endless(env)
    return returns, steps


def _endless(env: Any) -> InnerEnvError:
    name = getattr(env, "env_id", None)
    return InnerEnvError(
        f"an evaluation episode has not ended after {LONGEST:,} steps; give the inner "
        f"environment{'' if name is None else f' {name}'} a time limit: "
        "max_episode_steps in gymnasium.register, or in the task's inner_env_kwargs"
    )
