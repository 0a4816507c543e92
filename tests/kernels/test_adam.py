"""Adam against torch.optim, clipping against torch.nn.utils."""

import numpy as np
import pytest
import torch

from dacrl_env.kernels import adam
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.views import aligned

EPSILON = 1e-8
ROW = 64
FAR = 1e30  # a norm that no gradient has


@entry
def _adam(row, gradients, mean, square, parts, steps, rate, epsilon, norm):
    return adam.adam_step(
        row, gradients, mean, square, parts, steps, rate, epsilon, norm
    )


class Ours:
    """Parameters that start at some values, with their moments."""

    def __init__(self, start: np.ndarray) -> None:
        self.row, self.mean, self.square = (aligned(ROW) for _ in range(3))
        self.row[:], self.steps = start, np.zeros(1, np.int64)

    def step(self, gradient, rate=1e-3, epsilon=EPSILON, most=FAR) -> float:
        into = aligned(ROW)
        into[:] = gradient
        moments, whole = (self.mean, self.square), np.array([0, ROW])
        return _adam(self.row, into, *moments, whole, self.steps, rate, epsilon, most)


class Torchs:
    """The same with torch."""

    def __init__(self, start: np.ndarray) -> None:
        self.parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.optimiser: torch.optim.Adam | None = None

    @property
    def row(self) -> np.ndarray:
        return self.parameter.detach().numpy()

    def step(self, gradient, rate=1e-3, epsilon=EPSILON, most=FAR) -> float:
        if self.optimiser is None:
            self.optimiser = torch.optim.Adam([self.parameter], rate, eps=epsilon)
        self.optimiser.param_groups[0]["lr"] = rate
        self.parameter.grad = torch.tensor(gradient)
        norm = torch.nn.utils.clip_grad_norm_([self.parameter], most)
        self.optimiser.step()
        return float(norm)


def _gradient(member: int, step: int) -> np.ndarray:
    """Of very different sizes over steps and parameters."""
    rng = np.random.default_rng((member, step))
    return (rng.normal(size=ROW) * np.logspace(-4, 2, ROW)).astype(np.float32)


def _start(member: int) -> np.ndarray:
    return np.random.default_rng(member).normal(size=ROW)


@pytest.mark.parametrize("rate", [1e-3, 1e-1, 1e-6])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-5])
def test_steps_are_torchs(rate: float, epsilon: float) -> None:
    ours, torchs = Ours(_start(0)), Torchs(_start(0))
    for k in range(100):
        for one in (ours, torchs):
            one.step(_gradient(0, k), rate, epsilon)
        np.testing.assert_allclose(ours.row, torchs.row, rtol=2e-6, atol=2e-6)


def test_the_learning_rate_of_every_step_counts() -> None:
    ours, torchs = Ours(np.ones(ROW)), Torchs(np.ones(ROW))
    for k in range(20):
        for one in (ours, torchs):
            one.step(_gradient(0, k), 10.0 ** -(k % 5 + 1))
    np.testing.assert_allclose(ours.row, torchs.row, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("most", [0.1, 1.0, 100.0])
def test_clipping_is_torchs(most: float) -> None:
    """As long gradients as short ones; moments show what was made of them."""
    ours, torchs = Ours(_start(0)), Torchs(_start(0))
    for k in range(30):
        gradient = (10.0 ** (k % 5 - 3) * _start(k)).astype(np.float32)
        norms = [one.step(gradient, most=most) for one in (ours, torchs)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-6)
        state = torchs.optimiser.state[torchs.parameter]
        for mine, name in ((ours.mean, "exp_avg"), (ours.square, "exp_avg_sq")):
            scale = abs(state[name]).max().item()
            np.testing.assert_allclose(mine, state[name], rtol=1e-5, atol=1e-6 * scale)
        np.testing.assert_allclose(ours.row, torchs.row, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.9])
def test_a_gradient_shorter_than_the_limit_stays_as_it_is(size: float) -> None:
    clipped, free = Ours(_start(0)), Ours(_start(0))
    gradient = np.float32(size * _start(1) / np.linalg.norm(_start(1)))
    clipped.step(gradient, most=1.0)
    free.step(gradient)
    np.testing.assert_array_equal(clipped.mean, free.mean)
    np.testing.assert_array_equal(clipped.square, free.square)


def test_parameters_without_gradient_stay() -> None:
    ours, before = Ours(_start(0)), np.float32(_start(0))
    gradient = np.zeros(ROW, np.float32)
    for _ in range(5):
        ours.step(gradient, 0.1)
    np.testing.assert_array_equal(ours.row, before)
    ours, gradient[3] = Ours(_start(0)), 2.0
    for _ in range(5):
        ours.step(gradient, 0.1)
    assert np.flatnonzero(ours.row != before).tolist() == [3]
    # a constant gradient moves a parameter by the learning rate each step
    assert before[3] - ours.row[3] == pytest.approx(0.5, abs=1e-5)


def test_moments_that_fade_become_zero() -> None:
    ours = Ours(np.zeros(ROW))
    ours.mean[:], ours.square[:] = 1e-34, 1e-34
    for _ in range(60):
        ours.step(np.zeros(ROW))
    assert (ours.mean == 0).all()
    assert ((ours.square == 0) | (ours.square > 1e-36)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_gradient_that_is_not_finite_shows_in_its_norm(value: float) -> None:
    """The square of the last one is not finite."""
    gradient = _gradient(0, 0)
    gradient[5] = value
    assert not np.isfinite(Ours(_start(0)).step(gradient, most=0.5))
