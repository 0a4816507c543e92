"""Numbers, choices and events in every action mode, by themselves."""

import re

import numpy as np
import pytest
from gymnasium import spaces

from dacrl_env import Choice, Event, Number
from dacrl_env.outer import observations
from dacrl_env.outer.actions import ActionMap

RATE = Number("rate", 1e-4, 1e-1, 1e-2, "log")
LOSS = Choice("loss", ("huber", "mse", "log"), "mse")
DOUBLE = Choice("double", (False, True), False)
RESET = Event("reset")
CHECKPOINT = Event("checkpoint", ("none", "save", "restore"))
KNOBS = (RATE, LOSS, DOUBLE, RESET, CHECKPOINT)
START = [1e-2, 1.0, 0.0, 0.0, 0.0]


def test_the_spaces() -> None:
    assert ActionMap(KNOBS, "continuous").space == spaces.Box(-1, 1, (5,), np.float32)
    assert ActionMap(KNOBS, "multidiscrete").space == spaces.MultiDiscrete(
        [3, 3, 2, 2, 3]
    )
    assert ActionMap(KNOBS, "discrete").space == spaces.Discrete(3 * 3 * 2 * 2 * 3)
    values = ActionMap(KNOBS, "values").space
    assert values.low.tolist() == [1e-4, 0, 0, 0, 0]
    assert values.high.tolist() == [1e-1, 2, 1, 1, 2]


@pytest.mark.parametrize("mode", ["continuous", "relative"])
def test_nothing_asked_for_is_the_default_and_then_what_holds(mode: str) -> None:
    actions = ActionMap(KNOBS, mode)
    current = np.array([[3e-3, 2.0, 1.0, 0.0, 0.0]])
    got = actions.to_values(np.zeros((1, 5)), current)[0].tolist()
    assert got == (START if mode == "continuous" else current[0].tolist())


def test_bins_of_a_choice_are_equal_and_go_round() -> None:
    actions = ActionMap([LOSS], "continuous")
    grid = (np.arange(3000) + 0.5) / 1500 - 1
    codes = actions.to_values(grid[:, None], np.zeros((3000, 1)))[:, 0]
    shown = [LOSS.options[int(code)] for code in codes]
    assert shown == ["huber"] * 1000 + ["mse"] * 1000 + ["log"] * 1000
    relative = ActionMap([LOSS], "relative")
    codes = relative.to_values(grid[:, None], np.full((3000, 1), 2.0))[:, 0]
    shown = [LOSS.options[int(code)] for code in codes]
    assert shown == ["mse"] * 1000 + ["log"] * 1000 + ["huber"] * 1000
    # both ends belong to a bin
    assert actions.to_values([[-1.0], [1.0]], np.zeros((2, 1)))[:, 0].tolist() == [0, 2]


@pytest.mark.parametrize("mode", ["continuous", "relative"])
def test_events_happen_beyond_a_half(mode: str) -> None:
    actions = ActionMap([RESET, CHECKPOINT], mode)
    given = [[-1, -1], [-0.5, -0.5], [0.5, 0.5], [0.51, 0.51], [1, -0.51]]
    got = actions.to_values(given, np.zeros((5, 2))).tolist()
    assert got == [[0, 2], [0, 0], [0, 0], [1, 1], [1, 2]]


def test_discrete_modes_name_the_options() -> None:
    several = ActionMap(KNOBS, "multidiscrete")
    joint = ActionMap(KNOBS, "discrete")
    current = np.array([START])
    every = np.array([*np.ndindex(3, 3, 2, 2, 3)])
    for number, action in enumerate(every):
        values = several.to_values([action], current)
        assert values[0, 1:].tolist() == action[1:].tolist()
        assert (joint.to_values([number], current) == values).all()
    assert np.isclose(several.to_values([[2, 0, 0, 0, 0]], current)[0, 0], 2e-2)


@pytest.mark.parametrize("mode", ["continuous", "relative", "values"])
def test_options_there_and_back(mode: str) -> None:
    actions = ActionMap(KNOBS, mode)
    current = np.array([[2e-2, 0.0, 1.0, 0.0, 0.0]])
    for loss in LOSS.options:
        for double in DOUBLE.options:
            for checkpoint in CHECKPOINT.options:
                config = {"loss": loss, "double": double, "checkpoint": checkpoint}
                asked = actions.to_actions(config, current)
                assert actions.space.contains(asked[0].astype(actions.space.dtype))
                values = actions.to_values(asked, current)[0]
                got = [h.native(v) for h, v in zip(KNOBS, values, strict=True)]
                assert got[1:] == [loss, double, False, checkpoint]
                rate = 2e-2 if mode == "relative" else 1e-2
                assert got[0] == pytest.approx(rate)


def test_options_of_all_members_at_once() -> None:
    actions = ActionMap(KNOBS, "values")
    losses = np.array(["huber", "log", "mse"])
    values = actions.to_actions({"loss": losses, "double": True}, np.zeros((3, 5)))
    assert values[:, 1].tolist() == [0, 2, 1]
    assert values[:, 2].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"loss": "hubr"},
            ["no option 'hubr'", "did you mean 'huber'", "valid: 'huber', 'mse'"],
        ),
        ({"loss": 1}, ["no option 1"]),
        ({"double": 1}, ["no option 1", "False, True"]),
        ({"double": "True"}, ["no option 'True'"]),
        ({"checkpoint": "load"}, ["no option 'load'", "restore"]),
        ({"loss": ["mse", "mse"]}, ["shape (2,)", "3 of them"]),
        ({"rate": "mse"}, ["rate must be real numbers"]),
    ],
)
def test_what_is_no_option(config: dict, words: list[str]) -> None:
    actions = ActionMap(KNOBS, "values")
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        actions.to_actions(config, np.zeros((3, 5)))


def test_codes_that_name_no_option() -> None:
    actions = ActionMap(KNOBS, "values")
    for code in (0.5, -1.0, 3.0):
        with pytest.raises(ValueError, match="number of no option; 0 is 'huber'"):
            actions.to_values([[1e-2, code, 0, 0, 0]], np.zeros((1, 5)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Choice("a", ("x",), "x"), "at least two options"),
        (lambda: Choice("a", "xy", "x"), "at least two options"),
        (lambda: Choice("a", ("x", "x"), "x"), "must differ"),
        (lambda: Choice("a", ("x", "y"), "z"), "no option 'z'"),
        (lambda: Choice("", ("x", "y"), "x"), "needs a name"),
        (lambda: Choice("a", ("x", None), "x"), "texts, numbers and truth values"),
        (lambda: Event("a", ("no", "b", "c", "d")), "at most three"),
        (lambda: Event("a", ("no",)), "at least two"),
    ],
)
def test_what_is_no_knob(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_true_is_not_one() -> None:
    mixed = Choice("mixed", (True, 1, "1", 2.0), 1)
    assert [int(mixed.codes(o)) for o in (True, 1, "1", 2)] == [0, 1, 2, 3]
    assert mixed.start == 1.0
    assert mixed.codes(np.array([1, 2])).tolist() == [1, 3]


def test_a_joint_space_that_is_too_large() -> None:
    many = [Choice(f"c{k}", tuple(range(10)), 0) for k in range(20)]
    with pytest.raises(ValueError, match="would have 1e\\+20 actions"):
        ActionMap(many, "discrete")
    assert ActionMap(many, "multidiscrete").space.nvec.tolist() == [10] * 20


def test_what_is_observed_of_each_kind() -> None:
    rows = observations.names(KNOBS, (), (), 1)
    mine = [row for row in rows if row.startswith("hp/")]
    assert mine == [
        "hp/rate", "hp/loss=huber", "hp/loss=mse", "hp/loss=log", "hp/double=False",
        "hp/double=True", "hp/reset=True", "hp/checkpoint=save",
        "hp/checkpoint=restore",
    ]  # fmt: skip
    applied = np.array([[1e-1, 2, 0, 1, 0], [1e-4, 0, 1, 0, 2]])
    since = np.array([[0.0, 1.0, 0.5], [0.25, 1.0, 1.0]])
    columns = observations.knob_features(KNOBS, applied, since)
    assert np.stack(columns, -1).tolist() == [
        [1, -1, -1, 1, 1, -1, -1, 1, 0],
        [-1, 1, -1, -1, -1, 1, -0.5, 1, 1],
    ]
