"""Constants that change in the course of a training run."""

from __future__ import annotations

import numpy as np
import pytest
from cases import quick
from numpy.typing import NDArray
from stepping import constants, keys, random_actions, start

from dacrl_env.core import snapshot
from dacrl_env.inner_envs import dynamics
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.shift import NEVER
from dacrl_env.kernels.compiling import entry

SHIFTED = {
    "CartPoleShift": "CartPole-v1",
    "PendulumShift": "Pendulum-v1",
    "CartPoleSwingupShift": "CartPoleSwingup-v0",
}


@pytest.mark.parametrize("env_id", quick(SHIFTED, "CartPoleShift"))
def test_by_default_nothing_shifts(env_id: str) -> None:
    env, state = start(env_id, P=2, N=2)
    plain, usual = start(SHIFTED[env_id], P=2, N=2)
    assert [*env.physics] == [
        *plain.physics,
        "shift_at",
        *(f"shift_{name}" for name in plain.physics),
        "shift_period",
    ]
    assert env.num_actions == plain.num_actions
    np.testing.assert_array_equal(env.action_low, plain.action_low)
    np.testing.assert_array_equal(env.action_high, plain.action_high)
    rng = np.random.default_rng(0)
    for _ in range(250):
        actions = random_actions(env, rng, 2, 2)
        for a, b in zip(
            env.step(state, actions), plain.step(usual, actions), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("env_id", quick(SHIFTED, "CartPoleShift"))
def test_constants_shift_once_at_each_members_step(env_id: str) -> None:
    at = np.array([57, 230, NEVER, 0])
    factors = np.array([1.5, 0.5, 2.0, 0.8])
    # the same by hand
    plain, by_hand = start(SHIFTED[env_id], P=4, N=2)
    changes = {"shift_gravity": factors, "shift_" + [*plain.physics][1]: 1.1}
    env, state = start(env_id, P=4, N=2, shift_at=at, **changes)
    given = state.physics.copy()
    rng = np.random.default_rng(0)
    # episodes that would be too long end early
    limit = env.env.max_episode_steps
    state.lengths[...] = by_hand.lengths[...] = max(limit - 300, 0)
    for k in range(500):
        due = at == k
        by_hand.physics[due, 0] *= factors[due]
        by_hand.physics[due, 1] *= 1.1
        actions = random_actions(env, rng, 4, 2)
        ours, theirs = env.step(state, actions), plain.step(by_hand, actions)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    # in the middle of a life of several episodes
    assert (state.episodes >= 1).all()
    assert (state.lifetime == 500).all()
    np.testing.assert_array_equal(state.physics, given)
    assert (by_hand.physics[[0, 1, 3], 0] != plain.physics["gravity"]).all()
    assert by_hand.physics[2, 0] == plain.physics["gravity"]


@pytest.mark.parametrize("env_id", quick(SHIFTED, "CartPoleShift"))
def test_constants_come_back_and_shift_again_each_period(env_id: str) -> None:
    at, period = np.array([57, 100, NEVER, 0]), np.array([60, 1, 10, NEVER])
    plain, by_hand = start(SHIFTED[env_id], P=4, N=2)
    times = {"shift_at": at, "shift_period": period}
    env, state = start(env_id, P=4, N=2, **times, shift_gravity=1.5)
    rng = np.random.default_rng(0)
    gravity = plain.physics["gravity"]
    for k in range(250):
        there = k >= at
        passed = np.floor_divide(k - at, period, where=there, out=np.ones(4))
        by_hand.physics[:, 0] = np.where(there & (passed % 2 == 0), 1.5, 1) * gravity
        actions = random_actions(env, rng, 4, 2)
        ours, theirs = env.step(state, actions), plain.step(by_hand, actions)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_life_outlasts_episodes_and_ends_with_a_restart() -> None:
    env, state = start("PendulumShift", P=2, N=1, shift_at=12, shift_mass=3.0)
    rng = np.random.default_rng(0)

    def masses() -> list[float]:
        """What a step of each member shows its mass to be."""
        state.variables[...] = 0.0  # upright: nothing but the torque moves it
        step = env.step(state, np.ones((2, 1, 1)))
        return (0.05 * 3.0 / step.observations[:, 0, 2]).tolist()

    for _ in range(10):
        env.step(state, random_actions(env, rng, 2, 1))
    env.begin_episodes(state)
    assert state.lifetime.tolist() == [[10], [10]]
    assert masses() == pytest.approx([1, 1])
    saved = snapshot.capture(state)
    assert masses() == pytest.approx([1, 1])
    assert masses() == pytest.approx([3, 3])
    env.begin_episodes(state)
    assert masses() == pytest.approx([3, 3])
    physics = constants(env, 1, shift_at=1, shift_mass=5.0)
    env.restart(state, np.array([1]), keys(1, 1), physics)
    assert state.lifetime.tolist() == [[14], [0]]
    assert masses() == pytest.approx([3, 1])
    assert masses() == pytest.approx([3, 5])
    snapshot.restore(state, snapshot.Snapshot({}, saved))
    assert masses() == pytest.approx([1, 1])
    assert masses() == pytest.approx([3, 3])


# -- evaluations ----------------------------------------------------------------

AT, FACTOR = np.array([100, 101, 99, 1000]), 4.0
LIFETIME = np.array([100, 100, 100, 0])
GRAVITY = np.array([FACTOR, 1.0, FACTOR, 1.0]) * 9.8  # which is then in force


def test_evaluations_see_the_constants_of_their_time_only() -> None:
    env, plain = ENVS["CartPoleShift"](), ENVS["CartPole-v1"]()
    physics = constants(env, 4, shift_at=AT, shift_gravity=FACTOR)
    given = physics.copy()
    state = env.init(keys(4, 3), physics, LIFETIME)
    np.testing.assert_array_equal(physics, given)
    assert (state.lifetime == 0).all()
    usual = plain.init(keys(4, 3), constants(plain, 4, gravity=GRAVITY))
    rng = np.random.default_rng(0)
    for _ in range(1200):  # past every shift
        actions = rng.integers(0, 2, (4, 3))
        ours, theirs = env.step(state, actions), plain.step(usual, actions)
        np.testing.assert_array_equal(ours.observations, theirs.observations)
    # where nothing can change, the time makes no difference
    late = plain.init(keys(4, 3), constants(plain, 4), np.full(4, 10**6))
    np.testing.assert_array_equal(late.physics, constants(plain, 4))


@entry
def _evaluate(key, physics, lifetime, actions, env, envs, room, observations):
    """One episode after another in the only environment, as learners begin them."""
    dynamics.begin_evaluation(0, key, physics, lifetime, env, envs, room)
    for t in range(len(actions)):
        given = actions[t]
        _, terminated, cut = dynamics.advance(0, 0, given, env, envs, room)
        variables = dynamics.variables_of(0, 0, envs)
        dynamics.observe(env, variables, observations[t])
        if terminated or cut:
            dynamics.begin_next(0, 0, env, envs, room)


def _episode(p: int, one: dynamics.EnvState) -> NDArray[np.float32]:
    """What compiled learners see of an evaluation of member p."""
    env, rng = ENVS["CartPoleShift"](), np.random.default_rng(0)
    physics = constants(env, 4, shift_at=AT, shift_gravity=FACTOR)[p]
    actions, seen = rng.integers(0, 2, (1200, 1)) * 1.0, np.zeros((1200, 4), np.float32)
    given = (keys(4, 1)[p, 0], physics, LIFETIME[p], actions)
    _evaluate(*given, env.env, one, env.room(), seen)
    return seen


def test_evaluations_by_compiled_learners_are_the_same() -> None:
    plain = ENVS["CartPole-v1"]()
    usual = plain.init(keys(4, 1), constants(plain, 4, gravity=GRAVITY))
    one = dynamics.make_env_state(1, 1, 12, 4)  # used again and again
    ours = np.stack([_episode(p, one) for p in range(4)])
    actions = np.random.default_rng(0).integers(0, 2, (1200, 1))
    for t in range(1200):
        step = plain.step(usual, np.repeat(actions[t : t + 1], 4, axis=0))
        np.testing.assert_array_equal(ours[:, t], step.observations[:, 0])
