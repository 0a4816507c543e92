"""Random numbers by address: a hash of (key, counter, lane).

The compiled counterpart of :mod:`dacrl_env.core.streams`, whose numbers these are:
SplitMix64 (Steele, Lea and Flood 2014). No generator has a state, so what a member
draws depends on its own step counts alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.functions import cos, log_double, sin

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31, _32 = (np.uint64(n) for n in (11, 27, 30, 31, 32))


@compiled
def _mix(x):
    x ^= x >> _30
    x *= _MIX_1
    x ^= x >> _27
    x *= _MIX_2
    return x ^ (x >> _31)


@compiled
def draw(key, counter):
    """The draw with this number, of which the functions below take lanes."""
    return _mix(key + np.uint64(counter) * _GOLDEN)


@compiled
def word(draw, lane):
    """64 random bits."""
    return _mix(draw + np.uint64(lane + 1) * _GOLDEN)


@compiled
def uniform(draw, lane):
    """In [0, 1), with 53 random bits."""
    return np.float64(word(draw, lane) >> _11) * 2.0**-53


@compiled
def below(draw, lane, high):
    """An integer in [0, high), high at most 2**32; its bias is below high / 2**32."""
    return np.int64(((word(draw, lane) >> _32) * np.uint64(high)) >> _32)


@compiled
def normal(draw, lane, lanes):
    """Standard normal (Box and Muller 1958); one of ``lanes`` numbers of the draw."""
    half = (lanes + 1) // 2
    first = lane if lane < half else lane - half
    radius = math.sqrt(-2.0 * log_double(1.0 - uniform(draw, first)))
    angle = 2.0 * math.pi * uniform(draw, half + first)
    return radius * cos(angle) if lane < half else radius * sin(angle)


@entry
def _normals(keys, counters, into):
    for p in range(len(keys)):
        drawn = draw(keys[p], counters[p])
        for lane in range(into.shape[1]):
            into[p, lane] = normal(drawn, lane, into.shape[1])


def normals(
    keys: NDArray[np.uint64], counters: NDArray[np.int64], lanes: int
) -> NDArray[np.float64]:
    """Standard normal numbers ``(P, lanes)`` of draws ``(P,)``."""
    into = np.empty((len(keys), lanes))
    _normals(np.ascontiguousarray(keys), np.ascontiguousarray(counters), into)
    return into


@compiled
def shuffle(drawn, order):
    """Numbers below S in an order drawn as Fisher and Yates do."""
    for i in range(len(order)):
        order[i] = i
    for i in range(len(order) - 1, 0, -1):
        j = below(drawn, i, i + 1)
        order[i], order[j] = order[j], order[i]
