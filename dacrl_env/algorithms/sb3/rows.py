"""Rows of arrays for what a model keeps in tensors and in its optimiser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_row(tensors: Iterable[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """All values in one row."""
    flat = [t.detach().reshape(-1).to(dtype) for t in tensors]
    return torch.cat(flat) if flat else torch.empty(0, dtype=dtype)


def from_row(tensors: Iterable[Tensor], row: Tensor) -> None:
    """The inverse of `to_row`, in place."""
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            part = row[start : start + tensor.numel()]
            tensor.copy_(part.view(tensor.shape))
            start += tensor.numel()


@dataclass
class OptimizerState:
    """What an optimiser keeps of each parameter, in the parameters' order."""

    moments: Tensor  # (P, …) float32
    numbers: NDArray[np.float64]  # (P, …) step counts and other single numbers
    started: NDArray[np.bool_]  # (P,) whether there is anything yet


class OptimizerLayout:
    """Where the state of an optimiser lies in the rows of `OptimizerState`.

    Args:
        optimizer: of fresh parameters; it takes a step, by which its state comes into
            being.

    Raises:
        ValueError: it keeps something else than float32 tensors and numbers.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter in self._parameters(optimizer):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        # (number of the parameter, name, shape or None for a number, prototype)
        self.slots: list[tuple[int, str, torch.Size | None, Any]] = []
        self.moments = self.numbers = 0
        for k, parameter in enumerate(self._parameters(optimizer)):
            for name, value in optimizer.state[parameter].items():
                if value is None:
                    continue
                tensor = isinstance(value, Tensor)
                if tensor and value.dim() and value.dtype == torch.float32:
                    self.slots.append((k, name, value.shape, None))
                    self.moments += value.numel()
                elif isinstance(value, int | float) or (tensor and not value.dim()):
                    self.slots.append((k, name, None, value))
                    self.numbers += 1
                else:
                    raise ValueError(
                        f"{type(optimizer).__name__} keeps {name!r}, which is no "
                        "float32 tensor or number; choose another optimizer_class"
                    )

    def allocate(self, P: int) -> OptimizerState:
        """The state of P optimisers that have not taken a step."""
        return OptimizerState(
            moments=torch.zeros(P, self.moments, dtype=torch.float32),
            numbers=np.zeros((P, self.numbers)),
            started=np.zeros(P, bool),
        )

    def read(
        self, optimizer: torch.optim.Optimizer, into: OptimizerState, i: int
    ) -> None:
        """Store the state of an optimiser in row ``i``."""
        into.started[i] = bool(optimizer.state)
        if not into.started[i]:
            into.moments[i] = 0.0
            into.numbers[i] = 0.0
            return
        parameters = self._parameters(optimizer)
        moments, numbers = [], []
        for k, name, shape, _ in self.slots:
            value = optimizer.state[parameters[k]][name]
            if shape is None:
                numbers.append(float(value))
            else:
                moments.append(value)
        into.moments[i] = to_row(moments)
        into.numbers[i] = numbers

    def write(
        self, optimizer: torch.optim.Optimizer, source: OptimizerState, i: int
    ) -> None:
        """Give an optimiser the state of row ``i``."""
        optimizer.state.clear()
        if not source.started[i]:
            return
        parameters = self._parameters(optimizer)
        moments, numbers = source.moments[i], iter(source.numbers[i])
        start = 0
        for k, name, shape, prototype in self.slots:
            if shape is None:
                number = next(numbers)
                if isinstance(prototype, Tensor):
                    value: Any = torch.tensor(number, dtype=prototype.dtype)
                else:
                    value = type(prototype)(number)
            else:
                value = moments[start : start + shape.numel()].view(shape).clone()
                start += shape.numel()
            optimizer.state[parameters[k]][name] = value

    @staticmethod
    def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"]]
