"""Search methods, the spaces they search and the runs they spend."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import quick
from dacrl_env.baselines import hyperband, quadratic
from dacrl_env.baselines.grid_search import distinct, most_points
from dacrl_env.baselines.race import default_candidate
from dacrl_env.baselines.sequential_halving import SequentialHalving, most_candidates

import dacrl_env
from dacrl_env import Number, get_task
from dacrl_env.comparison.evaluation import suitable_options
from dacrl_env.core import snapshot
from dacrl_env.core.store import Store, StoreError, canonical
from dacrl_env.methods import search, trials
from dacrl_env.methods.rungs import brackets, decisions, promote, race, shrink
from dacrl_env.methods.search_space import FAMILIES, SearchSpace
from dacrl_env.methods.trials import Observed, Trials, fit_key
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import Cost, get_method, to_json
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static
from dacrl_env.policies.switch import Switch

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL: dict[str, Any] = {
    "budget": 2_000,
    "decision_interval": 500,
    "learning_starts": 100,
    "eval_episodes": 1,
}
# few decisions, so that a round of brackets is small
SHORT: dict[str, Any] = {"decision_interval": 10}
METHODS = (
    "grid-search",
    "random-search",
    "successive-halving,eta=2",
    "hyperband,eta=2",
    "tpe,generation=3,startup=3",
    "smac,eta=2",
    "cma-es,generation=4,seeds=1",
    "sequential-halving",
)
STEERED = "cma-es,generation=4,seeds=1,family='gate'"  # by what runs show
# the others choose one of the candidates they have tried
CHOOSERS = [spec for spec in METHODS if not spec.startswith("cma-es")]
PAIRED = [spec for spec in CHOOSERS if spec != "sequential-halving"]  # on given seeds
SEARCHERS = (
    "random-search",
    "hyperband",
    "tpe",
    "smac",
    "cma-es,seeds=1",
    "sequential-halving",
)
HALVING = ("successive-halving", "hyperband", "smac")
STABLE = {"learning_rate": (1e-4, 1e-1)}  # of rates at which no run diverges


def controlled(task: str, *names: str) -> tuple[Number, ...]:
    return resolve(task, hyperparameters=names or None).controlled


# -- search spaces --------------------------------------------------------------------

DQN_NAMES = (
    "learning_rate",
    "epsilon",
    "batch_size",
    "gamma",
    "target_update_interval",
    "train_freq",
    "gradient_steps",
    "max_grad_norm",
    "replay_window",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_inverts_decode(family):
    event = ("checkpoint",) if family == "checkpoint" else ()
    space = SearchSpace(controlled(CARTPOLE, *DQN_NAMES, *event), family=family)
    candidates = space.sample(np.random.default_rng(0), 200)
    parameters = space.decode(candidates)
    again = space.encode(parameters)
    assert space.decode(again) == parameters
    smooth = [isinstance(d, Number) and not d.integer for d in space.dimensions]
    np.testing.assert_allclose(again[:, smooth], candidates[:, smooth], atol=1e-9)
    assert all(set(p) == set(space.names) for p in parameters)


def test_equal_distances_are_equal_factors():
    space = SearchSpace(controlled(CARTPOLE), {"learning_rate": (1e-5, 1e-1)})
    values = [p["learning_rate"] for p in space.decode([[0], [0.25], [0.5], [1]])]
    assert values == [1e-5, 1e-4, 1e-3, 1e-1]


def test_integers_are_rounded_within_their_bounds():
    space = SearchSpace(controlled(CARTPOLE), {"batch_size": (5, 7)})
    values = [p["batch_size"] for p in space.decode(np.linspace(0, 1, 50)[:, None])]
    assert set(values) == {5.0, 6.0, 7.0}
    assert (values[0], values[-1]) == (5.0, 7.0)


def test_shapes_have_equal_shares():
    space = SearchSpace(controlled(QUADRATIC), family="schedule")
    at = space.names.index("learning_rate/shape")
    candidates = np.full((301, 4), 0.5)
    candidates[:, at] = np.arange(301) / 300
    shapes = [p["learning_rate/shape"] for p in space.decode(candidates)]
    assert [shapes.count(shape) for shape in (0, 1, 2)] == [100, 100, 101]


@pytest.mark.parametrize(
    ("shape", "fraction", "positions"),
    [
        (0, 0.5, [0, 1 / 2, 1, 1]),
        (1, 1.0, [0, (1 - np.cos(np.pi / 4)) / 2, 1 / 2, (1 + np.cos(np.pi / 4)) / 2]),
        (2, 1.0, [0, 1 / 3, 2 / 3, 1]),
    ],
)
def test_the_table_of_a_schedule_by_hand(shape, fraction, positions):
    space = SearchSpace(
        controlled(CARTPOLE), {"learning_rate": (1e-6, 1e-1)}, "schedule"
    )
    candidate = space.encode(
        [
            {
                "learning_rate/start": 1e-2,
                "learning_rate/end": 1e-4,
                "learning_rate/shape": shape,
                "learning_rate/fraction": fraction,
            }
        ]
    )
    table = space.values(candidate, 4)
    assert table.shape == (4, 1, 3)
    rates = 10 ** (-2 - 2 * np.array(positions))  # along the log scale
    np.testing.assert_allclose(table[:, 0, 0], rates, rtol=1e-10)
    np.testing.assert_array_equal(table[:, 0, 1:], [[0.1, 64]] * 4)  # the defaults
    policy = space.policy(candidate[0], 4)
    assert isinstance(policy, OpenLoop)
    assert policy.values == {"learning_rate": table[:, 0, 0].tolist()}


def test_a_static_candidate_is_a_static_policy():
    space = SearchSpace(controlled(CARTPOLE), {"epsilon": (0, 0.5)})
    policy = space.policy([0.5], 4)
    assert isinstance(policy, Static)
    assert policy.config == {"epsilon": 0.25}
    np.testing.assert_array_equal(
        space.values([[0.5]], 2), [[[1e-3, 0.25, 64]], [[1e-3, 0.25, 64]]]
    )


# -- trials ---------------------------------------------------------------------------


def quadratic_trials(tuning_budget: int = 10_000, **options: Any) -> Trials:
    return Trials(QUADRATIC, tuning_budget, 0, Static(), **options)


def rates(*columns: float, decisions: int = 50) -> np.ndarray:
    return np.tile(np.array(columns)[:, None], (decisions, 1, 1))


def bits(runs: Trials, members: list[int]) -> dict[str, bytes]:
    assert runs._runs is not None
    return {
        name: np.asarray(leaf[members]).tobytes()
        for name, leaf in snapshot.leaves(runs._runs.state)
        if name != "wall_seconds"
    }


def test_scores_and_costs_are_those_of_the_environment():
    seeds = [11, 12, 13]
    runs = Trials(CARTPOLE, 6_000, 0, Static(), **SMALL)
    runs.begin(seeds)
    values = np.array([[1e-3, 0.1, 64], [1e-2, 0.5, 32], [1e-4, 0.9, 16]])
    seen = runs.advance(np.tile(values, (4, 1, 1)))

    envs = dacrl_env.PopulationEnv(CARTPOLE, 3, action_mode="values", **SMALL)
    envs.reset(seed=seeds)
    names = ("learning_rate", "epsilon", "batch_size")
    for k in range(4):
        *_, infos = envs.step(values)
        last = infos["final_info"] if k == 3 else infos
        np.testing.assert_array_equal(seen.scores[k], last["score"])
        for i, name in enumerate(names):
            np.testing.assert_array_equal(
                seen.applied[k, :, i], last["hyperparameters"][name]
            )
    spent = last["objectives"]
    np.testing.assert_array_equal(seen.best, spent["best"])
    np.testing.assert_array_equal(seen.auc, spent["auc"])
    assert runs.cost == Cost(
        6_000,
        int(spent["evaluation_steps"].sum()),
        int(spent["gradient_steps"].sum()),
        float(spent["flops"].sum()),
    )
    assert runs.cost.env_steps == spent["training_steps"].sum()
    assert runs.left == 0


@pytest.mark.parametrize("task", [QUADRATIC, CARTPOLE])
def test_selected_runs_go_on_bit_for_bit(task):
    options = SMALL | {"decision_interval": 200} if task == CARTPOLE else {}
    value = [0.05] if task == QUADRATIC else [1e-3, 0.1, 32]
    values = np.tile(np.array(value), (10, 4, 1)) * [[[1], [0.9], [0.8], [0.7]]]
    straight = Trials(task, 10_000, 0, Static(), **options)
    straight.begin([1, 2, 3, 4])
    whole = straight.advance(values)
    cut = Trials(task, 10_000, 0, Static(), **options)
    cut.begin([1, 2, 3, 4])
    cut.advance(values[:5])
    spent = cut.cost
    cut.select(np.array([2, 0]))
    assert cut.cost == spent
    rest = cut.advance(values[5:, [2, 0]])
    np.testing.assert_array_equal(rest.scores, whole.scores[5:, [2, 0]])
    np.testing.assert_array_equal(rest.auc, whole.auc[[2, 0]])
    assert bits(cut, [0, 1]) == bits(straight, [2, 0])
    # two runs of five decisions less
    less = 2 * 5 * cut.settings.decision_interval
    assert cut.cost.env_steps == straight.cost.env_steps - less


def test_forked_runs_start_where_their_parent_stood():
    runs = quadratic_trials()
    runs.begin([1, 2, 3])
    runs.advance(rates(0.05, 0.1, 0.2, decisions=20))
    before = runs.cost
    assert runs._runs is not None
    parent = runs._runs.state.learner.parameters[2].copy()
    runs.fork(np.array([2, 1, 2]))
    np.testing.assert_array_equal(runs._runs.state.learner.parameters[0], parent)
    assert runs.cost == before
    seen = runs.advance(rates(0.2, 0.1, 0.2, decisions=30))
    assert seen.scores[-1, 0] != seen.scores[-1, 2]  # streams of their own
    assert runs.cost.env_steps == 3 * 50


def test_only_finished_runs_are_judged_and_that_is_free():
    runs = quadratic_trials()
    runs.begin([1, 2])
    seen = runs.advance(rates(0.05, 0.1, decisions=49))
    with pytest.raises(ValueError, match="under way"):
        runs.judge()
    seen = runs.advance(rates(0.05, 0.1, decisions=1))
    before = runs.cost
    # the report of this task is exact, like its evaluation
    np.testing.assert_allclose(runs.judge(), seen.scores[-1])
    assert runs.cost == before


def test_diverged_runs_are_worse_than_any_other():
    runs = quadratic_trials()
    runs.begin([1, 1])
    seen = runs.advance(rates(1e2, 1e-4))
    assert seen.diverged.tolist() == [True, False]
    for name in trials.OBJECTIVES:
        assert seen.objective(name)[0] == -np.inf
        assert np.isfinite(seen.objective(name)[1])
    # steps after the end of a run are not trained
    assert runs.cost.env_steps < 2 * 50


def test_an_unknown_score_counts_as_diverged():
    one = np.ones(2)
    seen = Observed(np.array([[1.0, np.nan]]), one, one, one, np.zeros(2, bool))
    assert seen.objective("final").tolist() == [1.0, -np.inf]


def test_tuning_seeds_follow_from_the_seed_of_the_method():
    runs = quadratic_trials()
    assert runs.tuning_seeds(5)[2:] == runs.tuning_seeds(3, first=2)
    other = Trials(QUADRATIC, 10_000, 1, Static())
    assert not set(runs.tuning_seeds(50)) & set(other.tuning_seeds(50))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (rates(0.1, decisions=50), "shape"),
        (rates(0.1, 0.1, decisions=0), "shape"),
        (rates(0.1, 0.1, decisions=51), "more than is left of runs of 50"),
        (rates(0.1, 1e3, decisions=5), "range"),
    ],
)
def test_impossible_training_is_refused(values, message):
    runs = quadratic_trials()
    runs.begin([1, 2])
    with pytest.raises(ValueError, match=message):
        runs.advance(values)
    assert runs.cost == Cost()


def test_nothing_is_trained_beyond_the_budget():
    runs = quadratic_trials(99)
    runs.begin([1, 2])
    with pytest.raises(ValueError, match="tuning budget, 99"):
        runs.advance(rates(0.1, 0.1, decisions=50))
    assert runs.left == 99


# -- brackets and promotion -----------------------------------------------------------


def test_brackets_of_the_textbook():
    assert brackets(27, 3) == [
        [(27, 1), (9, 3), (3, 9), (1, 27)],
        [(12, 3), (4, 9), (1, 27)],
        [(6, 9), (2, 27)],
        [(4, 27)],
    ]
    # table 1 of the paper
    assert brackets(81, 3) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert brackets(16, 4) == [[(16, 1), (4, 4), (1, 16)], [(6, 4), (1, 16)], [(3, 16)]]


def test_fidelities_are_rounded_to_whole_decisions():
    assert brackets(20, 3) == [[(9, 2), (3, 7), (1, 20)], [(5, 7), (1, 20)], [(3, 20)]]
    assert brackets(1, 3) == [[(1, 1)]]
    assert brackets(5, 2)[0] == [(4, 1), (2, 3), (1, 5)]


@pytest.mark.parametrize("eta", [2, 3, 4, 7])
def test_every_bracket_ends_with_complete_runs(eta):
    for longest in range(1, 200):
        for rungs in brackets(longest, eta):
            counts, fidelities = zip(*rungs, strict=True)
            assert fidelities[-1] == longest
            assert list(fidelities) == sorted(set(fidelities))
            assert fidelities[0] >= 1
            assert min(counts) == counts[-1] >= 1


def test_what_a_bracket_takes_by_hand():
    # 9 runs of 2 decisions, 3 on to 7, 1 on to 20
    assert decisions([(9, 2), (3, 7), (1, 20)]) == 9 * 2 + 3 * 5 + 13
    assert decisions([(3, 20)]) == 60


def test_a_bracket_shrinks_to_what_can_be_paid():
    rungs = [(9, 2), (3, 7), (1, 20)]
    assert shrink(rungs, 3, 46) == shrink(rungs, 3, 1_000) == rungs
    assert shrink(rungs, 3, 45) == [(8, 2), (2, 7), (1, 20)]
    assert shrink(rungs, 3, 20) == [(1, 2), (1, 7), (1, 20)]
    assert shrink(rungs, 3, 19) == []


def test_promotion_by_hand():
    scores = np.array([0.3, np.nan, 0.9, -np.inf, 0.3, -0.5])
    assert promote(scores, 6).tolist() == [2, 0, 4, 5, 1, 3]
    assert promote(scores, 2).tolist() == [2, 0]


class Trace:
    """What a method asked of its trials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[int, int]] = []  # members, decisions
        self.begun: list[list[int]] = []
        self.selected: list[list[int]] = []
        self.values: list[np.ndarray] = []
        self.seen: list[Observed] = []
        begin, advance, select = Trials.begin, Trials.advance, Trials.select

        def begun(runs: Trials, seeds: Any, *configuration: Any) -> None:
            self.begun.append(list(seeds))
            begin(runs, seeds, *configuration)

        def advanced(runs: Trials, values: np.ndarray) -> Observed:
            self.trained.append((values.shape[1], len(values)))
            self.values.append(values)
            self.seen.append(advance(runs, values))
            return self.seen[-1]

        def selected(runs: Trials, members: Any) -> None:
            self.selected.append(list(members))
            select(runs, members)

        monkeypatch.setattr(Trials, "begin", begun)
        monkeypatch.setattr(Trials, "advance", advanced)
        monkeypatch.setattr(Trials, "select", selected)


@pytest.fixture
def trace(monkeypatch):
    return Trace(monkeypatch)


ROUND = [
    *[(27, 1), (9, 2), (3, 6), (1, 18)],
    *[(12, 3), (4, 6), (1, 18)],
    *[(6, 9), (2, 18)],
    *[(4, 27)],
]


@pytest.mark.parametrize("name", ["hyperband", "smac"])
def test_a_round_trains_the_increments_alone(trace, name):
    method = type(get_method(name))(space=STABLE)
    budget = sum(n * k for n, k in ROUND)
    fitted = method.fit(QUADRATIC, budget, 0, budget=27, decision_interval=1)
    assert trace.trained == ROUND
    assert fitted.cost.env_steps == budget
    assert [len(seeds) for seeds in trace.begun] == [27, 12, 6, 4]
    # the lineage tells who went on
    first = fitted.trace[fitted.trace["generation"] == 0]
    parents = [first[first["step"] == k]["parent"].tolist() for k in (2, 4, 10)]
    assert parents == trace.selected[:3]


def test_successive_halving_repeats_the_first_bracket_and_shrinks_the_last(trace):
    method = type(get_method("successive-halving"))(space=STABLE)
    first = [(27, 1), (9, 2), (3, 6), (1, 18)]
    budget = 2 * sum(n * k for n, k in first) + 40
    fitted = method.fit(QUADRATIC, budget, 0, budget=27, decision_interval=1)
    # ten candidates take 10 + 3 × 2 + 6 + 18 decisions
    assert trace.trained == [*first, *first, (10, 1), (3, 2), (1, 6), (1, 18)]
    assert fitted.cost.env_steps == budget


def test_survivors_are_charged_for_the_rungs_before():
    runs = quadratic_trials(budget=27, decision_interval=1)
    best = search.Incumbent(SearchSpace(runs.controlled, STABLE), runs)
    candidates = np.array([[0.1], [0.2], [0.3], [0.4]])
    race(best, candidates, [(4, 9), (2, 27)], 1, "final")
    first, *others = (cost.env_steps for cost, _ in best.course)
    assert first == 4 * 9 + 18
    assert others in ([], [4 * 9 + 2 * 18])


def test_what_pays_for_no_bracket_of_smac_goes_to_complete_runs(trace):
    method = type(get_method("smac"))(eta=2, space=STABLE)
    fitted = method.fit(QUADRATIC, 100 + 110 + 149, 0, **SHORT)
    bracket = [(4, 1), (2, 2), (1, 2)]
    assert trace.trained == [*bracket, (3, 3), (1, 2), (2, 5)]
    assert fitted.cost.env_steps == 100 + 110 + 100


@pytest.mark.parametrize("name", HALVING)
@pytest.mark.parametrize("objective", trials.OBJECTIVES)
def test_the_best_means_are_promoted(trace, name, objective):
    # all rates: many candidates diverge
    method = type(get_method(name))(eta=3, seeds=2, objective=objective)
    fitted = method.fit(
        QUADRATIC, 2 * 27 * 5, 0, budget=27, decision_interval=3
    )  # nine decisions
    assert len(trace.selected) >= 2
    steps = iter(trace.selected)
    for k, (members, _) in enumerate(trace.trained[:-1]):
        if trace.trained[k + 1][0] >= members:
            continue  # another bracket
        means = trace.seen[k].objective(objective).reshape(-1, 2).mean(1)
        kept = next(steps)
        count = trace.trained[k + 1][0] // 2
        assert kept[::2] == [i - 1 for i in kept[1::2]]  # both runs of a candidate
        chosen = np.array(kept[::2]) // 2
        assert len(set(chosen)) == count
        assert sorted(means[chosen]) == sorted(means)[-count:]
        # and they go on with their own values
        np.testing.assert_array_equal(
            trace.values[k + 1][0], trace.values[k][-1][np.array(kept)]
        )
    assert fitted.online is not None


# -- all methods ----------------------------------------------------------------------


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("budget", [500, 777])
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


@pytest.mark.parametrize("spec", METHODS)
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
        frame = dacrl_env.evaluate(policy, QUADRATIC, range(64), split="test")
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


@pytest.mark.parametrize("name", SEARCHERS)
def test_schedules_can_be_searched(name):
    method = get_method(f"{name},family='schedule'")
    fitted = method.fit(QUADRATIC, 1_000, 0, **SHORT)
    assert isinstance(fitted.policy, OpenLoop)
    assert fitted.decisions == 5
    frame = dacrl_env.evaluate(fitted, QUADRATIC, seeds=[0], **SHORT)
    ends = frame[frame["env_steps"].isin(range(10, 51, 10))]
    applied = ends["hp/learning_rate"].to_numpy()
    np.testing.assert_array_equal(applied, fitted.policy.values["learning_rate"])


@pytest.mark.parametrize("name", SEARCHERS)
def test_switches_can_be_searched(name):
    method = get_method(f"{name},family='switch'")
    fitted = method.fit(QUADRATIC, 1_000, 0, **SHORT)
    assert isinstance(fitted.policy, Switch)
    frame = dacrl_env.evaluate(fitted, QUADRATIC, seeds=[0, 1], **SHORT)
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


@pytest.mark.parametrize("spec", METHODS)
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


@pytest.mark.parametrize("after", [2, 6, 9])
@pytest.mark.parametrize("spec", [*METHODS, STEERED])
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

    rest: list[int] = []
    resumed = get_method(spec).fit(QUADRATIC, 500, 0, store, rest.append, **options)
    assert rest == whole[sum(lengths) :]
    assert trained or after == 2
    assert resumed.cost == expected.cost
    assert resumed.online == expected.online
    pd.testing.assert_frame_equal(resumed.trace, expected.trace)
    assert [(c, to_json(p)) for c, p in resumed.incumbents] == [
        (c, to_json(p)) for c, p in expected.incumbents
    ]
    # all of it is in the journal now, but for what followed the last commit
    again: list[int] = []
    get_method(spec).fit(QUADRATIC, 500, 0, store, again.append, **options)
    assert again == []


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


# -- sequential halving ---------------------------------------------------------------


@pytest.mark.parametrize(("runs", "n"), [(1, 2), (9, 4), (15, 5), (383, 63), (384, 64)])
def test_candidates_that_are_paid_for_by_hand(runs, n):
    assert most_candidates(runs) == n


def test_every_round_has_half_of_the_candidates_on_fresh_seeds(trace):
    method = SequentialHalving(
        {"learning_rate": (0.02, 0.5)},  # which is best differs by seed
        candidates=6,
        start={"learning_rate": 0.1},
    )
    # of a seed with which the last round alone would take another
    fitted = method.fit(QUADRATIC, 50 * 50, 4)
    # 50 runs in 3 rounds: 2 for each of 6, 5 for each of 3, 8 for each of 2
    own = Trials(QUADRATIC, 50, 4, method).tuning_seeds(15)
    assert trace.begun == [own[:2] * 6, own[2:7] * 3, own[7:] * 2]
    assert fitted.cost.env_steps <= 50 * 43
    # by the mean over all rounds
    runs = [
        (values[0, ::each, 0], seen.objective("final").reshape(-1, each))
        for values, seen, each in zip(trace.values, trace.seen, (2, 5, 8), strict=True)
    ]
    means = dict(zip(runs[0][0], runs[0][1], strict=True))
    for rates, scores in runs[1:]:
        best = sorted(means, key=lambda rate: -means[rate].mean())[: len(rates)]
        assert rates.tolist() == best
        means = {
            rate: np.append(means[rate], more)
            for rate, more in zip(rates, scores, strict=True)
        }
    best = max(means, key=lambda rate: means[rate].mean())
    assert fitted.policy.config == {"learning_rate": best}
    assert [p.config["learning_rate"] for _, p in fitted.incumbents][-1] == best


def test_sequential_halving_begins_where_it_is_told(trace):
    method = get_method("sequential-halving,candidates=4,start={'learning_rate':0.01}")
    method.fit(QUADRATIC, 8 * 50, 0)
    assert trace.values[0][0, 0, 0] == 0.01


@pytest.mark.parametrize("family", ["schedule", "switch", "gate"])
def test_a_configuration_can_hold_throughout(family):
    names = ("learning_rate", "epsilon")
    space = SearchSpace(controlled(CARTPOLE, *names), family=family)
    given = space.constant({"learning_rate": 0.05, "epsilon": 0.25})
    assert len(given) == 4
    candidate = default_candidate(space, given)
    if space.reactive:
        rule = space.rule([candidate, candidate], 10)
        rows = {name: np.float32([-1, 1]) for name in space.rows}
        scores = np.array([0.0, 1.0])
        values = rule(scores, scores, rows)
    else:
        values = space.values(candidate, 10)[:, 0]
    np.testing.assert_allclose(values, np.tile([0.05, 0.25], (len(values), 1)), 1e-6)
    assert space.constant({}) == {}


def test_static_configurations_first_then_the_family_from_the_best(trace):
    rates = {"learning_rate": (0.02, 0.5)}
    method = SequentialHalving(rates, "schedule", candidates=4, static_first=True)
    fitted = method.fit(QUADRATIC, 2 * 20 * 50, 4)
    # 20 runs each time: 2 for each of 4, 5 for each of 2; no seed twice
    own = Trials(QUADRATIC, 50, 4, method).tuning_seeds(14)
    halves = [own[:2] * 4, own[2:7] * 2, own[7:9] * 4, own[9:] * 2]
    assert trace.begun == halves
    static = [policy for _, policy in fitted.incumbents[:2]]
    assert all(isinstance(policy, Static) for policy in static)
    (best,) = static[-1].config.values()
    assert best != 0.5  # the default, cut to the range
    # the first of the schedules keeps it, the others do not
    schedules = trace.values[2][:, ::2, 0]
    assert (schedules[:, 0] == best).all()
    assert (schedules[:, 1:] != best).any(0).all()
    assert isinstance(fitted.policy, OpenLoop)
    # alone it is the same search of static ones
    alone = SequentialHalving(rates, candidates=4).fit(QUADRATIC, 20 * 50, 4)
    assert alone.policy.config == {"learning_rate": best}


def test_where_the_family_begins_is_told_on_top_of_the_static_configuration(trace):
    method = SequentialHalving(
        family="schedule", candidates=2, start={"learning_rate/end": 7.0},
        static_first=True,
    )  # fmt: skip
    fitted = method.fit(QUADRATIC, 4 * 50, 0)
    (found,) = fitted.incumbents[0][1].config.values()
    first = trace.values[1][:, 0, 0]
    assert first[0] == found
    assert first[-1] == pytest.approx(7.0, rel=0.2)


def test_static_configurations_are_not_searched_twice():
    with pytest.raises(
        ValueError, match="schedule, freeze, switch, gate; the family is static"
    ):
        get_method("sequential-halving,static_first=True")
    with pytest.raises(
        ValueError, match=r"below 2 rounds of 4 runs, twice, .* 800,000"
    ):
        get_method(
            "sequential-halving,candidates=4,family='switch',static_first=True"
        ).fit(CARTPOLE, 799_999, 0)


def test_a_generation_begins_around_the_winner_of_the_one_before(trace):
    method = SequentialHalving(
        {"learning_rate": (0.02, 0.5)}, candidates=4, generations=2
    )
    fitted = method.fit(QUADRATIC, 2 * 20 * 50, 4)
    # 20 runs each time: 2 for each of 4, 5 for each of 2; no seed twice
    own = Trials(QUADRATIC, 50, 4, method).tuning_seeds(14)
    assert trace.begun == [own[:2] * 4, own[2:7] * 2, own[7:9] * 4, own[9:] * 2]
    (winner,) = fitted.incumbents[1][1].config.values()
    second = trace.values[2][0, ::2, 0]
    assert second[0] == winner
    assert len(set(second)) == 4
    # one generation is the first of them
    alone = SequentialHalving({"learning_rate": (0.02, 0.5)}, candidates=4)
    assert alone.fit(QUADRATIC, 20 * 50, 4).policy.config == {"learning_rate": winner}


class MadeUp:
    """Runs that are not trained: one peak somewhere in many dimensions, and noise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.generator = np.random.default_rng((seed, 99))
        self.peak: Any = None
        module = sys.modules[SequentialHalving.__module__]
        monkeypatch.setattr(module, "go_on", self.go_on)
        monkeypatch.setattr(Trials, "begin", lambda *_: None)
        monkeypatch.setattr(Trials, "judge", lambda _: np.zeros(self.size))
        monkeypatch.setattr(Trials, "fitted", lambda _, policy, *__: policy)

    def height(self, places: np.ndarray) -> np.ndarray:
        if self.peak is None:
            self.peak, self.narrow = self.generator.random((2, places.shape[1]))
        return np.exp(-(4 * self.narrow * (places - self.peak) ** 2).sum(1))

    def go_on(
        self, trials: Any, space: Any, candidates: Any, each: int, *_: Any
    ) -> Any:
        self.size = len(candidates) * each
        noise = 0.3 * self.generator.standard_normal(self.size)
        scores = np.repeat(self.height(candidates), each) + noise
        self.last = candidates[0]
        return SimpleNamespace(objective=lambda name: scores)


def test_generations_find_better_ones_in_many_dimensions(monkeypatch):
    options = SMALL | {"hyperparameters": DQN_NAMES}
    space = SearchSpace(controlled(CARTPOLE, *DQN_NAMES))
    heights = np.empty((2, 16))
    for k in range(heights.shape[1]):
        for row, generations in enumerate((1, 4)):
            made_up = MadeUp(monkeypatch, k)
            method = SequentialHalving(generations=generations)
            policy: Any = method.fit(CARTPOLE, 1_000 * 2_000, k, **options)
            heights[row, k] = made_up.height(space.encode([policy.config]))[0]
    gain = heights[1] - heights[0]
    assert gain.mean() > 0.05
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5


@pytest.mark.parametrize("G", [0, 1.5, True])
def test_numbers_of_generations_are_checked(G):
    with pytest.raises(ValueError, match="generations must be a whole number"):
        SequentialHalving(generations=G)


def test_static_configuration_is_searched_too(trace, tmp_path):
    configurations = {"hidden_sizes": [(16,), (32, 32)], "activation": ["relu", "tanh"]}
    method = SequentialHalving(
        candidates=8, configurations=configurations, objective="auc"
    )
    options = SMALL | {"hidden_sizes": (16,)}
    fitted = method.fit(CARTPOLE, 24 * 2_000, 2, Store(tmp_path), **options)
    rows = fitted.trace[fitted.trace["step"] == 1]
    first = rows.head(8)
    # the first candidate has what runs have otherwise; all are trained as they say
    assert first["configuration"].isna().iloc[0]
    known = [json.loads(text) for text in first["configuration"].dropna()]
    assert {tuple(sorted(c)) for c in known} > {("activation",), ("hidden_sizes",)}
    assert all(c.get("hidden_sizes", [32, 32]) == [32, 32] for c in known)
    assert all(c.get("activation", "tanh") == "tanh" for c in known)
    # a population for each, and every candidate of a round on the same seeds
    own = Trials(CARTPOLE, 2_000, 2, method, **SMALL).tuning_seeds(1)
    of_round = [seeds for seeds in trace.begun if set(seeds) == set(own)]
    assert sum(map(len, of_round)) == 8
    assert len(of_round) == len(set(first["configuration"].fillna("")))
    # again from the journal
    again = method.fit(CARTPOLE, 24 * 2_000, 2, Store(tmp_path), **options)
    assert to_json(again.policy) == to_json(fitted.policy)
    assert again.cost == fitted.cost
    # the policy brings its configuration along
    policy = Static({"hidden_sizes": [32, 32]}, learning_rate=1e-3)
    assert suitable_options(policy, get_task(CARTPOLE), {})["hidden_sizes"] == [32, 32]
    given = suitable_options(policy, get_task(CARTPOLE), {"hidden_sizes": (8,)})
    assert given["hidden_sizes"] == (8,)


def test_static_configurations_that_runs_cannot_have_are_drawn_again():
    # a decision has 5,120 steps: a rollout of 4 × 1,280 divides it, none of 8 × 1,280
    menu = {"num_inner_envs": [4], "rollout_length": [64, 1_280]}
    runs = Trials("dacrl/PPO-CartPole-v0", 102_400, 0, SequentialHalving())
    with pytest.raises(ValueError, match=r"rollout_length 100: .* does not divide"):
        search.search_space(
            runs, None, "static", configurations={"rollout_length": [100]}
        )
    space = search.search_space(runs, None, "static", configurations=menu)
    generator = np.random.default_rng(0)
    drawn = search.within(
        runs, space, space.sample(generator, 30), None,
        lambda n: space.sample(generator, n),
    )  # fmt: skip
    found = {
        (c.get("num_inner_envs", 8), c.get("rollout_length", 128))
        for c in map(space.configuration, drawn[1:])
    }
    assert found == {(4, 64), (4, 128), (4, 1_280), (8, 64), (8, 128)}
    # a larger network is more work
    nets = {"hidden_sizes": [(256, 256)]}
    space = search.search_space(runs, None, "static", configurations=nets)
    names = [d.name for d in space.dimensions]
    pair = np.tile(default_candidate(space), (2, 1))
    pair[1, names.index("configuration/hidden_sizes")] = 0.9
    work = search.work_of(runs, space, pair)
    assert work[0] == 1
    assert work[1] > 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hiden_sizes": [(8,)]}, "unknown configuration of dqn 'hiden_sizes'"),
        ({"activation": ["swish"]}, "configuration activation 'swish': .*relu"),
        ({"hidden_sizes": 8}, "must be a list of options"),
    ],
)
def test_static_configurations_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        SequentialHalving(configurations=wrong).fit(CARTPOLE, 400_000, 0)


def test_static_configurations_belong_to_the_family_static():
    nets = {"hidden_sizes": [[8]]}
    method = SequentialHalving(family="schedule", configurations=nets)
    with pytest.raises(ValueError, match="by the family static alone"):
        method.fit(CARTPOLE, 400_000, 0)


@pytest.mark.parametrize("n", [1, 2.5])
def test_numbers_of_candidates_are_checked(n):
    with pytest.raises(ValueError, match="candidates must be a whole number"):
        SequentialHalving(candidates=n)


def test_a_budget_below_the_rounds_names_them():
    with pytest.raises(ValueError, match=r"below 2 rounds of 4 runs, .* take 400,000"):
        get_method("sequential-halving,candidates=4").fit(CARTPOLE, 399_999, 0)


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
    told = search.Tellable(runs)
    floor = runs.task.floor_score
    assert told(np.array([0.5, -np.inf])) == [0.5, floor - 0.1]
    assert told(np.array([np.nan, floor - 1, -np.inf])) == [
        pytest.approx(floor - 1.1),
        floor - 1,
        pytest.approx(floor - 1.1),
    ]


@pytest.mark.parametrize("spec", ["tpe", "smac"])
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


@pytest.mark.parametrize("spec", ["tpe,generation=4,startup=8", "smac,eta=2"])
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


def test_candidates_that_take_too_much_work_are_drawn_again() -> None:
    names = ("train_freq", "gradient_steps", "batch_size")
    runs = Trials(CARTPOLE, 50_000, 0, SequentialHalving(), hyperparameters=names)
    space = SearchSpace(runs.controlled)
    # a gradient step of 64 each 4 steps is the default
    heavy = runs.work(np.array([[4.0, 1.0, 64.0], [4.0, 4.0, 64.0], [4.0, 1.0, 32.0]]))
    assert heavy[0] == 1.0
    assert heavy[1] == pytest.approx(4.0, rel=0.1)
    assert heavy[2] == pytest.approx(0.5, rel=0.2)
    generator = np.random.default_rng(0)
    drawn = space.sample(generator, 64)

    def work(candidates: Any) -> Any:
        return runs.work(space.values(candidates, 1)[0])

    drawn = drawn[np.argsort(-work(drawn))]
    assert (work(drawn)[:2] > 2.0).all()
    kept = search.within(runs, space, drawn, 2.0, lambda n: space.sample(generator, n))
    assert (work(kept)[1:] <= 2.0).all()
    np.testing.assert_array_equal(kept[0], drawn[0])  # whatever it takes
    light = work(drawn) <= 2.0
    np.testing.assert_array_equal(kept[light], drawn[light])
    assert search.within(runs, space, drawn, None, space.sample) is drawn  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="raise most_work, or narrow the space"):
        search.within(runs, space, drawn[:2], 1e-9, lambda n: drawn[1:][:n])


def test_where_no_work_is_counted_all_take_the_same() -> None:
    runs = Trials(QUADRATIC, 500, 0, SequentialHalving())
    assert runs.work(np.array([[0.1], [0.2]])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"most_work": 0.0}, "most_work must be positive"),
        ({"most_work": 2.0, "family": "gate"}, "not known of the family gate"),
    ],
)
def test_a_limit_of_work_that_makes_no_sense(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequentialHalving(**wrong)


def test_few_of_many_dimensions_differ_near_the_centre() -> None:
    space = SearchSpace(controlled(CARTPOLE, *DQN_NAMES), family="schedule")
    centre = default_candidate(space)
    near = search.around(space, centre, np.random.default_rng(0), 401)[1::2]
    changed = (near != centre).sum(1)
    assert len(space.names) == 36
    assert 4.0 < changed.mean() < 6.0


def test_the_family_checkpoint_saves_the_best_and_restores_after_a_fall() -> None:
    knobs = controlled(CARTPOLE, "learning_rate", "checkpoint")
    space = SearchSpace(knobs, {"learning_rate": (1e-4, 1e-2)}, "checkpoint")
    assert space.names == ("fall", "learning_rate")
    candidate = space.encode([{"fall": 0.2, "learning_rate": 3e-3}])
    rule = space.rule(candidate.repeat(4, 0), 8)
    scores, best = np.array([np.nan, 0.5, 0.5, 0.5]), np.array([np.nan, 0.5, 0.6, 0.8])
    values = rule(scores, best, {})
    np.testing.assert_allclose(values[:, 0], 3e-3)
    options = [knobs[1].native(code) for code in values[:, 1]]
    assert options == ["none", "save", "none", "restore"]
    policy = space.policy(candidate[0], 8)
    assert to_json(policy) == {
        "kind": "checkpoint",
        "arguments": {"fall": pytest.approx(0.2), "learning_rate": pytest.approx(3e-3)},
    }
    with pytest.raises(ValueError, match="unknown hyperparameter 'checkpoint'"):
        SearchSpace(controlled(CARTPOLE, "learning_rate"), family="checkpoint")


def test_a_divergence_among_many_runs_counts_with_the_floor() -> None:
    # of each candidate that is left in the end some run diverges
    start = {"learning_rate/start": 0.125346634846, "learning_rate/end": 0.125346634846}
    method = SequentialHalving(family="schedule", start=start)
    found = dacrl_env.fit(method, QUADRATIC, 200 * 50, 1)
    assert found.online is not None
    assert 0.3 < found.online < 0.5
