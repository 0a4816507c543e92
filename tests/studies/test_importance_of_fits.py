"""``dacrl importance``: what is found of fits, and what is said where nothing is."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from dacrl_env.cli.commands import main
from dacrl_env.integrations.optuna import read_studies
from dacrl_env.studies import importance_of_fits as study_of
from dacrl_env.studies.importance import LEAST
from dacrl_env.studies.importance_of_fits import candidates_of, importance_of_fits
from dacrl_env.tasks import returns

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SPACES = {
    "learning_rate": FloatDistribution(1e-6, 1e-1, log=True),
    "epsilon": FloatDistribution(0.0, 1.0),
    "loss": CategoricalDistribution(["huber", "mse"]),
}


def study(
    n: int = 60,
    seed: int = 0,
    *,
    objective: Any = "auc",
    method: str = "mine",
    score: Any = None,
    failed: int = 0,
    pruned: int = 0,
) -> optuna.Study:
    """Candidates whose score follows from the exponent of the learning rate."""
    names = [objective] if isinstance(objective, str) else objective
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(
        directions=["minimize" if name == "cost" else "maximize" for name in names]
    )
    about = {"task": QUADRATIC, "method": method, "budget": 1_000}
    for name, value in {**about, "objective": objective, "seed": seed}.items():
        made.set_user_attr(name, value)
    generator = np.random.default_rng(seed)
    states = [TrialState.COMPLETE] * n
    states += [TrialState.FAIL] * failed + [TrialState.PRUNED] * pruned
    for state in states:
        place = generator.random()
        params = {
            "learning_rate": 10.0 ** (5 * place - 6),
            "epsilon": generator.random(),
            "loss": str(generator.choice(["huber", "mse"])),
        }
        own = -((place - 0.6) ** 2) if score is None else score
        values = [100.0 * params["epsilon"] if k == "cost" else own for k in names]
        done = state == TrialState.COMPLETE
        made.add_trial(
            create_trial(
                state=state,
                params=params,
                distributions=SPACES,
                values=values if done else None,
            )
        )
    return made


def test_what_scores_depend_on_is_important_by_both() -> None:
    found = importance_of_fits([study(40)], draws=2).table
    for evaluator, rows in found.groupby("evaluator"):
        assert rows["knob"].iloc[0] == "learning_rate", evaluator
        assert rows["mean"].sum() == pytest.approx(1.0)
        assert rows["mean"].is_monotonic_decreasing
        assert (rows["low"] <= rows["mean"]).all()
        assert (rows["high"] >= rows["mean"]).all()
        assert rows["deviation"].isna().all()  # of one fit there is none
        assert (rows["high"] > rows["low"]).all()
    assert set(found["candidates"]) == {40}


def test_fits_that_differ_in_their_seed_are_a_group() -> None:
    every = [study(seed=0), study(seed=1), study(seed=2), study(method="other")]
    found = importance_of_fits(every, evaluators=["ped-anova"], draws=10).table
    assert dict(found.groupby("method")["fits"].first()) == {"mine": 3, "other": 1}
    mine = found[found["method"] == "mine"].set_index("knob")
    alone = [
        importance_of_fits([one], evaluators=["ped-anova"], draws=2)
        .table.set_index("knob")["mean"]
        .loc["learning_rate"]
        for one in every[:3]
    ]
    assert mine.loc["learning_rate", "mean"] == pytest.approx(np.mean(alone))
    assert mine.loc["learning_rate", "deviation"] == pytest.approx(
        np.std(alone, ddof=1)
    )
    assert mine["candidates"].iloc[0] == 180
    # the same seed, the same result
    again = importance_of_fits(every, evaluators=["ped-anova"], draws=10).table
    pd.testing.assert_frame_equal(again, found)


def test_a_fit_that_is_there_twice_is_one() -> None:
    options: dict[str, Any] = {"evaluators": ["ped-anova"], "draws": 5}
    one, again = study(), study()
    alone = importance_of_fits([one], **options)
    twice = importance_of_fits([one, again, one], **options)
    pd.testing.assert_frame_equal(twice.table, alone.table)
    assert twice.notes == alone.notes


def test_of_fits_with_one_seed_the_newest_counts() -> None:
    options: dict[str, Any] = {"evaluators": ["ped-anova"], "draws": 5}
    old, new = study(40), study(50)
    for every in ([old, new], [new, old]):
        found = importance_of_fits(every, **options)
        assert set(found.table["fits"]) == {1}
        assert set(found.table["candidates"]) == {50}
        (note,) = found.notes
        assert f"left out: {old.study_name}: an older fit of seed 0" in note
    # of other versions they are groups of their own
    new.set_user_attr("version", "2")
    found = importance_of_fits([old, new], **options)
    assert found.table.groupby("group")["options"].first().tolist() == ["", "version=2"]
    assert not found.notes


def test_groups_that_differ_in_options_alone_are_shown() -> None:
    one, other = study(), study(seed=1)
    other.set_user_attr("options", {"budget": "500"})
    found = importance_of_fits(
        [one, other], evaluators=["ped-anova", "ped-anova"], draws=2
    )
    assert len(found.table) == 6  # three knobs of each
    text = "\n".join(study_of.render(found, 100))
    assert f"group 1: auc of mine on {QUADRATIC}, budget 1,000: 1 fit" in text
    assert f"group 2: auc of mine on {QUADRATIC}, budget 1,000, budget=500: 1" in text


def test_shares_of_fanova_are_said_to_be_of_main_effects() -> None:
    found = importance_of_fits([study(30)], draws=2)
    (table,) = (text for text in study_of.render(found, 100) if "[95 %]" in text)
    assert "fanova, of main effects [95 %]" in table


def test_nothing_is_measured_to_find_importance(monkeypatch: Any) -> None:
    measured: list[Any] = []
    task = study_of.get_task("dacrl/DQN-CartPole-v0")
    unknown = replace(task, id="mine/T-v0", floor_return=None)
    monkeypatch.setattr(study_of, "get_task", lambda name: unknown)
    monkeypatch.setattr(returns, "load", lambda name: measured.append)
    monkeypatch.setattr(returns, "_kept", lambda task: None)
    worst = min(candidates_of(study(failed=2), "auc").scores)
    least = min(t.values[0] for t in study().trials)
    assert worst == pytest.approx(least - 0.1)
    assert measured == []


def test_each_objective_has_its_own() -> None:
    made = study(objective=["auc", "cost"])
    found = importance_of_fits([made], evaluators=["ped-anova"], draws=2).table
    first = found.groupby("objective")["knob"].first()
    assert dict(first) == {"auc": "learning_rate", "cost": "epsilon"}
    one = importance_of_fits([made], "cost", ["ped-anova"], draws=2).table
    assert set(one["objective"]) == {"cost"}


def test_runs_that_diverged_count_as_the_worst_of_scores_and_not_as_costs() -> None:
    made = study(objective=["auc", "cost"], failed=7, pruned=5)
    scores, costs = (candidates_of(made, name) for name in ("auc", "cost"))
    assert (scores.complete, scores.diverged, scores.given_up) == (60, 7, 5)
    assert len(scores.scores) == 67
    worst = sorted(scores.scores)[:7]
    assert len(set(worst)) == 1
    assert worst[0] == study_of.get_task(QUADRATIC).floor_score - 0.1
    assert len(costs.scores) == 60
    assert max(costs.scores) < 0  # less is better
    found = importance_of_fits([made], evaluators=["ped-anova"], draws=2)
    assert "runs that were given up are left out" in found.notes
    assert "runs that diverged are left out of cost" in found.notes
    assert "runs that diverged count as 0.1 below the task's floor" in found.notes
    # a task of which nothing is known here
    made.set_user_attr("task", "mine/Unknown-v0")
    assert min(candidates_of(made, "auc").scores) == pytest.approx(
        min(t.values[0] for t in made.trials if t.values) - 0.1
    )


def test_runs_of_one_candidate_are_one() -> None:
    made = study(LEAST)
    for trial in made.trials:
        made.add_trial(trial)
    assert len(candidates_of(made, "auc").scores) == LEAST


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"n": LEAST - 1, "pruned": 3}, f"{LEAST - 1} candidates .3 were given up"),
        ({"n": 3, "failed": 2}, "5 candidates .2 runs diverged.*at least 20"),
        ({"score": 0.5}, "all 60 candidates have the same auc"),
        ({"n": 0}, "0 candidates; importance takes at least 20"),
    ],
)
def test_where_nothing_can_be_said_it_is_said(
    made: dict[str, Any], message: str
) -> None:
    one = study(**made)
    with pytest.raises(ValueError, match=message):
        importance_of_fits([one], draws=2)
    # others are not lost by it
    found = importance_of_fits([one, study(seed=1)], evaluators=["ped-anova"], draws=2)
    assert len(found.table) == 3
    assert any("left out:" in note for note in found.notes)


def test_wrong_names_are_said() -> None:
    with pytest.raises(ValueError, match="unknown evaluator 'anova'"):
        importance_of_fits([study()], evaluators=["anova"])
    with pytest.raises(ValueError, match=r"unknown objective 'best'.*auc"):
        importance_of_fits([study()], "best")
    with pytest.raises(ValueError, match="at least 2, got 1"):
        importance_of_fits([study()], draws=1)


def test_the_command_finds_fits_of_a_folder(tmp_path: Path, capsys: Any) -> None:
    line = ["fit", QUADRATIC, "random-search", "--decision-interval", "25"]
    for seed in ("0", "1"):
        more = ["--budget", "1500", "--seed", seed, "--out", str(tmp_path), "--quiet"]
        assert main([*line, *more]) == 0
    line = ["importance", str(tmp_path), "--evaluators", "ped-anova", "--draws", "3"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "final of random-search on dacrl/NoisyQuadratic-v0, budget 1,500" in shown
    assert "2 fits" in shown
    assert "learning_rate  1.000 [1.000, 1.000]" in shown
    table = pd.read_csv(tmp_path / "importance.csv")
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["knob"] for row in told["importance"]] == table["knob"].tolist()
    assert len(read_studies(tmp_path)) == 2


def test_the_help_has_the_default_of_the_study(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["importance", "--help"])
    assert f"(default: {study_of.DRAWS})" in " ".join(capsys.readouterr().out.split())


def test_a_folder_without_a_study_is_said(tmp_path: Path, capsys: Any) -> None:
    assert main(["importance", str(tmp_path)]) == 2
    assert "no optuna.journal in" in capsys.readouterr().err
    (tmp_path / "optuna.journal").write_text("no journal\n")
    assert main(["importance", str(tmp_path)]) == 2
    assert str(tmp_path / "optuna.journal") in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["optuna", "sklearn"])
def test_what_is_not_installed_is_named(missing: str, monkeypatch: Any) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda n, *a: None if n == missing else found(n, *a),
    )
    with pytest.raises(ImportError, match=r"pip install 'dacrl-env\[optuna\]'"):
        read_studies("x") if missing == "optuna" else importance_of_fits([study()])
