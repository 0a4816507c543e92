"""Stable-Baselines3's own DQN and PPO behind the interface of a learner.

Raffin et al. 2021, "Stable-Baselines3: Reliable reinforcement learning
implementations" (JMLR 22). Members run one by one through a single model object: what
a member consists of lies in arrays, population axis first; before a member is trained
its rows are loaded into the model, and stored from it afterwards. The model itself
keeps nothing.

What Stable-Baselines3 does differently from this package's own learners stays so: one
draw of epsilon decides for all of a member's environments, target networks are set
where the number of steps divides by the interval, random numbers come from generators.

Letters: P members, N inner environments a member, C rows of the replay, T steps of a
rollout.
"""

from __future__ import annotations

import inspect
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dacrl_env.inner_envs import InnerEnv
from dacrl_env.learners import dqn, ppo, streams
from dacrl_env.learners.interval import Interval, begin
from dacrl_env.learners.networks import ACTIVATIONS
from dacrl_env.learners.rollout import play
from dacrl_env.registration import load
from dacrl_env.snapshot import copy_rows

_PROBE_BATCH = 256  # transitions the signals of an interval are computed from
_OURS = {  # arguments of both algorithms that are not a user's, and who sets them
    "env": "the task",
    "learning_rate": "hyperparameter learning_rate",
    "batch_size": "hyperparameter batch_size",
    "gamma": "hyperparameter gamma",
    "max_grad_norm": "hyperparameter max_grad_norm",
    "tensorboard_log": "nobody: runs are silent",
    "verbose": "nobody: runs are silent",
    "seed": "the run's streams",
    "device": "device",
    "_init_setup_model": "this learner",
}
_DQN_OURS = {
    **_OURS,
    "buffer_size": "replay_capacity",
    "learning_starts": "learning_starts",
    "n_steps": "n_step",
    "train_freq": "hyperparameter train_freq",
    "gradient_steps": "hyperparameter gradient_steps",
    "target_update_interval": "hyperparameter target_update_interval",
    "exploration_fraction": "hyperparameter epsilon",
    "exploration_initial_eps": "hyperparameter epsilon",
    "exploration_final_eps": "hyperparameter epsilon",
    # the contents of a replay must be part of the state
    "replay_buffer_class": "this learner",
    "replay_buffer_kwargs": "this learner",
    "optimize_memory_usage": "this learner",
}
_PPO_OURS = {
    **_OURS,
    "n_steps": "rollout_length",
    "n_epochs": "hyperparameter n_epochs",
    "gae_lambda": "hyperparameter gae_lambda",
    "clip_range": "hyperparameter clip_range",
    "clip_range_vf": "clip_range_vf",
    "normalize_advantage": "normalize_advantages",
    "ent_coef": "hyperparameter ent_coef",
    "vf_coef": "hyperparameter vf_coef",
}

Values = Mapping[str, NDArray[np.float64]]  # hyperparameter name -> (P,)


# -- configuration --------------------------------------------------------------


@dataclass(frozen=True)
class SB3DQNConfig(dqn.DQNConfig):
    """What sets shapes; fixed for the life of a population.

    As :class:`~dacrl_env.learners.dqn.DQNConfig`, and:

    Args:
        sb3_kwargs: further arguments of ``stable_baselines3.DQN``: JSON values, and
            classes or functions, also by name as ``"module:name"``. ``policy_kwargs``
            go before ``hidden_sizes`` and ``activation``.

    Raises:
        ValueError: ``double_q``, which Stable-Baselines3 does not have; or an argument
            that does not exist, that is set elsewhere, or that has no name.
    """

    sb3_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse(self, "double_q")
        algorithm = stable_baselines3.DQN
        if self.n_step > 1 and "n_steps" not in _arguments(algorithm):
            raise ValueError("n_step above 1 needs a newer stable-baselines3")
        _check_shared(self, algorithm, _DQN_OURS)


@dataclass(frozen=True)
class SB3PPOConfig(ppo.PPOConfig):
    """What sets shapes; fixed for the life of a population.

    As :class:`~dacrl_env.learners.ppo.PPOConfig`, and:

    Args:
        sb3_kwargs: further arguments of ``stable_baselines3.PPO``: JSON values, and
            classes or functions, also by name as ``"module:name"``. ``policy_kwargs``
            go before ``hidden_sizes`` and ``activation``.

    Raises:
        ValueError: normalised observations or rewards, which Stable-Baselines3 leaves
            to an environment wrapper; a rollout of one step with normalised
            advantages; or an argument that does not exist, that is set elsewhere, or
            that has no name.
    """

    sb3_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse(self, "normalize_observations")
        _refuse(self, "normalize_rewards")
        if self.normalize_advantages and ppo.PPO.granularity(self) == 1:
            raise ValueError(
                "normalize_advantages needs num_inner_envs × rollout_length above 1"
            )
        _check_shared(self, stable_baselines3.PPO, _PPO_OURS)


def _refuse(config: Any, name: str) -> None:
    if getattr(config, name):
        raise ValueError(
            f'{name} is not part of Stable-Baselines3\'s algorithm: with learner="sb3" '
            "it must be False"
        )


def _check_shared(config: Any, algorithm: type, ours: Mapping[str, str]) -> None:
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {config.activation!r}; valid: {', '.join(ACTIVATIONS)}"
        )
    given = config.sb3_kwargs
    if not isinstance(given, Mapping):
        raise ValueError(f"sb3_kwargs must be a mapping, got {given!r}")
    valid = [name for name in _arguments(algorithm) if name not in ours]
    taken = [f"{name!r} (set by {ours[name]})" for name in given if name in ours]
    unknown = [repr(n) for n in given if n not in ours and n not in valid]
    for what, names in (("cannot set", taken), ("has unknown", unknown)):
        if names:
            raise ValueError(
                f"sb3_kwargs {what} {', '.join(names)}; valid: {', '.join(valid)}"
            )
    object.__setattr__(config, "sb3_kwargs", _named(given, "sb3_kwargs"))


def _arguments(algorithm: type) -> list[str]:
    return [*inspect.signature(algorithm).parameters]


def _named(value: Any, where: str) -> Any:
    """JSON values, in which classes and functions are named: for headers of files."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _named(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_named(v, f"{where}[{k}]") for k, v in enumerate(value)]
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if name.isidentifier() and getattr(inspect.getmodule(value), name, None) is value:
        return f"{module}:{name}"
    raise ValueError(
        f"{where} is {value!r}; use JSON values and names of classes and functions "
        'as in "torch.nn:ELU"'
    )


def _resolved(value: Any) -> Any:
    """The inverse of `_named`: names are imported."""
    if isinstance(value, dict):
        return {k: _resolved(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolved(v) for v in value]
    return load(value) if isinstance(value, str) and ":" in value else value


# -- state ----------------------------------------------------------------------


@dataclass
class Generators:
    """States of the generators that Stable-Baselines3 draws from."""

    python: streams.UInts  # (P, 627) Mersenne Twister of `random`
    numpy: streams.UInts  # (P, 627) … of `numpy.random`
    torch: NDArray[np.uint8]  # (P, …)
    actions: streams.UInts  # (P, 6) PCG64 of the action space
    keys: streams.UInts  # (P,) the "init" keys they were seeded from


@dataclass
class OptimizerState:
    """What an optimiser keeps of each parameter, in the parameters' order."""

    moments: Tensor  # (P, …) float32
    numbers: NDArray[np.float64]  # (P, …) step counts and other single numbers
    started: NDArray[np.bool_]  # (P,) whether there is anything yet


@dataclass
class Replay:
    """The arrays of Stable-Baselines3's replay buffers ``(P, C, N, …)``."""

    observations: NDArray[Any]
    next_observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    dones: NDArray[np.float32]
    timeouts: NDArray[np.float32]


@dataclass
class SB3State:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: Tensor  # (P, row) that the optimiser changes
    buffers: NDArray[np.float64]  # (P, …) of the policy's modules, e.g. batch norms
    optimizer: OptimizerState
    generators: Generators
    envs: Any  # state of the inner environments, P × N
    keys: streams.UInts  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)


@dataclass
class SB3DQNState(SB3State):
    """… and what DQN adds."""

    target: Tensor  # (P, row)
    replay: Replay
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event


def _row(tensors: Iterable[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """All values in one row."""
    flat = [t.detach().reshape(-1).to(dtype) for t in tensors]
    return torch.cat(flat) if flat else torch.empty(0, dtype=dtype)


def _fill(tensors: Iterable[Tensor], row: Tensor) -> None:
    """The inverse of `_row`, in place."""
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            part = row[start : start + tensor.numel()]
            tensor.copy_(part.view(tensor.shape))
            start += tensor.numel()


def _slice(state: Any, i: int) -> Any:
    """Copies of the rows of member ``i`` of a dataclass, as a population of one."""
    parts = {}
    for f in fields(state):
        value = getattr(state, f.name)
        parts[f.name] = (
            _slice(value, i) if is_dataclass(value) else value[i : i + 1].copy()
        )
    return type(state)(**parts)


class _OptimizerLayout:
    """Where the state of an optimiser lies in the rows of `OptimizerState`.

    Args:
        optimizer: of fresh parameters; it takes a step, by which its state comes into
            being.

    Raises:
        ValueError: it keeps something else than float32 tensors and numbers.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter in self._parameters(optimizer):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        # (number of the parameter, name, shape or None for a number, prototype)
        self.slots: list[tuple[int, str, torch.Size | None, Any]] = []
        self.moments = self.numbers = 0
        for k, parameter in enumerate(self._parameters(optimizer)):
            for name, value in optimizer.state[parameter].items():
                if value is None:
                    continue
                tensor = isinstance(value, Tensor)
                if tensor and value.dim() and value.dtype == torch.float32:
                    self.slots.append((k, name, value.shape, None))
                    self.moments += value.numel()
                elif isinstance(value, int | float) or (tensor and not value.dim()):
                    self.slots.append((k, name, None, value))
                    self.numbers += 1
                else:
                    raise ValueError(
                        f"{type(optimizer).__name__} keeps {name!r}, which is no "
                        "float32 tensor or number; choose another optimizer_class"
                    )

    @staticmethod
    def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"]]

    def read(
        self, optimizer: torch.optim.Optimizer, into: OptimizerState, i: int
    ) -> None:
        """Store the state of an optimiser in row ``i``."""
        into.started[i] = bool(optimizer.state)
        if not into.started[i]:
            return
        parameters = self._parameters(optimizer)
        moments, numbers = [], []
        for k, name, shape, _ in self.slots:
            value = optimizer.state[parameters[k]][name]
            if shape is None:
                numbers.append(float(value))
            else:
                moments.append(value)
        into.moments[i] = _row(moments)
        into.numbers[i] = numbers

    def write(
        self, optimizer: torch.optim.Optimizer, source: OptimizerState, i: int
    ) -> None:
        """Give an optimiser the state of row ``i``."""
        optimizer.state.clear()
        if not source.started[i]:
            return
        parameters = self._parameters(optimizer)
        moments, numbers = source.moments[i], iter(source.numbers[i])
        start = 0
        for k, name, shape, prototype in self.slots:
            if shape is None:
                number = next(numbers)
                if isinstance(prototype, Tensor):
                    value: Any = torch.tensor(number, dtype=prototype.dtype)
                else:
                    value = type(prototype)(number)
            else:
                value = moments[start : start + shape.numel()].view(shape).clone()
                start += shape.numel()
            optimizer.state[parameters[k]][name] = value


# -- random numbers -------------------------------------------------------------


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    """Put the global generators back as they were, also after an exception."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])


def _seed(key: Any) -> int:
    """The seed of a run: numpy's global generator takes 32 bits."""
    return int(key >> np.uint64(32))


def _seed_global(seed: int) -> None:
    """As Stable-Baselines3's ``set_random_seed``; other devices are left alone."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


def _twister(words: Sequence[int], gauss: float | None) -> streams.UInts:
    """State of a Mersenne Twister ``(627,)``: 624 words, position, spare normal."""
    spare = np.array([0.0 if gauss is None else gauss]).view(np.uint64)
    has = np.array([gauss is not None], np.uint64)
    return np.concatenate([np.array(words, np.uint64), has, spare])


def _spare(row: streams.UInts) -> float:
    return float(row[626:].view(np.float64)[0])


def _read_generators(space: spaces.Space[Any], into: Generators, i: int) -> None:
    _, words, gauss = random.getstate()
    into.python[i] = _twister(words, gauss)
    own: Any = np.random.get_state()  # noqa: NPY002
    _, key, position, has, spare = own
    into.numpy[i] = _twister([*key, position], spare if has else None)
    into.torch[i] = torch.get_rng_state().numpy()
    state: Any = space.np_random.bit_generator.state
    longs = (state["state"]["state"], state["state"]["inc"])
    halves = [half for w in longs for half in (w >> 64, w & (2**64 - 1))]
    into.actions[i] = np.array(
        [*halves, state["has_uint32"], state["uinteger"]], np.uint64
    )


def _write_generators(space: spaces.Space[Any], source: Generators, i: int) -> None:
    row = source.python[i]
    words = tuple(row[:625].tolist())
    random.setstate((3, words, _spare(row) if row[625] else None))
    row = source.numpy[i]
    key = row[:624].astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", key, int(row[624]), int(row[625]), _spare(row))
    )
    torch.set_rng_state(torch.from_numpy(source.torch[i].copy()))
    a, b, c, d, has, spare = source.actions[i].tolist()
    space.np_random.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": a << 64 | b, "inc": c << 64 | d},
        "has_uint32": has,
        "uinteger": spare,
    }


# -- environments ---------------------------------------------------------------


class _MemberEnvs(VecEnv):
    """The environments of one member, as Stable-Baselines3 steps them."""

    def __init__(self, env: InnerEnv, num_envs: int) -> None:
        shape, dtype = env.observation_shape, np.dtype(env.observation_dtype)
        low: Any = -np.inf
        high: Any = np.inf
        if dtype.kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        actions: spaces.Space[Any]
        if env.num_actions:
            actions = spaces.Discrete(env.num_actions)
        else:
            least, most = env.action_low, env.action_high
            actions = spaces.Box(least.astype(np.float32), most.astype(np.float32))
        self.env = env
        self.state: Any = None  # of a population of one, while a member is loaded
        self.episodes: list[tuple[float, int]] = []  # return and length of the ended
        super().__init__(num_envs, spaces.Box(low, high, shape, dtype.type), actions)

    def reset(self) -> NDArray[Any]:
        """The current observations: episodes begin by themselves."""
        observations: NDArray[Any] = self.state.observations[0].copy()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        step = self.env.step(self.state, self._actions[None])
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = step.done[0]
        for n in np.flatnonzero(done):
            infos[n] = {
                "terminal_observation": step.observations[0, n].copy(),
                "TimeLimit.truncated": not step.terminated[0, n],
            }
            self.episodes.append((float(step.returns[0, n]), int(step.lengths[0, n])))
        # PPO adds to the rewards in place
        return self.reset(), step.rewards[0].astype(np.float32), done.copy(), infos

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError(attr_name)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        raise NotImplementedError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class _Silent(BaseCallback):
    """`collect_rollouts` wants a callback."""

    def _on_step(self) -> bool:
        return True


class _DivergedError(Exception):
    """A loss that is not finite."""


def _is_not_finite(error: Exception) -> bool:
    """Whether torch refused to sample from a distribution that is not a number.

    ``Distribution.__init__`` validates its parameters; without that (``python -O``)
    ``torch.multinomial`` does.
    """
    text = str(error)
    return "but found invalid values" in text or "probability tensor contains" in text


def _constant(value: float) -> Callable[[float], float]:
    """A schedule of Stable-Baselines3."""
    return lambda progress_remaining: value


# -- what both algorithms share -------------------------------------------------


class _Learner:
    """The machinery: one model, into which members are loaded.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices.
        budget: inner environment steps of a run.
        device: must be the processor.

    Raises:
        ValueError: another device, or an optimiser whose state cannot be kept.
    """

    exact_snapshots = False  # a user's policy may hold more than parameters
    sum_names: ClassVar[tuple[str, ...]]
    state_class: ClassVar[type[SB3State]]

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: Any,
        budget: int,
        device: torch.device,
    ) -> None:
        if device.type != "cpu":
            raise ValueError(f"learner 'sb3' runs on device 'cpu' only, not {device}")
        self.env = env
        self.eval_env = eval_env
        self.config = config
        self.budget = budget
        self.N = config.num_inner_envs
        with _global_randomness_kept(), torch.enable_grad():
            self.venv, self.model = self._new_model(0)
            policy = self.model.policy
            policy.set_training_mode(False)
            self.flops = self._count_flops()
            self.layout = _OptimizerLayout(policy.optimizer)
        self.callback = _Silent()
        self.callback.init_callback(self.model)
        # Stable-Baselines3 does not tell of the gradient's norm before clipping
        self._norms: list[Tensor] = []
        self._steps, self._norm_sum = 0, 0.0
        for p in self._trained(self.model):
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(self._on_gradient)
        policy.optimizer.register_step_pre_hook(self._on_step)

    def _on_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._norms.append(torch.linalg.vector_norm(parameter.grad))

    def _on_step(self, *_: Any) -> None:
        self._steps += 1
        norm = torch.linalg.vector_norm(torch.stack(self._norms))
        self._norm_sum += float(norm)
        self._norms.clear()

    def _new_model(self, seed: int) -> tuple[_MemberEnvs, Any]:
        """A model as Stable-Baselines3 builds it with this seed; draws globally."""
        _seed_global(seed)
        venv = _MemberEnvs(self.env, self.N)
        model = self._construct(venv)
        model.action_space.seed(seed)
        model.set_logger(Logger(None, []))
        model.ep_info_buffer, model.ep_success_buffer = deque(), deque()
        return venv, model

    def _construct(self, venv: _MemberEnvs) -> Any:
        raise NotImplementedError

    def _arguments(self) -> dict[str, Any]:
        """The user's arguments and those that both algorithms share."""
        given = _resolved(dict(self.config.sb3_kwargs))
        given.setdefault("policy", "MlpPolicy")
        activation = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
        policy_kwargs: dict[str, Any] = {
            "net_arch": list(self.config.hidden_sizes),
            "activation_fn": activation[self.config.activation],
        }
        if given["policy"] == "MlpPolicy":
            # bytes are fed as they are to this package's own networks, too
            policy_kwargs["normalize_images"] = False
        policy_kwargs.update(given.get("policy_kwargs") or {})
        return {**given, "policy_kwargs": policy_kwargs, "device": "cpu", "verbose": 0}

    def _trained(self, model: Any) -> list[Tensor]:
        """Parameters that the optimiser changes."""
        return [*model.policy.parameters()]

    def _count_flops(self) -> tuple[int, int]:
        raise NotImplementedError

    def _one_observation(self) -> Tensor:
        space = self.model.observation_space
        tensor: Tensor
        tensor, _ = self.model.policy.obs_to_tensor(
            np.zeros((1, *space.shape), space.dtype)
        )
        return tensor

    # -- state ------------------------------------------------------------------

    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> Any:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        P = len(keys)
        buffers = sum(b.numel() for b in self.model.policy.buffers())
        state = self.state_class(
            parameters=_row(self._trained(self.model)).repeat(P, 1),
            buffers=np.zeros((P, buffers)),
            optimizer=OptimizerState(
                moments=torch.zeros(P, self.layout.moments, dtype=torch.float32),
                numbers=np.zeros((P, self.layout.numbers)),
                started=np.zeros(P, bool),
            ),
            generators=Generators(
                python=np.zeros((P, 627), np.uint64),
                numpy=np.zeros((P, 627), np.uint64),
                torch=np.zeros((P, len(torch.get_rng_state())), np.uint8),
                actions=np.zeros((P, 6), np.uint64),
                keys=np.zeros(P, np.uint64),
            ),
            envs=self.env.init(streams.env_keys(keys, self.N), physics),
            keys=keys.copy(),
            env_steps=np.zeros(P, np.int64),
            gradient_steps=np.zeros(P, np.int64),
            **self._more_state(P),
        )
        self._begin(state, np.arange(P))
        return state

    def _more_state(self, P: int) -> dict[str, Any]:
        return {}

    def restart(
        self,
        state: Any,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        state.keys[members] = keys
        self.env.restart(state.envs, members, streams.env_keys(keys, self.N), physics)
        self._begin(state, members)

    def _begin(self, state: SB3State, members: NDArray[np.int64]) -> None:
        """Fresh models for some members; their keys are set."""
        for i, key in zip(
            members, streams.of(state.keys, "init")[members], strict=True
        ):
            with _global_randomness_kept():
                _, model = self._new_model(_seed(key))
                state.gradient_steps[i] = 0
                state.optimizer.moments[i] = 0.0
                state.optimizer.numbers[i] = 0.0
                state.generators.keys[i] = key
                self._store(state, i, model)

    def _store(self, state: Any, i: int, model: Any) -> None:
        """Set the rows of a member from a model and the global generators."""
        state.parameters[i] = _row(self._trained(model))
        state.buffers[i] = _row(model.policy.buffers(), torch.float64).numpy()
        self.layout.read(model.policy.optimizer, state.optimizer, i)
        _read_generators(model.action_space, state.generators, i)
        state.env_steps[i] = model.num_timesteps

    def _load(self, state: Any, i: int) -> None:
        """Set the model and the global generators from the rows of a member."""
        model = self.model
        _fill(self._trained(model), state.parameters[i])
        _fill(model.policy.buffers(), torch.from_numpy(state.buffers[i]))
        self.layout.write(model.policy.optimizer, state.optimizer, i)
        key = streams.of(state.keys, "init")[i]
        if state.generators.keys[i] == key:
            _write_generators(model.action_space, state.generators, i)
        else:  # a fork has given the member streams of its own
            _seed_global(_seed(key))
            model.action_space.seed(_seed(key))
        model.num_timesteps = int(state.env_steps[i])
        # progress is a share of this; our schedules are constant and do not use it
        model._total_timesteps = self.budget

    @contextmanager
    def _member(self, state: Any, i: int) -> Iterator[Any]:
        """The model as member ``i`` left it; nothing is stored."""
        # the engine switches gradients off; diverging numbers are expected
        with (
            _global_randomness_kept(),
            torch.enable_grad(),
            np.errstate(all="ignore"),
        ):
            self._load(state, i)
            yield self.model

    # -- act --------------------------------------------------------------------

    def play(
        self,
        state: Any,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns ``(m, E)`` of evaluation episodes and steps ``(m,)`` they took.

        Args:
            state: of the population; not changed.
            members: ``(m,)``.
            keys: ``(m, E)`` of the episodes.
            physics: ``(m, K)``.
        """
        returns, steps = np.empty(keys.shape), np.empty(len(members), np.int64)
        lifetime = state.env_steps[members] // self.N
        for k, i in enumerate(members):
            one = slice(k, k + 1)
            with self._member(state, i):
                returns[one], steps[one] = play(
                    self._greedy, self.eval_env, keys[one], physics[one], lifetime[one]
                )
        return returns, steps

    def _greedy(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Best actions ``(1, E)`` for observations ``(1, E, …)``, of the loaded."""
        actions, _ = self.model.policy.predict(observations[0], deterministic=True)
        result: NDArray[Any] = actions[None]
        return result

    # -- train ------------------------------------------------------------------

    def begin_interval(self, state: Any) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters, self.sum_names)

    def train(self, state: Any, values: Values, steps: int, interval: Interval) -> None:
        """Train every member for ``steps`` environment steps, one after the other.

        A member that has diverged takes its remaining steps without learning, so that
        budgets stay exact.

        Args:
            state: changed in place.
            values: applied hyperparameters.
            steps: a multiple of what `granularity` says.
            interval: sums, changed in place.
        """
        for i in range(len(state.env_steps)):
            with self._member(state, i) as model:
                self.venv.state, self.venv.episodes = _slice(state.envs, i), []
                model._last_obs = model.env.reset()
                row = {name: float(column[i]) for name, column in values.items()}
                self._apply(model, row)
                end = model.num_timesteps + steps
                try:
                    if torch.isfinite(interval.sums[i]).all():
                        self._advance(state, i, end, row, interval)
                except _DivergedError:
                    interval.sums[i] = torch.nan
                except (ValueError, RuntimeError) as error:
                    if not _is_not_finite(error):
                        raise
                    interval.sums[i] = torch.nan
                self._idle(end)
                state.generators.keys[i] = streams.of(state.keys, "init")[i]
                self._store(state, i, model)
                copy_rows(state.envs, slice(i, i + 1), self.venv.state)
            for total, length in self.venv.episodes:
                interval.episodes[i] += 1
                interval.returns[i] += total
                interval.lengths[i] += length

    def _apply(self, model: Any, row: Mapping[str, float]) -> None:
        """Set the hyperparameters that both algorithms have."""
        # train() sets the optimiser's rate from the schedule
        model.learning_rate = row["learning_rate"]
        model.lr_schedule = _constant(row["learning_rate"])
        for group in model.policy.optimizer.param_groups:
            group["lr"] = row["learning_rate"]
        model.batch_size = int(row["batch_size"])
        model.gamma = row["gamma"]
        model.max_grad_norm = row["max_grad_norm"]

    def _advance(
        self,
        state: Any,
        i: int,
        end: int,
        row: Mapping[str, float],
        interval: Interval,
    ) -> None:
        """Collect and learn with the loaded member until step ``end``."""
        raise NotImplementedError

    def _learn(
        self,
        state: Any,
        i: int,
        interval: Interval,
        train: Callable[[], None],
        samples: Callable[[int], int],
    ) -> None:
        """Have Stable-Baselines3 do gradient steps, and count them.

        Args:
            state: of the population.
            i: the member.
            interval: sums, changed in place.
            train: does the gradient steps.
            samples: how many transitions so many of them have used.

        Raises:
            _DivergedError: a loss that is not finite.
        """
        self._norms.clear()
        self._steps, self._norm_sum = 0, 0.0
        try:
            train()
        finally:  # what was done before an exception counts, too
            interval.updates[i] += self._steps
            interval.samples[i] += samples(self._steps)
            state.gradient_steps[i] += self._steps
        means = self._means(self.model.logger.name_to_value)
        totals = {name: mean * self._steps for name, mean in means.items()}
        totals["grad_norm"] = self._norm_sum
        for k, name in enumerate(interval.names):
            interval.sums[i, k] += totals[name]
        if not np.isfinite(means["loss"]):
            raise _DivergedError

    def _means(self, logged: Mapping[str, float]) -> dict[str, float]:
        """Means over the gradient steps just done, from Stable-Baselines3's log."""
        raise NotImplementedError

    def _idle(self, end: int) -> None:
        """Steps without learning, up to ``end``."""
        if self.env.num_actions:
            actions = np.zeros(self.N, np.int64)
        else:
            nothing = np.clip(0.0, self.env.action_low, self.env.action_high)
            actions = np.tile(nothing, (self.N, 1))
        while self.model.num_timesteps < end:
            self.venv.step(actions)
            self.model.num_timesteps += self.N

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: Any, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters)

    def signals(
        self, state: Any, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells of each member ``(P,)``, by ``signal_names``."""
        rows = []
        for i in range(len(state.env_steps)):
            with self._member(state, i) as model, torch.no_grad():
                model.policy.set_training_mode(False)
                rows.append(self._probe(state, i, values))
        probes = {
            name: np.array([float(row[name]) for row in rows]) for name in rows[0]
        }
        return {
            **interval.means(),
            "update_ratio": interval.update_ratio(state.parameters),
            **probes,
        }

    def _probe(self, state: Any, i: int, values: Values) -> dict[str, Tensor]:
        """Signals of the loaded member that its interval does not tell."""
        raise NotImplementedError


# -- DQN ------------------------------------------------------------------------


class SB3DQN(_Learner):
    """``stable_baselines3.DQN`` over a population.

    ``train_freq`` counts environment steps, as everywhere in this package:
    Stable-Baselines3's own counts steps of all N environments together.
    """

    hyperparameters = dqn.HYPERPARAMETERS
    controlled = dqn.CONTROLLED
    signal_names = dqn.SIGNALS
    config_class = SB3DQNConfig
    continuous_actions = False
    sum_names = ("loss", "grad_norm")
    state_class = SB3DQNState
    granularity = staticmethod(dqn.DQN.granularity)
    replay_capacity = staticmethod(dqn.DQN.replay_capacity)

    @staticmethod
    def constrain(
        values: dict[str, NDArray[np.float64]], config: SB3DQNConfig, budget: int
    ) -> None:
        """Cap requested values in place to what can be applied together."""
        dqn.DQN.constrain(values, config, budget)

    def _construct(self, venv: _MemberEnvs) -> Any:
        arguments = self._arguments()
        if self.config.n_step > 1:
            arguments["n_steps"] = self.config.n_step
        return stable_baselines3.DQN(
            env=venv,
            buffer_size=self.N,  # one row: the state has the memory
            learning_starts=self.config.learning_starts,
            # what is below the number of environments would be warned of
            target_update_interval=max(self.N, 10_000),
            **arguments,
        )

    def _trained(self, model: Any) -> list[Tensor]:
        return [*model.q_net.parameters()]

    def _count_flops(self) -> tuple[int, int]:
        inputs = self._one_observation()
        with FlopCounterMode(display=False) as act:
            self.model.q_net(inputs)
        with FlopCounterMode(display=False) as learn:
            self.model.q_net_target(inputs)
            self.model.q_net(inputs).sum().backward()
        return act.get_total_flops(), learn.get_total_flops()

    def _more_state(self, P: int) -> dict[str, Any]:
        buffer = self.model.replay_buffer
        C = self.replay_capacity(self.config, self.budget) // self.N
        arrays = {}
        for f in fields(Replay):
            one = getattr(buffer, f.name)
            arrays[f.name] = np.zeros((P, C, *one.shape[1:]), one.dtype)
        return {
            "target": _row(self.model.q_net_target.parameters()).repeat(P, 1),
            "replay": Replay(**arrays),
            "since_train": np.zeros(P, np.int64),
        }

    def _begin(self, state: Any, members: NDArray[np.int64]) -> None:
        super()._begin(state, members)
        state.since_train[members] = 0

    def _store(self, state: Any, i: int, model: Any) -> None:
        super()._store(state, i, model)
        state.target[i] = _row(model.q_net_target.parameters())

    def _load(self, state: Any, i: int) -> None:
        super()._load(state, i)
        model, buffer = self.model, self.model.replay_buffer
        _fill(model.q_net_target.parameters(), state.target[i])
        # the buffer writes into the state: there is no copy of the replay
        for f in fields(Replay):
            setattr(buffer, f.name, getattr(state.replay, f.name)[i])
        C = len(buffer.rewards)
        written = model.num_timesteps // self.N
        buffer.buffer_size = C
        buffer.pos, buffer.full = written % C, written >= C
        model._n_calls = written

    def _apply(self, model: Any, row: Mapping[str, float]) -> None:
        super()._apply(model, row)
        model.exploration_rate = row["epsilon"]
        model.exploration_schedule = _constant(row["epsilon"])
        model.target_update_interval = int(row["target_update_interval"])
        calls = -(-int(row["train_freq"]) // self.N)
        model.train_freq = TrainFreq(calls, TrainFrequencyUnit.STEP)
        model.gradient_steps = int(row["gradient_steps"])
        if self.config.n_step > 1:
            model.replay_buffer.gamma = row["gamma"]

    def _advance(
        self,
        state: Any,
        i: int,
        end: int,
        row: Mapping[str, float],
        interval: Interval,
    ) -> None:
        model, every = self.model, int(row["train_freq"])

        def samples(steps: int) -> int:
            return steps * int(model.batch_size)

        def train() -> None:
            model.train(model.gradient_steps, model.batch_size)

        # the loop of OffPolicyAlgorithm.learn, where a rollout may be left unfinished
        while model.num_timesteps < end:
            missing = max(every - int(state.since_train[i]), 1)
            calls = -(-min(missing, end - model.num_timesteps) // self.N)
            model.collect_rollouts(
                model.env,
                callback=self.callback,
                train_freq=TrainFreq(calls, TrainFrequencyUnit.STEP),
                replay_buffer=model.replay_buffer,
                learning_starts=model.learning_starts,
                log_interval=None,
            )
            state.since_train[i] += calls * self.N
            if state.since_train[i] < every:
                continue
            state.since_train[i] = 0
            if model.num_timesteps > model.learning_starts:
                self._learn(state, i, interval, train, samples)

    def _means(self, logged: Mapping[str, float]) -> dict[str, float]:
        return {"loss": float(logged["train/loss"])}

    def _probe(self, state: Any, i: int, values: Values) -> dict[str, Tensor]:
        model = self.model
        gamma = model.replay_buffer.gamma = float(values["gamma"][i])
        # the member's generators are loaded but not stored: nothing is used up
        batch = model.replay_buffer.sample(_PROBE_BATCH)
        following = model.q_net_target(batch.next_observations).amax(1, keepdim=True)
        discounts = getattr(batch, "discounts", None)
        discounts = gamma if discounts is None else discounts
        goal = batch.rewards + (1 - batch.dones) * discounts * following
        taken = model.q_net(batch.observations).gather(1, batch.actions.long())
        return {
            "td_error": (taken - goal).abs().mean(),
            "value_mean": taken.mean(),
            "value_std": taken.std(),
        }


# -- PPO ------------------------------------------------------------------------


class SB3PPO(_Learner):
    """``stable_baselines3.PPO`` over a population.

    The signal ``kl`` is the mean over the last epoch of an update, which is what
    Stable-Baselines3 tells of it.
    """

    hyperparameters = ppo.HYPERPARAMETERS
    controlled = ppo.CONTROLLED
    signal_names = ppo.SIGNALS
    config_class = SB3PPOConfig
    continuous_actions = True
    sum_names = ("loss", "grad_norm", "kl", "entropy")
    state_class = SB3State
    granularity = staticmethod(ppo.PPO.granularity)

    @staticmethod
    def constrain(
        values: dict[str, NDArray[np.float64]], config: SB3PPOConfig, budget: int
    ) -> None:
        """Cap requested values in place to what can be applied together."""
        ppo.PPO.constrain(values, config, budget)

    def _construct(self, venv: _MemberEnvs) -> Any:
        return stable_baselines3.PPO(
            env=venv,
            n_steps=self.config.rollout_length,
            # what does not divide the rollout would be warned of
            batch_size=self.granularity(self.config),
            clip_range_vf=self.config.clip_range_vf,
            normalize_advantage=self.config.normalize_advantages,
            **self._arguments(),
        )

    def _count_flops(self) -> tuple[int, int]:
        policy, inputs = self.model.policy, self._one_observation()
        with FlopCounterMode(display=False) as act:
            actions = policy(inputs)[0]
        with FlopCounterMode(display=False) as learn:
            values, log_probs, _ = policy.evaluate_actions(inputs, actions)
            (values.sum() + log_probs.sum()).backward()
        return act.get_total_flops(), learn.get_total_flops()

    def _apply(self, model: Any, row: Mapping[str, float]) -> None:
        super()._apply(model, row)
        model.clip_range = _constant(row["clip_range"])
        model.gae_lambda = row["gae_lambda"]
        model.n_epochs = int(row["n_epochs"])
        model.ent_coef = row["ent_coef"]
        model.vf_coef = row["vf_coef"]
        # the buffer computes the advantages, with what it was built with
        model.rollout_buffer.gamma = row["gamma"]
        model.rollout_buffer.gae_lambda = row["gae_lambda"]

    def _advance(
        self,
        state: Any,
        i: int,
        end: int,
        row: Mapping[str, float],
        interval: Interval,
    ) -> None:
        model, rollout = self.model, self.granularity(self.config)
        batches = -(-rollout // int(model.batch_size))

        def samples(steps: int) -> int:
            # with target_kl the last epoch may be left unfinished
            epochs, rest = divmod(steps, batches)
            return epochs * rollout + rest * int(model.batch_size)

        # an episode begins where none has taken a step
        model._last_episode_starts = self.venv.state.lengths[0] == 0
        while model.num_timesteps < end:
            model.collect_rollouts(
                model.env, self.callback, model.rollout_buffer, model.n_steps
            )
            self._learn(state, i, interval, model.train, samples)

    def _means(self, logged: Mapping[str, float]) -> dict[str, float]:
        entropy = -float(logged["train/entropy_loss"])
        # "train/loss" is that of the last minibatch alone
        loss = float(logged["train/policy_gradient_loss"])
        loss -= self.model.ent_coef * entropy
        loss += self.model.vf_coef * float(logged["train/value_loss"])
        kl = float(logged["train/approx_kl"])
        return {"loss": loss, "kl": kl, "entropy": entropy}

    def _probe(self, state: Any, i: int, values: Values) -> dict[str, Tensor]:
        self.venv.state = _slice(state.envs, i)
        inputs, _ = self.model.policy.obs_to_tensor(self.model.env.reset())
        value = self.model.policy.predict_values(inputs)
        return {"value_mean": value.mean(), "value_std": value.std(correction=0)}
