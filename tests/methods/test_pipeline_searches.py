"""Searches over pipelines: an algorithm, its features, and what depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases import slow

import dacrl_env
from dacrl_env.comparison import option_panels, report
from dacrl_env.policies import get_policy, to_json
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static

TASK = "dacrl/Pipeline-CartPole-v0"
NAMES = [
    "algorithm",
    "features",
    "dqn.learning_rate",
    "ppo.learning_rate",
    "ppo.drift",
    "ppo.drift_alpha",
    "sac.gamma",
]
OPTIONS: dict[str, Any] = {
    "hyperparameters": NAMES,
    "decision_interval": 160,
    "rollout_length": 16,
    "learning_starts": 32,
    "hidden_sizes": (16, 16),
    "eval_episodes": 1,
}


def owners(row: Any) -> set[str]:
    """Algorithms of which a row has values."""
    columns = [c for c in row.index if c.startswith("hp/") and "." in c]
    shown = row[columns].dropna().index
    return {c.removeprefix("hp/").partition(".")[0] for c in shown}


@pytest.mark.parametrize(
    "spec",
    [
        "random-search",
        "random-search,family='schedule'",
        slow("hyperband"),
        "tpe",
        slow("smac"),
        "pbt,population=4",
        slow("pb2,population=4"),
        "sequential-halving,family='switch',static_first=True",
    ],
)
def test_every_searcher_takes_a_pipeline(spec: str) -> None:
    fitted = dacrl_env.fit(TASK, spec, budget=15_360, seed=0, run_budget=640, **OPTIONS)
    searched = set(fitted.trace["hp/algorithm"].dropna())
    assert searched <= {"dqn", "ppo", "sac"}
    assert len(searched) > 1
    content = to_json(fitted.policy)
    if content is not None and "arguments" in content:
        kept = json.loads(json.dumps(content))
        assert to_json(type(fitted.policy)(**kept["arguments"])) == content
    frame = dacrl_env.evaluate(
        TASK, fitted.policy, 2, split="tuning", budget=640, **OPTIONS
    )
    trained = frame[frame["hp/algorithm"].notna()]
    assert len(trained)
    for _, row in trained.iterrows():
        assert owners(row) == {row["hp/algorithm"]}


@pytest.mark.parametrize(
    "spec",
    ["static,algorithm=ppo,features=normalised,ppo.learning_rate=3e-3"],
)
def test_policies_as_texts_name_children(spec: str) -> None:
    frame = dacrl_env.evaluate(TASK, get_policy(spec), 1, budget=640, **OPTIONS)
    later = frame[frame["step"] > 0]
    assert set(later["hp/algorithm"]) == {"ppo"}
    assert set(later["hp/features"]) == {"normalised"}
    np.testing.assert_allclose(later["hp/ppo.learning_rate"], 3e-3, rtol=1e-12)
    assert later["hp/dqn.learning_rate"].isna().all()
    assert later["hp/ppo.drift_alpha"].isna().all()  # of a drift that there is not


def test_a_choice_of_the_algorithm_is_a_band(tmp_path: Path) -> None:
    plan = ["dqn", "ppo", "ppo", "sac"]
    frames = []
    for policy in (OpenLoop({"algorithm": plan}), Static(algorithm="sac")):
        told = dacrl_env.evaluate(TASK, policy, 2, budget=640, **OPTIONS)
        name = type(policy).__name__
        frames.append(told.assign(policy=name, report_score=0.1))
    frame = pd.concat(frames, ignore_index=True)
    first = frame[(frame["policy"] == "OpenLoop") & frame["reward"].notna()]
    one = first[(first["seed"] == first["seed"].iloc[0]) & (first["step"] > 0)]
    assert one["hp/algorithm"].tolist() == plan
    columns = [c for c in frame if c.startswith("hp/")]
    found = option_panels.found(frame, columns)
    assert found["hp/algorithm"] == (("dqn", "ppo", "sac"), False)
    assert found["hp/features"].shown == ("raw", "normalised", "fourier")
    assert report.curves(frame, tmp_path / "curves.png") is not None
