"""Compiled environments against the original packages, step by step."""

import gymnasium as gym
import numpy as np
import pytest

from dacrl_env.inner_envs import minigrid as old
from dacrl_env.inner_envs.compiled import (
    acrobot,
    cartpole,
    dynamics,
    minigrid,
    mountain_car,
    pendulum,
    shift,
)
from dacrl_env.kernels.compiling import entry


@entry
def _restart(p, keys, physics, env, envs, room):
    dynamics.restart(p, keys, physics, env, envs, room)


@entry
def _advance(action, env, envs, room, observation):
    """Step the only environment, and begin the next episode where one has ended."""
    result = dynamics.advance(0, 0, action, env, envs, room)
    dynamics.observe(env, dynamics.variables_of(0, 0, envs), observation)
    if result[1] or result[2]:
        dynamics.begin_next(0, 0, env, envs, room)
    return result


class _One:
    """A single environment, from Python."""

    def __init__(self, env, physics, key=7) -> None:
        self.env, K = env, len(physics)
        self.envs = dynamics.make_env_state(1, 1, K, env.variables)
        self.room = np.zeros(max(K, 1))
        keys, constants = (
            np.array([key], np.uint64),
            np.array([*physics.values()], float),
        )
        _restart(0, keys, constants, env, self.envs, self.room)
        self.variables = self.envs.variables[0, 0]

    def step(self, action):
        observation = np.zeros(self.env.features, np.float32)
        given = np.atleast_1d(np.asarray(action, float))
        reward, terminated, truncated = _advance(
            given, self.env, self.envs, self.room, observation
        )
        return observation, reward, terminated, truncated


CLASSIC = {
    "CartPole-v1": (cartpole, cartpole.CartPole()),
    "Acrobot-v1": (acrobot, acrobot.Acrobot()),
    "MountainCar-v0": (mountain_car, mountain_car.MountainCar()),
    "Pendulum-v1": (pendulum, pendulum.Pendulum()),
}


@pytest.mark.parametrize("name", CLASSIC)
def test_a_step_is_that_of_gymnasium(name: str) -> None:
    module, env = CLASSIC[name]
    original, rng = gym.make(name).unwrapped, np.random.default_rng(0)
    original.reset(seed=0)
    one = _One(env, module.PHYSICS)
    for _ in range(1_500):
        original.state = tuple(one.variables)
        if name == "CartPole-v1":
            original.steps_beyond_terminated = None
        if env.actions:
            action = given = int(rng.integers(env.actions))
        else:
            given = rng.uniform(-3, 3, 1)
            action = given
        expected = original.step(action)
        observation, reward, terminated, _ = one.step(given)
        np.testing.assert_allclose(observation, expected[0], rtol=1e-6, atol=1e-7)
        assert reward == pytest.approx(float(expected[1]), rel=1e-9, abs=1e-12)
        assert terminated == expected[2]


@pytest.mark.parametrize("name", CLASSIC)
def test_spaces_and_limits_are_those_of_gymnasium(name: str) -> None:
    module, env = CLASSIC[name]
    original = gym.make(name)
    assert original.observation_space.shape == (env.features,)
    assert gym.spec(name).max_episode_steps == env.max_episode_steps
    if env.actions:
        assert original.action_space.n == env.actions
    else:
        np.testing.assert_array_equal(original.action_space.low, module.ACTION_LOW)
        np.testing.assert_array_equal(original.action_space.high, module.ACTION_HIGH)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (minigrid.empty_5x5, "MiniGrid-Empty-5x5-v0"),
        (minigrid.door_key_5x5, "MiniGrid-DoorKey-5x5-v0"),
    ],
)
def test_minigrid_is_the_one_that_steps_in_batches(make, name) -> None:
    """That one is tested against the package minigrid itself."""
    batched = old.empty_5x5() if "Empty" in name else old.door_key_5x5()
    env, rng = make(), np.random.default_rng(0)
    one = _One(env, {})
    for _ in range(3_000):
        action, before = int(rng.integers(7)), one.variables.astype(np.int64)
        following, reward, terminated = batched.step(before, np.array(action), None)
        observation, *result = one.step(action)
        seen = batched.observe(following).ravel()
        np.testing.assert_array_equal(observation, seen)
        assert result[:2] == [reward, terminated]


@pytest.mark.parametrize("name", CLASSIC)
def test_episodes_end_and_begin(name: str) -> None:
    module, env = CLASSIC[name]
    one, lengths = _One(env, module.PHYSICS), []
    while len(lengths) < 3:
        before = int(one.envs.lengths[0, 0])
        *_, terminated, truncated = one.step(np.zeros(1))
        assert truncated <= (before + 1 == env.max_episode_steps)
        if terminated or truncated:
            lengths.append(before + 1)
            assert one.envs.lengths[0, 0] == one.envs.returns[0, 0] == 0
    assert one.envs.episodes[0, 0] == 3
    assert one.envs.lifetime[0, 0] == sum(lengths)
    again = _One(env, module.PHYSICS)
    other = _One(env, module.PHYSICS, key=8)
    assert (again.variables != other.variables).any()


def test_physics_shift_once() -> None:
    physics = shift.with_shift(cartpole.PHYSICS) | {
        "shift_at": 40.0,
        "shift_force": -1.2,
    }
    shifted = _One(shift.shifted(cartpole.CartPole()), physics)
    for t in range(80):
        force = 10.0 if t < 40 else -12.0
        plain = _One(cartpole.CartPole(), {**cartpole.PHYSICS, "force": force})
        plain.variables[:] = shifted.variables
        ended = shifted.step(t % 2)
        np.testing.assert_array_equal(plain.step(t % 2)[0], ended[0])
