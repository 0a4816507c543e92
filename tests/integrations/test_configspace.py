"""Search spaces of ConfigSpace: there and back, refused, and driven by another tool."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import ConfigSpace
import gymnasium as gym
import numpy as np
import pytest
from ConfigSpace import Categorical, Configuration, Constant, Float, Normal

import dacrl_env
from dacrl_env import Choice, Number
from dacrl_env.integrations.configspace import (
    from_configspace,
    to_configspace,
    values,
)
from dacrl_env.outer.settings import own_hyperparameters
from dacrl_env.policies.static import Static
from dacrl_env.tasks import Condition
from dacrl_env.tasks.registration import ALGORITHMS, load

DQN = "dacrl/DQN-CartPole-v0"
TASKS = (
    DQN,
    "dacrl/DQN-Acrobot-v0",
    "dacrl/PPO-Pendulum-v0",
    "dacrl/PPO-MiniGridLevels-v0",
    "dacrl/Pipeline-CartPole-v0",
    "dacrl/NoisyQuadratic-v0",
)
PIPELINE = "dacrl/Pipeline-CartPole-v0"


def all_of(task: str) -> list[str]:
    known = dacrl_env.TASKS[task]
    every = load(ALGORITHMS[known.algorithm]).hyperparameters
    return [h.name for h in own_hyperparameters(known, every).values() if h.held]


@pytest.mark.parametrize("task", TASKS)
def test_there_and_back(task: str) -> None:
    names = all_of(task)
    space = to_configspace(task, names)
    settings = gym.make(task, hyperparameters=names).unwrapped.settings  # type: ignore[attr-defined]
    back = from_configspace(space)
    known = {h.name: h for h in settings.controlled}
    assert {h.name for h in back} == set(known)
    for h in back:
        before = known[h.name]
        assert type(h) is type(before)
        assert h.condition == before.condition
        if isinstance(h, Number):
            assert isinstance(before, Number)
            assert (h.scale, h.integer) == (before.scale, before.integer)
            assert h.ends == pytest.approx(before.ends, rel=1e-12)
            assert h.default == pytest.approx(before.default, rel=1e-12)
        else:
            assert h == before
    # and a task takes them
    env: Any = gym.make(task, hyperparameters=back).unwrapped
    assert {h.name for h in env.settings.controlled} == set(known)


def test_the_default_is_the_task_s() -> None:
    names = all_of(DQN)
    default = values(to_configspace(DQN, names).get_default_configuration())
    env: Any = gym.make(DQN, hyperparameters=names, budget=100_000).unwrapped
    expected = env.to_config(np.zeros(len(names)))
    del expected["hold_exponent"]  # inactive
    assert default.keys() == expected.keys()
    for name, value in default.items():
        assert value == pytest.approx(expected[name]), name


def test_scales() -> None:
    space = to_configspace(DQN, ["learning_rate", "batch_size", "gamma", "epsilon"])
    rate, size, gamma = (
        space[n] for n in ("learning_rate", "batch_size", "one_minus_gamma")
    )
    assert rate.log
    assert size.log
    assert gamma.log
    assert isinstance(size, ConfigSpace.UniformIntegerHyperparameter)
    assert not space["epsilon"].log
    assert (gamma.lower, gamma.upper) == pytest.approx((1e-4, 0.2))
    draws = [values(c)["gamma"] for c in space.sample_configuration(400)]
    # half of the draws lie within the middle of the axis, 1 − √(1e-4 · 0.2)
    assert np.mean(np.array(draws) > 1 - np.sqrt(2e-5)) == pytest.approx(0.5, abs=0.1)


def test_a_number_near_one_may_be_one() -> None:
    space = to_configspace(DQN, Number("gamma", 0.9, 1.0, 1.0, "log_complement"))
    assert values(space.get_default_configuration()) == {"gamma": 1.0}
    (gamma,) = from_configspace(space)
    assert (gamma.ends, gamma.default) == ((pytest.approx(0.9), 1.0), 1.0)


def test_inactive_values_are_left_out() -> None:
    space = to_configspace(DQN, ["exploration", "hold_exponent"], seed=1)
    for configuration in space.sample_configuration(20):
        given = values(configuration)
        assert ("hold_exponent" in given) == (given["exploration"] == "ez-greedy")
        Static(**given)


def test_a_configuration_of_a_pipeline_has_what_its_algorithm_has() -> None:
    space = to_configspace(PIPELINE, all_of(PIPELINE), seed=2)
    drawn = [values(c) for c in space.sample_configuration(60)]
    assert {v["algorithm"] for v in drawn} == {"dqn", "ppo", "sac"}
    for given in drawn:
        owners = {name.partition(".")[0] for name in given if "." in name}
        assert owners == {given["algorithm"]}
        # a condition on a choice that is conditional itself
        if given["algorithm"] == "ppo":
            assert ("ppo.drift_alpha" in given) == (given["ppo.drift"] == "dpo")
        Static(**given)


def test_of_some_algorithms_there_are_their_own_conditions() -> None:
    two = Choice("algorithm", ("dqn", "ppo"), "ppo")
    space = to_configspace(PIPELINE, [two, "ppo.learning_rate"], seed=0)
    for configuration in space.sample_configuration(20):
        given = values(configuration)
        assert ("ppo.learning_rate" in given) == (given["algorithm"] == "ppo")
    with pytest.raises(ValueError, match=r"sac.learning_rate has no meaning.*'dqn'"):
        to_configspace(PIPELINE, [two, "sac.learning_rate"])


def test_options_keep_their_type() -> None:
    space = to_configspace(DQN, ["double_q", "loss"], seed=0)
    drawn = [values(c) for c in space.sample_configuration(20)]
    assert {type(v["double_q"]) for v in drawn} == {bool}
    assert {type(v["loss"]) for v in drawn} == {str}
    assert {v["double_q"] for v in drawn} == {True, False}


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (Constant("epsilon", 0.1), "epsilon cannot be expressed"),
        (
            Categorical("n_step", [1, 3, 5], ordered=True),
            "n_step cannot be",
        ),
        (
            Float("epsilon", (0, 1), distribution=Normal(0.5, 0.1)),
            "epsilon",
        ),
        (
            Categorical("loss", ["huber", "mse"], weights=[1, 3]),
            "weights of loss",
        ),
        (Float("one_minus_gamma", (0.01, 0.1)), "logarithmic"),
    ],
)
def test_what_cannot_be_expressed_is_named(parameter: Any, words: str) -> None:
    space = ConfigSpace.ConfigurationSpace()
    space.add(parameter)
    with pytest.raises(ValueError, match=words):
        from_configspace(space)


def test_clauses_and_conditions_that_cannot_be_expressed() -> None:
    space = to_configspace(DQN, ["loss", "double_q", "epsilon", "tau"])
    space.add(ConfigSpace.ForbiddenEqualsClause(space["loss"], "mse"))
    with pytest.raises(ValueError, match="forbidden combinations"):
        from_configspace(space)
    space = to_configspace(DQN, ["loss", "epsilon", "tau"])
    space.add(ConfigSpace.GreaterThanCondition(space["tau"], space["epsilon"], 0.5))
    with pytest.raises(ValueError, match="GreaterThanCondition cannot be expressed"):
        from_configspace(space)
    space = to_configspace(DQN, ["loss", "double_q", "tau"])
    one = ConfigSpace.EqualsCondition(space["tau"], space["loss"], "mse")
    other = ConfigSpace.EqualsCondition(space["tau"], space["double_q"], True)
    space.add(ConfigSpace.AndConjunction(one, other))
    with pytest.raises(ValueError, match="AndConjunction cannot be expressed"):
        from_configspace(space)


def test_conditions_of_equality_are_read() -> None:
    space = to_configspace(DQN, ["loss", "tau"])
    space.add(ConfigSpace.EqualsCondition(space["tau"], space["loss"], "mse"))
    by_name = {h.name: h for h in from_configspace(space)}
    assert by_name["tau"].condition == Condition("loss", ("mse",))


def test_events_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="reset_all: events are no part"):
        to_configspace(DQN, ["epsilon", "reset_all"])
    with pytest.raises(ValueError, match="unknown hyperparameter 'epsilo'"):
        to_configspace(DQN, ["epsilo"])


def test_names_that_a_task_does_not_have() -> None:
    space = ConfigSpace.ConfigurationSpace({"momentum": (0.0, 1.0)})
    with pytest.raises(ValueError, match="unknown hyperparameter 'momentum'"):
        gym.make(DQN, hyperparameters=from_configspace(space))


def test_without_configspace_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["ConfigSpace"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda n, *a: None if n == "ConfigSpace" else find(n, *a)
from dacrl_env.integrations.configspace import to_configspace
try:
    to_configspace("dacrl/DQN-CartPole-v0")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'dacrl-env[smac]'" in done.stdout


@pytest.mark.slow
def test_another_tool_drives_a_task() -> None:
    """By asking and telling: bayesian-optimization, which knows nothing of tasks."""
    from bayes_opt import BayesianOptimization

    task = "dacrl/NoisyQuadratic-v0"
    space = to_configspace(task)
    (rate,) = space.values()
    tool = BayesianOptimization(
        None, {rate.name: (0.0, 1.0)}, random_state=1, allow_duplicate_points=True
    )
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(12):
            asked = tool.suggest()
            vector = np.array([asked[rate.name]])
            given = values(Configuration(space, vector=vector))
            frame = dacrl_env.evaluate(task, Static(**given), 4, split="tuning")
            last = frame.groupby("seed")["score"].last()
            scores[given["learning_rate"]] = float(last.mean())
            tool.register(params=asked, target=float(last.mean()))
    best = max(scores, key=lambda rate: scores[rate])
    assert len(scores) > 6
    assert scores[best] > np.median(list(scores.values()))
    assert 1e-3 < best < 1e2
