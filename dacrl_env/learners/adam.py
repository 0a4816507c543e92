"""Adam for rows of parameters, each with its own learning rate and step count.

Kingma and Ba 2015, "Adam: a method for stochastic optimization", with the arithmetic
of ``torch.optim.Adam`` (betas 0.9 and 0.999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BETA_1, BETA_2 = 0.9, 0.999


@dataclass
class AdamState:
    """Moments of the gradient; the steps taken are counted by the learner."""

    mean: Tensor  # (P, row)
    square: Tensor  # (P, row)

    @classmethod
    def zeros(cls, rows: Tensor) -> AdamState:
        """The state before the first step, for parameters ``rows``."""
        return cls(torch.zeros_like(rows), torch.zeros_like(rows))


def clip_norm(gradients: Tensor, max_norm: Tensor) -> Tensor:
    """Scale gradient rows in place to at most ``max_norm`` ``(P, 1)``.

    The rule of ``torch.nn.utils.clip_grad_norm_``: by max / (norm + 1e-6) where that
    is below one. Rows come without their padding: scaled by a norm that is not finite,
    it would stay so in scratch memory that other members use later.

    Returns:
        The norms before clipping, ``(P, 1)``.
    """
    norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    scale = max_norm / (norms + 1e-6)
    gradients.mul_(scale.clamp_(max=1.0))
    return norms


def step(
    parameters: Tensor,
    gradients: Tensor,
    state: AdamState,
    steps: NDArray[np.int64],
    learning_rate: NDArray[np.float64],
    epsilon: float,
    scratch: Tensor,
) -> None:
    """One Adam step of every row, in place.

    Args:
        parameters: ``(P, row)``.
        gradients: ``(P, row)``.
        state: moments of the same rows.
        steps: ``(P,)`` steps taken, this one included.
        learning_rate: ``(P,)``.
        epsilon: added to the root of the corrected second moment.
        scratch: ``(P, row)``, overwritten.
    """
    # lr · m̂ / (√v̂ + ε), with both bias corrections moved into per-row factors
    root = np.sqrt(1 - BETA_2**steps)
    size = _column(-learning_rate * root / (1 - BETA_1**steps), parameters)
    state.mean.lerp_(gradients, 1 - BETA_1)
    state.square.mul_(BETA_2).addcmul_(gradients, gradients, value=1 - BETA_2)
    _sqrt(state.square, scratch).add_(_column(epsilon * root, parameters))
    torch.div(state.mean, scratch, out=scratch)
    parameters.addcmul_(scratch, size)


def _sqrt(values: Tensor, out: Tensor) -> Tensor:
    """Square roots; numpy's, since MKL's take up to ten times as long for zeros."""
    if values.device.type == "cpu":
        np.sqrt(values.numpy(), out=out.numpy())
        return out
    return torch.sqrt(values, out=out)


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    column = torch.from_numpy(values.astype(np.float32)[:, None])
    return column if like.device.type == "cpu" else column.to(like.device)
