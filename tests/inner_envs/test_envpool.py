"""EnvPool as inner environments: semantics, seeds, what cannot be saved."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

pytest.importorskip("envpool")

import dacrl_env
from dacrl_env.core.snapshot import Snapshot, is_opaque, leaves
from dacrl_env.inner_envs import Transition
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.envpool_adapter import EnvPoolAdapter, EnvPoolState
from dacrl_env.tasks.registration import make_inner_env

TASK = "dacrl-tests/DQN-EnvPoolCartPole-v0"
OPTIONS: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "learning_starts": 50,
    "eval_episodes": 2,
}


def keys(P: int, N: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (P, N), np.uint64)


def nothing(P: int) -> np.ndarray:
    return np.zeros((P, 0))  # physical constants


def start(
    P: int, N: int, env_id: str = "CartPole-v1", seed: int = 0, **kwargs: Any
) -> tuple[EnvPoolAdapter, EnvPoolState]:
    adapter = EnvPoolAdapter(env_id, kwargs)
    return adapter, adapter.init(keys(P, N, seed), nothing(P))


def pools(state: EnvPoolState) -> int:
    return len({id(place.pool) for place in state.places})


def play(
    adapter: EnvPoolAdapter, state: EnvPoolState, actions: np.ndarray
) -> list[np.ndarray]:
    """All that comes of actions ``(T, P, N)``, every array ``(T, P, N, …)``."""
    steps = [(*adapter.step(state, a), state.observations) for a in actions]
    return [np.stack(arrays) for arrays in zip(*steps, strict=True)]


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def draw(T: int, P: int, N: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2, (T, P, N))


# -- semantics ------------------------------------------------------------------------


def test_every_transition_is_one_of_gymnasiums():
    """So none is an autoreset row, whose reward is 0 and whose action does nothing."""
    adapter, state = start(P=3, N=2)
    original: Any = gym.make("CartPole-v1").unwrapped
    assert adapter.observation_shape == original.observation_space.shape
    assert adapter.observation_dtype == original.observation_space.dtype
    assert adapter.num_actions == 2
    assert adapter.action_low.size == adapter.action_high.size == 0
    original.reset()
    for actions in draw(120, 3, 2):
        before, lengths = state.observations.copy(), state.lengths.copy()
        returns, episodes = state.returns.copy(), state.episodes.copy()
        step = adapter.step(state, actions)
        for place in np.ndindex(3, 2):
            original.state = tuple(before[place].astype(np.float64))
            original.steps_beyond_terminated = None
            expected, reward, terminated, _, _ = original.step(int(actions[place]))
            np.testing.assert_allclose(
                step.observations[place], expected, rtol=1e-5, atol=1e-5
            )
            assert step.rewards[place] == reward == 1
            assert step.terminated[place] == terminated
        np.testing.assert_array_equal(step.done, step.terminated)
        np.testing.assert_array_equal(step.lengths, lengths + 1)
        np.testing.assert_array_equal(step.returns, returns + 1)
        # the state is that of the next episode already
        on = ~step.done
        np.testing.assert_array_equal(state.episodes, episodes + step.done)
        np.testing.assert_array_equal(state.observations[on], step.observations[on])
        np.testing.assert_array_equal(state.lengths, step.lengths * on)
        np.testing.assert_array_equal(state.returns, step.returns * on)
        assert (np.abs(state.observations[step.done]) <= 0.05).all()
    assert (state.episodes >= 3).all()


def test_types_are_those_of_compiled_dynamics():
    compiled = ENVS["CartPole-v1"]()
    physics = np.tile([*compiled.physics.values()], (2, 1))
    theirs = compiled.init(keys(2, 3), physics)
    adapter, ours = start(P=2, N=3)
    actions = np.ones((2, 3), np.int64)
    a, b = adapter.step(ours, actions), compiled.step(theirs, actions)
    for name in Transition._fields:
        mine, other = getattr(a, name), getattr(b, name)
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape), name
    for name in ("keys", "observations", "returns", "lengths", "episodes"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape), name


def test_transitions_keep_what_they_have():
    adapter, state = start(P=2, N=2, max_episode_steps=4)
    kept = [adapter.step(state, a) for a in draw(1, 2, 2)]
    copies = [[array.copy() for array in step] for step in kept]
    for actions in draw(20, 2, 2):
        kept.append(adapter.step(state, actions))
        copies.append([array.copy() for array in kept[-1]])
        for step, copy in zip(kept, copies, strict=True):
            assert equal([*step], copy)


def test_truncation_is_not_termination():
    adapter, state = start(P=1, N=2, max_episode_steps=5)
    for k in range(1, 12):
        step = adapter.step(state, np.array([[k % 2, k % 2]]))
        assert not step.terminated.any()
        assert step.done.all() == step.done.any() == (k % 5 == 0)
        assert (step.lengths == (k - 1) % 5 + 1).all()
        assert (state.lengths == k % 5).all()
    adapter, state = start(P=1, N=1)
    done = False
    while not done:  # falls over
        step = adapter.step(state, np.zeros((1, 1), np.int64))
        done = step.done.item()
        assert step.terminated.item() == done
    assert 5 < step.lengths.item() < 15
    # EnvPool does not tell which of the two it was, where it was both
    limit = step.lengths.item()
    adapter, state = start(P=1, N=1, max_episode_steps=limit)
    for _ in range(limit):
        again = adapter.step(state, np.zeros((1, 1), np.int64))
    np.testing.assert_array_equal(again.observations, step.observations)
    assert again.done.all()
    assert not again.terminated.any()


def test_actions_may_be_continuous():
    adapter, state = start(P=2, N=3, env_id="Pendulum-v1")
    assert adapter.num_actions == 0
    assert adapter.action_low.tolist() == [-2]
    assert adapter.action_high.tolist() == [2]
    original: Any = gym.make("Pendulum-v1").unwrapped
    original.reset()
    rng = np.random.default_rng(0)
    for _ in range(10):
        cos, sin, speed = state.observations.transpose(2, 0, 1).astype(np.float64)
        angles = np.arctan2(sin, cos)
        actions = rng.uniform(-2, 2, (2, 3, 1))
        step = adapter.step(state, actions)
        for place in np.ndindex(2, 3):
            original.state = np.array([angles[place], speed[place]])
            expected, reward, *_ = original.step(actions[place])
            np.testing.assert_allclose(step.observations[place], expected, atol=1e-4)
            np.testing.assert_allclose(step.rewards[place], reward, rtol=1e-4)


def test_observations_may_be_images():
    adapter, state = start(1, 2, "Pong-v5")
    assert adapter.observation_shape == (4, 84, 84)
    assert adapter.observation_dtype == np.uint8
    step = adapter.step(state, np.ones((1, 2), np.int64))
    for images in (step.observations, state.observations):
        assert images.shape == (1, 2, 4, 84, 84)
        assert images.dtype == np.uint8
        assert images.max() > 50


def test_one_of_several_observations_can_be_chosen():
    env_id = "MiniGrid-DoorKey-5x5-v0"
    adapter, state = start(2, 2, env_id, observation_key="image")
    assert adapter.observation_shape == (7, 7, 3)
    assert adapter.observation_dtype == np.uint8
    assert (state.observations == 2).any()  # walls
    ends = 0
    rng = np.random.default_rng(0)
    for _ in range(600):
        actions = rng.integers(0, adapter.num_actions, (2, 2))
        step = adapter.step(state, actions)
        assert step.observations.shape == (2, 2, 7, 7, 3)
        # a reward is for the goal alone, which ends the episode
        np.testing.assert_array_equal(step.rewards > 0, step.terminated)
        ends += step.done.sum()
    assert ends >= 8


# -- seeds ----------------------------------------------------------------------------


def test_no_two_episodes_start_alike():
    adapter, state = start(P=3, N=2, max_episode_steps=3)
    starts = [state.observations.copy()]
    for _ in range(10):
        play(adapter, state, draw(3, 3, 2))
        starts.append(state.observations.copy())
    adapter.begin_episodes(state)
    starts.append(state.observations.copy())
    assert len(starts) == 12
    assert len(np.unique(np.reshape(starts, (-1, 4)), axis=0)) == 12 * 6


def test_the_same_keys_give_the_same_run():
    first, again, other = (
        play(*start(P=3, N=2, seed=seed), draw(80, 3, 2)) for seed in (0, 0, 1)
    )
    assert first[3].sum() >= 6  # ends of episodes
    assert equal(first, again)
    assert not equal(first, other)


def test_threads_change_nothing():
    for kwargs, threads in (({}, 1), ({"num_threads": 2}, 2)):
        _, state = start(P=4, N=1, **kwargs)
        assert state.places[0].pool.config["num_threads"] == threads
    one, two = (play(*start(P=8, N=2, num_threads=n), draw(80, 8, 2)) for n in (1, 2))
    assert equal(one, two)


def test_a_member_depends_on_its_own_keys_and_actions():
    actions = draw(80, 3, 2)
    changed = actions.copy()
    changed[:, 1] = 1 - changed[:, 1]
    together = play(*start(P=3, N=2), actions)
    beside = play(*start(P=3, N=2), changed)
    others = [0, 2]
    assert equal([a[:, others] for a in together], [a[:, others] for a in beside])
    assert not equal([a[:, 1] for a in together], [a[:, 1] for a in beside])
    adapter = EnvPoolAdapter("CartPole-v1", {})
    alone = adapter.init(keys(3, 2)[[2]], nothing(1))
    assert equal(play(adapter, alone, actions[:, [2]]), [a[:, [2]] for a in together])


def test_restarted_members_begin_again_and_others_go_on():
    actions = draw(80, 3, 2)
    control = play(*start(P=3, N=2), actions)
    adapter, state = start(P=3, N=2)
    before = play(adapter, state, actions[:25])
    assert pools(state) == 1
    new = keys(1, 2, seed=7)
    adapter.restart(state, np.array([1]), new, nothing(1))
    assert pools(state) == 2
    after = play(adapter, state, actions[25:])
    both = [np.concatenate(parts) for parts in zip(before, after, strict=True)]
    others = [0, 2]
    assert equal([a[:, others] for a in both], [a[:, others] for a in control])
    fresh = adapter.init(new, nothing(1))
    expected = play(adapter, fresh, actions[25:, [1]])
    assert equal([a[:, [1]] for a in after], expected)
    for mine, theirs in zip(leaves(state), leaves(fresh), strict=True):
        if not is_opaque(mine[1]):
            np.testing.assert_array_equal(mine[1][[1]], theirs[1], err_msg=mine[0])
    # all together, they share a pool again
    adapter.restart(state, np.arange(3), keys(3, 2), nothing(3))
    assert pools(state) == 1
    assert equal(play(adapter, state, actions), control)


def test_begun_episodes_follow_from_keys_and_numbers():
    starts = []
    for T in (3, 5):
        adapter, state = start(P=3, N=2)
        play(adapter, state, draw(T, 3, 2))
        adapter.restart(state, np.array([1]), keys(3, 2)[[1]], nothing(1))
        play(adapter, state, draw(T, 3, 2))
        assert (state.episodes == 0).all()
        adapter.begin_episodes(state)
        assert (state.episodes == 1).all()
        assert (state.lengths == 0).all()
        assert (state.returns == 0).all()
        assert pools(state) == 1
        starts.append(state.observations.copy())
        assert (adapter.step(state, draw(1, 3, 2)[0]).lengths == 1).all()
    np.testing.assert_array_equal(*starts)
    adapter.begin_episodes(state)
    assert (state.observations != starts[0]).all()


# -- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "kwargs", "words"),
    [
        (
            "MiniGrid-Empty-5x5-v0",
            {},
            ["MiniGrid-Empty-5x5-v0", "Dict(", "(7, 7, 3)", "valid: image, mission"],
        ),
        (
            "MiniGrid-Empty-5x5-v0",
            {"observation_key": "direction"},
            ["Discrete(4)", "Box observations and Discrete or Box actions"],
        ),
        ("CartPole-v1", {"observation_key": "image"}, ["'image'", "Box("]),
        ("FrozenLake-v1", {}, ["FrozenLake-v1", "Discrete(16)", "Discrete(4)"]),
        ("TicTacToe-v1", {}, ["2 players"]),
        ("CartPole-v1", {"seed": 3}, ["seed", "cannot be given"]),
        ("CartPole-v1", {"num_envs": 3}, ["num_envs", "cannot be given"]),
        ("CartPole-v1", {"gravity": 9.8}, ["gravity", "max_episode_steps"]),
        ("CartPole-v9", {}, ["CartPole-v9", "CartPole-v1", "list_all_envs"]),
    ],
)
def test_what_learners_cannot_use_is_refused(env_id, kwargs, words):
    with pytest.raises(ValueError, match=r".") as error:
        EnvPoolAdapter(env_id, kwargs)
    for word in words:
        assert word in str(error.value)


def test_a_missing_extra_is_named(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"pip install 'dacrl-env\[envpool\]'"):
        gym.make(task, **OPTIONS)


# -- as a task ------------------------------------------------------------------------


@pytest.fixture
def task() -> Iterator[str]:
    dacrl_env.register_task(
        id=TASK,
        inner_env="CartPole-v1",
        inner_env_kwargs={"max_episode_steps": 30},
        backend="envpool",
        algorithm="dqn",
        budget=400,
        random_return=20.0,
        reference_return=30.0,
        floor_return=0.0,
    )
    yield TASK
    del dacrl_env.TASKS[TASK], gym.registry[TASK]


def make(**options: Any) -> Any:
    return gym.make(TASK, **{**OPTIONS, **options}).unwrapped


def make_vec(num_envs: int = 3, **options: Any) -> Any:
    options = {**OPTIONS, **options}
    return gym.make_vec(TASK, num_envs=num_envs, **options).unwrapped


def rows(env: Any) -> dict[str, np.ndarray]:
    """Every bit of a state; wall clock and objects excepted."""
    return {
        name: np.asarray(leaf).copy()
        for name, leaf in leaves(env.population.state)
        if name != "wall_seconds" and not is_opaque(leaf)
    }


def differing(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray], members: Any = slice(None)
) -> list[str]:
    assert a.keys() == b.keys()
    return [n for n in a if a[n][members].tobytes() != b[n][members].tobytes()]


def test_the_task_says_the_backend(task):
    env = make_inner_env(dacrl_env.TASKS[task])
    assert isinstance(env, EnvPoolAdapter)
    state = env.init(keys(1, 1), nothing(1))
    for k in range(30):
        step = env.step(state, np.array([[k % 2]]))
    assert step.lengths.max() <= 30
    with pytest.raises(ValueError, match="envpool"):
        dacrl_env.register_task(
            id="dacrl-tests/Other-v0",
            inner_env="CartPole-v1",
            backend="jax",  # type: ignore[arg-type]
            algorithm="dqn",
            budget=400,
            random_return=20.0,
            reference_return=30.0,
            floor_return=0.0,
        )


def test_gymnasium_checker(task):
    check_env(make(), skip_render_check=True)


def test_two_resets_with_the_same_seed_give_the_same_run(task):
    envs = make_vec(num_inner_envs=2)
    outcomes = []
    for seed in (5, 5, 6):
        envs.reset(seed=seed)
        taken = []
        for k in range(4):
            actions = np.full(envs.action_space.shape, 0.1 * k)
            _, rewards, ended, _, infos = envs.step(actions)
            infos = infos["final_info"] if ended.any() else infos
            taken.append((rewards, ended, infos["eval_return"], infos["train_return"]))
            assert (infos["env_steps"] == 100 * (k + 1)).all()
            assert (infos["eval_return"] > 5).all()
            assert (infos["eval_return"] <= 30).all()
        assert ended.all()  # and every member is at its next run's start
        outcomes.append((taken, rows(envs)))
        assert pools(envs.population.state.learner.envs) == 1
    first, again, other = outcomes
    assert differing(first[1], again[1]) == []
    np.testing.assert_equal(first[0], again[0])
    assert "learner.envs.observations" in differing(first[1], other[1])


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
def test_members_do_not_touch_each_other(task, implementation):
    a, b = (make_vec(implementation=implementation) for _ in range(2))
    single = make(implementation=implementation)
    single.reset(seed=2)
    for envs in (a, b):
        envs.reset(seed=[0, 1, 2])
    for _ in range(2):
        actions = np.zeros(a.action_space.shape)
        a.step(actions)
        actions[1] = 1
        b.step(actions)
        single.step(actions[2])
    assert differing(rows(a), rows(b), [0, 2]) == []
    assert "learner.parameters" in differing(rows(a), rows(b), [1])
    for name in ("observations", "keys", "lengths", "episodes"):
        alone = getattr(single.population.state.learner.envs, name)[0]
        together = getattr(a.population.state.learner.envs, name)[2]
        np.testing.assert_array_equal(alone, together, err_msg=name)


def test_cutting_a_run_changes_nothing(task):
    cuts = []
    for interval in (50, 100):
        env = make(decision_interval=interval, eval_interval=100)
        env.reset(seed=1)
        for _ in range(200 // interval):
            env.step(np.zeros(3))
        cuts.append({n: a for n, a in rows(env).items() if n.startswith("learner.")})
    assert differing(*cuts) == []


def test_a_restarted_member_leaves_the_others(task):
    a, b = make_vec(), make_vec()
    zeros = np.zeros(a.action_space.shape)
    for envs in (a, b):
        envs.reset(seed=3)
        envs.step(zeros)
    only = np.array([False, True, False])
    a.reset(options={"reset_mask": only})
    assert pools(a.population.state.learner.envs) == 2
    for envs in (a, b):
        envs.step(zeros)
    assert differing(rows(a), rows(b), [0, 2]) == []
    assert a.population.state.learner.env_steps.tolist() == [200, 100, 200]


def test_exact_snapshots_and_forks_are_refused(task):
    envs = make_vec()
    envs.reset(seed=0)
    envs.step(np.zeros(envs.action_space.shape))
    before = rows(envs)
    with pytest.raises(dacrl_env.SnapshotNotSupported, match=r"EnvPool.*exact=False"):
        envs.snapshot()
    with pytest.raises(dacrl_env.SnapshotNotSupported, match="EnvPool"):
        envs.fork(np.array([0, 0, 2]))
    assert differing(before, rows(envs)) == []


def test_inexact_snapshots_keep_the_learner(task, tmp_path: Path):
    envs = make_vec()
    envs.reset(seed=0)
    actions = np.zeros(envs.action_space.shape)
    for _ in range(2):
        envs.step(actions)
    before = rows(envs)
    envs.snapshot(exact=False).save(tmp_path / "snap")
    assert differing(before, rows(envs)) == []  # the run it was taken of goes on
    envs.step(actions)
    snap = Snapshot.load(tmp_path / "snap")
    envs.restore(snap)
    after = rows(envs)
    changed = {"observations", "returns", "lengths", "episodes"}
    # of a transition the learner keeps that the episode does not go on
    allowed = {"learner.replay.transitions", *(f"learner.envs.{n}" for n in changed)}
    assert set(differing(before, after)) <= allowed
    np.testing.assert_array_equal(
        after["learner.envs.episodes"], before["learner.envs.episodes"] + 1
    )
    assert (after["learner.envs.lengths"] == 0).all()
    assert (np.abs(after["learner.envs.observations"]) <= 0.05).all()
    # elsewhere, whatever went on there, it continues alike, to the end
    other = make_vec()
    other.reset(seed=9)
    other.step(actions)
    other.reset(options={"snapshot": snap})
    assert differing(after, rows(other)) == []
    for k in range(2):
        outcomes = [e.step(actions) for e in (envs, other)]
        assert differing(rows(envs), rows(other)) == []
        np.testing.assert_array_equal(outcomes[0][1], outcomes[1][1])
        assert (outcomes[0][2] == (k == 1)).all()
