"""Batches as large as the gradient is noisy.

McCandlish, Kaplan, Amodei et al. 2018, "An empirical model of large-batch training"
(arXiv 1812.06162): up to about the noise scale tr(Σ) / |G|² a larger batch saves steps
nearly in proportion, beyond it hardly any. Σ is the covariance of the gradients of
single samples, G their mean. From squared gradient norms at two batch sizes come
estimates without bias (appendix A):

    |G|²  ≈ (B |g_B|² − b |g_b|²) / (B − b)
    tr(Σ) ≈ (|g_b|² − |g_B|²) / (1 / b − 1 / B)

Both are noisy, so their moving averages are taken, and then the ratio of these. Here
g_b are the gradients of `PARTS` equal parts of one batch, and g_B is their mean. DQN's
batch is drawn from its replay; PPO's is a rollout of its own, charged as evaluation
steps. Gradients are taken before clipping, and of Adam's preconditioning the estimate
knows nothing, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.algorithms import ppo
from dacrl_env.core.isolation import inner_context
from dacrl_env.learners.dqn import DQN
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import probe

Floats = NDArray[np.float64]
Loss = Callable[[Tensor], Tensor]  # parameters (P · PARTS, row) to (P · PARTS,)

PARTS = 16  # of the batch
_SAMPLES = 256  # of DQN's batch


class NoiseScale:
    """The batch size is the gradient's noise scale, within its range.

    Args:
        decay: of the moving averages, per decision.
        factor: batch size over noise scale.
        initial: batch size until there is an estimate; None: the task's default.

    Raises:
        ValueError: decay outside [0, 1) or factor not positive; at `reset`, an initial
            batch size out of range, a learner without batch size or differentiable
            loss, or inner environments that PPO cannot copy.
    """

    action_mode = "values"
    hyperparameters = ("batch_size",)

    def __init__(
        self, decay: float = 0.8, factor: float = 1.0, initial: float | None = None
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        if not factor > 0:
            raise ValueError(f"factor must be positive, got {factor}")
        self.decay, self.factor, self.initial = decay, factor, initial

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start every member without an estimate."""
        h = envs.settings.number("batch_size")
        probe.check(envs)
        self.first = h.default if self.initial is None else self.initial
        h.check(self.first)
        self.envs, self.low, self.high = envs, h.low, h.high
        self.trace = np.zeros(envs.num_envs)  # moving sums, of equal weights
        self.square = np.zeros(envs.num_envs)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        new = infos["env_steps"] == 0
        self.trace[new] = self.square[new] = 0.0
        live = probe.under_way(self.envs, infos)
        if live.any():
            trace, square = estimates(self.envs, live)
            use = live & np.isfinite(trace) & np.isfinite(square)
            for mean, value in ((self.trace, trace), (self.square, square)):
                mean[use] = self.decay * mean[use] + (1 - self.decay) * value[use]
        return self.envs.to_actions({"batch_size": self.sizes()})

    def sizes(self) -> Floats:
        """Batch sizes ``(P,)``.

        Where |G|² is estimated as zero or less, noise is all there is to see: the
        largest.
        """
        known = (self.trace != 0) | (self.square != 0)
        scale = np.full(len(known), np.inf)
        np.divide(self.trace, self.square, out=scale, where=self.square > 0)
        sizes = np.clip(self.factor * scale, self.low, self.high)
        return np.where(known, sizes, self.first)


def estimates(envs: PopulationEnv, live: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """tr(Σ) and |G|² of every member ``(P,)``.

    Args:
        envs: of the members.
        live: ``(P,)`` members whose run pays for rollouts.
    """
    learner: Any = envs.population.learner
    state = envs.population.state.learner
    loss: Loss
    with inner_context():
        if isinstance(learner, DQN):
            cuts = parts(probe.replay_batch(envs, _SAMPLES))
            target = torch.from_numpy(state.target).repeat_interleave(PARTS, 0)
            options = _repeated(probe.dqn_options(envs))
            loss = partial(probe.dqn_loss, learner, options, target=target, batch=cuts)
        else:
            cuts = parts(_shuffled(envs, _rollout_batch(envs, live)))
            options = _repeated(probe.ppo_options(envs))
            loss = partial(probe.ppo_loss, learner, options, batch=cuts)
        return noise(loss, probe.parameters(envs), cuts.observations.shape[1])


def _repeated(options: Any) -> Any:
    """Options of the members, for each of their parts."""
    each = (torch.as_tensor(x).repeat_interleave(PARTS, 0) for x in options)
    return type(options)(*each)


def noise(loss: Loss, parameters: Tensor, size: int) -> tuple[Floats, Floats]:
    """tr(Σ) and |G|² ``(P,)`` from `PARTS` batches of ``size`` samples a member."""
    rows = parameters.repeat_interleave(PARTS, 0)
    gradients = torch.func.grad(lambda p: loss(p).sum())(rows)
    gradients = gradients.unflatten(0, (-1, PARTS)).double()  # (P, PARTS, row)
    small = gradients.square().sum(-1).mean(-1).cpu().numpy()
    big = gradients.mean(1).square().sum(-1).cpu().numpy()
    square = (PARTS * big - small) / (PARTS - 1)
    trace = (small - big) * size * PARTS / (PARTS - 1)
    return trace, square


def parts(batch: Any) -> Any:
    """A batch ``(P, B, …)`` as ``(P · PARTS, B // PARTS, …)``, the rest left out."""
    size = batch.observations.shape[1] // PARTS

    def cut(x: Tensor) -> Tensor:
        return x[:, : size * PARTS].unflatten(1, (PARTS, size)).flatten(0, 1)

    return type(batch)(*(cut(x) for x in batch))


def _rollout_batch(envs: PopulationEnv, live: NDArray[np.bool_]) -> ppo.Batch:
    learner: Any = envs.population.learner  # PPO
    values = probe.applied(envs)
    r = probe.rollout(envs, live)
    gamma, decay = (
        torch.from_numpy(values[name][:, None]).float()
        for name in ("gamma", "gae_lambda")
    )
    advantages = probe.advantages_of(r, gamma, decay)
    return probe.flat(learner, r, advantages, advantages + r.values)


def _shuffled(envs: PopulationEnv, batch: ppo.Batch) -> ppo.Batch:
    """Samples in random order, as PPO's minibatches are: neighbours are alike."""
    P, B = batch.log_probs.shape
    order = torch.from_numpy(probe.words(envs, B).argsort(-1))
    members = torch.arange(P)[:, None]
    return ppo.Batch(*(x[members, order] for x in batch))
