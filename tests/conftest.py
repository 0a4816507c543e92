"""Shared fixtures: small populations of one learner, without an outer environment."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dacrl_env import TASKS, snapshot
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.batched import BatchedEnv
from dacrl_env.inner_envs.cartpole import CartPole
from dacrl_env.inner_envs.gymnasium_adapter import needs_box2d
from dacrl_env.learners import dqn, streams


@dataclass
class Runs:
    """A population of DQN runs with the hyperparameters it is trained with."""

    learner: dqn.DQN
    state: dqn.DQNState
    values: dict[str, NDArray[np.float64]]  # name -> (P,)
    interval: dqn.Interval
    keys: streams.UInts  # (P, purposes)
    physics: NDArray[np.float64]  # (P, K)

    def train(self, steps: int) -> None:
        self.learner.train(self.state, self.values, steps, self.interval)

    def member(self, i: int) -> dict[str, bytes]:
        """Every bit of one member's run, by name."""
        leaves = snapshot.leaves(self.state)
        return {name: np.asarray(leaf[i]).tobytes() for name, leaf in leaves}

    def differences(self, other: Runs, i: int) -> list[str]:
        """Names of the arrays in which member ``i`` differs between two populations."""
        mine, theirs = self.member(i), other.member(i)
        return [name for name in mine if mine[name] != theirs[name]]


MakeRuns = Callable[..., Runs]


def pytest_configure() -> None:
    """Signals as in a terminal; a program in the background ignores some of them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of a ``task`` that needs an extra which is not installed."""
    # not importorskip: where warnings are errors, importing Box2D crashes
    if importlib.util.find_spec("Box2D") is not None:
        return
    skip = pytest.mark.skip(reason="needs Box2D: pip install 'dacrl-env[box2d]'")
    needing = [t.id for t in TASKS.values() if needs_box2d(t.inner_env)]
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("task") in needing:
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    # more threads make small batched products slower
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_runs() -> MakeRuns:
    """Makes `Runs`; call it with hyperparameters and configuration by name.

    Hyperparameters are numbers or one per member; the defaults are those of DQN, but
    for a network of 16 and training from step 32 on. ``members`` says which members of
    the seed to make (an int: the first so many), ``env`` the inner environment.
    """

    def make(
        members: int | list[int] = 4,
        env: InnerEnv | None = None,
        seed: int = 0,
        budget: int = 10_000,
        **overrides: Any,
    ) -> Runs:
        if isinstance(members, int):
            members = list(range(members))
        P = len(members)
        env = BatchedEnv(CartPole()) if env is None else env
        values = {
            h.name: np.full(P, overrides.pop(h.name, h.default), np.float64)
            for h in dqn.HYPERPARAMETERS
        }
        fields = {"hidden_sizes": (16,), "learning_starts": 32, **overrides}
        config = dqn.DQNConfig(**fields)
        learner = dqn.DQN(env, env, config, budget, torch.device("cpu"))
        keys = np.stack([streams.member_keys("tuning", seed, i, 0) for i in members])
        physics = np.tile(np.array([*env.physics.values()], np.float64), (P, 1))
        state = learner.init(keys, physics)
        interval = learner.begin_interval(state)
        return Runs(learner, state, values, interval, keys, physics)

    return make
