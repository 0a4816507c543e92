"""Rules that save, restore and reset; the learning rate that follows a divergence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dacrl_env.baselines.adaptive_kl import AdaptiveKL
from dacrl_env.baselines.reset_every import EVENTS, ResetEvery

import dacrl_env
from dacrl_env.core.store import Store
from dacrl_env.methods.search import go_on
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.observations import squash
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import get_method, get_policy
from dacrl_env.policies.checkpoint_when_best import CheckpointWhenBest
from dacrl_env.policies.frozen_schedule import FrozenSchedule
from dacrl_env.policies.restart_when_poor import RestartWhenPoor
from dacrl_env.policies.swap_when_fallen import SwapWhenFallen
from dacrl_env.policies.switch import Switch
from dacrl_env.tasks.registration import get_task

DQN, PPO = "dacrl/DQN-CartPole-v0", "dacrl/PPO-CartPole-v0"
SHORT: dict[str, Any] = {
    "budget": 2_000, "decision_interval": 200, "eval_episodes": 1,
    "learning_starts": 100,
}  # fmt: skip


def begun(policy: Any, task: str = DQN, P: int = 3, **options: Any) -> Any:
    given = SHORT if task == DQN else {"budget": 20_480, "decision_interval": 2_048}
    given = {**given, "hyperparameters": policy.hyperparameters, **options}
    envs = dacrl_env.PopulationEnv(task, P, action_mode="values", **given)
    envs.reset(seed=0)
    policy.reset(envs, 0)
    return envs


def asked(
    policy: Any,
    envs: Any,
    steps: int,
    scores: list[float],
    kl: float = 0.0,
    best: list[float] | None = None,
) -> list[Any]:
    """What the first hyperparameter is set to, by options or values."""
    observations = np.zeros((len(scores), len(envs.observation_names)), np.float32)
    if "signal/kl" in envs.observation_names:
        at = list(envs.observation_names).index("signal/kl")
        observations[:, at] = squash(np.array([kl]))
    infos = {
        "env_steps": np.full(len(scores), steps),
        "score": np.array(scores),
        "objectives": {"best": np.array(scores if best is None else best)},
    }
    actions = policy.act(observations, infos)
    knob = envs.settings.controlled[0]
    return [knob.native(a) for a in actions[:, 0]]


def test_a_new_best_is_saved_and_a_fall_undone() -> None:
    policy = CheckpointWhenBest(fall=0.2)
    envs = begun(policy)
    # what untrained networks score says nothing
    assert asked(policy, envs, 0, [0.0, 0.0, 0.5]) == ["none"] * 3
    assert asked(policy, envs, 200, [0.1, 0.0, 0.31], best=[0.1, 0.05, 0.5]) == [
        "save", "none", "none",
    ]  # fmt: skip
    fallen = asked(policy, envs, 400, [-0.15, 0.0, 0.29], best=[0.1, 0.05, 0.5])
    assert fallen == ["restore", "none", "restore"]
    # as long as it stays below; of equal scores the newest is kept
    later = asked(policy, envs, 600, [-0.15, 0.05, 0.6], best=[0.1, 0.05, 0.6])
    assert later == ["restore", "save", "save"]


def test_its_configuration_holds_beside_the_event() -> None:
    spec = "checkpoint-when-best,fall=0.05,learning_rate=1e-2,double_q=True"
    frame = dacrl_env.evaluate(DQN, spec, 4, split="tuning", **SHORT)
    told = frame[frame["reward"].notna() & (frame["step"] > 0)]
    assert set(told["hp/learning_rate"]) == {1e-2}
    assert set(told["hp/double_q"]) == {True}
    assert {"save", "none"} < set(told["hp/checkpoint"])
    first = told[told["step"] == 1]
    assert set(first["hp/checkpoint"]) == {"none"}
    # restored where the score seen before the decision was far below the best before
    for _, run in told.groupby("seed"):
        start = frame[(frame["seed"] == run["seed"].iloc[0]) & (frame["step"] == 0)]
        seen = [start["score"].iloc[0], *run["score"].iloc[:-1]]
        best = seen[0]
        for score, option in list(zip(seen, run["hp/checkpoint"], strict=True))[1:]:
            best = max(best, score)
            assert (option == "restore") == (score < best - 0.05)
            assert (option == "save") == (score == best)


@pytest.mark.parametrize("event", EVENTS)
def test_resets_are_spread_evenly(event: str) -> None:
    policy = ResetEvery(times=3, event=event, epsilon=0.2)
    frame = dacrl_env.evaluate(DQN, policy, 2, split="tuning", **SHORT)
    told = frame[frame["reward"].notna() & (frame["step"] > 0)]
    happened = told[told[f"hp/{event}"].astype(bool)]
    # due after 500, 1,000 and 1,500 steps, at the next decisions; rows are their ends
    for _, run in happened.groupby("seed"):
        assert run["env_steps"].tolist() == [800, 1_200, 1_800]
    assert set(told["hp/epsilon"]) == {0.2}


def test_resets_may_end_early() -> None:
    policy = ResetEvery(times=2, until=0.5)
    begun(policy)
    assert policy.at.tolist() == [400, 800]  # after 333 and 667 of 2,000 steps


def test_networks_begin_anew_where_the_score_is_poor() -> None:
    policy = RestartWhenPoor(threshold=0.2, patience=2)
    envs = begun(policy)
    asked_for = [
        asked(policy, envs, 200 * decision, scores)
        for decision, scores in enumerate(
            [
                [0.0, 0.0, 0.0],  # nothing is known
                [0.1, 0.0, 0.2],  # patience
                [0.19, 0.2, 0.0],
                [0.0, 0.1, 0.0],
                [0.0, 0.1, 0.5],
                [0.3, 0.1, 0.1],
            ]
        )
    ]
    assert asked_for == [
        [False, False, False],
        [False, False, False],
        [True, False, True],
        [False, True, False],
        [True, False, False],
        [False, True, True],
    ]
    # another run
    assert asked(policy, envs, 0, [0.0] * 3) == [False] * 3
    assert asked(policy, envs, 200, [0.0] * 3) == [False] * 3


def test_networks_that_have_fallen_are_put_aside() -> None:
    policy = SwapWhenFallen(fall=0.4, threshold=0.3, first="copy")
    envs = begun(policy)
    smallest = envs.settings.number("learning_rate").low
    given = [
        [0.9, 0.9, 0.0],  # nothing is known
        [0.5, 0.0, 0.2],
        [0.9, 0.3, 0.6],
        [0.4, 0.2, 0.3],  # far below 0.9, and yet good
        [0.1, 0.9, 0.1],  # these networks had 0.1 at best
        [0.6, 0.4, 0.7],
        [0.1, 0.9, 0.2],
    ]
    act, actions = policy.act, []
    policy.act = lambda *seen: actions.append(act(*seen)) or actions[-1]
    swaps = [asked(policy, envs, 200 * k, scores) for k, scores in enumerate(given)]
    n, c = "none", "copy"
    assert swaps == [
        [n, n, n], [n, n, n], [n, n, n], [c, n, n], [n, n, c], [n, c, n], [c, n, c],
    ]  # fmt: skip
    expected = [[s >= 0.3 for s in scores] for scores in given]
    expected[0] = [False] * 3
    expected[3][0] = expected[5][1] = False  # swapped
    assert [(a[:, 1] == smallest).tolist() for a in actions] == expected
    # another run
    assert asked(policy, envs, 0, [0.0] * 3) == [n] * 3
    assert asked(policy, envs, 200, [0.0] * 3) == [n] * 3


def test_shuffled_swaps_are_those_of_others() -> None:
    rule = SwapWhenFallen(fall=0.4, threshold=0.8)
    shuffled = rule.shuffled()
    told: dict[bool, list[list[str]]] = {}
    scores = np.random.default_rng(0).random((12, 3))
    scores[:, 2] = 0.5  # never falls
    for policy in (rule, shuffled):
        envs = begun(policy)
        told[policy.shuffle] = [
            asked(policy, envs, 200 * k, row.tolist()) for k, row in enumerate(scores)
        ]
    counts = [[row.count("fresh") for row in told[s]] for s in (False, True)]
    assert counts[0] == counts[1]
    assert sum(counts[0]) >= 3
    assert not any(row[2] == "fresh" for row in told[False])
    assert any(row[2] == "fresh" for row in told[True])


def test_swaps_at_equal_distances_are_a_control() -> None:
    policy = SwapWhenFallen(fall=0.4, learning_rate=1e-2).every(2)
    envs = begun(policy)
    told = [asked(policy, envs, 200 * k, [0.1 * k] * 3)[0] for k in range(6)]
    assert told == ["none", "none", "fresh", "none", "fresh", "none"]


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    ("family", "event", "rows"),
    [
        (
            "restart",
            "reset_all",
            [
                {"threshold": 0.05, "patience": 1.0, "epsilon": 0.1},
                {"threshold": 1.0, "patience": 2.0, "epsilon": 0.2},
                {"threshold": 0.02, "patience": 3.0, "epsilon": 0.3},
            ],
        ),
        (
            "swap",
            "swap",
            [
                {"threshold": 0.9, "fall": 0.1, "first": 1.0, "epsilon": 0.1},
                {"threshold": 0.3, "fall": 0.1, "first": 0.0, "epsilon": 0.2},
                {"threshold": 0.3, "fall": 0.15, "first": 1.0, "epsilon": 0.3},
            ],
        ),
    ],
)
def test_a_search_of_events_does_what_its_policy_does(
    tmp_path: Any,
    interrupted: bool,
    family: str,
    event: str,
    rows: list[dict[str, float]],
) -> None:
    """Also where it goes on from a journal, with half of the runs, in another order."""
    # these runs return not much more than random actions do, which is about 22
    scale = (22.2, 500.0) if family == "restart" else (1.0, 40.0)
    task = replace(
        get_task(DQN), id="own/Easy-v0", train_instances=(), test_instances=(),
        random_return=scale[0], reference_return=scale[1],
    )  # fmt: skip
    names = ["epsilon", event, *(["learning_rate"] if family == "swap" else [])]
    bounds = {"epsilon": (0.0, 1.0)}
    settings = resolve(task, hyperparameters=names, **SHORT)
    space = SearchSpace(settings.controlled, bounds, family=family)
    method = get_method(f"random-search,family='{family}'")
    candidates = space.encode(rows)

    def trials() -> Trials:
        store = Store(tmp_path)
        given = {**SHORT, "hyperparameters": names}
        return Trials(task, 30_000, 0, method, store, **given)

    def train(runs: Trials, decisions: int = 10) -> Any:
        """What is seen at the decisions from the fifth on, of two of the runs."""
        runs.begin(runs.tuning_seeds(3))
        go_on(runs, space, candidates, 1, 0, 4)
        runs.select(np.array([2, 1]))
        rest = range(4, decisions)
        return [go_on(runs, space, candidates[[2, 1]], 1, k, k + 1) for k in rest]

    runs = trials()
    if interrupted:
        train(runs, 7)
        runs.close()
        runs = trials()
    seen, seeds = train(runs), runs.tuning_seeds(3)
    rates: list[float] = []
    for row, member in ((2, 0), (1, 1)):
        frame = dacrl_env.evaluate(
            task, space.policy(candidates[row], 10), [seeds[row]], split="tuning",
            hyperparameters=names, **SHORT,
        )  # fmt: skip
        told = frame[frame["reward"].notna() & (frame["step"] > 4)]
        assert told["score"].tolist() == [s.scores[-1, member] for s in seen]
        code = [s.applied[-1, member, 1] for s in seen]
        knob = settings.controlled[1]
        assert told[f"hp/{event}"].tolist() == [*map(knob.native, code)]
        assert any(code)
        if family == "swap":
            own = [s.applied[-1, member, 2] for s in seen]
            assert told["hp/learning_rate"].tolist() == own
            rates += own
    assert len(set(rates)) == (2 if family == "swap" else 0)  # frozen, and not


def test_the_rate_follows_the_divergence() -> None:
    policy = AdaptiveKL(initial=1e-3)
    envs = begun(policy, PPO, P=1)
    assert asked(policy, envs, 0, [0.0], kl=1.0) == [1e-3]  # nothing is known yet
    assert asked(policy, envs, 2_048, [0.0], kl=0.03) == [pytest.approx(1e-3 / 1.5)]
    assert asked(policy, envs, 4_096, [0.0], kl=0.012) == [pytest.approx(1e-3 / 1.5)]
    assert asked(policy, envs, 6_144, [0.0], kl=0.004) == [pytest.approx(1e-3)]
    for _ in range(10):
        (rate,) = asked(policy, envs, 8_192, [0.0], kl=1e-5)
    assert rate == 1e-2
    for _ in range(30):
        (rate,) = asked(policy, envs, 8_192, [0.0], kl=1.0)
    assert rate == 1e-5


def test_updates_of_ppo_come_nearer_to_the_wanted_size() -> None:
    def divergences(spec: str) -> Any:
        policy = get_policy(spec)
        envs = dacrl_env.PopulationEnv(
            PPO, 4, budget=40_960, decision_interval=2_048, feedback="train",
            hyperparameters=["learning_rate"], action_mode="values",
        )  # fmt: skip
        observations, infos = envs.reset(seed=0)
        policy.reset(envs, 0)
        row, found = list(envs.observation_names).index("signal/kl"), []
        for _ in range(19):
            observations, *_, infos = envs.step(policy.act(observations, infos))
            found.append(10 ** (8 * observations[:, row].astype(float)))
        return np.log(np.array(found[8:]) / 0.01)

    far = np.abs(divergences("static,learning_rate=1e-2")).mean()
    near = np.abs(divergences("adaptive-kl,initial=1e-2")).mean()
    assert near < 0.6 * far


@pytest.mark.parametrize(
    ("spec", "task", "words"),
    [
        ("checkpoint-when-best,fall=0", DQN, "fall must be positive"),
        ("checkpoint-when-best", "dacrl/NoisyQuadratic-v0", "'checkpoint'"),
        ("restart-when-poor,patience=0", DQN, "patience"),
        ("restart-when-poor", "dacrl/NoisyQuadratic-v0", "'reset_all'"),
        ("swap-when-fallen,fall=0", DQN, "fall must be positive"),
        ("swap-when-fallen,distance=-1", DQN, "distance"),
        ("swap-when-fallen,swap=copy", DQN, "swap is what the rule decides"),
        ("swap-when-fallen,first=none", DQN, "first"),
        ("swap-when-fallen", "dacrl/NoisyQuadratic-v0", "'swap'"),
        ("reset-every,event=clear_replay", DQN, "unknown event 'clear_replay'"),
        ("reset-every,times=0", DQN, "times"),
        ("reset-every,until=2", DQN, "until must lie"),
        ("reset-every,learning_rate=1", DQN, "outside its range"),
        ("adaptive-kl,factor=1", PPO, "factor above 1"),
        ("adaptive-kl,low=1e-9", PPO, "outside its range"),
        ("adaptive-kl", DQN, "goes by signal/kl"),
    ],
)
def test_what_cannot_be(spec: str, task: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dacrl_env.evaluate(task, spec, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "0.5", None])
@pytest.mark.parametrize(
    ("rule", "argument", "given"),
    [
        (CheckpointWhenBest, "fall", {}),
        (FrozenSchedule, "threshold", {"values": {"learning_rate": [0.1]}}),
        (RestartWhenPoor, "threshold", {}),
        (SwapWhenFallen, "fall", {}),
        (SwapWhenFallen, "threshold", {}),
        (Switch, "threshold", {"below": {"gamma": 0.9}, "above": {"gamma": 1.0}}),
    ],
)
def test_rules_go_by_finite_numbers(rule, argument, given, bad):
    with pytest.raises(ValueError, match=f"{argument} must be a finite number"):
        rule(**{argument: bad}, **given)
