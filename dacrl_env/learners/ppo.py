"""PPO over a population: hyperparameters, configuration, and what they come to.

The algorithm itself is :mod:`dacrl_env.algorithms.ppo`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from dacrl_env.algorithms import drivers, ppo
from dacrl_env.algorithms.rollout import Rollout, make_rollout
from dacrl_env.core import checks, streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.env import CompiledEnv
from dacrl_env.inner_envs.images import BRIGHTEST
from dacrl_env.kernels import dense
from dacrl_env.learners import events, stepped
from dacrl_env.learners.compiled import Compiled, Floats, Values
from dacrl_env.learners.networks import (
    channels,
    check_fourier,
    fourier_flops,
    inputs_of,
    make_network,
)
from dacrl_env.learners.protocol import steady
from dacrl_env.tasks import Choice, Condition, Number

_CLIPPED, _DPO = Condition("drift", ("clip",)), Condition("drift", ("dpo",))
_ADAPTIVE = Condition("lr_rule", ("kl-adaptive",))
_STOPS = Condition("stop_early", (True,))
HYPERPARAMETERS = (
    Number("learning_rate", 1e-6, 1e-1, 3e-4, "log"),
    Number("clip_range", 0.0, 0.5, 0.2, condition=_CLIPPED),
    Number("batch_size", 8, 512, 64, "log", integer=True),
    Number("gamma", 0.8, 1.0, 0.99, "log_complement"),
    Number("gae_lambda", 0.8, 1.0, 0.95, "log_complement"),
    Number("n_epochs", 1, 30, 10, integer=True),
    Number("ent_coef", 0.0, 0.5, 0.0),
    Number("vf_coef", 0.0, 1.0, 0.5),
    Number("max_grad_norm", 0.05, 10, 0.5, "log"),
    Choice("drift", ("clip", "dpo"), "clip"),
    Number("drift_alpha", 0.1, 10, 2.0, "log", condition=_DPO),
    Number("drift_beta", 0.1, 10, 0.6, "log", condition=_DPO),
    Choice("lr_rule", ("as-set", "kl-adaptive"), "as-set"),
    Number("desired_kl", 1e-3, 0.1, 0.01, "log", condition=_ADAPTIVE),
    Choice("stop_early", (False, True), False),
    Number("target_kl", 1e-3, 0.5, 0.01, "log", condition=_STOPS),
    # in environments of levels alone, see `algorithms.level_replay`; temperature and
    # staleness as Jiang et al. 2021 have them for Procgen
    Number("level_replay", 0.0, 1.0, 0.0),
    Number("level_temperature", 0.05, 100, 0.1, "log"),
    Number("level_staleness", 0.0, 1.0, 0.1),
    *events.EVENTS,
)
CONTROLLED = ("learning_rate", "clip_range", "batch_size")
SIGNALS = (
    "loss",
    "kl",
    "entropy",
    "grad_norm",
    "update_ratio",
    "value_mean",
    "value_std",
)
SIGNAL_UNITS = {"loss": 1e-3, "entropy": 1e-3, "value_mean": 1.0}


@dataclass(frozen=True)
class PPOConfig:
    """What sets shapes; fixed for the life of a population.

    Args:
        hidden_sizes: widths of the hidden layers, of actor and critic each.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh".
        rollout_length: steps of each environment between updates.
        normalize_observations: by running mean and variance.
        normalize_rewards: by the running standard deviation of discounted returns.
        normalize_advantages: in each minibatch.
        clip_range_vf: largest change of a value per update; None: any.
        conv_channels: of a convolution of 3 × 3 in front of actor and critic each, a
            multiple of 16, for observations (rows, columns, channels); 0: they are
            flattened.
        fourier_features: random cosines and sines, half of each, that networks see in
            place of an observation (:mod:`dacrl_env.algorithms.features`); 0: none.
        fourier_scale: deviation of the normal numbers that observations are multiplied
            with, in turns a unit of the observation.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 8
    activation: str = "tanh"
    rollout_length: int = 128
    normalize_observations: bool = False
    normalize_rewards: bool = False
    normalize_advantages: bool = True
    clip_range_vf: float | None = None
    conv_channels: int = 0
    fourier_features: int = 0
    fourier_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        for name in ("num_inner_envs", "rollout_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.clip_range_vf is not None and not self.clip_range_vf > 0:
            raise ValueError("clip_range_vf must be above 0, or None")
        object.__setattr__(self, "conv_channels", channels(self.conv_channels))
        object.__setattr__(self, "fourier_features", check_fourier(self))


class PPO(Compiled):
    """The algorithm over a population."""

    algorithm: ClassVar[ModuleType] = ppo
    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    signal_names = SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = PPOConfig
    continuous_actions = True
    head = (1, 3)
    sums = ("loss", "grad_norm", "kl", "entropy")
    told = ("update_ratio", "value_mean", "value_std")

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: PPOConfig) -> int:
        """Environment steps that cannot be divided further: one rollout."""
        return config.num_inner_envs * config.rollout_length

    @classmethod
    def member_bytes(
        cls,
        config: PPOConfig,
        budget: int,
        env: InnerEnv,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most."""
        features = math.prod(env.observation_shape)
        outputs = env.num_actions or len(env.action_low)
        inputs = inputs_of(config, env)
        row = 4 * sum(make_network(config, env, n, inputs).row for n in (outputs, 1))
        lines = dense.padded(config.fourier_features // 2)
        # a rollout, where environments are stepped by Python, and what they show
        step = 4 * (inputs + outputs) + 60
        many = "rollout_length"
        if config.num_inner_envs > config.rollout_length:
            many = "num_inner_envs"
        rows = 7 if events.need_register(steady(HYPERPARAMETERS, given)) else 4
        return {
            "hidden_sizes": rows * row,
            "fourier_features": 4 * features * lines,
            many: cls.granularity(config) * step,
        }

    @classmethod
    def constrain(
        cls, values: dict[str, Floats], config: PPOConfig, budget: int
    ) -> None:
        """Cap requested values in place to what can be applied together."""
        most = cls.granularity(config)
        values["batch_size"] = np.minimum(values["batch_size"], most)

    @staticmethod
    def samples_per_step(values: Values) -> Floats:
        """Transitions ``(n,)`` used in updates an environment step, by values."""
        return values["n_epochs"]

    def flops(self, values: Values) -> tuple[int, Floats]:
        """Floating-point operations per action, and ``(P,)`` per sample of an update.

        Matrix products only, two operations a multiply-add: actor and critic forward
        to act; forward, and backward with two products a layer (one at the first), to
        learn. Fourier features are a product for each observation, when it is acted on.
        """
        both = self.fixed.actor, self.fixed.critic
        actor, critic = (2 * dense.multiplications(net) for net in both)
        forward = int(actor.sum() + critic.sum())
        sample = 3 * forward - int(actor[0] + critic[0])
        act = forward + fourier_flops(self.config, self.features)
        return act, np.full(len(values["gamma"]), float(sample))

    def _fixed(self) -> ppo.Fixed:
        config, D = self.config, self.features
        continuous = self.env.num_actions == 0
        A = len(self.env.action_low) if continuous else self.env.num_actions
        inputs = inputs_of(config, self.env)
        actor, critic = (make_network(config, self.env, n, inputs) for n in (A, 1))
        limit = config.clip_range_vf
        # what running moments make of an image is none any more
        scales = self.env.scales_images and not config.normalize_observations
        return ppo.Fixed(
            actor=actor,
            critic=critic,
            N=config.num_inner_envs,
            T=config.rollout_length,
            D=D,
            A=A,
            continuous=continuous,
            normalize_observations=bool(config.normalize_observations),
            normalize_rewards=bool(config.normalize_rewards),
            normalize_advantages=bool(config.normalize_advantages),
            clip_range_vf=math.inf if limit is None else float(limit),
            scale=1 / BRIGHTEST if scales else 1.0,
            parts=np.cumsum(
                [
                    0,
                    actor.weights[-1],
                    actor.row - actor.weights[-1],
                    critic.weights[-1],
                    critic.row - critic.weights[-1],
                    ppo.rest(A),
                ]
            ),
            fourier_features=config.fourier_features,
            fourier_scale=float(config.fourier_scale),
        )

    def _make_state(self, P: int) -> ppo.State:
        purposes = len(streams.PURPOSES)
        levels = self.env.num_levels if isinstance(self.env, CompiledEnv) else 0
        return ppo.make_state(P, self.fixed, purposes, self.has_register, levels)

    def _make_memory(self, places: int, largest: int) -> ppo.Memory:
        low, high = self.env.action_low, self.env.action_high
        rollout = make_rollout(places, self.fixed)
        K = len(self.env.physics)
        return ppo.make_memory(self.fixed, largest, K, low, high, rollout)

    def _leave_episodes(self, state: ppo.State) -> None:
        state.discounted[...] = 0.0

    # -- rollouts for others ----------------------------------------------------

    def probe(self, state: ppo.State, values: Values) -> Rollout:
        """A rollout of every member that nothing is learned from.

        Args:
            state: goes on from the end of the rollout; give a copy.
            values: applied hyperparameters.
        """
        P = len(state.env_steps)
        values = {**values, "n_epochs": np.zeros(P)}
        run = self._run(state, values, self.begin_interval(state))
        steps = self.granularity(self.config)
        memory = self._make_memory(P, 1)
        if not isinstance(self.env, CompiledEnv):
            every = stepped.Part(0, P, self.link(run, memory))
            stepped.train(self.env, state.envs, [every], steps, run.interval)
            return memory.rollout
        rollout: Rollout = memory.rollout
        one, envs = self._make_memory(1, 1), self.env.tuple_of(state.envs)
        linked = self.link(run, one)
        for p in range(P):
            drivers.train(p, steps, linked, self.env.env, envs)
            for whole, part in zip(rollout, one.rollout, strict=True):
                whole[p] = part[0]
        self.env.observe(state.envs)
        return rollout
