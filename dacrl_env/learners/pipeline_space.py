"""What pipelines choose from, and how they number it.

An algorithm with its features has a number, by the codes of both choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import checks
from dacrl_env.learners import events, replaying
from dacrl_env.learners.discrete_sac import DiscreteSAC
from dacrl_env.learners.dqn import DQN
from dacrl_env.learners.networks import check_fourier
from dacrl_env.learners.ppo import PPO
from dacrl_env.learners.protocol import Ints, Values
from dacrl_env.tasks import Choice, Condition, Event, Knob
from dacrl_env.tasks.backends import OF_LEVELS

KINDS: dict[str, Any] = {  # by the name that actions have
    "dqn": DQN,
    "ppo": PPO,
    "sac": DiscreteSAC,
}
FEATURES = ("raw", "normalised", "fourier")
_NAMES = tuple(KINDS)
_EVENTS: tuple[Knob, ...] = (*events.EVENTS, events.CLEAR_REPLAY)
COMMON = tuple(h.name for h in _EVENTS)


def _children(algorithm: str) -> Iterator[Knob]:
    """Hyperparameters of an algorithm as those of the pipeline."""
    own: tuple[Knob, ...] = KINDS[algorithm].hyperparameters
    for h in own:
        if isinstance(h, Event) or h.name in (*COMMON, *OF_LEVELS):
            continue
        given = Condition("algorithm", (algorithm,))
        if h.condition is not None:
            given = replace(h.condition, choice=f"{algorithm}.{h.condition.choice}")
        yield replace(h, name=f"{algorithm}.{h.name}", condition=given)


HYPERPARAMETERS: tuple[Knob, ...] = (
    Choice("algorithm", _NAMES, "dqn"),
    Choice("features", FEATURES, "raw"),
    *(h for algorithm in KINDS for h in _children(algorithm)),
    *_EVENTS,
)
CONTROLLED = (
    "algorithm",
    "features",
    "dqn.learning_rate",
    "dqn.epsilon",
    "ppo.learning_rate",
    "ppo.ent_coef",
    "sac.learning_rate",
    "sac.target_entropy",
)
# of whichever algorithm there is; 0 where it has none of the name
SIGNALS = (
    "loss",
    "actor_loss",
    "td_error",
    "kl",
    "grad_norm",
    "entropy",
    "temperature",
    "update_ratio",
    "value_mean",
    "value_std",
)
SIGNAL_UNITS = {"loss": 1e-3, "actor_loss": 1.0, "entropy": 1e-3, "value_mean": 1.0}


@dataclass(frozen=True)
class PipelineConfig:
    """What sets shapes; the same for all algorithms that have it.

    Args:
        hidden_sizes: widths of the hidden layers, of each network.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh"; None: tanh of PPO, relu of
            the others.
        rollout_length: steps of each environment between updates of PPO.
        replay_capacity: transitions kept a member; None: the budget, at most 100,000.
        learning_starts: environment steps of a run before the first update of DQN and
            SAC, whose actions are random until then.
        fourier_features: random cosines and sines, half of each, where features are
            "fourier".
        fourier_scale: deviation of the normal numbers that normalised observations are
            multiplied with, in turns a standard deviation.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 1
    activation: str | None = None
    rollout_length: int = 512
    replay_capacity: int | None = None
    learning_starts: int = 1_000
    fourier_features: int = 64
    fourier_scale: float = 0.1

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        replaying.check(self)
        if self.rollout_length < 1:
            raise ValueError("rollout_length must be at least 1")
        if check_fourier(self) < 2:
            raise ValueError("fourier_features must be at least 2")


def config_of(config: PipelineConfig, algorithm: str, features: str) -> Any:
    """The configuration of an algorithm that sees some features."""
    kind = KINDS[algorithm].config_class
    given = {k: v for k, v in vars(config).items() if v is not None}
    given["normalize_observations"] = features != "raw"
    if features != "fourier":
        given["fourier_features"] = 0
    names = {f.name for f in fields(kind)}
    return kind(**{k: v for k, v in given.items() if k in names})


def values_of(values: Mapping[str, Any], algorithm: str) -> dict[str, Any]:
    """What a pipeline's values say of one algorithm, by its own names."""
    own = {
        name.removeprefix(f"{algorithm}."): value
        for name, value in values.items()
        if name.startswith(f"{algorithm}.")
    }
    return own | {name: values[name] for name in COMMON if name in values}


# -- numbers of an algorithm with its features -----------------------------------------


def read(number: int) -> tuple[str, str]:
    """Algorithm and features of a number."""
    return _NAMES[number // len(FEATURES)], FEATURES[number % len(FEATURES)]


def numbers_of(values: Values) -> Ints:
    """Numbers ``(n,)`` that values choose."""
    codes = values["algorithm"] * len(FEATURES) + values["features"]
    return np.asarray(codes, np.int64)


def groups(numbers: Ints) -> list[tuple[int, Ints]]:
    """Each number that there is, and where."""
    return [(int(k), np.flatnonzero(numbers == k)) for k in np.unique(numbers)]


def stretches(numbers: Ints) -> list[tuple[int, int, int]]:
    """Equal numbers that follow each other: which, from where, to before where."""
    ends = np.flatnonzero(np.diff(numbers)) + 1
    edges = [0, *ends.tolist(), len(numbers)]
    return [(int(numbers[a]), a, b) for a, b in pairwise(edges)]


def menu_of(known: Mapping[str, float]) -> list[int]:
    """Numbers that can be chosen where some hyperparameters are known."""
    algorithms, kinds = (
        [int(known[name])] if name in known else [*range(len(options))]
        for name, options in (("algorithm", _NAMES), ("features", FEATURES))
    )
    return [a * len(FEATURES) + f for a in algorithms for f in kinds]


def takes_note(menu: list[int], known: Mapping[str, float]) -> bool:
    """Whether priorities are kept: all algorithms keep those that one may need."""
    names = {read(number)[0] for number in menu}
    return any(
        known.get(f"{name}.priority_alpha") != 0.0
        for name in names
        if any(h.name == "priority_alpha" for h in KINDS[name].hyperparameters)
    )


def has_replay(numbers: Ints) -> NDArray[np.bool_]:
    """Whether the algorithms of numbers ``(n,)`` keep what they learn from."""
    return np.asarray(numbers // len(FEATURES) != _NAMES.index("ppo"))
