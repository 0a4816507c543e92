"""What is missing is named, with the command that installs it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.executors import runner
from dacrl_env.core.installed import EXTRAS
from dacrl_env.core.trackers import MLflow, TensorBoard, WandB
from dacrl_env.inner_envs.envpool_adapter import EnvPoolAdapter
from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter
from dacrl_env.integrations.minari import check_name
from dacrl_env.policies import get_method

ROOT = Path(__file__).parents[1]
QUADRATIC = "dacrl/NoisyQuadratic-v0"


def completed() -> Any:
    return main(["--print_completion", "shtab-bash"])


# something that needs each extra
CASES: dict[str, Callable[[], Any]] = {
    "box2d": lambda: gym.make("dacrl/DQN-LunarLander-v0"),
    "cma": lambda: get_method("cma-es"),
    "completion": completed,
    "envpool": lambda: EnvPoolAdapter("CartPole-v1", {}),
    "minari": lambda: check_name("dacrl/quadratic-v0"),
    "minigrid": lambda: GymnasiumAdapter("MiniGrid-FourRooms-v0", {}),
    "mlflow": MLflow,
    "optuna": lambda: get_method("tpe"),
    "ray": lambda: runner("ray", 1, True),
    "recurrent": lambda: dacrl_env.fit(
        QUADRATIC, "controller-recurrent-ppo,population=4,trial_runs=4", 2_000
    ),
    "slurm": lambda: runner("submitit,cluster=local", 1, True),
    "smac": lambda: get_method("smac"),
    "tensorboard": lambda: TensorBoard("x"),
    "wandb": WandB,
}


def test_there_is_a_case_for_each_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # what programs need that are no part of this package's code
    extras = project["optional-dependencies"].keys() - {"course", "dev", "docs"}
    assert CASES.keys() == extras == EXTRAS.keys()
    listed = (ROOT / "docs" / "quickstart.md").read_text()
    names = set(re.findall(r"`([\w-]+)`", listed))
    assert extras <= names


@pytest.mark.parametrize("extra", CASES)
def test_a_missing_extra_is_named_with_its_command(
    extra: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    module = EXTRAS[extra]
    monkeypatch.setitem(sys.modules, module, None)
    for name in [m for m in sys.modules if m.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    command = f"pip install 'dacrl-env[{extra}]'"
    if extra == "completion":
        assert completed() == 2
        said = capsys.readouterr().err
        assert said.startswith("dacrl: ")
        assert said.count("\n") == 1
        assert command in said
        return
    with pytest.raises(ImportError, match=re.escape(command)):
        CASES[extra]()


@pytest.mark.parametrize("name", ["ray", "submitit,cluster=local"])
def test_a_missing_extra_of_an_executor_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    extra = {"submitit": "slurm"}.get(name.partition(",")[0], name)
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)
    line = ["compare", QUADRATIC, "--policies", "default", "--executor", name]
    assert main([*line, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"pip install 'dacrl-env[{extra}]'" in said
