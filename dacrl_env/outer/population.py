"""The engine: P inner runs of one task, advanced together decision by decision.

Both outer environments are thin shells around it. What members see and how they are
advanced, evaluated, copied and forked is one state machine, and stands together.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import numpy as np
from gymnasium import error
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval
from dacrl_env.core import memory, streams
from dacrl_env.core import snapshot as snapshots
from dacrl_env.core.isolation import as_usual
from dacrl_env.inner_envs.faults import InnerEnvError
from dacrl_env.learners.protocol import Algorithm
from dacrl_env.outer import observations, reports
from dacrl_env.outer.actions import ActionMap
from dacrl_env.outer.applied import Applied
from dacrl_env.outer.physics import constants
from dacrl_env.outer.rewards import RewardContext, rewarded
from dacrl_env.outer.settings import Settings
from dacrl_env.outer.state import Outcome, PopulationState, UnderWay
from dacrl_env.tasks import REPORT_POINTS, Option, References
from dacrl_env.tasks.registration import load_learner, make_inner_env

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# what a forked member keeps: the name of its streams after the next restart
_IDENTITY = ("seeds", "seed_members", "episodes")
IN_STEP = (
    "the last step did not reach its end, so that the runs are between two decisions: "
    "reset() all of them, or restore() a snapshot"
)


class Population:
    """P runs and the operations on them.

    A copy, by :mod:`copy` or by pickling, consists of the settings and of a copy of the
    state, for which a learner of its own is made: what learners keep beside the state,
    views of it and scratch memory, is no part of it.

    Args:
        settings: of the environment.
        size: number of members.
        state: of runs that go on; None: there are none yet.
        follows: a learner of a run that somebody else trains, who calls `begin_step`,
            `look` and `end_step` themselves; None: this package trains.
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        state: PopulationState | None = None,
        follows: Any = None,
    ) -> None:
        self.settings = settings
        self.size = size
        self.env = make_inner_env(settings.task) if follows is None else follows.env
        self.physics = constants(settings.instances, self.env, settings.task.inner_env)
        self._references = settings.task.references(settings.instances)
        learner = load_learner(settings.task.algorithm, settings.implementation)
        if self.env.num_actions == 0 and not learner.continuous_actions:
            raise ValueError(
                f"inner environment {settings.task.inner_env} has continuous actions; "
                f"algorithm {settings.task.algorithm} needs Discrete ones"
            )
        # whether actions are; a policy can take others as far as numbers go
        self._bounded = bool(
            np.isfinite([self.env.action_low, self.env.action_high]).all()
        )
        self.learner: Algorithm = follows
        if follows is None:
            self._check_memory(learner)
            self.learner = learner(
                self.env,
                make_inner_env(settings.task, reuse=True),
                settings.config,
                settings.budget,
                settings.steady(),
            )
        self.actions = ActionMap(settings.controlled, settings.action_mode)
        self._applied = Applied(
            settings.hyperparameters,
            settings.controlled,
            learner.hyperparameters,
            lambda values: self.learner.constrain(
                values, settings.config, settings.budget
            ),
        )
        self.names = self._applied.names
        # a coming change of physics is not to be known
        self._shown = tuple(
            name for name in self.env.physics if not name.startswith("shift_")
        )
        self.observation_names = observations.names(
            settings.controlled,
            self.learner.signal_names,
            self._shown if settings.observe_instance else (),
            settings.history,
        )
        self.state = self._blank() if state is None else state
        self._report_seconds = 0.0
        self._in_step = np.zeros(size, bool)  # or left in the middle of one

    def _check_memory(self, learner: type[Algorithm]) -> None:
        """Refuse more runs, or larger ones, than there is memory for.

        Raises:
            ValueError: with the option that takes most.
        """
        s, env = self.settings, self.env
        row = len(
            observations.names(
                s.controlled,
                learner.signal_names,
                list(env.physics) if s.observe_instance else (),
                1,
            )
        )
        features = math.prod(env.observation_shape)
        hidden = max(getattr(s.config, "hidden_sizes", ()), default=1)
        each = 8 * (features + hidden) + 300 + env.object_bytes
        parts = {
            name: self.size * number
            for name, number in learner.member_bytes(
                s.config, s.budget, env, s.steady()
            ).items()
        }
        parts["eval_episodes"] = self.size * s.eval_episodes * each
        # the state, its copies and bounds, and a name for each number
        parts["history"] = s.history * row * (20 * self.size + 100)
        options = {name: getattr(s.config, name, None) for name in parts}
        options |= {"eval_episodes": s.eval_episodes, "history": s.history}
        memory.check(self.size, parts, options)

    # -- copies -----------------------------------------------------------------

    def __copy__(self) -> Population:
        """As a deep copy: two populations cannot train one state."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Population:
        """Runs that go on alike, bit for bit.

        Raises:
            SnapshotNotSupported: the inner environments cannot be copied.
        """
        state = snapshots.copied(self.state)
        settings = copy.deepcopy(self.settings, memo)
        return _continued(settings, self.size, state, self._in_step.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled.

        Raises:
            SnapshotNotSupported: the inner environments cannot be pickled.
        """
        state = snapshots.packed(self.state)
        return _unpickled, (self.settings, self.size, state, self._in_step)

    def _blank(self) -> PopulationState:
        """A state of the right shapes; `start` gives it meaning."""
        P, s = self.size, self.settings
        keys = np.stack([streams.member_keys(s.split, 0, i, 0) for i in range(P)])
        features = len(self.observation_names) // s.history
        learner = self.learner.init(keys, np.repeat(self.physics[:1], P, 0))

        def zeros(dtype: Any = np.float64) -> NDArray[Any]:
            return np.zeros(P, dtype)

        return PopulationState(
            learner=learner,
            seeds=zeros(np.int64),
            seed_members=zeros(np.int64),
            episodes=zeros(np.int64),
            instances=zeros(np.int64),
            requested=self.actions.defaults(P),
            applied=np.zeros((P, len(self.names))),
            ignored=np.zeros((P, len(self.names)), bool),
            happened_at=np.full((P, len(self._applied.happenings)), -1),
            decisions=zeros(np.int64),
            diverged=zeros(bool),
            score=zeros(),
            initial_score=zeros(),
            best_score=zeros(),
            auc=zeros(),
            eval_return=zeros(),
            train_return=zeros(),
            episode_length=zeros(),
            initial_return=zeros(),
            low_return=zeros(),
            high_return=zeros(),
            best_at=zeros(np.int64),
            evaluations=zeros(np.int64),
            eval_steps=zeros(np.int64),
            fork_gradient_steps=zeros(np.int64),
            samples=zeros(np.int64),
            update_flops=zeros(),
            wall_seconds=zeros(),
            reports=np.full((P, REPORT_POINTS + 1), np.nan),
            since_report=np.zeros((P, 2)),
            observation=np.zeros((P, s.history, features), np.float32),
        )

    # -- outer steps ------------------------------------------------------------

    @as_usual
    def start(
        self,
        members: Ints,
        seeds: Ints,
        seed_members: Ints,
        episodes: Ints,
        instance: int | None = None,
    ) -> None:
        """Begin new runs in some members' places.

        Args:
            members: ``(m,)`` places.
            seeds: ``(m,)``, with the next two the name of each run's streams.
            seed_members: ``(m,)``.
            episodes: ``(m,)``.
            instance: index of the instance; None: drawn from the stream.
        """
        state, s = self.state, self.settings
        began, self._report_seconds = time.perf_counter(), 0.0
        self._in_step[members] = True
        keys = np.stack(
            [
                streams.member_keys(s.split, int(a), int(b), int(c))
                for a, b, c in zip(seeds, seed_members, episodes, strict=True)
            ]
        )
        if instance is None:
            draw = keys[:, streams.PURPOSES.index("instance")]
            count = np.full(len(members), len(s.instances))
            chosen = streams.integers(draw, np.zeros_like(count), 1, count)[:, 0]
        else:
            chosen = np.full(len(members), instance)
        self.learner.restart(state.learner, members, keys, self.physics[chosen])
        state.seeds[members] = seeds
        state.seed_members[members] = seed_members
        state.episodes[members] = episodes
        state.instances[members] = chosen
        state.requested[members] = self.actions.defaults(len(members))
        state.applied[members] = self._applied.of(state.requested[members])
        state.happened_at[members] = -1
        state.ignored[members] = False
        state.eval_return[members] = np.nan
        state.train_return[members] = np.nan
        for zeroed in (
            state.decisions,
            state.diverged,
            state.score,
            state.auc,
            state.episode_length,
            state.best_at,
            state.evaluations,
            state.eval_steps,
            state.fork_gradient_steps,
            state.samples,
            state.update_flops,
            state.wall_seconds,
            state.since_report,
        ):
            zeroed[members] = 0
        state.reports[members] = np.nan
        mask = np.zeros(self.size, bool)
        mask[members] = True
        self._evaluate(mask)
        self._report(mask)
        if s.feedback == "eval":
            scale = self.references(members)
            state.score[members] = scale.score(state.eval_return[members])
            self._check_scores(members)
            first = state.eval_return[members]
        else:  # nothing is known yet: the return of a random policy
            first = self.references(members).random
        for into in (state.initial_return, state.low_return, state.high_return):
            into[members] = first
        state.initial_score[members] = state.score[members]
        state.best_score[members] = state.score[members]
        nothing = {n: np.zeros(self.size) for n in self.learner.signal_names}
        rows = self._features(self._observed_return(), nothing)
        state.observation[members] = rows[members, None]
        spent = time.perf_counter() - began - self._report_seconds
        state.wall_seconds[members] += spent / len(members)
        self._in_step[members] = False

    def advance(self, requested: Floats) -> Outcome:
        """Apply values ``(P, d)`` and train until the next decision.

        Raises:
            ResetNeeded: the last step, or reset, was interrupted, or failed, in its
                middle.
        """
        self._check_whole()
        state = self.state
        began, self._report_seconds = time.perf_counter(), 0.0
        context = self._train(requested)
        # a function of the user's, under numpy's settings of the user's
        rewards = rewarded(self.settings.reward, context, self._when)
        spent = time.perf_counter() - began - self._report_seconds
        state.wall_seconds += spent / self.size
        self._in_step[:] = False
        return Outcome(rewards, context.ended)

    def _check_whole(self) -> None:
        if self._in_step.any():
            raise error.ResetNeeded(IN_STEP)

    @as_usual
    def _train(self, requested: Floats) -> RewardContext:
        """Train until the next decision, and say what came of it."""
        step, s, learner = self.begin_step(requested), self.settings, self.state.learner
        remaining = s.decision_interval
        while remaining:
            steps = min(remaining, self._steps_to_next_point())
            self.learner.train(learner, step.values, steps, step.interval)
            remaining -= steps
            self.look(step, learner.env_steps % s.eval_interval == 0)
        return self.end_step(step)

    @as_usual
    def begin_step(self, requested: Floats) -> UnderWay:
        """Apply values ``(P, d)``; training, `look` and `end_step` are to follow."""
        state, learner = self.state, self.state.learner
        acted_by, _ = self.learner.flops(self.values())
        state.applied = self._applied.of(requested)
        state.requested = self._applied.held(requested, state.applied)
        self._in_step[:] = True
        values = self.values()
        before = (
            state.score.copy(),
            state.best_score.copy(),
            self._observed_return(),
        )
        over, acted = self.ended(), learner.env_steps + state.eval_steps
        for name, members in self.learner.happen(learner, values).items():
            state.ignored[:, self.names.index(name)] = members
            state.applied[members, self.names.index(name)] = 0.0
        for e, (k, code) in enumerate(self._applied.happenings):
            now = state.applied[:, k] == code
            state.happened_at[now, e] = learner.env_steps[now]
        interval = self.learner.begin_interval(learner)
        began_at = learner.env_steps.copy()
        return UnderWay(values, interval, began_at, over, acted, acted_by, *before)

    @as_usual
    def look(self, step: UnderWay, due: NDArray[np.bool_]) -> None:
        """Find out who has diverged; evaluate others by mask ``(P,)``, and report."""
        state, learner = self.state, self.state.learner
        state.diverged |= self.learner.diverged(learner, step.interval)
        self._evaluate(due & ~state.diverged)
        marked = np.isin(learner.env_steps, self.settings.report_steps)
        self._report(marked, step.interval)

    @as_usual
    def end_step(self, step: UnderWay) -> RewardContext:
        """Take note of what came of an outer step."""
        state, s, learner = self.state, self.settings, self.state.learner
        interval = step.interval
        signals = self.learner.signals(learner, step.values, interval)
        state.decisions += 1
        state.samples += interval.samples
        act, learn = self.learner.flops(step.values)
        changed = step.acted * (step.acted_by - act)
        state.update_flops += interval.samples * learn + changed
        finished = interval.episodes > 0
        count = np.maximum(interval.episodes, 1)
        state.train_return = np.where(
            finished, interval.returns / count, state.train_return
        )
        state.episode_length = np.where(
            finished, interval.lengths / count, state.episode_length
        )
        state.since_report += np.stack([interval.returns, interval.episodes], axis=1)
        state.since_report[~np.isfinite(state.since_report).all(1)] = 0.0
        seen = self._observed_return()
        scale = self.references()
        state.score = np.where(state.diverged, scale.floor_score, scale.score(seen))
        self._check_scores(slice(None))
        state.best_score = np.maximum(state.best_score, state.score)
        better = seen > state.high_return
        state.best_at = np.where(better, learner.env_steps, state.best_at)
        state.high_return = np.maximum(state.high_return, seen)
        state.low_return = np.minimum(state.low_return, seen)
        ended = self.ended()
        fraction = (learner.env_steps - step.began_at) / s.budget
        left = 1 - learner.env_steps / s.budget
        area = state.score * (fraction + np.where(state.diverged, left, 0.0))
        state.auc += np.where(step.over, 0.0, area)
        rows = self._features(step.previous_return, signals)
        state.observation[:, 1:] = state.observation[:, :-1].copy()
        state.observation[:, 0] = rows
        return RewardContext(
            score=state.score.copy(),
            previous_score=step.previous_score,
            best_score=state.best_score.copy(),
            previous_best_score=step.previous_best,
            fraction=fraction,
            remaining=left,
            ended=ended,
            diverged=state.diverged.copy(),
        )

    def _when(self, members: Ints) -> str:
        steps = self.state.learner.env_steps[members]
        return f"environment steps {', '.join(map(str, steps.tolist()))} of the run"

    def _check_scores(self, members: Ints | slice) -> None:
        """Raise an InnerEnvError for observed scores that are not finite."""
        if np.isfinite(self.state.score[members]).all():
            return
        bad = np.flatnonzero(~np.isfinite(self.state.score))
        returns = self._observed_return()[bad].tolist()
        raise InnerEnvError(
            f"inner environment {self.settings.task.inner_env} gives returns that have "
            f"no finite score (members {bad.tolist()}: {returns}) at {self._when(bad)}"
        )

    def values(self) -> dict[str, Floats]:
        """Values ``(P,)`` applied last, by name, as the learner takes them."""
        return self._applied.by_name(self.state.applied)

    def _steps_to_next_point(self) -> int:
        """Environment steps until some member is due for an evaluation or report."""
        steps, s = self.state.learner.env_steps, self.settings
        nearest = int((s.eval_interval - steps % s.eval_interval).min())
        if reports.wanted(s):
            marks = np.array((*s.report_steps, np.iinfo(np.int64).max))
            ahead = marks[np.searchsorted(marks, steps, side="right")] - steps
            nearest = min(nearest, int(ahead.min()))
        return nearest

    # -- evaluation -------------------------------------------------------------

    def _evaluate(self, due: NDArray[np.bool_]) -> None:
        """What policies may see; members by mask."""
        if self.settings.feedback != "eval" or not due.any():
            return
        state, members = self.state, np.flatnonzero(due)
        episodes = self.settings.eval_episodes
        returns, steps = self.play(
            members, "evaluation", state.evaluations[members], episodes
        )
        finite = self._finite(returns)
        # what an environment without bounds makes of a policy that diverges
        state.diverged[members[~finite]] = True
        state.eval_return[members[finite]] = returns[finite].mean(1)
        state.evaluations[members] += 1
        state.eval_steps[members] += steps

    def _report(self, due: NDArray[np.bool_], interval: Interval | None = None) -> None:
        """See `reports.take`; what it takes is no time of the runs."""
        began = time.perf_counter()
        reports.take(self, due, interval)
        self._report_seconds += time.perf_counter() - began

    @as_usual
    def final_report(self) -> Floats:
        """Scores ``(P,)`` that runs are judged by at their end: the last report.

        Raises:
            ValueError: some are not.
        """
        if not self.ended().all():
            raise ValueError("runs are reported at their end; some are under way")
        return reports.final(self)

    def scored(self, members: Ints, returns: Floats) -> Floats:
        """Report scores ``(m,)`` of members' returns ``(m, E)``."""
        scale = self.references(members)
        scores = scale.score(np.where(self._finite(returns), returns.mean(1), np.nan))
        return np.where(np.isnan(scores), scale.floor_score, scores)

    def _finite(self, returns: Floats) -> NDArray[np.bool_]:
        """Members ``(m,)`` with finite returns ``(m, E)`` of their episodes.

        Raises:
            InnerEnvError: others, where that is not the learner's failure.
        """
        with np.errstate(all="ignore"):
            finite = np.isfinite(returns.mean(1))
        if finite.all() or not self._bounded:
            return np.asarray(finite)
        raise InnerEnvError(
            f"inner environment {self.settings.task.inner_env} gives returns that are "
            f"not finite: {returns[~finite][0].tolist()}"
        )

    def play(
        self, members: Ints, purpose: str, number: Ints, episodes: int
    ) -> tuple[Floats, Ints]:
        """Returns ``(m, episodes)`` and steps ``(m,)`` of episodes without learning.

        Args:
            members: ``(m,)`` whose networks act.
            purpose: of their streams.
            number: ``(m,)`` of the evaluation, or of the report.
            episodes: that are played.
        """
        state = self.state
        base = state.learner.keys[members, streams.PURPOSES.index(purpose)]
        keys = streams.bits(base, number, episodes)
        physics = self.physics[state.instances[members]]
        result: tuple[Floats, Ints] = self.learner.play(
            state.learner, members, keys, physics
        )
        return result

    def references(self, members: Ints | slice = slice(None)) -> References:
        """What the members' returns are normalised by, each on its own instance."""
        return self._references.rows(self.state.instances[members])

    def ended(self) -> NDArray[np.bool_]:
        """Members ``(P,)`` whose run is over."""
        steps = self.state.learner.env_steps
        return self.state.diverged | (steps >= self.settings.budget)

    @as_usual
    def config_of(self, requested: Floats) -> dict[str, Option]:
        """Controlled values of the first member as they would be applied."""
        return self._applied.config(requested)

    # -- what is seen -----------------------------------------------------------

    def _observed_return(self) -> Floats:
        """The latest ``(P,)``; where there is none yet, that of a random policy."""
        known = self._known_return()
        return np.where(np.isnan(known), self.references().random, known)

    def _known_return(self) -> Floats:
        """The latest ``(P,)``; NaN where there is none yet."""
        feedback = self.settings.feedback == "eval"
        return self.state.eval_return if feedback else self.state.train_return

    def _features(
        self, previous_return: Floats, signals: dict[str, Floats]
    ) -> NDArray[np.float32]:
        state, s = self.state, self.settings
        shown = [list(self.env.physics).index(name) for name in self._shown]
        default = np.array([self.env.physics[name] for name in self._shown], float)
        instance = observations.instance_features(
            self.physics[state.instances][:, shown], default
        )
        with np.errstate(all="ignore"):  # a diverged member's signals are not numbers
            return observations.features(
                progress=state.learner.env_steps / s.budget,
                hyperparameters=observations.knob_features(
                    s.controlled,
                    state.applied[:, self._applied.columns],
                    self._since_events(),
                ),
                returns={
                    "now": self._observed_return(),
                    "level": np.nan_to_num(self._known_return()),
                    "previous": previous_return,
                    "initial": state.initial_return,
                    "low": state.low_return,
                    "high": state.high_return,
                },
                since_best=(state.learner.env_steps - state.best_at) / s.budget,
                signals={name: signals[name] for name in self.learner.signal_names},
                units=self.learner.signal_units,
                episode_length=state.episode_length,
                instance=instance if s.observe_instance else instance[:, :0],
            )

    def _since_events(self) -> Floats:
        """Shares ``(P, e)`` of the budget since each event; 1: it never happened."""
        at = self.state.happened_at
        since = (self.state.learner.env_steps[:, None] - at) / self.settings.budget
        return np.where(at < 0, 1.0, since)

    def work(self, requested: Floats) -> Floats:
        """Floating-point operations ``(n,)`` of an environment step of training.

        Args:
            requested: ``(n, d)`` values of the controlled hyperparameters.
        """
        values = self._applied.by_name(self._applied.of(requested))
        act, learn = self.learner.flops(values)
        return act + self.learner.samples_per_step(values) * learn

    def observation(self) -> NDArray[np.float32]:
        """Observations ``(P, D)``."""
        return self.state.observation.reshape(self.size, -1).copy()

    def info(self) -> dict[str, Any]:
        """The info of every member as arrays ``(P,)``; NaN where there is none."""
        state, learner = self.state, self.state.learner
        act, _ = self.learner.flops(self.values())
        acted = learner.env_steps + state.eval_steps
        gradient_steps = learner.gradient_steps + state.fork_gradient_steps
        told: dict[str, Any] = {
            "env_steps": learner.env_steps.copy(),
            "eval_steps": state.eval_steps.copy(),
            "gradient_steps": gradient_steps,
            "score": state.score.copy(),
            "eval_return": state.eval_return.copy(),
            "train_return": state.train_return.copy(),
            "hyperparameters": self._applied.shown(state.applied),
            "objectives": {
                "final": state.score.copy(),
                "best": state.best_score.copy(),
                "auc": state.auc.copy(),
                "wall_seconds": np.where(self.ended(), state.wall_seconds, np.nan),
                "training_steps": learner.env_steps.copy(),
                "evaluation_steps": state.eval_steps.copy(),
                "gradient_steps": gradient_steps.copy(),
                "samples": state.samples.copy(),
                "flops": acted * act + state.update_flops.astype(np.int64),
            },
            "diverged": state.diverged.copy(),
        }
        if self._applied.happenings:
            told["ignored"] = self._applied.told(state.ignored)
        return told

    def close(self) -> None:
        """Close inner environments that are objects."""
        self.learner.close(self.state.learner)

    # -- snapshots --------------------------------------------------------------

    def snapshot(self, exact: bool = True) -> snapshots.Snapshot:
        """A copy of the whole state.

        Args:
            exact: False leaves out environment objects that cannot be saved; a
                restored population then begins new inner episodes.

        Raises:
            ResetNeeded: the last step, or reset, was interrupted in its middle.
            SnapshotNotSupported: exact, and the environments cannot be copied or the
                learner does not promise it.
        """
        self._check_whole()
        if exact and not self.learner.exact_snapshots:
            raise snapshots.SnapshotNotSupported(
                f"implementation {self.settings.implementation!r} has no exact "
                "snapshots; use snapshot(exact=False), which keeps the learner and "
                "restarts the environments"
            )
        arrays = snapshots.capture(self.state, opaque=exact)
        return snapshots.Snapshot(self._header(exact), arrays)

    def restore(self, snap: snapshots.Snapshot) -> None:
        """Continue from a snapshot; changes nothing if it does not fit.

        Raises:
            SnapshotError: see `check`.
        """
        self.check(snap)
        snapshots.restore(self.state, snap)
        self._in_step[:] = False
        if not snap.header["exact"]:
            self.begin_episodes()

    def check(self, snap: snapshots.Snapshot) -> None:
        """Whether a snapshot fits.

        Raises:
            SnapshotError: it does not; see :func:`dacrl_env.core.snapshot.check`.
        """
        snapshots.check(self.state, snap, self._header(exact=True))
        s = self.settings
        left = s.budget - snap.arrays["learner.env_steps"]
        if (left % s.decision_interval).any():
            raise snapshots.SnapshotError(
                f"the snapshot's runs have {sorted(set(left.tolist()))} steps left, "
                f"which do not divide by the decision_interval {s.decision_interval}"
            )

    def begin_episodes(self) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        self.learner.begin_episodes(self.state.learner)

    def over(self, snap: snapshots.Snapshot) -> NDArray[np.bool_]:
        """Members of a snapshot whose run is over.

        Raises:
            SnapshotError: it does not fit.
        """
        snapshots.check(self.state, snap, self._header(exact=True))
        spent = snap.arrays["learner.env_steps"] >= self.settings.budget
        return np.asarray(spent | snap.arrays["diverged"])

    def _header(self, exact: bool) -> dict[str, Any]:
        return snapshots.make_header(
            self.settings.task.id, self.settings.shaping(), exact
        )

    def fork(self, parents: Any, shared_streams: bool = False) -> None:
        """Member i continues from the state of member ``parents[i]``.

        Args:
            parents: ``(P,)`` indices.
            shared_streams: True: also with the parent's random streams, so that equal
                actions give equal runs; False: with streams of its own.

        Raises:
            ResetNeeded: the last step, or reset, was interrupted in its middle.
            ValueError: wrong shape or an index outside the population.
        """
        self._check_whole()
        index = np.asarray(parents)
        if index.shape != (self.size,) or index.dtype.kind not in "iu":
            raise ValueError(
                f"parents must be {self.size} integers, got {index.dtype} "
                f"{list(index.shape)}"
            )
        if index.min() < 0 or index.max() >= self.size:
            raise ValueError(
                f"parents must lie between 0 and {self.size - 1}, got {index.tolist()}"
            )
        children = np.flatnonzero(index != np.arange(self.size))
        if len(children) == 0:
            return
        copies = snapshots.objects(self.state, index[children])
        for name, leaf in snapshots.leaves(self.state):
            if name in copies:
                leaf[children] = copies[name]
            elif name not in _IDENTITY:
                snapshots.move_rows(leaf, children, index[children])
        if not shared_streams:
            steps = self.state.learner.env_steps[children]
            self.new_streams(children, steps * self.size + children)

    def new_streams(self, members: Ints, marks: Ints) -> None:
        """Give members streams that no other run draws from.

        Args:
            members: ``(m,)`` places.
            marks: ``(m,)`` numbers, not negative. Copies of one run draw the same
                where their marks are the same, in whatever population they are.
        """
        learner = self.state.learner
        for purpose in range(learner.keys.shape[1]):
            keys = learner.keys[members, purpose]
            learner.keys[members, purpose] = streams.bits(keys, marks, 1)[:, 0]
        self.learner.reseed(learner, members, marks)


def _continued(
    settings: Settings, size: int, state: PopulationState, in_step: NDArray[np.bool_]
) -> Population:
    population = Population(settings, size, state)
    population._in_step = in_step
    return population


def _unpickled(
    settings: Settings, size: int, state: PopulationState, in_step: NDArray[np.bool_]
) -> Population:
    return _continued(settings, size, snapshots.unpacked(state), in_step)
