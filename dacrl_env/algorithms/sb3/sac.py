"""Stable-Baselines3's SAC as a learner.

Haarnoja et al. 2018, "Soft actor-critic algorithms and applications" (arXiv
1812.05905), in the implementation of Raffin et al. 2021 (JMLR 22).
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
from dacrl_env.algorithms.sb3 import arguments, off_policy, sac_model, setters
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
from dacrl_env.learners import events, sac
from dacrl_env.learners.protocol import Values, close_envs, reseed_envs, steady
from dacrl_env.tasks import Option

_SUMS = sac_model.SUMS
_OURS = {
    **off_policy.OURS,
    "ent_coef": "hyperparameters ent_rule and alpha",
    "target_entropy": "hyperparameter target_entropy",
    # it has a state, which would be no part of a run
    "action_noise": "nobody: the actor explores",
}


# -- configuration ------------------------------------------------------------------


@dataclass(frozen=True)
class SB3SACConfig(sac.SACConfig):
    """What sets shapes; fixed for the life of a population.

    As :class:`~dacrl_env.learners.sac.SACConfig`. Of hyperparameters, Stable-Baselines3
    has n-step returns (from version 2.7) whose length stays the same in a run, but no
    prioritised replay; it does not hold actions (``held_starts``).

    Args:
        sb3_kwargs: further arguments of ``stable_baselines3.SAC``: JSON values, and
            classes or functions, also by name as ``"module:name"``. ``policy_kwargs``
            go before ``hidden_sizes`` and ``activation``. The temperature's optimiser
            is Adam whatever they say.

    Raises:
        ValueError: an argument that does not exist, that is set elsewhere, or that has
            no name; ``held_starts`` other than 1.
    """

    sb3_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_starts != 1:
            raise ValueError(
                "Stable-Baselines3's SAC does not hold actions; set held_starts to 1, "
                f"got {self.held_starts}"
            )
        arguments.check(self, stable_baselines3.SAC, _OURS)


# -- the learner --------------------------------------------------------------------


class SB3SAC:
    """``stable_baselines3.SAC`` over a population.

    ``train_freq`` counts environment steps, as everywhere in this package:
    Stable-Baselines3's own counts steps of all N environments together. Parameters
    are those of critics and actor, and the logarithm of the temperature. A temperature
    that is set takes its place, so that a learned one goes on from there.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices, see :class:`SB3SACConfig`.
        budget: inner environment steps of a run.
        given: values of the hyperparameters that no action sets; None: all are at
            their default.

    Raises:
        ValueError: an inner environment whose actions have no finite bounds; an
            optimiser whose state cannot be kept; ``n_step`` above 1 where the installed
            version lacks it.
    """

    hyperparameters = sac.HYPERPARAMETERS
    controlled = sac.CONTROLLED
    only: ClassVar[Mapping[str, Option]] = {"priority_alpha": 0.0, **events.NONE}
    unchanging = ("n_step",)
    signal_names = sac.SIGNALS
    signal_units = sac.SIGNAL_UNITS
    config_class = SB3SACConfig
    continuous_actions = True
    exact_snapshots = False  # a user's policy may hold more than parameters
    granularity = staticmethod(sac.SAC.granularity)
    replay_capacity = staticmethod(sac.SAC.replay_capacity)
    constrain = staticmethod(sac.SAC.constrain)
    samples_per_step = staticmethod(sac.SAC.samples_per_step)
    member_bytes = staticmethod(sac.SAC.member_bytes)

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: SB3SACConfig,
        budget: int,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.config = config
        self.num_threads = 1
        sac.check_actions(env)
        n_step = int(steady(self.hyperparameters, given)["n_step"])
        off_policy.check_n_step(stable_baselines3.SAC, n_step)
        self.members = Members(
            env,
            eval_env,
            config.num_inner_envs,
            budget,
            build=functools.partial(_build, config, n_step),
            trained=sac_model.trained,
            optimizers=sac_model.optimizers,
        )
        self.off_policy = OffPolicy(
            self.members,
            target=lambda model: [*model.critic_target.parameters()],
            rows=self.replay_capacity(config, budget) // config.num_inner_envs,
            n_step=n_step,
        )
        self.venv, self.model = self.members.venv, self.members.model
        self._notes, _ = sac_model.noted(self.model)
        with globals_kept(), torch.enable_grad():
            self._flops = sac_model.count_flops(self.model)

    def flops(self, values: Values) -> tuple[int, NDArray[np.float64]]:
        """Floating-point operations per action, and ``(P,)`` per sample of updates.

        Those that Stable-Baselines3 does: the actor's loss is passed back through all
        of both critics, though only its gradient by the actions is used.
        """
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
        setters.apply(self.model, sac_model.SETTERS, row, row)

    def _update(
        self, state: State, i: int, row: Mapping[str, float], interval: Interval
    ) -> None:
        """The gradient steps of one training event of the loaded member."""
        model = self.model
        self._notes.clear()
        with (
            sac_model.learning(model, row),
            self.off_policy.counted(state, i, interval),
        ):
            model.train(model.gradient_steps, model.batch_size)
        means = sac_model.means(model, self._notes)
        self.members.updates.record(i, interval, _SUMS, means)

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
        """Temporal-difference error and values of a sample of a member's replay.

        Those of the first critic; NaN of a member whose actor has no distribution.
        """
        with self.off_policy.loaded(state, i) as model, torch.no_grad():
            model.policy.set_training_mode(False)
            self._apply(row)
            # the member's generators are loaded but not stored: nothing is used up
            return sac_model.probe(model, row)


# -- functions of models --------------------------------------------------------


def _build(config: SB3SACConfig, n_step: int, venv: MemberEnvs) -> Any:
    """A model; hyperparameters are set before it trains."""
    given = {"env": venv, "ent_coef": "auto", **arguments.of(config, venv.env)}
    return off_policy.build(stable_baselines3.SAC, config, n_step, given)
