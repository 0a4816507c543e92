"""Policies and methods: what they must offer, and how they are found by name."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.registration import load

if TYPE_CHECKING:
    from dacrl_env.tasks import Task
    from dacrl_env.vector_env import PopulationEnv


class Policy(Protocol):
    """Anything that maps outer observations to actions.

    Beside ``action_mode`` a policy may have these attributes, which `evaluate` heeds:
    ``decisions`` (outer steps a run) or ``decision_interval`` (inner environment
    steps), and ``hyperparameters`` (names it needs to control beside the task's).
    """

    action_mode: str

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Get ready for new runs in every member of ``envs``."""
        ...

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, …)`` for observations ``(P, D)`` and vector infos.

        A member whose ``infos["env_steps"]`` is 0 has begun a new run.
        """
        ...


class Method(Protocol):
    """Anything that spends inner steps on the tuning split to make a policy."""

    def fit(
        self,
        task: str | Task,
        budget: int,
        seed: int,
        store: Any = None,
        **task_kwargs: Any,
    ) -> Policy:
        """Make a policy with at most ``budget`` inner environment steps."""
        ...


# name -> class and the arguments that the name stands for
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("dacrl_env.baselines.static:Static", {}),
    "static": ("dacrl_env.baselines.static:Static", {}),
    **{
        shape: ("dacrl_env.baselines.schedules:Schedule", {"shape": shape})
        for shape in ("constant", "linear", "exponential", "cosine", "step")
    },
    **{
        f"{shape}-epsilon": (
            "dacrl_env.baselines.schedules:Schedule",
            {
                "shape": shape,
                "hyperparameter": "epsilon",
                "start": 1.0,
                "end": 0.05,
                "fraction": 0.2,
            },
        )
        for shape in ("linear", "exponential", "cosine", "step")
    },
    "random": ("dacrl_env.baselines.dynamic_random:DynamicRandom", {}),
    "freeze-when-good": ("dacrl_env.baselines.freeze_when_good:FreezeWhenGood", {}),
    "reduce-on-plateau": ("dacrl_env.baselines.reduce_on_plateau:ReduceOnPlateau", {}),
}


def get_policy(spec: str) -> Policy:
    """A policy by name or ``"module:Class"``, with arguments after commas.

    Examples: ``"default"``, ``"static,learning_rate=3e-4"``,
    ``"linear-epsilon,fraction=0.5"``, ``"my_package.policies:Mine,depth=2"``.

    Raises:
        ValueError: an unknown name, class or argument; the message lists the valid
            ones.
    """
    name, *rest = (part.strip() for part in spec.split(","))
    kwargs: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"cannot read {part!r} in policy {spec!r}; arguments look like "
                "name,key=value,key=value"
            )
        kwargs[key] = _literal(value)
    if ":" in name:
        try:
            factory = load(name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot load policy {name!r}: {error}") from error
    elif name in POLICIES:
        entry, preset = POLICIES[name]
        factory, kwargs = load(entry), {**preset, **kwargs}
    else:
        raise ValueError(
            f"unknown policy {name!r}; valid: {', '.join(POLICIES)}, or module:Class"
        )
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        valid = ", ".join(inspect.signature(factory).parameters)
        raise ValueError(f"policy {spec!r}: {error}; arguments: {valid}") from error
    policy: Policy = factory(**kwargs)
    return policy


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
