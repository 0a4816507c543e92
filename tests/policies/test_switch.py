from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import slow
from dacrl_env.baselines.freeze_when_good import FreezeWhenGood
from dacrl_env.baselines.race import Race, default_candidate

import dacrl_env
from dacrl_env.methods.search import go_on
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import Fitted, from_json, get_policy, save_fitted, to_json
from dacrl_env.policies.switch import Switch

CARTPOLE = "dacrl/DQN-CartPole-v0"
SHORT: dict[str, Any] = {
    "budget": 4_000,
    "decision_interval": 500,
    "eval_episodes": 2,
    "learning_starts": 200,
    "hyperparameters": ("learning_rate", "epsilon"),
}
BELOW, ABOVE = {"learning_rate": 1e-2}, {"learning_rate": 1e-5}


def switch_space(family: str = "switch") -> SearchSpace:
    return SearchSpace(resolve(CARTPOLE, **SHORT).controlled, family=family)


def test_the_side_is_that_of_the_score():
    policy = Switch(0.5, BELOW, ABOVE)
    envs: Any = SimpleNamespace(
        to_actions=lambda c: np.full((4, 1), c["learning_rate"])
    )
    policy.reset(envs, 0)
    infos = {
        "env_steps": np.array([0, 10, 10, 10]),
        "score": np.array([0.9, 0.9, 0.5, 0.4]),
    }
    actions = policy.act(np.zeros((4, 3), np.float32), infos)
    assert actions[:, 0].tolist() == [1e-2, 1e-5, 1e-5, 1e-2]


def test_a_shuffled_switch_goes_by_the_scores_of_others():
    policy = Switch(0.5, BELOW, ABOVE).shuffled()
    envs: Any = SimpleNamespace(
        to_actions=lambda c: np.full((6, 1), c["learning_rate"]),
        policy_keys=np.array([7], np.uint64),
    )
    policy.reset(envs, 0)
    sides = []
    for steps in (100, 200, 300, 400):
        infos = {"env_steps": np.full(6, steps), "score": np.eye(6)[2]}
        (above,) = np.flatnonzero(policy.act(np.zeros((6, 3)), infos)[:, 0] == 1e-5)
        assert above != 2
        sides.append(above)
    assert len(set(sides)) > 1
    assert from_json(to_json(policy)).shuffle
    with pytest.raises(ValueError, match="at least two runs"):
        policy.act(np.zeros((1, 3)), {"env_steps": np.ones(1), "score": np.ones(1)})


def test_freezing_is_a_special_case():
    task: dict[str, Any] = {**SHORT, "hyperparameters": ("learning_rate",)}
    frozen, threshold = {"learning_rate": 1e-6}, 0.05
    rule = Switch(threshold, {"learning_rate": 1e-3}, frozen)
    frames = [
        dacrl_env.evaluate(CARTPOLE, policy, [0, 1, 2], name="rule", **task)
        for policy in (rule, FreezeWhenGood(threshold))
    ]
    rates = frames[0]["hp/learning_rate"]
    assert {1e-3, 1e-6} <= set(rates)
    same = ["env_steps", "hp/learning_rate", "report_score", "eval_return"]
    for column in same:
        np.testing.assert_array_equal(frames[0][column], frames[1][column])


def test_freezing_can_be_searched():
    controlled = switch_space().controlled
    space = SearchSpace(controlled, {"epsilon": (0.02, 0.5)}, "freeze")
    assert space.names == ("threshold", "epsilon")
    # what keeps the default is freeze-when-good
    scores = np.array([np.nan, 0.59, 0.6])
    values = space.rule([default_candidate(space)] * 3, 8)(scores, scores, {})
    np.testing.assert_allclose(values, [[1e-3, 0.1], [1e-3, 0.1], [1e-6, 0.1]])
    policy = space.policy(default_candidate(space), 8)
    assert isinstance(policy, Switch)
    assert policy.threshold == 0.6
    assert policy.below == pytest.approx({"learning_rate": 1e-3, "epsilon": 0.1})
    assert policy.above == pytest.approx({"learning_rate": 1e-6, "epsilon": 0.1})
    # begins at a configuration, whose rate it brings down
    space = SearchSpace(controlled, family="freeze")
    found = {"learning_rate": 0.01, "epsilon": 0.3}
    policy = space.policy(default_candidate(space, space.constant(found)), 8)
    assert isinstance(policy, Switch)
    assert policy.below == pytest.approx(found)
    assert policy.above == pytest.approx({**found, "learning_rate": 1e-6})
    with pytest.raises(ValueError, match="'learning_rate'; valid: epsilon"):
        SearchSpace(controlled[1:], family="freeze")


@pytest.mark.parametrize("family", [slow("freeze"), "frozen-schedule", "switch"])
def test_searching_runs_what_the_policy_does(family):
    space = switch_space(family)
    trials = Trials(CARTPOLE, 40_000, 0, Race(), **SHORT)
    candidates = space.sample(np.random.default_rng(0), 3)
    threshold = space.names.index("threshold")
    candidates[:, threshold] = [0.02, 0.05, 0.1]
    seeds = trials.tuning_seeds(2)
    trials.begin(seeds * 3)
    go_on(trials, space, candidates, 2, 0, 5)
    trials.select(np.array([4, 5, 0, 1]))
    go_on(trials, space, candidates[[2, 0]], 2, 5, 8)
    trace = trials.fitted(space.policy(candidates[2], 8)).trace
    assert trace is not None
    trace = trace[trace["step"] > 5]
    sides = set()
    for k, candidate in enumerate(candidates[[2, 0]]):
        policy = space.policy(candidate, 8)
        frame = dacrl_env.evaluate(CARTPOLE, policy, seeds, "tuning", **SHORT)
        for j, seed in enumerate(seeds):
            mine = trace[trace["member"] == 2 * k + j]
            theirs = frame[(frame["seed"] == seed) & (frame["step"] > 5)]
            theirs = theirs[theirs["eval_return"].notna()]
            for column in ("score", "hp/learning_rate", "hp/epsilon"):
                np.testing.assert_array_equal(mine[column], theirs[column])
            sides |= {*zip(mine["hp/epsilon"], mine["hp/learning_rate"], strict=True)}
    assert len(sides) > 2  # some run has been on both sides


def test_the_default_is_a_candidate():
    space = switch_space()
    assert len(space.names) == 5
    centre = default_candidate(space)
    for score in (np.nan, 0.0, 1.0):
        values = space.rule(centre[None], 8)(np.array([score]), np.array([score]), {})
        np.testing.assert_allclose(values, [[1e-3, 0.1]])


def test_unknown_scores_are_below():
    space = switch_space()
    given = {
        "threshold": 0.5,
        "learning_rate/below": 1e-2,
        "learning_rate/above": 1e-5,
        "epsilon/below": 0.5,
        "epsilon/above": 0.0,
    }
    candidates = space.encode([given] * 3)
    scores = np.array([np.nan, 0.5, 0.49])
    values = space.rule(candidates, 8)(scores, scores, {})
    np.testing.assert_allclose(values, [[1e-2, 0.5], [1e-5, 0.0], [1e-2, 0.5]])
    policy = space.policy(candidates[0], 8)
    assert isinstance(policy, Switch)
    assert policy.below == pytest.approx({"learning_rate": 1e-2, "epsilon": 0.5})


def test_the_race_finds_a_rule(tmp_path):
    race = Race(family="switch", seeds=1, finalists=2, fresh=1)
    fitted = race.fit(CARTPOLE, 32_000, 0, **SHORT)
    assert isinstance(fitted.policy, Switch)
    assert fitted.cost.env_steps <= 32_000
    path = tmp_path / "policy.json"
    save_fitted(fitted, path, {})
    again = get_policy(str(path))
    assert isinstance(again, Fitted)
    assert to_json(again.policy) == to_json(fitted.policy)
    assert from_json(json.loads(json.dumps(to_json(fitted.policy)))).action_mode


@pytest.mark.parametrize(
    ("below", "above"), [({}, {}), (BELOW, {}), (BELOW, {"epsilon": 0.1})]
)
def test_both_sides_need_the_same_hyperparameters(below, above):
    with pytest.raises(ValueError, match="the same hyperparameters"):
        Switch(0.5, below, above)
