"""What happened between two decisions: sums over gradient steps and episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.inner_envs.batched import Transition
from dacrl_env.learners.blocks import Block


@dataclass
class Interval:
    """Starts empty at a decision; no part of the run's state."""

    names: tuple[str, ...]  # of the k sums
    start: Tensor  # (P, row) parameters at its beginning
    sums: Tensor  # (P, k) over gradient steps
    updates: NDArray[np.int64]  # (P,)
    samples: NDArray[np.int64]  # (P,) transitions used in updates
    episodes: NDArray[np.int64]  # (P,) finished
    returns: NDArray[np.float64]  # (P,) sum over finished episodes
    lengths: NDArray[np.int64]  # (P,) sum over finished episodes

    def add(self, block: Block, values: Sequence[Tensor]) -> None:
        """Add the values ``(m, 1)`` of one gradient step of a block's first members."""
        table, m = torch.cat(list(values), 1), len(values[0])
        if block.where is None:
            self.sums.index_add_(0, block.index[:m], table)
        else:
            first = block.where.start
            self.sums[first : first + m].add_(table)

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Means over gradient steps ``(P,)`` by name."""
        table = self.sums.double().cpu().numpy() / np.maximum(self.updates, 1)[:, None]
        return {name: table[:, k] for k, name in enumerate(self.names)}

    def update_ratio(self, parameters: Tensor) -> NDArray[np.float64]:
        """Norm of the parameters' change over their norm, ``(P,)``."""
        moved = torch.linalg.vector_norm(parameters - self.start, dim=1)
        size = torch.linalg.vector_norm(self.start, dim=1)
        ratio: NDArray[np.float64] = (moved / size).double().cpu().numpy()
        return ratio

    def not_finite(self, parameters: Tensor) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite.

        One value that is not finite makes its sum so: nothing is missed in between.
        """
        finite = torch.isfinite(self.sums).all(1)
        finite &= torch.isfinite(parameters).all(1)
        lost: NDArray[np.bool_] = (~finite).cpu().numpy()
        return lost


def begin(parameters: Tensor, names: tuple[str, ...]) -> Interval:
    """An empty interval for members with these parameters ``(P, row)``."""
    P = len(parameters)
    return Interval(
        names=names,
        start=parameters.clone(),
        sums=parameters.new_zeros(P, len(names)),
        updates=np.zeros(P, np.int64),
        samples=np.zeros(P, np.int64),
        episodes=np.zeros(P, np.int64),
        returns=np.zeros(P),
        lengths=np.zeros(P, np.int64),
    )


def finished_episodes(interval: Interval, step: Transition) -> None:
    """Count the episodes that a step ended."""
    interval.episodes += step.done.sum(1)
    interval.returns += np.where(step.done, step.returns, 0.0).sum(1)
    interval.lengths += np.where(step.done, step.lengths, 0).sum(1)
