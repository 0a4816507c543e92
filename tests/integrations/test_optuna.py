"""Fits as studies of Optuna: what trials say, and that none is written twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.integrations.optuna import journal, to_study
from dacrl_env.policies import Cost, Fitted
from dacrl_env.policies.static import Static

TASK = "dacrl/NoisyQuadratic-v0"


def fitted_with(rows: list[tuple[int, int, int, float, float]]) -> Fitted:
    """A fit with the rows (member, parent, step, score, learning rate)."""
    names = ["member", "parent", "step", "score", "hp/learning_rate"]
    trace = pd.DataFrame(rows, columns=names).assign(generation=0)
    return Fitted(Static(), Cost(), task=TASK, trace=trace)


def test_runs_of_a_search_are_trials() -> None:
    fitted = dacrl_env.fit(TASK, "random-search", 600, seed=3)
    study = to_study(fitted, seed=3)
    assert fitted.trace is not None
    ends = fitted.trace[fitted.trace["step"] == 50]
    failed = ends["diverged"].tolist()
    assert 0 < sum(failed) < len(failed)
    values = [None if f else s for f, s in zip(failed, ends["score"], strict=True)]
    assert [t.value for t in study.trials] == values
    states = [TrialState.FAIL if f else TrialState.COMPLETE for f in failed]
    assert [t.state for t in study.trials] == states
    assert study.best_value == max(v for v in values if v is not None)
    rates = [t.params["learning_rate"] for t in study.trials]
    assert rates == ends["hp/learning_rate"].tolist()
    for trial in study.trials:
        assert [*trial.intermediate_values] == [*range(1, 51)]
        space = trial.distributions["learning_rate"]
        assert isinstance(space, optuna.distributions.FloatDistribution)
        assert space.log
    assert study.user_attrs["seed"] == 3
    assert "random-search" in study.study_name


def test_forks_rungs_and_divergence() -> None:
    study = to_study(
        fitted_with(
            [
                (0, 0, 1, 1.0, 0.1),  # goes on as both members
                (1, 1, 1, 0.5, 0.2),  # given up
                (0, 0, 2, 2.0, 0.1),
                (1, 0, 2, np.nan, 0.3),  # a copy that diverges
            ]
        )
    )
    given_up, goes_on, copy = study.trials
    assert given_up.state == TrialState.PRUNED
    assert given_up.intermediate_values == {1: 0.5}
    assert goes_on.state == TrialState.COMPLETE
    assert goes_on.value == 2.0
    assert goes_on.user_attrs["varied"] == []
    assert copy.state == TrialState.FAIL
    assert copy.intermediate_values == {1: 1.0}
    assert copy.params == {"learning_rate": 0.3}
    assert copy.user_attrs["varied"] == ["learning_rate"]


def test_the_same_fit_again_adds_nothing(tmp_path: Path) -> None:
    fitted = fitted_with([(m, m, 1, float(m), 0.1) for m in range(3)])
    for _ in range(2):
        study = to_study(fitted, journal(tmp_path / "optuna.journal"))
        assert len(study.trials) == 3
    other = fitted_with([(0, 0, 1, 7.0, 0.1)])
    to_study(other, journal(tmp_path / "optuna.journal"))
    names = optuna.get_all_study_names(journal(tmp_path / "optuna.journal"))
    assert len(names) == 2


def test_a_fit_of_the_command_line_has_the_objective_of_its_method(
    tmp_path: Path,
) -> None:
    line = ["fit", TASK, "random-search,objective=auc", "--budget", "600"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    storage = journal(tmp_path / "optuna.journal")
    study = optuna.load_study(study_name=None, storage=storage)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    for trial in complete:
        mean = np.mean([*trial.intermediate_values.values()])
        assert trial.value == pytest.approx(mean)
    assert complete


def test_a_damaged_journal_costs_no_fit(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "optuna.journal").write_text("no journal\n")
    line = ["fit", TASK, "random-search", "--budget", "600", "--out", str(tmp_path)]
    assert main(line) == 0
    said = capsys.readouterr()
    assert "no study was written" in said.err
    assert "study: " not in said.out
    assert (tmp_path / "policy.json").is_file()
    assert (tmp_path / "optuna.journal").read_text().startswith("no journal\n")


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown objective 'last'.*final, best, auc"):
        to_study(fitted_with([(0, 0, 1, 1.0, 0.1)]), objective="last")
    with pytest.raises(ValueError, match="no trace"):
        to_study(Fitted(Static(), Cost(), task=TASK))


def test_without_optuna_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'optuna' else f(n, *a)\n"
        "from dacrl_env.integrations.optuna import journal\n"
        "journal('x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'dacrl-env[optuna]'" in done.stderr
