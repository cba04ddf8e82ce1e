"""The loss attack's AUC and its interval against scikit-learn, a hand count and simulation."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unlearn_core.evaluation.mia import auc, auc_interval, mia_score, score_interval


def sklearn_auc(members, nonmembers):
    labels = [1] * len(members) + [0] * len(nonmembers)
    return roc_auc_score(labels, -np.concatenate([members, nonmembers]))


def test_the_auc_is_the_share_of_pairs_in_which_the_member_has_the_lower_loss_ties_half():
    # pairs: (1,2) yes (1,1) tie; (3,2) no (3,1) no -> 1.5 of 4
    assert auc([1.0, 3.0], [2.0, 1.0]) == 1.5 / 4


def test_members_that_are_still_recognised_have_auc_1_and_harder_than_unseen_ones_0():
    assert auc([0.1, 0.2], [3.0, 4.0]) == 1.0
    assert auc([3.0, 4.0], [0.1, 0.2]) == 0.0


def test_random_losses_with_ties_have_scikit_learns_auc():
    rng = np.random.default_rng(0)
    for _ in range(100):
        members = rng.normal(0, 1, rng.integers(1, 40)).round(1)
        nonmembers = rng.normal(0.5, 1, rng.integers(1, 40)).round(1)
        assert auc(members, nonmembers) == pytest.approx(sklearn_auc(members, nonmembers), abs=1e-12)


@pytest.mark.parametrize(("members", "nonmembers"), [([], [1.0]), ([1.0], []), ([float("nan")], [1.0])])
def test_an_empty_side_or_a_nan_is_refused(members, nonmembers):
    with pytest.raises(ValueError, match="no NaN"):
        auc(members, nonmembers)


def test_the_mia_score_is_one_at_one_half_and_zero_at_both_ends():
    assert [mia_score(a) for a in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 0.5, 1, 0.5, 0]


def test_the_score_interval_holds_the_score_of_every_auc_in_the_interval():
    for low, high in [(0.1, 0.3), (0.7, 0.9), (0.4, 0.8), (0.5, 0.5)]:
        values = [mia_score(a) for a in np.linspace(low, high, 10_001)]
        assert score_interval(low, high) == pytest.approx((min(values), max(values)), abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 40, 150])
def test_complete_separation_has_a_one_sided_interval_of_the_pairs_that_could_have_failed(n):
    # n separated pairs have probability AUC^n, which is 2.5 % at the bound
    low, high = auc_interval([0.0] * n, [1.0] * n)
    assert low ** n == pytest.approx(0.025)
    assert high == 1.0
    assert auc_interval([1.0] * n, [0.0] * n) == pytest.approx((0.0, 1 - low))


def test_an_almost_perfect_attack_is_never_surer_than_a_perfect_one():
    members, nonmembers = list(range(40)), [38.5, *range(100, 139)]
    low, high = auc_interval(members, nonmembers)
    assert low <= auc_interval(list(range(40)), list(range(100, 140)))[0] < auc(members, nonmembers) < high < 1


@pytest.mark.parametrize(("members", "nonmembers"), [([1.0] * 20, [1.0] * 20), ([1.0], [0.5, 2.0]), ([1.0], [1.0])])
def test_tied_or_single_documents_leave_a_wide_interval_around_the_auc(members, nonmembers):
    low, high = auc_interval(members, nonmembers)
    assert 0 <= low < auc(members, nonmembers) - 0.1
    assert auc(members, nonmembers) + 0.1 < high <= 1


def test_the_standard_error_with_150_and_150_documents_is_about_0_033_at_one_half():
    rng = np.random.default_rng(1)
    low, high = auc_interval(rng.normal(size=150), rng.normal(size=150))
    assert (high - low) / (2 * 1.96) == pytest.approx(0.0334, abs=0.002)


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (1.0, 1.0), (2.5, 1.0), (0.0, 5.0)])
def test_the_interval_covers_the_true_auc_95_times_in_100(shift, spread):
    # normal losses: AUC = Phi(shift / sqrt(1 + spread^2))
    from scipy.stats import norm
    truth = norm.cdf(shift / np.sqrt(1 + spread**2))
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(1000):
        low, high = auc_interval(rng.normal(0, spread, 40), rng.normal(shift, 1, 40))
        covered += low <= truth <= high
    assert covered >= 930
