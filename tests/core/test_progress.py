"""Progress as lines, where there is no terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import pytest

from dacrl_env.core import progress as module
from dacrl_env.core.progress import progress


def test_lines_are_whole(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    with progress(1_000, "a task", True) as bar:
        bar.total += 1_000
        for _ in range(4):
            bar.update(500)
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == ""
    assert [line.partition(",")[0] for line in lines] == [
        f"a task: {share}% of 2.00k steps" for share in (25, 50, 75, 100)
    ]
    assert all(" left, " in line for line in lines)


def test_few_lines_of_short_work(capsys: Any) -> None:
    with progress(1_000, "a task", True) as bar:
        for _ in range(1_000):
            bar.update(1)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("a task: 100% of 1.00k steps")


def test_work_that_was_less_than_thought_is_done(capsys: Any) -> None:
    with progress(1_000, "a task", True) as bar:
        bar.update(730)
    assert capsys.readouterr().err.startswith("a task: 100% of 730 steps, 00:00 left")
    with suppress(KeyError), progress(1_000, "a task", True) as bar:
        bar.update(730)
        raise KeyError
    assert capsys.readouterr().err.startswith("a task: 73% of 1.00k steps")


def test_nothing_is_said(capsys: Any) -> None:
    with progress(10, "a task", False) as bar:
        bar.update(10)
    with progress(10, "a task", True):
        pass  # everything was there already
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(10, "a task", True) as bar:
        bar.update(10)
    assert "\r" in capsys.readouterr().err
