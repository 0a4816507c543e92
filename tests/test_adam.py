from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.learners import adam

EPSILON = 1e-8
ROW = 48


def gradient(member: int, step: int) -> Tensor:
    """Of very different sizes over steps and parameters."""
    generator = torch.Generator().manual_seed(1000 * member + step)
    sizes = torch.logspace(-4, 2, ROW)
    return torch.randn(ROW, generator=generator) * sizes


def torch_adam(start: Tensor, member: int, steps: int, lr: float) -> list[Tensor]:
    """Parameters before the first and after every step of torch.optim.Adam."""
    parameter = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([parameter], lr=lr, eps=EPSILON)
    history = [start.clone()]
    for k in range(steps):
        parameter.grad = gradient(member, k)
        optimizer.step()
        history.append(parameter.detach().clone())
    return history


@pytest.mark.parametrize("P", [1, 5])
def test_equals_torch_with_own_learning_rates_and_step_counts(P):
    rates = np.array([1e-3, 1e-1, 1e-6, 1e-2, 3e-4])[:P]
    head_start = np.array([0, 7, 50, 1, 23])[:P]  # steps taken before the others
    start = torch.randn(P, ROW, generator=torch.Generator().manual_seed(0))
    expected = [
        torch_adam(start[p], p, int(head_start[p]) + 50, rates[p]) for p in range(P)
    ]
    parameters, state = start.clone(), adam.AdamState.zeros(start)
    steps, scratch = np.zeros(P, np.int64), torch.empty_like(start)

    def step(rows: slice, count: NDArray[np.int64]) -> None:
        members = range(P)[rows]
        gradients = torch.stack([gradient(p, int(steps[p])) for p in members])
        steps[rows] += 1
        adam.step(
            parameters[rows],
            gradients,
            adam.AdamState(state.mean[rows], state.square[rows]),
            count + 1,
            rates[rows],
            EPSILON,
            scratch[rows],
        )

    for p in range(P):  # each alone …
        for k in range(head_start[p]):
            step(slice(p, p + 1), np.array([k]))
    for _ in range(50):  # … then all together, at different counts
        step(slice(0, P), steps.copy())
        for p in range(P):
            torch.testing.assert_close(
                parameters[p], expected[p][steps[p]], rtol=1e-6, atol=1e-6
            )


def test_the_learning_rate_of_every_step_counts():
    start = torch.ones(1, ROW)
    parameters, state = start.clone(), adam.AdamState.zeros(start)
    parameter = torch.nn.Parameter(start[0].clone())
    optimizer = torch.optim.Adam([parameter], eps=EPSILON)
    for k in range(20):
        rate = 10.0 ** -(k % 5 + 1)
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = gradient(0, k)
        optimizer.step()
        count, rates = np.array([k + 1]), np.array([rate])
        scratch, gradients = torch.empty_like(start), gradient(0, k)[None]
        adam.step(parameters, gradients, state, count, rates, EPSILON, scratch)
    torch.testing.assert_close(parameters[0], parameter.detach(), rtol=1e-6, atol=1e-6)


def test_parameters_without_gradient_stay():
    parameters = torch.randn(2, ROW, generator=torch.Generator().manual_seed(0))
    before, state = parameters.clone(), adam.AdamState.zeros(parameters)
    gradients = torch.zeros_like(parameters)
    gradients[1, 3] = 2.0
    for k in range(5):
        count, rates = np.array([k + 1] * 2), np.array([0.1] * 2)
        scratch = torch.empty_like(parameters)
        adam.step(parameters, gradients, state, count, rates, EPSILON, scratch)
    moved = parameters != before
    assert moved.nonzero().tolist() == [[1, 3]]
    assert torch.isfinite(parameters).all()
    # a constant gradient moves a parameter by the learning rate each step
    distance = (before - parameters)[1, 3].item()
    assert distance == pytest.approx(0.5, abs=1e-5)


def test_clipping_equals_torch():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, ROW, generator=generator)
    gradients *= torch.tensor([0.0, 1e-3, 0.1, 1.0, 1e3, 1e10])[:, None]
    limits = torch.tensor([1.0, 10.0, 0.1, 100.0, 0.5, 10.0])[:, None]
    clipped = gradients.clone()
    norms = adam.clip_norm(clipped, limits)
    for row, limit, norm, mine in zip(gradients, limits, norms, clipped, strict=True):
        parameter = torch.nn.Parameter(torch.zeros(ROW))
        parameter.grad = row.clone()
        expected = torch.nn.utils.clip_grad_norm_([parameter], limit.item())
        torch.testing.assert_close(norm[0], expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-6, atol=0)
    for p in (0, 1, 3):  # shorter than their limit: not a bit changes
        assert torch.equal(clipped[p], gradients[p])


def test_a_gradient_that_is_not_finite_shows_in_its_own_norm_only():
    gradients = torch.ones(3, ROW)
    gradients[1, 5] = torch.nan
    norms = adam.clip_norm(gradients, torch.full((3, 1), 0.5))
    assert torch.isfinite(norms).squeeze(1).tolist() == [True, False, True]
    assert torch.isfinite(gradients).all(1).tolist() == [True, False, True]
