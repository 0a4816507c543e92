"""Menus of static configuration: what is tried beside what a task has.

Shapes of networks, what they see of observations, and how PPO collects its rollouts:
fields that cannot change while a run goes on, and that practitioners tune first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dacrl_env.methods.search import problem_beside
from dacrl_env.methods.trials import Trials

Menu = dict[str, list[Any]]

_SIZES = ((64, 64), (128,), (128, 128), (256, 256))
_ACTIVATIONS = ("relu", "tanh")
_TRUTH = (False, True)

_NETWORKS = {"hidden_sizes": _SIZES, "activation": _ACTIVATIONS}
_SEEN = {"normalize_observations": _TRUTH, "fourier_features": (0, 128)}

MENUS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "dqn": {**_NETWORKS, **_SEEN},
    "ppo": {
        **_NETWORKS,
        **_SEEN,
        "num_inner_envs": (4, 8, 16),
        "rollout_length": (32, 64, 128, 256),
    },
    "sac": _NETWORKS,
    "discrete_sac": {**_NETWORKS, **_SEEN},
    # what is seen of observations is a choice of every decision there
    "pipeline": {**_NETWORKS, "rollout_length": (128, 256, 512)},
    "sgd": {},
}
"""Options of each field, by algorithm."""


def usable(trials: Trials, given: Mapping[str, Any]) -> Menu:
    """The menu of a task, without what its runs cannot have.

    Images with a convolution in front have no Fourier features; rollouts have to divide
    a decision.

    Args:
        trials: of the task.
        given: options of the environment; fields among them are not searched.
    """
    whole = {
        name: list(options)
        for name, options in MENUS[trials.task.algorithm].items()
        if name not in given
    }
    menu = {
        name: [o for o in options if problem_beside(trials, whole, name, o) is None]
        for name, options in whole.items()
    }
    return {name: options for name, options in menu.items() if options}
