"""A fit all of whose candidates fail has nothing to return, and says so."""

from __future__ import annotations

import pytest
from cases import quick, slow

import dacrl_env
from dacrl_env.outer.population import Population
from dacrl_env.policies import get_method
from dacrl_env.tasks import Number

QUADRATIC = "dacrl/NoisyQuadratic-v0"
# with which every run diverges
WILD = Number("learning_rate", 99.0, 100.0, 99.5, "log")
METHODS = [
    "grid-search",
    "random-search",
    "random-schedules",
    "race,seeds=1,finalists=1,fresh=1",
    "sequential-halving,candidates=4",
    "successive-halving",
    "hyperband",
    "tpe,generation=4",
    slow("smac"),
    "cma-es,generation=4,seeds=1",
    "pbt,population=4",
    "pb2,population=4",
    slow("controller-ppo,population=2,trial_runs=2,trials=1"),
]


@pytest.mark.parametrize("method", METHODS)
def test_it_is_an_error(method):
    # what diverges at once leaves its steps to hundreds of others
    steps = 2000 if method.startswith(("controller", "sequential")) else 200
    with pytest.raises(ValueError, match="diverged") as caught:
        dacrl_env.fit(QUADRATIC, method, steps, 0, hyperparameters=[WILD])
    for word in (QUADRATIC, "to return", "learning_rate"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "method",
    quick(
        METHODS[:-1], "hyperband", "random-search", "sequential-halving,candidates=4"
    ),
)
def test_one_that_does_not_fail_is_enough(method):
    either = Number("learning_rate", 1e-4, 100.0, 1e-2, "log")
    fitted = dacrl_env.fit(QUADRATIC, method, 2000, 0, hyperparameters=[either])
    assert fitted.cost.env_steps > 0


def test_nothing_is_done_for_runs_that_have_all_failed(monkeypatch):
    advanced, advance = [], Population.advance

    def counted(population, requested):
        advanced.append(population)
        return advance(population, requested)

    monkeypatch.setattr(Population, "advance", counted)
    with pytest.raises(ValueError, match="every candidate"):
        dacrl_env.fit(QUADRATIC, "random-search", 200, 0, hyperparameters=[WILD])
    # a generation learns in the first of its fifty decisions that all is over
    assert 50 < len(advanced) < 200


def test_a_candidate_that_fails_on_one_seed_has_failed():
    """Its mean is no number that it could be compared by."""
    method = get_method("random-search,seeds=2")
    with pytest.raises(ValueError, match="every candidate"):
        method.fit(QUADRATIC, 400, 0, hyperparameters=[WILD])


def test_a_store_tells_it_again(tmp_path):
    method = "random-search,space={'learning_rate':(99.0,100.0)}"
    for _ in range(2):
        with pytest.raises(ValueError, match="every candidate"):
            dacrl_env.fit(QUADRATIC, method, 100, 0, store=tmp_path)
