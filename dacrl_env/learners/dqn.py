"""DQN, P members in one tensor program, each with its own hyperparameters.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature
518), with the choices of Stable-Baselines3: Huber loss, hard target updates, uniform
replay, gradient norm clipping, Adam. Optional: double Q-learning (van Hasselt, Guez
and Silver 2016) and n-step returns (Sutton 1988). Batches are drawn from the newest
``replay_window`` transitions, so that the age of what is replayed can be set while a
run goes on (Liu and Zou 2018, "The effects of memory replay in reinforcement learning";
Fedus et al. 2020, "Revisiting fundamentals of experience replay").

Letters: P members, N inner environments a member, B batch size, D observation
features, A actions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env import checks
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.images import BRIGHTEST
from dacrl_env.learners import adam, blocks, networks, replay, streams
from dacrl_env.learners.interval import Interval, begin, finished_episodes
from dacrl_env.learners.rollout import Act, play
from dacrl_env.tasks import Hyperparameter

HYPERPARAMETERS = (
    Hyperparameter("learning_rate", 1e-6, 1e-1, 1e-3, "log"),
    Hyperparameter("epsilon", 0.0, 1.0, 0.1),
    Hyperparameter("batch_size", 4, 512, 64, "log", integer=True),
    Hyperparameter("gamma", 0.8, 1.0, 0.99, "log_complement"),
    Hyperparameter("target_update_interval", 1, 10_000, 500, "log", integer=True),
    Hyperparameter("train_freq", 1, 1_000, 4, "log", integer=True),
    Hyperparameter("gradient_steps", 1, 1_000, 1, "log", integer=True),
    Hyperparameter("max_grad_norm", 0.1, 100, 10, "log"),
    Hyperparameter("replay_window", 1_000, 100_000, 100_000, "log", integer=True),
)
CONTROLLED = ("learning_rate", "epsilon", "batch_size")
MAX_UPDATE_RATIO = 4  # gradient steps per environment step, at most
ADAM_EPSILON = 1e-8
SIGNALS = ("loss", "td_error", "grad_norm", "update_ratio", "value_mean", "value_std")
# of signals that may be negative: the magnitude that observations begin to tell from 0
SIGNAL_UNITS = {"value_mean": 1.0}

_CHUNK = 128  # iterations whose exploration draws are made at once
_WORDS = 2**13  # random numbers of replay draws made at once
_PROBE_BATCH = 256  # transitions the signals of an interval are computed from
_PROBE_DRAWS = 2**40  # their draws lie beyond those of any gradient step

Values = Mapping[str, NDArray[np.float64]]  # hyperparameter name -> (P,)


@dataclass(frozen=True)
class DQNConfig:
    """What sets shapes; fixed for the life of a population.

    Args:
        hidden_sizes: widths of the hidden layers.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh".
        replay_capacity: transitions kept a member; None: the budget, at most 100,000.
        learning_starts: environment steps of random actions before the first update.
        double_q: choose the bootstrap action with the online network.
        n_step: rewards summed before bootstrapping.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 1
    activation: str = "relu"
    replay_capacity: int | None = None
    learning_starts: int = 1_000
    double_q: bool = False
    n_step: int = 1

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        for name in ("num_inner_envs", "n_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.learning_starts < 0:
            raise ValueError("learning_starts must not be negative")
        capacity = self.replay_capacity
        if capacity is not None and capacity < self.num_inner_envs * self.n_step:
            raise ValueError(
                f"replay_capacity {capacity} is below num_inner_envs × n_step = "
                f"{self.num_inner_envs * self.n_step}"
            )


@dataclass
class DQNState:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: Tensor  # (P, row)
    target: Tensor  # (P, row)
    adam: adam.AdamState
    replay: replay.Replay
    envs: Any  # state of the inner environments, P × N
    keys: streams.UInts  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event
    since_target: NDArray[np.int64]  # (P,) … since the target network was set


@dataclass
class _Rows:
    """Rows of some members, and views of their layers."""

    parameters: Tensor
    target: Tensor
    adam: adam.AdamState
    layers: list[networks.Layer]
    target_layers: list[networks.Layer]


@dataclass
class _Work:
    """Memory for one gradient step of n members at batch width B."""

    batch: replay.BatchMemory
    observations: networks.Values  # the batch's
    next_observations: networks.Values
    outputs: list[networks.Values]
    network_scratch: networks.Scratch
    output_gradient: networks.Values
    gradients: Tensor
    unpadded_gradients: Tensor
    gradient_layers: list[networks.Layer]
    scratch: Tensor


@dataclass
class _Plan:
    """A block of members with their hyperparameters."""

    block: blocks.Block
    weights: Tensor  # (m, width, 1)
    gamma: Tensor  # (m, 1, 1)
    learning_rate: NDArray[np.float64]  # (m,)
    max_grad_norm: Tensor  # (m, 1)
    window: NDArray[np.int64]  # (m,)
    # random bits of coming gradient steps (steps, m, B), and the first of them (m,)
    words: streams.UInts | None = None
    words_from: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def first(self, m: int) -> tuple[Tensor, ...]:
        """Weights, gamma and largest gradient norm of the first m members."""
        tensors = self.weights, self.gamma, self.max_grad_norm
        if m == len(self.weights):  # slices of tensors take time
            return tensors
        return tuple(tensor[:m] for tensor in tensors)


class DQN:
    """The algorithm over a population; holds shapes and scratch memory, no state.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices.
        budget: inner environment steps of a run.
        device: of networks and replay.
    """

    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    signal_names = SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = DQNConfig
    continuous_actions = False

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: DQNConfig,
        budget: int,
        device: torch.device,
    ) -> None:
        self.env = env
        self.eval_env = eval_env
        self.config = config
        self.budget = budget
        self.device = device
        self.capacity = self.replay_capacity(config, budget)
        self.features = int(np.prod(env.observation_shape))
        sizes = (self.features, *config.hidden_sizes, env.num_actions)
        self.network = networks.StackedMLP(sizes, config.activation)
        self._memory = networks.Memory(device)
        self._work: dict[tuple[int, int], _Work] = {}
        self._views: dict[tuple[int, int], _Rows] = {}
        self._views_of: DQNState | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made afresh: scratch memory and views are of this one alone."""
        arguments = (self.env, self.eval_env, self.config, self.budget, self.device)
        return type(self), arguments

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: DQNConfig) -> int:
        """Environment steps that cannot be divided further."""
        return config.num_inner_envs

    @staticmethod
    def replay_capacity(config: DQNConfig, budget: int) -> int:
        """Transitions kept a member, a multiple of its inner environments."""
        capacity = config.replay_capacity
        capacity = min(budget, 100_000) if capacity is None else capacity
        N = config.num_inner_envs
        return max(capacity // N, config.n_step) * N

    @classmethod
    def member_bytes(
        cls, config: DQNConfig, budget: int, env: InnerEnv
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most."""
        features, size = (
            math.prod(env.observation_shape),
            env.observation_dtype.itemsize,
        )
        row = networks.row_bytes((features, *config.hidden_sizes, env.num_actions))
        transition = 2 * features * size + 16
        return {
            "replay_capacity": cls.replay_capacity(config, budget) * transition,
            # target, moments, and where the interval began
            "hidden_sizes": 5 * row,
            "num_inner_envs": config.num_inner_envs * (4 * features * size + 300),
            "n_step": (config.n_step - 1) * _PROBE_BATCH * 60,
        }

    @classmethod
    def constrain(
        cls, values: dict[str, NDArray[np.float64]], config: DQNConfig, budget: int
    ) -> None:
        """Cap requested values in place to what can be applied together."""
        capacity = cls.replay_capacity(config, budget)
        for name in ("batch_size", "replay_window"):
            values[name] = np.minimum(values[name], capacity)
        most = MAX_UPDATE_RATIO * values["train_freq"]
        values["gradient_steps"] = np.minimum(values["gradient_steps"], most)

    @property
    def flops(self) -> tuple[int, int]:
        """Floating-point operations per action, and per sample of an update.

        Matrix products only, two operations a multiply-add: one forward pass to act;
        a target pass, an online pass (two with ``double_q``) and a backward pass of
        two products a layer (one at the first) to learn.
        """
        forward = 2 * self.network.num_weights
        first = 2 * self.network.sizes[0] * self.network.sizes[1]
        passes = 2 + self.config.double_q
        return forward, passes * forward + 2 * forward - first

    # -- state ------------------------------------------------------------------

    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> DQNState:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        P, N = len(keys), self.config.num_inner_envs
        parameters = self._initial_parameters(keys)
        dtype = torch.from_numpy(np.empty(0, self.env.observation_dtype)).dtype
        return DQNState(
            parameters=parameters,
            target=parameters.clone(),
            adam=adam.AdamState.zeros(parameters),
            replay=replay.Replay.allocate(
                P, N, self.capacity, self.features, dtype, self.device
            ),
            envs=self.env.init(
                streams.env_keys(keys, self.config.num_inner_envs), physics
            ),
            keys=keys.copy(),
            env_steps=np.zeros(P, np.int64),
            gradient_steps=np.zeros(P, np.int64),
            since_train=np.zeros(P, np.int64),
            since_target=np.zeros(P, np.int64),
        )

    def begin_episodes(self, state: DQNState) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        self.env.begin_episodes(state.envs)
        state.replay.end_episodes(state.env_steps // self.config.num_inner_envs)

    def restart(
        self,
        state: DQNState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        index = torch.from_numpy(members).to(self.device)
        parameters = self._initial_parameters(keys)
        state.parameters[index] = parameters
        state.target[index] = parameters
        state.adam.mean[index] = 0.0
        state.adam.square[index] = 0.0
        state.keys[members] = keys
        for counter in (
            state.env_steps,
            state.gradient_steps,
            state.since_train,
            state.since_target,
        ):
            counter[members] = 0
        self.env.restart(
            state.envs,
            members,
            streams.env_keys(keys, self.config.num_inner_envs),
            physics,
        )

    def _initial_parameters(self, keys: streams.UInts) -> Tensor:
        return self.network.init(streams.of(keys, "init")).to(self.device)

    # -- act --------------------------------------------------------------------

    def play(
        self,
        state: DQNState,
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
        lifetime = state.env_steps[members] // self.config.num_inner_envs

        def policy(rows: NDArray[np.int64]) -> Act:
            return self.policy(state, members[rows])

        return play(policy, self.eval_env, keys, physics, lifetime)

    def policy(self, state: DQNState, members: NDArray[np.int64]) -> Act:
        """Best actions ``(m, E)`` for observations ``(m, E, …)`` of members."""
        index = torch.from_numpy(members).to(self.device)
        parameters = state.parameters.index_select(0, index)
        return functools.partial(self.greedy, parameters)

    def greedy(
        self, parameters: Tensor, observations: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Best actions ``(m, E)`` for observations ``(m, E, …)``."""
        q = self.network.apply(parameters, self._inputs(observations))
        actions: NDArray[np.int64] = q.argmax(-1).cpu().numpy()
        return actions

    def _inputs(self, observations: NDArray[Any]) -> Tensor:
        flat = observations.reshape(*observations.shape[:2], self.features)
        result = networks.inputs(flat, self.device)
        return result.div_(BRIGHTEST) if self.env.scales_images else result

    def _scale(self, batch: replay.Batch) -> replay.Batch:
        """A batch whose observations are as the networks see them, in place."""
        if self.env.scales_images:
            batch.observations.div_(BRIGHTEST)
            batch.next_observations.div_(BRIGHTEST)
        return batch

    # -- loss -------------------------------------------------------------------

    def td_errors(
        self, parameters: Tensor, target: Tensor, batch: replay.Batch
    ) -> tuple[Tensor, Tensor]:
        """Value of the action taken minus its target, and that value: ``(P, B, 1)``."""
        with torch.no_grad():
            following = self.network.apply(target, batch.next_observations)
            if self.config.double_q:
                online = self.network.apply(parameters, batch.next_observations)
                best = online.argmax(-1, keepdim=True)
                value = following.gather(-1, best)
            else:
                value = following.amax(-1, keepdim=True)
            goal = batch.returns + batch.discounts * value
        q = self.network.apply(parameters, batch.observations)
        taken = q.gather(-1, batch.actions)
        return taken - goal, taken

    def loss(self, parameters: Tensor, target: Tensor, batch: replay.Batch) -> Tensor:
        """Weighted mean Huber loss of each member ``(P,)``; differentiable."""
        errors, _ = self.td_errors(parameters, target, batch)
        huber = torch.nn.functional.huber_loss(
            errors, torch.zeros_like(errors), reduction="none"
        )
        return (huber * batch.weights).sum((1, 2))

    def _loss_and_gradient(
        self, rows: _Rows, batch: replay.Batch, work: _Work
    ) -> Tensor:
        """The loss ``(m, 1)`` of a batch that lies in ``work.batch``.

        Its gradient goes to ``work.gradients``.
        """
        network, out = self.network, work.outputs
        beyond, seen = work.next_observations, work.observations
        if self.config.double_q:
            best = network.forward(rows.layers, beyond, out).argmax(-1, keepdim=True)
            value = network.forward(rows.target_layers, beyond, out).gather(-1, best)
        else:
            value = network.forward(rows.target_layers, beyond, out).amax(-1, True)
        goal = value.mul_(batch.discounts).add_(batch.returns)
        q = network.forward(rows.layers, seen, out)
        errors = q.gather(-1, batch.actions).sub_(goal)
        clipped = errors.clamp(-1.0, 1.0)
        # Huber: clipped × (error − clipped / 2), whose derivative is clipped
        errors.sub_(clipped, alpha=0.5)
        weighted = clipped.mul_(batch.weights)
        loss = errors.mul_(weighted).sum(1)
        gradient = work.output_gradient
        gradient.tensor.zero_().scatter_(-1, batch.actions, weighted)
        network.backward(
            rows.layers,
            seen,
            out,
            gradient,
            work.network_scratch,
            work.gradient_layers,
        )
        return loss

    # -- train ------------------------------------------------------------------

    def begin_interval(self, state: DQNState) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters, ("loss", "grad_norm"))

    @torch.inference_mode()
    @np.errstate(over="ignore", invalid="ignore")  # a member may have diverged
    def train(
        self, state: DQNState, values: Values, steps: int, interval: Interval
    ) -> None:
        """Train every member for ``steps`` environment steps.

        Args:
            state: changed in place.
            values: applied hyperparameters.
            steps: a multiple of ``num_inner_envs``.
            interval: sums, changed in place.
        """
        if state is not self._views_of:
            self._views.clear()
            self._views_of = state
        P, N = len(state.env_steps), self.config.num_inner_envs
        epsilon = values["epsilon"][:, None]
        layers = self.network.layers(state.parameters)
        outputs = self.network.buffers(P, N, self._memory)
        pairs = np.empty((P, N, 2, self.features), self.env.observation_dtype)
        rows = np.empty((P, N, 4), np.float32)
        seen, inputs = networks.input_memory(P, N, self.features)
        on_device = self.network.values(inputs.to(self.device))
        write = state.replay.writer()
        plans: dict[bytes, list[_Plan]] = {}
        iterations = steps // N
        for i in range(iterations):
            now = i % _CHUNK
            if now == 0:
                coming = min(_CHUNK, iterations - i)
                explore, random_actions = self._exploration(state, epsilon, coming)
            observations = state.envs.observations.reshape(P, N, self.features)
            seen[...] = observations
            if self.env.scales_images:
                seen /= BRIGHTEST
            if on_device.tensor is not inputs:
                on_device.tensor.copy_(inputs)
            greedy = self._act(layers, on_device, outputs)
            actions = np.where(explore[now], random_actions[now], greedy)
            pairs[:, :, 0] = observations
            step = self.env.step(state.envs, actions)
            pairs[:, :, 1] = step.observations.reshape(P, N, self.features)
            rows[..., replay.ACTION] = actions
            rows[..., replay.REWARD] = step.rewards
            rows[..., replay.CONTINUES] = ~step.terminated
            rows[..., replay.DONE] = step.done
            write(state.env_steps // N, pairs, rows)
            if np.count_nonzero(step.done):  # a fifth of the time of any()
                finished_episodes(interval, step)
            state.env_steps += N
            self._set_targets(state, values["target_update_interval"])
            state.since_train += N
            event = state.since_train >= values["train_freq"]
            if np.count_nonzero(event):
                state.since_train[event] = 0
                due = event & (state.env_steps > self.config.learning_starts)
                if np.count_nonzero(due):
                    which = due.tobytes()
                    if which not in plans:
                        plans[which] = self._plan(np.flatnonzero(due), values)
                    for plan in plans[which]:
                        self._update(state, plan, interval)

    def _exploration(
        self, state: DQNState, epsilon: NDArray[np.float64], iterations: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Whether to explore, and with which actions, ``(iterations, P, N)`` each.

        Args:
            state: before the first of the iterations.
            epsilon: ``(P, 1)``.
            iterations: that come, of N steps a member.
        """
        N = self.config.num_inner_envs
        keys = streams.of(state.keys, "act")[:, None]
        counters = state.env_steps[:, None] + np.arange(iterations) * N
        draws = streams.uniforms(keys, counters, 2 * N)
        draws = np.ascontiguousarray(draws.swapaxes(0, 1))
        explore = draws[..., :N] < epsilon
        warming_up = counters < self.config.learning_starts
        explore |= warming_up.T[..., None]
        return explore, (draws[..., N:] * self.env.num_actions).astype(np.int64)

    def _act(
        self,
        layers: list[networks.Layer],
        inputs: networks.Values,
        outputs: list[networks.Values],
    ) -> NDArray[np.int64]:
        """`greedy` with layers and memory at hand: ``(P, N)``, from ``(P, N, D)``."""
        q = self.network.forward(layers, inputs, outputs)
        actions: NDArray[np.int64] = q.cpu().numpy().argmax(-1)
        return actions

    def _set_targets(self, state: DQNState, every: NDArray[np.float64]) -> None:
        state.since_target += self.config.num_inner_envs
        sync = state.since_target >= every
        due = np.count_nonzero(sync)
        if due == len(sync):
            state.target.copy_(state.parameters)
            state.since_target[:] = 0
        elif due:
            index = torch.from_numpy(np.flatnonzero(sync)).to(self.device)
            state.target.index_copy_(0, index, state.parameters.index_select(0, index))
            state.since_target[sync] = 0

    def _plan(self, members: NDArray[np.int64], values: Values) -> list[_Plan]:
        sizes = values["batch_size"][members].astype(np.int64)
        steps = values["gradient_steps"][members].astype(np.int64)
        plans = []
        for block in blocks.make_blocks(members, sizes, steps, self.device):
            weights = (block.mask() / block.sizes[:, None]).astype(np.float32)
            who = block.members
            plans.append(
                _Plan(
                    block=block,
                    weights=torch.from_numpy(weights[..., None]).to(self.device),
                    gamma=blocks.column(values["gamma"][who], self.device)[..., None],
                    learning_rate=values["learning_rate"][who],
                    max_grad_norm=blocks.column(
                        values["max_grad_norm"][who], self.device
                    ),
                    window=values["replay_window"][who].astype(np.int64),
                )
            )
        return plans

    def _update(self, state: DQNState, plan: _Plan, interval: Interval) -> None:
        """All gradient steps of one training event, for the members of a block."""
        block = plan.block
        who, at = block.members, block.at
        rows = self._rows(state, block)
        written = state.env_steps[at] // self.config.num_inner_envs
        done = state.gradient_steps[at].copy()
        for k in range(int(block.updates[0])):
            m = block.active(k)
            part = rows if m == len(who) else self._first(rows, m)
            work = self._workspace(m, block.width)
            weights, gamma, max_grad_norm = plan.first(m)
            batch = state.replay.sample(
                who[:m],
                written[:m],
                self._words(state, plan, done, k)[:m],
                weights,
                gamma,
                self.config.n_step,
                plan.window[:m],
                work.batch,
            )
            loss = self._loss_and_gradient(part, self._scale(batch), work)
            norms = adam.clip_norm(work.unpadded_gradients, max_grad_norm)
            adam.step(
                part.parameters,
                work.gradients,
                part.adam,
                done[:m] + (k + 1),
                plan.learning_rate[:m],
                ADAM_EPSILON,
                work.scratch,
            )
            interval.add(block, (loss, norms))
        block.put(state.parameters, rows.parameters)
        block.put(state.adam.mean, rows.adam.mean)
        block.put(state.adam.square, rows.adam.square)
        state.gradient_steps[at] += block.updates
        interval.updates[at] += block.updates
        interval.samples[at] += block.updates * block.sizes

    def _words(
        self, state: DQNState, plan: _Plan, done: NDArray[np.int64], k: int
    ) -> streams.UInts:
        """Random bits ``(m, B)`` for gradient step ``done + k`` of each member.

        They are drawn for several steps at once, which takes little longer than one.
        """
        number = done + k
        if plan.words is not None:
            ahead = number - plan.words_from
            first = int(ahead[0])
            if 0 <= first < len(plan.words) and not np.count_nonzero(ahead != first):
                return plan.words[first]
        m, width = len(number), plan.block.width
        steps = max(1, min(_CHUNK, _WORDS // (m * width)))
        keys = streams.of(state.keys, "replay")[plan.block.at]
        counters = number[:, None] + np.arange(steps)
        words = streams.bits(keys[:, None], counters, width)  # (m, steps, B)
        plan.words, plan.words_from = words.swapaxes(0, 1).copy(), number
        return plan.words[0]

    def _rows(self, state: DQNState, block: blocks.Block) -> _Rows:
        """The block's rows; views of a slice are kept, since making them takes time."""
        moments = state.adam
        tensors = (state.parameters, moments.mean, moments.square, state.target)
        if block.where is None:
            return self._make_rows(*(block.take(t) for t in tensors))
        place = (block.where.start, block.where.stop)
        if place not in self._views:
            self._views[place] = self._make_rows(*(block.take(t) for t in tensors))
        return self._views[place]

    def _make_rows(
        self, parameters: Tensor, mean: Tensor, square: Tensor, target: Tensor
    ) -> _Rows:
        return _Rows(
            parameters,
            target,
            adam.AdamState(mean, square),
            self.network.layers(parameters),
            self.network.layers(target),
        )

    def _first(self, rows: _Rows, m: int) -> _Rows:
        moments = rows.adam
        tensors = (rows.parameters, moments.mean, moments.square, rows.target)
        return self._make_rows(*(t[:m] for t in tensors))

    def _workspace(self, m: int, width: int) -> _Work:
        """Scratch memory, and views of it, which take time to make."""
        if (m, width) not in self._work:
            network, memory = self.network, self._memory
            outputs = network.buffers(m, width, memory)
            gradient = memory.take("output gradient", m, self.env.num_actions, width)
            gradients = memory.take("gradients", m, network.row)
            batch = replay.BatchMemory.take(m, width, self.features, memory)
            self._work[m, width] = _Work(
                batch=batch,
                observations=network.values(batch.observations),
                next_observations=network.values(batch.next_observations),
                outputs=outputs,
                network_scratch=network.scratch(m, width, memory),
                output_gradient=network.values(gradient.mT),
                gradients=gradients,
                unpadded_gradients=gradients[:, : network.num_parameters],
                gradient_layers=network.layers(gradients),
                scratch=memory.take("scratch", m, network.row),
            )
        return self._work[m, width]

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: DQNState, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters)

    def probe(
        self, state: DQNState, values: Values, words: streams.UInts
    ) -> replay.Batch:
        """A batch of every member from its replay, which it leaves as it is.

        Args:
            state: of the population; not changed.
            values: applied hyperparameters.
            words: ``(P, B)`` random bits.
        """
        P, B = words.shape
        batch = state.replay.sample(
            np.arange(P),
            state.env_steps // self.config.num_inner_envs,
            words,
            torch.full((P, B, 1), 1 / B, device=self.device, dtype=torch.float32),
            blocks.column(values["gamma"], self.device)[..., None],
            self.config.n_step,
            values["replay_window"].astype(np.int64),
        )
        return self._scale(batch)

    def signals(
        self, state: DQNState, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells of each member ``(P,)``, by `SIGNALS` name.

        Temporal-difference error and values come from one larger probe batch drawn
        from a part of the replay stream that training does not use.
        """
        words = streams.bits(
            streams.of(state.keys, "replay"),
            state.env_steps + _PROBE_DRAWS,
            _PROBE_BATCH,
        )
        batch = self.probe(state, values, words)
        errors, taken = self.td_errors(state.parameters, state.target, batch)
        probe = {
            "td_error": errors.abs().mean((1, 2)),
            "value_mean": taken.mean((1, 2)),
            "value_std": taken.std((1, 2)),
        }
        return {
            **interval.means(),
            "update_ratio": interval.update_ratio(state.parameters),
            **{name: t.double().cpu().numpy() for name, t in probe.items()},
        }
