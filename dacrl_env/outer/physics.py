"""Physical constants of a task's instances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dacrl_env.inner_envs import InnerEnv
from dacrl_env.outer.actions import check_names
from dacrl_env.tasks import Instance

Floats = NDArray[np.float64]

_TRIED_STEPS = 5  # of environments with the constants of each instance


def constants(instances: Sequence[Instance], env: InnerEnv, inner_env: str) -> Floats:
    """Constants ``(instances, K)``, in the order of the environment's.

    Args:
        instances: of the task.
        env: that has such constants.
        inner_env: its id.

    Raises:
        ValueError: a name that is none of the environment's constants, or values
            with which its observations or rewards are not finite.
    """
    default = env.physics
    rows = []
    for instance in instances:
        check_names(instance.physics, list(default), "physical constant")
        rows.append([*{**default, **instance.physics}.values()])
    table = np.array(rows, np.float64).reshape(len(rows), len(default))
    finite = np.asarray(np.isfinite(table).all(1))
    varied = (table != [*default.values()]).any(1)
    if finite.all() and varied.any():
        finite[varied] = _tried(env, table[varied])
    if not finite.all():
        wrong = [i for i, good in zip(instances, finite, strict=True) if not good]
        raise ValueError(
            f"inner environment {inner_env} gives observations or rewards that are not "
            f"finite with the physical constants of "
            f"{', '.join(i.name for i in wrong)}: {dict(wrong[0].physics)}"
        )
    return table


@np.errstate(all="ignore")
def _tried(env: InnerEnv, table: Floats) -> NDArray[np.bool_]:
    """Instances ``(instances,)`` with which some steps are finite."""
    n = len(table)
    state = env.init(np.arange(1, n + 1, dtype=np.uint64)[:, None], table)
    try:
        actions: NDArray[np.generic] = np.zeros((n, 1), np.int64)
        if not env.num_actions:
            actions = np.tile(env.action_low, (n, 1, 1))
        finite = np.isfinite(state.observations).reshape(n, -1).all(1)
        for _ in range(_TRIED_STEPS):
            step = env.step(state, actions)
            seen = step.observations.reshape(n, -1)
            finite &= np.isfinite(seen).all(1) & np.isfinite(step.rewards[:, 0])
        return np.asarray(finite)
    finally:
        env.close(state)
