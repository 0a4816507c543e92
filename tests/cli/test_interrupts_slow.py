"""Twenty interrupts at random moments: nothing is left, and nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dacrl_env.core.store import Store

pytestmark = pytest.mark.slow

DACRL = [sys.executable, "-c", "from dacrl_command import program; program()"]
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL = ["--set", "learning_starts=200", "hidden_sizes=(16,)", "eval_episodes=2"]
TRIALS = 20
LATEST = 0.8  # of the time that a command takes


def _compare(workers: int) -> list[str]:
    """Evaluations, and fits that go on from journals."""
    what = [
        "--policies",
        "default",
        "random",
        "--methods",
        "random-search,population=2",
    ]
    spent = ["--budget", "20000", "--runs", "4", "--seeds", "64"]
    rest = [
        "--run-budget",
        "1000",
        "--num-threads",
        str(workers),
        "--executor",
        "processes",
        *SMALL,
    ]
    return ["compare", CARTPOLE, *what, *spent, *rest]


def _fit(workers: int) -> list[str]:
    method = "controller-ppo,population=4,trial_runs=4"
    return [
        "fit",
        CARTPOLE,
        method,
        "--budget",
        "60000",
        "--run-budget",
        "1000",
        "--num-threads",
        str(workers),
        *SMALL,
    ]


COMMANDS: dict[str, tuple[Callable[[int], list[str]], int]] = {
    "compare, 1 worker": (_compare, 1),
    "compare, 2 workers": (_compare, 2),
    "fit, 1 worker": (_fit, 1),
    "fit, 2 workers": (_fit, 2),
}


def _group(number: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == number and state != "Z":
            found.append(int(stat.parent.name))
    return found


def _kept(out: Path) -> dict[str, int]:
    """Finished units, by file, with the time that each was written."""
    files = out.glob("results/*.parquet")
    return {file.name: file.stat().st_mtime_ns for file in files}


def _result(out: Path) -> dict[str, bytes]:
    """What came out, without times."""
    policies = {p.name: p.read_bytes() for p in out.glob("policy.*")}
    store = Store(out / "results")
    frames = {}
    for key in store.keys():  # noqa: SIM118 - not a dict
        if key["kind"] == "evaluate":
            frame = store.read(key).drop(columns="wall_seconds")
            frames[store.path(key).name] = frame.to_csv().encode()
    return policies | frames


def _run(arguments: list[str], out: Path) -> float:
    """Run a command to its end; the seconds that it took."""
    began = time.monotonic()
    command = [*DACRL, *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def _interrupted(
    arguments: list[str], out: Path, seconds: float, number: int
) -> tuple[float, int, list[str]]:
    """Seconds to the prompt, processes left, lines of standard error.

    Without lines if it had ended before, or did so just then.
    """
    process = subprocess.Popen(
        [*DACRL, *arguments, "--out", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    time.sleep(seconds)
    began = time.monotonic()
    if process.poll() is None:
        os.killpg(process.pid, number)
    process.wait()
    took, left = time.monotonic() - began, len(_group(process.pid))
    _, text = process.communicate()
    if process.returncode in (0, -number):
        return took, left, []
    assert process.returncode == 128 + number
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    lines = [line for line in lines if " left, " not in line]  # of progress
    return took, left, lines


def test_twenty_interrupts_at_random_moments(tmp_path):
    generator = random.Random(20)
    expected, length = {}, {}
    for name, (make, workers) in COMMANDS.items():
        _run(make(workers), tmp_path / name)  # which may compile
        expected[name] = _result(tmp_path / name)
        length[name] = _run(make(workers), tmp_path / f"{name}, again")
    rows = []
    for trial in range(TRIALS):
        name = list(COMMANDS)[trial % len(COMMANDS)]
        make, workers = COMMANDS[name]
        out = tmp_path / f"trial-{trial}"
        number = generator.choice([signal.SIGINT, signal.SIGTERM])
        seconds = generator.uniform(0.1, LATEST * length[name])
        took, left, lines = _interrupted(make(workers), out, seconds, number)
        while not lines:  # it was done, faster than before
            assert _result(out) == expected[name]
            out, seconds = out.with_name(f"{out.name}, sooner"), seconds / 2
            took, left, lines = _interrupted(make(workers), out, seconds, number)
        assert len(lines) == 1, lines
        assert lines[0].startswith("dacrl: interrupted")
        kept = _kept(out)
        for file in out.glob("results/*.parquet"):  # whole, not only there
            pd.read_parquet(file)
        _run(make(workers), out)
        lost = sum(_kept(out).get(name) != at for name, at in kept.items())
        assert _result(out) == expected[name]
        rows.append((name, seconds, number, took, left, len(kept), lost))
        print(
            f"{name}: {signal.Signals(number).name} after {seconds:.2f} s, prompt "
            f"after {took:.2f} s, {left} processes left, {len(kept)} units kept, "
            f"{lost} lost",
            flush=True,
        )
    longest = max(row[3] for row in rows)
    left, lost = sum(row[4] for row in rows), sum(row[6] for row in rows)
    print(
        f"{TRIALS} interrupts: longest time to the prompt {longest:.2f} s, "
        f"{left} processes left, {lost} units lost"
    )
    assert longest < 2
    assert left == lost == 0
