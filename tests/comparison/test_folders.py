"""One directory, several uses: nothing is lost silently, a report always works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from cases import slow
from PIL import Image

import dacrl_env
from dacrl_env.cli import commands
from dacrl_env.cli.commands import main
from dacrl_env.comparison import drawing, report
from dacrl_env.core import files
from dacrl_env.policies import load_fitted

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
TINY = ["--run-budget", "400", "--decision-interval", "100"]
TINY += ["--set", "eval_episodes=1", "learning_starts=100"]


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "o"


def compare(*policies: str, task: str = QUADRATIC, more: tuple[str, ...] = ()) -> int:
    line = [
        "compare",
        task,
        "--policies",
        *policies,
        "--num-threads",
        "1",
        "--out",
        "o",
    ]
    return main([*line, *(more if "--seeds" in more else ("--seeds", "2", *more))])


def fit(budget: str, *more: str, method: str = "random-search,population=2") -> None:
    line = ["fit", QUADRATIC, method, "--budget", budget, "--out", "o"]
    assert main([*line, *more]) == 0


def tables(out: Path) -> dict[str, list[str]]:
    """Policies of every report, by folder."""
    paths = out.glob("*/table.csv")
    return {p.parent.name: pd.read_csv(p)["policy"].tolist() for p in paths}


@pytest.mark.slow
def test_tasks_and_settings_have_folders_of_their_own(out):
    assert compare("default") == 0
    assert compare("random", more=("--run-budget", "100")) == 0
    assert compare("default", more=("--set", "decision_interval=5")) == 0
    assert compare("default", task=CARTPOLE, more=tuple(TINY)) == 0
    found = tables(out)
    starts = sorted(name.rpartition("-")[0] for name in found)
    assert starts == [
        "dacrl-DQN-CartPole-v0-400",
        *("dacrl-NoisyQuadratic-v0-100", *["dacrl-NoisyQuadratic-v0-50"] * 2),
    ]
    assert main(["report", "o"]) == 0
    assert tables(out) == found
    assert not (out / "report.md").exists()


@pytest.mark.slow
def test_another_selection_says_what_the_report_had(out, capsys):
    assert compare("default", "random") == 0
    capsys.readouterr()
    assert compare("random", "static,learning_rate=0.01") == 0
    printed = capsys.readouterr().out
    assert "the report before also had default; all in one: dacrl report o" in printed
    assert main(["report", "o"]) == 0
    (names,) = tables(out).values()
    assert set(names) == {"default", "random", "static,learning_rate=0.01"}


@pytest.mark.slow
def test_fits_live_side_by_side(out, capsys):
    for more in (["200"], ["400"], ["200", "--seed", "1"], ["200"]):
        fit(*more)
        assert main(["evaluate", QUADRATIC, "o/policy.json", "--seeds", "2",
                     "--num-threads", "1", "--out", "o"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.count("was that of another fit, which is kept as o/policies/") == 3
    kept = [load_fitted(path) for path in (out / "policies").iterdir()]
    abouts = {(fitted.about["budget"], fitted.about["seed"]) for fitted in kept}
    assert len(kept) == 3
    assert abouts == {(200, 0), (400, 0), (200, 1)}
    assert load_fitted(out / "policy.json").about == {
        "method": "random-search,population=2", "budget": 200, "seed": 0,
    }  # fmt: skip
    assert main(["report", "o"]) == 0
    (names,) = tables(out).values()
    assert set(names) == {
        "o/policy.json [budget 200, seed 0]",
        "o/policy.json [budget 400, seed 0]",
        "o/policy.json [budget 200, seed 1]",
    }


def test_a_policy_that_nobody_kept_is_kept_before_it_is_replaced(out, capsys):
    fit("200")
    for path in (out / "policies").iterdir():
        path.unlink()
    before = (out / "policy.json").read_bytes()
    fit("400")
    kept = [path.read_bytes() for path in (out / "policies").iterdir()]
    assert before in kept
    (out / "policy.json").write_text("no policy at all")
    fit("400")
    assert "no policy at all" in [
        path.read_text() for path in (out / "policies").glob("policy-*.json")
    ]


@pytest.mark.slow
def test_methods_at_two_budgets(out):
    line = ["compare", QUADRATIC, "--methods", "random-search", "--runs", "2"]
    line += ["--seeds", "2", "--num-threads", "1", "--out", "o", "--anytime", "2"]
    for budget in ("200", "400"):
        assert main([*line, "--budget", budget]) == 0
    assert main(["report", "o"]) == 0
    (names,) = tables(out).values()
    assert names == ["random-search [budget 200]", "random-search [budget 400]"]
    (folder,) = (path.parent for path in out.glob("*/table.csv"))
    courses = sorted(folder.glob("anytime*.csv"))
    assert [path.name == "anytime.csv" for path in courses] == [False, True]
    first, second = (pd.read_csv(path)["steps"].max() for path in courses)
    assert first <= 200 < second <= 400
    assert len(list(folder.glob("anytime*.png"))) == 2


@pytest.mark.slow
def test_the_same_again_leaves_no_copies(out, capsys):
    line = ["compare", QUADRATIC, "--methods", "random-search", "--runs", "1"]
    line += ["--budget", "200", "--seeds", "2", "--num-threads", "1", "--out", "o"]
    for _ in range(2):
        assert main([*line, "--anytime", "2"]) == 0
        fit("200")
        assert main(["defaults", "--tasks", QUADRATIC, "--seeds", "2", "--num-threads",
                     "1", "--out", "o"]) == 0  # fmt: skip
    everything = sorted(p.name for p in out.rglob("*") if "results" not in p.parts)
    assert [name for name in everything if name.startswith("anytime")] == [
        "anytime.csv",
        "anytime.png",
    ]
    assert len(list(out.glob("defaults*.png"))) == 1
    assert "another" not in "".join(capsys.readouterr())


def test_defaults_of_other_tasks(out, capsys):
    for seeds in ("2", "3"):
        assert main(["defaults", "--tasks", QUADRATIC, "--seeds", seeds,
                     "--num-threads", "1", "--out", "o"]) == 0  # fmt: skip
    assert "defaults.png was another one before" in capsys.readouterr().err
    assert len(list(out.glob("defaults*.png"))) == 2


def test_policies_without_common_seeds_do_not_stop_a_report(out, capsys):
    for policy, seeds in (("default", "0:2"), ("random", "2:4"), ("vdbe", "1")):
        status = compare(policy, more=("--seeds", seeds))
        assert status == (2 if policy == "vdbe" else 0)  # no epsilon here
    capsys.readouterr()
    assert main(["report", "o"]) == 0
    text = next(out.glob("*/report.md")).read_text()
    assert "random and default have no test seeds in common" in text
    (names,) = tables(out).values()
    assert set(names) == {"default", "random"}


@pytest.mark.slow
def test_a_reference_that_is_in_one_of_the_comparisons(out, capsys):
    assert compare("default", "random") == 0
    assert compare("default", more=("--run-budget", "100")) == 0
    capsys.readouterr()
    assert main(["report", "o", "--reference", "random"]) == 0
    assert "random has no results here" in capsys.readouterr().out
    assert main(["report", "o", "--reference", "nobody"]) == 2
    assert "valid: default, random" in capsys.readouterr().err


@pytest.fixture(scope="module")
def frame():
    return dacrl_env.compare(QUADRATIC, ["default", "random"], range(2))


# -- labels -----------------------------------------------------------------------


def test_a_label_is_never_the_name_of_something_else(out, capsys):
    static = "static,learning_rate=0.01"
    assert compare("random") == 0
    assert compare(f"random={static}") == 2
    assert "'random' cannot be a label" in capsys.readouterr().err
    assert compare(f"mine={static}") == 0
    assert compare("default=random", "mine2=default") == 0
    assert compare("default") == 2  # now it is the label of another
    assert "'default' is the label of 'random'" in capsys.readouterr().err
    assert main(["report", "o"]) == 0
    (names,) = tables(out).values()
    assert sorted(names) == ["default", "mine", "mine2"]


@pytest.mark.parametrize(
    "content",
    [
        slow(b""),
        slow(b"{"),
        slow(b"[]"),
        b'{"a": 1}',
        slow(b"\xff"),
        b"[" * 200_000,
        slow(b'{"a":"b","a":"c"}'),
    ],
    ids=range(7),
)
def test_damaged_labels_are_said_and_stop_nothing(out, capsys, content):
    assert compare("mine=default") == 0
    (out / "labels.json").write_bytes(content)
    capsys.readouterr()
    assert main(["report", "o"]) == 0
    captured = capsys.readouterr()
    assert "names are shown, not labels" in captured.err
    assert "default" in captured.out
    assert compare("mine=default") == 0
    assert json.loads((out / "labels.json").read_text()) == {"default": "mine"}


def test_labels_survive_a_full_disk(out, monkeypatch, capsys):
    assert compare("mine=default") == 0
    before = (out / "labels.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    assert compare("other=default") == 2
    assert (out / "labels.json").read_bytes() == before
    assert [p.name for p in out.glob("*.tmp-*")] == []
    monkeypatch.undo()


@pytest.mark.parametrize(
    "label",
    [r"$\frac$", slow("_x"), "a|b", slow("*bold*"), slow("`code`"), "<b>", "[l](u)",
     slow(r"back\slash"), slow("$"), slow("_both_"), "日本", slow("a$b$c"),
     slow("{brace"), "#1", slow("~~s~~")],
)  # fmt: skip
def test_labels_mean_themselves(frame, tmp_path, label, monkeypatch):
    legends = []
    original = report.add_legend

    def watched(figure, *arguments):
        original(figure, *arguments)
        legends.extend(text.get_text() for text in figure.legends[0].get_texts())

    monkeypatch.setattr(report, "add_legend", watched)
    names = [label, "random"]
    frame = frame.replace({"policy": {"default": label}})
    path = report.write_report(frame, tmp_path).path
    assert legends == names
    assert pd.read_csv(tmp_path / "table.csv")["policy"].tolist() == names
    rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
    cells = {line.replace(r"\|", "").count("|") for line in rows}
    heads = {line.count("|") for line in rows if line.startswith("| policy")}
    assert cells == heads
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size[0] > 500


def test_labels_go_through_the_command_line(out):
    assert compare(r"'$\frac$'=default", "_x=random") == 0
    assert compare(r"$\frac$=default") == 2  # what might be a path needs the quotes
    (names,) = tables(out).values()
    assert names == [r"$\frac$", "_x"]


@pytest.mark.parametrize("label", ["a\nb", "a\tb", "a\x00b", "a\u2028b", "\x1b[31m"])
def test_labels_of_several_lines_are_refused_before_the_work(out, label, capsys):
    assert compare(f"{label}=default") == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert "control characters or line ends" in captured
    assert not list(out.rglob("*.parquet"))
    assert compare("default\n") == 2


def test_tables_of_any_frame_have_one_line_a_row():
    assert drawing.printable("a\nb\x1b") == "a\\nb\\x1b"
    assert drawing.escaped("a_b _c_ d|e") == r"a_b \_c\_ d\|e"


@pytest.mark.parametrize(
    "environment",
    [
        slow({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        slow({"PYTHONIOENCODING": "ascii"}),
        slow({"PYTHONIOENCODING": "latin-1:strict"}),
    ],
)
def test_characters_that_a_terminal_does_not_have(tmp_path, environment):
    code = "import sys; from dacrl_env.cli.commands import main; sys.exit(main())"
    line = ["compare", QUADRATIC, "--policies", "größe–日=default", "random"]
    done = subprocess.run(
        [sys.executable, "-c", code, *line, "--seeds", "2", "--num-threads", "1",
         "--out", "o"],
        cwd=tmp_path, capture_output=True, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout
    (names,) = tables(tmp_path / "o").values()
    assert names == ["größe–日", "random"]


def test_what_a_comparison_writes_is_whole_or_as_it_was(out, monkeypatch):
    assert compare("default") == 0
    (folder,) = (path.parent for path in out.glob("*/table.csv"))
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    for path in before:
        with pytest.raises(OSError, match="No space"):
            files.write_whole(path, b"half")
    assert commands.main(["report", "o"]) == 2
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
