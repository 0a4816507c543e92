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
  to the first row of ``memory.actions``;
- ``restart(p, run)`` puts it before its first step, with the keys it has;
- ``signals(p, run, memory, into)`` writes what the interval tells of it, (k,), where
  the inner environments show ``memory.seen`` (N, D).

An algorithm that chooses the levels of environments which have them
(:mod:`~dacrl_env.inner_envs.dynamics`) has two functions more:

- ``on_level(p, n, t, level, is_first, run, memory)`` takes note of the level in which
  environment n takes a step, and whether it is the first of an episode;
- ``next_level(p, key, episode, run)`` is the level of an episode, numbered as it is, of
  the environment with this key; where it is negative, the environment's own stays.

Compiled environments are stepped by `train` and `play`. Those that Python steps are
served by `act_all`, `learn_all` and `best_all`, with the same functions.
"""

from __future__ import annotations

import sys
from typing import Any

from numba.extending import overload

from dacrl_env.algorithms.interval import EPISODES, LENGTHS, RETURNS
from dacrl_env.inner_envs.dynamics import (
    advance,
    begin_evaluation,
    begin_level,
    begin_next,
    has_levels,
    level_of,
    observe,
    variables_of,
)
from dacrl_env.kernels.compiling import PART, compiled, entry
from dacrl_env.kernels.views import FIRST, copy, held, row_of, vector


def arrays_of(kind: Any, state: Any) -> Any:
    """The arrays of a state, as compiled functions take them: a named tuple."""
    return kind._make(getattr(state, name) for name in kind._fields)


# -- stubs, whose meaning follows from the type of the run -----------------------------


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


def restart(p, run):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def fresh(key, row, run):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def signals(p, run, memory, into):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    raise NotImplementedError


def _of(run: Any, name: str) -> Any:
    """The function itself: another one that calls it would take as long to compile."""
    return getattr(sys.modules[run.instance_class.__module__], name).py_func


@overload(act, jit_options=PART)
def _act(p, r, t, run, memory):  # type: ignore[no-untyped-def]
    return _of(run, "act")


@overload(record, jit_options=PART)
def _record(p, r, n, t, reward, terminated, done, run, memory):  # type: ignore[no-untyped-def]
    return _of(run, "record")


@overload(learn, jit_options=PART)
def _learn(p, r, t, run, memory):  # type: ignore[no-untyped-def]
    return _of(run, "learn")


@overload(best, jit_options=PART)
def _best(p, run, memory):  # type: ignore[no-untyped-def]
    return _of(run, "best")


@overload(restart, jit_options=PART)
def _restart(p, run):  # type: ignore[no-untyped-def]
    return _of(run, "restart")


@overload(fresh, jit_options=PART)
def _fresh(key, row, run):  # type: ignore[no-untyped-def]
    return _of(run, "fresh")


@overload(signals, jit_options=PART)
def _signals(p, run, memory, into):  # type: ignore[no-untyped-def]
    return _of(run, "signals")


# -- levels, where environments have them and the algorithm chooses --------------------


def see_level(p, n, t, run, memory, env, envs):  # type: ignore[no-untyped-def]
    """Tell the algorithm in which level environment n takes its next step."""
    raise NotImplementedError


def choose_level(p, n, run, env, envs):  # type: ignore[no-untyped-def]
    """Put environment n, at the start of an episode, into the algorithm's level."""
    raise NotImplementedError


def _choice(run: Any, env: Any, name: str) -> Any:
    module = sys.modules[run.instance_class.__module__]
    return getattr(module, name, None) if has_levels(env) else None


@overload(see_level, jit_options=PART)
def _see_level(p, n, t, run, memory, env, envs):  # type: ignore[no-untyped-def]
    on_level = _choice(run, env, "on_level")
    if on_level is None:
        return lambda p, n, t, run, memory, env, envs: None

    def see(p, n, t, run, memory, env, envs):  # type: ignore[no-untyped-def]
        level = level_of(env, variables_of(p, n, envs))
        on_level(p, n, t, level, envs.lengths[p, n] == 0, run, memory)

    return see


@overload(choose_level, jit_options=PART)
def _choose_level(p, n, run, env, envs):  # type: ignore[no-untyped-def]
    next_level = _choice(run, env, "next_level")
    if next_level is None:
        return lambda p, n, run, env, envs: None

    def choose(p, n, run, env, envs):  # type: ignore[no-untyped-def]
        level = next_level(p, envs.keys[p, n], envs.episodes[p, n], run)
        if level >= 0:
            begin_level(env, level, variables_of(p, n, envs))

    return choose


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
    run, memory, envs = held(run), held(memory), held(envs)
    N, D, T = run.fixed.N, run.fixed.D, run.fixed.T
    see(p, run, memory, env, envs)
    for i in range(steps // N):
        t = i % T
        act(p, FIRST, t, run, memory)
        for n in range(N):
            A = memory.actions.shape[1]
            action = vector(memory.actions, n * A, A)
            see_level(p, n, t, run, memory, env, envs)
            reward, terminated, cut = advance(p, n, action, env, envs, memory.room)
            observe(env, variables_of(p, n, envs), vector(memory.following, n * D, D))
            done = terminated or cut
            record(p, FIRST, n, t, reward, terminated, done, run, memory)
            if done:
                run.interval.finished[p, EPISODES] += 1.0
                run.interval.finished[p, RETURNS] += envs.returns[p, n]
                run.interval.finished[p, LENGTHS] += envs.lengths[p, n]
                begin_next(p, n, env, envs, memory.room)
                choose_level(p, n, run, env, envs)
        see(p, run, memory, env, envs)
        learn(p, FIRST, t, run, memory)


@compiled
def see(p, run, memory, env, envs):
    """Write what member p sees (N, D) to ``memory.seen``."""
    D = run.fixed.D
    for n in range(run.fixed.N):
        observe(env, variables_of(p, n, envs), vector(memory.seen, n * D, D))


@entry
def play(i, members, keys, physics, lifetime, run, memory, env, envs, returns, steps):
    """Evaluation episodes of a member, whose actions are the best it knows.

    All environments that are compiled have a time limit, so that episodes end.

    Args:
        i: place of the member among those that are evaluated.
        members: (m,) of the population.
        keys: (m, E) of the episodes.
        physics: (m, K) constants.
        lifetime: (m,) steps each training environment has taken: constants that change
            in the course of training remain as they are now.
        run: of the population; not changed.
        memory: of this thread.
        env: the environment.
        envs: (1, 1) room for one environment.
        returns: (m, E) written to.
        steps: (m,) of all episodes of a member, written to.
    """
    run, memory, envs = held(run), held(memory), held(envs)
    p, A, D = members[i], memory.actions.shape[1], run.fixed.D
    steps[i] = 0
    for e in range(keys.shape[1]):
        begin_evaluation(keys[i, e], physics[i], lifetime[i], env, envs, memory.room)
        over = False
        while not over:
            observe(env, variables_of(FIRST, FIRST, envs), vector(memory.seen, 0, D))
            best(p, run, memory)
            action = vector(memory.actions, 0, A)
            _, terminated, truncated = advance(
                FIRST, FIRST, action, env, envs, memory.room
            )
            over = terminated or truncated
        returns[i, e] = envs.returns[0, 0]
        steps[i] += envs.lengths[0, 0]


# -- environments that Python steps ----------------------------------------------------


@compiled
def _of_member(p, arrays):
    """What an array (P, N, ·) has of member p, as a vector."""
    size = arrays.shape[1] * arrays.shape[2]
    return vector(arrays, p * size, size)


@compiled
def _all_of(array):
    """An array (N, ·) as a vector."""
    return vector(array, 0, array.size)


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
    run, memory = held(run), held(memory)
    for p in range(first, last):
        copy(_of_member(p, seen), _all_of(memory.seen))
        act(p, p, t, run, memory)
        copy(_all_of(memory.actions), _of_member(p, actions))


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
    run, memory = held(run), held(memory)
    for p in range(first, last):
        copy(_of_member(p, seen), _all_of(memory.seen))
        copy(_of_member(p, following), _all_of(memory.following))
        copy(_of_member(p, actions), _all_of(memory.actions))
        for n in range(run.fixed.N):
            reward, terminated, done = given[0, p, n], given[1, p, n], given[2, p, n]
            record(p, p, n, t, reward, terminated > 0.0, done > 0.0, run, memory)
        copy(_of_member(p, now), _all_of(memory.seen))
        learn(p, p, t, run, memory)


@entry
def best_all(members, observations, actions, run, memory):
    """Best actions (R, A) of members (R,) for observations (R, D)."""
    run, memory = held(run), held(memory)
    for r in range(len(members)):
        copy(row_of(r, observations), row_of(FIRST, memory.seen))
        best(members[r], run, memory)
        copy(row_of(FIRST, memory.actions), row_of(r, actions))


# -- any environments ------------------------------------------------------------------


@entry
def restart_all(members, run):
    """Put members (m,) before their first step, with the keys they have."""
    run = held(run)
    for i in range(len(members)):
        restart(members[i], run)


@entry
def fresh_all(keys, rows, run):
    """Write fresh networks, each of a key (m,), to rows (m, row)."""
    run = held(run)
    for i in range(len(keys)):
        fresh(keys[i], row_of(i, rows), run)


@entry
def signals_all(members, seen, run, memory, into):
    """What the interval tells of members (m,) into (m, k); all see (P, N, D)."""
    run, memory = held(run), held(memory)
    for i in range(len(members)):
        copy(_of_member(members[i], seen), _all_of(memory.seen))
        signals(members[i], run, memory, row_of(i, into))
