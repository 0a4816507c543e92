"""Compile what tasks need, before it is needed.

Compiled code is kept, so that this is once a version and processor; see
:mod:`dacrl_env.kernels.compiling`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import get_task, listed


def warm_up(
    tasks: Iterable[str | Task] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Compile all that runs of some tasks call.

    Args:
        tasks: ids or tasks; None: all that are listed.
        say: is told of each task that is done, and of those that lack a package.

    Returns:
        Seconds of each task; what a task shares with one before it takes none.

    Raises:
        ValueError: an unknown task.
        ImportError: a task that was asked for needs a package that is missing.
    """
    seconds: dict[str, float] = {}
    for task in [get_task(t) for t in (listed() if tasks is None else tasks)]:
        began = time.perf_counter()
        try:
            _use(task)
        except ImportError as error:
            if tasks is not None:
                raise
            if say is not None:
                say(f"{task.id}: {error}")
            continue
        seconds[task.id] = time.perf_counter() - began
        if say is not None:
            say(f"{task.id}: {seconds[task.id]:.1f} s")
    return seconds


def _use(task: Task) -> None:
    """Call all compiled functions of one task, for as short a time as there can be."""
    envs = PopulationEnv(task, 1, eval_episodes=1, num_threads=1)
    envs.reset(seed=0)
    population, state = envs.population, envs.population.state
    learner, runs = population.learner, state.learner
    asked = population.values()
    every = {h.name: h for h in type(learner).hyperparameters}
    algorithms = every["algorithm"].ends[1] if "algorithm" in every else 0
    for code in range(int(algorithms) + 1):
        values = asked | ({"algorithm": np.full(1, float(code))} if algorithms else {})
        if "reset_all" in values:  # what is drawn anew at an event
            learner.happen(runs, values | {"reset_all": np.ones(1)})
        interval = learner.begin_interval(runs)
        learner.train(runs, values, learner.granularity(envs.settings.config), interval)
        learner.signals(runs, values, interval)
        if algorithms:  # that of the start alone has been evaluated
            one = np.zeros(1, np.int64)
            learner.play(runs, one, runs.keys[:, :1], population.physics[:1])
    envs.close()
