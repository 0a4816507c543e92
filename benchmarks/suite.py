"""Every task at several sizes and numbers of threads, beside other libraries.

What is timed are whole decisions of :class:`~dacrl_env.PopulationEnv`, the outer step
included, under the task's default settings, with training feedback: no evaluation is in
the figures. Programs of a task take turns. One thread is pinned to one core, as the
other libraries are; several may use all.
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
from stable_baselines3.common.env_util import make_vec_env

from dacrl_env.core import snapshot
from dacrl_env.learners import dqn, ppo
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks.registration import get_task, load_learner

from . import peak, phases
from .throughput import (
    LEARNING_STARTS,
    NOTE,
    PEER,
    Program,
    in_turns,
    learn,
    pinned,
    relative,
    share,
    share_of,
    versions,
)

POPULATIONS = (1, 8, 64, 256)
THREADS = (1, 2)
OURS = "dacrl-env"
# steps of a timed decision, at least
INTERVAL = 500
# packages with the classes and arguments of Stable-Baselines3
PEERS = {"stable_baselines3": PEER, "sbx": "SBX"}


def measure(
    tasks: Sequence[str] | None = None,
    populations: Sequence[int] = POPULATIONS,
    threads: Sequence[int] = THREADS,
    repeats: int = 3,
    seconds: float = 0.5,
) -> dict[str, Any]:
    """Throughput of tasks, and shares of their time by phase.

    Args:
        tasks: ids; None: all that can be made here.
        populations: sizes P.
        threads: numbers of them; those above a P are left out.
        repeats: measurements of everything, in turns.
        seconds: of one measurement, at least.

    Returns:
        Figures and what they were measured on, as JSON values.

    Raises:
        ValueError: an unknown task, or sizes, threads or repeats below one.
    """
    ids = phases.available() if tasks is None else list(tasks)
    check(ids, populations, threads, repeats, seconds)
    rows: list[dict[str, Any]] = []
    for task in ids:
        rows += measure_task(task, populations, threads, repeats, seconds)
    return {
        "repeats": repeats,
        "seconds": seconds,
        "versions": versions(),
        "rows": rows,
        "phases": phases.measure(ids),
    }


def check(
    tasks: Sequence[str],
    populations: Sequence[int],
    threads: Sequence[int],
    repeats: int,
    seconds: float,
) -> None:
    """Raise a ValueError for an unknown task, or what is not positive."""
    for task in tasks:
        get_task(task)
    lists = (tasks, populations, threads)
    lowest = min([*populations, *threads, repeats], default=0)
    if not all(map(len, lists)) or lowest < 1 or not seconds > 0:
        raise ValueError(
            "tasks must be given, and populations, threads, repeats and seconds be "
            f"positive; got {list(tasks)}, {list(populations)}, {list(threads)}, "
            f"{repeats}, {seconds}"
        )


def measure_task(
    task: str,
    populations: Sequence[int],
    threads: Sequence[int],
    repeats: int,
    seconds: float,
    peers: bool = True,
) -> list[dict[str, Any]]:
    """Rows of `measure`, one a program; ``peers``: other libraries, too.

    Each has ``task``, ``program``, ``P``, ``threads``, ``steps_per_second`` (median,
    with ``lowest`` and ``highest``), ``megabytes`` of the state of a member, and, where
    the other program exists, ``ratio`` to Stable-Baselines3; with one thread
    ``share_of_peak``, with several, where one was measured, too, ``speedup`` over it.
    All three are medians of ratios turn by turn.
    """
    settings = resolve(task)
    with ExitStack() as stack:
        programs: dict[tuple[str, int, int], Program] = {}
        sizes: dict[tuple[str, int, int], float] = {}
        flops: dict[tuple[str, int, int], float | None] = {}
        for P in populations:
            for W in threads:
                if W <= P:
                    key = OURS, P, W
                    run, env = stack.enter_context(population(task, P, W))
                    sizes[key] = megabytes(env.population.state) / P
                    programs[key] = run if W > 1 else pinned(run)
                    if W == 1:
                        learner = env.population.learner
                        flops[key] = peak.of_step(learner, _codes(settings))
        for name, program in (_others(settings) if peers else {}).items():
            programs[name, 1, 1] = pinned(program)
        rates, peaks = in_turns(programs, repeats, seconds)
    peer = rates.get((PEER, 1, 1))
    return [
        {
            "task": get_task(task).id,
            "program": name,
            "P": P,
            "threads": W,
            "steps_per_second": median(values),
            "lowest": min(values),
            "highest": max(values),
            "megabytes": sizes.get((name, P, W)),
            "ratio": relative(values, peer),
            "share_of_peak": share_of(values, flops.get((name, P, W)), peaks),
            "speedup": relative(values, rates.get((name, P, 1))) if W > 1 else None,
        }
        for (name, P, W), values in rates.items()
    ]


@contextmanager
def population(
    task: str, P: int, threads: int
) -> Iterator[tuple[Program, PopulationEnv]]:
    """A population that trains with default values, and its environment."""
    plain = resolve(task)
    options: dict[str, Any] = {"decision_interval": _decision_interval(plain)}
    if hasattr(plain.config, "learning_starts"):
        options["learning_starts"] = LEARNING_STARTS
    env = PopulationEnv(
        task,
        P,
        num_threads=threads,
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

        yield run, env
    finally:
        env.close()


def megabytes(state: Any) -> float:
    """Size of all arrays of a state."""
    return sum(float(array.nbytes) for _, array in snapshot.leaves(state)) / 1e6


def _decision_interval(settings: Settings) -> int:
    """A short one, so that a measurement has several, but not shorter than a rollout.

    Tasks with few steps keep their own.
    """
    learner = load_learner(settings.task.algorithm, settings.implementation)
    unit = learner.granularity(settings.config)
    fitting = [
        steps
        for steps in range(unit, settings.decision_interval, unit)
        if steps >= INTERVAL and settings.budget % steps == 0
    ]
    return min(fitting, default=settings.decision_interval)


# -- beside -----------------------------------------------------------------------


def _others(settings: Settings) -> dict[str, Program]:
    """Programs of other libraries that do the same work, by name.

    Where the task asks for double Q-learning, they do without.
    """
    task, programs = settings.task, {}
    if task.algorithm not in _BUILD:
        return {}
    build = _BUILD[task.algorithm]
    if task.inner_env in gym.registry and not settings.task.inner_env_kwargs:
        space = gym.spec(task.inner_env).make().observation_space
        if isinstance(space, gym.spaces.Box):
            for package, name in PEERS.items():
                if importlib.util.find_spec(package) is not None:
                    library = importlib.import_module(package)
                    programs[name] = build(library, settings)
    return programs


def _codes(settings: Settings) -> dict[str, float]:
    """Defaults as the learner takes them."""
    return {h.name: h.start for h in settings.hyperparameters}


def _defaults(settings: Settings) -> dict[str, Any]:
    return {
        h.name: h.shown(np.array([h.start])).tolist()[0]
        for h in settings.hyperparameters
    }


# what Stable-Baselines3 and SBX both have under the same names; SBX does not clip DQN
_SHARED_DQN = (
    "learning_rate", "batch_size", "gamma", "target_update_interval", "train_freq",
    "gradient_steps", "tau",
)  # fmt: skip
_SHARED_PPO = (
    "learning_rate", "clip_range", "batch_size", "gamma", "gae_lambda", "n_epochs",
    "ent_coef", "vf_coef", "max_grad_norm",
)  # fmt: skip


def _dqn(library: Any, settings: Settings) -> Program:
    defaults, config = _defaults(settings), settings.config
    epsilon, values = (
        defaults["epsilon"],
        {name: defaults[name] for name in _SHARED_DQN},
    )
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
    model.learn(2 * LEARNING_STARTS)
    return learn(model, 200)


def _ppo(library: Any, settings: Settings) -> Program:
    defaults, config = _defaults(settings), settings.config
    values = {name: defaults[name] for name in _SHARED_PPO}
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


_BUILD = {"dqn": _dqn, "ppo": _ppo}


def render(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    of = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"Training without evaluation, median of {result['repeats']} turns ({of})",
        "",
        "| task | program | P | threads | member-steps/s | lowest – highest | "
        f"× {PEER} | × one thread | share of the peak | MB a member |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        ratio, size, speedup = row["ratio"], row["megabytes"], row["speedup"]
        lines.append(
            f"| {row['task']} | {row['program']} | {row['P']} | {row['threads']} "
            f"| {row['steps_per_second']:,.0f} "
            f"| {row['lowest']:,.0f} – {row['highest']:,.0f} "
            f"| {'–' if ratio is None else f'{ratio:.1f}'} "
            f"| {'–' if speedup is None else f'{speedup:.2f}'} "
            f"| {share(row['share_of_peak'])} "
            f"| {'–' if size is None else f'{size:.2g}'} |"
        )
    lines += ["", NOTE, ""]
    return "\n".join(lines) + phases.render(result["phases"])
