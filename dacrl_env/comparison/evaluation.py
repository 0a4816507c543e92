"""Run policies on the test split and judge them by their reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dacrl_env.comparison.given import PolicyLike, checked_seeds, name_of, one
from dacrl_env.comparison.order import task_first
from dacrl_env.core import checks
from dacrl_env.core.blame import blame_if_users
from dacrl_env.core.trackers import Telling, TrackedRun, Tracker, check_tracker
from dacrl_env.learners.threads import default_threads, granted
from dacrl_env.outer.decisions import intervals, tell_intervals
from dacrl_env.outer.settings import own_hyperparameters
from dacrl_env.outer.vector_env import PopulationEnv, vector_info
from dacrl_env.policies import Cost, Policy, needs
from dacrl_env.policies.tuned import on
from dacrl_env.tasks import JUDGED_BY, Knob, Number, Task
from dacrl_env.tasks.registration import ALGORITHMS, get_task, load

Columns = dict[str, NDArray[Any]]  # by name, a value for each run

BATCH = 32  # runs advanced together; also the unit of work in the store

_FIXED_COLUMNS = (
    "task",
    "policy",
    "run",
    "seed",
    "split",
    "instance",
    "member",
    "parent",
    "step",
    "env_steps",
    "eval_steps",
    "gradient_steps",
    "reward",
    "score",
    "report_score",
    "eval_return",
    "train_return",
    "diverged",
    "flops",
    "wall_seconds",
    "tuning_env_steps",
    "tuning_eval_steps",
    "tuning_gradient_steps",
    "tuning_flops",
    "report_online",
)

# on request, behind all others
TRAJECTORY = ("observation", "action")

# those that change in a run, and that a tracker is told beside what is set
_TOLD = (
    "eval_steps",
    "gradient_steps",
    "reward",
    "score",
    "report_score",
    "eval_return",
    "train_return",
    "diverged",
)


@task_first("policy")
def evaluate(
    task: str | Task,
    policy: PolicyLike,
    seeds: int | Sequence[int] = range(64),
    split: str = "test",
    *,
    name: str | None = None,
    run: int = 0,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    tracker: Tracker | None = None,
    trajectories: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """Run a policy once per seed.

    Every run is judged by the report stream, which no policy sees: 20 episodes at each
    of 20 points on the way (and before training), 100 at the end. Their cost is not
    charged to the run. A task that is judged by training is the exception, see
    :class:`dacrl_env.Task`: a report is the mean of the training episodes since the
    last one, and 0 before training.

    Args:
        task: id or task.
        policy: the policy; or its name or file, as `get_policy` takes it, or a class
            that needs no arguments.
        seeds: of the runs; paired between policies. A number n is range(n).
        split: "test" or "tuning".
        name: in the ``policy`` column; None: the name as given, or the class with
            those fields of a dataclass that differ from their defaults.
        run: number of the fit that made the policy.
        num_threads: members that are trained at a time; None: as many as there are
            cores that this process may use. No result depends on it.
        progress: called with inner environment steps done since its last call.
        tracker: told of every decision of every run, see
            :class:`dacrl_env.Tracker`; None: nobody is.
        trajectories: also keep what the policy saw and did, in two more columns:
            ``observation``, an array ``(D,)`` of float32, after the decision of the row
            (row 0: at the start); ``action``, an array ``(d,)`` in the policy's action
            mode, of the decision of the row (None in row 0). Both are None in rows
            between decisions. What was applied is in ``hp/<name>``.
        **task_kwargs: options of the environment.

    Returns:
        A row per run and decision (and per report point between decisions), with the
        columns of docs/results.md.

    Raises:
        ValueError: unknown names, no seeds, or seeds given twice.
    """
    task = get_task(task)
    made = one(policy, "policy")
    if name is None:
        name = str(policy) if isinstance(policy, str | os.PathLike) else name_of(made)
    made = on(made, task)
    tell_intervals(made, name, task, task_kwargs, stacklevel=4)
    number = default_threads() if num_threads is None else num_threads
    with granted(checks.whole("num_threads", number)):
        return run_policy(
            made,
            task,
            seeds,
            split,
            name=name,
            run=run,
            progress=progress,
            tracker=tracker,
            trajectories=trajectories,
            **task_kwargs,
        )


def run_policy(
    policy: Policy,
    task: Task,
    seeds: int | Sequence[int],
    split: str,
    *,
    name: str,
    run: int,
    progress: Callable[[int], None] | None,
    tracker: Tracker | None = None,
    label: str | None = None,
    trajectories: bool = False,
    **task_kwargs: Any,
) -> pd.DataFrame:
    """As `evaluate`, of a policy whose name is known.

    A tracker is told the label instead of the name, if there is one.
    """
    check_options(task_kwargs)
    check_tracker(tracker)
    check_trajectories(trajectories)
    seeds = checked_seeds(seeds)
    check_made_for(policy, task, name, task_kwargs)
    options = suitable_options(policy, task, task_kwargs)
    with closing(Telling(tracker, label)) as telling:
        frames = [
            _evaluate_batch(
                policy,
                task,
                batch,
                split,
                name,
                run,
                progress,
                telling,
                trajectories,
                options,
            )
            for batch in batches(seeds)
        ]
    return pd.concat(frames, ignore_index=True)


_FREED = (
    "on other tasks and runs, a policy file is tried as '<file>,any_task=True', a fit "
    "as its .policy"
)


def check_made_for(
    policy: Policy, task: Task, name: str, options: Mapping[str, Any]
) -> None:
    """Raise a ValueError if a policy says that it was made for another task or run."""
    made_for = getattr(policy, "task", None)
    if made_for not in (None, task.id):
        raise ValueError(f"{name} was made for {made_for}, not for {task.id}; {_FREED}")
    settings = getattr(policy, "settings", None)
    if settings is None:
        return
    made, now = _run_of(task, settings), _run_of(task, options)
    for option in made:
        if made[option] != now[option]:
            raise ValueError(
                f"{name} was made for runs with {option} {made[option]!r}, not "
                f"{now[option]!r}; {_FREED}"
            )


def _run_of(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """Length, intervals and feedback of runs with given options."""
    budget = options.get("budget") or task.budget
    decision = options.get("decision_interval") or budget // task.decisions
    return {
        "budget": budget,
        "decision_interval": decision,
        "eval_interval": options.get("eval_interval") or decision,
        "feedback": options.get("feedback") or JUDGED_BY[task.judged_by],
    }


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ValueError for options of the environment that are not the user's."""
    taken = [
        name for name in ("report", "num_envs", "autoreset_mode") if name in options
    ]
    if taken:
        raise ValueError(f"{', '.join(taken)} cannot be given: what is run decides it")


def check_trajectories(trajectories: Any) -> None:
    """Raise a ValueError unless it is True or False."""
    if not isinstance(trajectories, bool | np.bool_):
        raise ValueError(f"trajectories is True or False, got {trajectories!r}")


def batches(seeds: list[int], size: int = BATCH) -> Iterator[list[int]]:
    """Seeds in the parts that are run together; a single one left joins the last."""
    starts = list(range(0, len(seeds), size))
    if len(starts) > 1 and len(seeds) % size == 1:
        del starts[-1]
    for start, end in zip(starts, [*starts[1:], len(seeds)], strict=True):
        yield seeds[start:end]


def suitable_options(
    policy: Policy, task: Task, given: dict[str, Any]
) -> dict[str, Any]:
    """Options of the environment that suits a policy, the given ones first.

    Raises:
        ValueError: it does not know the algorithm, acts in another mode than is given,
            or its number of decisions is none that runs can have.
    """
    needed = needs(policy, task.algorithm)
    options = dict(given)
    if options.setdefault("action_mode", policy.action_mode) != policy.action_mode:
        raise ValueError(
            f"action_mode {options['action_mode']!r} is not that of the policy, which "
            f"acts in mode {policy.action_mode!r}; leave it out"
        )
    for name, value in (getattr(policy, "configuration", None) or {}).items():
        options.setdefault(name, value)
    options |= intervals(policy, task, options).options
    history = getattr(policy, "history", None)
    if history is not None:
        options.setdefault("history", history)
    chosen = options.get("hyperparameters")
    if chosen is None:
        chosen = getattr(policy, "controls", None) or task.controlled
        chosen = chosen or load(ALGORITHMS[task.algorithm]).controlled
    if isinstance(chosen, str | Knob):  # one is enough
        chosen = (chosen,)
    if not isinstance(chosen, Sequence):
        return options  # making the environment says what is wrong
    names = [getattr(h, "name", h) for h in chosen]
    missing = [name for name in needed if name not in names]
    options["hyperparameters"] = _wide_enough((*chosen, *missing), policy, task)
    return options


def _wide_enough(
    chosen: Sequence[str | Knob], policy: Policy, task: Task
) -> tuple[str | Knob, ...]:
    """Hyperparameters, those with the algorithm's range that a policy needs it of.

    A policy that knows what it will set says so in ``extremes``: name to smallest and
    largest value. Where a task's own range is narrower than the algorithm's, they may
    lie outside of it.
    """
    extremes = getattr(policy, "extremes", None) or {}
    whole = load(ALGORITHMS[task.algorithm]).hyperparameters
    own = own_hyperparameters(task, whole)
    wide = {h.name: h for h in whole}
    result = list(chosen)
    for k, h in enumerate(chosen):
        known = own.get(h) if isinstance(h, str) else None
        if not isinstance(known, Number) or h not in extremes:
            continue
        low, high = extremes[h]
        if low < known.low or high > known.high:
            result[k] = replace(wide[h], default=known.default)
    return tuple(result)


def _evaluate_batch(
    policy: Policy,
    task: Task,
    seeds: list[int],
    split: str,
    name: str,
    run: int,
    progress: Callable[[int], None] | None,
    telling: Telling,
    trajectories: bool,
    options: dict[str, Any],
) -> pd.DataFrame:
    envs = PopulationEnv(task, len(seeds), split=split, report=True, **options)
    with closing(envs):
        return _run_batch(
            policy, envs, seeds, split, name, run, progress, telling, trajectories
        )


def _run_batch(
    policy: Policy,
    envs: PopulationEnv,
    seeds: list[int],
    split: str,
    name: str,
    run: int,
    progress: Callable[[int], None] | None,
    telling: Telling,
    trajectories: bool,
) -> pd.DataFrame:
    P, task = len(seeds), envs.settings.task
    observations, infos = envs.reset(seed=seeds)
    theirs = getattr(policy, "policy", policy)  # of a fit
    with blame_if_users(theirs, f"policy {name}, reset()"):
        policy.reset(envs, seeds[0])
    # Runs that end early are not restarted here, unlike in PopulationEnv.step: what
    # they would do next is no part of the evaluation.
    population, state = envs.population, envs.population.state
    marks = np.array(envs.settings.report_steps)
    instances = [i.name for i in envs.settings.instances]
    common: Columns = {
        "task": np.full(P, task.id, object),
        "policy": np.full(P, name, object),
        "run": np.full(P, run),
        "seed": np.array(seeds),
        "split": np.full(P, split, object),
        "instance": np.array([instances[i] for i in state.instances], dtype=object),
        "member": np.arange(P),
        "parent": np.arange(P),
        **{name: np.full(P, value) for name, value in _tuning(policy).items()},
    }
    columns = {h.name: f"hp/{h.name}" for h in envs.settings.controlled}
    kinds = {
        h.name: float if isinstance(h, Number) else object
        for h in envs.settings.controlled
    }
    nothing: Columns = {
        columns[name]: np.full(P, np.nan if kind is float else None, kind)
        for name, kind in kinds.items()
    }
    every = np.ones(P, bool)
    rows = _rows(
        common,
        0,
        population.info(),
        np.zeros(P),
        state.reports[:, 0],
        state.wall_seconds,
        {**nothing, **(_course(observations, None) if trajectories else {})},
    )
    parts = [_of(every, rows)]
    told = [
        TrackedRun("evaluate", task.id, telling.label or name, run, seed)
        for seed in seeds
    ]
    _tell(telling, told, parts[0])
    running = np.ones(P, bool)
    step = 0
    while running.any():
        step += 1
        before = state.learner.env_steps.copy()
        with blame_if_users(theirs, f"policy {name}, act() at decision {step}"):
            actions = policy.act(observations, infos)
        outcome = envs.advance(population.actions.to_values(actions, state.requested))
        observations = population.observation()
        arrays = population.info()
        infos = vector_info(arrays, every)
        now = state.learner.env_steps
        applied = {
            column: arrays["hyperparameters"][h].astype(kinds[h])
            for h, column in columns.items()
        }
        seen: Columns = {}
        unseen: Columns = {}
        if trajectories:
            whole = not isinstance(envs.single_action_space, gym.spaces.Box)
            taken = np.asarray(actions, np.int64 if whole else np.float64)
            seen = _course(observations, taken.reshape(P, -1))
            unseen = {name: np.full(P, None) for name in TRAJECTORY}
        for point in range(1, len(marks)):
            between = running & (before < marks[point]) & (marks[point] < now)
            between &= ~np.isnan(state.reports[:, point])
            if between.any():
                rows = _between(
                    common,
                    step,
                    marks[point],
                    state.reports[:, point],
                    {**applied, **unseen},
                )
                parts.append(_of(between, rows))
                _tell(telling, told, parts[-1])
        at = np.searchsorted(marks, now)
        on_mark = marks[np.minimum(at, len(marks) - 1)] == now
        reported = np.where(
            on_mark, state.reports[np.arange(P), np.minimum(at, len(marks) - 1)], np.nan
        )
        floor = population.references().floor_score
        reported = np.where(state.diverged, floor, reported)
        rows = _rows(
            common,
            step,
            arrays,
            outcome.rewards,
            reported,
            state.wall_seconds,
            {**applied, **seen},
        )
        parts.append(_of(running, rows))
        _tell(telling, told, parts[-1])
        for i in np.flatnonzero(running & outcome.ended):
            telling.end(told[i])
        if progress is not None:
            progress(int((now - before)[running].sum()))
        running &= ~outcome.ended
    frame = pd.DataFrame(
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    )
    frame = frame.sort_values(["seed", "env_steps"], kind="stable", ignore_index=True)
    own = TRAJECTORY if trajectories else ()
    return frame[[*_FIXED_COLUMNS, *columns.values(), *own]]


def _course(observations: Any, actions: Any) -> Columns:
    """Columns of a trajectory, an array of its own in each row."""
    seen = np.array(observations, np.float32)
    taken = np.full(len(seen), None) if actions is None else np.array(actions)
    return dict(zip(TRAJECTORY, (_cells(seen), _cells(taken)), strict=True))


def _cells(rows: NDArray[Any]) -> NDArray[Any]:
    """A column ``(P,)`` of the rows ``(P, …)`` of an array."""
    column = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        column[i] = row
    return column


def _of(members: NDArray[np.bool_], rows: Columns) -> Columns:
    """A copy of the rows of some members, by mask ``(P,)``."""
    return {name: column[members] for name, column in rows.items()}


def _tell(telling: Telling, runs: Sequence[TrackedRun], rows: Columns) -> None:
    """Tell a tracker of rows of the frame, each of a member."""
    if telling.tracker is None:
        return
    own = [name for name in rows if name in _TOLD or name.startswith("hp/")]
    told = zip(
        *(rows[name].tolist() for name in ("member", "env_steps", *own)), strict=True
    )
    for member, env_steps, *values in told:
        telling.tell(runs[member], env_steps, dict(zip(own, values, strict=True)))


def _tuning(policy: Policy) -> dict[str, float]:
    """What it took to make a policy; nothing for one that was not fitted."""
    cost = getattr(policy, "cost", Cost())
    online = getattr(policy, "online", None)
    return {
        **{f"tuning_{name}": value for name, value in asdict(cost).items()},
        "report_online": np.nan if online is None else online,
    }


def _rows(
    common: Columns,
    step: int,
    info: dict[str, Any],
    rewards: NDArray[Any],
    reported: NDArray[Any],
    wall_seconds: NDArray[Any],
    applied: Columns,
) -> Columns:
    names = ("env_steps", "eval_steps", "gradient_steps", "score", "eval_return")
    return {
        **common,
        "step": np.full(len(rewards), step),
        **{key: info[key] for key in (*names, "train_return", "diverged")},
        "reward": rewards,
        "report_score": reported,
        "flops": info["objectives"]["flops"],
        "wall_seconds": wall_seconds,
        **applied,
    }


def _between(
    common: Columns,
    step: int,
    env_steps: int,
    reported: NDArray[Any],
    applied: Columns,
) -> Columns:
    """Rows of a report point that lies between two decisions."""
    P = len(reported)
    unknown = (
        "eval_steps",
        "gradient_steps",
        "reward",
        "score",
        "eval_return",
        "train_return",
        "flops",
        "wall_seconds",
    )
    return {
        **common,
        "step": np.full(P, step),
        "env_steps": np.full(P, env_steps),
        "report_score": reported,
        "diverged": np.zeros(P, bool),
        **{name: np.full(P, np.nan) for name in unknown},
        **applied,
    }
