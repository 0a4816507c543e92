"""Comparisons on several tasks: what is run, what is refused, and when."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from later import Later
from PIL import Image

from dacrl_env import compare, compare_suite
from dacrl_env.comparison import suite, suite_report
from dacrl_env.comparison.report import summarize
from dacrl_env.comparison.suite import Unfit, plan_suite

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
TASKS = [QUADRATIC, CARTPOLE]
SMALL = {"num_threads": 1, "task_options": {CARTPOLE: {"budget": 2000}}}


@pytest.fixture
def nothing_trains(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something is trained")

    monkeypatch.setattr(suite, "compare", refuse)


def test_the_frames_of_compare_put_together(tmp_path):
    frame = compare_suite(TASKS, ["default", "random"], 2, store=tmp_path, **SMALL)
    assert list(frame["task"].unique()) == TASKS
    parts = [
        compare(QUADRATIC, ["default", "random"], 2, num_threads=1),
        compare(CARTPOLE, ["default", "random"], 2, num_threads=1, budget=2000),
    ]
    for task, part in zip(TASKS, parts, strict=True):
        own = frame[frame["task"] == task].dropna(axis=1, how="all")
        own = own.drop(columns="wall_seconds").reset_index(drop=True)
        part = part.drop(columns="wall_seconds").dropna(axis=1, how="all")
        pd.testing.assert_frame_equal(own, part, check_like=True, check_dtype=False)


def test_finished_units_are_found_again(tmp_path):
    frame = compare_suite([QUADRATIC], "random", 3, store=tmp_path, num_threads=1)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert kept
    again = compare_suite([QUADRATIC], "random", 3, store=tmp_path, num_threads=1)
    pd.testing.assert_frame_equal(again, frame)
    # those of a comparison on this task alone are the same units
    compare(QUADRATIC, "random", 3, store=tmp_path, num_threads=1)
    now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert now == kept


def test_a_cluster_has_the_units_of_all_tasks_at_once(tmp_path):
    given = (TASKS, ["default", "random"], 2)
    options = {"methods": "random-search,population=2", "tuning_runs": 2, "runs": 2}
    executor = Later()
    frame = compare_suite(*given, executor=executor, store=tmp_path, **options, **SMALL)
    # two fits of each of two tasks, then tests of four policies on each
    assert executor.begun == 4 * [4] + 8 * [4 + 8]
    alone = compare_suite(*given, **options, **SMALL)
    pd.testing.assert_frame_equal(
        frame.drop(columns="wall_seconds"), alone.drop(columns="wall_seconds")
    )


def test_a_policy_that_does_not_suit_a_task_is_refused_first(nothing_trains):
    message = (
        f"^{QUADRATIC}: checkpoint-when-best does not suit the task: unknown "
        "hyperparameter 'checkpoint'.*--skip-unfit"
    )
    with pytest.raises(ValueError, match=message):
        compare_suite([CARTPOLE, QUADRATIC], ["default", "checkpoint-when-best"], 2)


def test_unfit_pairs_are_left_out_on_request():
    policies = {"base": "default", "back": "checkpoint-when-best"}
    plans, unfit = plan_suite(TASKS, policies, 2, skip_unfit=True, **SMALL)
    assert [(u.task, u.policy) for u in unfit] == [(QUADRATIC, "back")]
    assert [list(plan.policies) for plan in plans] == [["base"], ["base", "back"]]
    frame = compare_suite(TASKS, policies, 2, skip_unfit=True, **SMALL)
    pairs = frame.groupby("task")["policy"].unique().map(list).to_dict()
    assert pairs == {QUADRATIC: ["base"], CARTPOLE: ["base", "back"]}


def test_tasks_that_nothing_suits_are_left_out():
    plans, unfit = plan_suite(TASKS, "checkpoint-when-best", 2, skip_unfit=True)
    assert [plan.task.id for plan in plans] == [CARTPOLE]
    assert [u.task for u in unfit] == [QUADRATIC]


def test_what_suits_no_task_is_an_error():
    with pytest.raises(ValueError, match="checkpoint-when-best suits none of the tas"):
        plan_suite([QUADRATIC], ["default", "checkpoint-when-best"], 2, skip_unfit=True)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hyperparameters": ["epsilon"]}, f"{QUADRATIC}: unknown hyperparameter"),
        ({"budgett": 3}, "budgett"),
        ({"policies": ["defualt"]}, "defualt"),
        ({"policies": []}, "policies or methods must be given"),
        ({"tasks": []}, "no tasks are given"),
        ({"tasks": ["dacrl/None-v0"]}, "unknown task 'dacrl/None-v0'"),
        ({"tasks": [CARTPOLE, CARTPOLE]}, f"task '{CARTPOLE}' is given twice"),
        ({"task_options": {"x": {}}}, "task_options has 'x'"),
        ({"methods": "random-search"}, f"{CARTPOLE}: methods need a tuning budget"),
        (
            {"methods": "random-search", "tuning_budget": 5_000},
            f"{CARTPOLE}: a tuning budget of 5,000 is too small",
        ),
        (
            {"methods": "random-search", "tuning_budget": 9, "tuning_runs": 9},
            "give one",
        ),
    ],
)
def test_what_is_wrong_is_no_misfit(nothing_trains, skip, arguments, message):
    given = {"tasks": [CARTPOLE, QUADRATIC], "policies": ["default"], **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        compare_suite(seeds=2, skip_unfit=skip, **given)


def test_tuning_budgets_in_runs_of_each_task():
    plans, _ = plan_suite(
        TASKS, methods="random-search,seeds=1", tuning_runs=2, seeds=2, **SMALL
    )
    spent = [plan.options["tuning_budget"] for plan in plans]
    assert spent == [2 * plans[0].task.budget, 4000]


# -- the report ------------------------------------------------------------------------


def made(level, policies=("default", "a_b|c"), seeds=4):
    rng = np.random.default_rng(0)
    lines = [
        (policy, 0, seed, *([level + k / 4 + rng.normal() / 9] * 3), False)
        for k, policy in enumerate(policies)
        for seed in range(seeds)
    ]
    names = ["report_final", "report_auc", "report_best", "failure"]
    return pd.DataFrame(lines, columns=["policy", "run", "seed", *names])


def about(**fields):
    folders = {"A-v0": "A-v0-50-1", "B-v0": "B-v0-50-2"}
    return suite_report.About(
        **{
            "name": "state",
            "objective": "auc",
            "reference": None,
            "folders": folders,
            **fields,
        }
    )


def test_the_report_has_all_tables_and_figures(tmp_path):
    summaries = {"A-v0": made(0.2), "B-v0": made(0.3, ["default"])}
    unfit = [Unfit("B-v0", "a_b|c", "it has no b")]
    path, found, _ = suite_report.write_suite(summaries, tmp_path, about(unfit=unfit))
    folder = path.parent
    assert folder.parent == tmp_path
    assert folder.name.startswith("suite-state-")
    text = path.read_text()
    assert r"a_b\|c does not suit B-v0 and was left out: it has no b." in text
    assert "[A-v0](../A-v0-50-1/report.md)" in text
    assert f"| {found.tasks['mean'].iloc[0]:.3f} [" in text
    (line,) = [x for x in text.splitlines() if x.startswith("| [B-v0]")]
    assert line.endswith("| – |")
    every = pd.read_csv(folder / "suite.csv")
    assert every.groupby("task").size().to_dict() == {"A-v0": 8, "B-v0": 4}
    for name in ("aggregates", "tasks", "profile"):
        assert len(pd.read_csv(folder / f"{name}.csv"))
    for name in ("aggregates", "profile"):
        image = np.asarray(Image.open(folder / f"{name}.png").convert("L"))
        assert (image < 128).mean() > 0.002  # something is drawn
    shown = suite_report.render(found)
    assert "average rank" in shown
    assert "–" in shown


def test_a_report_without_common_tasks_has_no_figures(tmp_path):
    summaries = {"A-v0": made(0.2, ["a"]), "B-v0": made(0.3, ["b"])}
    path, found, _ = suite_report.write_suite(summaries, tmp_path, about())
    assert not list(path.parent.glob("*.png"))
    assert ".png" not in path.read_text()
    with pytest.raises(ValueError, match="no task has results of all"):
        suite_report.profile(found, tmp_path / "x.png")


def test_nothing_is_written_of_what_cannot_be_aggregated(tmp_path):
    with pytest.raises(ValueError, match="unknown reference"):
        suite_report.write_suite({"A-v0": made(0)}, tmp_path, about(reference="no"))
    with pytest.raises(ValueError, match="no task of the suite"):
        suite_report.write_suite({}, tmp_path, about())
    assert not list(tmp_path.iterdir())


def test_what_a_suite_is_comes_back_from_its_folder(tmp_path):
    one = about(unfit=[Unfit("A-v0", "p", "why")], reference="default")
    one.write(tmp_path)
    path = tmp_path / one.folder / suite_report.ABOUT
    assert suite_report.About.read(path) == one


@pytest.mark.parametrize(
    "change", [{"objective": "speed"}, {"folders": 3}, {"unfit": [{}]}, {"more": 1}]
)
def test_damaged_suites_are_named(tmp_path, change):
    about().write(tmp_path)
    path = tmp_path / about().folder / suite_report.ABOUT
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"suite\.json.*run again"):
        suite_report.About.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"suite\.json.*run again"):
        suite_report.About.read(path)


def test_summaries_of_real_frames(tmp_path):
    frame = compare_suite([QUADRATIC], ["default", "random"], 3, num_threads=1)
    summaries = {QUADRATIC: summarize(frame)}
    one = about(folders={QUADRATIC: "f"})
    found = suite_report.write_suite(summaries, tmp_path, one).aggregates
    assert found.overall["tasks"].tolist() == [1, 1]
    assert found.overall["mean"].tolist() == pytest.approx(
        summaries[QUADRATIC].groupby("policy", sort=False)["report_auc"].mean().tolist()
    )
