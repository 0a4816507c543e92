"""Adam for the parameters of one member, with clipping of the gradient's norm.

Kingma and Ba 2015, "Adam: a method for stochastic optimization", with the arithmetic of
``torch.optim.Adam`` (betas 0.9 and 0.999) and ``torch.nn.utils.clip_grad_norm_``.
"""

from __future__ import annotations

import math

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.products import norm
from dacrl_env.kernels.views import vector

BETA_1, BETA_2 = 0.9, 0.999
_BETA_2 = np.float32(BETA_2)
_FRESH_1, _FRESH_2 = np.float32(1 - BETA_1), np.float32(1 - BETA_2)
# moments below it become 0: with denormal numbers processors compute far more slowly
_TINY = np.float32(1e-35)


@compiled
def adam_step(
    row, gradients, mean, square, parts, steps, learning_rate, epsilon, max_norm
):
    """Clip the gradient to a norm, and take one step; returns the norm before.

    Parts of the row may have begun anew at different times.

    Args:
        row: parameters, changed.
        gradients: a row; what is no parameter is zero.
        mean: first moments, a row, changed.
        square: second moments, a row, changed.
        parts: (G + 1,) where the parts begin, and the end of the row.
        steps: (G,) taken so far with each, counted on; more of them are left alone.
        learning_rate: a number, as the others.
        epsilon: added to the root of the corrected second moment.
        max_norm: largest norm of the gradient.
    """
    before = norm(gradients)
    scale = min(np.float32(max_norm) / (before + np.float32(1e-6)), np.float32(1.0))
    for part in range(len(parts) - 1):
        steps[part] += 1
        root = math.sqrt(1.0 - _power(BETA_2, steps[part]))
        size = learning_rate * root / (1.0 - _power(BETA_1, steps[part]))
        at, n = parts[part], parts[part + 1] - parts[part]
        _step_part(
            vector(row, at, n), vector(gradients, at, n), vector(mean, at, n),
            vector(square, at, n), scale, np.float32(size), np.float32(epsilon * root),
        )  # fmt: skip
    return before


@compiled
def _step_part(row, gradients, mean, square, scale, size, small):
    """A loop of its own: from elsewhere than the beginning it becomes no vectors."""
    zero = np.float32(0.0)
    for i in range(len(row)):
        g = gradients[i] * scale
        m = mean[i] + _FRESH_1 * (g - mean[i])
        v = square[i] * _BETA_2 + _FRESH_2 * g * g
        m = zero if abs(m) < _TINY else m
        v = zero if v < _TINY else v
        mean[i], square[i] = m, v
        row[i] -= size * (m / (np.sqrt(v) + small))


@compiled
def _power(base, n):
    """``base`` to a whole power, by squares: the same bits anywhere."""
    result = 1.0
    while n > 0:
        if n % 2 == 1:
            result *= base
        base *= base
        n //= 2
    return result
