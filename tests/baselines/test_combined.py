"""Static values and schedules in one policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from dacrl_env.baselines.combined import Combined

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.policies import (
    Cost,
    Fitted,
    from_json,
    get_policy,
    load_fitted,
    save_fitted,
    to_json,
)
from dacrl_env.policies.schedules import Curve

CARTPOLE = "dacrl/DQN-CartPole-v0"
PPO = "dacrl/PPO-CartPole-v0"
QUADRATIC = "dacrl/NoisyQuadratic-v0"
SMALL: dict[str, Any] = {"budget": 400, "eval_episodes": 1, "learning_starts": 100}
SPEC = "combined,learning_rate=linear(1e-3,1e-5),epsilon=linear(1,0.04,fraction=0.16)"


def applied(policy: Any, task: str = CARTPOLE, **options: Any) -> pd.DataFrame:
    frame = dacrl_env.evaluate(task, policy, 1, **{**SMALL, **options})
    rows = frame.dropna(subset="reward").drop_duplicates("step")
    return rows[rows["step"] > 0].reset_index(drop=True)


def test_a_configuration_as_people_tune_it() -> None:
    rows = applied(f"{SPEC},batch_size=32,gamma=0.98")
    assert len(rows) == 100
    t = np.arange(100) / 100
    np.testing.assert_allclose(rows["hp/learning_rate"], 1e-3 + t * (1e-5 - 1e-3))
    epsilon = 1 + np.minimum(t / 0.16, 1) * (0.04 - 1)
    np.testing.assert_allclose(rows["hp/epsilon"], epsilon, atol=1e-9)
    assert set(rows["hp/batch_size"]) == {32}
    np.testing.assert_allclose(rows["hp/gamma"], 0.98)


@pytest.mark.parametrize(
    "curve",
    [
        "linear(1e-3, 1e-5, 0.5)",
        {"shape": "linear", "start": 1e-3, "end": 1e-5, "fraction": 0.5},
        Curve("linear", 1e-3, 1e-5, 0.5),
        " linear( start=1e-3, end=1e-5, fraction=0.5 )",
    ],
)
def test_curves_are_given_as(curve: Any) -> None:
    rows = applied(Combined(learning_rate=curve, batch_size=np.int64(16)))
    rates = rows["hp/learning_rate"]
    np.testing.assert_allclose(rates[[0, 25, 50, 99]], [1e-3, 5.05e-4, 1e-5, 1e-5])


def test_it_is_the_sum_of_its_parts() -> None:
    names = ["reward", "score", "hp/learning_rate", "hp/epsilon", "hp/batch_size"]
    one = applied("combined,epsilon=linear(1,0.05,fraction=0.2)")[names]
    pd.testing.assert_frame_equal(one, applied("linear-epsilon")[names])
    none = applied("combined")[names]
    pd.testing.assert_frame_equal(none, applied("default")[names])
    constant = applied("combined,epsilon=0.2,batch_size=8")[names]
    pd.testing.assert_frame_equal(
        constant, applied("static,epsilon=0.2,batch_size=8")[names]
    )


def test_a_line_of_the_zoo_ends_where_the_range_does() -> None:
    low = next(
        h.low
        for h in gym.make(PPO).unwrapped.settings.hyperparameters  # type: ignore[attr-defined]
        if h.name == "clip_range"
    )
    spec = "combined,learning_rate=lin_0.001,clip_range=lin_0.2,gae_lambda=0.8"
    options = {"budget": 3_200, "rollout_length": 4, "eval_episodes": 1}
    frame = dacrl_env.evaluate(PPO, spec, 1, **options)
    rows = frame.dropna(subset="reward").drop_duplicates("step")
    rows = rows[rows["step"] > 0]
    t = np.arange(len(rows)) / len(rows)
    np.testing.assert_allclose(rows["hp/learning_rate"], 1e-3 * (1 - t), rtol=1e-9)
    expected = np.maximum(0.2 * (1 - t), low)
    np.testing.assert_allclose(rows["hp/clip_range"], expected, rtol=1e-9)
    assert expected[-1] == low


@pytest.mark.parametrize(
    "spec",
    [
        f"{SPEC},batch_size=32",
        "combined",
        "combined,learning_rate=lin_0.01,decisions=20",
        "combined,epsilon=step(1,0.1,stairs=3)",
        "combined,epsilon=constant(0.5)",
    ],
)
def test_it_is_written_and_read(tmp_path: Path, spec: str) -> None:
    policy = get_policy(spec)
    content = json.loads(json.dumps(to_json(policy)))
    assert content["kind"] == "combined"
    again = from_json(content)
    assert to_json(again) == to_json(policy)
    path = tmp_path / "policy.json"
    save_fitted(Fitted(policy, Cost()), path, {})
    columns = ["score", "hp/learning_rate", "hp/epsilon"]
    pd.testing.assert_frame_equal(
        applied(load_fitted(path), budget=1_000)[columns],
        applied(policy, budget=1_000)[columns],
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("combined,learning_rate=linera(1,0)", r"'linera' \(did you mean 'linear'"),
        ("combined,learning_rate=linear()", "a number or a curve"),
        ("combined,learning_rate=linear(1,2,3,4,5)", "a number or a curve"),
        ("combined,learning_rate=linear(1,0,speed=3)", "a number or a curve"),
        ("combined,learning_rate=linear(1,0,fraction=2)", "fraction must lie in"),
        ("combined,learning_rate=exponential(1,0)", "positive values"),
        ("combined,learning_rate=lin_x", "learning_rate=lin_x"),
        ("combined,learning_rate=very fast", "a number or a curve"),
        ("combined,learning_rate=__import__('os')", "unknown shape '__import__'"),
        ("combined,learning_rate=linear(open('x'))", "a number or a curve"),
        ("combined,learning_rate=linear(nan,1)", "a number or a curve"),
        ("combined,learning_rate=linear(1,fraction=a.b)", "a number or a curve"),
        ("combined,learning_rate=linear(1,*[2])", "a number or a curve"),
        ("combined,learning_rate=linear(1,**{'end':2})", "a number or a curve"),
        ("combined,epsilon=0.1,decisions=0", "at least 1"),
        ("combined,epsilon=0.1,epsilon=0.2", "epsilon is given twice"),
    ],
)
def test_what_is_no_configuration(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_policy(spec)
    with pytest.raises(ValueError, match="nan"):
        Combined(epsilon=float("nan"))


@pytest.mark.parametrize("given", ["fast", "True"])
def test_an_option_where_there_is_a_number(given: str) -> None:
    with pytest.raises(ValueError, match=r"learning_rate must be (real|a) number"):
        applied(f"combined,learning_rate={given}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("combined,epsilon=linear(1,-1)", "epsilon = .* outside its range"),
        ("combined,learning_rat=1e-3", r"\(did you mean 'learning_rate'\?\)"),
        ("combined,momentum=linear(0,1)", "unknown hyperparameter 'momentum'"),
        ("combined,batch_size=9999", "batch_size"),
    ],
)
def test_values_are_known_before_training(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dacrl_env.evaluate(CARTPOLE, spec, 1, **SMALL)


def test_only_values_that_are_applied_have_to_be_in_range() -> None:
    """A line that would reach the end of the range after the last decision."""
    rows = applied("combined,learning_rate=linear(1e-3,0)")
    assert rows["hp/learning_rate"].iloc[-1] == pytest.approx(1e-5)


def test_on_the_command_line(tmp_path: Path) -> None:
    line = ["compare", QUADRATIC, "--policies", "default"]
    line += ["zoo=combined,learning_rate=linear(0.1,0.01,fraction=0.5),decisions=50"]
    assert (
        main([*line, "--seeds", "2", "--num-threads", "1", "--out", str(tmp_path)]) == 0
    )
    assert pd.read_csv(next(tmp_path.glob("*/table.csv")))["policy"].tolist() == [
        "default",
        "zoo",
    ]
