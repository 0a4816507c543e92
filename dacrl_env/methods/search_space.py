"""What tuning searches: configurations, or parameters of schedules or of a rule.

A candidate is a row of the unit cube. Equal distances in it are equal factors (or
sums) of a number, so that every searcher sees the scales of the task; options of a
choice have equal shares of their axis. Events are not searched: what happens at every
decision, or at none, is no configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core.checks import real, unknown
from dacrl_env.core.version import __version__
from dacrl_env.kernels.elementary import log10
from dacrl_env.learners.events import FIRST
from dacrl_env.methods.trials import AGE, DECISION, PEAK, Rule
from dacrl_env.outer.actions import ActionMap, check_names
from dacrl_env.outer.observations import signed_decades
from dacrl_env.policies import restart_when_poor, swap_when_fallen
from dacrl_env.policies.checkpoint_when_best import (
    CheckpointWhenBest,
    kept_or_restored,
)
from dacrl_env.policies.frozen_schedule import RATE, FrozenSchedule
from dacrl_env.policies.network import About, Controller
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.restart_when_poor import RestartWhenPoor, is_given_up
from dacrl_env.policies.schedules import SHAPES
from dacrl_env.policies.static import Static
from dacrl_env.policies.swap_when_fallen import SwapWhenFallen, is_fallen
from dacrl_env.policies.switch import Switch
from dacrl_env.tasks import Choice, Event, Knob, Number, Option

FAMILIES = (
    "static",
    "schedule",
    "freeze",
    "frozen-schedule",
    "checkpoint",
    "restart",
    "swap",
    "switch",
    "gate",
)
FREEZING = ("freeze", "frozen-schedule", "swap")  # which bring down the learning rate
# the event that a family sets
EVENT_OF = {
    "checkpoint": "checkpoint",
    "restart": restart_when_poor.EVENT,
    "swap": swap_when_fallen.EVENT,
}
ROWS = ("progress", "return/level")  # observation rows of the family "gate"
_STEEPEST = 4.0  # slope and bias of a gate: nearly shut to nearly open over half a row
_SIDES = ("below", "above")
_ENDS = ("start", "end")
_CONFIGURATION = "configuration/"  # how dimensions of static configuration begin
_SHAPES = ("linear", "cosine", "step")
_STAIRS = 4
_PATIENCE = 50  # decisions of the family "restart", at most

Floats = NDArray[np.float64]
_Policy = (
    Static
    | OpenLoop
    | FrozenSchedule
    | Switch
    | CheckpointWhenBest
    | RestartWhenPoor
    | SwapWhenFallen
    | Controller
)


class SearchSpace:
    """Candidates and the policies they stand for.

    The family "static" has one dimension a hyperparameter. The family "schedule" has
    four for a number (a choice has no shape: its option changes at the fraction):
    ``<name>/start`` and ``<name>/end``, the ``<name>/shape`` of the curve between
    them (linear, cosine or in four steps, on the hyperparameter's own scale) and the
    ``<name>/fraction`` of the run after which the end holds. The family "freeze" is
    `FreezeWhenGood`: a configuration, and the ``threshold`` of the score at and above
    which the learning rate is the smallest that there is. The family "frozen-schedule"
    is `FrozenSchedule`: a schedule with such a ``threshold``. The family "checkpoint"
    is `CheckpointWhenBest`: a configuration, and the ``fall`` below the best score at
    which the best networks are restored. The family "restart" is `RestartWhenPoor`: a
    configuration, and the ``threshold`` of the score below which networks begin anew
    that have had ``patience`` decisions. The family "swap" is `SwapWhenFallen`: a
    configuration, the ``threshold`` of the score at and above which the learning rate
    is the smallest that there is, the ``fall`` of the score after which networks are
    swapped, and what goes on the ``first`` time. The family "switch" has
    ``<name>/below`` and ``<name>/above``, and the ``threshold`` of the score between
    them (`Switch`). The family "gate" has both sides too, and between them the least
    network there is: one hidden unit, whose hyperbolic tangent goes from one side (−1)
    to the other. It has a slope ``gate/<row>`` for each observation row and a
    ``gate/bias``, all in [-4, 4]; rows lie in [-1, 1], the level of returns because it
    is shown between those of the scores 0 and 1.

    Args:
        controlled: hyperparameters of the environment.
        bounds: name to a tuple (or array) of lowest and highest value, or of a choice
            to a list of options, of the hyperparameters to search; None: all numbers
            and choices that are controlled, over their whole range. A list of numbers
            would be one of values to choose from, and is refused. Optuna's
            distributions are taken, too, where they have the scale of the number.
        family: one of `FAMILIES`.
        rows: observation rows of the family "gate"; with ``("progress",)`` alone it is
            a schedule.
        returns: of the scores 0 and 1, for the family "gate".
        configurations: of static configuration that is searched, too, by the family
            "static" alone: name of a field to options, of which the first is what runs
            have otherwise. Dimensions are ``configuration/<field>``, whose options are
            written as JSON.

    Raises:
        ValueError: an unknown name or family, an event, bounds that are inverted or
            wider than the task's, no or repeated rows, or configurations with another
            family.
    """

    def __init__(
        self,
        controlled: Sequence[Knob],
        bounds: Mapping[str, Sequence[Option] | NDArray[Any]] | None = None,
        family: str = "static",
        rows: Sequence[str] = ROWS,
        returns: tuple[float, float] = (0.0, 1.0),
        configurations: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        if family not in FAMILIES:
            raise ValueError(unknown("family", family, FAMILIES))
        known = {h.name: h for h in controlled}
        if not isinstance(bounds, Mapping | None):
            raise ValueError(
                f"the space to search must be a dict of name to bounds, got {bounds!r}"
            )
        steady = [h for h in controlled if not isinstance(h, Event)]
        chosen: Mapping[str, Any] = (
            dict.fromkeys(h.name for h in steady) if bounds is None else bounds
        )
        check_names(chosen, list(known), "hyperparameter")
        events = [name for name in chosen if isinstance(known[name], Event)]
        if events:
            raise ValueError(
                f"{', '.join(events)}: events are not searched, since nothing of them "
                f"stays set; valid: {', '.join(h.name for h in steady)}"
            )
        if not chosen:
            raise ValueError(
                f"nothing to search; valid: {', '.join(h.name for h in steady)}"
            )
        self.fields = dict(configurations or {})
        if self.fields and family != "static":
            raise ValueError(
                "static configuration is searched by the family static alone, got "
                f"{family}"
            )
        self.family = family
        self.rows = tuple(rows)
        self.controlled = tuple(controlled)
        searched = {h.name: h for h in steady}
        self.searched = tuple(_narrowed(searched[n], b) for n, b in chosen.items())
        # what is set depends on how a run goes
        self.reactive = family not in ("static", "schedule")
        of_rule: list[Number | Choice] = []
        if family in EVENT_OF:
            check_names([EVENT_OF[family]], list(known), "hyperparameter")
        if family in FREEZING:
            check_names([RATE], list(known), "hyperparameter")
            of_rule = [Number("threshold", 0.0, 1.0, 0.6)]
        if family == "swap":
            fall = Number("fall", 0.1, 1.0, 0.5, "log")
            first = Choice("first", FIRST, FIRST[0])
            of_rule = [Number("threshold", 0.0, 1.0, 0.9), fall, first]
        elif family == "checkpoint":
            of_rule = [Number("fall", 0.02, 1.0, 0.1, "log")]
        elif family == "restart":
            patience = Number("patience", 1, _PATIENCE, 5, "log", integer=True)
            of_rule = [Number("threshold", 0.0, 1.0, 0.2), patience]
        elif family == "switch":
            of_rule = [Number("threshold", 0.0, 1.0, 0.5)]
        elif family == "gate":
            if not self.rows or len(set(self.rows)) < len(self.rows):
                raise ValueError(
                    "a gate needs at least one observation row, and each once; got "
                    f"{', '.join(self.rows) or 'none'}"
                )
            # it begins to open with time and success
            of_rule = [
                Number(f"gate/{part}", -_STEEPEST, _STEEPEST, start)
                for part, start in [("bias", 0.0), *((row, 1.0) for row in self.rows)]
            ]
            self._actions = ActionMap(self.controlled, "continuous")
            low, high = signed_decades(np.array(returns))
            level = np.array([row == "return/level" for row in self.rows])
            self._mean = np.where(level, (low + high) / 2, 0.0)
            self._scale = np.where(level, (high - low) / 2, 1.0)
        self.dimensions = tuple(
            of_rule
            + [d for h in self.searched for d in self._dimensions(h)]
            + [d for d in map(self._field, self.fields) if d is not None]
        )
        self.names = tuple(d.name for d in self.dimensions)
        # of those without an order the codes, which have equal shares of the unit axis
        # (shapes of curves are those of numbers, and no choice of the task's)
        whole = {h.name: h for h in controlled if isinstance(h, Choice)}
        self.codes = {
            d.name: whole.get(d.name.partition("/")[0], d).codes(list(d.options))
            for d in self.dimensions
            if isinstance(d, Choice)
        }
        self.choices = {name: len(codes) for name, codes in self.codes.items()}

    def _dimensions(self, h: Number | Choice) -> list[Number | Choice]:
        if self.family in ("static", "freeze", *EVENT_OF):
            return [h]
        if self.family in ("switch", "gate"):
            return [_renamed(h, f"{h.name}/{side}") for side in _SIDES]
        ends = [_renamed(h, f"{h.name}/{end}") for end in _ENDS]
        fraction = Number(f"{h.name}/fraction", 0.05, 1.0, 1.0)
        if isinstance(h, Choice):
            return [*ends, fraction]
        return [*ends, Choice(f"{h.name}/shape", _SHAPES, _SHAPES[0]), fraction]

    def _field(self, name: str) -> Choice | None:
        """The dimension of a field of the configuration; None: it has one option."""
        texts = tuple(dict.fromkeys(json.dumps(option) for option in self.fields[name]))
        if len(texts) < 2:
            return None
        return Choice(f"{_CONFIGURATION}{name}", texts, texts[0])

    def configuration(self, candidate: ArrayLike) -> dict[str, Any]:
        """Static configuration of one candidate ``(k,)``: what differs, as JSON."""
        (parameters,) = self.decode(candidate)
        found = {}
        for d in self.dimensions:
            if isinstance(d, Choice) and d.name.startswith(_CONFIGURATION):
                text = d.options[int(parameters[d.name])]
                if text != d.default:
                    found[d.name.removeprefix(_CONFIGURATION)] = json.loads(str(text))
        return found

    def sample(self, generator: np.random.Generator, n: int) -> Floats:
        """Candidates ``(n, k)`` drawn uniformly from the unit cube."""
        return generator.random((n, len(self.dimensions)))

    def grid(self, points: int) -> Floats:
        """All candidates ``(n, k)`` of a grid, its edges included.

        Args:
            points: of each axis; a choice has its options.
        """
        if points < 2:
            raise ValueError(f"a grid needs at least 2 points an axis, got {points}")
        axes = [
            (np.arange(self.choices[name]) + 0.5) / self.choices[name]
            if name in self.choices
            else np.linspace(0, 1, points)
            for name in self.names
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))

    def decode(self, candidates: ArrayLike) -> list[dict[str, float]]:
        """Parameters of candidates ``(n, k)``, a dict each; of choices the codes."""
        rows = np.atleast_2d(np.asarray(candidates, np.float64))
        columns = []
        for d, u in zip(self.dimensions, rows.T, strict=True):
            if isinstance(d, Choice):  # equal shares, not the halves of rounding
                n = self.choices[d.name]
                share = np.minimum(np.floor(u * n), n - 1)
                values = self.codes[d.name][share.astype(np.int64)]
            else:
                low, high = d.to_unit(d.low), d.to_unit(d.high)
                values = _twelve_digits(d.from_unit(low + u * (high - low)))
                values = np.rint(values) if d.integer else values
            columns.append(values)
        return [
            dict(zip(self.names, map(float, row), strict=True))
            for row in np.stack(columns, -1)
        ]

    def encode(self, parameters: Sequence[Mapping[str, float]]) -> Floats:
        """Candidates ``(n, k)`` with given parameters, the inverse of `decode`."""
        rows = []
        for given in parameters:
            row = []
            for d in self.dimensions:
                if isinstance(d, Choice):
                    share = self.codes[d.name].tolist().index(given[d.name])
                    row.append((share + 0.5) / self.choices[d.name])
                    continue
                low, high = d.to_unit(d.low), d.to_unit(d.high)
                row.append((d.to_unit(given[d.name]) - low) / (high - low))
            rows.append(row)
        return np.array(rows, np.float64)

    def code(self, name: str, value: Any) -> float:
        """The code of a dimension's value.

        Raises:
            ValueError: it is none.
        """
        (dimension,) = (d for d in self.dimensions if d.name == name)
        code = float(dimension.codes(value))
        return float(self.codes[name][int(code)]) if name in self.codes else code

    def constant(self, configuration: Mapping[str, float]) -> dict[str, Option]:
        """Parameters by which a configuration holds throughout, whatever the others.

        Args:
            configuration: values by name of the hyperparameter, as of `decode`.

        Returns:
            Values by name of the dimension, as users write them.
        """
        shown = self._shown(configuration)
        return {
            name: shown[hyperparameter]
            for name in self.names
            for hyperparameter, _, part in [name.partition("/")]
            if hyperparameter in shown and part in ("", *_SIDES, *_ENDS)
        }

    def values(self, candidates: ArrayLike, decisions: int) -> Floats:
        """Values ``(decisions, n, d)`` of the controlled hyperparameters.

        Those that are not searched have their default. Of the reactive families for
        "frozen-schedule" alone, where nothing is frozen; see `rule`.
        """
        each = [self._table(p, decisions) for p in self.decode(candidates)]
        return np.stack(each, 1)

    def every_value(self, candidates: ArrayLike, decisions: int) -> Floats:
        """All values ``(S, n, d)`` of the controlled hyperparameters that may be set.

        Those of each decision, or of either side of a rule. Not for the family "gate",
        which may set any value between its sides.
        """
        if not self.reactive:
            return self.values(candidates, decisions)
        given = self.decode(candidates)
        if self.family in EVENT_OF:
            values = self._steady(given)[None]
            if self.family in FREEZING:
                values = np.concatenate([values, self._frozen(values)])
            return values
        if self.family == "frozen-schedule":
            values = self.values(candidates, decisions)
            return np.concatenate([values, self._frozen(values)])
        sides = (np.full(len(given), score) for score in (-np.inf, np.inf))
        return np.stack([self._switched(given, score) for score in sides])

    def rule(self, candidates: ArrayLike, decisions: int) -> Rule:
        """What candidates ``(P, k)`` of a reactive family set next, see `Trials.steer`.

        Args:
            candidates: of a run each.
            decisions: of a run.
        """
        given = self.decode(candidates)
        if self.family == "checkpoint":
            return lambda scores, best, rows: self._kept(given, scores, best)
        if self.family == "restart":
            return lambda scores, best, rows: self._restarted(given, scores, rows[AGE])
        if self.family == "swap":
            return lambda scores, best, rows: self._exchanged(given, scores, rows[PEAK])
        if self.family == "frozen-schedule":
            tables = self.values(candidates, decisions)
            threshold = np.array([p["threshold"] for p in given])

            def scheduled(
                scores: Floats, best: Floats, rows: Mapping[str, NDArray[Any]]
            ) -> Floats:
                values = tables[rows[DECISION], np.arange(len(given))]
                good = (scores >= threshold)[:, None]
                return np.where(good, self._frozen(values), values)

            return scheduled
        if self.family != "gate":
            return lambda scores, best, rows: self._switched(given, scores)
        each = [self._network(parameters, decisions) for parameters in given]

        def reaction(
            scores: Floats, best: Floats, rows: Mapping[str, NDArray[np.float32]]
        ) -> Floats:
            check_names(self.rows, list(rows), "observation row")
            seen = np.stack([rows[name] for name in self.rows], -1)[:, None]
            actions = [c.decide(x) for c, x in zip(each, seen, strict=True)]
            current = self._actions.defaults(len(each))
            return self._actions.to_values(np.concatenate(actions), current)

        return reaction

    def _switched(self, given: list[dict[str, float]], scores: Floats) -> Floats:
        """Values ``(n, d)`` of the families "freeze" and "switch"."""
        values = np.tile([h.start for h in self.controlled], (len(scores), 1))
        names = [h.name for h in self.controlled]
        for row, parameters, score in zip(values, given, scores, strict=True):
            side = _SIDES[int(score >= parameters["threshold"])]
            for name, value in self._side(parameters, side).items():
                row[names.index(name)] = value
        return values

    def _frozen(self, values: Floats) -> Floats:
        """Values ``(…, d)`` with the smallest learning rate."""
        at = [h.name for h in self.controlled].index(RATE)
        frozen = values.copy()
        frozen[..., at] = self.controlled[at].ends[0]
        return frozen

    def _kept(
        self, given: list[dict[str, float]], scores: Floats, best: Floats
    ) -> Floats:
        """Values ``(n, d)`` of the family "checkpoint"."""
        fall = np.array([p["fall"] for p in given])
        return self._happening(given, kept_or_restored(scores, best, fall))

    def _restarted(
        self, given: list[dict[str, float]], scores: Floats, ages: Floats
    ) -> Floats:
        """Values ``(n, d)`` of the family "restart"."""
        threshold, patience = (
            np.array([p[name] for p in given]) for name in ("threshold", "patience")
        )
        poor = is_given_up(scores, ages, threshold, patience)
        return self._happening(given, poor)

    def _exchanged(
        self, given: list[dict[str, float]], scores: Floats, peaks: Floats
    ) -> Floats:
        """Values ``(n, d)`` of the family "swap"."""
        threshold, fall = (
            np.array([p[name] for p in given]) for name in ("threshold", "fall")
        )
        fallen = is_fallen(scores, peaks, fall)
        first = np.array([FIRST[int(p["first"])] for p in given], object)
        values = self._happening(given, np.where(fallen, first, "none"))
        good = (scores >= threshold) & ~fallen
        return np.where(good[:, None], self._frozen(values), values)

    def _happening(self, given: list[dict[str, float]], options: ArrayLike) -> Floats:
        """Steady values ``(n, d)``, and options ``(n,)`` of the family's event."""
        values = self._steady(given)
        event = EVENT_OF[self.family]
        at = [h.name for h in self.controlled].index(event)
        values[:, at] = self.controlled[at].codes(options)
        return values

    def _steady(self, given: list[dict[str, float]]) -> Floats:
        """Values ``(n, d)`` of a configuration each."""
        values = np.tile([h.start for h in self.controlled], (len(given), 1))
        names = [h.name for h in self.controlled]
        for h in self.searched:
            values[:, names.index(h.name)] = [p[h.name] for p in given]
        return values

    def _network(self, parameters: Mapping[str, float], decisions: int) -> Controller:
        """The controller of the family "gate"."""
        current = self._actions.defaults(1)
        below, above = (
            self._actions.to_actions(
                self._shown(self._side(parameters, side)), current
            )[0]
            for side in _SIDES
        )
        about = About(
            action_mode="continuous",
            hyperparameters=self._actions.names,
            rows=self.rows,
            history=1,
            activation="tanh",
            output="clip",
            decisions=decisions,
            version=__version__,
        )
        weights = {
            "mean": self._mean,
            "variance": self._scale**2,
            "weight/0": np.array([[parameters[f"gate/{row}"]] for row in self.rows]),
            "bias/0": np.array([parameters["gate/bias"]]),
            "weight/1": (above - below)[None] / 2,
            "bias/1": (above + below) / 2,
        }
        return Controller(about, weights)

    def _side(self, parameters: Mapping[str, float], side: str) -> dict[str, float]:
        """The configuration on one side of a reactive family."""
        if self.family == "freeze":
            (rate,) = (h for h in self.controlled if h.name == RATE)
            given = {h.name: parameters[h.name] for h in self.searched}
            given = {RATE: rate.start, **given}
            return given | {RATE: rate.ends[0]} if side == "above" else given
        return {h.name: parameters[f"{h.name}/{side}"] for h in self.searched}

    def _shown(self, configuration: Mapping[str, float]) -> dict[str, Option]:
        """A configuration as users write it: options of choices, not their codes."""
        return {
            h.name: h.native(configuration[h.name])
            for h in self.controlled
            if h.name in configuration
        }

    def policy(self, candidate: ArrayLike, decisions: int) -> _Policy:
        """The policy that one candidate ``(k,)`` stands for."""
        (parameters,) = self.decode(candidate)
        if self.family == "static":
            shown = self._shown(parameters)
            steady = {h.name: shown[h.name] for h in self.searched}
            return Static(self.configuration(candidate), **steady)
        if self.family in EVENT_OF:
            shown = self._shown({h.name: parameters[h.name] for h in self.searched})
            if self.family == "checkpoint":
                return CheckpointWhenBest(parameters["fall"], False, **shown)
            if self.family == "swap":
                fall, threshold = parameters["fall"], parameters["threshold"]
                first = FIRST[int(parameters["first"])]
                return SwapWhenFallen(fall, threshold, first, 0, False, **shown)
            patience = int(parameters["patience"])
            return RestartWhenPoor(parameters["threshold"], patience, False, **shown)
        if self.family in ("freeze", "switch"):
            below, above = (
                self._shown(self._side(parameters, side)) for side in _SIDES
            )
            return Switch(parameters["threshold"], below, above)
        if self.family == "gate":
            return self._network(parameters, decisions)
        table = self._table(parameters, decisions)
        searched = [h.name for h in self.searched]
        values = {
            h.name: [*map(h.native, column.tolist())]
            for h, column in zip(self.controlled, table.T, strict=True)
            if h.name in searched or (self.reactive and h.name == RATE)
        }
        if self.family == "frozen-schedule":
            return FrozenSchedule(parameters["threshold"], values)
        return OpenLoop(values)

    def _table(self, parameters: Mapping[str, float], decisions: int) -> Floats:
        """Values ``(decisions, d)`` of one candidate."""
        columns: dict[str, Any] = {
            h.name: np.full(decisions, h.start) for h in self.controlled
        }
        for h in self.searched:
            if self.family == "static":
                columns[h.name][:] = parameters[h.name]
            else:
                columns[h.name] = self._curve(h, parameters, decisions)
        return np.stack(list(columns.values()), -1)

    def _curve(
        self, h: Number | Choice, parameters: Mapping[str, float], decisions: int
    ) -> Floats:
        start, end, fraction = (
            parameters[f"{h.name}/{part}"] for part in ("start", "end", "fraction")
        )
        t = np.clip(np.arange(decisions) / decisions / fraction, 0.0, 1.0)
        if isinstance(h, Choice):
            return np.where(t < 1, start, end)
        shape = parameters[f"{h.name}/shape"]
        first, last = float(h.to_unit(start)), float(h.to_unit(end))
        positions = SHAPES[_SHAPES[int(shape)]](t, first, last, _STAIRS)
        values = _twelve_digits(h.from_unit(positions))
        return np.rint(values) if h.integer else values


def _twelve_digits(values: Floats) -> Floats:
    """Values to twelve significant digits, so that known ones are found as they are."""
    with np.errstate(divide="ignore"):
        exponents = np.floor(log10(np.abs(values)))
    # at most 10²², the largest power of ten that is a double
    scale = 10.0 ** np.clip(11 - exponents, 0, 22)
    return np.asarray(np.rint(values * scale) / scale)


def _narrowed(h: Number | Choice, bounds: Any) -> Number | Choice:
    if bounds is None:
        return h
    if type(bounds).__module__ == "optuna.distributions":
        bounds = _of_optuna(h, bounds)
    if isinstance(h, Choice):
        if not isinstance(bounds, list | tuple):
            raise ValueError(
                f"what is searched of {h.name} must be a list of its options, "
                f"{', '.join(map(repr, h.options))}, got {bounds!r}"
            )
        h.codes(list(bounds))
        default = h.default if h.default in bounds else bounds[0]
        return Choice(h.name, tuple(bounds), default)
    if isinstance(bounds, list | set | frozenset):
        raise ValueError(
            f"{bounds!r} for {h.name} may be values to choose from, which are not "
            "searched; a range is a tuple, (low, high)"
        )
    if not isinstance(bounds, tuple | np.ndarray) or np.shape(bounds) != (2,):
        raise ValueError(
            f"bounds of {h.name} must be a tuple (low, high), got {bounds!r}"
        )
    low, high = (float(real(f"a bound of {h.name}", x)) for x in bounds)
    if not low < high:
        raise ValueError(f"bounds of {h.name} are inverted or empty: {low}, {high}")
    if h.integer and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"bounds of {h.name} must be whole numbers, got {low}, {high}")
    h.check((low, high))
    default = min(max(h.default, low), high)
    return replace(h, low=low, high=high, default=default)


def _of_optuna(h: Number | Choice, distribution: Any) -> Any:
    """Bounds, or options, that a distribution of Optuna stands for."""
    options = getattr(distribution, "choices", None)
    if isinstance(h, Choice) != (options is not None):
        kind = "a choice" if isinstance(h, Choice) else "a number"
        raise ValueError(f"{h.name} is {kind}, for which {distribution} does not stand")
    if options is not None:
        return list(options)
    whole = isinstance(h, Number) and h.integer
    if distribution.step not in (None, 1 if whole else None):
        raise ValueError(f"steps of {h.name} cannot be expressed: {distribution}")
    if distribution.log != (isinstance(h, Number) and h.scale == "log"):
        scale = h.scale if isinstance(h, Number) else "none"
        raise ValueError(
            f"{h.name} has the scale {scale!r}, which is not that of {distribution}"
        )
    return distribution.low, distribution.high


def _renamed(h: Number | Choice, name: str) -> Number | Choice:
    return replace(h, name=name)
