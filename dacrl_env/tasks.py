"""What a task is made of: hyperparameters, instances, budgets, score references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPORT_POINTS = 20  # evaluations of a run by the report stream, the end included
REPORT_EPISODES = 20  # at each point on the way
FINAL_REPORT_EPISODES = 100  # at the end

Scale = Literal["linear", "log", "log_complement"]


@dataclass(frozen=True)
class Hyperparameter:
    """A value that an action may change at every outer step.

    Args:
        name: as in configurations and ``hp/<name>`` columns.
        low: smallest value.
        high: largest value.
        default: used where nothing is chosen; between low and high.
        scale: how ranges are divided: ``"linear"``, ``"log"``, or
            ``"log_complement"``, which is logarithmic in one minus the value.
        integer: applied values are rounded.

    Raises:
        ValueError: an inverted range, a default outside of it, or a range that the
            scale cannot divide.
    """

    name: str
    low: float
    high: float
    default: float
    scale: Scale = "linear"
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"range of {self.name} is inverted or empty: "
                f"low {self.low} must be below high {self.high}"
            )
        if not self.low <= self.default <= self.high:
            raise ValueError(
                f"default {self.default} of {self.name} lies outside its range "
                f"[{self.low}, {self.high}]"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"log range of {self.name} must start above 0")
        if self.scale == "log_complement" and self.high >= 1:
            raise ValueError(f"log_complement range of {self.name} must end below 1")

    def to_unit(self, values: ArrayLike) -> NDArray[np.float64]:
        """Values on the axis where equal distances are equal factors (or sums)."""
        x = np.asarray(values, np.float64)
        if self.scale == "log":
            return np.log(x)
        if self.scale == "log_complement":
            return -np.log1p(-x)
        return x

    def from_unit(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Inverse of :meth:`to_unit`, clipped to the range."""
        x = np.asarray(positions, np.float64)
        if self.scale == "log":
            x = np.exp(x)
        elif self.scale == "log_complement":
            x = -np.expm1(-x)
        return np.clip(x, self.low, self.high)


@dataclass(frozen=True)
class Instance:
    """A variation of a task: other physical constants, the same shapes.

    Args:
        name: as in ``reset(options={"instance": name})``.
        physics: constants that differ from the inner environment's own.
    """

    name: str
    physics: Mapping[str, float] = field(default_factory=dict)


DEFAULT_INSTANCE = Instance("default")


@dataclass(frozen=True)
class Task:
    """An inner environment, a learner, a budget and a scale for scores.

    Args:
        id: Gymnasium id of the outer environment.
        inner_env: Gymnasium id of the inner environment.
        learner: name of the inner algorithm.
        budget: inner environment steps of one run.
        random_return: mean return of uniformly random actions (score 0).
        reference_return: return of score 1.
        floor_return: below every attainable return; what a diverged run scores.
        decisions: outer steps of one run by default.
        controlled: hyperparameters an action sets by default; None: the learner's.
        defaults: hyperparameter defaults that differ from the learner's.
        configuration: learner configuration that differs from the learner's.
        inner_env_kwargs: passed to ``gymnasium.make`` or ``envpool.make`` of the inner
            environment.
        backend: ``"batched"`` dynamics, the ``"gymnasium"`` original, ``"envpool"``
            (see :mod:`dacrl_env.inner_envs.envpool_adapter`), or ``"auto"``: batched
            where this package has it, else the original.
        train_instances: instances of the "train" set.
        test_instances: instances of the "test" set.
        always_varied: without a choice, runs of the tuning split take instances of the
            "train" set and runs of the test split of the "test" set; otherwise all
            take the inner environment as it is.
        description: one line for lists.
    """

    id: str
    inner_env: str
    learner: str
    budget: int
    random_return: float
    reference_return: float
    floor_return: float
    decisions: int = 20
    controlled: tuple[str, ...] | None = None
    defaults: Mapping[str, float] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    inner_env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    backend: Literal["auto", "batched", "gymnasium", "envpool"] = "auto"
    train_instances: tuple[Instance, ...] = (DEFAULT_INSTANCE,)
    test_instances: tuple[Instance, ...] = (DEFAULT_INSTANCE,)
    always_varied: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        if not self.floor_return < self.random_return < self.reference_return:
            raise ValueError(
                f"returns of {self.id} must be ordered floor < random < reference, "
                f"got {self.floor_return}, {self.random_return}, "
                f"{self.reference_return}"
            )
        if self.budget < 1 or self.decisions < 1:
            raise ValueError(f"budget and decisions of {self.id} must be at least 1")
        if self.budget % self.decisions:
            raise ValueError(
                f"budget {self.budget} of {self.id} does not divide into "
                f"{self.decisions} decisions"
            )

    def score(self, returns: ArrayLike) -> NDArray[np.float64]:
        """Returns on the task's scale: 0 = random policy, 1 = reference."""
        span = self.reference_return - self.random_return
        return (np.asarray(returns, np.float64) - self.random_return) / span

    @property
    def floor_score(self) -> float:
        """Score of a diverged run."""
        return float(self.score(self.floor_return))
