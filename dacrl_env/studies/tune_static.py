"""The strongest static configuration of a task: the comparator of everything dynamic.

Independent searches (`SequentialHalving` in several generations, over all numbers and
choices of the algorithm, and if asked for over static configuration) find a candidate
each. They meet the task's default, the published configuration (`tasks.public`), the
base that is kept of the task and what `dacrl headroom --keep` found in a final, on
seeds of the tuning split that no search used; the best mean report score wins. The best
of several means is too high an estimate, so the winner is run once more, on other
seeds, beside the default. The test split is not touched.

From the first round of the searches, or from candidates that are drawn for it
(``probes``), which both lie all over the space, follows how much each knob matters: of
the first rounds by PED-ANOVA, of what was drawn uniformly by fANOVA
(`studies.importance`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison import stats
from dacrl_env.comparison.comparison import check, compare, fit
from dacrl_env.comparison.executors import Executor
from dacrl_env.comparison.report import summarize
from dacrl_env.core import checks
from dacrl_env.core.checks import unknown
from dacrl_env.core.files import write_text, write_whole
from dacrl_env.core.installed import version
from dacrl_env.core.store import Store, canonical
from dacrl_env.methods.trials import Trials, rehearse
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import Cost, Fitted, fitted_bytes, to_json
from dacrl_env.policies.protocol import METHODS
from dacrl_env.policies.static import Static
from dacrl_env.studies import menus
from dacrl_env.studies.finalists import (
    Finalist,
    measured,
    once_each,
    plain,
    published,
    reduced,
    work_of,
)
from dacrl_env.studies.headroom import GENERATIONS, MOST_WORK, searched, wide
from dacrl_env.studies.importance import check_evaluators, importance, trials_of
from dacrl_env.tasks import Task, bases
from dacrl_env.tasks.registration import get_task, load
from dacrl_env.tasks.rungs import STATIC

RUNS = 1_000  # of a search
FITS = 3
SEEDS = 128  # of each finalist, and once more of the winner
FIRST = 1_000  # seed of the first search: the rungs of `headroom` begin at 0
OBJECTIVES = bases.OBJECTIVES
CONFIGURATIONS = ("none", "all")
DEFAULT = "default"


@dataclass(frozen=True)
class TunedStatic:
    """What was found for a task.

    Args:
        task: the task.
        objective: what was tuned for, "final" or "auc".
        finalists: the default first; the winner is ``chosen``.
        chosen: the winner.
        score: its mean report score on seeds that it was not chosen by.
        gain: that above the default's on the same seeds, paired.
        cost: of the searches and the final; ``runs`` are complete ones.
        runs: of the searches and of the final.
        importance: share of each knob, the largest first; see `importance`.
        rests_on: candidates that it rests on.
        left_out: known configurations that are no finalists, and why.
        trials: runs of the searches, a row each.
        tested: runs of the final and the estimate, a row each.
        settings: what was done, as JSON values.
    """

    task: Task
    objective: str
    finalists: list[Finalist]
    chosen: Finalist
    score: stats.Estimate
    gain: stats.Estimate
    cost: Cost
    runs: int
    importance: dict[str, float]
    rests_on: int
    left_out: dict[str, str]
    trials: pd.DataFrame
    tested: pd.DataFrame
    settings: dict[str, Any]

    def content(self) -> dict[str, Any]:
        """What ``tune-static.json`` holds."""
        return {
            "task": self.task.id,
            "objective": self.objective,
            "chosen": self.chosen.about(),
            "score": list(self.score),
            "gain over default": list(self.gain),
            "finalists": [f.about() for f in self.finalists],
            "left out": self.left_out,
            "cost": {"runs": self.runs, **asdict(self.cost)},
            "importance": self.importance,
            "importance rests on": self.rests_on,
            "settings": self.settings,
        }

    def fitted(self) -> Fitted:
        """The winner as a policy that can be written out."""
        score = self.chosen.score
        return Fitted(
            self.chosen.policy,
            self.cost,
            online=None if score is None else score.value,
            task=self.task.id,
            settings=self.settings["options"],
            about=self.about(),
        )

    def about(self) -> dict[str, Any]:
        """What its policy file says of it."""
        return {
            "study": "tune-static",
            "finalist": self.chosen.name,
            "source": self.chosen.source,
            "objective": self.objective,
            "score": list(self.score),
            **self.settings,
        }


def tune_static(
    task: str | Task,
    *,
    store: Store | str | os.PathLike[str],
    objective: str = "auc",
    runs: int = RUNS,
    fits: int = FITS,
    probes: int = 0,
    seeds: int = SEEDS,
    first: int = FIRST,
    most_work: float | None = MOST_WORK,
    generations: int = GENERATIONS,
    configurations: str = "none",
    hyperparameters: Sequence[str] | None = None,
    num_threads: int | None = None,
    executor: str | Executor | None = None,
    show_progress: bool = False,
    **task_kwargs: Any,
) -> TunedStatic:
    """Search, choose, and estimate; finished units of work are found in the store.

    Args:
        task: id or task.
        store: a store or its directory.
        objective: of runs, "final" or "auc".
        runs: complete runs that a search may take.
        fits: independent searches; 0: what is known alone is in the final.
        probes: complete runs of one candidate each, drawn over the whole space, by
            which importance is told; 0: by the first round of the searches.
        seeds: runs of each finalist, and as many more of the winner and the default,
            at least 2.
        first: seed of the first search; the others follow. A task whose default was
            found by this study is searched anew from other seeds.
        most_work: see `SequentialHalving`; published configurations may take more.
        generations: see `SequentialHalving`.
        configurations: "all": static configuration is searched, too, over the menu of
            the algorithm (`studies.menus`). "none": it stays the task's, and of a
            published configuration hyperparameters alone are taken.
        hyperparameters: that are searched; None: all numbers and choices. A published
            configuration that differs in others is left out.
        num_threads: as in :func:`dacrl_env.compare`.
        executor: as in :func:`dacrl_env.compare`.
        show_progress: progress bars on standard error.
        **task_kwargs: options of the environment.

    Raises:
        ValueError: unknown names or options, or numbers that are too small; before
            anything is trained.
        ModuleNotFoundError: probes without Optuna or scikit-learn.
        StoreError: a damaged file in the store.
    """
    task = get_task(task)
    store = store if isinstance(store, Store) else Store(store)
    _check(objective, configurations, fits, seeds, runs, first, probes)
    if probes:
        check_evaluators(["fanova"])
    knobs = wide(task, hyperparameters)
    names = [h.name for h in knobs]
    steps = int(task_kwargs.get("budget") or task.budget)
    method = load(METHODS["sequential-halving"][0])
    how: dict[str, Any] = {
        "space": searched(knobs),
        "objective": objective,
        "most_work": most_work,
        "generations": generations,
        "keep_first": True,
    }
    own = {**task_kwargs, "hyperparameters": names}
    if configurations == "all":
        probe = Trials(task, runs * steps, first, method(), **own)
        how["configurations"] = menus.usable(probe, task_kwargs)
        probe.close()
    rehearse(method(**how), task, runs * steps, **own)
    common = {"num_threads": num_threads, "store": store, **task_kwargs}
    tested = {**common, "split": "tuning", "executor": executor}
    known, left_out = published(task, names, configurations == "all", task_kwargs)
    before, without = measured(task, names, task_kwargs)
    finalists = [Finalist(DEFAULT, Static(), f"the default of {task.id}", 1.0)]
    finalists += [*known, *before]
    left_out |= without
    # what is wrong must not come to light after hours
    check(task, _policies(finalists), seeds, **tested)
    found: list[Fitted] = []
    trials: list[pd.DataFrame] = []
    menu = how.get("configurations") or {}
    config = resolve(task, **task_kwargs).config
    steady = {name: getattr(config, name) for name in menu}
    for k in range(fits):
        given = {**common, "hyperparameters": names, "show_progress": show_progress}
        found.append(fit(task, method(**how), runs * steps, first + k, **given))
        trials.append(trials_of(found[-1], k, steady))
        policy: Any = found[-1].policy
        least = reduced(task, policy.config, policy.configuration, task_kwargs)
        work = work_of(task, least, task_kwargs)
        source = f"sequential halving of {runs:,} runs, seed {first + k}"
        finalists.append(Finalist(f"fit {k}", least, source, work))
    finalists = once_each(finalists)
    drawn: list[pd.DataFrame] = []
    if probes:
        space = {n: how[n] for n in ("space", "objective", "most_work")}
        probed = load(METHODS["random-search"][0])(**space)
        given = {**common, "hyperparameters": names, "show_progress": show_progress}
        found.append(fit(task, probed, probes * steps, first + fits, **given))
        drawn.append(trials_of(found[-1], fits))

    chosen_by, estimated_by = _fresh_seeds(task, finalists, seeds)
    tested["show_progress"] = show_progress
    frame = summarize(compare(task, _policies(finalists), chosen_by, **tested))
    metric = f"report_{objective}"
    scores = {str(name): rows[metric] for name, rows in frame.groupby("policy")}
    finalists = [
        Finalist(
            f.name, f.policy, f.source, f.work, stats.mean_interval(scores[f.name])
        )
        for f in finalists
    ]
    best = max(finalists, key=lambda f: f.score.value if f.score else -np.inf)
    pair = once_each([finalists[0], best])
    again = summarize(compare(task, _policies(pair), estimated_by, **tested))
    values = {
        str(name): rows.sort_values("seed")[metric].to_numpy()
        for name, rows in again.groupby("policy")
    }
    cost = sum((f.cost for f in found), _cost_of(frame))
    every = pd.concat(trials, ignore_index=True) if fits else pd.DataFrame()
    early = method(**how).first_round(runs)
    evaluator = "fanova" if probes else "ped-anova"
    spread = drawn[0] if probes else every.groupby("fit").head(early) if fits else every
    settings = {
        "runs": runs,
        "fits": fits,
        "probes": probes,
        "seeds": seeds,
        "first": first,
        "most_work": most_work,
        "generations": generations,
        "hyperparameters": names,
        "configurations": json.loads(json.dumps(menu)),
        "options": json.loads(json.dumps(task_kwargs, default=repr)),
        "version": version(),
    }
    return TunedStatic(
        task=task,
        objective=objective,
        finalists=finalists,
        chosen=best,
        score=stats.mean_interval(values[best.name]),
        gain=stats.mean_interval(values[best.name] - values[DEFAULT]),
        cost=cost,
        runs=sum(len(part) for part in trials + drawn) + len(frame),
        importance=importance(spread, knobs, objective, evaluator)
        if len(spread)
        else {},
        rests_on=len(spread),
        left_out=left_out,
        trials=every,
        tested=pd.concat([frame.assign(part="final"), again.assign(part="estimate")]),
        settings=settings,
    )


def write(result: TunedStatic, directory: str | os.PathLike[str]) -> Path:
    """Write ``tune-static.json``, ``trials.csv``, ``runs.csv`` and the policy.

    Returns:
        Path of ``tune-static.json``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    result.trials.to_csv(folder / "trials.csv", index=False)
    result.tested.to_csv(folder / "runs.csv", index=False)
    policy = fitted_bytes(result.fitted(), result.about())
    write_whole(folder / f"{STATIC}.json", policy)
    path = folder / "tune-static.json"
    write_text(path, json.dumps(result.content(), indent=2) + "\n")
    return path


def render(result: TunedStatic) -> str:
    """What was found as plain text for a terminal."""
    lines = [f"{result.task.id}, {result.objective}: {result.chosen.name}"]
    lines.append(f"  {'score':28}{stats.shown(result.score)}")
    lines.append(f"  {'above the default':28}{stats.shown(result.gain)}")
    lines.append("final, by score; work as a multiple of the default's")
    ranked = sorted(result.finalists, key=lambda f: -(f.score or (0.0,))[0])
    lines += [f"  {f.name:28}{stats.shown(f.score)}  work {f.work:.3g}" for f in ranked]
    lines += [f"  {name} is left out: {why}" for name, why in result.left_out.items()]
    policy = result.chosen.policy
    for name, value in {**policy.configuration, **policy.config}.items():
        lines.append(f"  {name:28}{value}")
    if result.importance:
        lines.append(f"importance, of {result.rests_on} runs")
        for name, share in list(result.importance.items())[:8]:
            lines.append(f"  {name:28}{share:.2f}")
    else:
        lines.append("importance: too few candidates, or no package optuna")
    lines.append(f"{result.runs:,} runs, {result.cost.env_steps:,} steps")
    return "\n".join(lines)


def _check(
    objective: str,
    configurations: str,
    fits: int,
    seeds: int,
    runs: int,
    first: int,
    probes: int,
) -> None:
    if objective not in OBJECTIVES:
        raise ValueError(unknown("objective", objective, OBJECTIVES))
    if configurations not in CONFIGURATIONS:
        raise ValueError(unknown("configurations", configurations, CONFIGURATIONS))
    checks.whole("runs", runs)
    checks.whole("fits", fits, least=0)
    checks.whole("probes", probes, least=0)
    checks.whole("seeds", seeds, least=2)
    checks.seed(first)


def _policies(finalists: Sequence[Finalist]) -> dict[str, Static]:
    return {f.name: f.policy for f in finalists}


def _fresh_seeds(
    task: Task, finalists: Sequence[Finalist], n: int
) -> tuple[list[int], list[int]]:
    """Seeds of the final, and of the estimate.

    They follow from who is in the final, so that a base that an earlier final has
    chosen is not tested on the seeds that it was chosen by.
    """
    about = {
        "task": task.id,
        "defaults": dict(task.defaults),
        "configuration": {k: plain(v) for k, v in task.configuration.items()},
        "finalists": [to_json(f.policy) for f in finalists],
    }
    digest = hashlib.sha256(canonical(about).encode()).digest()
    words = np.frombuffer(digest, np.uint32)
    state = np.random.SeedSequence(words.tolist()).generate_state(2 * n, np.uint64)
    seeds = [int(word >> np.uint64(2)) for word in state]
    return seeds[:n], seeds[n:]


def _cost_of(frame: pd.DataFrame) -> Cost:
    """Of test runs, a row each."""
    kinds = {f.name: type(getattr(Cost(), f.name)) for f in fields(Cost)}
    return Cost(**{name: kind(frame[name].sum()) for name, kind in kinds.items()})
