"""Policies and methods: what they must offer, and how they are found by name."""

from __future__ import annotations

import ast
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.registration import load
from dacrl_env.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from dacrl_env.store import Store
    from dacrl_env.tasks import Task
    from dacrl_env.vector_env import PopulationEnv


FORMAT = 1  # of policy files


class Policy(Protocol):
    """Anything that maps outer observations to actions.

    Beside ``action_mode`` a policy may have these attributes, which `evaluate` heeds:
    ``decisions`` (outer steps a run) or ``decision_interval`` (inner environment
    steps), and ``hyperparameters`` (names it needs to control beside the task's, or
    these by learner, see `needs`).
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
        /,  # so that the budget of a run can be among the task's options
        store: Store | None = None,
        progress: Callable[[int], Any] | None = None,
        **task_kwargs: Any,
    ) -> Fitted:
        """Make a policy with at most ``budget`` inner environment steps of training.

        Args:
            task: id or task.
            budget: inner environment steps of training, tuning split only.
            seed: of the method run.
            store: where an interrupted fit finds what it had done.
            progress: called with inner environment steps done since its last call.
            **task_kwargs: options of the environment.
        """
        ...


@dataclass(frozen=True)
class Cost:
    """What was used: steps of inner environments, and work on networks."""

    env_steps: int = 0  # training
    eval_steps: int = 0  # evaluation episodes that a method could see
    gradient_steps: int = 0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{k: v + getattr(other, k) for k, v in asdict(self).items()})

    def towards(self, other: Cost, share: float) -> Cost:
        """The cost at a share of the way from here to another."""
        return Cost(
            **{
                k: v + type(v)(share * (getattr(other, k) - v))
                for k, v in asdict(self).items()
            }
        )


class Fitted:
    """A policy that a method made, and what it took; itself a policy.

    Args:
        policy: what goes on.
        cost: of making it.
        incumbents: what the method would have returned had it stopped after the given
            cost, in order; the last is ``policy``.
        online: score by the report stream of the tuning run that ``policy`` was
            chosen by. The best of many runs by what it observed: never to be ranked
            against a single run. None: the method has no such run.
        task: id of the task it was made for; None: not known.
        trace: the runs behind it, a row per run and decision: ``generation`` (fresh
            starts before it), ``member``, ``parent`` (the member it continues from),
            ``step``, observed ``score`` and ``hp/<name>`` as applied.
    """

    def __init__(
        self,
        policy: Policy,
        cost: Cost,
        incumbents: Sequence[tuple[Cost, Policy]] = (),
        online: float | None = None,
        task: str | None = None,
        trace: pd.DataFrame | None = None,
    ) -> None:
        self.policy = policy
        self.trace = trace
        self.task = task
        self.cost = cost
        self.incumbents = list(incumbents) or [(cost, policy)]
        self.online = online
        self.action_mode = policy.action_mode
        self.hyperparameters = getattr(policy, "hyperparameters", ())
        self.decisions = getattr(policy, "decisions", None)
        self.decision_interval = getattr(policy, "decision_interval", None)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """As the policy."""
        self.policy.reset(envs, seed)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """As the policy."""
        return self.policy.act(observations, infos)


def needs(policy: Policy, learner: str) -> tuple[str, ...]:
    """Hyperparameters that a policy needs to control.

    Raises:
        ValueError: a policy that names learners, and not this one.
    """
    names = getattr(policy, "hyperparameters", ())
    if not isinstance(names, Mapping):
        return tuple(names)
    if learner not in names:
        raise ValueError(
            f"{type(policy).__name__} does not know the learner {learner!r}; valid: "
            f"{', '.join(names)}"
        )
    return tuple(names[learner])


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
    "vdbe": ("dacrl_env.baselines.vdbe:VDBE", {}),
    "noise-scale": ("dacrl_env.baselines.noise_scale:NoiseScale", {}),
    "lr-bandit": ("dacrl_env.baselines.lr_bandit:LearningRateBandit", {}),
    "meta-gradients": ("dacrl_env.baselines.meta_gradients:MetaGradients", {}),
}


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "grid-search": ("dacrl_env.baselines.grid_search:GridSearch", {}),
    "random-search": ("dacrl_env.baselines.random_search:RandomSearch", {}),
    "random-schedules": (
        "dacrl_env.baselines.random_search:RandomSearch",
        {"family": "schedule"},
    ),
    "successive-halving": ("dacrl_env.baselines.hyperband:SuccessiveHalving", {}),
    "hyperband": ("dacrl_env.baselines.hyperband:Hyperband", {}),
    "tpe": ("dacrl_env.baselines.tpe:TPE", {}),
    "smac": ("dacrl_env.baselines.smac:SMAC", {}),
    "pbt": ("dacrl_env.baselines.pbt:PBT", {}),
    "pb2": ("dacrl_env.baselines.pb2:PB2", {}),
}

# kinds of policies that are written out as JSON: what a file may name
WRITTEN = {
    "static": "dacrl_env.baselines.static:Static",
    "open-loop": "dacrl_env.baselines.open_loop:OpenLoop",
}


def to_json(policy: Any) -> dict[str, Any]:
    """A policy that a method made as JSON values; see `from_json`.

    Raises:
        ValueError: a policy of another kind.
    """
    for kind, entry in WRITTEN.items():
        if type(policy) is load(entry):
            arguments = policy.config if kind == "static" else {"values": policy.values}
            return {"kind": kind, "arguments": arguments}
    raise ValueError(
        f"a {type(policy).__name__} cannot be written out; valid: {', '.join(WRITTEN)}"
    )


def from_json(content: Mapping[str, Any]) -> Policy:
    """The policy that `to_json` wrote.

    Raises:
        ValueError: an unknown kind, or arguments that it does not take.
    """
    kind, arguments = content.get("kind"), content.get("arguments")
    if kind not in WRITTEN:
        raise ValueError(f"unknown policy {kind!r}; valid: {', '.join(WRITTEN)}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"arguments of a {kind} policy must be a dict")
    try:
        policy: Policy = load(WRITTEN[kind])(**arguments)
    except TypeError as error:
        raise ValueError(f"arguments of a {kind} policy: {error}") from error
    return policy


def save_fitted(
    fitted: Fitted, path: str | os.PathLike[str], about: Mapping[str, Any]
) -> None:
    """Write a policy file: JSON, whole or not at all.

    Args:
        fitted: a policy of a kind that can be written out.
        path: ends in ``.json``, by which `get_policy` knows it.
        about: JSON values for the reader: method, seed, ….

    Raises:
        ValueError: another suffix, or a policy of another kind.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"a policy file ends in .json, got {path.name!r}")
    content = {
        "format": FORMAT,
        "dacrl_env": __version__,
        "task": fitted.task,
        "policy": to_json(fitted.policy),
        "cost": asdict(fitted.cost),
        "online": fitted.online,
        "about": dict(about),
    }
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with open(temporary, "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_fitted(path: str | os.PathLike[str]) -> Fitted:
    """The policy in a file; loading executes nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a policy file, damaged, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no policy file {path}")
    try:
        content = json.loads(path.read_text())
        written = content["format"]
        if written > FORMAT:
            raise ValueError(
                f"format {written}, written by dacrl-env {content['dacrl_env']}; this "
                f"version reads up to {FORMAT}"
            )
        return Fitted(
            from_json(content["policy"]),
            Cost(**content["cost"]),
            online=content["online"],
            task=content["task"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no policy file: {error}") from error


def get_method(spec: str) -> Method:
    """A method by name or ``"module:Class"``, with arguments after commas.

    Raises:
        ValueError: an unknown name, class or argument; the message lists the valid
            ones.
    """
    method: Method = _by_name(spec, METHODS, "method")
    return method


def get_policy(spec: str) -> Policy:
    """A policy by name, ``"module:Class"`` or file, with arguments after commas.

    A file is one that `save_fitted` (and so ``dacrl fit``) wrote.

    Examples: ``"default"``, ``"static,learning_rate=3e-4"``,
    ``"linear-epsilon,fraction=0.5"``, ``"my_package.policies:Mine,depth=2"``.

    Raises:
        ValueError: an unknown name, class or argument; the message lists the valid
            ones.
    """
    if spec.endswith(".json"):
        return load_fitted(spec)
    policy: Policy = _by_name(spec, POLICIES, "policy")
    return policy


def _by_name(
    spec: str, table: Mapping[str, tuple[str, dict[str, Any]]], what: str
) -> Any:
    name, *rest = _parts(spec)
    kwargs: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"cannot read {part!r} in {what} {spec!r}; arguments look like "
                "name,key=value,key=value"
            )
        kwargs[key] = _literal(value)
    if ":" in name:
        try:
            factory = load(name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot load {what} {name!r}: {error}") from error
    elif name in table:
        entry, preset = table[name]
        factory, kwargs = load(entry), {**preset, **kwargs}
    else:
        raise ValueError(
            f"unknown {what} {name!r}; valid: {', '.join(table)}, or module:Class"
        )
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        valid = ", ".join(inspect.signature(factory).parameters)
        raise ValueError(f"{what} {spec!r}: {error}; arguments: {valid}") from error
    return factory(**kwargs)


def _parts(spec: str) -> list[str]:
    """What commas separate, those inside brackets aside."""
    parts, depth = [""], 0
    for letter in spec:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
