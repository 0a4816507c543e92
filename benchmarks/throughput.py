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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from dacrl_env.learners import dqn, streams
from dacrl_env.population import one_thread
from dacrl_env.registration import get_task, make_inner_env
from dacrl_env.version import __version__

TASK = "dacrl/DQN-CartPole-v0"
LEARNING_STARTS = 100
BUDGET = 50_000
TRAIN_FREQUENCIES = (1, 4)  # environment steps per gradient step
PEER = "Stable-Baselines3"
LIMIT = "matrix products alone"


def measure(
    populations: list[int], repeats: int = 5, seconds: float = 1.0
) -> dict[str, Any]:
    """Throughput of DQN on CartPole, 64 × 64 network, batch 64.

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
    with _one_core() as core, one_thread():
        for frequency in TRAIN_FREQUENCIES:
            programs = {PEER: _stable_baselines3(frequency)}
            for P in populations:
                programs[f"P = {P}"] = _population(P, frequency)
            limit = _matrix_products(max(populations))
            rates: dict[str, list[float]] = {name: [] for name in programs}
            limits = []
            for turn in range(repeats + 1):
                for name, program in programs.items():
                    rate = _rate(program, seconds)
                    if turn:  # the first turn warms up
                        rates[name].append(rate)
                if turn:
                    limits.append(_rate(limit, seconds) * frequency)
            for name, values in rates.items():
                ratios = [a / b for a, b in zip(values, rates[PEER], strict=True)]
                shares = [a / b for a, b in zip(values, limits, strict=True)]
                rows.append(
                    {
                        "program": name,
                        "train_freq": frequency,
                        "steps_per_second": median(values),
                        "lowest": min(values),
                        "highest": max(values),
                        "ratio": median(ratios),
                        "share_of_limit": median(shares),
                    }
                )
    return {
        "task": TASK,
        "repeats": repeats,
        "seconds": seconds,
        "core": core,
        "versions": _versions(),
        "rows": rows,
    }


def render(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{result['task']}, one core, median of {result['repeats']} turns "
        f"({', '.join(f'{k} {v}' for k, v in result['versions'].items())})",
        "",
        "| program | gradient steps per step | member-steps/s | lowest – highest | "
        f"× {PEER} | share of the limit |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['program']} | 1/{row['train_freq']} "
        f"| {row['steps_per_second']:,.0f} | "
        f"{row['lowest']:,.0f} – {row['highest']:,.0f} | {row['ratio']:.1f} | "
        f"{row['share_of_limit']:.0%} |"
        for row in result["rows"]
    ]
    lines += ["", f"Limit: {LIMIT}, at the shapes of an update of the largest P."]
    return "\n".join(lines)


def save(result: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def _one_core() -> Iterator[int | None]:
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


def _rate(program: Callable[[], int], seconds: float) -> float:
    """Steps per second; ``program`` does some and returns how many."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        done += program()
    return done / spent


def _population(P: int, frequency: int) -> Callable[[], int]:
    env = make_inner_env(get_task(TASK))
    config = dqn.DQNConfig(learning_starts=LEARNING_STARTS)
    learner = dqn.DQN(env, env, config, BUDGET, torch.device("cpu"))
    keys = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(P)])
    state = learner.init(keys, np.tile([*env.physics.values()], (P, 1)))
    values = {h.name: np.full(P, float(h.default)) for h in dqn.HYPERPARAMETERS}
    values["train_freq"][:] = frequency
    interval = learner.begin_interval(state)
    learner.train(state, values, LEARNING_STARTS, interval)
    steps = max(20, 400 // P) * frequency

    def run() -> int:
        learner.train(state, values, steps, interval)
        return P * steps

    return run


def _stable_baselines3(frequency: int) -> Callable[[], int]:
    import gymnasium as gym
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        gym.make("CartPole-v1"),
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

    def run() -> int:
        before = model.num_timesteps
        with torch.enable_grad():
            model.learn(200, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return run


def _matrix_products(P: int, batch: int = 64, hidden: int = 64) -> Callable[[], int]:
    """The products of one gradient step, operands in the order that is fastest.

    Returns the number of member gradient steps done.
    """
    inputs, outputs = 4, 2
    block = min(P, 32)
    shapes = [(inputs, hidden), (hidden, hidden), (hidden, outputs)]
    activations = [torch.rand(block, batch, n) for n in (inputs, hidden, hidden)]
    gradients = [torch.rand(block, batch, n) for _, n in shapes]
    # narrow outputs: stored transposed, as the learner does
    weights = [
        torch.rand(block, o, i).transpose(1, 2) if o < i else torch.rand(block, i, o)
        for i, o in shapes
    ]
    results = [torch.empty(block, batch, n) for _, n in shapes]

    def run() -> int:
        for _ in range(2):  # target and online network
            for x, w, y in zip(activations, weights, results, strict=True):
                torch.bmm(x, w, out=y)
        for k, (x, d, w) in enumerate(
            zip(activations, gradients, weights, strict=True)
        ):
            if w.stride(2) == 1:
                torch.bmm(x.transpose(1, 2), d)
            else:
                torch.bmm(d.transpose(1, 2), x)
            if k:
                torch.bmm(d, w.transpose(1, 2))
        return block

    return run


def _versions() -> dict[str, str]:
    import stable_baselines3

    return {
        "dacrl-env": __version__,
        "stable-baselines3": stable_baselines3.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
