"""What a task is made of: hyperparameters, instances, budgets, score references."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike, NDArray

from dacrl_env.files import file_digest

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
        random_return: as of a :class:`Task`, on this instance; None: the task's.
        reference_return: the same; all three are given, or none.
        floor_return: the same.

    Raises:
        ValueError: one or two of the three returns, or in the wrong order.
    """

    name: str
    physics: Mapping[str, float] = field(default_factory=dict)
    random_return: float | None = None
    reference_return: float | None = None
    floor_return: float | None = None

    def __post_init__(self) -> None:
        floor, random = self.floor_return, self.random_return
        if floor is random is self.reference_return is None:
            return
        if floor is None or random is None or self.reference_return is None:
            raise ValueError(
                f"instance {self.name!r} needs all of random_return, reference_return "
                "and floor_return, or none of them; got "
                f"{random}, {self.reference_return} and {floor}"
            )
        _check_order(f"instance {self.name!r}", floor, random, self.reference_return)


DEFAULT_INSTANCE = Instance("default")


@dataclass(frozen=True)
class References:
    """What returns are normalised by: a row for each instance, or for each member.

    Args:
        random: ``(n,)`` returns of score 0.
        reference: ``(n,)`` returns of score 1.
        floor: ``(n,)`` what diverged runs return.
    """

    random: NDArray[np.float64]
    reference: NDArray[np.float64]
    floor: NDArray[np.float64]

    def rows(self, index: NDArray[np.integer]) -> References:
        """Chosen rows: those of members, from those of instances."""
        return References(self.random[index], self.reference[index], self.floor[index])

    def score(self, returns: ArrayLike) -> NDArray[np.float64]:
        """Scores ``(n,)`` of returns: 0 = random policy, 1 = reference."""
        span = self.reference - self.random
        return (np.asarray(returns, np.float64) - self.random) / span

    def returns(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Inverse of :meth:`score`."""
        span = self.reference - self.random
        return np.asarray(scores, np.float64) * span + self.random

    @property
    def floor_score(self) -> NDArray[np.float64]:
        """Scores ``(n,)`` of diverged runs."""
        return self.score(self.floor)


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
        tags: words for lists; "smoke": its tuned static configuration scores outside
            0.2–0.9, or no change was found to gain 0.05, see docs/dynamics.md.
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
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_order(
            self.id, self.floor_return, self.random_return, self.reference_return
        )
        if self.budget < 1 or self.decisions < 1:
            raise ValueError(f"budget and decisions of {self.id} must be at least 1")
        if self.budget % self.decisions:
            raise ValueError(
                f"budget {self.budget} of {self.id} does not divide into "
                f"{self.decisions} decisions"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """With what Gymnasium knows of the inner environment.

        Another process, in which nobody has registered it, can then make it, too.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        spec = gym.registry.get(self.inner_env)
        if spec is None or str(spec.entry_point).startswith("gymnasium."):
            return _unpickled, (own, None)
        try:
            pickle.dumps(spec)
        except (pickle.PicklingError, AttributeError, TypeError):
            spec = None
        return _unpickled, (own, spec)

    def definition(self) -> dict[str, Any]:
        """All that results depend on, for the keys of a store."""
        every = asdict(self) | {"description": ""}
        del every["tags"]
        source = _source(self.inner_env)
        return every if source is None else every | {"inner_env_source": source}

    def references(self, instances: Sequence[Instance]) -> References:
        """What returns on each instance are normalised by."""
        own = (self.random_return, self.reference_return, self.floor_return)
        rows = [
            own
            if i.random_return is None
            else (i.random_return, i.reference_return, i.floor_return)
            for i in instances
        ]
        random, reference, floor = np.array(rows, np.float64).reshape(-1, 3).T
        return References(random, reference, floor)

    def score(self, returns: ArrayLike) -> NDArray[np.float64]:
        """Returns on the task's scale: 0 = random policy, 1 = reference.

        Instances may have a scale of their own, see :meth:`references`.
        """
        span = self.reference_return - self.random_return
        return (np.asarray(returns, np.float64) - self.random_return) / span

    @property
    def floor_score(self) -> float:
        """Score of a diverged run, where the instance has no other."""
        return float(self.score(self.floor_return))


def _source(env_id: str | None) -> str | None:
    """Digest of the file of a user's inner environment; None for installed ones."""
    spec = gym.registry.get((env_id or "").rpartition(":")[2])
    entry = None if spec is None else spec.entry_point
    if isinstance(entry, str):
        name: str | None = entry.partition(":")[0]
    else:
        name = getattr(entry, "__module__", None)
    if name is None or name.partition(".")[0] in ("dacrl_env", "gymnasium"):
        return None
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
    else:
        found = importlib.util.find_spec(name)
        file = None if found is None else found.origin
    if file is None or not Path(file).is_file():
        return None
    if {"site-packages", "dist-packages"} & set(Path(file).parts):
        return None
    return file_digest(file)


def _unpickled(own: dict[str, Any], spec: EnvSpec | None) -> Task:
    if spec is not None:
        gym.registry.setdefault(spec.id, spec)
    return Task(**own)


def _check_order(what: str, floor: float, random: float, reference: float) -> None:
    if not floor < random < reference:
        raise ValueError(
            f"returns of {what} must be ordered floor < random < reference, "
            f"got {floor}, {random}, {reference}"
        )
