"""Types of arguments."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

import gymnasium as gym
import numpy as np
import pytest

import dacrl_env
from dacrl_env.core.checks import check_types, meant
from dacrl_env.core.snapshot import SnapshotError
from dacrl_env.methods.trials import fit_key
from dacrl_env.policies import get_method

QUADRATIC = "dacrl/NoisyQuadratic-v0"


def function(
    count: int,
    rate: float | None = None,
    names: Sequence[str] = (),
    sizes: tuple[int, ...] = (),
    space: Mapping[str, float] | None = None,
    word: str = "",
    flag: bool = False,
    pairs: Mapping[str, Sequence[float]] | None = None,
    anything: object = None,
    **rest: float,
) -> None: ...


@pytest.mark.parametrize(
    "arguments",
    [
        {"count": 1, "rate": 1, "names": ["a"], "sizes": [3], "space": {}},
        {"rate": None, "space": None, "names": (), "word": "a", "flag": True},
        {"anything": 1j, "another": 0.5},
        {"sizes": [256.0, np.array(3)], "rate": np.float32(1), "flag": np.bool_(True)},
        {"pairs": {"a": [1, np.float64(2)]}},
    ],
)
def test_what_fits_passes(arguments):
    check_types("it", function, arguments)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 1.5, "int, got 1.5"),
        ("count", True, "int, got True"),
        ("count", None, "int, got None"),
        ("rate", "a", "float or None, got 'a'"),
        ("names", "ab", "Sequence, got 'ab'"),
        ("names", 3, "Sequence, got 3"),
        ("sizes", 64, "tuple, got 64"),
        ("space", 3, "Mapping or None, got 3"),
        ("word", 3, "str, got 3"),
        ("flag", 1, "bool, got 1"),
        ("another", "a", "float, got 'a'"),
        ("names", [3], "str, got 3"),
        ("space", {"a": "b"}, "float, got 'b'"),
        ("space", {1: 2}, "str, got 1"),
        ("pairs", {"a": "bc"}, "Sequence, got 'bc'"),
        ("pairs", {"a": ["b"]}, "float, got 'b'"),
    ],
)
def test_what_does_not_is_named(name, value, words):
    with pytest.raises(ValueError, match=rf"it: {name}.* must be of type {words}"):
        check_types("it", function, {name: value})


def test_annotations_that_cannot_be_read_are_passed_over():
    def odd(count: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    check_types("it", odd, {"count": "a"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fixed": ["gamma"]}, "fixed must be a dict"),
        ({"hidden_sizes": 64}, "hidden_sizes must be of type tuple"),
        ({"learning_starts": "a"}, "learning_starts must be of type int"),
        ({"instances": 3}, "unknown instances 3"),
    ],
)
def test_options_of_the_environment(options, words):
    with pytest.raises(ValueError, match=words):
        gym.make("dacrl/DQN-CartPole-v0", **options)


def test_what_is_no_snapshot():
    env = gym.make(QUADRATIC).unwrapped
    env.reset(seed=0)
    for begin in (
        lambda: env.restore(3),
        lambda: env.reset(options={"snapshot": "x"}),
    ):
        with pytest.raises(SnapshotError, match="is no snapshot"):
            begin()


def test_an_id_that_is_no_id_is_not_kept():
    fields = {"algorithm": "sgd", "inner_env": None, "budget": 60}
    returns = {"random_return": 0.0, "reference_return": 1.0, "floor_return": -1.0}
    for _ in range(2):
        with pytest.raises(gym.error.Error):
            dacrl_env.register_task(id="no id/ at all!", **fields, **returns)
    assert "no id/ at all!" not in dacrl_env.TASKS


def test_a_method_that_is_no_dataclass_says_so_before_anything_is_run(
    tmp_path, monkeypatch
):
    (tmp_path / "plain.py").write_text("class M:\n    def fit(self, *a, **k): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'plain:M' is no dataclass"):
        dacrl_env.fit(QUADRATIC, "plain:M", 100, 0)


def test_a_fit_is_named_by_the_file_of_a_method_of_ones_own(tmp_path, monkeypatch):
    code = (
        "import dataclasses\n@dataclasses.dataclass\nclass M:\n    def fit(self): ...\n"
    )
    path = tmp_path / "own_method.py"
    path.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    task, method = dacrl_env.get_task(QUADRATIC), get_method("own_method:M")
    first = fit_key(task, method, 100, 0, {})
    assert fit_key(task, method, 100, 0, {}) == first
    path.write_text(f"{code}# another\n")
    importlib.reload(sys.modules["own_method"])
    again = get_method("own_method:M")
    assert fit_key(task, again, 100, 0, {}) != first
    # the package's own by its version
    assert fit_key(task, get_method("race"), 100, 0, {})["origin"] == "dacrl_env"


@pytest.mark.parametrize(
    ("name", "near"),
    [("freze", "freeze-when-good"), ("cartpole", "dacrl/DQN-CartPole-v1"), ("a", None)],
)
def test_a_part_of_a_name_is_near(name: str, near: str | None) -> None:
    valid = [
        "default",
        "freeze-when-good",
        "dacrl/DQN-CartPole-v1",
        "dacrl/PPO-CartPole-v0",
    ]
    assert meant(name, valid) == (f" (did you mean {near!r}?)" if near else "")
