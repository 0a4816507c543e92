"""Train and test sets of instances: variations of a task's physics.

Constants are drawn log-uniformly around the original ones, by fixed seeds, so that the
sets are the same everywhere; training and test sets share no instance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dacrl_env.tasks.task import Instance

COUNT = 20  # instances of a set
TIMES = frozenset({"shift_at", "shift_period"})  # constants that are times of changes

Ranges = Mapping[str, tuple[float, float]]
Returns = Mapping[str, Mapping[str, float]]
_UNMEASURED: Returns = {}
NONE: Ranges = {}


def vary(
    ranges: Ranges,
    split: str,
    whole: frozenset[str] = frozenset(),
    returns: Returns = _UNMEASURED,
    apart: Ranges = NONE,
    reference: float | None = None,
) -> tuple[Instance, ...]:
    """A set of instances, named ``train-0``, … or ``test-0``, ….

    Args:
        ranges: name of a constant to its lowest and highest value, of one sign.
        split: "train" or "test".
        whole: names of constants that are whole numbers.
        returns: ``random``, ``reference`` and ``floor`` by name of instance, as
            measured; instances that are not in it go by the task's.
        apart: the ranges of constants with a generator of their own, so that all others
            are those of a set without them.
        reference: of instances whose other returns alone are measured.
    """
    seed = 20_260_101, split == "test"
    drawn = [
        (ranges, np.random.default_rng(seed)),
        (apart, np.random.default_rng((*seed, 1))),
    ]
    instances = []
    for number in range(COUNT):
        physics = {}
        for some, generator in drawn:
            for name, (low, high) in some.items():
                value = low * (high / low) ** generator.random()
                physics[name] = float(round(value) if name in whole else f"{value:.4g}")
        name = f"{split}-{number}"
        measured = returns.get(name, {})
        instances.append(
            Instance(
                name,
                physics,
                random_return=measured.get("random"),
                reference_return=measured.get("reference", reference)
                if measured
                else None,
                floor_return=measured.get("floor"),
            )
        )
    return tuple(instances)
