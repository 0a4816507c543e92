"""Meta-gradients against finite differences, and the policy on runs."""

from dataclasses import fields, replace
from operator import attrgetter

import numpy as np
import pytest
import torch
from cases import slow
from dacrl_env.baselines import meta_gradients
from dacrl_env.baselines.meta_gradients import MetaGradients, Optimiser, halves, update

import dacrl_env
from dacrl_env.algorithms import ppo
from dacrl_env.core import snapshot
from dacrl_env.kernels import adam
from dacrl_env.kernels.compiling import entry
from dacrl_env.policies import probe
from dacrl_env.policies.static import Static

DQN = "dacrl/DQN-CartPole-v0"
PPO = "dacrl/PPO-CartPole-v0"
PENDULUM = "dacrl/PPO-Pendulum-v0"
SMALL = {
    "dqn": {"budget": 4_000, "decision_interval": 500, "learning_starts": 100},
    "ppo": {
        "budget": 4_096,
        "decision_interval": 512,
        "num_inner_envs": 4,
        "rollout_length": 64,
    },
}


def make(task, P=3, seed=0, **options):
    learner = dacrl_env.get_task(task).algorithm
    envs = dacrl_env.PopulationEnv(
        task,
        P,
        action_mode="continuous",
        eval_episodes=2,
        hyperparameters=meta_gradients.TUNED[learner],
        **{"hidden_sizes": (16,), **SMALL[learner], **options},
    )
    envs.reset(seed=seed)
    return envs


def hold(envs, steps=1):
    for _ in range(steps):
        result = envs.step(np.zeros(envs.action_space.shape))
    return result[0], result[4]


def double(x):
    """Everything in double precision."""
    if isinstance(x, torch.Tensor):
        return x.double() if x.is_floating_point() else x
    if isinstance(x, dict):
        return {key: double(value) for key, value in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(double(value) for value in x))
    if hasattr(x, "__dataclass_fields__"):
        return replace(x, **{f.name: double(getattr(x, f.name)) for f in fields(x)})
    return x


def objective_of(policy, envs):
    """What a policy differentiates, in double precision, and where it stands."""
    with torch.no_grad():
        learner = envs.population.learner
        if dacrl_env.get_task(envs.settings.task).algorithm == "dqn":
            part = policy._dqn(learner)
        else:
            part = policy._ppo(learner, np.ones(envs.num_envs, bool))
    keywords = {k: double(v) for k, v in part.keywords.items() if k != "learner"}
    keywords["learner"] = learner

    def objective(units):
        return part.func(units, **keywords)

    return objective, torch.from_numpy(policy.units)


FEATURES = {"normalize_observations": True, "fourier_features": 20}
CONVOLUTION = {"conv_channels": 16}
GRIDS = ("dacrl/DQN-MiniGrid-Empty-5x5-v0", "dacrl/PPO-MiniGrid-DoorKey-5x5-v0")


@pytest.mark.parametrize(
    ("task", "rate", "config"),
    [
        *((task, rate, {}) for task in (DQN, PPO, PENDULUM) for rate in (1e-4, 1e-2)),
        (DQN, 1e-3, FEATURES),
        *(slow(task, 1e-3, CONVOLUTION) for task in GRIDS),
    ],
)
def test_gradients_agree_with_finite_differences(task, rate, config):
    envs = make(task, **config)
    policy = MetaGradients(reference_gamma=0.95, reference_lambda=0.9)
    policy.reset(envs, 0)
    hold(envs, 2)
    policy.units[:, 0] = np.log(rate)
    objective, units = objective_of(policy, envs)
    gradient = torch.func.grad(lambda u: objective(u).sum())(units)
    assert gradient.shape == (3, 1 if "DQN" in task else 3)
    assert (gradient != 0).all()
    for k in range(units.shape[1]):
        h = torch.zeros_like(units)
        h[:, k] = 1e-5
        slope = (objective(units + h) - objective(units - h)) / 2e-5
        np.testing.assert_allclose(
            gradient[:, k].detach(), slope.detach(), rtol=1e-4, atol=1e-10
        )


@pytest.mark.parametrize("task", [DQN, PPO])
def test_the_policy_uses_these_gradients(task):
    envs = make(task)
    policy = MetaGradients()
    policy.reset(envs, 0)
    hold(envs)
    objective, units = objective_of(policy, envs)
    exact = torch.func.grad(lambda u: objective(u).sum())(units)
    single = policy.gradients(np.ones(3, bool))
    np.testing.assert_allclose(single, exact.detach(), rtol=0.02, atol=1e-6)


def test_gradients_do_not_reach_other_members():
    envs = make(PPO)
    policy = MetaGradients()
    policy.reset(envs, 0)
    hold(envs)
    objective, units = objective_of(policy, envs)
    jacobian = torch.func.jacrev(objective)(units)
    off = ~torch.eye(3, dtype=bool)
    assert (jacobian[off] == 0).all()


@entry
def _adam_step(row, gradients, mean, square, steps, rate, epsilon, max_norm):
    whole = np.array([0, len(row)])
    adam.adam_step(row, gradients, mean, square, whole, steps, rate, epsilon, max_norm)


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_the_update_is_that_of_the_learners(max_norm):
    rows, gradients, mean = torch.randn(3, 2, 64)
    square = torch.rand(2, 64)
    rate, steps = np.array([1e-3, 1e-1]), np.array([1, 40])
    o = Optimiser(
        mean,
        square,
        torch.tensor([[0.0], [39.0]]),
        torch.full((2, 1), max_norm),
        1e-5,
    )
    column = torch.from_numpy(rate[:, None]).float()
    result = update(rows, gradients, column, o)
    expected = rows.clone()
    for p in range(2):
        given = (x[p].clone().numpy() for x in (gradients, mean, square))
        taken = steps[p : p + 1] - 1
        _adam_step(expected[p].numpy(), *given, taken, rate[p], 1e-5, max_norm)
    np.testing.assert_allclose(result - rows, expected - rows, rtol=1e-3, atol=1e-6)


def test_an_update_without_gradient_has_a_derivative():
    zero = torch.zeros(1, 4, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    o = Optimiser(zero, zero, 0 * one, one, 1e-8)
    slope = torch.func.grad(lambda g: update(zero, g, one, o).sum())(zero)
    assert torch.isfinite(slope).all()


def test_advantages_by_hand():
    # two steps and an end, then one step that goes on
    values = torch.tensor([[[0.5, 0.25, 1.0]]])
    r = probe.Rollout(
        observations=values[..., None],
        actions=values,
        log_probs=values,
        values=values,
        last=torch.tensor([[4.0]]),
        rewards=torch.tensor([[[1.0, 2.0, 3.0]]]),
        going_on=torch.tensor([[[1.0, 0.0, 1.0]]]),
    )
    got = probe.advantages_of(r, torch.tensor([[0.5]]), torch.tensor([[0.8]]))
    second, third = 2 - 0.25, 3 + 0.5 * 4 - 1
    first = 1 + 0.5 * 0.25 - 0.5 + 0.5 * 0.8 * second
    np.testing.assert_allclose(got[0, 0], [first, second, third], rtol=1e-6)


@pytest.mark.parametrize("task", [PPO, PENDULUM])
def test_advantages_are_those_of_ppo(task):
    envs = make(task)
    hold(envs)
    learner, values = envs.population.learner, probe.applied(envs)
    values["gamma"] = np.array([0.9, 0.99, 0.999])
    values["gae_lambda"] = np.array([0.8, 0.95, 0.99])
    made = learner.probe(probe.copied(envs), values)
    T = made.rewards.shape[-1]
    arrays = made.observations, made.actions, made.columns[:, ppo.LOG_PROB]
    arrays += made.values[..., :T], made.values[..., T], made.rewards, made.going_on
    r = probe.Rollout(*map(torch.from_numpy, arrays))
    columns = (torch.from_numpy(values[n][:, None]) for n in ("gamma", "gae_lambda"))
    got = probe.advantages_of(r, *columns)
    expected, returns = made.columns[:, ppo.ADVANTAGE], made.columns[:, ppo.RETURN]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got + r.values, returns, rtol=1e-4, atol=1e-4)


def test_halves_have_the_advantages_of_two_rollouts():
    envs = make(PENDULUM)
    hold(envs)
    r = probe.rollout(envs, np.ones(3, bool))
    gamma, none = torch.full((3, 1), 0.9), torch.zeros(3, 1)
    first, second = halves(r)
    # without λ a step's advantage depends on the next value alone
    whole = probe.advantages_of(r, gamma, none)
    parts = [probe.advantages_of(part, gamma, none) for part in (first, second)]
    np.testing.assert_allclose(torch.cat(parts, -1), whole, rtol=1e-5, atol=1e-5)
    assert (first.rewards.shape, second.rewards.shape) == ((3, 4, 32), (3, 4, 32))
    np.testing.assert_array_equal(second.observations, r.observations[:, :, 32:])


@pytest.mark.parametrize("task", [DQN, PPO])
def test_without_meta_steps_it_is_the_static_policy(task):
    mine, theirs = make(task), make(task)
    policies = MetaGradients(meta_step=0), Static()
    for envs, policy in zip((mine, theirs), policies, strict=True):
        policy.reset(envs, 0)
        observations, infos = envs.reset(seed=0)
        for _ in range(4):
            observations, _, _, _, infos = envs.step(policy.act(observations, infos))
    learners = [snapshot.capture(e.population.state.learner) for e in (mine, theirs)]
    for name, array in learners[1].items():
        np.testing.assert_array_equal(learners[0][name], array, err_msg=name)
    paid = mine.population.state.eval_steps - theirs.population.state.eval_steps
    assert paid.tolist() == [0 if task == DQN else 3 * 4 * 64] * 3


@pytest.mark.parametrize(("rate", "sign"), [(1e-6, 1), (2e-2, -1)])
def test_it_corrects_a_bad_learning_rate_of_dqn(rate, sign):
    envs = make(DQN, 4, budget=8_000, hidden_sizes=(64, 64))
    policy = MetaGradients(meta_step=0.1, learning_rate=rate)
    policy.reset(envs, 0)
    observations, infos = envs.reset(seed=0)
    for _ in range(15):
        observations, _, _, _, infos = envs.step(policy.act(observations, infos))
    moved = sign * (policy.units[:, 0] - np.log(rate))
    assert (moved > 0.3).all()


def test_three_steps_of_adam_by_hand():
    envs = make(PPO)
    policy = MetaGradients(meta_step=0.1)
    policy.reset(envs, 0)
    start, use = policy.units.copy(), np.array([True, True, False])
    m = v = 0.0
    expected = start[:2].copy()
    for t, g in enumerate([2.0, -1.0, 0.5], 1):
        policy._move(use, np.full((3, 3), g))
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g * g
        expected -= 0.1 * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.9**t))
    np.testing.assert_allclose(policy.units[:2], expected, rtol=1e-9)
    np.testing.assert_array_equal(policy.units[2], start[2])


def test_values_stay_in_range():
    envs = make(PPO)
    policy = MetaGradients(meta_step=50.0)
    policy.reset(envs, 0)
    for sign in (1, -1):
        policy._move(np.ones(3, bool), np.full((3, 3), 1.0 * sign))
        policy._move(np.ones(3, bool), np.full((3, 3), 100.0 * sign))
        bounds = ["low", "high"][sign < 0]
        # not beyond: the way back would be lost time
        limits = np.array([h.to_unit(getattr(h, bounds)) for h in policy.tuned])
        np.testing.assert_array_equal(policy.units, np.tile(limits, (3, 1)))
        config = envs.to_config(policy.act(None, {"env_steps": np.full(3, 1)})[0])
        for h in policy.tuned:
            assert config[h.name] == pytest.approx(getattr(h, bounds), rel=1e-6)
        policy.reset(envs, 0)


@pytest.mark.parametrize("task", [DQN, PPO])
def test_members_are_alone(task):
    def act(seeds, spoil=None):
        envs, policy = make(task, len(seeds), seeds), MetaGradients()
        policy.reset(envs, 0)
        hold(envs)
        if spoil is not None:
            envs.population.state.learner.parameters[spoil] *= 3.0
        return policy.gradients(np.ones(len(seeds), bool))

    together, spoilt = act([5, 6, 7]), act([5, 6, 7], spoil=0)
    np.testing.assert_array_equal(spoilt[1:], together[1:])
    assert (spoilt[0] != together[0]).all()
    np.testing.assert_allclose(act([6])[0], together[1], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("task", [DQN, PPO])
def test_new_runs_start_over_alone(task):
    envs, policy = make(task), MetaGradients(learning_rate=1e-4)
    policy.reset(envs, 0)
    observations, infos = hold(envs, 2)
    policy.act(observations, infos)
    moved = policy.units.copy()
    assert (moved != policy.first).all()
    infos = dict(infos, env_steps=infos["env_steps"] * np.array([1, 0, 1]))
    actions = policy.act(observations, infos)
    assert (policy.units != policy.first).all(1).tolist() == [True, False, True]
    assert policy.steps.ravel().tolist() == [2, 0, 2]
    assert envs.to_config(actions[1])["learning_rate"] == pytest.approx(1e-4)


@pytest.mark.parametrize("task", [DQN, PPO])
def test_a_diverged_member_gets_an_action(task):
    envs, policy = make(task), MetaGradients()
    policy.reset(envs, 0)
    observations, infos = hold(envs)
    envs.population.state.learner.parameters[1] = np.nan
    for diverged in (False, True):
        envs.population.state.diverged[1] = diverged
        before = envs.population.state.eval_steps.copy()
        assert np.isfinite(policy.act(observations, infos)).all()
    assert policy.steps.ravel().tolist() == [2, 0, 2]
    paid = envs.population.state.eval_steps - before
    assert paid.tolist() == ([0] * 3 if task == DQN else [256, 0, 256])


def test_copies_go_on_from_where_the_environments_are():
    envs = make(PPO)
    hold(envs)
    r = probe.rollout(envs, np.ones(3, bool))
    now = envs.population.state.learner.envs.observations
    np.testing.assert_array_equal(r.observations[:, :, 0], now.astype(np.float32))
    again = probe.rollout(envs, np.ones(3, bool))
    np.testing.assert_array_equal(r.actions, again.actions)
    hold(envs)
    other = probe.rollout(envs, np.ones(3, bool))
    assert (r.actions != other.actions).any()


def copies(envs, monkeypatch):
    """States that probe rollouts are played in, as these leave them."""
    seen = []
    original = type(envs.population.learner).probe

    def watched(learner, state, values):
        result = original(learner, state, values)
        seen.append(state)
        return result

    monkeypatch.setattr(type(envs.population.learner), "probe", watched)
    return seen


def test_copies_have_streams_of_their_own(monkeypatch):
    envs = make(PPO)
    seen = copies(envs, monkeypatch)
    for _ in range(2):
        hold(envs)
        probe.rollout(envs, np.ones(3, bool))
    training = envs.population.state.learner
    for keys in ("keys", "envs.keys"):
        name = attrgetter(keys)
        all_keys = np.concatenate([name(s).ravel() for s in (*seen, training)])
        assert len(np.unique(all_keys)) == len(all_keys), keys


@pytest.mark.slow
def test_a_copy_does_not_learn_of_a_coming_shift(monkeypatch):
    envs = make("dacrl/PPO-PendulumShift-v0")
    hold(envs)
    seen = copies(envs, monkeypatch)
    probe.rollout(envs, np.ones(3, bool))
    lived = envs.population.state.learner.envs.lifetime
    np.testing.assert_array_equal(seen[0].envs.lifetime, lived)


def test_workers_give_the_same_actions():
    def act(num_threads):
        envs, policy = make(PPO, 4, num_threads=num_threads), MetaGradients()
        policy.reset(envs, 0)
        observations, infos = hold(envs)
        observations, _, _, _, infos = envs.step(policy.act(observations, infos))
        paid = envs.population.state.eval_steps.copy()
        envs.close()
        return policy.units, paid

    one, two = act(1), act(2)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"meta_step": -1}, "meta_step"),
        ({"decisions": 0}, "decisions"),
        ({"tune": ("gamma", "epsilon")}, "epsilon"),
        ({"epsilon": 0.1}, "epsilon"),
        ({"tune": "gamma", "learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_wrong_arguments(argument, message):
    with pytest.raises(ValueError, match=message):
        MetaGradients(**argument)


@pytest.mark.parametrize(
    ("spec", "task", "message"),
    [
        (
            "meta-gradients,decisions=50",
            "dacrl/NoisyQuadratic-v0",
            "'sgd'; valid: dqn, ppo",
        ),
        ("meta-gradients,learning_rate=1", DQN, "range"),
        ("meta-gradients,gamma=0.9", DQN, "gamma"),
        ("meta-gradients,tune=gamma", DQN, "'dqn'; valid: ppo"),
    ],
)
def test_what_does_not_fit_the_task(spec, task, message):
    with pytest.raises(ValueError, match=message):
        dacrl_env.evaluate(task, spec, seeds=[0])


def test_learners_and_environments_that_cannot_be_looked_at():
    with pytest.raises(ValueError, match="differentiable"):
        dacrl_env.evaluate(DQN, "meta-gradients", seeds=[0], implementation="sb3")


@pytest.mark.parametrize("task", ["dacrl/PPO-LunarLander-v0"])
def test_environments_that_cannot_be_copied(task):
    with pytest.raises(ValueError, match="copies of the inner environments"):
        dacrl_env.evaluate(task, "meta-gradients", seeds=[0])
