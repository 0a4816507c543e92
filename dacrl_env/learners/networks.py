"""Stacked multilayer perceptrons: one network per member, one tensor program.

The parameters of a member are one row of a ``(P, row)`` tensor, so that copying a
member, its gradient norm and its optimiser step are plain row operations. Layers are
views into the rows: weights ``(P, in, out)`` and biases ``(P, 1, out)``. Rows are
padded to whole cache lines. Batched matrix products give every member the same bits
whatever other members stand beside it, which the population invariants rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Layer(NamedTuple):
    """Views of one layer of every member."""

    weight: Tensor  # (P, in, out); a transposed view where there are more inputs
    bias: Tensor  # (P, 1, out)


def padded(size: int) -> int:
    """Length of a row that holds ``size`` parameters: whole cache lines."""
    return -(-size // _LINE) * _LINE


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


def _product(a: Tensor, b: Tensor, into: Tensor) -> None:
    """Products ``(P, i, o)`` of two matrices each, to where they lie in rows.

    They are made in memory of their own and copied: a product into strided memory is
    computed member by member. That is done where the products are not whole cache
    lines, since the last bits of some depend on where in a line they are written.
    """
    if prod(into.shape[1:]) % _LINE:
        for x, y, product in zip(a, b, into, strict=True):
            torch.mm(x, y, out=product)
    else:
        into.copy_(one_row(a, b) if a.shape[1] == 1 else torch.bmm(a, b))


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

    def init(self, keys: streams.UInts) -> Tensor:
        """Fresh parameters ``(P, row)``: torch.nn.Linear's, uniform in ± 1/sqrt(in).

        Args:
            keys: ``(P,)``, the "init" key of each member.
        """
        u = streams.uniforms(keys, np.zeros(len(keys), np.int64), self.num_parameters)
        rows = torch.zeros(len(keys), self.row, dtype=torch.float32)
        rows[:, : self.num_parameters] = torch.from_numpy(2 * u - 1)
        for layer in self.layers(rows):
            bound = layer.weight.shape[1] ** -0.5
            layer.weight.mul_(bound)
            layer.bias.mul_(bound)
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
        for k, (layer, gain) in enumerate(zip(self.layers(rows), gains, strict=True)):
            i, o = layer.weight.shape[1:]
            counter = np.full(len(keys), number * len(self.shapes) + k)
            normal = streams.normals(keys, counter, i * o)
            tall = normal.reshape(len(keys), max(i, o), min(i, o))
            q, r = np.linalg.qr(tall)
            # without the signs the distribution would not be uniform
            q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
            weight = torch.from_numpy(q if i >= o else q.swapaxes(1, 2).copy())
            layer.weight.copy_(gain * weight)
        return rows

    def layers(self, rows: Tensor) -> list[Layer]:
        """Views of the layers in parameter (or gradient) rows ``(P, row)``."""
        layers, start, P = [], 0, rows.shape[0]
        for i, o in self.shapes:
            weight = rows[:, start : start + i * o]
            # a batched product is up to six times slower if its last axis in memory
            # is as short as the outputs of a value head
            if o < i:
                weight = weight.view(P, o, i).transpose(1, 2)
            else:
                weight = weight.view(P, i, o)
            start += i * o
            layers.append(Layer(weight, rows[:, start : start + o].view(P, 1, o)))
            start += o
        return layers

    def apply(self, rows: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(P, B, out)`` for inputs ``(P, B, in)``, differentiable."""
        *hidden, last = self.layers(rows)
        activation = torch.relu if self.activation == "relu" else torch.tanh
        for layer in hidden:
            x = activation(torch.baddbmm(layer.bias, x, layer.weight))
        if self.sizes[-1] == 1:
            return (one_row(last.weight.mT, x.mT) + last.bias).mT
        return torch.baddbmm(last.bias.mT, last.weight.mT, x.mT).mT

    def buffers(self, P: int, B: int, memory: Memory) -> list[Tensor]:
        """Memory for the layer outputs of one forward pass, as `forward` takes it.

        The last layer's lie transposed, one output after the other: a product with
        few columns takes four times as long as one with few rows, and so do sums over
        them.
        """
        hidden = [memory.take(f"layer {k}", P, B, o) for k, o in self._hidden()]
        return [*hidden, memory.take("outputs", P, self.sizes[-1], B).mT]

    def scratch(self, P: int, B: int, memory: Memory) -> list[Tensor]:
        """Memory for `backward`: gradients of the hidden layers' outputs."""
        return [memory.take(f"gradient {k}", P, B, o) for k, o in self._hidden()]

    def _hidden(self) -> list[tuple[int, int]]:
        return list(enumerate(self.sizes[1:-1]))

    def forward(self, layers: list[Layer], x: Tensor, out: list[Tensor]) -> Tensor:
        """As `apply`, into ``out``; no gradient is recorded."""
        *hidden, last = layers
        for layer, y in zip(hidden, out, strict=False):
            torch.baddbmm(layer.bias, x, layer.weight, out=y)
            x = y.relu_() if self.activation == "relu" else tanh_(y)
        y, weight = out[-1], last.weight.mT
        if self.sizes[-1] == 1:
            torch.add(one_row(weight, x.mT), last.bias, out=y.mT)
        else:
            torch.baddbmm(last.bias.mT, weight, x.mT, out=y.mT)
        return y

    def backward(
        self,
        layers: list[Layer],
        x: Tensor,
        out: list[Tensor],
        gradient: Tensor,
        scratch: list[Tensor],
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
            inputs = out[k - 1] if k else x
            torch.sum(gradient, 1, keepdim=True, out=into[k].bias)
            # stored as the product with the longer rows gives it
            if gradient.shape[2] == 1 or layers[k].weight.stride(2) != 1:
                _product(gradient.mT, inputs, into[k].weight.mT)
            else:
                _product(inputs.mT, gradient, into[k].weight)
            if k:
                onwards = layers[k].weight.mT
                gradient = self._through(gradient, onwards, inputs, scratch[k - 1])

    def _through(
        self, gradient: Tensor, weight: Tensor, output: Tensor, out: Tensor
    ) -> Tensor:
        """Gradient of a layer's inputs, and of what the activation before it takes."""
        if gradient.shape[2] == 1:  # a third of the time of a product
            torch.mul(gradient, weight, out=out)
        else:
            torch.bmm(gradient, weight, out=out)
        if self.activation == "relu":
            return torch.ops.aten.threshold_backward.grad_input(
                out, output, 0, grad_input=out
            )
        return torch.ops.aten.tanh_backward.grad_input(out, output, grad_input=out)
