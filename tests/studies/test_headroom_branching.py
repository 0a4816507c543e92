"""What switching gains from the static configuration that headroom has found."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from bases_files import entry, own_bases, own_policies

from dacrl_env.cli.commands import main
from dacrl_env.policies import Cost, Fitted, save_fitted
from dacrl_env.policies.static import Static
from dacrl_env.policies.tuned import place
from dacrl_env.studies import headroom_branching as study
from dacrl_env.studies.branching import branching
from dacrl_env.tasks import headroom

QUADRATIC = "dacrl/NoisyQuadratic-v0"
RATE = 0.02  # of the incumbent: too low to begin with
ENTRY: dict[str, Any] = {
    "state": [0.2, 0.1, 0.3],
    "schedule": [0.1, 0.05, 0.15],
    "objective": "final",
    "best": ["static-tuned", "switch-tuned"],
    "settings": {
        "seeds": [0, 7],
        "rungs": ["static-tuned", "switch-tuned"],
        "hyperparameters": ["learning_rate"],
        "options": {"decision_interval": 2},
    },
    "version": "0.1.0",
}


@pytest.fixture
def kept(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, no_bases: None) -> Any:
    """A static configuration and headroom of a task, in folders of the test's own."""
    (tmp_path / "own").mkdir()
    own_policies(tmp_path / "own", monkeypatch)
    fitted = Fitted(Static(learning_rate=RATE), Cost(7), task=QUADRATIC, settings={})
    save_fitted(fitted, place(QUADRATIC, "static-tuned"), {})
    monkeypatch.setattr(headroom, "PATH", tmp_path / "headroom.json")
    headroom.measured.cache_clear()
    headroom.keep(QUADRATIC, ENTRY)
    yield tmp_path / "headroom.json"
    monkeypatch.undo()
    headroom.measured.cache_clear()


def test_it_is_branching_of_the_kept_configuration_as_it_was_searched(
    kept: Any, tmp_path: Any
) -> None:
    with own_bases(tmp_path) as base:
        base({QUADRATIC: entry(defaults={"learning_rate": 0.25})})
        result = study.branch("dacrl/NoisyQuadratic-v1", runs=8)
    same = branching(
        QUADRATIC,
        {"learning_rate": RATE},
        runs=8,
        hyperparameters=["learning_rate"],
        decision_interval=2,
    )
    assert result.task == QUADRATIC
    pd.testing.assert_frame_equal(result.rows, same.rows)
    assert result.cost == same.costs["branching"]
    assert list(result.values) == ["pooled", "control, pooled", "per run",
                                   "control, per run"]  # fmt: skip
    means = same.rows.set_index(["what", "point"])["value"]
    for reading in study.READINGS:
        assert list(result.points[reading]) == ["0.2", "0.52", "0.8"]
        each = [gain.value for gain in result.points[reading].values()]
        assert result.values[reading].value == pytest.approx(sum(each) / 3)
        for point, gain in result.points[reading].items():
            assert gain.value == means[reading, float(point)]
        control = f"control, {reading}"
        assert result.values[control].value == means[control, 0.8]


def test_what_is_not_measured_is_refused(kept: Any) -> None:
    with pytest.raises(ValueError, match="dacrl headroom dacrl/DQN-CartPole-v0 --keep"):
        study.branch("dacrl/DQN-CartPole-v0")
    with pytest.raises(ValueError, match="runs must be at least 2"):
        study.branch(QUADRATIC, runs=1)


def test_the_page_has_what_was_kept(
    kept: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["headroom-branch", QUADRATIC, "--runs", "6", "--out", str(tmp_path)]
    assert main(line) == 0
    assert "6 runs" in capsys.readouterr().out
    assert json.loads(kept.read_text())["tasks"][QUADRATIC] == ENTRY
    assert main([*line, "--keep"]) == 0
    assert main([*line, "--runs", "5", "--keep"]) == 2
    assert "has runs 6; what replaces it needs as many" in capsys.readouterr().err
    written = json.loads((tmp_path / "branching.json").read_text())
    assert written.pop("task") == QUADRATIC
    now = json.loads(kept.read_text())["tasks"][QUADRATIC]
    assert now == {**ENTRY, "branching": written}
    assert len(pd.read_csv(tmp_path / "branching.csv")) == 2 * 5
    assert main(["headroom-page", str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs" / "headroom.md").read_text()
    row = next(x for x in page.splitlines() if x.startswith(f"| {QUADRATIC} | 6 |"))
    for name in ("pooled", "per run", "control, pooled", "control, per run"):
        value, low, high = written["values"][name]
        assert f"| {value:.3f} [{low:.3f}, {high:.3f}] |" in row
    command = f"dacrl headroom-branch {QUADRATIC} --runs 6 --configurations 6"
    assert f"{command} --streams 2 --keep --out DIR" in page
