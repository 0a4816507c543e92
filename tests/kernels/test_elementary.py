"""Against the functions of numpy, and bits that any machine can check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from dacrl_env.kernels import elementary

X = np.random.default_rng(0).uniform(-1, 1, 200_000)
POSITIVE = np.concatenate([np.abs(X), 1 + X * 1e-3, 10.0 ** (300 * X), [1.0, 5e-324]])


def ulps(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs((value - expected) / np.spacing(np.abs(expected))).max())


@pytest.mark.parametrize(
    ("name", "x", "most"),
    [
        ("exp", X * 700, 1),
        ("exp", X * 1e-3, 1),
        ("log", POSITIVE, 1),
        ("log10", POSITIVE[POSITIVE > 1e-300], 3),
    ],
)
def test_errors_in_units_in_the_last_place(
    name: str, x: np.ndarray, most: float
) -> None:
    # numpy's own are half a unit off, or a little more
    exact = getattr(np, name)(x.astype(np.longdouble)).astype(np.float64)
    assert ulps(getattr(elementary, name)(x), exact) <= most


@pytest.mark.parametrize(
    ("name", "expected", "x"),
    [
        ("tanh", np.tanh, X * 30),
        ("tanh", np.tanh, X * 1e-3),
        ("cos", np.cos, X * 20),
        ("logistic", lambda x: 1 / (1 + np.exp(-x)), X * 50),
    ],
)
def test_absolute_errors(
    name: str, expected: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> None:
    assert np.abs(getattr(elementary, name)(x) - expected(x)).max() < 3e-16


def test_powers_of_ten() -> None:
    x = X * 8
    np.testing.assert_allclose(elementary.exp10(x), 10.0**x, rtol=5e-15)


def test_special_values() -> None:
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(
        elementary.exp([-inf, inf, nan, 0.0]), [0, inf, nan, 1]
    )
    np.testing.assert_array_equal(
        elementary.log([0.0, inf, nan, -1.0, 1.0, -inf]), [-inf, inf, nan, nan, 0, nan]
    )
    np.testing.assert_array_equal(
        elementary.tanh([-inf, inf, nan, 0.0]), [-1, 1, nan, 0]
    )
    assert elementary.exp(710.0) == inf
    assert elementary.cos(0.0) == 1
    assert elementary.exp(np.zeros((2, 3))).shape == (2, 3)


# made on AMD Zen 4, numpy 2.4, glibc 2.41
DIGESTS = {
    "exp": "771c2624680592fc",
    "log": "9264504610be274e",
    "log10": "f09de349de49047d",
    "exp10": "f4be5d7dd16d59cc",
    "tanh": "1e393c1d4428e996",
    "logistic": "dec4fe00d1bb78bc",
    "cos": "2aa640c19823890f",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_bits(name: str) -> None:
    x = np.abs(X) if "log" in name and name != "logistic" else X * 9
    found = getattr(elementary, name)(x).tobytes()
    assert hashlib.sha256(found).hexdigest()[:16] == DIGESTS[name]
