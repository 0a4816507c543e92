"""Convolutions in front of networks against torch's, and their fresh parameters."""

import itertools

import numpy as np
import pytest
import torch
from populations import layers_of

from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.products import jumping_matmul
from dacrl_env.kernels.views import aligned

# rows of windows on either side of what is computed at once
IMAGES = [(10, 10, 4), (7, 7, 3), (3, 3, 1), (3, 12, 2), (6, 4, 5), (11, 17, 7)]


@entry
def _jumping(a, at, a_row, a_k, segment, jump, w, c, start, s_row):
    jumping_matmul(a, at, a_row, a_k, segment, jump, w, c, start, s_row)


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


def _network(image, hidden=(50, 30), activation="relu", channels=16):
    inputs = int(np.prod(image))
    return dense.make_network(inputs, hidden, 3, activation, image, channels)


def _fresh(net, key=7):
    row = aligned(net.row)
    _uniform(net, np.uint64(key), row)
    return row


@pytest.mark.parametrize("M", range(1, 14))
@pytest.mark.parametrize(("K", "segment", "jump"), [(12, 4, 5), (7, 3, -2), (9, 9, 1)])
@pytest.mark.parametrize("N", [16, 48])
def test_products_of_what_lies_in_segments(M, K, segment, jump, N) -> None:
    rng = np.random.default_rng(M)
    a = rng.normal(size=400).astype(np.float32)
    at, a_row, a_k = 20, 3, 2
    i, k = np.mgrid[:M, :K]
    full = a[at + i * a_row + k * a_k + k // segment * jump]
    w, c = aligned(K, N), aligned(M, N)
    w[:] = rng.normal(size=(K, N))
    each, one = rng.normal(size=(M, N)), rng.normal(size=N).astype(np.float32)
    _jumping(a, at, a_row, a_k, segment, jump, w, c, one, 0)
    np.testing.assert_allclose(c, one + full @ w, rtol=1e-5, atol=1e-5)
    c[:] = each  # and added to what is there
    _jumping(a, at, a_row, a_k, segment, jump, w, c, c, N)
    np.testing.assert_allclose(c, np.float32(each) + full @ w, rtol=1e-5, atol=1e-5)


def _as_torch(net, row):
    """The network of torch's own modules, which takes channels first."""
    kind = torch.nn.Tanh if net.tanh else torch.nn.ReLU
    (w, b), *rest = layers_of(net, row)
    H, W, C = net.image.tolist()
    front = torch.nn.Conv2d(C, len(b), 3)
    front.weight.data = torch.tensor(w).view(3, 3, C, -1).permute(3, 2, 0, 1)
    front.bias.data = torch.tensor(b)
    modules = []
    for weight, bias in rest:
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = (
            torch.tensor(weight.T),
            torch.tensor(bias),
        )
        modules += [linear, kind()]
    body = torch.nn.Sequential(*modules[:-1])

    def network(x):
        images = x.unflatten(-1, (H, W, C)).movedim(-1, 1)
        return body(kind()(front(images)).movedim(1, -1).flatten(1))

    return network, front


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("channels", [16, 32])
@pytest.mark.parametrize("activation", dense.ACTIVATIONS)
@pytest.mark.parametrize("B", [1, 5, 33])
def test_outputs_and_gradients_are_those_of_torch(
    image, channels, activation, B
) -> None:
    rng, net = np.random.default_rng(B), _network(image, (50,), activation, channels)
    row, gradients, scratch = _fresh(net), aligned(net.row), dense.make_scratch(net, B)
    x, d = rng.normal(size=(B, net.sizes[0])), rng.normal(size=(B, 3))
    x, d, q = x.astype(np.float32), d.astype(np.float32), aligned(B, 3)
    _passes(net, row, x, d, q, gradients, scratch)
    rows, given = torch.tensor(row, requires_grad=True), torch.from_numpy(x)
    expected = dense.apply(net, rows, given)
    (expected * torch.from_numpy(d)).sum().backward()
    network, front = _as_torch(net, row)
    theirs = network(given)
    (theirs * torch.from_numpy(d)).sum().backward()
    torch.testing.assert_close(expected, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q, expected.detach(), rtol=1e-4, atol=1e-5)
    real = dense.real_parameters(net)
    np.testing.assert_allclose(gradients[real], rows.grad[real], rtol=1e-3, atol=1e-4)
    assert (gradients[~real] == 0).all()
    assert (row[~real] == 0).all()
    w, b = layers_of(net, gradients)[0]
    of_front = front.weight.grad.permute(2, 3, 1, 0).reshape(w.shape)
    np.testing.assert_allclose(w, of_front, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(b, front.bias.grad, rtol=1e-3, atol=1e-4)
    assert abs(w).max() > 1e-2


def test_apply_takes_many_networks_at_once() -> None:
    net, x = _network((5, 4, 2)), torch.randn(3, 6, 40)
    rows = torch.from_numpy(np.stack([_fresh(net, key) for key in range(3)]))
    together = dense.apply(net, rows, x)
    for p in range(3):
        torch.testing.assert_close(together[p], dense.apply(net, rows[p], x[p]))


def test_a_row_of_a_batch_does_not_depend_on_its_company() -> None:
    net = _network((7, 7, 3))
    row, gradients, scratch = _fresh(net), aligned(net.row), dense.make_scratch(net, 64)
    x = np.random.default_rng(0).normal(size=(64, 147)).astype(np.float32)
    whole = aligned(64, 3)
    _passes(net, row, x, np.ones_like(whole), whole, gradients, scratch)
    for first, last in ((0, 1), (3, 5), (7, 40), (63, 64)):
        part = aligned(last - first, 3)
        some = np.ascontiguousarray(x[first:last])
        _passes(net, row, some, np.ones_like(part), part, gradients, scratch)
        np.testing.assert_array_equal(part, whole[first:last])


def test_memory_that_was_used_before_leaves_no_trace() -> None:
    net = _network((6, 5, 2))
    rng, row = np.random.default_rng(0), _fresh(net)
    x, d = np.float32(rng.normal(size=(9, 60))), np.float32(rng.normal(size=(9, 3)))
    results = []
    for fill in (0.0, np.nan):
        scratch, q = dense.make_scratch(net, 64), aligned(9, 3)
        gradients = np.where(dense.real_parameters(net), fill, 0).astype(np.float32)
        for part in (scratch.hidden, scratch.first, scratch.second, scratch.turned):
            part[...] = fill
        _passes(net, row, x, d, q, gradients, scratch)
        results.append((q, gradients))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("image", IMAGES)
def test_every_parameter_has_its_place(image) -> None:
    net = _network(image, (17,), channels=32)
    places = np.arange(net.row, dtype=np.float32)
    mine = [part.ravel() for layer in layers_of(net, places) for part in layer]
    real = np.flatnonzero(dense.real_parameters(net))
    np.testing.assert_array_equal(np.sort(np.concatenate(mine)), real)
    window, width = 9 * image[2], 32 * (image[0] - 2) * (image[1] - 2)
    assert net.units.tolist() == [net.sizes[0], width, 17, 3]
    assert len(real) == window * 32 + 32 + width * 17 + 17 + 17 * 3 + 3
    assert dense.multiplications(net).tolist() == [window * width, width * 17, 17 * 3]


def test_fresh_parameters_are_distributed_as_those_of_torch() -> None:
    net, P = _network((5, 5, 4), (20,)), 200
    each = [layers_of(net, _fresh(net, key)) for key in range(P)]
    theirs = torch.nn.Conv2d(4, 20_000, 3).weight.abs().max().item()
    for k, fan_in in ((0, 36), (1, 9 * 16), (2, 20)):
        for part in (0, 1):
            values = np.stack([layers[k][part] for layers in each])
            assert abs(values).max() <= fan_in**-0.5
            assert values.var() * fan_in * 3 == pytest.approx(1, abs=0.15)
            error = fan_in**-0.5 / np.sqrt(3 * values.size)  # of the mean
            assert abs(values.mean()) < 5 * error
    front = np.stack([layers[0][0] for layers in each])
    assert abs(front).max() == pytest.approx(theirs, rel=0.01)
    assert len(np.unique(front)) > 0.99 * front.size


@pytest.mark.parametrize(("C", "channels"), [(1, 16), (4, 16), (2, 32)])
def test_orthogonal_parameters(C, channels) -> None:
    net = _network((5, 5, C), (20,), "tanh", channels)
    row = aligned(net.row)
    _orthogonal(net, np.uint64(3), 1, 0.01, row)
    (front, bias), (dense_weights, _), _ = layers_of(net, row)
    least = min(front.shape)
    product = front @ front.T if len(front) == least else front.T @ front
    np.testing.assert_allclose(product, 2 * np.eye(least), atol=1e-6)
    product = dense_weights.T @ dense_weights
    np.testing.assert_allclose(product, 2 * np.eye(20), atol=1e-6)
    assert (bias == 0).all()
    flat = torch.nn.Conv2d(C, channels, 3).weight
    torch.nn.init.orthogonal_(flat, 2**0.5)  # as Stable-Baselines3 has it
    theirs = torch.linalg.svdvals(flat.detach().flatten(1)).numpy()
    np.testing.assert_allclose(
        np.linalg.svd(front, compute_uv=False), theirs, rtol=1e-5
    )


def test_what_is_not_finite_shows() -> None:
    for place in ("weights", "biases"):
        net = _network((4, 4, 1), (32,))
        row, gradients, scratch = (
            _fresh(net),
            aligned(net.row),
            dense.make_scratch(net, 2),
        )
        row[getattr(net, place)[0]] = np.nan
        q, x = aligned(2, 3), np.ones((2, 16), np.float32)
        _passes(net, row, x, np.ones((2, 3), np.float32), q, gradients, scratch)
        assert np.isnan(q).all()
        assert np.isnan(gradients).any()


@pytest.mark.parametrize(
    "image", [(2, 5, 1), (5, 2, 1), (5, 5), (5, 5, 0), (5, 5, 2, 1)]
)
def test_what_is_no_image_is_refused(image) -> None:
    with pytest.raises(ValueError, match="at least 3 rows and columns, got"):
        _network(image)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="images"):
        dense.make_network(51, (8,), 3, "relu", (5, 5, 2))
    for channels in itertools.chain(range(0, 16, 5), (-16, 24)):
        with pytest.raises(ValueError, match="are a multiple of 16, got"):
            _network((5, 5, 2), channels=channels)
