import math

import numpy as np
import pytest

from dacrl_env.comparison import stats

FUNCTIONS = [
    stats.iqm,
    stats.bootstrap_interval,
    lambda x: stats.paired_difference(x, x),
    lambda x: stats.probability_of_improvement(x, x),
    lambda x: stats.equivalence(x, x, margin=0.1),
]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 17, 64])
def test_iqm_is_the_trimmed_mean_of_scipy(n):
    scipy_stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(n).normal(size=(n, 3))
    np.testing.assert_allclose(stats.iqm(x, axis=0), scipy_stats.trim_mean(x, 0.25))
    np.testing.assert_allclose(
        stats.iqm(x), scipy_stats.trim_mean(x, 0.25, axis=None), rtol=1e-12
    )


def test_iqm_by_hand():
    assert stats.iqm([100.0, 1.0, 2.0, -50.0]) == 1.5  # the outlying quarters are cut
    assert stats.iqm([[0.0, 4.0], [2.0, 6.0]], axis=-1).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(function, bad):
    with pytest.raises(ValueError, match="1 of 3 values that are NaN or infinite"):
        function([0.0, bad, 1.0])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_empty_input_is_refused(function):
    with pytest.raises(ValueError, match="empty"):
        function([])


@pytest.mark.parametrize("function", FUNCTIONS[1:])
def test_two_dimensions_are_refused(function):
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        function(np.zeros((2, 3)))


def test_wrong_shapes_and_ranges_are_named():
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        stats.paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"shape \(2,\) for values of shape \(3,\)"):
        stats.bootstrap_interval([1, 2, 3], groups=[0, 1])
    with pytest.raises(ValueError, match="level"):
        stats.bootstrap_interval([1, 2, 3], level=95)
    with pytest.raises(ValueError, match="resamples"):
        stats.bootstrap_interval([1, 2, 3], resamples=0)
    with pytest.raises(ValueError, match="must reduce"):
        stats.bootstrap_interval([1, 2, 3], lambda x, axis: x)
    with pytest.raises(ValueError, match="margin"):
        stats.equivalence([1, 2], [1, 2], margin=0)
    with pytest.raises(ValueError, match="at least two"):
        stats.equivalence([1], [1, 2], margin=1)


def test_one_value_has_no_interval():
    assert all(math.isnan(bound) for bound in stats.bootstrap_interval([0.5]))
    assert math.isnan(stats.probability_of_improvement([1.0], [0.0, 2.0]).low)


def test_bootstrap_leaves_global_randomness_alone_and_is_repeatable():
    values = np.random.default_rng(0).normal(size=20)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = stats.bootstrap_interval(values, stats.iqm)
    assert first == stats.bootstrap_interval(values, stats.iqm)
    assert first != stats.bootstrap_interval(values, stats.iqm, seed=1)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_bootstrap_in_several_blocks_is_a_bootstrap(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole = stats.bootstrap_interval(values)
    monkeypatch.setattr(stats, "_BLOCK", 1000)
    np.testing.assert_allclose(stats.bootstrap_interval(values), whole, atol=0.05)


@pytest.mark.parametrize("statistic", [np.mean, stats.iqm])
def test_bootstrap_covers_as_often_as_it_says(statistic):
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(400):
        low, high = stats.bootstrap_interval(
            rng.normal(size=40), statistic, resamples=400, seed=i
        )
        covered += low <= 0 <= high
    # The percentile interval at n = 40 covers about 0.935; three standard errors.
    assert 0.89 <= covered / 400 <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[20] * 8, [16, 24] * 4])
def test_grouped_bootstrap_covers_where_the_plain_one_does_not(sizes):
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(8), sizes)
    plain, grouped = 0, 0
    for i in range(100):
        values = rng.normal(size=8)[groups] + 0.3 * rng.normal(size=160)
        low, high = stats.bootstrap_interval(values, resamples=200, seed=i)
        plain += low <= 0 <= high
        low, high = stats.bootstrap_interval(
            values, groups=groups, resamples=200, seed=i
        )
        grouped += low <= 0 <= high
    assert plain < 50
    assert 80 <= grouped <= 99


def crossed_values(rng, spread, missing=0.0):
    """64 seeds under 4 fits: a gap of every fit, of every seed, and noise."""
    fits, seeds = (x.ravel() for x in np.meshgrid(range(4), range(64), indexing="ij"))
    values = 0.02 * rng.normal(size=4)[fits] + spread * rng.normal(size=64)[seeds]
    kept = rng.random(256) >= missing
    return (values + 0.1 * rng.normal(size=256))[kept], fits[kept], seeds[kept]


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_what_fits_share_is_resampled_once_for_all_of_them(missing):
    rng = np.random.default_rng(5)
    nested, crossed = 0, 0
    for i in range(200):
        values, fits, seeds = crossed_values(rng, 0.2, missing)
        low, high = stats.bootstrap_interval(values, groups=fits, resamples=200, seed=i)
        nested += low <= 0 <= high
        low, high = stats.bootstrap_interval(
            values, groups=fits, shared=seeds, resamples=200, seed=i
        )
        crossed += low <= 0 <= high
    assert nested < 170
    assert 180 <= crossed <= 199


def test_shared_labels_are_drawn_jointly():
    # Seeds decide everything and fits nothing: the interval is that of the seeds, which
    # a resample within fits, or of values alone, would make narrower by the root of 4.
    seeds, fits = np.tile(np.arange(30), 4), np.repeat(np.arange(4), 30)
    level = np.random.default_rng(6).normal(size=30)
    shuffle = np.random.default_rng(7).permutation(120)
    args = {"groups": fits[shuffle], "shared": seeds[shuffle]}
    both = stats.bootstrap_interval(level[seeds][shuffle], **args)
    np.testing.assert_allclose(both, stats.bootstrap_interval(level), atol=0.04)
    gap = stats.paired_difference(level[seeds][shuffle], np.zeros(120), **args)
    assert gap[1:] == both
    iqm = stats.bootstrap_interval(level[seeds][shuffle], stats.iqm, **args)
    np.testing.assert_allclose(
        iqm, stats.bootstrap_interval(level, stats.iqm), atol=0.1
    )
    # And the other way round: fits decide everything.
    of_fit = np.arange(4.0)[args["groups"]]
    both = stats.bootstrap_interval(of_fit, **args)
    np.testing.assert_allclose(
        both, stats.bootstrap_interval(np.arange(4.0)), atol=0.25
    )
    # One fit has nothing to share with: the plain bootstrap, whatever the labels.
    plain = stats.bootstrap_interval(level)
    assert stats.bootstrap_interval(level, shared=np.arange(30) * 10) == plain


def test_labels_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"shared .* shape \(2,\) for values of .*3,"):
        stats.bootstrap_interval([1, 2, 3], shared=[0, 1])
    with pytest.raises(ValueError, match="two values of one group have the same label"):
        stats.bootstrap_interval([1, 2, 3], groups=[0, 0, 1], shared=[5, 5, 5])


def test_few_shared_labels_give_resamples_without_a_value():
    values, labels = [1.0, 2.0, 4.0], [0, 1, 2]  # a seed of its own for each fit
    low, high = stats.bootstrap_interval(values, groups=labels, shared=labels)
    assert (low, high) == (1, 4)
    chance = stats.probability_of_improvement(
        values, values, labels, labels, labels, labels
    )
    assert chance.value == 0.5
    assert (chance.low, chance.high) == (0, 1)


def test_groups_of_one_are_the_plain_bootstrap():
    values = np.random.default_rng(2).normal(size=50)
    one_each = stats.bootstrap_interval(values, groups=np.arange(50))
    np.testing.assert_allclose(one_each, stats.bootstrap_interval(values), atol=0.05)


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(3)
    shared = 10 * rng.normal(size=50)
    a, b = shared + 0.5, shared + 0.1 * rng.normal(size=50)
    value, low, high = stats.paired_difference(a, b)
    assert value == pytest.approx(np.mean(a - b))
    assert 0.4 < low < value < high < 0.6


def test_probability_of_improvement_by_hand():
    # Of the six pairs 1-0, 1-1, 1-3, 2-0, 2-1, 2-3 three are won and one is tied.
    estimate = stats.probability_of_improvement([1, 2], [0, 1, 3])
    assert estimate.value == pytest.approx(3.5 / 6)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert stats.probability_of_improvement([2, 3], [0, 1]) == (1, 1, 1)


def test_probability_of_improvement_resamples_as_asked():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.5, size=40), rng.normal(size=30)
    value, low, high = stats.probability_of_improvement(a, b)
    index_a, index_b = (
        rng.integers(40, size=(500, 40)),
        rng.integers(30, size=(500, 30)),
    )
    slow = [
        np.mean(a[i][:, None] > b[j]) for i, j in zip(index_a, index_b, strict=True)
    ]
    np.testing.assert_allclose(
        [low, high], np.quantile(slow, [0.025, 0.975]), atol=0.03
    )
    fits = np.sort(np.arange(40) % 4)
    grouped = stats.probability_of_improvement(np.sort(a), b, groups_a=fits)
    assert grouped.value == pytest.approx(value)
    assert grouped.high - grouped.low > high - low
    # The seeds of one side's fits in common: only those of that side are joint.
    seeds = np.tile(np.arange(10), 4)
    level = rng.normal(size=10)[seeds]
    apart = stats.probability_of_improvement(level, b, groups_a=fits)
    joint = stats.probability_of_improvement(level, b, fits, None, seeds, None)
    assert joint.high - joint.low > 1.2 * (apart.high - apart.low)
    mirrored = stats.probability_of_improvement(b, level, None, fits, None, seeds)
    assert mirrored.high - mirrored.low > 1.2 * (apart.high - apart.low)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 14.9, 200.0, 5000.0])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.95, 0.995])
def test_student_quantile(p, freedom):
    scipy_stats = pytest.importorskip("scipy.stats")
    ours = stats._student_quantile(p, freedom)
    assert ours == pytest.approx(scipy_stats.t.ppf(p, freedom), rel=1e-6)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_mean_interval_is_students(level):
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).normal(2, 5, size=8)
    found = stats.mean_interval(values, level)
    error = scipy_stats.sem(values)
    expected = scipy_stats.t.interval(level, 7, values.mean(), error)
    assert found.value == pytest.approx(values.mean())
    assert found[1:] == pytest.approx(expected)


def test_mean_interval_of_the_least():
    # t of one degree of freedom is tan(0.475 π) = 12.7062
    found = stats.mean_interval([0, 1])
    assert found == pytest.approx((0.5, 0.5 - 6.3531, 0.5 + 6.3531), abs=1e-4)
    assert stats.mean_interval([3, 3]) == (3, 3, 3)
    single = stats.mean_interval([3])
    assert single.value == 3
    assert np.isnan(single[1:]).all()
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        stats.mean_interval([0, 1], level=1)
    with pytest.raises(ValueError, match="is empty"):
        stats.mean_interval([])


@pytest.mark.parametrize("fits", [3, 5])
@pytest.mark.parametrize(
    ("of_fit", "of_seed", "of_run"),
    [(0, 0, 1), (0, 1, 1), (0.1, 0.5, 1), (0.5, 0.5, 1), (1, 0, 0.5)],
)
def test_crossed_mean_covers_whatever_varies(
    monkeypatch, fits, of_fit, of_seed, of_run
):
    scipy_stats = pytest.importorskip("scipy.stats")
    monkeypatch.setattr(stats, "_student_quantile", scipy_stats.t.ppf)  # soon made
    rng = np.random.default_rng(7)
    missed, times = 0, 1_000
    for _ in range(times):
        table = rng.normal(0, of_fit, (fits, 1)) + rng.normal(0, of_seed, (1, 64))
        table = table + rng.normal(0, of_run, (fits, 64))
        _, low, high = stats.crossed_mean(table)
        missed += low > 0 or high < 0
    assert missed <= 0.09 * times


def test_crossed_mean_is_students_where_one_thing_varies():
    fits = np.array([0.1, 0.4, 0.9])
    expected = stats.mean_interval(fits)
    assert stats.crossed_mean(fits[:, None] + np.zeros(8)) == pytest.approx(expected)
    assert stats.crossed_mean(fits + np.zeros((8, 1))) == pytest.approx(expected)
    assert stats.crossed_mean(fits[None]) == expected
    assert stats.crossed_mean(np.ones((2, 3))) == (1, 1, 1)


def test_crossed_mean_by_hand():
    # means of fits 1 and 3, of seeds 1.5 and 2.5: variances 2 / 2 and 0.5 / 2
    found = stats.crossed_mean([[0, 2], [3, 3]])
    freedom = 1.25**2 / (1 + 0.25**2)
    width = stats._student_quantile(0.975, freedom) * np.sqrt(1.25)
    assert found == pytest.approx((2, 2 - width, 2 + width))


def test_crossed_mean_says_what_it_needs():
    with pytest.raises(ValueError, match=r"must be \(fits, seeds\).*\(3,\)"):
        stats.crossed_mean([1, 2, 3])
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        stats.crossed_mean([[1, 2], [3, 4]], level=0)


def test_equivalence_agrees_with_two_one_sided_welch_tests():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    verdicts = set()
    for _ in range(100):
        a, b = rng.normal(0.6, 0.15, size=64), rng.normal(0.62, 0.2, size=16)
        result = stats.equivalence(a, b, margin=0.1)
        p_low = scipy_stats.ttest_ind(
            a + 0.1, b, equal_var=False, alternative="greater"
        ).pvalue
        p_high = scipy_stats.ttest_ind(
            a - 0.1, b, equal_var=False, alternative="less"
        ).pvalue
        assert result.equivalent == (max(p_low, p_high) < 0.05)
        verdicts.add(result.equivalent)
    assert verdicts == {True, False}


def test_equivalence_of_constant_samples():
    assert stats.equivalence([1, 1], [1, 1], margin=0.01).equivalent
    assert not stats.equivalence([1, 1], [1.5, 1.5], margin=0.5).equivalent


def test_estimates_are_shown_with_their_interval():
    assert stats.shown(stats.Estimate(0.25, -0.125, 0.5)) == "0.250 [-0.125, 0.500]"
    assert stats.shown([1, 0.5, 2]) == "1.000 [0.500, 2.000]"
    assert stats.shown(None) == stats.shown([float("nan"), 0, 1]) == "–"
