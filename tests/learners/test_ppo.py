"""PPO: equality with Stable-Baselines3, and environments whose solution is known."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from batched import BatchedEnv
from numpy.typing import NDArray
from populations import (
    Runs,
    Stepped,
    layers_of,
    linear_of,
    make_runs,
    set_linear,
)
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from dacrl_env.algorithms import ppo as algorithm
from dacrl_env.algorithms import ppo_rate
from dacrl_env.algorithms.sb3 import ppo as sb3
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.kernels import dense
from dacrl_env.learners import ppo

GRID = "MiniGrid-DoorKey-5x5-v0"
Layers = list[tuple[NDArray[Any], NDArray[Any]]]


class Reach:
    """Continuous one-step probe: the reward is best at one action."""

    observation_shape = (2,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 0
    action_low = np.array([-2.0])
    action_high = np.array([2.0])
    max_episode_steps = 10
    uniforms_per_reset = 2
    physics: dict[str, float] = {}  # noqa: RUF012
    taken = np.empty(0)

    def initial(self, uniforms, physics):
        return uniforms.copy()

    def step(self, variables, actions, physics):
        self.taken = actions.copy()
        rewards = 1.0 - np.square(actions[..., 0] - 0.5)
        return variables, rewards, np.ones(rewards.shape, bool)

    def observe(self, variables):
        return variables.astype(np.float32)


class Chain:
    """Probe: reward 1 at the second and last step, so the first value is γ."""

    observation_shape = (1,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 2
    max_episode_steps = 10
    uniforms_per_reset = 1
    physics: dict[str, float] = {}  # noqa: RUF012

    def initial(self, uniforms, physics):
        return np.zeros(uniforms.shape)

    def step(self, variables, actions, physics):
        last = variables[..., 0] == 1.0
        return variables + 1.0, self.reward(variables), last

    def reward(self, variables):
        return (variables[..., 0] == 1.0).astype(float)

    def observe(self, variables):
        return variables.astype(np.float32)


class Choose(Chain):
    """Probe: one step, the reward is the action where the observation is positive."""

    def initial(self, uniforms, physics):
        return np.where(uniforms < 0.5, -1.0, 1.0)

    def step(self, variables, actions, physics):
        sign = variables[..., 0]
        rewards = np.where(sign > 0, actions, 1 - actions).astype(float)
        return variables, rewards, np.ones(rewards.shape, bool)


class Endless(Chain):
    """Probe: reward 1 a step and never terminated, only truncated after ten."""

    def step(self, variables, actions, physics):
        shape = variables.shape[:-1]
        return variables, np.ones(shape), np.zeros(shape, bool)


class Counting(Chain):
    """Probe: two steps, rewards 1 and 2, observations 0.5 and 0.4."""

    def reward(self, variables):
        return variables[..., 0] + 1.0

    def observe(self, variables):
        return (0.5 - 0.1 * variables).astype(np.float32)


def make(P: int = 2, env: Any = None, **options: Any) -> Runs:
    return make_runs(P, env, budget=100_000, algorithm="ppo", **options)


def layers(runs: Runs, p: int) -> tuple[Layers, Layers, NDArray[np.float32]]:
    """Actor, critic, log standard deviations of a member: views."""
    fixed, row = runs.learner.fixed, runs.state.parameters[p]
    at = fixed.actor.row + fixed.critic.row
    critic = layers_of(fixed.critic, row[fixed.actor.row : at])
    return layers_of(fixed.actor, row), critic, row[at : at + fixed.A]


def probe(runs: Runs) -> algorithm.Rollout:
    """A rollout that nothing is learned from; the run stays where it is."""
    rollout = runs.learner.probe(copy.deepcopy(runs.state), runs.values)
    assert isinstance(rollout, algorithm.Rollout)
    return rollout


def set_value(runs: Runs, value: float) -> None:
    """Let the critics say the same of everything."""
    for p in range(len(runs.state.parameters)):
        for w, b in layers(runs, p)[1]:
            w[...] = b[...] = 0.0
        layers(runs, p)[1][-1][1][:] = value


# -- advantages ------------------------------------------------------------------------


def test_advantages_by_hand():
    """Three steps, an end after the second, worked out on paper."""
    runs = make(
        1,
        BatchedEnv(Counting()),
        num_inner_envs=1,
        rollout_length=3,
        activation="relu",
        gamma=0.9,
        gae_lambda=0.8,
    )
    for w, b in layers(runs, 0)[1]:  # the value is the observation
        w[...] = b[...] = 0.0
        w[0, 0] = 1.0
    columns = probe(runs).columns[0, :, 0]
    third = 1.0 + 0.9 * 0.4 - 0.5
    second = 2.0 - 0.4
    first = 1.0 + 0.9 * 0.4 - 0.5 + 0.9 * 0.8 * second
    advantages, values = np.array([first, second, third]), np.array([0.5, 0.4, 0.5])
    np.testing.assert_allclose(columns[algorithm.VALUE], values, rtol=1e-6)
    np.testing.assert_allclose(columns[algorithm.ADVANTAGE], advantages, rtol=1e-6)
    np.testing.assert_allclose(
        columns[algorithm.RETURN], advantages + values, rtol=1e-6
    )


@pytest.mark.parametrize("stepped", [False, True])
def test_advantages_equal_stable_baselines3(stepped: bool):
    T, N = 40, 3
    env: Any = ENVS["CartPole-v1"]()
    runs = make(
        2,
        Stepped(env) if stepped else env,
        num_inner_envs=N,
        rollout_length=T,
        gamma=[0.97, 0.9],
        gae_lambda=[0.9, 1.0],
    )
    rollout, space = probe(runs), gym.spaces.Box(-1, 1, (1,))
    for p in range(2):
        gamma, decay = runs.values["gamma"][p], runs.values["gae_lambda"][p]
        buffer = RolloutBuffer(T, space, space, "cpu", decay, gamma, N)
        done = rollout.going_on[p].T == 0
        buffer.rewards[:] = rollout.rewards[p].T
        buffer.values[:] = rollout.values[p, :, :T].T
        buffer.episode_starts[1:] = done[:-1]
        last = torch.from_numpy(rollout.values[p, :, T])
        buffer.compute_returns_and_advantage(last, done[-1])
        _, _, advantages, returns = rollout.columns[p]
        np.testing.assert_allclose(advantages.T, buffer.advantages, atol=1e-5)
        np.testing.assert_allclose(returns.T, buffer.returns, atol=1e-5)
        assert 0 < done.sum() < done.size / 2


def test_truncation_bootstraps_and_termination_does_not():
    """Advantages of an endless environment count what lies beyond the time limit."""
    for dynamics, T, last in (
        (Endless(), 10, 1.0 + 0.99 * 7.0 - 7.0),  # from the observation beyond
        (Chain(), 2, 1.0 - 7.0),
    ):
        runs = make(1, BatchedEnv(dynamics), num_inner_envs=1, rollout_length=T)
        set_value(runs, 7.0)
        rollout = probe(runs)
        assert rollout.going_on[0, 0].tolist() == [1] * (T - 1) + [0]
        advantage = rollout.columns[0, algorithm.ADVANTAGE, 0, -1]
        assert advantage == pytest.approx(last, abs=1e-5)


# -- learning --------------------------------------------------------------------------


def minibatches(
    runs: Runs, p: int, rollout: algorithm.Rollout
) -> Iterator[list[RolloutBufferSamples]]:
    """Those of each epoch of a member that is at the beginning of the rollout."""
    fixed, state, values = runs.learner.fixed, runs.state, runs.values
    S, size = fixed.N * fixed.T, int(values["batch_size"][p])
    steps = int(state.env_steps[p]) + S
    lanes = np.arange(1, S + 1)
    for epoch in range(int(values["n_epochs"][p])):
        number = np.array([steps * algorithm.EPOCHS + epoch])
        bits = streams.bits(streams.of(state.keys, "replay")[p : p + 1], number, S)
        order = np.arange(S)  # Fisher and Yates
        for i in range(S - 1, 0, -1):
            j = int(bits[0, i] >> np.uint64(32)) * int(lanes[i]) >> 32
            order[i], order[j] = order[j], order[i]
        assert sorted(order) == list(range(S))
        samples = []
        for first in range(0, S, size):
            rows = order[first : first + size]
            seen = rollout.observations[p, :, : fixed.T].reshape(S, -1)[rows]
            if seen.shape[1] == 147:  # of a grid: it scales them, and moves channels
                image = (255 * seen).round().reshape(-1, 7, 7, 3)
                seen = np.ascontiguousarray(np.moveaxis(image, -1, 1))
            actions = rollout.actions[p].reshape(S, -1)[rows]
            columns = rollout.columns[p].reshape(4, S)[:, rows]
            log_probs, old, advantages, returns = torch.from_numpy(columns)
            given = torch.from_numpy(seen), torch.from_numpy(actions)
            samples.append(
                RolloutBufferSamples(*given, old, log_probs, advantages, returns)
            )
        yield samples


class Silent:
    """A logger."""

    def record(self, *args, **kwargs):
        pass


@pytest.mark.parametrize(
    ("env_id", "clip_range_vf"),
    [
        ("CartPole-v1", None),
        ("CartPole-v1", 0.05),
        ("Pendulum-v1", None),
        ("Pendulum-v1", 0.05),
        (GRID, None),  # with convolutions in front
    ],
)
def test_updates_equal_those_of_stable_baselines3(
    env_id: str, clip_range_vf: float | None, monkeypatch: pytest.MonkeyPatch
):
    """Fed with our minibatches, its own `train` gives our parameters."""
    env = ENVS[env_id]()
    env.scales_images = env.has_images
    config = {"hidden_sizes": (64, 64), "conv_channels": 16 if env_id == GRID else 0}
    runs = make(
        2,
        env,
        **config,
        clip_range_vf=clip_range_vf,
        num_inner_envs=3,
        learning_rate=[1e-3, 3e-3],
        batch_size=[20, 48],  # with a smaller one at the end, and without
        n_epochs=[3, 4],
        clip_range=[0.15, 0.05],
        ent_coef=[0.01, 0.1],
        vf_coef=[0.5, 1.0],
        max_grad_norm=[0.5, 0.1],
    )
    runs.rollouts(1)  # from where some moments and counts are not those of a start
    runs.state.mean[...], runs.state.square[...] = 0, 0
    runs.state.gradient_steps[:] = 0
    runs.state.part_steps[:] = 0
    rollout = probe(runs)
    models = []
    for p in range(2):
        mine = {name: float(v[p]) for name, v in runs.values.items()}
        coefficients = ("learning_rate", "ent_coef", "vf_coef", "max_grad_norm")
        given: dict[str, Any] = {"policy": "MlpPolicy", "env": env_id}
        if env_id == GRID:
            given = sb3.arguments_of(sb3.SB3PPOConfig(**config), env)
            given["env"] = MemberEnvs(env, 1)
        model = SB3PPO(
            n_steps=64,
            n_epochs=int(mine["n_epochs"]),
            clip_range=mine["clip_range"],
            clip_range_vf=clip_range_vf,
            **{"device": "cpu", **given},
            **{name: mine[name] for name in coefficients},
        )
        for (weight, bias), linear in _pairs(runs, p, model):
            set_linear(linear, weight, bias)
        with torch.no_grad():
            if env_id == "Pendulum-v1":
                model.policy.log_std.copy_(torch.tensor(layers(runs, p)[2]))
        models.append(model)
    before = runs.state.parameters.copy()
    epochs = [minibatches(runs, p, rollout) for p in range(2)]
    monkeypatch.setattr("stable_baselines3.ppo.ppo.explained_variance", lambda *_: 0.0)
    for model, each in zip(models, map(list, epochs), strict=True):
        left = iter(each)
        monkeypatch.setattr(
            model.rollout_buffer, "get", lambda _, left=left: iter(next(left))
        )
        model._logger = Silent()
        model.train()
        assert next(left, None) is None
    runs.begin_interval()
    runs.rollouts(1)
    close = {"rtol": 1e-5, "atol": 1e-5}
    for p, model in enumerate(models):
        for layer, linear in _pairs(runs, p, model):
            for ours, theirs in zip(layer, linear_of(linear), strict=True):
                np.testing.assert_allclose(ours, theirs, **close)
        if env_id == "Pendulum-v1":
            theirs = model.policy.log_std.detach()
            np.testing.assert_allclose(layers(runs, p)[2], theirs, **close)
        assert abs(runs.state.parameters[p] - before[p]).max() > 1e-3
    # each epoch goes through the rollout once
    assert runs.interval.updates.tolist() == [3 * 3, 4 * 1]
    assert runs.interval.samples.tolist() == [3 * 48, 4 * 48]


def _front(extractor: Any) -> list[Any]:
    """Its convolution, if it has one."""
    return [m for name, m in extractor.named_children() if name == "convolution"]


def _pairs(runs: Runs, p: int, model: SB3PPO) -> list[tuple[Any, torch.nn.Linear]]:
    """Layers of a member, and those of a policy of Stable-Baselines3."""
    actor, critic, _ = layers(runs, p)
    policy = model.policy
    hidden = policy.mlp_extractor
    theirs = [
        *_front(policy.pi_features_extractor),
        *(m for m in hidden.policy_net if hasattr(m, "weight")),
        policy.action_net,
        *_front(policy.vf_features_extractor),
        *(m for m in hidden.value_net if hasattr(m, "weight")),
        policy.value_net,
    ]
    return list(zip([*actor, *critic], theirs, strict=True))


# -- how far an update goes ------------------------------------------------------------


def minibatch_kls(runs: Runs) -> NDArray[np.float64]:
    """Divergences before the steps of one rollout of the first member, in order."""
    kls = []
    for epochs in range(1, 5):
        one = copy.deepcopy(runs)
        one.values["n_epochs"][:] = epochs
        one.begin_interval()
        one.rollouts(1)
        kls.append(one.interval.sums[0, algorithm.KL])
    return np.diff(kls, prepend=0.0)


# the whole rollout is one minibatch: an epoch is a step
WHOLE = {"batch_size": 32, "learning_rate": 3e-3, "clip_range": 0.5}


def test_epochs_end_where_the_policy_is_too_far():
    runs = make(1, **WHOLE)
    kls = minibatch_kls(runs)
    assert abs(kls[0]) < 1e-6
    assert (np.diff(kls) > 0).all()
    # of the third step: the divergence before it is more than 1.5 times the target
    for target, steps in ((kls[2] / 1.5 * 0.99, 2), (kls[2] / 1.5 * 1.01, 3)):
        stopping = make(1, **WHOLE, stop_early=True, target_kl=target, n_epochs=4)
        stopping.rollouts(1)
        plain = make(1, **WHOLE, n_epochs=steps)
        plain.rollouts(1)
        assert stopping.interval.updates.tolist() == [steps]
        assert stopping.interval.samples.tolist() == [32 * steps]
        assert stopping.differences(plain, 0) == []


def test_the_rate_follows_the_divergence():
    runs = make(1, **WHOLE)
    kls = minibatch_kls(runs)
    first, second = kls[1], kls[2]
    for desired, factor in ((first * 2.1, 1.5), (first, 1.0), (first / 2.1, 1 / 1.5)):
        adaptive = make(1, **WHOLE, lr_rule="kl-adaptive", desired_kl=desired)
        adaptive.values["n_epochs"][:] = 2
        adaptive.rollouts(1)
        # the first step knows nothing yet
        assert adaptive.state.rate[0] == pytest.approx(3e-3 * factor)
        # and the second is taken with the new rate
        plain = make(1, **WHOLE, n_epochs=1)
        plain.rollouts(1)
        assert first < second
        same = copy.deepcopy(runs)
        same.values["n_epochs"][:] = 2
        same.rollouts(1)
        steps = [
            abs(each.state.parameters - plain.state.parameters).max()
            for each in (adaptive, same)
        ]
        assert steps[0] / steps[1] == pytest.approx(factor, rel=1e-3)


def test_the_adaptive_rate_keeps_its_bounds():
    low = make(1, **WHOLE, lr_rule="kl-adaptive", desired_kl=1e-12, n_epochs=30)
    low.rollouts(2)
    assert low.state.rate[0] == ppo_rate.LOWEST_RATE
    options = {**WHOLE, "learning_rate": 1e-4}
    high = make(1, **options, lr_rule="kl-adaptive", desired_kl=1e6, n_epochs=30)
    high.rollouts(1)
    assert high.state.rate[0] == ppo_rate.HIGHEST_RATE


def test_the_adaptive_rate_begins_at_the_rate_that_is_set():
    runs = make(2, **WHOLE, lr_rule="kl-adaptive", desired_kl=1e6, n_epochs=3)
    runs.rollouts(1)
    assert runs.state.rate == pytest.approx([3e-3 * 1.5**2] * 2)
    runs.values["learning_rate"][0] = 1e-4
    runs.rollouts(1)
    # it goes on where nothing else is set
    assert runs.state.rate == pytest.approx([1e-4 * 1.5**2, ppo_rate.HIGHEST_RATE])
    runs.values["lr_rule"][:] = ppo_rate.AS_SET
    runs.rollouts(1)
    runs.values["lr_rule"][:] = ppo_rate.KL_ADAPTIVE
    runs.rollouts(1)
    assert runs.state.rate == pytest.approx([1e-4 * 1.5**2, 3e-3 * 1.5**2])


@pytest.mark.parametrize("option", ["stop_early", "kl-adaptive", "dpo"])
def test_the_policy_finds_the_better_action_with_each_option(option: str):
    """The better action is found with each of them."""
    options: dict[str, Any] = {
        "stop_early": {"stop_early": True, "target_kl": 0.02},
        "kl-adaptive": {"lr_rule": "kl-adaptive"},
        "dpo": {"drift": "dpo"},
    }[option]
    runs = make(2, BatchedEnv(Choose()), learning_rate=3e-3, **options)
    runs.rollouts(60)
    best = runs.learner.policy(runs.state, np.arange(2))
    seen = np.array([[[1.0], [-1.0]]] * 2)
    assert best(seen).tolist() == [[1, 0]] * 2


def test_orders_of_minibatches_are_drawn_anew():
    runs = make(2, batch_size=4)
    rollout, seen = probe(runs), set()
    for p in range(2):
        for epoch in minibatches(runs, p, rollout):
            seen.add(tuple(epoch[0].observations.ravel().tolist()))
    assert len(seen) == 2 * 10


def test_initial_weights_are_orthogonal_with_the_usual_gains():
    runs = make(4, hidden_sizes=(32, 16))
    for p in range(4):
        actor, critic, log_std = layers(runs, p)
        for network, last in ((actor, 0.01), (critic, 1.0)):
            for (w, b), gain in zip(network, (2**0.5, 2**0.5, last), strict=True):
                small = (w if w.shape[0] <= w.shape[1] else w.T) / gain
                np.testing.assert_allclose(
                    small @ small.T, np.eye(len(small)), atol=1e-5
                )
                assert not b.any()
        assert not log_std.any()
        assert (actor[0][0] != critic[0][0]).all()
        assert (actor[0][0] != layers(runs, (p + 1) % 4)[0][0][0]).all()


# -- acting ----------------------------------------------------------------------------


def test_actions_follow_their_probabilities():
    runs = make(1, BatchedEnv(Endless()), num_inner_envs=8, rollout_length=1_000)
    layers(runs, 0)[0][-1][1][:] = np.log(
        [0.2, 0.8]
    )  # all else is 0: so is what is seen
    rollout = probe(runs)
    actions = rollout.actions[0, ..., 0]
    assert set(actions.ravel()) == {0, 1}
    assert actions.mean() == pytest.approx(0.8, abs=0.02)
    expected = np.log(np.where(actions == 1, 0.8, 0.2))
    log_probs = rollout.columns[0, algorithm.LOG_PROB]
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


def test_continuous_actions_follow_their_distribution():
    runs = make(1, BatchedEnv(Reach()), num_inner_envs=8, rollout_length=1_000)
    actor, _, log_std = layers(runs, 0)
    actor[-1][0][...], actor[-1][1][:], log_std[:] = 0.0, 0.3, np.log(0.5)
    rollout = probe(runs)
    actions = rollout.actions[0, ..., 0]
    assert actions.mean() == pytest.approx(0.3, abs=0.03)
    assert actions.std() == pytest.approx(0.5, abs=0.03)
    assert abs(actions).max() > 1.5
    normal = torch.distributions.Normal(0.3, 0.5)
    expected = normal.log_prob(torch.from_numpy(actions))
    log_probs = rollout.columns[0, algorithm.LOG_PROB]
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-5)


def test_actions_go_to_the_environment_within_its_bounds():
    dynamics = Reach()
    runs = make(1, BatchedEnv(dynamics), num_inner_envs=50, rollout_length=1)
    layers(runs, 0)[2][:] = np.log(3.0)
    rollout = probe(runs)
    drawn = rollout.actions[0, :, 0]
    assert (abs(drawn) > 2).any()  # learning takes them as they were drawn
    np.testing.assert_array_equal(dynamics.taken[0], np.clip(drawn, -2, 2))


@pytest.mark.parametrize(
    ("value", "action"), [(np.nan, 0.0), (np.inf, 2.0), (-np.inf, -2.0)]
)
def test_actions_of_a_diverged_member_are_numbers(value: float, action: float):
    """Physics engines stop the process, or raise, at others."""
    dynamics = Reach()
    runs = make(2, BatchedEnv(dynamics))
    layers(runs, 1)[0][-1][1][:] = value
    runs.rollouts(1)
    assert (dynamics.taken[1] == action).all()
    assert np.isfinite(dynamics.taken).all()
    best = runs.learner.policy(runs.state, np.array([1]))
    runs.state.parameters[1] = np.nan
    assert best(np.ones((1, 1, 2), np.float32)).tolist() == [[[0.0]]]
    assert runs.diverged() == [False, True]


# -- normalisation ---------------------------------------------------------------------


class Recorded(Stepped):
    """Keeps what it showed and gave."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.seen, self.steps = [], []

    def step(self, state, actions):
        self.seen.append(state.observations.copy())
        self.steps.append(self.hidden.step(state, actions))
        return self.steps[-1]


def test_observations_and_rewards_are_normalised_as_vec_normalize_does():
    N, T = 3, 60
    env = Recorded(ENVS["CartPole-v1"]())
    options = {"normalize_observations": True, "normalize_rewards": True}
    runs = make(1, env, num_inner_envs=N, rollout_length=T, gamma=0.9, **options)
    theirs = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")] * N), gamma=0.9)
    for _ in range(2):  # the second goes on from the first
        env.seen.clear()
        env.steps.clear()
        rollout = runs.learner.probe(runs.state, runs.values)
        for t, (seen, step) in enumerate(zip(env.seen, env.steps, strict=True)):
            theirs.obs_rms.update(seen[0].astype(float))
            np.testing.assert_allclose(
                rollout.observations[0, :, t],
                theirs.normalize_obs(seen[0]),
                rtol=1e-5,
                atol=1e-6,
            )
            theirs._update_reward(step.rewards[0])
            expected = theirs.normalize_reward(step.rewards[0])
            np.testing.assert_allclose(rollout.rewards[0, :, t], expected, rtol=1e-5)
            theirs.returns[step.done[0]] = 0
    moments = runs.state.observation_moments, runs.state.return_moments
    for mine, reference in zip(moments, (theirs.obs_rms, theirs.ret_rms), strict=True):
        np.testing.assert_allclose(mine.mean[0], reference.mean, rtol=1e-9)
        np.testing.assert_allclose(mine.variance[0], reference.var, rtol=1e-9)


def test_moments_stay_as_they_are_where_nothing_is_normalised():
    runs, fresh = make(2), make(2)
    runs.rollouts(2)
    assert {"parameters", "env_steps"} <= set(runs.differences(fresh, 0))
    for name in ("mean", "variance", "weight"):
        for which in ("observation_moments", "return_moments"):
            assert f"{which}.{name}" not in runs.differences(fresh, 0)


# -- signals, configuration ------------------------------------------------------------


def test_signals():
    runs = make(3, n_epochs=1, batch_size=32, ent_coef=0.01, normalize_advantages=False)
    runs.rollouts(3)
    start, rollout = runs.state.parameters.copy(), probe(runs)
    runs.begin_interval()
    runs.rollouts(1)
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert set(signals) == set(ppo.SIGNALS)
    assert all(v.shape == (3,) and np.isfinite(v).all() for v in signals.values())
    fixed = runs.learner.fixed
    for p in range(3):  # a single update, of the whole rollout
        samples = next(minibatches(_before(runs, start), p, rollout))[0]
        batch = algorithm.Batch(
            samples.observations,
            samples.actions[:, 0].long(),
            samples.old_log_prob,
            samples.advantages,
            samples.returns,
            samples.old_values,
        )
        row = torch.tensor(start[p], requires_grad=True)
        options = algorithm.Options(ent_coef=0.01)
        loss = algorithm.loss(fixed, row, batch, options)
        loss.backward()
        assert signals["loss"][p] == pytest.approx(loss.item(), rel=1e-4)
        norm = row.grad.norm().item()
        assert signals["grad_norm"][p] == pytest.approx(norm, rel=1e-4)
        logits = dense.apply(fixed.actor, row[: fixed.actor.row], batch.observations)
        entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
        assert signals["entropy"][p] == pytest.approx(entropy.item(), rel=1e-5)
        assert abs(signals["kl"][p]) < 1e-6  # the policy has not moved yet
        moved = np.linalg.norm(runs.state.parameters[p] - start[p])
        ratio = moved / np.linalg.norm(start[p])
        assert signals["update_ratio"][p] == pytest.approx(ratio, rel=1e-5)
        critic = torch.tensor(runs.state.parameters[p, fixed.actor.row :])
        seen = torch.tensor(runs.state.envs.observations[p])
        values = dense.apply(fixed.critic, critic[: fixed.critic.row], seen)
        assert signals["value_mean"][p] == pytest.approx(values.mean().item(), rel=1e-4)
        deviation = values.std(correction=0).item()
        assert signals["value_std"][p] == pytest.approx(deviation, rel=1e-3)


def _before(runs: Runs, parameters: NDArray[np.float32]) -> Runs:
    """The same population a rollout ago."""
    state = copy.copy(runs.state)
    unit = runs.learner.granularity(runs.learner.config)
    state.parameters, state.env_steps = parameters, runs.state.env_steps - unit
    return Runs(
        runs.learner, state, runs.values, runs.interval, runs.keys, runs.physics
    )


def test_the_policy_moves_as_far_as_is_told():
    """The divergence from the policy that acted grows over epochs."""
    few, many = make(2, learning_rate=3e-3), make(2, learning_rate=3e-3, n_epochs=30)
    told = []
    for runs in (few, many):
        runs.rollouts(1)
        told.append(runs.learner.signals(runs.state, runs.values, runs.interval)["kl"])
    assert (told[1] > 1.5 * told[0]).all()
    assert (told[0] > 1e-4).all()


def test_floating_point_operations():
    runs = make(1, hidden_sizes=(64, 64))
    act, (learn,) = runs.learner.flops(runs.values)
    trunk = 4 * 64 + 64 * 64
    assert act == 2 * (trunk + 64 * 2) + 2 * (trunk + 64 * 1)
    # backward to the weights, and to all inputs but the first
    assert learn == act + act + (act - 2 * 2 * 4 * 64)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rollout_length": 0}, "rollout_length"),
        ({"num_inner_envs": 0}, "num_inner_envs"),
        ({"clip_range_vf": 0.0}, "clip_range_vf"),
        ({"activation": "gelu"}, "valid: relu, tanh"),
    ],
)
def test_configuration_is_checked(config: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make(1, **config)


# -- probes: environments whose solution is known --------------------------------------


def test_the_value_of_the_first_state_is_gamma():
    runs = make(
        2,
        BatchedEnv(Chain()),
        rollout_length=32,
        gamma=[0.9, 0.5],
        learning_rate=3e-3,
        batch_size=32,
    )
    runs.rollouts(60)
    fixed = runs.learner.fixed
    critics = torch.from_numpy(runs.state.parameters)[:, fixed.actor.row :]
    values = dense.apply(
        fixed.critic, critics[:, : fixed.critic.row], torch.zeros(2, 1, 1)
    )
    np.testing.assert_allclose(values.ravel(), [0.9, 0.5], atol=0.05)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_policy_finds_the_better_action(normalize: bool):
    runs = make(
        2,
        BatchedEnv(Choose()),
        rollout_length=32,
        normalize_observations=normalize,
        normalize_rewards=normalize,
        learning_rate=3e-3,
    )
    runs.rollouts(30)
    best = runs.learner.policy(runs.state, np.arange(2))
    observations = np.tile(np.array([[-1.0], [1.0]], np.float32), (2, 1, 1))
    np.testing.assert_array_equal(best(observations), [[0, 1], [0, 1]])


def test_the_continuous_policy_finds_the_best_action():
    runs = make(2, BatchedEnv(Reach()), rollout_length=64, learning_rate=3e-3)
    runs.rollouts(60)
    best = runs.learner.policy(runs.state, np.arange(2))
    actions = best(np.full((2, 1, 2), 0.5, np.float32))
    np.testing.assert_allclose(actions.ravel(), [0.5, 0.5], atol=0.15)
