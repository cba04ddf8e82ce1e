"""From the sign statistics of a run to tidy tables: what TIES does to every entry, where models conflict, who wins.

A share is pooled over all entries of its matrices. An entry counts 1, or by its magnitude |t1| + |t2| before trimming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import theme, weights
from analysis.weights import MODULE_COLUMNS, Measured
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import SPACES, TIES_STATES, UNLEARNED

SCHEMA = 1
STATES = tuple(TIES_STATES)
BOTH_KEPT, CONFLICTS = slice(3, 6), slice(4, 6)
SPACE_LABELS = {"A": "A (factor)", "B": "B (factor)", "dW": "ΔW = s · B A"}
COUNTINGS = {"count": "each entry once", "magnitude": "by magnitude"}
RANDOM = 0.5  # conflict rate of two independent directions: each entry has either sign with probability 1/2
OVERALL = "all matrices"
SHARES = ("conflict", "won_by_1", *STATES)


@dataclass(frozen=True, eq=False)
class Signs(Measured):
    """`signs.statistics` of a run and what they are about; rows of `modules` as of the weights."""

    @property
    def models(self) -> list[str]:
        return self.about["models"]

    @property
    def densities(self) -> list[float]:
        return self.about["densities"]

    def counted(self, space: str, counting: str) -> np.ndarray:
        """(modules, densities, 6 states): how many entries, or their summed magnitude |t1| + |t2|."""
        sums = self.arrays[space]
        return sums[..., 0] if counting == "count" else sums[..., 4] + sums[..., 5]


def read(run: Run) -> Signs | None:
    """What was measured; None where nothing was, an InputError where it is not what this version writes."""
    arrays, about = run.arrays("signs")
    if not about:
        return None
    if not _is_whole(arrays, about):
        raise InputError(f"sign statistics of {run.id}", got="not what this version writes",
                         expected=f"schema {SCHEMA}, with arrays of the sizes that it names",
                         fix=f"measure again: python -m unlearn_core weights {run.id}")
    return Signs(arrays, about)


def _is_whole(arrays: dict[str, np.ndarray], about: dict) -> bool:
    try:
        modules, densities, spaces = len(about["modules"]), len(about["densities"]), about["spaces"]
        expected = {space: (modules, densities, 6, 6) for space in spaces}
        if "dW" in spaces:
            expected |= {"thresholds": (modules, densities, 2), "excerpt": (modules, 2, 8, 8),
                         "excerpt_at": (modules, 2)}
        return (about["schema"] == SCHEMA and set(spaces) <= set(SPACES) and len(spaces) > 0 and modules > 0
                and isinstance(about["key"], dict) and isinstance(about["left_out"], dict)
                and len(about["shapes"]) == modules and about["models"] == list(UNLEARNED)
                and about["excerpt_density"] in about["densities"]
                and all(arrays[name].shape == shape for name, shape in expected.items()))
    except (KeyError, TypeError, AttributeError):
        return False


def stale(run: Run, about: dict) -> list[str]:
    """Of model_1 and model_2, those whose adapter is not the one that was measured."""
    return [model for model in weights.stale(run, about) if model in UNLEARNED]


# ---- tables ----------------------------------------------------------------------------------------------------

def matrices(signs: Signs, space: str, density: float, counting: str) -> pd.DataFrame:
    """One row per module: `MODULE_COLUMNS`, conflict (share of conflicts in what both keep), won_by_1 (share of the
    conflicts), the share of each state; missing where there is nothing to be a share of."""
    modules = signs.modules
    counted = signs.counted(space, counting)[modules.index, signs.densities.index(density)]
    return pd.concat([modules[list(MODULE_COLUMNS)].reset_index(drop=True), _shares(counted)], axis=1)


def pooled(signs: Signs, space: str, density: float, counting: str, by: str) -> pd.DataFrame:
    """One row per layer (by "group") or module type (by "type"): group, matrices (how many), `SHARES`."""
    modules = signs.modules
    counted = signs.counted(space, counting)[modules.index, signs.densities.index(density)]
    groups = modules[by].to_numpy()
    names = weights.module_types(modules["type"]) if by == "type" else list(dict.fromkeys(groups))
    totals = np.stack([counted[groups == name].sum(axis=0) for name in names])
    sizes = [int((groups == name).sum()) for name in names]
    return pd.concat([pd.DataFrame({"group": names, "matrices": sizes}), _shares(totals)], axis=1)


def over_density(signs: Signs, space: str, counting: str) -> pd.DataFrame:
    """One row per module type and density, after those of all matrices together: group, density, `SHARES`."""
    counted, kinds = signs.counted(space, counting), signs.modules["type"]
    places = {OVERALL: np.arange(len(kinds)),
              **{kind: kinds.index[kinds == kind].to_numpy() for kind in weights.module_types(kinds)}}
    return pd.concat([_over(signs, counted[at].sum(axis=0)).assign(group=name) for name, at in places.items()],
                     ignore_index=True)


def of_matrix(signs: Signs, space: str, module: str, counting: str) -> pd.DataFrame:
    """One row per density of one matrix: density, `SHARES`."""
    return _over(signs, signs.counted(space, counting)[signs.index(module)])


def _over(signs: Signs, counted: np.ndarray) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"density": signs.densities}), _shares(counted)], axis=1)


def _shares(counted: np.ndarray) -> pd.DataFrame:
    """`SHARES` of (rows, 6 states)."""
    conflicts = counted[:, CONFLICTS].sum(axis=1)
    with np.errstate(invalid="ignore"):
        columns = {"conflict": conflicts / counted[:, BOTH_KEPT].sum(axis=1), "won_by_1": counted[:, 4] / conflicts}
        states = counted / counted.sum(axis=1, keepdims=True)
    return pd.DataFrame(columns | dict(zip(STATES, states.T, strict=True)))


def most_conflicting(table: pd.DataFrame) -> str:
    """Name of the module with the highest conflict rate (the first one where none has any). `table`: `matrices`."""
    rates = table["conflict"].fillna(-1)
    return table.loc[rates.idxmax(), "module"]


# ---- TIES step by step -----------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Steps:
    """TIES on a window of delta W of both models, all (rows, columns): the entries, what trimming leaves of them, the
    elected sign (0 where neither kept the entry), the merge, and the place in `STATES` of each entry."""

    entries: tuple[np.ndarray, np.ndarray]
    trimmed: tuple[np.ndarray, np.ndarray]
    elected: np.ndarray
    merged: np.ndarray
    states: np.ndarray


def steps(signs: Signs, module: str, density: float, merge_weights: tuple[float, float] = (1.0, 1.0)) -> Steps:
    """`Steps` of the stored excerpt of a matrix; what is trimmed follows from the whole matrix."""
    at = signs.index(module)
    limits = signs.arrays["thresholds"][at, signs.densities.index(density)]
    window = signs.arrays["excerpt"][at].astype(float)
    there = ~np.isnan(window[0])
    entries = [own[there.any(axis=1)][:, there.any(axis=0)] for own in window]
    return merge_steps(entries, [np.abs(own) >= limit for own, limit in zip(entries, limits, strict=True)],
                       merge_weights)


def merge_steps(entries: Sequence[np.ndarray], kept: Sequence[np.ndarray], merge_weights: Sequence[float]) -> Steps:
    """`Steps` of two arrays of one shape of which trimming has `kept` these entries; elected before weighting and
    divided by count, as `merge.ties`."""
    trimmed = [np.where(keeps, own, 0.0) for own, keeps in zip(entries, kept, strict=True)]
    sign = np.where(trimmed[0] + trimmed[1] >= 0, 1, -1)
    agrees = [np.sign(own) == sign for own in trimmed]
    total = sum(own * mine * weight for own, mine, weight in zip(trimmed, agrees, merge_weights, strict=True))
    both = kept[0] & kept[1]
    states = np.where(both, np.where(agrees[0] & agrees[1], 3, np.where(agrees[0], 4, 5)), kept[0] + 2 * kept[1])
    return Steps(tuple(entries), tuple(trimmed), np.where(kept[0] | kept[1], sign, 0),
                 total / np.maximum(agrees[0] + agrees[1].astype(int), 1), states)


def unit(found: Steps) -> float:
    """Power of ten in which the largest entry has two digits before the point."""
    largest = max(np.abs(own).max() for own in found.entries)
    return 10.0 ** (np.floor(np.log10(largest)) - 1) if largest > 0 else 1.0


def as_table(found: Steps) -> pd.DataFrame:
    """One row per entry of the window: row, column, model_1, model_2, trimmed_1, trimmed_2, elected, merged, state."""
    row, column = (place.ravel() for place in np.indices(found.states.shape))
    return pd.DataFrame({
        "row": row, "column": column, "model_1": found.entries[0].ravel(), "model_2": found.entries[1].ravel(),
        "trimmed_1": found.trimmed[0].ravel(), "trimmed_2": found.trimmed[1].ravel(),
        "elected": found.elected.ravel(), "merged": found.merged.ravel(),
        "state": [TIES_STATES[STATES[number]] for number in found.states.ravel()]})


# ---- words -----------------------------------------------------------------------------------------------------

def summary(table: pd.DataFrame, counting: str) -> str:
    """The conflict rate of all matrices together in a sentence. `table`: `over_density`, at one density."""
    row = table[table["group"] == OVERALL].iloc[0]
    if np.isnan(row["conflict"]):
        return "No entry is kept by both models at this density."
    first, second = map(theme.short_label, UNLEARNED)
    compared = ("about as often as two random directions would" if abs(row["conflict"] - RANDOM) < 0.01 else
                "less often than two random directions would" if row["conflict"] < RANDOM else
                "more often than two random directions would")
    won = "" if np.isnan(row["won_by_1"]) else (
        f" {first} wins {row['won_by_1']:.1%} of these conflicts and {second} {1 - row['won_by_1']:.1%}.")
    what = "of all entries" if counting == "count" else "of the magnitude"
    return (f"Both models keep the same {row[list(STATES[BOTH_KEPT])].sum():.1%} {what}. In {row['conflict']:.1%} of "
            f"that they pull in opposite directions, {compared} (50 %).{won}")
