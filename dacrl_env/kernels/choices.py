"""Distributions over actions: probabilities of some, and normal ones."""

from __future__ import annotations

import math

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import exp, exp_double, log, log_double

_MOST = 100  # of a Zipf distribution
LOG_2PI = np.float32(math.log(2 * math.pi))


@compiled
def largest(values):
    """Place of the largest number, the first of equal ones; 0 if all are NaN."""
    best = 0
    for a in range(1, len(values)):
        if values[a] > values[best]:
            best = a
    return best


@compiled
def maximum(values):
    """The largest of some numbers."""
    most = values[0]
    for a in range(1, len(values)):
        most = max(most, values[a])
    return most


@compiled
def sampled(logits, u):
    """An action by its probability, from a uniform number; its log probability."""
    most = maximum(logits)
    total = np.float32(0.0)
    for a in range(len(logits)):
        total += exp(logits[a] - most)
    action, below_u = 0, exp(logits[0] - most)
    # rounding cannot lead beyond the last one
    while action < len(logits) - 1 and below_u < u * total:
        action += 1
        below_u += exp(logits[action] - most)
    return action, logits[action] - most - log(total)


@compiled
def zipf(u, exponent):
    """From a uniform number one of 1 to 100, n in proportion to n^−exponent."""
    total = 0.0
    for n in range(1, _MOST + 1):
        total += exp_double(-exponent * log_double(np.float64(n)))
    below_u, n = 1.0, 1
    while n < _MOST and below_u <= u * total:
        n += 1
        below_u += exp_double(-exponent * log_double(np.float64(n)))
    return n


@compiled
def log_softmax(logits, probabilities):
    """Make logits log probabilities, write probabilities, and return their entropy."""
    most, total = maximum(logits), np.float32(0.0)
    for a in range(len(logits)):
        probabilities[a] = exp(logits[a] - most)
        total += probabilities[a]
    log_total, entropy = most + log(total), np.float32(0.0)
    for a in range(len(logits)):
        logits[a] -= log_total
        probabilities[a] /= total
        entropy -= probabilities[a] * logits[a]
    return entropy


@compiled
def log_density(action, mean, log_std):
    """Of independent normal components, at an action (A,)."""
    result = np.float32(0.0)
    for a in range(len(action)):
        z = (action[a] - mean[a]) / exp(log_std[a])
        result += np.float32(-0.5) * (z * z + LOG_2PI) - log_std[a]
    return result


@compiled
def bounded(action, low, high, into):
    """A continuous action within the bounds; NaN counts as zero."""
    for a in range(len(action)):
        value = np.float64(action[a]) if action[a] == action[a] else 0.0
        into[a] = min(max(value, low[a]), high[a])
