"""What the searchers share: candidates trained to the end, side by side."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.methods.objectives import Tried, check_counted
from dacrl_env.methods.search_space import ROWS, SearchSpace
from dacrl_env.methods.trials import Observed, Trials, check_usable
from dacrl_env.outer.actions import check_names
from dacrl_env.policies import Cost, Fitted, Policy
from dacrl_env.tasks import Option
from dacrl_env.tasks.registration import configured

Floats = NDArray[np.float64]
Objective = str | tuple[str, ...]  # what candidates are compared by: one, or several


class Incumbent:
    """The best candidate so far, and the course of it.

    Args:
        space: of the candidates.
        trials: the account.
        objective: what candidates are compared by; of several the first one says which
            is the best, and `fitted` has the front of all.

    Raises:
        ValueError: cost is among several objectives, and not counted here.
    """

    def __init__(
        self, space: SearchSpace, trials: Trials, objective: Objective = "final"
    ) -> None:
        self.space, self.trials = space, trials
        self._tried = None if isinstance(objective, str) else Tried(objective)
        if self._tried is not None:
            check_counted(trials, self._tried.names)
        self.score = -np.inf
        self.online: float | None = None
        self.course: list[tuple[Cost, Policy]] = []
        self._paid = trials.cost

    def offer(
        self, candidates: Floats, scores: Floats, judged: Floats | None = None
    ) -> None:
        """Take note of candidates ``(n, k)`` with their scores ``(n,)``.

        What was spent since the last offer is charged to them in equal parts, one
        after the other, as if they had been trained so.

        Args:
            candidates: trained to the end.
            scores: to be compared; −∞ or NaN: diverged. ``(n, m)`` of m objectives.
            judged: mean score by the report stream of each one's runs ``(n,)``.
        """
        before, after = self._paid, self.trials.cost
        if self._tried is not None:
            self._tried.add(candidates, scores, judged)
            scores = scores[:, 0]
        ranked = np.where(np.isnan(scores), -np.inf, scores)
        for k, score in enumerate(ranked):
            if score > self.score or not self.course:
                self.score = float(score)
                self.online = None if judged is None else float(judged[k])
                policy = self.space.policy(candidates[k], self.trials.decisions)
                paid = before.towards(after, (k + 1) / len(ranked))
                self.course.append((paid, policy))
        self._paid = after

    def settle(self) -> None:
        """Charge what was spent so far before the candidates that are offered next."""
        self._paid = self.trials.cost

    def fitted(self) -> Fitted:
        """The result of the method.

        Raises:
            ValueError: every candidate failed.
        """
        check_usable(self.score, self.trials)
        _, policy = self.course[-1]
        online, front = self.online, []
        if self._tried is not None:  # of equals in the first objective the best
            front = self._tried.front(
                lambda one: self.space.policy(one, self.trials.decisions)
            )
            policy, online = front[0].policy, front[0].online
        # the incumbent stands until all is spent
        course = [*self.course, (self.trials.cost, policy)]
        return self.trials.fitted(policy, course, online, front)


def check_candidates(trials: Trials, seeds: int, needed: int = 1) -> None:
    """Raise a ValueError if the budget is below ``needed`` full candidates."""
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    least = trials.steps * seeds * needed
    if trials.left < least:
        raise ValueError(
            f"a tuning budget of {trials.left:,} steps is below {needed} candidates on "
            f"{seeds} tuning seeds, which take {least:,}"
        )


def affordable(trials: Trials, seeds: int, population: int) -> int:
    """Candidates that train together next: as many as fit, and as are paid for.

    Args:
        trials: the account.
        seeds: tuning runs a candidate.
        population: runs side by side, at most; but one candidate at least.
    """
    return min(max(1, population // seeds), trials.left // (trials.steps * seeds))


def train(
    trials: Trials,
    space: SearchSpace,
    candidates: Floats,
    seeds: int,
    objective: Objective,
) -> tuple[Floats, Floats]:
    """Mean objective and mean report score ``(n,)`` of candidates trained to the end.

    Every candidate is trained on the same ``seeds`` tuning seeds, which pairs them. Of
    m objectives the first array is ``(n, m)``.
    """
    n = len(candidates)
    trials.begin(trials.tuning_seeds(seeds) * n)
    seen = go_on(trials, space, candidates, seeds, 0, trials.decisions)
    return means(seen, seeds, objective), trials.judge().reshape(n, seeds).mean(1)


def means(seen: Observed, seeds: int, objective: Objective) -> Floats:
    """What candidates are compared by, as means over their runs.

    Args:
        seen: of runs of n candidates, one candidate after the other.
        seeds: runs of each.
        objective: name, or names of m.

    Returns:
        ``(n,)``, of several objectives ``(n, m)``; −∞ where a run diverged.
    """
    if isinstance(objective, str):
        return np.asarray(seen.objective(objective).reshape(-1, seeds).mean(1))
    return np.stack([means(seen, seeds, name) for name in objective], axis=1)


def go_on(
    trials: Trials,
    space: SearchSpace,
    candidates: Floats,
    seeds: int,
    start: int,
    end: int,
) -> Observed:
    """Train the runs under way from one decision to another.

    Args:
        trials: whose runs are those of the candidates, one after the other.
        space: of the candidates.
        candidates: ``(n, k)``.
        seeds: runs of each.
        start: decisions that the runs have had.
        end: decisions that they are to have.
    """
    if not space.reactive:
        values = space.values(candidates, trials.decisions)[start:end]
        return trials.advance(values.repeat(seeds, axis=1))
    each = candidates.repeat(seeds, axis=0)
    rule = space.rule(each, trials.decisions)
    for _ in range(start, end):
        seen = trials.steer(rule, each)
    return seen


def search_space(
    trials: Trials,
    bounds: Mapping[str, Sequence[float]] | None,
    family: str,
    rows: Sequence[str] = ROWS,
    configurations: Mapping[str, Sequence[Any]] | None = None,
) -> SearchSpace:
    """The space of a family for the task of `trials`; see `SearchSpace`.

    Args:
        trials: of the task.
        bounds: of the space.
        family: of the space.
        rows: of the space.
        configurations: name of a field of the static configuration to what it may be
            beside what it is.

    Raises:
        ValueError: see `SearchSpace`; an unknown field, or a value that none can have.
    """
    task = trials.task
    returns = task.returns[:2]
    menu = _menu(trials, configurations or {})
    space = SearchSpace(trials.controlled, bounds, family, rows, returns, menu)
    if family == "gate":
        check_names(rows, trials.observation_names(), "observation row")
    return space


def _menu(
    trials: Trials, configurations: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Options of each field, what runs have otherwise first."""
    config, algorithm = trials.settings.config, trials.task.algorithm
    menu = {}
    for name, options in configurations.items():
        if not isinstance(options, Sequence) or isinstance(options, str):
            raise ValueError(
                f"what is searched of {name} must be a list of options, got {options!r}"
            )
        for option in options:
            configured(algorithm, type(config), {name: option})
        menu[name] = [getattr(config, name), *options]
    for name, options in menu.items():
        for option in options[1:]:
            problem = problem_beside(trials, menu, name, option)
            if problem is not None:
                raise ValueError(f"configuration {name} {option!r}: {problem}")
    return menu


def problem_beside(
    trials: Trials, menu: Mapping[str, Sequence[Any]], name: str, option: Any
) -> ValueError | None:
    """Why an option works neither alone nor beside one other; None: it does.

    A rollout may divide a decision beside another number of environments alone.

    Args:
        trials: of the task.
        menu: options of each field of the static configuration.
        name: of the field.
        option: of it.
    """
    problem = problem_of(trials, {name: option})
    pairs = (
        {name: option, k: v} for k, every in menu.items() if k != name for v in every
    )
    if problem is None or any(problem_of(trials, p) is None for p in pairs):
        return None
    return problem


def problem_of(trials: Trials, configuration: Mapping[str, Any]) -> ValueError | None:
    """Why no run can have a static configuration; None: one can."""
    start = np.array([[h.start for h in trials.controlled]])
    try:
        trials.work(start, configuration)
    except ValueError as error:
        return error
    return None


def default_candidate(
    space: SearchSpace, others: Mapping[str, Option] | None = None
) -> Floats:
    """The candidate ``(k,)`` that keeps every hyperparameter at its default.

    Args:
        space: of the candidate.
        others: parameters of the space that are to be different, by name.

    Raises:
        ValueError: an unknown parameter, or a value out of range.
    """
    known = {d.name: d for d in space.dimensions}
    others = others or {}
    check_names(others, list(known), "parameter")
    given = {d.name: d.default for d in space.dimensions} | dict(others)
    parameters = {name: space.code(name, value) for name, value in given.items()}
    return np.clip(space.encode([parameters])[0], 0.0, 1.0)


def with_default(space: SearchSpace, candidates: Floats) -> Floats:
    """Candidates ``(n, k)`` of which the first keeps every default instead."""
    result = candidates.copy()
    result[:1] = default_candidate(space)
    return result


_REDRAWS = 1_000
NEAR = 0.15  # standard deviation of what lies near, as a share of a range
FEW = 5  # dimensions in which what lies near differs, on average, where there are more


def around(
    space: SearchSpace, centre: ArrayLike, generator: np.random.Generator, n: int
) -> Floats:
    """Candidates ``(n, k)``: the centre, then by turns one near it and one anywhere.

    Args:
        space: of the candidates.
        centre: ``(k,)``, a candidate.
        generator: draws them.
        n: number of candidates.
    """
    middle = np.asarray(centre, np.float64)
    anywhere = space.sample(generator, n)
    near = np.clip(middle + NEAR * generator.standard_normal(anywhere.shape), 0, 1)
    # nothing is near a choice that has no order
    unordered = [name in space.choices for name in space.names]
    near[:, unordered] = anywhere[:, unordered]
    # what lies near in all of many dimensions is far
    if near.shape[1] > FEW:
        few = generator.random(near.shape) * near.shape[1] < FEW
        near = np.where(few, near, middle)
    result = np.where(np.arange(n)[:, None] % 2 == 1, near, anywhere)
    result[0] = middle
    return result


def within(
    trials: Trials,
    space: SearchSpace,
    candidates: Floats,
    most_work: float | None,
    draw: Callable[[int], Floats],
) -> Floats:
    """Candidates ``(n, k)``, those that take too much work drawn again.

    So are those with a static configuration that runs of the task cannot have.

    Args:
        trials: whose default takes a work of 1.
        space: of the candidates.
        candidates: the first of them stays whatever it takes.
        most_work: mean over a run of floating-point operations, as a multiple of those
            of the default; None: any.
        draw: so many other candidates.

    Raises:
        ValueError: hardly any candidate takes as little.
    """
    if most_work is None and not space.fields:
        return candidates
    most = sys.float_info.max if most_work is None else most_work
    result = candidates.copy()
    for _ in range(_REDRAWS):
        heavy = np.flatnonzero(work_of(trials, space, result) > most)
        heavy = heavy[heavy > 0]
        if not len(heavy):
            return result
        result[heavy] = draw(len(heavy))
    wanted = "a static configuration that runs can have"
    if most_work is not None:
        wanted = f"a work of at most {most_work:g} times the default's"
    raise ValueError(
        f"of {_REDRAWS} draws some candidates found none with {wanted}; raise "
        "most_work, or narrow the space"
    )


def check_most_work(most_work: float | None, family: str) -> None:
    """Raise a ValueError unless candidates of a family can be held to a work.

    Args:
        most_work: see `within`.
        family: of `search_space.FAMILIES`.
    """
    if most_work is not None and not most_work > 0:
        raise ValueError(f"most_work must be positive, got {most_work}")
    if most_work is not None and family == "gate":
        raise ValueError("most_work is not known of the family gate; leave it out")


def work_of(trials: Trials, space: SearchSpace, candidates: Floats) -> Floats:
    """Floating-point operations ``(n,)`` of candidates, as multiples of the default's.

    The mean over a run; ∞ where no run can have the static configuration.
    """
    result = np.empty(len(candidates))
    for configuration, members in alike(space, candidates):
        values = space.every_value(candidates[members], trials.decisions)
        flat = values.reshape(-1, values.shape[-1])
        if configuration and problem_of(trials, configuration) is not None:
            result[members] = np.inf
        else:
            work = trials.work(flat, configuration)
            result[members] = work.reshape(values.shape[:2]).mean(0)
    return result


def alike(
    space: SearchSpace, candidates: Floats
) -> list[tuple[dict[str, Any], NDArray[np.int64]]]:
    """Static configurations, and which of the candidates ``(n, k)`` have each."""
    if not space.fields:
        return [({}, np.arange(len(candidates)))]
    groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for k, candidate in enumerate(candidates):
        found = space.configuration(candidate)
        groups.setdefault(repr(sorted(found.items())), (found, []))[1].append(k)
    return [(found, np.array(members)) for found, members in groups.values()]


# -- searchers of other packages ------------------------------------------------------


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Only errors of a package are logged; its own setting is put back."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def library_seed(seed: int) -> int:
    """A seed of 31 bits, for packages that take no larger one."""
    return int(np.random.SeedSequence((seed, 0)).generate_state(1)[0] >> 1)


def from_suggestion(space: SearchSpace, given: Mapping[str, float]) -> list[float]:
    """A candidate ``(k,)`` from positions and numbers of choices by name."""
    return [
        (given[name] + 0.5) / space.choices[name]
        if name in space.choices
        else float(given[name])
        for name in space.names
    ]


def to_suggestion(space: SearchSpace, candidate: Floats) -> dict[str, float]:
    """What `from_suggestion` makes the candidate ``(k,)`` of."""
    given: dict[str, float] = {}
    for name, position in zip(space.names, candidate, strict=True):
        n = space.choices.get(name)
        given[name] = float(position) if n is None else min(int(position * n), n - 1)
    return given
