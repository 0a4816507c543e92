"""A pipeline whose algorithm and features are choices that actions make.

A member has one of DQN, PPO and SAC with discrete actions at a time, on observations
that are raw, normalised, or random Fourier features of normalised ones. Which it has is
said at every decision. Pipelines whose parts are chosen and tuned together are those of
Mussi et al. 2022, "ARLO: a framework for automated reinforcement learning" (arXiv
2205.10416).

A change of either choice begins anew all that an algorithm learns: networks, optimiser,
running moments, frequencies and register are fresh, and nothing is charged for that.
The member's own goes on: inner environments in the midst of their episodes, counts of
steps, and the replay, from DQN to SAC and back. PPO keeps no replay and leaves an empty
one. A choice that is made at the first decision is that of the whole run: it trains bit
for bit as the algorithm alone does. Until then there are DQN on raw observations, or
what is fixed.

Hyperparameters of an algorithm have its name in front, ``dqn.learning_rate``, and are
inactive with others. Events are those of whichever there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import drivers
from dacrl_env.algorithms.interval import Interval, begin
from dacrl_env.core import streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.env import CompiledEnv
from dacrl_env.learners import events, replaying, stepped
from dacrl_env.learners.compiled import telling
from dacrl_env.learners.pipeline_space import (
    COMMON,
    CONTROLLED,
    HYPERPARAMETERS,
    KINDS,
    SIGNAL_UNITS,
    SIGNALS,
    PipelineConfig,
    config_of,
    groups,
    has_replay,
    menu_of,
    numbers_of,
    read,
    stretches,
    takes_note,
    values_of,
)
from dacrl_env.learners.pipeline_state import PipelineState, blank, forget, make_state
from dacrl_env.learners.protocol import (
    Floats,
    Ints,
    Values,
    close_envs,
    reseed_envs,
    steady,
)
from dacrl_env.learners.threads import spread
from dacrl_env.tasks import Option


class Pipeline:
    """The algorithms over a population.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices.
        budget: inner environment steps of a run.
        given: values of the hyperparameters that no action sets; None: all are at
            their default. Where algorithm or features are among them, there are no
            others.
    """

    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    only: Mapping[str, Option] = {}
    unchanging: tuple[str, ...] = ()
    signal_names = SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = PipelineConfig
    continuous_actions = False
    exact_snapshots = True

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: PipelineConfig,
        budget: int,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.steady = steady(HYPERPARAMETERS, given)
        self.env, self.eval_env = env, eval_env
        self.config, self.budget = config, budget
        self.parts: dict[int, Any] = {}  # compiled ones, by number
        menu = menu_of(self.steady)
        for number in menu:
            algorithm, features = read(number)
            known = values_of(self.steady, algorithm)
            if takes_note(menu, self.steady):
                known.pop("priority_alpha", None)
            own = config_of(config, algorithm, features)
            self.parts[number] = KINDS[algorithm](env, eval_env, own, budget, known)
        self.first = menu[0]  # until the first decision
        inner = self.parts[self.first].title.partition(" for ")[2]
        self.title = f"{type(self).__name__} for {inner}"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made afresh: memory of threads is of this one alone."""
        about = self.env, self.eval_env, self.config, self.budget, self.steady
        return type(self), about

    @property
    def num_threads(self) -> int:
        """Members that are trained at a time."""
        return int(self.parts[self.first].num_threads)

    @num_threads.setter
    def num_threads(self, number: int) -> None:
        for part in self.parts.values():
            part.num_threads = number

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: PipelineConfig) -> int:
        """Environment steps that cannot be divided further: one rollout."""
        return config.num_inner_envs * config.rollout_length

    @classmethod
    def member_bytes(
        cls,
        config: PipelineConfig,
        budget: int,
        env: InnerEnv,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most.

        There is room for the largest of all algorithms.
        """
        known, result = steady(HYPERPARAMETERS, given), dict[str, int]()
        for algorithm, features in map(read, menu_of(known)):
            kind, own = KINDS[algorithm], config_of(config, algorithm, features)
            parts = kind.member_bytes(own, budget, env, values_of(known, algorithm))
            for name, size in parts.items():
                result[name] = max(size, result.get(name, 0))
        return result

    @classmethod
    def constrain(
        cls, values: dict[str, Floats], config: PipelineConfig, budget: int
    ) -> None:
        """Cap requested values in place to what can be applied together."""
        for algorithm, kind in KINDS.items():
            own = values_of(values, algorithm)
            kind.constrain(own, config, budget)
            capped = {n: x for n, x in own.items() if n not in COMMON}
            values.update({f"{algorithm}.{n}": x for n, x in capped.items()})

    @staticmethod
    def samples_per_step(values: Values) -> Floats:
        """Transitions ``(n,)`` used in updates an environment step, by values."""
        each = [
            kind.samples_per_step(values_of(values, algorithm))
            for algorithm, kind in KINDS.items()
        ]
        chosen = values["algorithm"].astype(np.int64)
        return np.asarray(np.choose(chosen, np.stack(each)), np.float64)

    def flops(self, values: Values) -> tuple[Ints, Floats]:
        """Floating-point operations ``(P,)`` per action and per sample of updates."""
        numbers = numbers_of(values)
        act, learn = np.zeros(len(numbers), np.int64), np.zeros(len(numbers))
        for number, at in groups(numbers):
            part = self.parts[number]
            of_act, of_learn = part.flops(values_of(values, read(number)[0]))
            act[at], learn[at] = of_act, of_learn[at]
        return act, learn

    # -- state ------------------------------------------------------------------

    @telling
    def init(self, keys: streams.UInts, physics: Floats) -> PipelineState:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        kept = has_replay(np.array([*self.parts])).any()
        capacity = replaying.capacity_of(self.config, self.budget)
        levels = self.env.num_levels if isinstance(self.env, CompiledEnv) else 0
        state = make_state(
            len(keys),
            [part.fixed for part in self.parts.values()],
            capacity // self.config.num_inner_envs if kept else 1,
            self.env.observation_dtype.type,
            len(streams.PURPOSES),
            events.need_register(self.steady),
            levels,
        )
        self._begin(state, np.arange(len(keys)), keys)
        state.envs = self.env.init(self._env_keys(keys), physics)
        return state

    @telling
    def restart(
        self, state: PipelineState, members: Ints, keys: streams.UInts, physics: Floats
    ) -> None:
        """Put some members back before their first step, with new streams."""
        self._begin(state, np.asarray(members, np.int64), keys)
        self.env.restart(state.envs, members, self._env_keys(keys), physics)

    def _begin(self, state: PipelineState, members: Ints, keys: streams.UInts) -> None:
        state.keys[members] = keys
        state.env_steps[members] = state.gradient_steps[members] = 0
        forget(state, members)
        self._change(state, members, self.first)

    def _env_keys(self, keys: streams.UInts) -> streams.UInts:
        return streams.env_keys(keys, self.config.num_inner_envs)

    def _change(self, state: PipelineState, members: Ints, number: int) -> None:
        """Let members begin anew with an algorithm and features."""
        # what PPO did in between is not there
        empty = members[~has_replay(state.part[members])]
        replaying.clear(state, empty, self.config.num_inner_envs)
        state.replay.made_for[members] = np.nan
        state.part[members] = number
        blank(state, members)
        part = self.parts[number]
        run = part._run(state)
        # what it would put back before a run's first step goes on
        own = {n: getattr(state, n).copy() for n in ("env_steps", "gradient_steps")}
        if hasattr(run.state, "replay"):
            small = ("first", "made_for", "top_priority")
            copies = {n: getattr(state.replay, n).copy() for n in small}
            own["replay"] = state.replay._replace(**copies)
        own["keys"] = self._fresh_keys(state, members)
        run = run._replace(state=run.state._replace(**own))
        drivers.restart_all(members, part.link(run))

    @staticmethod
    def _fresh_keys(state: PipelineState, members: Ints) -> streams.UInts:
        """Keys ``(P, purposes)`` for what begins anew after the first decision."""
        keys, later = state.keys.copy(), members[state.env_steps[members] > 0]
        init = streams.PURPOSES.index("init")
        fresh = streams.bits(keys[later, init], state.env_steps[later], 1)
        keys[later, init] = fresh[:, 0]
        return keys

    def begin_episodes(self, state: PipelineState) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        self.env.begin_episodes(state.envs)
        replaying.leave_episodes(state, self.config.num_inner_envs)
        state.held_steps[...] = 0
        state.discounted[...] = 0.0

    def reseed(self, state: PipelineState, members: Ints, marks: Ints) -> None:
        """Give members' inner environments streams that no other draws from."""
        reseed_envs(self.env, state, members, marks)

    def close(self, state: PipelineState) -> None:
        """Close inner environments that are objects."""
        close_envs(self.env, self.eval_env, state)

    # -- decisions --------------------------------------------------------------

    @telling
    def happen(
        self, state: PipelineState, values: Values
    ) -> dict[str, NDArray[np.bool_]]:
        """Change algorithms and features, then let the events of a decision happen.

        Returns:
            By name of the event members ``(P,)`` with which it could not: of a restore
            without a save, and of a replay that PPO has not.
        """
        wanted = numbers_of(values)
        changed = wanted != state.part
        for number, at in groups(wanted):
            if changed[at].any():
                self._change(state, at[changed[at]], number)
        asked_for = values["clear_replay"] > 0
        could_not = {"clear_replay": ~has_replay(wanted) & asked_for}
        for number, at in groups(wanted):
            there = np.zeros(len(wanted), bool)
            there[at] = True
            asked = {n: np.where(there, values[n], 0.0) for n in COMMON}
            given = values_of(values, read(number)[0]) | asked
            for name, members in self.parts[number].happen(state, given).items():
                could_not[name] = could_not.get(name, False) | members
        return could_not

    # -- act --------------------------------------------------------------------

    @telling
    def play(
        self,
        state: PipelineState,
        members: Ints,
        keys: streams.UInts,
        physics: Floats,
    ) -> tuple[Floats, Ints]:
        """Returns ``(m, E)`` of evaluation episodes and steps ``(m,)`` they took.

        Args:
            state: of the population; not changed.
            members: ``(m,)``.
            keys: ``(m, E)`` of the episodes.
            physics: ``(m, K)``.
        """
        members = np.asarray(members, np.int64)
        returns, steps = np.zeros(keys.shape), np.zeros(len(members), np.int64)
        for number, at in groups(state.part[members]):
            part = self.parts[number]
            returns[at], steps[at] = part.play(
                state, members[at], keys[at], physics[at]
            )
        return returns, steps

    # -- train ------------------------------------------------------------------

    def begin_interval(self, state: PipelineState) -> Interval:
        """Empty sums for the time until the next decision.

        Columns are those of each member's algorithm.
        """
        most = max((part.sums for part in self.parts.values()), key=len)
        return begin(state.parameters.copy(), most)

    @telling
    def train(
        self, state: PipelineState, values: Values, steps: int, interval: Interval
    ) -> None:
        """Train every member for ``steps`` environment steps.

        Args:
            state: changed in place.
            values: applied hyperparameters, of which the choices have been made.
            steps: a multiple of `granularity`.
            interval: sums, changed in place.
        """
        if not isinstance(self.env, CompiledEnv):
            parts = []
            for number, first, last in stretches(state.part):
                own = values_of(values, read(number)[0])
                part = self.parts[number]
                parts.append(part.part(state, own, interval, first, last))
            stepped.train(self.env, state.envs, parts, steps, interval)
            return
        P = len(state.part)
        threads = max(1, min(self.num_threads, P))
        work: dict[int, Callable[[int, int], None]] = {}
        for number, _ in groups(state.part):
            own = values_of(values, read(number)[0])
            part = self.parts[number]
            work[number] = part.worker(state, own, steps, interval, threads)
        numbers = state.part.tolist()
        spread(range(P), lambda thread, p: work[numbers[p]](thread, p), threads)
        self.env.observe(state.envs)

    def diverged(self, state: PipelineState, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters)

    @telling
    def signals(
        self, state: PipelineState, values: Values, interval: Interval
    ) -> dict[str, Floats]:
        """What the interval tells of each member ``(P,)``, by name."""
        result = {name: np.zeros(len(state.part)) for name in SIGNALS}
        for number, at in groups(state.part):
            own = values_of(values, read(number)[0])
            told = self.parts[number].told_of(at, state, own, interval)
            for name, each in told.items():
                result[name][at] = each
        return result
