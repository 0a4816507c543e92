"""A model of Stable-Baselines3 that its user trains, as a learner of one member.

The model's own ``learn`` goes on as it is. A `Follower` stands in the places where
rollouts and gradient steps are asked for, to take note of them, to set hyperparameters
between them, and to cut rollouts where somebody wants to look. What a population asks
of a learner follows from the model as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import (
    RolloutReturn,
    TrainFreq,
    TrainFrequencyUnit,
)
from torch import Tensor

from dacrl_env.algorithms.interval import Interval, begin
from dacrl_env.algorithms.sb3 import dqn_model, ppo_model, sac_model, setters
from dacrl_env.algorithms.sb3.members import hyperparameters_of, signals
from dacrl_env.algorithms.sb3.off_policy import newest_alone
from dacrl_env.algorithms.sb3.rows import to_row
from dacrl_env.algorithms.sb3.updates import DivergedError, Updates
from dacrl_env.core import streams
from dacrl_env.core.isolation import globals_kept, inner_context
from dacrl_env.learners.protocol import Values
from dacrl_env.tasks.registration import load_learner

MODELS: dict[str, ModuleType] = {"dqn": dqn_model, "ppo": ppo_model, "sac": sac_model}
_PATCHED = ("collect_rollouts", "train", "_excluded_save_params")

Play = Callable[
    [streams.UInts, NDArray[np.float64], NDArray[np.int64]],
    tuple[NDArray[np.float64], NDArray[np.int64]],
]


@dataclass
class State:
    """What is known of the run, beside what the model keeps."""

    parameters: Tensor  # (1, row) when last looked at
    keys: streams.UInts  # (1, purposes)
    env_steps: NDArray[np.int64]  # (1,) since the run began
    gradient_steps: NDArray[np.int64]  # (1,)


class Follower:
    """A user's model as a learner, which others train.

    Args:
        model: of Stable-Baselines3.
        algorithm: its name here.
        env: what the inner environment is like.
        play: returns ``(1, E)`` of evaluation episodes and steps ``(1,)``, for keys
            ``(1, E)``, constants ``(1, K)`` and steps taken ``(1,)``.
        controlled: names of the hyperparameters that are set.
    """

    num_threads = 1
    exact_snapshots = False

    def __init__(
        self,
        model: Any,
        algorithm: str,
        env: Any,
        play: Play,
        controlled: tuple[str, ...],
    ) -> None:
        kind = load_learner(algorithm, "sb3")
        self.signal_names, self.signal_units = kind.signal_names, kind.signal_units
        self.constrain = kind.constrain
        self.samples_per_step = kind.samples_per_step
        self.model, self.env, self.controlled = model, env, controlled
        self.own: ModuleType = MODELS[algorithm]
        self.state: State | None = None
        self.interval: Interval | None = None
        self._play = play
        self._row: Mapping[str, float] = {}
        self._stops: list[Callable[[], None]] = []
        self._since_train = 0  # calls of the environments since the training event
        self._began_at = 0  # the model's steps
        training = model.policy.training
        with globals_kept(), torch.enable_grad():
            model.policy.set_training_mode(False)
            self._flops = self.own.count_flops(model)
            model.policy.set_training_mode(training)

    # -- as a learner -------------------------------------------------------------

    def flops(self, values: Values) -> tuple[int, NDArray[np.float64]]:
        """Floating-point operations per action, and ``(1,)`` per sample of updates."""
        act, sample = self._flops
        return act, np.full(len(values["gamma"]), float(sample))

    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> State:
        """The run before its first step; the model is as it is."""
        self.state = State(
            parameters=self._parameters(),
            keys=keys.copy(),
            env_steps=np.zeros(1, np.int64),
            gradient_steps=np.zeros(1, np.int64),
        )
        return self.state

    def restart(
        self,
        state: State,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """A new run begins where the model is."""
        state.keys[members] = keys
        state.env_steps[:] = state.gradient_steps[:] = 0
        self._began_at = self.model.num_timesteps

    def happen(self, state: State, values: Values) -> dict[str, NDArray[np.bool_]]:
        """There are no events."""
        return {}

    @inner_context()
    def play(
        self,
        state: State,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns ``(1, E)`` of evaluation episodes and steps ``(1,)`` they took."""
        training = self.model.policy.training
        with globals_kept(), np.errstate(all="ignore"):
            played = self._play(keys, physics, state.env_steps // self.model.n_envs)
        self.model.policy.set_training_mode(training)
        return played

    def begin_interval(self, state: State) -> Interval:
        """Empty sums for the time until the next decision."""
        self.interval = begin(self._parameters().numpy().copy(), self.own.SUMS)
        return self.interval

    def diverged(self, state: State, interval: Interval) -> NDArray[np.bool_]:
        """Whether ``(1,)`` a loss, gradient or parameter is not finite."""
        state.parameters = self._parameters()
        return interval.not_finite(state.parameters.numpy())

    @inner_context()
    def signals(
        self, state: State, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells ``(1,)``, by ``signal_names``."""
        state.parameters = self._parameters()
        row, training = hyperparameters_of(values, 0), self.model.policy.training
        # nothing of the model's random numbers is used up
        with globals_kept(), np.errstate(all="ignore"):
            self.model.policy.set_training_mode(False)
            probed = self.own.probe(self.model, row)
            self.model.policy.set_training_mode(training)
        return signals(state, interval, self.own.SUMS, [probed])

    def train(self, state: State, values: Values, steps: int, interval: Any) -> None:
        """Not supported: the model's own ``learn`` does.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the model trains itself; nobody else can step this run")

    def close(self, state: State) -> None:
        """There is nothing to close."""

    def _parameters(self) -> Tensor:
        tensors = self.own.trained(self.model)
        return to_row(t.detach().cpu() for t in tensors)[None].clone()

    # -- following ------------------------------------------------------------------

    def apply(self, values: Values) -> None:
        """Set the controlled hyperparameters of the model to values ``(1,)``."""
        self._row = hyperparameters_of(values, 0)
        setters.apply(self.model, self.own.SETTERS, self._row, self.controlled)

    def attach(self, decide: Callable[[], int | None]) -> None:
        """Stand in the model's way until `detach`.

        Args:
            decide: called between rollouts and where they are cut; says after how many
                environment steps of the model it wants to be called again, at the
                latest. None: never.
        """
        model = self.model
        detach(model)
        self._notes, stop = self.own.noted(model)
        self._updates = Updates(self.own.optimizers(model)[0])
        self._stops = [stop, self._updates.remove]
        if "replay_window" in self.controlled:
            self._stops.append(newest_alone(model.replay_buffer))
        off_policy = isinstance(model, OffPolicyAlgorithm)
        collect = self._collect if off_policy else self._collect_whole
        self._decide = decide
        self._collect_rollouts, self._train = model.collect_rollouts, model.train
        self._excluded = model._excluded_save_params
        for name, wrapper in zip(
            _PATCHED, (collect, self._learn, self._not_saved), strict=True
        ):
            setattr(model, name, _Standing(self, wrapper))

    def detach(self) -> None:
        """Leave the model as any other; values that were set stay."""
        for name in _PATCHED:
            vars(self.model).pop(name, None)
        for stop in self._stops:
            stop()
        self._stops = []

    def count(self) -> None:
        """Take note of how far the model has come."""
        assert self.state is not None
        self.state.env_steps[:] = self.model.num_timesteps - self._began_at

    def _not_saved(self) -> list[str]:
        """Attributes that ``model.save`` leaves out."""
        return [*self._excluded(), *_PATCHED]

    def _collect_whole(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of ``OnPolicyAlgorithm.collect_rollouts``."""
        self._decide()
        return self._collect_rollouts(*args, **kwargs)

    def _collect(
        self, env: Any, callback: Any, train_freq: TrainFreq, *args: Any, **kwargs: Any
    ) -> RolloutReturn:
        """In the place of ``OffPolicyAlgorithm.collect_rollouts``.

        Until the next training event; where somebody wants to look before, the rollout
        is left unfinished, and goes on afterwards with what is then set.
        """
        model = self.model
        steps = episodes = 0
        while True:
            left = self._decide()
            # what is given was read before the decision
            every: TrainFreq = model.train_freq
            by_episode = every.unit == TrainFrequencyUnit.EPISODE
            if not by_episode:
                # not beyond what `learn` was asked for: it would be no whole rollout
                end = max(model._total_timesteps - model.num_timesteps, 1)
                most = -(-(end if left is None else min(left, end)) // env.num_envs)
                calls = min(max(every.frequency - self._since_train, 1), most)
                every = TrainFreq(calls, TrainFrequencyUnit.STEP)
            part = self._collect_rollouts(env, callback, every, *args, **kwargs)
            steps += part.episode_timesteps
            episodes += part.n_episodes
            if not part.continue_training or by_episode:
                return RolloutReturn(steps, episodes, part.continue_training)
            self._since_train += calls
            if self._since_train >= model.train_freq.frequency:
                self._since_train = 0
                return RolloutReturn(steps, episodes, True)
            if model.num_timesteps >= model._total_timesteps:
                return RolloutReturn(steps, episodes, False)  # no training event

    def _learn(self, *args: Any, **kwargs: Any) -> None:
        """In the place of ``train``: gradient steps are counted and summed up."""
        model, state = self.model, self.state
        if self.interval is None or state is None:
            self._train(*args, **kwargs)
            return
        self._notes.clear()
        samples = functools.partial(self.own.samples, model)
        counted = self._updates.counted
        setting = self.own.learning(model, self._row)
        with setting, counted(0, state.gradient_steps, self.interval, samples):
            self._train(*args, **kwargs)
        means = self.own.means(model, self._notes)
        try:
            self._updates.record(0, self.interval, self.own.SUMS, means)
        except DivergedError:
            self.interval.sums[0] = np.nan


class _Standing:
    """A method in the place of a model's own, until it fails."""

    def __init__(self, follower: Follower, method: Callable[..., Any]) -> None:
        self.follower = follower
        self.method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.method(*args, **kwargs)
        except BaseException:
            # `learn` ends here, without telling its callbacks
            self.follower.detach()
            raise


def detach(model: Any) -> None:
    """Remove a follower of a model, if it has one."""
    standing = vars(model).get(_PATCHED[0])
    if isinstance(standing, _Standing):
        standing.follower.detach()
