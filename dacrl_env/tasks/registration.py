"""What tasks and algorithms are known, and how they are found and made.

Implementations are named by strings and imported when an environment is made, so that
``import dacrl_env`` stays cheap.
"""

from __future__ import annotations

import functools
import importlib
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, replace
from dataclasses import fields as fields_of
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, get_env_id, parse_env_id

from dacrl_env.core.blame import blame
from dacrl_env.core.checks import check_types, forgiven, plain, unknown
from dacrl_env.core.provenance import entry_source, outlined
from dacrl_env.core.sources import OWN
from dacrl_env.tasks import bases, headroom, measured
from dacrl_env.tasks.backends import COMPILED_ENVS, OF_LEVELS, backend_of
from dacrl_env.tasks.constructors import numbers_taken
from dacrl_env.tasks.knobs import Event, Number
from dacrl_env.tasks.returns import carried, forget
from dacrl_env.tasks.returns import known as known_returns
from dacrl_env.tasks.table import TABLE
from dacrl_env.tasks.task import Task, is_worker
from dacrl_env.tasks.wrapping import (
    WrapperLike,
    with_limit,
    wrapped,
    wrapped_spec,
)

ALGORITHMS = {
    "dqn": "dacrl_env.learners.dqn:DQN",
    "ppo": "dacrl_env.learners.ppo:PPO",
    "sac": "dacrl_env.learners.sac:SAC",
    "discrete_sac": "dacrl_env.learners.discrete_sac:DiscreteSAC",
    "pipeline": "dacrl_env.learners.pipeline:Pipeline",
    "sgd": "dacrl_env.algorithms.sgd:SGD",
}
IMPLEMENTATIONS = {
    "compiled": ALGORITHMS,
    "sb3": {
        "dqn": "dacrl_env.algorithms.sb3.dqn:SB3DQN",
        "ppo": "dacrl_env.algorithms.sb3.ppo:SB3PPO",
        "sac": "dacrl_env.algorithms.sb3.sac:SB3SAC",
    },
}

TASKS: dict[str, Task] = {}
_BUILT_IN: set[str] = set()  # ids of the tasks of this package


def load(entry_point: str) -> Any:
    """The object that ``"module:name"`` names."""
    module, _, name = entry_point.partition(":")
    return getattr(importlib.import_module(module), name)


class TaskId(str):
    """The id of a user's task, which takes the task along to other processes.

    It is what Gymnasium keeps of the task. Where a specification goes, as to the
    workers of an ``AsyncVectorEnv``, nobody has to register the task again.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        task = TASKS.get(self)
        return (str, (str(self),)) if task is None else (_arrived, (carried(task),))

    def __copy__(self) -> TaskId:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskId:
        return self


def register_task(
    task: Task | None = None,
    /,
    *,
    wrappers: WrapperLike | Sequence[WrapperLike] | None = None,
    **fields: Any,
) -> Task:
    """Make a task known to `gymnasium.make`, `gymnasium.make_vec` and the tools.

    The same task may be registered again, as when a cell of a notebook is run twice.
    Another one under the id of a user's task takes its place, with a warning.

    Images are divided by 255 before the networks see them, as in Stable-Baselines3;
    ``scale_images=False`` keeps them as they are, see :class:`dacrl_env.Task`.

    Args:
        task: the task; or its fields by keyword, see :class:`dacrl_env.Task`.
        wrappers: of Gymnasium, around the inner environment, the innermost first:
            classes such as ``gymnasium.wrappers.FlattenObservation``, functions of an
            environment, or texts ``"module:name"``; or pairs of one of these with a
            dict of its arguments. One need not be in a list. The inner environment is
            then registered under an id of its own, and stepped by Python.
        **fields: of a :class:`dacrl_env.Task`. ``inner_env`` may also be a class, a
            function that makes an environment, or a specification of Gymnasium's. It is
            registered with Gymnasium under an id that follows from the task's; options
            such as ``max_episode_steps`` go into ``inner_env_kwargs``. Returns that are
            left out are measured when the first run needs them, and kept, see
            :mod:`dacrl_env.studies.returns`.

    Returns:
        The task.

    Raises:
        ValueError: the id is a task's of this package or another environment's, a field
            is missing or unknown, a value is of another type or out of range, or there
            are fields beside a task.
    """
    if task is not None and fields:
        raise ValueError(
            f"a task and fields are given ({', '.join(fields)}); change fields of a "
            "task by dataclasses.replace(task, ...)"
        )
    if task is None:
        _check_fields(fields)
    if wrappers is not None:
        if task is not None or fields.get("backend") in ("batched", "envpool"):
            raise ValueError(
                "wrappers are put around the inner_env of a task that is given by its "
                'fields, with backend "auto" or "gymnasium"'
            )
        fields["inner_env"] = wrapped_spec(
            fields["inner_env"], wrappers, _inner_id(str(fields.get("id")))
        )
    made_by = fields.get("inner_env")
    if isinstance(made_by, EnvSpec) and _is_registered(made_by):
        made_by = fields["inner_env"] = made_by.id
    if isinstance(made_by, EnvSpec) or callable(made_by):
        fields["inner_env"] = _inner_id(str(fields.get("id")))
    task = Task(**fields) if task is None else task
    before = TASKS.get(task.id)
    if before is not None and task.id in _BUILT_IN:
        raise ValueError(
            f"the id {task.id!r} is taken by a task of this package; choose another "
            "name or version"
        )
    if before is None and task.id in gym.registry:
        raise ValueError(f"the id {task.id!r} is taken; choose another name or version")
    if task.algorithm not in ALGORITHMS:
        raise ValueError(unknown("algorithm", task.algorithm, ALGORITHMS))
    check_task(task)
    backends = ("auto", "batched", "gymnasium", "envpool")
    if task.backend not in backends:
        raise ValueError(unknown("backend", task.backend, backends))
    if task.backend == "batched" and task.inner_env not in COMPILED_ENVS:
        raise ValueError(
            f"no batched implementation of {task.inner_env!r}; "
            f"there is one of: {', '.join(COMPILED_ENVS)}"
        )
    other = _enter_inner(task.inner_env, made_by)
    forget(task.id)
    if before is not None and (other or before != task):
        differing = [
            f.name
            for f in fields_of(Task)
            if getattr(before, f.name) != getattr(task, f.name)
        ]
        warnings.warn(
            f"the task {task.id!r} was registered before, with another "
            f"{', '.join(differing) or 'inner_env'}; from now on it is the new one",
            stacklevel=2,
        )
    _enter(task)
    return task


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Raise a ValueError if they are not those of a task."""
    if "learner" in fields:
        raise ValueError("a task has an algorithm: write algorithm=, not learner=")
    known = {f.name: f for f in fields_of(Task)}
    for name in fields:
        if name not in known:
            raise ValueError(unknown("field of a task", name, known))
    needed = [
        name for name, f in known.items() if f.default is f.default_factory is MISSING
    ]
    missing = [name for name in needed if name not in fields]
    if missing:
        raise ValueError(f"a task needs {', '.join(needed)}; got no {missing[0]}")


def definition_of(task: Task) -> dict[str, Any]:
    """`Task.definition`, with the source of an algorithm that is a user's.

    Raises:
        NoSource: of a user's inner environment or algorithm it cannot be told.
    """
    definition, entry = task.definition(), ALGORITHMS.get(task.algorithm)
    made = OWN if entry is None else entry_source(entry)
    return definition if made == OWN else definition | {"algorithm_made": made}


def check_task(task: Task) -> None:
    """Raise a ValueError if a task names what its algorithm does not have."""
    learner = load(ALGORITHMS[task.algorithm])
    known = [h.name for h in learner.hyperparameters]
    for name in (*(task.controlled or ()), *task.defaults, *task.ranges):
        if name not in known:
            raise ValueError(unknown("hyperparameter", name, known))
    by_name = {h.name: h for h in learner.hyperparameters}
    for name, value in task.defaults.items():
        by_name[name].codes(value)
    # which one implementation has alone
    own = {k: v for k, v in task.configuration.items() if k != "sb3_kwargs"}
    configured(task.algorithm, learner.config_class, own)


def configured(algorithm: str, config_class: Any, fields: Mapping[str, Any]) -> Any:
    """The configuration of an algorithm with these fields.

    Raises:
        ValueError: an unknown field, or a value of another type or out of range.
    """
    known = [f.name for f in fields_of(config_class)]
    for name in fields:
        if name not in known:
            raise ValueError(unknown(f"configuration of {algorithm}", name, known))
    fields = plain(config_class, fields)
    check_types(f"algorithm {algorithm}", config_class, fields)
    return config_class(**fields)


def _inner_id(task_id: str) -> str:
    """The id of an inner environment that has none of its own.

    Raises:
        gymnasium.error.Error: what should be the task's id is none.
    """
    namespace, name, version = parse_env_id(task_id)
    return get_env_id(namespace, f"{name}.inner", version)


def _enter_inner(env_id: str, made_by: Any) -> bool:
    """Register an inner environment by what makes it; whether another one was before.

    A class that is defined again, as by a cell of a notebook, is not another one.
    """
    if isinstance(made_by, EnvSpec):
        spec = replace(made_by, id=env_id)
    elif callable(made_by):
        spec = EnvSpec(env_id, entry_point=made_by)
    else:
        return False
    before = gym.registry.get(env_id)
    gym.registry[env_id] = spec
    return before is not None and _entry(before) != _entry(spec)


def _is_registered(spec: EnvSpec) -> bool:
    """Whether Gymnasium makes by its id what a specification says."""
    known = gym.registry.get(spec.id)
    if known is None or known is spec:
        return known is spec
    return known.entry_point == spec.entry_point and _entry(known) == _entry(spec)


def _entry(entry_point: Any) -> Any:
    """What tells apart what makes environments: names and code, and options as JSON.

    Options may be arrays, which cannot be compared as they are.
    """
    if isinstance(entry_point, EnvSpec):
        about = {f.name: getattr(entry_point, f.name) for f in fields_of(entry_point)}
        return [_entry(about.pop("entry_point")), outlined(about)]
    if isinstance(entry_point, functools.partial):
        args, options = entry_point.args, outlined(entry_point.keywords)
        if entry_point.func is wrapped:
            inner, layers = args
            made = [(_entry(make), outlined(given)) for make, given in layers]
            return [_entry(inner), made, options]
        return [_entry(entry_point.func), outlined(args), options]
    code = getattr(entry_point, "__code__", None)
    names = [getattr(entry_point, n, None) for n in ("__module__", "__qualname__")]
    return entry_point if isinstance(entry_point, str) else (*names, code)


def _enter(task: Task) -> None:
    """Make a task known here."""
    if task.id not in gym.registry:
        known = task.id if task.id in _BUILT_IN else TaskId(task.id)
        gym.register(
            id=task.id,
            entry_point="dacrl_env.outer.env:DynamicConfigEnv",
            vector_entry_point="dacrl_env.outer.vector_env:PopulationEnv",
            kwargs={"task": known},
        )
    TASKS[task.id] = task


def _arrived(task: Task) -> TaskId:
    """The id of a task that came from another process, known here from now on."""
    if task.id not in _BUILT_IN and (is_worker() or task.id not in TASKS):
        _enter(task)
    return TaskId(task.id)


def import_module(name: str, what: str) -> ModuleType:
    """A user's module.

    What goes wrong inside of it is raised as it is, with a note whose code it was.

    Args:
        name: of the module.
        what: is looked for in it, for the message.

    Raises:
        ValueError: there is no such module.
    """
    try:
        with blame(f"module {name!r}"):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # another one, that the module imports
        raise ValueError(
            f"cannot load {what}: cannot import its module: {error}"
        ) from None


def listed() -> list[Task]:
    """All tasks but those that a base has made a newer one of, in whose place it is.

    The others go on working wherever they are named.
    """
    every = list(TASKS.values())
    made = {new: old for old in TASKS if (new := bases.newer(old)) in TASKS}
    last = {old: TASKS[new] for new, old in made.items() if new is not None}
    return [last.get(task.id, task) for task in every if task.id not in made]


def enter_bases() -> None:
    """Make the tasks known that start at a base; see `dacrl_env.tasks.bases`.

    Raises:
        ValueError: its file is damaged.
    """
    for task in bases.made():
        _BUILT_IN.add(task.id)
        _enter(task)


def get_task(task: str | Task) -> Task:
    """A task by id, or by ``"module:id"`` where importing the module registers it.

    Ids may be without ``dacrl/``, and without the version, which is then the newest.
    Case, hyphens and underscores do not count.

    Raises:
        ValueError: no such id or module; the message lists the valid ids.
    """
    if isinstance(task, Task):
        return task
    if not isinstance(task, str):
        raise ValueError(f"a task is an id or a dacrl_env.Task, got {task!r}")
    module, colon, name = task.rpartition(":")
    if colon:
        import_module(module, f"task {task!r}")
    if name not in TASKS:
        name = _forgiven(name)
    if name not in TASKS:
        own = ", or module:id of one that a module registers"
        if name in gym.registry:  # an inner environment's
            on_it = [t.id for t in listed() if t.inner_env == name]
            own += f"; {name} is no task, register_task makes one of it"
            own += f" (there is {', '.join(on_it)})" if on_it else ""
        valid = [t.id for t in listed()]
        raise ValueError(f"{unknown('task', task, valid)}{own}")
    return TASKS[name]


def is_task(thing: Any) -> bool:
    """Whether `get_task` knows it.

    A module is imported where only that can tell; what goes wrong in it is not raised.
    """
    if not isinstance(thing, str):
        return isinstance(thing, Task)
    module, colon, name = thing.rpartition(":")
    if colon:
        if not re.fullmatch(r"\w+(\.\w+)*", module):
            return False
        try:
            importlib.import_module(module)
        except Exception:
            return False
    return name in TASKS or _forgiven(name) in TASKS


def _forgiven(name: str) -> str:
    """The id that is meant by a part of it, or the name itself."""
    newest = {re.sub(r"-v\d+$", "", task.id): task.id for task in listed()}
    known = newest | {full: full for full in TASKS}
    known |= {short.removeprefix("dacrl/"): full for short, full in known.items()}
    return known.get(forgiven(name, known), name)


def load_learner(name: str, implementation: str) -> Any:
    """The class that trains a population.

    Raises:
        ValueError: the algorithm has no such implementation.
    """
    table = IMPLEMENTATIONS[implementation]
    if name not in table:
        have = [key for key, names in IMPLEMENTATIONS.items() if name in names]
        raise ValueError(
            f"algorithm {name!r} has no implementation {implementation!r}; "
            f"valid: {', '.join(have)}"
        )
    return load(table[name])


def make_inner_env(task: Task, reuse: bool = False) -> Any:
    """The inner environment of a task, an :class:`~dacrl_env.inner_envs.InnerEnv`.

    Args:
        task: names the environment and its backend.
        reuse: see :class:`~dacrl_env.inner_envs.gymnasium_adapter.GymnasiumAdapter`.
    """
    env = _make_inner_env(task, reuse)
    env.scales_images = task.scale_images and env.has_images
    return env


def _make_inner_env(task: Task, reuse: bool) -> Any:
    kwargs: Mapping[str, Any] = task.inner_env_kwargs
    backend = backend_of(task)
    if backend == "none":
        from dacrl_env.inner_envs import NoEnv

        return NoEnv()
    if backend == "batched":
        from dacrl_env.inner_envs.env import ENVS

        return ENVS[task.inner_env](**kwargs)
    if backend == "envpool":
        from dacrl_env.inner_envs.envpool_adapter import EnvPoolAdapter

        return EnvPoolAdapter(task.inner_env, kwargs)
    from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter

    numbers = functools.partial(numbers_taken, task.inner_env, kwargs)
    kwargs = with_limit(task.inner_env, kwargs)
    return GymnasiumAdapter(task.inner_env, kwargs, reuse, task.stateful, numbers)


def markdown() -> str:
    """All tasks and hyperparameters as Markdown tables, the text of docs/tasks.md."""
    lines = [
        "# Tasks",
        "",
        "Made by `dacrl tasks --markdown`. Budgets in inner environment steps; returns",
        "are those of scores 0 (random), 1 (reference) and of a diverged run (floor);",
        "instances have their own (`dacrl_env/tasks/references.json`, measured by",
        "`dacrl references --instances`). A diverged run scores -0.05 on CartPole and",
        "-69 on LunarLander, where one among 64 moves a mean by more than all that",
        "training gains: read failures and the interquartile mean beside it.",
        "Hyperparameters that differ from the algorithm's default are given with",
        "their value; bold ones are controlled by default. The range of an algorithm",
        "is what a `Number`, `fixed`, a static configuration or a schedule may",
        "use, and that of users' tasks; these tasks' own range is what actions mean by",
        "default. What Stable-Baselines3 calls gradient_steps=-1 is the value of",
        "train_freq.",
        "",
        *textwrap.wrap(_about_seconds(), 80, break_on_hyphens=False),
        "",
        "Headroom: what the best schedule gains over the best static configuration",
        "(schedule), and the best closed loop over the best schedule (state), with",
        "95 % intervals (`dacrl_env/tasks/headroom.json`, measured by `dacrl",
        "headroom`).",
        "",
        "Tags: a gain of at least 0.05 whose interval lies above zero, on seeds that",
        "were held back, too, where these were run, is a tag; smoke is neither. Where",
        "headroom is not measured, smoke says that the tuned static configuration",
        "scores outside 0.2–0.9, or that no change of configuration was found to gain",
        "0.05 ([dynamics.md](dynamics.md)).",
        "",
        "| id | inner environment | algorithm | budget | decisions | random "
        "| reference | floor | instances | seconds a run | own settings | tags "
        "| headroom |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- "
        "| --- | --- |",
    ]
    seconds = measured.seconds()
    for task in listed():
        own = {**task.defaults, **task.configuration}
        own |= {} if task.judged_by == "evaluation" else {"judged by": task.judged_by}
        sets = len(task.train_instances), len(task.test_instances)
        counts = f"{sets[0]} + {sets[1]}" if max(sets) > 1 else "1"
        spent = f"{seconds[task.id]['seconds']:g}" if task.id in seconds else "–"
        found = known_returns(task)
        cells = ["on first use"] * 3 if found is None else [f"{x:g}" for x in found]
        returns = " | ".join(cells)
        lines.append(
            f"| {task.id} | {task.inner_env or 'none'} | {task.algorithm} "
            f"| {task.budget:,} | {task.decisions} | {returns} | {counts} | {spent} "
            f"| {', '.join(f'{k} {v}' for k, v in own.items()) or '–'} "
            f"| {', '.join(headroom.tags_of(task)) or '–'} "
            f"| {headroom.shown(task.id, '; ')} |"
        )
    lines += _about_bases()
    for name, entry in ALGORITHMS.items():
        learner = load(entry)
        lines += [
            "",
            f"## {name}",
            "",
            "| hyperparameter | range | range in these tasks | scale | default |",
            "| --- | --- | --- | --- | ---: |",
        ]
        for h in learner.hyperparameters:
            shown = f"**{h.name}**" if h.name in learner.controlled else h.name
            if h.condition:
                options = " or ".join(map(str, h.condition.options))
                shown += f" (with {h.condition.choice} {options})"
            if not isinstance(h, Number):
                options = ", ".join(map(str, h.options))
                kind = "event" if isinstance(h, Event) else "choice"
                default = "–" if isinstance(h, Event) else h.default
                lines.append(f"| {shown} | {options} | all | {kind} | {default} |")
                continue
            if h.name in OF_LEVELS:
                shown += " (with levels)"
            scale = h.scale.replace("log_complement", "log in 1 − value")
            whole = ", integer" if h.integer else ""
            own_ranges = {
                tuple(task.ranges.get(h.name, (h.low, h.high)))
                for task in listed()
                if task.algorithm == name
            }
            ranges = "; ".join(f"{a:g} – {b:g}" for a, b in sorted(own_ranges))
            lines.append(
                f"| {shown} | {h.low:g} – {h.high:g} | {ranges} | {scale}{whole} "
                f"| {h.default:g} |"
            )
    return "\n".join(lines)


def _about_bases() -> list[str]:
    """Lines on the tasks that start at a base; none, if there are none."""
    known = [t.id for t in listed() if bases.original(t.id) != t.id]
    if not known:
        return []
    lines = [
        "",
        "## Bases",
        "",
        "These tasks start at the best static configuration that `dacrl tune-static`",
        "knew of: mean report score of its runs with 95 % interval, on seeds of the",
        "tuning split that it was not chosen by, and where it is from",
        "(`dacrl_env/tasks/bases.json`). A stronger one that headroom has found from",
        "there is the task's `static-tuned`. The task with the version before has the",
        "configuration that it was written with; it works, and is not listed.",
        "",
        "What matters: shares of the main effects of all numbers and choices on auc,",
        "by fANOVA of runs of candidates drawn all over the space that is searched",
        "(`--probes`). Actions set the fewest that have 0.8 of it together, and",
        "events. –: not measured.",
        "",
        "| id | base | what matters |",
        "| --- | --- | --- |",
    ]
    return lines + [
        f"| {name} | {bases.shown(name)} | {bases.shown_importance(name)} |"
        for name in known
    ]


def _about_seconds() -> str:
    """What the seconds of a run are, and how they were measured."""
    known = [task.id for task in listed()]
    entries = {k: v for k, v in measured.seconds().items() if k in known}
    text = (
        "Seconds a run: processor time, on one core, of a run of the default "
        "configuration, evaluation and report included; that of a population, divided "
        "by its size. "
        "Measured by `dacrl references --seconds`"
    )
    ways: dict[tuple[str, int], list[str]] = {}
    for task, entry in entries.items():
        ways.setdefault((entry["processor"], entry["population"]), []).append(task)
    parts = [
        f"on {processor} with {population} runs"
        + (f" ({', '.join(tasks)})" if len(ways) > 1 else "")
        for (processor, population), tasks in ways.items()
    ]
    return f"{text} {'; '.join(parts) or '(not yet)'}. –: not measured."


for _task in TABLE:
    _BUILT_IN.add(_task.id)
    _enter(_task)
enter_bases()
