"""Random streams: counter-based, so that a draw is a pure function of its address.

A *key* is 64 random bits that belong to one member and one purpose (acting, replay
sampling, …). Draw number ``counter`` of a key, lane ``i``, is a hash of the three.
There is no generator state: what a run draws depends on its own step counts alone,
never on the size of the population, on how a run is cut into calls, or on what other
members do. Saving the keys and the step counters saves the streams.

The hash is the output function of SplitMix64 (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators", OOPSLA), applied once to key and counter
and once more to the lanes. Keys come from :class:`numpy.random.SeedSequence`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]

PURPOSES = (
    "init",
    "act",
    "replay",
    "envs",
    "evaluation",
    "report",
    "instance",
    "policy",
)
SPLITS = {"tuning": 0, "test": 1}

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32, _S11 = (np.uint64(s) for s in (27, 30, 31, 32, 11))


def member_keys(split: str, seed: int, member: int, episode: int) -> UInts:
    """Keys of one inner run, one per purpose, shape ``(len(PURPOSES),)``."""
    sequence = np.random.SeedSequence((SPLITS[split], seed, member, episode))
    return sequence.generate_state(len(PURPOSES), np.uint64).astype(np.uint64)


def of(keys: UInts, purpose: str) -> UInts:
    """The keys ``(P,)`` of one purpose, from ``(P, len(PURPOSES))``."""
    return keys[:, PURPOSES.index(purpose)]


def _mix(x: UInts) -> UInts:
    """Scramble ``x`` in place: a bijection of 64-bit integers."""
    x ^= x >> _S30
    x *= _MIX_1
    x ^= x >> _S27
    x *= _MIX_2
    x ^= x >> _S31
    return x


def bits(keys: UInts, counters: NDArray[np.integer], lanes: int) -> UInts:
    """64 random bits for every lane of every (key, counter).

    Args:
        keys: any shape that broadcasts with ``counters``.
        counters: number of the draw, not negative.
        lanes: values per draw.

    Returns:
        Array of shape ``broadcast(keys, counters) + (lanes,)``.
    """
    base = _mix(np.asarray(keys + counters.astype(np.uint64) * _GOLDEN))
    steps = np.arange(1, lanes + 1, dtype=np.uint64) * _GOLDEN
    return _mix(base[..., None] + steps)


def uniforms(
    keys: UInts, counters: NDArray[np.integer], lanes: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 random bits; shapes as :func:`bits`."""
    return np.multiply(bits(keys, counters, lanes) >> _S11, 2.0**-53, dtype=np.float64)


def integers(
    keys: UInts, counters: NDArray[np.integer], lanes: int, high: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Integers in ``[0, high)``, ``high`` at most 2**32; shapes as :func:`bits`.

    ``high`` has the shape of ``counters``. The bias of the multiply-and-shift method
    is below ``high / 2**32``.
    """
    return below(bits(keys, counters, lanes), high)


def below(words: UInts, high: NDArray[np.integer]) -> NDArray[np.int64]:
    """`integers`, from bits ``(…, lanes)`` that were drawn before; ``high`` ``(…)``."""
    words = words >> _S32
    words *= high.astype(np.uint64)[..., None]
    words >>= _S32
    return words.view(np.int64)


def env_keys(keys: UInts, num_envs: int) -> UInts:
    """A key for each inner environment ``(P, N)``, from ``(P, len(PURPOSES))``."""
    return bits(of(keys, "envs"), np.zeros(len(keys), np.int64), num_envs)


def seen_by(key: UInts | None, env_steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whose scores each of P members goes by, ``(P,)``: its own, or another's.

    Args:
        key: ``(1,)`` of a shuffled policy, with which each member gets another one and
            each is drawn once; None: their own.
        env_steps: ``(P,)`` of the members; those of the first number the draw.

    Raises:
        ValueError: there are no others.
    """
    P = len(env_steps)
    if key is None:
        return np.arange(P)
    if P < 2:
        raise ValueError("a shuffled policy needs at least two runs at a time")
    order = bits(key, env_steps[:1], P)[0].argsort()
    result = np.empty(P, np.int64)
    result[order] = np.roll(order, 1)  # one cycle: nobody gets itself
    return result
