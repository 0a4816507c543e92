"""The runs that methods spend, brackets and promotion."""

from __future__ import annotations

import numpy as np
import pytest
from searches import (
    CARTPOLE,
    HALVING,
    QUADRATIC,
    SHORT,
    SMALL,
    STABLE,
    quadratic_trials,
    rates,
)

import dacrl_env
from dacrl_env.core import snapshot
from dacrl_env.methods import search, trials
from dacrl_env.methods.rungs import brackets, decisions, promote, race, shrink
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Observed, Trials
from dacrl_env.policies import Cost, get_method
from dacrl_env.policies.static import Static

# -- trials ---------------------------------------------------------------------------


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
    seen = Observed(np.array([[1.0, np.nan]]), one, one, one, np.zeros(2, bool), one)
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
