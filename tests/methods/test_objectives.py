"""Several objectives: fronts, hypervolume, and the methods that search for them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume
from searches import CARTPOLE, QUADRATIC, SHORT, SMALL, quadratic_trials, rates

import dacrl_env
from dacrl_env.comparison.fronts import hypervolume_of, table
from dacrl_env.methods import objectives as several
from dacrl_env.methods.lineages import complete
from dacrl_env.methods.objectives import (
    TellableSeveral,
    hypervolume,
    nondominated,
    with_objectives,
)
from dacrl_env.methods.search import Incumbent
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.policies import METHODS, Cost, Fitted, FrontPoint, get_method
from dacrl_env.policies.static import Static

BOTH = ("final", "auc")


def test_what_others_dominate_is_not_on_the_front() -> None:
    values = np.array(
        [[1, 0], [0, 1], [0.5, 0.5], [0.4, 0.5], [1, 0], [-np.inf, 9], [np.nan, 9]]
    )
    expected = [True, True, True, False, True, False, False]
    assert nondominated(values).tolist() == expected


def test_hypervolume_is_that_of_boxes() -> None:
    assert hypervolume(np.array([[2.0, 1.0], [1.0, 2.0]]), [0, 0]) == 3.0
    assert hypervolume(np.array([[2.0, 1.0], [1.0, 2.0]]), [1.5, 0]) == 0.5
    assert hypervolume(np.array([[1.0, 1.0], [-1.0, 3.0]]), [0, 0]) == 1.0
    assert hypervolume(np.array([[2.0, 2.0, 1.0], [1.0, 1.0, 3.0]]), [0, 0, 0]) == 6.0
    assert hypervolume(np.empty((0, 2)), [0, 0]) == 0.0
    assert hypervolume(np.array([[np.inf, -np.inf]]), [0, 0]) == 0.0


@pytest.mark.parametrize("m", [2, 3, 4])
def test_hypervolume_agrees_with_optuna_s(m: int) -> None:
    generator = np.random.default_rng(m)
    for n in (1, 5, 20):
        values = generator.random((n, m)).round(1)  # with ties
        low = np.zeros(m)
        expected = compute_hypervolume(-values, -low)
        assert hypervolume(values, low.tolist()) == pytest.approx(expected)


def test_a_share_of_the_box_up_to_what_is_ideal() -> None:
    points = [
        FrontPoint(Static(), {"auc": 0.5, "cost": 2.0}),
        FrontPoint(Static(), {"auc": 0.25, "cost": 1.0}),
    ]
    fitted = Fitted(Static(), Cost(), front=points)
    # from (0, 4) to (1, 0): half as wide as high
    assert hypervolume_of(fitted, {"cost": 4.0}).share == 0.5 * 0.5 + 0.25 * 0.25
    # by default a tenth beyond the dearest
    assert hypervolume_of(fitted).reference == {"auc": 0.0, "cost": 2.2}
    share = hypervolume_of(fitted).share
    assert share == pytest.approx((0.25 * 1.2 + 0.25 * 0.2) / 2.2)
    for wrong in (
        {"cost": 0.0}, {"auc": 1.0}, {"best": 0.0},
        {"cost": np.inf}, {"auc": -np.inf}, {"auc": np.nan},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"reference point|unknown objective"):
            hypervolume_of(fitted, wrong)
    with pytest.raises(ValueError, match="has none"):
        hypervolume_of(Fitted(Static(), Cost()))


def test_the_methods_that_take_several_are_those_that_say_so() -> None:
    found = [
        name
        for name in METHODS
        if any(f.name == "objectives" for f in fields(type(get_method(name))))  # type: ignore[arg-type]
    ]
    assert sorted(found) == sorted(several.TAKE_SEVERAL)


@pytest.mark.parametrize(
    "spec",
    ["random-search", "random-search,seeds=2,family='schedule'", "tpe,startup=3",
     "smac,eta=2", pytest.param("smac,eta=2,seeds=2", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_fit_has_the_front_of_all_that_it_tried(spec: str, tmp_path: Any) -> None:
    seeds = 2 if "seeds=2" in spec else 1
    options: dict[str, Any] = {"seed": 1, "objectives": BOTH, **SHORT}
    budget = 200 * seeds if "smac" in spec else 1_000
    fitted = dacrl_env.fit(QUADRATIC, spec, budget, **options, store=tmp_path)
    values = np.array([list(point.values.values()) for point in fitted.front])
    assert len(values)
    assert nondominated(values).all()
    assert (np.diff(values[:, 0]) <= 0).all()  # the best in the first one first
    assert fitted.policy.arguments() == fitted.front[0].policy.arguments()  # type: ignore[attr-defined]
    assert fitted.online == fitted.front[0].online
    assert fitted.trace is not None
    if seeds == 1:
        scores = fitted.trace["score"].to_numpy()
        ended = [one.rows for one in complete(fitted.trace)]
        tried = np.array([[scores[r[-1]], scores[r].mean()] for r in ended])
        best = {tuple(row) for row in tried[nondominated(tried)].round(9)}
        assert {tuple(row) for row in values.round(9)} == best
    # from the store, and made anew
    for again in (
        dacrl_env.fit(QUADRATIC, spec, budget, **options, store=tmp_path),
        dacrl_env.fit(QUADRATIC, spec, budget, **options),
    ):
        assert table(again).equals(table(fitted))
        assert again.online == fitted.online
        assert again.cost == fitted.cost


def test_of_equals_in_the_first_objective_the_best_in_others_is_returned() -> None:
    trials = quadratic_trials()
    space = SearchSpace(trials.controlled)
    best = Incumbent(space, trials, BOTH)
    trials.begin([0])
    trials.advance(rates(0.1))
    candidates = np.array([[0.2], [0.4], [0.6]])
    values = np.array([[1.0, 0.0], [1.0, 5.0], [0.5, 5.0]])
    best.offer(candidates, values, np.array([0.1, 0.2, 0.3]))
    fitted = best.fitted()
    assert [point.values for point in fitted.front] == [{"final": 1.0, "auc": 5.0}]
    expected = space.policy(candidates[1], trials.decisions)
    assert fitted.policy.arguments() == expected.arguments()  # type: ignore[attr-defined]
    assert fitted.online == 0.2


def test_cost_is_that_of_the_ledger() -> None:
    fitted = dacrl_env.fit(
        CARTPOLE, "random-search", 6_000, objectives=["auc", "cost"], **_small()
    )
    assert fitted.trace is not None
    ends = fitted.trace[fitted.trace["step"] == 4]
    assert ends["cost"].sum() == pytest.approx(fitted.cost.flops)
    rows = {point.values["cost"] for point in fitted.front}
    assert rows <= set(ends["cost"])
    assert min(rows) == ends.loc[~ends["diverged"].astype(bool), "cost"].min()


def _small() -> dict[str, Any]:
    options = dict(SMALL)
    return {"run_budget": options.pop("budget"), **options}


def test_what_models_are_told_of_runs_that_diverged_is_worse_than_all() -> None:
    told = TellableSeveral(quadratic_trials(), ("final", "cost"))
    values = np.array([[0.5, -10.0], [-np.inf, -np.inf], [0.4, -20.0]])
    rows = np.array(told(values))
    assert rows[[0, 2]].tolist() == values[[0, 2]].tolist()
    assert rows[1, 0] < quadratic_trials().task.floor_score
    assert rows[1, 1] == -22.0
    assert np.array(told(values[1:2]))[0, 1] == -22.0  # it is remembered


def test_a_cost_is_not_told_as_ideal_where_none_is_known() -> None:
    options = _small()
    options["budget"] = options.pop("run_budget")
    trials = Trials(CARTPOLE, 4_000, 0, Static(), **options)
    told = TellableSeveral(trials, ("auc", "cost"))
    (row,) = told(np.array([[-np.inf, -np.inf]]))
    # as much as the training of any run takes
    ends = np.array([[h.ends[k] for h in trials.controlled] for k in (0, 1)])
    most = trials.operations(ends).max() * trials.steps
    assert 0 < most < -row[1] < np.inf
    # what was seen is better known
    assert told(np.array([[0.5, -10.0], [-np.inf, -np.inf]]))[1][1] == -11.0


def test_names_of_judged_scores_stand_for_what_a_search_can_see() -> None:
    spec = with_objectives("tpe", ["report_auc", "cost"])
    assert spec == "tpe,objectives=('auc', 'cost')"
    assert with_objectives(spec, ["auc", "cost"]) == spec
    assert with_objectives("pbt", ["report_best"]) == "pbt,objective='best'"
    made = with_objectives(get_method("random-search"), BOTH)
    assert made.objectives == BOTH
    with pytest.raises(ValueError, match="both given"):
        with_objectives(made, ["final"])
    with pytest.raises(ValueError, match="both given"):
        with_objectives(get_method("random-search,objective='auc'"), BOTH)


@pytest.mark.parametrize(
    ("spec", "names", "message"),
    [
        ("hyperband", ["auc", "cost"], "hyperband does not take several objectives; "
         "those that do: random-search, random-schedules, tpe, smac"),
        ("tpe", ["cost", "auc"], "begin with one of final, best, auc"),
        ("tpe", ["cost"], "beside a score, which comes first"),
        ("tpe", ["auc", "auc"], "each once; got auc, auc"),
        ("tpe", ["auk", "cost"], "did you mean 'auc'"),
        ("tpe,objective='auc'", ["auc", "cost"], "both given"),
        ("tpe,objectives=('final','cost')", ["auc", "cost"], "other objectives"),
        ("tpe,objectives=('auc','cost')", ["final"], "both given"),
        ("random-search", ["auc", "cost"], "no operations are counted"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_training(
    spec: str, names: list[str], message: str
) -> None:
    told: list[Any] = []
    with pytest.raises(ValueError, match=message):
        dacrl_env.fit(
            QUADRATIC, spec, 1_000, objectives=names, tracker=lambda *a: told.append(a)
        )
    assert told == []
