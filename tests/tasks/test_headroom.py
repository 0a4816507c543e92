"""Tags and suites by what was measured."""

import json
from dataclasses import replace

import pytest

from dacrl_env.tasks import headroom
from dacrl_env.tasks.registration import TASKS, markdown

CARTPOLE = TASKS["dacrl/DQN-CartPole-v0"]
QUADRATIC = TASKS["dacrl/NoisyQuadratic-v0"]


@pytest.fixture
def measure(tmp_path, monkeypatch, no_bases):
    """A function that puts a text, or entries, where figures are read."""

    def write(content):
        path = tmp_path / "headroom.json"
        text = content if isinstance(content, str) else json.dumps({"tasks": content})
        path.write_text(text)
        monkeypatch.setattr(headroom, "PATH", path)
        headroom.measured.cache_clear()

    yield write
    headroom.measured.cache_clear()


def entry(state, schedule):
    return {"state": state, "schedule": schedule, "objective": "auc"}


@pytest.mark.parametrize("content", ["", " \n", "{}", '{"tasks": {}}'])
def test_without_figures_tags_are_those_of_the_table(measure, content):
    measure(content)
    for task in TASKS.values():
        assert headroom.tags_of(task) == task.tags
        assert headroom.shown(task.id) == "–"


def test_without_a_file_tags_are_those_of_the_table(tmp_path, measure, monkeypatch):
    measure({})
    monkeypatch.setattr(headroom, "PATH", tmp_path / "none.json")
    headroom.measured.cache_clear()
    assert headroom.tags_of(replace(CARTPOLE, tags=("smoke",))) == ("smoke",)


@pytest.mark.parametrize(
    ("again", "tags"),
    [
        ({"state": [0.02, 0.01, 0.03]}, ("state",)),
        ({"state": [0.2, -0.01, 0.3]}, ("smoke",)),
        ({"state": [0.2, 0.1, 0.3], "schedule": [0.3, 0.2, 0.4]}, ("state",)),
        ({"schedule": [0.0, -0.1, 0.1]}, ("state",)),
    ],
)
def test_a_tag_is_lost_on_seeds_that_were_held_back_and_never_won_there(
    measure, again, tags
):
    both = entry([0.1, 0.05, 0.2], [0.04, 0.01, 0.1])
    measure({CARTPOLE.id: {**both, "confirmed": {"values": again}}})
    assert headroom.tags_of(CARTPOLE) == tags


@pytest.mark.parametrize(
    ("state", "schedule", "tags"),
    [
        ([0.05, 0.001, 0.2], [0.01, -0.1, 0.1], ("state",)),
        ([0.049, 0.01, 0.2], [0.3, 0.2, 0.4], ("schedule",)),
        ([0.3, 0.0, 0.5], [0.2, -0.01, 0.4], ("smoke",)),
        ([0.3, 0.1, 0.5], [0.2, 0.1, 0.4], ("state", "schedule")),
        (None, [0.2, 0.1, 0.4], ("schedule",)),
        (None, [0.01, -0.1, 0.1], ("smoke",)),
    ],
)
def test_tags_follow_from_figures(measure, state, schedule, tags):
    measure({CARTPOLE.id: entry(state, schedule)})
    assert headroom.tags_of(replace(CARTPOLE, tags=("smoke",))) == tags
    assert headroom.tags_of(replace(CARTPOLE, tags=("hard", "state"))) == (
        *tags,
        "hard",
    )
    assert headroom.tags_of(QUADRATIC) == QUADRATIC.tags  # not measured


def test_figures_are_shown_with_their_interval(measure):
    measure({CARTPOLE.id: entry([0.123, 0.1, 0.1456], [-0.02, -0.1, 0.05])})
    shown = "state +0.123 [+0.100, +0.146], schedule -0.020 [-0.100, +0.050] (auc)"
    assert headroom.shown(CARTPOLE.id) == shown
    line = next(x for x in markdown().splitlines() if x.startswith(f"| {CARTPOLE.id} "))
    assert line.endswith(f"| state | {shown.replace(', s', '; s')} |")


def test_suites(measure):
    measure({CARTPOLE.id: entry([0.2, 0.1, 0.3], [0.2, 0.1, 0.3])})
    every = list(TASKS.values())

    def found(name):
        return headroom.suite(name, every)

    assert found("state") == found("schedule") == [CARTPOLE.id]
    assert found("all") == [task.id for task in every]
    assert found("default") == [CARTPOLE.id]  # others are smoke, or not measured
    measure(
        {
            CARTPOLE.id: entry([0.2, 0.1, 0.3], [0.0, -0.1, 0.1]),
            QUADRATIC.id: entry([0.0, -0.1, 0.1], [0.2, 0.1, 0.3]),
        }
    )
    assert found("state") == [CARTPOLE.id]
    assert found("schedule") == [QUADRATIC.id]
    assert set(found("default")) == {CARTPOLE.id, QUADRATIC.id}
    own = replace(QUADRATIC, id="own/Task-v0", tags=("mine",))
    assert headroom.suite("mine", [*every, own]) == ["own/Task-v0"]


def test_wrong_suites_say_what_there_is(measure):
    measure({})
    with pytest.raises(ValueError, match=r"unknown suite 'stat' .*mean 'state'.*all"):
        headroom.suite("stat", TASKS.values())
    with pytest.raises(ValueError, match="no task is in the suite 'state'"):
        headroom.suite("state", TASKS.values())


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        {CARTPOLE.id: 3},
        {CARTPOLE.id: entry([0.1, 0.2], None)},
        {CARTPOLE.id: entry([0.1, 0.3, 0.2], None)},
        {CARTPOLE.id: entry(["a", "b", "c"], None)},
        {CARTPOLE.id: entry([0.1, float("nan"), 0.2], None)},
    ],
)
def test_damaged_files_are_named(measure, content):
    measure(content)
    with pytest.raises(ValueError, match=r"headroom\.json"):
        headroom.measured()


def test_figures_are_kept_beside_those_of_other_tasks(measure):
    measure({})
    first = {"state": [0.2, 0.1, 0.3], "objective": "auc", "version": "1"}
    headroom.keep(QUADRATIC.id, first)
    headroom.keep(CARTPOLE.id, {"schedule": [0.01, -0.1, 0.1]})
    assert list(headroom.measured()) == [CARTPOLE.id, QUADRATIC.id]
    assert headroom.measured()[QUADRATIC.id] == first
    assert headroom.tags_of(QUADRATIC) == ("state",)
    assert headroom.tags_of(CARTPOLE) == ("smoke",)
    headroom.keep(CARTPOLE.id, {"schedule": [0.1, 0.05, 0.2]})
    assert headroom.tags_of(CARTPOLE) == ("schedule",)


def test_what_another_process_has_kept_stays(measure):
    measure({})
    assert not headroom.measured()
    first = {"state": [0.2, 0.1, 0.3]}
    headroom.PATH.write_text(json.dumps({"tasks": {QUADRATIC.id: first}}))
    headroom.keep(CARTPOLE.id, {"schedule": [0.01, -0.1, 0.1]})
    assert headroom.measured()[QUADRATIC.id] == first
