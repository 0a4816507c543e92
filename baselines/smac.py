"""SMAC (Lindauer et al. 2022) with its multi-fidelity facade, by ask and tell.

"SMAC3: A versatile Bayesian optimization package for hyperparameter optimization", JMLR
23. Hyperband whose candidates come from a random forest instead of a uniform draw. SMAC
suggests and promotes; training is ours, each rung as one population, and promoted runs
go on from where they stood.

With several objectives its model is fitted to a weighted norm of them, with other
weights each time, and the first Pareto fronts are promoted. That is ParEGO (Knowles
2006, "ParEGO: a hybrid algorithm with on-line landscape approximation for expensive
multiobjective optimization problems", IEEE Transactions on Evolutionary Computation
10).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.installed import require
from dacrl_env.core.isolation import as_usual
from dacrl_env.core.store import Store
from dacrl_env.methods.objectives import (
    Tellable,
    TellableSeveral,
    aims,
    check_objectives,
)
from dacrl_env.methods.rungs import (
    Rungs,
    brackets,
    check_bracket,
    check_eta,
    decisions,
    race,
)
from dacrl_env.methods.search import (
    Incumbent,
    Objective,
    affordable,
    default_candidate,
    from_suggestion,
    library_seed,
    quiet,
    search_space,
    to_suggestion,
    train,
)
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials, check_objective
from dacrl_env.policies import Fitted
from dacrl_env.tasks import Task

if TYPE_CHECKING:
    from ConfigSpace import Configuration, ConfigurationSpace
    from smac import Scenario
    from smac.acquisition.maximizer import LocalAndSortedRandomSearch
    from smac.model.random_forest import RandomForest
    from smac.runhistory import TrialInfo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SMAC:
    """Hyperband with a model.

    The model is fitted to the highest fidelity that has results. What the end of the
    budget leaves after the last whole bracket goes to the next candidates of the
    model, trained to the end.

    Args:
        eta: one in eta candidates is promoted, to eta times the fidelity.
        space: name to lowest and highest value; None: all that are controlled.
        family: kind of policy, one of `search_space.FAMILIES`.
        seeds: tuning runs a candidate; SMAC sees their mean.
        objective: of a run: "final", "best" or "auc" of the observed score so far.
        default_first: the first candidate keeps every default; it is charged as any.
        objectives: several instead of the one, the first of which says which policy is
            returned; "cost" is that of a run in floating-point operations. The fit then
            has a Pareto front. Those of a run are as far as it has come.

    Raises:
        ValueError: eta below 2; see `SearchSpace` and `Trials`.
        ImportError: without SMAC.
    """

    eta: int = 3
    space: Mapping[str, Sequence[float]] | None = None
    family: str = "static"
    seeds: int = 1
    objective: str = "final"
    default_first: bool = True
    objectives: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_objectives(self.objective, self.objectives)
        check_eta(self.eta)
        require("smac", "SMAC needs smac")

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
        """The best of the candidates that were trained to the end.

        Raises:
            ValueError: the budget is below the first bracket.
        """
        trials = Trials(task, budget, seed, self, store, progress, **task_kwargs)
        space = search_space(trials, self.space, self.family)
        table = brackets(trials.decisions, self.eta)
        check_bracket(trials, table[0], self.seeds)
        aimed = aims(self)
        best = Incumbent(space, trials, aimed)
        unit = self.seeds * trials.settings.decision_interval
        with TemporaryDirectory() as directory, quiet("smac"):
            smac = _Suggestions(
                space,
                trials,
                table,
                self.eta,
                unit,
                Path(directory),
                self.default_first,
                aimed,
            )
            for rungs in cycle(table):
                if decisions(rungs) * unit > trials.left:
                    break
                candidates = smac.ask(rungs[0][0])
                scores = race(best, candidates, rungs, self.seeds, aimed, smac.promoted)
                smac.tell(scores)
            # runs that diverge leave steps for further candidates
            while n := affordable(trials, self.seeds, self.seeds * rungs[0][0]):
                candidates = smac.ask(n)
                best.offer(
                    candidates,
                    *train(trials, space, candidates, self.seeds, aimed),
                )
        return best.fitted()


class _Suggestions:
    """SMAC's side: candidates and promotions of one rung after the other."""

    def __init__(
        self,
        space: SearchSpace,
        trials: Trials,
        table: list[Rungs],
        eta: int,
        unit: int,
        directory: Path,
        default_first: bool,
        objective: Objective,
    ) -> None:
        from smac import MultiFidelityFacade, Scenario
        from smac.multi_objective.parego import ParEGO

        _check_counts(table, eta)
        self.space = space
        several = not isinstance(objective, str)
        self.tellable: Any = (
            TellableSeveral(trials, objective) if several else Tellable(trials)
        )
        scenario = Scenario(
            _configuration_space(space),
            output_directory=directory,  # of files that the journal makes needless
            deterministic=True,  # tuning seeds are ours
            # a little below, so that no rounding error loses the first bracket
            min_budget=trials.decisions / eta ** (len(table) - 1) * (1 - 1e-9),
            max_budget=trials.decisions,
            n_trials=trials.left // unit,  # at least one decision each
            objectives=list(objective) if several else "cost",  # names alone
            seed=library_seed(trials.seed),
        )
        self.first: list[Configuration] = []
        if default_first:
            self.first.append(_configuration(scenario.configspace, space))
        with warnings.catch_warnings():
            # SMAC describes added configurations in a way that ConfigSpace gives up
            warnings.simplefilter("ignore", DeprecationWarning)
            self.facade = MultiFidelityFacade(
                scenario,
                model=_model(scenario),
                multi_objective_algorithm=ParEGO(scenario) if several else None,
                acquisition_maximizer=_maximizer(scenario),
                intensifier=MultiFidelityFacade.get_intensifier(
                    scenario,
                    eta=eta,
                    # a front of candidates that stand at different rungs is none
                    incumbent_selection="highest_budget"
                    if several
                    else "highest_observed_budget",
                ),
                logging_level=False,  # which leaves the configuration of logging alone
                # the first rung; later draws of the same generator would repeat its own
                initial_design=MultiFidelityFacade.get_initial_design(
                    scenario,
                    n_configs=table[0][0][0] - len(self.first),
                    max_ratio=1,
                    additional_configs=list(self.first),
                ),
                overwrite=True,
            )
        self.asked: list[TrialInfo] = []

    def ask(self, n: int) -> Floats:
        """Candidates ``(n, k)`` to train."""
        self.asked = [self.facade.ask() for _ in range(n)]
        # the initial design ends with what was added to it
        self.asked.sort(key=lambda trial: trial.config not in self.first)
        return np.array([from_suggestion(self.space, i.config) for i in self.asked])

    def tell(self, scores: Floats) -> None:
        """Tell the scores ``(n,)`` or ``(n, m)`` of what was asked last."""
        from smac.runhistory import TrialValue

        # the very trial that was asked for: SMAC compares its seed and fidelity
        for trial, score in zip(self.asked, self.tellable(scores), strict=True):
            cost = [-one for one in score] if isinstance(score, list) else -score
            self.facade.tell(trial, TrialValue(cost), save=False)

    def promoted(self, scores: Floats, n: int) -> Ints:
        """Tell the scores of a rung; indices ``(n,)`` of those that go on."""
        self.tell(scores)
        before = [trial.config for trial in self.asked]
        self.asked = [self.facade.ask() for _ in range(n)]
        return np.array([before.index(trial.config) for trial in self.asked])


def _check_counts(table: list[Rungs], eta: int) -> None:
    """Raise a ValueError where a rounding error of SMAC leaves a rung without runs."""
    from smac.intensifier import Hyperband

    for rungs in table:
        _, counts = Hyperband._compute_configs_and_budgets_for_stages(
            eta, rungs[-1][1], len(rungs) - 1, len(table) - 1
        )
        if counts != [n for n, _ in rungs]:
            raise ValueError(
                f"SMAC cannot halve runs of {rungs[-1][1]} decisions with eta={eta}: "
                f"it promotes {counts} instead of {[n for n, _ in rungs]}; choose "
                "another eta or a longer decision_interval"
            )


def _configuration_space(space: SearchSpace) -> ConfigurationSpace:
    """The unit cube, with names."""
    from ConfigSpace import Categorical, ConfigurationSpace, Float

    dimensions = [
        Categorical(name, list(range(space.choices[name])))
        if name in space.choices
        else Float(name, (0.0, 1.0))
        for name in space.names
    ]
    return ConfigurationSpace({d.name: d for d in dimensions})


def _configuration(known: ConfigurationSpace, space: SearchSpace) -> Configuration:
    """What keeps every default."""
    from ConfigSpace import Configuration

    return Configuration(known, to_suggestion(space, default_candidate(space)))


def _model(scenario: Scenario) -> RandomForest:
    """The facade's random forest, made faster: one thread, and no room for 2²⁰ leaves.

    There are at most as many leaves as results, and so many as are allowed are
    allocated for every tree.
    """
    from smac.model.random_forest import RandomForest

    return RandomForest(
        scenario.configspace,
        log_y=True,
        n_trees=10,
        ratio_features=1.0,
        min_samples_split=2,
        min_samples_leaf=1,
        max_leaf_nodes=max(2, scenario.n_trials),
        bootstrapping=True,
        seed=scenario.seed,
        n_jobs=1,
    )


def _maximizer(scenario: Scenario) -> LocalAndSortedRandomSearch:
    """The facade's maximizer, with the same result in every process.

    Its local search starts from a set of configurations. They are hashed as strings,
    so that the order, and with it every draw, differed between processes; and a fit
    that goes on in another process has to ask for the same.
    """
    from smac import MultiFidelityFacade

    maximizer = MultiFidelityFacade.get_acquisition_maximizer(scenario)
    local: Any = maximizer._local_search
    points = local._get_initial_points
    local._get_initial_points = lambda *args: sorted(
        points(*args), key=lambda config: config.get_array().tolist()
    )
    return maximizer
