"""Member-steps per second beside Stable-Baselines3 and the peak of the core.

One core is pinned, torch has one thread, and the measurements take turns within one
process, so that a change of the machine's speed meets all of them. A member-step is
one training step of an inner environment of one member, updates included and
evaluation excluded. The peak is measured, too: fused multiply-adds without anything
else. Of it, products of actions and updates take the share that tables show.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.version import __version__
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners import dqn, ppo, sac

from . import peak

INNER_ENV = "CartPole-v1"
CONTINUOUS_ENV, GAME = "Pendulum-v1", "MinAtar/Breakout-v1"
LEARNING_STARTS = 100
BUDGET = 50_000
# PPO settings of the Stable-Baselines3 zoo for CartPole
PPO_ENVS, PPO_STEPS, PPO_BATCH, PPO_EPOCHS = 8, 32, 256, 20
BATCH_SIZES = 4, 256  # of random ones, the smallest and the largest
PEER = "Stable-Baselines3"
NOTE = (
    f"Peak: {peak.PEAK}, measured in the same turns. Of it, the products of actions "
    "and updates."
)
STEPS = 500  # of a call, as between two decisions


Program = Callable[[], int]  # does some work and returns how many member-steps
Floats = NDArray[np.float64]
Name = TypeVar("Name")


class Work(NamedTuple):
    """A program, and floating-point operations of a member-step where they are known.

    Those that are asked for: matrix products of actions and updates.
    """

    run: Program
    flops: float | None = None


def _workloads(populations: Sequence[int]) -> dict[str, dict[str, Work]]:
    """Programs that do the same work, by workload and name."""
    workloads = {
        f"DQN, a gradient step per {frequency} steps": {
            PEER: Work(_stable_baselines3_dqn(frequency)),
            **{f"P = {P}": _dqn(P, frequency) for P in populations},
        }
        for frequency in (1, 4)
    }
    workloads["DQN, random batch sizes, a gradient step per 4 steps"] = {
        PEER: Work(_stable_baselines3_dqn(4, _random_batch_sizes(64))),
        **{
            f"P = {P}": _dqn(P, 4, batch_size=_random_batch_sizes(P))
            for P in populations
        },
    }
    workloads["PPO, 8 × 32 steps, batch 256, 20 epochs"] = {
        PEER: Work(_stable_baselines3_ppo()),
        **{f"P = {P}": _ppo(P) for P in populations},
    }
    workloads["SAC on Pendulum, a gradient step per step"] = {
        PEER: Work(_stable_baselines3_sac()),
        **{f"P = {P}": _sac(P) for P in populations},
    }
    # the game itself is of a package that is there for tests
    if importlib.util.find_spec("minatar") is not None:
        workloads["DQN on MinAtar's Breakout, convolution, per step, batch 32"] = {
            PEER: Work(_stable_baselines3_convolution()),
            **{f"P = {P}": _convolution(P) for P in populations},
        }
    return workloads


def measure(
    populations: Sequence[int] = (1, 8, 32, 64), repeats: int = 5, seconds: float = 1.0
) -> dict[str, Any]:
    """Throughput, on CartPole where nothing else is said, with 64 × 64 networks.

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
    with one_core() as core:
        for workload, works in _workloads(populations).items():
            rates, peaks = in_turns(
                {name: work.run for name, work in works.items()}, repeats, seconds
            )
            for name, values in rates.items():
                rows.append(
                    {
                        "workload": workload,
                        "program": name,
                        "steps_per_second": median(values),
                        "lowest": min(values),
                        "highest": max(values),
                        "ratio": relative(values, rates[PEER]),
                        "share_of_peak": share_of(values, works[name].flops, peaks),
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


def in_turns(
    programs: Mapping[Name, Program], repeats: int, seconds: float
) -> tuple[dict[Name, list[float]], list[float]]:
    """Steps per second of each program, and operations per second of the core.

    A turn before those that count warms up.
    """
    rates: dict[Name, list[float]] = {name: [] for name in programs}
    peaks, most = [], pinned(peak.program())
    for turn in range(repeats + 1):
        for name, program in programs.items():
            speed = rate(program, seconds)
            if turn:
                rates[name].append(speed)
        speed = rate(most, seconds)
        if turn:
            peaks.append(speed)
    return rates, peaks


def relative(values: Sequence[float], others: Sequence[float] | None) -> float | None:
    """Median of ratios turn by turn; None: there is nothing to compare with."""
    if others is None:
        return None
    return median(a / b for a, b in zip(values, others, strict=True))


def share_of(
    values: Sequence[float], flops: float | None, peaks: Sequence[float]
) -> float | None:
    """Share of the peak that some steps per second take; None: it is not known."""
    return (
        None
        if flops is None
        else flops * median(a / b for a, b in zip(values, peaks, strict=True))
    )


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
        f"× {PEER} | share of the peak |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['workload']} | {row['program']} | {row['steps_per_second']:,.0f} | "
        f"{row['lowest']:,.0f} – {row['highest']:,.0f} | {row['ratio']:.1f} | "
        f"{share(row['share_of_peak'])} |"
        for row in result["rows"]
    ]
    lines += ["", NOTE]
    return "\n".join(lines)


def save(result: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def one_core() -> Iterator[int | None]:
    """Keep this process on one core, where the system lets us, and torch on one thread.

    Both are as before afterwards.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
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
    finally:
        torch.set_num_threads(threads)


def pinned(program: Program) -> Program:
    """A program that runs on `one_core`."""

    def run() -> int:
        with one_core():
            return program()

    return run


def rate(program: Program, seconds: float) -> float:
    """Steps per second; ``program`` does some and returns how many."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        done += program()
    return done / spent


def _random_batch_sizes(P: int) -> Floats:
    """Log-uniform, the same each time ``(P,)``."""
    low, high = BATCH_SIZES
    exponents = np.random.default_rng(0).uniform(np.log(low), np.log(high), P)
    return np.rint(np.exp(exponents))


def _train(
    learner_class: Any,
    inner_env: str,
    config: Any,
    P: int,
    steps: int,
    **changed: float | Floats,
) -> Work:
    """A population in the middle of training, which goes on so many steps at a time."""
    env = ENVS[inner_env]()
    learner = learner_class(env, env, config, BUDGET)
    keys = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(P)])
    state = learner.init(keys, np.tile([*env.physics.values()], (P, 1)))
    values = {h.name: np.full(P, h.start) for h in learner.hyperparameters}
    for name, value in changed.items():
        values[name][:] = value
    interval = learner.begin_interval(state)

    def run() -> int:
        learner.train(state, values, steps, interval)
        return P * steps

    return Work(run, peak.of_step(learner, values))


def _dqn(P: int, frequency: int, **changed: float | Floats) -> Work:
    config = dqn.DQNConfig(learning_starts=LEARNING_STARTS)
    learning = {"train_freq": frequency, **changed}
    return _train(dqn.DQN, INNER_ENV, config, P, STEPS, **learning)


def _ppo(P: int) -> Work:
    config = ppo.PPOConfig(num_inner_envs=PPO_ENVS, rollout_length=PPO_STEPS)
    return _train(
        ppo.PPO,
        INNER_ENV,
        config,
        P,
        PPO_ENVS * PPO_STEPS,
        learning_rate=1e-3,
        batch_size=PPO_BATCH,
        n_epochs=PPO_EPOCHS,
        gamma=0.98,
        gae_lambda=0.8,
    )


def _sac(P: int) -> Work:
    config = sac.SACConfig(learning_starts=LEARNING_STARTS)
    return _train(
        sac.SAC, CONTINUOUS_ENV, config, P, STEPS, learning_rate=1e-3, batch_size=64
    )


def _convolution(P: int) -> Work:
    config = dqn.DQNConfig(
        hidden_sizes=(128,), conv_channels=16, learning_starts=LEARNING_STARTS
    )
    return _train(
        dqn.DQN, GAME, config, P, STEPS, train_freq=1, batch_size=32, learning_rate=3e-4
    )


def learn(model: Any, steps: int, callback: Any = None) -> Program:
    """A program that goes on training a model of Stable-Baselines3's interface."""

    def run() -> int:
        before = model.num_timesteps
        model.learn(steps, callback, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return run


def _stable_baselines3_dqn(
    frequency: int, batch_sizes: Floats | None = None
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


def _stable_baselines3_sac() -> Program:
    import gymnasium as gym
    from stable_baselines3 import SAC

    model = SAC(
        "MlpPolicy",
        gym.make(CONTINUOUS_ENV),
        learning_rate=1e-3,
        buffer_size=BUDGET,
        learning_starts=LEARNING_STARTS,
        batch_size=64,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    model.learn(LEARNING_STARTS)
    return learn(model, 50)


def _stable_baselines3_convolution() -> Program:
    import gymnasium as gym
    from minatar.gym import BaseEnv
    from stable_baselines3 import DQN

    from dacrl_env.algorithms.sb3.front import ConvolutionalFront

    game = BaseEnv("breakout", use_minimal_action_set=True)
    shape = game.observation_space.shape
    env = gym.wrappers.TransformObservation(
        gym.wrappers.TimeLimit(game, ENVS[GAME]().env.max_episode_steps),
        lambda seen: seen.astype(np.float32),
        gym.spaces.Box(0.0, 1.0, shape),
    )
    model = DQN(
        "MlpPolicy",
        env,
        learning_rate=3e-4,
        buffer_size=BUDGET,
        learning_starts=LEARNING_STARTS,
        batch_size=32,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=500,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        policy_kwargs={
            "net_arch": [128],
            "features_extractor_class": ConvolutionalFront,
            "features_extractor_kwargs": {
                "image": shape,
                "channels": 16,
                "activation_fn": torch.nn.ReLU,
            },
        },
        seed=0,
        device="cpu",
    )
    model.learn(LEARNING_STARTS)
    return learn(model, 50)


def versions() -> dict[str, str]:
    """What figures were measured with."""
    import numba
    import stable_baselines3

    return {
        "dacrl-env": __version__,
        "numba": numba.__version__,
        "stable-baselines3": stable_baselines3.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
