"""A user's run of Stable-Baselines3, described as runs of this package are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    sync_envs_normalization,
)

from dacrl_env.algorithms.sb3.follower import MODELS, Play
from dacrl_env.core import streams
from dacrl_env.core.checks import whole
from dacrl_env.learners.rollout import play
from dacrl_env.outer.settings import Settings, own_hyperparameters, resolve
from dacrl_env.policies import needs
from dacrl_env.tasks import Knob, Number, Task
from dacrl_env.tasks.knobs import Event
from dacrl_env.tasks.registration import (
    TASKS,
    get_task,
    listed,
    load_learner,
    make_inner_env,
)

ALGORITHMS: dict[str, type] = {"dqn": DQN, "ppo": PPO, "sac": SAC}
DECISIONS = 20  # of a run, where nobody has said how many
_RETURNS = ("random", "reference", "floor")
_ADVICE = (  # with the id of a task
    "give returns={'random': ..., 'reference': ..., 'floor': ...}, or another task of "
    "the algorithm, as in task=%r; for a policy that does not look at scores, such as "
    "a schedule, any three numbers do"
)

Ints = NDArray[np.int64]


def algorithm_of(model: Any) -> str:
    """What a model's algorithm is called here.

    Raises:
        ValueError: one that this package does not have.
    """
    for name, kind in ALGORITHMS.items():
        if isinstance(model, kind):
            return name
    raise ValueError(
        f"DynamicConfigCallback sets hyperparameters of Stable-Baselines3's "
        f"{', '.join(kind.__name__ for kind in ALGORITHMS.values())}; this model is a "
        f"{type(model).__name__}"
    )


def checked_returns(returns: Any) -> dict[str, float] | None:
    """Returns that scores are computed with, as fields of a task.

    Raises:
        ValueError: other names, or another number of them.
    """
    if returns is None:
        return None
    if not isinstance(returns, Mapping):
        named = isinstance(returns, Sequence) and len(returns) == len(_RETURNS)
        if not named or isinstance(returns, str):
            raise ValueError(
                f"returns are those of score 0, of score 1, and of a run that has "
                f"diverged: {', '.join(_RETURNS)}; got {returns!r}"
            )
        returns = dict(zip(_RETURNS, returns, strict=True))
    if set(returns) != set(_RETURNS):
        raise ValueError(
            f"returns need {', '.join(_RETURNS)}; got {', '.join(map(str, returns))}"
        )
    return {f"{name}_return": returns[name] for name in _RETURNS}


def task_of(
    model: Any, given: str | Task | None, returns: Any, policy: Any, name: str
) -> Task:
    """The task whose scale, ranges and number of decisions a run has.

    Args:
        model: of Stable-Baselines3.
        given: a task or its id; None: the one that the policy was made for, or the
            first on the model's own environment.
        returns: of `checked_returns`, before the task's own.
        policy: may have been made for a task.
        name: of it.

    Raises:
        ValueError: no task and no returns; a task of another algorithm than the
            model's, or than the policy was made for.
    """
    algorithm, made_for = algorithm_of(model), getattr(policy, "task", None)
    if given is not None:
        task = get_task(given)
    elif returns is not None:
        task = Task(
            id=f"{type(model).__name__} model",
            inner_env=_env_id(model) or "unknown",
            algorithm=algorithm,
            budget=DECISIONS,
            decisions=DECISIONS,
            **returns,
        )
    elif made_for in TASKS:
        task = TASKS[made_for]
    else:
        task = _known(model, algorithm)
    if task.algorithm != algorithm:
        raise ValueError(
            f"the task {task.id} is of algorithm {task.algorithm}, the model of "
            f"{algorithm} ({type(model).__name__}); valid here: "
            f"{', '.join(t.id for t in listed() if t.algorithm == algorithm)}"
        )
    if given is not None and made_for not in (None, task.id):
        raise ValueError(
            f"{name} was made for {made_for}, not for {task.id}; a policy file is "
            "tried on others as '<file>,any_task=True', a fit as its .policy"
        )
    return task if returns is None else replace(task, **returns)


def _known(model: Any, algorithm: str) -> Task:
    """The first task of the algorithm on the model's environment."""
    env_id = _env_id(model)
    for task in TASKS.values():
        same = (task.inner_env, task.algorithm) == (env_id, algorithm)
        if same and not task.always_varied and not task.inner_env_kwargs:
            return task
    where = f" {env_id}" if env_id else ", which has no id"
    example = next(t.id for t in listed() if t.algorithm == algorithm)
    raise ValueError(
        f"no task of {algorithm} has the model's environment{where}, so that nothing "
        f"says which return has score 1; {_ADVICE % example}"
    )


def _env_id(model: Any) -> str | None:
    """Gymnasium's id of the environment that a model trains in, if it has one."""
    try:
        spec = model.get_env().get_attr("spec", 0)[0]
    except (AttributeError, NotImplementedError):
        return None
    return getattr(spec, "id", None)


# -- intervals -------------------------------------------------------------------------


def marks(budget: int, unit: int, number: int | None, interval: int | None) -> Ints:
    """Environment steps where something is due, the end included.

    Args:
        budget: of the run.
        unit: steps that cannot be divided further.
        number: of parts of the run; or
        interval: steps between two, a multiple of the unit.
    """
    end = -(-budget // unit) * unit
    if interval is not None:
        return np.append(np.arange(interval, end, interval), end)
    assert number is not None
    # rounded up, so that decision k of n is at k/n of the budget, or just after it
    return np.array(
        [-(-k * budget // (number * unit)) * unit for k in range(1, number + 1)]
    )


def unit_of(model: Any, algorithm: str) -> tuple[int, str]:
    """Environment steps that cannot be divided further, and what they are."""
    if algorithm == "ppo":
        unit = model.n_envs * model.n_steps
        return unit, f"a rollout of this model is {unit:,} steps"
    return model.n_envs, f"this model takes {model.n_envs} steps at a time"


# -- settings --------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a run is like.

    Args:
        settings: as of an environment with ``implementation="sb3"``.
        decisions: environment steps at which decisions end, the last at the end.
        evaluations: at which there are evaluations.
        note: how decisions differ from what the policy asks for; empty: they do not.
    """

    settings: Settings
    decisions: Ints
    evaluations: Ints
    note: str = ""


def plan(
    model: Any,
    task: Task,
    policy: Any,
    budget: int,
    *,
    hyperparameters: Any = None,
    decision_interval: int | None = None,
    eval_interval: int | None = None,
    **options: Any,
) -> Plan:
    """What a run of a model under a policy is like.

    Args:
        model: of Stable-Baselines3.
        task: see `task_of`.
        policy: its wishes are heeded as `evaluate` heeds them.
        budget: environment steps.
        hyperparameters: that the policy sets; None: see `_controlled`.
        decision_interval: environment steps; None: as many decisions as the policy or
            the task has, or as the budget has room for.
        eval_interval: environment steps; None: as many evaluations as the task has
            decisions, likewise.
        **options: of the environment.

    Raises:
        ValueError: a budget below one decision, or in which nothing is learned;
            intervals that are none; hyperparameters that a model cannot set.
    """
    algorithm = task.algorithm
    unit, unit_is = unit_of(model, algorithm)
    if budget < unit:
        raise ValueError(
            f"budget {budget:,} is below one decision: {unit_is}; give at least "
            f"{unit:,}"
        )
    starts = getattr(model, "learning_starts", 0)
    if budget <= starts:
        raise ValueError(
            f"budget {budget:,} is not above the model's learning_starts {starts:,}: "
            "nothing would ever be learned; give a larger budget, or a smaller "
            "learning_starts"
        )
    for name, interval in (
        ("decision_interval", decision_interval),
        ("eval_interval", eval_interval),
    ):
        if interval is not None and (interval % unit or interval > budget):
            raise ValueError(
                f"{name} {interval:,} must be a multiple of {unit:,}, since {unit_is}, "
                f"and at most the budget {budget:,}"
            )
    most = budget // unit
    wishes = [getattr(policy, n, None) for n in ("decisions", "decisions_near")]
    wanted = wishes[0] or wishes[1] or task.decisions
    if decision_interval is None:
        decision_interval = getattr(policy, "decision_interval", None)
        if decision_interval is not None:
            decision_interval = max(-(-decision_interval // unit), 1) * unit
    at = marks(budget, unit, min(wanted, most), decision_interval)
    usual = min(task.decisions, most)
    evaluated = marks(budget, unit, usual, eval_interval)
    note = ""
    if wishes[0] and decision_interval is None and wishes[0] > most:
        note = f"{most} decisions a run instead of {wishes[0]}, since {unit_is}"
    history = options.pop("history", None) or getattr(policy, "history", None) or 1
    controlled = _controlled(model, task, policy, hyperparameters)
    nominal = len(at) * unit * -(-max(budget, starts + 1) // (len(at) * unit))
    settings = resolve(
        replace(
            task,
            budget=nominal,
            decisions=len(at),
            controlled=None,
            always_varied=False,
            ranges={},
            defaults=_defaults(model, task),
            configuration=_configuration(model, algorithm),
        ),
        implementation="sb3",
        hyperparameters=controlled,
        action_mode=policy.action_mode,
        instances="default",
        history=history,
        **options,
    )
    settings = replace(
        settings,
        task=replace(settings.task, id=task.id),
        budget=budget,
        decision_interval=decision_interval or max(budget // len(at), 1),
        eval_interval=eval_interval or max(budget // usual, 1),
    )
    return Plan(settings, at, evaluated, note)


def _configuration(model: Any, algorithm: str) -> dict[str, Any]:
    """Static configuration that the model tells of."""
    if algorithm == "ppo":
        return {"num_inner_envs": model.n_envs, "rollout_length": model.n_steps}
    return {
        "num_inner_envs": model.n_envs,
        "learning_starts": model.learning_starts,
        "replay_capacity": max(model.buffer_size, model.n_envs),
    }


def _defaults(model: Any, task: Task) -> dict[str, Any]:
    """Values of hyperparameters as the model has them, as far as they are some.

    A schedule of the model's own has no value: that is the task's, or the algorithm's.
    """
    kind = load_learner(task.algorithm, "sb3")
    known = own_hyperparameters(replace(task, ranges={}), kind.hyperparameters)
    wide = {h.name: h for h in kind.hyperparameters}
    found = {
        name: h.default for name, h in known.items() if h.default != wide[name].default
    }
    found |= {name: value for name, value in kind.only.items() if name in known}
    for name, value in MODELS[task.algorithm].values_of(model).items():
        if value is None or name not in known:
            continue
        knob = known[name]
        if isinstance(knob, Number):
            value = min(max(float(value), knob.low), knob.high)
        found[name] = value
    return {n: v for n, v in found.items() if not isinstance(known[n], Event)}


def _controlled(
    model: Any, task: Task, policy: Any, chosen: Any
) -> tuple[str | Knob, ...]:
    """What the policy sets: as given, or what it names itself, or the task's.

    A range is the task's, or where the policy or the model goes beyond it the
    algorithm's.

    Raises:
        ValueError: what cannot be set while a model trains, or lies outside of what an
            action can mean.
    """
    algorithm = task.algorithm
    kind = load_learner(algorithm, "sb3")
    asked = needs(policy, algorithm)
    if chosen is None:
        chosen = getattr(policy, "controls", None) or asked
        chosen = chosen or task.controlled or kind.controlled
    chosen = (chosen,) if isinstance(chosen, str | Knob) else tuple(chosen)
    names = [getattr(h, "name", h) for h in chosen]
    chosen = (*chosen, *(name for name in asked if name not in names))
    names = [getattr(h, "name", h) for h in chosen]
    own, current = MODELS[algorithm], MODELS[algorithm].values_of(model)
    settable = [
        h.name
        for h in kind.hyperparameters
        if h.name in own.SETTERS and h.name not in (*kind.only, *kind.unchanging)
    ]
    if wrong := [name for name in names if name not in settable]:
        raise ValueError(
            f"a {type(model).__name__} of Stable-Baselines3 cannot set "
            f"{', '.join(map(str, wrong))} while it trains; valid: "
            f"{', '.join(settable)}"
        )
    if "ent_rule" in names and model.log_ent_coef is None:
        raise ValueError(
            "ent_rule has a temperature learned, for which the model must be made with "
            f"ent_coef='auto'; this one has ent_coef={model.ent_coef!r}, of which "
            "'alpha' can be set"
        )
    extremes = getattr(policy, "extremes", None) or {}
    wide = {h.name: h for h in kind.hyperparameters}
    ranges = own_hyperparameters(task, kind.hyperparameters)
    result: list[str | Knob] = []
    for name, h in zip(names, chosen, strict=True):
        knob = ranges[name] if isinstance(h, str) else h
        value = current.get(name)
        if not isinstance(knob, Number):
            result.append(knob if value is None else replace(knob, default=value))
            continue
        whole_range = wide[name]
        assert isinstance(whole_range, Number)
        value = knob.default if value is None else float(value)
        if not whole_range.low <= value <= whole_range.high:
            raise ValueError(
                f"the model's {name} {value:g} lies outside [{whole_range.low:g}, "
                f"{whole_range.high:g}], which is all that actions set; make the model "
                f"with another, or leave {name} out of hyperparameters"
            )
        ends = (value, *extremes.get(name, ()))
        if isinstance(h, str) and not knob.low <= min(ends) <= max(ends) <= knob.high:
            knob = whole_range
        result.append(replace(knob, default=value))
    return tuple(result)


# -- evaluation ------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelEnv:
    """What an inner environment is like, of which a model alone knows more."""

    num_actions: int
    action_low: NDArray[np.float64]
    action_high: NDArray[np.float64]
    physics: Mapping[str, float]

    @classmethod
    def of(cls, model: Any) -> ModelEnv:
        """That of a model."""
        space = model.action_space
        if hasattr(space, "n"):
            return cls(int(space.n), np.empty(0), np.empty(0), {})
        low, high = (np.ravel(end).astype(float) for end in (space.low, space.high))
        return cls(0, low, high, {})


def check_spaces(model: Any, task: Task) -> Any:
    """The task's inner environment, if the model's actions are its actions.

    Raises:
        ValueError: they are others.
    """
    inner, own = make_inner_env(task), ModelEnv.of(model)
    theirs = inner.num_actions, len(inner.action_low)
    if theirs != (own.num_actions, len(own.action_low)):
        raise ValueError(
            f"the model acts in {model.action_space}, the inner environment "
            f"{task.inner_env} of {task.id} has {_told(*theirs)}; give the task that "
            "fits the model, or returns instead of a task"
        )
    return inner


def _told(num_actions: int, components: int) -> str:
    if num_actions:
        return f"{num_actions} discrete actions"
    return f"actions of {components} real number{'s' if components > 1 else ''}"


def own_episodes(model: Any, task: Task, inner: Any) -> Play:
    """Evaluation episodes in the task's inner environment, as the package plays them.

    Raises:
        ValueError: the model sees other observations.
    """
    shape = inner.observation_shape or (1,)
    if model.observation_space.shape not in (shape, (shape[-1:] + shape[:-1])):
        raise ValueError(
            f"the model sees observations of shape {model.observation_space.shape}, "
            f"the inner environment {task.inner_env} of {task.id} shows {shape}; give "
            "eval_env, which is wrapped as the model's environment is"
        )
    env = make_inner_env(task, reuse=True)

    def greedy(observations: NDArray[Any]) -> NDArray[Any]:
        seen = observations[0].reshape(-1, *shape).copy()
        if model.get_vec_normalize_env() is not None:
            seen = model.get_vec_normalize_env().normalize_obs(seen)
        actions: NDArray[Any] = model.policy.predict(seen, deterministic=True)[0]
        return actions[None]

    def played(keys: streams.UInts, physics: Any, lifetime: Any) -> Any:
        return play(lambda _: greedy, env, keys, physics, lifetime)

    return played


def given_episodes(model: Any, eval_env: Any, seed: int) -> Play:
    """Evaluation episodes in an environment of the user's.

    Raises:
        ValueError: it is the one that the model trains in, or has other spaces.
    """
    venv = eval_env if isinstance(eval_env, VecEnv) else _vectorised(eval_env)
    training = model.get_env()
    if venv is training or _innermost(venv) & _innermost(training):
        raise ValueError(
            "eval_env is the environment that the model trains in, which evaluations "
            "would disturb; give another one of the same kind"
        )
    for what in ("observation_space", "action_space"):
        theirs, own = getattr(venv, what), getattr(model, what)
        same = getattr(theirs, "shape", None) == getattr(own, "shape", None)
        if type(theirs) is not type(own) or (theirs != own and not same):
            raise ValueError(f"eval_env has {what} {theirs}, the model has {own}")
    venv.seed(seed)

    def played(keys: streams.UInts, physics: Any, lifetime: Any) -> Any:
        if model.get_vec_normalize_env() is not None:
            sync_envs_normalization(model.get_env(), venv)
        told: Any = evaluate_policy(
            model,
            venv,
            n_eval_episodes=keys.shape[1],
            deterministic=True,
            return_episode_rewards=True,
            warn=False,
        )
        returns, lengths = told
        first = slice(None, keys.shape[1])
        return np.array([returns[first]], float), np.array([sum(lengths[first])])

    return played


def _vectorised(env: Any) -> VecEnv:
    import gymnasium as gym

    if isinstance(env, str):
        env = gym.make(env)
    if not isinstance(env, gym.Env):
        raise ValueError(
            "eval_env must be a Gymnasium environment, its id, or a VecEnv, got "
            f"{env!r}"
        )
    own = env if is_wrapped(env, Monitor) else Monitor(env)
    return DummyVecEnv([lambda: own])


def _innermost(venv: Any) -> set[int]:
    """Identities of the environments below all wrappers, where they are here."""
    while hasattr(venv, "venv"):
        venv = venv.venv
    return {id(env.unwrapped) for env in getattr(venv, "envs", [])} | {id(venv)}


def checked_interval(name: str, value: Any) -> int | None:
    """A number of environment steps, or None.

    Raises:
        ValueError: something else, or less than one.
    """
    return None if value is None else whole(name, value)


def finite(value: float) -> float | None:
    """None for what is no number."""
    return float(value) if math.isfinite(value) else None
