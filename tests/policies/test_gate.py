"""Controllers of one hidden unit, and their search by CMA-ES."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dacrl_env.baselines.cma_es import CMAES
from dacrl_env.baselines.race import default_candidate

import dacrl_env
from dacrl_env.methods import search
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.observations import signed_decades
from dacrl_env.policies import get_method, get_policy, save_fitted
from dacrl_env.policies.network import Controller
from dacrl_env.tasks import Number
from dacrl_env.tasks.registration import get_task

CARTPOLE = "dacrl/DQN-CartPole-v0"
QUADRATIC = "dacrl/NoisyQuadratic-v0"
SHORT: dict[str, Any] = {
    "budget": 4_000,
    "decision_interval": 500,
    "eval_episodes": 2,
    "learning_starts": 200,
    "hyperparameters": ("learning_rate", "epsilon"),
}


def gate(trials: Trials, **options: Any) -> SearchSpace:
    return search.search_space(trials, None, "gate", **options)


@pytest.fixture
def trials() -> Trials:
    return Trials(CARTPOLE, 40_000, 0, CMAES(), **SHORT)


def test_a_candidate_by_hand(trials):
    space = gate(trials)
    assert space.names == (
        "gate/bias",
        "gate/progress",
        "gate/return/level",
        "learning_rate/below",
        "learning_rate/above",
        "epsilon/below",
        "epsilon/above",
    )
    task = get_task(CARTPOLE)
    low, high = signed_decades(np.array([task.random_return, task.reference_return]))
    parameters = {
        "gate/bias": -1.0,
        "gate/progress": 2.0,
        "gate/return/level": 3.0,
        "learning_rate/below": 1e-1,
        "learning_rate/above": 1e-3,
        "epsilon/below": 1.0,
        "epsilon/above": 0.0,
    }
    rule = space.rule(space.encode([parameters] * 3), 8)
    # at scores 0 and 1 the level is -1 and 1
    rows = {
        "return/level": np.array([low, (low + high) / 2, high], np.float32),
        "progress": np.array([-1.0, 0.5, 1.0], np.float32),
    }
    values = rule(*[np.full(3, np.nan)] * 2, rows)
    share = (1 + np.tanh([-6.0, 0.0, 4.0])) / 2  # of the way from below to above
    np.testing.assert_allclose(values[:, 0], 10 ** (-1 - 2 * share), rtol=1e-4)
    # actions 1 and -1, of which 0 is the default, 0.1
    positions = 1 - 2 * share
    expected = np.where(positions > 0, 0.1 + 0.9 * positions, 0.1 + 0.1 * positions)
    np.testing.assert_allclose(values[:, 1], expected, atol=1e-5)
    with pytest.raises(ValueError, match="unknown observation row 'return/level'"):
        rule(*[np.zeros(3)] * 2, {"progress": np.zeros(3, np.float32)})


def test_searching_runs_what_the_policy_does(trials):
    space = gate(trials)
    candidates = space.sample(np.random.default_rng(0), 3)
    seeds = trials.tuning_seeds(2)
    trials.begin(seeds * 3)
    search.go_on(trials, space, candidates, 2, 0, 8)
    trace = trials.fitted(space.policy(candidates[2], 8)).trace
    assert trace is not None
    for k, candidate in enumerate(candidates):
        policy = space.policy(candidate, 8)
        assert isinstance(policy, Controller)
        frame = dacrl_env.evaluate(CARTPOLE, policy, seeds, "tuning", **SHORT)
        for j, seed in enumerate(seeds):
            mine = trace[trace["member"] == 2 * k + j]
            theirs = frame[(frame["seed"] == seed) & (frame["step"] > 0)]
            theirs = theirs[theirs["eval_return"].notna()]
            for column in ("score", "hp/learning_rate", "hp/epsilon"):
                np.testing.assert_array_equal(mine[column], theirs[column])
            assert mine["hp/learning_rate"].nunique() > 1


def test_the_default_is_the_first_candidate(trials):
    space = gate(trials, rows=("progress", "return/now"))
    centre = default_candidate(space)
    rule = space.rule(centre[None], 8)
    seen = np.array([0.7], np.float32)
    values = rule(*[np.zeros(1)] * 2, {"progress": seen, "return/now": -seen})
    np.testing.assert_allclose(values, [[1e-3, 0.1]], rtol=1e-6)


def test_another_start(trials):
    space = gate(trials)
    start = {"gate/bias": -2.0, "learning_rate/above": 1e-6}
    (parameters,) = space.decode(default_candidate(space, start))
    assert parameters == pytest.approx(
        {
            "gate/bias": -2.0,
            "gate/progress": 1.0,
            "gate/return/level": 1.0,
            "learning_rate/below": 1e-3,
            "learning_rate/above": 1e-6,
            "epsilon/below": 0.1,
            "epsilon/above": 0.1,
        }
    )
    with pytest.raises(ValueError, match="unknown parameter 'gate/level'"):
        CMAES(family="gate", start={"gate/level": 1}).fit(QUADRATIC, 10_000, 0)
    with pytest.raises(ValueError, match=r"gate/bias = 5\.0 lies outside"):
        default_candidate(space, {"gate/bias": 5})


@pytest.mark.parametrize(
    ("rows", "message"), [((), "got none"), (("progress",) * 2, "each once")]
)
def test_rows_that_make_no_gate(trials, rows, message):
    with pytest.raises(ValueError, match=message):
        gate(trials, rows=rows)


def test_the_distribution_begins_at_the_start():
    fitted = CMAES(
        seeds=1, generation=8, sigma=0.01, start={"learning_rate": 1e-2}
    ).fit(QUADRATIC, 400, 0)
    rates = np.log10(fitted.trace["hp/learning_rate"])
    assert abs(rates.mean() + 2) < 0.1
    assert rates.std() < 0.2


def test_bounds_hold_and_others_keep_their_default(trials):
    space = search.search_space(
        trials, {"epsilon": (0.2, 0.6)}, "gate", rows=("progress",)
    )
    assert space.names == (
        "gate/bias",
        "gate/progress",
        "epsilon/below",
        "epsilon/above",
    )
    candidates = space.sample(np.random.default_rng(0), 100)
    rule = space.rule(candidates, 8)
    rows = {"progress": np.linspace(-1, 1, 100, dtype="f4")}
    values = rule(*[np.zeros(100)] * 2, rows)
    np.testing.assert_allclose(values[:, 0], 1e-3)
    assert 0.2 - 1e-6 <= values[:, 1].min() < 0.25
    assert 0.55 < values[:, 1].max() <= 0.6 + 1e-6


def test_a_controller_is_found_kept_and_shuffled(tmp_path):
    bad = Number("learning_rate", 1e-4, 1e2, 1e-3, "log")
    method = get_method("cma-es,family='gate',generation=8,seeds=4")
    fitted = method.fit(QUADRATIC, 320 * 50, 0, hyperparameters=(bad,))
    save_fitted(fitted, tmp_path / "policy.safetensors", {})
    again = get_policy(str(tmp_path / "policy.safetensors"))
    frames = {
        name: dacrl_env.evaluate(QUADRATIC, policy, range(128), hyperparameters=(bad,))
        for name, policy in {
            "default": "default",
            "found": fitted,
            "kept": again,
            "shuffled": fitted.policy.shuffled(),
        }.items()
    }
    scores = {k: f.groupby("seed")["score"].last() for k, f in frames.items()}
    np.testing.assert_array_equal(scores["found"], scores["kept"])
    gain = scores["found"] - scores["default"]
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))
    assert scores["found"].mean() > 0.5
    assert not scores["found"].equals(scores["shuffled"])


def test_each_generation_has_seeds_of_its_own(monkeypatch):
    begun: list[list[int]] = []
    begin = Trials.begin

    def recorded(self: Trials, seeds: Any) -> None:
        begun.append(list(seeds))
        begin(self, seeds)

    monkeypatch.setattr(Trials, "begin", recorded)
    CMAES(generation=4, seeds=2).fit(QUADRATIC, 3 * 8 * 50, 0, decision_interval=10)
    assert all(seeds == seeds[:2] * 4 for seeds in begun)
    assert len({seed for seeds in begun for seed in seeds}) == 2 * len(begun) >= 6


def test_what_comes_out_is_no_candidate():
    fitted = CMAES(generation=4, seeds=1).fit(QUADRATIC, 500, 0, decision_interval=10)
    rates = fitted.trace["hp/learning_rate"]
    assert fitted.policy.config["learning_rate"] not in set(rates)
    assert fitted.online is None
