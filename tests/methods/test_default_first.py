"""The default configuration as the first candidate of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import but_smac, quick, slow

from dacrl_env.methods.search import default_candidate, from_suggestion, to_suggestion
from dacrl_env.methods.search_space import EVENT_OF, FAMILIES, SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import get_method, to_json

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "eval_episodes": 1,
    "learning_starts": 100,
}
DEFAULTS = {"learning_rate": 1e-3, "epsilon": 0.1, "batch_size": 64.0}
ASKED = {
    "random-search": ",default_first=True",
    "random-schedules": ",default_first=True",
    "grid-search": ",points=2,default_first=True",
    "successive-halving": ",eta=2,default_first=True",
    "hyperband": ",eta=2,default_first=True",
    "tpe": "",
    "smac": ",eta=2",
    "cma-es": ",seeds=1,generation=4,default_first=True",
    "pbt": ",population=4,default_first=True",
    "pb2": ",population=4,default_first=True",
    "race": "",
    "sequential-halving": "",
}
UNASKED = {
    **dict.fromkeys(ASKED, ""),
    "grid-search": ",points=2",
    "successive-halving": ",eta=2",
    "hyperband": ",eta=2",
    "tpe": ",default_first=False",
    "smac": ",eta=2,default_first=False",
    "cma-es": ",seeds=1,generation=4",
    "pbt": ",population=4",
    "pb2": ",population=4",
}
BUDGET = 8_000
ALWAYS = ("race", "sequential-halving")


def first(spec: str, budget: int = BUDGET, **options: Any) -> tuple[Any, Any]:
    """The fit, and what its first run was trained with at its first decision."""
    fitted = get_method(spec).fit(CARTPOLE, budget, 0, **{**SMALL, **options})
    assert fitted.trace is not None
    row = fitted.trace.sort_values(["generation", "step", "member"]).iloc[0]
    return fitted, {name: row[f"hp/{name}"] for name in DEFAULTS}


@pytest.mark.parametrize("name", but_smac(ASKED))
def test_the_first_candidate_keeps_every_default(name: str) -> None:
    fitted, values = first(name + ASKED[name])
    assert values == pytest.approx(DEFAULTS)
    assert 0 < fitted.cost.env_steps <= BUDGET  # it is charged as any


@pytest.mark.parametrize(
    "name", quick([n for n in ASKED if n not in ALWAYS], "random-search", "tpe", "pbt")
)
def test_otherwise_it_does_not(name: str) -> None:
    _, values = first(name + UNASKED[name])
    assert values != pytest.approx(DEFAULTS)


@pytest.mark.parametrize(
    "name", ["random-search", slow("hyperband"), slow("successive-halving"), "pbt"]
)
def test_the_others_stay_what_they_are(name: str) -> None:
    """All but the first are drawn as if nobody had asked."""
    columns = ["generation", "member", "step", *(f"hp/{n}" for n in DEFAULTS)]
    made = []
    for spec in (name + ASKED[name], name + UNASKED[name]):
        fitted, _ = first(spec)
        trace = fitted.trace[(fitted.trace["generation"] == 0)]
        made.append(trace[(trace["step"] == 1) & (trace["member"] > 0)][columns])
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family(family: str) -> None:
    event = [EVENT_OF[family]] if family in EVENT_OF else []
    names = [*DEFAULTS, *event]
    spec = f"random-search,family='{family}',default_first=True"
    _, values = first(spec, 2_000, hyperparameters=names)
    if family != "gate":  # half way between two sides, both of which are the default
        assert values == pytest.approx(DEFAULTS)
    knobs = resolve(CARTPOLE, hyperparameters=names).controlled
    space = SearchSpace(knobs, family=family)
    row = default_candidate(space)
    again = from_suggestion(space, to_suggestion(space, row))
    assert space.decode(again) == space.decode(row)


@pytest.mark.parametrize("name", ["tpe", slow("smac,eta=2")])
def test_a_space_without_the_default_begins_at_its_edge(name: str) -> None:
    _, values = first(f"{name},space={{'epsilon': (0.3, 0.9)}}")
    assert values == pytest.approx({**DEFAULTS, "epsilon": 0.3})


def test_a_grid_is_one_candidate_larger() -> None:
    spec = "grid-search,points=2,default_first=True"
    fitted, _ = first(spec, 9 * 400)
    assert fitted.cost.env_steps == 9 * 400
    with pytest.raises(ValueError, match="9 candidates"):
        first(spec, 8 * 400)
    # as many points as are left beside it
    whole = get_method("grid-search,default_first=True").fit(QUADRATIC, 500, 0)
    trace = whole.trace
    assert trace is not None
    assert len(trace[trace["step"] == 1]) == 10


@pytest.mark.parametrize("name", ["tpe", slow("smac,eta=2")])
def test_it_is_told_to_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is better, it is what comes out."""
    original = Trials.advance

    def advance(self: Trials, values: Any) -> Any:
        seen = original(self, values)
        names = [h.name for h in self.controlled]
        far = np.abs(values[-1][:, names.index("epsilon")] - 0.1) > 1e-9
        scores = seen.scores.copy()
        scores[:, far] = -1.0
        scores[:, ~far] = 1.0
        object.__setattr__(seen, "scores", scores)
        return seen

    monkeypatch.setattr(Trials, "advance", advance)
    fitted, _ = first(name)
    assert to_json(fitted.policy)["arguments"] == pytest.approx(DEFAULTS)
