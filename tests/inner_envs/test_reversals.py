"""Actions that are reversed in the course of a training run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import quick
from numpy.typing import NDArray
from stepping import random_actions, start

from dacrl_env.inner_envs import dynamics
from dacrl_env.inner_envs.env import CompiledEnv
from dacrl_env.inner_envs.shift import NEVER
from dacrl_env.kernels.compiling import entry
from dacrl_env.tasks import measured

IDS = list(measured.SAME)


def in_reverse(env: CompiledEnv, actions: NDArray[Any]) -> NDArray[Any]:
    """The opposite ones."""
    return env.num_actions - 1 - actions if env.num_actions else -actions


@pytest.mark.parametrize("env_id", quick(IDS, "AcrobotReversals", "PendulumReversals"))
def test_actions_are_reversed_in_turns(env_id: str) -> None:
    at, period = np.array([57, 100, NEVER, 0]), np.array([60, 1, 10, NEVER])
    plain, usual = start(measured.SAME[env_id], P=4, N=2)
    env, state = start(env_id, P=4, N=2, shift_at=at, shift_period=period)
    assert [*env.physics] == [
        *plain.physics,
        "shift_at",
        "shift_period",
        "shift_order",
    ]
    assert env.num_actions == plain.num_actions
    given = state.physics.copy()
    rng = np.random.default_rng(0)
    # episodes end, and the life goes on
    state.lengths[...] = usual.lengths[...] = env.env.max_episode_steps - 90
    reversed_at_all = np.zeros(4, bool)
    for k in range(250):
        there = k >= at
        passed = np.floor_divide(k - at, period, where=there, out=np.ones(4))
        turned = there & (passed % 2 == 0)
        reversed_at_all |= turned
        actions = random_actions(env, rng, 4, 2)
        meant = actions.copy()
        meant[turned] = in_reverse(env, actions[turned])
        before = actions.copy()
        ours, theirs = env.step(state, actions), plain.step(usual, meant)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(actions, before)
    assert reversed_at_all.tolist() == [True, True, False, True]
    assert (state.episodes >= 1).all()
    np.testing.assert_array_equal(state.physics, given)


@pytest.mark.parametrize("env_id", quick(IDS, "AcrobotReversals", "PendulumReversals"))
def test_reversed_from_the_start(env_id: str) -> None:
    plain, usual = start(measured.SAME[env_id], P=1, N=1)
    changes = {"shift_order": 2, "shift_at": 20}
    env, state = start(env_id, P=1, N=1, **changes)
    rng = np.random.default_rng(0)
    for k in range(40):
        actions = random_actions(env, rng, 1, 1)
        meant = in_reverse(env, actions) if k < 20 else actions
        ours, theirs = env.step(state, actions), plain.step(usual, meant)
        np.testing.assert_array_equal(ours.observations, theirs.observations)


@pytest.mark.parametrize("env_id", quick(IDS, "AcrobotReversals", "PendulumReversals"))
def test_evaluations_see_the_order_of_their_time_only(env_id: str) -> None:
    plain, usual = start(measured.SAME[env_id], P=3, N=2)
    env, begun = start(env_id, P=3, N=2, shift_at=100, shift_period=50)
    state = env.init(begun.keys, begun.physics, np.array([99, 149, 150]))
    assert (state.lifetime == 0).all()
    rng = np.random.default_rng(0)
    for _ in range(120):  # past the next reversals of training
        actions = random_actions(env, rng, 3, 2)
        meant = actions.copy()
        meant[1] = in_reverse(env, actions[1])
        ours, theirs = env.step(state, actions), plain.step(usual, meant)
        np.testing.assert_array_equal(ours.observations, theirs.observations)


@entry
def _advance(key, physics, lifetime, actions, env, envs, room):
    dynamics.begin_evaluation(0, key, physics, lifetime, env, envs, room)
    for t in range(len(actions)):
        dynamics.advance(0, 0, actions[t], env, envs, room)


@pytest.mark.parametrize("env_id", quick(IDS, "AcrobotReversals", "PendulumReversals"))
def test_what_learners_store_is_the_action_that_they_took(env_id: str) -> None:
    env, begun = start(env_id, P=1, N=1, shift_order=2)
    actions = random_actions(env, np.random.default_rng(0), 50, 1).reshape(50, 1) * 1.0
    before = actions.copy()
    one = dynamics.make_env_state(1, 1, len(env.physics), env.env.variables)
    given = begun.keys[0, 0], begun.physics[0], np.int64(0), actions
    _advance(*given, env.env, one, env.room())
    assert one.lengths[0, 0] == 50
    np.testing.assert_array_equal(actions, before)
