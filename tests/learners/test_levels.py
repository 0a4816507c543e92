"""PPO on levels: which ones it trains on and is judged on, and what it notes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import constants, keys

import dacrl_env
from dacrl_env.algorithms import drivers
from dacrl_env.algorithms.ppo import ADVANTAGE
from dacrl_env.core import snapshot, streams
from dacrl_env.inner_envs import dynamics
from dacrl_env.inner_envs import minigrid_rooms as rooms
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners import dqn, ppo
from dacrl_env.outer.settings import resolve
from dacrl_env.outer.vector_env import PopulationEnv

ID, TASK = "MiniGridLevels-v0", "dacrl/PPO-MiniGridLevels-v0"
OF_LEVELS = ("level_replay", "level_temperature", "level_staleness")
CONFIG = ppo.PPOConfig(hidden_sizes=(16,), num_inner_envs=2, rollout_length=16)


class Runs:
    """A population of PPO without an outer environment."""

    def __init__(self, P: int, N: int = 2, **changed: float) -> None:
        env = ENVS[ID]()
        config = replace(CONFIG, num_inner_envs=N)
        self.learner = ppo.PPO(env, env, config, 100_000)
        members = [streams.member_keys("tuning", 0, i, 0) for i in range(P)]
        self.state = self.learner.init(np.stack(members), constants(env, P))
        self.values = {
            h.name: np.full(P, changed.get(h.name, h.start))
            for h in self.learner.hyperparameters
        }
        self.interval = self.learner.begin_interval(self.state)

    def train(self, steps: int) -> None:
        self.learner.train(self.state, self.values, steps, self.interval)

    def levels(self) -> NDArray[np.int64]:
        """Levels of the running episodes ``(P, N)``."""
        return self.state.envs.variables[..., rooms.LEVEL].astype(np.int64)

    def copied(self) -> Any:
        return snapshot.copied(self.state)


# -- what is noted ------------------------------------------------------------------


@pytest.mark.parametrize("replay", [0.0, 1.0])
def test_scores_are_those_of_what_was_collected(replay: float) -> None:
    """Rollouts are so short that seldom more than one episode ends in one."""
    runs, T = Runs(2, N=1, level_replay=replay), 16
    table, ends = runs.state.levels, 0
    for _ in range(300):
        before, scores = runs.levels()[:, 0], table.scores.copy()
        rollout = runs.learner.probe(runs.copied(), runs.values)
        runs.train(T)
        after = runs.levels()[:, 0]
        for p in range(2):
            sizes = np.abs(rollout.columns[p, ADVANTAGE, 0].astype(float))
            stops = np.flatnonzero(rollout.going_on[p, 0] == 0)
            ends += len(stops)
            if len(stops) > 1:  # of the levels between nothing is told
                continue
            first = stops[0] + 1 if len(stops) else T
            expected = {before[p]: sizes[:first].mean()}
            if first < T:
                expected[after[p]] = sizes[first:].mean()
            for level, score in expected.items():
                assert table.scores[p, level] == pytest.approx(score)
                assert table.seen[p, level]
            touched = np.flatnonzero(table.scores[p] != scores[p])
            assert {*touched.tolist()} <= expected.keys()
    assert ends > 20


def test_episodes_are_counted_in_the_order_in_which_they_begin() -> None:
    runs = Runs(3)
    for _ in range(80):
        runs.train(32)
        table, now = runs.state.levels, runs.levels()
        # a level that begins at the end of a rollout has taken no step
        fresh = runs.state.envs.lengths == 0
        begun = 2 + runs.state.envs.episodes.sum(1) - fresh.sum(1)
        np.testing.assert_array_equal(table.begun, begun)
        for p in range(3):
            for n in range(2):
                if not fresh[p, n]:
                    assert table.latest[p, now[p, n]] > 0
            assert table.latest[p].max() == table.begun[p]
            assert (table.latest[p] > 0).sum() <= table.begun[p]
            assert ((table.latest[p] > 0) >= table.seen[p]).all()


# -- which levels -------------------------------------------------------------------


def begun_levels(runs: Runs, steps: int) -> list[int]:
    """Levels of the episodes that begin in some steps, where rollouts show them."""
    found = []
    for _ in range(steps // 32):
        before = runs.state.envs.episodes.copy()
        runs.train(32)
        found += runs.levels()[runs.state.envs.episodes > before].tolist()
    return found


def all_seen(runs: Runs) -> None:
    """As if every level had been played, level 7 with the most to learn from it."""
    table = runs.state.levels
    table.seen[...] = True
    table.scores[...] = 1e-9
    table.scores[:, 7] = 1e9
    table.latest[...] = table.begun[:, None] = 1000


def test_the_level_with_the_highest_score_is_played() -> None:
    runs = Runs(2, level_replay=1, level_temperature=0.05, level_staleness=0)
    for _ in range(60):
        all_seen(runs)
        before = runs.state.envs.episodes.copy()
        runs.train(32)
        began = runs.state.envs.episodes > before
        assert (runs.levels()[began] == 7).all()
    assert runs.state.envs.episodes.sum() > 20


def test_levels_are_trained_on_and_others_held_out() -> None:
    runs = Runs(2, level_replay=1)
    found = begun_levels(runs, 6_000)
    assert len(found) > 40
    assert max(found) < 200
    # without a score a level is taken before those that have one
    assert len({*found}) > 0.8 * len(found)


def test_without_replay_levels_are_those_of_the_environment() -> None:
    """Neither the table nor other knobs of levels matter."""
    plain, other = Runs(2), Runs(2, level_temperature=50, level_staleness=1)
    all_seen(other)
    for runs in (plain, other):
        runs.train(3_200)
    np.testing.assert_array_equal(plain.levels(), other.levels())
    a, b = plain.state.parameters, other.state.parameters
    assert a.tobytes() == b.tobytes()
    # of an algorithm that knows no levels, too: drawn by the environment's keys
    env = ENVS[ID]()
    config = dqn.DQNConfig(hidden_sizes=(16,), learning_starts=32, num_inner_envs=2)
    learner = dqn.DQN(env, env, config, 4_000)
    members = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(2)])
    state = learner.init(members, constants(env, 2))
    values = {h.name: np.full(2, h.start) for h in learner.hyperparameters}
    learner.train(state, values, 3_200, learner.begin_interval(state))
    fresh = env.init(state.envs.keys, state.envs.physics)
    for _ in range(int(state.envs.episodes.max())):
        due = fresh.episodes < state.envs.episodes
        kept = fresh.variables.copy()
        fresh.episodes[...] = np.where(due, fresh.episodes, fresh.episodes - 1)
        env.begin_episodes(fresh)
        fresh.variables[~due] = kept[~due]
    np.testing.assert_array_equal(
        fresh.variables[..., rooms.LEVEL], state.envs.variables[..., rooms.LEVEL]
    )


def test_evaluations_play_levels_that_are_held_out() -> None:
    runs = Runs(1)
    env, learner = ENVS[ID]().env, runs.learner
    room, found = dynamics.make_env_state(1, 1, 0, env.variables), []
    before = {name: leaf.copy() for name, leaf in snapshot.leaves(runs.state)}
    for key in keys(60, 1, seed=3)[:, :, None]:
        drivers.play(
            0, np.zeros(1, np.int64), key, np.zeros((1, 0)), np.zeros(1, np.int64),
            learner.link(learner._run(runs.state)), env, room,
            np.zeros((2, 1), np.int64), np.zeros((1, 1)), np.zeros(1, np.int64),
        )  # fmt: skip
        found.append(int(room.variables[0, 0, rooms.LEVEL]))
    assert min(found) >= 200
    assert max(found) < 400
    assert len({*found}) > 40
    for name, leaf in snapshot.leaves(runs.state):
        assert leaf.tobytes() == before[name].tobytes(), name


# -- the same bits --------------------------------------------------------------------


def bits(state: Any, p: int) -> dict[str, bytes]:
    return {name: leaf[p].tobytes() for name, leaf in snapshot.leaves(state)}


def test_neither_cuts_nor_company_nor_threads_change_a_choice() -> None:
    about = {"level_replay": 1.0, "level_temperature": 0.5, "level_staleness": 0.3}
    whole, cut, among = Runs(1, **about), Runs(1, **about), Runs(3, **about)
    among.learner.num_threads = 3
    among.values["level_temperature"][1:] = 20.0
    # most levels are seen, or few would be replayed
    for runs in (whole, cut, among):
        runs.state.levels.seen[:, :150] = True
        runs.state.levels.scores[:, :150] = np.arange(150) / 1000
    whole.train(9_600)
    for _ in range(20):
        cut.train(480)
    among.train(9_600)
    expected = bits(whole.state, 0)
    assert bits(cut.state, 0) == expected
    assert bits(among.state, 0) == expected
    assert bits(among.state, 1) != expected
    table = whole.state.levels
    replayed = (table.latest[0, :150] > 0).sum()
    assert replayed > 10
    assert (table.latest[0, 150:] > 0).sum() > 5


# -- the knobs ----------------------------------------------------------------------


def test_knobs_of_levels_are_there_where_there_are_levels() -> None:
    known = [h.name for h in resolve(TASK).hyperparameters]
    assert {*OF_LEVELS} <= {*known}
    for task in ("dacrl/PPO-CartPole-v0", "dacrl/PPO-MiniGrid-DoorKey-5x5-v0"):
        assert not {*OF_LEVELS} & {h.name for h in resolve(task).hyperparameters}
        for options in (
            {"hyperparameters": ["learning_rate", "level_replay"]},
            {"fixed": {"level_replay": 0.5}},
        ):
            with pytest.raises(ValueError, match="no levels to choose from"):
                resolve(task, **options)  # type: ignore[arg-type]


def test_stable_baselines3_has_no_sampler_of_levels() -> None:
    with pytest.raises(ValueError, match=r"implementation='sb3' has only level_\w+="):
        resolve(TASK, implementation="sb3")
    fixed: dict[str, Any] = {"level_replay": 0}
    names = ["learning_rate", "ent_coef"]
    resolve(TASK, implementation="sb3", hyperparameters=names, fixed=fixed)


def test_tables_are_saved_and_forked_with_their_runs() -> None:
    options: dict[str, Any] = {
        "budget": 12_800, "num_inner_envs": 2, "rollout_length": 32,
        "decision_interval": 1_280, "feedback": "train",
        "fixed": {"level_replay": 1.0},
        "hyperparameters": ["learning_rate", "level_temperature"],
    }  # fmt: skip
    one, two = (PopulationEnv(TASK, 2, **options) for _ in range(2))
    one.reset(seed=[3, 4])
    actions = np.zeros((2, 2))
    for _ in range(4):
        one.step(actions)
    table = one.population.state.learner.levels
    assert (table.seen.sum(1) > 5).all()
    saved = one.snapshot()
    one.fork([1, 1], shared_streams=True)
    table = one.population.state.learner.levels
    for array in table:
        np.testing.assert_array_equal(array[0], array[1])
    for _ in range(3):
        one.step(actions)
    for array in table:
        np.testing.assert_array_equal(array[0], array[1])
    two.reset(seed=0)
    two.restore(saved)
    for _ in range(3):
        two.step(actions)
    theirs = two.population.state.learner.levels
    for ours, other in zip(table, theirs, strict=True):
        np.testing.assert_array_equal(ours[1], other[1])
    assert (theirs.scores[0] != theirs.scores[1]).any()


def test_the_task_is_judged_as_it_says() -> None:
    task = dacrl_env.get_task(TASK)
    assert task.controlled == (
        "learning_rate", "ent_coef", "level_replay", "level_temperature",
    )  # fmt: skip
    assert task.inner_env == ID
