"""Sequential halving over seeds (Karnin, Koren and Somekh 2013, ICML).

"Almost optimal exploration in multi-armed bandits": in every round the candidates that
are left share the same number of runs, and the better half stays. All runs are complete
ones. Few runs tell bad candidates from good ones; to tell good ones from each other
takes many, and they get them. Every round is on fresh tuning seeds, the same for all
candidates; what counts is a candidate's mean over all its runs. Of many runs of a good
candidate one may diverge: it counts with the task's floor, as it does in a test.

To be told from successive halving, where candidates that stay are trained for longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.store import Store
from dacrl_env.methods.rungs import promote
from dacrl_env.methods.search import (
    around,
    default_candidate,
    go_on,
    search_space,
    within,
)
from dacrl_env.methods.search_space import ROWS, SearchSpace
from dacrl_env.methods.trials import Trials, check_objective, check_usable
from dacrl_env.policies import Cost, Fitted, Policy
from dacrl_env.tasks import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SequentialHalving:
    """Ever fewer candidates on ever more seeds.

    What keeps the default, or `start`, is one of the candidates; half of the others lie
    near it, half anywhere in the space.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        family: of `SearchSpace`: one of `search_space.FAMILIES`.
        rows: observation rows of the family "gate".
        candidates: at the beginning, at least 2; None: as many as one run each in the
            first round pays for.
        objective: of a run: "final", "best" or "auc" of the observed score.
        start: name to value of parameters of the space (`SearchSpace.names`), by which
            the first candidate differs from what keeps the default.
        static_first: half of the budget finds a static configuration in the same way,
            and that instead of the default is what the first candidate keeps.
        most_work: candidates take at most so many times the floating-point operations
            of the default, in the mean over a run; others are drawn again. None: any.

    Raises:
        ValueError: numbers out of range, or static configurations first and again; see
            also `SearchSpace` and `Trials`.
    """

    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    rows: Sequence[str] = ROWS
    candidates: int | None = None
    objective: str = "final"
    start: Mapping[str, float] | None = None
    static_first: bool = False
    most_work: float | None = None

    def __post_init__(self) -> None:
        check_objective(self.objective)
        n = self.candidates
        if n is not None and (not isinstance(n, int) or n < 2):
            raise ValueError(
                f"candidates must be a whole number of at least 2, or None; got {n!r}"
            )
        if self.most_work is not None and not self.most_work > 0:
            raise ValueError(f"most_work must be positive, got {self.most_work}")
        if self.most_work is not None and self.family == "gate":
            raise ValueError("most_work is not known of the family gate; leave it out")
        if self.static_first and self.family == "static":
            raise ValueError(
                "static_first is for the families that begin at a static "
                "configuration: schedule, freeze, switch, gate; the family is static"
            )

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
        """The one that is left.

        Raises:
            ValueError: the budget is below one run of each candidate in every round.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        families = ("static", self.family) if self.static_first else (self.family,)
        runs = trials.left // trials.steps // len(families)
        n = self.candidates or most_candidates(runs)
        if runs < n * rounds(n):
            whole = n * rounds(n) * len(families)
            raise ValueError(
                f"a tuning budget of {trials.left:,} steps is below {rounds(n)} rounds "
                f"of {n} runs{', twice' if self.static_first else ''}, which take "
                f"{whole * trials.steps:,}"
            )
        generator = np.random.default_rng((seed, 0))
        course: list[tuple[Cost, Policy]] = []
        found: dict[str, float] = {}
        used = 0  # seeds
        for family in families:
            space = search_space(trials, self.space, family, self.rows)
            start = space.constant(found)
            if family == self.family:
                start |= self.start or {}
            centre = default_candidate(space, start)
            left = within(
                trials,
                space,
                around(space, centre, generator, n),
                self.most_work,
                partial(_others, space, centre, generator),
            )
            scores = np.empty((n, 0))
            for _ in range(rounds(n)):
                each = runs // (len(left) * rounds(n))
                seeds = trials.tuning_seeds(each, first=used)
                used += each
                trials.begin(seeds * len(left))
                seen = go_on(trials, space, left, each, 0, trials.decisions)
                fresh = seen.objective(self.objective).reshape(-1, each)
                scores = np.hstack([scores, fresh])
                counted = np.where(np.isfinite(scores), scores, trials.task.floor_score)
                better = promote(counted.mean(1), math.ceil(len(left) / 2))
                left, scores = left[better], scores[better]
                course.append((trials.cost, space.policy(left[0], trials.decisions)))
            check_usable(float(scores[0].max()), trials)  # some run of it went well
            (found,) = space.decode(left[:1])
        judged = trials.judge().reshape(-1, each).mean(1)
        return trials.fitted(course[-1][1], course, float(judged[better[0]]))


def _others(
    space: SearchSpace, centre: Floats, generator: np.random.Generator, n: int
) -> Floats:
    """Candidates ``(n, k)`` as at the beginning, the centre left out."""
    return around(space, centre, generator, n + 1)[1:]


def rounds(candidates: int) -> int:
    """Halvings, rounded up, that leave one of `candidates`."""
    return math.ceil(math.log2(candidates))


def most_candidates(runs: int) -> int:
    """As many as `runs` pay for with one run each in every round; 2 at least."""
    n = 2
    while (n + 1) * rounds(n + 1) <= runs:
        n += 1
    return n
