"""Intervals of shares, means and paired differences over independent units, exact where that is possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, norm, t

from unlearn_core.evaluation import score

LEVEL = 0.95
RESAMPLES = 2000
SWAPS = 4096  # of `swaps`: all of them up to 12 units


def share(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a share (Clopper-Pearson): its upper end stands beside a zero, its lower one beside all."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, n - count)) if count < n else 1.0
    return low, high


def mean(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t; infinite where there is one value only, which says nothing of its spread."""
    return score.t_interval(values, level=level)


# ---- resampling units ------------------------------------------------------------------------------------------

def times(stratum: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, units) how often each unit is drawn with replacement, as many as there are within each stratum."""
    chance, drawn = np.random.default_rng(seed), np.zeros((resamples, len(stratum)))
    for name in np.unique(stratum):
        own = np.flatnonzero(stratum == name)
        places = chance.integers(len(own), size=(resamples, len(own))) + len(own) * np.arange(resamples)[:, None]
        drawn[:, own] = np.bincount(places.ravel(), minlength=resamples * len(own)).reshape(resamples, len(own))
    return drawn


def percentile(draws: np.ndarray, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of resampled values of `n` units, expanded by as much as Student's t exceeds the normal.

    Without that it is too narrow for few units (Hesterberg 2015, "What teachers should know about the bootstrap").
    (nan, nan) where nothing was drawn; infinite for a single unit, which says nothing of its spread.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return math.nan, math.nan
    if n < 2:
        return -math.inf, math.inf
    tail = float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + level) / 2, n - 1)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def swaps(units: int, most: int = SWAPS, seed: int = 0) -> np.ndarray:
    """(swaps, units) True where a unit's two measurements change places: every way where there are at most `most`,
    else that many at random. The first row swaps nothing."""
    if 2**units <= most:
        return np.array(list(itertools.product([False, True], repeat=units)), bool).reshape(2**units, units)
    drawn = np.random.default_rng(seed).random((most, units)) < 0.5
    drawn[0] = False
    return drawn


def holm(p: Sequence[float]) -> np.ndarray:
    """P values corrected for their number by Holm's step-down method; what is NaN was no test and stays NaN."""
    p = np.asarray(p, float)
    corrected, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return corrected
