"""The conformance task: its optimum is one, and what lies below it does."""

import gymnasium as gym
import numpy as np
import pytest
from dacrl_env.baselines import quadratic
from gymnasium.utils.env_checker import check_env

import dacrl_env
from dacrl_env.algorithms import sgd
from dacrl_env.core import snapshot

TASK = "dacrl/NoisyQuadratic-v0"
SEEDS = range(128)


class Scaled(quadratic.Optimal):
    """The optimal learning rate times a factor."""

    def __init__(self, factor):
        self.factor = factor

    def act(self, observations, infos):
        population = self.envs.population
        rates = population.learner.optimal_learning_rate(population.state.learner)
        rates = np.clip(self.factor * rates, 1e-4, 1e2)
        return self.envs.to_actions({"learning_rate": rates})


def finals(policy):
    frame = dacrl_env.evaluate(TASK, policy, SEEDS)
    return frame.groupby("seed")["score"].last().to_numpy()


@pytest.fixture(scope="module")
def optimal():
    return finals(quadratic.Optimal())


def test_the_optimum_is_the_reference(optimal):
    assert optimal.mean() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 1.8])
def test_no_other_multiple_of_the_optimal_rate_is_better(optimal, factor):
    """On the same seeds, so that the difference shows."""
    difference = optimal - finals(Scaled(factor))
    error = difference.std() / np.sqrt(len(difference))
    assert difference.mean() > 2 * error


def test_the_ladder_static_below_schedule_below_optimum(optimal):
    static = finals(quadratic.BestStatic())
    schedule = finals(quadratic.BestSchedule())
    assert static.mean() <= 0.8 * optimal.mean()
    for better, worse in ((schedule, static), (optimal, schedule)):
        difference = better - worse
        error = difference.std() / np.sqrt(len(difference))
        assert difference.mean() > 3 * error


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_best_static_rate_is_the_best(factor):
    best = finals(f"static,learning_rate={quadratic.BEST_STATIC}")
    other = finals(f"static,learning_rate={factor * quadratic.BEST_STATIC}")
    assert best.mean() > other.mean()


def test_one_step_by_hand():
    learner = sgd.SGD(None, None, sgd.SGDConfig(dimensions=3), 50)
    keys = np.arange(1, 9, dtype=np.uint64)[None]
    state = learner.init(keys, np.zeros((1, 0)))
    before = state.parameters.copy()
    interval = learner.begin_interval(state)
    learner.train(state, {"learning_rate": np.array([0.1])}, 1, interval)
    expected = before * (1 - 0.1 * state.curvature)
    noise = (state.parameters - expected) / (0.1 * state.noise)
    assert np.abs(noise).max() < 5
    assert (noise != 0).all()
    assert state.env_steps[0] == interval.updates[0] == 1
    v = np.square(state.parameters).mean()
    assert learner.losses(state)[0] == pytest.approx(0.5 * state.curvature[0] * v)


def test_the_minimum_jumps_where_its_period_says():
    config = sgd.SGDConfig(dimensions=1_000, jump_period=(3, 9))
    learner = sgd.SGD(None, None, config, 50)
    keys = np.arange(1, 513, dtype=np.uint64).reshape(64, 8)
    state = learner.init(keys, np.zeros((64, 0)))
    periods, phases = learner._jumps(state)
    assert set(periods) == set(range(3, 10))
    assert (phases >= 0).all()
    assert (phases < periods).all()
    assert len(set(phases)) > 3
    interval, still = learner.begin_interval(state), {"learning_rate": np.zeros(64)}
    for step in range(40):
        before = state.parameters.copy()
        learner.train(state, still, 1, interval)  # nothing moves but the minimum
        moved = np.square(state.parameters - before).mean(1)
        due = (step > 0) & ((step + phases) % periods == 0)
        np.testing.assert_allclose(moved[due], 1.0, atol=0.2)
        assert (moved[~due] == 0).all()


def test_it_jumps_alike_however_long_an_interval_is():
    config = sgd.SGDConfig(jump_period=(3, 9))
    keys = np.arange(1, 33, dtype=np.uint64).reshape(4, 8)
    values, found = {"learning_rate": np.full(4, 0.1)}, []
    for lengths in ([40], [1] * 40, [7, 13, 20]):
        learner = sgd.SGD(None, None, config, 50)
        state = learner.init(keys, np.zeros((4, 0)))
        interval = learner.begin_interval(state)
        for steps in lengths:
            learner.train(state, values, steps, interval)
        found.append(state.parameters)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_the_optimum_of_the_jumping_one_is_its_reference():
    frame = dacrl_env.evaluate("dacrl/JumpingQuadratic-v0", quadratic.Optimal(), SEEDS)
    levels = frame[frame["step"] >= 10].groupby("seed")["score"].mean()
    assert levels.mean() == pytest.approx(1.0, abs=0.05)
    start = frame[frame["step"] == 0]["score"]
    assert start.mean() == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"jump_period": (0, 5)}, "from 1 on"),
        ({"jump_period": (1.5, 5)}, "from 1 on"),
        ({"jump_period": (9, 5)}, "jump_period must be the two ends"),
        ({"jump_period": (9,)}, "jump_period must be the two ends"),
        ({"curvature": (1, -1)}, "curvature must be the two ends"),
        ({"curvature": ("a", 1)}, "an end of curvature"),
        ({"noise": (-2, np.inf)}, "noise"),
        ({"noise": (np.nan, 0)}, "noise"),
    ],
)
def test_what_no_quadratic_can_be(wrong, words):
    with pytest.raises(ValueError, match=words):
        dacrl_env.PopulationEnv(TASK, 1, **wrong)


def test_curvature_and_noise_are_drawn_anew_and_not_shown():
    envs = dacrl_env.PopulationEnv(TASK, 64)
    envs.reset(seed=0)
    state = envs.population.state.learner
    assert len(np.unique(state.curvature)) == len(np.unique(state.noise)) == 64
    assert state.curvature.min() < 0.3
    assert state.curvature.max() > 3
    assert not [n for n in envs.observation_names if "curv" in n or "noise" in n]


def test_far_too_large_rates_diverge_to_the_floor():
    env = dacrl_env.DynamicConfigEnv(TASK)
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step([1.0])
    assert info["diverged"]
    assert info["score"] == dacrl_env.get_task(TASK).floor_score


@pytest.mark.parametrize(
    "mode", ["continuous", "relative", "discrete", "multidiscrete"]
)
def test_gymnasium_s_own_checks(mode):
    env = gym.make(TASK, action_mode=mode)
    check_env(env.unwrapped)
    envs = gym.make_vec(TASK, num_envs=3, action_mode=mode)
    envs.reset(seed=0)
    for _ in range(60):  # past the end of the runs
        observations, *_ = envs.step(envs.action_space.sample())
        assert observations in envs.observation_space


def states(envs):
    return {
        name: np.array(leaf)
        for name, leaf in snapshot.leaves(envs.population.state.learner)
    }


def stepped(interval, actions, seed=0):
    envs = dacrl_env.PopulationEnv(TASK, 3, decision_interval=interval)
    envs.reset(seed=seed)
    for action in actions:
        envs.step(action)
    return envs


def test_cutting_and_other_members_change_nothing():
    actions = np.zeros((1, 3, 1))
    whole, cut = stepped(10, actions), stepped(1, np.repeat(actions, 10, 0))
    for name, array in states(whole).items():
        np.testing.assert_array_equal(array, states(cut)[name])
    actions[0, 1] = 0.5
    other = stepped(10, actions)
    for name, array in states(whole).items():
        np.testing.assert_array_equal(array[[0, 2]], states(other)[name][[0, 2]])
    assert (states(whole)["parameters"][1] != states(other)["parameters"][1]).all()


def test_a_snapshot_continues_the_same(tmp_path):
    envs = stepped(1, np.zeros((5, 3, 1)))
    envs.snapshot().save(tmp_path / "snapshot")
    other = stepped(1, np.zeros((0, 3, 1)), seed=7)
    other.restore(dacrl_env.Snapshot.load(tmp_path / "snapshot"))
    for each in (envs, other):
        each.step(np.zeros((3, 1)))
    for name, array in states(envs).items():
        np.testing.assert_array_equal(array, states(other)[name])
    other.fork([0, 0, 2])
    other.step(np.zeros((3, 1)))
    parameters = states(other)["parameters"]
    assert (parameters[0] != parameters[1]).all()
