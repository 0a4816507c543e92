"""Pipelines: their parts train as they do alone, and what a change of one leaves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from populations import Runs, Stepped, make_runs

import dacrl_env
from dacrl_env import Choice
from dacrl_env.core.snapshot import Snapshot, leaves
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners import events
from dacrl_env.learners.pipeline_space import (
    COMMON,
    FEATURES,
    HYPERPARAMETERS,
    KINDS,
    config_of,
    read,
    values_of,
)
from dacrl_env.outer.population import Population

CARTPOLE = "dacrl/Pipeline-CartPole-v0"
EVERY = [*itertools.product(KINDS, FEATURES)]
SMALL: dict[str, Any] = {
    "budget": 640,
    "decision_interval": 160,
    "rollout_length": 16,
    "learning_starts": 32,
    "hidden_sizes": (16, 16),
    "eval_episodes": 2,
}
# who learns alone what a part learns
ALONE = {"dqn": "dqn", "ppo": "ppo", "sac": "discrete_sac"}


def code(name: str, option: str) -> float:
    (knob,) = (h for h in HYPERPARAMETERS if h.name == name)
    return float(knob.codes(option))


def make(pairs: Sequence[tuple[str, str]], env: Any = None, **options: Any) -> Runs:
    """A member for each pair of algorithm and features, which it has from the start."""
    runs = make_runs(len(pairs), env, algorithm="pipeline", **options)
    for k, name in enumerate(("algorithm", "features")):
        runs.values[name] = np.array([code(name, pair[k]) for pair in pairs])
    runs.learner.happen(runs.state, runs.values)
    runs.begin_interval()
    return runs


def choose(runs: Runs, algorithm: str, features: str = "raw", p: int = 0) -> None:
    """The next decision of a member; the others stay as they are."""
    runs.values["algorithm"][p] = code("algorithm", algorithm)
    runs.values["features"][p] = code("features", features)
    runs.learner.happen(runs.state, runs.values)
    runs.begin_interval()


# -- parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("features", FEATURES)
def test_a_part_trains_bit_for_bit_as_it_does_alone(
    features: str, stepped: bool
) -> None:
    pairs = [(algorithm, features) for algorithm in KINDS]
    inner: Any = ENVS["CartPole-v1"]()
    inner = Stepped(inner) if stepped else inner
    together = make(pairs, inner, seed=3)
    together.train(320)
    told = together.learner.signals(together.state, together.values, together.interval)
    for p, (algorithm, _) in enumerate(pairs):
        own = vars(config_of(together.learner.config, algorithm, features))
        values = {k: v[p] for k, v in values_of(together.values, algorithm).items()}
        kind = ALONE[algorithm]
        if algorithm == "ppo":
            del values["clear_replay"]
        alone = make_runs([p], inner, seed=3, algorithm=kind, **own, **values)
        alone.train(320)
        mine = dict(leaves(together.state))
        for name, array in leaves(alone.state):
            if name == "register.steps":  # nothing has been saved
                continue
            # rows of the pipeline are longer, where another part has more
            part = mine[name][p][tuple(slice(n) for n in array[0].shape)]
            assert part.tobytes() == array[0].tobytes(), (algorithm, name)
        signals = alone.learner.signals(alone.state, alone.values, alone.interval)
        for name, column in signals.items():
            assert told[name][p] == column[0], (algorithm, name)
        for mine_of, theirs_of in (
            (together.interval.counts, alone.interval.counts),
            (together.interval.finished, alone.interval.finished),
        ):
            np.testing.assert_array_equal(mine_of[p], theirs_of[0])
        assert not together.state.parameters[p, alone.state.parameters.shape[1] :].any()


@pytest.mark.parametrize(
    ("algorithm", "task"),
    [("dqn", "dacrl/DQN-CartPole-v0"), ("ppo", "dacrl/PPO-CartPole-v0")],
)
@pytest.mark.parametrize("features", ["raw", "normalised"])
def test_a_run_is_that_of_the_algorithm_s_task(
    algorithm: str, task: str, features: str
) -> None:
    """Rewards, scores and costs included, where the choice is fixed."""
    shared = {"budget": 1_280, "decision_interval": 320, "eval_episodes": 3}
    knobs = ("learning_rate", "batch_size", "gamma")
    own = {"normalize_observations": features == "normalised", "num_inner_envs": 2}
    own |= {"rollout_length": 32} if algorithm == "ppo" else {"learning_starts": 200}
    alone: Any = gym.make(task, hyperparameters=knobs, **shared, **own).unwrapped
    pipeline: Any = gym.make(
        CARTPOLE,
        hyperparameters=[f"{algorithm}.{name}" for name in knobs],
        fixed={"algorithm": algorithm, "features": features},
        num_inner_envs=2,
        rollout_length=32,
        learning_starts=200,
        **shared,
    ).unwrapped
    outcomes = []
    for env in (alone, pipeline):
        _, info = env.reset(seed=5)
        told = [(info["score"], info["eval_return"])]
        for k in range(4):
            action = np.array([0.3 - 0.2 * k, 0.5, 0.1], np.float32)
            _, reward, terminated, _, info = env.step(action)
            told.append((reward, info["score"], info["eval_return"]))
            told.append((info["gradient_steps"], info["objectives"]["flops"]))
        assert terminated
        outcomes.append(told)
    assert outcomes[0] == outcomes[1]
    mine = pipeline.population.state.learner.parameters
    theirs = alone.population.state.learner.parameters
    assert mine[:, : theirs.shape[1]].tobytes() == theirs.tobytes()


def test_a_choice_at_the_first_decision_is_that_of_the_whole_run() -> None:
    """Whichever there was before it."""
    chosen = make([("ppo", "fourier")])
    known = {h.name: h.start for h in HYPERPARAMETERS}
    known |= {"algorithm": code("algorithm", "ppo"), "features": 2.0}
    kind = type(chosen.learner)
    inner, config = chosen.learner.env, chosen.learner.config
    learner = kind(inner, inner, config, chosen.learner.budget, known)
    state = learner.init(chosen.keys, chosen.physics)
    interval = learner.begin_interval(state)
    learner.train(state, chosen.values, 320, interval)
    chosen.train(320)
    row = state.parameters.shape[1]
    np.testing.assert_array_equal(state.parameters, chosen.state.parameters[:, :row])
    assert [*learner.parts] == [5]


@pytest.mark.parametrize("stepped", [False, True])
def test_members_have_the_same_bits_in_any_company_and_threads(stepped: bool) -> None:
    inner: Any = ENVS["CartPole-v1"]()
    inner = Stepped(inner) if stepped else inner
    runs = make(EVERY, inner)
    runs.learner.num_threads = 3
    assert {part.num_threads for part in runs.learner.parts.values()} == {3}
    for _ in range(2):
        runs.train(160)
    for p, pair in enumerate(EVERY):
        alone = make_runs([p], inner, algorithm="pipeline")
        alone.learner.num_threads = 1
        choose(alone, *pair)
        alone.train(320)
        assert alone.differences(runs, 0, p) == [], pair


def test_stepped_by_python_as_compiled() -> None:
    both = []
    for stepped in (False, True):
        inner: Any = ENVS["CartPole-v1"]()
        runs = make(EVERY, Stepped(inner) if stepped else inner)
        runs.train(160)
        for p, pair in enumerate(reversed(EVERY)):
            choose(runs, *pair, p=p)
        runs.train(160)
        keys = runs.keys[:, 4:6].copy()
        played = runs.learner.play(runs.state, np.arange(9), keys, runs.physics)
        both.append((runs, played))
    (compiled, a), (stepped_by, b) = both
    for p in range(9):
        assert compiled.differences(stepped_by, p) == [], p
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


# -- changes ---------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_change_begins_anew_and_leaves_what_is_the_member_s(algorithm: str) -> None:
    others = [pair for pair in EVERY if pair != (algorithm, "raw")]
    runs = make([(algorithm, "raw")] * len(others))
    runs.train(320)
    before = {n: np.array(x) for n, x in leaves(runs.state)}
    for p, pair in enumerate(others):
        choose(runs, *pair, p=p)
    after = {n: np.array(x) for n, x in leaves(runs.state)}
    for name, array in before.items():
        own = name.startswith("envs.") or name in (
            "keys", "env_steps", "gradient_steps", "replay.observations",
            "replay.transitions", "replay.priorities", "replay.top_priority",
        )  # fmt: skip
        if own:
            assert array.tobytes() == after[name].tobytes(), name
    for name in ("mean", "square", "part_steps", "since_train", "held_steps"):
        assert not after[name].any(), name
    assert not after["register.is_saved"].any()
    assert (after["observation_moments.weight"] == 1e-4).all()
    for p, (other, features) in enumerate(others):
        row, moved = after["parameters"][p], before["parameters"][p]
        assert row.any()
        assert (row != moved)[row != 0].mean() > 0.9
        assert after["frequencies"][p].any() == (features == "fourier")
        if other != "ppo":
            np.testing.assert_array_equal(after["target"][p], row)
        kept = after["replay.first"][p]
        assert kept == (320 if algorithm == "ppo" else 0), (other, features)
        assert read(int(after["part"][p])) == (other, features)


def test_networks_after_a_change_are_those_of_no_other_time() -> None:
    runs = make([("dqn", "raw")])
    seen = [runs.state.parameters.copy()]
    for k in range(4):
        runs.train(32)
        choose(runs, "sac" if k % 2 == 0 else "dqn")
        seen.append(runs.state.parameters.copy())
    assert len({x.tobytes() for x in seen}) == 5
    # of the same member and time they are the same
    again = make([("dqn", "raw")])
    again.train(32)
    choose(again, "sac")
    np.testing.assert_array_equal(again.state.parameters, seen[1])


def test_what_ppo_did_is_not_replayed() -> None:
    runs = make([("dqn", "raw")])
    runs.train(160)
    choose(runs, "ppo")
    runs.train(160)
    choose(runs, "sac")
    runs.train(48)
    replay = runs.state.replay
    assert replay.first[0] == 320
    run = runs.learner.parts[6]._run(runs.state, values_of(runs.values, "sac"))
    assert run.state.replay.first is replay.first
    seen = replay.observations[0, 0, :368]
    # the steps of PPO are nowhere, those of the others follow each other
    assert not seen[160:320].any()
    assert seen[320:368].any((1, 2)).all()


def test_a_choice_that_stays_begins_nothing() -> None:
    runs = make(EVERY)
    runs.train(64)
    before = [runs.member(p) for p in range(9)]
    runs.learner.happen(runs.state, runs.values)
    assert [runs.member(p) for p in range(9)] == before
    choose(runs, *EVERY[4], p=0)  # what another member has
    after = [runs.member(p) for p in range(9)]
    assert [x == y for x, y in zip(before, after, strict=True)] == [False] + [True] * 8


def test_gradient_steps_are_counted_through_changes_and_draw_anew() -> None:
    runs = make([("dqn", "raw")], **{"dqn.train_freq": 1, "sac.train_freq": 1})
    runs.train(64)
    steps = int(runs.state.gradient_steps[0])
    assert steps == 32  # after learning_starts
    choose(runs, "sac")
    runs.train(64)
    assert int(runs.state.gradient_steps[0]) == steps + 64
    assert runs.interval.updates.tolist() == [64]


# -- events ----------------------------------------------------------------------------


def asked(runs: Runs, **given: Sequence[float]) -> dict[str, NDArray[np.bool_]]:
    values = {**runs.values, **{n: np.array(x, float) for n, x in given.items()}}
    told: dict[str, NDArray[np.bool_]] = runs.learner.happen(runs.state, values)
    return told


def test_events_are_those_of_each_member_s_algorithm() -> None:
    pairs = [("dqn", "raw"), ("ppo", "normalised"), ("sac", "fourier")]
    runs = make(pairs)
    runs.train(160)
    before = runs.state.parameters.copy()
    told = asked(runs, clear_replay=[1, 1, 1], checkpoint=[events.RESTORE] * 3)
    assert told["clear_replay"].tolist() == [False, True, False]  # PPO has none
    assert told["checkpoint"].tolist() == [True] * 3  # nothing was saved
    assert runs.state.replay.first.tolist() == [160, 0, 160]
    asked(runs, checkpoint=[events.SAVE] * 3)
    asked(runs, reset_head=[1, 1, 1])
    for p, (algorithm, features) in enumerate(pairs):
        number = int(runs.state.part[p])
        part = runs.learner.parts[number]
        head = np.zeros(before.shape[1], bool)
        for k in part.head:
            head[part.fixed.parts[k] : part.fixed.parts[k + 1]] = True
        moved = runs.state.parameters[p] != before[p]
        assert not moved[~head].any(), (algorithm, features)
        assert moved[head & (before[p] != 0)].mean() > 0.9
    told = asked(runs, checkpoint=[events.RESTORE] * 3)
    assert not told["checkpoint"].any()
    np.testing.assert_array_equal(runs.state.parameters, before)
    asked(runs, swap=[2, 2, 0])
    asked(runs, reset_all=[1] * 3)
    asked(runs, swap=[1, 0, 1])  # takes back what was saved
    moved = [(runs.state.parameters[p] != before[p]).any() for p in range(3)]
    assert moved == [False, True, False]
    # what was saved is another algorithm's after a change
    choose(runs, "ppo")
    told = asked(runs, checkpoint=[events.RESTORE] * 3)
    assert told["checkpoint"].tolist() == [True, False, False]


# -- the outer environment -------------------------------------------------------------


def envs_of(P: int = 9, **options: Any) -> Any:
    given = {"action_mode": "values", "feedback": "train", **SMALL, **options}
    return gym.make_vec(CARTPOLE, num_envs=P, **given).unwrapped


def changing(envs: Any, decisions: int = 4, first: int = 0) -> list[dict[str, Any]]:
    """Every member changes at every decision, all in another order."""
    infos = []
    names = {"algorithm": [*KINDS], "features": [*FEATURES]}
    for k in range(first, decisions):
        numbers = [(4 * p + 2 * k * (p + 1)) % 9 for p in range(envs.num_envs)]
        chosen = [read(number) for number in numbers]
        given = dict(zip(names, map(list, zip(*chosen, strict=True)), strict=True))
        infos.append(envs.step(envs.to_actions(given))[4])
    return infos


def bits(envs: Any) -> dict[str, bytes]:
    return {
        n: np.ascontiguousarray(x).tobytes()
        for n, x in leaves(envs.population.state)
        if n != "wall_seconds"
    }


def test_snapshots_continue_through_changes(tmp_path: Any) -> None:
    whole, cut = envs_of(), envs_of()
    for envs in (whole, cut):
        envs.reset(seed=2)
    changing(whole, 3)
    changing(cut, 2)
    cut.snapshot().save(tmp_path / "run")
    changing(cut, 3, 2)
    assert bits(cut) == bits(whole)
    other = envs_of()
    other.reset(seed=9)
    other.restore(Snapshot.load(tmp_path / "run"))
    changing(other, 3, 2)
    assert bits(other) == bits(whole)


def test_forks_go_on_as_their_parents() -> None:
    envs = envs_of(4)
    envs.reset(seed=1)
    changing(envs, 2)
    envs.fork([0, 0, 2, 2], shared_streams=True)
    names = {"algorithm": ["sac", "sac", "ppo", "ppo"], "features": ["raw"] * 4}
    envs.step(envs.to_actions(names))
    state = envs.population.state.learner
    for name, array in leaves(state):
        for a, b in ((0, 1), (2, 3)):
            assert array[a].tobytes() == array[b].tobytes(), name


def test_floating_point_operations_follow_each_change() -> None:
    """What was done with other networks counts as it was."""
    envs = envs_of(3, hyperparameters=["algorithm", "features"], feedback="eval")
    _, infos = envs.reset(seed=0)
    population: Population = envs.population
    acted, expected = infos["eval_steps"].astype(float), np.zeros(3)
    expected += acted * population.learner.flops(population.values())[0]
    plan = [("ppo", "raw"), ("sac", "fourier"), ("dqn", "normalised"), ("ppo", "raw")]
    before = infos
    for algorithm, features in plan[:3]:
        given = {"algorithm": ["dqn", algorithm, algorithm], "features": features}
        *_, infos = envs.step(envs.to_actions(given))
        act, learn = population.learner.flops(population.values())
        samples = infos["objectives"]["samples"] - before["objectives"]["samples"]
        moved = sum(infos[n] - before[n] for n in ("env_steps", "eval_steps"))
        expected += moved * act + samples * learn
        np.testing.assert_allclose(infos["objectives"]["flops"], expected, rtol=1e-12)
        before = infos
    assert len(set(population.learner.flops(population.values())[0].tolist())) == 1


def test_children_are_inactive_with_other_algorithms() -> None:
    names = [h.name for h in HYPERPARAMETERS]
    env: Any = gym.make(
        CARTPOLE, hyperparameters=names, action_mode="values", feedback="train", **SMALL
    ).unwrapped
    env.reset(seed=0)
    for algorithm in KINDS:
        # asked for: a drift of its own kind, whatever the algorithm
        config = {"algorithm": algorithm, "ppo.drift": "dpo"}
        *_, info = env.step(env.to_action(config))
        shown = info["hyperparameters"]
        for name, value in shown.items():
            owner, dot, _ = name.partition(".")
            assert not dot or owner == algorithm, (name, value)
        assert f"{algorithm}.learning_rate" in shown
        assert ("ppo.drift_alpha" in shown) == (algorithm == "ppo")
        assert "ppo.clip_range" not in shown


def test_every_hyperparameter_is_the_algorithm_s_own() -> None:
    names = [h.name for h in HYPERPARAMETERS]
    assert len(set(names)) == len(names)
    for algorithm, kind in KINDS.items():
        own = {h.name: h for h in kind.hyperparameters if h.name not in COMMON}
        for h in HYPERPARAMETERS:
            if h.name.startswith(f"{algorithm}."):
                theirs = own.pop(h.name.removeprefix(f"{algorithm}."))
                assert (h.ends, h.default, type(h)) == (
                    theirs.ends, theirs.default, type(theirs),
                )  # fmt: skip
        assert {*own} <= {"level_replay", "level_temperature", "level_staleness"}
    assert {h.name for h in HYPERPARAMETERS if not h.held} <= {*COMMON}


def test_a_pipeline_of_fewer_algorithms() -> None:
    two = Choice("algorithm", ("sac", "ppo"), "ppo")
    envs = envs_of(2, hyperparameters=[two, "ppo.learning_rate"])
    envs.reset(seed=0)
    for _ in range(2):
        given = {"algorithm": ["sac", "ppo"]}
        *_, infos = envs.step(envs.to_actions(given))
    shown = infos["hyperparameters"]
    assert shown["algorithm"].tolist() == ["sac", "ppo"]
    assert [read(int(k))[0] for k in envs.population.state.learner.part] == [
        "sac", "ppo",
    ]  # fmt: skip


def test_priorities_are_kept_by_all_that_may_need_them() -> None:
    envs = envs_of(1, hyperparameters=["algorithm", "sac.priority_alpha"])
    envs.reset(seed=0)
    # DQN has none, and takes note for SAC
    assert envs.population.learner.steady["dqn.priority_alpha"] == 0.0
    for algorithm in ("dqn", "sac"):
        given = {"algorithm": algorithm, "sac.priority_alpha": 0.7}
        envs.step(envs.to_actions(given))
    replay = envs.population.state.learner.replay
    assert (replay.priorities[0, 0, :320] > 0).all()
    assert len(np.unique(replay.priorities[0, 0, :160])) > 10
    plain = envs_of(1, hyperparameters=["algorithm"])
    assert plain.population.state.learner.replay.priorities.shape == (1, 1, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fourier_features": 0}, "at least 2"),
        ({"fourier_features": 5}, "even"),
        ({"fourier_scale": 0.0}, "fourier_scale"),
        ({"rollout_length": 0}, "rollout_length"),
        ({"num_inner_envs": 0}, "num_inner_envs"),
        ({"activation": "gelu"}, "valid: relu, tanh"),
        ({"conv_channels": 16}, "unknown option 'conv_channels'"),
        ({"learning_rate": 1e-3}, "unknown option 'learning_rate'"),
        ({"fixed": {"learning_rate": 1e-3}}, "valid: algorithm"),
        (
            {"fixed": {"algorithm": "a2c"}, "hyperparameters": "features"},
            "valid: 'dqn', 'ppo', 'sac'",
        ),
        ({"decision_interval": 100}, "rollout"),
    ],
)
def test_bad_input(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dacrl_env.DynamicConfigEnv(CARTPOLE, **{**SMALL, **options})
