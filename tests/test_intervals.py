"""Intervals against scipy's own, and the ends that hold where a count is zero."""

import math

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


def test_the_interval_of_a_mean_is_scipys_t_interval():
    values = [0.02, -0.01, 0.05, 0.03]
    mean, low, high = intervals.mean(values)
    assert mean == pytest.approx(0.0225)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values)))


def test_one_value_gives_no_finite_interval():
    assert intervals.mean([0.1]) == (0.1, -math.inf, math.inf)
