"""What networks see: normalised observations, and random Fourier features."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from populations import Runs, make_runs
from scipy import stats
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from dacrl_env.algorithms import dqn
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.kernels import dense
from dacrl_env.learners.dqn import DQN, DQNConfig

FEATURES = 24


def batch_of(runs: Runs, B: int = 200) -> dqn.Batch:
    keys = streams.of(runs.keys, "replay")
    return dqn.Batch(*runs.learner.probe(runs.state, runs.values, keys, B))


def raw_of(runs: Runs, **changes: Any) -> dqn.Batch:
    """The same batch as it was observed, from a learner whose networks see that."""
    config = {"normalize_observations": False, "fourier_features": 0, **changes}
    plain = make_runs(len(runs.keys), seed=0, num_inner_envs=2, **config)
    state = copy.copy(plain.state)
    for name in ("replay", "env_steps"):
        setattr(state, name, getattr(runs.state, name))
    plain.state, plain.values = state, runs.values
    return batch_of(plain)


@cache
def wrapper() -> VecNormalize:
    return VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))


def normalised(runs: Runs, p: int, x: np.ndarray) -> np.ndarray:
    """By Stable-Baselines3."""
    moments, made = runs.state.observation_moments, wrapper()
    made.obs_rms.mean, made.obs_rms.var = moments.mean[p], moments.variance[p]
    return made.normalize_obs(x)


def make(P: int = 3, **options: Any) -> Runs:
    return make_runs(P, num_inner_envs=2, **options)


# -- normalised observations -----------------------------------------------------------


def test_moments_are_those_of_what_was_acted_on() -> None:
    runs = make(normalize_observations=True, train_freq=2)
    runs.train(400)
    before = runs.state.replay.observations[:, :, :200, 0]
    moments = runs.state.observation_moments
    for p in range(3):
        samples = before[p].reshape(-1, 4).astype(float)
        weight = 1e-4 + len(samples)
        mean = samples.sum(0) / weight
        np.testing.assert_allclose(moments.mean[p], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moments.variance[p], samples.var(0), rtol=1e-3)
        assert moments.weight[p, 0] == pytest.approx(weight)
    assert len(np.unique(moments.mean)) == 12


def test_the_replay_keeps_what_was_observed_and_batches_are_normalised_now() -> None:
    runs = make(normalize_observations=True, n_step=3)
    for _ in range(2):
        runs.train(200)
        seen, raw = batch_of(runs), raw_of(runs)
        for p in range(3):
            for mine, theirs in (
                (seen.observations, raw.observations),
                (seen.next_observations, raw.next_observations),
            ):
                expected = normalised(runs, p, theirs[p])
                np.testing.assert_allclose(mine[p], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(seen.returns, raw.returns)
        assert not np.allclose(seen.observations, raw.observations, atol=0.1)


@pytest.mark.parametrize("features", [0, FEATURES])
def test_evaluation_uses_moments_and_leaves_them(features: int) -> None:
    runs = make(normalize_observations=True, fourier_features=features)
    runs.train(300)
    before = [part.copy() for part in runs.state.observation_moments]
    x = np.random.default_rng(0).normal(size=(3, 50, 4)).astype(np.float32)
    best = runs.learner.policy(runs.state, np.arange(3))(x)
    keys = streams.bits(runs.keys[:, 4], np.zeros(3, np.int64), 4)
    runs.learner.play(runs.state, np.arange(3), keys, runs.physics)
    for was, part in zip(before, runs.state.observation_moments, strict=True):
        np.testing.assert_array_equal(was, part)
    shown = np.stack([normalised(runs, p, x[p]) for p in range(3)]).astype(np.float32)
    if features:
        shown = fourier(runs, shown)
    rows = torch.from_numpy(runs.state.parameters)
    q = dense.apply(runs.learner.fixed.net, rows, torch.from_numpy(shown))
    gap = abs(q[..., 0] - q[..., 1]).numpy() > 1e-4
    np.testing.assert_array_equal(best[gap], q.argmax(-1).numpy()[gap])
    assert len(np.unique(best)) == 2


def test_images_are_normalised_instead_of_scaled() -> None:
    grid = ENVS["MiniGrid-Empty-5x5-v0"]()
    grid.scales_images = True
    for normalize, scale in ((True, 1.0), (False, 1 / 255)):
        config = DQNConfig(normalize_observations=normalize)
        assert DQN(grid, grid, config, budget=1_000).fixed.scale == scale


# -- random Fourier features -----------------------------------------------------------


def fourier(runs: Runs, x: np.ndarray) -> np.ndarray:
    """Features ``(P, n, F)`` of ``(P, n, D)``, in double precision."""
    count = runs.learner.config.fourier_features // 2
    turns = x.astype(float) @ runs.state.frequencies[:, :, :count].astype(float)
    made = [np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)]
    return np.concatenate(made, -1).astype(np.float32)


# more of them than whole vectors, fewer than features of an observation
@pytest.mark.parametrize("features", [FEATURES, 34, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_networks_see_cosines_and_sines(features: int, normalize: bool) -> None:
    runs = make(
        fourier_features=features, normalize_observations=normalize, fourier_scale=0.5
    )
    runs.train(200)
    seen, raw = batch_of(runs), raw_of(runs)
    assert seen.observations.shape == (3, 200, features)
    for mine, theirs in (
        (seen.observations, raw.observations),
        (seen.next_observations, raw.next_observations),
    ):
        x = theirs
        if normalize:
            x = np.stack([normalised(runs, p, theirs[p]) for p in range(3)])
        np.testing.assert_allclose(mine, fourier(runs, x), atol=2e-5)


def test_frequencies_are_normal_and_of_the_member() -> None:
    config = {"fourier_features": 200, "fourier_scale": 3.0}
    runs = make_runs(20, **config)
    drawn = runs.state.frequencies[:, :, :100]
    assert (runs.state.frequencies[:, :, 100:] == 0).all()
    assert stats.kstest(drawn.ravel() / 3.0, "norm").pvalue > 1e-3
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    alone = make_runs([7], **config)
    np.testing.assert_array_equal(alone.state.frequencies[0], runs.state.frequencies[7])


def test_frequencies_stay_while_networks_begin_anew() -> None:
    runs = make(fourier_features=FEATURES)
    runs.train(100)
    before, parameters = runs.state.frequencies.copy(), runs.state.parameters.copy()
    runs.train(200)
    runs.values["reset_all"][:] = 1
    runs.learner.happen(runs.state, runs.values)
    assert (runs.state.parameters != parameters).any(1).all()
    np.testing.assert_array_equal(runs.state.frequencies, before)
    # of another key they are others
    other = np.stack([streams.member_keys("test", 1, 0, 0)])
    runs.learner.restart(runs.state, np.array([1]), other, runs.physics[[1]])
    changed = (runs.state.frequencies != before).any((1, 2))
    assert changed.tolist() == [False, True, False]


def test_a_function_too_steep_for_a_network_is_learned_with_features() -> None:
    """What Fourier features are for: values that change fast with the observation."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, 512, 4)).astype(np.float32)
    goal = np.sign(np.sin(12 * x[0, :, 0]))
    errors = []
    for options in ({}, {"fourier_features": 128, "fourier_scale": 0.7}):
        runs = make(1, hidden_sizes=(64, 64), **options)
        shown = torch.from_numpy(fourier(runs, x) if options else x)
        row = torch.tensor(runs.state.parameters, requires_grad=True)
        optimiser = torch.optim.Adam([row], 1e-3)
        net = runs.learner.fixed.net
        for _ in range(150):
            q = dense.apply(net, row, shown)[0, :, 0]
            loss = (q - torch.from_numpy(goal)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        errors.append(loss.item())
    assert errors[1] < 0.5 * errors[0]


# -- PPO -------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [FEATURES, 34, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_rollouts_of_ppo_keep_what_networks_saw(features: int, normalize: bool) -> None:
    runs = make(
        algorithm="ppo", fourier_features=features, normalize_observations=normalize,
        fourier_scale=0.5,
    )  # fmt: skip
    runs.rollouts(3)
    later = copy.deepcopy(runs.state)
    x = later.envs.observations.copy()
    rollout = runs.learner.probe(later, runs.values)
    assert rollout.observations.shape == (3, 2, 17, features)
    if normalize:  # the first step has been taken note of, the others not yet
        for p in range(3):
            x[p] = normalised_after(runs, p, x[p])
    np.testing.assert_allclose(
        rollout.observations[:, :, 0], fourier(runs, x), atol=2e-5
    )
    # what follows the last step is seen by the moments of the end
    end = later.envs.observations
    if normalize:
        ended = copy.copy(runs)
        ended.state = later
        end = np.stack([normalised(ended, p, end[p]) for p in range(3)])
    np.testing.assert_allclose(
        rollout.observations[:, :, -1], fourier(runs, end), atol=2e-5
    )


def normalised_after(runs: Runs, p: int, x: np.ndarray) -> np.ndarray:
    """By moments that have taken note of it."""
    moments, made = runs.state.observation_moments, wrapper()
    made.obs_rms.mean, made.obs_rms.var = moments.mean[p].copy(), moments.variance[p]
    made.obs_rms.count = moments.weight[p, 0]
    made.obs_rms.update(x.astype(float))
    return made.normalize_obs(x)


def test_best_actions_of_ppo_are_those_for_its_features() -> None:
    runs = make(algorithm="ppo", fourier_features=FEATURES, learning_rate=1e-2)
    runs.rollouts(4)
    x = np.random.default_rng(0).normal(size=(3, 50, 4)).astype(np.float32)
    best = runs.learner.policy(runs.state, np.arange(3))(x)
    actor = runs.learner.fixed.actor
    rows = torch.from_numpy(runs.state.parameters[:, : actor.row])
    logits = dense.apply(actor, rows, torch.from_numpy(fourier(runs, x)))
    gap = abs(logits[..., 0] - logits[..., 1]).numpy() > 1e-4
    np.testing.assert_array_equal(best[gap], logits.argmax(-1).numpy()[gap])
    assert len(np.unique(best)) == 2
