"""What dynamics are worth: choosing, valuing, branching, and the race before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases import slow
from dacrl_env.baselines.race import Race, default_candidate

from dacrl_env import TASKS
from dacrl_env.cli.commands import main
from dacrl_env.comparison import stats
from dacrl_env.core.snapshot import SnapshotNotSupported
from dacrl_env.core.store import Store
from dacrl_env.methods import trials
from dacrl_env.methods.search import around
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import resolve
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static
from dacrl_env.studies import branching, dynamics, oracle
from dacrl_env.tasks import registration

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SHORT: dict[str, Any] = {"decision_interval": 10}
TINY: dict[str, Any] = {
    "budget": 2_000,
    "decision_interval": 500,
    "learning_starts": 100,
}
SMALL: dict[str, Any] = {"runs": 4, "configurations": 3, "streams": 2}
RATE = {"learning_rate": 0.15}


def rows_of(result: Any, what: str) -> pd.DataFrame:
    return result.rows[result.rows["what"] == what]


def mean_of(result: Any, what: str) -> Any:
    rows = rows_of(result, what)
    (row,) = rows[rows["point"].isna()].to_dict("records")
    return row


# -- choosing and valuing, by hand ----------------------------------------------------


def test_every_run_takes_its_own_best_branch():
    scores = np.array([[[0, 2], [3, 0], [0, 0]], [[1, 1], [0, 1], [1, 4]]], float)
    assert branching.choose_own(scores).tolist() == [1, 2]
    assert branching.choose_own(np.zeros((2, 3, 2))).tolist() == [0, 0]  # to continue


def test_a_pooled_choice_is_that_of_the_other_runs():
    # four folds of a run each: the first would take 1, and may not choose for itself
    gain = np.array([[0, 9, 0], [0, -1, 3], [0, -1, 4], [0, -1, 5]], float)
    scores = gain[:, :, None] + np.array([10, 20, 30, 40])[:, None, None]
    assert branching.choose_pooled(scores).tolist() == [2, 2, 2, 2]
    # without the first run 1 just loses (0.47 less an error of 0.53); with it, it wins
    gain = np.array([[0, 1.5], [0, 1], [0, -0.6], [0, 1]])
    assert branching.choose_pooled(gain[:, :, None])[0] == 0


def test_a_pooled_choice_has_to_exceed_its_standard_error():
    # seen by run 3: mean 2, deviation 2, error 2 / √3 = 1.15; then mean 1, error 1.15
    gain = np.array([[0, 0, -1], [0, 2, 1], [0, 4, 3], [0, 0, 0]], float)
    assert branching.choose_pooled(gain[:, :, None])[3] == 1
    assert branching.choose_pooled(gain[:, [0, 2], None])[3] == 0


def test_runs_of_one_fold_do_not_choose_for_each_other():
    gain = np.zeros((8, 2))
    # runs 0 and 4 are one fold; with either the others, 0.3 ± 0.32, would take 1
    gain[:, 1] = [1, 1, 1, -0.6, 1, 1, -0.6, 0]
    picks = branching.choose_pooled(gain[:, :, None])
    assert picks[[0, 4]].tolist() == [0, 0]


def test_gains_are_those_of_the_choice_over_continuing():
    values = np.array([[[1, 2], [4, 8]], [[1, 1], [5, 5]]], float)
    np.testing.assert_array_equal(
        branching.gains(values, np.array([1, 0])), [[3, 6], [0, 0]]
    )


def test_the_interval_is_over_runs_not_forks():
    """Many forks of two runs that differ are still two runs."""
    values = np.repeat([[0.0], [1.0]], 500, axis=1)
    assert branching.estimate(values) == stats.mean_interval([0, 1])


@pytest.mark.parametrize("choose", [branching.choose_own, branching.choose_pooled])
def test_intervals_of_a_control_rarely_miss_zero(choose):
    """Eight runs, of one stream a configuration; 400 experiments without any gain."""
    generator = np.random.default_rng(0)
    misses = 0
    for _ in range(400):
        chosen_by, valued = generator.normal(size=(2, 8, 4, 1))
        found = branching.estimate(branching.gains(valued, choose(chosen_by)))
        misses += not found.low <= 0 <= found.high
    assert misses / 400 < 0.1  # 5 % wanted; of percentiles of a bootstrap 13 to 15 %


@pytest.fixture(scope="module")
def noise():
    """Scores of labels that mean nothing, to choose by and to value by."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(64, 12, 2)), generator.normal(size=(64, 12, 2))


@pytest.mark.parametrize("choose", [branching.choose_own, branching.choose_pooled])
def test_labels_without_meaning_are_worth_nothing(noise, choose):
    gain = []
    for eight in np.split(np.arange(64), 8):  # few runs, so that they do switch
        chosen_by, valued = (scores[eight] for scores in noise)
        gain.append(branching.gains(valued, choose(chosen_by)))
    found = branching.estimate(np.concatenate(gain))
    assert np.any(gain)
    assert found.low < 0 < found.high


def test_valued_by_what_chose_they_would_be_worth_much(noise):
    """The optimism that separate streams remove; so the test above can fail."""
    chosen_by, _ = noise
    gain = branching.gains(chosen_by, branching.choose_own(chosen_by))
    # the expected greatest of 12 standard normals, over √2 streams
    assert gain.mean() == pytest.approx(1.63 / np.sqrt(2), abs=0.3)
    assert branching.estimate(gain).low > 0.5


# -- branching ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    """Branching where there is something to gain from the state."""
    return branching.branching(
        QUADRATIC, RATE, runs=16, configurations=6, streams=3, **SHORT
    )


def test_switching_gains_where_the_optimum_depends_on_the_state(known):
    row = mean_of(known, "per run")
    assert row["low"] > 0.05
    assert row["runs"] == 16
    assert sorted(rows_of(known, "per run")["point"].dropna()) == [0.2, 0.6, 0.8]


@pytest.mark.parametrize("reading", ["pooled", "per run"])
def test_the_control_is_zero(known, reading):
    (row,) = rows_of(known, f"control, {reading}").to_dict("records")
    assert row["low"] <= 0 <= row["high"]


def test_valued_on_the_streams_that_chose_the_control_is_not_zero(monkeypatch):
    """If the forks that are valued drew what those that chose drew."""
    marks = branching._KINDS
    honest = Population.new_streams

    def same(self, members, numbers):
        kinds = (numbers - branching._MARKS) >> 20  # point × kinds + kind
        value = kinds % len(marks) % 2  # both kinds of valuing have odd numbers
        honest(self, members, numbers - (value << 20))

    monkeypatch.setattr(Population, "new_streams", same)
    biased = branching.branching(
        QUADRATIC, RATE, runs=16, configurations=6, streams=1, **SHORT
    )
    (row,) = rows_of(biased, "control, per run").to_dict("records")
    assert row["low"] > 0


def test_no_two_forks_share_a_stream(monkeypatch):
    seen: list[np.ndarray] = []
    honest = Population.new_streams

    def noted(self, members, numbers):
        before = self.state.learner.keys[:, 0].copy()
        honest(self, members, numbers)
        assert (self.state.learner.keys[:, 0] != before).all()
        seen.append(self.state.learner.keys.copy())

    monkeypatch.setattr(Population, "new_streams", noted)
    branching.branching(QUADRATIC, RATE, **SMALL, **SHORT)
    keys = np.concatenate(seen)
    for purpose in keys.T:
        assert len(np.unique(purpose)) == len(keys)


def test_branches_begin_where_the_incumbent_stood(monkeypatch):
    """Forks of one run have its parameters, and the valuing unit finds the same."""
    states: dict[tuple[int, int], np.ndarray] = {}
    honest = Population.new_streams

    def noted(self, members, numbers):
        learner = self.state.learner
        for steps, curvature, row in zip(
            learner.env_steps, learner.curvature, learner.parameters, strict=True
        ):
            place = (int(steps), float(curvature))
            np.testing.assert_array_equal(states.setdefault(place, row.copy()), row)
        honest(self, members, numbers)

    monkeypatch.setattr(Population, "new_streams", noted)
    branching.branching(QUADRATIC, RATE, **SMALL, **SHORT)
    assert len(states) == 4 * 3


def test_continuing_is_the_incumbent_and_the_others_are_drawn_once():
    rate = {"learning_rate": 0.15 + 2**-50}  # more than twelve digits
    found = branching.branching(QUADRATIC, rate, **SMALL, **SHORT)
    assert found.configurations[0] == rate
    assert len({c["learning_rate"] for c in found.configurations}) == 3
    again = branching.branching(QUADRATIC, rate, **SMALL, **SHORT)
    pd.testing.assert_frame_equal(found.rows, again.rows)


@pytest.mark.parametrize(
    "other", [{"incumbent": {"learning_rate": 0.05}}, {"seed": 1}, {"dimensions": 8}]
)
def test_other_branchings_are_other_units_of_work(tmp_path, other):
    first: dict[str, Any] = {"incumbent": RATE, **SMALL, **SHORT}
    branching.branching(QUADRATIC, **first, store=tmp_path)
    second = first | other
    found = branching.branching(QUADRATIC, **second, store=tmp_path)
    again = branching.branching(QUADRATIC, **second)
    pd.testing.assert_frame_equal(found.rows, again.rows)


def test_more_runs_keep_those_that_were_made(tmp_path, monkeypatch):
    counted = []
    honest = Population.advance

    def count(self, requested):
        counted.append(self.size * bool(self.settings.feedback == "eval"))
        return honest(self, requested)

    monkeypatch.setattr(Population, "advance", count)
    more = SMALL | {"runs": 8}
    whole = branching.branching(QUADRATIC, RATE, **more, **SHORT)
    alone = sum(counted)
    branching.branching(QUADRATIC, RATE, **SMALL, **SHORT, store=tmp_path)
    counted.clear()
    found = branching.branching(QUADRATIC, RATE, **more, **SHORT, store=tmp_path)
    assert sum(counted) == alone / 2
    pd.testing.assert_frame_equal(found.rows, whole.rows)


def test_what_branching_costs():
    found = branching.branching(
        CARTPOLE, runs=2, configurations=2, streams=2, points=(0.5,), **TINY
    )
    cost = found.costs["branching"]
    # runs of 4 decisions: 2 runs, twice, to the middle; from there 2 × 2 × 2 forks and
    # as many of the control that choose; one or two configurations of each run, and
    # of the control, are valued on 2 streams
    least, most = (2 * (2 * 2 + 2 * 8 + 2 * 2 * 2 * k) for k in (1, 2))
    assert least * 500 <= cost.env_steps <= most * 500
    # before the incumbents, and after the forks; episodes take 8 steps or more
    assert cost.eval_steps > 100 * (2 + 16) * 8
    gained = rows_of(found, "per run")
    assert gained["point"].tolist() == [pytest.approx(np.nan, nan_ok=True), 0.5]


# -- both numbers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("oracle"))
    return store, oracle.oracle(
        QUADRATIC, store=store, seeds=range(8), **SMALL, **SHORT
    )


def test_the_rows_of_both_numbers(measured):
    _, result = measured
    assert result.note == ""
    assert set(result.rows["task"]) == {QUADRATIC}
    scores = {w: mean_of(result, w)["value"] for w in ("default", "static", "schedule")}
    gap = mean_of(result, "schedule − static")
    assert gap["value"] == pytest.approx(scores["schedule"] - scores["static"])
    assert gap["low"] <= gap["value"] <= gap["high"]
    whole = dynamics.table([result])
    assert whole["per run"].item() == mean_of(result, "per run")["value"]
    assert whole["search steps"].item() == result.costs["search"].env_steps
    assert result.costs["test"].env_steps == 3 * 8 * 50


def test_finished_work_is_not_done_again(measured, monkeypatch):
    store, result = measured

    def refuse(*_: Any) -> None:
        raise AssertionError("this was in the store")

    monkeypatch.setattr(Population, "advance", refuse)
    again = oracle.oracle(QUADRATIC, store=store, seeds=range(8), **SMALL, **SHORT)
    pd.testing.assert_frame_equal(again.rows, result.rows)
    assert again.costs == result.costs


@pytest.mark.parametrize("after", [3, slow(20), 40, slow(55)])
def test_an_interrupted_measurement_goes_on(measured, tmp_path, monkeypatch, after):
    _, result = measured
    arguments: dict[str, Any] = {"seeds": range(8), **SMALL, **SHORT}
    honest, steps = Population.advance, []

    def until(self, requested):
        steps.append(len(requested))
        if len(steps) == after:
            raise KeyboardInterrupt
        return honest(self, requested)

    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(Population, "advance", until)
    with pytest.raises(KeyboardInterrupt):
        oracle.oracle(QUADRATIC, store=tmp_path, **arguments)
    again = oracle.oracle(QUADRATIC, store=tmp_path, **arguments)
    pd.testing.assert_frame_equal(again.rows, result.rows)
    assert again.costs == result.costs


def test_a_task_whose_runs_cannot_be_copied_has_the_first_number(tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise SnapshotNotSupported("the inner environments cannot be copied")

    monkeypatch.setattr(branching, "capture", refuse)
    result = oracle.oracle(QUADRATIC, store=tmp_path, seeds=range(2), **SMALL, **SHORT)
    assert "no branching: the inner environments cannot be copied" in result.note
    assert rows_of(result, "per run").empty
    assert not rows_of(result, "schedule − static").empty
    assert "branching" not in result.costs
    text = dynamics.markdown([result])
    assert result.note in text
    assert "| – |" in text
    with pytest.raises(SnapshotNotSupported, match="no branching"):
        branching.branching(QUADRATIC, **SMALL)


@pytest.mark.parametrize("task", ["dacrl/DQN-LunarLander-v0"])
def test_lunar_lander_is_such_a_task(task):
    assert "cannot be copied" in branching.why_not(registration.get_task(task), {})
    assert branching.why_not(registration.get_task(CARTPOLE), {}) == ""


@pytest.mark.parametrize(
    ("static", "schedule", "per_run", "expected"),
    [
        (0.5, 0.06, 0.0, ()),
        (0.5, -0.2, 0.06, ()),
        (0.5, 0.04, 0.04, ("smoke",)),
        (0.95, 0.06, 0.5, ("smoke",)),
        (0.1, 0.06, 0.5, ("smoke",)),
        (0.5, 0.06, np.nan, ()),
    ],
)
def test_tags(static, schedule, per_run, expected):
    what = ["static", "schedule − static", "per run", "per run"]
    rows = pd.DataFrame(
        {
            "what": what,
            "point": [np.nan, np.nan, np.nan, 0.2],
            "value": [static, schedule, per_run, 0.9],
        }
    )
    assert dynamics.tags(rows) == expected


def test_tags_of_a_task_do_not_change_its_name_in_the_store():
    from dataclasses import replace

    task = TASKS[QUADRATIC]
    assert replace(task, tags=("smoke",)).definition() == task.definition()
    assert replace(task, budget=100).definition() != task.definition()


# -- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 1}, "runs must be at least 2"),
        ({"configurations": 1}, "configurations must lie between 2 and"),
        ({"streams": 0}, "streams must lie between 1 and"),
        ({"tuning_budget": 49}, "too small"),
        ({"tuning_budget": 17 * 50}, "below 3 candidates on 6 tuning seeds"),
        ({"bogus": 1}, "'bogus'"),
    ],
)
def test_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        oracle.oracle(QUADRATIC, store=tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"incumbent": {"momentum": 1}}, "'momentum'"),
        ({"incumbent": {"learning_rate": 1e5}}, "outside"),
        ({"points": ()}, "branching points"),
        ({"points": (0.0,)}, "branching points"),
        ({"points": (1.0,)}, "branching points"),
        ({"decision_interval": 50}, "of a run of 1 decisions"),
        ({"split": "test"}, "'split'"),
    ],
)
def test_branching_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        branching.branching(QUADRATIC, **arguments)


# -- the race -------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["static", "schedule"])
def test_the_default_is_a_candidate(family):
    space = SearchSpace(resolve(CARTPOLE).controlled, family=family)
    centre = default_candidate(space)
    values = space.values(centre[None], 20)
    np.testing.assert_allclose(values, np.tile([1e-3, 0.1, 64], (20, 1, 1)))
    drawn = around(space, centre, np.random.default_rng(0), 200)
    np.testing.assert_array_equal(drawn[0], centre)
    ordered = [name not in space.choices for name in space.names]
    distance = np.abs(drawn - centre)[:, ordered].mean(1)
    assert distance[1::2].mean() < 0.6 * distance[2::2].mean()
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()


def test_the_race_spends_its_budget_by_hand():
    # 20 decisions; 24 runs less 3 × 4 of the final leave 240 decisions; a candidate
    # takes 2 × 5, each of 3 survivors 2 × 15 more: 15 candidates would have 3 survivors
    assert Race().rungs(20, 24 * 20) == (15, 3, 5)
    assert Race().rungs(20, 18 * 20) == (3, 3, 5)
    assert Race().rungs(20, 18 * 20 - 1) == (0, 0, 5)


def test_finalists_run_on_fresh_seeds(monkeypatch):
    begun: list[list[int]] = []
    honest = Trials.begin

    def noted(self, seeds):
        begun.append(list(seeds))
        honest(self, seeds)

    monkeypatch.setattr(Trials, "begin", noted)
    fitted = Race().fit(QUADRATIC, 24 * 50, 0, **SHORT)
    screening, final = begun
    assert len(set(screening)) == 2
    assert len(set(final)) == 4
    assert not set(screening) & set(final)
    assert fitted.cost.env_steps <= 24 * 50
    assert isinstance(fitted.policy, Static)


def test_the_race_takes_the_best_rate(monkeypatch):
    space = {"learning_rate": (1e-4, 1.0)}
    fitted = Race(space=space).fit(QUADRATIC, 100 * 50, 0, **SHORT)
    assert isinstance(fitted.policy, Static)
    assert 0.05 < fitted.policy.config["learning_rate"] < 0.5
    schedule = Race(family="schedule").fit(QUADRATIC, 24 * 50, 0, **SHORT).policy
    assert isinstance(schedule, OpenLoop)
    assert len(schedule.values["learning_rate"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"seeds": 0}, "seeds"), ({"eta": 1}, "eta"), ({"fresh": 1.5}, "fresh")],
)
def test_the_race_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"{message} must be a whole number"):
        Race(**arguments)


# -- the command ----------------------------------------------------------------------


def command(out: Any, *more: str) -> list[str]:
    small = [
        "--seeds",
        "2",
        "--runs",
        "2",
        "--configurations",
        "2",
        "--num-threads",
        "1",
    ]
    return ["oracle", *small, "--decision-interval", "10", "--out", str(out), *more]


def test_the_command_writes_tables(tmp_path, capsys):
    assert main(command(tmp_path, QUADRATIC)) == 0
    out = capsys.readouterr().out
    assert "control, per run at 80%" in out
    assert f"table: {tmp_path / 'dynamics.md'}" in out
    (line,) = pd.read_csv(tmp_path / "dynamics.csv").to_dict("records")
    assert line["task"] == QUADRATIC
    assert line["per run low"] <= line["per run"] <= line["per run high"]
    assert {0.2, 0.8} <= set(pd.read_csv(tmp_path / "points.csv")["point"].dropna())

    assert main(command(tmp_path, "--tasks", QUADRATIC, "--markdown")) == 0
    assert capsys.readouterr().out == (tmp_path / "dynamics.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dacrl/None-v0"], "valid: dacrl/DQN"),
        ([QUADRATIC, "--tasks", "dacrl/None-v0"], "valid: dacrl/DQN"),
        ([QUADRATIC, "--budget", "100"], "below 3 candidates"),
        ([QUADRATIC, "--runs", "1"], "runs must be at least 2"),
        ([QUADRATIC, "--seeds", "1"], "--seeds must be at least 2"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path, capsys, arguments, message):
    assert main(command(tmp_path / "out", *arguments)) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("dacrl: ")
    assert message in err[-1]
