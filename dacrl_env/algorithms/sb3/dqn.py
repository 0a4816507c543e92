"""Stable-Baselines3's DQN as a learner.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature
518), in the implementation of Raffin et al. 2021 (JMLR 22).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.algorithms.interval import Interval, begin
from dacrl_env.algorithms.sb3 import arguments, dqn_model, off_policy, setters
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.algorithms.sb3.members import (
    Members,
    hyperparameters_of,
    signals,
)
from dacrl_env.algorithms.sb3.off_policy import OffPolicy, State
from dacrl_env.core import streams
from dacrl_env.core.isolation import globals_kept, inner_context
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.learners import dqn, events
from dacrl_env.learners.dqn import Values
from dacrl_env.learners.protocol import close_envs, reseed_envs, steady
from dacrl_env.tasks import Option

_SUMS = dqn_model.SUMS
_OURS = {
    **off_policy.OURS,
    "max_grad_norm": "hyperparameter max_grad_norm",
    "target_update_interval": "hyperparameter target_update_interval",
    "exploration_fraction": "hyperparameter epsilon",
    "exploration_initial_eps": "hyperparameter epsilon",
    "exploration_final_eps": "hyperparameter epsilon",
}
_WITHOUT = {
    "normalize_observations": arguments.NOT_NORMALISED,
    "fourier_features": 'Stable-Baselines3 has none; implementation="compiled" does',
}


# -- configuration ---------------------------------------------------------------


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
    samples_per_step = staticmethod(dqn.DQN.samples_per_step)
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
        self.num_threads = 1
        n_step = int(steady(self.hyperparameters, given)["n_step"])
        off_policy.check_n_step(stable_baselines3.DQN, n_step)
        self.members = Members(
            env,
            eval_env,
            config.num_inner_envs,
            budget,
            build=functools.partial(_build, config, n_step),
            trained=dqn_model.trained,
            optimizers=dqn_model.optimizers,
        )
        self.off_policy = OffPolicy(
            self.members,
            target=lambda model: [*model.q_net_target.parameters()],
            rows=self.replay_capacity(config, budget) // config.num_inner_envs,
            n_step=n_step,
        )
        self.venv, self.model = self.members.venv, self.members.model
        with globals_kept(), torch.enable_grad():
            self._flops = dqn_model.count_flops(self.model)

    def flops(self, values: Values) -> tuple[int, NDArray[np.float64]]:
        """Floating-point operations per action, and ``(P,)`` per sample of updates."""
        act, sample = self._flops
        return act, np.full(len(values["gamma"]), float(sample))

    def happen(self, state: State, values: Values) -> dict[str, NDArray[np.bool_]]:
        """There are no events."""
        return {}

    # -- state ------------------------------------------------------------------

    @inner_context()
    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> State:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        return self.off_policy.init(keys, physics)

    @inner_context()
    def begin_episodes(self, state: State) -> None:
        """Leave the inner episodes that are under way and begin the next ones.

        The newest transitions become time-outs: they bootstrap, and returns end there.
        """
        self.off_policy.begin_episodes(state)

    @inner_context()
    def restart(
        self,
        state: State,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        self.off_policy.restart(state, members, keys, physics)

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
        state: State,
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

    def begin_interval(self, state: State) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters.numpy().copy(), _SUMS)

    @inner_context()
    def train(
        self, state: State, values: Values, steps: int, interval: Interval
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
        loop = self.off_policy
        loop.train(state, values, steps, interval, self._apply, self._update)

    def _apply(self, row: Mapping[str, float]) -> None:
        """Set the hyperparameters of the loaded member."""
        setters.apply(self.model, dqn_model.SETTERS, row, row)

    def _update(
        self, state: State, i: int, row: Mapping[str, float], interval: Interval
    ) -> None:
        """The gradient steps of one training event of the loaded member."""
        with self.off_policy.counted(state, i, interval) as model:
            model.train(model.gradient_steps, model.batch_size)
        self.members.updates.record(i, interval, _SUMS, dqn_model.means(model, []))

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: State, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters.numpy())

    @inner_context()
    def signals(
        self, state: State, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells of each member ``(P,)``, by ``signal_names``."""
        rows = [hyperparameters_of(values, i) for i in range(len(state.env_steps))]
        probes = [self._probe(state, i, row) for i, row in enumerate(rows)]
        return signals(state, interval, _SUMS, probes)

    def _probe(
        self, state: State, i: int, row: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Temporal-difference error and values of a sample of a member's replay."""
        with self.off_policy.loaded(state, i) as model, torch.no_grad():
            model.policy.set_training_mode(False)
            self._apply(row)
            # the member's generators are loaded but not stored: nothing is used up
            return dqn_model.probe(model, row)


def _build(config: SB3DQNConfig, n_step: int, venv: MemberEnvs) -> Any:
    """A model; hyperparameters are set before it trains."""
    given = {
        "env": venv,
        # what is below the number of environments would be warned of
        "target_update_interval": max(config.num_inner_envs, 10_000),
        **arguments.of(config, venv.env),
    }
    return off_policy.build(stable_baselines3.DQN, config, n_step, given)
