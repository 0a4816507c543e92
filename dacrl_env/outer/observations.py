"""The outer observation: one named row per feature, every value in [-1, 1].

Returns are normalised by the run's own history, never by the task's references, which
an unseen task would not offer; one row has their order of magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.kernels.elementary import exp10, log, log10
from dacrl_env.tasks import Choice, Knob, Number

Floats = NDArray[np.float64]

RETURN_ROWS = (
    "return/now",
    "return/best",
    "return/slope",
    "return/since_best",
    "return/level",
)
_DECADES = 8.0  # magnitudes from 1e-8 to 1e8 span the range of a signal
_LONGEST = 5.0  # decades of episode length
_LOG2_E = 1.44269504088896338700


def names(
    hyperparameters: Sequence[Knob],
    signals: Sequence[str],
    instance_features: Sequence[str],
    history: int,
) -> tuple[str, ...]:
    """Names of the rows; older ones of a stacked history end in ``@-1``, ``@-2``."""
    now = (
        "progress",
        *(row for knob in hyperparameters for row in _knob_rows(knob)),
        *RETURN_ROWS,
        *(f"signal/{name}" for name in signals),
        "episode_length",
        *(f"instance/{name}" for name in instance_features),
    )
    older = (f"{name}@-{k}" for k in range(1, history) for name in now)
    return (*now, *older)


def features(
    progress: Floats,
    hyperparameters: Sequence[Floats],
    returns: Mapping[str, Floats],
    since_best: Floats,
    signals: Mapping[str, Floats],
    units: Mapping[str, float],
    episode_length: Floats,
    instance: Floats,
) -> NDArray[np.float32]:
    """Rows of the current decision, ``(P, D)``.

    Args:
        progress: ``(P,)`` share of the budget spent.
        hyperparameters: columns ``(P,)``, see `knob_features`.
        returns: ``now``, ``previous``, ``initial``, ``low``, ``high`` ``(P,)``, and
            ``level``: as ``now``, but 0 where nothing was observed yet.
        since_best: ``(P,)`` share of the budget since the best return.
        signals: by name ``(P,)``, in their own units.
        units: of those signals that may be negative, see `squash`.
        episode_length: ``(P,)`` mean steps of the latest training episodes.
        instance: ``(P, k)``, see `instance_features`.
    """
    span = np.maximum(returns["high"] - returns["low"], 1e-8)
    rows = [
        2 * progress - 1,
        *hyperparameters,
        2 * (returns["now"] - returns["low"]) / span - 1,
        2 * (returns["high"] - returns["initial"]) / span - 1,
        (returns["now"] - returns["previous"]) / span,
        2 * since_best - 1,
        signed_decades(returns["level"]),
        *(squash(x, units.get(name)) for name, x in signals.items()),
        2 * log10(1 + episode_length) / _LONGEST - 1,
        *instance.T,
    ]
    stacked = np.array(rows).T
    stacked[np.isnan(stacked)] = 1.0
    return np.clip(stacked, -1.0, 1.0).astype(np.float32)


def instance_features(constants: Floats, own: Floats) -> Floats:
    """Constants ``(P, k)`` by what the environment's own ``(k,)`` are.

    Half the log2 of their ratio; where the environment's own is 0, the constant.
    """
    ratio = constants / np.where(own == 0, 1.0, own)
    scaled: Floats = log(np.maximum(ratio, 1e-8)) * _LOG2_E / 2
    return np.where(own == 0, constants, scaled)


def _knob_rows(knob: Knob) -> list[str]:
    if isinstance(knob, Number):
        return [f"hp/{knob.name}"]
    options = knob.options if isinstance(knob, Choice) else knob.options[1:]
    return [f"hp/{knob.name}={option}" for option in options]


@cache
def _ends_of(knob: Number) -> tuple[float, float]:
    """Where a number's bounds lie on its scale."""
    low, high = (float(knob.to_unit(end)) for end in knob.ends)
    return low, high


def knob_features(
    hyperparameters: Sequence[Knob], applied: Floats, since_events: Floats
) -> list[Floats]:
    """What is shown of the hyperparameters that actions set, a column ``(P,)`` a row.

    Of a number the position between its bounds; of a choice, for each option, 1 if it
    is the current one and −1 if not; of an event, for each way that it happens, the
    share of the budget since it last did, from −1 to 1, which also means never.

    Args:
        hyperparameters: those that actions set.
        applied: ``(P, d)`` their values.
        since_events: ``(P, e)`` for each event and each way in turn.
    """
    columns: list[Floats] = []
    since = iter(2 * since_events.T - 1)
    for knob, values in zip(hyperparameters, applied.T, strict=True):
        if isinstance(knob, Number):
            low, high = _ends_of(knob)
            share = (knob.to_unit(values) - low) / (high - low)
            columns.append(np.clip(2 * share - 1, -1, 1))
        elif isinstance(knob, Choice):
            current = range(len(knob.options))
            columns += [np.where(values == k, 1.0, -1.0) for k in current]
        else:
            columns += [next(since) for _ in knob.options[1:]]
    return columns


def squash(x: Floats, unit: float | None = None) -> Floats:
    """A signal on a logarithmic scale.

    Args:
        x: the signal.
        unit: None: it is not negative, and zero gives the lowest value. Otherwise
            zero gives zero, and magnitudes far below the unit come close to it.
    """
    if unit is not None:
        return signed_decades(x, unit)
    return log10(np.maximum(x, 1e-8)) / _DECADES


def signed_decades(x: Floats, unit: float = 1.0) -> Floats:
    """Sign times log10 of one plus the magnitude in units, as a share of the range."""
    return np.sign(x) * log10(1 + np.abs(x) / unit) / _decades_above(unit)


@cache
def _decades_above(unit: float) -> float:
    """From a unit to the largest signal that is told from others."""
    return float(_DECADES - log10(unit))


def unsquash(row: ArrayLike, unit: float | None = None) -> Floats:
    """The signal that `squash` made a row of; rows at a bound mean that or more."""
    x = np.asarray(row, np.float64)
    if unit is not None:
        magnitude = exp10(_decades_above(unit) * np.abs(x)) - 1
        return np.asarray(np.sign(x) * unit * magnitude)
    return exp10(_DECADES * x)
