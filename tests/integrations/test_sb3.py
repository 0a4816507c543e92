"""Stable-Baselines3 trains on the outer environment, unmodified."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from dacrl_env.outer.vector_env import PopulationEnv

sb3 = pytest.importorskip("stable_baselines3")

from dacrl_env.integrations.sb3 import PopulationVecEnv, to_sb3  # noqa: E402

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


def test_environments_are_made_by_their_id():
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(TASK, n_envs=2, env_kwargs=TINY)
    assert envs.reset().shape[0] == 2
    assert [image.shape for image in envs.get_images()] == [(480, 640, 3)] * 2
    sb3.PPO("MlpPolicy", TASK, device="cpu")


# -- a population as their vectorised environment ------------------------------------

P = 3


def populations(**options: Any) -> tuple[PopulationVecEnv, PopulationEnv]:
    """A population behind their interface, and an equal one as it is."""
    adapter = to_sb3(PopulationEnv(TASK, P, **TINY, **options), monitored=False)
    assert isinstance(adapter, PopulationVecEnv)
    return adapter, PopulationEnv(TASK, P, **TINY, **options)


@pytest.mark.parametrize("mode", ["continuous", "relative", "discrete"])
def test_vec_env_gives_what_the_population_gives(mode: str) -> None:
    adapter, plain = populations(action_mode=mode)
    adapter.seed(5)
    expected, first_infos = plain.reset(seed=5)
    np.testing.assert_array_equal(adapter.reset(), expected)
    assert adapter.reset_infos[2]["score"] == first_infos["score"][2]
    plain.action_space.seed(0)
    ends = 0
    for _ in range(9):
        actions = plain.action_space.sample()
        observations, rewards, dones, infos = adapter.step(actions)
        obs, r, ended, _, plain_infos = plain.step(actions)
        np.testing.assert_array_equal(observations, obs)
        np.testing.assert_array_equal(rewards, r.astype(np.float32))
        np.testing.assert_array_equal(dones, ended)
        for i, info in enumerate(infos):
            hp = plain_infos["hyperparameters"]["learning_rate"][i]
            assert info["hyperparameters"]["learning_rate"] == hp
            assert ("eval_return" in info) == plain_infos["_eval_return"][i]
            assert ("terminal_observation" in info) == ended[i]
            if ended[i]:
                ends += 1
                last = plain_infos["final_obs"][i]
                np.testing.assert_array_equal(info["terminal_observation"], last)
                assert not np.array_equal(last, observations[i])
                assert info["TimeLimit.truncated"] is False
                final = plain_infos["final_info"]["score"][i]
                assert info["final_info"]["score"] == final
                assert info["final_info"]["env_steps"] == 200
    assert ends == 2 * P


def test_vec_env_resets_to_new_seeds_and_instances() -> None:
    adapter, plain = populations(instances="train")
    names = [instance.name for instance in plain.settings.instances[:P]]
    adapter.seed(1)
    adapter.set_options([{"instance": name} for name in names])
    adapter.reset()
    assert adapter.envs.population.state.instances.tolist() == [0, 1, 2]
    first = adapter.envs.population.state.seeds.copy()
    adapter.reset()  # the next episodes of the same streams
    assert (adapter.envs.population.state.seeds == first).all()
    assert (adapter.envs.population.state.episodes == 1).all()
    adapter.set_options({"instances": "x"})
    with pytest.raises(ValueError, match="unknown option 'instances'; valid: 'inst"):
        adapter.reset()


def test_vec_env_says_what_it_is() -> None:
    adapter, plain = populations()
    assert (
        adapter.get_attr("observation_names", [0, 2]) == [plain.observation_names] * 2
    )
    assert adapter.env_is_wrapped(gym.Wrapper) == [False] * P
    with pytest.raises(AttributeError, match="the population"):
        adapter.env_method("snapshot")
    with pytest.raises(AttributeError, match="the population"):
        adapter.set_attr("x", 1)
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(plain)
    with pytest.raises(TypeError, match="without wrappers"):
        to_sb3(wrapped)


@pytest.mark.parametrize("name", CASES)
def test_trains_on_a_population(name: str) -> None:
    mode, options = CASES[name]
    made = gym.make_vec(TASK, num_envs=P, action_mode=mode, **TINY)
    envs = to_sb3(made)
    model = getattr(sb3, name)("MlpPolicy", envs, seed=0, device="cpu", **options)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(8 * P)
    after = list(model.policy.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    episodes: Any = model.ep_info_buffer
    assert [episode["l"] for episode in episodes] == [4] * 2 * P
    # the undiscounted reward of a whole run is the progress made in it
    assert all(np.isfinite(episode["r"]) for episode in episodes)
    envs.close()
