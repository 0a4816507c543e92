"""Running means and variances of vectors, member by member.

The parallel update of Chan, Golub and LeVeque 1979, as in Stable-Baselines3's
VecNormalize: means start at 0, variances at 1, with the weight of 1e-4 samples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled

EPSILON = 1e-8
CLIP = 10.0


class Moments(NamedTuple):
    """Moments of vectors with D components; a scalar has one."""

    mean: NDArray[np.float64]  # (P, D)
    variance: NDArray[np.float64]  # (P, D)
    weight: NDArray[np.float64]  # (P, 1) samples that count

    @classmethod
    def of(cls, P: int, D: int) -> Moments:
        """Memory for P members."""
        return cls(np.zeros((P, D)), np.ones((P, D)), np.full((P, 1), 1e-4))


@compiled
def start(p, moments):
    """Put member p before its first sample."""
    moments.mean[p] = 0.0
    moments.variance[p] = 1.0
    moments.weight[p, 0] = 1e-4


@compiled
def take_note(p, samples, moments):
    """Add samples (n, D)."""
    n, D = samples.shape
    count = moments.weight[p, 0]
    total = count + n
    for k in range(D):
        mean = spread = 0.0
        for i in range(n):
            mean += np.float64(samples[i, k])
        mean /= n
        for i in range(n):
            gap = np.float64(samples[i, k]) - mean
            spread += gap * gap
        gap = mean - moments.mean[p, k]
        spread += moments.variance[p, k] * count + gap * gap * count * n / total
        moments.mean[p, k] += gap * n / total
        moments.variance[p, k] = spread / total
    moments.weight[p, 0] = total


@compiled
def normalised_rows(p, samples, moments):
    """Centre, scale and clip samples (n, D) in place."""
    n, D = samples.shape
    for k in range(D):
        mean = moments.mean[p, k]
        root = math.sqrt(moments.variance[p, k] + EPSILON)
        for i in range(n):
            value = (np.float64(samples[i, k]) - mean) / root
            samples[i, k] = np.float32(min(max(value, -CLIP), CLIP))


@compiled
def scaled(p, value, moments):
    """A scalar scaled and clipped, not centred."""
    value = value / math.sqrt(moments.variance[p, 0] + EPSILON)
    return min(max(value, -CLIP), CLIP)


@compiled
def mean_and_spread(values):
    """Mean of some numbers, and the sum of squared distances from it; in double."""
    mean = spread = 0.0
    for i in range(len(values)):
        mean += np.float64(values[i]) / len(values)
    for i in range(len(values)):
        spread += (np.float64(values[i]) - mean) ** 2
    return mean, spread


@compiled
def standardise(x):
    """To mean 0 and standard deviation 1, unbiased, in place; one alone stays."""
    B = len(x)
    if B == 1:
        return
    mean, spread = np.float32(0.0), np.float32(0.0)
    for b in range(B):
        mean += x[b]
    mean /= np.float32(B)
    for b in range(B):
        spread += (x[b] - mean) * (x[b] - mean)
    deviation = np.sqrt(spread / np.float32(B - 1)) + np.float32(1e-8)
    for b in range(B):
        x[b] = (x[b] - mean) / deviation
