"""Passes against torch's autograd, Adam against torch.optim, fresh parameters."""

import numpy as np
import pytest
import torch

from dacrl_env.kernels import adam, dense
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.views import aligned
from dacrl_env.learners import networks, streams

SIZES = [(64, 64), (50, 30), (128,), (32, 64, 16)]


@entry
def _passes(net, row, x, d, q, gradients, scratch):
    h = dense.forward(net, row, x, scratch.hidden)
    dense.outputs(net, row, h, q)
    dense.backward(net, row, x, scratch.hidden, d, gradients, scratch)


@entry
def _uniform(net, key, row):
    dense.init_uniform(net, key, row)


@entry
def _orthogonal(net, key, number, gain, row):
    dense.init_orthogonal(net, key, number, gain, row)


@entry
def _adam(row, gradients, mean, square, steps, rate, epsilon, norm):
    return adam.adam_step(row, gradients, mean, square, steps, rate, epsilon, norm)


def _layers(net: dense.Network, row: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (in, out) and biases without padding."""
    result = []
    last = len(net.weights) - 1
    for k in range(last + 1):
        i, o = net.sizes[k], net.sizes[k + 1]
        w = row[net.weights[k] : net.weights[k] + i * o]
        w = w.reshape(o, i).T if k == last else w.reshape(i, o)
        b = row[net.biases[k] : net.biases[k] + o]
        result.append((w[: net.units[k], : net.units[k + 1]], b[: net.units[k + 1]]))
    return result


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("activation", dense.ACTIVATIONS)
@pytest.mark.parametrize("B", [1, 5, 64])
def test_gradients_are_those_of_autograd(hidden, activation, B) -> None:
    rng = np.random.default_rng(B)
    net = dense.make_network(5, hidden, 3, activation)
    row, gradients, scratch = (
        aligned(net.row),
        aligned(net.row),
        dense.make_scratch(net, B),
    )
    _uniform(net, np.uint64(7), row)
    x, d = rng.normal(size=(B, 5)), rng.normal(size=(B, 3))
    x, d, q = x.astype(np.float32), d.astype(np.float32), aligned(B, 3)
    _passes(net, row, x, d, q, gradients, scratch)
    rows = torch.tensor(row, requires_grad=True)
    expected = dense.apply(net, rows, torch.from_numpy(x))
    (expected * torch.from_numpy(d)).sum().backward()
    np.testing.assert_allclose(q, expected.detach(), rtol=1e-4, atol=1e-5)
    real = dense.real_parameters(net)
    np.testing.assert_allclose(gradients[real], rows.grad[real], rtol=1e-4, atol=1e-5)
    # padding has no gradient, so that its weights stay zero
    assert (gradients[~real] == 0).all()
    assert (row[~real] == 0).all()


def test_apply_takes_members_together() -> None:
    net = dense.make_network(5, (50, 30), 3, "tanh")
    rows, x = torch.randn(4, net.row), torch.randn(4, 8, 5)
    together = dense.apply(net, rows, x)
    for p in range(4):
        torch.testing.assert_close(together[p], dense.apply(net, rows[p], x[p]))


@pytest.mark.parametrize("hidden", SIZES)
def test_fresh_parameters_are_those_of_linear_layers(hidden) -> None:
    net, key = dense.make_network(4, hidden, 2, "relu"), np.array([11], np.uint64)
    row = aligned(net.row)
    _uniform(net, key[0], row)
    before = networks.StackedMLP((4, *hidden, 2), "relu")
    for (w, b), layer in zip(
        _layers(net, row), before.layers(before.init(key)), strict=True
    ):
        # the same numbers, though they are laid out by outputs where those are fewer
        assert np.abs(w).max() <= w.shape[0] ** -0.5
        np.testing.assert_allclose(
            np.sort(w, None), np.sort(layer.weight[0].numpy(), None), rtol=1e-6
        )
        np.testing.assert_allclose(b, layer.bias[0, 0], rtol=1e-6)


def test_orthogonal_parameters() -> None:
    net = dense.make_network(4, (64, 50), 2, "tanh")
    row = aligned(net.row)
    _orthogonal(net, np.uint64(3), 1, 0.01, row)
    (first, _), (second, _), (last, _) = _layers(net, row)
    np.testing.assert_allclose(first @ first.T, 2 * np.eye(4), atol=1e-6)
    np.testing.assert_allclose(second.T @ second, 2 * np.eye(50), atol=1e-6)
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(2), atol=1e-9)
    assert all((b == 0).all() for _, b in _layers(net, row))


def test_adam_is_torchs() -> None:
    rng, size = np.random.default_rng(0), 256
    row, mean, square = aligned(size), aligned(size), aligned(size)
    row[:] = rng.normal(size=size)
    parameter = torch.nn.Parameter(torch.tensor(row))
    optimiser = torch.optim.Adam([parameter], 1e-2, eps=1e-5)
    for n in range(1, 40):
        gradients = (10.0 ** (n % 3 - 1) * rng.normal(size=size)).astype(np.float32)
        parameter.grad = torch.tensor(gradients)
        expected = torch.nn.utils.clip_grad_norm_([parameter], 5.0)
        optimiser.step()
        norm = _adam(row, gradients, mean, square, n, 1e-2, 1e-5, 5.0)
        assert norm == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(row, parameter.detach(), rtol=1e-5, atol=1e-6)


def test_moments_that_fade_become_zero() -> None:
    row, mean, square = aligned(64), aligned(64), aligned(64)
    mean[:], square[:] = 1e-34, 1e-34
    for n in range(1, 60):
        _adam(row, aligned(64), mean, square, n, 1e-3, 1e-8, 1.0)
    assert (mean == 0).all()
    assert ((square == 0) | (square > 1e-36)).all()


def test_what_is_not_finite_shows() -> None:
    net = dense.make_network(4, (32,), 2, "relu")
    row, gradients, scratch = (
        aligned(net.row),
        aligned(net.row),
        dense.make_scratch(net, 2),
    )
    _uniform(net, np.uint64(7), row)
    row[net.weights[0]] = np.nan
    q = aligned(2, 2)
    ones = np.ones((2, 4), np.float32)
    _passes(net, row, ones, np.ones((2, 2), np.float32), q, gradients, scratch)
    assert np.isnan(q).all()
    assert np.isnan(
        _adam(row, gradients, aligned(net.row), aligned(net.row), 1, 1e-3, 1e-8, 1.0)
    )


def test_random_numbers_are_those_of_streams() -> None:
    from dacrl_env.kernels import random_numbers as rn

    @entry
    def draws(key, counter, lanes, bits, uniforms, integers, normals):
        drawn = rn.draw(key, counter)
        for lane in range(lanes):
            bits[lane] = rn.word(drawn, lane)
            uniforms[lane] = rn.uniform(drawn, lane)
            integers[lane] = rn.below(drawn, lane, 1000)
            normals[lane] = rn.normal(drawn, lane, lanes)

    key = np.array([0x123456789ABCDEF], np.uint64)
    for counter, lanes in ((0, 7), (5, 8), (2**41 + 3, 1)):
        at = np.array([counter])
        bits, uniforms = np.empty(lanes, np.uint64), np.empty(lanes)
        integers, normals = np.empty(lanes, np.int64), np.empty(lanes)
        draws(key[0], counter, lanes, bits, uniforms, integers, normals)
        np.testing.assert_array_equal(bits, streams.bits(key, at, lanes)[0])
        np.testing.assert_array_equal(uniforms, streams.uniforms(key, at, lanes)[0])
        high = np.array([1000])
        np.testing.assert_array_equal(
            integers, streams.integers(key, at, lanes, high)[0]
        )
        expected = streams.normals(key, at, lanes)[0]
        np.testing.assert_allclose(normals, expected, rtol=1e-13, atol=1e-14)
