"""Inner training that a method spends on the tuning split: advanced, forked, charged.

Every method does its work through `Trials`, which keeps the account of what was spent
and, with a store, a journal of what came out, so that an interrupted fit goes on where
it was. The journal is a list of operations with their results and a snapshot of the
runs after the last of them. A method that is started again asks for the same
operations in the same order; as long as they are in the journal they cost nothing, and
the first that is not continues from the snapshot.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dacrl_env.core import checks, trackers
from dacrl_env.core.checks import unknown
from dacrl_env.core.files import read_json, write_whole
from dacrl_env.core.installed import version
from dacrl_env.core.locks import Busy, Lock, journal_lock
from dacrl_env.core.provenance import NoSource, described, source
from dacrl_env.core.snapshot import (
    Snapshot,
    SnapshotError,
    SnapshotNotSupported,
    capture,
)
from dacrl_env.core.store import Store, StoreError, canonical
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.policies import (
    Cost,
    Fitted,
    FrontPoint,
    Method,
    Policy,
    cost_of,
    restart_when_poor,
    swap_when_fallen,
)
from dacrl_env.tasks import Number, Task
from dacrl_env.tasks.registration import definition_of, get_task

_JOURNAL = "journal.json"
CHECKPOINT_SECONDS = 30.0  # between snapshots of a journal
JOURNAL_FORMAT = 2
# how scores of a run become the number that candidates are compared by
OBJECTIVES = ("final", "best", "auc")
COST = "cost"  # of a run, beside these where methods take several objectives

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# values (P, d) by scores (P,), the best of them so far (P,) and observation rows (P,),
# among which are how many decisions the networks have had, and their best score
Rule = Callable[[Floats, Floats, Mapping[str, NDArray[Any]]], Floats]
AGE, DECISION, PEAK = "age", "decision", "peak"
_ANEW = (restart_when_poor.EVENT, swap_when_fallen.EVENT)  # other networks come


@dataclass(frozen=True)
class Observed:
    """What a policy may know after some decisions, K of them, of P runs."""

    scores: Floats  # (K, P)
    applied: Floats  # (K, P, d) values of the controlled hyperparameters
    best: Floats  # (P,) best score of the run so far
    auc: Floats  # (P,) of the run so far
    diverged: NDArray[np.bool_]  # (P,)
    cost: Floats  # (K, P) floating-point operations of the run so far

    def objective(self, name: str) -> Floats:
        """The number ``(P,)`` to compare by; −∞ for runs that diverged.

        More is better: of "cost" it is the number with the opposite sign.

        Raises:
            ValueError: unknown name.
        """
        if name == COST:
            return np.where(self.diverged, -np.inf, -self.cost[-1])
        check_objective(name)
        value = self.scores[-1] if name == "final" else getattr(self, name)
        return np.where(self.diverged | np.isnan(value), -np.inf, value)


def check_usable(score: float, trials: Trials) -> None:
    """Raise a ValueError if the best of all candidates is one that failed.

    Args:
        score: of the best, −∞ or NaN where some run of it diverged.
        trials: that it was found by.
    """
    if np.isfinite(score):
        return
    raise ValueError(
        f"every candidate on {trials.task.id} failed, there is none to return: runs of "
        "each diverged (a loss, gradient or parameter became non-finite). Search "
        f"smaller ranges of {', '.join(h.name for h in trials.controlled)}, or look at "
        "the scale of rewards and observations"
    )


def check_objective(name: str) -> None:
    """Raise a ValueError for an unknown objective."""
    if name not in OBJECTIVES:
        raise ValueError(unknown("objective", name, OBJECTIVES))


_rehearsing: ContextVar[bool] = ContextVar("rehearsing", default=False)


class Rehearsed(Exception):  # noqa: N818 - no error
    """The first training would begin now: nothing before it was wrong."""


def is_rehearsal() -> bool:
    """Whether a fit is only tried; see `rehearse`."""
    return _rehearsing.get()


def rehearsal_ends() -> None:
    """Where training begins; a rehearsal goes no further."""
    if is_rehearsal():
        raise Rehearsed


def rehearse(method: Method, task: Task, budget: int, /, **task_kwargs: Any) -> None:
    """Do what a fit does before its first training.

    Args:
        method: whose ``fit`` is one of this package's, and so stops there.
        task: the task.
        budget: inner environment steps of training.
        **task_kwargs: options of the environment.

    Raises:
        ValueError: what the fit has against its arguments, the task or the budget.
    """
    token = _rehearsing.set(True)
    try:
        with suppress(Rehearsed):
            method.fit(task, budget, 0, None, None, **task_kwargs)
    finally:
        _rehearsing.reset(token)


class Trials:
    """Runs of one task on the tuning split, and the account of a method.

    Args:
        task: id or task.
        budget: inner environment steps of training that may be spent.
        seed: of the fit; all tuning seeds derive from it.
        method: a dataclass, whose class and fields name it in the journal.
        store: where the journal is kept; None: nowhere.
        progress: called with inner environment steps done since its last call.
        **task_kwargs: options of the environment.

    With a store, nobody else can make the same journal meanwhile: until the result is
    there (`fitted`), an operation fails, `close` is called or this object is forgotten.

    Raises:
        ValueError: options of the wrong kind, or a budget below one run.
        Busy: somebody, perhaps this process, has the journal in use.
    """

    def __init__(
        self,
        task: str | Task,
        budget: int,
        seed: int,
        method: Any,
        /,  # so that the budget of a run can be among the options
        store: Store | None = None,
        progress: Callable[[int], Any] | None = None,
        **task_kwargs: Any,
    ) -> None:
        for name, why in (
            ("split", "methods see the tuning split alone"),
            ("action_mode", "methods set values"),
            ("report", "what a policy is judged by is no part of tuning"),
        ):
            if name in task_kwargs:
                raise ValueError(f"a method cannot be given {name!r}: {why}")
        self.task = get_task(task)
        self._options = dict(task_kwargs)
        self.settings = self._current = self._resolved({})
        self.budget = checks.whole("a tuning budget", budget)
        self.seed = checks.seed(seed)
        self.steps = self.settings.budget  # of one run
        self.decisions = self.steps // self.settings.decision_interval
        if budget < self.steps:
            raise ValueError(
                f"a tuning budget of {budget:,} steps is below one run of "
                f"{self.task.id}, which takes {self.steps:,}"
            )
        self.controlled = self.settings.controlled
        self.cost = Cost()
        self._runs: Population | None = None
        self._configuration: str | None = None  # of the present runs, as JSON
        self._others: dict[str, Settings] = {}  # by static configuration
        self._probes: dict[str, Population] = {}
        self._size = 0
        self._generation = -1  # fresh starts so far, the first is 0
        self._step = 0  # decisions of the present runs
        self._parents = np.zeros(0, np.int64)  # (P,) of the next decision
        self._ages = np.zeros(0, np.int64)  # (P,) decisions that networks have had
        self._peaks = np.zeros(0)  # (P,) their best score; NaN: none yet
        self._trace: list[dict[str, Any]] = []
        self._best_told = -np.inf  # score
        self._done = 0  # operations so far
        self._progress = progress
        self._journal: _Journal | None = None
        if store is not None:
            with suppress(NoSource):  # without a name there is no journal
                key = fit_key(self.task, method, self.budget, self.seed, task_kwargs)
                self._journal = _Journal(store.directory, key)

    @property
    def left(self) -> int:
        """Inner environment steps of training that may still be spent."""
        return self.budget - self.cost.env_steps

    def tuning_seeds(self, n: int, first: int = 0) -> list[int]:
        """Seeds of runs, the ``first`` ones of the fit left out.

        They differ between fits, and are the same for every method with the
        same seed.
        """
        words = np.random.SeedSequence((self.seed, 1)).generate_state(
            first + n, np.uint64
        )
        return [int(word >> np.uint64(2)) for word in words[first:]]

    # -- operations -------------------------------------------------------------

    def begin(
        self, seeds: Sequence[int], configuration: Mapping[str, Any] | None = None
    ) -> None:
        """Start fresh runs, one a seed; those before are over.

        Args:
            seeds: ``(P,)``; runs of the same seed share all random streams.
            configuration: static configuration of the runs, where it differs from that
                of the task and the options.

        Raises:
            ValueError: see `configured`.
        """
        rehearsal_ends()
        seeds = [checks.seed(seed) for seed in seeds]
        about: Any = seeds
        if configuration:
            about = [seeds, dict(configuration)]
        self._configuration = _text(configuration) if configuration else None
        self._current = self.configured(configuration or {})
        self._operation("begin", about, lambda: self._begin(seeds))
        self._size, self._step = len(seeds), 0
        self._generation += 1
        self._parents = np.arange(self._size)
        self._ages = np.zeros(self._size, np.int64)
        self._peaks = np.full(self._size, np.nan)

    def configured(self, configuration: Mapping[str, Any]) -> Settings:
        """Settings of runs with a static configuration, which may be empty.

        Raises:
            ValueError: unknown names, or values that the task cannot have.
        """
        if not configuration:
            return self.settings
        text = _text(configuration)
        if text not in self._others:
            self._others[text] = self._resolved(configuration)
        return self._others[text]

    def _resolved(self, configuration: Mapping[str, Any]) -> Settings:
        options = {**self._options, **configuration}
        return resolve(self.task, split="tuning", action_mode="values", **options)

    def advance(self, values: Floats) -> Observed:
        """Train for K decisions.

        Args:
            values: ``(K, P, d)`` of the controlled hyperparameters.

        Raises:
            ValueError: wrong shape, values out of range, more than is left of the
                budget or of the runs.
        """
        values = np.asarray(values, np.float64)
        shape = (len(values), self._size, len(self.controlled))
        if values.ndim != 3 or values.shape != shape or not len(values):
            raise ValueError(
                f"values have shape {values.shape}, expected (decisions, "
                f"{self._size}, {len(self.controlled)})"
            )
        return self._taken("advance", values, [_fixed(v) for v in values])

    def steer(self, rule: Rule, key: Floats) -> Observed:
        """Train for one decision that depends on what the runs show.

        Args:
            rule: values ``(P, d)`` of the controlled hyperparameters, by the scores
                observed last ``(P,)`` and the best so far ``(P,)``, both NaN before the
                first decision, and the observation rows by name ``(P,)``; `AGE` is the
                decisions that networks have had since they began, began anew or were
                swapped, `PEAK` their best score since then.
            key: what the rule depends on beside them, for the journal.

        Raises:
            ValueError: values out of range, more than is left of the budget or of the
                runs.
        """
        return self._taken("steer", key, [rule])

    def _taken(self, name: str, key: Floats, rules: list[Rule]) -> Observed:
        """Train for as many decisions as there are rules, and take note of them."""
        before = self.cost
        result = self._operation(name, key, lambda: self._advance(rules))
        seen = Observed(**{name: np.array(value) for name, value in result.items()})
        if trackers.is_tracked():
            self._tell(seen, before)
        about = {}
        if self._configuration is not None:
            about = {"configuration": self._configuration}
        last = len(seen.scores) - 1
        for k, (scores, applied) in enumerate(
            zip(seen.scores, seen.applied, strict=True)
        ):
            self._step += 1
            self._trace.append(
                {
                    "generation": self._generation,
                    "member": np.arange(self._size),
                    "parent": self._parents,
                    "step": self._step,
                    "score": scores,
                    "cost": seen.cost[k],
                    # known where runs are looked at, not in between
                    "diverged": seen.diverged & (k == last),
                    **about,
                    **{
                        f"hp/{h.name}": [*map(h.native, column)]
                        for h, column in zip(self.controlled, applied.T, strict=True)
                    },
                }
            )
            self._parents = np.arange(self._size)
            anew = self._is_anew(applied)
            self._ages = np.where(anew, 0, self._ages) + 1
            self._peaks = np.fmax(np.where(anew, np.nan, self._peaks), scores)
        return seen

    def _is_anew(self, applied: Floats) -> NDArray[np.bool_]:
        """Members ``(P,)`` with other networks, by applied values ``(P, d)``."""
        events = [h.name in _ANEW for h in self.controlled]
        return np.asarray((applied[:, events] > 0).any(1))

    def _tell(self, seen: Observed, before: Cost) -> None:
        """Tell a tracker of decisions, between two costs."""
        numbers = [k for k, h in enumerate(self.controlled) if isinstance(h, Number)]
        for k, (scores, applied) in enumerate(
            zip(seen.scores, seen.applied, strict=True), start=1
        ):
            best, cost = (
                int(np.argmax(scores)),
                before.towards(self.cost, k / len(seen.scores)),
            )
            self._best_told = max(self._best_told, float(scores[best]))
            told = {
                "score/mean": scores.mean(),
                "score/best": scores[best],
                "score/best_so_far": self._best_told,
                "cost/runs": self._size,
                "cost/eval_steps": cost.eval_steps,
                "cost/gradient_steps": cost.gradient_steps,
            }
            for j, h in enumerate(self.controlled):
                told[f"hp/{h.name}"] = h.native(applied[best, j])
            for j in numbers:
                told[f"hp_mean/{self.controlled[j].name}"] = applied[:, j].mean()
            trackers.tell(cost.env_steps, told)

    def fork(self, parents: Ints) -> None:
        """Member i continues from ``parents[i]``, with random streams of its own."""
        parents = np.asarray(parents)
        self._operation("fork", parents, lambda: self._live().fork(parents))
        self._parents = self._parents[parents]
        self._ages, self._peaks = self._ages[parents], self._peaks[parents]

    def check_fork(self) -> None:
        """Say before any training that `fork` will not be possible.

        Raises:
            ValueError: the inner environments cannot be copied.
        """
        runs = self._runs
        if runs is None and not is_rehearsal():
            return  # answered from the journal: it was possible before
        runs = Population(self.settings, 1) if runs is None else runs
        try:
            capture(runs.state, rows=slice(0, 1))
        except SnapshotNotSupported as error:
            raise ValueError(
                f"the method lets runs continue from copies of others, but those of "
                f"{self.task.id} cannot be copied: {error}"
            ) from error
        finally:
            if runs is not self._runs:
                runs.close()

    def work(
        self, values: Floats, configuration: Mapping[str, Any] | None = None
    ) -> Floats:
        """What a run's training takes under values, as shares ``(n,)`` of the default.

        Args:
            values: ``(n, d)`` of the controlled hyperparameters.
            configuration: static configuration, as of `begin`.
        """
        own, asked = self._probe({}), self._probe(configuration or {})
        (default,) = own.work(np.array([[h.start for h in self.controlled]]))
        if not default:  # none is counted
            return np.ones(len(values))
        return asked.work(values) / default

    def operations(self, values: Floats) -> Floats:
        """Floating-point operations ``(n,)`` of a step of training; 0: not counted.

        Args:
            values: ``(n, d)`` of the controlled hyperparameters.
        """
        return np.asarray(self._probe({}).work(values), np.float64)

    def counts_operations(self) -> bool:
        """Whether floating-point operations of runs are counted on this task."""
        default = np.array([[h.start for h in self.controlled]])
        return bool(self._probe({}).work(default)[0])

    def observation_names(self) -> tuple[str, ...]:
        """Names of the rows of an observation."""
        return self._probe({}).observation_names

    def _probe(self, configuration: Mapping[str, Any]) -> Population:
        """A run that is asked about, and never begins."""
        text = _text(configuration)
        if text not in self._probes:
            probe = Population(self.configured(configuration), 1)
            probe.close()
            self._probes[text] = probe
        return self._probes[text]

    def select(self, members: Ints) -> None:
        """Go on with some of the runs, in the given order."""
        members = np.asarray(members)
        self._operation("select", members, lambda: self._select(members))
        self._size = len(members)
        self._parents = self._parents[members]
        self._ages, self._peaks = self._ages[members], self._peaks[members]

    def judge(self) -> Floats:
        """Scores ``(P,)`` of runs that are over by the report stream; not charged.

        No method may choose by them: they tell what its choice is worth. Where tasks
        are judged by training, they are of episodes whose scores methods do see, and
        say no more than those.
        """
        return np.array(self._operation("judge", [], self._judge))

    def fitted(
        self,
        policy: Policy,
        course: Sequence[tuple[Cost, Policy]] = (),
        online: float | None = None,
        front: Sequence[FrontPoint] = (),
    ) -> Fitted:
        """The result of the method, with what was spent and the runs behind it.

        Args:
            policy: what the method returns.
            course: see `Fitted`.
            online: see `Fitted`.
            front: see `Fitted`.
        """
        self.close()
        trace = pd.concat(map(pd.DataFrame, self._trace), ignore_index=True)
        return Fitted(
            policy, self.cost, course, online, self.task.id, trace, front=front
        )

    def close(self) -> None:
        """Close the runs' inner environments, and leave the journal to others."""
        if self._journal is not None:
            self._journal.release()
        self._close_runs()

    def _close_runs(self) -> None:
        runs, self._runs = self._runs, None
        if runs is not None:
            runs.close()

    # -- live -------------------------------------------------------------------

    def _live(self) -> Population:
        if self._runs is None:
            raise ValueError("no runs are under way: call begin() first")
        return self._runs

    def _begin(self, seeds: list[int]) -> None:
        P, runs = len(seeds), self._runs
        if runs is None or runs.size != P or runs.settings is not self._current:
            self._close_runs()
            self._runs = runs = Population(self._current, P)
        zeros = np.zeros(P, np.int64)
        runs.start(np.arange(P), np.array(seeds, np.int64), zeros, zeros)
        info = runs.info()  # of the evaluation before training
        flops = float(info["objectives"]["flops"].sum())
        self.cost += Cost(eval_steps=int(info["eval_steps"].sum()), flops=flops)

    def _advance(self, rules: list[Rule]) -> dict[str, Any]:
        runs = self._live()
        state = runs.state
        K, P = len(rules), runs.size
        names = [h.name for h in self.controlled]
        every = [runs.names.index(name) for name in names]
        longest = self.settings.decision_interval * K
        running = ~runs.ended()
        if (state.learner.env_steps[running] + longest > self.steps).any():
            raise ValueError(
                f"{K} more decisions are more than is left of runs of {self.decisions}"
            )
        if running.sum() * longest > self.left:
            raise ValueError(
                f"{running.sum()} runs of {longest:,} steps exceed what is left of the "
                f"tuning budget, {self.left:,}"
            )
        scores, applied = np.empty((K, P)), np.empty((K, P, len(names)))
        operations, info = np.empty((K, P)), runs.info()
        for k, rule in enumerate(rules):
            running = ~runs.ended()
            if running.any():  # else each has diverged, and remains as it is
                known = state.learner.env_steps > 0
                observed, best = (
                    np.where(known, x, np.nan) for x in (state.score, state.best_score)
                )
                rows = runs.observation().T
                had = state.learner.env_steps // self.settings.decision_interval
                seen: dict[str, NDArray[Any]] = {
                    AGE: self._ages,
                    DECISION: had,
                    PEAK: self._peaks,
                }
                seen.update(zip(runs.observation_names, rows, strict=True))
                values = rule(observed, best, seen)
                runs.advance(runs.actions.to_values(values, state.requested))
                before, info = info, runs.info()
                self.cost += _spent(before, info, running)
            operations[k] = info["objectives"]["flops"]
            scores[k], applied[k] = state.score, state.applied[:, every]
            if self._progress is not None:
                self._progress(int(running.sum()) * self.settings.decision_interval)
        return {
            "scores": scores.tolist(),
            "applied": applied.tolist(),
            "best": state.best_score.tolist(),
            "auc": state.auc.tolist(),
            "diverged": state.diverged.tolist(),
            "cost": operations.tolist(),
        }

    def _select(self, members: Ints) -> None:
        runs = self._live()
        try:
            snap = runs.snapshot()
        except SnapshotNotSupported:
            snap = runs.snapshot(exact=False)
        self._close_runs()
        snap = snap.select(members)
        self._runs = Population(self._current, len(members))
        self._runs.restore(snap)

    def _judge(self) -> list[float]:
        scores: list[float] = self._live().final_report().tolist()
        return scores

    # -- journal ----------------------------------------------------------------

    def _continued(self, state: Path) -> Population:
        """The runs as a journal left them."""
        try:
            snap = Snapshot.load(state)
            runs = Population(self._current, snap.size)
            runs.restore(snap)
        except (SnapshotError, FileNotFoundError) as error:
            raise StoreError(
                f"{state} cannot be used ({error}); delete its directory to fit anew"
            ) from error
        return runs

    def _operation(self, name: str, arguments: Any, run: Callable[[], Any]) -> Any:
        """The result of an operation, from the journal or by doing it."""
        if self._journal is None:
            return run()
        try:
            return self._journalled(self._journal, name, arguments, run)
        except BaseException:  # it may stay in memory for long, in a traceback
            self.close()
            raise

    def _journalled(
        self, journal: _Journal, name: str, arguments: Any, run: Callable[[], Any]
    ) -> Any:
        journal.take()
        digest = _digest(name, arguments)
        number, self._done = self._done, self._done + 1
        if number < len(journal.records):
            record = journal.records[number]
            if record["digest"] != digest:
                raise StoreError(
                    f"{journal.path} records another course of this fit (operation "
                    f"{number} is {record['name']}); delete that directory to fit anew"
                )
            before, self.cost = self.cost, cost_of(record["cost"])
            if self._progress is not None:
                self._progress(self.cost.env_steps - before.env_steps)
            return record["result"]
        if self._runs is None and journal.state is not None and name != "begin":
            self._runs = self._continued(journal.state)
        if name == "begin":
            journal.commit(None)  # what came before needs no snapshot any more
        result = run()
        journal.records.append(
            {
                "name": name,
                "digest": digest,
                "result": result,
                "cost": asdict(self.cost),
            }
        )
        if time.monotonic() - journal.saved >= CHECKPOINT_SECONDS:
            # without it, the journal waits for the next `begin`
            with suppress(SnapshotNotSupported):
                journal.commit(self._live().snapshot())
        return result


class _Journal:
    """Operations of one fit with their results, and the runs after the last.

    Args:
        directory: of the store.
        key: of the fit.

    Raises:
        Busy: somebody else has it.
        StoreError: it is damaged.
    """

    def __init__(self, directory: Path, key: dict[str, Any]) -> None:
        self.key, self.directory = key, directory
        self.path = journal_path(directory, key)
        self.records: list[dict[str, Any]] = []
        self.state: Path | None = None
        self.saved = time.monotonic()
        self._lock: Lock | None = journal_lock(directory, key)
        try:
            self._read()
        except BaseException:
            self.release()
            raise

    def take(self) -> None:
        """Have it to oneself, again if it was released.

        Raises:
            Busy: somebody else has it.
            StoreError: somebody else went on with it meanwhile.
        """
        if self._lock is not None:
            return
        self._lock = journal_lock(self.directory, self.key)
        if self._stamp() != self._known:
            self.release()
            raise StoreError(
                f"{self.path} was gone on with elsewhere since; begin the fit again, "
                "which goes on from what is there"
            )

    def release(self) -> None:
        """Leave it to others."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _stamp(self) -> tuple[int, ...] | None:
        """Tells whether the journal has been written since."""
        try:
            about = (self.path / _JOURNAL).stat()
        except FileNotFoundError:
            return None
        return about.st_ino, about.st_mtime_ns, about.st_size

    def _read(self) -> None:
        file = self.path / _JOURNAL
        self._known = self._stamp()
        if file.exists():
            try:
                self._take_over(read_json(file.read_bytes(), nan=True))
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{file} is damaged ({error}); delete its directory to fit anew"
                ) from error
        self._committed = len(self.records)

    def _take_over(self, content: dict[str, Any]) -> None:
        """Take over what `commit` wrote.

        Raises:
            ValueError: something else, or of another fit.
        """
        if content.get("format") != JOURNAL_FORMAT:
            raise ValueError(f"its format is {content.get('format')!r}")
        if content.get("checksum") != _checksum(content):
            raise ValueError("its checksum does not match")
        if canonical(content["key"]) != canonical(self.key):
            raise ValueError("it is of another fit")
        name = content["state"]
        if name is not None and not re.fullmatch(r"state-\d+\.safetensors", name):
            raise ValueError(f"{name!r} is no file of runs")
        for record in content["records"]:
            if not {type(record["name"]), type(record["digest"])} == {str}:
                raise ValueError("an operation has no name and digest")
            cost_of(record["cost"])
        names = ("name", "digest", "result", "cost")
        self.records = [{k: r[k] for k in names} for r in content["records"]]
        self.state = None if name is None else self.path / name

    def commit(self, snap: Snapshot | None) -> None:
        """Write all records so far, and the runs as they are after them."""
        if self._committed == len(self.records):
            return
        self.path.mkdir(parents=True, exist_ok=True)
        old, name = self.state, None
        if snap is not None:
            name = f"state-{len(self.records)}.safetensors"
            snap.save(self.path / name)
        content = {
            "format": JOURNAL_FORMAT,
            "key": self.key,
            "state": name,
            "records": self.records,
        }
        content["checksum"] = _checksum(content)
        # from here on the new state counts
        write_whole(self.path / _JOURNAL, json.dumps(content).encode())
        self._known = self._stamp()
        self.state = None if name is None else self.path / name
        if old is not None and old != self.state:
            old.unlink(missing_ok=True)
        self._committed = len(self.records)
        self.saved = time.monotonic()


def fit_key(
    task: Task,
    method: Any,
    budget: int,
    seed: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What names a fit: everything its result depends on.

    Raises:
        NoSource: of the method, an option or the task it cannot be told.
    """
    arguments = {f.name: getattr(method, f.name) for f in fields(method)}
    return {
        "kind": "fit",
        "version": version(),
        "task": task.id,
        # a user's task may change under the same id
        "definition": definition_of(task),
        "settings": settings_key(options),
        "method": f"{type(method).__module__}:{type(method).__qualname__}",
        "arguments": described(arguments, type(method)),
        "budget": budget,
        "seed": seed,
        "origin": source(method),
    }


def settings_key(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the environment as JSON, without what changes no result.

    Raises:
        NoSource: of one it cannot be told what it is.
    """
    described_options: dict[str, Any] = described(dict(options))
    described_options.pop("num_threads", None)
    return described_options


def journal_path(directory: Path, key: Mapping[str, Any]) -> Path:
    """Where the journal of a fit is kept in a store, until the fit is finished."""
    digest = hashlib.sha256(canonical(key).encode()).hexdigest()[:16]
    return directory / "fits" / digest


def forget_journal(directory: Path, key: Mapping[str, Any]) -> None:
    """Remove what a finished fit needs no more, unless somebody is using it."""
    path = journal_path(directory, key)
    if not path.exists():
        return
    with suppress(Busy), journal_lock(directory, key):
        shutil.rmtree(path, ignore_errors=True)


def _fixed(values: Floats) -> Rule:
    """The rule that does not look."""
    return lambda scores, best, rows: values


def _spent(
    before: dict[str, Any], after: dict[str, Any], running: NDArray[np.bool_]
) -> Cost:
    """What runs that were under way used in between."""

    def used(info: Callable[[dict[str, Any]], Any]) -> Any:
        return (info(after) - info(before))[running].sum()

    return Cost(
        env_steps=int(used(lambda info: info["env_steps"])),
        eval_steps=int(used(lambda info: info["eval_steps"])),
        gradient_steps=int(used(lambda info: info["gradient_steps"])),
        flops=float(used(lambda info: info["objectives"]["flops"])),
    )


def _checksum(content: Mapping[str, Any]) -> str:
    """Of all that a journal holds."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _text(configuration: Mapping[str, Any]) -> str:
    """A static configuration as JSON, by which it is known."""
    return json.dumps(dict(configuration), sort_keys=True)


def _digest(name: str, arguments: Any) -> str:
    if isinstance(arguments, np.ndarray):
        words = f"{arguments.dtype.str}{arguments.shape}".encode()
        data = words + np.ascontiguousarray(arguments).tobytes()
    else:
        data = json.dumps(arguments).encode()
    return hashlib.sha256(name.encode() + data).hexdigest()[:16]
