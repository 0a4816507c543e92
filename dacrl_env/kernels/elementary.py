"""Elementary functions of numpy arrays, in double precision: the same bits anywhere.

What numpy calls for these differs between processors and systems in its last bit, and a
learning rate that differs in its last bit makes another run. So actions, observations
and schedules use these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.kernels import functions
from dacrl_env.kernels.compiling import compiled, entry

Floats = NDArray[np.float64]

_LN10 = 2.302585092994046
_LOG10_E = 0.4342944819032518


@compiled
def _log(x):
    if x < 2.2250738585072014e-308:
        if x > 0.0:
            return functions.log_double(x * 2.0**54) - 54 * 0.6931471805599453
        return -np.inf if x == 0.0 else np.nan
    return functions.log_double(x) if x < np.inf else x


@compiled
def _tanh(x):
    value = 1.0 - 2.0 / (functions.exp_double(2.0 * abs(x)) + 1.0)
    return value if x >= 0.0 else -value


@entry
def _exp_all(x, into):
    for i in range(len(x)):
        into[i] = functions.exp_double(x[i])


@entry
def _log_all(x, into):
    for i in range(len(x)):
        into[i] = _log(x[i])


@entry
def _tanh_all(x, into):
    for i in range(len(x)):
        into[i] = _tanh(x[i])


@entry
def _cos_all(x, into):
    for i in range(len(x)):
        into[i] = functions.cos(x[i])


def _each(function: Any, values: ArrayLike) -> Floats:
    x = np.asarray(values, np.float64)
    into = np.empty(x.shape)
    function(x.ravel(), into.ravel())
    return into


def exp(values: ArrayLike) -> Floats:
    """Exponential, within 1 ulp; beyond double precision 0 and infinite."""
    return _each(_exp_all, values)


def log(values: ArrayLike) -> Floats:
    """Natural logarithm, within 1 ulp; −∞ of zero, NaN of negative numbers."""
    return _each(_log_all, values)


def log10(values: ArrayLike) -> Floats:
    """Logarithm to the base 10, within 3 ulp."""
    return log(values) * _LOG10_E


def exp10(values: ArrayLike) -> Floats:
    """Powers of 10, within 1 + 3 |x| ulp."""
    return exp(np.asarray(values, np.float64) * _LN10)


def tanh(values: ArrayLike) -> Floats:
    """Hyperbolic tangent, with an absolute error below 3e-16."""
    return _each(_tanh_all, values)


def logistic(values: ArrayLike) -> Floats:
    """The logistic function, with an absolute error below 3e-16."""
    return 1.0 / (1.0 + exp(-np.asarray(values, np.float64)))


def cos(values: ArrayLike) -> Floats:
    """Cosine of at most 2²⁰ quarter turns, within 0.8 ulp."""
    return _each(_cos_all, values)
