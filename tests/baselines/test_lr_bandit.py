"""The bandit over learning rates, by hand and on runs."""

import numpy as np
import pytest
from dacrl_env.baselines.lr_bandit import LearningRateBandit, probabilities

import dacrl_env

TASK = "dacrl/DQN-CartPole-v0"
RATES = (1e-4, 1e-3, 1e-2)


def make(policy, P=3, seed=0, task=TASK, **options):
    envs = dacrl_env.PopulationEnv(task, P, action_mode="continuous", **options)
    _, infos = envs.reset(seed=seed)
    policy.reset(envs, 0)
    return envs, infos


def play(policy, scores, P=3, seed=0):
    """Rates ``(rounds, P)`` for scores ``(rounds, P)``."""
    envs, infos = make(policy, P, seed, budget=2_000, eval_episodes=2)
    rates = []
    for k, score in enumerate(scores):
        infos = dict(infos, score=np.asarray(score, float))
        actions = policy.act(None, dict(infos, env_steps=np.full(P, 100 * k)))
        rates.append([envs.to_config(a)["learning_rate"] for a in actions])
    return np.array(rates)


def test_probabilities_by_hand():
    weights = np.array([[0.0, np.log(2), np.log(5)], [0.0, 0.0, 900.0]])
    expected = 0.8 * np.array([[1 / 8, 2 / 8, 5 / 8], [0, 0, 1]]) + 0.2 / 3
    np.testing.assert_allclose(probabilities(weights, 0.2), expected, rtol=1e-12)


def test_two_rounds_by_hand():
    policy = LearningRateBandit(RATES, step=0.6, exploration=0.1, window=2)
    play(policy, [[0.2, 0.5, 0.1]])
    arms = policy.arms.copy()
    np.testing.assert_allclose(policy.chances, 1 / 3)
    play(policy, [[0.2, 0.5, 0.1], [0.3, 0.1, 0.1]])
    expected = np.zeros((3, 3))
    expected[range(3), arms] = 0.6 * 3 * np.array([0.1, -0.4, 0.0])
    np.testing.assert_allclose(policy.weights, expected, atol=1e-12)
    second, chances = policy.arms.copy(), policy.chances.copy()
    p = 0.9 * np.exp(expected) / np.exp(expected).sum(1, keepdims=True) + 0.1 / 3
    np.testing.assert_allclose(chances, p[range(3), second])
    play(policy, [[0.2, 0.5, 0.1], [0.3, 0.1, 0.1], [0.4, 0.4, 0.4]])
    progress = 0.4 - np.array([0.25, 0.3, 0.1])
    expected[range(3), second] += 0.6 * progress / chances
    np.testing.assert_allclose(policy.weights, expected, atol=1e-12)


def test_it_finds_the_rate_that_brings_progress():
    policy, P = LearningRateBandit(RATES, window=1), 64
    _, infos = make(policy, P, budget=2_000, eval_episodes=2)
    score, used = np.zeros(P), []
    for k in range(60):
        infos = dict(infos, score=score, env_steps=np.full(P, 100 * k))
        policy.act(None, infos)
        used.append(policy.arms.copy())
        score = score + np.where(policy.arms == 1, 0.3, -0.3)
    assert np.mean(np.array(used)[:3] == 1) == pytest.approx(1 / 3, abs=0.15)
    assert np.mean(np.array(used)[-20:] == 1) > 0.85


def test_arms_are_drawn_with_their_probabilities():
    policy = LearningRateBandit(RATES)
    _, infos = make(policy, 500, task="dacrl/NoisyQuadratic-v0")
    policy.act(None, infos)
    counts = np.bincount(policy.arms, minlength=3) / 500
    np.testing.assert_allclose(counts, 1 / 3, atol=0.07)
    policy.weights[:] = np.log([1, 2, 7])
    infos = dict(infos, env_steps=np.full(500, 1))
    policy.scores[:] = infos["score"][:, None]  # no progress
    policy.act(None, infos)
    counts = np.bincount(policy.arms, minlength=3) / 500
    expected = 0.9 * np.array([0.1, 0.2, 0.7]) + 0.1 / 3
    np.testing.assert_allclose(counts, expected, atol=0.07)


def test_a_run_does_not_depend_on_its_company():
    scores = np.random.default_rng(0).uniform(size=(8, 3))
    rates = play(LearningRateBandit(RATES), scores)
    alone = play(LearningRateBandit(RATES), scores[:, 1:2], 1, [9])
    others = scores.copy()
    others[:, [0, 2]] = 0.5
    np.testing.assert_array_equal(
        play(LearningRateBandit(RATES), others)[:, 1], rates[:, 1]
    )
    in_company = play(LearningRateBandit(RATES), scores, 3, [4, 9, 6])
    np.testing.assert_array_equal(in_company[:, 1:2], alone)


def test_new_runs_start_over_alone():
    policy = LearningRateBandit(RATES)
    play(policy, [[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]])
    assert (policy.weights != 0).any(1).all()
    infos = {"score": np.zeros(3), "env_steps": np.array([300, 0, 300])}
    policy.act(None, infos)
    assert (policy.weights != 0).any(1).tolist() == [True, False, True]
    assert policy.chances[1] == pytest.approx(1 / 3)
    infos = {"score": np.full(3, 0.5), "env_steps": np.array([400, 100, 400])}
    policy.act(None, infos)  # progress is measured within the new run
    assert np.abs(policy.weights[1]).max() == pytest.approx(0.5 * 0.5 * 3)


def test_a_diverged_member_gets_an_action():
    policy = LearningRateBandit()
    scores = [[0.1, -30.0, 0.2]] * 5 + [[0.1, -3e4, 0.2]] * 5
    assert np.isfinite(play(policy, scores)).all()


def test_the_default_rates_lie_around_the_default():
    policy = LearningRateBandit()
    make(policy)
    np.testing.assert_allclose(policy.rates, [2.5e-4, 1e-3, 4e-3])


@pytest.mark.parametrize(
    "argument",
    [{"rates": (1e-3,)}, {"step": 0}, {"exploration": 0}, {"window": 0}],
)
def test_wrong_arguments(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        LearningRateBandit(**argument)


def test_a_rate_out_of_range():
    with pytest.raises(ValueError, match="range"):
        dacrl_env.evaluate(TASK, "lr-bandit,rates=[1e-3,5]", seeds=[0])


def test_a_population_that_does_not_control_it():
    envs = dacrl_env.PopulationEnv(
        TASK, 2, action_mode="continuous", hyperparameters=("epsilon",)
    )
    with pytest.raises(ValueError, match=r"learning_rate.*valid: epsilon"):
        LearningRateBandit().reset(envs, 0)
