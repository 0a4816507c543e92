"""Small populations of one learner, without an outer environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval
from dacrl_env.core import snapshot, streams
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.env import ENVS, CompiledEnv
from dacrl_env.kernels.dense import Network
from dacrl_env.learners import discrete_sac, dqn, pipeline, ppo, sac
from dacrl_env.tasks import Knob, Number

# two layers, as tasks have them: each number of layers is compiled anew
ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dqn": (dqn.DQN, {"hidden_sizes": (16, 16), "learning_starts": 32}),
    "ppo": (
        ppo.PPO,
        {"hidden_sizes": (16, 16), "num_inner_envs": 2, "rollout_length": 16},
    ),
    "sac": (sac.SAC, {"hidden_sizes": (16, 16), "learning_starts": 32}),
    "discrete_sac": (
        discrete_sac.DiscreteSAC,
        {"hidden_sizes": (16, 16), "learning_starts": 32},
    ),
    "pipeline": (
        pipeline.Pipeline,
        {"hidden_sizes": (16, 16), "learning_starts": 32, "rollout_length": 16},
    ),
}


@dataclass
class Runs:
    """A population of runs with the hyperparameters it is trained with."""

    learner: Any
    state: Any
    values: dict[str, NDArray[np.float64]]  # name -> (P,)
    interval: Interval
    keys: streams.UInts  # (P, purposes)
    physics: NDArray[np.float64]  # (P, K)

    def train(self, steps: int) -> None:
        self.learner.train(self.state, self.values, steps, self.interval)

    def rollouts(self, number: int) -> None:
        self.train(number * self.learner.granularity(self.learner.config))

    def begin_interval(self) -> None:
        self.interval = self.learner.begin_interval(self.state)

    def diverged(self) -> list[bool]:
        """Of every member."""
        lost: list[bool] = self.learner.diverged(self.state, self.interval).tolist()
        return lost

    def member(self, i: int) -> dict[str, bytes]:
        """Every bit of one member's run, by name."""
        leaves = snapshot.leaves(self.state)
        return {name: np.asarray(leaf[i]).tobytes() for name, leaf in leaves}

    def differences(self, other: Runs, i: int, j: int | None = None) -> list[str]:
        """Names of the arrays in which a member differs between two populations.

        Args:
            other: population.
            i: number of the member.
            j: its number in the other population; None: the same.
        """
        mine, theirs = self.member(i), other.member(i if j is None else j)
        return [name for name in mine if mine[name] != theirs[name]]


MakeRuns = Callable[..., Runs]


def make_runs(
    members: int | list[int] = 4,
    env: InnerEnv | None = None,
    seed: int = 0,
    budget: int = 10_000,
    algorithm: str = "dqn",
    **overrides: Any,
) -> Runs:
    """A population, with hyperparameters and configuration by name.

    Args:
        members: which members of the seed to make; an int: the first so many.
        env: inner environment; None: a compiled CartPole. Each is compiled anew.
        seed: of all members.
        budget: of a run.
        algorithm: one of `ALGORITHMS`.
        overrides: hyperparameters, numbers or one per member, and configuration.
    """
    if isinstance(members, int):
        members = list(range(members))
    P = len(members)
    env = ENVS["CartPole-v1"]() if env is None else env
    kind, fields = ALGORITHMS[algorithm]
    values = {
        h.name: np.full(P, _codes(h, overrides.pop(h.name, h.default)), np.float64)
        for h in kind.hyperparameters
    }
    config = kind.config_class(**{**fields, **overrides})
    # as if actions could set all of them
    learner = kind(env, env, config, budget, {})
    keys = np.stack([streams.member_keys("tuning", seed, i, 0) for i in members])
    physics = np.tile(np.array([*env.physics.values()], np.float64), (P, 1))
    state = learner.init(keys, physics)
    interval = learner.begin_interval(state)
    return Runs(learner, state, values, interval, keys, physics)


def _codes(knob: Knob, given: Any) -> Any:
    """Numbers may lie outside of their range here, and options be codes already."""
    kept = isinstance(knob, Number) or isinstance(given, np.ndarray | np.floating)
    return given if kept else knob.codes(given)


def layers_of(
    net: Network, row: NDArray[Any]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Weights (in, out) and biases of a network's layers: views, without padding."""
    result = []
    last = len(net.weights) - 1
    for k, (i, o) in enumerate(net.shapes):
        w = row[net.weights[k] : net.weights[k] + i * o]
        w = w.reshape(o, i).T if k == last else w.reshape(i, o)
        b = row[net.biases[k] : net.biases[k] + o]
        real_in, real_out = net.real[k]
        result.append((w[:real_in, :real_out], b[:real_out]))
    return result


def linear_of(module: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights (in, out) and biases of a layer of torch, dense or convolution."""
    weight = module.weight.detach()
    if weight.ndim == 4:  # by row, column and channel of a window
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1).numpy().T, module.bias.detach().numpy()


def set_linear(module: Any, weight: NDArray[Any], bias: NDArray[Any]) -> None:
    """The inverse of `linear_of`."""
    given = torch.tensor(weight.T)
    if module.weight.ndim == 4:
        channels, C, *window = module.weight.shape
        given = given.view(channels, *window, C).permute(0, 3, 1, 2)
    with torch.no_grad():
        module.weight.copy_(given)
        module.bias.copy_(torch.tensor(bias))


class Stepped:
    """A compiled environment as one of those that Python steps."""

    def __init__(self, env: CompiledEnv) -> None:
        self.hidden = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hidden, name)
