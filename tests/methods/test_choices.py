"""Choices and events in searches, schedules, rules and the files of policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from cases import slow
from dacrl_env.baselines.grid_search import GridSearch
from dacrl_env.baselines.pb2 import PB2, chosen_options
from dacrl_env.baselines.pbt import PBT, explore

import dacrl_env
from dacrl_env import Choice, Event, Number
from dacrl_env.methods.evolution import Course
from dacrl_env.methods.search import default_candidate
from dacrl_env.methods.search_space import FAMILIES, SearchSpace
from dacrl_env.methods.trials import Observed
from dacrl_env.outer.actions import ActionMap
from dacrl_env.policies import get_method, get_policy, to_json
from dacrl_env.policies.checkpoint_when_best import CheckpointWhenBest
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.restart_when_poor import RestartWhenPoor
from dacrl_env.policies.schedules import Schedule
from dacrl_env.policies.static import Static
from dacrl_env.policies.swap_when_fallen import SwapWhenFallen
from dacrl_env.policies.switch import Switch

DQN = "dacrl/DQN-CartPole-v0"
KNOBS = (
    Number("learning_rate", 1e-4, 1e-1, 1e-3, "log"),
    Choice("loss", ("huber", "mse", "log"), "mse"),
    Event("reset_head"),
)
REGISTER = Event("checkpoint", ("none", "save", "restore"))
NAMES = ["learning_rate", "loss", "double_q", "reset_head"]
SHORT: dict[str, Any] = {
    "hyperparameters": NAMES,
    "run_budget": 1_000,
    "decision_interval": 250,
    "eval_episodes": 1,
    "learning_starts": 100,
}


def space(family: str = "static", bounds: Any = None) -> SearchSpace:
    more = {
        "checkpoint": (REGISTER,),
        "restart": (Event("reset_all"),),
        "swap": (Event("swap", ("none", "fresh", "copy")),),
    }
    return SearchSpace((*KNOBS, *more.get(family, ())), bounds, family)


def test_events_are_not_searched() -> None:
    assert [h.name for h in space().searched] == ["learning_rate", "loss"]
    with pytest.raises(ValueError, match="reset_head: events are not searched"):
        space(bounds={"reset_head": (False, True)})


def test_options_have_equal_shares() -> None:
    searched = space()
    u = (np.arange(300) + 0.5) / 300
    rows = searched.decode(np.stack([np.full(300, 0.5), u], 1))
    assert [row["loss"] for row in rows] == [0.0] * 100 + [1.0] * 100 + [2.0] * 100
    back = searched.encode(rows)
    assert [r["loss"] for r in searched.decode(back)] == [r["loss"] for r in rows]


def test_some_of_the_options() -> None:
    searched = space(bounds={"loss": ["log", "huber"]})
    values = searched.values(np.array([[0.2], [0.7]]), 3)
    assert values.shape == (3, 2, 3)
    # in the order of the task's own options, and no event
    assert values[..., 1].tolist() == [[2.0, 0.0]] * 3
    assert (values[..., 2] == 0).all()
    assert searched.policy([0.2], 3).arguments() == {"loss": "log"}
    # mse, the default, is not among them
    assert searched.decode(default_candidate(searched))[0] == {"loss": 2.0}


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"loss": ["huber", "hubr"]}, "no option 'hubr'"),
        ({"loss": ["huber"]}, "at least two options"),
        ({"loss": "huber"}, "must be a list of its options"),
        ({"loss": {"huber"}}, "must be a list of its options"),
        ({"learning_rate": ["huber", "mse"]}, "may be values to choose from"),
    ],
)
def test_wrong_options(bounds: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        space(bounds=bounds)


def test_a_grid_has_every_option_once() -> None:
    rows = space().decode(space().grid(4))
    assert len(rows) == 12
    assert {row["loss"] for row in rows} == {0.0, 1.0, 2.0}
    assert len({tuple(row.values()) for row in rows}) == 12


def test_a_schedule_changes_its_option_at_the_fraction() -> None:
    searched = space("schedule", {"loss": ["huber", "mse", "log"]})
    assert searched.names == ("loss/start", "loss/end", "loss/fraction")
    candidate = searched.encode(
        [{"loss/start": 0.0, "loss/end": 2.0, "loss/fraction": 0.5}]
    )
    policy = searched.policy(candidate[0], 10)
    assert isinstance(policy, OpenLoop)
    assert policy.values == {"loss": ["huber"] * 5 + ["log"] * 5}
    np.testing.assert_array_equal(
        searched.values(candidate, 10)[:, 0, 1], [0.0] * 5 + [2.0] * 5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_a_policy_that_says_what_its_candidate_does(
    family: str,
) -> None:
    searched = space(family)
    for candidate in searched.sample(np.random.default_rng(0), 6):
        policy = searched.policy(candidate, 4)
        kept = json.loads(json.dumps(to_json(policy)))
        if "arguments" in kept:
            assert to_json(type(policy)(**kept["arguments"])) == kept
        if isinstance(policy, Static):
            assert policy.config["loss"] in KNOBS[1].options
        if isinstance(policy, Switch):
            score = np.array([-1.0])
            below = searched.rule([candidate], 4)(score, score, {})[0]
            loss = KNOBS[1].options[int(below[1])]
            assert loss == policy.below["loss"]
        if isinstance(policy, CheckpointWhenBest | RestartWhenPoor | SwapWhenFallen):
            assert policy.config["loss"] in KNOBS[1].options


def test_a_start_names_options() -> None:
    searched = space()
    candidate = default_candidate(searched, {"loss": "log", "learning_rate": 1e-2})
    assert searched.policy(candidate, 2).arguments() == {
        "learning_rate": pytest.approx(1e-2), "loss": "log"
    }  # fmt: skip
    with pytest.raises(ValueError, match="no option 'l1'"):
        default_candidate(searched, {"loss": "l1"})


def test_distributions_of_optuna() -> None:
    d = optuna.distributions
    searched = space(
        bounds={
            "learning_rate": d.FloatDistribution(1e-3, 1e-2, log=True),
            "loss": d.CategoricalDistribution(["huber", "log"]),
        }
    )
    rate, loss = searched.searched
    assert rate.ends == (1e-3, 1e-2)
    assert isinstance(loss, Choice)
    assert loss.options == ("huber", "log")
    for name, given, words in (
        ("learning_rate", d.FloatDistribution(1e-3, 1e-2), "has the scale 'log'"),
        ("learning_rate", d.CategoricalDistribution([1e-3]), "is a number"),
        ("learning_rate", d.FloatDistribution(0, 1, step=0.1), "steps of"),
        ("loss", d.FloatDistribution(0, 1), "is a choice"),
        ("learning_rate", d.FloatDistribution(1e-9, 1e-2, log=True), "its range"),
    ):
        with pytest.raises(ValueError, match=words):
            space(bounds={name: given})


def test_population_based_training_draws_options_anew_or_keeps_them() -> None:
    values = np.tile([1e-3, 2.0], (4_000, 1))
    rng = np.random.default_rng(0)
    after = explore(values, space(), (0.8, 1.25), 0.3, rng)
    counts = np.bincount(after[:, 1].astype(int), minlength=3) / len(after)
    np.testing.assert_allclose(counts, [0.1, 0.1, 0.8], atol=0.02)
    assert set(explore(values, space(), (0.8, 1.25), 0.0, rng)[:, 1]) == {2.0}


def course(gains: dict[float, float], rounds: int = 12, P: int = 12) -> Course:
    """A population whose score rises by what its option is worth."""
    rng, result = np.random.default_rng(3), Course()
    scores = np.zeros(P)
    for number in range(rounds):
        values = np.zeros((1, P, 3))
        values[0, :, 0], values[0, :, 1] = 1e-3, rng.integers(0, 3, P)
        scores = scores + [gains[v] for v in values[0, :, 1]]
        result.rounds.append(
            Observed(
                scores[None], values, scores, scores, np.zeros(P, bool), scores[None]
            )
        )
        if number < rounds - 1:
            result.parents.append(np.arange(P))
    return result


def test_the_bandit_of_pb2_learns_which_option_gains() -> None:
    rng = np.random.default_rng(0)
    drawn = chosen_options(
        course({0.0: 0.0, 1.0: 0.1, 2.0: 0.3}), space(), 1, "final", 4_000, rng
    )
    shares = np.bincount(drawn.astype(int), minlength=3) / len(drawn)
    assert shares[2] > shares[1] > shares[0] > 0.1  # which goes on being explored
    even = chosen_options(
        course({0.0: 0.1, 1.0: 0.1, 2.0: 0.1}), space(), 1, "final", 4_000, rng
    )
    shares = np.bincount(even.astype(int), minlength=3) / len(even)
    assert shares.max() < shares[2] + 0.2


@pytest.mark.parametrize(
    "spec",
    [
        "random-search", slow("random-search,family='schedule'"), slow("hyperband"),
        slow("race"), slow("grid-search"),
        "sequential-halving,family='switch',static_first=True",
        "tpe", slow("smac"), "cma-es", "pbt,population=4", slow("pb2,population=4"),
        slow("sequential-halving,family='gate'"),
    ],
)  # fmt: skip
def test_every_searcher_takes_choices(spec: str, tmp_path: Path) -> None:
    budget = 48_000 if spec == "cma-es" else 24_000
    fitted = dacrl_env.fit(DQN, spec, budget=budget, seed=0, **SHORT)
    columns = [f"hp/{name}" for name in NAMES]
    assert set(fitted.trace["hp/loss"].dropna()) <= {"huber", "mse"}
    assert set(fitted.trace["hp/double_q"].dropna()) <= {True, False}
    assert set(fitted.trace["hp/reset_head"].dropna()) == {False}
    assert fitted.trace[columns].notna().any().all()
    path = tmp_path / "policy.json"
    options = {n: v for n, v in SHORT.items() if n != "run_budget"}
    content = to_json(fitted.policy)
    if content is not None:
        path.write_text(json.dumps(content))
    frame = dacrl_env.evaluate(
        DQN, fitted.policy, 2, split="tuning", budget=1_000, **options
    )
    assert set(frame["hp/loss"].dropna()) <= {"huber", "mse"}


def test_numbers_alone_or_choices_alone() -> None:
    for hyperparameters in (["learning_rate"], ["loss", "double_q"]):
        options = {**SHORT, "hyperparameters": hyperparameters}
        for method in (PB2(population=4), PBT(population=4), GridSearch()):
            fitted = dacrl_env.fit(DQN, method, budget=8_000, seed=0, **options)
            assert {c for c in fitted.trace if c.startswith("hp/")} == {
                f"hp/{name}" for name in hyperparameters
            }


def test_a_schedule_of_numbers_takes_no_choice_and_no_event() -> None:
    for name, kind in (("loss", "a choice"), ("reset_head", "an event")):
        policy = Schedule("linear", name, 0.0, 1.0)
        with pytest.raises(ValueError, match=f"{name} is {kind}, not a number"):
            dacrl_env.evaluate(
                DQN, policy, 1, budget=2_000, hyperparameters=NAMES, eval_episodes=1
            )


@pytest.mark.parametrize(
    "spec",
    [
        "static,loss=mse,double_q=True",
        "combined,loss=mse,double_q=True,learning_rate=linear(1e-3,1e-4)",
    ],
)
def test_options_are_written_in_texts(spec: str) -> None:
    frame = dacrl_env.evaluate(
        DQN, get_policy(spec), 1, budget=1_000, eval_episodes=1, learning_starts=100
    )
    later = frame[frame["step"] > 0]
    assert set(later["hp/loss"]) == {"mse"}
    assert set(later["hp/double_q"]) == {True}


def test_a_written_schedule_may_have_events() -> None:
    table = {"reset_head": [False, True, False, False], "loss": ["mse"] * 4}
    policy = OpenLoop(table)
    again = OpenLoop(**json.loads(json.dumps(policy.arguments())))
    frames = [
        dacrl_env.evaluate(
            DQN, p, 1, budget=1_000, eval_episodes=1, learning_starts=100,
            hyperparameters=["loss", "reset_head"],
        )
        for p in (policy, again)
    ]  # fmt: skip
    for frame in frames:
        told = frame[frame["reward"].notna() & (frame["step"] > 0)]
        assert told["hp/reset_head"].tolist() == table["reset_head"]
    assert frames[0]["score"].equals(frames[1]["score"])
    with pytest.raises(ValueError, match="loss has no option 'l1'"):
        dacrl_env.evaluate(
            DQN, OpenLoop({"loss": ["mse", "l1"]}), 1, budget=2_000, eval_episodes=1
        )


def test_methods_by_name_say_what_they_do_not_search() -> None:
    method = get_method("random-search,space={'reset_head': (0, 1)}")
    with pytest.raises(ValueError, match="events are not searched"):
        dacrl_env.fit(DQN, method, budget=4_000, seed=0, **SHORT)


def test_the_action_map_of_a_gate_has_the_options_of_its_sides() -> None:
    searched = space("gate")
    candidate = searched.sample(np.random.default_rng(1), 1)[0]
    (parameters,) = searched.decode(candidate)
    policy: Any = searched.policy(candidate, 4)
    actions = ActionMap(KNOBS, "continuous")
    for side, sign in (("below", -1.0), ("above", 1.0)):
        action = policy.weights["bias/1"] + sign * policy.weights["weight/1"][0]
        values = actions.to_values([action], actions.defaults(1))[0]
        assert values[1] == parameters[f"loss/{side}"]
