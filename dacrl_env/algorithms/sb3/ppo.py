"""Stable-Baselines3's PPO as a learner.

Schulman et al. 2017, "Proximal policy optimization algorithms" (arXiv 1707.06347), in
the implementation of Raffin et al. 2021 (JMLR 22).
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
from dacrl_env.algorithms.sb3 import arguments, ppo_model, setters
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.algorithms.sb3.members import (
    Members,
    hyperparameters_of,
    signals,
)
from dacrl_env.algorithms.sb3.rows import OptimizerState
from dacrl_env.core import random_state, streams
from dacrl_env.core.isolation import globals_kept, inner_context
from dacrl_env.core.snapshot import take_rows
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.learners import events, ppo
from dacrl_env.learners.ppo import Values
from dacrl_env.learners.protocol import close_envs, reseed_envs
from dacrl_env.tasks import Option
from dacrl_env.tasks.backends import OF_LEVELS

_SUMS = ppo_model.SUMS
_OURS = {
    **arguments.OURS,
    "max_grad_norm": "hyperparameter max_grad_norm",
    "n_steps": "rollout_length",
    "n_epochs": "hyperparameter n_epochs",
    "gae_lambda": "hyperparameter gae_lambda",
    "clip_range": "hyperparameter clip_range",
    "clip_range_vf": "clip_range_vf",
    "normalize_advantage": "normalize_advantages",
    "ent_coef": "hyperparameter ent_coef",
    "vf_coef": "hyperparameter vf_coef",
    "target_kl": "hyperparameters stop_early and target_kl",
}


# -- configuration and state ------------------------------------------------------


@dataclass(frozen=True)
class SB3PPOConfig(ppo.PPOConfig):
    """What sets shapes; fixed for the life of a population.

    As :class:`~dacrl_env.learners.ppo.PPOConfig`, and:

    Args:
        sb3_kwargs: further arguments of ``stable_baselines3.PPO``: JSON values, and
            classes or functions, also by name as ``"module:name"``. ``policy_kwargs``
            go before ``hidden_sizes`` and ``activation``.

    Raises:
        ValueError: normalised observations or rewards, which Stable-Baselines3 leaves
            to an environment wrapper; or an argument that does not exist, that is set
            elsewhere, or that has no name.
    """

    sb3_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("normalize_observations", "normalize_rewards"):
            arguments.refuse(self, name, arguments.NOT_NORMALISED)
        arguments.check(self, stable_baselines3.PPO, _OURS)


@dataclass
class SB3PPOState:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: Tensor  # (P, row) that the optimiser changes
    buffers: NDArray[np.float64]  # (P, …) of the policy's modules, e.g. batch norms
    optimizer: OptimizerState
    generators: random_state.Generators
    envs: Any  # state of the inner environments, P × N
    keys: streams.UInts  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)


# -- the learner --------------------------------------------------------------------


class SB3PPO:
    """``stable_baselines3.PPO`` over a population.

    The signal ``kl`` is the mean over the last epoch of an update, which is what
    Stable-Baselines3 tells of it.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices.
        budget: inner environment steps of a run.

    Raises:
        ValueError: an optimiser whose state cannot be kept.
    """

    hyperparameters = ppo.HYPERPARAMETERS
    controlled = ppo.CONTROLLED
    only: ClassVar[Mapping[str, Option]] = {
        "drift": "clip",
        "lr_rule": "as-set",
        **{
            h.name: events.NONE.get(h.name, h.default)
            for h in ppo.HYPERPARAMETERS
            if h.name in events.NONE or h.name in OF_LEVELS
        },
    }
    unchanging: ClassVar[tuple[str, ...]] = ()
    signal_names = ppo.SIGNALS
    signal_units = ppo.SIGNAL_UNITS
    config_class = SB3PPOConfig
    continuous_actions = True
    exact_snapshots = False  # a user's policy may hold more than parameters
    granularity = staticmethod(ppo.PPO.granularity)
    constrain = staticmethod(ppo.PPO.constrain)
    samples_per_step = staticmethod(ppo.PPO.samples_per_step)
    member_bytes = staticmethod(ppo.PPO.member_bytes)

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: SB3PPOConfig,
        budget: int,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.config = config
        self.num_threads = 1
        self.members = Members(
            env,
            eval_env,
            config.num_inner_envs,
            budget,
            build=functools.partial(_build, config),
            trained=ppo_model.trained,
            optimizers=ppo_model.optimizers,
        )
        self.venv, self.model = self.members.venv, self.members.model
        with globals_kept(), torch.enable_grad():
            self._flops = ppo_model.count_flops(self.model)

    def flops(self, values: Values) -> tuple[int, NDArray[np.float64]]:
        """Floating-point operations per action, and ``(P,)`` per sample of updates."""
        act, sample = self._flops
        return act, np.full(len(values["gamma"]), float(sample))

    def happen(
        self, state: SB3PPOState, values: Values
    ) -> dict[str, NDArray[np.bool_]]:
        """There are no events."""
        return {}

    # -- state ------------------------------------------------------------------

    @inner_context()
    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> SB3PPOState:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        state = SB3PPOState(**self.members.allocate(keys, physics))
        for i in range(len(keys)):
            self.members.begin(state, i)
        return state

    @inner_context()
    def begin_episodes(self, state: SB3PPOState) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        self.members.env.begin_episodes(state.envs)

    @inner_context()
    def restart(
        self,
        state: SB3PPOState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        self.members.restart_envs(state, members, keys, physics)
        for i in members:
            self.members.begin(state, i)

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
        state: SB3PPOState,
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

    def begin_interval(self, state: SB3PPOState) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters.numpy().copy(), _SUMS)

    @inner_context()
    def train(
        self, state: SB3PPOState, values: Values, steps: int, interval: Interval
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
            with self.members.loaded(state, i) as model:
                setters.apply(model, ppo_model.SETTERS, row, row)
                advance = functools.partial(self._advance, state, i, interval)
                self.members.stretch(state, i, steps, interval, advance)

    def _advance(
        self, state: SB3PPOState, i: int, interval: Interval, end: int
    ) -> None:
        """Collect and learn with the loaded member until step ``end``."""
        model, updates = self.model, self.members.updates
        samples = functools.partial(ppo_model.samples, model)
        # an episode begins where none has taken a step
        model._last_episode_starts = self.venv.state.lengths[0] == 0
        while model.num_timesteps < end:
            model.collect_rollouts(
                model.env, self.members.callback, model.rollout_buffer, model.n_steps
            )
            with updates.counted(i, state.gradient_steps, interval, samples):
                model.train()
            updates.record(i, interval, _SUMS, ppo_model.means(model, []))

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: SB3PPOState, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters.numpy())

    @inner_context()
    def signals(
        self, state: SB3PPOState, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells of each member ``(P,)``, by ``signal_names``."""
        probes = [self._probe(state, i) for i in range(len(state.env_steps))]
        return signals(state, interval, _SUMS, probes)

    def _probe(self, state: SB3PPOState, i: int) -> dict[str, Tensor]:
        """Values of a member's current observations."""
        with self.members.loaded(state, i) as model, torch.no_grad():
            model.policy.set_training_mode(False)
            self.venv.state = take_rows(state.envs, [i])
            model._last_obs = model.env.reset()
            self.venv.state = None
            return ppo_model.probe(model, {})


def arguments_of(config: SB3PPOConfig, env: InnerEnv) -> dict[str, Any]:
    """Arguments that do not depend on hyperparameters, see `arguments.of`."""
    given = arguments.of(config, env)
    if config.conv_channels:  # actor and critic have one each, as the compiled ones
        given["policy_kwargs"]["share_features_extractor"] = False
    return given


def _build(config: SB3PPOConfig, venv: MemberEnvs) -> Any:
    """A model; hyperparameters are set before it trains."""
    return stable_baselines3.PPO(
        env=venv,
        n_steps=config.rollout_length,
        # what does not divide the rollout would be warned of
        batch_size=ppo.PPO.granularity(config),
        clip_range_vf=config.clip_range_vf,
        # a single step cannot be: there Stable-Baselines3 would refuse it, though its
        # updates leave minibatches of one as they are
        normalize_advantage=config.normalize_advantages
        and ppo.PPO.granularity(config) > 1,
        **arguments_of(config, venv.env),
    )
