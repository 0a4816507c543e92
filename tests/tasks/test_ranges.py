"""Ranges hold what is published, and the tasks' own ones mean what they meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from dacrl_env.baselines.pbt import perturb

from dacrl_env import Number, evaluate
from dacrl_env.algorithms.ppo import EPOCHS
from dacrl_env.learners import dqn, ppo
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.outer.actions import ActionMap
from dacrl_env.outer.observations import knob_features
from dacrl_env.outer.settings import resolve
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.schedules import Schedule
from dacrl_env.policies.static import Static
from dacrl_env.tasks import bounds
from dacrl_env.tasks.registration import get_task

DQN = {h.name: h for h in dqn.HYPERPARAMETERS}
PPO = {h.name: h for h in ppo.HYPERPARAMETERS}
TO_ONE = Number("gae_lambda", 0.8, 1.0, 0.95, "log_complement")

# search spaces of ARLBench and of Eimer et al. 2023, configurations of
# rl-baselines3-zoo
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "dqn": {
        "learning_rate": (1e-6, 1e-1, 2.3e-3, 6.3e-4, 4e-3),
        "batch_size": (4, 8, 16, 32, 64, 128, 256, 512),
        "gamma": (0.8, 0.98, 0.99, 0.995, 0.9999, 1.0),
        "epsilon": (0.001, 0.04, 0.2, 0.5, 1.0),
        "train_freq": (1, 4, 16, 256, 1_000),
        "gradient_steps": (1, 8, 10, 128, 256),
        "target_update_interval": (1, 10, 100, 250, 600, 10_000),
    },
    "ppo": {
        "learning_rate": (1e-6, 1e-3, 1e-1),
        "batch_size": (8, 16, 64, 128, 256, 512),
        "gamma": (0.8, 0.9, 0.98, 0.9999, 1.0),
        "gae_lambda": (0.8, 0.95, 0.9999, 1.0),
        "n_epochs": (1, 4, 5, 10, 20, 30),
        "clip_range": (0.0, 0.1, 0.2, 0.5),
        "ent_coef": (0.0, 0.01, 0.5),
    },
}

# values of actions −1, −0.6, 0.25 and 1, then of a relative step of 0.3, as computed
# before the learners' ranges became wider than the tasks'
OF_DQN = {
    "batch_size": (4.0, 12.1257325321, 90.5096679919, 256.0, 97.0058602567),
    "gamma": (0.8, 0.939658236635, 0.99683772234, 0.9999, 0.993402460446),
    "train_freq": (1.0, 1.74110112659, 11.313708499, 256.0, 6.06286626604),
    "gradient_steps": (1.0, 1.0, 4.0, 256.0, 1.51571656651),
}
OF_PPO = {
    "batch_size": (16.0, 27.8576180255, 107.634741152, 512.0, 97.0058602567),
    "gamma": (0.8, 0.939658236635, 0.99683772234, 0.9999, 0.993402460446),
    "gae_lambda": (0.8, 0.8851301645, 0.989426287366, 0.9999, 0.967012302231),
    "n_epochs": (1.0, 4.6, 12.5, 20.0, 11.425),
    "clip_range": (0.01, 0.086, 0.275, 0.5, 0.23675),
    "ent_coef": (0.0, 0.0, 0.025, 0.1, 0.0075),
}
OF_PENDULUM = OF_PPO | {
    "gamma": (0.8, 0.848428343349, 0.9822172059, 0.9999, 0.934024604461)
}
OF_LANDER = OF_PPO | {
    "gamma": (0.8, 0.97597751132, 0.999437658675, 0.9999, 0.999340246045),
    "gae_lambda": (0.8, 0.920378565889, 0.994681704103, 0.9999, 0.986804920892),
    "ent_coef": (0.0, 0.004, 0.0325, 0.1, 0.0175),
}
BEFORE = {
    "dacrl/DQN-CartPole-v0": OF_DQN,
    "dacrl/DQN-Acrobot-v0": OF_DQN,
    "dacrl/DQN-MountainCar-v0": OF_DQN,
    "dacrl/DQN-MiniGrid-Empty-5x5-v0": OF_DQN,
    "dacrl/DQN-MiniGrid-DoorKey-5x5-v0": OF_DQN,
    "dacrl/DQN-CartPoleShift-v0": OF_DQN,
    "dacrl/DQN-LunarLander-v0": OF_DQN,
    "dacrl/PPO-CartPole-v0": OF_PPO,
    "dacrl/PPO-Acrobot-v0": OF_PPO,
    "dacrl/PPO-MiniGrid-DoorKey-5x5-v0": OF_PPO,
    "dacrl/PPO-Pendulum-v0": OF_PENDULUM,
    "dacrl/PPO-PendulumShift-v0": OF_PENDULUM,
    "dacrl/PPO-LunarLander-v0": OF_LANDER,
}


@pytest.mark.parametrize("learner", PUBLISHED)
def test_published_values_lie_inside(learner: str) -> None:
    known = {"dqn": DQN, "ppo": PPO}[learner]
    for name, values in PUBLISHED[learner].items():
        assert known[name].low <= min(values), name
        assert max(values) <= known[name].high, name
    assert DQN["gradient_steps"].high == DQN["train_freq"].high
    assert PPO["n_epochs"].high < EPOCHS


@pytest.mark.parametrize("task", BEFORE)
def test_actions_of_the_tasks_mean_what_they_meant(task: str) -> None:
    names = tuple(BEFORE[task])
    controlled = resolve(task, hyperparameters=names).controlled
    actions = ActionMap(controlled, "continuous")
    steps = ActionMap(controlled, "relative")
    start = actions.defaults(1)
    for row, a in enumerate((-1, -0.6, 0.25, 1)):
        values = actions.to_values(np.full((1, len(names)), a), start)[0]
        assert values.tolist() == pytest.approx(
            [BEFORE[task][n][row] for n in names], rel=1e-11
        )
    moved = steps.to_values(np.full((1, len(names)), 0.3), start)[0]
    assert moved.tolist() == pytest.approx(
        [BEFORE[task][n][4] for n in names], rel=1e-11
    )


def test_an_axis_that_ends_at_one() -> None:
    ends = TO_ONE.to_unit([0.8, 0.9999, 1.0, 1 - 1e-9])
    assert np.isfinite(ends).all()
    assert (np.diff(ends[:3]) > 0).all()
    assert TO_ONE.from_unit(ends).tolist() == pytest.approx([0.8, 0.9999, 1.0, 1.0])
    assert TO_ONE.from_unit(ends[2]) == 1.0
    actions = ActionMap([TO_ONE], "continuous")
    start = actions.defaults(1)
    for value in (0.8, 0.95, 0.99, 0.9999, 0.99998, 1.0):
        action = actions.to_actions({"gae_lambda": value}, start)
        assert np.isfinite(action).all()
        assert actions.to_values(action, start)[0, 0] == value
    single = np.array([[1.0]], np.float32)
    assert actions.to_values(single, start)[0, 0] == 1.0
    (seen,) = knob_features([TO_ONE], np.array([[1.0]]), np.zeros((1, 0)))
    assert seen == [1.0]
    down = ActionMap([TO_ONE], "relative").to_values([[-1.0]], np.array([[1.0]]))
    assert 0.9999 < down[0, 0] < 1


def test_searchers_and_perturbation_at_one() -> None:
    space = SearchSpace([TO_ONE])
    assert space.decode([[1.0], [0.0]]) == [{"gae_lambda": 1.0}, {"gae_lambda": 0.8}]
    assert space.encode([{"gae_lambda": 1.0}]) == 1.0
    at_one = np.ones(2)
    moved = perturb(TO_ONE, at_one, np.array([1.2, 0.8]))
    assert moved[0] < 1
    assert moved[1] == 1


@pytest.mark.parametrize(("low", "high"), [(0.8, 1.1), (1 - 1e-6, 1.0)])
def test_axes_that_cannot_be_divided(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="log_complement range of a"):
        Number("a", low, high, high, "log_complement")


PPO_SHORT = {
    "budget": 64,
    "decision_interval": 32,
    "rollout_length": 16,
    "num_inner_envs": 2,
    "eval_episodes": 1,
}


@pytest.mark.parametrize(
    "implementation", ["compiled", pytest.param("sb3", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(
            {"gae_lambda": 1.0, "gamma": 1.0, "n_epochs": 30, "batch_size": 8},
            marks=pytest.mark.slow,
        ),
        {"clip_range": 0.0, "ent_coef": 0.5},
    ],
)
def test_published_values_can_be_evaluated(
    implementation: str, values: dict[str, float]
) -> None:
    frame = evaluate(
        "dacrl/PPO-CartPole-v0",
        Static(**values),
        [0],
        implementation=implementation,
        **PPO_SHORT | {"budget": 160, "decision_interval": 80, "rollout_length": 4},
    )
    for name, value in values.items():
        assert (frame[f"hp/{name}"].iloc[-1:] == value).all(), name
    assert not frame["diverged"].any()


@pytest.mark.parametrize(
    "policy",
    [
        Static(batch_size=512, gamma=1.0),
        Schedule("linear", "batch_size", 64, 512, decisions=2),
        OpenLoop({"gradient_steps": [300, 2], "train_freq": [500, 2]}),
    ],
)
def test_policies_get_the_range_they_need(policy: Any) -> None:
    frame = evaluate(
        "dacrl/DQN-CartPole-v0",
        policy,
        [0],
        budget=2_000,
        decision_interval=1_000,
        learning_starts=600,
        eval_episodes=1,
    )
    for name, (low, high) in policy.extremes.items():
        assert frame[f"hp/{name}"].iloc[1:].between(low, high).all()
    assert not frame["diverged"].any()


def test_what_a_policy_does_not_need_stays_narrow() -> None:
    from dacrl_env.comparison.evaluation import suitable_options

    task = get_task("dacrl/PPO-CartPole-v0")
    options = suitable_options(Static(gae_lambda=0.9, batch_size=8), task, {})
    names = [getattr(h, "name", h) for h in options["hyperparameters"]]
    assert names == ["learning_rate", "clip_range", "batch_size", "gae_lambda"]
    kinds = [isinstance(h, Number) for h in options["hyperparameters"]]
    assert kinds == [False, False, True, False]


def test_fixed_and_given_ranges_may_be_the_learners() -> None:
    env = PopulationEnv(
        "dacrl/PPO-CartPole-v0",
        2,
        hyperparameters=[TO_ONE, "learning_rate"],
        fixed={"gamma": 1, "batch_size": 8},
        **PPO_SHORT,
    )
    env.reset(seed=0)
    _, _, _, _, infos = env.step(env.to_actions({"gae_lambda": 1.0}))
    applied = infos["hyperparameters"]
    assert applied["gae_lambda"].tolist() == [1.0, 1.0]
    assert applied["gamma"].tolist() == [1.0, 1.0]
    assert applied["batch_size"].tolist() == [8.0, 8.0]
    env.close()
    with pytest.raises(ValueError, match=r"n_epochs = 31.0 lies outside its range"):
        gym.make("dacrl/PPO-CartPole-v0", fixed={"n_epochs": 31})


def test_ranges_of_a_task_are_checked_and_part_of_it() -> None:
    task = get_task("dacrl/DQN-CartPole-v0")
    other = replace(task, ranges={"batch_size": np.array([8, 32])})
    (h,) = resolve(other, hyperparameters=["batch_size"]).controlled
    assert (h.low, h.high, h.default) == (8, 32, 32)
    assert replace(task, ranges={}).definition() != task.definition()
    for wrong, words in (
        ({"momentum": (0, 1)}, "unknown hyperparameter 'momentum'"),
        ({"batch_size": (4, 5_000)}, "outside its range"),
        ({"batch_size": (8, 16, 32)}, "lowest and the highest"),
    ):
        with pytest.raises(ValueError, match=words):
            resolve(replace(task, ranges=wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        np.array([0.1, 0.5]),
        [0.1, 0.5],
        (np.float64(0.1), np.float32(0.5)),
    ],
)
def test_pairs_that_are_ranges(given: Any) -> None:
    assert bounds("a", given) == (0.1, 0.5)


@pytest.mark.parametrize(
    "given",
    [
        ["16", "64"],
        [16, 32, 64],
        {16, 64},
        {"low": 16, "high": 64},
        [True, False],
        "16",
        64,
        np.array([[16, 64]]),
        np.array(["a", "b"]),
    ],
)
def test_what_is_no_range(given: Any) -> None:
    with pytest.raises(ValueError, match=r"range of a must be the lowest and the high"):
        bounds("range of a", given)


@pytest.mark.parametrize("given", [[64, 16], (16, 16), [16, float("nan")]])
def test_pairs_in_the_wrong_order(given: Any) -> None:
    with pytest.raises(ValueError, match="inverted, empty or not finite"):
        bounds("range of a", given)
