"""What importing the package costs and offers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import dacrl_env

HEAVY = (
    "torch",
    "numba",
    "dacbench",
    "pandas",
    "matplotlib",
    "stable_baselines3",
    "pyarrow",
    "Box2D",
)
LAZY = ("Method", "Policy", "compare", "evaluate", "get_policy")


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import dacrl_env",
        "import dacrl_env; dir(dacrl_env); list(dacrl_env.TASKS)",
        "import dacrl_env; import gymnasium as gym; gym.spec('dacrl/DQN-CartPole-v0')",
    ],
)
def test_import_is_light(code: str) -> None:
    modules = loaded_after(code)
    assert "dacrl_env.tasks.registration" in modules
    assert not modules & set(HEAVY)


def test_environments_that_python_steps_need_no_compiler() -> None:
    code = "from dacrl_env.inner_envs import InnerEnv, NoEnv, gymnasium_adapter"
    assert not loaded_after(code) & set(HEAVY)


@pytest.mark.parametrize("name", dacrl_env.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(dacrl_env, name) is not None
    assert name in dir(dacrl_env)


def test_the_contract_s_names_are_public() -> None:
    assert {*LAZY, "DynamicConfigEnv", "PopulationEnv", "Snapshot", "Task"} <= set(
        dacrl_env.__all__
    )
    assert len(set(dacrl_env.__all__)) == len(dacrl_env.__all__)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        dacrl_env.bogus  # noqa: B018 - the access is what is tested


def test_version() -> None:
    from dacrl_env.core.version import __version__

    assert dacrl_env.__version__ == __version__
