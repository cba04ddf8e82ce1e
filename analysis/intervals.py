"""Intervals of shares and of means over independent units, exact where that is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import beta, t

LEVEL = 0.95


def share(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a share (Clopper-Pearson): its upper end stands beside a zero, its lower one beside all."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, n - count)) if count < n else 1.0
    return low, high


def mean(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t; infinite where there is one value only, which says nothing of its spread."""
    n, centre = len(values), sum(values) / len(values)
    if n < 2:
        return centre, -math.inf, math.inf
    error = math.sqrt(sum((value - centre) ** 2 for value in values) / (n - 1) / n)
    reach = float(t.ppf((1 + level) / 2, n - 1)) * error
    return centre, centre - reach, centre + reach
