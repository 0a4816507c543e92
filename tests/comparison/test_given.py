"""Policies, methods, seeds and instances as users give them; what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dacrl_env.baselines.random_search import RandomSearch

import dacrl_env
from dacrl_env import Instance, Number
from dacrl_env.comparison.comparison import anytime
from dacrl_env.comparison.given import checked_seeds, name_of
from dacrl_env.policies import Cost, Fitted, get_policy, save_fitted, to_json
from dacrl_env.policies.schedules import Schedule
from dacrl_env.policies.static import Static

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL = {"budget": 400, "eval_episodes": 1, "learning_starts": 100}


class Plain:
    """No dataclass: nothing tells two of them apart."""

    action_mode = "continuous"

    def __init__(self, action: float = 0.0) -> None:
        self.action = action
        self.asked = 0

    def reset(self, envs: Any, seed: int) -> None:
        self.controlled = len(envs.settings.controlled)

    def act(self, observations: Any, infos: Mapping[str, Any]) -> Any:
        self.asked += 1
        return np.full((len(observations), self.controlled), self.action)


@dataclass
class Told:
    action: float = 0.0
    words: list[str] = field(default_factory=list)
    action_mode = "continuous"

    def reset(self, envs: Any, seed: int) -> None:
        pass

    def act(self, observations: Any, infos: Mapping[str, Any]) -> Any:
        return np.full((len(observations), 1), self.action)


class Needy(Plain):
    def __init__(self, action: float) -> None:
        super().__init__(action)


def names(frame: pd.DataFrame) -> list[str]:
    return list(frame["policy"].unique())


def untimed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=["wall_seconds", "policy"])


# -- one or several ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ("default", ["default"]),
        (["default"], ["default"]),
        (Static(learning_rate=0.02), ["Static"]),
        (Plain, ["Plain"]),
        ([Told, "default"], ["Told", "default"]),
        ([Told(), Told(0.5), Told(words=["a\n"])], None),
        ({"a": "default", "b": Plain(0.5), "c": Plain}, ["a", "b", "c"]),
        ({"default": Plain(), "x": "default"}, ["default", "x"]),
        ({"x": "default", "default": Plain()}, ["x", "default"]),
        ({"Plain": "default", "default": Plain(), "a": Told()}, None),
        ({"d 1.5, x=2": Told(-1.0), 3: "random"}, ["d 1.5, x=2", "3"]),
        ((name for name in ("default", "random")), ["default", "random"]),
        (pd.Series(["default", "random"]), ["default", "random"]),
        (np.array(["default"]), ["default"]),
    ],
)
def test_policies_are_given_as(policies: Any, expected: list[str] | None) -> None:
    if expected is None:
        if isinstance(policies, dict):
            expected = list(policies)
        else:
            expected = ["Told", "Told(action=0.5)", r"Told(words=['a\n'])"]
    assert names(dacrl_env.compare(QUADRATIC, policies, 2)) == expected


def test_an_object_gives_what_its_name_gives() -> None:
    named = dacrl_env.compare(QUADRATIC, "static,learning_rate=0.02", range(3))
    given = dacrl_env.compare(QUADRATIC, Static(learning_rate=0.02), 3)
    pd.testing.assert_frame_equal(untimed(named), untimed(given))
    for policy in (Static(learning_rate=0.02), "static,learning_rate=0.02"):
        alone = dacrl_env.evaluate(QUADRATIC, policy, 3)
        pd.testing.assert_frame_equal(untimed(named), untimed(alone))


def test_a_policy_file_is_given_as_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a=1,b.json"
    save_fitted(Fitted(Static(learning_rate=0.02), Cost()), path, {})
    assert names(dacrl_env.compare(QUADRATIC, [path, "default"], 1)) == [
        str(path),
        "default",
    ]
    assert names(dacrl_env.evaluate(QUADRATIC, path, 1)) == [str(path)]
    assert names(dacrl_env.compare(QUADRATIC, {"mine": path}, 1)) == ["mine"]


def test_objects_stay_as_they_were_given(tmp_path: Path) -> None:
    policy = Plain(0.5)
    first = dacrl_env.compare(QUADRATIC, {"it": policy}, 2, batch=1, store=tmp_path)
    assert vars(policy) == {"action": 0.5, "asked": 0}
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.parquet")}
    again = dacrl_env.compare(QUADRATIC, {"it": policy}, 2, batch=1, store=tmp_path)
    assert kept == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.parquet")}
    pd.testing.assert_frame_equal(first, again)
    # another state of the same class is another policy
    other = dacrl_env.compare(
        QUADRATIC, {"it": Plain(-0.5)}, 2, batch=1, store=tmp_path
    )
    assert not untimed(first).equals(untimed(other))


class Tiring(Plain):
    """Acts by how often it was asked in all its life."""

    def act(self, observations: Any, infos: Mapping[str, Any]) -> Any:
        self.action = 0.5 if self.asked < 60 else -0.5
        return super().act(observations, infos)


def test_every_unit_begins_with_the_policy_as_it_was() -> None:
    one, two = (
        dacrl_env.compare(QUADRATIC, Tiring(), 4, batch=batch) for batch in (2, 4)
    )
    number = ["member", "parent"]
    pd.testing.assert_frame_equal(
        untimed(one).drop(columns=number), untimed(two).drop(columns=number)
    )


@pytest.mark.slow
def test_workers_get_objects() -> None:
    policies = {"a": Plain(0.5), "b": Told(-0.5)}
    one, two = (
        dacrl_env.compare(
            QUADRATIC, policies, 2, num_threads=workers, executor="processes"
        )
        for workers in (1, 2)
    )
    pd.testing.assert_frame_equal(untimed(one), untimed(two))


class Modeless(Plain):
    action_mode = "values_"


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([Plain(), Plain(1.0)], "two of the policies are called 'Plain'; give them"),
        ([Told(), Told(0.0)], "give them labels"),
        (["default", "default"], "'default' is given twice"),
        ({"a": "default", "b": "default"}, "'default' is given twice"),
        ({"random": "default", "b": "random"}, "ok"),
        ({"a": "default", "b": Plain, "c": Plain()}, "ok"),
        ({"": "default"}, "printable"),
        ({"a\nb": "default"}, "printable"),
        (Needy, r"Needy is a class that needs arguments .*'action'.*Needy\(\.\.\.\)"),
        (RandomSearch(), "is no policy: it has no 'act.*it is a method"),
        ("random-search", "'random-search' is a method, no policy"),
        (3, "3 is no policy"),
        ([3], r"no 'action_mode'; valid are .* action_mode, reset and act, and names"),
        ({"mine": Modeless()}, "policy mine: unknown action_mode 'values_'.*'values'"),
        ([None], "is no policy: it has no 'action_mode'"),
        ("defualt", r"\(did you mean 'default'\?\)"),
        ("dacrl_env.policies.static:Statik", r"\(did you mean 'Static'\?\)"),
        ("static:Static", "cannot load policy 'static:Static': cannot import"),
        (QUADRATIC, "is a task, no policy"),
    ],
)
def test_what_is_none_is_said(policies: Any, message: str) -> None:
    if message == "ok":
        dacrl_env.compare(QUADRATIC, policies, 1)
        return
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(QUADRATIC, policies, 1)


@pytest.mark.parametrize("policies", [["default"], {"a": "default"}])
def test_evaluate_takes_one(policies: Any) -> None:
    with pytest.raises(ValueError, match="one policy is taken here"):
        dacrl_env.evaluate(QUADRATIC, policies, 1)


def test_names_of_objects() -> None:
    assert name_of(Schedule("linear", "epsilon", 1.0)) == "Schedule"
    assert name_of(RandomSearch(seeds=2, family="switch")) == (
        "RandomSearch(family='switch', seeds=2)"
    )
    fitted = Fitted(get_policy("default"), Cost())
    assert name_of(fitted) == "Fitted(Static)"
    long = [name_of(Told(words=["a" * 200 + end])) for end in "bc"]
    assert len(set(long)) == 2
    assert max(map(len, long)) <= 80


# -- methods -------------------------------------------------------------------------


def test_methods_are_given_as_objects(tmp_path: Path) -> None:
    given = {"tuning_budget": 200, "runs": 2, "seeds": 2, "store": tmp_path}
    frame = dacrl_env.compare(
        QUADRATIC,
        "default",
        methods={"wide": RandomSearch(population=2), "plain": "random-search"},
        **given,
    )
    assert names(frame) == ["default", "wide", "plain"]
    one = dacrl_env.compare(QUADRATIC, methods=RandomSearch(population=2), **given)
    assert names(one) == ["RandomSearch(population=2)"]
    course = anytime(
        QUADRATIC,
        {"wide": RandomSearch(population=2)},
        1,
        tuning_budget=200,
        runs=2,
        store=tmp_path,
    )
    assert names(course) == ["wide"]
    with pytest.raises(ValueError, match="'default' is a policy, no method"):
        dacrl_env.compare(QUADRATIC, methods="default", **given)


def test_labels_are_shown_for_shuffled_ones_too() -> None:
    frame = dacrl_env.compare(
        QUADRATIC,
        methods={"rule": "random-search,family='switch'"},
        tuning_budget=100,
        runs=1,
        seeds=2,
        shuffled=True,
    )
    assert names(frame) == ["rule", "rule shuffled"]


@pytest.mark.parametrize(
    ("positional", "options"),
    [
        ((200, 3), {}),
        ((), {"budget": 200, "seed": 3}),
        ((), {"tuning_budget": 200, "seed": 3}),
        ((), {"tuning_budget": 2e2, "seed": np.int64(3)}),
        ((200, 3), {"budget": 50}),
        ((), {"budget": 200, "run_budget": 50, "seed": 3}),
        ((), {"tuning_budget": 200, "budget": 50, "seed": 3}),
    ],
)
@pytest.mark.parametrize(
    "method", ["random-search,population=2", RandomSearch(population=2)], ids=str
)
def test_a_fit_takes_its_budget_by_place_or_by_name(
    method: Any, positional: tuple[int, ...], options: dict[str, Any]
) -> None:
    expected = RandomSearch(population=2).fit(QUADRATIC, 200, 3)
    fitted = dacrl_env.fit(QUADRATIC, method, *positional, **options)
    assert to_json(fitted.policy) == to_json(expected.policy)
    assert fitted.cost == expected.cost
    fitted = dacrl_env.fit(QUADRATIC, RandomSearch, 100)
    assert fitted.cost.env_steps <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "need a tuning budget: tuning_budget"),
        ({"budget": 100, "tuning_budget": 200, "run_budget": 50}, "give one"),
        ({"budget": "many"}, "a whole number, got 'many'"),
        ({"budget": 99.5}, "a whole number, got 99.5"),
        ({"budget": 49}, "too small"),
        ({"budget": 100, "seed": 1.5}, "whole numbers from 0 to .* got 1.5"),
        ({"budget": 100, "seed": -1}, "from 0 to .* got -1"),
    ],
)
def test_budgets_of_a_fit_that_are_none(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dacrl_env.fit(QUADRATIC, "random-search", **arguments)


def test_one_method_is_fitted_at_a_time() -> None:
    with pytest.raises(ValueError, match="one method is fitted at a time"):
        dacrl_env.fit(QUADRATIC, ["race", "pbt"], 400)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'tpee'.*mean 'tpe'"):
        dacrl_env.fit(QUADRATIC, "tpee", 400)


# -- seeds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (3, [0, 1, 2]),
        (np.int64(2), [0, 1]),
        (np.array(2), [0, 1]),
        (np.uint8(1), [0]),
        (range(4, 6), [4, 5]),
        (np.arange(2), [0, 1]),
        ([np.int32(7), 2], [7, 2]),
        ({5}, [5]),
        (iter([1, 2]), [1, 2]),
    ],
)
def test_seeds_are_their_number_or_themselves(seeds: Any, expected: list[int]) -> None:
    found = checked_seeds(seeds)
    assert found == expected
    assert all(type(seed) is int for seed in found)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (0, "at least 1, got 0"),
        (-3, "at least 1"),
        ([], "no seeds"),
        ([1, 1], "given twice"),
        ([0.5], "whole numbers from 0 to .* got 0.5"),
        ([1.0], "whole numbers from 0 to .* got 1.0"),
        ([True], "whole numbers from 0 to .* got True"),
        (True, "a list of whole numbers, got True"),
        (3.0, "a list of whole numbers, got 3.0"),
        ("12", "a list of whole numbers, got '12'"),
        (["a"], "whole numbers from 0 to .* got 'a'"),
        ([-1], "from 0 to .* got -1"),
        ([2**63], "from 0 to .* got 9223372036854775808"),
        (None, "got None"),
    ],
)
def test_seeds_that_are_none(seeds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dacrl_env.evaluate(QUADRATIC, "default", seeds)
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(QUADRATIC, "default", seeds)


# -- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"hyperparameters": "epsilon"},
        {"hyperparameters": ["epsilon"]},
        {"hyperparameters": Number("epsilon", 0.0, 1.0, 0.1)},
        {"instances": "test-3"},
        {"instances": ["test-3"]},
        {"instances": Instance("test-3", {"gravity": 8.0})},
    ],
)
def test_one_is_a_list_of_one(options: dict[str, Any]) -> None:
    frame = dacrl_env.evaluate(CARTPOLE, "default", 1, **SMALL, **options)
    if "instances" in options:
        assert frame["instance"].unique().tolist() == ["test-3"]
    else:
        assert [c for c in frame if c.startswith("hp/")] == ["hp/epsilon"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hyperparameters": "epsilom"}, r"\(did you mean 'epsilon'\?\)"),
        ({"hyperparameters": 3}, "hyperparameters is a list of names"),
        ({"instances": "tst-3"}, r"\(did you mean 'test-3'\?\)"),
        ({"eval_episode": 3}, r"\(did you mean 'eval_episodes'\?\)"),
        ({"learning_start": 3}, r"\(did you mean 'learning_starts'\?\)"),
        ({"feedback": "evals"}, r"\(did you mean 'eval'\?\)"),
        ({"reward": "progres"}, r"\(did you mean 'progress'\?\)"),
    ],
)
def test_names_that_are_nearly_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dacrl_env.evaluate(CARTPOLE, "default", 1, **options)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("DQN-CartPol-v0", "mean 'dacrl/DQN-CartPole-v"),
        ("CartPole-v1", "no task, register_task.*there is dacrl/DQN-CartPole-v"),
        ("Blackjack-v1", "Blackjack-v1 is no task"),
    ],
)
def test_tasks_that_are_nearly_right(task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dacrl_env.evaluate(task, "default", 1)
