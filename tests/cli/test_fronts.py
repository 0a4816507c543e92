"""``dacrl fit --objectives``, and ``dacrl report`` of fits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from searches import QUADRATIC

from dacrl_env.cli import fit_pages
from dacrl_env.cli.commands import main
from dacrl_env.comparison import fronts
from dacrl_env.core.store import Store, StoreError
from dacrl_env.integrations.optuna import journal
from dacrl_env.policies import Fitted, load_fitted, save_fitted

RUN = ["--decision-interval", "10", "--budget", "2000"]
BOTH = ["--objectives", "final", "auc"]


def fit(out: Path, method: str = "random-search", *more: str) -> int:
    return main(["fit", QUADRATIC, method, *RUN, "--out", str(out), *more])


def without_versions(page: str) -> str:
    """A page without the line whose order is that of the store."""
    return re.sub(r"<dt>Versions</dt>.*", "", page)


def test_a_front_is_kept_as_table_figure_and_policies(
    tmp_path: Path, capsys: Any
) -> None:
    line = [*BOTH, "--reference-point", "auc=-0.5", "--json"]
    assert fit(tmp_path, "random-search", *line) == 0
    told = json.loads(capsys.readouterr().out)
    table = pd.read_csv(tmp_path / "pareto.csv")
    assert [*table][:5] == ["number", "file", "final", "auc", "online"]
    assert [row["auc"] for row in told["front"]] == pytest.approx(table["auc"].tolist())
    assert told["hypervolume"]["reference"] == {"final": 0.0, "auc": -0.5}
    (folder,) = (tmp_path / "fits").iterdir()
    for place in (tmp_path, folder):
        kept = json.loads((place / "pareto.json").read_text())
        assert kept["hypervolume"] == told["hypervolume"]
        assert (place / "pareto.png").stat().st_size > 1_000
        assert (place / "pareto.csv").read_text() == (
            tmp_path / "pareto.csv"
        ).read_text()
        files = {f"front/{path.name}" for path in (place / "front").iterdir()}
        assert files == set(table["file"])
    for row in table.to_dict("records"):
        one = load_fitted(tmp_path / row["file"])
        assert one.policy.arguments()["learning_rate"] == pytest.approx(
            row["learning_rate"]
        )
        assert one.cost.env_steps == told["cost"]["env_steps"]
        assert one.about is not None
        assert one.about["values"]["auc"] == row["auc"]
    # the policy of the fit is the first
    first = load_fitted(tmp_path / "front" / "1.json").policy.arguments()
    assert load_fitted(tmp_path / "policy.json").policy.arguments() == first
    # any of them runs as a policy does
    assert len(table) > 1
    line = ["evaluate", QUADRATIC, str(tmp_path / "front" / "2.json"), "--seeds", "2"]
    line += ["--decision-interval", "10", "--out", str(tmp_path / "tested")]
    assert main(line) == 0
    assert "2.json" in capsys.readouterr().out


def test_a_front_is_made_once(tmp_path: Path, monkeypatch: Any) -> None:
    made = []
    for name in ("hypervolume_of", "draw"):
        own = getattr(fronts, name)

        def counted(*given: Any, name: str = name, own: Any = own) -> Any:
            made.append(name)
            return own(*given)

        monkeypatch.setattr(fronts, name, counted)
    assert fit(tmp_path, "random-search", *BOTH) == 0
    assert sorted(made) == ["draw", "hypervolume_of"]


def test_a_later_front_leaves_no_policy_of_the_one_before(tmp_path: Path) -> None:
    assert fit(tmp_path, "random-search", *BOTH) == 0
    (tmp_path / "front" / "99.json").write_text("{}")
    (tmp_path / "front" / "mine.json").write_text("{}")
    assert fit(tmp_path, "random-search", *BOTH, "--seed", "1") == 0
    names = {path.name for path in (tmp_path / "front").iterdir()}
    count = len(pd.read_csv(tmp_path / "pareto.csv"))
    assert names == {"mine.json", *(f"{n}.json" for n in range(1, count + 1))}


def test_the_study_has_the_objectives(tmp_path: Path) -> None:
    assert fit(tmp_path, "random-search", *BOTH) == 0
    storage = journal(tmp_path / "optuna.journal")
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.metric_names == ["final", "auc"]
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    table = pd.read_csv(tmp_path / "pareto.csv")
    front = np.array(sorted(t.values for t in study.best_trials))
    kept = table[["final", "auc"]].sort_values("final").to_numpy()
    assert front == pytest.approx(kept)
    assert len(complete) > len(front)


def test_judged_names_are_said_to_be_observed_ones(tmp_path: Path, capsys: Any) -> None:
    assert fit(tmp_path, "tpe", "--objectives", "report_auc", "--quiet") == 0
    assert "no search sees report_auc" in capsys.readouterr().err
    (path,) = (tmp_path / "policies").iterdir()
    assert load_fitted(path).about["method"] == "tpe,objective='auc'"  # type: ignore[index]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([*BOTH, "--reference-point", "cost=3"], "unknown objective 'cost'"),
        ([*BOTH, "--reference-point", "auc=x"], "NAME=VALUE with a number"),
        ([*BOTH, "--reference-point", "auc=2"], "below score 1"),
        (["--reference-point", "auc=0"], "for several --objectives"),
        (["--objectives", "auc", "cost", "--dry-run"], "no operations are counted"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_run(
    more: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    assert fit(tmp_path / "out", "random-search", *more) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert not (tmp_path / "out" / "results").exists()


def test_a_report_of_fits_makes_their_pages_again(tmp_path: Path, capsys: Any) -> None:
    point = ["--reference-point", "auc=-0.5"]
    assert fit(tmp_path, "random-search", *BOTH, *point) == 0
    assert fit(tmp_path, "pbt,population=4") == 0
    pages = sorted((tmp_path / "fits").glob("*/report.html"))
    assert len(pages) == 2
    before = [path.read_text() for path in pages]
    for path in (*pages, *(tmp_path / "fits").glob("*/pareto.png")):
        path.unlink()
    capsys.readouterr()
    line = ["report", str(tmp_path), "--figures", "svg", "--json"]
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(one["page"] for one in told["fits"]) == [str(path) for path in pages]
    for path, text in zip(pages, before, strict=True):
        assert without_versions(path.read_text()) == without_versions(text)
    assert len([*(tmp_path / "fits").glob("*/pareto.svg")]) == 1
    assert main(["report", str(tmp_path), "--reference", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    # runs that are gone leave their page, others are written
    for path in (tmp_path / "results").glob("fit-*PBT*.parquet"):
        path.unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert "its page stays as it is" in capsys.readouterr().err


def test_a_page_is_made_of_the_runs_of_its_own_method(
    tmp_path: Path, capsys: Any
) -> None:
    # all find the same policy
    one = "random-search,space={'learning_rate':(0.1,0.1000001)}"
    assert fit(tmp_path, one) == 0
    (path,) = (tmp_path / "policies").iterdir()
    policy = json.loads(path.read_text())
    own = load_fitted(path)
    for change in ("method", "seeds", "settings"):
        about, settings = dict(own.about or {}), dict(own.settings or {})
        if change == "settings":
            settings["decision_interval"] = 25
        else:
            about["method"] = f"tpe,{one.partition(',')[2]}"
            if change == "seeds":
                about["method"] = f"{one},seeds=2"
        other = Fitted(
            own.policy, own.cost, online=own.online, task=own.task, settings=settings
        )
        save_fitted(other, tmp_path / "policies" / f"{change}.json", about)
    assert policy["settings"] == own.settings
    capsys.readouterr()
    assert main(["report", str(tmp_path), "--json"]) == 0
    told = capsys.readouterr()
    assert [one["policy"] for one in json.loads(told.out)["fits"]] == [str(path)]
    assert told.err.count("its page stays as it is") == 3


def test_a_fit_whose_runs_are_damaged_costs_no_other(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    assert fit(tmp_path) == 0
    assert fit(tmp_path, "random-search", "--seed", "1") == 0
    capsys.readouterr()
    read, damaged = Store.read, [KeyError("went"), StoreError("damaged")]

    def reading(store: Store, key: Any) -> pd.DataFrame:
        if key["seed"] == 0:
            raise error
        return read(store, key)

    monkeypatch.setattr(Store, "read", reading)
    for error in damaged:
        told = fit_pages.report(tmp_path)
        assert len(told) == 1
        assert "seed1" in told[0]["policy"]
        said = capsys.readouterr().err
        assert str(error) in said
        assert said.count("its page stays as it is") == 1


def test_a_folder_with_neither_results_nor_fits_is_said(
    tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "results").mkdir()
    assert main(["report", str(tmp_path)]) == 2
    assert "no results in" in capsys.readouterr().err
