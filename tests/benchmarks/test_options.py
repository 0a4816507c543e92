"""The experiments of docs/options.md, of which small ones are run."""

import sys

import pytest
from dacrl_env.benchmarks import options

QUADRATIC = "dacrl/NoisyQuadratic-v0"


@pytest.fixture
def small(monkeypatch):
    policies = {"default": "default", "low": "static,learning_rate=0.001"}
    made = {
        "two": options.Experiment("Two policies", QUADRATIC, policies, 3),
        "one": options.Experiment("Another default", QUADRATIC, {"default": "default"},
                                  3, {"learning_rate": 0.001}, ("learning_rate",)),
    }  # fmt: skip
    monkeypatch.setattr(options, "EXPERIMENTS", made)
    monkeypatch.setattr(options, "FIGURE", ("one",))


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["options", *map(str, arguments)])
    options.main()


def test_tables_and_figure(small, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--out", tmp_path)
    text = (tmp_path / "options.md").read_text()
    assert capsys.readouterr().out.endswith(text)
    assert (tmp_path / "options.png").stat().st_size > 0
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    default, low = [row for row in rows if row[0] in ("| default", "| low")][:2]
    score, other = (float(row[1].split()[0]) for row in (default, low))
    assert float(low[4].split()[0]) == pytest.approx(other - score, abs=2e-3)
    assert default[4] == "– |"
    # another default is the policy of the first experiment that sets the same
    assert rows[-1][1:3] == low[1:3]


def test_some_are_chosen_by_name(small, monkeypatch, tmp_path):
    run(monkeypatch, "two", "--out", tmp_path)
    assert "Another" not in (tmp_path / "options.md").read_text()
    assert not (tmp_path / "options.png").exists()


def test_an_unknown_name(small, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "three", "--out", tmp_path)
    assert "unknown experiment 'three'; valid: two, one" in capsys.readouterr().err
