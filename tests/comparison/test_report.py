import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cases import slow
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image
from report_frames import BUDGET, FLOOR, POINTS, make_run

from dacrl_env.comparison import courses, option_panels, report, stats


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.05, 1.0, POINTS)
    runs = [make_run("default", 0, s, 0.5 * ramp) for s in range(6)]
    runs += [
        make_run("tuned", r, s, ramp + 0.02 * rng.normal(size=POINTS))
        for r in range(3)
        for s in range(6)
    ]
    runs += [make_run("wild", 0, s, ramp, 7 if s < 3 else None) for s in range(6)]
    return pd.concat(runs, ignore_index=True)


def test_summary_of_a_diverged_run_by_hand():
    # Report points at steps 2, 4 and 6 give 0.2, 0.6, 0.4; it diverges at step 7, so
    # that 17 points count as the floor.
    scores = np.array([0.2, 0.6, 0.4] + [9.0] * 17)
    row = report.summarize(make_run("wild", 0, 3, scores, diverged_at=7)).iloc[0]
    assert row["report_auc"] == pytest.approx((1.2 + 17 * -0.5) / 20)
    assert row["report_final"] == FLOOR
    assert row["report_best"] == 0.6
    assert row["failure"]
    assert row["diverged"]
    assert row["env_steps"] == 7 * 250
    assert row["gradient_steps"] == 35


def test_a_run_that_diverges_at_once_is_the_floor_throughout():
    row = report.summarize(make_run("wild", 0, 0, np.ones(20), diverged_at=1)).iloc[0]
    assert (row["report_final"], row["report_best"], row["report_auc"]) == (
        FLOOR,
        FLOOR,
        FLOOR,
    )


def test_summary_of_a_complete_run_by_hand():
    scores = np.array([0.9] + [0.3] * 18 + [0.05])
    row = report.summarize(make_run("a", 2, 7, scores)).iloc[0]
    assert (row["policy"], row["run"], row["seed"]) == ("a", 2, 7)
    assert row["report_final"] == 0.05
    assert row["report_best"] == 0.9
    assert row["report_auc"] == pytest.approx((0.9 + 18 * 0.3 + 0.05) / 20)
    assert row["failure"]
    assert not row["diverged"]
    assert row["wall_seconds"] == pytest.approx(4.0)


def test_summary_does_not_depend_on_step_0_or_on_the_order_of_rows(frame):
    summary = report.summarize(frame)
    assert list(summary["policy"].unique()) == ["default", "tuned", "wild"]
    assert len(summary) == 30
    bare = frame.copy()
    bare.loc[bare["step"] == 0, "report_score"] = 99.0
    pd.testing.assert_frame_equal(report.summarize(bare), summary)
    bare.loc[bare["step"] == 0, "report_score"] = np.nan
    pd.testing.assert_frame_equal(report.summarize(bare), summary)
    keys = ["policy", "run", "seed"]
    shuffled = report.summarize(frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(
        shuffled.sort_values(keys, ignore_index=True),
        summary.sort_values(keys, ignore_index=True),
    )


def test_frames_that_cannot_be_summarised_say_why(frame):
    one = make_run("a", 0, 0, np.ones(20))
    cases = [
        (one.drop(columns=["seed", "diverged"]), r"lacks the columns \['seed'"),
        (one.iloc[:0], "no rows"),
        (pd.concat([one, one.assign(task="b")]), "different tasks"),
        (pd.concat([one, one]), "repeat"),
        (one.assign(seed=np.nan), "missing values"),
        (one.iloc[:-2], "19 of 20 report points"),
        (one.iloc[:-1], "last report score nan"),
    ]
    for bad, words in cases:
        with pytest.raises(ValueError, match=words):
            report.summarize(bad)
    with pytest.raises(ValueError, match="20 of 10"):
        report.summarize(one, report_points=10)


def test_table(frame):
    summary = report.summarize(frame)
    table = report.table(summary).set_index("policy")
    assert list(table.index) == ["default", "tuned", "wild"]
    assert table["runs"].tolist() == [6, 18, 6]
    assert table["fits"].tolist() == [1, 3, 1]
    assert table["failure"].tolist() == [0, 0, 0.5]
    assert table.loc["default", "report_auc_mean"] == pytest.approx(0.5 * 10.5 / 20)
    assert table.loc["wild", "report_final_mean"] == pytest.approx(0.25)
    assert table.loc["wild", "env_steps"] == (3 * 1750 + 3 * BUDGET) / 6
    assert table["tuning_env_steps"].tolist() == [0, 30_000, 0]
    total = 34_000 + BUDGET + 20 * 20
    assert table.loc["tuned", "total_steps"] == total
    assert table.loc["tuned", "report_online"] == pytest.approx(0.95)
    assert table["report_online"].isna().tolist() == [True, False, True]
    for column in (
        "report_final_mean",
        "report_final_iqm",
        "report_auc_mean",
        "report_auc_iqm",
        "report_best_mean",
    ):
        assert (table[f"{column}_low"] <= table[column] + 1e-12).all()
        assert (table[column] <= table[f"{column}_high"] + 1e-12).all()
    with pytest.raises(ValueError, match="no runs"):
        report.table(summary.iloc[:0])


def test_paired_by_run_and_seed_or_by_seed_alone(frame):
    summary = report.summarize(frame)
    by_seed = report.paired(summary, "default").set_index(["policy", "metric"])
    assert by_seed.loc[("tuned", "report_auc"), "pairs"] == 18
    assert by_seed.loc[("wild", "report_final"), "pairs"] == 6
    final = summary.groupby("policy")["report_final"].mean()
    difference = by_seed.loc[("tuned", "report_final")]
    assert difference["difference"] == pytest.approx(final["tuned"] - final["default"])
    assert difference["difference_low"] > 0.4
    assert difference["probability"] == 1

    mirrored = report.paired(summary, "tuned").set_index(["policy", "metric"])
    assert mirrored.loc[("default", "report_final"), "pairs"] == 18
    assert mirrored.loc[("default", "report_final"), "difference"] == pytest.approx(
        -difference["difference"]
    )
    again = summary[summary["policy"] == "tuned"].assign(policy="again")
    again = again[again["run"] < 2]
    both = report.paired(pd.concat([summary, again]), "tuned")
    assert (
        both.set_index(["policy", "metric"]).loc[("again", "report_auc"), "pairs"] == 12
    )
    # Fits without a partner count in neither the difference nor the probability.
    again.loc[:, "report_final"] = (
        summary["report_final"].where(summary["run"] < 2, -1) + 0.1
    )
    both = report.paired(pd.concat([summary, again]), "again")
    row = both.set_index(["policy", "metric"]).loc[("tuned", "report_final")]
    assert row["difference"] == pytest.approx(-0.1)
    kept = summary[(summary["policy"] == "tuned") & (summary["run"] < 2)]
    chance = stats.probability_of_improvement(
        kept["report_final"], again["report_final"]
    )
    assert row["probability"] == chance.value


def test_intervals_resample_test_seeds_once_for_all_fits():
    # The difference is that of the seed, the same in all fits, and the default has 0.
    level = np.random.default_rng(0).uniform(size=12)
    lines = [("default", 0, seed, 0.0) for seed in range(12)]
    lines += [
        ("tuned", run, seed, level[seed]) for run in range(5) for seed in range(12)
    ]
    summary = pd.DataFrame(lines, columns=["policy", "run", "seed", "report_final"])
    summary[["report_auc", "report_best"]] = summary[
        ["report_final", "report_final"]
    ].to_numpy()
    low, high = stats.bootstrap_interval(level)
    for reference, sign in (("default", 1), ("tuned", -1)):
        row = report.paired(summary, reference).iloc[0]
        ends = sorted(sign * row[[f"difference_{end}" for end in ("low", "high")]])
        np.testing.assert_allclose(ends, [low, high], atol=0.03)
    costs = [*report.COSTS, *report.TUNING, "failure", "diverged", "report_online"]
    summary[costs] = 0.0
    tuned = report.table(summary).set_index("policy").loc["tuned"]
    ends = tuned[["report_final_mean_low", "report_final_mean_high"]].astype(float)
    np.testing.assert_allclose(ends, [low, high], atol=0.03)


def test_paired_refuses_what_it_cannot_pair(frame):
    summary = report.summarize(frame)
    with pytest.raises(ValueError, match=r"'nobody'.*default.*tuned.*wild"):
        report.paired(summary, "nobody")
    apart = summary.assign(seed=summary["seed"] + 100 * (summary["policy"] == "wild"))
    with pytest.raises(ValueError, match=r"'wild' and 'default' have no runs"):
        report.paired(apart, "default")
    alone = report.paired(summary[summary["policy"] == "wild"], "wild")
    assert alone.empty
    assert "difference_low" in alone


def test_learning_curve_of_diverged_runs_goes_on_at_the_floor(frame):
    rows = frame[frame["policy"] == "wild"]
    reports = np.arange(0, BUDGET + 1, 500)
    x, mean, low, high = courses.learning_curve(rows, reports)
    np.testing.assert_array_equal(x, reports)
    assert mean[3] == pytest.approx(np.linspace(0.05, 1.0, POINTS)[2])
    assert mean[4] == pytest.approx((FLOOR + np.linspace(0.05, 1.0, POINTS)[3]) / 2)
    assert mean[-1] == pytest.approx(0.25)
    assert (low <= mean).all()
    assert (mean <= high).all()
    # Also where no run is left, and where others were reported at other steps.
    gone = rows[rows["seed"] < 3]
    x, mean, *_ = courses.learning_curve(gone, np.union1d(reports, [750]))
    assert x[2] == 750
    np.testing.assert_allclose(mean[[2, 3]], 0.1)
    np.testing.assert_allclose(mean[5:], FLOOR)


def test_applied_values_hold_before_their_row_and_end_with_the_run():
    first = make_run("a", 0, 0, np.ones(20), diverged_at=3).assign(hp=[np.nan, 1, 1, 1])
    second = make_run("a", 0, 1, np.ones(20))
    second["hp"] = np.where(second["step"] == 0, np.nan, 3.0)
    coarse = second[(second["step"] % 2 == 0)]  # decides half as often
    x, median, low, _ = courses.applied(pd.concat([first, coarse]), "hp")
    np.testing.assert_array_equal(x[:5], [0, 250, 500, 750, 1000])
    np.testing.assert_array_equal(median[:5], [2, 2, 2, 2, 3])
    assert low[1] == pytest.approx(1.2)
    np.testing.assert_array_equal(median[5:], 3)


def check_png(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert 800 <= width <= 1200
    assert 400 <= height <= 2400
    assert 5_000 < len(data) < 200_000


def test_curves(frame, tmp_path):
    path = report.curves(frame, tmp_path / "curves.png")
    check_png(path)
    first = path.read_bytes()
    report.curves(frame, path)
    assert path.read_bytes() == first  # nothing depends on the time or on chance


def test_curves_in_axes_of_ones_own(frame, tmp_path):
    axis = Figure().subplots()
    assert report.curves(frame, ax=axis) is axis
    lines, names = axis.get_legend_handles_labels()
    assert names == list(frame["policy"].unique())
    assert lines[0].get_ydata()[-1] == pytest.approx(
        frame[frame["policy"] == names[0]].groupby("seed")["report_score"].last().mean()
    )
    for wrong in ({}, {"path": tmp_path / "c.png", "ax": axis}):
        with pytest.raises(ValueError, match="give one of them"):
            report.curves(frame, **wrong)
    with pytest.raises(ValueError, match=r"'docx'.*valid: png, pdf, svg"):
        report.curves(frame, tmp_path / "curves.docx")


@pytest.mark.parametrize("count", [1, 4])
def test_a_gallery_has_a_curve_per_task(frame, tmp_path, count):
    one = frame[frame["policy"] == "default"]
    frames = {f"dacrl/Task-{k}": one.assign(task=f"Task-{k}") for k in range(count)}
    path = report.gallery(frames, tmp_path / "gallery.png")
    with Image.open(path) as image:
        width, height = image.size
    assert width > 400
    assert height > 200
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="no frames"):
        report.gallery({}, tmp_path / "nothing.png")


def test_curves_of_awkward_frames(frame, tmp_path):
    awkward = {
        "one run": frame[(frame["policy"] == "default") & (frame["seed"] == 0)],
        "all diverged": make_run("wild", 0, 0, np.ones(20), diverged_at=1),
        "no hyperparameters": frame.drop(columns=["hp/learning_rate", "hp/batch_size"]),
        "one policy controls it": frame.assign(
            **{"hp/epsilon": np.where(frame["policy"] == "tuned", 0.0, np.nan)}
        ),
        "many": pd.concat(
            [frame.assign(policy=frame["policy"] + str(i)) for i in range(4)]
        ),
    }
    for name, bad in awkward.items():
        check_png(report.curves(bad, tmp_path / f"{name}.png"))


def test_anytime_holds_an_incumbent_until_the_next(tmp_path):
    course = pd.DataFrame(
        [
            ("search", run, seed, steps, final)
            for run, points in ((0, {100: 0.2, 300: 0.6}), (1, {200: 0.4}))
            for steps, final in points.items()
            for seed in range(3)
        ],
        columns=["policy", "run", "seed", "steps", "report_final"],
    )
    once = course[course["run"] == 1].assign(policy="once")
    check_png(report.anytime(pd.concat([course, once]), tmp_path / "anytime.png"))
    with pytest.raises(ValueError, match="no rows"):
        report.anytime(course.iloc[:0], tmp_path / "none.png")


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are saved, in order."""
    figures, save = [], report.save

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(report, "save", keep)
    return figures


def boxes(artists, figure):
    """Where they are drawn, each within the figure."""
    inside = figure.bbox.padded(1)
    found = [artist.get_window_extent() for artist in artists]
    for artist, box in zip(artists, found, strict=True):
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1, artist
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1, artist
    return found


def check_figure(figure):
    """Nothing is cut, and neither legend nor tick labels nor titles overlap."""
    hidden = []
    for axis in figure.axes:
        labels = axis.get_xticklabels(which="both") if axis.get_visible() else []
        low, high = axis.get_xlim()
        ticks = [t for t in labels if low <= t.get_position()[0] <= high]
        ticks = [t for t in ticks if t.get_text() and t.get_visible()]
        assert len(ticks) != 1  # a scale has two
        apart(boxes(ticks, figure))
        hidden += [*axis.get_xticklabels(which="both"), *axis.get_yticklabels()]
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    boxes([t for t in texts if t not in hidden], figure)
    apart(boxes([a.title for a in figure.axes if a.get_title()], figure))
    for legend in figure.legends:
        apart(boxes(legend.get_texts(), figure))
        lines = [h for h in legend.legend_handles if isinstance(h, Line2D)]
        apart(boxes(lines, figure))
        names = [text.get_text() for text in legend.get_texts()]
        assert len(set(names)) == len(names)
        assert all(name.count("\n") < 4 for name in names)
        below = max(axis.get_window_extent().y1 for axis in figure.axes)
        assert legend.get_window_extent().y0 > below


def apart(found):
    for k, box in enumerate(found):
        assert not any(box.overlaps(other) for other in found[:k])


NAMES = {
    "short": ["default", "random"],
    "ordinary": [
        "linear,hyperparameter=learning_rate,start=0.0123456,end=0.00123456,"
        "fraction=0.87654321,decisions=50",
        "random",
    ],
    "lengths": ["a" * n for n in (1, 60, 99, 300)],
    "one word": ["a" * 99, "default"],
    "capitals": ["W" * n for n in (1, 60, 99, 300)],
    "arrows": ["⟷" * 300, "⟷" * 40],
    "ends differ": ["a" * 150 + end + "a" * 150 for end in "abc"],
    "14": [f"policy {n}" for n in range(14)],
    "14 long": [f"{n} " + "a longer name, " * 20 + str(n) for n in range(14)],
}

SHOWN = ("ordinary", "lengths", "arrows", "ends differ", "14")


@pytest.mark.parametrize(
    "names", [n if k in SHOWN else slow(n) for k, n in NAMES.items()], ids=NAMES
)
def test_names_of_any_length_are_in_the_figure(frame, tmp_path, drawn, names):
    one = frame[frame["policy"] == "default"]
    runs = pd.concat([one.assign(policy=name) for name in names])
    report.curves(runs, tmp_path / "curves.png")
    course = pd.DataFrame(
        [(n, 0, s, x, 0.5) for n in names for s in (0, 1) for x in (9, 99)],
        columns=["policy", "run", "seed", "steps", "report_final"],
    )
    report.anytime(course, tmp_path / "anytime.png")
    for figure in drawn:
        check_figure(figure)
        shown = [t.get_text().replace("\n", "") for t in figure.legends[0].get_texts()]
        assert all(s == n for s, n in zip(shown, names, strict=True) if len(n) < 76)


@pytest.mark.parametrize("first", [50, 7_654_321, 2_000_000_000])
@pytest.mark.parametrize("ratio", [1, 1.001, 1.4, 30, 1e6])
def test_costs_of_any_range_can_be_read(tmp_path, drawn, first, ratio):
    course = pd.DataFrame(
        [("a", 0, s, x, 0.5) for s in (0, 1) for x in (first, round(first * ratio))],
        columns=["policy", "run", "seed", "steps", "report_final"],
    )
    report.anytime(course, tmp_path / "anytime.png")
    check_figure(drawn[0])


@pytest.mark.parametrize("budget", [50, slow(10_000), slow(8_000_000), 2_000_000_000])
@pytest.mark.parametrize("count", [1, slow(2), 4])
def test_galleries_and_curves_of_any_budget(frame, tmp_path, drawn, budget, count):
    one = frame[frame["policy"] == "default"]
    one = one.assign(env_steps=one["step"] * budget // (2 * POINTS))
    report.curves(one, tmp_path / "curves.png")
    names = ["dacrl/DQN-MiniGrid-DoorKey-5x5-v0", "my/" + "W" * 60, "a" * 300, "b"]
    frames = {name: one.assign(task=name) for name in names[:count]}
    report.gallery(frames, tmp_path / "gallery.png")
    for figure in drawn:
        check_figure(figure)


def test_no_pyplot_is_loaded_by_the_module():
    code = (
        "import sys, dacrl_env.comparison.report; "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_render_is_aligned(frame):
    summary = report.summarize(frame)
    scores, costs = report.render(report.table(summary)).split("\n\n")
    for text in (scores, costs, report.render(report.paired(summary, "default"))):
        lines = text.rstrip("\n").split("\n")
        assert len({len(line) for line in lines}) == 1
        assert set(lines[1]) == {"-", " "}
    assert "50.0%" in scores
    assert "0.250 [-0.250, 0.750]" in scores
    assert "5,875" in costs
    assert "30,000 + 10,000" in costs
    assert "0.950" in scores


@pytest.mark.parametrize("across", [40, 60, 88])
def test_render_is_no_wider_than_it_may_be(frame, across):
    long = "freeze_when_good,threshold=0.9,learning_rate=1e-3"
    frame["policy"] = frame["policy"].replace("wild", long)
    summary = report.summarize(frame)
    for result in (report.table(summary), report.paired(summary, "default")):
        whole = report.render(result)
        text = report.render(result, across)
        assert max(map(len, text.split("\n"))) <= across
        for word in set(whole.split()) - {long}:
            assert word.startswith("-----") or word in text
        assert "".join(text.split()).count("freeze") >= 1


def test_write_report(frame, tmp_path):
    frame["policy"] = frame["policy"].replace("wild", "wi|d")
    path = report.write_report(frame, tmp_path / "new" / "report").path
    assert path.name == "report.md"
    files = ["curves.png", "paired.csv", "report.html", "report.md"]
    files += ["summary.csv", "table.csv"]
    assert sorted(p.name for p in path.parent.iterdir()) == files
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Comparison on dacrl/DQN-CartPole-v0\n")
    assert "## Paired differences from default" in text
    assert "![" in text
    assert "| default | 6 | 0.500 [0.500, 0.500] |" in text
    assert r"| wi\|d | 6 | 0.250 [-0.250, 0.750] |" in text
    summary = pd.read_csv(path.parent / "summary.csv")
    pd.testing.assert_frame_equal(summary, report.summarize(frame), check_dtype=False)
    assert len(pd.read_csv(path.parent / "table.csv")) == 3
    assert set(pd.read_csv(path.parent / "paired.csv")["reference"]) == {"default"}


def test_write_report_of_one_policy_or_an_unknown_reference(frame, tmp_path):
    with pytest.raises(ValueError, match="unknown reference"):
        report.write_report(frame, tmp_path / "none", reference="nobody")
    assert not (tmp_path / "none").exists()
    alone = frame[frame["policy"] == "default"]
    path = report.write_report(alone, tmp_path / "one").path
    assert "Paired" not in path.read_text(encoding="utf-8")
    assert pd.read_csv(tmp_path / "one" / "paired.csv").empty


def test_choices_are_bands_and_events_are_marks(tmp_path):
    """Told apart by the task's own table, also where nothing of an event happened."""
    step = np.arange(1, 11)
    frames = []
    for seed in range(2):
        rows = pd.DataFrame(
            {
                "task": "dacrl/DQN-CartPole-v0", "policy": "mine", "run": 0,
                "seed": seed, "step": step, "env_steps": 100 * step, "reward": 0.0,
                "report_score": 0.1, "diverged": False,
                "hp/learning_rate": 1e-3,
                "hp/loss": ["huber"] * 5 + ["mse" if seed else "huber"] * 5,
                "hp/double_q": [False] * 10,
                "hp/checkpoint": ["none"] * 3 + ["save"] + ["none"] * 6,
                "hp/reset_head": [False] * 10,
            }
        )  # fmt: skip
        between = rows.assign(env_steps=100 * step - 50, reward=np.nan)
        frames += [rows, between]
    frame = pd.concat(frames, ignore_index=True)
    names = [name for name in frame if name.startswith("hp/")]
    found = option_panels.found(frame, names)
    assert found == {
        "hp/loss": (("huber", "mse"), False),
        "hp/double_q": ((False, True), False),
        "hp/checkpoint": (("save", "restore"), True),
        "hp/reset_head": ((True,), True),
    }
    figure = Figure()
    axis = figure.subplots()
    values = frame.pivot_table("hp/loss", ["run", "seed"], "env_steps", aggfunc="last")
    option_panels.draw(axis, values, found["hp/loss"], 0, "#000000")
    huber, mse = axis.collections
    top = huber.get_paths()[0].get_extents().y1
    assert huber.get_paths()[0].get_extents().y0 == pytest.approx(0.1)
    assert top == pytest.approx(0.9)  # all runs, in the first half
    assert mse.get_paths()[0].get_extents().y0 == pytest.approx(0.5)  # half of them
    marks = figure.add_subplot()
    told = frame[frame["reward"].notna()]
    values = told.pivot_table(
        "hp/checkpoint", ["run", "seed"], "env_steps", aggfunc="last"
    )
    option_panels.draw(marks, values, found["hp/checkpoint"], 0, "#000000")
    saved, restored = marks.collections
    assert saved.get_offsets().tolist() == [[300.0, 0.5]]  # where the interval begins
    assert len(restored.get_offsets()) == 0
    costs = [c for c in make_run("mine", 0, 0, np.zeros(POINTS)) if c not in frame]
    path = report.curves(frame.assign(**dict.fromkeys(costs, 0.0)), tmp_path / "c.png")
    assert path.stat().st_size > 10_000
