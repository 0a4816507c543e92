"""Products against numpy in double precision, and the order of their sums."""

import numba
import numpy as np
import pytest

from dacrl_env.kernels import products
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.views import LINE, aligned


@entry
def _matmul(a, w, c, start):
    products.matmul(a, w, c, start)


@entry
def _narrow_matmul(x, y, c, bias):
    products.narrow_matmul(x, y, c, bias)


@entry
def _turned_matmul(a, w, c, start, turned):
    products.turned_matmul(a, w, c, start, turned)


@entry
def _norm(x):
    return products.norm(x)


@entry
def _transpose(source, into):
    products.transpose(source, into)


def _random(*shape):
    values = aligned(*shape)
    values[...] = np.random.default_rng(0).normal(size=shape)
    return values


@pytest.mark.parametrize("M", [1, 2, 3, 5, 7, 8, 14, 32, 64, 130])
@pytest.mark.parametrize(("K", "N"), [(1, 16), (4, 64), (147, 48), (64, 64), (3, 144)])
def test_matmul(M: int, K: int, N: int) -> None:
    a, w, start, c = _random(M, K), _random(K, N), _random(N), aligned(M, N)
    _matmul(a, w, c, start)
    exact = start + a.astype(float) @ w.astype(float)
    np.testing.assert_allclose(c, exact, rtol=1e-5, atol=1e-5)


def test_matmul_of_a_transposed_view() -> None:
    a, w, start, c = _random(30, 7), _random(30, 32), _random(32), aligned(7, 32)
    _matmul(a.T, w, c, start)
    np.testing.assert_allclose(c, start + a.T @ w, rtol=1e-5, atol=1e-5)


def test_matmul_writes_nothing_beyond_its_result() -> None:
    memory = aligned(7, 64)
    memory[...] = np.nan
    _matmul(_random(5, 3), _random(3, 64), memory[1:6], _random(64))
    assert np.isnan(memory[0]).all()
    assert np.isnan(memory[6]).all()
    assert not np.isnan(memory[1:6]).any()


def test_a_row_does_not_depend_on_its_company() -> None:
    a, w, start, whole = _random(33, 50), _random(50, 80), _random(80), aligned(33, 80)
    _matmul(a, w, whole, start)
    for first, last in ((0, 1), (5, 7), (9, 13), (20, 33)):
        part = aligned(last - first, 80)
        _matmul(a[first:last], w, part, start)
        np.testing.assert_array_equal(part, whole[first:last])
    # nor a column: those of a narrower product are other vectors
    narrow = aligned(33, 16)
    _matmul(a, np.ascontiguousarray(w[:, 64:]), narrow, start[64:].copy())
    np.testing.assert_array_equal(narrow, whole[:, 64:])


def test_sums_are_chains_of_fused_operations_in_order() -> None:
    a, w, start, c = _random(2, 40), _random(40, 16), _random(16), aligned(2, 16)
    _matmul(a, w, c, start)
    expected = np.tile(start, (2, 1)).astype(np.float32)
    for k in range(40):  # in double precision a product of two singles is exact
        exact = a[:, k, None].astype(float) * w[k].astype(float)
        expected = (expected.astype(np.longdouble) + exact).astype(np.float32)
    np.testing.assert_array_equal(c, expected)


@pytest.mark.parametrize(("M", "A", "N"), [(1, 1, 16), (5, 7, 64), (64, 2, 48)])
def test_narrow_matmul(M: int, A: int, N: int) -> None:
    x, y, bias, c = _random(M, N), _random(A, N), _random(A), aligned(M, A)
    _narrow_matmul(x, y, c, bias)
    np.testing.assert_allclose(c, x @ y.T + bias, rtol=1e-5, atol=1e-5)


def test_norm_and_transpose() -> None:
    x = _random(4 * LINE * 5)
    assert _norm(x) == pytest.approx(np.linalg.norm(x), rel=1e-6)
    source, into = _random(32, 64), aligned(64, 32)
    _transpose(source, into)
    np.testing.assert_array_equal(into, source.T)


def test_tiles_stay_one_round_long_and_start_on_a_cache_line():
    # anew, since what is kept is machine code alone
    made = numba.cfunc(products._SIGNATURE)(products._matmul._pyfunc)
    blocks = made.inspect_llvm().split("\n\n")
    longest = max(block.count("call <16 x float> @llvm.fma") for block in blocks)
    # four rows of four vectors with AVX-512, six rows of one elsewhere
    assert longest == (16 if products.WIDE == 4 else 6)
    assembly = made._library.get_asm_str()
    assert ".p2align\t6" in assembly


@pytest.mark.parametrize(("K", "N"), [(16, 32), (64, 64), (128, 48), (256, 256)])
def test_products_with_what_is_turned(K, N):
    rng = np.random.default_rng(0)
    a, w = aligned(13, K), aligned(N, K)
    c, start, turned = aligned(13, N), aligned(N), aligned(N * K)
    for array in (a, w, start):
        array[...] = rng.standard_normal(array.shape)
    plain, other = c.copy(), np.ascontiguousarray(w.T)
    _turned_matmul(a, w, c, start, turned)
    np.testing.assert_allclose(c, start + a @ w.T, rtol=1e-4, atol=1e-4)
    _matmul(a, other, plain, start)
    np.testing.assert_array_equal(c, plain)  # bit for bit
