"""Shared fixtures."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import populations
import pytest
import torch
from bases_files import own_bases
from populations import MakeRuns

from dacrl_env import TASKS
from dacrl_env.inner_envs.gymnasium_adapter import needs_box2d


def pytest_configure() -> None:
    """Signals as in a terminal; a program in the background ignores some of them.

    Programs that tests start say nothing of the compiler, which some of them meet.
    """
    os.environ["DACRL_QUIET"] = "1"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of a ``task`` that needs an extra which is not installed."""
    # not importorskip: where warnings are errors, importing Box2D crashes
    if importlib.util.find_spec("Box2D") is not None:
        return
    skip = pytest.mark.skip(reason="needs Box2D: pip install 'dacrl-env[box2d]'")
    needing = [t.id for t in TASKS.values() if needs_box2d(t.inner_env)]
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("task") in needing:
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    # more threads make small batched products slower
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_bases(tmp_path: Path) -> Iterator[None]:
    """All tasks are those of the table."""
    with own_bases(tmp_path) as write:
        write({})
        yield


@pytest.fixture(scope="session")
def make_runs() -> MakeRuns:
    """Makes `Runs`; see `populations.make_runs`."""
    return populations.make_runs
