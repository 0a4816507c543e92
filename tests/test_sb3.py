"""Stable-Baselines3 trains on the outer environment, unmodified."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import dacrl_env  # noqa: F401 - registers the ids

sb3 = pytest.importorskip("stable_baselines3")

TASK = "dacrl/DQN-CartPole-v0"
TINY = {
    "budget": 200,
    "decision_interval": 50,
    "learning_starts": 50,
    "eval_episodes": 2,
}
CASES = {
    "PPO": ("continuous", {"n_steps": 8, "batch_size": 4, "n_epochs": 2}),
    "SAC": ("relative", {"learning_starts": 4, "batch_size": 4, "buffer_size": 100}),
    "DQN": (
        "discrete",
        {"learning_starts": 4, "batch_size": 4, "buffer_size": 100, "train_freq": 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_trains(name: str) -> None:
    mode, options = CASES[name]
    env = gym.make(TASK, action_mode=mode, **TINY)
    model = getattr(sb3, name)("MlpPolicy", env, seed=0, device="cpu", **options)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(16)
    assert model.num_timesteps == 16
    after = list(model.policy.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)
    # the monitor around the environment saw four complete runs of four decisions
    episodes: Any = model.ep_info_buffer
    assert [episode["l"] for episode in episodes] == [4, 4, 4, 4]
    observation, _ = env.reset(seed=1)
    action, _ = model.predict(observation, deterministic=True)
    observation, reward, *_ = env.step(action)
    assert env.observation_space.contains(observation)
    assert np.isfinite(reward)


@pytest.mark.parametrize("mode", ["continuous", "relative", "discrete"])
def test_their_checker(mode: str) -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(gym.make(TASK, action_mode=mode, **TINY), warn=True)
