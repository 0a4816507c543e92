"""Full runs of the batched DQN against full runs of Stable-Baselines3's.

Both are judged by the same code on fresh episodes. As a program it prints its numbers
as JSON: ``python tests/test_parity_slow.py``.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dacrl_env import stats
from dacrl_env.inner_envs.batched import BatchedEnv
from dacrl_env.inner_envs.cartpole import CartPole
from dacrl_env.learners import dqn, streams
from dacrl_env.learners.rollout import Act, play
from dacrl_env.population import inner_context
from dacrl_env.registration import get_task

BUDGET = 50_000
POINTS = 20
EPISODES = 20
BATCHED_RUNS = 64
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
# the seeds of batched members and of Stable-Baselines3's runs share no stream
BATCHED_SEED, SB3_EVALUATION_SEED = 0, 1


def make_learner() -> dqn.DQN:
    env = BatchedEnv(CartPole())
    return dqn.DQN(env, env, CONFIG, BUDGET, torch.device("cpu"))


def evaluate(
    learner: dqn.DQN, rows: torch.Tensor, keys: streams.UInts, point: int
) -> NDArray[np.float64]:
    """Mean scores ``(m,)`` of greedy episodes that no other point plays."""
    base = keys[:, streams.PURPOSES.index("report")]
    episodes = streams.bits(base, np.full(len(keys), point), EPISODES)
    physics = np.tile([*CartPole.physics.values()], (len(keys), 1))
    env = BatchedEnv(CartPole())

    def policy(members: NDArray[np.int64]) -> Act:
        return functools.partial(learner.greedy, rows[torch.from_numpy(members)])

    returns, _ = play(policy, env, episodes, physics)
    return get_task("dacrl/DQN-CartPole-v0").score(returns.mean(1))


def batched_aucs() -> list[float]:
    P = BATCHED_RUNS
    learner = make_learner()
    keys = np.stack([streams.member_keys("test", BATCHED_SEED, i, 0) for i in range(P)])
    physics = np.tile([*CartPole.physics.values()], (P, 1))
    values = {name: np.full(P, float(v)) for name, v in VALUES.items()}
    scores = []
    with inner_context():
        state = learner.init(keys, physics)
        for point in range(1, POINTS + 1):
            interval = learner.begin_interval(state)
            learner.train(state, values, BUDGET // POINTS, interval)
            scores.append(evaluate(learner, state.parameters, keys, point))
    return np.mean(scores, 0).tolist()


def sb3_auc(seed: int) -> float:
    import gymnasium as gym
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(1)
    learner = make_learner()
    keys = streams.member_keys("test", SB3_EVALUATION_SEED, seed, 0)[None]
    scores: list[float] = []

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % (BUDGET // POINTS) == 0:
                rows = torch.zeros(1, learner.network.row)
                linears = [m for m in self.model.q_net.q_net if hasattr(m, "weight")]
                layers = learner.network.layers(rows)
                for layer, linear in zip(layers, linears, strict=True):
                    layer.weight[0] = linear.weight.detach().T
                    layer.bias[0, 0] = linear.bias.detach()
                with inner_context():
                    score = evaluate(learner, rows, keys, len(scores) + 1)
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
    result = batched_aucs() if kind == "batched" else sb3_auc(seed)
    return result, time.perf_counter() - began


def measure() -> dict[str, Any]:
    jobs = [("batched", BATCHED_SEED), *(("sb3", seed) for seed in SB3_SEEDS)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        (batched, batched_time), *rest = pool.map(_timed, jobs, chunksize=1)
    sb3 = [auc for auc, _ in rest]
    result = stats.equivalence(batched, sb3, margin=MARGIN)
    return {
        "batched": {
            "runs": BATCHED_RUNS,
            "seed": BATCHED_SEED,
            "mean_auc": float(np.mean(batched)),
            "std_auc": float(np.std(batched, ddof=1)),
            "seconds": round(batched_time),
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
