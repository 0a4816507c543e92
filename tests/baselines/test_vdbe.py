"""Value-difference based exploration, by hand and on runs."""

import numpy as np
import pytest
from dacrl_env.baselines.vdbe import VDBE, surprise

import dacrl_env
from dacrl_env.outer.observations import squash, unsquash

TASK = "dacrl/DQN-CartPole-v0"
WITHOUT = "dacrl/PPO-CartPole-v0"


def make(policy, P=3, seed=0, **options):
    envs = dacrl_env.PopulationEnv(
        TASK, P, action_mode="continuous", budget=2_000, eval_episodes=2, **options
    )
    observations, infos = envs.reset(seed=seed)
    policy.reset(envs, 0)
    return envs, observations, infos


def epsilons(envs, actions):
    return [envs.to_config(a)["epsilon"] for a in actions]


def shown(envs, observations, errors):
    """Observations that show given errors."""
    result = observations.copy()
    row = envs.observation_names.index("signal/td_error")
    result[:, row] = squash(np.asarray(errors, float))
    return result


@pytest.mark.parametrize("unit", [None, 1.0, 1e-3])
def test_unsquash_is_the_inverse(unit):
    x = np.array([1e-3, 0.5, 7.0, 1e4])
    x = x if unit is None else np.concatenate([x, -x])
    np.testing.assert_allclose(unsquash(squash(x, unit), unit), x, rtol=1e-9)


def test_surprise_is_the_formula_of_the_paper():
    error, sigma = np.array([0.0, 0.3, -2.0]), 0.7
    e = np.exp(-np.abs(error) / sigma)
    np.testing.assert_allclose(surprise(error, sigma), (1 - e) / (1 + e), rtol=1e-12)


def test_three_decisions_by_hand():
    policy = VDBE(sigma=1.0, weight=0.25)
    envs, observations, infos = make(policy)
    actions = policy.act(observations, infos)
    assert epsilons(envs, actions) == [1.0, 1.0, 1.0]
    infos = dict(infos, env_steps=np.full(3, 100))
    # ln 3: (1 − 1/3) / (1 + 1/3) = 1/2
    observations = shown(envs, observations, [np.log(3), 1e-8, 1e8])
    policy.act(observations, infos)
    actions = policy.act(observations, infos)
    first = 0.25 * 0.5 + 0.75
    expected = [0.25 * 0.5 + 0.75 * first, 0.75**2, 1.0]
    np.testing.assert_allclose(epsilons(envs, actions), expected, rtol=1e-5)


def test_the_weight_is_one_over_the_number_of_actions():
    policy = VDBE()
    make(policy)
    assert policy.w == 0.5


def test_it_reads_the_error_of_the_run():
    policy = VDBE(sigma=1.0)
    envs, observations, infos = make(policy)
    policy.act(observations, infos)
    actions = np.zeros(envs.action_space.shape)
    while infos["env_steps"][0] < 1_500:
        observations, _, _, _, infos = envs.step(actions)
    learner, state = envs.population.learner, envs.population.state.learner
    names = envs.population.names
    values = dict(zip(names, envs.population.state.applied.T, strict=True))
    interval = learner.begin_interval(state)
    errors = learner.signals(state, values, interval)["td_error"]
    got = epsilons(envs, policy.act(observations, infos))
    np.testing.assert_allclose(got, 0.5 * np.tanh(errors / 2) + 0.5, rtol=1e-5)


def test_members_are_alone_and_new_runs_start_over():
    policy = VDBE(sigma=1.0)
    envs, observations, infos = make(policy)
    policy.act(observations, infos)
    infos = dict(infos, env_steps=np.full(3, 100))
    first = policy.act(shown(envs, observations, [1, 1, 1]), infos)
    policy.reset(envs, 0)
    other = policy.act(shown(envs, observations, [9, 1, 0.1]), infos)
    assert first[1, 1] == other[1, 1]
    assert first[0, 1] != other[0, 1]
    infos["env_steps"] = np.array([200, 0, 200])
    again = epsilons(envs, policy.act(shown(envs, observations, [1, 1, 1]), infos))
    assert again[1] == 1.0
    assert again[0] < 1.0


def test_a_diverged_member_gets_an_action():
    policy = VDBE()
    envs, observations, infos = make(policy)
    envs.population.state.learner.parameters[1] = np.nan
    for _ in range(3):
        actions = policy.act(observations, infos)
        assert np.isfinite(actions).all()
        outcome = envs.population.advance(
            envs.population.actions.to_values(actions, envs.population.state.requested)
        )
        observations, infos = envs.population.observation(), envs.population.info()
    assert outcome.ended.tolist() == [False, True, False]


@pytest.mark.parametrize("argument", [{"sigma": 0}, {"weight": 2}, {"initial": -0.1}])
def test_wrong_arguments(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        VDBE(**argument)


def test_a_learner_without_epsilon():
    with pytest.raises(ValueError, match=r"epsilon.*valid: learning_rate"):
        dacrl_env.evaluate(WITHOUT, "vdbe", seeds=[0])
    envs = dacrl_env.PopulationEnv(WITHOUT, 2, action_mode="continuous")
    with pytest.raises(ValueError, match=r"epsilon.*valid: learning_rate"):
        VDBE().reset(envs, 0)


def test_epsilon_stays_in_a_narrower_range():
    narrow = dacrl_env.Number("epsilon", 0.2, 1.0, 0.5)
    frame = dacrl_env.evaluate(
        "dacrl/DQN-CartPole-v0", "vdbe", range(2), hyperparameters=[narrow], budget=2000
    )
    applied = frame["hp/epsilon"].dropna()
    assert applied.min() == 0.2
