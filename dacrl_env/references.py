"""Measure the returns that a task's scores are normalised by.

Random: mean return of uniformly random actions. Floor: below the lowest return seen of
random and of constant actions. Reference: the task's choice; what runs of the default
configuration reach is printed beside it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.learners import streams
from dacrl_env.learners.rollout import play
from dacrl_env.registration import get_task, make_inner_env
from dacrl_env.stats import bootstrap_interval

_TOGETHER = 1_000  # episodes


def measure(task: str, episodes: int = 200_000, runs: int = 64) -> dict[str, Any]:
    """Returns of random and constant actions, and of default training runs.

    Args:
        task: id.
        episodes: of random actions, and of each constant action.
        runs: training runs of the default configuration, on the tuning split.

    Returns:
        The figures that `render` prints.

    Raises:
        ValueError: unknown task, or fewer than one episode or run.
    """
    from dacrl_env.evaluation import evaluate

    if episodes < 1 or runs < 1:
        raise ValueError(f"episodes and runs must be at least 1: {episodes}, {runs}")
    known = get_task(task)
    if not known.inner_env:
        raise ValueError(
            f"{task} has no inner environment to act in; its references are the return "
            "of untrained parameters and that of dacrl_env.baselines.quadratic:Optimal"
        )
    env = make_inner_env(known)
    random = _episodes(task, None, episodes)
    constant = [_episodes(task, a, episodes) for a in range(env.num_actions)]
    lowest = min(float(returns.min()) for returns in (random, *constant))
    frame = evaluate("default", task, range(runs), split="tuning")
    span = known.reference_return - known.random_return
    reported = frame["report_score"].dropna() * span + known.random_return
    final = frame.groupby("seed")["report_score"].last() * span + known.random_return
    return {
        "task": known,
        "episodes": episodes,
        "runs": runs,
        "random_mean": float(random.mean()),
        "random_interval": bootstrap_interval(random),
        "lowest": lowest,
        "default_final": float(final.mean()),
        "default_final_interval": bootstrap_interval(final.to_numpy()),
        "default_highest": float(reported.max()),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures beside what the task has registered."""
    task = figures["task"]
    low, high = figures["random_interval"]
    final_low, final_high = figures["default_final_interval"]
    return "\n".join(
        [
            f"{task.id}",
            f"  random     {figures['random_mean']:.2f} [{low:.2f}, {high:.2f}] over "
            f"{figures['episodes']:,} episodes (registered {task.random_return:g})",
            f"  lowest     {figures['lowest']:.2f} of random and constant actions "
            f"(registered floor {task.floor_return:g})",
            f"  default    {figures['default_final']:.1f} [{final_low:.1f}, "
            f"{final_high:.1f}] at the end of {figures['runs']} runs; highest report "
            f"{figures['default_highest']:.1f} (registered reference "
            f"{task.reference_return:g})",
        ]
    )


def _episodes(task: str, action: int | None, count: int) -> NDArray[np.float64]:
    """Returns of ``count`` episodes of random actions, or of one action."""
    env = make_inner_env(get_task(task), reuse=True)
    run = streams.member_keys("tuning", 0, 0, 0)
    env_key, act_key = (
        run[streams.PURPOSES.index(purpose)][None] for purpose in ("envs", "act")
    )
    constants = np.array([list(env.physics.values())], np.float64)
    returns: list[NDArray[np.float64]] = []
    for block, start in enumerate(range(0, count, _TOGETHER)):
        width = min(_TOGETHER, count - start)
        keys = streams.bits(env_key, np.array([block]), width)
        steps = itertools.count(block * 2**32)

        def act(_: Any, width: int = width, steps: Any = steps) -> Any:
            if action is not None:
                return np.full((1, width), action)
            if env.num_actions == 0:
                A = len(env.action_low)
                u = streams.uniforms(act_key, np.array([next(steps)]), width * A)
                span = env.action_high - env.action_low
                return env.action_low + span * u.reshape(1, width, A)
            high = np.array([env.num_actions])
            return streams.integers(act_key, np.array([next(steps)]), width, high)

        returns.append(play(act, env, keys, constants)[0].ravel())
    return np.concatenate(returns)
