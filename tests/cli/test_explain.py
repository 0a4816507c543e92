"""Errors in users' code, as the command line shows them: file, line, whose it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dacrl_env.cli.commands import main
from dacrl_env.cli.explained import _users_lines, explain

QUADRATIC = "dacrl/NoisyQuadratic-v0"

OWN = """
import dataclasses
import sys
import numpy as np

class Base:
    action_mode = "continuous"

    def reset(self, envs, seed):
        pass

    def act(self, observations, infos):
        return np.zeros((len(observations), 1))

class Dividing(Base):
    def act(self, observations, infos):
        return helper(observations)

def helper(observations):
    return 1 / (len(observations) * 0)  # here

class Late(Base):
    def act(self, observations, infos):
        if infos["env_steps"].max() > 10:
            raise KeyError("late")  # here
        return super().act(observations, infos)

class Asking(Base):
    def reset(self, envs, seed):
        envs.to_actions({"momentum": 1.0})  # here

class Unmade(Base):
    def __init__(self, depth=1):
        self.depth = depth + "a"  # here

class Leaving(Base):
    def act(self, observations, infos):
        sys.exit("goodbye")  # here

@dataclasses.dataclass(frozen=True)
class Refusing(Base):
    depth: int = 1

    def __post_init__(self):
        raise ValueError("no depth")  # here

@dataclasses.dataclass(frozen=True)
class Method:
    where: str = "fit"

    def check(self, task, budget, /, **options):
        if self.where == "check":
            raise RuntimeError("no")  # here

    def fit(self, task, budget, seed, /, store=None, progress=None, **options):
        return [][1]  # here
"""
BROKEN = {
    "syntax": "x = (1,\ndef f(:\n    pass\n",
    "name": "import math\n\nrate = math.pi * undefined  # here\n",
    "imports": "import no_such_module_at_all  # here\n",
    "inner": "from name import rate  # here\n",
    "exits": "raise RuntimeError('not today')  # here\n",
    "leaves": "import sys\n\nsys.exit('not today')  # here\n",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_code.py").write_text(OWN)
    for name, text in BROKEN.items():
        (tmp_path / f"{name}_own.py").write_text(
            text.replace("name import", "name_own import")
        )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in list(sys.modules):
        if name.endswith("_own") or name == "own_code":
            monkeypatch.delitem(sys.modules, name)
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--out", "out"]) == 2
    return capsys.readouterr().err


def line_of(text: str, number: int = 0) -> int:
    """The line with the mark, in the part that begins with the text."""
    lines = OWN.splitlines()
    first = next(k for k, line in enumerate(lines) if text in line)
    return next(k for k in range(first, len(lines)) if "# here" in lines[k]) + 1


@pytest.mark.parametrize(
    ("policy", "error", "begins", "frames"),
    [
        ("Dividing", "ZeroDivisionError", "def helper", ["act", "helper"]),
        ("Late", "KeyError", "class Late", ["act"]),
        ("Asking", "ValueError", "class Asking", ["reset"]),
        ("Unmade", "TypeError", "class Unmade", ["__init__"]),
        ("Leaving", "SystemExit", "class Leaving", ["act"]),
        ("Refusing", "ValueError", "class Refusing", ["__post_init__"]),
    ],
)
def test_errors_of_a_policy(own, capsys, policy, error, begins, frames) -> None:
    line = ["compare", QUADRATIC, "--policies", f"own_code:{policy}", "--seeds", "2"]
    err = shown(capsys, *line, "--num-threads", "1")
    first, *rest = [text for text in err.splitlines() if "steps/s" not in text]
    if policy != "Late":  # nothing was run
        assert f"dacrl: {error} in your policy" in first
    place = f'File "{own / "own_code.py"}", line {line_of(begins)}, in {frames[-1]}'
    assert place in err
    assert "# here" in err
    assert "Traceback" not in err
    files = [text for text in rest if text.startswith('  File "')]
    assert str(own) in files[0]  # what led there is left out
    if policy != "Asking":  # which asks this package
        assert len(files) == len(frames)
    assert rest[-1] == "(all of it with dacrl --traceback)"


@pytest.mark.parametrize("where", ["fit", "check"])
def test_errors_of_a_method(own, capsys, where) -> None:
    line = ["fit", QUADRATIC, f"own_code:Method,where='{where}'", "--budget", "100"]
    err = shown(capsys, *line)
    error = {"fit": "IndexError", "check": "RuntimeError"}[where]
    assert f"dacrl: {error} in your method own_code:Method" in err
    assert f"line {line_of(f'def {where}')}, in {where}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("syntax", ["SyntaxError in your module 'syntax_own'", "line 2", "def f(:"]),
        ("name", ["NameError in your module", "line 3, in <module>", "undefined"]),
        ("imports", ["ModuleNotFoundError in", "line 1", "no_such_module_at_all"]),
        ("inner", ["NameError in your module 'inner_own'", "name_own.py", "line 3"]),
        ("exits", ["RuntimeError in your module 'exits_own': not today", "line 1"]),
        ("leaves", ["SystemExit in your module 'leaves_own': not today", "line 3"]),
    ],
)
@pytest.mark.parametrize("kind", ["policy", "method", "task"])
def test_errors_while_a_module_is_imported(own, capsys, name, words, kind) -> None:
    module = f"{name}_own"
    line = {
        "policy": ["evaluate", QUADRATIC, f"{module}:Mine"],
        "method": ["fit", QUADRATIC, f"{module}:Mine", "--budget", "100"],
        "task": ["evaluate", f"{module}:own/Task-v0", "default"],
    }[kind]
    err = shown(capsys, *line)
    for word in words:
        assert word in err
    assert f'File "{own / module}.py"' in err
    assert "importlib" not in err
    assert "Traceback" not in err


LEAVING = """
import sys
import gymnasium as gym
import numpy as np
import dacrl_env

class Inner(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.steps = 0
        self.leave("make")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.leave("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps > 100:  # past the first look at it
            self.leave("step")
        return np.zeros(2, np.float32), 1.0, False, self.steps % 5 == 0, {}

    def close(self):
        self.leave("close")

    def leave(self, when):
        if when == "WHEN":
            sys.exit("the simulator says goodbye")  # here

dacrl_env.register_task(
    id="own/Leaving-v0", inner_env=Inner, algorithm="dqn", budget=400, decisions=4,
    random_return=0, reference_return=5, floor_return=-1, stateful=True,
)
"""


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("make", "when it is made"),
        ("reset", "at the reset with seed"),
        ("step", "of the episode with seed"),
        ("close", "close()"),
    ],
)
def test_an_environment_that_ends_the_program(own, capsys, when, said, executor):
    module = f"{when}_{executor}_own"
    text = LEAVING.replace("WHEN", when).replace("Leaving-", f"Leaving{module}-")
    (own / f"{module}.py").write_text(text)
    task = f"{module}:own/Leaving{module}-v0"
    line = ["evaluate", task, "default", "--seeds", "2"]
    line += ["--num-threads", "2", "--executor", executor]
    err = shown(capsys, *line, "--set", "learning_starts=50", "eval_episodes=1")
    about = next(text for text in err.splitlines() if text.startswith("dacrl: System"))
    assert about.startswith("dacrl: SystemExit in your inner environment own/Leaving")
    assert said in about
    assert about.endswith(": the simulator says goodbye")
    number = LEAVING[: LEAVING.index("# here")].count("\n") + 1
    assert f'File "{own / module}.py", line {number}, in leave' in err


@pytest.mark.parametrize("place", ["before", "after"])
def test_all_of_it_is_shown_if_asked(own, capsys, place) -> None:
    line = ["evaluate", QUADRATIC, "own_code:Dividing"]
    line = ["--traceback", *line] if place == "before" else [*line, "--traceback"]
    err = shown(capsys, *line)
    assert err.startswith("Traceback (most recent call last):")
    assert "dacrl_env/cli/commands.py" in err
    assert "ZeroDivisionError: " in err


def test_what_is_no_user_s_fault_is_python_s_to_show(own, monkeypatch) -> None:
    from dacrl_env.comparison import comparison

    monkeypatch.setattr(comparison, "bar_of", lambda *arguments: 1 / 0)
    monkeypatch.setattr(
        "dacrl_env.cli.explained._users_lines", lambda error: ""
    )  # this test is a user's
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", QUADRATIC, "default", "--out", "out"])


def test_a_library_s_compiled_code_is_no_user_s(own, tmp_path) -> None:
    def fails(file: str) -> str:
        try:
            exec(compile("1 / 0", file, "exec"))
        except ZeroDivisionError as error:
            trace = error.__traceback__
            return _users_lines(error.with_traceback(trace and trace.tb_next))
        raise AssertionError

    assert fails("pandas/_libs/interval.pyx") == ""
    assert "line 1" in fails("mine.py")
    (tmp_path / "mine.pyx").write_text("1 / 0")  # which somebody compiles as it runs
    assert "line 1" in fails(str(tmp_path / "mine.pyx"))


def test_what_users_got_wrong_is_one_line(own, capsys) -> None:
    err = shown(capsys, "evaluate", QUADRATIC, "nowhere:Mine")
    assert err == (
        "dacrl: cannot load policy 'nowhere:Mine': cannot import its module: "
        "No module named 'nowhere'\n"
    )


def test_a_worker_s_traceback_comes_as_text() -> None:
    error = RuntimeError("far away")
    error.dacrl_blame = "reward"  # type: ignore[attr-defined]
    error.dacrl_traceback = '  File "x.py", line 3, in f\n    g()\n'  # type: ignore[attr-defined]
    assert explain(error, full=False) == (
        'dacrl: RuntimeError in your reward: far away\n  File "x.py", line 3, in f\n'
        "    g()\n(all of it with dacrl --traceback)"
    )


def test_a_program_of_its_own_shows_the_same(own) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dacrl_env", "evaluate", QUADRATIC, "own_code:Dividing",
         "--out", "out"],
        capture_output=True, text=True, cwd=own, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("dacrl: ZeroDivisionError in your policy")
    assert f"line {line_of('def helper')}, in helper" in done.stderr
