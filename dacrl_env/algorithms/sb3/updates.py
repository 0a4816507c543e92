"""Gradient steps that Stable-Baselines3 does, counted and summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.algorithms.interval import Interval
from dacrl_env.algorithms.sb3.rows import parameters_of


class DivergedError(Exception):
    """A loss that is not finite."""


class Updates:
    """Counts gradient steps, and adds up the norms before clipping.

    Stable-Baselines3 does not tell of either: hooks of the model do.

    Args:
        optimizer: whose steps count, and the gradients of whose parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._steps, self._norm_sum = 0, 0.0
        # of each parameter, by its address, until the step: a loss that no step of
        # this optimiser follows leaves norms that the next one's take the place of
        self._norms: dict[int, Tensor] = {}
        self._hooks = [
            p.register_post_accumulate_grad_hook(self._on_gradient)
            for p in parameters_of(optimizer)
            if p.requires_grad
        ]
        self._hooks.append(optimizer.register_step_pre_hook(self._on_step))

    def remove(self) -> None:
        """Leave the optimiser and its parameters alone."""
        for hook in self._hooks:
            hook.remove()

    def _on_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._norms[id(parameter)] = torch.linalg.vector_norm(parameter.grad)

    def _on_step(self, *_: Any) -> None:
        self._steps += 1
        norm = torch.linalg.vector_norm(torch.stack([*self._norms.values()]))
        self._norm_sum += float(norm)
        self._norms.clear()

    @contextmanager
    def counted(
        self,
        i: int,
        gradient_steps: NDArray[np.int64],
        interval: Interval,
        samples: Callable[[int], int],
    ) -> Iterator[None]:
        """Count the gradient steps done within, also those before an exception.

        Args:
            i: the member.
            gradient_steps: ``(P,)`` of the runs so far, changed in place.
            interval: sums, changed in place.
            samples: how many transitions so many gradient steps have used.
        """
        self._norms.clear()
        self._steps, self._norm_sum = 0, 0.0
        try:
            yield
        finally:
            interval.counts[i] += self._steps, samples(self._steps)
            gradient_steps[i] += self._steps

    def record(
        self,
        i: int,
        interval: Interval,
        names: Sequence[str],
        means: Mapping[str, float],
    ) -> None:
        """Add to the sums what the gradient steps just counted were like.

        Args:
            i: the member.
            interval: sums, changed in place; the gradient's norm is known here.
            names: of the sums.
            means: over those steps, of the other sums, by name.

        Raises:
            DivergedError: a loss that is not finite.
        """
        totals = {name: mean * self._steps for name, mean in means.items()}
        totals["grad_norm"] = self._norm_sum
        for k, name in enumerate(names):
            interval.sums[i, k] += totals[name]
        if not np.isfinite(means["loss"]):
            raise DivergedError
