"""Random states of members: Stable-Baselines3 draws from global generators.

While a member is loaded the global generators are the member's; around that they are
put back, see :func:`dacrl_env.core.isolation.globals_kept`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dacrl_env.core import streams


@dataclass
class Generators:
    """States of the generators that Stable-Baselines3 draws from."""

    python: streams.UInts  # (P, 627) Mersenne Twister of `random`
    numpy: streams.UInts  # (P, 627) … of `numpy.random`
    torch: NDArray[np.uint8]  # (P, …)
    actions: streams.UInts  # (P, 6) PCG64 of the action space
    keys: streams.UInts  # (P,) the "init" keys they were seeded from

    @classmethod
    def allocate(cls, P: int) -> Generators:
        """Memory for P members; no valid states yet."""
        return cls(
            python=np.zeros((P, 627), np.uint64),
            numpy=np.zeros((P, 627), np.uint64),
            torch=np.zeros((P, len(torch.get_rng_state())), np.uint8),
            actions=np.zeros((P, 6), np.uint64),
            keys=np.zeros(P, np.uint64),
        )


def seed_of(key: Any) -> int:
    """The seed of a run: numpy's global generator takes 32 bits."""
    return int(key >> np.uint64(32))


def seed_globals(seed: int) -> None:
    """As Stable-Baselines3's ``set_random_seed``; other devices are left alone."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


def read(space: spaces.Space[Any], into: Generators, i: int, key: Any) -> None:
    """Store the global generators and that of an action space in row ``i``.

    Args:
        space: of actions.
        into: changed in place.
        i: the member.
        key: the member's "init" key, which the generators were seeded from.
    """
    _, words, gauss = random.getstate()
    into.python[i] = _twister(words, gauss)
    own: Any = np.random.get_state()  # noqa: NPY002
    _, numbers, position, has, spare = own
    into.numpy[i] = _twister([*numbers, position], spare if has else None)
    into.torch[i] = torch.get_rng_state().numpy()
    state: Any = space.np_random.bit_generator.state
    longs = (state["state"]["state"], state["state"]["inc"])
    halves = [half for w in longs for half in (w >> 64, w & (2**64 - 1))]
    into.actions[i] = np.array(
        [*halves, state["has_uint32"], state["uinteger"]], np.uint64
    )
    into.keys[i] = key


def write(space: spaces.Space[Any], source: Generators, i: int, key: Any) -> None:
    """Set the global generators and that of an action space from row ``i``.

    Where the row was seeded from another key than the member's, a fork has given the
    member streams of its own: they begin here.
    """
    if source.keys[i] != key:
        seed_globals(seed_of(key))
        space.seed(seed_of(key))
        return
    row = source.python[i]
    words = tuple(row[:625].tolist())
    random.setstate((3, words, _spare(row) if row[625] else None))
    row = source.numpy[i]
    numbers = row[:624].astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", numbers, int(row[624]), int(row[625]), _spare(row))
    )
    torch.set_rng_state(torch.from_numpy(source.torch[i].copy()))
    a, b, c, d, has, spare = source.actions[i].tolist()
    space.np_random.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": a << 64 | b, "inc": c << 64 | d},
        "has_uint32": has,
        "uinteger": spare,
    }


def _twister(words: Sequence[int], gauss: float | None) -> streams.UInts:
    """State of a Mersenne Twister ``(627,)``: 624 words, position, spare normal."""
    spare = np.array([0.0 if gauss is None else gauss]).view(np.uint64)
    has = np.array([gauss is not None], np.uint64)
    return np.concatenate([np.array(words, np.uint64), has, spare])


def _spare(row: streams.UInts) -> float:
    return float(row[626:].view(np.float64)[0])
