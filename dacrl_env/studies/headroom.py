"""What dynamics are worth on a task, against strong static configurations.

Eight rungs are tuned by one searcher, `SequentialHalving`, at one budget each, over the
wide space: all numbers and choices of the algorithm.

- *static*: a configuration that holds throughout. Its search begins at the task's
  default, which is the base of a task that starts at one (`tasks.bases`). Where it
  ended all rungs begin, the static one among them, which is searched once more: no rung
  is ahead by having been tuned longer.
- *open-loop*: a schedule of every hyperparameter, which begins its search at the static
  configuration.
- *freeze* and *checkpoint*: closed loops, the rules `FreezeWhenGood` and
  `CheckpointWhenBest`, whose configuration is tuned together with the rule, from the
  static one on.
- *frozen-schedule*: the closed loop `FrozenSchedule`, a schedule of every
  hyperparameter with a rule, which are tuned together, from the static one on: what
  looking adds to a schedule.
- *restart*: the closed loop `RestartWhenPoor`, which begins networks anew where a run
  looks stuck; its configuration is tuned with it, from the static one on.
- *swap*: the closed loop `SwapWhenFallen`, which puts networks aside that have fallen
  and takes back those it put aside before; its configuration is tuned with it, from the
  static one on.
- *switch*: the closed loop `Switch`, one configuration below a score and another above
  it, which both begin at the static one.

All of that several times over, independently, and what comes out is judged by
its reports on test seeds. The *value of a schedule* is what the open-loop rung scores
above the static one. The *value of state* is what the better closed loop scores above
the better open loop (which may be the static configuration). Which open loop is better
is told by its test score, which favours the open loop; which rule is, by runs on the
tuning split that no search has seen, before any test. So is which fit of a rung is
kept. 95 % intervals are over fits and seeds, which are paired (`stats.crossed_mean`).

The control is the rule whose members go by the scores of others: what it loses is what
looking is worth. A second control compares rungs of equal worth: how often they have a
tag, see `null`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dacrl_env.comparison import stats
from dacrl_env.comparison.comparison import compare, fit_several
from dacrl_env.comparison.executors import Executor
from dacrl_env.comparison.given import checked_seeds, name_of
from dacrl_env.comparison.report import summarize
from dacrl_env.core import checks
from dacrl_env.core.checks import unknown
from dacrl_env.core.files import write_text
from dacrl_env.core.installed import version
from dacrl_env.core.store import Store
from dacrl_env.learners.events import OF_EVENTS
from dacrl_env.methods.search_space import EVENT_OF
from dacrl_env.methods.trials import rehearse
from dacrl_env.outer.settings import own_hyperparameters
from dacrl_env.policies import Fitted
from dacrl_env.policies.protocol import METHODS, fitted_bytes
from dacrl_env.tasks import Event, Knob, Number, Option, Task
from dacrl_env.tasks.headroom import KINDS, ruled
from dacrl_env.tasks.registration import ALGORITHMS, get_task, load
from dacrl_env.tasks.rungs import RULES, RUNGS, SCHEDULE, STATIC

RUNS = 1_000  # tuning budget of a rung, in complete runs
FITS = 3
SEEDS = 128
MOST_WORK = 4.0  # of a candidate, as a multiple of the default's
GENERATIONS = 3
OBJECTIVES = ("final", "auc")
CHOICE = 2**40  # first seed of runs that rules and fits are chosen by; half the tests
_FAMILIES = {STATIC: "static", SCHEDULE: "schedule", **RULES}


@dataclass(frozen=True)
class Headroom:
    """What was measured on a task.

    Args:
        task: id.
        objective: what was tuned for and is compared, "final" or "auc".
        values: by name an estimate with its interval: mean scores of each rung and of
            ``default``, ``schedule`` and ``state``, and what rules score above their
            shuffled selves.
        best: the names of the better open loop and the better rule.
        by_chance: how often rungs of equal worth have each tag, see `null`.
        chosen_by: by rung the mean report score of each fit on the tuning split.
        policies: by rung a fit each, in the order of their seeds.
        frame: test runs, a row each.
        settings: what was done, as JSON values.
    """

    task: str
    objective: str
    values: dict[str, stats.Estimate]
    best: tuple[str, str]
    by_chance: dict[str, float]
    chosen_by: dict[str, list[float]]
    policies: dict[str, list[Fitted]]
    frame: pd.DataFrame
    settings: dict[str, Any]

    @property
    def tags(self) -> tuple[str, ...]:
        """See `ruled`."""
        return ruled(self.values)

    @property
    def kept(self) -> dict[str, int]:
        """By rung the fit that is kept: the best mean score on the tuning split."""
        return {rung: int(np.argmax(each)) for rung, each in self.chosen_by.items()}

    @property
    def by_fit(self) -> dict[str, list[float]]:
        """By rung the mean report score of each fit on the test seeds."""
        rows = self.frame.groupby(["policy", "run"])[f"report_{self.objective}"].mean()
        return {rung: rows[rung].tolist() for rung in self.policies}

    @property
    def entry(self) -> dict[str, Any]:
        """Its line in ``headroom.json``, as JSON values."""
        values = {name: list(value) for name, value in self.values.items()}
        gains = {kind: values[kind] for kind in KINDS if kind in values}
        return {
            **gains,
            "objective": self.objective,
            "values": values,
            "best": list(self.best),
            "by_fit": self.by_fit,
            "by_chance": self.by_chance,
            "chosen_by": self.chosen_by,
            "settings": self.settings,
            "version": self.settings["version"],
        }


def headroom(
    task: str | Task,
    *,
    store: Store | str | os.PathLike[str],
    objective: str = "auc",
    runs: int = RUNS,
    fits: int = FITS,
    seeds: int | Sequence[int] = SEEDS,
    rungs: Sequence[str] | None = None,
    hyperparameters: Sequence[str] | None = None,
    most_work: float | None = MOST_WORK,
    generations: int = GENERATIONS,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> Headroom:
    """Tune all rungs and test them; finished units of work are found in the store.

    Args:
        task: id or task.
        store: a store or its directory.
        objective: of runs, "auc" or "final".
        runs: complete runs that tuning a rung may take, each time. The static rung
            takes them twice; all others begin where it was after the first.
        fits: independent tunings of each rung, at least 2.
        seeds: of the test runs, at least 2. A number n is range(n).
        rungs: those to be tuned, static and one rule among them; None: `suitable`.
        hyperparameters: of the wide space; None: all numbers and choices.
        most_work: see `SequentialHalving`.
        generations: see `SequentialHalving`.
        num_threads: as in :func:`dacrl_env.compare`.
        executor: as in :func:`dacrl_env.compare`.
        show_progress: progress bars on standard error.
        **task_kwargs: options of the environment.

    Raises:
        ValueError: unknown names or options, or numbers that are too small.
        StoreError: a damaged file in the store.
    """
    task = get_task(task)
    store = store if isinstance(store, Store) else Store(store)
    test_seeds = checked_seeds(seeds)
    rungs = suitable(task) if rungs is None else rungs
    _check(objective, runs, fits, test_seeds, rungs)
    knobs = wide(task, hyperparameters)
    names = [h.name for h in knobs]
    steps = int(task_kwargs.get("budget") or task.budget)
    common: dict[str, Any] = {
        "store": store,
        "num_threads": num_threads,
        "executor": executor,
    }
    searcher = load(METHODS["sequential-halving"][0])
    how = {
        "space": searched(knobs),
        "objective": objective,
        "most_work": most_work,
        "generations": generations,
        "keep_first": True,
    }
    controlled = {
        rung: [*names, *(e for f, e in EVENT_OF.items() if f == _FAMILIES[rung])]
        for rung in rungs
    }
    for rung in rungs:  # what is wrong must not come to light after hours
        method = searcher(family=_FAMILIES[rung], **how)
        given = {**task_kwargs, "hyperparameters": controlled[rung]}
        try:
            rehearse(method, task, runs * steps, **given)
        except ValueError as error:
            raise ValueError(f"{rung} on {task.id}: {error}") from error
    found: dict[str, list[Any]] = {}  # Fitted, by rung
    for stage in ([STATIC], rungs):
        wanted = []
        for rung, fit in itertools.product(stage, range(fits)):
            start, seed = None, fit
            if found:
                start = _start(_FAMILIES[rung], found[STATIC][fit].policy.config)
                seed += fits if rung == STATIC else 0  # others than it had before
            method = searcher(family=_FAMILIES[rung], start=start, **how)
            options = {**task_kwargs, "hyperparameters": controlled[rung]}
            wanted.append((method, seed, options))
        made = fit_several(
            task, wanted, runs * steps, show_progress=show_progress, **common
        )
        found = {r: made[k * fits : (k + 1) * fits] for k, r in enumerate(stage)}
    subjects = [
        (rung, k, fitted.policy)
        for rung, every in found.items()
        for k, fitted in enumerate(every)
    ]
    common |= task_kwargs
    metric = f"report_{objective}"
    fresh = [CHOICE + k for k in range((len(test_seeds) + 1) // 2)]
    tried = _tested(task, subjects, fresh, {**common, "split": "tuning"})
    means = tried.groupby(["policy", "run"])[metric].mean()
    chosen_by = {rung: means[rung].tolist() for rung in found}
    subjects += [
        (f"{rung} shuffled", k, fitted.policy.shuffled())
        for rung, every in found.items()
        if rung in RULES
        for k, fitted in enumerate(every)
    ]
    subjects.append(("default", 0, "default"))
    frame = _tested(task, subjects, test_seeds, common)
    values, best = valued(frame, metric, chosen_by)
    default = frame.loc[frame["policy"] == "default", metric].to_numpy()
    settings = {
        "runs": runs,
        "fits": fits,
        "static_twice": True,
        "seeds": [min(test_seeds), max(test_seeds)],
        "rungs": list(rungs),
        "hyperparameters": names,
        "most_work": most_work,
        "generations": generations,
        "options": json.loads(json.dumps(task_kwargs, default=repr)),
        "version": version(),
    }
    by_chance = null(len(test_seeds), default, chosen_by)
    return Headroom(
        task.id, objective, values, best, by_chance, chosen_by, found, frame, settings
    )


def wide(task: Task, names: Sequence[str] | None = None) -> list[Knob]:
    """Hyperparameters of the wide space: all numbers and choices of the algorithm.

    Numbers that mean something at an event alone are none of them.

    Args:
        task: whose ranges they have.
        names: some of them; None: all.

    Raises:
        ValueError: an unknown name, or an event.
    """
    own = own_hyperparameters(task, load(ALGORITHMS[task.algorithm]).hyperparameters)
    steady = {
        name: h
        for name, h in own.items()
        if not isinstance(h, Event) and name not in OF_EVENTS
    }
    for name in names or ():
        if name not in steady:
            raise ValueError(unknown("number or choice", name, steady))
    return [steady[name] for name in names or steady]


def suitable(task: Task) -> list[str]:
    """Rungs whose events the algorithm of a task has.

    Args:
        task: the task.
    """
    own = own_hyperparameters(task, load(ALGORITHMS[task.algorithm]).hyperparameters)
    events = {rung: EVENT_OF.get(family) for rung, family in _FAMILIES.items()}
    return [rung for rung, event in events.items() if event is None or event in own]


def valued(
    frame: pd.DataFrame, metric: str, chosen_by: Mapping[str, Sequence[float]]
) -> tuple[dict[str, stats.Estimate], tuple[str, str]]:
    """Estimates from test runs, and the names of the better open loop and rule.

    Args:
        frame: ``policy``, ``run`` (the fit), ``seed`` and the metric, a row a run.
        metric: name of its column.
        chosen_by: mean scores of each rule's fits on the tuning split, by name.
    """
    scores = {
        str(name): runs.pivot(index="run", columns="seed", values=metric).to_numpy()
        for name, runs in frame.groupby("policy", sort=False)
    }  # (fits, seeds) each
    values = {name: stats.crossed_mean(x) for name, x in scores.items()}
    gains, best = _gains(scores, chosen_by)
    values |= gains
    values["static over default"] = stats.crossed_mean(
        scores[STATIC] - scores["default"]
    )
    for rule in RULES:
        if f"{rule} shuffled" in scores:
            gain = scores[rule] - scores[f"{rule} shuffled"]
            values[f"{rule}, what looking is worth"] = stats.crossed_mean(gain)
    return values, best


def _gains(
    scores: Mapping[str, NDArray[np.float64]], chosen_by: Mapping[str, Sequence[float]]
) -> tuple[dict[str, stats.Estimate], tuple[str, str]]:
    """Values of a schedule and of state, and the better open loop and rule."""
    open_loops = [name for name in (SCHEDULE, STATIC) if name in scores]
    best_open = max(open_loops, key=lambda name: scores[name].mean())
    rules = [name for name in RULES if name in scores]
    best_rule = max(rules, key=lambda name: np.mean(chosen_by[name]))
    gains = {}
    if SCHEDULE in scores:
        gains["schedule"] = stats.crossed_mean(scores[SCHEDULE] - scores[STATIC])
    gains["state"] = stats.crossed_mean(scores[best_rule] - scores[best_open])
    return gains, (best_open, best_rule)


def null(
    seeds: int,
    scores: Sequence[float] | NDArray[np.float64],
    chosen_by: Mapping[str, Sequence[float]],
    times: int = 1_000,
    seed: int = 0,
) -> dict[str, float]:
    """How often the protocol finds gains where there are none.

    Scores of all rungs are drawn from the same ones, those of real runs of one
    configuration. Fits of a rung differ as they were measured to: to the scores of each
    a normal number is added, of the standard deviation of the fits of its rung.
    Everything else is as in `headroom`: the better rule by its score on other runs, the
    better open loop by its test score, and the rule of `ruled`.

    Args:
        seeds: test runs of each fit.
        scores: of runs of one configuration.
        chosen_by: by rung the mean scores of its fits on the tuning split, of which the
            deviation is taken alone.
        times: comparisons that are made up.
        seed: of the drawing.

    Returns:
        By tag, ``state`` and ``schedule``, the share of comparisons that had it.
    """
    rng = np.random.default_rng(seed)
    given = np.asarray(scores, np.float64)
    hits = dict.fromkeys(KINDS, 0)
    for _ in range(times):
        drawn, tried = {}, {}
        for name, each in chosen_by.items():
            fits = rng.normal(0, np.std(each, ddof=1), (len(each), 1))
            drawn[name] = fits + rng.choice(given, (len(each), seeds))
            tried[name] = (
                fits + rng.choice(given, (len(each), (seeds + 1) // 2))
            ).mean(1)
        tags = ruled(_gains(drawn, tried)[0])
        hits = {kind: hits[kind] + (kind in tags) for kind in KINDS}
    return {kind: count / times for kind, count in hits.items()}


def render(result: Headroom) -> str:
    """All values as plain text for a terminal."""
    lines = [f"{result.task}, {result.objective}: {', '.join(result.tags)}"]
    for name, value in result.values.items():
        lines.append(f"  {name:44}{stats.shown(value):>26}")
    lines.append(f"  better open loop: {result.best[0]}; better rule: {result.best[1]}")
    shares = ", ".join(f"{tag} {share:.1%}" for tag, share in result.by_chance.items())
    lines.append(f"  rungs of equal worth would be tagged: {shares}")
    return "\n".join(lines)


def write(result: Headroom, directory: str | os.PathLike[str]) -> Path:
    """Write ``headroom.json``, ``runs.csv`` and the policies of every fit.

    Returns:
        Path of ``headroom.json``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    result.frame.to_csv(folder / "runs.csv", index=False)
    for rung, every in result.policies.items():
        for k, fitted in enumerate(every):
            about = {"study": "headroom", "rung": rung, "fit": k}
            path = folder / f"{rung}-{k}.json"
            path.write_bytes(fitted_bytes(fitted, about | result.settings))
    content = {
        "task": result.task,
        **result.entry,
        "kept": {
            rung: {"fit": k, "score": result.chosen_by[rung][k]}
            for rung, k in result.kept.items()
        },
        "tags": list(result.tags),
    }
    path = folder / "headroom.json"
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path


def _check(
    objective: str, runs: int, fits: int, seeds: Sequence[int], rungs: Sequence[str]
) -> None:
    if objective not in OBJECTIVES:
        raise ValueError(unknown("objective", objective, OBJECTIVES))
    checks.whole("runs", runs)
    for rung in rungs:
        if rung not in RUNGS:
            raise ValueError(unknown("rung", rung, RUNGS))
    if len({*rungs}) < len(rungs):
        raise ValueError(f"each rung is tuned once; got {', '.join(rungs)}")
    if STATIC not in rungs or not set(rungs) & set(RULES) or rungs[0] != STATIC:
        raise ValueError(
            f"rungs begin with {STATIC}, and have one of {', '.join(RULES)} among "
            f"them; got {', '.join(rungs) or 'none'}"
        )
    if fits < 2 or len(seeds) < 2:
        raise ValueError(
            f"intervals need at least 2 fits and 2 seeds, got {fits} and {len(seeds)}"
        )


def searched(knobs: Sequence[Knob]) -> dict[str, Any]:
    """What is searched: the whole range of each, all options of a choice."""
    return {
        h.name: (h.low, h.high) if isinstance(h, Number) else list(h.options)
        for h in knobs
    }


def _start(family: str, config: Mapping[str, Option]) -> dict[str, Option]:
    """Parameters of a family by which a configuration holds throughout."""
    ends = "start", "end"
    parts = {
        "schedule": ends,
        "frozen-schedule": ends,
        "switch": ("below", "above"),
    }
    if family not in parts:
        return dict(config)
    return {f"{k}/{part}": v for k, v in config.items() for part in parts[family]}


def _tested(
    task: Task,
    subjects: Sequence[tuple[str, int, Any]],
    seeds: list[int],
    common: Mapping[str, Any],
) -> pd.DataFrame:
    """Test runs of policies, a row each; equal policies are run once.

    Args:
        task: that they are tested on.
        subjects: name, number of the fit, and policy.
        seeds: of the runs.
        common: further arguments of `compare`.
    """
    labels: dict[str, str] = {}  # by what tells policies apart
    given, shown = {}, []
    for name, run, policy in subjects:
        label = name if isinstance(policy, str) else f"{name} {run}"
        apart = name_of(policy) if is_dataclass(policy) else label
        if apart not in labels:
            labels[apart] = label
            given[labels[apart]] = policy
        shown.append(labels[apart])
    rows = summarize(compare(task, given, seeds, **common))
    frames = [
        rows[rows["policy"] == label].assign(policy=name, run=run)
        for label, (name, run, _) in zip(shown, subjects, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)
