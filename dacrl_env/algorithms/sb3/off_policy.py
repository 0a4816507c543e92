"""What Stable-Baselines3's algorithms with a replay share: DQN and SAC.

Their state is the same. A learner has an `OffPolicy` and hands it what is particular to
its algorithm, as it does with `members`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import Tensor

from dacrl_env.algorithms.interval import Interval
from dacrl_env.algorithms.sb3 import arguments, off_policy_model
from dacrl_env.algorithms.sb3.members import Members, hyperparameters_of
from dacrl_env.algorithms.sb3.rows import OptimizerState, from_row, to_row
from dacrl_env.core import random_state, streams

OURS = {
    **arguments.OURS,
    "buffer_size": "replay_capacity",
    "learning_starts": "learning_starts",
    "n_steps": "hyperparameter n_step",
    "tau": "hyperparameter tau",
    "train_freq": "hyperparameter train_freq",
    "gradient_steps": "hyperparameter gradient_steps",
    # the contents of a replay must be part of the state
    "replay_buffer_class": "this learner",
    "replay_buffer_kwargs": "this learner",
    "optimize_memory_usage": "this learner",
}


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
class State:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: Tensor  # (P, row) that the optimisers change
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


class OffPolicy:
    """Members with a replay and target networks.

    ``train_freq`` counts environment steps, as everywhere in this package:
    Stable-Baselines3's own counts steps of all N environments together.

    Args:
        members: of the learner.
        target: the parameters of a model's target networks.
        rows: of the replay, C.
        n_step: of returns, the same in a whole run.
    """

    def __init__(
        self,
        members: Members,
        target: Callable[[Any], list[Tensor]],
        rows: int,
        n_step: int,
    ) -> None:
        self.members = members
        self.N = members.N
        self.rows = rows
        self.n_step = n_step
        self._target = target

    # -- state ------------------------------------------------------------------

    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> State:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        P, model = len(keys), self.members.model
        arrays = {}
        for f in fields(Replay):
            one = getattr(model.replay_buffer, f.name)  # (1, N, …)
            arrays[f.name] = np.zeros((P, self.rows, *one.shape[1:]), one.dtype)
        state = State(
            **self.members.allocate(keys, physics),
            target=to_row(self._target(model)).repeat(P, 1),
            replay=Replay(**arrays),
            since_train=np.zeros(P, np.int64),
        )
        self._begin(state, np.arange(P))
        return state

    def begin_episodes(self, state: State) -> None:
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

    def restart(
        self,
        state: State,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        self.members.restart_envs(state, members, keys, physics)
        self._begin(state, members)

    def _begin(self, state: State, members: NDArray[np.int64]) -> None:
        for i in members:
            model = self.members.begin(state, i)
            state.target[i] = to_row(self._target(model))
            state.since_train[i] = 0

    @contextmanager
    def loaded(self, state: State, i: int) -> Iterator[Any]:
        """The model as member ``i`` left it; nothing but the replay is stored."""
        with self.members.loaded(state, i) as model:
            from_row(self._target(model), state.target[i])
            buffer = model.replay_buffer
            # the buffer writes into the state: there is no copy of the replay
            for f in fields(Replay):
                setattr(buffer, f.name, getattr(state.replay, f.name)[i])
            written = model.num_timesteps // self.N
            buffer.buffer_size = self.rows
            buffer.pos, buffer.full = written % self.rows, written >= self.rows
            model._n_calls = written
            yield model

    # -- train ------------------------------------------------------------------

    def train(
        self,
        state: State,
        values: Mapping[str, NDArray[np.float64]],
        steps: int,
        interval: Interval,
        apply: Callable[[Mapping[str, float]], None],
        update: Callable[[State, int, Mapping[str, float], Interval], None],
    ) -> None:
        """Train every member for ``steps`` environment steps, one after the other.

        A member that has diverged takes its remaining steps without learning, so that
        budgets stay exact.

        Args:
            state: changed in place.
            values: applied hyperparameters.
            steps: a multiple of N.
            interval: sums, changed in place.
            apply: sets hyperparameters of the loaded member.
            update: takes the gradient steps of one training event of the loaded member.
        """
        for i in range(len(state.env_steps)):
            row = hyperparameters_of(values, i)
            with self.loaded(state, i) as model:
                apply(row)
                event = functools.partial(update, state, i, row, interval)
                advance = functools.partial(self._advance, state, i, row, event)
                self.members.stretch(state, i, steps, interval, advance)
                state.target[i] = to_row(self._target(model))

    def _advance(
        self,
        state: State,
        i: int,
        row: Mapping[str, float],
        event: Callable[[], None],
        end: int,
    ) -> None:
        """Collect and learn with the loaded member until step ``end``.

        The loop of ``OffPolicyAlgorithm.learn``, where a rollout may be left
        unfinished.
        """
        model, every = self.members.model, int(row["train_freq"])
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
                event()

    @contextmanager
    def counted(self, state: State, i: int, interval: Interval) -> Iterator[Any]:
        """Count the gradient steps that the loaded member takes within."""
        model, updates = self.members.model, self.members.updates
        samples = functools.partial(off_policy_model.samples, model)
        with updates.counted(i, state.gradient_steps, interval, samples):
            yield model


# -- functions of models -----------------------------------------------------------


def check_n_step(algorithm: type, n_step: int) -> None:
    """Raise a ValueError if the installed version has no such returns."""
    if n_step > 1 and "n_steps" not in arguments.names(algorithm):
        import stable_baselines3

        raise ValueError(
            f'n_step={n_step} with implementation="sb3" needs stable-baselines3 2.7 or '
            f"newer, this is {stable_baselines3.__version__}; valid: 1"
        )


def build(
    algorithm: Callable[..., Any],
    config: Any,
    n_step: int,
    given: Mapping[str, Any],
) -> Any:
    """A model with memory for one row of the replay: the state has the memory.

    Args:
        algorithm: of Stable-Baselines3.
        config: of the learner.
        n_step: of returns.
        given: the other arguments.
    """
    longer = {"n_steps": n_step} if n_step > 1 else {}
    model = algorithm(
        buffer_size=config.num_inner_envs,
        learning_starts=config.learning_starts,
        **longer,
        **given,
    )
    newest_alone(model.replay_buffer)
    return model


def newest_alone(buffer: Any) -> Callable[[], None]:
    """Draw batches from the newest ``buffer.window`` rows of a replay buffer.

    Returns:
        What has all rows drawn from again.
    """
    buffer.sample = functools.partial(_sample_newest, buffer, buffer.sample)

    def stop() -> None:
        del buffer.sample

    return stop


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
