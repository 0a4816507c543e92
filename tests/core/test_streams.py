from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dacrl_env.core import streams

KEYS = np.random.default_rng(0).integers(0, 2**64, 50, np.uint64)
# what seeds, counters and hashes give: neighbours, few bits set, extremes
ODD_KEYS = np.array([0, 1, 2, 3, 2**32, 2**63, 2**64 - 1], np.uint64)


def assert_uniform_counts(counts: NDArray[np.integer]) -> None:
    """Chi-square against equal frequencies, within five standard deviations."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    # both tails: counts that are too even are no more random
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def assert_uncorrelated(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert abs(r) < 5 / np.sqrt(a.size)


def test_a_draw_depends_on_its_address_alone():
    counters = np.arange(10)
    first = streams.bits(KEYS[:, None], counters, 3)
    assert first.shape == (50, 10, 3)
    assert first.dtype == np.uint64
    np.testing.assert_array_equal(streams.bits(KEYS[:, None], counters, 3), first)
    # in another population, order, and number of lanes
    some = streams.bits(KEYS[[7, 3], None], counters[[4, 1]], 2)
    np.testing.assert_array_equal(some, first[[7, 3]][:, [4, 1], :2])


def test_lanes_are_the_outputs_of_splitmix64():
    # from key 0 at counter 0 they are the reference implementation's with seed 0
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    zero = np.zeros(1, np.uint64)
    drawn = streams.bits(zero, np.zeros(1, np.int64), 3)
    assert drawn[0].tolist() == reference


@pytest.mark.parametrize("draw", ["bits", "uniforms", "integers"])
def test_one_draw_at_a_time_equals_a_block(draw):
    def get(counters: NDArray[np.int64]) -> NDArray[np.generic]:
        if draw == "integers":
            return streams.integers(KEYS[:, None], counters, 4, counters + 1)
        return getattr(streams, draw)(KEYS[:, None], counters, 4)

    counters = np.arange(1000, 1020)
    single = np.concatenate([get(counters[k : k + 1]) for k in range(20)], axis=1)
    np.testing.assert_array_equal(single, get(counters))


def test_drawing_changes_neither_keys_nor_counters():
    keys, counters = KEYS.copy(), np.arange(50)
    streams.integers(keys, counters, 4, np.full(50, 7))
    np.testing.assert_array_equal(keys, KEYS)
    np.testing.assert_array_equal(counters, np.arange(50))


@pytest.mark.parametrize("keys", [KEYS, ODD_KEYS], ids=["random", "odd"])
def test_uniforms_are_uniform(keys):
    u = streams.uniforms(keys[:, None], np.arange(500), 8)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=200, range=(0, 1))[0]
    assert_uniform_counts(counts)
    # every lane and every counter on its own
    for lane in range(8):
        assert_uniform_counts(np.histogram(u[..., lane], 50, (0, 1))[0])
    # the low bits, which the histogram does not see
    low = (streams.bits(keys[:, None], np.arange(500), 8) & np.uint64(255)).ravel()
    assert_uniform_counts(np.bincount(low.astype(np.int64), minlength=256))


def test_neighbours_are_not_correlated():
    keys = np.arange(200, dtype=np.uint64)
    u = streams.uniforms(keys[:, None], np.arange(100), 10)
    assert_uncorrelated(u[:-1], u[1:])  # keys
    assert_uncorrelated(u[:, :-1], u[:, 1:])  # counters
    assert_uncorrelated(u[..., :-1], u[..., 1:])  # lanes
    # the next draw's first lane is not this draw's second
    assert_uncorrelated(u[:, :-1, 1:], u[:, 1:, :-1])
    assert np.unique(u).size == u.size


@pytest.mark.parametrize("what", ["key", "counter"])
@pytest.mark.parametrize("bit", [0, 1, 17, 31])
def test_one_changed_bit_changes_half_of_the_bits(what, bit):
    flip = 1 << bit
    counters = np.full(50, 12345)
    before = streams.bits(KEYS, counters, 40)
    if what == "key":
        after = streams.bits(KEYS ^ np.uint64(flip), counters, 40)
    else:
        after = streams.bits(KEYS, counters ^ flip, 40)
    share = np.bitwise_count(before ^ after).mean() / 64
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(before.size * 64)


@pytest.mark.parametrize("high", [1, 2, 3, 7, 100])
def test_integers_are_uniform_below_high(high):
    drawn = streams.integers(KEYS, np.zeros(50, np.int64), 2000, np.full(50, high))
    assert drawn.dtype == np.int64
    assert drawn.min() == 0
    assert drawn.max() == high - 1
    if high > 1:
        assert_uniform_counts(np.bincount(drawn.ravel(), minlength=high))


def test_integers_have_a_bound_per_key():
    high = np.array([1, 10, 100_000, 2**32])
    drawn = streams.integers(KEYS[:4], np.zeros(4, np.int64), 20_000, high)
    assert (drawn >= 0).all()
    assert (drawn < high[:, None]).all()
    means = drawn.mean(1) / np.maximum(high - 1, 1)
    np.testing.assert_allclose(means[1:], 0.5, atol=5 / np.sqrt(12 * 20_000))


def test_every_run_has_its_own_keys():
    names = [
        (split, seed, member, episode)
        for split in streams.SPLITS
        for seed in (0, 1, 2, 3, 2**31, 2**32, 2**32 + 1, 2**63 - 1)
        for member in range(6)
        for episode in range(6)
    ]
    keys = np.stack([streams.member_keys(*name) for name in names])
    assert keys.shape == (len(names), len(streams.PURPOSES))
    assert np.unique(keys).size == keys.size  # nor do two purposes share a key
    np.testing.assert_array_equal(streams.member_keys(*names[5]), keys[5])


def test_members_draw_unrelated_numbers():
    keys = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(200)])
    u = streams.uniforms(keys, np.zeros(len(streams.PURPOSES), np.int64), 50)
    assert_uncorrelated(u[:-1], u[1:])  # neighbouring members
    assert_uncorrelated(u[:, :-1], u[:, 1:])  # purposes of a member


def test_no_global_randomness():
    np.random.seed(0)  # noqa: NPY002 - the global generator is what is tested
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    streams.member_keys("test", 1, 2, 3)
    streams.uniforms(KEYS, np.arange(50), 3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
