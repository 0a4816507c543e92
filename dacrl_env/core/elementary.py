"""Exponential, logarithm, tanh and cosine of arrays: the same bits on every machine.

What numpy calls for these differs between processors and systems in its last bit, and a
learning rate that differs in its last bit makes another run. These are sequences of
operations that IEEE 754 defines to the last bit, after fdlibm (Sun 1993). All are in
double precision; what inner runs compute has functions of its own (`kernels`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG2_E = 1.44269504088896338700
_LOG10_E = 4.34294481903251827651e-01
_LN10 = 2.30258509299404568402
_HALF_ROOT = 7.07106781186547524401e-01
# π/2 in two parts: small whole numbers times the first one are exact
_PART_1, _PART_2 = 1.57079632673412561417, 6.07710050650619224932e-11
_TWO_OVER_PI = 6.36619772367581382433e-01


def _horner(x: Floats, *coefficients: float) -> Floats:
    """A polynomial; the coefficient of the highest power first."""
    value = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value


def exp(values: ArrayLike) -> Floats:
    """Exponential, within 1 ulp; beyond double precision 0 and infinite."""
    x = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        y = np.clip(x, -746.0, 710.0)
        n = np.rint(y * _LOG2_E)
        high, low = y - n * _LN2_HIGH, n * _LN2_LOW
        r = high - low
        t = r * r
        c = r - t * _horner(
            t,
            4.13813679705723846039e-08,
            -1.65339022054652515390e-06,
            6.61375632143793436117e-05,
            -2.77777777770155933842e-03,
            1.66666666666666019037e-01,
        )
        fraction = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
        whole = np.nan_to_num(n).astype(np.int64)
        half = whole >> 1  # 2ⁿ itself may lie beyond what a number can be
        result = np.ldexp(np.ldexp(fraction, half), whole - half)
    return np.asarray(np.where(np.isnan(x), x, result))


def log(values: ArrayLike) -> Floats:
    """Natural logarithm, within 1 ulp; −∞ of zero, NaN of negative numbers."""
    x = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        mantissa, exponent = np.frexp(x)
        small = mantissa < _HALF_ROOT
        f = np.where(small, 2.0 * mantissa, mantissa) - 1.0
        n = (exponent - small).astype(np.float64)
        s = f / (2.0 + f)
        z = s * s
        w = z * z
        even = w * _horner(
            w,
            1.531383769920937332e-01,
            2.222219843214978396e-01,
            3.999999999940941908e-01,
        )
        odd = z * _horner(
            w,
            1.479819860511658591e-01,
            1.818357216161805012e-01,
            2.857142874366239149e-01,
            6.666666666666735130e-01,
        )
        half = 0.5 * f * f
        high, low = n * _LN2_HIGH, n * _LN2_LOW
        result = high - ((half - (s * (half + (even + odd)) + low)) - f)
        result = np.where(x == 0, -np.inf, np.where(x < 0, np.nan, result))
    return np.asarray(np.where(np.isfinite(x), result, np.where(x < 0, np.nan, x)))


def log10(values: ArrayLike) -> Floats:
    """Logarithm to the base 10, within 2 ulp."""
    return log(values) * _LOG10_E


def exp10(values: ArrayLike) -> Floats:
    """Powers of 10, within x ln 10 ulp."""
    return exp(np.asarray(values, np.float64) * _LN10)


def tanh(values: ArrayLike) -> Floats:
    """Hyperbolic tangent, with an absolute error below 3e-16."""
    x = np.asarray(values, np.float64)
    return np.sign(x) * (1.0 - 2.0 / (exp(2.0 * np.abs(x)) + 1.0))


def logistic(values: ArrayLike) -> Floats:
    """The logistic function, with an absolute error below 3e-16."""
    return 1.0 / (1.0 + exp(-np.asarray(values, np.float64)))


def cos(values: ArrayLike) -> Floats:
    """Cosine of angles up to some turns, within 1 ulp of one."""
    x = np.asarray(values, np.float64)
    n = np.rint(x * _TWO_OVER_PI)
    r = (x - n * _PART_1) - n * _PART_2
    z = r * r
    even = 1.0 - (
        0.5 * z
        - z
        * z
        * _horner(
            z,
            -1.13596475577881948265e-11,
            2.08757232129817482790e-09,
            -2.75573143513906633035e-07,
            2.48015872894767294178e-05,
            -1.38888888888741095749e-03,
            4.16666666666666019037e-02,
        )
    )
    odd = r + r * z * _horner(
        z,
        1.58969099521155010221e-10,
        -2.50507602534068634195e-08,
        2.75573137070700676789e-06,
        -1.98412698298579493134e-04,
        8.33333333332248946124e-03,
        -1.66666666666666324348e-01,
    )
    quarter = n.astype(np.int64) % 4
    value = np.where(quarter % 2 == 0, even, odd)
    return np.asarray(np.where((quarter == 1) | (quarter == 2), -value, value))
