"""Member-steps per second beside Stable-Baselines3 and the limit of the machine.

One core is pinned, torch has one thread, and the measurements take turns within one
process, so that a change of the machine's speed meets all of them. A member-step is
one training step of an inner environment of one member, updates included and
evaluation excluded.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dacrl_env.inner_envs.batched import BatchedEnv
from dacrl_env.inner_envs.cartpole import CartPole
from dacrl_env.learners import dqn, ppo, streams
from dacrl_env.population import inner_context
from dacrl_env.version import __version__

INNER_ENV = "CartPole-v1"
LEARNING_STARTS = 100
BUDGET = 50_000
# PPO settings of the Stable-Baselines3 zoo for CartPole
PPO_ENVS, PPO_STEPS, PPO_BATCH, PPO_EPOCHS = 8, 32, 256, 20
SIZES = (4, 64, 64, 2)
PEER = "Stable-Baselines3"
LIMIT = "matrix products alone"


Program = Callable[[], int]  # does some work and returns how many member-steps


def _workloads(populations: Sequence[int]) -> dict[str, dict[str, Program]]:
    """Programs that do the same work, by workload and name."""
    workloads: dict[str, dict[str, Program]] = {}
    for frequency in (1, 4):
        name = f"DQN, a gradient step per {frequency} steps"
        workloads[name] = {
            PEER: _stable_baselines3_dqn(frequency),
            **{f"P = {P}": _dqn(P, frequency) for P in populations},
            LIMIT: matrix_products(SIZES, 64, 1, 2, frequency),
        }
    mixed = _random_batch_sizes(64)
    workloads["DQN, random batch sizes, a gradient step per 4 steps"] = {
        PEER: _stable_baselines3_dqn(4, mixed),
        **{
            f"P = {P}": _dqn(P, 4, batch_size=_random_batch_sizes(P))
            for P in populations
        },
    }
    # actor and critic; one minibatch an epoch, so this many steps a gradient step
    per_update = PPO_ENVS * PPO_STEPS / PPO_EPOCHS
    workloads["PPO, 8 × 32 steps, batch 256, 20 epochs"] = {
        PEER: _stable_baselines3_ppo(),
        **{f"P = {P}": _ppo(P) for P in populations},
        LIMIT: matrix_products(SIZES, PPO_BATCH, 2, 1, per_update),
    }
    return workloads


def measure(
    populations: Sequence[int] = (1, 8, 32, 64), repeats: int = 5, seconds: float = 1.0
) -> dict[str, Any]:
    """Throughput on CartPole with 64 × 64 networks.

    Args:
        populations: sizes P.
        repeats: measurements of everything, in turns.
        seconds: of one measurement, at least.

    Returns:
        Figures and what they were measured on, as JSON values.

    Raises:
        ValueError: sizes or repeats below one.
    """
    if min(populations, default=0) < 1 or repeats < 1 or not seconds > 0:
        raise ValueError(
            "populations, repeats and seconds must be positive, got "
            f"{populations}, {repeats}, {seconds}"
        )
    rows = []
    with one_core() as core, inner_context():
        for workload, programs in _workloads(populations).items():
            rates: dict[str, list[float]] = {name: [] for name in programs}
            for turn in range(repeats + 1):
                for name, program in programs.items():
                    speed = rate(program, seconds)
                    if turn:  # the first turn warms up
                        rates[name].append(speed)
            limits = rates.pop(LIMIT, None)
            for name, values in rates.items():
                rows.append(
                    {
                        "workload": workload,
                        "program": name,
                        "steps_per_second": median(values),
                        "lowest": min(values),
                        "highest": max(values),
                        "ratio": relative(values, rates[PEER]),
                        "share_of_limit": relative(values, limits),
                    }
                )
    return {
        "inner_env": INNER_ENV,
        "repeats": repeats,
        "seconds": seconds,
        "core": core,
        "versions": versions(),
        "rows": rows,
    }


def relative(values: Sequence[float], others: Sequence[float] | None) -> float | None:
    """Median of ratios turn by turn; None: there is nothing to compare with."""
    if others is None:
        return None
    return median(a / b for a, b in zip(values, others, strict=True))


def share(value: float | None) -> str:
    """A share as tables show it."""
    return "–" if value is None else f"{value:.0%}"


def render(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{result['inner_env']}, one core, median of {result['repeats']} turns "
        f"({', '.join(f'{k} {v}' for k, v in result['versions'].items())})",
        "",
        "| workload | program | member-steps/s | lowest – highest | "
        f"× {PEER} | share of the limit |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['workload']} | {row['program']} | {row['steps_per_second']:,.0f} | "
        f"{row['lowest']:,.0f} – {row['highest']:,.0f} | {row['ratio']:.1f} | "
        f"{share(row['share_of_limit'])} |"
        for row in result["rows"]
    ]
    lines += ["", f"Limit: {LIMIT}, at the shapes of an update of 32 members."]
    return "\n".join(lines)


def save(result: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def one_core() -> Iterator[int | None]:
    """Keep this process on one core, where the system lets us; restored afterwards."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    core = min(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def rate(program: Program, seconds: float) -> float:
    """Steps per second; ``program`` does some and returns how many."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        done += program()
    return done / spent


def _random_batch_sizes(P: int) -> NDArray[np.float64]:
    """Log-uniform over the whole range, the same each time ``(P,)``."""
    h = next(h for h in dqn.HYPERPARAMETERS if h.name == "batch_size")
    exponents = np.random.default_rng(0).uniform(np.log(h.low), np.log(h.high), P)
    return np.rint(np.exp(exponents))


def _train(
    learner_class: Any,
    config: Any,
    P: int,
    **changed: float | NDArray[np.float64],
) -> Any:
    """A population in the middle of training, and a function that goes on.

    Returns ``run(steps) -> member-steps``.
    """
    env = BatchedEnv(CartPole())
    learner = learner_class(env, env, config, BUDGET, torch.device("cpu"))
    keys = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(P)])
    state = learner.init(keys, np.tile([*env.physics.values()], (P, 1)))
    values = {h.name: np.full(P, float(h.default)) for h in learner.hyperparameters}
    for name, value in changed.items():
        values[name][:] = value
    interval = learner.begin_interval(state)

    def run(steps: int) -> int:
        learner.train(state, values, steps, interval)
        return P * steps

    return run


def _dqn(P: int, frequency: int, **changed: float | NDArray[np.float64]) -> Program:
    config = dqn.DQNConfig(learning_starts=LEARNING_STARTS)
    run = _train(dqn.DQN, config, P, train_freq=frequency, **changed)
    run(LEARNING_STARTS)
    steps = max(20, 400 // P) * frequency
    return lambda: run(steps)


def _ppo(P: int) -> Program:
    config = ppo.PPOConfig(num_inner_envs=PPO_ENVS, rollout_length=PPO_STEPS)
    run = _train(
        ppo.PPO,
        config,
        P,
        learning_rate=1e-3,
        batch_size=PPO_BATCH,
        n_epochs=PPO_EPOCHS,
        gamma=0.98,
        gae_lambda=0.8,
    )
    steps = PPO_ENVS * PPO_STEPS
    return lambda: run(steps)


def learn(model: Any, steps: int, callback: Any = None) -> Program:
    """A program that goes on training a model of Stable-Baselines3's interface."""

    def run() -> int:
        before = model.num_timesteps
        with torch.enable_grad():
            model.learn(steps, callback, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return run


def _stable_baselines3_dqn(
    frequency: int, batch_sizes: NDArray[np.float64] | None = None
) -> Program:
    """DQN; with batch sizes, the time that all of them would take one by one."""
    import gymnasium as gym
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    class Takes(BaseCallback):  # the next of the batch sizes for each gradient step
        model: DQN

        def _on_step(self) -> bool:
            if batch_sizes is not None:
                turn = self.num_timesteps // frequency % len(batch_sizes)
                self.model.batch_size = int(batch_sizes[turn])
            return True

    model = DQN(
        "MlpPolicy",
        gym.make(INNER_ENV),
        learning_rate=1e-3,
        buffer_size=BUDGET,
        learning_starts=LEARNING_STARTS,
        batch_size=64,
        gamma=0.99,
        train_freq=frequency,
        gradient_steps=1,
        target_update_interval=500,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    with torch.enable_grad():
        model.learn(LEARNING_STARTS)
    steps = 200 if batch_sizes is None else frequency * len(batch_sizes)
    return learn(model, steps, Takes())


def _stable_baselines3_ppo() -> Program:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO(
        "MlpPolicy",
        make_vec_env(INNER_ENV, PPO_ENVS, seed=0),
        learning_rate=1e-3,
        n_steps=PPO_STEPS,
        batch_size=PPO_BATCH,
        n_epochs=PPO_EPOCHS,
        gamma=0.98,
        gae_lambda=0.8,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    return learn(model, PPO_ENVS * PPO_STEPS)


def matrix_products(
    sizes: Sequence[int], batch: int, networks: int, forwards: int, steps: float
) -> Program:
    """The products of one gradient step by torch's batched matrix multiplication.

    Operands are in the order that is fastest. The learners' own products, by numpy, are
    quicker where matrices are small: the limit is one of plain torch.

    Args:
        sizes: features of the input, of each hidden layer and of the output.
        batch: samples.
        networks: that are trained, of equal shapes.
        forwards: passes through each before the backward pass, targets included.
        steps: environment steps that a gradient step stands for.

    Returns a program that counts the member-steps its gradient steps stand for.
    """
    block, shapes = 32, list(pairwise(sizes))
    activations = [torch.rand(block, batch, n) for n, _ in shapes]
    gradients = [torch.rand(block, batch, n) for _, n in shapes]
    # narrow outputs: stored transposed, as the learners do
    weights = [
        torch.rand(block, o, i).transpose(1, 2) if o < i else torch.rand(block, i, o)
        for i, o in shapes
    ]
    results = [torch.empty(block, batch, n) for _, n in shapes]
    layers = list(zip(activations, weights, results, gradients, strict=True))

    def run() -> int:
        for _ in range(networks):
            for _ in range(forwards):
                for x, w, y, _ in layers:
                    torch.bmm(x, w, out=y)
            for k, (x, w, _, d) in enumerate(layers):
                if w.stride(2) == 1:
                    torch.bmm(x.transpose(1, 2), d)
                else:
                    torch.bmm(d.transpose(1, 2), x)
                if k:
                    torch.bmm(d, w.transpose(1, 2))
        return round(block * steps)

    return run


def versions() -> dict[str, str]:
    """What figures were measured with."""
    import stable_baselines3

    return {
        "dacrl-env": __version__,
        "stable-baselines3": stable_baselines3.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
