"""Stacked multilayer perceptrons: one network per member, one tensor program.

The parameters of a member are one row of a ``(P, row)`` tensor, so that copying a
member, its gradient norm and its optimiser step are plain row operations. Layers are
views into the rows: weights ``(P, in, out)`` and biases ``(P, 1, out)``. Rows are
padded to whole cache lines. Batched matrix products give every member the same bits
whatever other members stand beside it, which the population invariants rest on.

On a CPU the explicit passes leave products to numpy: matrix by matrix, its BLAS is
quicker with small ones than torch is with a batch of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.learners import streams

ACTIVATIONS = ("relu", "tanh")
_LINE = 16  # floats in a cache line
_SMALL = 10**6  # multiplications of a product; up to here OpenBLAS has quicker ways
_FEW = 32  # rows; fewer are not worth a product of their own

Array = Any  # NDArray[np.float32]; None: not on a CPU

# looked up once: that takes as long as a call
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class Layer(NamedTuple):
    """Views of one layer of every member."""

    weight: Tensor  # (P, in, out); a transposed view where there are more inputs
    bias: Tensor  # (P, 1, out)
    array: Array  # (P, 1, in, out), the weights


class Values(NamedTuple):
    """What goes into a layer or comes out of it, or the gradient of that."""

    tensor: Tensor  # (P, B, k)
    array: Array  # (P, pieces, B / pieces, k), the same memory


class Scratch(NamedTuple):
    """Memory for `StackedMLP.backward`."""

    gradients: list[Values]  # of the hidden layers' outputs
    turned: list[Array]  # (P, 1, out, in), one layer's at a time: transposed weights
    sums: list[Array]  # (P, pieces, in, out), likewise: summands of the gradient


def padded(size: int) -> int:
    """Length of a row that holds ``size`` parameters: whole cache lines."""
    return -(-size // _LINE) * _LINE


def row_bytes(sizes: Sequence[int]) -> int:
    """What the parameters of one perceptron take."""
    return 4 * padded(sum(i * o + o for i, o in pairwise(sizes)))


def inputs(observations: NDArray[Any], device: torch.device) -> Tensor:
    """Observations ``(m, E, D)`` as network inputs.

    Every row starts a cache line: where a row lies decides the last bit of a product,
    and should not depend on the member's place.
    """
    into, values = input_memory(*observations.shape)
    into[...] = observations
    return values.to(device)


def input_memory(m: int, E: int, D: int) -> tuple[NDArray[np.float32], Tensor]:
    """Memory on the host for `inputs`: as an array to write to, and as a tensor."""
    wide = torch.zeros(m, E, padded(D), dtype=torch.float32)
    return wide.numpy()[..., :D], wide[..., :D]


def tanh_(values: Tensor) -> Tensor:
    """Hyperbolic tangents, in place.

    On a CPU numpy's take a sixth of the time of those that torch has from MKL, and an
    element's bits do not depend on its place.
    """
    if values.device.type == "cpu":
        array = values.numpy()
        np.tanh(array, out=array)
        return values
    return values.tanh_()


def one_row(a: Tensor, b: Tensor) -> Tensor:
    """Products ``(P, 1, k)`` of one row ``(P, 1, n)`` and a matrix ``(P, n, k)`` each.

    For a lone member such a product takes another path, whose last bit differs. It is
    computed twice.
    """
    if len(a) == 1:
        return torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1))[:1]
    return torch.bmm(a, b)


class Memory:
    """Scratch memory by name, kept between uses; holds nothing that matters.

    What is taken under a name is the beginning of the same memory each time, whatever
    its shape, so that work on fewer members stays in what is in the cache.

    Args:
        device: of the memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Memory of this shape; zeros at first, then what was last left there."""
        size = prod(shape)
        flat = self._flat.get(name)
        if flat is None or len(flat) < size:
            with torch.inference_mode(False):  # memory that can be written to anywhere
                flat = torch.zeros(size, device=self.device, dtype=torch.float32)
            self._flat[name] = flat
        return flat[:size].view(shape)


class StackedMLP:
    """Shapes and arithmetic of P equally shaped perceptrons; holds no parameters.

    Args:
        sizes: features of the input, of each hidden layer and of the output.
        activation: of the hidden layers, ``"relu"`` or ``"tanh"``.

    Raises:
        ValueError: an unknown activation or a size below one.
    """

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {activation!r}; valid: {', '.join(ACTIVATIONS)}"
            )
        if min(sizes) < 1:
            raise ValueError(f"layer sizes must be at least 1, got {tuple(sizes)}")
        self.sizes = tuple(sizes)
        self.activation = activation
        self.shapes = list(pairwise(self.sizes))
        self.num_parameters = sum(i * o + o for i, o in self.shapes)
        self.row = padded(self.num_parameters)
        self.num_weights = sum(i * o for i, o in self.shapes)
        self._largest = max(i * o for i, o in self.shapes)

    def init(self, keys: streams.UInts) -> Tensor:
        """Fresh parameters ``(P, row)``: torch.nn.Linear's, uniform in ± 1/sqrt(in).

        Args:
            keys: ``(P,)``, the "init" key of each member.
        """
        u = streams.uniforms(keys, np.zeros(len(keys), np.int64), self.num_parameters)
        rows = torch.zeros(len(keys), self.row, dtype=torch.float32)
        rows[:, : self.num_parameters] = torch.from_numpy(2 * u - 1)
        for weight, bias in self._views(rows):
            bound = weight.shape[1] ** -0.5
            weight.mul_(bound)
            bias.mul_(bound)
        return rows

    def init_orthogonal(
        self, keys: streams.UInts, gains: Sequence[float], number: int
    ) -> Tensor:
        """Fresh parameters ``(P, row)``: orthogonal weights, zero biases.

        Saxe, McClelland and Ganguli 2014, as torch.nn.init.orthogonal_ has it.

        Args:
            keys: ``(P,)``, the "init" key of each member.
            gains: one a layer.
            number: tells the networks of one member apart.
        """
        rows = torch.zeros(len(keys), self.row, dtype=torch.float32)
        views = self._views(rows)
        for k, ((into, _), gain) in enumerate(zip(views, gains, strict=True)):
            i, o = into.shape[1:]
            counter = np.full(len(keys), number * len(self.shapes) + k)
            normal = streams.normals(keys, counter, i * o)
            tall = normal.reshape(len(keys), max(i, o), min(i, o))
            q, r = np.linalg.qr(tall)
            # without the signs the distribution would not be uniform
            q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
            weight = torch.from_numpy(q if i >= o else q.swapaxes(1, 2).copy())
            into.copy_(gain * weight)
        return rows

    def layers(self, rows: Tensor) -> list[Layer]:
        """Views of the layers in parameter (or gradient) rows ``(P, row)``.

        For the explicit passes: no gradient is recorded.
        """
        on_cpu = rows.device.type == "cpu"
        return [
            Layer(weight, bias, weight.numpy()[:, None] if on_cpu else None)
            for weight, bias in self._views(rows)
        ]

    def _views(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        views, start, P = [], 0, rows.shape[0]
        for i, o in self.shapes:
            weight = rows[:, start : start + i * o]
            # a batched product is up to six times slower if its last axis in memory
            # is as short as the outputs of a value head
            if o < i:
                weight = weight.view(P, o, i).transpose(1, 2)
            else:
                weight = weight.view(P, i, o)
            start += i * o
            views.append((weight, rows[:, start : start + o].view(P, 1, o)))
            start += o
        return views

    def apply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(P, B, out)`` for inputs ``(P, B, in)``, differentiable."""
        *hidden, (last, last_bias) = self._views(rows)
        activation = torch.relu if self.activation == "relu" else torch.tanh
        for weight, bias in hidden:
            x = activation(torch.baddbmm(bias, x, weight))
        if self.sizes[-1] == 1:
            return (one_row(last.mT, x.mT) + last_bias).mT
        return torch.baddbmm(last_bias.mT, last.mT, x.mT).mT

    def buffers(self, P: int, B: int, memory: Memory) -> list[Values]:
        """Memory for the layer outputs of one forward pass, as `forward` takes it.

        The last layer's lie transposed, one output after the other: sums over a few
        columns take longer than over a few rows.
        """
        hidden = [memory.take(f"layer {k}", P, B, o) for k, o in self._hidden()]
        outputs = memory.take("outputs", P, self.sizes[-1], B).mT
        return [self.values(tensor) for tensor in (*hidden, outputs)]

    def scratch(self, P: int, B: int, memory: Memory) -> Scratch:
        """Memory for `backward`."""
        gradients = [memory.take(f"gradient {k}", P, B, o) for k, o in self._hidden()]
        arrays: list[tuple[Array, Array]] = [(None, None)] * len(self.shapes)
        if memory.device.type == "cpu":
            pieces = _pieces(B, self._largest)
            arrays = [
                (
                    memory.take("turned", P, 1, o, i).numpy(),
                    memory.take("sums", P, pieces, i, o).numpy(),
                )
                for i, o in self.shapes
            ]
        turned, sums = map(list, zip(*arrays, strict=True))
        return Scratch([self.values(tensor) for tensor in gradients], turned, sums)

    def _hidden(self) -> list[tuple[int, int]]:
        return list(enumerate(self.sizes[1:-1]))

    def values(self, tensor: Tensor) -> Values:
        """Values ``(P, B, k)`` as `forward` and `backward` take them."""
        if tensor.device.type != "cpu":
            return Values(tensor, None)
        P, B, k = tensor.shape
        pieces = _pieces(B, self._largest)
        return Values(tensor, tensor.numpy().reshape(P, pieces, B // pieces, k))

    def forward(self, layers: list[Layer], x: Values, out: list[Values]) -> Tensor:
        """As `apply`, into ``out``; no gradient is recorded."""
        for layer, y in zip(layers, out, strict=True):
            if y.array is None:
                torch.baddbmm(layer.bias, x.tensor, layer.weight, out=y.tensor)
            else:
                np.matmul(x.array, layer.array, out=y.array)
                y.tensor.add_(layer.bias)
            if y is not out[-1]:
                self._activate(y.tensor)
            x = y
        return x.tensor

    def _activate(self, values: Tensor) -> None:
        if self.activation == "relu":
            values.relu_()
        else:
            tanh_(values)

    def backward(
        self,
        layers: list[Layer],
        x: Values,
        out: list[Values],
        gradient: Values,
        scratch: Scratch,
        into: list[Layer],
    ) -> None:
        """Gradients of the parameters, from the gradient of the outputs.

        Args:
            layers: parameters of the forward pass.
            x: its inputs ``(P, B, in)``.
            out: its layer outputs.
            gradient: of the loss with respect to the outputs ``(P, B, out)``.
            scratch: from `scratch`, overwritten.
            into: where the gradients go, laid out as ``layers``.
        """
        for k in range(len(layers) - 1, -1, -1):
            torch.sum(gradient.tensor, 1, keepdim=True, out=into[k].bias)
            inputs = out[k - 1] if k else x
            self._weights(inputs, gradient, scratch.sums[k], into[k])
            if k:
                onwards = scratch.gradients[k - 1]
                self._inputs(gradient, layers[k], scratch.turned[k], onwards)
                self._through(onwards.tensor, inputs.tensor)
                gradient = onwards

    def _weights(
        self, inputs: Values, gradient: Values, sums: Array, into: Layer
    ) -> None:
        """Gradient of a layer's weights from its inputs and that of its outputs."""
        if gradient.array is None:
            into.weight.copy_(torch.bmm(inputs.tensor.mT, gradient.tensor))
            return
        whole = gradient.array.shape[1] == 1
        product = into.array if whole else sums
        np.matmul(inputs.array.swapaxes(2, 3), gradient.array, out=product)
        if not whole:
            np.add.reduce(product, axis=1, keepdims=True, out=into.array)

    def _inputs(
        self, gradient: Values, layer: Layer, scratch: Array, out: Values
    ) -> None:
        """Gradient of a layer's inputs from that of its outputs."""
        weight = layer.weight.mT
        if gradient.tensor.shape[2] == 1:  # a third of the time of a product
            torch.mul(gradient.tensor, weight, out=out.tensor)
        elif gradient.array is None:
            torch.bmm(gradient.tensor, weight, out=out.tensor)
        else:
            turned = layer.array.swapaxes(2, 3)
            if weight.stride(2) != 1:  # with the copy three quarters of the time
                np.copyto(scratch, turned)
                turned = scratch
            np.matmul(gradient.array, turned, out=out.array)

    def _through(self, gradient: Tensor, output: Tensor) -> None:
        """From the gradient of a hidden layer's outputs to that before activation."""
        if self.activation == "relu":
            _relu_backward(gradient, output, 0, grad_input=gradient)
        else:
            _tanh_backward(gradient, output, grad_input=gradient)


@cache
def _pieces(B: int, size: int) -> int:
    """Into how many equal parts B rows are divided, for weights of this size."""
    pieces = 1
    while B * size > pieces * _SMALL and B % (2 * pieces * _FEW) == 0:
        pieces *= 2
    return pieces
