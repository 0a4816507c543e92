"""Rows of arrays for what a model keeps in tensors and in its optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """What optimisers keep of each parameter, in their order and the parameters'."""

    moments: Tensor  # (P, …) float32
    numbers: NDArray[np.float64]  # (P, …) step counts and other single numbers
    started: NDArray[np.bool_]  # (P, G) whether there is anything yet, of each


class _Slot(NamedTuple):
    """One thing that an optimiser keeps."""

    parameter: int  # number of the parameter that it is about
    name: str
    shape: torch.Size | None  # None: a single number
    prototype: Any  # of a single number


class OptimizerLayout:
    """Where the states of a model's G optimisers lie in `OptimizerState`'s rows.

    Args:
        optimizers: of fresh parameters; each takes a step, by which its state comes
            into being.

    Raises:
        ValueError: one keeps something else than float32 tensors and numbers.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._slots = [_slots_of(optimizer) for optimizer in optimizers]
        self._sizes = [
            (
                sum(s.shape.numel() for s in slots if s.shape is not None),
                sum(s.shape is None for s in slots),
            )
            for slots in self._slots
        ]

    def allocate(self, P: int) -> OptimizerState:
        """The state of the optimisers of P members that have not taken a step."""
        moments, numbers = (sum(column) for column in zip(*self._sizes, strict=True))
        return OptimizerState(
            moments=torch.zeros(P, moments, dtype=torch.float32),
            numbers=np.zeros((P, numbers)),
            started=np.zeros((P, len(self._slots)), bool),
        )

    def read(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        into: OptimizerState,
        i: int,
    ) -> None:
        """Store the states of a member's optimisers in row ``i``."""
        for g, (optimizer, moments, numbers) in enumerate(
            self._parts(optimizers, into, i)
        ):
            into.started[i, g] = bool(optimizer.state)
            moments[:], numbers[:] = 0.0, 0.0
            if not into.started[i, g]:
                continue
            parameters, tensors, singles = parameters_of(optimizer), [], []
            for slot in self._slots[g]:
                value = optimizer.state[parameters[slot.parameter]][slot.name]
                if slot.shape is None:
                    singles.append(float(value))
                else:
                    tensors.append(value)
            moments[:], numbers[:] = to_row(tensors), singles

    def write(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        source: OptimizerState,
        i: int,
    ) -> None:
        """Give a member's optimisers the states of row ``i``."""
        for g, (optimizer, moments, numbers) in enumerate(
            self._parts(optimizers, source, i)
        ):
            optimizer.state.clear()
            if not source.started[i, g]:
                continue
            parameters, singles, start = parameters_of(optimizer), iter(numbers), 0
            for slot in self._slots[g]:
                if slot.shape is None:
                    value = _as(slot.prototype, next(singles))
                else:
                    end = start + slot.shape.numel()
                    value = moments[start:end].view(slot.shape).clone()
                    start = end
                optimizer.state[parameters[slot.parameter]][slot.name] = value

    def _parts(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        state: OptimizerState,
        i: int,
    ) -> Iterator[tuple[torch.optim.Optimizer, Tensor, NDArray[np.float64]]]:
        """Each optimiser with its parts of the row: views."""
        m = n = 0
        for optimizer, (more, numbers) in zip(optimizers, self._sizes, strict=True):
            yield (
                optimizer,
                state.moments[i, m : m + more],
                state.numbers[i, n : n + numbers],
            )
            m, n = m + more, n + numbers


def _slots_of(optimizer: torch.optim.Optimizer) -> list[_Slot]:
    """What an optimiser keeps once it has taken a step, which it does here."""
    for parameter in parameters_of(optimizer):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    slots = []
    for k, parameter in enumerate(parameters_of(optimizer)):
        for name, value in optimizer.state[parameter].items():
            if value is None:
                continue
            tensor = isinstance(value, Tensor)
            if tensor and value.dim() and value.dtype == torch.float32:
                slots.append(_Slot(k, name, value.shape, None))
            elif isinstance(value, int | float) or (tensor and not value.dim()):
                slots.append(_Slot(k, name, None, value))
            else:
                raise ValueError(
                    f"{type(optimizer).__name__} keeps {name!r}, which is no "
                    "float32 tensor or number; choose another optimizer_class"
                )
    return slots


def _as(prototype: Any, number: float) -> Any:
    """A number in the form that an optimiser keeps it."""
    if isinstance(prototype, Tensor):
        return torch.tensor(number, dtype=prototype.dtype)
    return type(prototype)(number)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimiser changes."""
    return [p for group in optimizer.param_groups for p in group["params"]]
