"""What training takes, and what happened between two decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UPDATES, SAMPLES = range(2)  # columns of `Interval.counts`
EPISODES, RETURNS, LENGTHS = range(3)  # columns of `Interval.finished`
AT_ONCE = 16  # evaluation episodes of a member that are played side by side


class Interval(NamedTuple):
    """Sums over gradient steps and episodes since a decision; no part of the state."""

    sums: NDArray[np.float64]  # (P, k) over gradient steps, named by the algorithm
    counts: NDArray[np.int64]  # (P, 2) gradient steps, and transitions used in them
    finished: NDArray[np.float64]  # (P, 3) episodes, the sums of returns and lengths
    start: NDArray[Any]  # (P, row) parameters at its beginning

    @property
    def updates(self) -> NDArray[np.int64]:
        """Gradient steps ``(P,)``."""
        return self.counts[:, UPDATES]

    @property
    def samples(self) -> NDArray[np.int64]:
        """Transitions used in updates ``(P,)``."""
        return self.counts[:, SAMPLES]

    @property
    def episodes(self) -> NDArray[np.int64]:
        """Finished episodes ``(P,)``."""
        return self.finished[:, EPISODES].astype(np.int64)

    @property
    def returns(self) -> NDArray[np.float64]:
        """Sum over finished episodes ``(P,)``."""
        return self.finished[:, RETURNS]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Sum over finished episodes ``(P,)``."""
        return self.finished[:, LENGTHS]

    def means(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Of the sums, over gradient steps ``(P,)``, by their names."""
        table = self.sums / np.maximum(self.updates, 1)[:, None]
        return {name: table[:, k] for k, name in enumerate(names)}

    def not_finite(self, parameters: NDArray[Any]) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite.

        One value that is not finite makes its sum so: nothing is missed in between.
        """
        finite = np.isfinite(self.sums).all(1) & np.isfinite(parameters).all(1)
        return np.asarray(~finite)


class Run(NamedTuple):
    """All that training P members takes, beside their environments."""

    fixed: Any  # of the algorithm, as are values and state
    values: Any
    state: Any  # its arrays
    interval: Interval


def begin(parameters: NDArray[Any], names: Sequence[str]) -> Interval:
    """An empty interval of sums of these names.

    Args:
        parameters: ``(P, row)``, kept as they are: give a copy.
        names: of the sums.
    """
    P = len(parameters)
    counts = np.zeros((P, 2), np.int64)
    return Interval(np.zeros((P, len(names))), counts, np.zeros((P, 3)), parameters)
