"""What white-box policies look at: batches and rollouts of their own of every member.

Training is left as it is: draws come from the streams for policies, rollouts from
copies of the learner and its inner environments. Their steps are charged to the run as
evaluation steps; gradients that a policy computes are in no account.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env import snapshot
from dacrl_env.learners import blocks, ppo, replay, streams
from dacrl_env.learners.dqn import DQN
from dacrl_env.vector_env import PopulationEnv

Values = dict[str, NDArray[np.float64]]  # hyperparameter name -> (P,)


def check(envs: PopulationEnv) -> None:
    """Whether there is something to look at.

    Raises:
        ValueError: a learner without a differentiable loss, or one that has to be
            copied and cannot be.
    """
    learner = envs.population.learner
    if not isinstance(learner, DQN | ppo.PPO):
        raise ValueError(
            f"a {type(learner).__name__} has no differentiable loss; policies that "
            "look at gradients need the learners dqn or ppo, not sgd or sb3"
        )
    if isinstance(learner, ppo.PPO):
        try:
            snapshot.objects(envs.population.state.learner)
        except snapshot.SnapshotNotSupported as error:
            raise ValueError(
                "policies that look at gradients of PPO play rollouts in copies of the "
                f"inner environments: {error}"
            ) from error


def applied(envs: PopulationEnv) -> Values:
    """Values of all hyperparameters that the members trained with last."""
    population = envs.population
    return dict(zip(population.names, population.state.applied.T.copy(), strict=True))


def under_way(envs: PopulationEnv, infos: Any) -> NDArray[np.bool_]:
    """Members ``(P,)`` that have begun their run and not ended it."""
    return (infos["env_steps"] > 0) & ~envs.population.ended()


def words(envs: PopulationEnv, lanes: int) -> streams.UInts:
    """Random bits ``(P, lanes)`` of each member's run at this decision."""
    steps = envs.population.state.learner.env_steps
    return streams.bits(envs.policy_keys, steps, lanes)


def replay_batch(envs: PopulationEnv, size: int) -> replay.Batch:
    """Transitions of every member from its replay."""
    population = envs.population
    batch: replay.Batch = population.learner.probe(
        population.state.learner, applied(envs), words(envs, size)
    )
    return batch


def rollout(envs: PopulationEnv, charged: NDArray[np.bool_]) -> ppo.Rollout:
    """One rollout of every member, in copies of its inner environments.

    They go on from where they are, with random numbers of their own.

    Args:
        envs: running PPO.
        charged: ``(P,)`` members whose run pays for the steps.
    """
    population, learner = envs.population, envs.population.learner
    state = copied(envs)
    state.keys = words(envs, len(streams.PURPOSES))
    N, T = learner.config.num_inner_envs, learner.config.rollout_length
    state.envs.keys = streams.env_keys(state.keys, N)
    if hasattr(state.envs, "lifetime"):
        # where physics will change, a copy must not be the first to know
        state.envs.lifetime = np.maximum(state.envs.lifetime - T, 0)
    result: ppo.Rollout = learner.probe(state, applied(envs))
    population.state.eval_steps[charged] += N * T
    return result


def copied(envs: PopulationEnv) -> Any:
    """A copy of the learner's state, environment objects included."""
    arrays = envs.snapshot().arrays

    def copy(name: str, leaf: Any) -> Any:
        array = arrays[f"learner.{name}"]
        if isinstance(leaf, Tensor):
            return torch.from_numpy(array).to(leaf.device)
        return array

    state = snapshot.take_rows(envs.population.state.learner, slice(None))
    snapshot.replace_leaves(state, copy)
    return state


def coefficients(learner: ppo.PPO, values: Values) -> ppo.Coefficients:
    """Of the members' losses ``(P, 1, 1)``."""
    names = ppo.Coefficients._fields
    columns = (blocks.column(values[name], learner.device) for name in names)
    return ppo.Coefficients(*(column[..., None] for column in columns))


def flat(
    learner: ppo.PPO, part: ppo.Rollout, advantages: Tensor, returns: Tensor
) -> ppo.Batch:
    """All steps of a rollout as one minibatch; advantages and returns ``(P, N, T)``."""

    def column(x: Tensor) -> Tensor:
        return x.flatten(1, 2)[..., None]

    weights = torch.full_like(column(part.values), 1 / part.values[0].numel())
    chosen = advantages.flatten(1, 2)
    if learner.config.normalize_advantages:
        n = torch.full_like(chosen[:, :1], chosen.shape[1])
        chosen = ppo.normalised(chosen, weights[..., 0], n)
    actions = part.actions.flatten(1, 2)
    return ppo.Batch(
        observations=part.observations.flatten(1, 2),
        actions=actions if learner.continuous else actions.long(),
        log_probs=column(part.log_probs),
        advantages=chosen[..., None],
        returns=column(returns),
        values=column(part.values),
        weights=weights,
    )


def tensors(r: ppo.Rollout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, whether episodes go on, values and last ones: for `advantages_of`."""
    device = r.values.device
    rewards, going_on = (
        torch.from_numpy(x).to(device) for x in (r.rewards, r.going_on)
    )
    return rewards, going_on, r.values, r.last


def advantages_of(
    rewards: Tensor,
    going_on: Tensor,
    values: Tensor,
    last: Tensor,
    gamma: Tensor,
    gae_lambda: Tensor,
) -> Tensor:
    """Generalised advantages ``(P, N, T)``, differentiable in all but ``going_on``.

    Schulman et al. 2016; what PPO computes, see its ``_advantages``.

    Args:
        rewards: ``(T, P, N)``, the bootstrap of truncated episodes included.
        going_on: ``(T, P, N)``, 0 where an episode ended.
        values: ``(P, N, T)``.
        last: ``(P, N)`` values after the rollout.
        gamma: ``(P, 1)``.
        gae_lambda: ``(P, 1)``.
    """
    decay = gamma * gae_lambda
    advantage, following, result = torch.zeros_like(last), last, []
    for t in range(len(rewards) - 1, -1, -1):
        value = values[..., t]
        delta = rewards[t] + gamma * following * going_on[t] - value
        advantage = delta + decay * going_on[t] * advantage
        result.append(advantage)
        following = value
    return torch.stack(result[::-1], -1)
