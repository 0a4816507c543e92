"""What has an algorithm's functions called: members that train, and that are evaluated.

An algorithm is a file with these compiled functions; which file is meant follows from
the type of ``run``, when a driver is compiled. Each is for member p, whose place in a
rollout is r, at step t of the rollout:

- ``act(p, r, t, run, memory)`` writes actions for ``memory.seen`` (N, D) to
  ``memory.actions`` (N, A);
- ``record(p, r, n, t, reward, terminated, done, run, memory)`` takes note of what a
  step of environment n gave; what is seen after it is in ``memory.following`` (N, D),
  also where an episode ended;
- ``learn(p, r, t, run, memory)`` does what is due after a step of all environments,
  with what is to be acted on next in ``memory.seen``;
- ``best(p, run, memory)`` writes the best action for the first row of ``memory.seen``
  to the first row of ``memory.actions``.

Compiled environments are stepped by `train` and `play`. Those that Python steps are
served by `act_all`, `learn_all` and `best_all`, with the same functions.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from dacrl_env.inner_envs.compiled.dynamics import (
    advance,
    begin_evaluation,
    begin_next,
    observe,
    variables_of,
)
from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.views import borrowed, vector

EPISODES, RETURNS, LENGTHS = range(3)


class Interval(NamedTuple):
    """What is taken note of between two decisions; no part of a run's state."""

    sums: NDArray[np.float64]  # (P, k) over gradient steps, named by the algorithm
    finished: NDArray[np.float64]  # (P, 3) episodes, the sums of returns and lengths
    start: NDArray[np.float32]  # (P, row) parameters at its beginning


def act(p, r, t, run, memory):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def record(p, r, n, t, reward, terminated, done, run, memory):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def learn(p, r, t, run, memory):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def best(p, run, memory):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def _of(run: Any, name: str) -> Any:
    return getattr(sys.modules[run.instance_class.__module__], name)


@overload(act)
def _act(p, r, t, run, memory):  # type: ignore[no-untyped-def]
    function = _of(run, "act")
    return lambda p, r, t, run, memory: function(p, r, t, run, memory)


@overload(record)
def _record(p, r, n, t, reward, terminated, done, run, memory):  # type: ignore[no-untyped-def]
    function = _of(run, "record")
    return lambda p, r, n, t, reward, terminated, done, run, memory: function(
        p, r, n, t, reward, terminated, done, run, memory
    )


@overload(learn)
def _learn(p, r, t, run, memory):  # type: ignore[no-untyped-def]
    function = _of(run, "learn")
    return lambda p, r, t, run, memory: function(p, r, t, run, memory)


@overload(best)
def _best(p, run, memory):  # type: ignore[no-untyped-def]
    function = _of(run, "best")
    return lambda p, run, memory: function(p, run, memory)


# -- compiled environments -------------------------------------------------------------


@entry
def train(p, steps, run, memory, env, envs):
    """Train member p for some environment steps, whole rollouts.

    Args:
        p: number of the member; what belongs to others is not touched.
        steps: environment steps, a multiple of N · T.
        run: of the population.
        memory: of this thread; its rollout has a single place.
        env: the environment.
        envs: state of the P × N environments.
    """
    run, memory, envs = borrowed((run, memory, envs))
    N, D, T = run.fixed.N, run.fixed.D, run.fixed.T
    see(p, run, memory, env, envs)
    for i in range(steps // N):
        t = i % T
        act(p, 0, t, run, memory)
        for n in range(N):
            A = memory.actions.shape[1]
            action = vector(memory.actions, n * A, A)
            reward, terminated, cut = advance(p, n, action, env, envs, memory.room)
            observe(env, variables_of(p, n, envs), vector(memory.following, n * D, D))
            done = terminated or cut
            record(p, 0, n, t, reward, terminated, done, run, memory)
            if done:
                run.interval.finished[p, EPISODES] += 1.0
                run.interval.finished[p, RETURNS] += envs.returns[p, n]
                run.interval.finished[p, LENGTHS] += envs.lengths[p, n]
                begin_next(p, n, env, envs, memory.room)
        see(p, run, memory, env, envs)
        learn(p, 0, t, run, memory)


@compiled
def see(p, run, memory, env, envs):
    """Write what member p sees (N, D) to ``memory.seen``."""
    D = run.fixed.D
    for n in range(run.fixed.N):
        observe(env, variables_of(p, n, envs), vector(memory.seen, n * D, D))


@entry
def see_now(p, run, memory, env, envs):
    """`see`, for Python."""
    see(p, run, memory, env, envs)


@entry
def play(p, keys, physics, lifetime, longest, run, memory, env, envs, returns):
    """Returns (E,) of evaluation episodes that start from keys (E,); steps they took.

    Args:
        p: member.
        keys: of the episodes.
        physics: (K,) constants.
        lifetime: steps each training environment has taken: constants that change in
            the course of training remain as they are now.
        longest: steps after which an episode is taken for endless.
        run: of the population; not changed.
        memory: of this thread.
        env: the environment.
        envs: (1, 1) room for one environment.
        returns: (E,) written to.

    Returns:
        Steps of all episodes; −1: one of them does not end.
    """
    run, memory, envs = borrowed((run, memory, envs))
    A, D, steps = memory.actions.shape[1], run.fixed.D, 0
    for e in range(len(keys)):
        begin_evaluation(keys[e], physics, lifetime, env, envs, memory.room)
        over = False
        while not over:
            observe(env, variables_of(0, 0, envs), vector(memory.seen, 0, D))
            best(p, run, memory)
            action = vector(memory.actions, 0, A)
            _, terminated, truncated = advance(0, 0, action, env, envs, memory.room)
            over = terminated or truncated
            if envs.lengths[0, 0] >= longest:
                return -1
        returns[e] = envs.returns[0, 0]
        steps += envs.lengths[0, 0]
    return steps


# -- environments that Python steps ----------------------------------------------------


@entry
def act_all(first, last, t, seen, actions, run, memory):
    """Actions (P, N, A) of some members for what is seen (P, N, D).

    Args:
        first: number of a member.
        last: the one after the last.
        t: step of the rollout.
        seen: before the step.
        actions: written to.
        run: of the population.
        memory: of this thread; its rollout has P places, which threads share.
    """
    run, memory = borrowed((run, memory))
    for p in range(first, last):
        memory.seen[:] = seen[p]
        act(p, p, t, run, memory)
        actions[p] = memory.actions


@entry
def learn_all(first, last, t, seen, following, now, actions, given, run, memory):
    """Take note of a step of some members' environments, and do what is due.

    Args:
        first: number of a member.
        last: the one after the last.
        t: step of the rollout.
        seen: (P, N, D) before the step.
        following: (P, N, D) after it, also where an episode ended.
        now: (P, N, D) what is to be acted on next.
        actions: (P, N, A) of `act_all`.
        given: (3, P, N) reward, whether it terminated, whether the episode is over.
        run: of the population.
        memory: of this thread, as in `act_all`.
    """
    run, memory = borrowed((run, memory))
    for p in range(first, last):
        memory.seen[:] = seen[p]
        memory.following[:] = following[p]
        memory.actions[:] = actions[p]
        for n in range(run.fixed.N):
            reward, terminated, done = given[0, p, n], given[1, p, n], given[2, p, n]
            record(p, p, n, t, reward, terminated > 0.0, done > 0.0, run, memory)
        memory.seen[:] = now[p]
        learn(p, p, t, run, memory)


@entry
def best_all(members, observations, actions, run, memory):
    """Best actions (R, A) of members (R,) for observations (R, D)."""
    run, memory = borrowed((run, memory))
    for r in range(len(members)):
        memory.seen[0] = observations[r]
        best(members[r], run, memory)
        actions[r] = memory.actions[0]
