"""Schedules that freeze at a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dacrl_env
from dacrl_env.methods.search import default_candidate
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import DECISION
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import from_json, to_json
from dacrl_env.policies.frozen_schedule import FrozenSchedule
from dacrl_env.policies.open_loop import OpenLoop

CARTPOLE = "dacrl/DQN-CartPole-v0"
SHORT: dict[str, Any] = {
    "budget": 4_000,
    "decision_interval": 500,
    "eval_episodes": 2,
    "learning_starts": 200,
    "hyperparameters": ("learning_rate", "epsilon"),
}
RATES = [1e-2] * 4 + [1e-3] * 4
VALUES = {"learning_rate": RATES, "epsilon": [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]}


def frame(policy: Any) -> Any:
    return dacrl_env.evaluate(CARTPOLE, policy, [0, 1, 2], name="it", **SHORT)


def test_it_is_the_schedule_where_the_score_is_never_reached() -> None:
    ours, theirs = frame(FrozenSchedule(1e9, VALUES)), frame(OpenLoop(VALUES))
    for column in ("hp/learning_rate", "hp/epsilon", "score", "report_score"):
        np.testing.assert_array_equal(ours[column], theirs[column])


def test_it_freezes_at_the_score_and_goes_on_below_it() -> None:
    threshold = 0.05
    runs = frame(FrozenSchedule(threshold, VALUES))
    sides = set()
    for _, run in runs[runs["eval_return"].notna()].groupby("seed"):
        scores = run["score"].to_numpy()  # before training, and after each decision
        good = np.array([False, *(scores[1:-1] >= threshold)])
        rows = run[run["step"] > 0]
        expected = np.where(good, 1e-6, RATES)
        np.testing.assert_array_equal(rows["hp/learning_rate"], expected)
        np.testing.assert_array_equal(rows["hp/epsilon"], VALUES["epsilon"])
        sides |= set(good[1:].tolist())
    assert sides == {True, False}


def test_the_search_begins_at_what_holds_throughout() -> None:
    controlled = resolve(CARTPOLE, **SHORT).controlled
    space = SearchSpace(controlled, family="frozen-schedule")
    schedule = SearchSpace(controlled, family="schedule")
    assert space.names == ("threshold", *schedule.names)
    found = {"learning_rate": 0.01, "epsilon": 0.3}
    policy = space.policy(default_candidate(space, space.constant(found)), 8)
    assert isinstance(policy, FrozenSchedule)
    assert policy.threshold == pytest.approx(0.6)
    assert policy.schedule.values["learning_rate"] == pytest.approx([0.01] * 8)
    # the rate falls also where it is not searched
    some = SearchSpace(controlled, {"epsilon": (0.1, 0.5)}, family="frozen-schedule")
    policy = some.policy(default_candidate(some), 8)
    assert set(policy.hyperparameters) == {"learning_rate", "epsilon"}
    assert isinstance(from_json(to_json(policy)), FrozenSchedule)
    with pytest.raises(ValueError, match="'learning_rate'; valid: epsilon"):
        SearchSpace(controlled[1:], family="frozen-schedule")


def test_a_search_goes_by_the_decision_and_the_score() -> None:
    controlled = resolve(CARTPOLE, **SHORT).controlled
    space = SearchSpace(controlled, family="frozen-schedule")
    candidates = space.sample(np.random.default_rng(0), 3)
    candidates[:, 0] = 0.5
    tables = space.values(candidates, 8)
    rule = space.rule(candidates, 8)
    for k in range(8):
        scores = np.array([np.nan, 0.5, 0.49])
        values = rule(scores, scores, {DECISION: np.full(3, k)})
        np.testing.assert_array_equal(values[:, 1], tables[k, :, 1])
        np.testing.assert_array_equal(values[[0, 2], 0], tables[k, [0, 2], 0])
        assert values[1, 0] == 1e-6
    both = space.every_value(candidates, 8)
    np.testing.assert_array_equal(both[:8], tables)
    np.testing.assert_array_equal(both[8:, :, 1], tables[..., 1])
    assert (both[8:, :, 0] == 1e-6).all()


def test_a_shuffled_one_goes_by_the_scores_of_others() -> None:
    policy = FrozenSchedule(0.05, VALUES).shuffled()
    assert from_json(to_json(policy)).shuffle
    shuffled = frame(policy)["hp/learning_rate"].to_numpy()
    own = frame(FrozenSchedule(0.05, VALUES))["hp/learning_rate"].to_numpy()
    assert not np.array_equal(shuffled, own)


def test_a_schedule_without_a_learning_rate_does_not_freeze() -> None:
    with pytest.raises(ValueError, match=r"needs learning_rate; got epsilon"):
        FrozenSchedule(0.5, {"epsilon": [0.1]})
