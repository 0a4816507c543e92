"""Runs of plain models beside the package's own, kept one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dacrl_env.benchmarks import carried

from dacrl_env.outer.settings import resolve


def result_of(policy: str, settings: Any, seed: int) -> dict[str, Any]:
    better = policy != carried.DEFAULT
    return {"final": 0.5 + better + seed / 100, "auc": 0.25 + better / 2}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Runs that are asked for, none of which trains."""
    asked: list[tuple[str, int]] = []

    def do(policy: str, settings: Any, seed: int) -> dict[str, Any]:
        asked.append((policy, seed))
        return result_of(policy, settings, seed)

    monkeypatch.setattr(carried, "_plain", do)
    monkeypatch.setattr(carried, "_package", do)
    return asked


def test_runs_are_kept_and_compared(
    tmp_path: Path, done: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path), "--policy", "freeze-when-good"]
    assert carried.main([*out, "--runs", "2"]) == 0
    assert len(done) == 2 * 2 * 2
    assert carried.main([*out, "--seeds", "0", "1", "4"]) == 0
    assert done[8:] == [("default", 4)] * 2 + [("freeze-when-good", 4)] * 2
    told = json.loads((tmp_path / "summary.json").read_text())
    rows = {(r["metric"], r["policy"], r["place"]): r for r in told["rows"]}
    row = rows["final", "freeze-when-good", carried.PLAIN]
    assert row["runs"] == 3
    assert row["difference"] == pytest.approx([1.0, 1.0, 1.0])
    assert row["beyond"] == pytest.approx([0.5, 0.5, 0.5])
    assert "beyond" not in rows["final", "freeze-when-good", carried.PACKAGE]
    assert "difference" not in rows["final", "default", carried.PLAIN]
    assert "+1.000 [+1.000, +1.000]" in capsys.readouterr().out
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert list(runs) == [*carried.COLUMNS]
    assert len(runs) == 12
    mine = runs[(runs["policy"] != "default") & (runs["place"] == carried.PLAIN)]
    assert mine["final"].tolist() == [1.5, 1.51, 1.54]
    with pytest.raises(SystemExit):
        carried.main([*out, "--runs", "1", "--budget", "2000"])
    assert "give another one" in capsys.readouterr().err
    # elsewhere, with the table of what was done here
    other = ["--out", str(tmp_path / "other"), "--policy", "freeze-when-good"]
    other += ["--before", str(tmp_path / "runs.csv")]
    assert carried.main([*other, "--seeds", "0", "1", "4", "5"]) == 0
    assert done[12:] == [("default", 5)] * 2 + [("freeze-when-good", 5)] * 2
    assert len(pd.read_csv(tmp_path / "other" / "runs.csv")) == 16
    runs.drop(columns="auc").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(SystemExit):
        carried.main([*other[:-1], str(tmp_path / "less.csv")])
    assert "less.csv has no column auc" in capsys.readouterr().err


def test_the_page_has_what_its_table_says(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    table = docs / "carried.csv"
    seeds = sorted({int(seed) for seed in pd.read_csv(table)["seed"]})
    result = carried.carried(tmp_path, seeds, before=[table])
    assert not list(tmp_path.iterdir())  # nothing was left to do
    _, rows = carried.render(result).split("\n\n")
    page = (docs / "sb3.md").read_text()
    assert rows in page
    assert f"{len(seeds)} seeds ([carried.csv](carried.csv)" in page


def test_a_plain_model_has_the_default_configuration() -> None:
    settings = resolve(carried.TASK, implementation="sb3", budget=2_000)
    model = carried.plain_model(settings, 0)
    values = {h.name: h.default for h in settings.hyperparameters}
    assert model.lr_schedule(0.5) == values["learning_rate"]
    assert model.exploration_rate == values["epsilon"]
    assert (model.batch_size, model.gamma) == (values["batch_size"], values["gamma"])
    assert model.policy_kwargs["net_arch"] == [*settings.config.hidden_sizes]
    assert model.learning_starts == settings.config.learning_starts
    assert model._vec_normalize_env is None


def test_other_tasks_and_seeds_are_refused(tmp_path: Path) -> None:
    for options, match in (
        ({"task": "dacrl/PPO-CartPole-v0"}, "no task of DQN"),
        ({"seeds": [1, 1]}, "each once"),
        ({"policies": ["nothing"]}, "nothing"),
    ):
        given: dict[str, Any] = {"seeds": [0], "out": tmp_path, **options}
        with pytest.raises(ValueError, match=match):
            carried.carried(**given)
