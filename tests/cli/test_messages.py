"""What the command line says, and takes in more than one way of writing."""

from __future__ import annotations

import os
import warnings

import pandas as pd
import pytest
from cases import slow

from dacrl_env.cli import terminal
from dacrl_env.cli.commands import main

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"


def said(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "wrong", "meant"),
    [
        (["compare", QUADRATIC], ["--wrong-option"], ""),
        (["compare", QUADRATIC], ["--polices", "default"], "mean '--policies'?"),
        (["compare", QUADRATIC], ["--budgett=5"], "mean '--budget'?"),
        (["evaluate", QUADRATIC, "default"], ["--sed", "3"], "mean '--seeds'?"),
        (["fit", QUADRATIC, "race"], ["--run-bugdet", "3"], "mean '--run-budget'?"),
        (["oracle", QUADRATIC], ["--stream", "2", "--makdown"], "'--markdown'?"),
        (["compare", QUADRATIC], ["default", "random"], "given by --policies"),
        (["compare", QUADRATIC], ["--seed", "3"], "mean '--seeds'?"),
        (["evaluate", QUADRATIC, "default"], ["--see=3"], "mean '--seeds'?"),
        (["evaluate", QUADRATIC, "default"], ["--num", "1"], ""),
        (["defaults"], ["--task", QUADRATIC], "mean '--tasks'?"),
        (["fit", QUADRATIC, "race"], ["--trace"], "mean '--traceback'?"),
    ],
)
def test_wrong_options_show_the_usage_of_the_command(
    capsys, tmp_path, command, wrong, meant
) -> None:
    more = ["--budget", "100"] if command[0] == "fit" else []
    err = said(capsys, *command, *more, "--out", str(tmp_path), *wrong)
    assert err.startswith(f"dacrl {command[0]}: error: ")
    assert "unrecognized arguments: " in err
    assert meant in err


def test_needed_options_that_are_nearly_right(capsys, tmp_path) -> None:
    line = ["fit", QUADRATIC, "race", "--out", str(tmp_path)]
    err = said(capsys, *line, "--budgt", "5", "--seed=-1")
    assert "unrecognized arguments: --budgt 5 (did you mean '--budget'?)" in err
    assert "required: --budget\n" in said(capsys, *line)


def test_abbreviations_before_the_command(capsys) -> None:
    assert "(did you mean '--version'?)" in said(capsys, "--vers", "tasks")


@pytest.mark.parametrize(
    ("wrong", "meant"), [("comapre", "compare"), ("evalute", "evaluate")]
)
def test_commands_that_are_nearly_right(capsys, wrong, meant) -> None:
    assert f"(did you mean '{meant}'?)" in said(capsys, wrong)


def test_choices_that_are_nearly_right(capsys, tmp_path) -> None:
    line = ["evaluate", QUADRATIC, "default", "--out", str(tmp_path)]
    err = said(capsys, *line, "--feedback", "trian")
    assert err.startswith("dacrl evaluate: error: ")
    assert "(did you mean 'train'?)" in err


@pytest.mark.parametrize("value", ["1e2", "100", slow("1.0e2"), slow("100.0")])
def test_whole_numbers_of_options_are_written_in_any_way(tmp_path, value) -> None:
    line = ["evaluate", CARTPOLE, "default", "--seeds", "1e0", "--num-threads", "1"]
    line += ["--run-budget", "4e2", "--decision-interval", "2e1", "--out"]
    line += [str(tmp_path), "--set", f"learning_starts={value}", "eval_episodes=1e0"]
    assert main(line) == 0
    (path,) = tmp_path.glob("*/summary.csv")
    rows = pd.read_csv(path)
    assert rows["env_steps"].tolist() == [400]
    assert rows["gradient_steps"].tolist() == [75]  # every 4 of the last 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "learning_starts=2.5e0"], "of type int, got 2.5"),
        (["--set", "eval_episodes=1e-1"], "a whole number of at least 1, got 0.1"),
        (["--set", "learning_start=2e2"], "mean 'learning_starts'?"),
        (["--set", "budget=2e2"], "budget cannot be given by --set; --run-budget is"),
        (["--set", "num_threads=2"], "given by --set; --num-threads is"),
        (["--set", "store='a'"], "given by --set; --out is"),
        (["--set", "tuning_budget=2"], "tuning_budget cannot be given by --set\n"),
        (["--set", "batch=2"], "batch cannot be given by --set\n"),
        (["--set", "history=2", "history=3"], "history is given twice"),
        (["--feedback", "eval", "--set", "feedback=eval"], "feedback is given twice"),
        (["--hyperparameters", "learning_rat"], "mean 'learning_rate'?"),
        (["--seeds", "2.5"], "--seeds takes a number"),
    ],
)
def test_options_that_are_none(capsys, tmp_path, options, message) -> None:
    line = ["evaluate", CARTPOLE, "default", "--out", str(tmp_path), *options]
    assert main(line) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "defualt"], "unknown policy 'defualt' (did you mean 'default'"),
        (["--policies", "pretrained/dqn-cartpole-swich-0"], "switch-0'?"),
        (["--policies", "race"], "'race' is a method, no policy"),
        (["--policies", "linear-epsilon,fracton=1"], "mean 'fraction'?"),
        (["--policies", "default", "--reference", "defaul"], "mean 'default'?"),
        (["--methods", "tpee", "--budget", "100"], "mean 'tpe'?"),
        (["--methods", "race,family=statik", "--budget", "4e3"], "mean 'static'?"),
        (["--policies", "$\\frac$=default"], "'\"$\\frac$\"=default'"),
        (["--policies", "a/b=default"], "'\"a/b\"=default'"),
        (["--policies", "a:b=default"], "'\"a:b\"=default'"),
        (["--methods", "a\\b=race", "--budget", "100"], "'\"a\\b\"=race'"),
        (["--policies", "os:path"], "'os:path' is a module, nothing that makes one"),
        (["--policies", "math:pi"], "'math:pi' is a float, nothing that makes one"),
        (["--methods", "math:pi", "--budget", "1e3"], "is a float, nothing that makes"),
        (["--methods", "pbt,population=2", "--budget", "4e3"], "at least 4 members"),
        (["--methods", "hyperband,eta=1", "--budget", "4e3"], "eta must be a whole"),
        (["--methods", "race,objective=aucc", "--budget", "4e3"], "mean 'auc'?"),
        (["--methods", "controller-ppo,history=0", "--budget", "4e3"], "history must"),
    ],
)
def test_names_that_are_nearly_right(capsys, tmp_path, arguments, message) -> None:
    line = ["compare", QUADRATIC, "--out", str(tmp_path), *arguments]
    assert main(line) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_warnings_of_ours_are_one_line(capsys) -> None:
    with warnings.catch_warnings(record=True) as others, terminal.safe():
        warnings.simplefilter("default")
        warnings.warn_explicit("said", UserWarning, terminal.__file__, 1)
        warnings.warn_explicit("said", UserWarning, "elsewhere.py", 1)
    assert capsys.readouterr().err == "dacrl: said\n"
    assert [warning.filename for warning in others] == ["elsewhere.py"]


def test_a_full_disk_is_named(tmp_path, capsys, monkeypatch) -> None:
    # fails without a name, as a full disk does, and is no code of a user
    monkeypatch.setattr(os, "fsync", os.tcgetpgrp)
    line = ["evaluate", QUADRATIC, "default", "--seeds", "1", "--num-threads", "1"]
    assert main([*line, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("dacrl: [Errno 25] ")
    assert str(tmp_path) in said
