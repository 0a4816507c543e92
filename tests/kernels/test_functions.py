"""Own functions against long doubles, the odd values, and the bits of other targets."""

import numpy as np
import pytest

from dacrl_env.kernels import functions
from dacrl_env.kernels.compiling import entry


def _each(function, dtype):
    @entry
    def each(x, into):
        for i in range(len(x)):
            into[i] = function(x[i])

    def apply(values):
        x = np.asarray(values, dtype)
        into = np.empty_like(x)
        each(x, into)
        return into

    return apply


EXP, LOG, TANH = (
    _each(getattr(functions, name), np.float32) for name in ("exp", "log", "tanh")
)
SIN_OF_TURNS, COS_OF_TURNS = (
    _each(getattr(functions, name), np.float32)
    for name in ("sin_of_turns", "cos_of_turns")
)
SIN, COS, LOG_DOUBLE = (
    _each(getattr(functions, name), np.float64) for name in ("sin", "cos", "log_double")
)
N = 200_000
RNG = np.random.default_rng(0)


def _ulp(values, exact):
    """Largest error in units in the last place."""
    unit = np.spacing(np.abs(exact.astype(values.dtype))).astype(np.longdouble)
    return float((np.abs(values.astype(np.longdouble) - exact) / unit).max())


@pytest.mark.parametrize(
    ("own", "library", "x", "most"),
    [
        (EXP, np.exp, RNG.uniform(-87, 88.7, N), 1.1),
        (EXP, np.exp, RNG.normal(size=N), 1.1),
        (LOG, np.log, np.exp(RNG.uniform(-87, 88, N)), 0.8),
        (LOG, np.log, RNG.uniform(0.5, 2, N), 0.8),
        (TANH, np.tanh, 3 * RNG.normal(size=N), 5.0),
        (SIN, np.sin, RNG.uniform(-1.6e6, 1.6e6, N), 0.8),
        (SIN, np.sin, RNG.uniform(-7, 7, N), 0.8),
        (COS, np.cos, RNG.uniform(-1.6e6, 1.6e6, N), 0.8),
        (COS, np.cos, RNG.uniform(-7, 7, N), 0.8),
        (LOG_DOUBLE, np.log, np.exp(RNG.uniform(-700, 700, N)), 1.0),
        (LOG_DOUBLE, np.log, 1 - RNG.random(N), 1.0),
    ],
)
def test_error_is_as_stated(own, library, x, most) -> None:
    values = own(x)
    exact = library(x.astype(values.dtype).astype(np.longdouble))
    assert _ulp(values, exact) <= most


def test_odd_values() -> None:
    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(
        EXP([nan, inf, -inf, 90, -120, 0]), [nan, inf, 0, inf, 0, 1]
    )
    np.testing.assert_array_equal(LOG([nan, inf, 0, -1, 1]), [nan, inf, -inf, nan, 0])
    np.testing.assert_array_equal(TANH([nan, inf, -inf, 0]), [nan, 1, -1, 0])
    np.testing.assert_array_equal(SIN([nan, inf, 0]), [nan, nan, 0])
    np.testing.assert_array_equal(COS([nan, inf, 0]), [nan, nan, 1])


@pytest.mark.parametrize("own", [SIN_OF_TURNS, COS_OF_TURNS])
@pytest.mark.parametrize("most", [0.6, 10.0, 2.0**20])
def test_sines_and_cosines_of_turns(own, most) -> None:
    t = RNG.uniform(-most, most, N).astype(np.float32)
    angle = 2 * np.pi * (t.astype(np.float64) - np.round(t.astype(np.float64)))
    exact = (np.sin if own is SIN_OF_TURNS else np.cos)(angle)
    assert abs(own(t) - exact).max() < 3e-7


def test_odd_values_of_turns() -> None:
    t = [0, 0.25, 0.5, 0.75, -0.25, 2.0**21, 1e30, np.nan, np.inf, -np.inf]
    nothing = [np.nan] * 3
    sines = SIN_OF_TURNS(t)
    np.testing.assert_array_equal(sines, [0, 1, 0, -1, -1, 0, 0, *nothing])
    cosines = COS_OF_TURNS(t)
    np.testing.assert_array_equal(cosines, [1, 0, -1, 0, 0, 1, 1, *nothing])


def test_an_element_does_not_depend_on_its_place() -> None:
    x = RNG.normal(size=64).astype(np.float32)
    for own in (EXP, TANH, SIN_OF_TURNS, COS_OF_TURNS):
        whole = own(x)
        for start in (1, 3, 17):
            np.testing.assert_array_equal(own(x[start:]), whole[start:])
