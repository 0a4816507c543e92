"""Multilayer perceptrons of one member: forward and backward passes over one row.

All parameters of a network lie in one row, one layer after the other: weights
``(in, out)``, then biases. Those of the last layer lie transposed, ``(A, H)``, since A
is small. Hidden widths are padded to multiples of LINE with units whose weights are
zero: their outputs and gradients are zero, and so they stay.

The first hidden layer may be a convolution of 3 × 3, see
:mod:`dacrl_env.kernels.convolution`: its weights ``(9C, channels)`` and biases
``(channels,)`` are the same at each position, and its width is that of all positions
together, one after the other.

Letters: B batch size, D inputs, H width of a hidden layer, A outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.convolution import SIDE, convolution_gradient, convolve
from dacrl_env.kernels.functions import tanh
from dacrl_env.kernels.products import matmul, narrow_matmul, turned_matmul
from dacrl_env.kernels.random_numbers import draw, normal, uniform
from dacrl_env.kernels.views import LINE, aligned, matrix, vector

if TYPE_CHECKING:
    from torch import Tensor

ACTIVATIONS = ("relu", "tanh")


class Network(NamedTuple):
    """Where the layers of a perceptron lie in a row; the same for all members.

    Arrays: tuples of another length would be another type, and all be compiled anew.
    """

    sizes: NDArray[np.int64]  # D, padded H of each hidden layer, A
    units: NDArray[np.int64]  # without padding
    shapes: NDArray[np.int64]  # (layers, 2) in and out of the weights
    real: NDArray[np.int64]  # (layers, 2) without padding
    image: NDArray[np.int64]  # (3,) of a convolution; zeros: there is none
    weights: NDArray[np.int64]  # where those of each layer begin
    biases: NDArray[np.int64]
    row: int  # length of a row, a multiple of 4 × LINE
    width: int  # largest padded H
    tanh: bool  # activation of the hidden layers; else the larger of value and zero


class Scratch(NamedTuple):
    """Memory of one thread, for batches of at most B rows."""

    hidden: NDArray[np.float32]  # (hidden layers, B, width) outputs
    first: NDArray[np.float32]  # (B, width) gradients of hidden outputs, in turn
    second: NDArray[np.float32]  # (B, width)
    turned: NDArray[np.float32]  # (largest,) transposed weights
    zeros: NDArray[np.float32]  # (longest,)
    ones: NDArray[np.float32]  # (longest,)


def padded(n: int) -> int:
    """The next multiple of LINE."""
    return -(-n // LINE) * LINE


def make_network(
    inputs: int,
    hidden_sizes: Sequence[int],
    outputs: int,
    activation: str,
    image: Sequence[int] | None = None,
    channels: int = LINE,
) -> Network:
    """Layout of a network.

    Args:
        inputs: D.
        hidden_sizes: H of each dense hidden layer, at least one.
        outputs: A.
        activation: one of `ACTIVATIONS`.
        image: rows, columns and channels of the inputs, which a convolution sees before
            the dense layers; None: there is none.
        channels: what the convolution gives at each position.

    Raises:
        ValueError: an unknown activation, no hidden layer, or a width below one; inputs
            that are no image of at least 3 × 3, or channels that are no multiple of
            LINE.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {activation!r}; valid: {', '.join(ACTIVATIONS)}"
        )
    if not hidden_sizes or min(hidden_sizes) < 1:
        raise ValueError(
            "hidden_sizes are the widths of at least one layer, each at least 1, got "
            f"{tuple(hidden_sizes)}"
        )
    units = [inputs, *hidden_sizes, outputs]
    sizes = [inputs, *map(padded, hidden_sizes), outputs]
    shapes, real = list(pairwise(sizes)), list(pairwise(units))
    if image is not None:
        width = _positions(image, inputs) * _whole_lines(channels)
        window = SIDE**2 * image[2]
        for widths, pairs in ((units, real), (sizes, shapes)):
            widths.insert(1, width)
            pairs[0] = width, widths[2]
            pairs.insert(0, (window, channels))
    weights, biases, at = [], [], 0
    for i, o in shapes:
        weights.append(at)
        biases.append(at + i * o)
        at += i * o + o
    return Network(
        sizes=np.array(sizes, np.int64),
        units=np.array(units, np.int64),
        shapes=np.array(shapes, np.int64),
        real=np.array(real, np.int64),
        image=np.array((0, 0, 0) if image is None else image, np.int64),
        weights=np.array(weights, np.int64),
        biases=np.array(biases, np.int64),
        row=4 * padded(-(-at // 4)),
        width=max(sizes[1:-1]),
        tanh=activation == "tanh",
    )


def _positions(image: Sequence[int], inputs: int) -> int:
    """Of a window in an image of so many numbers; or a ValueError."""
    fits = len(image) == 3 and math.prod(image) == inputs and image[2] > 0
    if not fits or min(image[:2]) < SIDE:
        raise ValueError(
            f"a convolution of {SIDE} x {SIDE} is of images (rows, columns, channels) "
            f"with at least {SIDE} rows and columns, got {tuple(image)}"
        )
    return (image[0] - SIDE + 1) * (image[1] - SIDE + 1)


def _whole_lines(channels: int) -> int:
    """Channels of a convolution; or a ValueError."""
    if channels < 1 or channels % LINE:
        raise ValueError(
            f"channels of a convolution are a multiple of {LINE}, got {channels}"
        )
    return channels


def num_weights(units: Sequence[int]) -> int:
    """Weights of a dense network of these widths, from inputs to outputs."""
    return sum(int(i * o) for i, o in pairwise(units))


def row_bytes(units: Sequence[int]) -> int:
    """What a row of a dense network of these widths takes."""
    return 4 * make_network(units[0], units[1:-1], units[-1], ACTIVATIONS[0]).row


def multiplications(net: Network) -> NDArray[np.int64]:
    """Of a forward pass of one row: those of each layer (layers,), without padding."""
    # a convolution's weights are used at each position
    return net.real[:, 0] * net.units[1:]


def make_scratch(net: Network, B: int) -> Scratch:
    """Memory for batches of at most B rows of a network, or of a smaller one."""
    width = net.width
    largest = max([i * o for i, o in net.shapes[1:-1].tolist()], default=0)
    ones = aligned(max(padded(B), width))
    ones[:] = 1.0
    return Scratch(
        hidden=aligned(len(net.weights) - 1, B, width),
        first=aligned(B, width),
        second=aligned(B, width),
        turned=aligned(largest),
        zeros=aligned(max(padded(B), width)),
        ones=ones,
    )


# -- passes ----------------------------------------------------------------------------


@compiled
def weights(net, row, k):
    """Those of layer k in a row (in, out); of the last layer (out, in)."""
    if k == len(net.weights) - 1:
        return matrix(row, net.weights[k], net.shapes[k, 1], net.shapes[k, 0])
    return matrix(row, net.weights[k], net.shapes[k, 0], net.shapes[k, 1])


@compiled
def biases(net, row, k):
    """Those of layer k in a row (out,)."""
    return vector(row, net.biases[k], net.shapes[k, 1])


@compiled
def hidden_outputs(net, memory, k, B):
    """Outputs (B, H) of hidden layer k, where a forward pass of B rows left them."""
    return matrix(memory, k * memory.shape[1] * net.width, B, net.sizes[k + 1])


@compiled
def forward(net, row, x, memory):
    """Outputs (B, H) of the last hidden layer for inputs (B, D).

    Those of all hidden layers remain in ``memory`` (hidden layers, B, width).
    """
    B = len(x)
    for k in range(len(net.weights) - 1):
        h = hidden_outputs(net, memory, k, B)
        w, bias = weights(net, row, k), biases(net, row, k)
        if k == 0 and net.image[0] > 0:
            convolve(x, net.image, w, bias, h)
        else:
            matmul(x, w, h, bias)
        _activate(net, vector(h, 0, h.size))
        x = h
    return x


@compiled
def _activate(net, values):
    if net.tanh:
        for i in range(len(values)):
            values[i] = tanh(values[i])
    else:
        # NaN stays what it is. Without the sum the compiler leaves out stores, and
        # makes branches of it, which take ten times as long with AVX2.
        zero = np.float32(0.0)
        for i in range(len(values)):
            values[i] = (zero if values[i] < zero else values[i]) + zero


@compiled
def outputs(net, row, h, into):
    """Outputs (B, A) of the network, from those of its last hidden layer."""
    k = len(net.weights) - 1
    narrow_matmul(h, weights(net, row, k), into, biases(net, row, k))


@compiled
def predict(net, row, x, hidden, into):
    """Outputs ``(B, A)`` for inputs ``(B, D)``; hidden outputs stay in ``hidden``."""
    outputs(net, row, forward(net, row, x, hidden), into)


@compiled
def backward(net, row, x, memory, d_outputs, gradients, scratch):
    """Gradients of all parameters, into a row, from those of the outputs (B, A).

    Args:
        net: layout.
        row: parameters.
        x: inputs (B, D) of the forward pass.
        memory: its hidden outputs.
        d_outputs: gradient of the loss with respect to the outputs, (B, A).
        gradients: a row; what lies between layers is left as it is.
        scratch: memory.
    """
    B = len(x)
    zeros = scratch.zeros
    last = len(net.weights) - 1
    h = hidden_outputs(net, memory, last - 1, B)
    matmul(d_outputs.T, h, weights(net, gradients, last), zeros)
    _sum_columns(d_outputs, biases(net, gradients, last))
    d = matrix(scratch.first, 0, B, net.sizes[last])
    other = scratch.second
    matmul(d_outputs, weights(net, row, last), d, zeros)
    for k in range(last - 1, -1, -1):
        _through_activation(net, vector(d, 0, d.size), vector(h, 0, h.size))
        inputs = x if k == 0 else hidden_outputs(net, memory, k - 1, B)
        ones, w = matrix(scratch.ones, 0, 1, B), weights(net, gradients, k)
        if k == 0 and net.image[0] > 0:
            sums = matrix(other, 0, 1, net.sizes[1])
            bias = biases(net, gradients, 0)
            convolution_gradient(x, net.image, d, w, bias, ones, zeros, sums)
            return
        matmul(inputs.T, d, w, zeros)
        matmul(ones, d, matrix(gradients, net.biases[k], 1, net.sizes[k + 1]), zeros)
        if k > 0:
            onwards = matrix(other, 0, B, net.sizes[k])
            turned_matmul(d, weights(net, row, k), onwards, zeros, scratch.turned)
            d, other, h = onwards, d, inputs


@compiled
def input_gradient(net, row, first, memory, d_outputs, into, scratch):
    """Gradients (B, n) of the last n inputs, from those of the outputs (B, A).

    Args:
        net: layout.
        row: parameters.
        first: inputs before those n.
        memory: hidden outputs of a forward pass.
        d_outputs: gradient with respect to the outputs, (B, A).
        into: (B, n), written to.
        scratch: memory.
    """
    B, zeros = len(d_outputs), scratch.zeros
    last = len(net.weights) - 1
    d = matrix(scratch.first, 0, B, net.sizes[last])
    other = scratch.second
    matmul(d_outputs, weights(net, row, last), d, zeros)
    for k in range(last - 1, -1, -1):
        h = hidden_outputs(net, memory, k, B)
        _through_activation(net, vector(d, 0, d.size), vector(h, 0, h.size))
        if k > 0:
            onwards = matrix(other, 0, B, net.sizes[k])
            turned_matmul(d, weights(net, row, k), onwards, zeros, scratch.turned)
            d, other = onwards, d
    at = net.weights[0] + first * net.sizes[1]
    narrow_matmul(d, matrix(row, at, into.shape[1], net.sizes[1]), into, zeros)


@compiled
def _sum_columns(x, sums):
    """Sums (A,) of the columns of (B, A)."""
    sums[:] = np.float32(0.0)
    for i in range(len(x)):
        for j in range(len(sums)):
            sums[j] += x[i, j]


@compiled
def _through_activation(net, d, h):
    """From the gradient of hidden outputs ``h`` to that before activation, in place."""
    if net.tanh:
        for i in range(len(d)):
            d[i] *= np.float32(1.0) - h[i] * h[i]
    else:
        zero = np.float32(0.0)
        for i in range(len(d)):
            d[i] = zero if h[i] <= zero else d[i]


@compiled
def relative_change(before, now):
    """Norm of the change of a row over the norm that it had."""
    moved, size = 0.0, 0.0
    for i in range(len(before)):
        change = np.float64(now[i]) - np.float64(before[i])
        moved += change * change
        size += np.float64(before[i]) * np.float64(before[i])
    return math.sqrt(moved) / math.sqrt(size)


# -- fresh parameters ------------------------------------------------------------------


@compiled
def init_uniform(net, key, row):
    """Weights and biases uniform in ± 1/√in, as torch's layers have them."""
    row[:] = np.float32(0.0)
    drawn = draw(key, 0)
    lane = 0
    for k in range(len(net.weights)):
        i, o = net.real[k, 0], net.real[k, 1]
        bound = 1.0 / math.sqrt(i)
        w, b = weights(net, row, k), biases(net, row, k)
        last = k == len(net.weights) - 1
        for n in range(i * o):
            value = np.float32((2.0 * uniform(drawn, lane) - 1.0) * bound)
            lane += 1
            if last:
                w[n // i, n % i] = value
            else:
                w[n // o, n % o] = value
        for n in range(o):
            b[n] = np.float32((2.0 * uniform(drawn, lane) - 1.0) * bound)
            lane += 1


@compiled
def init_orthogonal(net, key, number, last_gain, row):
    """Orthogonal weights, zero biases (Saxe, McClelland and Ganguli 2014).

    The gain of hidden layers is √2, as in Stable-Baselines3.

    Args:
        net: layout.
        key: of the member.
        number: tells the networks of one member apart.
        last_gain: that of the last layer.
        row: parameters, overwritten.
    """
    row[:] = np.float32(0.0)
    layers = len(net.weights)
    for k in range(layers):
        i, o = net.real[k, 0], net.real[k, 1]
        tall, narrow = max(i, o), min(i, o)
        q = np.empty((narrow, tall))  # orthonormal rows
        drawn = draw(key, number * layers + k)
        for n in range(tall * narrow):
            q[n % narrow, n // narrow] = normal(drawn, n, tall * narrow)
        _orthonormalise(q)
        gain = last_gain if k == layers - 1 else math.sqrt(2.0)
        w = weights(net, row, k)
        for a in range(i):
            for b in range(o):
                value = np.float32(gain * (q[b, a] if i >= o else q[a, b]))
                if k == layers - 1:
                    w[b, a] = value
                else:
                    w[a, b] = value


@compiled
def _orthonormalise(q):
    """Gram and Schmidt's way, each row twice, which is enough (Giraud et al. 2005).

    Of normal numbers it makes a matrix that is distributed uniformly, as a QR
    decomposition does whose diagonal is made positive.
    """
    for i in range(len(q)):
        for _ in range(2):
            for j in range(i):
                product = 0.0
                for n in range(q.shape[1]):
                    product += q[i, n] * q[j, n]
                for n in range(q.shape[1]):
                    q[i, n] -= product * q[j, n]
        square = 0.0
        for n in range(q.shape[1]):
            square += q[i, n] * q[i, n]
        length = math.sqrt(square)
        for n in range(q.shape[1]):
            q[i, n] /= length


# -- in torch --------------------------------------------------------------------------


def apply(net: Network, rows: Tensor, x: Tensor) -> Tensor:
    """Outputs ``(…, B, A)`` for inputs ``(…, B, D)``: what the passes above compute.

    Args:
        net: layout.
        rows: parameters ``(…, row)``; the result can be differentiated by them.
        x: inputs.
    """
    last = len(net.weights) - 1
    for k, (i, o) in enumerate(net.shapes.tolist()):
        flat = rows[..., net.weights[k] : net.weights[k] + i * o]
        b = rows[..., None, net.biases[k] : net.biases[k] + o]
        if k == last:
            return x @ flat.unflatten(-1, (o, i)).mT + b
        w = flat.unflatten(-1, (i, o))
        if k == 0 and net.image[0]:
            windows = _windows(net, x)
            x = (windows @ w[..., None, :, :] + b[..., None, :, :]).flatten(-2)
        else:
            x = x @ w + b
        x = x.tanh() if net.tanh else x.relu()
    raise AssertionError("a network has at least one layer")


def _windows(net: Network, x: Tensor) -> Tensor:
    """Windows ``(…, B, positions, 9C)`` of images ``(…, B, D)``."""
    images = x.unflatten(-1, net.image.tolist())
    cut = images.unfold(-3, SIDE, 1).unfold(-3, SIDE, 1)  # (…, C, rows, columns)
    return cut.movedim(-3, -1).flatten(-3).flatten(-3, -2)


def real_parameters(net: Network) -> NDArray[np.bool_]:
    """Which numbers of a row are parameters ``(row,)``; the others are padding."""
    real = np.zeros(net.row, bool)
    last = len(net.weights) - 1
    for k in range(last + 1):
        part: Any = np.zeros(net.shapes[k], bool)
        part[: net.real[k, 0], : net.real[k, 1]] = True
        flat = (part.T if k == last else part).ravel()
        real[net.weights[k] : net.weights[k] + flat.size] = flat
        real[net.biases[k] : net.biases[k] + net.real[k, 1]] = True
    return real
