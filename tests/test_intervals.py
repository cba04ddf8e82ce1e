"""Intervals against scipy's own, and the ends that hold where a count is zero."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis import intervals


@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 20), (18, 20), (20, 20)])
def test_the_interval_of_a_share_is_scipys_exact_one(count, n):
    expected = stats.binomtest(count, n).proportion_ci(method="exact")
    assert intervals.share(count, n) == pytest.approx((expected.low, expected.high))


def test_a_zero_has_an_upper_bound():
    # (1 - p)^n = 0.025 at the upper end: p = 1 - 0.025^(1/8)
    assert intervals.share(0, 8) == pytest.approx((0, 1 - 0.025 ** (1 / 8)))


@pytest.mark.parametrize("values", [[0.02, -0.01, 0.05, 0.03], [0.2, 0.9], [0.1, 0.4, 0.35, 0.8]])
def test_the_interval_of_a_mean_is_scipys_t_interval(values):
    mean, low, high = intervals.mean(values)
    assert mean == pytest.approx(sum(values) / len(values))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values)))


def test_one_value_gives_no_finite_interval():
    assert intervals.mean([0.1]) == (0.1, -math.inf, math.inf)


# ---- resampling units

def test_units_are_drawn_as_often_as_there_are_within_each_stratum():
    times = intervals.times(np.array(["a", "a", "a", "b", "b"]), resamples=50, seed=1)
    assert times.shape == (50, 5)
    assert (times[:, :3].sum(axis=1) == 3).all()
    assert (times[:, 3:].sum(axis=1) == 2).all()


def test_how_often_a_unit_is_drawn_follows_the_binomial_distribution():
    # of n = 4 draws, each hits a unit with p = 1/4: none with (3/4)^4
    times = intervals.times(np.zeros(4), resamples=20_000, seed=0)
    for hits in range(4):
        assert (times[:, 0] == hits).mean() == pytest.approx(stats.binom.pmf(hits, 4, 1 / 4), abs=0.01)


def test_the_expanded_percentiles_of_normal_values_are_students_interval():
    # The bootstrap's spread is s sqrt((n - 1) / n) / sqrt(n): the expansion undoes that and takes t for the normal.
    values = stats.norm.ppf((np.arange(10) + 0.5) / 10)
    drawn = intervals.times(np.zeros(10), resamples=100_000, seed=0) @ values / 10
    expected = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert intervals.percentile(drawn, 10) == pytest.approx(expected, abs=0.05)


def test_percentiles_of_nothing_are_missing_and_of_one_unit_infinite():
    assert np.isnan(intervals.percentile(np.array([np.nan]), 5)).all()
    assert intervals.percentile(np.array([0.1, 0.1]), 1) == (-math.inf, math.inf)


def covered(n, first, second, level_of):
    """Share of simulated studies whose interval holds the true difference; five dependent answers per person."""
    chance, held = np.random.default_rng(7), []
    for study in range(200):
        a, b = (chance.binomial(5, chance.beta(2 * p, 2 * (1 - p), size=n)) / 5 for p in (first, second))
        low, high = level_of(intervals.times(np.zeros(n), 300, seed=study) @ (b - a) / n, n)
        held.append(low <= second - first <= high)
    return np.mean(held)


@pytest.mark.parametrize(("n", "first", "second"), [(10, 0.5, 0.5), (10, 0.2, 0.6), (40, 0.3, 0.5)])
def test_the_interval_of_a_paired_difference_over_persons_covers_it(n, first, second):
    assert 0.91 <= covered(n, first, second, intervals.percentile) <= 0.99


def test_without_the_expansion_ten_persons_would_give_too_narrow_an_interval():
    plain = covered(10, 0.5, 0.5, lambda drawn, n: np.quantile(drawn, [0.025, 0.975]))
    assert plain < covered(10, 0.5, 0.5, intervals.percentile)


def test_few_units_are_swapped_in_every_way_and_many_at_random():
    assert {tuple(row) for row in intervals.swaps(3).tolist()} == {
        (a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)}
    many = intervals.swaps(40, most=500, seed=0)
    assert many.shape == (500, 40)
    assert not many[0].any()
    assert many[1:].mean() == pytest.approx(0.5, abs=0.02)


def test_holms_correction_step_by_step():
    # sorted .01 .03 .04: .01 * 3 = .03, .03 * 2 = .06, .04 * 1 = .04 but not below the one before
    assert intervals.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert intervals.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_what_was_not_tested_counts_for_nothing_in_holms_correction():
    corrected = intervals.holm([math.nan, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1] == pytest.approx(0.02)
