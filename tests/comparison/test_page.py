"""Pages as files; `test_page_browser.py` looks at them in a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from page_frames import HOSTILE, make_frame, make_run

from dacrl_env.cli.commands import main
from dacrl_env.comparison import fit_page, page_figures, pages, report, verdict
from dacrl_env.comparison.courses import courses
from dacrl_env.comparison.drawing import COLOURS
from dacrl_env.comparison.made import NAME, Made
from dacrl_env.comparison.suite_report import About, write_suite
from dacrl_env.policies import Cost, Fitted, FrontPoint
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static

QUADRATIC = "dacrl/NoisyQuadratic-v0"


class Reader(HTMLParser):
    """Elements, texts outside of scripts, and scripts, as a browser takes them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.scripts = [], [], []
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.texts.append(data)

    @property
    def data(self):
        (one,) = (
            script
            for (_, about), script in zip(
                [e for e in self.elements if e[0] == "script"],
                self.scripts,
                strict=True,
            )
            if about.get("type") == "application/json"
        )
        return json.loads(one)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    frame = make_frame(dict.fromkeys(HOSTILE, 0.5), seeds=3)
    frame["instance"] = HOSTILE[0]
    made = Made(commands=[f"dacrl {HOSTILE[0]}"], settings={HOSTILE[1]: HOSTILE[2]})
    out = tmp_path_factory.mktemp("page")
    path = report.write_report(frame, out, notes=[HOSTILE[3]], made=made).page
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8")


def test_names_are_text_wherever_they_stand(hostile):
    found = Reader(hostile)
    legend = [text for text in found.texts if text in HOSTILE]
    assert {*legend} == {*HOSTILE}
    assert len(found.scripts) == 4  # data, two libraries, our own
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"img", "iframe", "object", "embed", "b", "i", "base", "form"}
    names = {name for _, about in found.elements for name in about}
    assert not [name for name in names if name.startswith("on")]
    labels = ["".join(policy["label"]) for policy in found.data["policies"]]
    assert [label.replace(" ", "") for label in labels] == [
        name.replace(" ", "") for name in HOSTILE
    ]
    assert "49" not in "".join(found.texts[:40])  # no template within a name


def test_scripts_read_data_in_which_nothing_ends_the_element():
    page = pages.Page("t", "h", policies=["</script>", "<!--", "\u2028", "'\"&"])
    assert not re.search(r"[<>&'\u2028\u2029]", str(page.data()))
    policies = json.loads(page.data())["policies"]
    assert [p["label"] for p in policies][:2] == [["</script>"], ["<!--"]]
    with pytest.raises(ValueError, match="not JSON compliant"):
        pages.Page("t", "h", figures=[{"x": float("nan")}]).data()


def test_nothing_is_asked_of_any_host_and_no_other_script_runs(hostile):
    found = Reader(hostile)
    (policy,) = (
        about["content"]
        for tag, about in found.elements
        if about.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    for script in found.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    outside = [
        value
        for _, about in found.elements
        for name, value in about.items()
        if name in ("src", "href") and re.match(r"\w+:|//", value or "")
    ]
    assert outside == []


def test_what_is_from_others_says_of_which_version_it_is():
    for name, about in pages.VENDORED.items():
        banner = (pages.HTML / "vendored" / name).read_text(encoding="utf-8")[:200]
        assert f"v{about.split()[1]}" in banner
        licence = pages.HTML / "vendored" / f"{name.removesuffix('.min.js')}.LICENSE"
        assert "Permission is hereby granted" in licence.read_text()


# -- verdicts -------------------------------------------------------------------------


def said(frame, reference):
    summary = report.summarize(frame)
    differences, _ = report.comparable(summary, reference)
    return verdict.verdict(report.table(summary), differences, reference)


def test_who_is_ahead_is_said_first():
    found = said(make_frame({"base": 0.5, "better": 0.9, "worse": 0.2}), "base")
    assert re.match(
        r"better is ahead of base by \+0\.2\d\d \[\+0\.2\d\d, \+0\.2\d\d\] in "
        r"report_auc, over 12 runs paired by seed\.$",
        found.headline,
    )
    assert [row[:2] for row in found.table.rows] == [
        ["better", "ahead"],
        ["worse", "behind"],
    ]
    assert not [text for text in found.more if "fewer than" in text]


def test_that_nothing_can_be_told_is_said():
    frame = make_frame({"base": 0.5, "same": 0.5})
    mine = frame["policy"] == "same"
    shift = np.where(frame["seed"] % 2, 0.1, -0.1)
    frame.loc[mine, "report_score"] += shift[mine]
    found = said(frame, "base")
    assert found.headline == (
        "Nothing can be told: these runs do not tell base and same apart."
    )
    assert found.table.rows[0][1] == "not told apart"


def test_that_nobody_is_ahead_is_said():
    frame = make_frame({"base": 0.9, "worse": 0.2, "worst": 0.1})
    found = said(frame, "base")
    assert found.headline == ("No policy is ahead of base: worse and worst are behind.")


def test_a_policy_alone_is_compared_with_nothing():
    found = said(make_frame({"base": 0.9}), "base")
    assert re.match(r"base scores 0\.\d+ in report_auc \[", found.headline)
    assert "nothing to compare it with" in found.headline
    assert found.table is None
    apart = make_frame({"base": 0.9, "other": 0.1})
    apart.loc[apart["policy"] == "other", "seed"] += 100
    assert "no other policy has test seeds in common" in said(apart, "base").headline


def test_what_limits_a_verdict_is_said():
    frame = pd.concat(
        [
            make_frame({"base": 0.5}, seeds=4),
            make_frame({"tuned": 0.9}, seeds=4, tuned=True),
        ]
    )
    more = " ".join(said(frame, "base").more)
    assert "Of tuned there are fewer than 10 pairs" in more
    assert "tuned is the result of a single fit" in more
    one = said(make_frame({"base": 0.5, "tuned": 0.9}, seeds=1), "base")
    assert one.table.rows[0][1] == "not told apart"  # there is no interval


# -- figures --------------------------------------------------------------------------


def test_a_value_that_is_always_the_same_is_in_the_middle():
    frame = make_frame({"a": 0.5}, seeds=2).assign(**{"hp/learning_rate": 0.034})
    figure, _ = page_figures.course_figure(courses(frame), frame, {})
    ranges = [panel.get("range") for panel in figure["panels"]]
    assert ranges[1] == [0.0, 0.068]  # none below 0
    assert ranges[0] is None


def test_single_runs_lose_nothing_but_digits():
    frame = make_frame({"a": 0.5}, seeds=2)
    frame = pd.concat([frame, make_run("a", 7, np.ones(20), diverged_at=7)])
    figure, _ = page_figures.course_figure(courses(frame), frame, {})
    titles = [panel["title"] for panel in figure["panels"]]
    assert titles[1:] == ["learning rate", "batch size", "loss", "checkpoint"]
    assert figure["runNames"][0] == ["seed 0", "seed 1", "seed 7"]
    for part in figure["runs"]:
        column = ["report_score", "hp/learning_rate", "hp/batch_size"][part["panel"]]
        for seed, (grid, values) in zip((0, 1, 7), part["series"], strict=True):
            rows = frame[(frame["seed"] == seed) & frame[column].notna()]
            x, y = figure["grids"][grid], figure["values"][values]
            # a step holds up to its point
            place = np.searchsorted(x, rows["env_steps"])
            np.testing.assert_allclose(np.array(y)[place], rows[column], rtol=1e-3)
    constant = next(p for p in figure["runs"] if p["panel"] == 2)["series"][0]
    assert figure["grids"][constant[0]] == [0, 10_000]


def test_many_runs_are_thinned_and_the_page_says_so():
    frame = make_frame({"a": 0.5, "b": 0.4}, seeds=30)
    figure, text = page_figures.course_figure(courses(frame), frame, {}, most=2_000)
    shown = [
        sum(series is not None for series in part["series"]) for part in figure["runs"]
    ]
    assert shown == [30, 4, 4] * 2  # scores of all, values of some
    assert "of 60 runs 8, evenly spaced by seed, show their values singly" in text
    sizes = [
        len(figure["grids"][grid])
        for part in figure["runs"]
        for grid, _ in filter(None, part["series"])
    ]
    assert sum(sizes) <= 2_000
    few, text = page_figures.course_figure(courses(frame), frame, {}, most=500)
    assert "of 60 runs 22, evenly spaced by seed, show their scores singly" in text
    assert len(few["runNames"][0]) == 11


@pytest.mark.slow
def test_a_large_comparison_has_a_page_that_can_be_sent(tmp_path):
    """Eight policies, 128 seeds and 100 decisions, of nine hyperparameters."""
    rng = np.random.default_rng(0)
    step = np.arange(101)
    first = make_run("", 0, np.ones(20)).iloc[[0]]
    first = first.drop(columns=["hp/loss", "hp/checkpoint"])
    frames = []
    for policy in range(8):
        frame = first.loc[[0] * 128 * 101].reset_index(drop=True)
        frame["policy"] = f"policy {policy}"
        frame["seed"] = np.repeat(np.arange(128), 101)
        frame["step"] = np.tile(step, 128)
        frame["env_steps"] = 100 * frame["step"]
        scores = rng.random(len(frame))
        frame["report_score"] = np.where(frame["step"] % 5, np.nan, scores)
        for name in range(9):
            frame[f"hp/h{name}"] = 10 ** rng.uniform(-5, -1, len(frame))
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    path = report.write_report(frame, tmp_path).page
    assert 3e6 < path.stat().st_size < 8e6
    text = path.read_text(encoding="utf-8")
    assert "To keep this file small, of 1,024 runs" in text
    assert text.count("<tr>") > 1_024


def test_options_have_the_shares_of_runs(monkeypatch):
    frame = make_frame({"a": 0.5}, seeds=4)
    frame.loc[(frame["seed"] == 0) & (frame["step"] > 9), "hp/loss"] = "huber"
    figure, _ = page_figures.course_figure(courses(frame), frame, {})
    (shares,) = figure["shares"]
    assert shares["options"] == ["huber", "mse"]
    assert [share[-1] for share in shares["shares"]] == [0.25, 0.75]
    assert [share[0] for share in shares["shares"]] == [1, 0]
    saved = [part for part in figure["events"] if part["option"] == "save"]
    assert saved[0]["at"] == [8 * 250, 17 * 250, 26 * 250, 35 * 250]
    assert saved[0]["share"] == [1] * 4


def test_numbers_are_short_and_always_json():
    values = [0.123456, np.nan, np.inf, 1e-7, 12_345_678.0, -0.0]
    assert pages.numbers(values) == [0.1235, None, None, 1e-7, 12_345_678, 0]


# -- how it was made, and the order of policies ----------------------------------------


def test_a_later_command_adds_to_what_is_known(tmp_path):
    made = Made().again(["b", "a"], None, "first").again(["c"], None, "second")
    assert (made.policies, made.reference) == (["b", "a", "c"], "b")
    made = made.again(["c", "b"], "b", "first")
    assert made.policies == ["c", "b", "a"]
    assert made.commands == ["second", "first"]
    made.write(tmp_path)
    assert Made.read(tmp_path) == made
    assert Made.read(tmp_path / "none") == Made()
    for damaged in ("{", "[]", '{"policies": "ab"}', '{"more": 1}', '{"commands":[1]}'):
        (tmp_path / NAME).write_text(damaged)
        with pytest.raises(ValueError, match=NAME):
            Made.read(tmp_path)


def test_reports_have_the_order_and_the_reference_of_the_comparison(tmp_path, capsys):
    schedule = "m=cosine,hyperparameter=learning_rate,start=0.3,end=0.01"
    policies = ["z=default", "a=random", schedule]
    line = [
        "compare", QUADRATIC, "--policies", *policies, "--reference", "a",
        "--seeds", "2", "--run-budget", "400", "--num-threads", "1",
        "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(line) == 0
    (folder,) = tmp_path.glob("dacrl-*")
    before = (folder / "report.md").read_text()
    page = Reader((folder / "report.html").read_text())
    assert "- Policies: z, a, m\n" in before
    assert "## Paired differences from a" in before
    assert [p["label"] for p in page.data["policies"]] == [["z"], ["a"], ["m"]]
    assert [p["colour"] for p in page.data["policies"]] == list(COLOURS[:3])
    (command,) = (text for text in page.texts if text.startswith("dacrl compare "))
    assert command.endswith(f"--out {tmp_path}")
    assert "--policies z=default a=random" in command
    assert "report.html" in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 0
    assert (folder / "report.md").read_text() == before
    again = Reader((folder / "report.html").read_text())
    assert again.data == page.data
    assert command in again.texts
    # where the order is not known, it is that in which they were first run
    (folder / NAME).write_text("{")
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 0
    assert NAME in capsys.readouterr().err
    assert "- Policies: z, a, m\n" in (folder / "report.md").read_text()


# -- suites and fits -------------------------------------------------------------------


def test_a_suite_s_page_leads_to_those_of_its_tasks(tmp_path):
    means = {"base": 0.5, "<b>": 0.9}
    frames = [make_frame(means).assign(task=task) for task in ("one", "two")]
    frames[0] = frames[0][frames[0]["policy"] == "base"]
    summaries = {frame["task"].iloc[0]: report.summarize(frame) for frame in frames}
    about = About("mine", "auc", None, {"one": "one-1", "two": "two-2"})
    found = write_suite(summaries, tmp_path, about, order=["<b>", "base"])
    page = Reader(found.page.read_text(encoding="utf-8"))
    links = {about.get("href") for tag, about in page.elements if tag == "a"}
    assert {"../one-1/report.html", "../two-2/report.html"} <= links
    assert [p["label"] for p in page.data["policies"]] == [["<b>"], ["base"]]
    assert list(found.aggregates.overall["policy"]) == ["<b>", "base"]
    assert "No policy is ahead of <b>: base is behind." in page.texts
    assert [figure["kind"] for figure in page.data["figures"]] == ["forest", "curves"]


def make_fit(trace=True):
    step = np.tile(np.arange(1, 6), 4)
    member = np.repeat(np.arange(4), 5)
    rows = pd.DataFrame(
        {
            "generation": 0,
            "member": member,
            "parent": np.where((step == 3) & (member == 1), 0, member),
            "step": step,
            "score": 0.1 * member + 0.05 * step,
            "hp/learning_rate": 10.0 ** -(member + 1.0),
            "hp/loss": "huber",
        }
    )
    first, last = (Static(learning_rate=rate) for rate in (1e-2, 1e-4))
    return Fitted(
        last,
        Cost(2_000, 10, 100, 1e6),
        [(Cost(500, 5, 10, 1e5), first), (Cost(2_000, 10, 100, 1e6), last)],
        online=0.55,
        trace=rows if trace else None,
        about={"method": HOSTILE[0], "budget": 2_000, "seed": 1},
    )


def make_front(fitted):
    """A fit with two objectives, of runs that cost 100 times their number."""
    fitted.trace["cost"] = 20.0 * fitted.trace["step"] * (fitted.trace["member"] + 1)
    fitted.front = [
        FrontPoint(Static(learning_rate=1e-4), {"auc": 0.5, "cost": 400.0}, 0.4),
        FrontPoint(Static(learning_rate=1e-2), {"auc": 0.25, "cost": 100.0}),
    ]
    return fitted


def test_a_fit_s_page_begins_with_its_front():
    page = fit_page.fit_page(
        make_front(make_fit()), "mine", QUADRATIC, "a.json", Made(), HOSTILE[:2]
    )
    found = Reader(page.html())
    figure = found.data["figures"][0]
    assert figure["kind"] == "points"
    (panel,) = figure["panels"]
    assert panel["front"] == {"x": [100, 400], "y": [0.25, 0.5], "names": ["2", "1"]}
    # a run that was copied is one run, and one that was given up is none
    assert sorted(panel["runs"]["x"]) == [100, 200, 300, 400]
    (table,) = page.sections[0].tables
    assert table.heads == ["number", "auc", "cost", "online", "learning_rate"]
    assert table.rows[1] == ["2", "0.25", "100", "–", "0.01"]
    links = {about.get("href") for tag, about in found.elements if tag == "a"}
    assert len(links) == 3
    assert not [link for link in links if re.search(r"[<>\"' ]", link)]
    assert page.sections[0].before[1].startswith("Hypervolume: 0.2159 (reference point")
    # what is no static configuration is a text
    fitted = make_front(make_fit())
    schedule = OpenLoop({"learning_rate": [0.1, 0.2]})
    fitted.front[1] = FrontPoint(schedule, {"auc": 0.25, "cost": 100.0}, 0.1)
    page = fit_page.fit_page(fitted, "mine", QUADRATIC, "a.json", Made())
    (table,) = page.sections[0].tables
    assert table.heads == ["number", "policy", "auc", "cost", "online"]
    assert '"open-loop"' in table.rows[1][1]


def test_a_fit_s_page_shows_what_was_found_and_the_runs_behind_it():
    made = Made(commands=["dacrl fit"])
    page = fit_page.fit_page(make_fit(), HOSTILE[0], QUADRATIC, "a.json", made)
    found = Reader(page.html())
    assert page.headline.endswith("found a static configuration: learning_rate 0.0001.")
    assert "Runs went on as copies of others: 1 times." in found.texts
    runs, lineages, course = found.data["figures"]
    assert [panel["title"] for panel in runs["panels"]] == [
        "observed score",
        "learning rate",
    ]
    assert runs["showRuns"]
    assert [len(part["series"]) for part in runs["runs"]] == [4, 4]
    assert [panel["title"] for panel in lineages["panels"]] == [
        "member",
        "observed score",
        "learning rate",
    ]
    assert course["curves"][0]["y"] == [0.01, 0.0001]
    (table,) = page.sections[0].tables
    assert table.rows[0][:4] == ["0", "3", "5", "0.5500"]
    assert len(found.scripts) == 4
    # as methods of one's own may leave it
    odd = make_fit()
    odd.trace["score"] = np.nan
    assert len(fit_page.fit_page(odd, "mine", QUADRATIC, "a.json", made).figures) == 1
    odd.trace = odd.trace[["step"]]
    assert len(fit_page.fit_page(odd, "mine", QUADRATIC, "a.json", made).figures) == 1
    bare = fit_page.fit_page(make_fit(False), "mine", QUADRATIC, "a.json", made)
    assert len(Reader(bare.html()).data["figures"]) == 1


def test_every_fit_has_a_folder_with_its_page(tmp_path, capsys):
    line = [
        "fit", QUADRATIC, "random-search", "--budget", "1200", "--run-budget", "400",
        "--num-threads", "1", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(line) == 0
    (path,) = (tmp_path / "fits").glob("*/report.html")
    (policy,) = (tmp_path / "policies").iterdir()
    assert policy.stem == path.parent.name
    assert f"page: {path}" in capsys.readouterr().out
    found = Reader(path.read_text(encoding="utf-8"))
    assert any(text.startswith("dacrl fit ") for text in found.texts)
    links = [about["href"] for tag, about in found.elements if tag == "a"]
    assert [(path.parent / link).resolve() for link in links] == [policy.resolve()]
