"""SAC with discrete actions over a population: what it is configured by.

The algorithm itself is :mod:`dacrl_env.algorithms.discrete_sac`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import discrete_sac, soft
from dacrl_env.core import checks, streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.images import BRIGHTEST
from dacrl_env.kernels import dense
from dacrl_env.learners import events, replaying, sac
from dacrl_env.learners.compiled import Compiled, Floats, Values
from dacrl_env.learners.networks import check_fourier, fourier_flops, inputs_of
from dacrl_env.learners.protocol import steady
from dacrl_env.tasks import Condition, Number

# a share of log A, the most there is; by default that of CleanRL's sac_atari.py
_TARGET = Number(
    "target_entropy", 0.0, 1.0, 0.89, condition=Condition("ent_rule", ("auto",))
)
HYPERPARAMETERS = tuple(
    _TARGET if h.name == _TARGET.name else h for h in sac.HYPERPARAMETERS
)
# entropies of actions are not negative
SIGNAL_UNITS = {"actor_loss": 1.0, "value_mean": 1.0}


@dataclass(frozen=True)
class DiscreteSACConfig:
    """What sets shapes; fixed for the life of a population.

    Args:
        hidden_sizes: widths of the hidden layers, of actor and critics each.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh".
        replay_capacity: transitions kept a member; None: the budget, at most 100,000.
        learning_starts: environment steps of random actions before the first update.
        normalize_observations: by running mean and variance.
        fourier_features: random cosines and sines, half of each, that networks see in
            place of an observation (:mod:`dacrl_env.algorithms.features`); 0: none.
        fourier_scale: deviation of the normal numbers that observations are multiplied
            with, in turns a unit of the observation.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 1
    activation: str = "relu"
    replay_capacity: int | None = None
    learning_starts: int = 1_000
    normalize_observations: bool = False
    fourier_features: int = 0
    fourier_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        replaying.check(self)
        object.__setattr__(self, "fourier_features", check_fourier(self))


class DiscreteSAC(Compiled):
    """The algorithm over a population."""

    algorithm: ClassVar[ModuleType] = discrete_sac
    hyperparameters = HYPERPARAMETERS
    controlled = ("learning_rate", "target_entropy", "batch_size")
    signal_names = sac.SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = DiscreteSACConfig
    continuous_actions = False
    head = (1, 3, 5)
    sums = ("loss", "actor_loss", "grad_norm", "entropy", "temperature")
    told = ("td_error", "value_mean", "value_std", "update_ratio")

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: DiscreteSACConfig) -> int:
        """Environment steps that cannot be divided further."""
        return config.num_inner_envs

    replay_capacity = staticmethod(replaying.capacity_of)
    constrain = staticmethod(replaying.constrain)
    samples_per_step = staticmethod(replaying.samples_per_step)

    @classmethod
    def member_bytes(
        cls,
        config: DiscreteSACConfig,
        budget: int,
        env: InnerEnv,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most."""
        features, A = math.prod(env.observation_shape), env.num_actions
        size = env.observation_dtype.itemsize
        known = steady(HYPERPARAMETERS, given)
        inputs = inputs_of(config, env)
        row = 3 * dense.row_bytes((inputs, *config.hidden_sizes, A))
        lines = dense.padded(config.fourier_features // 2)
        # target, moments, and where the interval began; the register
        rows = 9 if events.need_register(known) else 5
        return {
            "replay_capacity": replaying.bytes_of(config, budget, env, 1, known),
            "hidden_sizes": rows * row,
            "fourier_features": 4 * features * lines,
            "num_inner_envs": config.num_inner_envs * (4 * features * size + 300),
        }

    def flops(self, values: Values) -> tuple[int, Floats]:
        """Floating-point operations per action, and ``(P,)`` per sample of an update.

        Matrix products only, two operations a multiply-add. To act the actor passes
        forward. To learn it passes forward twice and backward once, each critic forward
        three times (once as target) and backward once; backward are two products a
        layer, one at the first. Fourier features are a product for each observation.
        """
        both = self.fixed.actor, self.fixed.critic
        actor, critic = (2 * dense.multiplications(net) for net in both)
        act, seen = int(actor.sum()), fourier_flops(self.config, self.features)
        learn_actor = 4 * act - int(actor[0])
        learn_critic = 5 * int(critic.sum()) - int(critic[0])
        sample = learn_actor + 2 * learn_critic + 2 * seen
        return act + seen, np.full(len(values["gamma"]), float(sample))

    def _fixed(self) -> discrete_sac.Fixed:
        config, A = self.config, self.env.num_actions
        actor, critic = (
            dense.make_network(
                inputs_of(config, self.env), config.hidden_sizes, A, config.activation
            )
            for _ in range(2)
        )
        # what running moments make of an image is none any more
        scales = self.env.scales_images and not config.normalize_observations
        return discrete_sac.Fixed(
            actor=actor,
            critic=critic,
            N=config.num_inner_envs,
            T=1,
            D=self.features,
            A=A,
            learning_starts=config.learning_starts,
            scale=1 / BRIGHTEST if scales else 1.0,
            parts=soft.parts_of(actor, critic),
            prioritised=self.steady.get("priority_alpha") != 0.0,
            normalize_observations=bool(config.normalize_observations),
            fourier_features=config.fourier_features,
            fourier_scale=float(config.fourier_scale),
        )

    def _make_state(self, P: int) -> discrete_sac.State:
        capacity = self.replay_capacity(self.config, self.budget) // self.fixed.N
        dtype = self.env.observation_dtype.type
        purposes, saved = len(streams.PURPOSES), self.has_register
        return discrete_sac.make_state(P, self.fixed, capacity, dtype, purposes, saved)

    def _make_memory(self, places: int, largest: int) -> discrete_sac.Memory:
        return discrete_sac.make_memory(self.fixed, largest, len(self.env.physics))

    def happen(
        self, state: discrete_sac.State, values: Values
    ) -> dict[str, NDArray[np.bool_]]:
        """Let the events of this decision happen."""
        replaying.clear(state, np.flatnonzero(values["clear_replay"]), self.fixed.N)
        return super().happen(state, values)

    def _leave_episodes(self, state: discrete_sac.State) -> None:
        replaying.leave_episodes(state, self.fixed.N)
