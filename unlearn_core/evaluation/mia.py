"""The official membership-inference attack: how well the loss tells members from unseen documents. Torch-free."""

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
