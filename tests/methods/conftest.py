"""What methods ask of their trials, written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dacrl_env.methods.trials import Observed, Trials


class Trace:
    """What a method asked of its trials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[int, int]] = []  # members, decisions
        self.begun: list[list[int]] = []
        self.selected: list[list[int]] = []
        self.values: list[np.ndarray] = []
        self.seen: list[Observed] = []
        begin, advance, select = Trials.begin, Trials.advance, Trials.select

        def begun(runs: Trials, seeds: Any, *configuration: Any) -> None:
            self.begun.append(list(seeds))
            begin(runs, seeds, *configuration)

        def advanced(runs: Trials, values: np.ndarray) -> Observed:
            self.trained.append((values.shape[1], len(values)))
            self.values.append(values)
            self.seen.append(advance(runs, values))
            return self.seen[-1]

        def selected(runs: Trials, members: Any) -> None:
            self.selected.append(list(members))
            select(runs, members)

        monkeypatch.setattr(Trials, "begin", begun)
        monkeypatch.setattr(Trials, "advance", advanced)
        monkeypatch.setattr(Trials, "select", selected)


@pytest.fixture
def trace(monkeypatch):
    return Trace(monkeypatch)
