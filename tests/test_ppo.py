"""The batched PPO: loss, gradient, advantages, equality with Stable-Baselines3."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from dacrl_env.inner_envs.batched import BatchedEnv
from dacrl_env.inner_envs.cartpole import CartPole
from dacrl_env.learners import adam, blocks, ppo, streams
from dacrl_env.snapshot import leaves

DEFAULTS = {h.name: float(h.default) for h in ppo.HYPERPARAMETERS}


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

    def initial(self, uniforms, physics):
        return uniforms.copy()

    def step(self, variables, actions, physics):
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
        return variables + 1.0, last.astype(float), last

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


def make(P=2, dynamics=None, seed=0, **config):
    env = BatchedEnv(CartPole() if dynamics is None else dynamics)
    config = {"num_inner_envs": 2, "rollout_length": 16, **config}
    learner = ppo.PPO(env, env, ppo.PPOConfig(**config), 100_000, torch.device("cpu"))
    keys = np.stack([streams.member_keys("tuning", seed, i, 0) for i in range(P)])
    physics = np.tile([*env.physics.values()], (P, 1)).reshape(P, len(env.physics))
    values = {name: np.full(P, value) for name, value in DEFAULTS.items()}
    with torch.no_grad():
        state = learner.init(keys, physics)
    return learner, state, values


def train(learner, state, values, rollouts, interval=None):
    interval = learner.begin_interval(state) if interval is None else interval
    with torch.no_grad():
        unit = learner.granularity(learner.config)
        learner.train(state, values, rollouts * unit, interval)
    return interval


def snapshot(state):
    return {
        name: (leaf.clone() if isinstance(leaf, torch.Tensor) else leaf.copy())
        for name, leaf in leaves(state)
    }


def differing(a, b, members=slice(None)):
    return [
        name
        for name in a
        if not np.array_equal(
            np.asarray(a[name])[members], np.asarray(b[name])[members]
        )
    ]


def random_batch(learner, P, B, generator):
    """A minibatch whose ratios reach beyond the clip range on both sides."""
    shape = (P, B, 1)
    observations = torch.randn(P, B, learner.features, generator=generator)
    if learner.continuous:
        actions = torch.randn(P, B, learner.num_outputs, generator=generator)
    else:
        actions = torch.randint(0, learner.num_outputs, shape, generator=generator)
    weights = torch.rand(shape, generator=generator)
    weights[:, -2:] = 0.0
    return ppo.Batch(
        observations=observations,
        actions=actions,
        log_probs=torch.randn(shape, generator=generator) * 0.3 - 0.7,
        advantages=torch.randn(shape, generator=generator),
        returns=torch.randn(shape, generator=generator),
        values=torch.randn(shape, generator=generator) * 0.1,
        weights=weights / weights.sum(1, keepdim=True),
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("clip_range_vf", [None, 0.1])
@pytest.mark.parametrize("dynamics", [CartPole, Reach])
def test_the_explicit_gradient_is_that_of_the_loss(dynamics, clip_range_vf, activation):
    P, B = 3, 16
    learner, state, _ = make(
        P,
        dynamics(),
        clip_range_vf=clip_range_vf,
        activation=activation,
        hidden_sizes=(8, 12),
    )
    generator = torch.Generator().manual_seed(0)
    batch = random_batch(learner, P, B, generator)
    coefficients = ppo.Coefficients(
        clip_range=torch.tensor([0.1, 0.2, 0.4]).view(P, 1, 1),
        ent_coef=torch.tensor([0.0, 0.01, 0.1]).view(P, 1, 1),
        vf_coef=torch.tensor([0.0, 0.5, 1.0]).view(P, 1, 1),
    )
    rows = state.parameters + 0.3 * torch.randn(
        state.parameters.shape, generator=generator
    )
    rows.requires_grad_()
    expected = learner.loss(rows, batch, coefficients)
    (gradient,) = torch.autograd.grad(expected.sum(), rows)
    with torch.no_grad():
        work = learner._workspace(P, B)
        loss, _, _ = learner._loss_and_gradient(
            learner._net(rows.detach()), batch, coefficients, work
        )
    torch.testing.assert_close(loss[:, 0], expected.detach())
    torch.testing.assert_close(work.gradients, gradient, rtol=1e-4, atol=1e-6)
    assert (gradient.abs().sum(1) > 0).all()


def test_advantages_by_hand():
    """Three steps, an end after the second, worked out on paper."""
    learner, _, _ = make(1, num_inner_envs=1, rollout_length=3)
    values = {"gamma": np.array([0.9]), "gae_lambda": np.array([0.8])}
    advantages, returns = learner._advantages(
        np.array([1.0, 2.0, 3.0], np.float32).reshape(3, 1, 1),
        np.array([1.0, 0.0, 1.0], np.float32).reshape(3, 1, 1),
        torch.tensor([0.5, 0.4, 0.3]).view(1, 1, 3),
        torch.tensor([[0.2]]),
        values,
    )
    third = 3.0 + 0.9 * 0.2 - 0.3
    second = 2.0 - 0.4
    first = 1.0 + 0.9 * 0.4 - 0.5 + 0.9 * 0.8 * second
    expected = torch.tensor([first, second, third])
    torch.testing.assert_close(advantages.ravel(), expected)
    torch.testing.assert_close(
        returns.ravel(), expected + torch.tensor([0.5, 0.4, 0.3])
    )


def test_advantages_equal_stable_baselines3():
    from stable_baselines3.common.buffers import RolloutBuffer

    generator = np.random.default_rng(0)
    T, N = 20, 3
    learner, _, _ = make(1, num_inner_envs=N, rollout_length=T)
    rewards, v = generator.normal(size=(2, T, N)).astype(np.float32)
    done = generator.random((T, N)) < 0.2
    last = generator.normal(size=N).astype(np.float32)
    space = gym.spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(T, space, space, gamma=0.97, gae_lambda=0.9, n_envs=N)
    buffer.rewards[:], buffer.values[:] = rewards, v
    buffer.episode_starts[1:] = done[:-1]
    buffer.compute_returns_and_advantage(torch.from_numpy(last), done[-1])
    advantages, returns = learner._advantages(
        rewards[:, None],
        (~done).astype(np.float32)[:, None],
        torch.from_numpy(v.T[None].copy()),
        torch.from_numpy(last[None]),
        {"gamma": np.array([0.97]), "gae_lambda": np.array([0.9])},
    )
    np.testing.assert_allclose(advantages[0].T, buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(returns[0].T, buffer.returns, atol=1e-5)


def _copy_to_stable_baselines3(learner, row, model):
    """Set the weights of a Stable-Baselines3 policy from one member's row."""
    net = learner._net(row[None])
    policy = model.policy
    actor = [policy.mlp_extractor.policy_net[0], policy.mlp_extractor.policy_net[2]]
    critic = [policy.mlp_extractor.value_net[0], policy.mlp_extractor.value_net[2]]
    pairs = [
        *zip(net.actor, [*actor, policy.action_net], strict=True),
        *zip(net.critic, [*critic, policy.value_net], strict=True),
    ]
    with torch.no_grad():
        for layer, linear in pairs:
            linear.weight.copy_(layer.weight[0].T)
            linear.bias.copy_(layer.bias[0, 0])
        if learner.continuous:
            policy.log_std.copy_(net.log_std[0, 0])
    return pairs


@pytest.mark.parametrize("continuous", [False, True])
def test_updates_equal_those_of_stable_baselines3(continuous, monkeypatch):
    """The same parameters and minibatches give the same parameters to 1e-6."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.type_aliases import RolloutBufferSamples

    env_id = "Pendulum-v1" if continuous else "CartPole-v1"
    dynamics = _PendulumShapes() if continuous else CartPole()
    learner, state, _ = make(1, dynamics, hidden_sizes=(64, 64))
    model = PPO(
        "MlpPolicy",
        env_id,
        n_steps=64,
        batch_size=32,
        n_epochs=1,
        learning_rate=1e-3,
        ent_coef=0.01,
        clip_range=0.15,
        device="cpu",
    )
    pairs = _copy_to_stable_baselines3(learner, state.parameters[0], model)
    generator = torch.Generator().manual_seed(1)
    raw = [random_batch(learner, 1, 32, generator) for _ in range(3)]
    even = torch.full((1, 32, 1), 1 / 32)
    batches = [batch._replace(weights=even) for batch in raw]
    samples = [
        RolloutBufferSamples(
            b.observations[0],
            b.actions[0].float(),
            b.values[0, :, 0],
            b.log_probs[0, :, 0],
            b.advantages[0, :, 0],
            b.returns[0, :, 0],
        )
        for b in batches
    ]
    monkeypatch.setattr(model.rollout_buffer, "get", lambda _: iter(samples))
    monkeypatch.setattr("stable_baselines3.ppo.ppo.explained_variance", lambda *_: 0.0)
    model._logger = _Silent()
    model.train()
    coefficients = ppo.Coefficients(
        *(torch.tensor(x).view(1, 1, 1) for x in (0.15, 0.01, 0.5))
    )
    with torch.no_grad():
        work = learner._workspace(1, 32)
        for k, b in enumerate(batches):
            scaled = ppo.normalised(b.advantages.mT, even.mT, torch.tensor([[[32.0]]]))
            batch = b._replace(advantages=scaled.mT)
            learner._loss_and_gradient(
                learner._net(state.parameters), batch, coefficients, work
            )
            adam.clip_norm(work.gradients, torch.tensor([[0.5]]))
            adam.step(
                state.parameters,
                work.gradients,
                state.adam,
                np.array([k + 1]),
                np.array([1e-3]),
                ppo.ADAM_EPSILON,
                work.scratch,
            )
    for layer, linear in pairs:
        torch.testing.assert_close(layer.weight[0].T, linear.weight, atol=1e-6, rtol=0)
        torch.testing.assert_close(layer.bias[0, 0], linear.bias, atol=1e-6, rtol=0)
    if continuous:
        ours = learner._net(state.parameters).log_std[0, 0]
        torch.testing.assert_close(ours, model.policy.log_std, atol=1e-6, rtol=0)


class _Silent:
    def record(self, *args, **kwargs):
        pass


class _PendulumShapes(Reach):
    observation_shape = (3,)


def test_initial_weights_are_orthogonal_with_the_usual_gains():
    learner, state, _ = make(4, hidden_sizes=(32, 16))
    net = learner._net(state.parameters)
    for layers, last in ((net.actor, 0.01), (net.critic, 1.0)):
        for layer, gain in zip(layers, (2**0.5, 2**0.5, last), strict=True):
            w = layer.weight / gain
            small = w if w.shape[1] <= w.shape[2] else w.transpose(1, 2)
            product = torch.bmm(small, small.transpose(1, 2))
            eye = torch.eye(product.shape[1]).expand_as(product)
            torch.testing.assert_close(product, eye, atol=1e-5, rtol=0)
            assert not layer.bias.any()
    assert not torch.equal(net.actor[0].weight[0], net.critic[0].weight[0])
    assert not torch.equal(net.actor[0].weight[0], net.actor[0].weight[1])


def test_sampling_follows_the_probabilities():
    learner, _, _ = make(1, hidden_sizes=(4,))
    outputs = np.log(np.float32([0.2, 0.8])) + np.zeros((1, 20_000, 1), np.float32)
    key = np.array([1], np.uint64)
    draws = streams.uniforms(key, np.array([0]), 20_000)
    log_std = np.zeros((1, 1, 0), np.float32)
    actions = learner._sample(outputs, log_std, draws)
    assert actions.mean() == pytest.approx(0.8, abs=0.01)
    log_probs = learner.log_prob(
        torch.from_numpy(outputs),
        torch.from_numpy(log_std),
        torch.from_numpy(actions)[..., None],
    )
    expected = np.log(np.where(actions == 1, 0.8, 0.2))
    np.testing.assert_allclose(log_probs[..., 0], expected, rtol=1e-6)


def test_minibatches_cover_the_rollout_once_an_epoch():
    learner, state, _ = make(3)
    S = 32
    sizes, epochs = np.array([16, 20, 32]), np.array([2, 3, 1])
    updates = epochs * -(-S // sizes)
    seen = {}
    for block in blocks.make_blocks(np.arange(3), sizes, updates, torch.device("cpu")):
        rows, counts = learner._shuffles(state, block, epochs[block.members], S)
        for i, member in enumerate(block.members):
            n, size = updates[member], sizes[member]
            per_epoch = -(-S // size)
            orders = []
            for e in range(epochs[member]):
                at = slice(e * per_epoch, (e + 1) * per_epoch)
                order = rows[at, i][counts[at, i]]
                assert sorted(order) == list(range(S))
                orders.append(tuple(order))
            assert len(set(orders)) == len(orders)
            one_epoch = [size] * (S // size) + ([S % size] if S % size else [])
            assert counts[:n, i].sum(1).tolist() == one_epoch * int(epochs[member])
            seen[int(member)] = n
    assert seen == {0: 4, 1: 6, 2: 1}


def test_truncation_bootstraps_and_termination_does_not():
    """Advantages of an endless environment count what lies beyond the time limit."""
    learner, state, values = make(1, Endless(), num_inner_envs=1, rollout_length=10)
    net = learner._net(state.parameters)
    for layer in net.critic:
        layer.weight.zero_()
        layer.bias.zero_()
    net.critic[-1].bias.fill_(7.0)
    values["gae_lambda"][:] = 0.8
    with torch.no_grad():
        interval = learner.begin_interval(state)
        table = learner._rollout(state, values, interval)
    assert interval.episodes[0] == 1
    last_delta = 1.0 + 0.99 * 7.0 - 7.0  # bootstrapped from the observation beyond
    assert table[0, -1, 3].item() == pytest.approx(last_delta, abs=1e-5)
    learner, state, values = make(1, Chain(), num_inner_envs=1, rollout_length=2)
    net = learner._net(state.parameters)
    for layer in net.critic:
        layer.weight.zero_()
    net.critic[-1].bias.fill_(7.0)
    with torch.no_grad():
        table = learner._rollout(state, values, learner.begin_interval(state))
    assert table[0, -1, 3].item() == pytest.approx(1.0 - 7.0, abs=1e-5)


def test_probe_the_value_of_the_first_state_is_gamma():
    learner, state, values = make(2, Chain(), rollout_length=32)
    values["gamma"][:] = (0.9, 0.5)
    values["learning_rate"][:] = 3e-3
    values["batch_size"][:] = 32
    train(learner, state, values, 60)
    _, critic = learner._split(state.parameters)
    with torch.no_grad():
        value = learner.critic.apply(critic, torch.zeros(2, 1, 1)).ravel()
    np.testing.assert_allclose(value, [0.9, 0.5], atol=0.05)


@pytest.mark.parametrize("normalize", [False, True])
def test_probe_the_policy_finds_the_better_action(normalize):
    learner, state, values = make(
        2,
        Choose(),
        rollout_length=32,
        normalize_observations=normalize,
        normalize_rewards=normalize,
    )
    values["learning_rate"][:] = 3e-3
    train(learner, state, values, 30)
    act = learner.policy(state, np.arange(2))
    observations = np.tile(np.array([[-1.0], [1.0]], np.float32), (2, 1, 1))
    with torch.no_grad():
        np.testing.assert_array_equal(act(observations), [[0, 1], [0, 1]])


def test_probe_the_continuous_policy_finds_the_best_action():
    learner, state, values = make(2, Reach(), rollout_length=64)
    values["learning_rate"][:] = 3e-3
    train(learner, state, values, 60)
    act = learner.policy(state, np.arange(2))
    with torch.no_grad():
        actions = act(np.full((2, 1, 2), 0.5, np.float32))
    np.testing.assert_allclose(actions.ravel(), [0.5, 0.5], atol=0.15)


def test_cutting_a_run_changes_nothing():
    learner, whole, values = make(
        3, normalize_observations=True, normalize_rewards=True
    )
    train(learner, whole, values, 6)
    learner, cut, values = make(3, normalize_observations=True, normalize_rewards=True)
    for rollouts in (1, 3, 2):
        train(learner, cut, values, rollouts)
    assert differing(snapshot(whole), snapshot(cut)) == []


BINDING = {
    "learning_rate": 1e-2,
    "clip_range": 0.01,
    "batch_size": 16,
    "gamma": 0.8,
    "gae_lambda": 0.8,
    "n_epochs": 3,
    "ent_coef": 0.1,
    "vf_coef": 0.0,
    "max_grad_norm": 0.05,
}


@pytest.mark.parametrize("name", list(DEFAULTS))
def test_every_hyperparameter_bites_and_only_its_member(name):
    states = []
    for value in (None, BINDING[name]):
        learner, state, values = make(3)
        values["learning_rate"][:] = 3e-3
        train(learner, state, values, 2)
        before = snapshot(state)
        if value is not None:
            values[name][1] = value
        train(learner, state, values, 2)
        states.append((before, snapshot(state)))
    (before_a, after_a), (before_b, after_b) = states
    assert differing(before_a, before_b) == []
    assert "parameters" in differing(after_a, after_b, [1])
    assert differing(after_a, after_b, [0, 2]) == []


@pytest.mark.parametrize(("name", "value"), [("n_epochs", 1), ("batch_size", 128)])
def test_a_member_left_alone_in_its_block_keeps_its_bits(name, value):
    states = []
    for changed in (False, True):
        learner, state, values = make(3, num_inner_envs=8, rollout_length=32)
        values["n_epochs"][:] = 3
        if changed:
            values[name][:2] = value
        train(learner, state, values, 8)
        states.append(snapshot(state))
    assert differing(*states, [2]) == []
    assert "parameters" in differing(*states, [0])


def test_a_member_alone_agrees_with_itself_in_a_population():
    learner, state, values = make(8)
    train(learner, state, values, 2)
    alone_learner, alone, alone_values = make(1)
    train(alone_learner, alone, alone_values, 2)
    torch.testing.assert_close(
        state.parameters[:1], alone.parameters, atol=1e-5, rtol=1e-4
    )
    np.testing.assert_array_equal(state.env_steps[:1], alone.env_steps)


@pytest.mark.parametrize("dynamics", [CartPole, Endless, Reach])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_member_that_diverges_does_so_alone(value, dynamics):
    learner, state, values = make(3, dynamics())
    state.parameters[1] = value
    interval = train(learner, state, values, 1)
    assert learner.diverged(state, interval).tolist() == [False, True, False]


def test_actions_of_a_diverged_member_are_numbers():
    """Physics engines stop the process, or raise, at others."""
    learner, state, values = make(2, Reach())
    actions = np.array([[[np.nan]], [[np.inf]], [[-np.inf]], [[0.25]]], np.float32)
    low, high = learner.env.action_low[0], learner.env.action_high[0]
    assert learner._clip(actions).ravel().tolist() == [0.0, high, low, 0.25]
    state.parameters[1] = torch.nan
    train(learner, state, values, 1)
    assert np.isfinite(state.envs.variables).all()


def test_running_moments_equal_stable_baselines3():
    from stable_baselines3.common.running_mean_std import RunningMeanStd

    from dacrl_env.learners.normalisation import RunningMoments

    generator = np.random.default_rng(0)
    ours = RunningMoments.start(2, 3)
    theirs = [RunningMeanStd(shape=(3,)) for _ in range(2)]
    for _ in range(5):
        samples = generator.normal(2.0, 3.0, (2, 4, 3))
        ours.update(samples)
        for reference, part in zip(theirs, samples, strict=True):
            reference.update(part)
    for k, reference in enumerate(theirs):
        np.testing.assert_allclose(ours.mean[k], reference.mean, rtol=1e-12)
        np.testing.assert_allclose(ours.variance[k], reference.var, rtol=1e-12)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rollout_length": 0}, "rollout_length"),
        ({"num_inner_envs": 0}, "num_inner_envs"),
        ({"clip_range_vf": 0.0}, "clip_range_vf"),
        ({"activation": "gelu"}, "valid: relu, tanh"),
    ],
)
def test_configuration_is_checked(config, message):
    with pytest.raises(ValueError, match=message):
        make(1, **config)
