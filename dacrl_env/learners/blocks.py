"""Which members are updated together.

Members of a population may have different batch sizes and numbers of updates. They are
put into blocks of equal padded batch width, each block in the order of falling numbers
of updates, so that those still active are always the first of their block. A member's
width depends on its own batch size alone, so that its arithmetic does not depend on
the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 4096  # batch rows of a block: what is made of them should stay in the cache

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Members that are updated together."""

    members: Ints  # (m,)
    index: Tensor  # (m,) the same
    where: slice | None  # the members as a slice, if they are one
    width: int  # padded batch size
    sizes: Ints  # (m,) batch sizes
    updates: Ints  # (m,) falling

    @property
    def at(self) -> slice | Ints:
        """The members, as what reads and writes them in arrays fastest."""
        return self.members if self.where is None else self.where

    def take(self, rows: Tensor) -> Tensor:
        """The members' rows: a view if they are a slice, else a copy."""
        if self.where is None:
            return rows.index_select(0, self.index)
        return rows[self.where]

    def put(self, rows: Tensor, taken: Tensor) -> None:
        """Write back what `take` copied and an update has changed."""
        if self.where is None:
            rows.index_copy_(0, self.index, taken)

    def active(self, update: int) -> int:
        """How many members, from the first, have an update of that number."""
        if update < self.updates[-1]:
            return len(self.updates)
        return int(np.count_nonzero(self.updates > update))

    def mask(self) -> NDArray[np.bool_]:
        """Which of the padded batch rows count, ``(m, width)``."""
        return np.arange(self.width) < self.sizes[:, None]


def padded_widths(sizes: Ints) -> Ints:
    """Batch widths that members of these batch sizes are computed at.

    At least 32: torch computes what is left of a tensor beyond a multiple of that by
    other instructions, whose last bit can differ (in the logistic function), and where
    that falls depends on the company.
    """
    exponents = np.ceil(np.log2(sizes)).astype(np.int64)
    return np.asarray(2 ** np.maximum(exponents, 5))


def most_members(width: int) -> int:
    """Members of a block of this padded batch width, at most."""
    return max(1, ROWS // width)


def make_blocks(
    members: Ints, sizes: Ints, updates: Ints, device: torch.device
) -> list[Block]:
    """Blocks of at most `most_members` each.

    Args:
        members: ``(m,)`` population indices.
        sizes: ``(m,)`` batch sizes.
        updates: ``(m,)``.
        device: of the index tensors.
    """
    widths = padded_widths(sizes)
    blocks = []
    for width in np.unique(widths):
        same = np.flatnonzero(widths == width)
        same = same[np.argsort(-updates[same], kind="stable")]
        size = most_members(int(width))
        for start in range(0, len(same), size):
            part = same[start : start + size]
            who = members[part]
            first, last = int(who[0]), int(who[-1])
            contiguous = np.array_equal(who, np.arange(first, last + 1))
            blocks.append(
                Block(
                    members=who,
                    index=torch.from_numpy(who).to(device),
                    where=slice(first, last + 1) if contiguous else None,
                    width=int(width),
                    sizes=sizes[part],
                    updates=updates[part],
                )
            )
    return blocks


def column(values: NDArray[np.float64], device: torch.device) -> Tensor:
    """Values ``(m,)`` as a single-precision column ``(m, 1)``."""
    return torch.from_numpy(values[:, None]).to(device, torch.float32)
