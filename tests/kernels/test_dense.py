"""Passes against torch's modules and autograd, fresh parameters."""

import itertools

import numpy as np
import pytest
import torch
from populations import layers_of

from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.views import LINE, aligned

SIZES = [(64, 64), (50, 30), (128,), (32, 64, 16)]
ODD = [*SIZES, (1,), (7, 1), (16, 17, 15)]  # on either side of what is padded


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


def _as_torch(net: dense.Network, row: np.ndarray) -> torch.nn.Sequential:
    kind = torch.nn.Tanh if net.tanh else torch.nn.ReLU
    modules: list[torch.nn.Module] = []
    for w, b in layers_of(net, row):
        linear = torch.nn.Linear(*w.shape)
        linear.weight.data, linear.bias.data = torch.tensor(w.T), torch.tensor(b)
        modules += [linear, kind()]
    return torch.nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("activation", dense.ACTIVATIONS)
def test_apply_is_torchs_modules(hidden, activation) -> None:
    net = dense.make_network(5, hidden, 3, activation)
    rows, x = aligned(4, net.row), torch.randn(4, 8, 5)
    for p in range(4):
        _uniform(net, np.uint64(p), rows[p])
    together = dense.apply(net, torch.from_numpy(rows), x)
    for p in range(4):
        expected = _as_torch(net, rows[p])(x[p])
        torch.testing.assert_close(together[p], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", dense.ACTIVATIONS)
def test_a_row_of_a_batch_does_not_depend_on_its_company(activation) -> None:
    net = dense.make_network(4, (64, 50), 2, activation)
    row, gradients, scratch = (
        aligned(net.row),
        aligned(net.row),
        dense.make_scratch(net, 64),
    )
    _uniform(net, np.uint64(7), row)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    whole = aligned(64, 2)
    _passes(net, row, x, np.ones_like(whole), whole, gradients, scratch)
    for first, last in ((0, 1), (3, 5), (7, 40), (63, 64)):
        part = aligned(last - first, 2)
        some = np.ascontiguousarray(x[first:last])
        _passes(net, row, some, np.ones_like(part), part, gradients, scratch)
        np.testing.assert_array_equal(part, whole[first:last])


def test_memory_that_was_used_before_leaves_no_trace() -> None:
    net = dense.make_network(4, (64, 50), 2, "tanh")
    rng, row = np.random.default_rng(0), aligned(net.row)
    _uniform(net, np.uint64(7), row)
    x, d = rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    results = []
    for fill in (0.0, np.nan):
        scratch, gradients, q = (
            dense.make_scratch(net, 64),
            aligned(net.row),
            aligned(9, 2),
        )
        for part in (scratch.hidden, scratch.first, scratch.second, scratch.turned):
            part[...] = fill
        given = np.float32(x), np.float32(d)
        _passes(net, row, *given, q, gradients, scratch)
        results.append((q, gradients))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("hidden", ODD)
def test_every_parameter_has_its_place(hidden) -> None:
    net = dense.make_network(5, hidden, 3, "relu")
    places = np.arange(net.row, dtype=np.float32)
    mine = [part.ravel() for layer in layers_of(net, places) for part in layer]
    real = np.flatnonzero(dense.real_parameters(net))
    np.testing.assert_array_equal(np.sort(np.concatenate(mine)), real)
    biases = sum(hidden) + 3
    assert len(real) == dense.num_weights((5, *hidden, 3)) + biases
    assert net.row % (4 * LINE) == 0
    assert dense.row_bytes((5, *hidden, 3)) == 4 * net.row


@pytest.mark.parametrize("hidden", SIZES)
def test_fresh_parameters_are_distributed_as_those_of_torch(hidden) -> None:
    P, net = 200, dense.make_network(4, hidden, 2, "relu")
    rows = aligned(P, net.row)
    for p in range(P):
        _uniform(net, np.uint64(p), rows[p])
    each = [layers_of(net, row) for row in rows]
    for k, (i, o) in enumerate(itertools.pairwise((4, *hidden, 2))):
        linear = torch.nn.Linear(i, 50_000).weight.abs().max().item()
        for part, shape in enumerate([(i, o), (o,)]):
            values = np.stack([layers[k][part] for layers in each])
            assert values.shape == (P, *shape)
            assert abs(values).max() <= i**-0.5
            assert abs(values).max() == pytest.approx(linear, rel=0.05)
            error = i**-0.5 / np.sqrt(3 * values.size)  # of the mean
            assert abs(values.mean()) < 5 * error
            # uniform: the variance is a third of the squared bound
            assert values.var() * i * 3 == pytest.approx(1, abs=0.15)
    assert (rows[:, ~dense.real_parameters(net)] == 0).all()


def test_fresh_parameters_depend_on_the_key_alone() -> None:
    net = dense.make_network(4, (16, 16), 2, "relu")
    one, again, other = (aligned(net.row) for _ in range(3))
    again[:] = np.nan  # what was there before does not matter
    for row, key in ((one, 3), (again, 3), (other, 4)):
        _uniform(net, np.uint64(key), row)
    np.testing.assert_array_equal(one, again)
    real = dense.real_parameters(net)
    assert len({*one[real], *other[real]}) > 1.99 * real.sum()


def test_unknown_activation_and_empty_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="'gelu'; valid: relu, tanh"):
        dense.make_network(4, (2,), 2, "gelu")
    for hidden in ((4, 0), ()):
        with pytest.raises(ValueError, match="at least one layer, each at least 1"):
            dense.make_network(4, hidden, 2, "relu")


def test_orthogonal_parameters() -> None:
    net = dense.make_network(4, (64, 50), 2, "tanh")
    row = aligned(net.row)
    _orthogonal(net, np.uint64(3), 1, 0.01, row)
    (first, _), (second, _), (last, _) = layers_of(net, row)
    np.testing.assert_allclose(first @ first.T, 2 * np.eye(4), atol=1e-6)
    np.testing.assert_allclose(second.T @ second, 2 * np.eye(50), atol=1e-6)
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(2), atol=1e-9)
    assert all((b == 0).all() for _, b in layers_of(net, row))


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
    assert np.isnan(gradients).any()
