"""SAC over a population: hyperparameters, configuration, and what they come to.

The algorithm itself is :mod:`dacrl_env.algorithms.sac`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import sac, soft
from dacrl_env.algorithms.replay import MOST_STEPS
from dacrl_env.core import checks, streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.images import BRIGHTEST
from dacrl_env.kernels import dense
from dacrl_env.learners import events, replaying
from dacrl_env.learners.compiled import Compiled, Floats, Values
from dacrl_env.learners.protocol import steady
from dacrl_env.tasks import Choice, Condition, Number

_AUTO, _SET = Condition("ent_rule", ("auto",)), Condition("ent_rule", ("set",))
HYPERPARAMETERS = (
    Number("learning_rate", 1e-6, 1e-1, 3e-4, "log"),
    Number("batch_size", 4, 512, 256, "log", integer=True),
    Number("gamma", 0.8, 1.0, 0.99, "log_complement"),
    Number("tau", 1e-3, 1.0, 5e-3, "log"),
    Number("train_freq", 1, 1_000, 1, "log", integer=True),
    Number("gradient_steps", 1, 1_000, 1, "log", integer=True),
    Choice("ent_rule", ("auto", "set"), "auto"),
    Number("alpha", 1e-4, 10, 0.2, "log", condition=_SET),
    # nats per component of an action, of which the most is log 2
    Number("target_entropy", -5.0, 0.5, -1.0, condition=_AUTO),
    Number("replay_window", 1_000, 100_000, 100_000, "log", integer=True),
    Number("n_step", 1, MOST_STEPS, 1, integer=True),
    Number("priority_alpha", 0.0, 1.0, 0.0),
    Number("priority_beta", 0.0, 1.0, 0.4),
    *events.EVENTS,
    events.CLEAR_REPLAY,
)
CONTROLLED = ("learning_rate", "tau", "batch_size")
SIGNALS = (
    "loss",
    "actor_loss",
    "td_error",
    "grad_norm",
    "entropy",
    "temperature",
    "update_ratio",
    "value_mean",
    "value_std",
)
SIGNAL_UNITS = {"actor_loss": 1.0, "entropy": 1e-1, "value_mean": 1.0}


@dataclass(frozen=True)
class SACConfig:
    """What sets shapes; fixed for the life of a population.

    Args:
        hidden_sizes: widths of the hidden layers, of actor and critics each.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh".
        replay_capacity: transitions kept a member; None: the budget, at most 100,000.
        learning_starts: environment steps of random actions before the first update.
        held_starts: steps of each environment that one of these actions is held. What
            needs many similar actions to be found, as the goal of MountainCar, is found
            by held ones (Dabney et al. 2021, arXiv:2006.01782).

    Raises:
        ValueError: a value of another type or out of range.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 1
    activation: str = "relu"
    replay_capacity: int | None = None
    learning_starts: int = 100
    held_starts: int = 1

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        replaying.check(self)
        held = checks.whole("held_starts", self.held_starts)
        object.__setattr__(self, "held_starts", held)


def check_actions(env: InnerEnv) -> None:
    """Raise a ValueError unless an inner environment's actions have finite bounds."""
    if env.num_actions:
        raise ValueError("SAC needs continuous actions; valid: dqn, ppo")
    low, high = env.action_low, env.action_high
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "SAC needs actions within finite bounds, got "
            f"low {low.tolist()}, high {high.tolist()}"
        )


class SAC(Compiled):
    """The algorithm over a population.

    Raises:
        ValueError: an inner environment whose actions have no finite bounds.
    """

    algorithm: ClassVar[ModuleType] = sac
    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    signal_names = SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = SACConfig
    continuous_actions = True
    head = (1, 3, 5)
    sums = ("loss", "actor_loss", "grad_norm", "entropy", "temperature")
    told = ("td_error", "value_mean", "value_std", "update_ratio")

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: SACConfig) -> int:
        """Environment steps that cannot be divided further."""
        return config.num_inner_envs

    replay_capacity = staticmethod(replaying.capacity_of)
    constrain = staticmethod(replaying.constrain)
    samples_per_step = staticmethod(replaying.samples_per_step)

    @classmethod
    def member_bytes(
        cls,
        config: SACConfig,
        budget: int,
        env: InnerEnv,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most."""
        features, A = math.prod(env.observation_shape), len(env.action_low)
        size = env.observation_dtype.itemsize
        known = steady(HYPERPARAMETERS, given)
        row = dense.row_bytes((features, *config.hidden_sizes, 2 * A))
        row += 2 * dense.row_bytes((features + A, *config.hidden_sizes, 1))
        # target, moments, and where the interval began; the register
        rows = 9 if events.need_register(known) else 5
        return {
            "replay_capacity": replaying.bytes_of(config, budget, env, A, known),
            "hidden_sizes": rows * row,
            "num_inner_envs": config.num_inner_envs * (4 * features * size + 300),
        }

    def flops(self, values: Values) -> tuple[int, Floats]:
        """Floating-point operations per action, and ``(P,)`` per sample of an update.

        Matrix products only, two operations a multiply-add. To act the actor passes
        forward. To learn it passes forward twice and backward once, each critic forward
        three times (once as target), backward once, and once to its inputs.
        """
        actor, critic = (
            net.units.tolist() for net in (self.fixed.actor, self.fixed.critic)
        )
        act, value = 2 * dense.num_weights(actor), 2 * dense.num_weights(critic)
        H = critic[1]
        # backward: two products a layer, one at the first; to the inputs: one a layer,
        # at the first for the components of actions
        learn_actor = 4 * act - 2 * actor[0] * actor[1]
        learn_critic = 5 * value - 2 * critic[0] * H
        inputs = value - 2 * self.fixed.D * H
        sample = learn_actor + 2 * (learn_critic + inputs)
        return act, np.full(len(values["gamma"]), float(sample))

    def _fixed(self) -> sac.Fixed:
        check_actions(self.env)
        config, D, A = self.config, self.features, len(self.env.action_low)
        actor, critic = (
            dense.make_network(inputs, config.hidden_sizes, outputs, config.activation)
            for inputs, outputs in ((D, 2 * A), (D + A, 1))
        )
        return sac.Fixed(
            actor=actor,
            critic=critic,
            N=config.num_inner_envs,
            T=1,
            D=D,
            A=A,
            learning_starts=config.learning_starts,
            held_starts=config.held_starts,
            scale=1 / BRIGHTEST if self.env.scales_images else 1.0,
            parts=soft.parts_of(actor, critic),
            prioritised=self.steady.get("priority_alpha") != 0.0,
        )

    def _make_state(self, P: int) -> sac.State:
        capacity = self.replay_capacity(self.config, self.budget) // self.fixed.N
        dtype = self.env.observation_dtype.type
        purposes, saved = len(streams.PURPOSES), self.has_register
        return sac.make_state(P, self.fixed, capacity, dtype, purposes, saved)

    def _make_memory(self, places: int, largest: int) -> sac.Memory:
        low, high = self.env.action_low, self.env.action_high
        return sac.make_memory(self.fixed, largest, len(self.env.physics), low, high)

    def happen(self, state: sac.State, values: Values) -> dict[str, NDArray[np.bool_]]:
        """Let the events of this decision happen."""
        replaying.clear(state, np.flatnonzero(values["clear_replay"]), self.fixed.N)
        return super().happen(state, values)

    def _leave_episodes(self, state: sac.State) -> None:
        replaying.leave_episodes(state, self.fixed.N)
