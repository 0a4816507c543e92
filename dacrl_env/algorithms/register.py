"""Where each member keeps networks and their optimiser, to have them back later."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.views import aligned


class Register(NamedTuple):
    """What was saved; see :mod:`dacrl_env.learners.events`."""

    rows: NDArray[np.float32]  # (P, k, row) networks and moments, or (P, k, 0)
    steps: NDArray[np.int64]  # (P, G) of the optimiser with each part of a row
    is_saved: NDArray[np.bool_]  # (P,)

    @classmethod
    def of(cls, P: int, k: int, row: int, G: int) -> Register:
        """Memory for P members, with nothing in it."""
        return cls(aligned(P, k, row), np.zeros((P, G), np.int64), np.zeros(P, bool))
