"""``dacrl compare`` on several tasks, as a user calls it."""

import json

import pandas as pd
import pytest

from dacrl_env.cli import suites
from dacrl_env.cli.commands import main
from dacrl_env.comparison.aggregate import OBJECTIVES
from dacrl_env.tasks import headroom

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
BOTH = ["--tasks", QUADRATIC, CARTPOLE]


def line(out, *more):
    return [
        "compare", "--policies", "default", "back=checkpoint-when-best", "--seeds", "3",
        "--run-budget", "2000", "--num-threads", "1", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture
def figures(tmp_path, monkeypatch, no_bases):
    """Two tasks that are measured, one of them with room for closed loops."""
    path = tmp_path / "figures.json"
    entries = {
        CARTPOLE: {"state": [0.2, 0.1, 0.3], "schedule": [0.0, -0.1, 0.1]},
        QUADRATIC: {"state": [0.0, -0.1, 0.1], "schedule": [0.1, 0.06, 0.2]},
    }
    path.write_text(json.dumps({"tasks": entries}))
    monkeypatch.setattr(headroom, "PATH", path)
    headroom.measured.cache_clear()
    yield
    headroom.measured.cache_clear()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    out = tmp_path_factory.mktemp("suite")
    assert main(line(out, *BOTH, "--skip-unfit")) == 0
    return out


def folder(out):
    (path,) = out.glob("suite-*")
    return path


def test_every_task_has_a_folder_and_so_has_the_suite(comparison):
    names = {path.name.rpartition("-")[0] for path in comparison.iterdir()}
    assert {
        "dacrl-NoisyQuadratic-v0-2000",
        "dacrl-DQN-CartPole-v0-2000",
        "suite-2-tasks",
    } <= names
    assert len(list(comparison.glob("dacrl-*/report.md"))) == 2
    suite = folder(comparison)
    assert {path.name for path in suite.iterdir()} == {
        "aggregates.csv", "aggregates.png", "comparison.json", "profile.csv",
        "profile.png", "report.html", "report.md",
        "suite.csv", "suite.json", "tasks.csv",
    }  # fmt: skip
    table = pd.read_csv(suite / "tasks.csv")
    pairs = list(zip(table["task"], table["policy"], strict=True))
    assert pairs == [(QUADRATIC, "default"), (CARTPOLE, "default"), (CARTPOLE, "back")]
    assert (
        f"back does not suit {QUADRATIC} and was left out"
        in (suite / "report.md").read_text()
    )


def test_the_same_command_finds_what_is_finished(comparison, capsys):
    kept = {p: p.stat().st_mtime_ns for p in comparison.glob("results/*.parquet")}
    assert main(line(comparison, *BOTH, "--skip-unfit", "--objective", "final")) == 0
    out = capsys.readouterr().out
    assert f"back was left out on {QUADRATIC}" in out
    assert f"report: {folder(comparison) / 'report.md'}" in out
    now = {p: p.stat().st_mtime_ns for p in comparison.glob("results/*.parquet")}
    assert kept == now
    assert "Objective: final" in (folder(comparison) / "report.md").read_text()


@pytest.mark.slow
def test_report_makes_the_suite_anew(comparison, capsys):
    suite = folder(comparison)
    before = pd.read_csv(suite / "aggregates.csv").set_index("policy")
    for path in suite.iterdir():
        if path.name != "suite.json":
            path.unlink()
    assert main(["report", str(comparison)]) == 0
    after = pd.read_csv(suite / "aggregates.csv").set_index("policy")
    pd.testing.assert_frame_equal(after.loc[before.index], before, rtol=1e-6)
    arguments = ["--objective", "best", "--reference", "back"]
    assert main(["report", str(comparison), *arguments]) == 0
    text = (suite / "report.md").read_text()
    assert "Objective: best" in text
    assert "Reference: back" in text
    assert "average rank" in capsys.readouterr().out


def test_a_suite_by_its_tag(tmp_path, figures):
    arguments = ["--suite", "schedule", "--policies", "default"]
    assert main(line(tmp_path / "out", *arguments)) == 0
    suite = folder(tmp_path / "out")
    assert suite.name.startswith("suite-schedule-")
    assert set(pd.read_csv(suite / "tasks.csv")["task"]) == {QUADRATIC}


def test_an_interrupted_suite_is_reported_as_far_as_it_came(
    tmp_path, monkeypatch, capsys
):
    from dacrl_env.comparison import suite

    original = suite.compare

    def interrupted(task, *arguments, **options):
        if task.id == CARTPOLE:
            raise KeyboardInterrupt
        return original(task, *arguments, **options)

    monkeypatch.setattr(suite, "compare", interrupted)
    arguments = line(tmp_path, *BOTH)
    arguments.remove("back=checkpoint-when-best")
    assert main(arguments) == 130
    assert main(["report", str(tmp_path)]) == 0
    assert f"{CARTPOLE} has no results yet." in capsys.readouterr().out
    table = pd.read_csv(folder(tmp_path) / "tasks.csv")
    assert table["task"].tolist() == [QUADRATIC]


@pytest.mark.slow
def test_methods_with_a_budget_in_runs(tmp_path):
    arguments = line(tmp_path, "--tasks", QUADRATIC, "--budget-runs", "3")
    arguments.remove("back=checkpoint-when-best")
    arguments += ["--methods", "random-search,seeds=1", "--runs", "2"]
    assert main(arguments) == 0
    table = pd.read_csv(folder(tmp_path) / "tasks.csv").set_index("policy")
    assert table.loc["random-search,seeds=1", "fits"] == 2
    assert table.loc["random-search,seeds=1", "runs"] == 6


def test_tasks_shows_headroom_and_tags(figures, capsys):
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "headroom           state +0.200 [+0.100, +0.300], schedule +0.000" in out
    part = out[out.index(f"{CARTPOLE}:") :]
    assert part[part.index("tags ") :].split("\n")[0].split() == ["tags", "state"]
    assert "headroom           –" in out  # of others


def test_objectives_are_those_of_aggregates():
    assert list(OBJECTIVES) == list(suites.OBJECTIVES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which task? one by its place, several by --tasks or --suite"),
        ([QUADRATIC, *BOTH], "a task and --tasks exclude each other"),
        ([*BOTH, "--suite", "all"], "--tasks and --suite exclude each other"),
        ([QUADRATIC, "--suite", "all"], "a task and --suite exclude each other"),
        (["--suite", "stat"], "unknown suite 'stat' (did you mean 'state'?)"),
        (["--tasks", QUADRATIC, "dacrl/No-v0"], "unknown task 'dacrl/No-v0'"),
        ([*BOTH, QUADRATIC], f"task '{QUADRATIC}' is given twice"),
        ([*BOTH], f"{QUADRATIC}: checkpoint-when-best does not suit the task"),
        ([*BOTH, "--skip-unfit", "--reference", "x"], "unknown reference 'x'"),
        ([*BOTH, "--hyperparameters", "epsilon"], f"{QUADRATIC}: unknown hyperparam"),
        ([*BOTH, "--anytime", "3"], "--anytime takes one task"),
        ([*BOTH, "--budget", "9", "--budget-runs", "9"], "exclude each other"),
        ([QUADRATIC, "--skip-unfit"], "--skip-unfit is for several tasks"),
        ([QUADRATIC, "--objective", "final"], "--objective is for several tasks"),
        ([QUADRATIC, "--budget-runs", "2"], "--budget-runs is for several tasks"),
        ([*BOTH, "--methods", "race"], "--methods need a tuning --budget"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_work(
    tmp_path, capsys, arguments, message
):
    out = tmp_path / "out"
    # the place of a task is before options that take several
    assert main(["compare", *arguments, *line(out)[1:]]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(out.glob("*/report.md"))


def test_an_objective_without_a_suite(tmp_path, capsys):
    assert (
        main(["evaluate", QUADRATIC, "default", "--seeds", "2", "--out", str(tmp_path)])
        == 0
    )
    assert main(["report", str(tmp_path), "--objective", "final"]) == 2
    assert "--objective is for suites" in capsys.readouterr().err
