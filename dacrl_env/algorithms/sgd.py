"""Stochastic gradient descent on a noisy quadratic: a task with a known optimum.

The model of Schaul, Zhang and LeCun 2013 ("No more pesky learning rates", ICML), also
analysed by Wu et al. 2018 ("Understanding short-horizon bias"): the loss is
½ h |θ|² / d over d parameters, a gradient step sees h θ + σ ξ with standard normal ξ.
Curvature h and noise σ are drawn anew for every run and shown to nobody. With
v = |θ|² / d, the expected loss after a step of size α is ½ h ((1 − α h)² v + α² σ²), so
the best step is α* = h v / (h² v + σ²): it follows from the true state, shrinks as the
run goes on, and no fixed schedule can know it.

With ``jump_period`` the minimum jumps by a standard normal ξ at equal distances, which
are drawn for the run, as is when it jumps first. What was near is far again, and nobody
is told: the model of an environment that changes.

One outer step is one gradient step. The "return" is −log10 of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval, begin
from dacrl_env.core import streams
from dacrl_env.core.checks import real
from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.elementary import exp10, log10
from dacrl_env.kernels.random_numbers import draw, normal, normals
from dacrl_env.tasks import Number, Option

HYPERPARAMETERS = (Number("learning_rate", 1e-4, 1e2, 1e-1, "log"),)
CONTROLLED = ("learning_rate",)
SIGNALS = ("loss", "grad_norm")
DIVERGED = 1e6  # loss

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Values = Mapping[str, Floats]


@dataclass(frozen=True)
class SGDConfig:
    """What sets shapes.

    Args:
        dimensions: d, parameters of the quadratic.
        curvature: range that h of a run is drawn from, in decades.
        noise: range that σ of a run is drawn from, in decades.
        jump_period: fewest and most steps between jumps of the minimum, of which each
            run has one number; (0, 0): it stays where it is.
    """

    dimensions: int = 64
    curvature: tuple[float, float] = (-1.0, 1.0)
    noise: tuple[float, float] = (-2.0, 0.0)
    jump_period: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError("dimensions must be at least 1")
        for name in ("curvature", "noise", "jump_period"):
            given = [real(f"an end of {name}", x) for x in getattr(self, name)]
            if len(given) != 2 or not -np.inf < given[0] <= given[1] < np.inf:
                raise ValueError(
                    f"{name} must be the two ends of a range, in order, got "
                    f"{getattr(self, name)}"
                )
        fewest, most = self.jump_period
        if (most and fewest < 1) or any(n != int(n) for n in self.jump_period):
            raise ValueError(
                "jump_period must be two numbers of steps from 1 on, or (0, 0) for no "
                f"jumps; got {self.jump_period}"
            )


@dataclass
class SGDState:
    """Everything P runs consist of."""

    parameters: Floats  # (P, d)
    curvature: Floats  # (P,)
    noise: Floats  # (P,)
    keys: streams.UInts  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) gradient steps, too
    gradient_steps: NDArray[np.int64]  # (P,)


@compiled
def _gradient(member, curvature, noise, drawn, i):
    """What a gradient step sees of one parameter, with the noise of a draw."""
    return curvature * member[i] + noise * normal(drawn, i, len(member))


@compiled
def _jump(member, drawn):
    """Move the minimum, which is where parameters are zero."""
    for i in range(len(member)):
        member[i] += normal(drawn, i, len(member))


@entry
def _train(
    parameters, curvature, noise, keys, counters, rates, steps, origins, periods, phases
):
    for p in range(len(parameters)):
        member = parameters[p]
        for step in range(steps):
            now = counters[p] + step
            if periods[p] and now and (now + phases[p]) % periods[p] == 0:
                _jump(member, draw(origins[p], now))
            drawn = draw(keys[p], now)
            for i in range(len(member)):
                seen = _gradient(member, curvature[p], noise[p], drawn, i)
                member[i] -= rates[p] * seen


@entry
def _gradient_norms(parameters, curvature, noise, keys, into):
    for p in range(len(parameters)):
        drawn, total = draw(keys[p], 0), 0.0
        for i in range(parameters.shape[1]):
            seen = _gradient(parameters[p], curvature[p], noise[p], drawn, i)
            total += seen * seen
        into[p] = math.sqrt(total / parameters.shape[1])


class SGD:
    """The algorithm over a population; an inner environment is not used."""

    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    signal_names = SIGNALS
    signal_units: Mapping[str, float] = {}
    config_class = SGDConfig
    continuous_actions = True
    exact_snapshots = True
    only: Mapping[str, Option] = {}
    unchanging: tuple[str, ...] = ()

    def __init__(
        self,
        env: Any,
        eval_env: Any,
        config: SGDConfig,
        budget: int,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.config = config
        self.num_threads = 1

    def flops(self, values: Mapping[str, Floats]) -> tuple[int, Floats]:
        """None are counted."""
        return 0, np.zeros(len(values["learning_rate"]))

    @staticmethod
    def samples_per_step(values: Mapping[str, Floats]) -> Floats:
        """None are used."""
        return np.zeros(len(values["learning_rate"]))

    def happen(
        self, state: SGDState, values: Mapping[str, Floats]
    ) -> dict[str, NDArray[np.bool_]]:
        """There are no events."""
        return {}

    @staticmethod
    def granularity(config: SGDConfig) -> int:
        """Steps that cannot be divided further."""
        return 1

    @classmethod
    def member_bytes(
        cls,
        config: SGDConfig,
        budget: int,
        env: Any,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on."""
        return {"dimensions": config.dimensions * 8 * 4}

    @classmethod
    def constrain(cls, values: dict[str, Floats], config: SGDConfig, _: int) -> None:
        """Every learning rate can be applied."""

    def init(self, keys: streams.UInts, physics: Floats) -> SGDState:
        """Runs before their first step; keys ``(P, purposes)``."""
        P, first = len(keys), np.zeros(len(keys), np.int64)
        u = streams.uniforms(streams.of(keys, "envs"), first, 2)
        start = normals(streams.of(keys, "init"), first, self.config.dimensions)
        (low_h, high_h), (low_s, high_s) = self.config.curvature, self.config.noise
        return SGDState(
            parameters=start,
            curvature=exp10(low_h + (high_h - low_h) * u[:, 0]),
            noise=exp10(low_s + (high_s - low_s) * u[:, 1]),
            keys=keys.copy(),
            env_steps=np.zeros(P, np.int64),
            gradient_steps=np.zeros(P, np.int64),
        )

    def restart(
        self,
        state: SGDState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: Floats,
    ) -> None:
        """Put some members back before their first step, with new streams."""
        fresh = self.init(keys, physics)
        state.parameters[members] = fresh.parameters
        state.curvature[members] = fresh.curvature
        state.noise[members] = fresh.noise
        state.keys[members] = keys
        state.env_steps[members] = 0
        state.gradient_steps[members] = 0

    def begin_episodes(self, state: SGDState) -> None:
        """There are none."""

    def reseed(
        self, state: SGDState, members: NDArray[np.int64], marks: NDArray[np.int64]
    ) -> None:
        """There are no inner environments."""

    def close(self, state: SGDState) -> None:
        """There is nothing to close."""

    def losses(self, state: SGDState) -> Floats:
        """Loss of every member ``(P,)``."""
        with np.errstate(over="ignore", invalid="ignore"):  # it may have diverged
            v = np.square(state.parameters).mean(1)
        return np.asarray(0.5 * state.curvature * v)

    def optimal_learning_rate(self, state: SGDState) -> Floats:
        """The step ``(P,)`` that minimises the expected loss after it."""
        h, v = state.curvature, np.square(state.parameters).mean(1)
        return np.asarray(h * v / (h * h * v + np.square(state.noise)))

    def play(
        self,
        state: SGDState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: Floats,
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return of the current parameters; exact, and for free."""
        returns = -log10(self.losses(state)[members])
        return np.repeat(returns[:, None], keys.shape[1], 1), np.zeros_like(members)

    def begin_interval(self, state: SGDState) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters, ())

    def train(
        self, state: SGDState, values: Values, steps: int, interval: Interval
    ) -> None:
        """Take ``steps`` gradient steps."""
        _train(
            state.parameters,
            state.curvature,
            state.noise,
            np.ascontiguousarray(streams.of(state.keys, "act")),
            state.env_steps,
            np.ascontiguousarray(values["learning_rate"]),
            steps,
            np.ascontiguousarray(streams.of(state.keys, "init")),
            *self._jumps(state),
        )
        state.env_steps += steps
        state.gradient_steps += steps
        interval.counts[...] += steps

    def _jumps(self, state: SGDState) -> tuple[Ints, Ints]:
        """Steps between jumps of each member ``(P,)``, and those gone at the start."""
        P, (fewest, most) = len(state.keys), map(int, self.config.jump_period)
        if not most:
            return np.zeros(P, np.int64), np.zeros(P, np.int64)
        second = np.ones(P, np.int64)  # the first draw is of curvature and noise
        u = streams.uniforms(streams.of(state.keys, "envs"), second, 2)
        periods = fewest + (u[:, 0] * (most - fewest + 1)).astype(np.int64)
        return periods, (u[:, 1] * periods).astype(np.int64)

    def diverged(self, state: SGDState, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` whose loss is not a number below `DIVERGED`."""
        return ~(self.losses(state) < DIVERGED)

    def signals(
        self, state: SGDState, values: Values, interval: Interval
    ) -> dict[str, Floats]:
        """The loss, and the root mean square of a gradient that is not used."""
        keys = streams.bits(streams.of(state.keys, "replay"), state.env_steps, 1)
        norms = np.empty(len(keys))
        _gradient_norms(
            state.parameters,
            state.curvature,
            state.noise,
            np.ascontiguousarray(keys[:, 0]),
            norms,
        )
        return {"loss": self.losses(state), "grad_norm": norms}
