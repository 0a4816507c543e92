"""What switching to another configuration in the middle of runs is worth.

Runs of the incumbent configuration are stopped at shares of the
budget; from each state, forks with random streams of their own go on under several
configurations to the end. One of them is the incumbent's, *continuing*. The gain of
switching over continuing is read in two ways:

- *pooled*: one configuration a branching point, chosen by its mean over three quarters
  of the runs (less one standard error, see `choose_pooled`) and valued on the others,
  each quarter in turn. A schedule could do that.
- *per run*: every run chooses the branch that does best from its own state, over
  several random streams, valued on further streams of the same state. That needs the
  state. It is no upper bound: with few streams the choice is often wrong.

Choices are made by the observed score, 100 evaluation episodes at the end of the run
(of a task that is judged by training by the last report); values are the report score
of other forks. No fork that chose is valued. A choice by
the greatest of several noisy scores is optimistic, and if values shared a stream with
choices, that optimism would count as gain. The *control* tells: all forks have the
incumbent's configuration, their labels mean nothing, and what the same code makes of
them has to be zero.

All runs are of the tuning split. Intervals are Student's over incumbent runs, which are
few; they hold for the choices that were made and the configurations that were tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dacrl_env.comparison import stats
from dacrl_env.comparison.executors import Executor, all_compiled, runner
from dacrl_env.comparison.results import named
from dacrl_env.comparison.units import run_units
from dacrl_env.core import checks
from dacrl_env.core.installed import version
from dacrl_env.core.progress import progress
from dacrl_env.core.snapshot import Snapshot, SnapshotNotSupported, capture
from dacrl_env.core.store import Store
from dacrl_env.methods.search import around
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import settings_key
from dacrl_env.outer.actions import check_names
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.policies import Cost
from dacrl_env.tasks import FINAL_REPORT_EPISODES, Option, Task
from dacrl_env.tasks.registration import definition_of, get_task

POINTS = (0.2, 0.5, 0.8)  # shares of the budget at which runs are branched
RUNS = 8  # of the incumbent
CONFIGURATIONS = 6  # continuing among them
STREAMS = 2  # forks a configuration for choosing, and as many for valuing
UNIT = 4  # incumbent runs of a unit of work
FOLDS = 4  # parts of the runs; a pooled choice is made by all but one
SIDE_BY_SIDE = 32  # forks trained together, which bounds the memory

# purposes of forks, which are parts of the number of their streams
_KINDS = ("choose", "value", "control-choose", "control-value")
_VALUED = {"choose": "value", "control-choose": "control-value"}
_MARKS = 2**40  # streams numbered from here on are not those of `Population.fork`

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# -- choosing and valuing, on arrays ----------------------------------------------


def choose_pooled(scores: Floats) -> Ints:
    """For every run the configuration that is best on the runs of the other folds.

    Run r is of fold r modulo `FOLDS`. Best is the greatest gain over continuing less
    one standard error over the runs: of a few noisy means the greatest is often one
    that fails on some other run, and to continue is always possible.

    Args:
        scores: ``(R, K, S)`` of R runs, K configurations and S streams; R at least 2.

    Returns:
        ``(R,)``; of equal configurations the first, which is continuing.
    """
    fold = np.arange(len(scores)) % FOLDS
    gain = scores.mean(2) - scores[:, :1].mean(2)  # (R, K)
    best = []
    for f in fold:
        others = gain[fold != f]
        n = len(others)
        error = others.std(0, ddof=1) / np.sqrt(n) if n > 1 else 0.0
        best.append((others.mean(0) - error).argmax())
    return np.array(best)


def choose_own(scores: Floats) -> Ints:
    """For every run the configuration that is best from its own state.

    Args:
        scores: ``(R, K, S)``.

    Returns:
        ``(R,)``; of equal configurations the first, which is continuing.
    """
    return np.asarray(scores.mean(2).argmax(1))


def gains(values: Floats, choices: Ints) -> Floats:
    """Values of the choices less those of continuing ``(R, S)``.

    Args:
        values: ``(R, K, S)``, configuration 0 being continuing. With the scores that
            chose, the result is optimistic.
        choices: ``(R,)``.
    """
    return values[np.arange(len(values)), choices] - values[:, 0]


def estimate(values: Floats) -> stats.Estimate:
    """Mean of ``(R, S)`` and its 95 % interval over the runs."""
    return stats.mean_interval(values.mean(1))


# -- branching ----------------------------------------------------------------------


@dataclass(frozen=True)
class Branching:
    """Result of `branching`.

    Args:
        rows: columns ``what``, ``point`` (share of the budget; NaN: the mean over the
            points), ``value`` with ``low`` and ``high`` (95 %) and ``runs``.
        costs: inner environment steps, ``branching``.
        configurations: those that were tried, continuing first.
    """

    rows: pd.DataFrame
    costs: dict[str, Cost]
    configurations: list[dict[str, Option]]


def branching(
    task: str | Task,
    incumbent: Mapping[str, Option] | None = None,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    runs: int = RUNS,
    configurations: int = CONFIGURATIONS,
    streams: int = STREAMS,
    points: Sequence[float] = POINTS,
    seed: int = 0,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> Branching:
    """The gain of switching configurations in the middle of runs.

    Args:
        task: id or task.
        incumbent: the configuration that runs begin with; what is left out has its
            default.
        store: a store or its directory; None: nothing is kept.
        runs: of the incumbent.
        configurations: branches, continuing among them.
        streams: forks of each run and configuration that choose, and as many that are
            valued.
        points: shares of the budget, rounded to decisions.
        seed: names the runs and the configurations.
        num_threads: as in :func:`dacrl_env.compare`.
        executor: as in :func:`dacrl_env.compare`.
        show_progress: a progress bar on standard error.
        **task_kwargs: options of the environment.

    Raises:
        ValueError: unknown names or options, or numbers that are too small.
        SnapshotNotSupported: runs of the task cannot be copied.
        StoreError: a damaged file in the store.
    """
    task = get_task(task)
    check_numbers(runs, configurations, streams, task_kwargs)
    if reason := why_not(task, task_kwargs):
        raise SnapshotNotSupported(reason)
    plan = planned(
        task, incumbent or {}, runs, configurations, streams, points, seed, task_kwargs
    )
    if store is not None and not isinstance(store, Store):
        store = Store(store)
    parts = [list(range(runs))[i : i + UNIT] for i in range(0, runs, UNIT)]

    units_by = runner(executor, num_threads, all_compiled(task, task_kwargs))

    def run(wanted: list[list[_Branches]], choosing: bool) -> pd.DataFrame:
        """All forks that are asked for, a list of branches for each part."""
        units = list(zip(parts, wanted, strict=True))
        frames = run_units(
            store,
            named(store, [partial(plan.key, *unit, choosing) for unit in units]),
            [(_unit, (plan, part, branches, choosing)) for part, branches in units],
            [_size(plan, part, branches) for part, branches in units],
            units_by,
            bar,
        )
        return pd.concat(frames, ignore_index=True)

    every = [
        [
            _Branches(kind, point, list(product(part, range(configurations))))
            for kind, point in plan.branchings()
        ]
        for part in parts
    ]
    total = sum(_size(plan, *unit) for unit in zip(parts, every, strict=True))
    bar = progress(total, f"{task.id} branching", show_progress)
    with bar:
        chosen_by = run(every, choosing=True)
        choices = {
            (kind, point): _choices(_array(plan, chosen_by, kind, point))
            for kind, point in plan.branchings()
        }
        wanted = [
            [
                _Branches(_VALUED[kind], point, _cells(part, picks))
                for (kind, point), picks in choices.items()
            ]
            for part in parts
        ]
        bar.total += sum(_size(plan, *unit) for unit in zip(parts, wanted, strict=True))
        valued = run(wanted, choosing=False)
    spent = pd.concat([chosen_by, valued])
    cost = Cost(int(spent["env_steps"].sum()), int(spent["eval_steps"].sum()))
    rows = _gained(plan, valued, choices)
    knobs = plan.settings(choosing=True).controlled
    tried = [
        {h.name: h.native(code) for h, code in zip(knobs, row, strict=True)}
        for row in plan.values
    ]
    return Branching(rows, {"branching": cost}, tried)


def check_numbers(
    runs: int, configurations: int, streams: int, options: Mapping[str, Any]
) -> None:
    """Raise a ValueError for numbers that are too small, or options not to be given."""
    for name in ("split", "action_mode", "report"):
        if name in options:
            raise ValueError(f"{name!r} cannot be given: it is part of the measurement")
    if runs < 2:
        raise ValueError(
            f"runs must be at least 2, so that one can choose for another; got {runs}"
        )
    if not 2 <= configurations <= 2**10:
        raise ValueError(
            f"configurations must lie between 2 and 1,024, got {configurations}; one "
            "of them is to continue"
        )
    if not 1 <= streams <= 2**10:
        raise ValueError(f"streams must lie between 1 and 1,024, got {streams}")


def why_not(task: Task, options: Mapping[str, Any]) -> str:
    """Why runs of a task cannot be branched; empty if they can."""
    with closing(Population(resolve(task, **options), 1)) as probe:
        try:
            capture(probe.state)
            probe.snapshot()
        except SnapshotNotSupported as error:
            return f"{task.id} has no branching: {error}"
    return ""


@dataclass(frozen=True)
class _Branches:
    """Forks at one decision, `_Plan.streams` of each cell."""

    kind: str
    point: int  # decisions before it
    cells: list[tuple[int, int]]  # run and configuration (in a control, its label)


@dataclass(frozen=True)
class _Plan:
    """What is branched, where, and into what."""

    task: Task
    options: dict[str, Any]
    names: tuple[str, ...]  # of the controlled hyperparameters
    values: list[list[float]]  # (K, d), continuing first
    points: list[int]  # decisions
    seeds: list[int]  # of the incumbent runs, tuning split
    streams: int
    decisions: int  # of a complete run
    interval: int  # inner environment steps of a decision

    def branchings(self) -> list[tuple[str, int]]:
        """Kinds and decisions; the control is made where it costs least."""
        every = [("choose", point) for point in self.points]
        return [*every, ("control-choose", self.points[-1])]

    def settings(self, choosing: bool) -> Settings:
        """Of runs that choose, evaluated once at their end, or of those valued.

        Where a task is judged by training, nobody is evaluated.
        """
        evaluation: dict[str, Any] = {"feedback": "train", "eval_interval": None}
        if choosing and self.task.judged_by == "evaluation":
            evaluation = {
                "feedback": "eval",
                "eval_interval": self.decisions * self.interval,
                "eval_episodes": FINAL_REPORT_EPISODES,
            }
        return resolve(self.task, **self.options | evaluation)

    def key(
        self, part: list[int], branches: list[_Branches], choosing: bool
    ) -> dict[str, Any]:
        """Names a unit of work: everything that its result depends on.

        Raises:
            NoSource: of the task or an option it cannot be told.
        """
        about = {f.name: getattr(self, f.name) for f in fields(self)}
        del about["task"], about["options"]
        # a unit does not depend on the runs and streams of others
        about["seeds"] = [self.seeds[r] for r in part]
        return {
            "kind": "branching",
            "version": version(),
            "task": self.task.id,
            "definition": definition_of(self.task),
            "settings": settings_key(self.options),
            **about,
            "part": part,
            "branches": [asdict(b) for b in branches],
            "choosing": choosing,
        }


def planned(
    task: Task,
    incumbent: Mapping[str, Option],
    runs: int,
    configurations: int,
    streams: int,
    points: Sequence[float],
    seed: int,
    options: dict[str, Any],
) -> _Plan:
    """What `branching` does; its arguments.

    Raises:
        ValueError: unknown names, or points that no run has.
    """
    settings, seed = resolve(task, **options), checks.seed(seed)
    known = {h.name: h for h in settings.controlled}
    check_names(incumbent, list(known), "hyperparameter")
    first = {name: h.start for name, h in known.items()}
    for name, value in incumbent.items():
        first[name] = float(known[name].codes(value))
    whole = settings.budget // settings.decision_interval
    # halves up, unlike round()
    at = sorted({int(share * whole + 0.5) for share in points})
    if not at or at[0] < 1 or at[-1] >= whole:
        raise ValueError(
            f"branching points {list(points)} of a run of {whole} decisions must lie "
            "after the first and before the last"
        )
    space = SearchSpace(settings.controlled)
    generator = np.random.default_rng((seed, 2))
    candidates = around(space, space.encode([first])[0], generator, configurations)
    values = space.values(candidates, 1)[0]
    values[0] = list(first.values())  # to the last bit
    words = np.random.SeedSequence((seed, 3)).generate_state(runs, np.uint64)
    return _Plan(
        task,
        options,
        tuple(known),
        values.tolist(),
        at,
        [int(word >> np.uint64(2)) for word in words],
        streams,
        whole,
        settings.decision_interval,
    )


def _choices(scores: Floats) -> dict[str, Ints]:
    """Both readings' choices ``(R,)`` from scores ``(R, K, S)``."""
    return {"pooled": choose_pooled(scores), "per run": choose_own(scores)}


def _cells(part: list[int], choices: Mapping[str, Ints]) -> list[tuple[int, int]]:
    """What has to be valued of some runs: their choices, and continuing."""
    chosen = {(r, int(picks[r])) for picks in choices.values() for r in part}
    return sorted(chosen | {(r, 0) for r in part})


def _size(plan: _Plan, part: list[int], branches: list[_Branches]) -> int:
    """Inner environment steps of a unit of work."""
    forks = sum(
        len(b.cells) * plan.streams * (plan.decisions - b.point) for b in branches
    )
    return (len(part) * plan.points[-1] + forks) * plan.interval


def _unit(
    plan: _Plan,
    part: list[int],
    branches: list[_Branches],
    choosing: bool,
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    """Some runs of the incumbent, and their forks.

    Returns:
        A row for each fork: ``run``, ``kind``, ``point``, ``configuration``,
        ``stream``, ``score`` and its own ``env_steps`` and ``eval_steps``; and one for
        each incumbent run, of kind "incumbent", without a score.
    """
    runs = Population(plan.settings(choosing), len(part))
    with closing(runs):
        return _branched(plan, runs, part, branches, choosing, progress)


def _branched(
    plan: _Plan,
    runs: Population,
    part: list[int],
    branches: list[_Branches],
    choosing: bool,
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    R = runs.size
    zeros = np.zeros(R, np.int64)
    runs.start(np.arange(R), np.array([plan.seeds[r] for r in part]), zeros, zeros)
    values = np.array(plan.values, np.float64)
    frames = []
    for decision in range(1, plan.points[-1] + 1):
        runs.advance(values[np.zeros(R, np.int64)])
        progress(R * plan.interval)
        here = [b for b in branches if b.point == decision]
        snap = runs.snapshot() if here else None
        for branch in here:
            assert snap is not None
            frames.append(_forks(plan, part, branch, choosing, snap, progress))
    info = runs.info()
    spent = {name: info[name] for name in ("env_steps", "eval_steps")}
    incumbents = _frame(np.array(part), "incumbent", plan.points[-1], 0, 0, np.nan)
    return pd.concat([incumbents.assign(**spent), *frames], ignore_index=True)


def _forks(
    plan: _Plan,
    part: list[int],
    branch: _Branches,
    choosing: bool,
    snap: Snapshot,
    progress: Callable[[int], Any],
) -> pd.DataFrame:
    """Forks of runs as they are in a snapshot ``(len(part),)``, to their end."""
    S = plan.streams
    cells = np.array(branch.cells, np.int64).repeat(S, axis=0)
    run, label = cells.T
    stream = np.tile(np.arange(S), len(branch.cells))
    marks = branch.point * len(_KINDS) + _KINDS.index(branch.kind)
    marks = _MARKS + (marks * 2**10 + label) * 2**10 + stream
    # in a control, labels mean nothing
    applied = np.zeros_like(label) if branch.kind.startswith("control") else label
    values = np.array(plan.values, np.float64)[applied]
    frames = []
    blocks = -(-len(cells) // SIDE_BY_SIDE)
    for rows in np.array_split(np.arange(len(cells)), blocks):
        with closing(Population(plan.settings(choosing), len(rows))) as forks:
            forks.restore(snap.select(run[rows] - part[0]))
            forks.new_streams(np.arange(len(rows)), marks[rows])
            before = forks.info()
            for _ in range(plan.decisions - branch.point):
                forks.advance(values[rows])
                progress(len(rows) * plan.interval)
            after = forks.info()
            evaluated = choosing and forks.settings.feedback == "eval"
            score = after["score"] if evaluated else forks.final_report()
        frame = _frame(
            run[rows], branch.kind, branch.point, label[rows], stream[rows], score
        )
        spent = {n: after[n] - before[n] for n in ("env_steps", "eval_steps")}
        frames.append(frame.assign(**spent))
    return pd.concat(frames, ignore_index=True)


def _frame(
    run: Ints, kind: str, point: int, configuration: Any, stream: Any, score: Any
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": run,
            "kind": kind,
            "point": point,
            "configuration": configuration,
            "stream": stream,
            "score": score,
        }
    )


def _array(plan: _Plan, frame: pd.DataFrame, kind: str, point: int) -> Floats:
    """Scores ``(R, K, S)`` of one branching; NaN: not run."""
    rows = frame[(frame["kind"] == kind) & (frame["point"] == point)]
    result = np.full((len(plan.seeds), len(plan.values), plan.streams), np.nan)
    place = tuple(rows[name].to_numpy() for name in ("run", "configuration", "stream"))
    result[place] = rows["score"]
    return result


def _gained(
    plan: _Plan,
    valued: pd.DataFrame,
    choices: Mapping[tuple[str, int], Mapping[str, Ints]],
) -> pd.DataFrame:
    """Rows of (b)."""
    rows = []
    for reading in ("pooled", "per run"):
        found = {
            (kind, point): gains(
                _array(plan, valued, _VALUED[kind], point), picks[reading]
            )
            for (kind, point), picks in choices.items()
        }
        points = [gain for (kind, _), gain in found.items() if kind == "choose"]
        mean = estimate(np.mean(points, axis=0))
        rows.append(row_of(reading, np.nan, mean, len(plan.seeds)))
        for (kind, point), gain in found.items():
            what = reading if kind == "choose" else f"control, {reading}"
            share = point / plan.decisions
            rows.append(row_of(what, share, estimate(gain), len(plan.seeds)))
    return pd.DataFrame(rows)


def row_of(
    what: str, point: float, value: Sequence[float], runs: int
) -> dict[str, Any]:
    """A row of `Branching.rows`."""
    return {
        "what": what,
        "point": point,
        **dict(zip(("value", "low", "high"), value, strict=True)),
        "runs": runs,
    }
