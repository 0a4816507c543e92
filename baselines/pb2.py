"""Population-based bandits (Parker-Holder et al. 2020, arXiv 2002.02518): PB2.

Population-based training whose new hyperparameters are not perturbed at random: a
Gaussian process learns from all members how the objective changes over a round, and
the members that exploit get what promises most, one after the other. Options of choices
come from a bandit of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.core.isolation import inner_context
from dacrl_env.core.store import Store
from dacrl_env.methods.evolution import (
    Course,
    check_population,
    decoded,
    descendants,
    evolve,
)
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Observed, Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Choice, Number, Task

# what the likelihood chooses from
LENGTHSCALES = (0.1, 0.2, 0.4, 0.8, 1.6)  # of the unit cube
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)  # forgetting, a round
NOISES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # variance, relative to the signal's
_LATEST = 400
_EXPLORE, _FORGET = 0.5, 0.05  # shares of uniform weights, in draws and after rounds
_CLIP = 2.0  # standard deviations, as in the authors' implementation
_CANDIDATES = 400  # uniform ones for the acquisition, then around the best so far:
_EXACT = "donot_use_mm_for_euclid_dist"  # of torch.cdist
_NEAR = ((100, 0.1), (100, 0.02))  # candidates, and spread in the unit cube

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PB2:
    """Truncation selection as in PBT; new hyperparameters from a bandit.

    The bandit sees a point for each member and round: the round's number, the objective
    before it, the hyperparameters, and by how much the objective changed. Before the
    first round the objective is taken to be 0, the score of a random policy; a run that
    diverges falls to the floor score. New values are chosen for the donor's objective,
    whatever the donor's hyperparameters.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        population: members, each charged as a full run; None: as many as the budget
            pays for, at most 64. What is left is not spent.
        interval: decisions between two exploits.
        quantile: share of the members that exploits, and share that is copied.
        objective: "final", "best" or "auc".
        points: most recent points that the bandit learns from.
        default_first: the first member begins with the defaults.

    Raises:
        ValueError: values outside of their ranges, or a population too small for the
            quantile; see also `SearchSpace` and `Trials`.
    """

    space: Mapping[str, Sequence[float]] | None = None
    population: int | None = None
    interval: int = 1
    quantile: float = 0.25
    objective: str = "final"
    points: int = 1_000
    default_first: bool = False

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_population(self.population, self.interval, self.quantile)
        if self.points < 1:
            raise ValueError(f"points must be at least 1, got {self.points}")

    def fit(
        self,
        task: str | Task,
        budget: int,
        seed: int,
        /,
        store: Store | None = None,
        progress: Callable[[int], Any] | None = None,
        **task_kwargs: Any,
    ) -> Fitted:
        """The lineage of the best member at the end.

        Raises:
            ValueError: the budget is below the population's runs, or the interval
                leaves no exploit.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = SearchSpace(trials.controlled, self.space)
        generator = np.random.default_rng((seed, 0))
        numbers = [k for k, h in enumerate(space.searched) if isinstance(h, Number)]
        choices = [k for k, h in enumerate(space.searched) if isinstance(h, Choice)]
        cube = _numbers(trials, space)

        def changed(course: Course, parents: Ints) -> Floats:
            children = descendants(parents)
            values = np.empty((len(children), len(space.searched)))
            for k in choices:
                values[:, k] = chosen_options(
                    course, space, k, self.objective, len(children), generator
                )
            if cube is not None:
                values[:, numbers] = promising(course, parents, cube)
            return values

        def promising(course: Course, parents: Ints, cube: SearchSpace) -> Floats:
            inputs, gains = points(course, cube, self.objective)
            inputs, gains = inputs[-self.points :], gains[-self.points :]
            now = measured(course.rounds[-1], self.objective)
            children = descendants(parents)
            others = np.setdiff1d(np.arange(len(parents)), children)
            current = positions(cube, course.values(cube)[-1][others])
            chosen = batch(
                inputs,
                gains,
                len(course.rounds),
                now[parents[children]],
                np.column_stack([now[others], current]),
                lambda candidate: positions(cube, decoded(cube, candidate)),
                generator,
            )
            return decoded(cube, chosen)

        return evolve(
            trials,
            space,
            generator,
            changed,
            population=self.population,
            interval=self.interval,
            quantile=self.quantile,
            objective=self.objective,
            default_first=self.default_first,
        )


# -- what the bandit learns from ----------------------------------------------------


def measured(seen: Observed, objective: str) -> Floats:
    """The objective ``(P,)`` after a round; the floor score for diverged runs."""
    value = seen.objective(objective)
    return np.where(np.isfinite(value), value, seen.scores[-1])


def _numbers(trials: Trials, space: SearchSpace) -> SearchSpace | None:
    """The space of the numbers alone; None: there are none."""
    bounds = {h.name: h.ends for h in space.searched if isinstance(h, Number)}
    return SearchSpace(trials.controlled, bounds) if bounds else None


def chosen_options(
    course: Course,
    space: SearchSpace,
    k: int,
    objective: str,
    n: int,
    generator: np.random.Generator,
) -> Floats:
    """Codes ``(n,)`` of a choice, by a bandit over its options.

    Exp3 whose weights forget (Parker-Holder et al. 2021, "Tuning mixed input
    hyperparameters on the fly for efficient population based AutoRL"): after a round
    an option's weight grows by the mean gain of the members that had it, ranked from 0
    to 1 among all members, over its probability.

    Args:
        course: of the population so far.
        space: what is searched.
        k: which of the hyperparameters.
        objective: whose gains count.
        n: codes to draw.
        generator: draws them.
    """
    codes = space.codes[space.searched[k].name]
    C = len(codes)
    weights = np.ones(C)
    inputs, gains = points(course, space, objective)
    tried = np.concatenate([values[:, k] for values in course.values(space)])
    for number in range(len(course.rounds)):
        now = inputs[:, 0] == number
        order = np.argsort(np.argsort(gains[now], kind="stable"), kind="stable")
        reward = order / max(len(order) - 1, 1)
        p = _EXPLORE / C + (1 - _EXPLORE) * weights / weights.sum()
        for c, code in enumerate(codes):
            had = tried[now] == code
            if had.any():
                weights[c] *= math.exp(_EXPLORE / C * reward[had].mean() / p[c])
        weights = weights / weights.sum() * C
        weights = (1 - _FORGET) * weights + _FORGET
    p = _EXPLORE / C + (1 - _EXPLORE) * weights / weights.sum()
    return np.asarray(generator.choice(codes, n, p=p / p.sum()))


def positions(space: SearchSpace, values: Floats) -> Floats:
    """Values ``(n, k)`` of the searched numbers in the unit cube."""
    columns: list[Floats] = [np.empty((0, len(values)))]
    for h, column in zip(space.searched, values.T, strict=True):
        if not isinstance(h, Number):
            continue
        low, high = h.to_unit(h.low), h.to_unit(h.high)
        columns.append((h.to_unit(column) - low) / (high - low))
    return np.clip(np.vstack(columns).T, 0.0, 1.0)


def points(course: Course, space: SearchSpace, objective: str) -> tuple[Floats, Floats]:
    """What was tried, and what came of it, oldest first.

    Returns:
        Inputs ``(n, 2 + k)``, number of the round, objective before it and
        hyperparameters in the unit cube, and gains ``(n,)``.
    """
    inputs, gains = [], []
    before = np.zeros(len(course.rounds[0].diverged))
    for number, (seen, values) in enumerate(
        zip(course.rounds, course.values(space), strict=True)
    ):
        if number:
            # what it went on with, which the member need not have had itself
            before = measured(course.rounds[number - 1], objective)
            before = before[course.parents[number - 1]]
        time = np.full(len(before), float(number))
        inputs.append(np.column_stack([time, before, positions(space, values)]))
        gains.append(measured(seen, objective) - before)
    return np.concatenate(inputs), np.concatenate(gains)


@inner_context()  # one thread: several are slower on a busy machine, by far
def batch(
    inputs: Floats,
    gains: Floats,
    time: int,
    contexts: Floats,
    going_on: Floats,
    rounded: Callable[[Floats], Floats],
    generator: np.random.Generator,
) -> Floats:
    """Candidates ``(m, k)`` for members that exploit, each aware of those before it.

    The variance is conditioned on what is under way already (GP-BUCB, Desautels et al.
    2014), the unchanged members included, so that the batch spreads.

    Args:
        inputs: ``(n, 2 + k)``, see `points`.
        gains: ``(n,)``.
        time: number of the coming round.
        contexts: ``(m,)`` objective that each member starts it from.
        going_on: ``(r, 1 + k)`` objective and hyperparameters of the other members.
        rounded: candidates as they will be applied.
        generator: draws candidates of the acquisition.
    """
    low, span = inputs[:, 1].min(), np.ptp(inputs[:, 1])

    def scaled(points: Floats) -> Floats:
        points = points.copy()
        points[:, 1] = (points[:, 1] - low) / (span if span > 0 else 1.0)
        return points

    spread = gains.std()
    targets = (gains - gains.mean()) / (spread if spread > 0 else 1.0)
    targets = np.clip(targets, -_CLIP, _CLIP)
    inputs = scaled(inputs)
    posterior = Posterior(inputs, targets, fit_kernel(inputs, targets))
    if len(going_on):
        now = np.full(len(going_on), float(time))
        posterior.condition(scaled(np.column_stack([now, going_on])))
    k = inputs.shape[1] - 2
    chosen = np.empty((len(contexts), k))
    for i, context in enumerate(contexts):
        fixed = scaled(np.array([[time, context]]))[0]
        chosen[i] = maximise(posterior, fixed, k, generator)
        applied = rounded(chosen[i : i + 1])
        posterior.condition(np.column_stack([fixed[None], applied]))
    return chosen


def maximise(
    posterior: Posterior, fixed: Floats, k: int, generator: np.random.Generator
) -> Floats:
    """The candidate ``(k,)`` of the highest upper confidence bound found.

    Args:
        posterior: over time, context and hyperparameters.
        fixed: time and context ``(2,)``.
        k: dimensions of the unit cube.
        generator: draws candidates.
    """

    def bound(candidates: Floats) -> Floats:
        context = np.tile(fixed, (len(candidates), 1))
        mean, deviation = posterior(np.hstack([context, candidates]))
        return mean + posterior.caution * deviation

    candidates = generator.random((_CANDIDATES, k))
    best = candidates[np.argmax(bound(candidates))]
    for n, width in _NEAR:
        near = best + width * generator.standard_normal((n, k))
        candidates = np.vstack([best, np.clip(near, 0.0, 1.0)])
        best = candidates[np.argmax(bound(candidates))]
    return np.asarray(best)


# -- the Gaussian process -------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """Covariance of gains.

    Args:
        lengthscale: of the squared exponential on all but time.
        epsilon: share of what is known that a round takes away: a distance of t rounds
            multiplies by (1 − ε)^(t / 2), after Bogunovic et al. 2016.
        noise: variance of what is observed, relative to ``variance``.
        variance: of the signal.
    """

    lengthscale: float = 0.4
    epsilon: float = 0.1
    noise: float = 0.3
    variance: float = 1.0

    def correlation(self, a: Tensor, b: Tensor) -> Tensor:
        """Correlations ``(n, m)`` of the signal at ``(n, 1 + c)`` and ``(m, 1 + c)``.

        The first column is time, in rounds.
        """
        squares = torch.square(torch.cdist(a[:, 1:], b[:, 1:], compute_mode=_EXACT))
        apart = torch.abs(a[:, :1] - b[:, 0])
        forgotten = math.log1p(-self.epsilon) * apart / 2
        return torch.exp(forgotten - squares / (2 * self.lengthscale**2))

    def factor(self, inputs: Tensor, known: Tensor | None = None) -> Tensor:
        """Cholesky factor ``(n, n)`` of the covariance of what is observed.

        Args:
            inputs: ``(n, 1 + c)``.
            known: ``(n, n)`` to be taken off: what other observations explain.
        """
        covariance = self.correlation(inputs, inputs)
        covariance += self.noise * torch.eye(len(inputs), dtype=torch.float64)
        return torch.linalg.cholesky(
            covariance if known is None else covariance - known
        )


class Posterior:
    """What is known of the signal after observations, and with others under way.

    Args:
        inputs: ``(n, 1 + c)``, time first.
        targets: ``(n,)``, of mean 0.
        kernel: their covariance.
    """

    def __init__(self, inputs: Floats, targets: Floats, kernel: Kernel) -> None:
        self.kernel, self._inputs = kernel, _tensor(inputs)
        # beta of the authors' implementation
        self.caution = math.sqrt(0.2 + max(0.0, math.log(0.4 * len(inputs))))
        self._factor = kernel.factor(self._inputs)
        self._white = _solve(self._factor, _tensor(targets)[:, None])[:, 0]

    def condition(self, inputs: Floats) -> None:
        """Take note of points ``(m, 1 + c)`` that are not observed yet.

        As if the mean were observed there: it stays, the variance shrinks.
        """
        points, across = _tensor(inputs), self._across(inputs)
        n, m = across.shape
        factor = torch.zeros((n + m, n + m), dtype=torch.float64)
        factor[:n, :n], factor[n:, :n] = self._factor, across.T
        factor[n:, n:] = self.kernel.factor(points, across.T @ across)
        self._factor = factor
        self._white = torch.cat([self._white, torch.zeros(m, dtype=torch.float64)])
        self._inputs = torch.cat([self._inputs, points])

    def __call__(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation ``(m,)`` of the signal at ``(m, 1 + c)``."""
        across = self._across(inputs)
        left = (1 - torch.square(across).sum(0)).clamp_min(0.0)
        deviation = torch.sqrt(self.kernel.variance * left)
        return (self._white @ across).numpy(), deviation.numpy()

    def _across(self, inputs: Floats) -> Tensor:
        covariance = self.kernel.correlation(self._inputs, _tensor(inputs))
        return _solve(self._factor, covariance)


def fit_kernel(inputs: Floats, targets: Floats) -> Kernel:
    """The kernel of the highest marginal likelihood found on the grids.

    One parameter after the other, until none improves; the variance follows from them.
    The latest 400 points decide: dozens of kernels are tried, at a cubic cost.
    """
    inputs, targets = inputs[-_LATEST:], targets[-_LATEST:]
    if not np.any(targets):
        return Kernel()
    points, n = _tensor(inputs), len(targets)

    def tried(kernel: Kernel) -> tuple[float, Kernel]:
        factor = kernel.factor(points)
        white = _solve(factor, _tensor(targets)[:, None])
        variance = float(torch.square(white).mean())
        half = float(torch.log(factor.diagonal()).sum())
        return -n / 2 * math.log(variance) - half, replace(kernel, variance=variance)

    grids = {"lengthscale": LENGTHSCALES, "epsilon": EPSILONS, "noise": NOISES}
    best, improved = tried(Kernel()), True
    while improved:
        improved = False
        for name, grid in grids.items():
            for value in grid:
                if value == getattr(best[1], name):
                    continue
                other = tried(replace(best[1], **{name: value}))
                if other[0] > best[0]:
                    best, improved = other, True
    return best[1]


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, right, upper=False)
