"""Full runs of our DQN against full runs of Stable-Baselines3's.

Both are judged by the same code on fresh episodes. As a program it prints its numbers
as JSON: ``python tests/learners/test_parity_slow.py``.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from populations import layers_of

from dacrl_env.comparison import stats
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners import dqn
from dacrl_env.tasks.registration import get_task

BUDGET = 50_000
POINTS = 20
EPISODES = 20
OUR_RUNS = 64
SB3_SEEDS = range(16)
MARGIN = 0.1
VALUES = {
    "learning_rate": 1e-3,
    "epsilon": 0.1,
    "batch_size": 64,
    "gamma": 0.99,
    "target_update_interval": 500,
    "train_freq": 4,
    "gradient_steps": 1,
    "max_grad_norm": 10,
    "replay_window": 100_000,
}
CONFIG = dqn.DQNConfig(
    hidden_sizes=(64, 64), replay_capacity=50_000, learning_starts=1_000
)
# the seeds of our members and of Stable-Baselines3's runs share no stream
OUR_SEED, SB3_EVALUATION_SEED = 0, 1


def make_learner() -> dqn.DQN:
    env = ENVS["CartPole-v1"]()
    return dqn.DQN(env, env, CONFIG, BUDGET)


def physics_of(learner: dqn.DQN, P: int) -> NDArray[np.float64]:
    return np.tile([*learner.env.physics.values()], (P, 1))


def evaluate(
    learner: dqn.DQN, state: Any, keys: streams.UInts, point: int
) -> NDArray[np.float64]:
    """Mean scores ``(P,)`` of greedy episodes that no other point plays."""
    P = len(keys)
    base = streams.of(keys, "report")
    episodes = streams.bits(base, np.full(P, point), EPISODES)
    returns, _ = learner.play(state, np.arange(P), episodes, physics_of(learner, P))
    return get_task("dacrl/DQN-CartPole-v0").score(returns.mean(1))


def our_aucs() -> list[float]:
    P = OUR_RUNS
    learner = make_learner()
    keys = np.stack([streams.member_keys("test", OUR_SEED, i, 0) for i in range(P)])
    values = {name: np.full(P, float(v)) for name, v in VALUES.items()}
    state, scores = learner.init(keys, physics_of(learner, P)), []
    for point in range(1, POINTS + 1):
        interval = learner.begin_interval(state)
        learner.train(state, values, BUDGET // POINTS, interval)
        scores.append(evaluate(learner, state, keys, point))
    return np.mean(scores, 0).tolist()


def sb3_auc(seed: int) -> float:
    import gymnasium as gym
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(1)
    learner = make_learner()
    keys = streams.member_keys("test", SB3_EVALUATION_SEED, seed, 0)[None]
    state = learner.init(keys, physics_of(learner, 1))
    scores: list[float] = []

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % (BUDGET // POINTS) == 0:
                layers = layers_of(learner.fixed.net, state.parameters[0])
                linears = [m for m in self.model.q_net.q_net if hasattr(m, "weight")]
                for (weight, bias), linear in zip(layers, linears, strict=True):
                    weight[...] = linear.weight.detach().T
                    bias[...] = linear.bias.detach()
                score = evaluate(learner, state, keys, len(scores) + 1)
                scores.append(float(score[0]))
            return True

    model = DQN(
        "MlpPolicy",
        gym.make("CartPole-v1"),
        learning_rate=VALUES["learning_rate"],
        buffer_size=50_000,
        learning_starts=1_000,
        batch_size=64,
        gamma=VALUES["gamma"],
        train_freq=4,
        gradient_steps=1,
        target_update_interval=500,
        exploration_initial_eps=VALUES["epsilon"],
        exploration_final_eps=VALUES["epsilon"],
        max_grad_norm=VALUES["max_grad_norm"],
        policy_kwargs={"net_arch": [64, 64]},
        seed=seed,
        device="cpu",
    )
    model.learn(BUDGET, callback=Evaluate())
    assert len(scores) == POINTS
    return float(np.mean(scores))


def _timed(job: tuple[str, int]) -> tuple[Any, float]:
    began = time.perf_counter()
    kind, seed = job
    result = our_aucs() if kind == "ours" else sb3_auc(seed)
    return result, time.perf_counter() - began


def measure() -> dict[str, Any]:
    jobs = [("ours", OUR_SEED), *(("sb3", seed) for seed in SB3_SEEDS)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        (ours, our_time), *rest = pool.map(_timed, jobs, chunksize=1)
    sb3 = [auc for auc, _ in rest]
    result = stats.equivalence(ours, sb3, margin=MARGIN)
    return {
        "ours": {
            "runs": OUR_RUNS,
            "seed": OUR_SEED,
            "mean_auc": float(np.mean(ours)),
            "std_auc": float(np.std(ours, ddof=1)),
            "seconds": round(our_time),
        },
        "sb3": {
            "runs": len(SB3_SEEDS),
            "seeds": list(SB3_SEEDS),
            "mean_auc": float(np.mean(sb3)),
            "std_auc": float(np.std(sb3, ddof=1)),
            "seconds": [round(seconds) for _, seconds in rest],
            "aucs": sb3,
        },
        "equivalence": asdict(result),
    }


@pytest.mark.slow
def test_full_runs_are_worth_as_much_as_those_of_stable_baselines3():
    result = measure()
    assert result["equivalence"]["equivalent"], json.dumps(result, indent=2)


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
