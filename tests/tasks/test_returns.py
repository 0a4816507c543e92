"""Returns that a task was registered without: measured on first use, kept, shown."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from users_envs import Walk

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.comparison import check
from dacrl_env.core import installed
from dacrl_env.studies import returns as measuring
from dacrl_env.tasks import Task, returns
from dacrl_env.tasks.registration import ALGORITHMS, TASKS, TaskId, definition_of

ID = "dacrl-tests/Returns-v0"
SHORT: dict[str, Any] = {
    "algorithm": "dqn",
    "budget": 200,
    "decisions": 2,
    "configuration": {"hidden_sizes": (8,), "learning_starts": 50},
}
RUN = {"eval_episodes": 2}


class Paid(Walk):
    """Pays 1 a step for the second action: random 10 of 20, best 20, least 0."""

    def step(self, action: Any) -> Any:
        self.paid = float(action)
        return super().step(action)

    def earned(self) -> Any:
        return self.paid


class Unpaid(Walk):
    """Pays nothing, whatever is done."""

    def earned(self) -> Any:
        return 0.0


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "returns"
    monkeypatch.setattr(returns, "_folder", lambda: place)
    monkeypatch.setattr(returns, "_KEPT", {})
    monkeypatch.setattr(measuring, "EPISODES", 40)
    before = {*TASKS, *gym.registry}
    yield place
    for name in {*TASKS, *gym.registry} - before:
        TASKS.pop(name, None)
        gym.registry.pop(name, None)


def registered(inner_env: Any = Paid, **fields: Any) -> Task:
    """A task, as if this process had not heard of it."""
    return dacrl_env.register_task(
        **{"id": ID, "inner_env": inner_env, **SHORT} | fields
    )


def test_they_are_measured_once_kept_and_shown(
    own_place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = registered()
    assert task.missing_returns == returns.RETURNS
    assert returns.shown(task) == "measured on first use"
    assert main(["list", "tasks", ID]) == 0
    assert "measured on first use" in capsys.readouterr().out
    frame = dacrl_env.evaluate(task, "default", 1, **RUN)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("dacrl: measuring random_return, reference_return, floor")
    assert "(mean of 40 episodes of random actions), reference" in told[1]
    assert "(best of 4 default runs of 200 steps), floor" in told[1]

    scale = task.returns
    assert 7 < scale.random < 13
    assert scale.random < scale.reference <= 20
    span = scale.reference - scale.random
    assert np.isclose(scale.floor, 0 - measuring.MARGIN * span)  # 0: the first action
    score = frame["score"].iloc[-1] * span + scale.random
    assert np.isclose(score, frame["eval_return"].iloc[-1])
    [file] = own_place.iterdir()
    assert json.loads(file.read_text())["random_return"] == scale.random

    def fails(task: Task) -> Any:
        raise AssertionError

    monkeypatch.setattr(measuring, "measure", fails)
    dacrl_env.evaluate(ID, "default", 1, **RUN)
    returns._KEPT.clear()  # as another process
    assert registered().returns == scale
    assert capsys.readouterr().err == ""
    assert main(["list", "tasks", ID, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["returns"] == scale._asdict()
    assert "best of 4 default runs" in found["returns are"]
    assert main(["tasks", "--markdown"]) == 0
    assert f"{scale.random:g}" in capsys.readouterr().out
    file.write_text("{")  # damaged
    returns._KEPT.clear()
    with pytest.raises(AssertionError):
        _ = task.returns


def test_they_repeat(own_place: Path) -> None:
    first = registered().returns
    next(own_place.iterdir()).unlink()
    returns._KEPT.clear()
    assert registered().returns == first


def test_results_are_named_by_what_was_measured() -> None:
    task = registered()
    whole = replace(
        task, **{f"{k}_return": v for k, v in task.returns._asdict().items()}
    )
    assert definition_of(task) == definition_of(whole)
    assert pickle.loads(pickle.dumps(TaskId(ID))) == ID


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"random_return": 5.0}, 5.0),
        ({"reference_return": 19.0}, 19.0),
        ({"floor_return": -7.0}, -7.0),
        ({"random_return": 9.0, "reference_return": 30.0}, 9.0),
    ],
)
def test_those_that_are_given_stay(given: dict[str, float], expected: float) -> None:
    task = registered(**given)
    assert expected in task.returns
    for name, value in given.items():
        assert getattr(task.returns, name.partition("_")[0]) == value


def test_the_threshold_of_a_registered_environment_is_the_reference() -> None:
    gym.register("dacrl-tests/Threshold-v0", Paid, reward_threshold=18.5)
    task = registered("dacrl-tests/Threshold-v0")
    assert task.returns.reference == 18.5
    assert "reward_threshold" in returns.shown(task)


def test_another_environment_has_other_returns() -> None:
    class Twice(Paid):
        def earned(self) -> Any:
            return 2 * self.paid

    first = registered(reference_return=100).returns
    with pytest.warns(UserWarning, match="another inner_env"):
        task = registered(Twice, reference_return=100)
    assert task.returns.random == 2 * first.random


def test_another_version_measures_anew(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = registered(reference_return=20)
    _ = task.returns
    before = installed.version()
    monkeypatch.setattr(installed, "version", lambda: f"{before}0")
    returns._KEPT.clear()
    assert returns.known(task) is None
    _ = task.returns
    assert len([*own_place.iterdir()]) == 2
    monkeypatch.setattr(installed, "version", lambda: before)
    returns._KEPT.clear()
    assert returns.known(task) is not None


def test_an_edited_algorithm_measures_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "dacrl_tests_returns_algorithm"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ALGORITHMS, "own", f"{module}:Own")
    # which would be taken for that of the next, of the same size and the same second
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for made in (1, 2, 1):
        text = f"""\
from dacrl_env.learners.dqn import DQN

class Own(DQN):
    made = {made}
"""
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()
        returns._KEPT.clear()
        task = registered(algorithm="own", reference_return=20)
        found.append(returns.known(task) is not None)
        _ = task.returns
    assert found == [False, False, True]


def test_what_has_no_scale_is_said() -> None:
    task = registered(Unpaid)
    with pytest.raises(ValueError, match=r"no scale.*give a reference_return"):
        dacrl_env.evaluate(task, "default", 1, **RUN)
    task = registered(Unpaid, id="dacrl-tests/Other-v0", floor_return=3)
    with pytest.raises(ValueError, match=r"floor_return of .*, 3, does not lie below"):
        returns.filled(replace(task, reference_return=5.0))
    with pytest.raises(ValueError, match="ordered floor < random < reference"):
        registered(random_return=3, reference_return=2)
    with pytest.raises(ValueError, match="has no inner environment to measure"):
        replace(dacrl_env.get_task("dacrl/NoisyQuadratic-v0"), random_return=None)


def test_what_is_wrong_comes_to_light_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(task: Task) -> Any:
        raise AssertionError

    monkeypatch.setattr(measuring, "measure", fails)
    task = registered()
    with pytest.raises(ValueError, match="unknown policy"):
        dacrl_env.compare(task, "nobody", 2)
    with pytest.raises(ValueError, match="unknown option"):
        dacrl_env.compare(task, "default", 2, wrong=1)
    assert check(task, "default", 2).test_runs == 2  # a dry run
    with pytest.raises(AssertionError):
        dacrl_env.compare(task, "default", 2)


def test_a_place_that_cannot_be_written(own_place: Path) -> None:
    own_place.write_text("a file")
    task = registered(reference_return=20)
    with pytest.warns(RuntimeWarning, match="cannot be kept in"):
        first = task.returns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task.returns == first


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_made_up_returns_are_in_order(missing: list[int]) -> None:
    whole = dacrl_env.get_task("dacrl/DQN-CartPole-v0")
    left_out: dict[str, Any] = {returns.RETURNS[k]: None for k in missing}
    task = returns.assumed(replace(whole, **left_out))
    assert not task.missing_returns
    for k in {0, 1, 2} - set(missing):
        assert task.returns[k] == whole.returns[k]
