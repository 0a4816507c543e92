"""What dynamics are worth above strong static configurations."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from later import Later

from dacrl_env.methods.search_space import EVENT_OF, FREEZING, SearchSpace
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import Fitted, get_policy
from dacrl_env.policies.checkpoint_when_best import CheckpointWhenBest
from dacrl_env.policies.frozen_schedule import FrozenSchedule
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.protocol import Cost
from dacrl_env.policies.restart_when_poor import RestartWhenPoor
from dacrl_env.policies.static import Static
from dacrl_env.policies.swap_when_fallen import SwapWhenFallen
from dacrl_env.policies.switch import Switch
from dacrl_env.studies import headroom as study
from dacrl_env.tasks import Event
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.rungs import RULES, RUNGS

CARTPOLE = "dacrl/DQN-CartPole-v0"
SHORT: dict[str, Any] = {
    "budget": 2_000, "decision_interval": 200, "eval_episodes": 1,
    "learning_starts": 100,
}  # fmt: skip


def runs_of(**scores: Any) -> pd.DataFrame:
    """Test runs with given scores (fits, seeds), by policy."""
    parts = []
    for name, rows in scores.items():
        values = np.atleast_2d(np.array(rows, float))
        fits, seeds = values.shape
        parts.append(
            pd.DataFrame(
                {
                    "policy": name.replace("_", "-"),
                    "run": np.repeat(np.arange(fits), seeds),
                    "seed": np.tile(np.arange(seeds), fits),
                    "score": values.ravel(),
                }
            )
        )
    return pd.concat(parts)


def test_values_are_differences_of_means() -> None:
    frame = runs_of(
        default=[[0.1, 0.3]],
        static_tuned=[[0.2, 0.4], [0.4, 0.6]],
        open_loop_tuned=[[0.3, 0.5], [0.5, 0.7]],
        freeze_tuned=[[0.5, 0.7], [0.7, 0.9]],
        checkpoint_tuned=[[0.9, 0.9], [0.9, 0.9]],
    )
    chosen_by = {"freeze-tuned": [0.5, 0.7], "checkpoint-tuned": [0.8, 0.2]}
    values, best = study.valued(frame, "score", chosen_by)
    # the rule is chosen by its score on the tuning split, not by that of the test
    assert best == ("open-loop-tuned", "freeze-tuned")
    assert values["schedule"].value == pytest.approx(0.1)
    assert values["state"].value == pytest.approx(0.2)
    assert values["static over default"].value == pytest.approx(0.2)
    # paired by seed and fit: every pair has the same difference
    assert values["state"][1:] == pytest.approx((0.2, 0.2))


def test_a_static_configuration_may_be_the_better_open_loop() -> None:
    frame = runs_of(
        default=[[0.1, 0.3]],
        static_tuned=[[0.5, 0.5], [0.5, 0.5]],
        open_loop_tuned=[[0.3, 0.3], [0.3, 0.3]],
        freeze_tuned=[[0.6, 0.6], [0.6, 0.6]],
    )
    values, best = study.valued(frame, "score", {"freeze-tuned": [0.6, 0.6]})
    assert best == ("static-tuned", "freeze-tuned")
    assert values["schedule"].value == pytest.approx(-0.2)
    assert values["state"].value == pytest.approx(0.1)


@pytest.mark.parametrize("family", ["schedule", *RULES.values()])
def test_searches_begin_at_the_static_configuration(family: str) -> None:
    config: dict[str, Any] = {"learning_rate": 0.002, "epsilon": 0.3}
    task = get_task(CARTPOLE)
    knobs = [h for h in study.wide(task) if h.name in config]
    events = resolve(task, hyperparameters=[*EVENT_OF.values()]).controlled
    space = SearchSpace([*knobs, *events], family=family)
    start = {"threshold": 0.6} | study._start(family, config)
    defaults = {d.name: d.default for d in space.dimensions}
    chosen = {name: start.get(name, defaults[name]) for name in space.names}
    coded = [{name: space.code(name, value) for name, value in chosen.items()}]
    values = space.every_value(space.encode(coded), 5)
    names = [h.name for h in knobs]
    first = values[0, 0, [names.index(name) for name in config]]
    np.testing.assert_allclose(first, [*config.values()])
    if family not in FREEZING:  # which learn little when good
        np.testing.assert_allclose(values, values[:1].repeat(len(values), 0))


def test_it_finds_hardly_any_value_where_there_is_none() -> None:
    scores = np.random.default_rng(1).beta(5, 5, 96)
    rungs = ("static-tuned", "open-loop-tuned", "freeze-tuned", "restart-tuned")
    # percentiles of a bootstrap find a schedule in 10 % of cases where fits differ so
    for deviation in (0, 0.08):
        each = [-deviation, 0, deviation]
        found = study.null(64, scores, dict.fromkeys(rungs, each), times=300)
        assert set(found) == {"state", "schedule"}
        assert max(found.values()) <= 0.06


def test_everything_is_tuned_tested_and_kept(tmp_path: Any) -> None:
    result = study.headroom(
        CARTPOLE,
        store=tmp_path / "store",
        runs=8,
        fits=2,
        seeds=4,
        objective="auc",
        most_work=2.0,
        num_threads=1,
        **SHORT,
    )
    kinds = {
        "static-tuned": Static,
        "open-loop-tuned": OpenLoop,
        "freeze-tuned": Switch,
        "frozen-schedule-tuned": FrozenSchedule,
        "checkpoint-tuned": CheckpointWhenBest,
        "restart-tuned": RestartWhenPoor,
        "swap-tuned": SwapWhenFallen,
        "switch-tuned": Switch,
    }
    assert result.policies.keys() == kinds.keys()
    for rung, kind in kinds.items():
        assert [type(f.policy) for f in result.policies[rung]] == [kind] * 2
    wide = {h.name for h in study.wide(get_task(CARTPOLE))}
    static: Any = result.policies["static-tuned"][0].policy
    assert set(static.config) == wide
    assert set(result.frame["policy"]) == {
        *kinds, "default", *(f"{rule} shuffled" for rule in RULES),
    }  # fmt: skip
    assert (result.frame.groupby("policy").size().drop("default") == 8).all()
    path = study.write(result, tmp_path / "out")
    content = json.loads(path.read_text())
    assert content["values"]["state"] == list(result.values["state"])
    by_fit = result.frame.groupby(["policy", "run"])["report_auc"].mean()
    assert content["by_fit"] == {rung: by_fit[rung].tolist() for rung in kinds}
    # what the table of measured tasks keeps
    assert content["state"] == content["values"]["state"]
    assert content["schedule"] == content["values"]["schedule"]
    assert content["tags"] == list(result.tags)
    again = get_policy(str(tmp_path / "out" / "checkpoint-tuned-1.json"))
    assert (
        again.policy.arguments()
        == result.policies["checkpoint-tuned"][1].policy.arguments()
    )
    assert "state" in study.render(result)


@pytest.mark.slow
def test_an_executor_has_the_fits_of_a_stage_at_once(tmp_path: Any) -> None:
    given: dict[str, Any] = {
        "rungs": ("static-tuned", "open-loop-tuned", "freeze-tuned")
    }
    given |= {"runs": 8, "fits": 2, "seeds": 2, "objective": "final"}
    executor = Later()
    there = study.headroom(
        "dacrl/NoisyQuadratic-v0", store=tmp_path / "a", executor=executor, **given
    )
    # static ones, all rungs, and tests of whatever differs
    assert executor.begun[:8] == 2 * [2] + 6 * [2 + 6]
    assert set(executor.begun[8:]) == {len(executor.begun)}
    here = study.headroom(
        "dacrl/NoisyQuadratic-v0", store=tmp_path / "b", num_threads=1, **given
    )
    assert there.values == here.values


def test_all_rungs_begin_where_the_static_one_first_ended(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = []

    def fit_several(task: Any, wanted: Any, budget: int, **_: Any) -> list[Any]:
        stages.append([(m.family, m.start, seed, budget) for m, seed, _ in wanted])
        if len(stages) == 2:
            raise InterruptedError
        return [
            Fitted(Static(learning_rate=0.1 + k), Cost()) for k in range(len(wanted))
        ]

    monkeypatch.setattr(study, "fit_several", fit_several)
    with pytest.raises(InterruptedError):
        study.headroom(
            "dacrl/NoisyQuadratic-v0",
            store=tmp_path,
            runs=8,
            fits=2,
            rungs=("static-tuned", "open-loop-tuned", "freeze-tuned"),
        )
    first, second = stages
    assert first == [("static", None, 0, 400), ("static", None, 1, 400)]
    schedule = [{"learning_rate/start": x, "learning_rate/end": x} for x in (0.1, 1.1)]
    assert second == [
        ("static", {"learning_rate": 0.1}, 2, 400),  # by other runs than before
        ("static", {"learning_rate": 1.1}, 3, 400),
        ("schedule", schedule[0], 0, 400),
        ("schedule", schedule[1], 1, 400),
        ("freeze", {"learning_rate": 0.1}, 0, 400),
        ("freeze", {"learning_rate": 1.1}, 1, 400),
    ]


def test_the_wide_space_has_no_events() -> None:
    knobs = study.wide(get_task(CARTPOLE))
    assert not [h for h in knobs if isinstance(h, Event)]
    assert {"learning_rate", "double_q", "train_freq"} <= {h.name for h in knobs}
    with pytest.raises(
        ValueError, match=r"unknown number or choice .epsilonn.*epsilon"
    ):
        study.wide(get_task(CARTPOLE), ["epsilonn"])


def test_rungs_are_by_default_those_whose_events_there_are() -> None:
    assert study.suitable(get_task(CARTPOLE)) == [*RUNGS]
    events = {"checkpoint-tuned", "restart-tuned", "swap-tuned"}
    quadratic = study.suitable(get_task("dacrl/NoisyQuadratic-v0"))
    assert quadratic == [rung for rung in RUNGS if rung not in events]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objective": "best"}, "unknown objective 'best'.*final, auc"),
        ({"fits": 1}, "at least 2 fits"),
        ({"seeds": 1}, "at least 2 fits and 2 seeds"),
        ({"rungs": ["freeze-tuned"]}, "rungs begin with static-tuned"),
        ({"rungs": ["static-tuned"]}, "have one of freeze-tuned"),
        ({"rungs": ["static-tuned", "other"]}, "unknown rung 'other'"),
        (
            {"rungs": ["static-tuned", "switch-tuned", "switch-tuned"]},
            "each rung is tuned once; got static-tuned, switch-tuned, switch-tuned",
        ),
        ({"runs": 0}, "runs must be"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Any, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        study.headroom(CARTPOLE, store=tmp_path, **wrong)


@pytest.mark.parametrize(
    ("task", "wrong", "message"),
    [
        (CARTPOLE, {"hyperparameters": ["epsilon"]}, "freeze-tuned on .*learning_rate"),
        (
            "dacrl/NoisyQuadratic-v0",
            {"rungs": ["static-tuned", "checkpoint-tuned"]},
            "checkpoint-tuned on .*checkpoint",
        ),
        (CARTPOLE, {"most_work": -1.0}, "most_work must be positive"),
        (CARTPOLE, {"eval_episodes": 0}, "static-tuned on .*eval_episodes"),
    ],
)
def test_what_a_rung_lacks_is_said_before_anything_trains(
    tmp_path: Any, task: str, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        study.headroom(task, store=tmp_path / "store", **wrong)
    assert not list(tmp_path.rglob("*.parquet"))
