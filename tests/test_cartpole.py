from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from dacrl_env.inner_envs.batched import BatchedEnv, EnvState, Floats
from dacrl_env.inner_envs.cartpole import CartPole

# sine and cosine of arrays and of single numbers may differ in the last bit
TOLERANCE = 1e-12


def start(P: int, N: int, seed: int = 0) -> tuple[BatchedEnv, EnvState]:
    env = BatchedEnv(CartPole())
    keys = np.random.default_rng(seed).integers(0, 2**64, (P, N), np.uint64)
    return env, env.init(keys, np.tile([*env.physics.values()], (P, 1)))


def gymnasium_step(
    original: gym.Env[Any, Any], variables: NDArray[np.float64], action: int
) -> tuple[NDArray[np.float64], NDArray[np.float32], float, bool, bool]:
    """A step of Gymnasium's own from the given variables."""
    inner = original.unwrapped
    inner.state = variables.copy()
    inner.steps_beyond_terminated = None
    observation, reward, terminated, truncated, _ = original.step(action)
    return inner.state, observation, reward, terminated, truncated


def test_random_states_move_as_in_gymnasium():
    rng = np.random.default_rng(0)
    dynamics, original = CartPole(), gym.make("CartPole-v1").unwrapped
    original.reset(seed=0)
    # beyond both limits, so that either ends an episode
    variables = rng.uniform(-1, 1, (4000, 4)) * [3.2, 4.0, 0.28, 4.0]
    actions = rng.integers(0, 2, 4000)
    physics = np.tile([*dynamics.physics.values()], (4000, 1))
    after, rewards, terminated = dynamics.step(variables, actions, physics)
    observations = dynamics.observe(after)
    assert observations.dtype == np.float32
    for k in range(4000):
        state, observation, reward, over, _ = gymnasium_step(
            original, variables[k], int(actions[k])
        )
        np.testing.assert_allclose(after[k], state, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(observations[k], observation, rtol=1e-6)
        assert (rewards[k], terminated[k]) == (reward, over)
    assert 0.2 < terminated.mean() < 0.8


def test_whole_episodes_are_those_of_gymnasium():
    env, state = start(P=2, N=3)
    originals = {place: gym.make("CartPole-v1") for place in np.ndindex(2, 3)}
    for place, original in originals.items():
        original.reset(seed=0)
        original.unwrapped.state = state.variables[place].copy()
    rng, ended = np.random.default_rng(1), 0
    for _ in range(300):
        actions = rng.integers(0, 2, (2, 3))
        step = env.step(state, actions)
        for place, original in originals.items():
            observation, reward, terminated, truncated, _ = original.step(
                int(actions[place])
            )
            np.testing.assert_allclose(
                step.observations[place], observation, rtol=1e-5, atol=1e-7
            )
            assert step.rewards[place] == reward
            assert step.terminated[place] == terminated
            assert step.done[place] == (terminated or truncated)
            if step.done[place]:
                ended += 1
                original.reset()
                original.unwrapped.state = state.variables[place].copy()
            else:
                np.testing.assert_allclose(
                    state.variables[place],
                    original.unwrapped.state,
                    rtol=1e-9,
                    atol=TOLERANCE,
                )
    assert ended > 30


def balance(observations: NDArray[np.float32]) -> NDArray[np.int64]:
    """A policy that keeps the pole up for ever."""
    weights = np.array([0.1, 0.3, 3.0, 1.0])
    return (observations @ weights > 0).astype(np.int64)


def test_an_episode_is_truncated_after_500_steps():
    env, state = start(P=3, N=2)
    original = gym.make("CartPole-v1")
    original.reset(seed=0)
    original.unwrapped.state = state.variables[0, 0].copy()
    for k in range(1, 501):
        actions = balance(state.observations)
        before = state.variables[0, 0].copy()
        step = env.step(state, actions)
        *_, terminated, truncated = gymnasium_step(original, before, int(actions[0, 0]))
        assert (step.terminated[0, 0], step.done[0, 0]) == (terminated, truncated)
        assert not step.terminated.any()
        assert step.done.all() if k == 500 else not step.done.any()
        assert (step.lengths == k).all()
        assert (step.returns == k).all()
    assert truncated
    assert (state.lengths == 0).all()
    assert (state.returns == 0).all()


def test_starts_are_distributed_as_in_gymnasium():
    _, state = start(P=500, N=4)
    for values in state.variables.reshape(-1, 4).T:
        assert np.abs(values).max() <= 0.05
        counts = np.histogram(values, 20, (-0.05, 0.05))[0]
        assert ((counts - 100) ** 2 / 100).sum() < 19 + 5 * np.sqrt(2 * 19)
    r = np.corrcoef(state.variables.reshape(-1, 4).T) - np.eye(4)
    assert np.abs(r).max() < 5 / np.sqrt(2000)
    original = gym.make("CartPole-v1")
    theirs = np.stack([original.reset(seed=k)[0] for k in range(200)])
    assert np.abs(theirs).max() <= 0.05
    np.testing.assert_allclose(theirs.std(0), state.variables.std((0, 1)), rtol=0.15)


def test_an_ended_episode_gives_its_last_observation_and_starts_anew():
    env, state = start(P=3, N=2)
    starts = {place: [state.variables[place].copy()] for place in np.ndindex(3, 2)}
    lengths, rng = np.zeros((3, 2), int), np.random.default_rng(0)
    for _ in range(400):
        physics = state.physics
        actions = rng.integers(0, 2, (3, 2))
        expected, _, _ = env.dynamics.step(state.variables, actions, physics)
        step = env.step(state, actions)
        lengths += 1
        # of the episode that ran, also where it ended
        np.testing.assert_array_equal(step.observations, expected.astype(np.float32))
        np.testing.assert_array_equal(step.lengths, lengths)
        np.testing.assert_array_equal(step.returns, lengths)
        np.testing.assert_array_equal(
            state.observations, state.variables.astype(np.float32)
        )
        on = ~step.done
        np.testing.assert_array_equal(state.observations[on], step.observations[on])
        for place in zip(*np.nonzero(step.done), strict=True):
            assert np.abs(state.variables[place]).max() <= 0.05
            assert np.abs(step.observations[place]).max() > 0.05
            starts[place].append(state.variables[place].copy())
        lengths[step.done] = 0
        np.testing.assert_array_equal(state.lengths, lengths)
        np.testing.assert_array_equal(state.returns, lengths)
    for place, several in starts.items():
        assert state.episodes[place] == len(several) - 1 >= 5
    every = np.concatenate([np.stack(several) for several in starts.values()])
    assert np.unique(every[:, 0]).size == len(every)  # no two episodes start alike


def test_episodes_do_not_depend_on_the_company():
    env, state = start(P=4, N=3)
    alone = env.init(state.keys[2:3, 1:2], np.array([[*env.physics.values()]]))
    for _ in range(150):
        step = env.step(state, balance(-state.observations))
        single = env.step(alone, balance(-alone.observations))
        assert single.observations[0, 0].tobytes() == step.observations[2, 1].tobytes()
        assert alone.variables[0, 0].tobytes() == state.variables[2, 1].tobytes()
    assert state.episodes[2, 1] > 3


def test_restarted_members_begin_again_and_others_go_on():
    env, state = start(P=3, N=2)
    first = state.variables.copy()
    rng = np.random.default_rng(0)
    for _ in range(60):
        env.step(state, rng.integers(0, 2, (3, 2)))
    running, episodes = state.variables.copy(), state.episodes.copy()
    keys = state.keys.copy()
    keys[1] = keys[0]
    physics = np.tile([*env.physics.values()], (1, 1))
    env.restart(state, np.array([1]), keys[[1]], physics)
    np.testing.assert_array_equal(state.variables[1], first[0])
    assert (state.episodes[1] == 0).all()
    assert (state.lengths[1] == 0).all()
    np.testing.assert_array_equal(state.variables[[0, 2]], running[[0, 2]])
    np.testing.assert_array_equal(state.episodes[[0, 2]], episodes[[0, 2]])
    env.begin_episodes(state)
    np.testing.assert_array_equal(state.episodes[[0, 2]], episodes[[0, 2]] + 1)
    assert (np.abs(state.variables) <= 0.05).all()
    np.testing.assert_array_equal(
        state.observations, state.variables.astype(np.float32)
    )


NAMES = {  # ours: Gymnasium's
    "gravity": "gravity",
    "mass_cart": "masscart",
    "mass_pole": "masspole",
    "half_length": "length",
    "force": "force_mag",
}


def test_defaults_are_those_of_gymnasium():
    original = gym.make("CartPole-v1").unwrapped
    assert CartPole.physics == {
        name: getattr(original, theirs) for name, theirs in NAMES.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_physical_constant_of_a_member_changes_its_own_dynamics(name):
    env = BatchedEnv(CartPole())
    keys = np.full((2, 1), 5, np.uint64)
    physics = np.tile([*env.physics.values()], (2, 1))
    physics[1, [*env.physics].index(name)] *= 1.5
    state = env.init(keys, physics)
    np.testing.assert_array_equal(state.variables[0], state.variables[1])
    original = gym.make("CartPole-v1").unwrapped
    original.reset(seed=0)
    setattr(original, NAMES[name], env.physics[name] * 1.5)
    # Gymnasium derives these two when it is made
    original.total_mass = original.masspole + original.masscart
    original.polemass_length = original.masspole * original.length
    for k in range(9):
        before = state.variables.copy()
        env.step(state, np.full((2, 1), k % 3 // 2))
        theirs, *_ = gymnasium_step(original, before[1, 0], k % 3 // 2)
        np.testing.assert_allclose(
            state.variables[1, 0], theirs, rtol=0, atol=TOLERANCE
        )
    assert not np.allclose(state.variables[0], state.variables[1], atol=1e-5)
    # and those of its later episodes
    env.begin_episodes(state)
    np.testing.assert_array_equal(state.physics[:, 0], physics)


class Counting:
    """Observations are a view of the variables, which dynamics are free to return."""

    observation_shape = (1,)
    observation_dtype = np.dtype(np.float64)
    num_actions = 2
    max_episode_steps = 3
    uniforms_per_reset = 0
    physics: ClassVar[dict[str, float]] = {}

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        return np.zeros((*uniforms.shape[:-1], 1))

    def step(
        self, variables: Floats, actions: NDArray[np.int64], physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        return variables + 1, np.ones(actions.shape), np.zeros(actions.shape, bool)

    def observe(self, variables: Floats) -> Floats:
        return variables[..., :1]


def test_a_reset_does_not_overwrite_the_last_observation():
    env = BatchedEnv(Counting())
    state = env.init(np.ones((2, 1), np.uint64), np.zeros((2, 0)))
    for k in range(1, 10):
        step = env.step(state, np.zeros((2, 1), np.int64))
        assert (step.observations == (k - 1) % 3 + 1).all()
        assert (state.observations == k % 3).all()
