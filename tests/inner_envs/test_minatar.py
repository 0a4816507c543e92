"""MinAtar's games against the package they come from, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import quick, slow
from games import NAMES, PLAY, Original, check_variables
from numpy.typing import NDArray
from stepping import FEW, GAMES, constants, keys, moved, random_actions, start

from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.minatar import (
    asterix,
    common,
    freeway,
    seaquest,
    space_invaders,
)

# the least that such a player earns in 8,000 steps; random actions earn less
BETTER = {
    "MinAtar/Breakout-v1": 500,
    "MinAtar/SpaceInvaders-v1": 600,
    "MinAtar/Asterix-v1": 150,
    "MinAtar/Freeway-v1": 80,
    "MinAtar/Seaquest-v1": 50,
}


# -- step by step ----------------------------------------------------------------------


@pytest.mark.parametrize("env_id", quick(GAMES, *FEW))
def test_says_of_itself_what_the_original_does(env_id: str) -> None:
    minatar_gym = pytest.importorskip("minatar.gym")
    env = ENVS[env_id]()
    theirs = minatar_gym.BaseEnv(NAMES[env_id], use_minimal_action_set=True)
    assert env.observation_shape == theirs.observation_space.shape
    assert env.observation_dtype == theirs.observation_space.dtype
    assert env.num_actions == theirs.action_space.n
    assert env.physics["sticky"] == theirs.game.sticky_action_prob
    assert not env.has_images  # nothing is divided by 255


@pytest.mark.parametrize("skill", [slow(0.0), 0.95])
@pytest.mark.parametrize("env_id", quick(GAMES, *FEW))
def test_whole_episodes_are_those_of_the_original(env_id: str, skill: float) -> None:
    """Of random actions, and of a player that sees many a bonus and most ramps."""
    env, state = start(env_id, P=1, N=1)
    key, original = state.keys[0, 0], Original(env_id)
    original.reset(key, 0)
    rng, total = np.random.default_rng(1), 0.0
    for k in range(8_000):
        np.testing.assert_array_equal(state.observations[0, 0], original.state())
        check_variables(env, state.variables[0, 0], original)
        action = int(rng.integers(env.num_actions))
        if rng.random() < skill:
            action = PLAY[env_id](original.inner, rng)
        step = env.step(state, np.array([[action]]))
        reward, over = original.step(action, key, k)
        np.testing.assert_array_equal(step.observations[0, 0], original.state())
        assert step.rewards[0, 0] == reward
        assert step.terminated[0, 0] == over
        total += reward
        if step.done[0, 0]:
            original.reset(key, int(state.episodes[0, 0]))
    assert state.episodes[0, 0] >= 3
    if skill:
        assert total > BETTER[env_id]


def lasting(env_id: str, steps: int, skill: float) -> dict[str, NDArray[Any]]:
    """Variables ``(steps, S)`` and what happened to a player that nothing stops.

    A game that is lost goes on as it is, with fresh oxygen, on either side.
    """
    env, state = start(env_id, P=1, N=1)
    key, original = state.keys[0, 0], Original(env_id)
    original.reset(key, 0)
    rng, variables = np.random.default_rng(2), state.variables[0]
    seen, rewards, lost = [], np.zeros(steps), np.zeros(steps, bool)
    for k in range(steps):
        action = int(rng.integers(env.num_actions))
        if rng.random() < skill:
            action = PLAY[env_id](original.inner, rng)
        moment = (state.physics, np.array([key]), np.array([k]))
        result = moved(env, variables, np.array([action]), *moment)
        variables, observation = result[0], result[1]
        rewards[k], lost[k] = result[2][0], result[3][0]
        assert (rewards[k], lost[k]) == original.step(action, key, k)
        np.testing.assert_array_equal(observation[0], original.state())
        check_variables(env, variables[0], original)
        seen.append(variables[0].copy())
        original.inner.terminal = False
        if env_id == "MinAtar/Seaquest-v1" and lost[k]:
            variables[0, seaquest.OXYGEN] = original.inner.oxygen = 200
    return {"variables": np.stack(seen), "rewards": rewards, "lost": lost}


@pytest.mark.slow
def test_the_hardest_asterix_is_that_of_the_original() -> None:
    found = lasting("MinAtar/Asterix-v1", 6_000, 0.3)
    variables = found["variables"]
    hardest = variables[-1, [asterix.SPAWN_INTERVAL, asterix.MOVE_INTERVAL]]
    assert hardest.tolist() == [1, 1]
    things = variables[:, asterix.THINGS :][:, :8] != asterix.NONE
    assert things.sum(1).max() == 8  # all rows are taken, and nothing appears
    assert found["rewards"].max() >= 1
    assert found["lost"].any()


@pytest.mark.slow
def test_the_hardest_space_invaders_are_those_of_the_original() -> None:
    found = lasting("MinAtar/SpaceInvaders-v1", 12_000, 0.3)
    variables = found["variables"]
    assert variables[-1, space_invaders.MOVE_INTERVAL] == 6
    aliens = variables[:, space_invaders.ALIENS :][:, :10] != 0
    assert aliens[:, 9].any()  # they have come all the way down
    assert found["lost"].any()


@pytest.mark.slow
def test_the_hardest_seaquest_is_that_of_the_original() -> None:
    found = lasting("MinAtar/Seaquest-v1", 12_000, 0.7)
    variables = found["variables"]
    hardest = variables[-1, [seaquest.SPAWN_INTERVAL, seaquest.MOVE_INTERVAL]]
    assert hardest.tolist() == [1, 2]
    assert variables[:, seaquest.ABOARD].max() == 6
    assert variables[:, seaquest.ABOARD].min() < 0  # after six have been set down
    assert found["rewards"].max() == 10  # for them, at once with plenty of oxygen
    for kind, room in ROOM.items():
        assert 2 <= variables[:, kind].max() < room


ROOM = {
    seaquest.SHOTS: 4,
    seaquest.DIVERS: 4,
    seaquest.FISH: 32,
    seaquest.SUBS: 32,
    seaquest.TORPEDOES: 44,
}


# -- where episodes end ----------------------------------------------------------------


@pytest.mark.parametrize("env_id", quick(GAMES, *FEW))
def test_where_episodes_are_cut(env_id: str) -> None:
    """Freeway ends by itself, a step after its 2,500; the others go on for ever."""
    limit = ENVS[env_id]().env.max_episode_steps
    if env_id != "MinAtar/Freeway-v1":
        assert limit == common.MAX_EPISODE_STEPS == 2_500
        return
    env, state = start(env_id, P=1, N=1)
    for k in range(1, limit + 1):
        step = env.step(state, np.zeros((1, 1), int))
        assert step.terminated.all() == step.done.all() == (k == limit == 2_501)


@pytest.mark.parametrize("env_id", quick(GAMES, *FEW))
def test_nothing_of_an_episode_is_left_in_the_next_one(env_id: str) -> None:
    env, state = start(env_id, P=1, N=2)
    rng = np.random.default_rng(0)
    for _ in range(300):
        env.step(state, random_actions(env, rng, 1, 2))
    state.episodes[...] = -1
    env.begin_episodes(state)
    first = env.init(state.keys, state.physics)
    np.testing.assert_array_equal(state.variables, first.variables)
    np.testing.assert_array_equal(state.observations, first.observations)


# -- constants -------------------------------------------------------------------------


@pytest.mark.parametrize("sticky", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("env_id", quick(GAMES, *FEW))
def test_how_sticky_actions_are(env_id: str, sticky: float) -> None:
    env, n = ENVS[env_id](), 4_000
    state = env.init(keys(n, 1), constants(env, n))
    variables = state.variables[:, 0].copy()
    rng = np.random.default_rng(0)
    last, given = (rng.integers(0, env.num_actions, n) for _ in range(2))
    variables[:, common.LAST] = last
    physics = constants(env, n, sticky=sticky)
    after = moved(env, variables, given, physics, state.keys[:, 0])[0]
    told = given != last
    again = after[told, common.LAST] == last[told]
    assert (after[told, common.LAST][~again] == given[told][~again]).all()
    assert again.mean() == pytest.approx(sticky, abs=0.03 if 0 < sticky < 1 else 0)


@pytest.mark.parametrize(
    ("env_id", "name", "interval", "timer"),
    [
        slow("SpaceInvaders", "shot_interval", 7.5, space_invaders.SHOT_TIMER),
        slow("SpaceInvaders", "move_interval", 8.5, space_invaders.MOVE_TIMER),
        slow("Asterix", "spawn_interval", 3.25, asterix.SPAWN_TIMER),
        ("Asterix", "move_interval", 2.5, asterix.MOVE_TIMER),
        slow("Freeway", "move_interval", 4.5, freeway.WAIT),
        slow("Seaquest", "spawn_interval", 6.5, seaquest.SPAWN_TIMER),
    ],
)
def test_intervals_need_not_be_whole_numbers(
    env_id: str, name: str, interval: float, timer: int
) -> None:
    env, state = start(f"MinAtar/{env_id}-v1", P=1, N=1, **{name: interval})
    variables, times, steps = state.variables[0], 0, 100  # before anything gets harder
    for k in range(steps):
        before = variables[0, timer]
        up = np.array([1])
        variables = moved(env, variables, up, state.physics, lifetime=np.array([k]))[0]
        times += variables[0, timer] > before
    assert times == pytest.approx(steps / interval, abs=1.01)


@pytest.mark.parametrize("oxygen", [40.0, 40.5])
@pytest.mark.slow
def test_oxygen_is_how_long_one_can_dive(oxygen: float) -> None:
    alone = {"sticky": 0.0, "spawn_interval": 99}
    env, state = start("MinAtar/Seaquest-v1", P=1, N=1, oxygen=oxygen, **alone)
    dives, variables = 0, state.variables[0]
    over, bars = np.zeros(1, bool), []
    while not over[0] and dives < 99:
        action = np.array([4 if dives == 0 else 0])
        arguments = env, variables, action, state.physics
        variables, seen, _, over = moved(*arguments, lifetime=np.array([dives]))
        bars.append(int(seen[0, 9, :, seaquest.OXYGEN_LEFT].sum()))
        dives += 1
    assert dives == np.ceil(oxygen) + 1
    assert bars == [int(max(oxygen - k, 0) * 10 // oxygen) for k in range(1, dives + 1)]


@pytest.mark.slow
def test_no_more_appear_than_there_is_room_for() -> None:
    """Of enemies that hardly move, and would be more and more."""
    extreme = {"spawn_interval": 0.5, "move_interval": 1e6, "sticky": 0.0}
    env, state = start("MinAtar/Seaquest-v1", P=4, N=1, **extreme)
    variables, rng = state.variables[:, 0], np.random.default_rng(0)
    for k in range(600):
        steps, actions = np.full(4, k), rng.integers(0, 6, 4)
        arguments = env, variables, actions, state.physics, state.keys[:, 0]
        variables, _, rewards, _ = moved(*arguments, steps)
        for kind, room in ROOM.items():
            assert (variables[:, kind] <= room).all()
            # behind the last entry there is nothing
            for row in variables:
                rest = row[kind + 1 + 5 * int(row[kind]) : kind + 1 + 5 * room]
                assert not rest.any()
        assert (rewards >= 0).all()
    assert (variables[:, seaquest.FISH] == 32).all()
    assert (variables[:, seaquest.TORPEDOES] > 5).all()
