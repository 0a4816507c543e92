"""The bandit over hyperparameters and their values, by hand and on runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dacrl_env.baselines.ultho import ULTHO, default_menu, first_of, upper_bounds
from numpy.typing import NDArray

import dacrl_env
from dacrl_env import Choice, Event, Number
from dacrl_env.core import streams

TASK = "dacrl/DQN-CartPole-v0"
RATES = (1e-4, 1e-3, 1e-2, 1e-1)
SHORT: dict[str, Any] = {
    "budget": 2_000, "decision_interval": 200, "eval_episodes": 1,
    "learning_starts": 100,
}  # fmt: skip


class Play:
    """A bandit and members whose scores a test makes up."""

    def __init__(
        self,
        policy: ULTHO,
        P: int = 3,
        seed: Any = 0,
        mode: str = "values",
        **more: Any,
    ) -> None:
        given = {"hyperparameters": policy.hyperparameters, **SHORT, **more}
        self.envs = dacrl_env.PopulationEnv(TASK, P, action_mode=mode, **given)
        self.envs.reset(seed=seed)
        policy.reset(self.envs, 0)
        self.policy, self.decision = policy, 0
        self.scores = np.zeros(P)  # since the decision before
        self.names = [h.name for h in self.envs.settings.controlled]

    def decide(self) -> NDArray[Any]:
        """Codes ``(P, d)`` asked for."""
        steps = np.full(len(self.scores), 200 * self.decision)
        actions = self.policy.act(None, {"env_steps": steps, "score": self.scores})
        self.decision += 1
        actions_map = self.envs.population.actions
        return actions_map.to_values(actions, self.envs.population.state.requested)


# -- parts ---------------------------------------------------------------------------


def test_bounds_by_hand() -> None:
    counts = np.array([[3, 1, 0], [1, 1, 1]])
    payoffs = np.zeros((2, 3, 2))
    payoffs[0] = [[0.4, 0.8], [0.5, 9.0], [9.0, 9.0]]  # 9: of nobody
    payoffs[1] = [[0.1, 9.0], [0.2, 9.0], [0.3, 9.0]]
    found = upper_bounds(counts, payoffs, 0.7)
    first = [0.6 + 0.7 * np.sqrt(np.log(4) / 3), 0.5 + 0.7 * np.sqrt(np.log(4)), np.inf]
    second = np.array([0.1, 0.2, 0.3]) + 0.7 * np.sqrt(np.log(3))
    np.testing.assert_allclose(found, [first, second], rtol=1e-14)


def test_ties_are_broken_evenly() -> None:
    bounds = np.tile([0.3, 0.7, 0.1, 0.7], (4_000, 1))
    draws = streams.uniforms(np.arange(4_000, dtype=np.uint64), np.zeros(1, int), 4)
    counts = np.bincount(first_of(bounds, draws), minlength=4)
    assert counts[0] == counts[2] == 0
    assert abs(counts[1] - 2_000) < 150
    infinite = np.full((4_000, 4), np.inf)
    assert np.bincount(first_of(infinite, draws)).min() > 850


def test_the_default_menu_by_hand() -> None:
    knobs = (
        Number("rate", 1e-6, 1e-2, 1e-4, "log"),
        Number("size", 1, 5, 2, integer=True),
        Number("weight", 0.0, 1.0, 0.0),
        Number("gamma", 0.9, 0.999, 0.99, "log_complement"),
        Choice("loss", ("huber", "mse"), "mse"),
        Event("reset_all"),
    )
    menu = default_menu(knobs, 3)
    assert list(menu) == ["rate", "size", "weight", "gamma", "loss"]
    np.testing.assert_allclose(menu["rate"], [1e-5, 1e-4, 1e-3])
    assert menu["rate"][1] == 1e-4  # type: ignore[comparison-overlap]
    assert menu["size"] == [2, 4]  # 1.5 and 3.5, rounded to even
    assert menu["weight"] == [0.0, 0.5]  # nothing lies below the default
    complements = 1 - np.array(menu["gamma"], float)
    np.testing.assert_allclose(complements, [10**-1.5, 10**-2, 10**-2.5])
    assert menu["loss"] == ["huber", "mse"]
    five = default_menu(knobs[:1], 5)["rate"]
    np.testing.assert_allclose(
        np.log10(np.array(five, float)), np.linspace(-16, -8, 5) / 3
    )


# -- what it chooses -----------------------------------------------------------------


def test_all_are_tried_first_in_any_order() -> None:
    play = Play(ULTHO({"learning_rate": RATES}), 16)
    seen = np.stack([play.decide()[:, 0] for _ in range(4)])
    assert {tuple(sorted(column)) for column in seen.T} == {RATES}
    assert len({tuple(column) for column in seen.T}) > 6  # of 24


def test_decisions_by_hand() -> None:
    menu = {"learning_rate": (1e-4, 1e-3), "epsilon": (0.1, 0.2, 0.3)}
    policy = ULTHO(menu, window=2, exploration=0.5)
    play = Play(policy, 5)
    generator = np.random.default_rng(0)
    seen: list[list[tuple[int, int, float]]] = [[] for _ in range(5)]
    current = np.tile([1e-3, 0.1], (5, 1))  # defaults
    for _ in range(25):
        values = play.decide()
        play.scores = generator.uniform(size=5)
        for i, (cluster, arm) in enumerate(policy.chosen):
            for level, place in ((None, cluster), (cluster, arm)):
                paid = [
                    [s for c, a, s in seen[i] if (c if level is None else a) == k
                     and level in (None, c)]
                    for k in range(2 if level is None else (2, 3)[level])
                ]  # fmt: skip
                t = sum(map(len, paid))
                bounds = [
                    np.mean(p[-2:]) + 0.5 * np.sqrt(np.log(t) / len(p)) if p else np.inf
                    for p in paid
                ]
                assert bounds[place] == pytest.approx(max(bounds))
            current[i, cluster] = list(menu.values())[cluster][arm]
            seen[i].append((int(cluster), int(arm), play.scores[i]))
        np.testing.assert_array_equal(values, current)  # others stay as they are
    assert {(c, a) for run in seen for c, a, _ in run} == {
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2)
    }  # fmt: skip


def payoffs(chosen: NDArray[Any], best: int, noise: NDArray[Any]) -> NDArray[Any]:
    return np.where(chosen == best, 0.8, 0.4) + 0.1 * noise


def test_it_finds_the_best_of_stationary_arms() -> None:
    policy, P = ULTHO({"learning_rate": RATES}, exploration=0.2), 64
    play, used = Play(policy, P), []
    noise = np.random.default_rng(0).normal(size=(120, P))
    for k in range(120):
        play.decide()
        used.append(policy.chosen[:, 1].copy())
        play.scores = payoffs(used[-1], 2, noise[k])
    assert np.mean(np.array(used)[-60:] == 2) > 0.9
    assert np.mean(np.array(used)[-60:] == 2, 0).min() > 0.6  # each of the members


@pytest.mark.parametrize("window", [5, 200])
def test_it_follows_when_another_is_the_best(window: int) -> None:
    policy, P = ULTHO({"learning_rate": RATES}, window, exploration=0.2), 64
    play, used = Play(policy, P), []
    noise = np.random.default_rng(1).normal(size=(150, P))
    for k in range(150):
        play.decide()
        used.append(policy.chosen[:, 1].copy())
        good = payoffs(used[-1], 3 if k >= 60 else 1, noise[k])
        play.scores = np.where((used[-1] == 1) & (k >= 60), 0.1, good)
    chosen = np.array(used)
    assert np.mean(chosen[40:60] == 1) > 0.9
    # once the window is full of what is now, if it is as short
    followed, left = np.mean(chosen[65:75] == 3), np.mean(chosen[65:75] == 1)
    assert (followed > 0.8, left < 0.05) == (window == 5, window == 5)
    assert np.mean(chosen[120:] == 3) > 0.8


def test_of_clusters_it_finds_the_one_that_matters() -> None:
    policy = ULTHO(
        {"learning_rate": RATES, "epsilon": (0.1, 0.5)}, exploration=0.1, window=5
    )
    play, P = Play(policy, 64), 64
    rates = []
    for _ in range(150):
        values = play.decide()
        rates.append(values[:, 0])
        # while the other is tried, the good rate stays
        play.scores = np.where(values[:, 0] == 1e-2, 0.9, 0.2) + np.zeros(P)
    assert np.mean(np.array(rates)[-50:] == 1e-2) > 0.8


def test_configurations_are_arms_of_one_cluster() -> None:
    menu = [
        {"learning_rate": 1e-2, "double_q": True},
        {"epsilon": 0.3},
        {"loss": "mse"},
    ]
    play = Play(ULTHO(menu), 8)
    assert play.names == ["learning_rate", "double_q", "epsilon", "loss"]
    rows = {tuple(row) for _ in range(3) for row in play.decide()}
    # what is left out has its default
    assert rows == {(1e-2, 1, 0.1, 0), (1e-3, 0, 0.3, 0), (1e-3, 0, 0.1, 1)}


def test_of_events_nothing_stays() -> None:
    play = Play(ULTHO({"reset_head": (False, True), "epsilon": (0.1, 0.2)}), 32)
    for _ in range(12):
        values = play.decide()
        fired = values[:, 0] > 0
        wanted = (play.policy.chosen == [0, 1]).all(1)
        np.testing.assert_array_equal(fired, wanted)


# -- runs -----------------------------------------------------------------------------


def test_a_run_does_not_depend_on_its_company() -> None:
    def played(P: int, seed: Any, scores: NDArray[Any]) -> NDArray[Any]:
        play, found = Play(ULTHO(), P, seed, hyperparameters=None), []
        for row in scores:
            found.append(play.decide())
            play.scores = row
        return np.array(found)

    scores = np.random.default_rng(0).uniform(size=(20, 64))
    together = played(64, list(range(64)), scores)
    alone = played(1, [9], scores[:, 9:10])
    np.testing.assert_array_equal(together[:, 9:10], alone)
    others = np.where(np.arange(64) == 9, scores, 0.5)
    np.testing.assert_array_equal(
        played(64, list(range(64)), others)[:, 9], alone[:, 0]
    )


def test_new_runs_start_over_alone() -> None:
    policy = ULTHO({"learning_rate": RATES})
    play = Play(policy)
    for _ in range(6):
        play.decide()
    assert policy.counts.sum((1, 2)).tolist() == [5, 5, 5]
    infos = {"env_steps": np.array([1_200, 0, 1_200]), "score": np.full(3, 0.5)}
    policy.act(np.zeros(0), infos)
    assert policy.counts.sum((1, 2)).tolist() == [6, 0, 6]


def test_as_evaluated_with_choices_and_events() -> None:
    spec = "ultho,menu={'exploration':['ez-greedy','epsilon-greedy'],"
    spec += "'clear_replay':[True],'learning_rate':[0.0001,0.05]}"
    options = {**SHORT, "decision_interval": 100}
    frame = dacrl_env.evaluate(TASK, spec, 3, split="tuning", **options)
    told = frame[frame["step"] > 0]
    assert set(told["hp/learning_rate"]) == {1e-3, 1e-4, 0.05}  # the default at first
    assert set(told["hp/exploration"]) == {"ez-greedy", "epsilon-greedy"}
    assert set(told["hp/clear_replay"].dropna()) == {True, False}


@pytest.mark.parametrize("mode", ["values", "continuous", "relative"])
def test_modes_of_actions(mode: str) -> None:
    play = Play(ULTHO(), 2, mode=mode, hyperparameters=["learning_rate", "double_q"])
    for _ in range(5):
        values = play.decide()
        assert np.isfinite(values).all()
        if mode != "relative":  # which goes there step by step
            np.testing.assert_allclose(values, play.policy.values)


def test_the_rates_of_a_schedule_may_lie_outside_of_the_tasks_range() -> None:
    assert ULTHO({"learning_rate": RATES}).extremes == {"learning_rate": (1e-4, 1e-1)}
    assert ULTHO().hyperparameters == ()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ultho,window=0", "window"),
        ("ultho,exploration=-1", "exploration must not be negative"),
        ("ultho,points=1", "points"),
        ("ultho,decisions=0", "decisions"),
        ("ultho,menu={'epsilon':[0.1]}", "at least two arms"),
        ("ultho,menu={'epsilon':[0.1,0.2],'loss':[]}", "at least two arms"),
        ("ultho,menu={'loss':'huber'}", "of type Sequence, got 'huber'"),
        ("ultho,menu=[1,2]", "of type Mapping, got 1"),
        ("ultho,menu=[{},{'loss':'mse'}]", "a menu is a dict of name to values"),
        ("ultho,menu={'loss':['huber','l1']}", "loss has no option 'l1'"),
        ("ultho,menu={'epsilon':[0.1,2]}", "outside its range"),
        ("ultho,menu={'epsilom':[0.1,0.2]}", "did you mean 'epsilon'"),
    ],
)
def test_what_cannot_be(spec: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dacrl_env.evaluate(TASK, spec, 1, **SHORT)


def test_nothing_but_events() -> None:
    with pytest.raises(ValueError, match="nothing to choose from"):
        Play(ULTHO(), 1, hyperparameters=["reset_all", "checkpoint"])
