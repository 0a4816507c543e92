"""Running moments against those of Stable-Baselines3."""

import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from dacrl_env.kernels import moments
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.moments import Moments
from dacrl_env.kernels.views import matrix

D = 3


@entry
def _take_note(p, samples, table):
    moments.take_note(p, samples, table)


@entry
def _normalised(p, sample, table):
    moments.normalised_rows(p, matrix(sample, 0, 1, len(sample)), table)


@entry
def _normalised_rows(p, samples, table):
    moments.normalised_rows(p, samples, table)


@entry
def _scaled(p, value, table):
    return moments.scaled(p, value, table)


@entry
def _start(p, table):
    moments.start(p, table)


def _samples(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, [3.0, 1e-3, 1e3], (n, D))


def test_rows_are_normalised_like_single_samples() -> None:
    table = Moments.of(3, D)
    _take_note(1, _samples(50, 0), table)
    rows = _samples(300, 1).astype(np.float32)
    rows[0], rows[1] = 1e30, np.nan
    each = rows.copy()
    for sample in each:
        _normalised(1, sample, table)
    _normalised_rows(1, rows, table)
    np.testing.assert_array_equal(rows, each)


@pytest.mark.parametrize("n", [1, 4])
def test_moments_are_those_of_stable_baselines3(n: int) -> None:
    ours, theirs = Moments.of(3, D), RunningMeanStd(shape=(D,))
    for k in range(5):
        _take_note(1, _samples(n, k), ours)
        theirs.update(_samples(n, k))
        np.testing.assert_allclose(ours.mean[1], theirs.mean, rtol=1e-12)
        np.testing.assert_allclose(ours.variance[1], theirs.var, rtol=1e-12)
        assert ours.weight[1, 0] == pytest.approx(theirs.count)
    for p in (0, 2):  # of others nothing is known
        assert ours.mean[p].tolist() == [0] * D
        assert ours.variance[p].tolist() == [1] * D


def test_values_are_normalised_as_vec_normalize_does() -> None:
    ours, returns = Moments.of(2, D), Moments.of(2, 1)
    theirs = _vec_normalize()
    for k in range(5):
        _take_note(1, _samples(4, k), ours)
        theirs.obs_rms.update(_samples(4, k))
        _take_note(1, _samples(4, k)[:, :1], returns)
        theirs.ret_rms.update(_samples(4, k)[:, 0])
    for far in (1.0, 100.0):  # some are clipped
        sample = (far * _samples(1, 9)[0]).astype(np.float32)
        expected = theirs.normalize_obs(sample)
        reward = _scaled(1, float(sample[0]), returns)
        assert reward == pytest.approx(theirs.normalize_reward(sample[0]), rel=1e-6)
        _normalised(1, sample, ours)
        np.testing.assert_allclose(sample, expected, rtol=1e-6)
    assert sample.max() == moments.CLIP


def test_a_fresh_start_forgets_everything() -> None:
    ours = Moments.of(2, D)
    for p in range(2):
        _take_note(p, _samples(4, p), ours)
    _start(0, ours)
    for forgotten, fresh in zip(ours, Moments.of(2, D), strict=True):
        np.testing.assert_array_equal(forgotten[0], fresh[0])
        assert (forgotten[1] != fresh[1]).any()


def test_what_is_not_a_number_shows() -> None:
    ours = Moments.of(1, D)
    sample = np.array([np.nan, 0, 0], np.float32)
    _normalised(0, sample, ours)
    assert np.isnan(sample[0])


def _vec_normalize() -> VecNormalize:
    import gymnasium as gym

    class Nothing(gym.Env):
        observation_space = Box(-np.inf, np.inf, (D,))
        action_space = Box(-1, 1, (1,))

    return VecNormalize(DummyVecEnv([Nothing]))
