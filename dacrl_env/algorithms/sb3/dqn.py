"""Stable-Baselines3's DQN as a learner.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature
518), in the implementation of Raffin et al. 2021 (JMLR 22).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dacrl_env.algorithms.interval import Interval, begin
from dacrl_env.algorithms.sb3 import arguments
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.algorithms.sb3.members import (
    Members,
    apply_shared,
    constant,
    hyperparameters_of,
    one_observation,
    signals,
)
from dacrl_env.algorithms.sb3.rows import OptimizerState, from_row, to_row
from dacrl_env.core import random_state, streams
from dacrl_env.core.isolation import globals_kept, inner_context
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.learners import dqn, events
from dacrl_env.learners.dqn import Values
from dacrl_env.learners.protocol import close_envs, reseed_envs, steady
from dacrl_env.tasks import Option

_SUMS = ("loss", "grad_norm")
_PROBE_BATCH = 256  # transitions the signals of an interval are computed from
_OURS = {
    **arguments.OURS,
    "buffer_size": "replay_capacity",
    "learning_starts": "learning_starts",
    "n_steps": "hyperparameter n_step",
    "tau": "hyperparameter tau",
    "train_freq": "hyperparameter train_freq",
    "gradient_steps": "hyperparameter gradient_steps",
    "target_update_interval": "hyperparameter target_update_interval",
    "exploration_fraction": "hyperparameter epsilon",
    "exploration_initial_eps": "hyperparameter epsilon",
    "exploration_final_eps": "hyperparameter epsilon",
    # the contents of a replay must be part of the state
    "replay_buffer_class": "this learner",
    "replay_buffer_kwargs": "this learner",
    "optimize_memory_usage": "this learner",
}


_WITHOUT = {
    "normalize_observations": arguments.NOT_NORMALISED,
    "fourier_features": 'Stable-Baselines3 has none; implementation="compiled" does',
}


# -- configuration and state ------------------------------------------------------


@dataclass(frozen=True)
class SB3DQNConfig(dqn.DQNConfig):
    """What sets shapes; fixed for the life of a population.

    As :class:`~dacrl_env.learners.dqn.DQNConfig`. Of hyperparameters, Stable-Baselines3
    has n-step returns (from version 2.7) whose length stays the same in a run, but no
    double Q-learning. On a task that sets ``double_q`` it must be switched off:
    ``gymnasium.make(task, implementation="sb3", fixed={"double_q": False})``. Its
    target network is set at the multiples of ``target_update_interval``, counted from
    the start of the run, not that many steps after the last time.

    Args:
        sb3_kwargs: further arguments of ``stable_baselines3.DQN``: JSON values, and
            classes or functions, also by name as ``"module:name"``. ``policy_kwargs``
            go before ``hidden_sizes`` and ``activation``.

    Raises:
        ValueError: normalised observations, which Stable-Baselines3 leaves to an
            environment wrapper; Fourier features, which it does not have; or an
            argument that does not exist, that is set elsewhere, or that has no name.
    """

    sb3_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, why in _WITHOUT.items():
            arguments.refuse(self, name, why)
        arguments.check(self, stable_baselines3.DQN, _OURS)


@dataclass
class Replay:
    """The arrays of Stable-Baselines3's replay buffers ``(P, C, N, …)``."""

    observations: NDArray[Any]
    next_observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    dones: NDArray[np.float32]
    timeouts: NDArray[np.float32]


@dataclass
class SB3DQNState:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: Tensor  # (P, row) that the optimiser changes
    buffers: NDArray[np.float64]  # (P, …) of the policy's modules, e.g. batch norms
    optimizer: OptimizerState
    generators: random_state.Generators
    envs: Any  # state of the inner environments, P × N
    keys: streams.UInts  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    target: Tensor  # (P, row)
    replay: Replay
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event


# -- the learner --------------------------------------------------------------------


class SB3DQN:
    """``stable_baselines3.DQN`` over a population.

    ``train_freq`` counts environment steps, as everywhere in this package:
    Stable-Baselines3's own counts steps of all N environments together.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices, see :class:`SB3DQNConfig`.
        budget: inner environment steps of a run.
        given: values of the hyperparameters that no action sets; None: all are at
            their default.

    Raises:
        ValueError: an optimiser whose state cannot be kept; ``n_step`` above 1 where
            the installed version lacks it.
    """

    hyperparameters = dqn.HYPERPARAMETERS
    controlled = dqn.CONTROLLED
    only: ClassVar[Mapping[str, Option]] = {
        "double_q": False,
        "loss": "huber",
        "q_regularisation": 0.0,
        "priority_alpha": 0.0,
        "exploration": "epsilon-greedy",
        **events.NONE,
    }
    unchanging = ("n_step",)
    signal_names = dqn.SIGNALS
    signal_units = dqn.SIGNAL_UNITS
    config_class = SB3DQNConfig
    continuous_actions = False
    exact_snapshots = False  # a user's policy may hold more than parameters
    granularity = staticmethod(dqn.DQN.granularity)
    replay_capacity = staticmethod(dqn.DQN.replay_capacity)
    constrain = staticmethod(dqn.DQN.constrain)
    member_bytes = staticmethod(dqn.DQN.member_bytes)

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: SB3DQNConfig,
        budget: int,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.config = config
        self.n_step = int(steady(self.hyperparameters, given)["n_step"])
        _check_n_step(self.n_step)
        self.num_threads = 1
        self.N = config.num_inner_envs
        self.rows = self.replay_capacity(config, budget) // self.N
        self.members = Members(
            env,
            eval_env,
            self.N,
            budget,
            build=functools.partial(_build, config, self.n_step),
            trained=lambda model: [*model.q_net.parameters()],
        )
        self.venv, self.model = self.members.venv, self.members.model
        with globals_kept(), torch.enable_grad():
            self._flops = _count_flops(self.model)

    def flops(self, values: Values) -> tuple[int, NDArray[np.float64]]:
        """Floating-point operations per action, and ``(P,)`` per sample of updates."""
        act, sample = self._flops
        return act, np.full(len(values["gamma"]), float(sample))

    def happen(
        self, state: SB3DQNState, values: Values
    ) -> dict[str, NDArray[np.bool_]]:
        """There are no events."""
        return {}

    # -- state ------------------------------------------------------------------

    @inner_context()
    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> SB3DQNState:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        P, buffer = len(keys), self.model.replay_buffer
        arrays = {}
        for f in fields(Replay):
            one = getattr(buffer, f.name)  # (1, N, …)
            arrays[f.name] = np.zeros((P, self.rows, *one.shape[1:]), one.dtype)
        state = SB3DQNState(
            **self.members.allocate(keys, physics),
            target=to_row(self.model.q_net_target.parameters()).repeat(P, 1),
            replay=Replay(**arrays),
            since_train=np.zeros(P, np.int64),
        )
        self._begin(state, np.arange(P))
        return state

    @inner_context()
    def begin_episodes(self, state: SB3DQNState) -> None:
        """Leave the inner episodes that are under way and begin the next ones.

        The newest transitions become time-outs: they bootstrap, and returns end there.
        """
        self.members.env.begin_episodes(state.envs)
        written = state.env_steps // self.N
        begun = np.flatnonzero(written)
        newest = (written[begun] - 1) % self.rows
        replay = state.replay
        under_way = replay.dones[begun, newest] == 0
        replay.timeouts[begun, newest] += under_way
        replay.dones[begun, newest] = 1.0

    @inner_context()
    def restart(
        self,
        state: SB3DQNState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        self.members.restart_envs(state, members, keys, physics)
        self._begin(state, members)

    def _begin(self, state: SB3DQNState, members: NDArray[np.int64]) -> None:
        for i in members:
            model = self.members.begin(state, i)
            state.target[i] = to_row(model.q_net_target.parameters())
            state.since_train[i] = 0

    @contextmanager
    def _member(self, state: SB3DQNState, i: int) -> Iterator[Any]:
        """The model as member ``i`` left it; nothing but the replay is stored."""
        with self.members.loaded(state, i) as model:
            from_row(model.q_net_target.parameters(), state.target[i])
            buffer = model.replay_buffer
            # the buffer writes into the state: there is no copy of the replay
            for f in fields(Replay):
                setattr(buffer, f.name, getattr(state.replay, f.name)[i])
            written = model.num_timesteps // self.N
            buffer.buffer_size = self.rows
            buffer.pos, buffer.full = written % self.rows, written >= self.rows
            model._n_calls = written
            yield model

    def reseed(self, state: Any, members: Any, marks: Any) -> None:
        """Give members' inner environments streams that no other draws from."""
        reseed_envs(self.members.env, state, members, marks)

    def close(self, state: Any) -> None:
        """Close inner environments that are objects."""
        close_envs(self.members.env, self.members.eval_env, state)

    # -- act --------------------------------------------------------------------

    @inner_context()
    def play(
        self,
        state: SB3DQNState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns ``(m, E)`` of evaluation episodes and steps ``(m,)`` they took.

        Args:
            state: of the population; not changed.
            members: ``(m,)``.
            keys: ``(m, E)`` of the episodes.
            physics: ``(m, K)``.
        """
        return self.members.play(state, members, keys, physics)

    # -- train ------------------------------------------------------------------

    def begin_interval(self, state: SB3DQNState) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters.numpy().copy(), _SUMS)

    @inner_context()
    def train(
        self, state: SB3DQNState, values: Values, steps: int, interval: Interval
    ) -> None:
        """Train every member for ``steps`` environment steps, one after the other.

        A member that has diverged takes its remaining steps without learning, so that
        budgets stay exact.

        Args:
            state: changed in place.
            values: applied hyperparameters.
            steps: a multiple of what `granularity` says.
            interval: sums, changed in place.
        """
        for i in range(len(state.env_steps)):
            row = hyperparameters_of(values, i)
            with self._member(state, i) as model:
                self._apply(model, row)
                advance = functools.partial(self._advance, state, i, row, interval)
                self.members.stretch(state, i, steps, interval, advance)
                state.target[i] = to_row(model.q_net_target.parameters())

    def _apply(self, model: Any, row: Mapping[str, float]) -> None:
        """Set the hyperparameters of the loaded member."""
        apply_shared(model, row)
        model.exploration_rate = row["epsilon"]
        model.exploration_schedule = constant(row["epsilon"])
        model.target_update_interval = int(row["target_update_interval"])
        calls = -(-int(row["train_freq"]) // self.N)
        model.train_freq = TrainFreq(calls, TrainFrequencyUnit.STEP)
        model.gradient_steps = int(row["gradient_steps"])
        model.replay_buffer.window = max(int(row["replay_window"]) // self.N, 1)
        model.tau = row["tau"]
        if self.n_step > 1:
            model.replay_buffer.gamma = row["gamma"]

    def _advance(
        self,
        state: SB3DQNState,
        i: int,
        row: Mapping[str, float],
        interval: Interval,
        end: int,
    ) -> None:
        """Collect and learn with the loaded member until step ``end``.

        The loop of ``OffPolicyAlgorithm.learn``, where a rollout may be left
        unfinished.
        """
        model, every = self.model, int(row["train_freq"])
        while model.num_timesteps < end:
            missing = max(every - int(state.since_train[i]), 1)
            calls = -(-min(missing, end - model.num_timesteps) // self.N)
            model.collect_rollouts(
                model.env,
                callback=self.members.callback,
                train_freq=TrainFreq(calls, TrainFrequencyUnit.STEP),
                replay_buffer=model.replay_buffer,
                learning_starts=model.learning_starts,
                log_interval=None,
            )
            state.since_train[i] += calls * self.N
            if state.since_train[i] < every:
                continue
            state.since_train[i] = 0
            if model.num_timesteps > model.learning_starts:
                self._update(state, i, interval)

    def _update(self, state: SB3DQNState, i: int, interval: Interval) -> None:
        """The gradient steps of one training event of the loaded member."""
        model, updates = self.model, self.members.updates

        def samples(steps: int) -> int:
            return steps * int(model.batch_size)

        with updates.counted(i, state.gradient_steps, interval, samples):
            model.train(model.gradient_steps, model.batch_size)
        loss = float(model.logger.name_to_value["train/loss"])
        updates.record(i, interval, _SUMS, {"loss": loss})

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: SB3DQNState, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters.numpy())

    @inner_context()
    def signals(
        self, state: SB3DQNState, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells of each member ``(P,)``, by ``signal_names``."""
        rows = [hyperparameters_of(values, i) for i in range(len(state.env_steps))]
        probes = [self._probe(state, i, row) for i, row in enumerate(rows)]
        return signals(state, interval, _SUMS, probes)

    def _probe(
        self, state: SB3DQNState, i: int, row: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Temporal-difference error and values of a sample of a member's replay."""
        with self._member(state, i) as model, torch.no_grad():
            model.policy.set_training_mode(False)
            self._apply(model, row)
            # the member's generators are loaded but not stored: nothing is used up
            batch = model.replay_buffer.sample(_PROBE_BATCH)
            following = model.q_net_target(batch.next_observations)
            following = following.amax(1, keepdim=True)
            discounts = getattr(batch, "discounts", None)
            discounts = row["gamma"] if discounts is None else discounts
            goal = batch.rewards + (1 - batch.dones) * discounts * following
            taken = model.q_net(batch.observations).gather(1, batch.actions.long())
            return {
                "td_error": (taken - goal).abs().mean(),
                "value_mean": taken.mean(),
                "value_std": taken.std(),
            }


def _check_n_step(n_step: int) -> None:
    """Raise a ValueError if the installed version has no such returns."""
    if n_step > 1 and "n_steps" not in arguments.names(stable_baselines3.DQN):
        raise ValueError(
            f'n_step={n_step} with implementation="sb3" needs stable-baselines3 2.7 or '
            f"newer, this is {stable_baselines3.__version__}; valid: 1"
        )


def _build(config: SB3DQNConfig, n_step: int, venv: MemberEnvs) -> Any:
    """A model with memory for one row of the replay: the state has the memory."""
    given = arguments.of(config, venv.env)
    if n_step > 1:
        given["n_steps"] = n_step
    model = stable_baselines3.DQN(
        env=venv,
        buffer_size=config.num_inner_envs,
        learning_starts=config.learning_starts,
        # what is below the number of environments would be warned of
        target_update_interval=max(config.num_inner_envs, 10_000),
        **given,
    )
    buffer: Any = model.replay_buffer
    buffer.sample = functools.partial(_sample_newest, buffer, buffer.sample)
    return model


def _sample_newest(
    buffer: Any, sample: Callable[..., Any], batch_size: int, env: Any = None
) -> Any:
    """A batch from the newest ``buffer.window`` rows of a replay buffer.

    Args:
        buffer: of Stable-Baselines3.
        sample: its own method, for a window that leaves nothing out.
        batch_size: transitions.
        env: normalises them, or None.
    """
    filled = buffer.buffer_size if buffer.full else buffer.pos
    if buffer.window >= filled:
        return sample(batch_size, env)
    # drawn as Stable-Baselines3 draws, from the generators that the member has loaded
    age = np.random.randint(0, buffer.window, size=batch_size)  # noqa: NPY002
    return buffer._get_samples((buffer.pos - 1 - age) % buffer.buffer_size, env)


def _count_flops(model: Any) -> tuple[int, int]:
    """Floating-point operations per action, and per sample of an update."""
    inputs = one_observation(model)
    with FlopCounterMode(display=False) as act:
        model.q_net(inputs)
    with FlopCounterMode(display=False) as learn:
        model.q_net_target(inputs)
        model.q_net(inputs).sum().backward()
    return act.get_total_flops(), learn.get_total_flops()
