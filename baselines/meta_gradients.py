"""Hyperparameters that follow the gradient of what an update achieves.

Xu, van Hasselt and Silver 2018, "Meta-gradient reinforcement learning" (NeurIPS): an
update with hyperparameters η takes the parameters from θ to θ'(η); how good they are is
measured by an objective J' on an independent sample, and η moves along

    dJ' / dη = ∂J' / ∂θ' · dθ' / dη .

As there, dθ'/dη is that of the update itself, without the dependence of θ on earlier η.
An update is Adam's, with the moments and the clipping that the learner has at the
decision; torch.func differentiates through it and through the learner's pure loss.

- DQN, learning rate: a replay batch, then J', the loss on another batch, both with the
  target network as it is.
- PPO, discount γ, λ and learning rate: the first half of a rollout gives advantages and
  returns that depend on γ and λ, and an update with the whole of it as one batch. J' is
  the clipped policy objective alone on the second half, with advantages of fixed
  reference values γ' and λ', as in the paper. Values, and the bootstrap of truncated
  episodes, are those of acting. PPO keeps no rollouts: those looked at are played in
  copies of the inner environments, and charged to the run as evaluation steps.

Every hyperparameter moves on the axis on which equal distances are equal factors:
log α, −log(1 − γ), −log(1 − λ). Gradients on it differ by orders of magnitude between
tasks and in the course of a run, so the meta-step is Adam's (Kingma and Ba 2015), whose
length does not depend on their scale.

What an update achieves at once is not what a run achieves: such gradients are greedy
(Wu et al. 2018, "Understanding short-horizon bias in stochastic meta-optimization").
From a network that a rate of 0.05 or more has already damaged they show no clear way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.algorithms import dqn, ppo
from dacrl_env.core.isolation import inner_context
from dacrl_env.kernels.adam import BETA_1, BETA_2
from dacrl_env.learners.dqn import DQN
from dacrl_env.learners.ppo import PPO
from dacrl_env.outer.actions import check_names
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import needs, probe

Floats = NDArray[np.float64]

TUNED = {
    "dqn": ("learning_rate",),
    "ppo": ("learning_rate", "gamma", "gae_lambda"),
}
_SAMPLES, _HELD_OUT = 64, 256  # transitions of DQN's batches
_TINY = 1e-30  # under a root whose derivative is wanted; as in Adam
_BETA = 0.9  # of squares of the meta-gradient, whose scale changes within a run
_EPSILON = 1e-12  # of the meta-step: gradients of J' are small


class Optimiser(NamedTuple):
    """What an update needs to know beside the gradient; per member."""

    mean: Tensor  # (P, row) Adam's moments
    square: Tensor  # (P, row)
    steps: Tensor  # (P, 1) updates so far
    max_norm: Tensor  # (P, 1)
    epsilon: float


class MetaGradients:
    """Online meta-gradients of learning rate, and with PPO of γ and λ.

    Args:
        meta_step: of Adam on the logarithmic axes, at most about so much a decision.
        tune: hyperparameters that move; None: the learning rate, with PPO
            also gamma and gae_lambda.
        decisions: outer steps a run, a meta-step each but for the first. With PPO each
            costs the steps of one rollout.
        reference_gamma: γ' of PPO's objective; None: where γ starts.
        reference_lambda: λ'; None: where λ starts.
        **initial: where tuned hyperparameters start; else at their defaults.

    Raises:
        ValueError: meta_step negative, decisions below 1, or something to be tuned that
            no learner knows; at `reset`, a value out of range, a learner without
            differentiable loss, or inner environments that PPO cannot copy.
    """

    action_mode = "values"

    def __init__(
        self,
        meta_step: float = 0.05,
        tune: tuple[str, ...] | str | None = None,
        decisions: int = 100,
        reference_gamma: float | None = None,
        reference_lambda: float | None = None,
        **initial: float,
    ) -> None:
        if not meta_step >= 0:
            raise ValueError(f"meta_step must not be negative, got {meta_step}")
        if decisions < 1:
            raise ValueError(f"decisions must be at least 1, got {decisions}")
        tune = (tune,) if isinstance(tune, str) else tune
        wanted = TUNED["ppo"] if tune is None else tuple(tune)
        check_names(wanted, TUNED["ppo"], "hyperparameter to tune")
        check_names(initial, wanted, "tuned hyperparameter")
        self.hyperparameters = {
            learner: tuple(n for n in names if n in wanted)
            for learner, names in TUNED.items()
            if set(names) & set(wanted)
        }
        self.meta_step, self.decisions, self.initial = meta_step, decisions, initial
        self.references = {"gamma": reference_gamma, "gae_lambda": reference_lambda}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start every member at the initial values."""
        probe.check(envs)
        self.envs, P = envs, envs.num_envs
        self.names = needs(self, envs.settings.task.algorithm)
        check_names(self.initial, self.names, "tuned hyperparameter")
        self.tuned = [envs.settings.number(name) for name in self.names]
        starts = {h.name: self.initial.get(h.name, h.default) for h in self.tuned}
        for h in self.tuned:
            h.check(starts[h.name])
        self.reference = {
            name: starts.get(name) if given is None else given
            for name, given in self.references.items()
        }
        self.first = np.array([h.to_unit(starts[h.name]) for h in self.tuned])
        self.low = np.array([h.to_unit(h.low) for h in self.tuned])
        self.high = np.array([h.to_unit(h.high) for h in self.tuned])
        self.units = np.tile(self.first, (P, 1))  # (P, k) on the logarithmic axes
        self.mean = np.zeros_like(self.units)  # Adam's moments of the meta-gradient
        self.square = np.zeros_like(self.units)
        self.steps = np.zeros((P, 1))

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        new = infos["env_steps"] == 0
        self.units[new] = self.first
        self.mean[new] = self.square[new] = self.steps[new] = 0.0
        live = probe.under_way(self.envs, infos)
        if live.any():
            gradients = self.gradients(live)
            # none of a member that has diverged, or whose update would
            self._move(live & np.isfinite(gradients).all(1), gradients)
        values = {
            h.name: h.from_unit(self.units[:, k]) for k, h in enumerate(self.tuned)
        }
        return self.envs.to_actions(values)

    def _move(self, use: NDArray[np.bool_], gradients: Floats) -> None:
        """Adam's step of some members, within the ranges."""
        g = gradients[use]
        self.steps[use] += 1
        self.mean[use] += (1 - BETA_1) * (g - self.mean[use])
        self.square[use] += (1 - _BETA) * (np.square(g) - self.square[use])
        mean = self.mean[use] / (1 - BETA_1 ** self.steps[use])
        square = self.square[use] / (1 - _BETA ** self.steps[use])
        moved = self.units[use] - self.meta_step * mean / (np.sqrt(square) + _EPSILON)
        self.units[use] = np.clip(moved, self.low, self.high)

    def gradients(self, live: NDArray[np.bool_]) -> Floats:
        """Of J' (a loss) on the logarithmic axes, ``(P, k)``.

        Args:
            live: ``(P,)`` members whose run pays for rollouts.
        """
        learner: Any = self.envs.population.learner
        units = torch.from_numpy(self.units).float()
        with inner_context():
            if isinstance(learner, DQN):
                objective = self._dqn(learner)
            else:
                objective = self._ppo(learner, live)
            found = torch.func.grad(lambda u: objective(u).sum())(units)
        return found.double().numpy()

    def _dqn(self, learner: DQN) -> Callable[[Tensor], Tensor]:
        state = self.envs.population.state.learner
        both = probe.replay_batch(self.envs, _SAMPLES + _HELD_OUT)
        return partial(
            dqn_objective,
            learner=learner,
            options=probe.dqn_options(self.envs),
            parameters=probe.parameters(self.envs),
            target=torch.from_numpy(state.target),
            batch=_part(both, slice(_SAMPLES)),
            held_out=_part(both, slice(_SAMPLES, None)),
            optimiser=self._optimiser(dqn.ADAM_EPSILON),
        )

    def _ppo(self, learner: PPO, live: NDArray[np.bool_]) -> Callable[[Tensor], Tensor]:
        values = probe.applied(self.envs)
        reference = {
            name: values[name] if value is None else np.full(len(live), value)
            for name, value in self.reference.items()
        }
        first, second = halves(probe.rollout(self.envs, live))
        return partial(
            ppo_objective,
            learner=learner,
            names=self.names,
            parameters=probe.parameters(self.envs),
            first=first,
            second=second,
            fixed={n: _column(values[n]) for n in ("gamma", "gae_lambda")},
            reference={n: _column(x) for n, x in reference.items()},
            rate=_column(values["learning_rate"]),
            options=probe.ppo_options(self.envs),
            optimiser=self._optimiser(ppo.ADAM_EPSILON),
        )

    def _optimiser(self, epsilon: float) -> Optimiser:
        state = self.envs.population.state.learner
        max_norm = probe.applied(self.envs)["max_grad_norm"]
        steps = _column(state.gradient_steps)
        moments = torch.from_numpy(state.mean), torch.from_numpy(state.square)
        return Optimiser(*moments, steps, _column(max_norm), epsilon)


def dqn_objective(
    units: Tensor,
    learner: DQN,
    options: probe.DQNOptions,
    parameters: Tensor,
    target: Tensor,
    batch: dqn.Batch,
    held_out: dqn.Batch,
    optimiser: Optimiser,
) -> Tensor:
    """Loss ``(P,)`` on held-out transitions after an update with ``units`` (log α)."""
    loss = partial(probe.dqn_loss, learner, options)
    gradient = torch.func.grad(lambda p: loss(p, target, batch).sum())
    updated = update(parameters, gradient(parameters), units.exp(), optimiser)
    return loss(updated, target, held_out)


def ppo_objective(
    units: Tensor,
    learner: PPO,
    names: tuple[str, ...],
    parameters: Tensor,
    first: probe.Rollout,
    second: probe.Rollout,
    fixed: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    rate: Tensor,
    options: probe.PPOOptions,
    optimiser: Optimiser,
) -> Tensor:
    """Minus the policy objective ``(P,)`` after an update with ``units`` ``(P, k)``.

    Args:
        units: of the tuned hyperparameters, on the logarithmic axes.
        learner: of the population.
        names: of the tuned hyperparameters.
        parameters: before the update.
        first: what the update learns from.
        second: what the result is judged by.
        fixed: γ and λ, ``(P, 1)``, where they are not tuned.
        reference: γ' and λ', ``(P, 1)``.
        rate: learning rate ``(P, 1)``, where it is not tuned.
        options: of the loss.
        optimiser: of the update.
    """
    columns = dict(zip(names, units.split(1, 1), strict=True))
    tuned = {
        name: -torch.expm1(-columns[name]) if name in columns else fixed[name]
        for name in ("gamma", "gae_lambda")
    }
    if "learning_rate" in columns:
        rate = columns["learning_rate"].exp()
    batch = _batch(learner, first, tuned)
    loss = partial(probe.ppo_loss, learner)
    gradient = torch.func.grad(lambda p: loss(options, p, batch).sum())
    updated = update(parameters, gradient(parameters), rate, optimiser)
    policy_alone = options._replace(ent_coef=0.0, vf_coef=0.0)
    return loss(policy_alone, updated, _batch(learner, second, reference))


def _batch(learner: PPO, part: probe.Rollout, tuned: Mapping[str, Tensor]) -> ppo.Batch:
    advantages = probe.advantages_of(part, tuned["gamma"], tuned["gae_lambda"])
    return probe.flat(learner, part, advantages, advantages + part.values)


def update(parameters: Tensor, gradients: Tensor, rate: Tensor, o: Optimiser) -> Tensor:
    """Parameters after one clipped step of Adam, as in training; differentiable."""
    norms = (gradients.square().sum(1, keepdim=True) + _TINY).sqrt()
    g = gradients * (o.max_norm / (norms + 1e-6)).clamp(max=1.0)
    steps = o.steps + 1
    mean = o.mean + (1 - BETA_1) * (g - o.mean)
    square = BETA_2 * o.square + (1 - BETA_2) * g.square()
    corrected = mean / (1 - BETA_1**steps)
    root = ((square + _TINY) / (1 - BETA_2**steps)).sqrt()
    return parameters - rate * corrected / (root + o.epsilon)


def halves(r: probe.Rollout) -> tuple[probe.Rollout, probe.Rollout]:
    """The first and the second half of the steps.

    Raises:
        ValueError: there is only one.
    """
    T = r.values.shape[-1]
    if T < 2:
        raise ValueError("meta-gradients need a rollout_length of at least 2")
    # where an episode ends with the first half, what follows does not count anyway
    lasts = r.values[:, :, T // 2], r.last
    parts = (slice(T // 2), slice(T // 2, None))
    first, second = (
        probe.Rollout(*(x[:, :, steps] if x is not r.last else last for x in r))
        for steps, last in zip(parts, lasts, strict=True)
    )
    return first, second


def _part(batch: dqn.Batch, which: slice) -> dqn.Batch:
    return dqn.Batch(*(x[:, which] for x in batch))


def _column(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values[:, None]).float()
