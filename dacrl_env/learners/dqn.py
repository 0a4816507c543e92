"""DQN over a population: hyperparameters, configuration, and what they come to.

The algorithm itself is :mod:`dacrl_env.algorithms.dqn`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import dqn, dqn_fork
from dacrl_env.algorithms.replay import MOST_STEPS
from dacrl_env.core import checks, snapshot, streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.images import BRIGHTEST
from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import announced
from dacrl_env.learners import events, replaying
from dacrl_env.learners.compiled import Compiled, Floats, Ints, Values
from dacrl_env.learners.networks import (
    channels,
    check_fourier,
    fourier_flops,
    inputs_of,
    make_network,
)
from dacrl_env.learners.protocol import steady
from dacrl_env.learners.threads import spread
from dacrl_env.tasks import Choice, Condition, Number

_HELD = Condition("exploration", ("ez-greedy",))
HYPERPARAMETERS = (
    Number("learning_rate", 1e-6, 1e-1, 1e-3, "log"),
    Number("epsilon", 0.0, 1.0, 0.1),
    Number("batch_size", 4, 512, 64, "log", integer=True),
    Number("gamma", 0.8, 1.0, 0.99, "log_complement"),
    Number("target_update_interval", 1, 10_000, 500, "log", integer=True),
    Number("train_freq", 1, 1_000, 4, "log", integer=True),
    Number("gradient_steps", 1, 1_000, 1, "log", integer=True),
    Number("max_grad_norm", 0.1, 100, 10, "log"),
    Number("replay_window", 1_000, 100_000, 100_000, "log", integer=True),
    Number("n_step", 1, MOST_STEPS, 1, integer=True),
    Choice("double_q", (False, True), False),
    Choice("loss", ("huber", "mse"), "huber"),
    Number("q_regularisation", 0.0, 1.0, 0.0),
    Number("tau", 1e-3, 1.0, 1.0, "log"),
    Number("priority_alpha", 0.0, 1.0, 0.0),
    Number("priority_beta", 0.0, 1.0, 0.4),
    Choice("exploration", ("epsilon-greedy", "ez-greedy"), "epsilon-greedy"),
    Number("hold_exponent", 1.0, 5.0, 2.0, condition=_HELD),
    *events.EVENTS,
    events.CLEAR_REPLAY,
)
CONTROLLED = ("learning_rate", "epsilon", "batch_size")
_SHARED = ("replay.observations", "replay.transitions")  # by a member and its fork
_PIECE = 64  # gradient steps of a fork in a call, so that an interrupt is soon heard
SIGNALS = ("loss", "td_error", "grad_norm", "update_ratio", "value_mean", "value_std")
SIGNAL_UNITS = {"value_mean": 1.0}


@dataclass(frozen=True)
class DQNConfig:
    """What sets shapes; fixed for the life of a population.

    Args:
        hidden_sizes: widths of the hidden layers.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh".
        replay_capacity: transitions kept a member; None: the budget, at most 100,000.
        learning_starts: environment steps of random actions before the first update.
        conv_channels: of a convolution of 3 × 3 in front, a multiple of 16, for
            observations (rows, columns, channels); 0: they are flattened.
        normalize_observations: by running mean and variance.
        fourier_features: random cosines and sines, half of each, that the network sees
            in place of an observation (:mod:`dacrl_env.algorithms.features`); 0: none.
        fourier_scale: deviation of the normal numbers that observations are multiplied
            with, in turns a unit of the observation.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 1
    activation: str = "relu"
    replay_capacity: int | None = None
    learning_starts: int = 1_000
    conv_channels: int = 0
    normalize_observations: bool = False
    fourier_features: int = 0
    fourier_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        replaying.check(self)
        object.__setattr__(self, "conv_channels", channels(self.conv_channels))
        object.__setattr__(self, "fourier_features", check_fourier(self))


class DQN(Compiled):
    """The algorithm over a population."""

    algorithm: ClassVar[ModuleType] = dqn
    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    signal_names = SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = DQNConfig
    continuous_actions = False
    head = (1,)
    sums = ("loss", "grad_norm")
    told = ("td_error", "value_mean", "value_std", "update_ratio")

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: DQNConfig) -> int:
        """Environment steps that cannot be divided further."""
        return config.num_inner_envs

    replay_capacity = staticmethod(replaying.capacity_of)
    constrain = staticmethod(replaying.constrain)
    samples_per_step = staticmethod(replaying.samples_per_step)

    @classmethod
    def member_bytes(
        cls,
        config: DQNConfig,
        budget: int,
        env: InnerEnv,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most."""
        features = math.prod(env.observation_shape)
        size = env.observation_dtype.itemsize
        row = make_network(config, env, env.num_actions, inputs_of(config, env)).row
        known = steady(HYPERPARAMETERS, given)
        lines = dense.padded(config.fourier_features // 2)
        # target, moments, and where the interval began; the register
        rows = 9 if events.need_register(known) else 5
        return {
            "replay_capacity": replaying.bytes_of(config, budget, env, 1, known),
            "hidden_sizes": 4 * rows * row,
            "fourier_features": 4 * features * lines,
            "num_inner_envs": config.num_inner_envs * (4 * features * size + 300),
        }

    def flops(self, values: Values) -> tuple[int, Floats]:
        """Floating-point operations per action, and ``(P,)`` per sample of an update.

        Matrix products only, two operations a multiply-add: one forward pass to act;
        a target pass, an online pass (two with ``double_q``) and a backward pass of
        two products a layer (one at the first) to learn. Fourier features are a product
        for each observation.
        """
        each = dense.multiplications(self.fixed.net)
        forward, first = 2 * int(each.sum()), 2 * int(each[0])
        seen = fourier_flops(self.config, self.features)
        passes = 2 + values["double_q"]
        learn = passes * forward + 2 * forward - first + 2 * seen
        return forward + seen, learn

    def _fixed(self) -> dqn.Fixed:
        config, D, A = self.config, self.features, self.env.num_actions
        net = make_network(config, self.env, A, inputs_of(config, self.env))
        # what running moments make of an image is none any more
        scales = self.env.scales_images and not config.normalize_observations
        return dqn.Fixed(
            net=net,
            N=config.num_inner_envs,
            T=1,
            D=D,
            A=A,
            learning_starts=config.learning_starts,
            scale=1 / BRIGHTEST if scales else 1.0,
            parts=np.array([0, net.weights[-1], net.row]),
            prioritised=self.steady.get("priority_alpha") != 0.0,
            normalize_observations=bool(config.normalize_observations),
            fourier_features=config.fourier_features,
            fourier_scale=float(config.fourier_scale),
        )

    def _make_state(self, P: int) -> dqn.State:
        capacity = self.replay_capacity(self.config, self.budget) // self.fixed.N
        dtype = self.env.observation_dtype.type
        purposes, saved = len(streams.PURPOSES), self.has_register
        return dqn.make_state(P, self.fixed, capacity, dtype, purposes, saved)

    def _make_memory(self, places: int, largest: int) -> dqn.Memory:
        return dqn.make_memory(self.fixed, largest, len(self.env.physics))

    def happen(self, state: dqn.State, values: Values) -> dict[str, NDArray[np.bool_]]:
        """Let the events of this decision happen."""
        replaying.clear(state, np.flatnonzero(values["clear_replay"]), self.fixed.N)
        return super().happen(state, values)

    def _leave_episodes(self, state: dqn.State) -> None:
        replaying.leave_episodes(state, self.fixed.N)
        state.held_steps[...] = 0

    # -- batches for others -----------------------------------------------------

    def probe(
        self, state: dqn.State, values: Values, keys: streams.UInts, B: int
    ) -> tuple[NDArray[Any], ...]:
        """A batch of every member from its replay, which it leaves as it is.

        Args:
            state: of the population; not changed.
            values: applied hyperparameters.
            keys: ``(P,)``; the draw has the number of the member's steps.
            B: transitions.

        Returns:
            Arrays ``(P, B, …)`` as in :class:`dacrl_env.algorithms.dqn.Batch`.
        """
        P, inputs = len(keys), int(self.fixed.net.sizes[0])
        run, memory = self._run(state, values), self._make_memory(1, B)
        seen, following = np.empty((2, P, B, inputs), np.float32)
        columns, actions = np.empty((4, P, B), np.float32), np.empty((P, B), np.int64)
        for p in range(P):
            dqn.batch_of(p, keys[p], B, run, memory)
            seen[p], following[p] = memory.inputs[:B], memory.next_inputs[:B]
            actions[p] = memory.taken[:B, 0]
            columns[:, p] = memory.columns.ravel()[: 4 * B].reshape(4, B)
        returns, discounts, weights, _ = columns
        return seen, actions, returns, following, discounts, weights

    def greedy_changes(
        self,
        state: dqn.State,
        values: Values,
        members: Ints,
        keys: streams.UInts,
        B: int,
        updates: int,
    ) -> Floats:
        """How many best actions change in further updates of forks.

        A fork is a copy of a member that learns on from its replay as it is, with
        batches of its own.

        Args:
            state: of the population; not changed.
            values: applied hyperparameters.
            members: ``(m,)``, with something in their replay.
            keys: ``(P, 2)``, for the states that are looked at, and for the batches.
            B: states, drawn from the replay, all as likely.
            updates: gradient steps of a fork.

        Returns:
            Shares ``(m,)`` of the states.
        """
        fork = _forked(state)
        fork.keys[:, dqn.REPLAY] = keys[:, 1]
        before, after = np.empty((2, len(members), B), np.int64)
        run, threads = self._run(fork, values), self._threads(len(members))
        largest = max(B, int(values["batch_size"].max()))
        memories = [self._make_memory(1, largest) for _ in range(threads)]

        def work(thread: int, i: int) -> None:
            p, memory, left = int(members[i]), memories[thread], updates
            dqn_fork.best_of_batch(p, keys[p, 0], B, run, memory, before[i])
            while left > 0:
                left -= dqn_fork.learn_on(p, left, _PIECE, run, memory)
            dqn_fork.best_of_batch(p, keys[p, 0], B, run, memory, after[i])

        with announced(f"forks of {self.title}"):
            spread(range(len(members)), work, threads)
        return np.asarray((before != after).mean(1))


def _forked(state: dqn.State) -> Any:
    """A copy that may learn; transitions, which no update writes to, are shared."""
    fork = snapshot.take_rows(state, slice(None))
    snapshot.replace_leaves(fork, lambda n, x: x if n in _SHARED else x.copy())
    return fork
