"""Hand-made schedules of one hyperparameter, blind to how training goes.

Linear decay of epsilon over the first part of training is the usual choice (Mnih et
al. 2015), cosine decay of the learning rate that of Loshchilov and Hutter 2017
("SGDR"), exponential and step decay are the classics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.checks import unknown
from dacrl_env.kernels.elementary import cos, exp, log
from dacrl_env.outer.vector_env import PopulationEnv

DECISIONS = 100  # of a run that follows a curve, or the nearest number it can have
# hyperparameters of which models of Stable-Baselines3 have schedules
SB3_SCHEDULES = ("learning_rate", "clip_range", "epsilon")

Floats = NDArray[np.float64]


def constant(t: Floats, start: float, end: float, stairs: int) -> Floats:
    """Always the start."""
    return np.full_like(t, start)


def linear(t: Floats, start: float, end: float, stairs: int) -> Floats:
    """Equal sums in equal times."""
    return start + (end - start) * t


def exponential(t: Floats, start: float, end: float, stairs: int) -> Floats:
    """Equal factors in equal times."""
    return start * exp(log(end / start) * t)


def cosine(t: Floats, start: float, end: float, stairs: int) -> Floats:
    """Half a cosine wave."""
    return end + (start - end) * (1 + cos(np.pi * t)) / 2


def step(t: Floats, start: float, end: float, stairs: int) -> Floats:
    """Equal stairs; the first is the start, the last the end."""
    level = np.minimum(np.floor(t * stairs), stairs - 1) / (stairs - 1)
    return start + (end - start) * level


SHAPES: dict[str, Callable[[Floats, float, float, int], Floats]] = {
    f.__name__: f for f in (constant, linear, exponential, cosine, step)
}


@dataclass(frozen=True)
class Curve:
    """Values over a run.

    Args:
        shape: "constant", "linear", "exponential", "cosine" or "step".
        start: value at the beginning.
        end: value from ``fraction`` of the budget on; None: ``start``.
        fraction: share of the budget over which the value moves.
        stairs: levels of the "step" shape.

    Raises:
        ValueError: an unknown shape, or values that the shape cannot connect.
    """

    shape: str
    start: float
    end: float | None = None
    fraction: float = 1.0
    stairs: int = 4

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(unknown("shape", self.shape, SHAPES))
        start, end = self.start, self.last
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(f"start and end must be finite, got {start} and {end}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")
        if self.stairs < 2:
            raise ValueError(f"stairs must be at least 2, got {self.stairs}")
        if self.shape == "exponential" and not (start > 0 and end > 0):
            raise ValueError(
                f"an exponential schedule needs positive values, got {start} and {end}"
            )

    @property
    def last(self) -> float:
        """Value from ``fraction`` of the budget on."""
        return self.start if self.end is None else self.end

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return min(self.start, self.last), max(self.start, self.last)

    def values(self, progress: Floats) -> Floats:
        """Values at shares ``progress`` of the budget."""
        t = np.clip(progress / self.fraction, 0.0, 1.0)
        return SHAPES[self.shape](t, self.start, self.last, self.stairs)


@dataclass(frozen=True)
class Remaining:
    """A curve by what remains of a run, which pickles as models are saved."""

    curve: Curve

    def __call__(self, progress_remaining: float) -> float:
        """The value at a share of the budget that remains."""
        return float(self.curve.values(np.array([1.0 - progress_remaining]))[0])


class Schedule:
    """One hyperparameter follows a curve over the run; the others keep defaults.

    Args:
        shape: "constant", "linear", "exponential", "cosine" or "step".
        hyperparameter: name of what is scheduled.
        start: value at the beginning.
        end: value from ``fraction`` of the budget on; None: ``start``.
        fraction: share of the budget over which the value moves.
        stairs: levels of the "step" shape.
        decisions: outer steps a run; the value holds in between. None: 100, or the
            nearest number that runs can have.

    Raises:
        ValueError: an unknown shape, or values that the shape cannot connect; at
            `reset`, an unknown hyperparameter or values out of its range.
    """

    action_mode = "values"

    def __init__(
        self,
        shape: str,
        hyperparameter: str,
        start: float,
        end: float | None = None,
        fraction: float = 1.0,
        stairs: int = 4,
        decisions: int | None = None,
    ) -> None:
        self.curve = Curve(shape, start, end, fraction, stairs)
        self.hyperparameters = (hyperparameter,)
        self.extremes = {hyperparameter: self.curve.extremes}
        self.decisions, self.decisions_near = wanted(decisions)

    def values(self, progress: Floats) -> Floats:
        """Values at shares ``progress`` of the budget."""
        return self.curve.values(progress)

    def to_sb3(self) -> Callable[[float], float]:
        """The same curve as a schedule of Stable-Baselines3.

        Its models take it as ``learning_rate`` and ``clip_range``; of epsilon it is
        what a DQN has as ``exploration_schedule``. It changes continuously, where a
        policy holds values between decisions.

        Returns:
            The value, given the share of the budget that remains (1 to 0).

        Raises:
            ValueError: a hyperparameter of which models have no schedule.
        """
        [name] = self.hyperparameters
        if name not in SB3_SCHEDULES:
            raise ValueError(
                f"models of Stable-Baselines3 have schedules of "
                f"{', '.join(SB3_SCHEDULES)}, not of {name}; a DynamicConfigCallback "
                "of dacrl_env.integrations.sb3_callback sets others, and those that "
                "depend on more than time"
            )
        return Remaining(self.curve)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check that the hyperparameter can take the values."""
        self.envs = envs
        number = envs.settings.number(self.hyperparameters[0])
        number.check((self.curve.start, self.curve.last))

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)`` for the values at each member's progress."""
        values = self.values(infos["env_steps"] / self.envs.settings.budget)
        return self.envs.to_actions({self.hyperparameters[0]: values})


def wanted(decisions: int | None) -> tuple[int | None, int | None]:
    """Decisions that a run must have, and those that it should be near; one is None.

    Raises:
        ValueError: fewer than one.
    """
    if decisions is not None and decisions < 1:
        raise ValueError(f"decisions must be at least 1, got {decisions}")
    return decisions, DECISIONS if decisions is None else None
