"""Populations of compiled environments: episodes, members, and who steps them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import quick, slow
from stepping import (
    BY_RULES,
    CLASSIC,
    FEW,
    GRIDS,
    IDS,
    constants,
    keys,
    moved,
    random_actions,
    start,
)

from dacrl_env.core import snapshot, streams
from dacrl_env.inner_envs.env import ENVS, CompiledEnv
from dacrl_env.learners import dqn, ppo
from dacrl_env.tasks.backends import COMPILED_ENVS

# -- episodes -------------------------------------------------------------------


def test_the_registry_names_those_that_there_are() -> None:
    assert tuple(ENVS) == COMPILED_ENVS


@pytest.mark.parametrize("env_id", ENVS)
def test_constants_can_be_compared_by_ratios(env_id: str) -> None:
    """What is observed of an instance are ratios to the default."""
    assert all(0 < value < np.inf for value in ENVS[env_id]().physics.values())


@pytest.mark.parametrize("env_id", quick(IDS, *FEW))
def test_an_ended_episode_gives_its_last_observation_and_starts_anew(
    env_id: str,
) -> None:
    env, state = start(env_id, P=2, N=2)
    limit = env.env.max_episode_steps
    # episodes that would be too long begin in their middle
    lengths, returns = np.full((2, 2), max(limit - 600, 0)), np.zeros((2, 2))
    state.lengths[...] = lengths
    starts = [*state.variables.reshape(4, -1).copy()]
    rng, ended = np.random.default_rng(0), 0
    for k in range(1, max(620, limit + 20)):
        actions = random_actions(env, rng, 2, 2)
        episodes = state.episodes.copy()
        after, seen, rewards, terminated = (
            array.reshape(2, 2, *array.shape[1:])
            for array in moved(
                env,
                state.variables.reshape(4, -1),
                actions.reshape(4, *actions.shape[2:]),
                np.repeat(state.physics, 2, axis=0),
                state.keys.ravel(),
                state.lifetime.ravel(),
            )
        )
        step = env.step(state, actions)
        lengths, returns = lengths + 1, returns + rewards
        # of the episode that ran, also where it ended
        np.testing.assert_array_equal(step.observations, seen)
        assert step.observations.dtype == env.observation_dtype
        np.testing.assert_array_equal(step.rewards, rewards)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.done, terminated | (lengths == limit))
        np.testing.assert_array_equal(step.lengths, lengths)
        np.testing.assert_array_equal(step.returns, returns)
        on = ~step.done
        np.testing.assert_array_equal(state.variables[on], after[on])
        np.testing.assert_array_equal(state.observations[on], seen[on])
        np.testing.assert_array_equal(state.episodes, episodes + step.done)
        np.testing.assert_array_equal(state.lifetime, k)
        starts += [*state.variables[step.done].copy()]
        lengths[step.done], returns[step.done] = 0, 0
        np.testing.assert_array_equal(state.lengths, lengths)
        np.testing.assert_array_equal(state.returns, returns)
        # of the state, which is that of the next episode already
        now = state.observations.copy()
        env.observe(state)
        np.testing.assert_array_equal(now, state.observations)
        ended += step.done.sum()
    assert ended >= 4
    if env_id in CLASSIC:  # no two episodes start alike
        assert len(np.unique(starts, axis=0)) == len(starts) == 4 + ended


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MiniGrid-Empty-5x5-v0"])
def test_an_episode_that_ends_by_itself_is_not_cut_at_its_limit(env_id: str) -> None:
    env, state = start(env_id, P=1, N=2)
    limit, action = env.env.max_episode_steps, 0
    if env_id in GRIDS:  # in front of the goal
        (number,) = np.flatnonzero(env.env.arrives)[:1]
        number, action = divmod(int(number), env.num_actions)
        state.variables[0, 0, 0] = number
    else:
        state.variables[0, 0, 0] = 3.0
    state.lengths[...] = limit - 2
    step = env.step(state, np.array([[action, 0]]))
    assert step.terminated.tolist() == step.done.tolist() == [[True, False]]
    state.variables[0, 1] = state.variables[0, 0]
    if env_id in GRIDS:
        state.variables[0, 1, 0] = number
    else:
        state.variables[0, 1, 0] = 3.0
    state.lengths[...] = limit - 1
    step = env.step(state, np.array([[0, action]]))
    assert step.terminated.tolist() == [[False, True]]
    assert step.done.all()


def test_transitions_keep_what_they_have() -> None:
    for env_id in ("CartPole-v1", GRIDS[0]):
        env, state = start(env_id, P=2, N=2)
        rng, kept = np.random.default_rng(0), []
        for _ in range(60):
            actions = random_actions(env, rng, 2, 2)
            given = actions.copy()
            step = env.step(state, actions)
            np.testing.assert_array_equal(actions, given)
            kept.append((step, [array.copy() for array in step]))
        for step, copies in kept:
            for array, copy in zip(step, copies, strict=True):
                np.testing.assert_array_equal(array, copy)


# -- members --------------------------------------------------------------------


@pytest.mark.parametrize("env_id", quick(IDS, *FEW))
def test_episodes_do_not_depend_on_the_company(env_id: str) -> None:
    env, state = start(env_id, P=4, N=3)
    alone = env.init(state.keys[2:3, 1:2], state.physics[2:3])
    state.lengths[...] = alone.lengths[...] = max(env.env.max_episode_steps - 500, 0)
    rng = np.random.default_rng(0)
    for _ in range(max(550, env.env.max_episode_steps + 50)):
        actions = random_actions(env, rng, 4, 3)
        step, single = env.step(state, actions), env.step(alone, actions[2:3, 1:2])
        for one, several in zip(single, step, strict=True):
            assert one[0, 0].tobytes() == several[2, 1].tobytes()
        assert alone.variables[0, 0].tobytes() == state.variables[2, 1].tobytes()
        assert alone.observations[0, 0].tobytes() == state.observations[2, 1].tobytes()
    assert state.episodes[2, 1] > 0


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        (env_id, name) if env_id in FEW else slow(env_id, name)
        for env_id in IDS
        for name in ENVS[env_id]().physics
        if env_id not in BY_RULES  # whose constants tell of later times
    ],
)
def test_each_constant_is_the_members_own(env_id: str, name: str) -> None:
    default, rng = ENVS[env_id]().physics[name], np.random.default_rng(0)
    changed = np.array([1.0, 10.0 if name == "sticky" else 1.3, 1.0]) * default
    env, state = start(env_id, P=3, N=2, **{name: changed})
    _, usual = start(env_id, P=3, N=2)
    # timers start at some constants of the games
    alike = [0, 1, 2] if env_id in CLASSIC else [0, 2]
    np.testing.assert_array_equal(state.variables[alike], usual.variables[alike])

    def differs() -> bool:
        for _ in range(5):  # no episode is as short
            actions = random_actions(env, rng, 3, 2)
            env.step(state, actions)
            env.step(usual, actions)
        same = [0, 2]
        np.testing.assert_array_equal(state.variables[same], usual.variables[same])
        return bool((state.variables[1] != usual.variables[1]).any(-1).all())

    assert differs()
    # and in later episodes
    env.begin_episodes(state)
    env.begin_episodes(usual)
    assert differs()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MiniGrid-DoorKey-5x5-v0"])
def test_restarted_members_begin_again_and_others_go_on(env_id: str) -> None:
    env, state = start(env_id, P=3, N=2)
    first, rng = state.variables.copy(), np.random.default_rng(0)
    shown = state.observations.copy()
    for _ in range(60):
        env.step(state, random_actions(env, rng, 3, 2))
    before = {name: leaf.copy() for name, leaf in snapshot.leaves(state)}
    renewed = state.keys.copy()
    renewed[1] = renewed[0]
    physics = 1.5 * constants(env, 1)
    env.restart(state, np.array([1]), renewed[[1]], physics)
    np.testing.assert_array_equal(state.variables[1], first[0])
    np.testing.assert_array_equal(state.observations[1], shown[0])
    np.testing.assert_array_equal(state.physics[[1]], physics)
    for array in (state.episodes, state.lengths, state.returns, state.lifetime):
        assert (array[1] == 0).all()
    for name, leaf in snapshot.leaves(state):
        np.testing.assert_array_equal(leaf[[0, 2]], before[name][[0, 2]])
    lifetime = state.lifetime.copy()
    env.begin_episodes(state)
    np.testing.assert_array_equal(
        state.episodes[[0, 2]], before["episodes"][[0, 2]] + 1
    )
    assert (state.episodes[1] == 1).all()
    assert (state.lengths == 0).all()
    assert (state.returns == 0).all()
    np.testing.assert_array_equal(state.lifetime, lifetime)
    now = state.observations.copy()
    env.observe(state)
    np.testing.assert_array_equal(now, state.observations)


def test_the_caller_s_keys_and_constants_are_copied() -> None:
    env = ENVS["CartPole-v1"]()
    given, physics = keys(2, 2), constants(env, 2)
    state = env.init(given, physics)
    given[...], physics[...] = 0, 0.0
    assert state.keys.all()
    assert state.physics.all()


@pytest.mark.parametrize("env_id", quick(IDS, *FEW))
def test_a_saved_state_goes_on_as_before(env_id: str, tmp_path: Any) -> None:
    env, state = start(env_id, P=2, N=2)
    rng = np.random.default_rng(0)
    for _ in range(30):
        env.step(state, random_actions(env, rng, 2, 2))
    snapshot.Snapshot({}, snapshot.capture(state)).save(tmp_path / "state")
    saved = snapshot.Snapshot.load(tmp_path / "state")
    other = env.init(keys(2, 2, seed=9), constants(env, 2))
    snapshot.restore(other, saved)
    for _ in range(260):
        actions = random_actions(env, rng, 2, 2)
        ours, theirs = env.step(state, actions), env.step(other, actions)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


# -- learners -------------------------------------------------------------------


class Foreign:
    """The same environments, as any that Python steps."""

    def __init__(self, env: CompiledEnv) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


DQN = dqn.DQNConfig(hidden_sizes=(16,), learning_starts=32)
PPO = ppo.PPOConfig(hidden_sizes=(16,), num_inner_envs=2, rollout_length=20)
ALGORITHMS: dict[str, tuple[Any, Any, int]] = {  # and steps of an interval
    "dqn": (dqn.DQN, DQN, 120),
    "ppo": (ppo.PPO, PPO, 120),
}


def _trained(learner: str, env: Any) -> tuple[dict[str, bytes], list[bytes]]:
    kind, config, steps = ALGORITHMS[learner]
    made = kind(env, env, config, 10_000)
    members = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(3)])
    physics = constants(env, 3)
    state = made.init(members, physics)
    values = {h.name: np.full(3, h.start) for h in made.hyperparameters}
    interval = made.begin_interval(state)
    made.train(state, values, steps, interval)
    made.begin_episodes(state)
    made.train(state, values, steps, interval)
    returns, taken = made.play(state, np.array([0, 2]), keys(2, 2), physics[:2])
    told = made.signals(state, values, interval)
    bits = {name: np.asarray(leaf).tobytes() for name, leaf in snapshot.leaves(state)}
    assert state.env_steps.tolist() == [2 * steps] * 3
    if learner == "dqn":
        assert (state.gradient_steps > 20).all()
    rest = [returns, taken, interval.finished, interval.sums, *told.values()]
    return bits, [array.tobytes() for array in rest]


@pytest.mark.parametrize(
    ("learner", "env_id"),
    [
        ("dqn", "CartPole-v1"),
        slow("dqn", "MiniGrid-DoorKey-5x5-v0"),
        slow("dqn", "CartPoleShift"),
        slow("dqn", "TwoColours-v0"),
        slow("dqn", "SwitchingMDP-v0"),
        slow("dqn", "DeepSea-v0"),
        slow("dqn", "MinAtar/Seaquest-v1"),
        slow("ppo", "MinAtar/Breakout-v1"),
        ("ppo", "Pendulum-v1"),
        slow("ppo", "MountainCarContinuous-v0"),
        slow("ppo", "CartPoleSwingup-v0"),
    ],
)
def test_who_steps_them_makes_no_difference(learner: str, env_id: str) -> None:
    """Compiled code steps them itself, or Python does for it."""
    env = ENVS[env_id]()
    bits, rest = _trained(learner, env)
    stepped, others = _trained(learner, Foreign(env))
    assert bits.keys() == stepped.keys()
    assert [name for name in bits if bits[name] != stepped[name]] == []
    assert rest == others


@pytest.mark.slow
def test_images_are_kept_in_bytes() -> None:
    env = ENVS["MiniGrid-DoorKey-5x5-v0"]()
    learner = dqn.DQN(env, env, DQN, 500)
    members = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(2)])
    state = learner.init(members, constants(env, 2))
    largest = max((leaf for _, leaf in snapshot.leaves(state)), key=np.size)
    assert largest.dtype == np.uint8
    assert largest.size >= 2 * 500 * 147
    assert env.has_images
    assert not env.scales_images
