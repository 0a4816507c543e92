"""Results of a user's algorithm are those of its source as it is."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import dacrl_env
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import ALGORITHMS, definition_of

ALGORITHM = """
from dacrl_env.algorithms.sgd import SGD


class Slower(SGD):
    def train(self, state, values, steps, interval):
        slower = {{"learning_rate": {factor} * values["learning_rate"]}}
        super().train(state, slower, steps, interval)
"""


def test_an_edited_algorithm_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "users_algorithm"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(ALGORITHMS, "slower", f"{name}:Slower")
    task = Task(
        id="dacrl-tests/Slower-v0", inner_env=None, algorithm="slower", budget=50,
        decisions=50, random_return=0.4, reference_return=3.89, floor_return=-6.5,
    )  # fmt: skip
    found = []
    for factor in (0.5, 0.01, 0.01):
        (tmp_path / f"{name}.py").write_text(ALGORITHM.format(factor=factor))
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        frame = dacrl_env.compare(task, "default", 2, store=tmp_path / "store")
        definition = definition_of(task)
        found.append((frame["report_score"].iloc[-1], definition))
    assert found[0][0] != found[1][0]
    assert found[1] == found[2]


def test_an_algorithm_of_this_package_has_its_version() -> None:
    task = dacrl_env.get_task("dacrl/NoisyQuadratic-v0")
    assert definition_of(task) == task.definition()
