"""Policies and methods: what they must offer, and how they are found by name."""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.checks import check_types
from dacrl_env.files import file_digest, write_whole
from dacrl_env.registration import load
from dacrl_env.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from dacrl_env.store import Store
    from dacrl_env.tasks import Task
    from dacrl_env.vector_env import PopulationEnv


FORMAT = 1  # of policy files
NETWORK = "network"  # the kind of policies that have weights
_HEADER = "dacrl_env.policy"  # in files of weights
POLICY_SUFFIXES = (".json", ".safetensors")  # of files that hold a policy
PRETRAINED = "pretrained/"  # how names of policies that come with the package begin


class Policy(Protocol):
    """Anything that maps outer observations to actions.

    Beside ``action_mode`` a policy may have these attributes, which `evaluate` heeds:
    ``decisions`` (outer steps a run) or ``decision_interval`` (inner environment
    steps), ``history`` (decisions stacked in the observation), ``hyperparameters``
    (names it needs to control beside the task's, or these by learner, see `needs`) or
    ``controls`` (names of all it sets, in order, instead of the task's).
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
    """Anything that spends inner steps on the tuning split to make a policy.

    A dataclass, whose fields tell its fits apart. The policies that it makes are of the
    kinds that can be written out: `Static`, `OpenLoop`, `Switch` or `Controller`.
    """

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

    def less(self, other: Cost) -> Cost:
        """What this one has beyond another."""
        return Cost(**{k: v - getattr(other, k) for k, v in asdict(self).items()})

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
        settings: options of the environment that it was made with; None: not known.
    """

    def __init__(
        self,
        policy: Policy,
        cost: Cost,
        incumbents: Sequence[tuple[Cost, Policy]] = (),
        online: float | None = None,
        task: str | None = None,
        trace: pd.DataFrame | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.policy = policy
        self.trace = trace
        self.settings = settings
        self.task = task
        self.cost = cost
        self.incumbents = list(incumbents) or [(cost, policy)]
        self.online = online
        self.action_mode = policy.action_mode
        self.hyperparameters = getattr(policy, "hyperparameters", ())
        self.decisions = getattr(policy, "decisions", None)
        self.decision_interval = getattr(policy, "decision_interval", None)
        self.history = getattr(policy, "history", None)
        self.controls = getattr(policy, "controls", None)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """As the policy."""
        self.policy.reset(envs, seed)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """As the policy."""
        return self.policy.act(observations, infos)


def source(thing: Any) -> str | None:
    """Digest of the file that the class of a user's policy or method is in.

    None for those of this package, which the version tells apart, and for classes that
    are in no file.
    """
    module = sys.modules.get(type(thing).__module__)
    file = getattr(module, "__file__", None)
    if file is None or type(thing).__module__.partition(".")[0] == "dacrl_env":
        return None
    return file_digest(file)


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
    "race": ("dacrl_env.baselines.race:Race", {}),
    "sequential-halving": (
        "dacrl_env.baselines.sequential_halving:SequentialHalving",
        {},
    ),
    "successive-halving": ("dacrl_env.baselines.hyperband:SuccessiveHalving", {}),
    "hyperband": ("dacrl_env.baselines.hyperband:Hyperband", {}),
    "tpe": ("dacrl_env.baselines.tpe:TPE", {}),
    "smac": ("dacrl_env.baselines.smac:SMAC", {}),
    "cma-es": ("dacrl_env.baselines.cma_es:CMAES", {}),
    "pbt": ("dacrl_env.baselines.pbt:PBT", {}),
    "pb2": ("dacrl_env.baselines.pb2:PB2", {}),
    "controller-ppo": ("dacrl_env.agents.train_ppo:ControllerPPO", {}),
    "controller-sac": ("dacrl_env.agents.train_sac:ControllerSAC", {}),
    "controller-dqn": ("dacrl_env.agents.train_dqn:ControllerDQN", {}),
    "controller-recurrent-ppo": (
        "dacrl_env.agents.train_recurrent_ppo:ControllerRecurrentPPO",
        {},
    ),
}

# kinds of policies that can be written out: what a file may name
WRITTEN = {
    "static": "dacrl_env.baselines.static:Static",
    "open-loop": "dacrl_env.baselines.open_loop:OpenLoop",
    "switch": "dacrl_env.baselines.switch:Switch",
    NETWORK: "dacrl_env.agents.controller:Controller",
}


def to_json(policy: Any) -> dict[str, Any]:
    """A policy that a method made as JSON values; see `from_json`.

    Raises:
        ValueError: a policy of another kind.
    """
    for kind, entry in WRITTEN.items():
        if type(policy) is load(entry):
            return {"kind": kind, "arguments": policy.arguments()}
    raise ValueError(
        f"a {type(policy).__name__} cannot be written out; valid: {', '.join(WRITTEN)}"
    )


def from_json(content: Mapping[str, Any], **more: Any) -> Policy:
    """The policy that `to_json` wrote.

    Args:
        content: of `to_json`.
        **more: further arguments of the policy.

    Raises:
        ValueError: an unknown kind, or arguments that it does not take.
    """
    kind, arguments = content.get("kind"), content.get("arguments")
    if kind not in WRITTEN:
        raise ValueError(f"unknown policy {kind!r}; valid: {', '.join(WRITTEN)}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"arguments of a {kind} policy must be a dict")
    try:
        policy: Policy = load(WRITTEN[kind])(**{**arguments, **more})
    except TypeError as error:
        raise ValueError(f"arguments of a {kind} policy: {error}") from error
    return policy


def identity(policy: Any) -> dict[str, Any]:
    """What tells a written policy from all others: `to_json`, weights by their hash."""
    content = to_json(policy)
    if content["kind"] == NETWORK:
        weights = content["arguments"]["weights"]
        digest = hashlib.sha256(weights.encode()).hexdigest()
        content["arguments"] = {**content["arguments"], "weights": digest}
    return content


def policy_suffix(policy: Any) -> str:
    """How the name of a policy's file ends."""
    return ".safetensors" if to_json(policy)["kind"] == NETWORK else ".json"


def save_fitted(
    fitted: Fitted, path: str | os.PathLike[str], about: Mapping[str, Any]
) -> None:
    """Write a policy file, whole or not at all: JSON, or safetensors with a header.

    Args:
        fitted: a policy of a kind that can be written out.
        path: ends in ``.safetensors`` for a network, else in ``.json``; by this
            `get_policy` knows it.
        about: JSON values for the reader: method, seed, ….

    Raises:
        ValueError: another suffix, or a policy of another kind.
    """
    path, policy = Path(path), to_json(fitted.policy)
    suffix = policy_suffix(fitted.policy)
    if path.suffix != suffix:
        raise ValueError(f"this policy's file ends in {suffix}, got {path.name!r}")
    content = {
        "format": FORMAT,
        "dacrl_env": __version__,
        "task": fitted.task,
        "settings": fitted.settings,
        "policy": policy,
        "cost": asdict(fitted.cost),
        "online": fitted.online,
        "about": dict(about),
    }
    if policy["kind"] == NETWORK:
        data = _with_weights(content)
    else:
        data = json.dumps(content, indent=2).encode()
    write_whole(path, data)


def _with_weights(content: dict[str, Any]) -> bytes:
    """A safetensors file of a network's weights, the rest in its header."""
    from safetensors.numpy import load, save

    arguments = dict(content["policy"]["arguments"])
    weights = base64.b64decode(arguments.pop("weights"))
    header = {**content, "policy": {"kind": NETWORK, "arguments": arguments}}
    header["checksum"] = hashlib.sha256(weights).hexdigest()
    return bytes(save(load(weights), {_HEADER: json.dumps(header, sort_keys=True)}))


def _read_weights(path: Path) -> dict[str, Any]:
    """What `_with_weights` wrote."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save

    try:
        with safe_open(path, framework="numpy") as file:
            content = json.loads((file.metadata() or {})[_HEADER])
            weights = save({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    _check_format(content)
    if hashlib.sha256(weights).hexdigest() != content["checksum"]:
        raise ValueError("damaged: its checksum does not match")
    content["policy"]["arguments"]["weights"] = base64.b64encode(weights).decode()
    return dict(content)


def _check_format(content: Mapping[str, Any]) -> None:
    written = content["format"]
    if written > FORMAT:
        raise ValueError(
            f"format {written}, written by dacrl-env {content['dacrl_env']}; this "
            f"version reads up to {FORMAT}"
        )


def load_fitted(
    path: str | os.PathLike[str], any_task: bool = False, **more: Any
) -> Fitted:
    """The policy in a file; loading executes nothing.

    Args:
        path: of a file that `save_fitted` wrote.
        any_task: let it run on other tasks than the one it was made for, and with runs
            of another length, decision interval or feedback.
        **more: further arguments of the policy.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a policy file, damaged, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no policy file {path}")
    try:
        if path.suffix == ".safetensors":
            content = _read_weights(path)
        else:
            content = json.loads(path.read_text())
            _check_format(content)
        return Fitted(
            from_json(content["policy"], **more),
            Cost(**content["cost"]),
            online=content["online"],
            task=None if any_task else content["task"],
            settings=None if any_task else content.get("settings"),
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

    A file is one that `save_fitted` (and so ``dacrl fit``) wrote; ``any_task=True``
    lets it run on other tasks than the one it was made for, and with runs of another
    length. Policies that come with the package begin with ``pretrained/``; see
    `pretrained`.

    Examples: ``"default"``, ``"static,learning_rate=3e-4"``,
    ``"linear-epsilon,fraction=0.5"``, ``"my_package.policies:Mine,depth=2"``,
    ``"tuned/policy.safetensors,any_task=True"``.

    Raises:
        ValueError: an unknown name, class or argument; the message lists the valid
            ones.
    """
    name, kwargs = _read_spec(spec, "policy")
    if name.startswith(PRETRAINED):
        return load_fitted(_pretrained(name), **kwargs)
    if name.endswith(POLICY_SUFFIXES):
        return load_fitted(name, **kwargs)
    policy: Policy = _by_name(spec, POLICIES, "policy")
    return policy


def pretrained() -> dict[str, Path]:
    """Policies that come with the package: files by name."""
    folder = Path(str(files("dacrl_env.agents"))) / PRETRAINED
    found = [p for p in sorted(folder.glob("*")) if p.suffix in POLICY_SUFFIXES]
    return {f"{PRETRAINED}{p.stem}": p for p in found}


def _pretrained(name: str) -> Path:
    known = pretrained()
    if name not in known:
        valid = ", ".join(known) or "none come with this version"
        raise ValueError(f"unknown policy {name!r}; valid: {valid}")
    return known[name]


def _by_name(
    spec: str, table: Mapping[str, tuple[str, dict[str, Any]]], what: str
) -> Any:
    name, kwargs = _read_spec(spec, what)
    if ":" in name:
        try:
            factory = load(name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot load {what} {name!r}: {error}") from error
    elif name in table:
        entry, preset = table[name]
        factory, kwargs = load(entry), {**preset, **kwargs}
    else:
        more = f", a policy file, or {PRETRAINED}…" if table is POLICIES else ""
        raise ValueError(
            f"unknown {what} {name!r}; valid: {', '.join(table)}, module:Class{more}"
        )
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        valid = ", ".join(inspect.signature(factory).parameters)
        raise ValueError(f"{what} {spec!r}: {error}; arguments: {valid}") from error
    check_types(f"{what} {spec!r}", factory, kwargs)
    try:
        made = factory(**kwargs)
    except TypeError as error:
        raise ValueError(f"{what} {spec!r}: {error}") from error
    for name in ("fit",) if what == "method" else ("action_mode", "reset", "act"):
        if not hasattr(made, name):
            raise ValueError(f"{spec!r} is no {what}: it has no {name!r}")
    return made


def _read_spec(spec: str, what: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments."""
    name, *rest = _parts(spec)
    kwargs: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"cannot read {part!r} in {what} {spec!r}; arguments look like "
                "name,key=value,key=value"
            )
        kwargs[key] = literal(value)
    return name, kwargs


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


def literal(text: str) -> Any:
    """The Python value that a text is, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
