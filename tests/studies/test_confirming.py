"""What headroom found, once more, on seeds that were held back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bases_files import entry, own_bases, own_policies

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.report import summarize
from dacrl_env.policies import Cost, Fitted, save_fitted
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.restart_when_poor import RestartWhenPoor
from dacrl_env.policies.static import Static
from dacrl_env.policies.swap_when_fallen import SwapWhenFallen
from dacrl_env.policies.switch import Switch
from dacrl_env.policies.tuned import place
from dacrl_env.studies import confirming as study
from dacrl_env.tasks import headroom
from dacrl_env.tasks.registration import get_task

QUADRATIC = "dacrl/NoisyQuadratic-v0"
POLICIES = {
    "static-tuned": Static(learning_rate=0.1),
    "open-loop-tuned": OpenLoop({"learning_rate": np.geomspace(0.2, 0.02, 50)}),
    "freeze-tuned": Switch(0.9, {"learning_rate": 0.1}, {"learning_rate": 0.09}),
    "switch-tuned": Switch(0.5, {"learning_rate": 0.2}, {"learning_rate": 0.01}),
}
ENTRY: dict[str, Any] = {
    "state": [0.2, 0.1, 0.3],
    "schedule": [0.1, 0.05, 0.15],
    "objective": "final",
    "best": ["static-tuned", "switch-tuned"],
    "settings": {"seeds": [0, 7], "rungs": [*POLICIES]},
    "version": "0.1.0",
}


@pytest.fixture
def kept(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, no_bases: None) -> Any:
    """Policies and headroom of a task, in folders of the test's own."""
    (tmp_path / "own").mkdir()
    own_policies(tmp_path / "own", monkeypatch)
    for rung, policy in POLICIES.items():
        fitted = Fitted(policy, Cost(7), task=QUADRATIC, settings={})
        save_fitted(fitted, place(QUADRATIC, rung), {})
    monkeypatch.setattr(headroom, "PATH", tmp_path / "headroom.json")
    headroom.measured.cache_clear()
    headroom.keep(QUADRATIC, ENTRY)
    yield tmp_path / "headroom.json"
    monkeypatch.undo()
    headroom.measured.cache_clear()


def test_a_task_that_starts_at_a_base_means_the_one_that_was_measured(
    kept: Any, tmp_path: Any
) -> None:
    with own_bases(tmp_path) as base:
        base({QUADRATIC: entry(defaults={"learning_rate": 0.25})})
        there = study.confirm("dacrl/NoisyQuadratic-v1", seeds=[8, 9], num_threads=1)
        here = study.confirm(QUADRATIC, seeds=[8, 9], num_threads=1)
    assert (there.task, there.values) == (QUADRATIC, here.values)


def test_differences_are_those_of_runs_on_the_same_seed(kept: Any) -> None:
    result = study.confirm(QUADRATIC, seeds=range(8, 20))
    names = ["default", "static-tuned", "open-loop-tuned", "switch-tuned"]
    given = {name: POLICIES.get(name, name) for name in names}
    rows = summarize(dacrl_env.compare(QUADRATIC, given, range(8, 20)))
    means = rows.groupby("policy")["report_final"].mean()
    # no rule but the chosen one, and its shuffled self
    derived = {study.SHUFFLED, "schedule", "state", "looking"}
    assert set(result.values) == {*names, *derived}
    for name in names:
        assert result.values[name].value == pytest.approx(means[name])
    assert result.values["schedule"].value == pytest.approx(
        means["open-loop-tuned"] - means["static-tuned"]
    )
    # the better open loop on these seeds, whichever it was on others
    best = max(means["open-loop-tuned"], means["static-tuned"])
    assert best == means["open-loop-tuned"]
    assert result.values["state"].value == pytest.approx(means["switch-tuned"] - best)
    assert result.values["looking"].value == pytest.approx(
        means["switch-tuned"] - result.values[study.SHUFFLED].value
    )
    assert result.values["looking"].value != 0


@pytest.mark.parametrize(
    ("rung", "events", "rule", "spaced"),
    [
        (
            "restart-tuned",
            "restarts",
            RestartWhenPoor(0.3, 4, learning_rate=0.002),
            lambda n: RestartWhenPoor(9.0, n, learning_rate=0.002),
        ),
        (
            "swap-tuned",
            "swaps",
            SwapWhenFallen(0.1, 0.05, "copy", learning_rate=0.002),
            lambda n: SwapWhenFallen(0.1, 0.05, "copy", n, learning_rate=0.002),
        ),
    ],
)
def test_events_are_also_compared_with_those_at_equal_distances(
    kept: Any, rung: str, events: str, rule: Any, spaced: Any
) -> None:
    small = replace(
        get_task("dacrl/DQN-CartPole-v0"), id="own/Small-v0", budget=600, decisions=6,
        configuration={"learning_starts": 100},
    )  # fmt: skip
    for name, policy in {"static-tuned": Static(), rung: rule}.items():
        fitted = Fitted(policy, Cost(7), task=small.id, settings={})
        save_fitted(fitted, place(small.id, name), {})
    rungs = ["static-tuned", rung]
    entry = {**ENTRY, "best": rungs, "settings": {"seeds": [0, 7], "rungs": rungs}}
    headroom.keep(small.id, entry)
    values = study.confirm(small, seeds=range(8, 11)).values
    given = {str(n): spaced(n) for n in (3, 2, 1)}
    rows = summarize(dacrl_env.compare(small, given, range(8, 11)))
    means = rows.groupby("policy")["report_final"].mean()
    assert means.nunique() == 3
    for times, distance in {1: "3", 2: "2", 5: "1"}.items():
        assert values[f"{times} {events}"].value == pytest.approx(means[distance])
    best = max(values[f"{times} {events}"].value for times in (1, 2, 5))
    own = values[rung].value
    assert values["spaced"].value == pytest.approx(own - best)


def test_seeds_are_fresh(kept: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds 0 to 7; .* such as 8:16"):
        study.confirm(QUADRATIC, seeds=range(7, 20))
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        study.confirm(QUADRATIC, seeds=[300])
    with pytest.raises(ValueError, match="dacrl headroom dacrl/DQN-CartPole-v0 --keep"):
        study.confirm("dacrl/DQN-CartPole-v0")


def test_the_page_has_what_was_kept(
    kept: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["headroom-confirm", QUADRATIC, "--seeds", "8:12", "--out", str(tmp_path)]
    assert main(line) == 0
    assert "test seeds 8 to 11" in capsys.readouterr().out
    assert json.loads(kept.read_text())["tasks"][QUADRATIC] == ENTRY
    assert main([*line, "--keep"]) == 0
    fewer = ["--seeds", "8:11", "--keep"]
    assert main([*line, *fewer]) == 2
    assert "confirmed on seeds 8 to 11" in capsys.readouterr().err
    written = json.loads((tmp_path / "confirmed.json").read_text())
    entry = json.loads(kept.read_text())["tasks"][QUADRATIC]
    assert entry == {**ENTRY, "confirmed": {k: written[k] for k in entry["confirmed"]}}
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 5 * 4
    assert main(["headroom-page", str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs" / "headroom.md").read_text()
    value, low, high = written["values"]["switch-tuned"]
    cells = [QUADRATIC, "8–11", "switch-tuned"]
    row = next(x for x in page.splitlines() if x.startswith(f"| {' | '.join(cells)}"))
    assert f"| {value:.3f} [{low:.3f}, {high:.3f}] |" in row
    assert f"dacrl headroom-confirm {QUADRATIC} --seeds 8:12 --keep --out DIR" in page
