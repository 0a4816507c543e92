"""Results in a directory as one frame, and figures without pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dacrl_env
from dacrl_env.cli.commands import main

QUADRATIC = "dacrl/NoisyQuadratic-v0"


def test_results_of_a_directory_are_one_frame(tmp_path: Path) -> None:
    line = ["compare", QUADRATIC, "--policies", "mine=default", "random"]
    line += ["--seeds", "3", "--num-threads", "1", "--out", str(tmp_path)]
    assert main(line) == 0
    assert main([*line, "--run-budget", "100"]) == 0
    frame = dacrl_env.read_results(tmp_path)
    longest = frame.groupby("comparison")["env_steps"].max()
    assert sorted(longest) == [50, 100]
    assert set(frame["policy"]) == {"mine", "random"}
    made = dacrl_env.compare(QUADRATIC, ["default", "random"], 3)
    first = frame[frame["comparison"] == longest.idxmin()]
    scores = [f["report_score"].dropna().tolist() for f in (first, made)]
    assert scores[0] == scores[1]
    # a store has names, for labels lie beside it
    names = set(dacrl_env.read_results(tmp_path / "results")["policy"])
    assert names == {"default", "random"}


def test_what_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results in"):
        dacrl_env.read_results(tmp_path / "none")
    dacrl_env.compare(QUADRATIC, "default", 2, store=tmp_path / "results")
    (tmp_path / "labels.json").write_text(json.dumps({"default": 3}))
    with pytest.raises(ValueError, match="label"):
        dacrl_env.read_results(tmp_path)


@pytest.mark.slow
def test_figures_for_print(tmp_path: Path) -> None:
    line = ["compare", QUADRATIC, "--policies", "default", "--seeds", "2"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    written = []
    for _ in range(2):
        assert main(["report", str(tmp_path), "--figures", "pdf", "svg"]) == 0
        (pdf,), (svg,) = (tmp_path.glob(f"*/curves.{kind}") for kind in ("pdf", "svg"))
        written.append((pdf.read_bytes(), len(svg.read_bytes())))
    assert written[0] == written[1]
    assert written[0][0].startswith(b"%PDF-")
    assert "<svg" in svg.read_text()
