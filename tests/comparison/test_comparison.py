"""Methods in a comparison: what they may see, what they are charged, what survives."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cases import slow

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison import comparison, results
from dacrl_env.core import streams
from dacrl_env.core.store import Store, StoreError
from dacrl_env.methods import trials
from dacrl_env.outer.population import Population
from dacrl_env.policies import (
    Cost,
    Fitted,
    from_json,
    get_method,
    get_policy,
    load_fitted,
    protocol,
    save_fitted,
    to_json,
)

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL = {"budget": 2_000, "eval_episodes": 2, "learning_starts": 200}
METHOD = "random-search,population=2"
WORK = {
    "task": CARTPOLE,
    "policies": ["default"],
    "methods": [METHOD],
    "tuning_budget": 8_000,
    "runs": 2,
    "seeds": range(2),
    **SMALL,
}


def shown(out: Path, name: str) -> Path:
    """A file of the one comparison in a directory."""
    (path,) = out.glob(f"*/{name}")
    return path


def untimed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="wall_seconds").reset_index(drop=True)


def test_a_method_appears_with_its_runs_and_what_they_cost():
    frame = dacrl_env.compare(**WORK)
    assert frame["policy"].unique().tolist() == ["default", METHOD]
    by_policy = frame.groupby("policy")
    assert by_policy["run"].unique().map(list).to_dict() == {
        "default": [0],
        METHOD: [0, 1],
    }
    tuned = frame[frame["policy"] == METHOD]
    for run in (0, 1):
        fitted = get_method(METHOD).fit(CARTPOLE, 8_000, run, **SMALL)
        rows = tuned[tuned["run"] == run]
        for name, value in asdict(fitted.cost).items():
            assert rows[f"tuning_{name}"].unique().tolist() == [value]
        assert rows["report_online"].unique().tolist() == [fitted.online]
        straight = dacrl_env.evaluate(
            CARTPOLE, fitted, range(2), name=METHOD, run=run, **SMALL
        )
        pd.testing.assert_frame_equal(untimed(rows), untimed(straight))
        assert fitted.cost.env_steps == 8_000
        assert fitted.cost.eval_steps > 0
    default = frame[frame["policy"] == "default"]
    assert (default[[f"tuning_{name}" for name in asdict(Cost())]] == 0).all(axis=None)
    assert default["report_online"].isna().all()
    assert (default["flops"].dropna() > 0).any()


def test_policies_have_runs_of_their_own_number(tmp_path):
    out = str(tmp_path)
    line = ["compare", QUADRATIC, "--policies", "default", "--methods", "random-search"]
    line += ["--budget", "500", "--runs", "2", "--seeds", "3", "--policy-seeds", "6"]
    line += ["--num-threads", "1", "--out", out]
    assert main(line) == 0
    table = pd.read_csv(shown(tmp_path, "table.csv")).set_index("policy")
    assert table["runs"].to_dict() == {"default": 6, "random-search": 6}
    pairs = pd.read_csv(shown(tmp_path, "paired.csv"))["pairs"]
    assert set(pairs) == {2 * 3}  # of the seeds that both have


def test_other_seeds_of_policies_are_checked(capsys, tmp_path):
    with pytest.raises(ValueError, match="must have seeds in common"):
        dacrl_env.compare(**WORK, policy_seeds=range(2, 4))
    line = ["compare", QUADRATIC, "--policy-seeds", "0", "--out", str(tmp_path)]
    assert main(line) != 0
    assert "--policy-seeds must be at least 1, got 0" in capsys.readouterr().err


def test_a_fit_opens_the_tuning_split_alone(monkeypatch: pytest.MonkeyPatch):
    seen = set()
    original = streams.member_keys

    def spy(split: str, *names: int) -> np.ndarray:
        seen.add(split)
        return original(split, *names)

    monkeypatch.setattr(streams, "member_keys", spy)
    fitted = get_method(METHOD).fit(CARTPOLE, 4_000, 0, **SMALL)
    assert seen == {"tuning"}
    dacrl_env.evaluate(CARTPOLE, fitted, [0], **SMALL)
    assert seen == {"tuning", "test"}


def test_no_method_chooses_by_the_report(monkeypatch: pytest.MonkeyPatch):
    before = get_method(METHOD).fit(CARTPOLE, 8_000, 0, **SMALL)
    upside_down = np.random.default_rng(0).random
    monkeypatch.setattr(Population, "final_report", lambda self: upside_down(self.size))
    after = get_method(METHOD).fit(CARTPOLE, 8_000, 0, **SMALL)
    assert to_json(after.policy) == to_json(before.policy)
    assert after.online != before.online


def test_runs_of_a_method_differ_and_equal_seeds_do_not():
    fits = [get_method(METHOD).fit(QUADRATIC, 200, seed) for seed in (0, 1, 0)]
    a, b, c = (to_json(fit.policy) for fit in fits)
    assert a == c
    assert a != b
    assert fits[0].cost == fits[2].cost


def test_a_fit_keeps_the_course_of_every_run():
    fitted = get_method("random-search,population=3").fit(QUADRATIC, 400, 0)
    trace = fitted.trace
    assert len(trace) == len(trace.drop_duplicates(["generation", "member", "step"]))
    assert (
        trace.groupby(["generation", "member"])["step"]
        .apply(list)
        .map(len)
        .eq(50)
        .all()
    )
    assert (trace["parent"] == trace["member"]).all()
    best = trace[trace["hp/learning_rate"] == fitted.policy.config["learning_rate"]]
    ends = trace[trace["step"] == 50]
    assert best["score"].iloc[-1] == ends["score"].max()
    again = results.fitted_of(results.fit_frame(fitted))
    pd.testing.assert_frame_equal(again.trace, trace)
    assert to_json(again.policy) == to_json(fitted.policy)


def test_forks_and_selections_are_in_the_trace():
    work = trials.Trials(QUADRATIC, 10_000, 0, get_method(METHOD))
    work.begin(work.tuning_seeds(3))
    rates = np.full((1, 3, 1), 0.01)
    work.advance(rates)
    work.fork([2, 1, 2])
    work.advance(rates)
    work.select([2, 0])
    work.fork([1, 1])
    work.advance(rates[:, :2])
    trace = work.fitted(get_policy("default")).trace
    parents = trace.groupby("step")["parent"].apply(list).tolist()
    assert parents == [[0, 1, 2], [2, 1, 2], [0, 0]]


def test_the_incumbents_of_a_fit_are_its_course():
    fitted = get_method("random-search,population=8").fit(QUADRATIC, 2_000, 3)
    spent = [cost.env_steps for cost, _ in fitted.incumbents]
    assert spent == sorted(spent)
    assert spent[-1] == fitted.cost.env_steps <= 2_000
    assert to_json(fitted.incumbents[-1][1]) == to_json(fitted.policy)
    # what it would have returned with half of the budget, it did return
    half = get_method("random-search,population=8").fit(QUADRATIC, 1_000, 3)
    then = [p for cost, p in fitted.incumbents if cost.env_steps <= 1_000]
    assert to_json(half.policy) == to_json(then[-1])


@pytest.mark.slow
def test_anytime_tests_what_was_found_on_the_way(tmp_path: Path):
    given = {"tuning_budget": 2_000, "runs": 2, "store": tmp_path}
    dacrl_env.compare(QUADRATIC, methods=[METHOD], seeds=range(2), **given)
    fits = set(tmp_path.glob("fit-*"))
    course = comparison.anytime(QUADRATIC, [METHOD], range(3), **given)
    assert set(tmp_path.glob("fit-*")) == fits
    assert list(course) == ["policy", "run", "seed", "steps", "report_final"]
    points = course.groupby("run")["steps"].nunique()
    assert (points > 1).all()
    assert (points <= comparison.ANYTIME_POINTS).all()
    last = course[course["steps"] == course.groupby("run")["steps"].transform("max")]
    ends = dacrl_env.compare(QUADRATIC, methods=[METHOD], seeds=range(3), **given)
    ends = ends.groupby(["run", "seed"])["report_score"].last()
    assert last.set_index(["run", "seed"])["report_final"].to_dict() == ends.to_dict()


def test_many_incumbents_are_thinned_to_the_first_the_last_and_some_between():
    course = [(Cost(env_steps=50 * k), get_policy("default")) for k in range(1, 201)]
    some = comparison._spread(Fitted(get_policy("default"), course[-1][0], course))
    assert comparison.ANYTIME_POINTS / 2 < len(some) <= comparison.ANYTIME_POINTS
    assert some[0] is course[0]
    assert some[-1] is course[-1]
    assert comparison._spread(Fitted(get_policy("default"), Cost())) != []


def test_a_total_budget_includes_the_final_run():
    work = {**WORK, "policies": [], "total": True}
    frame = dacrl_env.compare(**work)
    last = frame.groupby(["run", "seed"]).last()
    assert (last["tuning_env_steps"] + last["env_steps"] == 8_000).all()
    assert (last["tuning_eval_steps"] + last["eval_steps"] == 0).all()
    with pytest.raises(ValueError, match="feedback='train'"):
        dacrl_env.compare(**work, feedback="eval")
    with pytest.raises(ValueError, match="at least 4,000 steps"):
        dacrl_env.compare(**{**work, "tuning_budget": 3_000})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tuning_budget": None}, "need a tuning budget"),
        ({"tuning_budget": 1_999}, "too small .* at least 2,000"),
        ({"methods": ["nobody"]}, "unknown method 'nobody'; valid: grid-search"),
        ({"methods": [METHOD, METHOD]}, "once each"),
        ({"policies": [], "methods": []}, "must be given"),
        ({"methods": ["random-search,speed=3"]}, "arguments: space, family"),
        ({"runs": 0}, "runs must be at least 1"),
        ({"budgte": 1}, "unknown option 'budgte'"),
    ],
)
def test_bad_input_is_named_before_anything_runs(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(**{**WORK, **given}, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["split", "action_mode", "report"])
def test_a_method_cannot_be_given_what_is_not_its_own(name):
    with pytest.raises(ValueError, match=f"cannot be given '{name}'"):
        get_method(METHOD).fit(QUADRATIC, 100, 0, **{name: "test"})


# -- interrupted ----------------------------------------------------------------


class InterruptedFitError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 7])
def test_an_interrupted_fit_goes_on_from_its_journal(tmp_path, monkeypatch, after):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    straight: list[int] = []
    expected = get_method(METHOD).fit(
        CARTPOLE, 8_000, 0, None, straight.append, decision_interval=500, **SMALL
    )
    done: list[int] = []

    def until(steps: int) -> None:
        done.append(steps)
        if len(done) == after:
            raise InterruptedFitError

    with pytest.raises(InterruptedFitError):
        get_method(METHOD).fit(
            CARTPOLE, 8_000, 0, Store(tmp_path), until, decision_interval=500, **SMALL
        )
    rest: list[int] = []
    resumed = get_method(METHOD).fit(
        CARTPOLE, 8_000, 0, Store(tmp_path), rest.append, decision_interval=500, **SMALL
    )
    assert to_json(resumed.policy) == to_json(expected.policy)
    assert (resumed.cost, resumed.online) == (expected.cost, expected.online)
    # the first generation is four decisions of two runs
    kept = 4 if after > 4 else 0
    assert straight == 8 * [1_000]
    assert rest.count(1_000) == len(straight) - kept
    assert sum(rest) == sum(straight)  # with what is in the journal


def test_a_journal_of_another_course_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    method = get_method(METHOD)
    method.fit(QUADRATIC, 200, 0, Store(tmp_path))
    (file,) = tmp_path.rglob("journal.json")
    content = json.loads(file.read_text())
    content["records"][0]["digest"] = "0"
    content["checksum"] = trials._checksum(content)
    file.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="another course"):
        method.fit(QUADRATIC, 200, 0, Store(tmp_path))
    file.write_text(file.read_text()[:-20])
    with pytest.raises(StoreError, match="damaged"):
        method.fit(QUADRATIC, 200, 0, Store(tmp_path))


def _compare_in_child(directory: Path, workers: int) -> None:
    trials.CHECKPOINT_SECONDS = 0.0
    dacrl_env.compare(
        **WORK, store=directory, num_threads=workers, executor="processes", batch=1
    )


@pytest.fixture(scope="module")
def undisturbed() -> pd.DataFrame:
    return dacrl_env.compare(**WORK, batch=1)


@pytest.mark.slow
# finished units before each kill
@pytest.mark.parametrize(("workers", "kills"), [slow(1, (1, 5)), (2, (3,))])
def test_a_killed_comparison_goes_on_where_it_stopped(
    tmp_path, workers, kills, undisturbed
):
    kept: dict[Path, int] = {}
    for enough in kills:
        process = multiprocessing.get_context("spawn").Process(
            target=_compare_in_child, args=(tmp_path, workers)
        )
        process.start()
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline:
            if len(list(tmp_path.glob("*.parquet"))) >= enough:
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        now = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.parquet")}
        assert kept.items() <= now.items()  # nothing lost, nothing run again
        kept = now
    resumed = dacrl_env.compare(**WORK, store=tmp_path, batch=1)
    now = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.parquet")}
    assert kept.items() <= now.items()
    assert len(now) == 2 + 2 + 2 * 2  # fits, default, tuned: one unit a seed
    pd.testing.assert_frame_equal(untimed(resumed), untimed(undisturbed))
    assert list((tmp_path / "fits").iterdir()) == []


# -- policy files ---------------------------------------------------------------


def test_a_policy_file_holds_the_policy_and_its_cost(tmp_path):
    table = {"learning_rate": [1e-3, 2e-3, 1e-4, 1e-5], "epsilon": [1.0, 0.5, 0.1, 0.0]}
    policy = from_json({"kind": "open-loop", "arguments": {"values": table}})
    fitted = Fitted(policy, Cost(10, 20, 5, 1e9), online=0.5, task=CARTPOLE)
    path = tmp_path / "policy.json"
    save_fitted(fitted, path, {"method": "by hand"})
    again = get_policy(str(path))
    assert to_json(again.policy) == to_json(policy)
    assert (again.cost, again.online, again.task) == (fitted.cost, 0.5, CARTPOLE)
    with pytest.raises(ValueError, match=r"made for dacrl/DQN-CartPole.*not for"):
        dacrl_env.evaluate("dacrl/DQN-Acrobot-v0", again, [0], **SMALL)
    frame = dacrl_env.evaluate(CARTPOLE, again, [0], **SMALL)
    for name, column in table.items():
        at = frame.dropna(subset="reward").drop_duplicates("step").sort_values("step")
        assert at[f"hp/{name}"].dropna().tolist() == column
    assert [p.name for p in tmp_path.iterdir()] == ["policy.json"]


def test_a_fit_knows_the_runs_that_it_was_made_for(tmp_path):
    fitted = dacrl_env.fit(QUADRATIC, "random-search,population=2", 400, 0, budget=100)
    assert (fitted.task, fitted.settings) == (QUADRATIC, {"budget": 100})
    path = tmp_path / "policy.json"
    save_fitted(fitted, path, {})
    for again in (fitted, load_fitted(path)):
        with pytest.raises(ValueError, match=r"with budget 100, not 50.*its \.policy"):
            dacrl_env.evaluate(QUADRATIC, again, [0])
        with pytest.raises(ValueError, match="not for dacrl/DQN-CartPole"):
            dacrl_env.evaluate(CARTPOLE, again, [0], **SMALL)
        assert not dacrl_env.evaluate(QUADRATIC, again, [0], budget=100).empty
        assert not dacrl_env.evaluate(QUADRATIC, again.policy, [0]).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[: len(c) // 2], "no policy file"),
        (lambda c: c.replace('"format": 2', '"format": 99'), "reads up to 2"),
        (lambda c: c.replace('"static"', '"os:system"'), "unknown policy 'os:system'"),
        (lambda c: c.replace('"learning_rate"', '"value, here"'), None),
        (lambda c: c.replace('"cost"', '"price"'), "no policy file"),
        (lambda _: "[]", "no policy file"),
    ],
)
def test_a_damaged_or_foreign_policy_file_is_refused(tmp_path, change, message):
    path = tmp_path / "policy.json"
    policy = from_json({"kind": "static", "arguments": {"learning_rate": 1e-4}})
    save_fitted(Fitted(policy, Cost()), path, {})
    changed = change(path.read_text())
    if changed[-1:] == "}":  # by somebody who writes the checksum anew
        content = json.loads(changed)
        content["checksum"] = protocol._checksum(content)
        changed = json.dumps(content)
    path.write_text(changed)
    if message is None:  # known only when it meets the task
        with pytest.raises(ValueError, match="unknown hyperparameter"):
            dacrl_env.evaluate(CARTPOLE, load_fitted(path), [0], **SMALL)
    else:
        with pytest.raises(ValueError, match=message):
            load_fitted(path)


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ValueError, match="FreezeWhenGood cannot be written out"):
        to_json(get_policy("freeze-when-good"))
    with pytest.raises(ValueError, match=r"ends in \.json"):
        save_fitted(Fitted(get_policy("default"), Cost()), tmp_path / "policy.pkl", {})
    with pytest.raises(FileNotFoundError, match="no policy file"):
        load_fitted(tmp_path / "nothing.json")


# -- command line ---------------------------------------------------------------


def test_fit_then_evaluate_on_the_command_line(tmp_path, capsys):
    fit = ["fit", QUADRATIC, METHOD, "--budget", "2e2", "--out", str(tmp_path / "fit")]
    assert main(fit) == 0
    spent = load_fitted(tmp_path / "fit" / "policy.json").cost.env_steps
    assert 0 < spent <= 200
    assert f"spent {spent} training" in capsys.readouterr().out
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "fit").rglob("*.parquet")}
    assert main(fit) == 0  # found in the store
    assert files == {
        p: p.stat().st_mtime_ns for p in (tmp_path / "fit").rglob("*.parquet")
    }
    policy = str(tmp_path / "fit" / "policy.json")
    arguments = ["--seeds", "2", "--num-threads", "1", "--out", str(tmp_path / "out")]
    assert main(["evaluate", QUADRATIC, policy, *arguments]) == 0
    assert f"{spent} + 50" in capsys.readouterr().out


def test_compare_methods_on_the_command_line(tmp_path, capsys):
    arguments = ["compare", QUADRATIC, "--policies", "default", "--methods", METHOD]
    options = ["--seeds", "2", "--num-threads", "1", "--runs", "2", "--anytime", "2"]
    out = ["--out", str(tmp_path)]
    assert main([*arguments, *options, *out]) == 2
    assert "need a tuning --budget" in capsys.readouterr().err
    assert main([*arguments, *options, "--budget", "300", *out]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\d+ \+ 50 ", printed)
    assert "online" in printed
    course = pd.read_csv(shown(tmp_path, "anytime.csv"))
    assert set(course["run"]) == {0, 1}
    assert shown(tmp_path, "anytime.png").stat().st_size > 1_000
    with pytest.raises(SystemExit):
        main([*arguments, *options, "--budget", "2.5", *out])


def test_a_missing_extra_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    fit = ["fit", QUADRATIC, "tpe", "--budget", "200", "--out", str(tmp_path)]
    assert main(fit) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("dacrl: ")
    assert "pip install 'dacrl-env[optuna]'" in printed
