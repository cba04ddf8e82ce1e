"""Membership inference: how well a loss, or what is oriented as one, tells members from unseen texts. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def auc(member_losses: Sequence[float], nonmember_losses: Sequence[float]) -> float:
    """P(loss of a member < loss of a non-member), ties half: 1 = still recognised, 0 = harder than unseen text.

    Equal to the ROC-AUC of -loss with members as positives (official script). Neither side may be empty.
    """
    return float(_share_above(member_losses, nonmember_losses).mean())


def mia_score(auc: float) -> float:
    """1 - 2 |AUC - 0.5|, in [0, 1]: 1 where the attack does no better than chance."""
    return 1 - 2 * abs(auc - 0.5)


def auc_interval(member_losses: Sequence[float], nonmember_losses: Sequence[float], level: float = 0.95
                 ) -> tuple[float, float]:
    """Confidence interval of the AUC: DeLong's variance on the logit scale, never narrower than certainty allows.

    Members and non-members contain min(m, n) = k independent pairs, so complete separation has a probability of at
    most AUC^k: not even it proves an AUC above ((1 - level) / 2)^(1/k), and the interval never claims more, on
    either side. Where DeLong's variance is zero or undefined (one document, all losses tied), its largest possible
    value AUC (1 - AUC) / k stands in.
    """
    members, nonmembers = np.asarray(member_losses, float), np.asarray(nonmember_losses, float)
    area, pairs, tail = auc(members, nonmembers), min(len(members), len(nonmembers)), (1 - level) / 2
    proven = tail ** (1 / pairs)
    if area in (0.0, 1.0):
        return (proven, 1.0) if area else (0.0, 1 - proven)
    error = math.sqrt(_delong_variance(members, nonmembers) or area * (1 - area) / pairs)
    center, spread = math.log(area / (1 - area)), NormalDist().inv_cdf(1 - tail) * error / (area * (1 - area))
    return min(_expit(center - spread), proven), max(_expit(center + spread), 1 - proven)


def score_interval(auc_low: float, auc_high: float) -> tuple[float, float]:
    """The values that the MIA score takes on an interval of the AUC."""
    ends = mia_score(auc_low), mia_score(auc_high)
    return min(ends), 1.0 if auc_low <= 0.5 <= auc_high else max(ends)


def true_positive_rate(member_losses: Sequence[float], nonmember_losses: Sequence[float], fpr: float) -> float | None:
    """Share of members below the loss that at most `fpr` of the non-members reach; None below 1 / fpr non-members.

    With negated losses: the share of members that stand out as harder than unseen text. Chance is `fpr`.
    """
    members, nonmembers = np.asarray(member_losses, float), np.sort(np.asarray(nonmember_losses, float))
    allowed = int(fpr * len(nonmembers) + 1e-9)
    return float((members < nonmembers[allowed]).mean()) if allowed and len(members) else None


def two_sided(member_losses: Sequence[float], nonmember_losses: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Both sides as minus their distance from the non-members' median, to which `auc` can be applied.

    Its AUC is 1 where members lie further out on *either* side. Members that are half still recognised and half
    over-forgotten have a plain AUC of 0.5, and this one tells them from forgotten ones. Each non-member is measured
    from the median of the others, as the members are from a median they have no part in.
    """
    members, nonmembers = np.asarray(member_losses, float), np.asarray(nonmember_losses, float)
    if len(nonmembers) < 2:
        raise ValueError("two non-members are the least that have a median of the others")
    return -np.abs(members - np.median(nonmembers)), -np.abs(nonmembers - _medians_of_others(nonmembers))


def _medians_of_others(values: np.ndarray) -> np.ndarray:
    """For each of two or more values the median of the others."""
    ordered, ranks = np.sort(values), np.empty(len(values), int)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))

    def of_others(place: int) -> np.ndarray:
        return np.where(ranks > place, ordered[place], ordered[place + 1])

    half = (len(values) - 2) // 2
    return of_others(half) if len(values) % 2 == 0 else (of_others(half) + of_others(half + 1)) / 2


def _share_above(losses: Sequence[float], others: Sequence[float]) -> np.ndarray:
    """For each loss the share of `others` above it, ties half."""
    losses, others = np.asarray(losses, float), np.sort(np.asarray(others, float))
    if not losses.size or not others.size or np.isnan(losses).any() or np.isnan(others).any():
        raise ValueError("the attack needs at least one loss on each side, and no NaN")
    at_most = np.searchsorted(others, losses, "left") + np.searchsorted(others, losses, "right")
    return 1 - at_most / (2 * len(others))


def _delong_variance(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """DeLong, DeLong, Clarke-Pearson (1988); 0 where one side has a single document."""
    if min(len(members), len(nonmembers)) < 2:
        return 0.0
    sides = _share_above(members, nonmembers), _share_above(nonmembers, members)
    return float(sum(np.var(side, ddof=1) / len(side) for side in sides))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
