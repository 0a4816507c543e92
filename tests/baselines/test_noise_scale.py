"""Batch sizes from the gradient noise scale, by hand and on runs."""

from functools import partial

import numpy as np
import pytest
import torch
from dacrl_env.baselines import noise_scale
from dacrl_env.baselines.noise_scale import PARTS, NoiseScale, noise, parts

import dacrl_env
from dacrl_env.core import snapshot
from dacrl_env.policies import probe

DQN = "dacrl/DQN-CartPole-v0"
PPO = "dacrl/PPO-CartPole-v0"
SMALL = {
    DQN: {"budget": 2_000, "decision_interval": 500, "learning_starts": 100},
    PPO: {
        "budget": 2_048,
        "decision_interval": 512,
        "num_inner_envs": 4,
        "rollout_length": 64,
    },
}


def make(task, P=3, seed=0):
    envs = dacrl_env.PopulationEnv(
        task,
        P,
        action_mode="continuous",
        eval_episodes=2,
        hidden_sizes=(16,),
        **SMALL[task],
    )
    envs.reset(seed=seed)
    return envs


def bits(envs):
    return snapshot.capture(envs.population.state.learner)


def hold(envs, steps=1):
    for _ in range(steps):
        result = envs.step(np.zeros(envs.action_space.shape))
    return result[0], result[4]


def linear(samples):
    """A loss whose gradient is the mean of the samples ``(P · PARTS, B, D)``."""
    return lambda rows: (rows * samples.mean(1)).sum(1)


def test_single_samples_give_the_sample_covariance():
    samples = torch.randn(2, PARTS, 5, dtype=torch.float64) + 2
    trace, square = noise(linear(samples.view(-1, 1, 5)), torch.zeros(2, 5).double(), 1)
    for k in range(2):
        assert trace[k] == pytest.approx(np.trace(np.cov(samples[k].numpy().T)))
        mean = samples[k].mean(0).square().sum().item()
        assert square[k] == pytest.approx(mean - trace[k] / PARTS)


def test_estimates_have_no_bias():
    generator = torch.Generator().manual_seed(0)
    P, size, mean = 2_000, 4, torch.tensor([1.0, -2.0, 0.5])
    noisy = torch.tensor([3.0, 1.0, 2.0])
    draws = torch.randn(P * PARTS, size, 3, generator=generator)
    trace, square = noise(linear(mean + noisy * draws), torch.zeros(P, 3), size)
    assert trace.mean() == pytest.approx(14.0, rel=0.02)
    assert square.mean() == pytest.approx(5.25, rel=0.05)


@pytest.mark.parametrize("task", [DQN, PPO])
def test_the_mean_of_the_parts_is_the_gradient_of_the_batch(task):
    envs = make(task)
    hold(envs)
    learner, state = envs.population.learner, envs.population.state.learner
    everyone = np.ones(3, bool)
    if task == DQN:
        batch = probe.replay_batch(envs, 256)
        target = torch.from_numpy(state.target)
        options = probe.dqn_options(envs)
        whole = partial(probe.dqn_loss, learner, options, target=target, batch=batch)
    else:
        batch = noise_scale._rollout_batch(envs, everyone)
        options = probe.ppo_options(envs)
        whole = partial(probe.ppo_loss, learner, options, batch=batch)
        envs = make(task)
        hold(envs)
    trace, square = noise_scale.estimates(envs, everyone)
    gradient = torch.func.grad(lambda p: whole(p).sum())(probe.parameters(envs))
    big = gradient.double().square().sum(1).numpy()
    np.testing.assert_allclose(square + trace / 256, big, rtol=1e-4)
    assert (trace > 0).all()


def test_parts_keep_the_samples_of_a_member_together():
    envs = make(DQN)
    hold(envs)
    batch = probe.replay_batch(envs, 2 * PARTS + 1)
    cut = parts(batch)
    assert cut.observations.shape == (3 * PARTS, 2, 4)
    np.testing.assert_array_equal(
        cut.observations[PARTS + 1], batch.observations[1, 2:4]
    )


def test_neighbours_of_a_rollout_go_to_different_parts():
    envs, everyone = make(PPO), np.ones(3, bool)
    hold(envs)
    batch = noise_scale._rollout_batch(envs, everyone)
    shuffled = noise_scale._shuffled(envs, batch)
    for k in range(3):
        table, mixed = (
            torch.cat([b.observations[k], b.actions[k][:, None]], 1).numpy()
            for b in (batch, shuffled)
        )
        assert (table != mixed).any(1).mean() > 0.9
        np.testing.assert_array_equal(
            np.unique(table, axis=0), np.unique(mixed, axis=0)
        )
    learner, rows = envs.population.learner, probe.parameters(envs)
    own = probe.ppo_options(envs)
    options = type(own)(*(x.repeat_interleave(PARTS, 0) for x in own))
    loss = partial(probe.ppo_loss, learner, options, batch=parts(shuffled))
    expected = noise(loss, rows, 16)
    found = noise_scale.estimates(envs, everyone)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("task", [DQN, PPO])
def test_looking_changes_nothing(task):
    looked, left = make(task), make(task)
    policy = NoiseScale()
    policy.reset(looked, 0)
    for _ in range(3):
        observations, infos = hold(looked)
        policy.act(observations, infos)
        hold(left)
    mine, theirs = bits(looked), bits(left)
    for name, array in theirs.items():
        np.testing.assert_array_equal(mine[name], array, err_msg=name)
    paid = looked.population.state.eval_steps - left.population.state.eval_steps
    assert (policy.trace != 0).all()
    assert paid.tolist() == [0 if task == DQN else 3 * 4 * 64] * 3


def test_moving_averages_by_hand(monkeypatch):
    envs, policy = make(DQN), NoiseScale(decay=0.5, factor=2.0)
    policy.reset(envs, 0)
    found = iter(
        [
            (np.array([30.0, 30.0, np.nan]), np.array([3.0, -1.0, 1.0])),
            (np.array([50.0, 50.0, 50.0]), np.array([1.0, 0.25, 1.0])),
        ]
    )
    monkeypatch.setattr(noise_scale, "estimates", lambda envs, live: next(found))
    infos = {"env_steps": np.zeros(3)}
    rows = []
    for steps in (0, 500, 1_000):
        infos["env_steps"] = np.full(3, steps)
        actions = policy.act(None, infos)
        rows.append([envs.to_config(a)["batch_size"] for a in actions])
    second = [2 * (30 * 0.25 + 50 * 0.5) / (3 * 0.25 + 0.5), 256, 100]
    assert rows == [[64] * 3, [20, 256, 64], [round(x) for x in second]]


@pytest.mark.parametrize("task", [DQN, PPO])
def test_members_are_alone(task):
    def act(seeds, spoil=None):
        envs, policy = make(task, len(seeds), seeds), NoiseScale(decay=0)
        policy.reset(envs, 0)
        observations, infos = hold(envs)
        if spoil is not None:
            envs.population.state.learner.parameters[spoil] *= 3.0
        policy.act(observations, infos)
        return policy.trace

    together = act([5, 6, 7])
    assert act([5, 6, 7], spoil=0)[1] == together[1]
    assert act([5, 6, 7], spoil=0)[0] != together[0]
    assert act([6])[0] == pytest.approx(together[1], rel=1e-3)


def test_new_runs_start_over_alone():
    envs, policy = make(DQN), NoiseScale(initial=32)
    policy.reset(envs, 0)
    observations, infos = hold(envs)
    policy.act(observations, infos)
    infos = dict(infos, env_steps=infos["env_steps"] * np.array([1, 0, 1]))
    sizes = [envs.to_config(a)["batch_size"] for a in policy.act(observations, infos)]
    assert (policy.trace != 0).tolist() == [True, False, True]
    assert sizes[1] == 32


@pytest.mark.parametrize("task", [DQN, PPO])
def test_a_diverged_member_gets_an_action(task):
    envs, policy = make(task), NoiseScale()
    policy.reset(envs, 0)
    observations, infos = hold(envs)
    policy.act(observations, infos)
    envs.population.state.learner.parameters[1] = np.nan
    for diverged in (False, True):
        envs.population.state.diverged[1] = diverged
        before = envs.population.state.eval_steps.copy()
        actions = policy.act(observations, infos)
        assert np.isfinite(actions).all()
    paid = envs.population.state.eval_steps - before
    assert (paid == (0 if task == DQN else 4 * 64))[[0, 2]].all()
    assert paid[1] == 0


@pytest.mark.parametrize("argument", [{"decay": 1.0}, {"factor": 0}])
def test_wrong_arguments(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        NoiseScale(**argument)


def test_an_initial_size_out_of_range():
    with pytest.raises(ValueError, match="range"):
        dacrl_env.evaluate(DQN, "noise-scale,initial=1000", seeds=[0])


def test_learners_that_cannot_be_looked_at():
    with pytest.raises(ValueError, match="batch_size"):
        dacrl_env.evaluate("dacrl/NoisyQuadratic-v0", "noise-scale", seeds=[0])
    with pytest.raises(ValueError, match="differentiable"):
        dacrl_env.evaluate(DQN, "noise-scale", seeds=[0], implementation="sb3")
