"""What has an algorithm's functions called: members that train, and that are evaluated.

An algorithm is a file with these compiled functions. Each is for member p, whose place
in a rollout is r, at step t of the rollout:

- ``act(p, r, t, run, memory)`` writes actions for the first N rows of ``memory.seen``
  (·, D) to those of ``memory.actions`` (·, A), which both have at least `AT_ONCE`;
- ``record(p, r, n, t, reward, terminated, done, run, memory)`` takes note of what a
  step of environment n gave; what is seen after it is in ``memory.following`` (N, D),
  also where an episode ended. The last two are 0 or 1;
- ``learn(p, r, t, run, memory)`` does what is due after a step of all environments,
  with what is to be acted on next in ``memory.seen``;
- ``best(p, rows, run, memory)`` writes the best actions for the first rows of
  ``memory.seen`` to those of ``memory.actions``. What they are must not depend on the
  other rows;
- ``restart(p, run)`` puts it before its first step, with the keys it has;
- ``fresh(key, row, run)`` writes fresh networks to a row;
- ``signals(p, run, memory, into)`` writes what the interval tells of it, (k,), where
  the inner environments show ``memory.seen``.

An algorithm that chooses the levels of environments which have them
(:mod:`~dacrl_env.inner_envs.dynamics`) has two functions more:

- ``on_level(p, n, t, level, is_first, run, memory)`` takes note of the level in which
  environment n takes a step, and whether it is the first of an episode, 0 or 1;
- ``next_level(p, key, episode, run)`` is the level of an episode, numbered as it is, of
  the environment with this key; where it is negative, the environment's own stays.

Drivers know an algorithm by the addresses of these functions and of what they are
called with, a `Link`. So neither is compiled anew for each of the other: the functions
of an algorithm are compiled once, and what steps an environment once an environment.

Compiled environments are stepped by `train` and `play`. Those that Python steps are
served by `act_all`, `learn_all` and `best_all`, with the same functions.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types
from numba.extending import overload
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import EPISODES, LENGTHS, RETURNS
from dacrl_env.inner_envs.dynamics import (
    advance,
    begin_evaluation,
    begin_level,
    begin_next,
    has_levels,
    level_of,
    observe,
    physics_of,
    variables_of,
)
from dacrl_env.kernels.calls import call, call_for_number, lying, words_of
from dacrl_env.kernels.compiling import PART, address_of, compiled, entry
from dacrl_env.kernels.views import FIRST, Held, address, copy, held, row_of, vector

Ints = NDArray[np.int64]
Numbers = NDArray[np.float64]


class Functions(NamedTuple):
    """Addresses of an algorithm's compiled functions; 0: it has none."""

    act: int
    record: int
    learn: int
    best: int
    restart: int
    fresh: int
    signals: int
    on_level: int
    next_level: int


class Calls(NamedTuple):
    """An algorithm's functions, and how many words their tuples take in memory."""

    functions: Functions
    run_words: int
    memory_words: int


class Link(NamedTuple):
    """What compiled drivers know of an algorithm and of its members."""

    functions: Functions
    run: Ints  # memory in which the tuple lies
    memory: Ints
    N: int
    D: int
    T: int
    # what both sides use of the memory, and of the interval
    seen: NDArray[np.float32]  # (at least AT_ONCE and N, D)
    following: NDArray[np.float32]  # (N, D)
    actions: Numbers  # (at least AT_ONCE and N, A)
    room: Numbers
    finished: Numbers


class Linked(NamedTuple):
    """A link, and all that lies at its addresses, which lives as long as this."""

    link: Link
    run: Any
    memory: Any


def arrays_of(kind: Any, state: Any) -> Any:
    """The arrays of a state, as compiled functions take them: a named tuple."""
    return kind._make(getattr(state, name) for name in kind._fields)


def calls_of(run: Any, memory: Any) -> Calls:
    """An algorithm's functions, compiled or loaded for tuples of these types.

    It takes a millisecond to find out the types: whoever calls this keeps the result.
    """
    kinds = typeof(run), typeof(memory)
    functions = _functions(type(run.fixed).__module__, *map(Held, kinds))
    return Calls(functions, *map(words_of, kinds))


@cache
def _functions(module: str, run: Any, memory: Any) -> Functions:
    number, key, both = types.int64, types.uint64, (run, memory)
    row, told = (types.Array(x, 1, "C") for x in (types.float32, types.float64))
    nothing = types.void
    signatures = {
        "act": nothing(*[number] * 3, *both),
        "record": nothing(*[number] * 4, types.float64, *[number] * 2, *both),
        "learn": nothing(*[number] * 3, *both),
        "best": nothing(*[number] * 2, *both),
        "restart": nothing(number, run),
        "fresh": nothing(key, row, run),
        "signals": nothing(number, *both, told),
        "on_level": nothing(*[number] * 5, *both),
        "next_level": number(number, key, number, run),
    }
    found = {}
    for name, signature in signatures.items():
        function = getattr(sys.modules[module], name, None)
        found[name] = 0 if function is None else address_of(function.py_func, signature)
    return Functions(**found)


def link(calls: Calls, run: Any, memory: Any) -> Linked:
    """What drivers take.

    Args:
        calls: of the algorithm, for tuples of these types.
        run: of the population.
        memory: of a thread.
    """
    fixed = run.fixed
    made = Link(
        calls.functions, lying(run, calls.run_words),
        lying(memory, calls.memory_words), fixed.N, fixed.D, fixed.T, memory.seen,
        memory.following, memory.actions, memory.room, run.interval.finished,
    )  # fmt: skip
    return Linked(made, run, memory)


# -- levels, where environments have them and the algorithm chooses --------------------


def see_level(p, n, t, link, env, envs):  # type: ignore[no-untyped-def]
    """Tell the algorithm in which level environment n takes its next step."""
    raise NotImplementedError


def choose_level(p, n, link, env, envs):  # type: ignore[no-untyped-def]
    """Put environment n, at the start of an episode, into the algorithm's level."""
    raise NotImplementedError


@overload(see_level, jit_options=PART)
def _see_level(p, n, t, link, env, envs):  # type: ignore[no-untyped-def]
    if not has_levels(env):
        return lambda p, n, t, link, env, envs: None

    def see(p, n, t, link, env, envs):  # type: ignore[no-untyped-def]
        on_level = link.functions.on_level
        if on_level != 0:
            level = np.int64(level_of(env, variables_of(p, n, envs)))
            is_first = np.int64(envs.lengths[p, n] == 0)
            run, memory = address(link.run), address(link.memory)
            call(on_level, (p, n, t, level, is_first, run, memory))

    return see


@overload(choose_level, jit_options=PART)
def _choose_level(p, n, link, env, envs):  # type: ignore[no-untyped-def]
    if not has_levels(env):
        return lambda p, n, link, env, envs: None

    def choose(p, n, link, env, envs):  # type: ignore[no-untyped-def]
        next_level = link.functions.next_level
        if next_level != 0:
            key, episode = envs.keys[p, n], envs.episodes[p, n]
            level = call_for_number(next_level, (p, key, episode, address(link.run)))
            if level >= 0:
                begin_level(env, level, physics_of(p, envs), variables_of(p, n, envs))

    return choose


# -- compiled environments -------------------------------------------------------------


def train(p: int, steps: int, linked: Linked, env: Any, envs: Any) -> None:
    """Train member p for some environment steps, whole rollouts.

    Args:
        p: number of the member; what belongs to others is not touched.
        steps: environment steps, a multiple of N · T.
        linked: its rollout has a single place.
        env: the environment.
        envs: state of the P × N environments.
    """
    _train(p, steps, linked.link, env, envs)


@entry
def _train(p, steps, link, env, envs):
    link, envs = held(link), held(envs)
    N, D, T, functions = link.N, link.D, link.T, link.functions
    run, memory = address(link.run), address(link.memory)
    _see(p, link, env, envs)
    for i in range(steps // N):
        t = i % T
        call(functions.act, (p, FIRST, t, run, memory))
        for n in range(N):
            A = link.actions.shape[1]
            action = vector(link.actions, n * A, A)
            see_level(p, n, t, link, env, envs)
            reward, terminated, cut = advance(p, n, action, env, envs, link.room)
            observe(env, variables_of(p, n, envs), vector(link.following, n * D, D))
            done = terminated or cut
            told = np.float64(reward), np.int64(terminated), np.int64(done)
            call(functions.record, (p, FIRST, n, t, *told, run, memory))
            if done:
                link.finished[p, EPISODES] += 1.0
                link.finished[p, RETURNS] += envs.returns[p, n]
                link.finished[p, LENGTHS] += envs.lengths[p, n]
                begin_next(p, n, env, envs, link.room)
                choose_level(p, n, link, env, envs)
        _see(p, link, env, envs)
        call(functions.learn, (p, FIRST, t, run, memory))


@compiled
def _see(p, link, env, envs):
    """Write what member p sees (N, D) to the memory."""
    for n in range(link.N):
        observe(env, variables_of(p, n, envs), vector(link.seen, n * link.D, link.D))


def play(
    i: int,
    members: Ints,
    keys: NDArray[np.uint64],
    physics: Numbers,
    lifetime: Ints,
    linked: Linked,
    env: Any,
    envs: Any,
    places: Ints,
    returns: Numbers,
    steps: Ints,
) -> None:
    """Evaluation episodes of a member, whose actions are the best it knows.

    All environments that are compiled have a time limit, so that episodes end.

    Args:
        i: place of the member among those that are evaluated.
        members: (m,) of the population.
        keys: (m, E) of the episodes.
        physics: (m, K) constants.
        lifetime: (m,) steps each training environment has taken: constants that change
            in the course of training remain as they are now.
        linked: the population is not changed.
        env: the environment.
        envs: (1, L) room for so many environments, at most `AT_ONCE`; episodes beyond
            those wait until one of them is free.
        places: (2, L) room: episode and environment by row of what is seen.
        returns: (m, E) written to.
        steps: (m,) of all episodes of a member, written to.
    """
    given = members, keys, physics, lifetime
    _play(i, *given, linked.link, env, envs, places, returns, steps)


@entry
def _play(i, members, keys, physics, lifetime, link, env, envs, places, returns, steps):
    link, envs = held(link), held(envs)
    p, D, A, E = members[i], link.D, link.actions.shape[1], keys.shape[1]
    run, memory = address(link.run), address(link.memory)
    steps[i] = 0
    begun = playing = min(E, places.shape[1])
    of_member = physics[i], lifetime[i], env, envs, link.room
    for n in range(playing):
        places[0, n] = places[1, n] = n
        begin_evaluation(n, keys[i, n], *of_member)
    while playing > 0:
        for r in range(playing):
            variables = variables_of(FIRST, places[1, r], envs)
            observe(env, variables, vector(link.seen, r * D, D))
        call(link.functions.best, (p, playing, run, memory))
        left = 0
        for r in range(playing):
            e, n = places[0, r], places[1, r]
            action = vector(link.actions, r * A, A)
            _, terminated, cut = advance(FIRST, n, action, env, envs, link.room)
            if terminated or cut:
                returns[i, e] = envs.returns[0, n]
                steps[i] += envs.lengths[0, n]
                if begun == E:
                    continue
                e, begun = begun, begun + 1
                begin_evaluation(n, keys[i, e], *of_member)
            places[0, left], places[1, left] = e, n
            left += 1
        playing = left


# -- environments that Python steps ----------------------------------------------------


@compiled
def _of_member(p, arrays):
    """What an array (P, N, ·) has of member p, as a vector."""
    size = arrays.shape[1] * arrays.shape[2]
    return vector(arrays, p * size, size)


@compiled
def _first_of(array, rows):
    """The first rows of an array (·, k) as a vector."""
    return vector(array, 0, rows * array.shape[1])


def act_all(
    first: int,
    last: int,
    t: int,
    seen: NDArray[np.float32],
    actions: Numbers,
    linked: Linked,
) -> None:
    """Actions (P, N, A) of some members for what is seen (P, N, D).

    Args:
        first: number of a member.
        last: the one after the last.
        t: step of the rollout.
        seen: before the step.
        actions: written to.
        linked: its rollout has P places.
    """
    _act_all(first, last, t, seen, actions, linked.link)


@entry
def _act_all(first, last, t, seen, actions, link):
    link = held(link)
    run, memory = address(link.run), address(link.memory)
    for p in range(first, last):
        copy(_of_member(p, seen), _first_of(link.seen, link.N))
        call(link.functions.act, (p, p, t, run, memory))
        copy(_first_of(link.actions, link.N), _of_member(p, actions))


def learn_all(
    first: int,
    last: int,
    t: int,
    seen: NDArray[np.float32],
    following: NDArray[np.float32],
    now: NDArray[np.float32],
    actions: Numbers,
    given: Numbers,
    linked: Linked,
) -> None:
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
        linked: as in `act_all`.
    """
    _learn_all(first, last, t, seen, following, now, actions, given, linked.link)


@entry
def _learn_all(first, last, t, seen, following, now, actions, given, link):
    link = held(link)
    run, memory = address(link.run), address(link.memory)
    for p in range(first, last):
        copy(_of_member(p, seen), _first_of(link.seen, link.N))
        copy(_of_member(p, following), _first_of(link.following, link.N))
        copy(_of_member(p, actions), _first_of(link.actions, link.N))
        for n in range(link.N):
            flags = np.int64(given[1, p, n] > 0.0), np.int64(given[2, p, n] > 0.0)
            told = p, p, n, t, given[0, p, n], *flags
            call(link.functions.record, (*told, run, memory))
        copy(_of_member(p, now), _first_of(link.seen, link.N))
        call(link.functions.learn, (p, p, t, run, memory))


def best_all(
    members: Ints, observations: NDArray[np.float32], actions: Numbers, linked: Linked
) -> None:
    """Best actions (R, A) of members (R,) for observations (R, D)."""
    _best_all(members, observations, actions, linked.link)


@entry
def _best_all(members, observations, actions, link):
    link = held(link)
    run, memory = address(link.run), address(link.memory)
    D, A = observations.shape[1], actions.shape[1]
    first = 0
    while first < len(members):
        p, rows = members[first], 1
        most = min(len(link.seen), len(members) - first)
        while rows < most and members[first + rows] == p:
            rows += 1
        given = vector(observations, first * D, rows * D)
        copy(given, _first_of(link.seen, rows))
        call(link.functions.best, (p, rows, run, memory))
        copy(_first_of(link.actions, rows), vector(actions, first * A, rows * A))
        first += rows


# -- any environments ------------------------------------------------------------------


def restart_all(members: Ints, linked: Linked) -> None:
    """Put members (m,) before their first step, with the keys they have."""
    _restart_all(members, linked.link)


@entry
def _restart_all(members, link):
    link = held(link)
    for i in range(len(members)):
        call(link.functions.restart, (members[i], address(link.run)))


def fresh_all(
    keys: NDArray[np.uint64], rows: NDArray[np.float32], linked: Linked
) -> None:
    """Write fresh networks, each of a key (m,), to rows (m, row)."""
    _fresh_all(keys, rows, linked.link)


@entry
def _fresh_all(keys, rows, link):
    link = held(link)
    for i in range(len(keys)):
        call(link.functions.fresh, (keys[i], row_of(i, rows), address(link.run)))


def signals_all(
    members: Ints, seen: NDArray[np.float32], linked: Linked, into: Numbers
) -> None:
    """What the interval tells of members (m,) into (m, k); all see (P, N, D)."""
    _signals_all(members, seen, linked.link, into)


@entry
def _signals_all(members, seen, link, into):
    link = held(link)
    run, memory = address(link.run), address(link.memory)
    for i in range(len(members)):
        copy(_of_member(members[i], seen), _first_of(link.seen, link.N))
        call(link.functions.signals, (members[i], run, memory, row_of(i, into)))
