"""An actor whose actions are tanh of normal ones, so that they lie within ± 1.

Haarnoja et al. 2018, "Soft actor-critic algorithms and applications" (arXiv
1812.05905), appendix C. The network has means and logarithms of standard deviations, 2A
outputs. `proposed` is the definition, in torch.

Letters: B batch size, D observation features, A components of an action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels import choices, dense
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.dense import Network, predict
from dacrl_env.kernels.functions import exp, log, tanh
from dacrl_env.kernels.random_numbers import normal
from dacrl_env.kernels.views import aligned, matrix

if TYPE_CHECKING:
    from torch import Tensor

LOWEST_LOG_STD, HIGHEST_LOG_STD = np.float32(-20.0), np.float32(2.0)
_EDGE = np.float32(1e-6)  # keeps the density finite where an action is at a bound


class Drawn(NamedTuple):
    """Actions that the actor draws for B observations, and how it came to them."""

    hidden: NDArray[np.float32]  # outputs of its hidden layers
    outputs: NDArray[np.float32]  # (B, 2A) means, log standard deviations
    noise: NDArray[np.float32]  # (B, A) standard normal
    slopes: NDArray[np.float32]  # (B, A) of tanh, where it made the actions
    actions: NDArray[np.float32]  # (B, A) within ± 1
    log_probs: NDArray[np.float32]  # (B,)


def make_drawn(actor: Network, A: int, B: int) -> Drawn:
    """Memory for at most B observations."""
    hidden = dense.make_scratch(actor, B).hidden
    noise, slopes, actions = (aligned(B, A) for _ in range(3))
    return Drawn(hidden, aligned(B, 2 * A), noise, slopes, actions, aligned(B))


@compiled
def propose(net, x, drawn, row, A, into):
    """Draw an action for each observation (B, D): it, its noise, its log probability.

    The density is that of the normal one, by the slope of tanh.
    """
    B = len(x)
    out = matrix(into.outputs, 0, B, 2 * A)
    predict(net, row, x, into.hidden, out)
    noise, actions = matrix(into.noise, 0, B, A), matrix(into.actions, 0, B, A)
    slopes = matrix(into.slopes, 0, B, A)
    for b in range(B):
        log_prob = np.float32(0.0)
        for a in range(A):
            z = np.float32(normal(drawn, b * A + a, B * A))
            log_std = bounded_log_std(out[b, A + a])
            raw = out[b, a] + exp(log_std) * z
            noise[b, a], actions[b, a], slopes[b, a] = z, tanh(raw), slope_of_tanh(raw)
            log_prob -= np.float32(0.5) * (z * z + choices.LOG_2PI) + log_std
            log_prob -= log(slopes[b, a] + _EDGE)
        into.log_probs[b] = log_prob


@compiled
def slope_of_tanh(x):
    """1 − tanh² x, to its last digits also where tanh is almost ± 1."""
    one, small = np.float32(1.0), exp(np.float32(-2.0) * abs(x))
    return np.float32(4.0) * small / ((one + small) * (one + small))


@compiled
def bounded_log_std(value):
    """Within its bounds; NaN stays what it is."""
    value = HIGHEST_LOG_STD if value > HIGHEST_LOG_STD else value
    return LOWEST_LOG_STD if value < LOWEST_LOG_STD else value


@compiled
def by_outputs(B, A, drawn, temperature, by_value, d):
    """Gradient (B, 2A) of the mean of temperature · log probability − value.

    Args:
        B: batch size.
        A: components of an action.
        drawn: the actions.
        temperature: weight of the log probabilities.
        by_value: (B, A) gradients of the values by the actions.
        d: (B, 2A), written to.
    """
    zero, two, share = np.float32(0.0), np.float32(2.0), np.float32(1.0 / B)
    out, actions = matrix(drawn.outputs, 0, B, 2 * A), matrix(drawn.actions, 0, B, A)
    noise, slopes = matrix(drawn.noise, 0, B, A), matrix(drawn.slopes, 0, B, A)
    for b in range(B):
        for a in range(A):
            log_std = bounded_log_std(out[b, A + a])
            entropic = temperature * two * actions[b, a] / (slopes[b, a] + _EDGE)
            by_mean = share * (entropic - by_value[b, a]) * slopes[b, a]
            d[b, a] = by_mean
            by_log_std = by_mean * exp(log_std) * noise[b, a] - share * temperature
            d[b, A + a] = by_log_std if log_std == out[b, A + a] else zero


def proposed(
    net: Network, row: Tensor, observations: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Actions ``(…, B, A)`` and log probabilities ``(…, B)``, by standard noise."""
    import torch

    mean, log_std = dense.apply(net, row, observations).chunk(2, -1)
    std = log_std.clamp(float(LOWEST_LOG_STD), float(HIGHEST_LOG_STD)).exp()
    normals = torch.distributions.Normal(mean, std, validate_args=False)
    raw = mean + std * noise
    small = (-2 * raw.abs()).exp()
    slopes = 4 * small / (1 + small).square()  # of tanh: 1 − tanh²
    bent = (slopes + float(_EDGE)).log()
    return raw.tanh(), (normals.log_prob(raw) - bent).sum(-1)
