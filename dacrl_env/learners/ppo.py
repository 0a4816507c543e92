"""PPO, P members in one tensor program, each with its own hyperparameters.

Schulman et al. 2017, "Proximal policy optimization algorithms" (arXiv 1707.06347),
with generalised advantage estimation (Schulman et al. 2016) and the choices of
Stable-Baselines3: separate actor and critic, orthogonal initialisation, advantages
normalised per minibatch, bootstrapping where an episode is truncated. Discrete and
continuous (diagonal Gaussian) actions.

Letters: P members, N inner environments a member, T steps of a rollout, B batch size,
D observation features, A actions or action components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env import checks
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.inner_envs.images import BRIGHTEST
from dacrl_env.learners import adam, blocks, networks, streams
from dacrl_env.learners.interval import Interval, begin, finished_episodes
from dacrl_env.learners.normalisation import RunningMoments
from dacrl_env.learners.rollout import Act, play
from dacrl_env.tasks import Hyperparameter

HYPERPARAMETERS = (
    Hyperparameter("learning_rate", 1e-6, 1e-1, 3e-4, "log"),
    Hyperparameter("clip_range", 0.0, 0.5, 0.2),
    Hyperparameter("batch_size", 8, 512, 64, "log", integer=True),
    Hyperparameter("gamma", 0.8, 1.0, 0.99, "log_complement"),
    Hyperparameter("gae_lambda", 0.8, 1.0, 0.95, "log_complement"),
    Hyperparameter("n_epochs", 1, 30, 10, integer=True),
    Hyperparameter("ent_coef", 0.0, 0.5, 0.0),
    Hyperparameter("vf_coef", 0.0, 1.0, 0.5),
    Hyperparameter("max_grad_norm", 0.05, 10, 0.5, "log"),
)
CONTROLLED = ("learning_rate", "clip_range", "batch_size")
ADAM_EPSILON = 1e-5
SIGNALS = (
    "loss",
    "kl",
    "entropy",
    "grad_norm",
    "update_ratio",
    "value_mean",
    "value_std",
)
# of signals that may be negative: the magnitude that observations begin to tell from 0
SIGNAL_UNITS = {"loss": 1e-3, "entropy": 1e-3, "value_mean": 1.0}

_LOG_2PI = float(np.log(2 * np.pi))
_EPOCHS = 32  # more than n_epochs can be: addresses of shuffles do not meet

Values = Mapping[str, NDArray[np.float64]]  # hyperparameter name -> (P,)


@dataclass(frozen=True)
class PPOConfig:
    """What sets shapes; fixed for the life of a population.

    Args:
        hidden_sizes: widths of the hidden layers, of actor and critic each.
        num_inner_envs: environments a member collects with.
        activation: of the hidden layers, "relu" or "tanh".
        rollout_length: steps of each environment between updates.
        normalize_observations: by running mean and variance.
        normalize_rewards: by the running standard deviation of discounted returns.
        normalize_advantages: in each minibatch.
        clip_range_vf: largest change of a value per update; None: any.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_inner_envs: int = 8
    activation: str = "tanh"
    rollout_length: int = 128
    normalize_observations: bool = False
    normalize_rewards: bool = False
    normalize_advantages: bool = True
    clip_range_vf: float | None = None

    def __post_init__(self) -> None:
        sizes = tuple(checks.whole("a hidden size", n) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)
        for name in ("num_inner_envs", "rollout_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.clip_range_vf is not None and not self.clip_range_vf > 0:
            raise ValueError("clip_range_vf must be above 0, or None")


@dataclass
class PPOState:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: Tensor  # (P, row): actor, critic, log standard deviations
    adam: adam.AdamState
    envs: Any  # state of the inner environments, P × N
    observation_moments: RunningMoments
    return_moments: RunningMoments
    discounted: NDArray[np.float64]  # (P, N) running discounted returns
    keys: streams.UInts  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)


class Batch(NamedTuple):
    """A minibatch."""

    observations: Tensor  # (P, B, D)
    actions: Tensor  # (P, B, 1) int64, or (P, B, A) float32
    log_probs: Tensor  # (P, B, 1) when acting
    advantages: Tensor  # (P, B, 1)
    returns: Tensor  # (P, B, 1)
    values: Tensor  # (P, B, 1) when acting
    weights: Tensor  # (P, B, 1) share in the mean; 0 for padding


@dataclass
class Rollout:
    """What T steps of the P × N inner environments gave."""

    observations: Tensor  # (P, N, T, D) as the policy saw them
    actions: Tensor  # (P, N, T, 1) float32 numbers of actions, or (P, N, T, A)
    log_probs: Tensor  # (P, N, T) when acting
    values: Tensor  # (P, N, T) when acting
    last: Tensor  # (P, N) values after the rollout
    rewards: NDArray[np.float32]  # (T, P, N) with the bootstrap of truncated episodes
    going_on: NDArray[np.float32]  # (T, P, N) 0 where an episode ended


class Coefficients(NamedTuple):
    """Hyperparameters of the loss, ``(P, 1, 1)`` each."""

    clip_range: Tensor
    ent_coef: Tensor
    vf_coef: Tensor


@dataclass
class _Net:
    """Layers of actor and critic, and the log standard deviations ``(P, 1, A)``."""

    actor: list[networks.Layer]
    critic: list[networks.Layer]
    log_std: Tensor


@dataclass
class _Work:
    """Memory for one update of m members at batch width B."""

    # outputs of its layers; the hidden ones in the critic's place
    actor: list[networks.Values]
    critic: list[networks.Values]
    actor_scratch: networks.Scratch
    critic_scratch: networks.Scratch
    gradients: Tensor
    into: _Net
    scratch: Tensor


class PPO:
    """The algorithm over a population; holds shapes and scratch memory, no state.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        config: static choices.
        budget: inner environment steps of a run.
        device: of the networks.
    """

    hyperparameters = HYPERPARAMETERS
    controlled = CONTROLLED
    signal_names = SIGNALS
    signal_units = SIGNAL_UNITS
    config_class = PPOConfig
    continuous_actions = True

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        config: PPOConfig,
        budget: int,
        device: torch.device,
    ) -> None:
        self.env = env
        self.eval_env = eval_env
        self.config = config
        self.budget = budget
        self.device = device
        self.features = int(np.prod(env.observation_shape))
        self.continuous = env.num_actions == 0
        self.num_outputs = len(env.action_low) if self.continuous else env.num_actions
        hidden = (self.features, *config.hidden_sizes)
        self.actor = networks.StackedMLP((*hidden, self.num_outputs), config.activation)
        self.critic = networks.StackedMLP((*hidden, 1), config.activation)
        # one row: actor, critic, log standard deviations, padding
        self._critic_at = self.actor.num_parameters
        self._std_at = self._critic_at + self.critic.num_parameters
        self.num_parameters = self._std_at + self.continuous * self.num_outputs
        self.row = networks.padded(self.num_parameters)
        self._memory = networks.Memory(device)
        self._work: dict[tuple[int, int], _Work] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made afresh: scratch memory and views are of this one alone."""
        arguments = (self.env, self.eval_env, self.config, self.budget, self.device)
        return type(self), arguments

    # -- configuration ----------------------------------------------------------

    @staticmethod
    def granularity(config: PPOConfig) -> int:
        """Environment steps that cannot be divided further: one rollout."""
        return config.num_inner_envs * config.rollout_length

    @classmethod
    def member_bytes(
        cls, config: PPOConfig, budget: int, env: InnerEnv
    ) -> dict[str, int]:
        """About what one member takes, by the option that it depends on most."""
        features = math.prod(env.observation_shape)
        outputs = env.num_actions or len(env.action_low)
        hidden = (features, *config.hidden_sizes)
        row = networks.row_bytes((*hidden, outputs)) + networks.row_bytes((*hidden, 1))
        # a rollout, the table made of it, and the order of ten epochs
        step = 12 * (features + outputs) + 60 + 240
        many = "rollout_length"
        if config.num_inner_envs > config.rollout_length:
            many = "num_inner_envs"
        return {"hidden_sizes": 5 * row, many: cls.granularity(config) * step}

    @classmethod
    def constrain(
        cls, values: dict[str, NDArray[np.float64]], config: PPOConfig, budget: int
    ) -> None:
        """Cap requested values in place to what can be applied together."""
        most = cls.granularity(config)
        values["batch_size"] = np.minimum(values["batch_size"], most)

    @property
    def flops(self) -> tuple[int, int]:
        """Floating-point operations per action, and per sample of an update.

        Matrix products only, two operations a multiply-add: actor and critic forward
        to act; forward, and backward with two products a layer (one at the first), to
        learn.
        """
        forward = 2 * (self.actor.num_weights + self.critic.num_weights)
        first = 2 * 2 * self.actor.sizes[0] * self.actor.sizes[1]
        return forward, 3 * forward - first

    # -- state ------------------------------------------------------------------

    def init(self, keys: streams.UInts, physics: NDArray[np.float64]) -> PPOState:
        """Runs before their first step.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        P, N = len(keys), self.config.num_inner_envs
        parameters = self._initial_parameters(keys)
        return PPOState(
            parameters=parameters,
            adam=adam.AdamState.zeros(parameters),
            envs=self.env.init(streams.env_keys(keys, N), physics),
            observation_moments=RunningMoments.start(P, self.features),
            return_moments=RunningMoments.start(P, 1),
            discounted=np.zeros((P, N)),
            keys=keys.copy(),
            env_steps=np.zeros(P, np.int64),
            gradient_steps=np.zeros(P, np.int64),
        )

    def begin_episodes(self, state: PPOState) -> None:
        """Leave the inner episodes that are under way and begin the next ones."""
        self.env.begin_episodes(state.envs)
        state.discounted[...] = 0.0

    def restart(
        self,
        state: PPOState,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """Put some members back before their first step, with new streams."""
        index = torch.from_numpy(members).to(self.device)
        state.parameters[index] = self._initial_parameters(keys)
        state.adam.mean[index] = 0.0
        state.adam.square[index] = 0.0
        state.observation_moments.reset(members)
        state.return_moments.reset(members)
        state.discounted[members] = 0.0
        state.keys[members] = keys
        state.env_steps[members] = 0
        state.gradient_steps[members] = 0
        env_keys = streams.env_keys(keys, self.config.num_inner_envs)
        self.env.restart(state.envs, members, env_keys, physics)

    def _initial_parameters(self, keys: streams.UInts) -> Tensor:
        rows = torch.zeros(len(keys), self.row, dtype=torch.float32)
        key = streams.of(keys, "init")
        hidden = [2**0.5] * len(self.config.hidden_sizes)
        actor, critic = self._split(rows)
        for net, part, last, number in (
            (self.actor, actor, 0.01, 0),
            (self.critic, critic, 1.0, 1),
        ):
            fresh = net.init_orthogonal(key, [*hidden, last], number)
            part.copy_(fresh[:, : net.num_parameters])
        return rows.to(self.device)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[:, : self._critic_at], rows[:, self._critic_at : self._std_at]

    def _net(self, rows: Tensor) -> _Net:
        actor, critic = self._split(rows)
        log_std = rows[:, None, self._std_at : self.num_parameters]
        return _Net(self.actor.layers(actor), self.critic.layers(critic), log_std)

    # -- act --------------------------------------------------------------------

    def play(
        self,
        state: PPOState,
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

    def policy(self, state: PPOState, members: NDArray[np.int64]) -> Act:
        """Most likely actions ``(m, E)`` for observations ``(m, E, …)`` of members."""
        index = torch.from_numpy(members).to(self.device)
        parameters, _ = self._split(state.parameters.index_select(0, index))

        def act(observations: NDArray[Any]) -> NDArray[Any]:
            features = self._features(state, observations, members)
            inputs = networks.inputs(features, self.device)
            outputs = self.actor.apply(parameters, inputs)
            if self.continuous:
                return self._clip(outputs.cpu().numpy())
            best: NDArray[np.int64] = outputs.argmax(-1).cpu().numpy()
            return best

        return act

    def _features(
        self, state: PPOState, observations: NDArray[Any], members: Any = slice(None)
    ) -> NDArray[Any]:
        """What the networks of members see ``(m, E, D)`` of observations."""
        flat = observations.reshape(*observations.shape[:2], self.features)
        if self.config.normalize_observations:
            return state.observation_moments.normalise(flat, members)
        if self.env.scales_images:
            return np.divide(flat, BRIGHTEST, dtype=np.float32)
        return flat

    def _clip(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Within the bounds; of a member that has diverged, numbers nevertheless."""
        wide = np.nan_to_num(actions.astype(np.float64), posinf=np.inf, neginf=-np.inf)
        return np.clip(wide, self.env.action_low, self.env.action_high)

    def _sample(
        self,
        outputs: NDArray[np.float32],
        log_std: NDArray[np.float32],
        draws: NDArray[np.float64],
    ) -> NDArray[Any]:
        """Actions ``(P, N)``, or continuous ``(P, N, A)`` before they are clipped.

        Args:
            outputs: of the actor, ``(P, N, A)``.
            log_std: ``(P, 1, A)``.
            draws: uniform ``(P, N)`` for discrete, normal ``(P, N, A)`` for continuous
                actions.
        """
        if self.continuous:
            return outputs + np.exp(log_std) * draws.astype(np.float32)
        odds = np.exp(outputs - outputs.max(-1, keepdims=True)).cumsum(-1)
        # rounding cannot lead beyond the last action
        actions: NDArray[np.int64] = (
            odds[..., :-1] < draws[..., None] * odds[..., -1:]
        ).sum(-1)
        return actions

    def log_prob(self, outputs: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        """Log probability (density) ``(P, B, 1)`` of actions."""
        if self.continuous:
            z = (actions - outputs) / log_std.exp()
            return (-0.5 * (z.square() + _LOG_2PI) - log_std).sum(-1, keepdim=True)
        return _log_softmax(outputs).gather(-1, actions)

    def entropy(self, outputs: Tensor, log_std: Tensor) -> Tensor:
        """Entropy ``(P, B, 1)`` of the action distributions."""
        if self.continuous:
            total = (log_std + 0.5 * (1 + _LOG_2PI)).sum(-1, keepdim=True)
            return total.expand(*outputs.shape[:-1], 1)
        logs = _log_softmax(outputs)
        return -(logs.exp() * logs).sum(-1, keepdim=True)

    # -- loss -------------------------------------------------------------------

    def loss(self, parameters: Tensor, batch: Batch, c: Coefficients) -> Tensor:
        """Loss of each member ``(P,)``; differentiable."""
        actor, critic = self._split(parameters)
        log_std = parameters[:, None, self._std_at : self.num_parameters]
        outputs = self.actor.apply(actor, batch.observations)
        values = self.critic.apply(critic, batch.observations)
        log_probs = self.log_prob(outputs, log_std, batch.actions)
        ratio = (log_probs - batch.log_probs).exp()
        clipped = ratio.clamp(1 - c.clip_range, 1 + c.clip_range)
        gain = torch.minimum(batch.advantages * ratio, batch.advantages * clipped)
        if self.config.clip_range_vf is not None:
            limit = self.config.clip_range_vf
            values = batch.values + (values - batch.values).clamp(-limit, limit)
        error = (values - batch.returns).square()
        bonus = c.ent_coef * self.entropy(outputs, log_std)
        return ((c.vf_coef * error - gain - bonus) * batch.weights).sum((1, 2))

    def _loss_and_gradient(
        self, net: _Net, batch: Batch, c: Coefficients, work: _Work
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, approximate KL and entropy ``(m, 1)``; gradients go to ``work``."""
        value_loss = self._value_gradient(net, batch, c, work)
        policy_loss, kl, entropy = self._policy_gradient(net, batch, c, work)
        return value_loss + policy_loss, kl, entropy

    def _value_gradient(
        self, net: _Net, batch: Batch, c: Coefficients, work: _Work
    ) -> Tensor:
        seen = self.critic.values(batch.observations)
        values = self.critic.forward(net.critic, seen, work.critic)
        error = values - batch.returns
        slope = error
        if self.config.clip_range_vf is not None:
            limit = self.config.clip_range_vf
            moved = values - batch.values
            error = batch.values + moved.clamp(-limit, limit) - batch.returns
            slope = error * (moved.abs() <= limit)
        weighted = c.vf_coef * batch.weights
        self.critic.backward(
            net.critic,
            seen,
            work.critic,
            self.critic.values(slope * (2 * weighted)),
            work.critic_scratch,
            work.into.critic,
        )
        return (error.square() * weighted).sum(1)

    def _policy_gradient(
        self, net: _Net, batch: Batch, c: Coefficients, work: _Work
    ) -> tuple[Tensor, Tensor, Tensor]:
        seen = self.actor.values(batch.observations)
        outputs = self.actor.forward(net.actor, seen, work.actor)
        weights, advantages = batch.weights, batch.advantages * batch.weights
        if self.continuous:
            deviation = net.log_std.exp()
            z = (batch.actions - outputs).div_(deviation)
            per = z.square().add_(_LOG_2PI).mul_(-0.5).sub_(net.log_std)
            log_probs = per.sum(-1, keepdim=True)
            entropy = self.entropy(outputs, net.log_std)
        else:
            logs = _log_softmax(outputs)
            log_probs = logs.gather(-1, batch.actions)
            probs = logs.exp()
            entropy = (probs * logs).sum(-1, keepdim=True).neg_()
        log_ratio = log_probs.sub_(batch.log_probs)
        ratio = log_ratio.exp()
        gain = advantages * ratio
        limited = ratio.clamp(1 - c.clip_range, 1 + c.clip_range).mul_(advantages)
        objective = torch.minimum(gain, limited).sum(1)
        # the gradient vanishes where clipping makes the objective the smaller one
        slope = gain.mul_(gain <= limited)  # of the policy gain, per log probability
        kl = ratio.sub_(1).sub_(log_ratio).mul_(weights).sum(1)
        mean_entropy = (entropy * weights).sum(1)
        loss = torch.addcmul(objective, c.ent_coef[:, 0], mean_entropy).neg_()
        if self.continuous:
            d_outputs = -slope * z / deviation
            d_log_std = (-slope * (z.square() - 1)).sum(1, keepdim=True)
            torch.sub(d_log_std, c.ent_coef, out=work.into.log_std)
        else:
            # d(−slope·log p)/d outputs, and d(−c·H)/d outputs = c·p·(log p + H)
            pull = logs.add_(entropy).mul_(c.ent_coef * weights).add_(slope)
            d_outputs = probs.mul_(pull).scatter_add_(-1, batch.actions, slope.neg_())
        self.actor.backward(
            net.actor,
            seen,
            work.actor,
            self.actor.values(d_outputs),
            work.actor_scratch,
            work.into.actor,
        )
        return loss, kl, mean_entropy

    # -- train ------------------------------------------------------------------

    def begin_interval(self, state: PPOState) -> Interval:
        """Empty sums for the time until the next decision."""
        return begin(state.parameters, ("loss", "grad_norm", "kl", "entropy"))

    @torch.inference_mode()
    @np.errstate(over="ignore", invalid="ignore")  # a member may have diverged
    def train(
        self, state: PPOState, values: Values, steps: int, interval: Interval
    ) -> None:
        """Train every member for ``steps`` environment steps.

        Args:
            state: changed in place.
            values: applied hyperparameters.
            steps: a multiple of ``num_inner_envs × rollout_length``.
            interval: sums, changed in place.
        """
        for _ in range(steps // self.granularity(self.config)):
            table = self._rollout(state, values, interval)
            self._learn(state, values, table, interval)

    def _rollout(self, state: PPOState, values: Values, interval: Interval) -> Tensor:
        """Collect T × N steps a member.

        Returns:
            Table ``(P, N·T, D + actions + 4)`` of observation, action, log probability,
            advantage, return and value.
        """
        r = self._collect(state, values, interval)
        advantages, returns = self._advantages(
            r.rewards, r.going_on, r.values, r.last, values
        )
        columns = torch.stack([r.log_probs, advantages, returns, r.values], -1)
        table = torch.cat([r.observations, r.actions, columns], -1)
        return table.flatten(1, 2)

    def _collect(self, state: PPOState, values: Values, interval: Interval) -> Rollout:
        """Act for T steps in all environments, which go on from where they are.

        Values and log probabilities are computed for all steps at once.
        """
        P, N, T = len(state.env_steps), *self._rollout_shape()
        D, A = self.features, self.num_outputs
        net = self._net(state.parameters)
        log_std = net.log_std.cpu().numpy()
        memory = self.actor.buffers(P, N, self._memory)
        now, inputs = networks.input_memory(P, N, D)
        seen, observations = self._input_table(P, T + 1)  # one more: after the rollout
        beyond: NDArray[Any] | None = None  # where an episode was truncated
        outputs = np.empty((P, N, T, A), np.float32)
        actions = np.empty((P, N, T, A if self.continuous else 1), np.float32)
        rewards = np.empty((T, P, N), np.float32)
        going_on = np.empty((T, P, N), np.float32)
        truncated = np.zeros((T, P, N), bool)
        gamma = values["gamma"][:, None]
        draws = self._draws(state)
        for t in range(T):
            now[...] = observations[:, :, t] = self._observe(state)
            outputs[:, :, t], taken = self._act(net, inputs, log_std, draws[t], memory)
            if self.continuous:
                actions[:, :, t], taken = taken, self._clip(taken)
            else:
                actions[:, :, t, 0] = taken
            step = self.env.step(state.envs, taken)
            reward = step.rewards
            if self.config.normalize_rewards:
                state.discounted = state.discounted * gamma + reward
                state.return_moments.update(state.discounted[..., None])
                reward = state.return_moments.scale(reward)
            rewards[t], going_on[t] = reward, ~step.done
            if step.done.any():
                finished_episodes(interval, step)
                state.discounted[step.done] = 0.0
                truncated[t] = cut = step.done & ~step.terminated
                if cut.any():
                    if beyond is None:
                        ahead, beyond = self._input_table(P, T)
                    features = self._features(state, step.observations)
                    beyond[:, :, t][cut] = features[cut]
            state.env_steps += N
        observations[:, :, T] = self._observe(state, update=False)
        if beyond is not None:
            who = np.flatnonzero(truncated.any((0, 2)))
            bootstrap = self._values(state.parameters, ahead, who, T).cpu().numpy()
            bootstrap = gamma[who] * bootstrap.transpose(2, 0, 1)
            # nothing of a diverged member's where no episode was truncated
            rewards[:, who] += np.where(truncated[:, who], bootstrap, 0.0)
        value = self._values(state.parameters, seen, np.arange(P), T + 1)
        chosen = torch.from_numpy(actions).to(self.device)
        log_probs = self.log_prob(
            torch.from_numpy(outputs).to(self.device).flatten(1, 2),
            net.log_std,
            (chosen if self.continuous else chosen.long()).flatten(1, 2),
        )
        return Rollout(
            observations=torch.from_numpy(observations).to(self.device)[:, :, :T],
            actions=chosen,
            log_probs=log_probs.view(P, N, T),
            values=value[..., :T],
            last=value[..., T],
            rewards=rewards,
            going_on=going_on,
        )

    def _act(
        self,
        net: _Net,
        inputs: Tensor,
        log_std: NDArray[np.float32],
        draws: NDArray[np.float64],
        memory: list[networks.Values],
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Outputs of the actor ``(P, N, A)``, and what `_sample` makes of them.

        Args:
            net: of all members.
            inputs: ``(P, N, D)``.
            log_std: of the net, ``(P, 1, A)``.
            draws: as `_sample` takes them.
            memory: of a forward pass.
        """
        seen = self.actor.values(inputs.to(self.device))
        outputs = self.actor.forward(net.actor, seen, memory)
        array = outputs.cpu().numpy()
        return array, self._sample(array, log_std, draws)

    def _input_table(self, P: int, steps: int) -> tuple[Tensor, NDArray[Any]]:
        """Memory on the host for network inputs of some steps.

        Returns:
            Inputs ``(P, W, D)`` of one forward pass, whose rest is zeros: W is so large
            that the outputs of every member start a cache line, on which their last
            bits depend; and where to write them, ``(P, N, steps, D)``.
        """
        rows = self.config.num_inner_envs * steps
        shape = (P, networks.padded(rows), self.features)
        inputs = torch.zeros(shape, dtype=torch.float32)
        at = inputs[:, :rows].unflatten(1, (self.config.num_inner_envs, steps))
        return inputs, at.numpy()

    def _values(
        self, parameters: Tensor, inputs: Tensor, who: NDArray[np.int64], steps: int
    ) -> Tensor:
        """Values ``(m, N, steps)`` of some members' inputs, as `_input_table` has them.

        They are computed in parts whose activations stay in the cache.
        """
        N, width = self.config.num_inner_envs, inputs.shape[1]
        values = parameters.new_empty(len(who), width)
        for start in range(0, len(who), blocks.most_members(width)):
            part = slice(start, start + blocks.most_members(width))
            index = torch.from_numpy(who[part])
            net = self._net(parameters.index_select(0, index.to(self.device)))
            x = self.critic.values(inputs.index_select(0, index).to(self.device))
            out = self.critic.buffers(len(index), width, self._memory)
            values[part] = self.critic.forward(net.critic, x, out).squeeze(-1)
        return values[:, : N * steps].unflatten(1, (N, steps))

    def _rollout_shape(self) -> tuple[int, int]:
        return self.config.num_inner_envs, self.config.rollout_length

    def _observe(self, state: PPOState, update: bool = True) -> NDArray[Any]:
        """Network inputs ``(P, N, D)``; running moments take note of them first."""
        observations = state.envs.observations
        if update and self.config.normalize_observations:
            P, N = observations.shape[:2]
            state.observation_moments.update(observations.reshape(P, N, self.features))
        return self._features(state, observations)

    def _draws(self, state: PPOState) -> NDArray[np.float64]:
        """Random numbers of a rollout, ``(T, P, N)`` or ``(T, P, N, A)``."""
        N, T = self._rollout_shape()
        counters = state.env_steps[:, None] + np.arange(T) * N  # (P, T)
        key = streams.of(state.keys, "act")[:, None]
        if not self.continuous:
            return streams.uniforms(key, counters, N).swapaxes(0, 1).copy()
        A = self.num_outputs
        normal = streams.normals(key, counters, N * A)
        return normal.reshape(-1, T, N, A).swapaxes(0, 1).copy()

    def _advantages(
        self,
        rewards: NDArray[np.float32],
        going_on: NDArray[np.float32],
        values: Tensor,
        last: Tensor,
        hyperparameters: Values,
    ) -> tuple[Tensor, Tensor]:
        """Generalised advantages and returns ``(P, N, T)``.

        Args:
            rewards: ``(T, P, N)``, the bootstrap of truncated episodes included.
            going_on: ``(T, P, N)``, 0 where an episode ended.
            values: ``(P, N, T)``.
            last: ``(P, N)`` values after the rollout.
            hyperparameters: gamma and gae_lambda.
        """
        v = values.permute(2, 0, 1).cpu().numpy()
        gamma = hyperparameters["gamma"][:, None].astype(np.float32)
        decay = gamma * hyperparameters["gae_lambda"][:, None].astype(np.float32)
        advantages = np.empty_like(rewards)
        advantage = np.zeros_like(rewards[0])
        following = last.cpu().numpy()
        for t in range(len(rewards) - 1, -1, -1):
            delta = rewards[t] + gamma * following * going_on[t] - v[t]
            advantage = delta + decay * going_on[t] * advantage
            advantages[t] = advantage
            following = v[t]
        result = torch.from_numpy(advantages).to(self.device).permute(1, 2, 0)
        return result, result + values

    def _learn(
        self, state: PPOState, values: Values, table: Tensor, interval: Interval
    ) -> None:
        """All epochs over one rollout."""
        P, S = table.shape[:2]
        sizes = values["batch_size"].astype(np.int64)
        epochs = values["n_epochs"].astype(np.int64)
        updates = epochs * -(-S // sizes)
        for block in blocks.make_blocks(np.arange(P), sizes, updates, self.device):
            self._update(state, values, table, block, interval)

    def _shuffles(
        self, state: PPOState, block: blocks.Block, epochs: NDArray[np.int64], S: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the table for each update, and which count: ``(U, m, width)``.

        Every epoch is a fresh shuffle; the last minibatch of an epoch may be partial.
        """
        m, U = len(block.members), int(block.updates[0])
        keys = streams.of(state.keys, "replay")[block.members]
        at = state.env_steps[block.members] * _EPOCHS
        rows = np.zeros((U, m, block.width), np.int64)
        counts = np.zeros((U, m, block.width), bool)
        most = int(epochs.max())
        bits = streams.bits(keys[:, None], at[:, None] + np.arange(most), S)
        shuffles = bits.argsort(-1)  # (m, epochs, S)
        for size in np.unique(block.sizes):
            which = np.flatnonzero(block.sizes == size)
            number = -(-S // size)
            padded = np.zeros((len(which), most, number * size), np.int64)
            padded[..., :S] = shuffles[which]
            inside = np.zeros((most, number * size), bool)
            inside[:, :S] = True
            last = min(U, most * number)
            each = padded.reshape(len(which), most * number, size).swapaxes(0, 1)
            rows[:last, which, :size] = each[:last]
            inside = inside.reshape(most * number, 1, size)
            counts[:last, which, :size] = inside[:last]
        return rows, counts

    def _minibatches(
        self,
        state: PPOState,
        block: blocks.Block,
        epochs: NDArray[np.int64],
        table: Tensor,
    ) -> tuple[Tensor, Batch]:
        """Rows of the table ``(U, m, B)`` for each of U updates, and minibatches.

        Of these, all has an axis U before the others but the observations, which are
        the whole table's ``(P · N·T, D)``: they are larger than the rest, and taken
        when an update is due.
        """
        _, S, F = table.shape
        rows, counts = self._shuffles(state, block, epochs, S)
        taken = counts.sum(-1, keepdims=True)  # (U, m, 1)
        share = (counts / np.maximum(taken, 1)).astype(np.float32)
        weights = torch.from_numpy(share).to(self.device)
        index = torch.from_numpy(rows + block.members[:, None] * S).to(self.device)
        D = self.features
        # columns side by side in memory take longer to work on than each by itself;
        # numbers are taken in a fifth of the time of rows of one number
        actions, log_probs, advantages, returns, acted = (
            table[..., start:stop]
            .flatten(0, 1)
            .squeeze(-1)
            .index_select(0, index.view(-1))
            for start, stop in pairwise((D, F - 4, F - 3, F - 2, F - 1, F))
        )
        shape = (*index.shape, -1)
        if self.config.normalize_advantages:
            n = torch.from_numpy(taken.astype(np.float32)).to(self.device)
            advantages = normalised(advantages.view(index.shape), weights, n)
        return index, Batch(
            observations=table[..., :D].flatten(0, 1),
            actions=(actions if self.continuous else actions.long()).view(shape),
            log_probs=log_probs.view(shape),
            advantages=advantages.view(shape),
            returns=returns.view(shape),
            values=acted.view(shape),
            weights=weights.view(shape),
        )

    def _update(
        self,
        state: PPOState,
        values: Values,
        table: Tensor,
        block: blocks.Block,
        interval: Interval,
    ) -> None:
        """All updates of the members of a block."""
        S = table.shape[1]
        who = block.members
        epochs = values["n_epochs"][who].astype(np.int64)
        index, minibatches = self._minibatches(state, block, epochs, table)
        parameters = block.take(state.parameters)
        mean, square = block.take(state.adam.mean), block.take(state.adam.square)
        coefficients = Coefficients(
            *(
                blocks.column(values[name][who], self.device)[..., None]
                for name in Coefficients._fields
            )
        )
        max_norm = blocks.column(values["max_grad_norm"][who], self.device)
        rate = values["learning_rate"][who]
        done = state.gradient_steps[who]
        net, m = None, 0
        for k in range(int(block.updates[0])):
            if net is None or m != block.active(k):
                m = block.active(k)
                net = self._net(parameters[:m])
                work = self._workspace(m, block.width)
                c = Coefficients(*(x[:m] for x in coefficients))
                moments = adam.AdamState(mean[:m], square[:m])
            batch = self._batch(index, minibatches, k, m)
            loss, kl, entropy = self._loss_and_gradient(net, batch, c, work)
            real = work.gradients[:, : self.num_parameters]
            norms = adam.clip_norm(real, max_norm[:m])
            adam.step(
                parameters[:m],
                work.gradients,
                moments,
                done[:m] + (k + 1),
                rate[:m],
                ADAM_EPSILON,
                work.scratch,
            )
            interval.add(block, (loss, norms, kl, entropy))
        for whole, part in (
            (state.parameters, parameters),
            (state.adam.mean, mean),
            (state.adam.square, square),
        ):
            block.put(whole, part)
        state.gradient_steps[block.at] += block.updates
        interval.updates[block.at] += block.updates
        interval.samples[block.at] += epochs * S

    def _batch(self, index: Tensor, minibatches: Batch, k: int, m: int) -> Batch:
        """Update k of the first m members, of `_minibatches`."""
        observations, *others = minibatches
        rows = observations.index_select(0, index[k, :m].view(-1))
        inputs = rows.view(m, -1, self.features)
        return Batch(inputs, *(column[k, :m] for column in others))

    def _workspace(self, m: int, width: int) -> _Work:
        """Scratch memory, and views of it, which take time to make."""
        if (m, width) not in self._work:
            memory = self._memory
            gradients = memory.take("gradients", m, self.row)
            self._work[m, width] = _Work(
                actor=self.actor.buffers(m, width, memory),
                critic=self.critic.buffers(m, width, memory),
                actor_scratch=self.actor.scratch(m, width, memory),
                critic_scratch=self.critic.scratch(m, width, memory),
                gradients=gradients,
                into=self._net(gradients),
                scratch=memory.take("scratch", m, self.row),
            )
        return self._work[m, width]

    # -- signals ----------------------------------------------------------------

    def diverged(self, state: PPOState, interval: Interval) -> NDArray[np.bool_]:
        """Members ``(P,)`` with a loss, gradient or parameter that is not finite."""
        return interval.not_finite(state.parameters)

    @np.errstate(over="ignore", invalid="ignore")  # a member may have diverged
    def probe(self, state: PPOState, values: Values) -> Rollout:
        """A rollout that nothing is learned from; the state goes on from its end."""
        return self._collect(state, values, self.begin_interval(state))

    def signals(
        self, state: PPOState, values: Values, interval: Interval
    ) -> dict[str, NDArray[np.float64]]:
        """What the interval tells of each member ``(P,)``, by `SIGNALS` name.

        Values are those of the current observations of the inner environments.
        """
        _, critic = self._split(state.parameters)
        inputs = networks.inputs(self._observe(state, update=False), self.device)
        value = self.critic.apply(critic, inputs)
        return {
            **interval.means(),
            "update_ratio": interval.update_ratio(state.parameters),
            "value_mean": value.mean((1, 2)).double().cpu().numpy(),
            "value_std": value.std((1, 2), correction=0).double().cpu().numpy(),
        }


def normalised(advantages: Tensor, weights: Tensor, n: Tensor) -> Tensor:
    """Advantages with mean 0 and standard deviation 1 in their minibatch.

    Args:
        advantages: ``(…, B)``.
        weights: ``(…, B)`` share in the mean; 0 for padding.
        n: ``(…, 1)`` how many count; a single one is left as it is.
    """
    centred = advantages - (advantages * weights).sum(-1, keepdim=True)
    spread = (centred.square() * weights).sum(-1, keepdim=True)
    # unbiased, as torch.std
    deviation = (spread * (n / (n - 1).clamp(min=1))).sqrt_()
    return torch.where(n > 1, centred / (deviation + 1e-8), advantages)


def _log_softmax(outputs: Tensor) -> Tensor:
    """Log probabilities ``(P, B, A)``, laid out as the outputs of a network."""
    return outputs.mT.log_softmax(1).mT
