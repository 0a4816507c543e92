"""Jobs of submitit do units of work as threads do; a killed job costs its unit."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cases import slow

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.executors import runner
from dacrl_env.integrations.submitit_executor import SubmititExecutor

submitit = pytest.importorskip("submitit")

QUADRATIC = "dacrl/NoisyQuadratic-v0"


def compared(policies: Any = ("default", "random"), **options: Any) -> pd.DataFrame:
    frame = dacrl_env.compare(QUADRATIC, policies, 4, batch=4, **options)
    return frame.drop(columns="wall_seconds")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 1)
    return tmp_path


# submitit's debug jobs leave their logs open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("spec", "store"),
    [
        slow("submitit,cluster=local,most=2", "store"),  # a path of this directory's
        slow("submitit,cluster=local,most=1,cores=2", None),
        ("submitit,cluster=debug", "store"),
    ],
)
def test_it_changes_nothing(spec: str, store: str | None, here: Path) -> None:
    frame = compared(executor=spec, store=store)
    pd.testing.assert_frame_equal(frame, compared(num_threads=1))
    if store is not None:
        assert len(list((here / "store").glob("*.parquet"))) == 2
        assert (here / "store" / "jobs").is_dir()
    else:
        assert list(here.iterdir()) == []


class Deadly:
    """Kills the process that acts by it: once, in the middle of a run."""

    action_mode = "continuous"

    def __init__(self, marker: Path) -> None:
        self.marker, self.tested = marker, os.getpid()

    def reset(self, envs: Any, seed: int) -> None:
        self.envs, self.decisions = envs, 0

    def act(self, observations: Any, infos: Any) -> Any:
        self.decisions += 1
        alone = os.getpid() == self.tested
        if self.decisions == 3 and not alone and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.envs.to_actions({})


@pytest.mark.slow
def test_a_killed_job_costs_its_unit_alone(here: Path) -> None:
    policies = {"deadly": Deadly(here / "killed"), "random": "random"}
    executor = SubmititExecutor("local", most=2)
    with pytest.warns(
        RuntimeWarning, match=r"UncompletedJobError.*begun again"
    ) as all_:
        frame = compared(policies, executor=executor, store="store")
    assert len([w for w in all_ if "begun again" in str(w.message)]) == 1
    assert int((here / "killed").read_text()) != os.getpid()
    pd.testing.assert_frame_equal(frame, compared(policies, num_threads=1))
    # two units, of which one was done twice
    assert len(list((here / "store" / "jobs").glob("*_submitted.pkl"))) == 3


SLURM = """#!{python}
import os, re, subprocess, sys
# takes the job's command out of the script, as a node would run it
text = open(sys.argv[1]).read()
open({log!r}, "a").write(text)
command = re.findall(r"^srun .*$", text, re.M)[0]
command = command[command.index({python!r}):]
env = {{**os.environ, "SLURM_JOB_ID": "7", "SUBMITIT_EXECUTOR": "slurm",
       "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
       "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "here"}}
subprocess.Popen(command, shell=True, env=env, stdout=subprocess.DEVNULL,
                 stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""


@pytest.mark.slow
def test_what_slurm_is_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By programs with the names of Slurm's."""
    tools = here / "tools"
    tools.mkdir()
    log = str(here / "asked")
    programs = {"sbatch": SLURM.format(python=sys.executable, log=log)}
    programs |= {
        "srun": "#!/bin/sh\n",
        "sacct": "#!/bin/sh\n",
        "scancel": "#!/bin/sh\n",
    }
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    line = ["fit", QUADRATIC, "random-search", "--budget", "500", "--out", "tuned"]
    given = "submitit,cores=2,timeout_min=30,mem_gb=3,slurm_partition=short"
    assert main([*line, "--executor", given, "--quiet"]) == 0
    asked = Path(log).read_text()
    for words in ("cpus-per-task=2", "time=30", "mem=3GB", "partition=short"):
        assert f"#SBATCH --{words}" in asked
    assert (here / "tuned" / "policy.json").exists()
    assert asked.count("#!/bin/bash") == 1  # a fit is one unit, and one job


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("submitit,cluster=slrum", r"unknown cluster 'slrum' \(did you mean 'slurm'"),
        ("submitit", "there is no Slurm on this machine"),
        ("submitit,cluster=local,cores=0", "cores must be"),
        ("submitit,cluster=local,most=0", "most must be"),
        ("submitit,cluster=local,timeout_min=soon", "timeout_min must be of type int"),
        ("submitit,cluster=local,memory=3", "need to be prefixed by an executor name"),
        ("submitit,cluster=local,slurm_partitoin=a", "Unknown argument 'partitoin'"),
        ("submitit,cluster=local,mem_gb=much", "expected type"),
        ("submitit,cluster=local,cpus_per_task=3", "cpus_per_task cannot be given"),
        ("submitit,cluster=local,nodes=2", "nodes cannot be given"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    spec: str, words: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(ValueError, match=words):
        runner(spec, 1, True)
    assert list(here.iterdir()) == []


def test_it_is_used_within_opened() -> None:
    with pytest.raises(RuntimeError, match="within opened"):
        SubmititExecutor("local").submit(len, "x")


def test_interrupted_jobs_that_run_go_on(here: Path) -> None:
    executor = SubmititExecutor("local")
    with executor.opened(here):
        job = executor.submit(time.sleep, 0.0)
        assert not job.cancel()
        assert job.result() is None
