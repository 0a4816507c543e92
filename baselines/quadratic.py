"""The ladder of ``dacrl/NoisyQuadratic-v0``, a task whose optimum is known.

`Optimal` uses the true state, which no observation shows. The best static learning
rate and the best open-loop schedule were found on the tuning distribution by
``python -m dacrl_env.baselines.quadratic``, which prints the constants below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dacrl_env.algorithms import sgd
from dacrl_env.kernels.elementary import exp, log
from dacrl_env.outer.vector_env import PopulationEnv

Floats = NDArray[np.float64]

STEPS = 50
BEST_STATIC = 0.1496
# log-linear in the logarithm of the step number between these knots
KNOTS = (1, 2, 4, 8, 16, 32, 50)
BEST_SCHEDULE = (2.6072, 0.6152, 0.1008, 0.2015, 0.3523, 0.0826, 0.0117)


class Optimal:
    """The learning rate that minimises the expected loss after each step."""

    action_mode = "values"

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Take hold of the true state."""
        self.envs = envs

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, 1)``."""
        population = self.envs.population
        learner: Any = population.learner  # of the quadratic
        rates = learner.optimal_learning_rate(population.state.learner)
        h = population.settings.number("learning_rate")
        return self.envs.to_actions({"learning_rate": np.clip(rates, h.low, h.high)})


class BestStatic:
    """The best single learning rate over the distribution of runs."""

    action_mode = "values"

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate it into actions."""
        self.actions = envs.to_actions({"learning_rate": BEST_STATIC})

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, 1)``."""
        return self.actions


class BestSchedule:
    """The best sequence of learning rates over the distribution of runs."""

    action_mode = "values"

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Take note of the population."""
        self.envs = envs

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, 1)`` for each member's step."""
        rates = schedule(infos["env_steps"] + 1, BEST_SCHEDULE)
        return self.envs.to_actions({"learning_rate": rates})


def schedule(steps: Any, values: Any) -> Floats:
    """Learning rates at step numbers from 1 on, between knots."""
    return exp(np.interp(log(steps), log(KNOTS), log(values)))


def expected_return(rates: torch.Tensor, runs: int = 4_096) -> torch.Tensor:
    """Mean −log10 of the expected loss after ``rates`` ``(steps,)``, differentiable.

    The second moment of the parameters follows
    v ← (1 − α h)² v + α² σ² in expectation. Decades by which a loss on the way comes
    nearer than a factor of ten to divergence are subtracted ten times.
    """
    generator = np.random.default_rng(0)
    config = sgd.SGDConfig()
    (low_h, high_h), (low_s, high_s) = config.curvature, config.noise
    h = torch.from_numpy(10 ** generator.uniform(low_h, high_h, runs))
    noise = torch.from_numpy(10 ** generator.uniform(low_s, high_s, runs))
    v = torch.ones(runs, dtype=torch.float64)
    worst = torch.full((runs,), -torch.inf, dtype=torch.float64)
    for rate in rates:
        v = (1 - rate * h) ** 2 * v + (rate * noise) ** 2
        worst = torch.maximum(worst, torch.log10(0.5 * h * v))
    danger = torch.relu(worst - np.log10(sgd.DIVERGED / 10))
    return -(torch.log10(0.5 * h * v) + 10 * danger).mean()


def search() -> dict[str, Any]:
    """The best static rate and the best schedule, by grid and by gradient."""
    grid = np.geomspace(1e-3, 1e1, 161)
    with torch.no_grad():
        scores = [
            expected_return(torch.full((STEPS,), rate, dtype=torch.float64)).item()
            for rate in grid
        ]
    best = float(grid[int(np.argmax(scores))])
    position = torch.log(torch.arange(1, STEPS + 1, dtype=torch.float64))
    knots = torch.log(torch.tensor(KNOTS, dtype=torch.float64))
    right = torch.searchsorted(knots, position).clamp(1, len(KNOTS) - 1)
    share = (position - knots[right - 1]) / (knots[right] - knots[right - 1])
    values = torch.full((len(KNOTS),), np.log(best), dtype=torch.float64)
    values.requires_grad_()
    optimiser = torch.optim.Adam([values], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        rates = torch.exp(values[right - 1] * (1 - share) + values[right] * share)
        (-expected_return(rates)).backward()
        optimiser.step()
    return {
        "static": best,
        "static_return": max(scores),
        "schedule": [round(v, 4) for v in values.detach().exp().tolist()],
        "schedule_return": expected_return(rates.detach()).item(),
    }


if __name__ == "__main__":
    for name, found in search().items():
        print(name, found)
