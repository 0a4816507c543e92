"""What a population asks of an algorithm.

Three kinds offer it: compiled ones (`compiled.Compiled`), the noisy quadratic
(`sgd.SGD`), and those of Stable-Baselines3 (``sb3/``). None is a base class of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval
from dacrl_env.core import streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.tasks import Knob, Option

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Values = Mapping[str, Floats]  # hyperparameter name -> (P,)


class Algorithm(Protocol):
    """An algorithm over a population; holds shapes and memory of threads, no state.

    It is made with the inner environment, another one for evaluations, the
    configuration, the environment steps of a run, and the hyperparameters that no
    action sets, by name (None: all). What is known before that are class attributes and
    class methods.
    """

    hyperparameters: tuple[Knob, ...]
    controlled: tuple[str, ...]  # by default
    # hyperparameters of which this implementation has one value alone
    only: Mapping[str, Option]
    # those that cannot change while a run goes on
    unchanging: tuple[str, ...]
    signal_names: tuple[str, ...]
    # of signals that may be negative: the magnitude that observations begin to tell
    # from 0
    signal_units: Mapping[str, float]
    config_class: type
    continuous_actions: bool
    exact_snapshots: bool
    num_threads: int  # members that are trained at a time

    @staticmethod
    def granularity(config: Any) -> int:
        """Environment steps that cannot be divided further."""
        ...

    @classmethod
    def member_bytes(
        cls,
        config: Any,
        budget: int,
        env: InnerEnv,
        given: Mapping[str, float] | None = None,
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most.

        Args:
            config: the configuration.
            budget: environment steps of a run.
            env: the inner environment.
            given: hyperparameters that no action sets; None: all.
        """
        ...

    @classmethod
    def constrain(cls, values: dict[str, Floats], config: Any, budget: int) -> None:
        """Cap requested values in place to what can be applied together."""
        ...

    def flops(self, values: Values) -> tuple[int | Ints, Floats]:
        """Floating-point operations per action, and ``(P,)`` per sample of updates.

        Those per action are ``(P,)`` where members may act by different networks.
        """
        ...

    @staticmethod
    def samples_per_step(values: Values) -> Floats:
        """Transitions ``(n,)`` used in updates an environment step, by values."""
        ...

    def init(self, keys: streams.UInts, physics: Floats) -> Any:
        """Runs before their first step; keys ``(P, purposes)``, physics ``(P, K)``."""
        ...

    def restart(
        self, state: Any, members: Ints, keys: streams.UInts, physics: Floats
    ) -> None:
        """Put some members back before their first step, with new streams."""
        ...

    def begin_episodes(self, state: Any) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        ...

    def reseed(self, state: Any, members: Ints, marks: Ints) -> None:
        """Give inner environments of members ``(m,)`` streams that no other draws from.

        Copies of one run draw the same where their marks ``(m,)`` are the same.
        """
        ...

    def close(self, state: Any) -> None:
        """Close inner environments that are objects."""
        ...

    def play(
        self, state: Any, members: Ints, keys: streams.UInts, physics: Floats
    ) -> tuple[Floats, Ints]:
        """Returns ``(m, E)`` of evaluation episodes and steps ``(m,)`` they took."""
        ...

    def happen(self, state: Any, values: Values) -> dict[str, NDArray[np.bool_]]:
        """Let the events of a decision happen, before members train.

        Returns:
            By name of the event members ``(P,)`` with which it could not.
        """
        ...

    def begin_interval(self, state: Any) -> Interval:
        """Empty sums for the time until the next decision."""
        ...

    def train(self, state: Any, values: Values, steps: int, interval: Interval) -> None:
        """Train every member for ``steps`` environment steps."""
        ...

    def diverged(self, state: Any, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` that have diverged."""
        ...

    def signals(
        self, state: Any, values: Values, interval: Interval
    ) -> dict[str, Floats]:
        """What the interval tells of each member ``(P,)``, by name."""
        ...


def steady(
    hyperparameters: Sequence[Knob], given: Mapping[str, float] | None
) -> dict[str, float]:
    """Values of hyperparameters that no action sets; None: all have their default."""
    return {h.name: h.start for h in hyperparameters} if given is None else dict(given)


def reseed_envs(env: InnerEnv, state: Any, members: Ints, marks: Ints) -> None:
    """`Algorithm.reseed`, where there are inner environments."""
    fresh = streams.bits(state.envs.keys[members], marks[:, None], 1)[..., 0]
    state.envs.keys[members] = fresh
    env.reseed(state.envs, members)


def close_envs(env: InnerEnv, eval_env: InnerEnv, state: Any) -> None:
    """`Algorithm.close`, where there are inner environments."""
    try:
        env.close(state.envs)
    finally:
        eval_env.close()
