"""Without DACBench, and all that is installed for it alone, the rest works."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEAN = [r for r in PROJECT["dependencies"] if Requirement(r).name != "dacbench"]


def installed_for(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that requirements bring along."""
    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if (name, frozenset(one.extras)) in done:
            continue
        done.add((name, frozenset(one.extras)))
        try:
            further = importlib.metadata.requires(one.name) or []
        except importlib.metadata.PackageNotFoundError:  # of another system
            continue
        found.add(name)
        for other in map(Requirement, further):
            extras = [*one.extras, ""]
            marker = other.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in extras):
                todo.append(other)
    return found


@functools.cache
def hidden() -> list[str]:
    """Modules at the top level that the lean installation does not bring along."""
    kept = installed_for(LEAN) | {"dacrl-env"}
    owners = importlib.metadata.packages_distributions()
    return sorted(
        module
        for module, names in owners.items()
        if not kept & {canonicalize_name(name) for name in names}
        # what starts Python in an editable installation
        and not module.startswith("__editable__")
        and module.isidentifier()
    )


# read by every Python that is started below, workers included
HIDE = "import sys\nsys.modules.update(dict.fromkeys({names!r}))\n"

EVERYTHING = """
import importlib, pkgutil, sys

import dacrl_env

for module in ("dacbench", "ConfigSpace", "scipy", "sklearn", "IPython", "seaborn"):
    assert sys.modules[module] is None, module

alone = "dacrl_env.integrations.dacbench"
ends_with_a_call = "dacrl_env.__main__"
for found in pkgutil.walk_packages(dacrl_env.__path__, "dacrl_env."):
    if found.name not in (alone, ends_with_a_call):
        importlib.import_module(found.name)
try:
    importlib.import_module(alone)
except ModuleNotFoundError as error:
    assert "pip install dacbench" in str(error), error
else:
    raise AssertionError("DACBench is there")

import gymnasium as gym

TASK = "dacrl/NoisyQuadratic-v0"
env = gym.make(TASK)
env.reset(seed=0)
assert env.step(env.action_space.sample())[1] is not None
envs = gym.make_vec(TASK, num_envs=3)
envs.reset(seed=0)
assert envs.step(envs.action_space.sample())[1].shape == (3,)

from dacrl_env.cli.commands import main

def ask(line):
    assert main(line.split()) == 0, line

frame = dacrl_env.compare(
    TASK, ["default", "random"], 4, methods="random-search", tuning_budget=1_000,
    runs=2, store="store",
)
assert set(frame["run"]) == {0, 1}
fitted = dacrl_env.fit("hyperband", TASK, 4_000, 0)
assert fitted.cost.env_steps > 0
for what in ("tasks", "policies", "methods", "knobs"):
    ask(f"list {what}")
ask(f"fit {TASK} random-search --budget 1000 --out tuned")
ask(f"compare {TASK} --policies default tuned/policy.json --seeds 2 --out out")
print("all of it")
"""

# with workers, algorithms, methods and implementations
MORE = """
import dacrl_env
from dacrl_env.cli.commands import main

TASK, SHORT = "dacrl/NoisyQuadratic-v0", "dacrl/DQN-CartPole-v0"
LITTLE = "--run-budget 400 --decision-interval 200 --set learning_starts=100"
frame = dacrl_env.compare(
    TASK, ["default", "random"], 4, methods=["random-search", "pbt"],
    tuning_budget=2_000, runs=2, store="store", num_threads=2, executor="processes",
)
assert set(frame["run"]) == {0, 1}
for ours in ("compiled", "sb3"):
    line = f"compare {SHORT} --policies default random --seeds 2 {LITTLE} "
    line += f"implementation={ours} --num-threads 1 --out {ours}"
    assert main(line.split()) == 0, line
print("all of it")
"""


@pytest.fixture
def lean(tmp_path: Path) -> dict[str, str]:
    """The environment of programs in which only the lean installation is found."""
    (tmp_path / "hide").mkdir()
    text = HIDE.format(names=hidden())
    (tmp_path / "hide" / "sitecustomize.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(tmp_path / "hide")}


def run(program: str, env: dict[str, str], folder: Path) -> Any:
    path = folder / "program.py"
    path.write_text(program)
    return subprocess.run(
        [sys.executable, str(path)], env=env, cwd=folder, capture_output=True, text=True
    )


def test_the_lean_requirements_are_the_dependencies_without_dacbench() -> None:
    lines = (ROOT / "requirements-lean.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == LEAN
    assert len(LEAN) == len(PROJECT["dependencies"]) - 1


def test_what_comes_with_dacbench_alone_is_hidden() -> None:
    names = hidden()
    assert {"dacbench", "ConfigSpace", "scipy", "IPython", "pytest"} <= {*names}
    needed = {re.split(r"[<>=]", text)[0] for text in LEAN}
    own = importlib.metadata.packages_distributions()
    owners = {canonicalize_name(n) for m in own if m not in names for n in own[m]}
    assert {canonicalize_name(name) for name in needed} <= owners


@pytest.mark.parametrize(
    ("program", "pages"),
    [
        pytest.param(EVERYTHING, 1, id="everything"),
        pytest.param(MORE, 2, id="more", marks=pytest.mark.slow),
    ],
)
def test_everything_but_its_integration_works_without_dacbench(
    program: str, pages: int, lean: dict[str, str], tmp_path: Path
) -> None:
    done = run(program, lean, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all of it\n")
    assert len(list(tmp_path.glob("*/*/report.html"))) == pages


def test_search_spaces_name_what_they_need(
    lean: dict[str, str], tmp_path: Path
) -> None:
    program = """
from dacrl_env.integrations.configspace import to_configspace
to_configspace("dacrl/DQN-CartPole-v0")
"""
    done = run(program, lean, tmp_path)
    assert "pip install 'dacrl-env[smac]'" in done.stderr.splitlines()[-1]
