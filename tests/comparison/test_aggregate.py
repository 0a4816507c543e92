"""Aggregates over tasks: by hand, by known cases, by simulation."""

import math
import re
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from dacrl_env.comparison import stats
from dacrl_env.comparison.aggregate import aggregate


def runs(task, policy, scores, run=0, seeds=None):
    """Runs of one fit on one task; auc is the score, final twice that."""
    scores = np.asarray(scores, dtype=float)
    seeds = range(len(scores)) if seeds is None else seeds
    return pd.DataFrame(
        {
            "task": task,
            "policy": policy,
            "run": run,
            "seed": list(seeds),
            "report_auc": scores,
            "report_final": 2 * scores,
            "report_best": 3 * scores,
            "failure": scores < 0.1,
        }
    )


def summary(*parts):
    return pd.concat(parts, ignore_index=True)


def row(found, policy):
    return found.overall.set_index("policy").loc[policy]


@pytest.fixture
def two():
    return summary(
        runs("A", "base", [0.0, 0.2, 0.4, 0.6]),
        runs("A", "mine", [0.1, 0.3, 0.5, 0.7]),
        runs("B", "base", [0.2, 0.2, 0.2, 0.2]),
        runs("B", "mine", [0.2, 0.1, 0.3, 0.8]),
    )


def test_values_by_hand(two):
    found = aggregate(two)
    assert (found.objective, found.reference) == ("auc", "base")
    assert found.common == ["A", "B"]
    base, mine = row(found, "base"), row(found, "mine")
    assert base["mean"] == pytest.approx((0.3 + 0.2) / 2)
    assert mine["mean"] == pytest.approx((0.4 + 0.35) / 2)
    assert mine["optimality_gap"] == pytest.approx(1 - 0.375)
    # of .1 .1 .2 .3 | .3 .5 .7 .8 two are cut at each end
    assert mine["iqm"] == pytest.approx((0.2 + 0.3 + 0.3 + 0.5) / 4)
    # A: mine beats 1, 2, 3 and 4 of four; B: .2 ties with four, .1 beats none
    assert mine["probability"] == pytest.approx((10 / 16 + (2 + 0 + 4 + 4) / 16) / 2)
    assert (base["rank"], mine["rank"]) == (2, 1)
    assert base["failure"] == 1 / 8
    assert math.isnan(base["probability"])
    assert (base["tasks"], mine["probability_tasks"]) == (2, 2)


def test_an_objective_is_a_column(two):
    for objective, factor in (("auc", 1), ("final", 2), ("best", 3)):
        mean = row(aggregate(two, objective), "mine")["mean"]
        assert mean == pytest.approx(factor * 0.375)


def test_one_task_agrees_with_its_own_statistics():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=29)
    found = aggregate(summary(runs("A", "a", scores), runs("A", "b", scores + 1)))
    line = row(found, "a")
    assert line["iqm"] == pytest.approx(float(stats.iqm(scores)))
    assert line["mean"] == pytest.approx(scores.mean())
    for name, statistic in (("iqm", stats.iqm), ("mean", np.mean)):
        low, high = stats.bootstrap_interval(scores, statistic, resamples=20_000)
        assert line[f"{name}_low"] == pytest.approx(low, abs=0.05)
        assert line[f"{name}_high"] == pytest.approx(high, abs=0.05)


def test_the_iqm_of_equal_tasks_is_that_of_all_runs():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 7))
    parts = [runs(str(k), "a", own) for k, own in enumerate(scores)]
    assert row(aggregate(summary(*parts)), "a")["iqm"] == pytest.approx(
        float(stats.iqm(scores))
    )


def test_a_task_counts_alike_whatever_its_runs():
    found = aggregate(
        summary(runs("A", "a", [0.0] * 4), runs("B", "a", [1.0] * 40)), objective="auc"
    )
    assert row(found, "a")["mean"] == pytest.approx(0.5)
    profile = found.profile.set_index("score")["share"]
    assert profile.loc[0.5] == pytest.approx(0.5)
    assert row(found, "a")["iqm"] == pytest.approx(0.5)


def test_a_task_counts_alike_in_resamples_too():
    """The many runs of one task must not pull the bounds to its level."""
    few, many = [0.0, 0.0, 0.0, 0.1], [1.0] * 40
    line = row(aggregate(summary(runs("A", "a", few), runs("B", "a", many))), "a")
    low, high = line["mean_low"], line["mean_high"]
    # the last bit of a sum is another on another processor
    assert 0.5 - 1e-12 <= low < line["mean"] < high <= 0.55 + 1e-12


def test_runs_above_one_make_up_for_none_below():
    line = row(aggregate(summary(runs("A", "a", [0.5, 1.0, 1.5, 3.0]))), "a")
    assert line["optimality_gap"] == pytest.approx(0.5 / 4)
    assert line["optimality_gap_low"] >= 0


def test_better_on_all_tasks_is_certain():
    parts = []
    for task in "ABC":
        parts += [runs(task, "base", [0.1, 0.2, 0.3]), runs(task, "top", [0.7, 0.9, 1])]
    found = aggregate(summary(*parts))
    top = row(found, "top")
    for name, value in (("probability", 1), ("rank", 1)):
        columns = [name, f"{name}_low", f"{name}_high"]
        assert top[columns].tolist() == [value] * 3
    assert row(found, "base")[["rank_low", "rank_high"]].tolist() == [2, 2]
    assert found.tasks["rank"].tolist() == [2, 1] * 3


def test_policies_that_do_the_same_tie():
    rng = np.random.default_rng(2)
    parts = []
    for task in "ABC":
        scores = rng.normal(size=16)
        parts += [runs(task, name, scores) for name in ("one", "other")]
        parts.append(runs(task, "worst", scores - 9))
    found = aggregate(summary(*parts))
    for name in ("one", "other"):
        columns = ["rank", "rank_low", "rank_high"]
        assert row(found, name)[columns].tolist() == [1.5] * 3
    other = row(found, "other")
    assert other["probability"] == pytest.approx(0.5)
    # seeds are drawn for both at once
    assert other["probability_low"] == pytest.approx(0.5)
    assert other["probability_high"] == pytest.approx(0.5)


def test_copies_of_a_fit_tie_with_it():
    """Sums of other lengths, whose rounding must not make ranks."""
    scores = np.random.default_rng(3).normal(size=11)
    several = [runs("A", "fits", scores, run=k) for k in range(3)]
    found = aggregate(summary(runs("A", "one", scores), *several))
    assert row(found, "fits")["rank"] == 1.5
    assert row(found, "one")[["rank_low", "rank_high"]].tolist() == [1.5, 1.5]


def test_the_profile_by_hand(two):
    found = aggregate(two)
    mine = found.profile[found.profile["policy"] == "mine"]
    shares = np.interp([0.15, 0.45, 0.75], mine["score"], mine["share"])
    assert shares == pytest.approx([6 / 8, 3 / 8, 1 / 8])
    assert (np.diff(mine["share"]) <= 0).all()
    assert (mine["share_low"] <= mine["share"]).all()
    assert (mine["share"] <= mine["share_high"]).all()
    assert mine["share"].iloc[-1] == 0
    assert found.profile.groupby("policy").size().tolist() == [101, 101]


def test_floors_do_not_squeeze_the_profile():
    found = aggregate(summary(runs("A", "a", [-78.0, 0.2, 1.3])))
    assert found.profile["score"].min() == -0.25
    assert found.profile["score"].max() == 1.3
    assert found.profile["share"].iloc[0] == pytest.approx(2 / 3)


def test_fits_widen_intervals():
    """Twelve runs of three fits that differ say less than twelve fits' would."""
    rng = np.random.default_rng(4)
    noise = 0.01 * rng.normal(size=(3, 4))
    parts = [
        runs("A", "m", level + own, run=k)
        for k, (level, own) in enumerate(zip((0.0, 0.5, 1.0), noise, strict=True))
    ]
    found = row(aggregate(summary(*parts)), "m")
    single = runs("A", "m", np.concatenate([[0.0] * 4, [0.5] * 4, [1.0] * 4]))
    alone = row(aggregate(summary(single)), "m")
    assert found["mean"] == pytest.approx(0.5, abs=0.02)
    assert (found["mean_low"], found["mean_high"]) == pytest.approx((0, 1), abs=0.02)
    assert alone["mean_high"] - alone["mean_low"] < 0.6


def test_fits_without_all_seeds_are_drawn_as_they_are():
    parts = [
        runs("A", "m", [0.0, 0.0], run=0),
        runs("A", "m", [1.0], run=1, seeds=[7]),
        runs("A", "m", [1.0], run=2, seeds=[8]),
    ]
    found = aggregate(summary(*parts))
    assert row(found, "m")["mean"] == 0.5
    assert row(found, "m")[["mean_low", "mean_high"]].tolist() == [0, 1]


def test_pairs_make_ranks_sure():
    """What seeds share is drawn for both policies; unpaired draws would mix ranks."""
    rng = np.random.default_rng(5)
    easy = rng.normal(size=16)
    paired = summary(runs("A", "low", easy), runs("A", "high", easy + 0.1))
    assert row(aggregate(paired), "high")[["rank_low", "rank_high"]].tolist() == [1, 1]
    apart = summary(
        runs("A", "low", easy), runs("A", "high", easy + 0.1, seeds=range(50, 66))
    )
    assert row(aggregate(apart), "high")[["rank_low", "rank_high"]].tolist() == [1, 2]


def test_aggregates_cover_tasks_that_all_policies_have(two):
    frame = two[(two["task"] == "A") | (two["policy"] == "base")]
    frame = summary(frame, runs("A", "third", [0.9] * 4), runs("B", "third", [0.9] * 4))
    found = aggregate(frame)
    assert found.common == ["A"]
    assert row(found, "base")["mean"] == pytest.approx(0.3)
    assert row(found, "mine")["probability_tasks"] == 1
    assert row(found, "third")["probability_tasks"] == 2
    assert found.tasks.groupby("task").size().to_dict() == {"A": 3, "B": 2}
    (note,) = found.notes
    assert "1 of 2 tasks" in note
    assert "mine on B" in note


def test_no_task_in_common():
    found = aggregate(summary(runs("A", "a", [0.1, 0.2]), runs("B", "b", [0.3, 0.4])))
    assert found.common == []
    assert found.overall[["iqm", "mean", "rank", "probability"]].isna().all(axis=None)
    assert found.profile.empty
    assert found.tasks["mean"].tolist() == pytest.approx([0.15, 0.35])
    assert "No task has results of all policies" in found.notes[0]


def test_single_runs_have_no_intervals():
    found = aggregate(summary(runs("A", "a", [0.1]), runs("A", "b", [0.3])))
    bounds = [name for name in found.overall if name.endswith(("_low", "_high"))]
    assert found.overall[bounds].isna().all(axis=None)
    assert row(found, "b")["probability"] == 1


def test_equal_calls_give_equal_intervals(two):
    first = aggregate(two, resamples=50)
    pd.testing.assert_frame_equal(aggregate(two, resamples=50).overall, first.overall)
    assert not aggregate(two, resamples=50, seed=1).overall.equals(first.overall)


def test_results_do_not_depend_on_the_order_of_rows(two):
    mixed = two.sample(frac=1, random_state=0).sort_values(
        ["task", "policy"], kind="stable"
    )
    pd.testing.assert_frame_equal(aggregate(mixed).overall, aggregate(two).overall)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda f: f, {"objective": "speed"}, "unknown objective 'speed'"),
        (lambda f: f, {"reference": "mime"}, "unknown reference 'mime' (did you mean"),
        (lambda f: f, {"resamples": 0}, "resamples must be positive"),
        (lambda f: f.iloc[:0], {}, "no runs"),
        (lambda f: f.drop(columns="task"), {}, "lacks the columns ['task']"),
        (lambda f: summary(f, f.iloc[:1]), {}, "are there twice"),
        (lambda f: f.assign(report_auc=np.nan), {}, "16 of 16 runs have a report_auc"),
    ],
)
def test_what_cannot_be_aggregated_says_why(two, change, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        aggregate(change(two), **arguments)


@pytest.mark.slow
def test_intervals_cover():
    """Of 95 % intervals at least 90 % hold what they are of (16 runs: a little less).

    Three tasks of different levels; policies share what a seed does.
    """
    rng, hits, times = np.random.default_rng(6), dict.fromkeys("mpir", 0), 300
    levels, gain = np.array([0.0, 0.3, 0.6]), 0.5
    # a difference has the variance of both sides' own noise and of two other seeds
    chance = NormalDist(0, math.sqrt(2 * (0.3**2 + 0.2**2))).cdf(gain)
    for _ in range(times):
        parts = []
        for task, level in enumerate(levels):
            seed = 0.2 * rng.normal(size=16)
            for name, more in (("base", 0.0), ("mine", gain)):
                scores = level + more + seed + 0.3 * rng.normal(size=16)
                parts.append(runs(str(task), name, scores))
        found = aggregate(summary(*parts), resamples=400)
        mine = row(found, "mine")
        true = levels.mean() + gain
        hits["m"] += mine["mean_low"] < true < mine["mean_high"]
        # symmetric about the middle level, and so is what is left of it
        hits["i"] += mine["iqm_low"] < true < mine["iqm_high"]
        hits["p"] += mine["probability_low"] < chance < mine["probability_high"]
        hits["r"] += mine["rank_low"] <= 1 <= mine["rank_high"]
    shares = {name: count / times for name, count in hits.items()}
    assert min(shares.values()) > 0.9, shares
    assert max(shares["m"], shares["i"]) < 0.995, shares
