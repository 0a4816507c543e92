"""What comes of values that actions ask for: rounding, caps, and what is active."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.tasks import Choice, Event, Knob, Option

Floats = NDArray[np.float64]
# caps values by name in place to what can be applied together
Constrain = Callable[[dict[str, Floats]], None]


class Applied:
    """Meaning of the arrays of values that a population keeps.

    Args:
        hyperparameters: all n, in the order of applied values.
        controlled: the d that actions set, in the order of requested values.
        algorithm_s: all, with all their options and ranges.
        constrain: caps values.
    """

    def __init__(
        self,
        hyperparameters: Sequence[Knob],
        controlled: Sequence[Knob],
        algorithm_s: Sequence[Knob],
        constrain: Constrain,
    ) -> None:
        self.hyperparameters, self.controlled = hyperparameters, controlled
        self.names = [h.name for h in hyperparameters]
        self.columns = [self.names.index(h.name) for h in controlled]
        # number of an event's column, and the code of each way that it happens
        self.happenings = [
            (k, code)
            for k, h in zip(self.columns, controlled, strict=True)
            if isinstance(h, Event)
            for code in range(1, len(h.options))
        ]
        every = {h.name: h for h in algorithm_s}
        # of choices with some of the options: their positions among all
        self._positions = {
            h.name: every[h.name].codes(list(h.options))
            for h in controlled
            if isinstance(h, Choice) and h != every[h.name]
        }
        self._constrain = constrain

    def of(self, requested: Floats) -> Floats:
        """All values ``(m, n)`` as applied, for those asked for ``(m, d)``."""
        m = len(requested)
        values = {h.name: np.full(m, h.start) for h in self.hyperparameters}
        values |= {h.name: x for h, x in zip(self.controlled, requested.T, strict=True)}
        values = {h.name: h.rounded(values[h.name]) for h in self.hyperparameters}
        self._constrain(values)
        return np.stack([values[name] for name in self.names], -1)

    def held(self, requested: Floats, applied: Floats) -> Floats:
        """Values ``(m, d)`` that relative actions go on from: capped, not rounded."""
        now = applied[:, self.columns]
        columns = zip(self.controlled, requested.T, strict=True)
        capped = now < np.stack([h.rounded(column) for h, column in columns], -1)
        least = [h.ends[0] for h in self.controlled]
        return np.where(capped, np.maximum(now, least), requested)

    def by_name(self, applied: Floats) -> dict[str, Floats]:
        """Values ``(m,)`` as the learner takes them.

        Choices have the positions that their options have in the algorithm.
        """
        given = dict(zip(self.names, applied.T.copy(), strict=True))
        for name, positions in self._positions.items():
            given[name] = positions[given[name].astype(np.int64)]
        return given

    def shown(self, applied: Floats) -> dict[str, NDArray[Any]]:
        """Values and options ``(m,)`` as users see them; inactive ones are none."""
        columns = zip(self.hyperparameters, applied.T, strict=True)
        return {
            h.name: h.shown(np.where(self._active(h, applied), column, np.nan))
            for h, column in columns
        }

    def config(self, requested: Floats) -> dict[str, Option]:
        """Controlled values of the first row as they would be applied."""
        applied = self.of(requested[:1])
        return {
            h.name: h.shown(applied[:, k]).tolist()[0]
            for h, k in zip(self.controlled, self.columns, strict=True)
        }

    def told(self, flags: NDArray[np.bool_]) -> NDArray[Any]:
        """Names ``(m,)`` of what is set in each row ``(m, n)``, as texts."""
        into = np.full(len(flags), "", object)
        for i in np.flatnonzero(flags.any(1)):
            row = zip(self.names, flags[i], strict=True)
            into[i] = ", ".join(name for name, flag in row if flag)
        return into

    def _active(self, knob: Knob, applied: Floats) -> NDArray[np.bool_]:
        """Members ``(m,)`` whose other choices leave a value a meaning."""
        if knob.condition is None:
            return np.ones(len(applied), bool)
        k = self.names.index(knob.condition.choice)
        choice = self.hyperparameters[k]
        options = choice.shown(applied[:, k])
        fits = np.array([option in knob.condition.options for option in options], bool)
        return fits & self._active(choice, applied)
