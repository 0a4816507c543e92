"""The tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it.

"Algorithms for hyper-parameter optimization", NIPS 24; the multivariate variant of
Falkner, Klein and Hutter 2018. Two densities are fitted, of good candidates and of the
others; the next candidate is likely under the first and unlikely under the second.

With several objectives the good ones are those of the first Pareto fronts (Ozaki et al.
2022, "Multiobjective tree-structured Parzen estimator", JAIR 73).

A generation is suggested at once and trained as one population: candidates that wait
for their result count as bad (a "constant liar"), which keeps the others away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dacrl_env.core.installed import require
from dacrl_env.core.isolation import as_usual
from dacrl_env.core.store import Store
from dacrl_env.methods.objectives import (
    Tellable,
    TellableSeveral,
    aims,
    check_objectives,
)
from dacrl_env.methods.search import (
    Incumbent,
    affordable,
    check_candidates,
    default_candidate,
    from_suggestion,
    library_seed,
    quiet,
    search_space,
    to_suggestion,
    train,
)
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Task


@dataclass(frozen=True)
class TPE:
    """Candidates from densities of good and of other ones.

    Args:
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        seeds: tuning runs a candidate.
        objective: of a run: "final", "best" or "auc" of the observed score.
        generation: candidates suggested at once and trained side by side.
        startup: candidates drawn uniformly before there are densities.
        default_first: the first candidate keeps every default; it is charged as any.
        objectives: several instead of the one, the first of which says which policy is
            returned; "cost" is that of a run in floating-point operations. The fit then
            has a Pareto front.

    Raises:
        ValueError: generation or startup below 1; see `SearchSpace` and `Trials`.
        ImportError: without Optuna.
    """

    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    seeds: int = 1
    objective: str = "final"
    generation: int = 8
    startup: int = 10
    default_first: bool = True
    objectives: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_objectives(self.objective, self.objectives)
        for name in ("generation", "startup"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        require("optuna", "TPE needs optuna")

    @as_usual  # the library's numbers underflow
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
        """The best of all candidates that the budget pays for.

        Raises:
            ValueError: the budget is below one candidate.
        """
        import optuna

        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family)
        check_candidates(trials, self.seeds)
        aimed = aims(self)
        best = Incumbent(space, trials, aimed)
        tellable: Any = TellableSeveral(trials, self.objectives)
        if isinstance(aimed, str):
            tellable = Tellable(trials)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(
                range(space.choices[name])
            )
            if name in space.choices
            else optuna.distributions.FloatDistribution(0, 1)
            for name in space.names
        }
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            seed=library_seed(seed),
            multivariate=True,
            constant_liar=True,
        )
        runs = self.generation * self.seeds
        with quiet("optuna"):
            up = optuna.study.StudyDirection.MAXIMIZE
            study = optuna.create_study(
                directions=[up] * max(1, len(self.objectives)), sampler=sampler
            )
            if self.default_first:
                study.enqueue_trial(to_suggestion(space, default_candidate(space)))
            # runs that diverge leave steps for further candidates
            while n := affordable(trials, self.seeds, runs):
                asked = [study.ask(distributions) for _ in range(n)]
                candidates = np.array([from_suggestion(space, t.params) for t in asked])
                scores, judged = train(trials, space, candidates, self.seeds, aimed)
                for trial, score in zip(asked, tellable(scores), strict=True):
                    study.tell(trial, score)
                best.offer(candidates, scores, judged)
        return best.fitted()
