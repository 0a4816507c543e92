"""Search methods."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import but_smac, quick, slow
from dacrl_env.baselines import hyperband, quadratic
from dacrl_env.baselines.grid_search import distinct, most_points
from searches import (
    CARTPOLE,
    CHOOSERS,
    HALVING,
    METHODS,
    PAIRED,
    QUADRATIC,
    SEARCHERS,
    SHORT,
    SMALL,
    STABLE,
    STEERED,
    controlled,
    quadratic_trials,
    rates,
)

import dacrl_env
from dacrl_env import Number
from dacrl_env.core.store import Store, StoreError, canonical
from dacrl_env.methods import objectives, trials
from dacrl_env.methods.rungs import brackets
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials, fit_key
from dacrl_env.policies import get_method, to_json
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static
from dacrl_env.policies.switch import Switch

# -- all methods ----------------------------------------------------------------------


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("budget", [slow(500), 777])
def test_budgets_are_kept_and_costs_are_exact(spec, budget):
    done: list[int] = []
    fitted = get_method(spec).fit(QUADRATIC, budget, 3, None, done.append, **SHORT)
    # a generation, a part of a round, or two runs
    spare = {"cma-es": 200, "sequential-halving": 250}
    least = budget - spare.get(spec.partition(",")[0], 100)
    assert least < fitted.cost.env_steps <= budget or "grid" in spec
    assert fitted.cost.gradient_steps == fitted.cost.env_steps <= budget
    costs = [cost.env_steps for cost, _ in fitted.incumbents]
    assert costs == sorted(costs)
    assert costs[-1] == fitted.cost.env_steps
    # steps of a run after its divergence are not charged
    assert fitted.cost.env_steps <= sum(done)
    assert to_json(fitted.incumbents[-1][1]) == to_json(fitted.policy)


@pytest.mark.parametrize("spec", PAIRED)
def test_candidates_share_their_tuning_seeds(trace, spec):
    name, _, arguments = spec.partition(",")
    method = get_method(f"{name},seeds=2{arguments and ',' + arguments}")
    fitted = method.fit(QUADRATIC, 1_000, 0, **SHORT)
    pair = quadratic_trials().tuning_seeds(2)
    for seeds in trace.begun:
        assert seeds == pair * (len(seeds) // 2)
    for values in trace.values:
        np.testing.assert_array_equal(values[:, ::2], values[:, 1::2])
    assert len({value for values in trace.values for value in values[0, ::2, 0]}) > 4
    assert fitted.cost.env_steps <= 1_000


@pytest.mark.parametrize("spec", but_smac(METHODS))
def test_methods_follow_from_their_seed(spec):
    def fit(seed: int) -> tuple[Any, set[float]]:
        fitted = get_method(spec).fit(QUADRATIC, 500, seed, **SHORT)
        course = [(asdict(cost), to_json(policy)) for cost, policy in fitted.incumbents]
        return course, set(fitted.trace["hp/learning_rate"])

    course, tried = fit(1)
    assert fit(1) == (course, tried)
    if "grid" not in spec:
        other, others = fit(2)
        assert other != course
        default = controlled(QUADRATIC)[0].default  # of which one method makes sure
        assert others & tried <= {default}


@pytest.fixture(scope="module")
def finals():
    """Scores of a static rate on 64 test runs."""

    def play(rate: float) -> np.ndarray:
        policy = Static(learning_rate=rate)
        frame = dacrl_env.evaluate(QUADRATIC, policy, range(64), split="test")
        return frame.groupby("seed")["score"].last().to_numpy()

    return play


@pytest.mark.parametrize(
    "name", quick([spec.partition(",")[0] for spec in METHODS], "random-search", "tpe")
)
def test_the_best_static_rate_is_nearly_found(finals, name):
    """Whose default is bad here; a single run knows little of the best mean."""
    bad = Number("learning_rate", 1e-4, 1e2, 1e-3, "log")
    own = {"cma-es": "seeds=16,generation=5,sigma=0.2", "sequential-halving": ""}
    method = get_method(f"{name},{own.get(name, 'seeds=16')}".rstrip(","))
    fitted = method.fit(
        QUADRATIC, 16 * 50 * 25, 0, hyperparameters=(bad,), decision_interval=5
    )
    assert isinstance(fitted.policy, Static)
    found = finals(fitted.policy.config["learning_rate"])
    gain = found - finals(bad.default)
    assert gain.mean() > 4 * gain.std() / np.sqrt(64)
    assert found.mean() > finals(quadratic.BEST_STATIC).mean() - 0.1


@pytest.mark.parametrize("name", but_smac(SEARCHERS))
def test_schedules_can_be_searched(name):
    method = get_method(f"{name},family='schedule'")
    fitted = method.fit(QUADRATIC, 1_000, 0, **SHORT)
    assert isinstance(fitted.policy, OpenLoop)
    assert fitted.decisions == 5
    frame = dacrl_env.evaluate(QUADRATIC, fitted, seeds=[0], **SHORT)
    ends = frame[frame["env_steps"].isin(range(10, 51, 10))]
    applied = ends["hp/learning_rate"].to_numpy()
    np.testing.assert_array_equal(applied, fitted.policy.values["learning_rate"])


@pytest.mark.parametrize("name", but_smac(SEARCHERS))
def test_switches_can_be_searched(name):
    method = get_method(f"{name},family='switch'")
    fitted = method.fit(QUADRATIC, 1_000, 0, **SHORT)
    assert isinstance(fitted.policy, Switch)
    frame = dacrl_env.evaluate(QUADRATIC, fitted, seeds=[0, 1], **SHORT)
    sides = {fitted.policy.below["learning_rate"], fitted.policy.above["learning_rate"]}
    assert set(frame.loc[frame["step"] > 0, "hp/learning_rate"].dropna()) <= sides


@pytest.mark.parametrize("spec", METHODS)
def test_learners_with_evaluations_are_searched(spec):
    method = replace(get_method(spec), space={"epsilon": (0.1, 1)})  # type: ignore[type-var]
    options = {**SMALL, "budget": 1_000, "decision_interval": 250}
    fitted = method.fit(CARTPOLE, 5_000, 0, **options)
    assert 0 < fitted.cost.env_steps <= 5_000
    assert fitted.cost.eval_steps > 0
    assert fitted.cost.flops > 0
    assert (fitted.online is not None) == (spec in CHOOSERS)
    assert fitted.hyperparameters == ("epsilon",)


@pytest.mark.parametrize("spec", but_smac(METHODS))
def test_no_global_state_is_touched(spec, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)

    def everything() -> Any:
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        loggers = [logging.getLogger(n) for n in (None, "optuna", "smac")]
        return (
            random.getstate(),
            (name, keys.tolist(), *rest),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            [(log.level, list(log.handlers), log.propagate) for log in loggers],
        )

    get_method(spec).fit(QUADRATIC, 300, 0, **SHORT)  # imports
    for package in ("optuna", "smac"):
        monkeypatch.setattr(logging.getLogger(package), "level", logging.INFO)
    np.random.random()  # noqa: NPY002 - on from where a seed might have put it
    before = everything()
    capfd.readouterr()
    get_method(spec).fit(QUADRATIC, 500, 0, **SHORT)
    assert everything() == before
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []


class InterruptedFitError(Exception):
    pass


@pytest.mark.parametrize("after", [slow(2), 6, slow(9)])
@pytest.mark.parametrize("spec", but_smac([*METHODS, STEERED]))
def test_interrupted_fits_go_on(monkeypatch, tmp_path, spec, after):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    options = {**SHORT, "budget": 50}
    # four runs side by side, so that there are several operations to interrupt
    spec += ",population=4" if spec in ("grid-search", "random-search") else ""
    whole: list[int] = []
    expected = get_method(spec).fit(QUADRATIC, 500, 0, None, whole.append, **options)

    store, done = Store(tmp_path), []

    def until(steps: int) -> None:
        done.append(steps)
        if len(done) == after:
            raise InterruptedFitError

    with pytest.raises(InterruptedFitError):
        get_method(spec).fit(QUADRATIC, 500, 0, store, until, **options)
    files = list(tmp_path.rglob("journal.json"))
    finished = [r for f in files for r in json.loads(f.read_text())["records"]]
    trained = [r for r in finished if r["name"] in ("advance", "steer")]
    lengths = [len(r["result"]["scores"]) for r in trained]
    spent = [r["cost"]["env_steps"] for r in finished]

    rest: list[int] = []
    resumed = get_method(spec).fit(QUADRATIC, 500, 0, store, rest.append, **options)
    # steps of each operation in the journal, and then decision by decision
    assert rest[: len(finished)] == np.diff([0, *spent]).tolist()
    assert rest[len(finished) :] == whole[sum(lengths) :]
    assert trained or after == 2
    assert resumed.cost == expected.cost
    assert resumed.online == expected.online
    pd.testing.assert_frame_equal(resumed.trace, expected.trace)
    assert [(c, to_json(p)) for c, p in resumed.incumbents] == [
        (c, to_json(p)) for c, p in expected.incumbents
    ]
    # all of it is in the journal now, but for what followed the last commit
    monkeypatch.setattr(trials.Trials, "_advance", None)
    again: list[int] = []
    get_method(spec).fit(QUADRATIC, 500, 0, store, again.append, **options)
    assert sum(again) == sum(whole)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"digest"', '"digset"'),
        lambda text: text.replace('"records": [', '"records": [3, '),
    ],
    ids=["cut short", "list", "empty", "name", "record"],
)
def test_damaged_journals_are_refused(interrupted, damage):
    file, fit = interrupted
    text = file.read_text()
    assert damage(text) != text
    file.write_text(damage(text))
    with pytest.raises(StoreError, match=r"journal\.json is damaged"):
        fit()
    assert file.read_text() == damage(text)


@pytest.mark.parametrize("damage", ["missing", "cut short", "another run's"])
def test_damaged_states_are_refused(interrupted, damage):
    file, fit = interrupted
    (state,) = file.parent.glob("*.safetensors")
    if damage == "missing":
        state.unlink()
    elif damage == "cut short":
        state.write_bytes(state.read_bytes()[:-9])
    else:
        other = Trials(QUADRATIC, 500, 0, Static(), budget=40, decision_interval=10)
        other.begin([0, 1])
        assert other._runs is not None
        other._runs.snapshot().save(state)
    with pytest.raises(StoreError, match="delete its directory"):
        fit()


@pytest.mark.parametrize("operation", ["seeds", "values", "key", "members"])
def test_another_course_is_refused(monkeypatch, tmp_path, operation):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    method = hyperband.Hyperband()

    def course(seeds: Any, values: Any, key: Any, members: Any) -> None:
        runs = Trials(QUADRATIC, 500, 0, method, Store(tmp_path))
        runs.begin(seeds)
        runs.advance(values)
        runs.steer(lambda scores, best, rows: values[0], key)
        runs.select(members)

    first = {
        "seeds": [0, 1],
        "values": rates(0.1, 0.2, decisions=2),
        "key": np.array([0.5]),
        "members": np.array([1]),
    }
    course(**first)
    course(**first)  # the same again is welcome
    other = {
        "seeds": [0, 2],
        "values": rates(0.1, 0.3, decisions=2),
        "key": np.array([0.6]),
        "members": np.array([0]),
    }
    with pytest.raises(StoreError, match="another course"):
        course(**{**first, operation: other[operation]})


@pytest.fixture
def interrupted(monkeypatch, tmp_path):
    """The journal of a fit that stopped, and what goes on with it."""
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    method = get_method("successive-halving,eta=2")
    done: list[int] = []

    def until(steps: int) -> None:
        done.append(steps)
        if len(done) == 2:
            raise InterruptedFitError

    with pytest.raises(InterruptedFitError):
        method.fit(QUADRATIC, 500, 0, Store(tmp_path), until, **SHORT)
    (file,) = tmp_path.rglob("journal.json")
    return file, lambda: method.fit(QUADRATIC, 500, 0, Store(tmp_path), **SHORT)


@pytest.mark.parametrize("spec", METHODS)
def test_a_method_has_a_name_in_the_store(spec):
    method = get_method(spec)
    plain = canonical(fit_key(dacrl_env.get_task(QUADRATIC), method, 100, 0, {}))
    assert type(method).__name__ in plain
    narrow = type(method)(space=STABLE)
    named = canonical(fit_key(dacrl_env.get_task(QUADRATIC), narrow, 100, 0, {}))
    assert named != plain
    assert json.loads(named)["arguments"]["space"] == {"learning_rate": [1e-4, 1e-1]}


# -- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"space": {"momentum": (0, 1)}}, {}, "'momentum'; valid: learning_rate"),
        ({"space": {}}, {}, "nothing to search; valid: learning_rate"),
        ({"space": {"learning_rate": (1e-4, 1e3)}}, {}, "outside its range"),
        ({"space": {"learning_rate": (1e-1, 1e-3)}}, {}, "inverted"),
        ({"space": {"learning_rate": (1e-3,)}}, {}, r"a tuple \(low, high\)"),
        ({"family": "spline"}, {}, "'spline'; valid: static, schedule, freeze"),
        ({}, {"split": "test"}, "'split'"),
        ({}, {"action_mode": "relative"}, "'action_mode'"),
        ({}, {"report": True}, "'report'"),
        ({}, {"bogus": 1}, "'bogus'"),
        ({}, {"budget": 3_000}, "below one run"),
    ],
)
def test_methods_refuse(spec, arguments, options, message):
    steps: list[int] = []
    method = type(get_method(spec))(**arguments)
    with pytest.raises(ValueError, match=message):
        method.fit(QUADRATIC, 2_000, 0, None, steps.append, **options)
    assert steps == []


@pytest.mark.parametrize("spec", [s for s in METHODS if s != "sequential-halving"])
@pytest.mark.parametrize(
    ("seeds", "message"),
    [(0, "seeds must be at least 1, got 0"), (41, "takes? (2,050|[0-9,]+)")],
)
def test_numbers_of_seeds_are_checked(spec, seeds, message):
    method = type(get_method(spec))(seeds=seeds)
    with pytest.raises(ValueError, match=message):
        method.fit(QUADRATIC, 2_000, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        *((f"{spec},objective='loss'", "final, best, auc") for spec in METHODS),
        *((f"{name},eta=1", "eta must be .* at least 2, got 1") for name in HALVING),
        *((f"{name},eta=2.5", "eta must be of type int") for name in HALVING),
        ("tpe,generation=0", "generation must be at least 1"),
        ("tpe,startup=0", "startup must be at least 1"),
        ("cma-es,generation=3", "generation must be at least 4"),
        ("cma-es,sigma=0", r"sigma must lie in \(0, 1\]"),
        ("hyperband,population=8", "arguments: eta, space"),
    ],
)
def test_wrong_arguments_come_to_light_at_once(spec, message):
    with pytest.raises(ValueError, match=message):
        get_method(spec)


@pytest.mark.parametrize("name", HALVING)
def test_a_budget_below_a_bracket_names_the_bracket(name):
    with pytest.raises(ValueError, match=r"of 9 candidates .* takes 115,000"):
        get_method(name).fit(CARTPOLE, 114_999, 0)


# -- grid search ----------------------------------------------------------------------


def test_the_grid_is_as_fine_as_the_budget_pays_for(trace):
    fitted = get_method("grid-search").fit(QUADRATIC, 7 * 50 + 49, 0)
    rates = np.concatenate([v[0, :, 0] for v in trace.values])
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 1e2, 7), rtol=1e-9)
    assert fitted.cost.env_steps <= 7 * 50


@pytest.mark.parametrize(
    ("candidates", "dimensions", "points"),
    [
        (1, 1, 2),
        (2, 1, 2),
        (9, 2, 3),
        (8, 2, 2),
        (27, 3, 3),
        (26, 3, 2),
        (10**6, 3, 100),
    ],
)
def test_points_an_axis_by_hand(candidates, dimensions, points):
    assert most_points(candidates, dimensions) == points


def test_points_that_round_to_the_same_are_trained_once():
    space = SearchSpace(controlled(CARTPOLE), {"batch_size": (5, 7), "epsilon": (0, 1)})
    grid = distinct(space, 6)
    assert len(grid) == 3 * 6
    assert len({tuple(p.values()) for p in space.decode(grid)}) == 18


def test_grids_are_trained_in_generations(trace):
    get_method("grid-search,points=7,population=3").fit(QUADRATIC, 7 * 50, 0)
    assert [n for n, _ in trace.trained] == [3, 3, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("grid-search", "below 8 candidates on 1 tuning seeds, which take 16,000"),
        ("grid-search,points=3", "below 27 candidates .* take 54,000"),
        ("grid-search,points=10000", "below 1,?000"),
        ("grid-search,points=1", "at least 2 points"),
    ],
)
def test_grids_that_cannot_be_paid_for(spec, message):
    with pytest.raises(ValueError, match=message):
        get_method(spec).fit(CARTPOLE, 15_999, 0, **SMALL)


# -- searchers of other packages ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package"), [("tpe", "optuna"), ("smac", "smac"), ("cma-es", "cma")]
)
def test_a_missing_extra_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'dacrl-env\[{package}\]'"):
        get_method(name)


def test_what_models_are_told_is_finite_and_in_order():
    runs = quadratic_trials()
    told = objectives.Tellable(runs)
    floor = runs.task.floor_score
    assert told(np.array([0.5, -np.inf])) == [0.5, floor - 0.1]
    assert told(np.array([np.nan, floor - 1, -np.inf])) == [
        pytest.approx(floor - 1.1),
        floor - 1,
        pytest.approx(floor - 1.1),
    ]


@pytest.mark.parametrize("spec", but_smac(["tpe", "smac"]))
def test_diverged_candidates_are_told_as_the_worst(monkeypatch, trace, spec):
    told: list[float] = []
    if spec == "tpe":
        import optuna

        tell = optuna.Study.tell

        def recorded(study: Any, trial: Any, values: float) -> Any:
            told.append(values)
            return tell(study, trial, values)

        monkeypatch.setattr(optuna.Study, "tell", recorded)
    else:
        from smac import MultiFidelityFacade

        smac_tell = MultiFidelityFacade.tell

        def smac_recorded(facade: Any, info: Any, value: Any, save: bool) -> None:
            told.append(-value.cost)
            smac_tell(facade, info, value, save)

        monkeypatch.setattr(MultiFidelityFacade, "tell", smac_recorded)
    get_method(spec).fit(QUADRATIC, 800, 0, **SHORT)
    scores = np.concatenate([seen.objective("final") for seen in trace.seen])
    # the last candidates of SMAC, outside of brackets, are not told
    assert len(told) >= len(scores) - (2 if spec == "smac" else 0)
    scores = scores[: len(told)]
    diverged = np.isinf(scores)
    assert diverged.any()
    assert np.isfinite(told).all()
    np.testing.assert_array_equal(np.array(told)[~diverged], scores[~diverged])
    assert max(np.array(told)[diverged]) < min(scores[~diverged])


def test_a_generation_is_one_population(trace):
    get_method("tpe,generation=4,startup=4").fit(QUADRATIC, 10 * 50, 0)
    assert [n for n, _ in trace.trained[:2]] == [4, 4]
    rates = np.concatenate([values[0, :, 0] for values in trace.values])
    assert len(set(rates)) == len(rates)  # also those that were asked for at once


@pytest.mark.parametrize("spec", ["tpe,generation=4,startup=8", slow("smac,eta=2")])
def test_models_learn_where_no_good_candidates_are(spec):
    method = get_method(f"{spec},seeds=4")
    fitted = method.fit(QUADRATIC, 4 * 40 * 50, 0, **SHORT)
    started = fitted.trace[fitted.trace["step"] == 1].iloc[::4]
    rates = started["hp/learning_rate"].to_numpy()
    assert len(rates) > 40
    # a third of the range, in which runs diverge, is left alone before long
    assert (rates[-20:] > 1).sum() <= 3


def test_smac_s_counts_are_checked():
    for longest in range(1, 101):
        for rungs in brackets(longest, 3):
            assert rungs[0][0] >= 1
    method = get_method("smac,eta=7")
    with pytest.raises(ValueError, match=r"49 decisions with eta=7.*\[49, 7, 0\]"):
        method.fit(QUADRATIC, 10_000, 0, budget=49, decision_interval=1)


COURSE = f"""
from dacrl_env.policies import get_method, to_json
for spec in (
    "tpe,family='schedule'",
    "smac,eta=2,family='schedule'",
    "cma-es,family='schedule',generation=8,seeds=1",
):
    fitted = get_method(spec).fit({QUADRATIC!r}, 1_500, 0, decision_interval=10)
    print([(cost, to_json(policy)) for cost, policy in fitted.incumbents])
"""


@pytest.mark.slow
def test_other_packages_ask_for_the_same_in_every_process():
    """Else no journal could be continued; strings are hashed anew in every process."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", COURSE],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            text=True,
        )
        for seed in (1, 2)
    ]
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("open-loop") > 2
