"""TIES on a few numbers, step by step, beside the plain mean: the same arithmetic as on a whole matrix. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import signs, theme
from analysis.signs import STATES, Steps
from unlearn_core.errors import InputError
from unlearn_core.vocabulary import TIES_STATES, UNLEARNED

FIRST, SECOND = (0.8, -0.5, 0.3, 0.1), (-0.4, -0.7, 0.1, 0.6)  # a conflict, an agreement, one kept by each alone
DENSITY = 0.75
ENTRY = "Entry {}"


def steps(first: Sequence[float], second: Sequence[float], density: float,
          weights: Sequence[float] = (1.0, 1.0)) -> Steps:
    """`signs.Steps` of two vectors of one length, in the dialect of `merge.ties`; InputError for what is no number.

    Of equal magnitudes at the limit the first ones are kept; torch, which merges adapters, may keep others.
    """
    entries = [np.asarray(vector, float) for vector in (first, second)]
    if entries[0].shape != entries[1].shape or not all(np.isfinite(own).all() for own in entries):
        raise InputError("vectors", got=" and ".join(str(own.tolist()) for own in entries),
                         expected="as many numbers in both")
    if not any(weights) or not all(math.isfinite(weight) for weight in weights):
        raise InputError("weights", got=list(weights), expected="two numbers, not both 0")
    return signs.merge_steps(entries, [_largest(own, density) for own in entries], weights)


def _largest(entries: np.ndarray, density: float) -> np.ndarray:
    """Which entries trimming keeps: the floor(density * n) of largest magnitude, zeros never."""
    order = np.argsort(-np.abs(entries), kind="stable")
    kept = np.zeros(entries.shape, bool)
    kept[order[:int(density * len(entries))]] = True
    return kept & (entries != 0)


def has_a_tie(first: Sequence[float], second: Sequence[float], density: float) -> bool:
    """Whether trimming had to choose between equal magnitudes."""
    for vector in (first, second):
        magnitudes = np.sort(np.abs(vector))[::-1]
        kept = int(density * len(magnitudes))
        if 0 < kept < len(magnitudes) and magnitudes[kept - 1] == magnitudes[kept] > 0:
            return True
    return False


def mean(found: Steps, weights: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
    """The plain mean of both weighted vectors: nothing is trimmed, no sign is elected."""
    return sum(own * weight for own, weight in zip(found.entries, weights, strict=True)) / len(found.entries)


def table(found: Steps, weights: Sequence[float] = (1.0, 1.0)) -> pd.DataFrame:
    """Every step in a row, an entry in each column, as text; what is 0 after trimming is empty."""
    one, two = map(theme.short_label, UNLEARNED)
    rows = {one: _numbers(found.entries[0]), two: _numbers(found.entries[1]),
            f"Trimmed, {one}": _numbers(found.trimmed[0], blank=True),
            f"Trimmed, {two}": _numbers(found.trimmed[1], blank=True),
            "Elected sign": [{1: "+1", -1: "−1", 0: ""}[int(sign)] for sign in found.elected],
            "Merged by TIES": _numbers(found.merged), "Plain mean": _numbers(mean(found, weights)),
            "What happened": [TIES_STATES[STATES[state]] for state in found.states]}
    columns = [ENTRY.format(number) for number in range(1, len(found.merged) + 1)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("Step").reset_index()


def _numbers(values: np.ndarray, blank: bool = False) -> list[str]:
    return ["" if blank and value == 0 else _number(value) for value in values]


def _number(value: float, sign: str = "") -> str:
    return f"{value + 0.0:{sign}.3g}".replace("-", "−")


def describe(found: Steps, weights: Sequence[float] = (1.0, 1.0)) -> list[str]:
    """What a reader should see: one sentence per conflict, or that there is none; then the sizes."""
    plain, said = mean(found, weights), []
    for place in np.flatnonzero(found.states >= STATES.index("won_1")):
        one, two = (own[place] for own in found.trimmed)
        one, two, merged, cancelled = (_number(value, "+") for value in (one, two, found.merged[place], plain[place]))
        said.append(f"{ENTRY.format(place + 1)} is a conflict: {one} against {two}. TIES keeps the larger one "
                    f"({merged} in the merge), the mean lets them cancel ({cancelled}).")
    said = said or ["No entry is a conflict: where both keep an entry, both pull the same way."]
    size, other = np.linalg.norm(found.merged), np.linalg.norm(plain)
    return [*said, f"Size of the merge: {size:.3g} by TIES, {other:.3g} by the plain mean."]
