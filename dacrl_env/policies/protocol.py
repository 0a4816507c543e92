"""Policies and methods: what they must offer, and how they are found by name."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.blame import blame_if_users, is_users
from dacrl_env.core.checks import (
    check_types,
    forgiven,
    meant,
    unknown,
    whole_numbers,
)
from dacrl_env.core.files import read_json, write_whole
from dacrl_env.core.provenance import NoSource, described
from dacrl_env.core.specs import NOT_IN_LABELS, POLICY_SUFFIXES, read_spec
from dacrl_env.core.version import __version__
from dacrl_env.policies.entry_points import Offered, offered
from dacrl_env.tasks.registration import TASKS, import_module, load
from dacrl_env.tasks.rungs import NAMES

if TYPE_CHECKING:
    import pandas as pd

    from dacrl_env.core.store import Store
    from dacrl_env.outer.vector_env import PopulationEnv
    from dacrl_env.policies.front import FrontPoint
    from dacrl_env.tasks import Task


FORMAT = 2  # of policy files; 1 has no checksum over all of a file
NETWORK = "network"  # the kind of policies that have weights
_HEADER = "dacrl_env.policy"  # in files of weights
PRETRAINED = "pretrained/"  # how names of policies that come with the package begin


class Policy(Protocol):
    """Anything that maps outer observations to actions.

    Beside ``action_mode`` a policy may have these attributes, which `evaluate` heeds:
    ``decisions`` (outer steps a run), ``decisions_near`` (that number, or the nearest
    one that runs can have) or ``decision_interval`` (inner environment steps),
    ``history`` (decisions stacked in the observation), ``configuration`` (static
    configuration of its runs, by name, where they are not given another one),
    ``hyperparameters``
    (names it needs to control beside the task's, or these by algorithm, see `needs`) or
    ``controls`` (names of all it sets, in order, instead of the task's), ``extremes``
    (name to smallest and largest value it will set, which may lie outside the task's
    own range as far as the algorithm's goes), and ``independent``: True says that what
    it does with a run depends neither on the runs beside it nor on the ``seed`` of
    `reset`, so that results are used again beside others.
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
    kinds that can be written out: `Static`, `Combined`, `OpenLoop`, `Switch` or
    `Controller`.
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
            seed: of the fit.
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
        return Cost(
            self.env_steps + other.env_steps,
            self.eval_steps + other.eval_steps,
            self.gradient_steps + other.gradient_steps,
            self.flops + other.flops,
        )

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


def cost_of(content: Any) -> Cost:
    """A cost that was written out as JSON.

    Raises:
        ValueError: other names, or values that no cost has.
    """
    names = list(asdict(Cost()))
    if not isinstance(content, Mapping) or set(content) != set(names):
        raise ValueError(f"a cost has {', '.join(names)}; got {content!r}")
    for name, value in content.items():
        whole = type(value) is int or (name == "flops" and type(value) is float)
        if not whole or not 0 <= value < math.inf:
            kind = "number" if name == "flops" else "whole number"
            raise ValueError(f"{name} of a cost is a {kind} from 0 up, got {value!r}")
    return Cost(**{**content, "flops": float(content["flops"])})


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
            ``step``, observed ``score``, ``cost`` (floating-point operations of the
            run so far) and ``hp/<name>`` as applied.
        settings: options of the environment that it was made with; None: not known.
        about: JSON values that tell it from other fits of one name: method, budget, ….
        front: of a search with several objectives, the policies that no other candidate
            dominates, the best in the first objective first, which is ``policy``.
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
        about: Mapping[str, Any] | None = None,
        front: Sequence[FrontPoint] = (),
    ) -> None:
        self.policy = policy
        self.front = list(front)
        self.about = about
        self.trace = trace
        self.settings = settings
        self.task = task
        self.cost = cost
        self.incumbents = list(incumbents) or [(cost, policy)]
        self.online = online
        self.action_mode = policy.action_mode
        self.hyperparameters = getattr(policy, "hyperparameters", ())
        self.decisions = getattr(policy, "decisions", None)
        self.decisions_near = getattr(policy, "decisions_near", None)
        self.decision_interval = getattr(policy, "decision_interval", None)
        self.history = getattr(policy, "history", None)
        self.configuration = getattr(policy, "configuration", {})
        self.controls = getattr(policy, "controls", None)
        self.extremes = getattr(policy, "extremes", {})

    def __repr__(self) -> str:
        """What it is, and what it took."""
        about = [repr(self.policy), *([f"task={self.task!r}"] if self.task else [])]
        return f"Fitted({', '.join(about)}, {self.cost.env_steps:,} training steps)"

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """As the policy."""
        self.policy.reset(envs, seed)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """As the policy."""
        return self.policy.act(observations, infos)


def needs(policy: Policy, algorithm: str) -> tuple[str, ...]:
    """Hyperparameters that a policy needs to control.

    Raises:
        ValueError: a policy that names algorithms, and not this one.
    """
    names = getattr(policy, "hyperparameters", None) or ()
    if not isinstance(names, Mapping):
        return tuple(names)
    if algorithm not in names:
        raise ValueError(
            f"{type(policy).__name__} does not know the algorithm {algorithm!r}; "
            f"valid: {', '.join(names)}"
        )
    return tuple(names[algorithm])


# name -> class and the arguments that the name stands for
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("dacrl_env.policies.static:Static", {}),
    "static": ("dacrl_env.policies.static:Static", {}),
    **{
        shape: ("dacrl_env.policies.schedules:Schedule", {"shape": shape})
        for shape in ("constant", "linear", "exponential", "cosine", "step")
    },
    **{
        f"{shape}-epsilon": (
            "dacrl_env.policies.schedules:Schedule",
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
    "combined": ("dacrl_env.baselines.combined:Combined", {}),
    "random": ("dacrl_env.baselines.dynamic_random:DynamicRandom", {}),
    "freeze-when-good": ("dacrl_env.baselines.freeze_when_good:FreezeWhenGood", {}),
    "checkpoint-when-best": (
        "dacrl_env.policies.checkpoint_when_best:CheckpointWhenBest",
        {},
    ),
    "restart-when-poor": (
        "dacrl_env.policies.restart_when_poor:RestartWhenPoor",
        {},
    ),
    "swap-when-fallen": (
        "dacrl_env.policies.swap_when_fallen:SwapWhenFallen",
        {},
    ),
    "reset-every": ("dacrl_env.baselines.reset_every:ResetEvery", {}),
    "adaptive-kl": ("dacrl_env.baselines.adaptive_kl:AdaptiveKL", {}),
    "reduce-on-plateau": ("dacrl_env.baselines.reduce_on_plateau:ReduceOnPlateau", {}),
    "vdbe": ("dacrl_env.baselines.vdbe:VDBE", {}),
    "noise-scale": ("dacrl_env.baselines.noise_scale:NoiseScale", {}),
    "lr-bandit": ("dacrl_env.baselines.lr_bandit:LearningRateBandit", {}),
    "ultho": ("dacrl_env.baselines.ultho:ULTHO", {}),
    "bmg-epsilon": ("dacrl_env.baselines.bmg_epsilon:BMGEpsilon", {}),
    "meta-gradients": ("dacrl_env.baselines.meta_gradients:MetaGradients", {}),
    # of the task that they are run on
    **{rung: ("dacrl_env.policies.tuned:Tuned", {"rung": rung}) for rung in NAMES},
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
    "static": "dacrl_env.policies.static:Static",
    "combined": "dacrl_env.baselines.combined:Combined",
    "open-loop": "dacrl_env.policies.open_loop:OpenLoop",
    "frozen-schedule": "dacrl_env.policies.frozen_schedule:FrozenSchedule",
    "switch": "dacrl_env.policies.switch:Switch",
    "checkpoint": "dacrl_env.policies.checkpoint_when_best:CheckpointWhenBest",
    "restart": "dacrl_env.policies.restart_when_poor:RestartWhenPoor",
    "swap": "dacrl_env.policies.swap_when_fallen:SwapWhenFallen",
    NETWORK: "dacrl_env.policies.network:Controller",
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
    if not isinstance(content, Mapping):
        raise ValueError(
            f"a policy is an object of kind and arguments, got {content!r}"
        )
    kind, arguments = content.get("kind"), content.get("arguments")
    if not isinstance(kind, str) or kind not in WRITTEN:
        raise ValueError(unknown("policy", kind, WRITTEN))
    if not isinstance(arguments, Mapping):
        raise ValueError(f"arguments of a {kind} policy must be a dict")
    factory, every = load(WRITTEN[kind]), {**arguments, **more}
    try:
        check_types(f"a {kind} policy", factory, every)
        policy: Policy = factory(**every)
    except (TypeError, AttributeError) as error:
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
    path = Path(path)
    suffix = policy_suffix(fitted.policy)
    if path.suffix != suffix:
        raise ValueError(f"this policy's file ends in {suffix}, got {path.name!r}")
    write_whole(path, fitted_bytes(fitted, about))


def fitted_bytes(fitted: Fitted, about: Mapping[str, Any]) -> bytes:
    """What `save_fitted` writes.

    Raises:
        ValueError: a policy of a kind that cannot be written out.
    """
    policy = to_json(fitted.policy)
    content = {
        "format": FORMAT,
        "dacrl_env": __version__,
        "task": fitted.task,
        "settings": _written(fitted.settings),
        "policy": policy,
        "cost": asdict(fitted.cost),
        "online": fitted.online,
        "about": dict(about),
    }
    content = json.loads(json.dumps(content))
    if policy["kind"] == NETWORK:
        return _with_weights(content)
    content["checksum"] = _checksum(content)
    return json.dumps(content, indent=2).encode()


def _written(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options of an environment as JSON; objects as what describes or prints them."""
    if settings is None:
        return None
    result = {}
    for name, value in settings.items():
        try:
            result[name] = described(value)
        except NoSource:
            result[name] = repr(value)
    return result


def _checksum(content: Mapping[str, Any], weights: bytes = b"") -> str:
    """Of all that a policy file holds."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    text = json.dumps(rest, sort_keys=True).encode()
    return hashlib.sha256(text + weights).hexdigest()


def _with_weights(content: dict[str, Any]) -> bytes:
    """A safetensors file of a network's weights, the rest in its header."""
    from safetensors.numpy import load, save

    arguments = dict(content["policy"]["arguments"])
    weights = base64.b64decode(arguments.pop("weights"))
    header = {**content, "policy": {"kind": NETWORK, "arguments": arguments}}
    header["checksum"] = _checksum(header, weights)
    return bytes(save(load(weights), {_HEADER: json.dumps(header, sort_keys=True)}))


def _read_weights(path: Path) -> dict[str, Any]:
    """What `_with_weights` wrote."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_HEADER)
            weights = save({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if text is None:
        raise ValueError(f"its header has no {_HEADER!r}")
    content = read_json(text)
    if _format_of(content) == 1:
        wanted = hashlib.sha256(weights).hexdigest()
    else:
        wanted = _checksum(content, weights)
    _compare(wanted, content)
    policy = content.get("policy")
    arguments = policy.get("arguments") if isinstance(policy, dict) else None
    if not isinstance(arguments, dict):
        raise ValueError("its header names no policy with arguments")
    arguments["weights"] = base64.b64encode(weights).decode()
    return content


def _read_plain(path: Path) -> dict[str, Any]:
    content = read_json(path.read_bytes())
    if _format_of(content) > 1:
        _compare(_checksum(content), content)
    return content


def _format_of(content: Mapping[str, Any]) -> int:
    written = content.get("format")
    if type(written) is not int or written < 1:
        raise ValueError(f"its format is {written!r}")
    if written > FORMAT:
        raise ValueError(
            f"format {written}, written by dacrl-env {content.get('dacrl_env')}; this "
            f"version reads up to {FORMAT}"
        )
    return written


def _compare(wanted: str, content: Mapping[str, Any]) -> None:
    if content.get("checksum") != wanted:
        raise ValueError(
            "damaged, or edited by hand: its checksum does not match; "
            "dacrl_env.policies.save_fitted writes policies"
        )


def _check_content(content: Mapping[str, Any]) -> None:
    """Raise a ValueError if what a policy file says is of another kind or range."""
    kinds: dict[str, tuple[type, ...]] = {
        "task": (str, type(None)),
        "settings": (dict, type(None)),
        "policy": (dict,),
        "cost": (dict,),
        "online": (float, int, type(None)),
        "about": (dict, type(None)),
    }
    optional = ("settings", "about")
    for name, valid in kinds.items():
        if name not in content and name not in optional:
            raise ValueError(f"{name!r} is missing")
        value = content.get(name)
        if not isinstance(value, valid) or isinstance(value, bool):
            names = ["null" if k is type(None) else k.__name__ for k in valid]
            raise ValueError(f"{name} must be {' or '.join(names)}, got {value!r}")


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
        weights = path.suffix == ".safetensors"
        content = _read_weights(path) if weights else _read_plain(path)
        _check_content(content)
        return Fitted(
            from_json(content["policy"], **more),
            cost_of(content["cost"]),
            online=content["online"],
            task=None if any_task else content["task"],
            settings=None if any_task else content.get("settings"),
            about=content.get("about"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no policy file: {error}") from error


def get_method(spec: str) -> Method:
    """A method by name or ``"module:Class"``, with arguments after commas.

    Other distributions offer names by entry points ``dacrl.methods``.

    Raises:
        ValueError: an unknown name, class or argument; the message lists the valid
            ones.
    """
    method: Method = _by_name(spec, "method")
    return method


def get_policy(spec: str) -> Policy:
    """A policy by name, ``"module:Class"`` or file, with arguments after commas.

    A file is one that `save_fitted` (and so ``dacrl fit``) wrote; ``any_task=True``
    lets it run on other tasks than the one it was made for, and with runs of another
    length. Policies that come with the package begin with ``pretrained/``; see
    `pretrained`. Names of rungs, such as ``static-tuned`` or ``rule-tuned``, are
    those of the task that they are run on; see `dacrl_env.policies.tuned`.

    Examples: ``"default"``, ``"static,learning_rate=3e-4"``,
    ``"linear-epsilon,fraction=0.5"``, ``"my_package.policies:Mine,depth=2"``,
    ``"tuned/policy.safetensors,any_task=True"``. Other distributions offer names by
    entry points ``dacrl.policies``.

    Raises:
        ValueError: an unknown name, class or argument; the message lists the valid
            ones.
    """
    name, kwargs = read_spec(spec, "policy")
    if name.startswith(PRETRAINED):
        return load_fitted(_pretrained(name), **kwargs)
    if name.endswith(POLICY_SUFFIXES):
        return load_fitted(name, **kwargs)
    policy: Policy = _by_name(spec, "policy")
    return policy


def pretrained() -> dict[str, Path]:
    """Policies that come with the package: files by name."""
    folder = folder_of_pretrained()
    found = [p for p in sorted(folder.glob("*")) if p.suffix in POLICY_SUFFIXES]
    return {f"{PRETRAINED}{p.stem}": p for p in found}


def folder_of_pretrained() -> Path:
    """Where policies are that come with the package."""
    return Path(str(files("dacrl_env.agents"))) / PRETRAINED


def _pretrained(name: str) -> Path:
    known = pretrained()
    if name not in known:
        raise ValueError(unknown("policy", name, known))
    return known[name]


def factory_of(name: str, what: str) -> tuple[Any, dict[str, Any]]:
    """What makes a policy or method, and the arguments that its name stands for.

    Args:
        name: without arguments. Case, hyphens and underscores of names do not count,
            but for those of ``"module:Class"``.
        what: "policy" or "method".

    Raises:
        ValueError: an unknown name or class, or one of another distribution that cannot
            be imported.
    """
    table = {"policy": POLICIES, "method": METHODS}[what]
    if what == "policy" and (
        name.startswith(PRETRAINED) or name.endswith(POLICY_SUFFIXES)
    ):
        return load_fitted, {}
    if ":" in name:
        return _own(name, what), {}
    known = forgiven(name, table)
    if known in table:
        entry, preset = table[known]
        return load(entry), dict(preset)
    others = offered_by_others(what)
    known = forgiven(name, others)
    if known not in others:
        raise ValueError(_unknown(name, [*table, *others], what))
    return others[known].load(), {}


def offered_by_others(what: str) -> dict[str, Offered]:
    """Policies or methods that other distributions offer, by name.

    Args:
        what: "policy" or "method".
    """
    return offered(what, {**METHODS, **POLICIES})


def _by_name(spec: str, what: str) -> Any:
    name, kwargs = read_spec(spec, what)
    label, equals, rest = name.partition("=")
    if equals and set(label) & set(NOT_IN_LABELS):
        raise ValueError(
            f"unknown {what} {name!r}; a label with one of {' '.join(NOT_IN_LABELS)} "
            f"is in quotation marks, which shells want quoted: '\"{label}\"={rest}'"
        )
    factory, preset = factory_of(name, what)
    kwargs = {**preset, **kwargs}
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        parameters = inspect.signature(factory).parameters
        wrong = [key for key in kwargs if key not in parameters]
        near = meant(wrong[0], parameters) if wrong else ""
        raise ValueError(
            f"{what} {spec!r}: {error}{near}; arguments: "
            f"{', '.join(parameters) or 'none'}"
        ) from error
    kwargs = whole_numbers(factory, kwargs)
    check_types(f"{what} {spec!r}", factory, kwargs)
    try:
        with blame_if_users(factory, f"{what} {spec!r}"):
            made = factory(**kwargs)
    except TypeError as error:
        if is_users(factory):  # the arguments are those of its signature
            raise
        raise ValueError(f"{what} {spec!r}: {error}") from error
    return checked(made, what, repr(spec))


def checked(made: Any, what: str, name: str) -> Any:
    """A policy or method, if it is one.

    Args:
        made: the object.
        what: "policy" or "method".
        name: of it, for the message.

    Raises:
        ValueError: it lacks what one has.
    """
    needed = {"method": ("fit",), "policy": ("action_mode", "reset", "act")}
    other = {"method": "policy", "policy": "method"}[what]
    missing = [part for part in needed[what] if not hasattr(made, part)]
    if missing:
        parts = f"{', '.join(needed[what][:-1])} and " * (len(needed[what]) > 1)
        plural = {"method": "methods", "policy": "policies"}[what]
        hint = (
            f"; valid are objects and classes with {parts}{needed[what][-1]}, and "
            f"names (dacrl list {plural})"
        )
        if all(hasattr(made, part) for part in needed[other]):
            hint = f"; it is a {other}, to be given among those"
        raise ValueError(f"{name} is no {what}: it has no {missing[0]!r}{hint}")
    return made


def parts_of(spec: str, what: str = "policy") -> tuple[Any, dict[str, Any]]:
    """What a policy or method of others is made by, and the arguments.

    Others' are named ``"module:name"``, or as their distribution offers them.

    Args:
        spec: as `get_policy` or `get_method` takes it, and has taken it.
        what: "policy" or "method".

    Returns:
        None and nothing for this package's, and for files.
    """
    name, arguments = read_spec(spec, what)
    if name.endswith(POLICY_SUFFIXES) or name.startswith(PRETRAINED):
        return None, {}
    if ":" in name:
        return load(name), arguments
    table = {"policy": POLICIES, "method": METHODS}[what]
    if forgiven(name, table) in table:
        return None, {}
    return factory_of(name, what)[0], arguments


def _own(name: str, what: str) -> Any:
    """What ``"module:Class"`` names.

    Raises:
        ValueError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    found = import_module(module, f"{what} {name!r}")
    try:
        thing = getattr(found, attribute)
    except AttributeError:
        near = meant(attribute, [n for n in dir(found) if n[:1] != "_"])
        raise ValueError(
            f"cannot load {what} {name!r}: the module has no {attribute!r}{near}"
        ) from None
    if not callable(thing):
        raise ValueError(
            f"cannot load {what} {name!r}: {name!r} is a {type(thing).__name__}, "
            "nothing that makes one; a class or a function does"
        )
    return thing


def _unknown(name: str, valid: Sequence[str], what: str) -> str:
    for kind, names in (("method", METHODS), ("policy", POLICIES)):
        if kind != what and (name in names or name in offered_by_others(kind)):
            return f"{name!r} is a {kind}, no {what}"
    if name in TASKS:
        return f"{name!r} is a task, no {what}"
    more = f", a policy file, or {PRETRAINED}…" if what == "policy" else ""
    return f"{unknown(what, name, valid)}, module:Class{more}"
