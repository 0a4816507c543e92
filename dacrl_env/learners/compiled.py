"""A population that is trained by the compiled functions of one algorithm.

Where inner environments are compiled, too, all of a run between two evaluations is one
call. Others are stepped from Python, and the same functions act and learn for all
members between two steps; see :mod:`dacrl_env.algorithms.drivers`.
"""

from __future__ import annotations

import functools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import drivers
from dacrl_env.algorithms.interval import AT_ONCE, Interval, Run, begin
from dacrl_env.core import streams
from dacrl_env.inner_envs import InnerEnv, dynamics
from dacrl_env.inner_envs.env import CompiledEnv
from dacrl_env.kernels.compiling import announced
from dacrl_env.learners import events, stepped
from dacrl_env.learners.protocol import (
    Floats,
    Ints,
    Values,
    close_envs,
    reseed_envs,
    steady,
)
from dacrl_env.learners.rollout import Act, play
from dacrl_env.learners.stepped import Part
from dacrl_env.learners.threads import default_threads, spread
from dacrl_env.tasks import Knob, Option

_SECONDS = 0.2  # that a call of compiled code should take at most


def telling(method: Any) -> Any:
    """A method of a learner that says so when it has to wait for the compiler."""

    @functools.wraps(method)
    def told(self: Any, *arguments: Any, **named: Any) -> Any:
        with announced(self.title):
            return method(self, *arguments, **named)

    return told


class Compiled(ABC):
    """What learners of all algorithms have in common; holds no state of a run.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices.
        budget: inner environment steps of a run.
        given: values of the hyperparameters that no action sets; None: all are at
            their default.
    """

    algorithm: ClassVar[ModuleType]
    hyperparameters: ClassVar[tuple[Knob, ...]]
    controlled: ClassVar[tuple[str, ...]]
    only: ClassVar[Mapping[str, Option]] = {}
    unchanging: ClassVar[tuple[str, ...]] = ()
    signal_names: ClassVar[tuple[str, ...]]
    # of signals that may be negative: the magnitude that observations begin to tell
    # from 0
    signal_units: ClassVar[Mapping[str, float]]
    config_class: ClassVar[type]
    continuous_actions: ClassVar[bool]
    exact_snapshots = True
    head: ClassVar[tuple[int, ...]]  # which parts of a row are last layers
    # signals: names of an interval's sums, and of what `drivers.signals_all` gives
    sums: ClassVar[tuple[str, ...]]
    told: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: Any,
        budget: int,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.steady = steady(self.hyperparameters, given)
        self.env = env
        self.eval_env = eval_env
        self.config = config
        self.budget = budget
        self.features = math.prod(env.observation_shape)
        self.fixed = self._fixed()
        stepped = "environments that Python steps"
        inner = type(env.env).__name__ if isinstance(env, CompiledEnv) else stepped
        self.title = f"{type(self).__name__} for {inner}"
        self.num_threads = default_threads()
        self._memories: dict[int, Any] = {}  # by number of the thread
        self._room = (0, 0)  # places of rollouts and transitions that they are made for
        self._piece = 0  # environment steps that take about `_SECONDS`
        self._calls: drivers.Calls | None = None  # once they are needed

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made afresh: memory of threads is of this one alone."""
        about = self.env, self.eval_env, self.config, self.budget, self.steady
        return type(self), about

    # -- what algorithms say ----------------------------------------------------

    @abstractmethod
    def _fixed(self) -> Any:
        """The algorithm's ``Fixed``."""

    @abstractmethod
    def _make_state(self, P: int) -> Any:
        """Memory for P runs."""

    @abstractmethod
    def _make_memory(self, places: int, largest: int) -> Any:
        """Memory of a thread.

        Args:
            places: of members in a rollout.
            largest: transitions of a batch.
        """

    @abstractmethod
    def _leave_episodes(self, state: Any) -> None:
        """Forget what belongs to episodes that do not go on."""

    # -- state ------------------------------------------------------------------

    @telling
    def init(self, keys: streams.UInts, physics: Floats) -> Any:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        state = self._make_state(len(keys))
        state.keys[...] = keys
        self._restart(state, np.arange(len(keys)))
        state.envs = self.env.init(self._env_keys(keys), physics)
        return state

    @telling
    def restart(
        self, state: Any, members: Ints, keys: streams.UInts, physics: Floats
    ) -> None:
        """Put some members back before their first step, with new streams."""
        state.keys[members] = keys
        self._restart(state, np.asarray(members, np.int64))
        self.env.restart(state.envs, members, self._env_keys(keys), physics)

    def _restart(self, state: Any, members: Ints) -> None:
        drivers.restart_all(members, self.link(self._run(state)))

    def begin_episodes(self, state: Any) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        self.env.begin_episodes(state.envs)
        self._leave_episodes(state)

    def reseed(self, state: Any, members: Ints, marks: Ints) -> None:
        """Give members' inner environments streams that no other draws from."""
        reseed_envs(self.env, state, members, marks)

    @property
    def has_register(self) -> bool:
        """Whether actions may save networks."""
        return events.need_register(self.steady)

    @telling
    def happen(self, state: Any, values: Values) -> dict[str, NDArray[np.bool_]]:
        """Let the events of this decision happen, see `events.happen`."""
        init = streams.of(state.keys, "init")

        def fresh(members: Ints) -> NDArray[np.float32]:
            rows = np.zeros((len(members), state.parameters.shape[1]), np.float32)
            # of no earlier event, nor of the beginning
            keys = streams.bits(init[members], state.env_steps[members], 1)[:, 0]
            drivers.fresh_all(keys, rows, self.link(self._run(state)))
            return rows

        return events.happen(state, values, self.fixed.parts, self.head, fresh)

    def close(self, state: Any) -> None:
        """Close inner environments that are objects."""
        close_envs(self.env, self.eval_env, state)

    def _env_keys(self, keys: streams.UInts) -> streams.UInts:
        return streams.env_keys(keys, self.config.num_inner_envs)

    def _run(
        self, state: Any, values: Values | None = None, interval: Interval | None = None
    ) -> Any:
        """All that compiled functions take, beside environments and memory."""
        P, kinds = len(state.env_steps), self.algorithm
        names = kinds.Values._fields
        if values is None:
            values = dict.fromkeys(names, np.zeros(P))
        if interval is None:  # that nobody looks at
            interval = begin(state.parameters, self.sums)
        # a task without levels has no values that choose among them
        absent = {h.name: h.start for h in self.hyperparameters if h.name not in values}
        values = {**values, **{n: np.full(P, x) for n, x in absent.items()}}
        rows = (np.ascontiguousarray(values[n], float) for n in names)
        arrays = drivers.arrays_of(kinds.Arrays, state)
        return Run(self.fixed, kinds.Values._make(rows), arrays, interval)

    def _memory_of(
        self, thread: int = 0, places: int = 1, values: Values | None = None
    ) -> Any:
        """Memory of a thread, large enough for the batches of some values.

        Args:
            thread: its number.
            places: of members in a rollout.
            values: hyperparameters.
        """
        largest = 1 if values is None else int(values["batch_size"].max())
        if places != self._room[0] or largest > self._room[1]:
            self._room = places, max(largest, self._room[1])
            self._memories.clear()
        if thread not in self._memories:
            self._memories[thread] = self._make_memory(*self._room)
        return self._memories[thread]

    def link(self, run: Any, memory: Any = None) -> drivers.Linked:
        """What drivers take.

        Args:
            run: of a population.
            memory: of a thread; None: any, which no rollout is kept in.
        """
        if memory is None:
            memory = self._memory_of(0, self._room[0] or 1)
        if self._calls is None:
            self._calls = drivers.calls_of(run, memory)
        return drivers.link(self._calls, run, memory)

    def _threads(self, jobs: int) -> int:
        return max(1, min(self.num_threads, jobs))

    # -- act --------------------------------------------------------------------

    @telling
    def play(
        self, state: Any, members: Ints, keys: streams.UInts, physics: Floats
    ) -> tuple[Floats, Ints]:
        """Returns ``(m, E)`` of evaluation episodes and steps ``(m,)`` they took.

        Args:
            state: of the population; not changed.
            members: ``(m,)``.
            keys: ``(m, E)`` of the episodes.
            physics: ``(m, K)``.
        """
        lifetime = state.env_steps[members] // self.config.num_inner_envs
        if not isinstance(self.eval_env, CompiledEnv):

            def policy(rows: Ints) -> Act:
                return self.policy(state, members[rows])

            return play(policy, self.eval_env, keys, physics, lifetime)
        env, K = self.eval_env.env, physics.shape[1]
        lanes = min(AT_ONCE, keys.shape[1])
        returns, steps = np.empty(keys.shape), np.empty(len(members), np.int64)
        threads = self._threads(len(members))
        rooms = [
            (
                dynamics.make_env_state(1, lanes, K, env.variables),
                np.zeros((2, lanes), np.int64),
            )
            for _ in range(threads)
        ]
        run = self._run(state)
        links = [self.link(run, self._memory_of(k)) for k in range(threads)]
        given = (
            np.asarray(members, np.int64),
            np.ascontiguousarray(keys),
            np.ascontiguousarray(physics),
            lifetime,
        )

        def work(thread: int, i: int) -> None:
            here = links[thread], env, *rooms[thread]
            drivers.play(i, *given, *here, returns, steps)

        spread(range(len(members)), work, threads)
        return returns, steps

    def policy(self, state: Any, members: Ints) -> Act:
        """Best actions ``(m, E)`` for observations ``(m, E, …)`` of members."""
        linked = self.link(self._run(state), self._memory_of())
        columns = linked.memory.actions.shape[1]

        def act(observations: NDArray[Any]) -> NDArray[Any]:
            m, E = observations.shape[:2]
            flat = np.ascontiguousarray(observations.reshape(m * E, -1), np.float32)
            actions = np.empty((m * E, columns))
            drivers.best_all(np.repeat(members, E), flat, actions, linked)
            return stepped.native(self.env, actions.reshape(m, E, -1))

        return act

    # -- train ------------------------------------------------------------------

    def begin_interval(self, state: Any) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters.copy(), self.sums)

    @telling
    def train(self, state: Any, values: Values, steps: int, interval: Interval) -> None:
        """Train every member for ``steps`` environment steps.

        Args:
            state: changed in place.
            values: applied hyperparameters.
            steps: a multiple of `granularity`.
            interval: sums, changed in place.
        """
        P = len(state.env_steps)
        if not isinstance(self.env, CompiledEnv):
            part = self.part(state, values, interval, 0, P)
            stepped.train(self.env, state.envs, [part], steps, interval)
            return
        threads = self._threads(P)
        spread(range(P), self.worker(state, values, steps, interval, threads), threads)
        self.env.observe(state.envs)

    def worker(
        self, state: Any, values: Values, steps: int, interval: Interval, threads: int
    ) -> Callable[[int, int], None]:
        """What trains a member by its number, in a thread by its number.

        Environments are compiled; afterwards they are to be observed.
        """
        assert isinstance(self.env, CompiledEnv)
        run, env = self._run(state, values, interval), self.env.env
        envs = self.env.tuple_of(state.envs)
        memories = [self._memory_of(k, 1, values) for k in range(threads)]
        links = [self.link(run, memory) for memory in memories]

        def work(thread: int, p: int) -> None:
            left = steps
            while left:
                piece = min(left, self._next_piece())
                began = time.perf_counter()
                drivers.train(p, piece, links[thread], env, envs)
                self._took(piece, time.perf_counter() - began)
                left -= piece

        return work

    def part(
        self, state: Any, values: Values, interval: Interval, first: int, last: int
    ) -> Part:
        """Members from a first to before a last one, where Python steps."""
        memory = self._memory_of(0, len(state.env_steps), values)
        return Part(first, last, self.link(self._run(state, values, interval), memory))

    def _next_piece(self) -> int:
        """Environment steps of the next call, so that an interrupt is soon heard."""
        unit = self.fixed.N * self.fixed.T
        return max(unit, self._piece // unit * unit)

    def _took(self, steps: int, seconds: float) -> None:
        """Learn from a call how long steps take; a run does not notice cuts."""
        if seconds < _SECONDS / 2:
            self._piece = max(self._piece, 2 * steps)
        elif seconds > _SECONDS:
            self._piece = steps // 2

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: Any, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters)

    @telling
    def signals(
        self, state: Any, values: Values, interval: Interval
    ) -> dict[str, Floats]:
        """What the interval tells of each member ``(P,)``, by name."""
        return self.told_of(np.arange(len(state.env_steps)), state, values, interval)

    def told_of(
        self, members: Ints, state: Any, values: Values, interval: Interval
    ) -> dict[str, Floats]:
        """What the interval tells of members ``(m,)``, by name."""
        into = np.zeros((len(members), len(self.told)))
        seen = stepped.flat(state.envs.observations)
        linked = self.link(self._run(state, values, interval))
        drivers.signals_all(members, seen, linked, into)
        told = {name: into[:, k] for k, name in enumerate(self.told)}
        means = interval.means(self.sums).items()
        return {name: each[members] for name, each in means} | told
