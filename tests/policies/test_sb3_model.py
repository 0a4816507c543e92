"""Models of Stable-Baselines3 as policies."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import dacrl_env
from dacrl_env.integrations.sb3 import to_sb3
from dacrl_env.policies import from_sb3

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SMALL: dict[str, Any] = {"n_steps": 10, "device": "cpu", "seed": 0}


def population(**options: Any) -> Any:
    return gym.make_vec(QUADRATIC, num_envs=4, **options)


def trained(normalized: bool = False, **options: Any) -> Any:
    venv = to_sb3(population(action_mode="relative", **options))
    if normalized:
        venv = VecNormalize(venv, clip_obs=3.0, gamma=1.0)
    model = PPO("MlpPolicy", venv, batch_size=20, gamma=1.0, **SMALL)
    return model.learn(200)


@pytest.mark.parametrize("normalized", [False, True])
def test_it_does_what_predict_says(normalized: bool) -> None:
    model = trained(normalized)
    policy = from_sb3(model)
    assert policy.action_mode == "relative"
    assert policy.controls == ("learning_rate",)
    envs = gym.make_vec(QUADRATIC, num_envs=3, action_mode="relative")
    seen, infos = envs.reset(seed=0)
    policy.reset(envs, 0)
    normalize = model.get_vec_normalize_env()
    for _ in range(10):
        shown = seen if normalize is None else normalize.normalize_obs(seen)
        expected, _ = model.predict(shown, deterministic=True)
        np.testing.assert_array_equal(policy.act(seen, infos), expected)
        seen, _, _, _, infos = envs.step(expected)


def test_models_are_compared_as_they_are() -> None:
    model = trained()
    frame = dacrl_env.compare(QUADRATIC, {"ppo": model, "default": "default"}, 3)
    assert frame["policy"].unique().tolist() == ["ppo", "default"]
    alone = dacrl_env.evaluate(QUADRATIC, from_sb3(model), 3)
    both = frame[frame["policy"] == "ppo"]["report_score"].dropna().tolist()
    assert alone["report_score"].dropna().tolist() == both
    assert dacrl_env.evaluate(QUADRATIC, model, 1)["policy"].iloc[0] == "SB3Policy"


def test_training_that_goes_on_changes_nothing() -> None:
    model = trained(normalized=True)
    policy = from_sb3(model)
    envs = population(action_mode="relative")
    seen, infos = envs.reset(seed=0)
    before = policy.act(seen, infos).copy()
    model.learn(400)
    np.testing.assert_array_equal(policy.act(seen, infos), before)


def test_single_environments_of_gymnasium() -> None:
    venv = make_vec_env(QUADRATIC, n_envs=2, env_kwargs={"action_mode": "continuous"})
    model = A2C("MlpPolicy", venv, n_steps=5, device="cpu", seed=0)
    policy = from_sb3(model.learn(20))
    assert policy.action_mode == "continuous"
    assert len(dacrl_env.evaluate(QUADRATIC, policy, 2)["seed"].unique()) == 2


def test_a_model_without_its_environment_says_what_it_needs(tmp_path: Any) -> None:
    trained().save(tmp_path / "model.zip")
    model = PPO.load(tmp_path / "model.zip", device="cpu")
    with pytest.raises(ValueError, match="action_mode, hyperparameters, decisions mus"):
        from_sb3(model)
    policy = from_sb3(
        model, action_mode="relative", hyperparameters=["learning_rate"], decisions=50
    )
    dacrl_env.evaluate(QUADRATIC, policy, 1)


def test_other_spaces_are_refused() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu", n_steps=8, batch_size=8)
    policy = from_sb3(
        model, action_mode="values", hyperparameters=["learning_rate"], decisions=50
    )
    with pytest.raises(ValueError, match="this PPO has observations of Box"):
        dacrl_env.evaluate(QUADRATIC, policy, 1)
