"""Returns of a task that was registered without: what its scores are normalised by.

Random: mean return of `EPISODES` episodes of uniformly random actions.

Reference: the ``reward_threshold`` that the inner environment is registered with in
Gymnasium, the return at which it counts as solved; where it has none, the best of
`RUNS` runs of the task's default configuration, each judged by the episodes of a final
report. A run that diverged does not count. So score 1 of two tasks may be of different
difficulty; a reference that means something is given by who knows the environment.

Floor: `MARGIN` of the way from random to reference below the lowest return that was
seen. Seen are the episodes of random actions, and `CONSTANT_EPISODES` of each constant
action (of continuous actions: lowest, middle and highest). Where the reference is that
of default runs, the mean return of each at its end is seen, too. Where it is given, or
a ``reward_threshold``, nothing is trained, and the floor is of random and constant
actions alone. Lower returns may exist.

All of it is on the tuning split, from fixed streams, and repeats.
"""

from __future__ import annotations

import importlib
import math
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from dacrl_env.core.version import __version__
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.studies.references import constant_returns, finish, random_returns
from dacrl_env.tasks import Task
from dacrl_env.tasks.backends import backend_of
from dacrl_env.tasks.registration import make_inner_env
from dacrl_env.tasks.returns import assumed

EPISODES = 200  # of random actions
CONSTANT_EPISODES = 10  # of each constant action
RUNS = 4  # of the default configuration
MARGIN = 0.05  # of the span of scores, between the lowest return and the floor


def measure(task: Task) -> dict[str, Any]:
    """The returns that a task was not given.

    Args:
        task: with an inner environment.

    Returns:
        ``random_return``, ``reference_return`` and ``floor_return``, those that were
        given as they are; ``about``: how the others were found, by name; ``version``
        of the package.

    Raises:
        ValueError: no reference above random, or all default runs diverged.
    """
    about: dict[str, str] = {}
    env = make_inner_env(task, reuse=True)
    physics = np.array([list(env.physics.values())], np.float64)
    with closing(env):
        played = random_returns(env, physics, EPISODES)[0]
        every = [played, *constant_returns(env, physics, CONSTANT_EPISODES)]
    lowest = min(float(returns.min()) for returns in every)
    random, reference = task.random_return, task.reference_return
    floor = task.floor_return
    if random is None:
        random = float(played.mean())
        about["random_return"] = f"mean of {EPISODES} episodes of random actions"
    if reference is None:
        reference, how, ends = _reference(task, random)
        about["reference_return"] = how
        lowest = min([lowest, *ends])
    if reference <= random:
        how = about.get("reference_return", "as given")
        raise ValueError(
            f"scores of {task.id} have no scale: the reference return {reference:.6g} "
            f"({how}) is no more than that of random actions, {random:.6g}; give "
            "a reference_return above it"
        )
    if floor is None:
        floor = min(lowest, random) - MARGIN * (reference - random)
        about["floor_return"] = f"below the lowest return seen, {lowest:.6g}"
    elif floor >= random:
        raise ValueError(
            f"floor_return of {task.id}, {floor:.6g}, does not lie below the measured "
            f"return of random actions, {random:.6g}; give random_return, too"
        )
    return {
        "task": task.id,
        "random_return": random,
        "reference_return": reference,
        "floor_return": floor,
        "about": about,
        "version": __version__,
    }


def _reference(task: Task, random: float) -> tuple[float, str, list[float]]:
    """The reference, how it was found, and mean returns of runs for it."""
    threshold = _threshold(task)
    if threshold is not None and threshold > random:
        return threshold, "reward_threshold of its environment", []
    # what networks return that do not explore
    judged = replace(task, judged_by="evaluation")
    with closing(PopulationEnv(assumed(judged), RUNS, feedback="train")) as envs:
        envs.reset(seed=list(range(RUNS)))
        population = envs.population
        finish(population)
        returns = population.references().returns(population.final_report())
        ends = [float(x) for x in returns[~population.state.diverged]]
    if not ends:
        raise ValueError(
            f"reference_return of {task.id} cannot be measured: all of {RUNS} default "
            "runs diverged; give reference_return"
        )
    how = f"best of {RUNS} default runs of {task.budget:,} steps"
    return max(ends), how, ends


def _threshold(task: Task) -> float | None:
    """The return at which Gymnasium's registration of an environment calls it solved.

    Options may make it another environment, of which the threshold does not speak.
    """
    if backend_of(task) not in ("gymnasium", "batched") or task.inner_env_kwargs:
        return None
    module, _, name = task.inner_env.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gym.registry.get(name)
    threshold = None if spec is None else spec.reward_threshold
    if threshold is None or not math.isfinite(threshold):
        return None
    return float(threshold)
