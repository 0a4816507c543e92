"""Every task at several sizes and numbers of workers, beside other libraries.

What is timed are whole decisions of :class:`~dacrl_env.PopulationEnv`, the outer step
included, under the task's default settings, with training feedback: no evaluation is in
the figures. Programs of a task take turns. One worker is pinned to one core, as the
other libraries are; more workers may use all.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.env_util import make_vec_env

from dacrl_env import snapshot
from dacrl_env.inner_envs.gymnasium_adapter import needs_box2d
from dacrl_env.learners import dqn, ppo
from dacrl_env.learners.blocks import padded_widths
from dacrl_env.population import Population
from dacrl_env.registration import TASKS, get_task, load_learner
from dacrl_env.settings import Settings, resolve
from dacrl_env.vector_env import PopulationEnv

from . import phases
from .throughput import (
    LEARNING_STARTS,
    LIMIT,
    PEER,
    Program,
    learn,
    matrix_products,
    one_core,
    rate,
    relative,
    share,
    versions,
)

POPULATIONS = (1, 8, 64, 256)
WORKERS = (1, 2)
# steps of a timed decision, at least
INTERVAL = 500
# packages with the classes and arguments of Stable-Baselines3
PEERS = {"stable_baselines3": PEER, "sbx": "SBX"}


def measure(
    tasks: Sequence[str] | None = None,
    populations: Sequence[int] = POPULATIONS,
    workers: Sequence[int] = WORKERS,
    repeats: int = 3,
    seconds: float = 0.5,
) -> dict[str, Any]:
    """Throughput of tasks, and shares of their time by phase.

    Args:
        tasks: ids; None: all that can be made here.
        populations: sizes P.
        workers: numbers of processes; those above a P are left out.
        repeats: measurements of everything, in turns.
        seconds: of one measurement, at least.

    Returns:
        Figures and what they were measured on, as JSON values.

    Raises:
        ValueError: an unknown task, or sizes, workers or repeats below one.
    """
    ids = available() if tasks is None else list(tasks)
    check(ids, populations, workers, repeats, seconds)
    rows: list[dict[str, Any]] = []
    for task in ids:
        rows += measure_task(task, populations, workers, repeats, seconds)
    return {
        "repeats": repeats,
        "seconds": seconds,
        "versions": versions(),
        "rows": rows,
        "phases": phases.measure(
            [task for task in phases.batched_tasks() if task in ids] or None
        ),
    }


def check(
    tasks: Sequence[str],
    populations: Sequence[int],
    workers: Sequence[int],
    repeats: int,
    seconds: float,
) -> None:
    """Raise a ValueError for an unknown task, or what is not positive."""
    for task in tasks:
        get_task(task)
    lists = (tasks, populations, workers)
    lowest = min([*populations, *workers, repeats], default=0)
    if not all(map(len, lists)) or lowest < 1 or not seconds > 0:
        raise ValueError(
            "tasks must be given, and populations, workers, repeats and seconds be "
            f"positive; got {list(tasks)}, {list(populations)}, {list(workers)}, "
            f"{repeats}, {seconds}"
        )


def available() -> list[str]:
    """Ids of the tasks whose inner environments are installed."""
    found = importlib.util.find_spec("Box2D") is not None
    return [t.id for t in TASKS.values() if found or not needs_box2d(t.inner_env)]


def measure_task(
    task: str,
    populations: Sequence[int],
    workers: Sequence[int],
    repeats: int,
    seconds: float,
    peers: bool = True,
) -> list[dict[str, Any]]:
    """Rows of `measure`, one a program; ``peers``: other libraries and the limit, too.

    Each has ``task``, ``program``, ``P``, ``workers``, ``steps_per_second`` (median,
    with ``lowest`` and ``highest``), ``megabytes`` of the state of a member, and, where
    the other program exists, ``ratio`` to Stable-Baselines3 and ``share_of_limit``;
    with several workers, where one was measured, too, ``speedup`` over it. All three
    are medians of ratios turn by turn.
    """
    with ExitStack() as stack:
        programs: dict[tuple[str, int, int], Program] = {}
        sizes: dict[tuple[str, int, int], float] = {}
        for P in populations:
            for W in workers:
                if W <= P:
                    key = "torch", P, W
                    run, state = stack.enter_context(population(task, P, W))
                    sizes[key] = megabytes(state) / P
                    programs[key] = run if W > 1 else _pinned(run)
        settings = resolve(task)
        for name, program in (_others(settings) if peers else {}).items():
            programs[name, 1, 1] = _pinned(program)
        rates: dict[tuple[str, int, int], list[float]] = {k: [] for k in programs}
        for turn in range(repeats + 1):
            for key, program in programs.items():
                steps = rate(program, seconds)
                if turn:  # the first turn warms up
                    rates[key].append(steps)
    peer = rates.get((PEER, 1, 1))
    limit = rates.pop((LIMIT, 1, 1), None)
    return [
        {
            "task": get_task(task).id,
            "program": name,
            "P": P,
            "workers": W,
            "steps_per_second": median(values),
            "lowest": min(values),
            "highest": max(values),
            "megabytes": sizes.get((name, P, W)),
            "ratio": relative(values, peer),
            "share_of_limit": relative(values, limit),
            "speedup": relative(values, rates.get((name, P, 1))) if W > 1 else None,
        }
        for (name, P, W), values in rates.items()
    ]


def _pinned(program: Program) -> Program:
    """A program that runs on one core, with one thread."""

    def run() -> int:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with one_core():
                return program()
        finally:
            torch.set_num_threads(threads)

    return run


@contextmanager
def population(task: str, P: int, workers: int) -> Iterator[tuple[Program, Any]]:
    """A population that trains with default values, and its state."""
    plain = resolve(task)
    options: dict[str, Any] = {"decision_interval": _decision_interval(plain)}
    if hasattr(plain.config, "learning_starts"):
        options["learning_starts"] = LEARNING_STARTS
    env = PopulationEnv(
        task,
        P,
        num_workers=workers,
        action_mode="continuous",
        feedback="train",
        **options,
    )
    try:
        env.reset(seed=0)
        middle = np.zeros((P, len(env.settings.controlled)))

        def run() -> int:
            env.step(middle)
            return P * env.settings.decision_interval

        yield run, env.population.state
    finally:
        env.close()


def megabytes(state: Any) -> float:
    """Size of all arrays of a state."""
    return sum(float(array.nbytes) for _, array in snapshot.leaves(state)) / 1e6


def _decision_interval(settings: Settings) -> int:
    """A short one, so that a measurement has several, but not shorter than a rollout.

    Tasks with few steps keep their own.
    """
    learner = load_learner(settings.task.learner, settings.implementation)
    unit = learner.granularity(settings.config)
    fitting = [
        steps
        for steps in range(unit, settings.decision_interval, unit)
        if steps >= INTERVAL and settings.budget % steps == 0
    ]
    return min(fitting, default=settings.decision_interval)


# -- beside -----------------------------------------------------------------------


def _others(settings: Settings) -> dict[str, Program]:
    """Programs of other libraries that do the same work, by name; and the limit.

    Where the task asks for double Q-learning, they do without.
    """
    task, programs = settings.task, {}
    if task.learner not in _BUILD:
        return {}
    build, limit = _BUILD[task.learner]
    if task.inner_env in gym.registry and not settings.task.inner_env_kwargs:
        space = gym.spec(task.inner_env).make().observation_space
        if isinstance(space, gym.spaces.Box):
            for package, name in PEERS.items():
                if importlib.util.find_spec(package) is not None:
                    library = importlib.import_module(package)
                    programs[name] = build(library, settings)
    programs[LIMIT] = limit(Population(settings, 1).learner, settings)
    return programs


def _defaults(settings: Settings) -> dict[str, Any]:
    return {
        h.name: int(h.default) if h.integer else h.default
        for h in settings.hyperparameters
    }


def _dqn(library: Any, settings: Settings) -> Program:
    values, config = _defaults(settings), settings.config
    epsilon = values.pop("epsilon")
    # SBX does not clip; by default all of the replay is drawn from
    del values["max_grad_norm"], values["replay_window"]
    arguments = dict(
        buffer_size=dqn.DQN.replay_capacity(config, settings.budget),
        learning_starts=LEARNING_STARTS,
        exploration_initial_eps=epsilon,
        exploration_final_eps=epsilon,
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        **values,
    )
    env = gym.make(settings.task.inner_env)
    model = library.DQN("MlpPolicy", env, seed=0, device="cpu", **arguments)
    with torch.enable_grad():
        model.learn(2 * LEARNING_STARTS)
    return learn(model, 200)


def _ppo(library: Any, settings: Settings) -> Program:
    values, config = _defaults(settings), settings.config
    env = make_vec_env(settings.task.inner_env, config.num_inner_envs, seed=0)
    model = library.PPO(
        "MlpPolicy",
        env,
        seed=0,
        device="cpu",
        n_steps=config.rollout_length,
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        **values,
    )
    return learn(model, ppo.PPO.granularity(config))


def _dqn_limit(learner: Any, settings: Settings) -> Program:
    values = _defaults(settings)
    width = int(padded_widths(np.array([values["batch_size"]]))[0])
    steps = values["train_freq"] / values["gradient_steps"]
    forwards = 2 + settings.config.double_q
    return matrix_products(learner.network.sizes, width, 1, forwards, steps)


def _ppo_limit(learner: Any, settings: Settings) -> Program:
    values = _defaults(settings)
    size = values["batch_size"]
    width = int(padded_widths(np.array([size]))[0])
    return matrix_products(learner.actor.sizes, width, 2, 1, size / values["n_epochs"])


_BUILD = {"dqn": (_dqn, _dqn_limit), "ppo": (_ppo, _ppo_limit)}


def render(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    of = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"Training without evaluation, median of {result['repeats']} turns ({of})",
        "",
        "| task | program | P | workers | member-steps/s | lowest – highest | "
        f"× {PEER} | × one worker | share of the limit | MB a member |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        ratio, size, speedup = row["ratio"], row["megabytes"], row["speedup"]
        lines.append(
            f"| {row['task']} | {row['program']} | {row['P']} | {row['workers']} "
            f"| {row['steps_per_second']:,.0f} "
            f"| {row['lowest']:,.0f} – {row['highest']:,.0f} "
            f"| {'–' if ratio is None else f'{ratio:.1f}'} "
            f"| {'–' if speedup is None else f'{speedup:.2f}'} "
            f"| {share(row['share_of_limit'])} "
            f"| {'–' if size is None else f'{size:.2g}'} |"
        )
    lines += ["", f"Limit: {LIMIT}, at the shapes of an update of 32 members.", ""]
    return "\n".join(lines) + phases.render(result["phases"])
