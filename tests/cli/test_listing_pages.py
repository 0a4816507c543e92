"""Pages of what ``dacrl list`` lists, and the list of knobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dacrl_env.cli import listing
from dacrl_env.cli.commands import main
from dacrl_env.policies import METHODS, POLICIES, pretrained
from dacrl_env.tasks import Event
from dacrl_env.tasks.registration import ALGORITHMS, load, markdown

NAMES = {
    "policies": [*POLICIES, *pretrained()],
    "methods": [*METHODS],
    "knobs": [*ALGORITHMS],
    "suites": [*listing.suites()],
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_page_has_a_section_for_each(kind: str, capsys: Any) -> None:
    assert main(["list", kind, "--markdown"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("# ")
    assert f"`dacrl list {kind} --markdown`" in page
    assert [s.partition("\n")[0] for s in page.split("\n## ")[1:]] == NAMES[kind]
    for line in page.splitlines():  # a cell's bar would be another column
        if line.startswith("|"):
            columns = line.replace("\\|", "").count("|") - 1
            assert columns == (5 if kind == "knobs" else 4)


def test_arguments_are_on_the_page() -> None:
    sections = listing.page("methods").split("\n## ")
    (section,) = (s for s in sections if s.startswith("hyperband\n"))
    for one in listing.about("hyperband", "method")["arguments"]:
        assert f"| `{one['name']}` |" in section


def test_the_page_of_tasks_is_the_committed_one() -> None:
    assert listing.page("tasks") == markdown()


def test_a_page_is_of_all(capsys: Any) -> None:
    for more in (["dqn"], ["--json"]):
        assert main(["list", "knobs", *more, "--markdown"]) == 2
        assert "--markdown is a page of all" in capsys.readouterr().err


def test_knobs_are_those_of_the_algorithm(capsys: Any) -> None:
    assert main(["list", "knobs", "ppo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    learner = load(ALGORITHMS["ppo"])
    assert [one["name"] for one in found["ppo"]] == [
        knob.name for knob in learner.hyperparameters
    ]
    for one, knob in zip(found["ppo"], learner.hyperparameters, strict=True):
        assert one["controlled"] == (knob.name in learner.controlled)
        assert ("default" in one) != isinstance(knob, Event)
    by_name = {one["name"]: one for one in found["ppo"]}
    condition = by_name["drift_alpha"]["condition"]
    assert condition == {"choice": "drift", "options": ["dpo"]}
    assert main(["list", "knobs", "dqn"]) == 0
    out = capsys.readouterr().out
    assert "learning_rate *" in out
    assert "number, 1e-06 to 0.1 (log), default 0.001" in out


def test_an_unknown_algorithm(capsys: Any) -> None:
    assert main(["list", "knobs", "dqm"]) == 2
    assert "did you mean 'dqn'" in capsys.readouterr().err
