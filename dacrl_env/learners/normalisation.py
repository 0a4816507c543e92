"""Running means and variances of observations and returns, member by member.

The parallel update of Chan, Golub and LeVeque 1979, as in Stable-Baselines3's
VecNormalize: means start at 0, variances at 1, with the weight of 1e-4 samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-8
CLIP = 10.0

Floats = NDArray[np.float64]


@dataclass
class RunningMoments:
    """Moments of vectors with D components; a scalar has one."""

    mean: Floats  # (P, D)
    variance: Floats  # (P, D)
    count: Floats  # (P, 1)

    @classmethod
    def start(cls, P: int, D: int) -> RunningMoments:
        """Before the first sample."""
        return cls(np.zeros((P, D)), np.ones((P, D)), np.full((P, 1), 1e-4))

    def reset(self, members: Any) -> None:
        """Put some members back before their first sample."""
        self.mean[members], self.variance[members] = 0.0, 1.0
        self.count[members] = 1e-4

    def update(self, samples: NDArray[Any]) -> None:
        """Add samples ``(P, n, D)``."""
        n = samples.shape[1]
        samples = samples.astype(np.float64)
        mean, variance = samples.mean(1), samples.var(1)
        total = self.count + n
        gap = mean - self.mean
        spread = self.variance * self.count + variance * n
        spread += np.square(gap) * self.count * n / total
        self.mean = self.mean + gap * n / total
        self.variance = spread / total
        self.count = total

    def normalise(
        self, samples: NDArray[Any], members: Any = slice(None)
    ) -> NDArray[np.float32]:
        """Samples ``(m, n, D)`` centred, scaled and clipped."""
        scale = np.sqrt(self.variance[members] + EPSILON)
        centred = samples - self.mean[members][:, None]
        return np.clip(centred / scale[:, None], -CLIP, CLIP).astype(np.float32)

    def scale(self, samples: Floats) -> Floats:
        """Samples ``(P, n)`` of a scalar scaled and clipped, not centred."""
        return np.clip(samples / np.sqrt(self.variance + EPSILON), -CLIP, CLIP)
