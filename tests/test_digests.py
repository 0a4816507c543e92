"""The same bits alone, in company, in threads, from files, and on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import EVERY_KIND, OFTEN, quick, slow
from digests import KEPT, TASKS, digest, policies

EXPECTED = json.loads(KEPT.read_text())


def some(*values: int) -> list:
    return [(task, *values) if task in OFTEN else slow(task, *values) for task in TASKS]


@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_alone(task: str) -> None:
    assert digest(task) == EXPECTED[task]


@pytest.mark.parametrize(
    ("task", "P", "num_threads"),
    [
        *some(9, 2),
        *(slow(task, 64, 8) for task in TASKS),
        *(slow(t, 64, n) for t in TASKS if t in EVERY_KIND for n in (1, 2)),
    ],
)
def test_in_company_and_in_threads(task: str, P: int, num_threads: int) -> None:
    assert digest(task, P, num_threads) == EXPECTED[task]


def test_controllers_and_schedules() -> None:
    assert policies() == EXPECTED["policies"]


@pytest.mark.parametrize(("task", "P"), some(2))
def test_through_a_file(task: str, P: int) -> None:
    assert digest(task, P, saved=True) == EXPECTED[task]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("haswell", "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2"),
        ("skylake-avx512", ""),
    ],
)
def test_with_other_vectors(name: str, features: str, tmp_path: Path) -> None:
    """What the compiler makes for other processors computes the same."""
    flags = Path("/proc/cpuinfo").read_text()
    if name == "skylake-avx512" and "avx512vl" not in flags:
        pytest.skip("this processor has no such vectors")
    env = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CACHE_DIR": str(tmp_path)}
    env |= {"NUMBA_CPU_FEATURES": features} if features else {}
    env |= {"NPY_DISABLE_CPU_FEATURES": "AVX512F"} if name == "haswell" else {}
    program = Path(__file__).parent / "digests.py"
    done = subprocess.run(
        [sys.executable, str(program)], env=env, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == EXPECTED
