"""Exponential, logarithms, hyperbolic tangent, sine and cosine: the same bits anywhere.

The functions of a system's mathematics library differ in their last bit between systems
and versions. These are sequences of operations that IEEE 754 defines to the last bit.

Single precision: `exp`, `log`, `tanh`, `sin_of_turns` and `cos_of_turns`, for networks;
loops over them are vectorised.
Double precision: `sin`, `cos`, `exp_double` and `log_double`, for dynamics, normal
numbers and what is outside of networks.
Errors are stated in units in the last place (ulp) of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dacrl_env.kernels.compiling import compiled

_single = np.float32


@intrinsic  # type: ignore[untyped-decorator]
def fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z`` of single-precision numbers, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.f32")
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


def _same_bits(source: Any, into: Any, llvm_type: ir.Type) -> Any:
    """A function that takes the bits of one type for another of the same size."""

    @intrinsic  # type: ignore[untyped-decorator]
    def same_bits(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], llvm_type)

        return into(source), generate

    return same_bits


_float_of = _same_bits(types.int32, types.float32, ir.FloatType())
_bits_of = _same_bits(types.float32, types.int32, ir.IntType(32))
_double_of = _same_bits(types.int64, types.float64, ir.DoubleType())
_double_bits_of = _same_bits(types.float64, types.int64, ir.IntType(64))

# -- single precision ------------------------------------------------------------------

_LOG2_E = _single(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = _single(0.693359375), _single(-2.12194440e-4)
_ROUND = _single(12582912.0)  # 1.5 · 2²³: adding and subtracting it rounds to integers
# beyond these the results are 0 and infinite
_LOWEST, _HIGHEST = _single(-104.0), _single(89.0)


@compiled
def exp(x):
    """Exponential, within 1.1 ulp; NaN stays NaN (Cephes, Moshier 1992)."""
    # so that NaN goes through both comparisons
    y = _LOWEST if x < _LOWEST else x
    y = _HIGHEST if y > _HIGHEST else y
    n = (y * _LOG2_E + _ROUND) - _ROUND
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, y))
    p = fma(r, _single(1.9875691500e-4), _single(1.3981999507e-3))
    p = fma(r, p, _single(8.3334519073e-3))
    p = fma(r, p, _single(4.1665795894e-2))
    p = fma(r, p, _single(1.6666665459e-1))
    p = fma(r, p, _single(5.0000001201e-1))
    p = fma(r * r, p, r) + _single(1.0)
    whole = np.int32(n) if y == y else np.int32(0)
    half = whole >> np.int32(1)  # 2ⁿ itself may lie beyond what a number can be
    return p * _power_of_two(half) * _power_of_two(whole - half)


@compiled
def _power_of_two(n):
    """2ⁿ for integers from -126 to 127."""
    return _float_of(np.int32((n + np.int32(127)) << np.int32(23)))


@compiled
def log(x):
    """Natural logarithm of a number that is not subnormal, within 0.8 ulp.

    Of zero and subnormal numbers it is −∞, of negative ones NaN (Cephes).
    """
    bits = _bits_of(x)
    # the exponent for which the mantissa lies between √½ and √2
    e = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    z = _float_of(np.int32(bits - (e << np.int32(23)))) - _single(1.0)
    n = _single(e)
    p = fma(z, _single(7.0376836292e-2), _single(-1.1514610310e-1))
    p = fma(z, p, _single(1.1676998740e-1))
    p = fma(z, p, _single(-1.2420140846e-1))
    p = fma(z, p, _single(1.4249322787e-1))
    p = fma(z, p, _single(-1.6668057665e-1))
    p = fma(z, p, _single(2.0000714765e-1))
    p = fma(z, p, _single(-2.4999993993e-1))
    p = fma(z, p, _single(3.3333331174e-1))
    square = z * z
    y = fma(n, _LN2_LOW, z * square * p)
    y = fma(_single(-0.5), square, y)
    result = fma(n, _LN2_HIGH, z + y)
    result = result if x >= _single(1.17549435e-38) else _single(-np.inf)
    result = result if x >= _single(0.0) else _single(np.nan)
    return result if x < _single(np.inf) or x != x else x


@compiled
def tanh(x):
    """Hyperbolic tangent, within 5 ulp; a rational function, as Eigen approximates it.

    NaN stays NaN.
    """
    bound = _single(7.99881172180175781)
    x = -bound if x < -bound else x
    x = bound if x > bound else x
    s = x * x
    p = fma(s, _single(-2.76076847742355e-16), _single(2.00018790482477e-13))
    p = fma(s, p, _single(-8.60467152213735e-11))
    p = fma(s, p, _single(5.12229709037114e-08))
    p = fma(s, p, _single(1.48572235717979e-05))
    p = fma(s, p, _single(6.37261928875436e-04))
    p = fma(s, p, _single(4.89352455891786e-03))
    q = fma(s, _single(1.19825839466702e-06), _single(1.18534705686654e-04))
    q = fma(s, q, _single(2.26843463243900e-03))
    q = fma(s, q, _single(4.89352518554385e-03))
    return x * p / q


@compiled
def sin_of_turns(t):
    """Sine of 2πt, within 3e-7; that of 2²⁰ turns and more is 0, NaN stays NaN."""
    quarter, angle = _quarter_and_angle(t)
    odd = (quarter & np.int32(1)) != np.int32(0)
    value = _short_cos(angle) if odd else _short_sin(angle)
    return -value if (quarter & np.int32(2)) != np.int32(0) else value


@compiled
def cos_of_turns(t):
    """Cosine of 2πt, within 3e-7; that of 2²⁰ turns and more is 1, NaN stays NaN."""
    quarter, angle = _quarter_and_angle(t)
    odd = (quarter & np.int32(1)) != np.int32(0)
    value = _short_sin(angle) if odd else _short_cos(angle)
    negative = ((quarter + np.int32(1)) & np.int32(2)) != np.int32(0)
    return -value if negative else value


@compiled
def _quarter_and_angle(t):
    """Quarter turns in t turns, and what is left as an angle, at most π/4."""
    few = abs(t) < _single(1048576.0)
    n = (t if few else _single(0.0)) * _single(4.0)
    n = (n + _ROUND) - _ROUND
    # exact; of many turns nothing is left, and of what is not finite NaN
    left = (t if few else t - t) - n * _single(0.25)
    return np.int32(n), left * _single(6.28318530717958648)


@compiled
def _short_sin(x):
    """Between ± π/4 (Cephes)."""
    z = x * x
    p = fma(z, _single(-1.9515295891e-4), _single(8.3321608736e-3))
    p = fma(z, p, _single(-1.6666654611e-1))
    return fma(z * x, p, x)


@compiled
def _short_cos(x):
    """Between ± π/4 (Cephes)."""
    z = x * x
    p = fma(z, _single(2.443315711809948e-5), _single(-1.388731625493765e-3))
    p = fma(z, p, _single(4.166664568298827e-2))
    return fma(z * z, p, fma(_single(-0.5), z, _single(1.0)))


# -- double precision ------------------------------------------------------------------

# π/2 in parts: whole numbers below 2²⁰ times a part are exact (fdlibm, Sun 1993)
_TWO_OVER_PI = 6.36619772367581382433e-01
_PART_1 = 1.57079632673412561417e00
_PART_2 = 6.07710050630396597660e-11
_REST = 2.02226624879595063154e-21
_ROUND_DOUBLE = 6755399441055744.0  # 1.5 · 2⁵²


@compiled
def sin(x):
    """Sine of at most 2²⁰ quarter turns, within 0.8 ulp."""
    quarter, r, rest = _reduced(x)
    value = _sin(r, rest) if quarter % 2 == 0 else _cos(r, rest)
    return value if quarter % 4 < 2 else -value


@compiled
def cos(x):
    """Cosine of at most 2²⁰ quarter turns, within 0.8 ulp."""
    quarter, r, rest = _reduced(x)
    value = _cos(r, rest) if quarter % 2 == 0 else _sin(r, rest)
    return value if (quarter + 1) % 4 < 2 else -value


@compiled
def _reduced(x):
    """Quarter turns in an angle, and what is left of it as a sum of two numbers."""
    n = (x * _TWO_OVER_PI + _ROUND_DOUBLE) - _ROUND_DOUBLE
    t = x - n * _PART_1
    w = n * _PART_2
    r = t - w
    w = n * _REST - ((t - r) - w)
    high = r - w
    return np.int64(n), high, (r - high) - w


@compiled
def _sin(x, rest):
    """Sine of ``x + rest`` between ± π/4."""
    z = x * x
    r = 8.33333333332248946124e-03 + z * (
        -1.98412698298579493134e-04 + z * 2.75573137070700676789e-06
    )
    r = r + z * (z * z) * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
    v = z * x
    return x - ((z * (0.5 * rest - v * r) - rest) + v * 1.66666666666666324348e-01)


@compiled
def _cos(x, rest):
    """Cosine of ``x + rest`` between ± π/4."""
    z = x * x
    w = z * z
    r = z * (
        4.16666666666666019037e-02
        + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05)
    )
    r = r + w * w * (
        -2.75573143513906633035e-07
        + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
    )
    half = 0.5 * z
    w = 1.0 - half
    return w + (((1.0 - w) - half) + (z * r - x * rest))


@compiled
def log_double(x):
    """Natural logarithm of a positive number that is not subnormal, within 1 ulp."""
    bits = _double_bits_of(x)
    e = (bits - 0x3FE6A09E667F3BCD) >> 52  # the mantissa lies between √½ and √2
    f = _double_of(bits - (e << 52)) - 1.0
    n = np.float64(e)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (
        3.999999999940941908e-01
        + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)
    )
    odd = z * (
        6.666666666666735130e-01
        + w
        * (
            2.857142874366239149e-01
            + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)
        )
    )
    half = 0.5 * f * f
    high, low = n * 6.93147180369123816490e-01, n * 1.90821492927058770002e-10
    return high - ((half - (s * (half + (even + odd)) + low)) - f)


@compiled
def exp_double(x):
    """Exponential, within 1 ulp; NaN stays NaN (fdlibm)."""
    y = -746.0 if x < -746.0 else x
    y = 710.0 if y > 710.0 else y
    n = (y * 1.44269504088896338700 + _ROUND_DOUBLE) - _ROUND_DOUBLE
    high, low = y - n * 6.93147180369123816490e-01, n * 1.90821492927058770002e-10
    r = high - low
    t = r * r
    c = r - t * (
        1.66666666666666019037e-01
        + t
        * (
            -2.77777777770155933842e-03
            + t
            * (
                6.61375632143793436117e-05
                + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08)
            )
        )
    )
    fraction = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    whole = np.int64(n) if y == y else 0
    half = whole >> 1  # 2ⁿ itself may lie beyond what a number can be
    return fraction * _double_power(half) * _double_power(whole - half)


@compiled
def _double_power(n):
    """2ⁿ for integers from -1,022 to 1,023."""
    return _double_of((n + 1023) << 52)
