"""Ray does units of work as threads do; what is lost is done again.

Most of it is tested with a fake that starts at once (`fake_ray`), the rest, marked as
slow, with Ray itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.executors import Elsewhere, runner
from dacrl_env.core.processes import WorkerDiedError
from dacrl_env.integrations import ray_executor
from dacrl_env.integrations.ray_executor import RayExecutor

QUADRATIC = "dacrl/NoisyQuadratic-v0"
FAKE = Path(__file__).parent / "fake_ray"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_executor, "PATIENCE", 1.0)
    monkeypatch.setattr(ray_executor, "_LOOK_SECONDS", 0.1)
    for name in [m for m in sys.modules if m.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    yield monkeypatch
    for name in [m for m in sys.modules if m.partition(".")[0] == "ray"]:
        del sys.modules[name]


def asked(fake: pytest.MonkeyPatch, **what: Any) -> None:
    fake.setenv("FAKE_RAY", json.dumps(what))


def compared(**options: Any) -> pd.DataFrame:
    frame = dacrl_env.compare(
        QUADRATIC,
        ["default", "random"],
        4,
        methods="random-search",
        tuning_budget=500,
        runs=2,
        batch=2,
        **options,
    )
    return frame.drop(columns="wall_seconds")


@pytest.fixture(scope="module")
def alone() -> pd.DataFrame:
    return compared(num_threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_it_changes_nothing(
    fake: Any, alone: pd.DataFrame, stored: bool, tmp_path: Path, capfd: Any
) -> None:
    fake.chdir(tmp_path)
    store = Path("store") if stored else None
    frame = compared(executor="ray,workers=2,memory_gb=1", store=store)
    pd.testing.assert_frame_equal(frame, alone)
    if store is not None:  # 2 fits; of four policies two units each
        assert len(list(store.glob("*.parquet"))) == 2 + 4 * 2
    assert "no result" not in capfd.readouterr().out


@pytest.mark.slow
def test_a_lost_worker_costs_its_unit(fake: Any, alone: pd.DataFrame) -> None:
    asked(fake, lose=2)
    words = "WorkerCrashedError: The worker died unexpectedly; .* begun again"
    with pytest.warns(RuntimeWarning, match=words):
        frame = compared(executor="ray")
    pd.testing.assert_frame_equal(frame, alone)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a worker died")
def test_a_unit_that_is_lost_again_and_again_ends_it(fake: Any) -> None:
    asked(fake, lose=100)
    with pytest.raises(WorkerDiedError, match="3 workers died of"):
        compared(executor=RayExecutor())


@pytest.mark.slow
@pytest.mark.parametrize("what", ["head", "end"])
def test_a_head_that_goes_is_one_sentence(
    fake: Any, what: str, tmp_path: Path, capsys: Any
) -> None:
    asked(fake, **{what: 1})
    out = str(tmp_path / "new")
    line = ["compare", QUADRATIC, "--policies", "default", "--seeds", "2"]
    began = time.monotonic()
    assert main([*line, "--executor", "ray,workers=1", "--out", out, "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dacrl: the Ray head at 127.0.0.1:")
    assert "is gone" in said
    assert said.endswith("finished work is kept\n")
    assert said.count("\n") == 1
    assert time.monotonic() - began < 30
    fake.delenv("FAKE_RAY")  # the same command goes on
    assert main([*line, "--executor", "ray,workers=1", "--out", out, "--quiet"]) == 0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def test_no_head_at_an_address(fake: Any, tmp_path: Path, capsys: Any) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=f"no Ray head answers at {address}"):
        compared(executor=f"ray,address={address}")
    fake.setenv("RAY_ADDRESS", f"ray://{address}")
    line = ["fit", QUADRATIC, "random-search", "--budget", "500", "--executor", "ray"]
    assert main([*line, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert f"dacrl: no Ray head answers at ray://{address}; is it running" in said


def test_a_ray_that_does_not_start(fake: Any) -> None:
    asked(fake, refuse="timed out\nduring startup")
    words = r"there is no Ray here \(RuntimeError: timed out during startup\)"
    with pytest.raises(ConnectionError, match=words):
        compared(executor="ray")


def test_too_many_cores(fake: Any) -> None:
    with pytest.raises(ValueError, match=r"takes 3 cores, and no node .* above 2"):
        compared(executor="ray,workers=2,cores=3")


@pytest.mark.slow
def test_too_many_cores_for_a_cluster_to_which_nodes_may_come(
    fake: Any, alone: pd.DataFrame
) -> None:
    asked(fake, cluster=True)
    with pytest.warns(RuntimeWarning, match=r"takes 3 cores.*wait for one"):
        frame = compared(executor="ray,cores=3")
    pd.testing.assert_frame_equal(frame, alone)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ray,cores=0", "cores must be"),
        ("ray,workers=1.5", "workers must be of type"),
        ("ray,memory_gb=-1", "memory_gb must be above 0"),
        ("ray,adress=local", r"did you mean 'address'\?\); arguments: address"),
        ("ray,address=here", "an address of Ray is host:port"),
        ("ray,address=here:99999", "an address of Ray is host:port"),
        ("ray,address=3", "address must be of type str"),
        ("ray,cores", "cannot read 'cores'"),
        ("rya", r"unknown executor 'rya' \(did you mean 'ray'\?\)"),
        ("threads,cores=2", "takes no arguments"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    fake: Any, spec: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        runner(spec, 1, True)


def test_nobody_is_asked_before_there_is_work(fake: Any) -> None:
    made = runner("ray,address=127.0.0.1:1,cores=2", 1, True)
    assert isinstance(made, Elsewhere)
    assert made.travels
    with pytest.raises(RuntimeError, match="within opened"):
        made.executor.submit(len, "x")


# -- Ray itself ------------------------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path

import dacrl_env
import pandas as pd

TASK = "dacrl/NoisyQuadratic-v0"


class Deadly:
    # the first worker that acts by it is killed in the middle of its run
    action_mode = "continuous"

    def reset(self, envs, seed):
        self.envs, self.decisions = envs, 0

    def act(self, observations, infos):
        self.decisions += 1
        marker = Path("killed")
        if self.decisions == 3 and os.getpid() != HERE and not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.envs.to_actions({})


HERE = os.getpid()


def compared(**options):
    frame = dacrl_env.compare(
        TASK, {"deadly": Deadly(), "random": "random"}, 8, methods="random-search",
        tuning_budget=500, runs=2, batch=2, **options,
    )
    return frame.drop(columns="wall_seconds")


if __name__ == "__main__":
    frame = compared(executor="ray,address=local,workers=2", store="store")
    assert int(Path("killed").read_text()) != HERE
    pd.testing.assert_frame_equal(frame, compared(num_threads=1))
    print("equal")
"""


# which jsonschema, and so each of Ray's processes, takes seconds to import where it is
# there; a raylet waits 15 seconds for its agents
QUICK = 'import sys\nsys.modules["rfc3987_syntax"] = None\n'


def program(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(text)
    (folder / "quick").mkdir()
    (folder / "quick" / "sitecustomize.py").write_text(QUICK)
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    env["PYTHONPATH"] = str(folder / "quick")
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=560,
    )


@pytest.mark.slow
def test_a_killed_worker_of_ray_costs_its_unit(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = program(KILLED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "equal\n"
    assert done.stderr.count("begun again by another one") == 1


GONE = """
import dacrl_env
from pathlib import Path
import os, signal, subprocess, threading, time

def kill():
    # once a unit is under way
    while not list(Path("store/locks").glob("*.lock")):
        time.sleep(0.2)
    tree = subprocess.run(["ps", "-eo", "pid,ppid,comm"], stdout=-1, text=True)
    rows = [line.split(None, 2) for line in tree.stdout.splitlines()[1:]]
    mine, grown = {os.getpid()}, True
    while grown:
        more = {int(p) for p, parent, _ in rows if int(parent) in mine} - mine
        mine, grown = mine | more, bool(more)
    for pid, _, name in rows:
        if int(pid) in mine and name.startswith("gcs_server"):
            os.kill(int(pid), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
try:
    dacrl_env.compare("dacrl/NoisyQuadratic-v0", ["random"] , 4_000, batch=1,
                      store="store", executor="ray,address=local,workers=1")
except ConnectionError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_head_of_ray_that_is_killed_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = program(GONE, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("the Ray head at ")
    assert done.stdout.endswith("finished work is kept\n")
