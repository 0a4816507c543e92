"""Observations and actions of every decision, on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.core.store import Store
from dacrl_env.outer.vector_env import PopulationEnv

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SHORT: dict[str, Any] = {"budget": 40, "decision_interval": 10}
NEW = ["observation", "action"]


class Recording:
    """Random actions of any mode; it notes all that it sees and does."""

    independent = True

    def __init__(self, action_mode: str) -> None:
        self.action_mode = action_mode
        self.seen: list[Any] = []
        self.done: list[Any] = []

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        self.space = envs.action_space
        self.space.seed(seed)

    def act(self, observations: Any, infos: Any) -> Any:
        self.seen.append(observations.copy())
        self.done.append(self.space.sample())
        return self.done[-1]


def alike(a: pd.DataFrame, b: pd.DataFrame) -> None:
    clock = ["wall_seconds"]
    pd.testing.assert_frame_equal(a.drop(columns=clock), b.drop(columns=clock))


@pytest.mark.parametrize(
    "mode", ["continuous", "relative", "discrete", "multidiscrete", "values"]
)
def test_they_are_what_the_policy_saw_and_did(mode: str) -> None:
    policy = Recording(mode)
    calm = dacrl_env.Number("learning_rate", 0.01, 0.1, 0.05, "log")
    options: dict[str, Any] = {"hyperparameters": [calm], **SHORT}
    frame = dacrl_env.evaluate(QUADRATIC, policy, 3, trajectories=True, **options)
    assert list(frame.columns[-2:]) == NEW
    for member in range(3):
        own = frame[frame["member"] == member]
        between = own[own["eval_steps"].isna()]
        assert not between.empty
        assert between[NEW].isna().all(axis=None)
        own = own[own["eval_steps"].notna()]
        assert own["step"].tolist() == [0, 1, 2, 3, 4]
        assert own["action"].iloc[0] is None
        for step in range(4):
            seen, done = policy.seen[step][member], policy.done[step][member]
            assert own["observation"].iloc[step].dtype == np.float32
            assert own["observation"].iloc[step].tolist() == seen.tolist()
            assert own["action"].iloc[step + 1].tolist() == np.ravel(done).tolist()
        assert own["observation"].iloc[4].shape == seen.shape
        assert own["observation"].iloc[4].tolist() != seen.tolist()
        if mode == "values":
            rates = own["hp/learning_rate"].to_numpy()[1:]
            assert (
                rates.tolist() == np.concatenate(list(own["action"].iloc[1:])).tolist()
            )


def test_nothing_else_changes() -> None:
    plain = dacrl_env.evaluate(QUADRATIC, "random", 3, **SHORT)
    more = dacrl_env.evaluate(QUADRATIC, "random", 3, trajectories=True, **SHORT)
    assert not set(NEW) & set(plain)
    alike(plain, more.drop(columns=NEW))


def test_a_store_has_them_beside_those_without(tmp_path: Path) -> None:
    def compared(**options: Any) -> pd.DataFrame:
        return dacrl_env.compare(
            QUADRATIC, ["default", "random"], 3, store=tmp_path, **SHORT, **options
        )

    plain = compared()
    [first, *_] = keys = Store(tmp_path).keys()
    assert len(keys) == 2
    assert "trajectories" not in first
    more = compared(trajectories=True)
    alike(plain, more.drop(columns=NEW))
    assert len(Store(tmp_path).keys()) == 4
    again = compared(trajectories=True)  # found there
    pd.testing.assert_frame_equal(again, more)
    pd.testing.assert_frame_equal(compared(), plain)
    assert len(Store(tmp_path).keys()) == 4
    read = dacrl_env.read_results(tmp_path).drop(columns="comparison")
    pd.testing.assert_frame_equal(read, more)


def test_a_larger_unit_without_them_does_not_hide_them(tmp_path: Path) -> None:
    dacrl_env.compare(QUADRATIC, "default", 4, store=tmp_path, **SHORT)
    dacrl_env.compare(
        QUADRATIC, "default", 2, store=tmp_path, trajectories=True, **SHORT
    )
    frame = dacrl_env.read_results(tmp_path)
    seen = frame.dropna(subset="observation")["seed"].unique().tolist()
    assert (sorted(seen), sorted(frame["seed"].unique())) == ([0, 1], [0, 1, 2, 3])
    assert not frame.duplicated(["seed", "env_steps"]).any()


def test_of_a_method_and_of_another_number_of_knobs(tmp_path: Path) -> None:
    frame = dacrl_env.compare(
        QUADRATIC, "default", 2, methods="random-search,population=2",
        tuning_budget=80, runs=1, trajectories=True, store=tmp_path, **SHORT,
    )  # fmt: skip
    found = dacrl_env.read_results(tmp_path)
    assert found["observation"].notna().sum() == frame["observation"].notna().sum() > 0
    keys = [k for k in Store(tmp_path).keys() if k["kind"] != "evaluate"]  # noqa: SIM118
    assert all("trajectories" not in key for key in keys)


def test_the_command_line(tmp_path: Path) -> None:
    run = ["--run-budget", "40", "--decision-interval", "10", "--seeds", "2", "--quiet"]
    out = ["--out", str(tmp_path)]
    line = ["compare", QUADRATIC, "--policies", "default", "random", *run, *out]
    assert main(line) == 0
    assert "observation" not in dacrl_env.read_results(tmp_path)
    assert main([*line, "--trajectories"]) == 0
    frame = dacrl_env.read_results(tmp_path)
    decided = frame[frame["eval_steps"].notna()]
    assert decided["observation"].notna().all()
    assert main(["report", str(tmp_path), "--quiet"]) == 0
    line = [
        "evaluate",
        QUADRATIC,
        "linear,hyperparameter=learning_rate,start=0.1,end=0.05",
    ]
    line += [*run, *out]
    assert main([*line, "--trajectories"]) == 0
    assert len(dacrl_env.read_results(tmp_path)["policy"].unique()) == 3


def test_runs_that_end_early() -> None:
    wild = dacrl_env.Number("learning_rate", 1e-3, 100.0, 99.0, "log")
    options: dict[str, Any] = {"hyperparameters": [wild], **SHORT}
    frame = dacrl_env.evaluate(QUADRATIC, "default", 2, trajectories=True, **options)
    plain = dacrl_env.evaluate(QUADRATIC, "default", 2, **options)
    alike(plain, frame.drop(columns=NEW))
    assert frame["diverged"].any()
    assert len(frame) < len(dacrl_env.evaluate(QUADRATIC, "default", 2, **SHORT))


def test_something_else_than_true_or_false() -> None:
    for call in (dacrl_env.evaluate, dacrl_env.compare):
        with pytest.raises(
            ValueError, match="trajectories is True or False, got 'yes'"
        ):
            call(QUADRATIC, "default", 1, trajectories="yes")
