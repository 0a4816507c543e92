"""Sequential halving: rounds, generations, static configuration, limits of work."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dacrl_env.baselines.race import default_candidate
from dacrl_env.baselines.sequential_halving import SequentialHalving, most_candidates
from searches import (
    CARTPOLE,
    DQN_NAMES,
    QUADRATIC,
    SMALL,
    controlled,
)

import dacrl_env
from dacrl_env import get_task
from dacrl_env.comparison.evaluation import suitable_options
from dacrl_env.core.store import Store
from dacrl_env.methods import search
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.policies import get_method, to_json
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static

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
        ValueError, match=r"schedule, freeze, .*, swap, .*, gate; the family is static"
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


def test_the_first_candidate_takes_part_in_all_rounds_if_that_is_asked_for(trace):
    """Its rate is the worst there is, so that it would not be left otherwise."""
    method = SequentialHalving(
        {"learning_rate": (0.02, 0.5)}, candidates=6, start={"learning_rate": 0.02},
        keep_first=True,
    )  # fmt: skip
    fitted = method.fit(QUADRATIC, 50 * 50, 4)
    rounds = [
        values[0, ::each, 0]
        for values, each in zip(trace.values, (2, 5, 8), strict=True)
    ]
    assert [len(rates) for rates in rounds] == [6, 3, 2]
    assert all(0.02 in rates for rates in rounds)
    # the others are those that are left without it
    trace.values.clear()
    SequentialHalving(
        {"learning_rate": (0.02, 0.5)}, candidates=6, start={"learning_rate": 0.02}
    ).fit(QUADRATIC, 50 * 50, 4)
    plain = [
        values[0, ::each, 0]
        for values, each in zip(trace.values, (2, 5, 8), strict=True)
    ]
    assert 0.02 not in plain[1]
    assert {*rounds[1]} - {0.02} == {*plain[1][:2]}
    assert fitted.policy.config != {"learning_rate": 0.02}


@pytest.mark.slow
def test_few_runs_lose_no_good_start_that_is_kept(monkeypatch):
    options = SMALL | {"hyperparameters": DQN_NAMES}
    space = SearchSpace(controlled(CARTPOLE, *DQN_NAMES))
    lost = np.empty((2, 48))
    for k in range(lost.shape[1]):
        for row, keep in enumerate((False, True)):
            made_up = MadeUp(monkeypatch, k)
            made_up.height(np.zeros((1, len(space.names))))
            (start,) = space.decode(made_up.peak)
            method = SequentialHalving(generations=3, start=start, keep_first=keep)
            policy: Any = method.fit(CARTPOLE, 120 * 2_000, k, **options)
            lost[row, k] = 1 - made_up.height(space.encode([policy.config]))[0]
    gain = lost[0] - lost[1]
    assert gain.mean() > 0.02
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


def test_random_search_may_be_held_to_a_work() -> None:
    names = ("train_freq", "gradient_steps")
    small = {"budget": 200, "decision_interval": 100, "learning_starts": 100}
    given = {**small, "eval_episodes": 1, "hyperparameters": names}
    runs = Trials(CARTPOLE, 50_000, 0, SequentialHalving(), **given)
    work = {}
    for most in (None, 1.5):
        method = get_method(f"random-search,most_work={most}")
        trace = method.fit(CARTPOLE, 40 * 200, 0, **given).trace
        values = trace.groupby(["generation", "member"])[[f"hp/{n}" for n in names]]
        work[most] = runs.work(values.first().to_numpy())
        assert len(work[most]) == 40
    light = work[None] <= 1.5
    assert 0 < light.sum() < 40
    assert (work[1.5] <= 1.5).all()
    # those that are light enough are the same
    np.testing.assert_array_equal(work[1.5][light], work[None][light])


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
    found = dacrl_env.fit(QUADRATIC, method, 200 * 50, 1)
    assert found.online is not None
    assert 0.3 < found.online < 0.5
