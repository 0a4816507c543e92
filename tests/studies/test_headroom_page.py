"""The page of what `dacrl headroom` has measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dacrl_env.cli.commands import main
from dacrl_env.tasks import headroom

CARTPOLE, QUADRATIC = "dacrl/DQN-CartPole-v0", "dacrl/NoisyQuadratic-v0"
SETTINGS = {
    "runs": 1000,
    "fits": 3,
    "static_twice": True,
    "seeds": [0, 127],
    "rungs": ["static-tuned", "freeze-tuned"],
    "most_work": 4.0,
    "generations": 3,
}
ENTRIES: dict[str, Any] = {
    CARTPOLE: {
        "state": [0.2, 0.15, 0.25],
        "schedule": [0.01, -0.02, 0.04],
        "objective": "auc",
        "values": {
            "default": [0.3, 0.28, 0.32],
            "static-tuned": [0.5, 0.45, 0.55],
            "freeze-tuned, what looking is worth": [0.1, 0.05, 0.15],
        },
        "best": ["static-tuned", "freeze-tuned"],
        "by_fit": {"static-tuned": [0.4, 0.5, 0.6]},
        "settings": SETTINGS,
        "version": "0.1.0",
    },
    QUADRATIC: {"schedule": [0.03, 0.02, 0.04], "version": "0.1.0"},
}


@pytest.fixture
def kept(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "headroom.json"
    path.write_text(json.dumps({"tasks": ENTRIES}))
    monkeypatch.setattr(headroom, "PATH", path)
    headroom.measured.cache_clear()
    yield path
    monkeypatch.undo()
    headroom.measured.cache_clear()


def test_a_row_a_task_and_a_figure(kept: Any, tmp_path: Any) -> None:
    assert main(["headroom-page", str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs" / "headroom.md").read_text()
    rows = {
        cells[1]: cells
        for line in page.splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) > 10
    }
    head = rows["task"]
    cartpole = dict(zip(head, rows[CARTPOLE], strict=True))
    assert cartpole["state"] == "0.200 [0.150, 0.250]"
    assert cartpole["looking"] == "0.100 [0.050, 0.150]"
    assert cartpole["checkpoint-tuned"] == "–"
    assert cartpole["tags"] == "state"
    # of which it is not known that its static rung was searched twice, nor its fits
    quadratic = dict(zip(head, rows[f"{QUADRATIC} * †"], strict=True))
    assert "On tasks marked †" in page
    assert (quadratic["state"], quadratic["tags"]) == ("–", "smoke")
    assert (
        f"dacrl headroom {CARTPOLE} --objective auc --runs 1000 --fits 3 --most-work 4 "
        "--generations 3 --rungs static-tuned freeze-tuned --seeds 0:128 --keep"
    ) in page
    assert (tmp_path / "docs" / "headroom.png").stat().st_size > 0


def test_nothing_is_measured(
    kept: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.unlink()
    headroom.measured.cache_clear()
    assert main(["headroom-page", str(tmp_path / "docs")]) == 2
    assert "nothing is measured yet" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
