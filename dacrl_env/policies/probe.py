"""What white-box policies look at: batches and rollouts of their own of every member.

Training is left as it is: draws come from the streams for policies, rollouts from
copies of the learner and its inner environments. Their steps are charged to the run as
evaluation steps, and updates of forks as gradient steps; gradients that a policy
computes itself are in no account.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.algorithms import dqn, ppo
from dacrl_env.core import snapshot, streams
from dacrl_env.learners.dqn import DQN
from dacrl_env.learners.ppo import PPO
from dacrl_env.outer.vector_env import PopulationEnv

Values = dict[str, NDArray[np.float64]]  # hyperparameter name -> (P,)
DQNOptions = dqn.Options
PPOOptions = ppo.Options


class Rollout(NamedTuple):
    """What T steps of the P × N inner environments gave."""

    observations: Tensor  # (P, N, T, D) as the policy saw them
    actions: Tensor  # (P, N, T) int64, or (P, N, T, A)
    log_probs: Tensor  # (P, N, T) when acting
    values: Tensor  # (P, N, T) when acting
    last: Tensor  # (P, N) values after the rollout
    rewards: Tensor  # (P, N, T) with the bootstrap of truncated episodes
    going_on: Tensor  # (P, N, T) 0 where an episode ended


def check(envs: PopulationEnv) -> None:
    """Whether there is something to look at.

    Raises:
        ValueError: a learner without a differentiable loss, or one that has to be
            copied and cannot be.
    """
    learner = envs.population.learner
    if not isinstance(learner, DQN | PPO):
        raise ValueError(
            f"a {type(learner).__name__} has no differentiable loss; policies that "
            "look at gradients need the compiled dqn or ppo"
        )
    if isinstance(learner, PPO):
        try:
            snapshot.objects(envs.population.state.learner)
        except snapshot.SnapshotNotSupported as error:
            raise ValueError(
                "policies that look at gradients of PPO play rollouts in copies of the "
                f"inner environments: {error}"
            ) from error


def applied(envs: PopulationEnv) -> Values:
    """Values of all hyperparameters that the members trained with last."""
    return envs.population.values()


def under_way(envs: PopulationEnv, infos: Any) -> NDArray[np.bool_]:
    """Members ``(P,)`` that have begun their run and not ended it."""
    return (infos["env_steps"] > 0) & ~envs.population.ended()


def words(envs: PopulationEnv, lanes: int) -> streams.UInts:
    """Random bits ``(P, lanes)`` of each member's run at this decision."""
    steps = envs.population.state.learner.env_steps
    return streams.bits(envs.policy_keys, steps, lanes)


def parameters(envs: PopulationEnv) -> Tensor:
    """Of all members ``(P, row)``: those they train with, not copies."""
    return torch.from_numpy(envs.population.state.learner.parameters)


def replay_batch(envs: PopulationEnv, size: int) -> dqn.Batch:
    """Transitions of every member from its replay, ``(P, size)``."""
    learner: Any = envs.population.learner  # DQN
    state = envs.population.state.learner
    arrays = learner.probe(state, applied(envs), envs.policy_keys, size)
    return dqn.Batch(*map(torch.from_numpy, arrays))


def greedy_changes(
    envs: PopulationEnv, charged: NDArray[np.bool_], states: int, updates: int
) -> NDArray[np.float64]:
    """How many best actions further updates of a fork would change.

    Args:
        envs: running the compiled DQN.
        charged: ``(P,)`` members that are forked, with something in their replay;
            their run pays for the updates, and for looking at the states.
        states: drawn from the member's replay.
        updates: gradient steps of the fork, see `DQN.greedy_changes`.

    Returns:
        Shares ``(P,)`` of the states; NaN for the other members.
    """
    learner: Any = envs.population.learner  # DQN
    state = envs.population.state
    values, members = applied(envs), np.flatnonzero(charged)
    shares = np.full(len(charged), np.nan)
    shares[members] = learner.greedy_changes(
        state.learner, values, members, words(envs, 2), states, updates
    )
    act, per_sample = learner.flops(values)
    samples = updates * values["batch_size"][members].astype(np.int64)
    state.fork_gradient_steps[members] += updates
    state.samples[members] += samples
    state.update_flops[members] += samples * per_sample[members] + 2 * states * act
    return shares


def dqn_loss(
    learner: DQN, options: DQNOptions, rows: Tensor, target: Tensor, batch: dqn.Batch
) -> Tensor:
    """Loss ``(P,)`` of parameters ``(P, row)``; differentiable."""
    return dqn.loss(learner.fixed.net, rows, target, batch, options)


def dqn_options(envs: PopulationEnv) -> DQNOptions:
    """What the members' losses depend on, ``(P,)`` each."""
    return DQNOptions(*_options(envs, DQNOptions))


def _options(envs: PopulationEnv, kind: Any) -> Iterator[Tensor]:
    values = applied(envs)
    return (torch.from_numpy(values[name]).float() for name in kind._fields)


def ppo_loss(
    learner: PPO, options: PPOOptions, rows: Tensor, batch: ppo.Batch
) -> Tensor:
    """Loss ``(P,)`` of parameters ``(P, row)``; differentiable."""
    return ppo.loss(learner.fixed, rows, batch, options)


def ppo_options(envs: PopulationEnv) -> PPOOptions:
    """What the members' losses depend on, ``(P,)`` each."""
    return PPOOptions(*_options(envs, PPOOptions))


def rollout(envs: PopulationEnv, charged: NDArray[np.bool_]) -> Rollout:
    """One rollout of every member, in copies of its inner environments.

    They go on from where they are, with random numbers of their own.

    Args:
        envs: running PPO.
        charged: ``(P,)`` members whose run pays for the steps.
    """
    population = envs.population
    learner: Any = population.learner  # PPO
    state = copied(envs)
    state.keys = words(envs, len(streams.PURPOSES))
    N, T = learner.config.num_inner_envs, learner.config.rollout_length
    state.envs.keys = streams.env_keys(state.keys, N)
    if hasattr(state.envs, "lifetime"):
        # where physics will change, a copy must not be the first to know
        state.envs.lifetime = np.maximum(state.envs.lifetime - T, 0)
    made = learner.probe(state, applied(envs))
    population.state.eval_steps[charged] += N * T
    actions = torch.from_numpy(made.actions)
    return Rollout(
        observations=torch.from_numpy(made.observations[:, :, :T]),
        actions=actions if learner.fixed.continuous else actions[..., 0].long(),
        log_probs=torch.from_numpy(made.columns[:, ppo.LOG_PROB]),
        values=torch.from_numpy(made.values[..., :T]),
        last=torch.from_numpy(made.values[..., T]),
        rewards=torch.from_numpy(made.rewards),
        going_on=torch.from_numpy(made.going_on),
    )


def copied(envs: PopulationEnv) -> Any:
    """A copy of the learner's state, environment objects included."""
    arrays = envs.snapshot().arrays
    state = snapshot.take_rows(envs.population.state.learner, slice(None))
    snapshot.replace_leaves(state, lambda name, _: arrays[f"learner.{name}"])
    return state


def flat(learner: PPO, part: Rollout, advantages: Tensor, returns: Tensor) -> ppo.Batch:
    """All steps of a rollout as one minibatch; advantages and returns ``(P, N, T)``."""
    chosen = advantages.flatten(1, 2)
    if learner.config.normalize_advantages and chosen.shape[1] > 1:
        centred = chosen - chosen.mean(1, keepdim=True)
        chosen = centred / (chosen.std(1, keepdim=True) + 1e-8)
    return ppo.Batch(
        observations=part.observations.flatten(1, 2),
        actions=part.actions.flatten(1, 2),
        log_probs=part.log_probs.flatten(1, 2),
        advantages=chosen,
        returns=returns.flatten(1, 2),
        values=part.values.flatten(1, 2),
    )


def advantages_of(part: Rollout, gamma: Tensor, gae_lambda: Tensor) -> Tensor:
    """Generalised advantages ``(P, N, T)``, differentiable.

    Schulman et al. 2016; what PPO computes, see :mod:`dacrl_env.algorithms.ppo`.

    Args:
        part: a rollout, or some of its steps.
        gamma: ``(P, 1)``.
        gae_lambda: ``(P, 1)``.
    """
    decay = gamma * gae_lambda
    advantage, following = torch.zeros_like(part.last), part.last
    result = []
    for t in range(part.values.shape[-1] - 1, -1, -1):
        value, goes_on = part.values[..., t], part.going_on[..., t]
        delta = part.rewards[..., t] + gamma * following * goes_on - value
        advantage = delta + decay * goes_on * advantage
        result.append(advantage)
        following = value
    return torch.stack(result[::-1], -1)
