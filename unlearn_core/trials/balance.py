"""Which update is balanced: every knob is turned on one half of the documents and read on the other. Torch-free.

Each family of updates has one knob (a scale, a mix, a step). On the development half its setting is chosen: of those
whose AUC lies within one standard error of the target, the best Task Aggregate; where none does, the nearest AUC. What
is reported is the other half, and then the halves change places. So families are compared at matched AUC, and no number
was looked at to choose what it measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearn_core.errors import InputError
from unlearn_core.evaluation import mia
from unlearn_core.store import Run
from unlearn_core.vocabulary import SUB_SCORES

MERGED, MEAN, MIXED = "the merge, scaled", "mean of both, scaled", "mix of both"
MERGES = (MERGED, MEAN, MIXED)  # the families among which a balanced merge is chosen
REFERENCE = f"{MERGED} x 1"  # the run's merge as it is
AS_IT_IS, BALANCED = "the run's merge", "balanced merge"
LEAST_ATTACKED = 20  # members, and non-members, of a half, below which nothing is concluded
LEAST_UNITS = 8  # documents or persons of a sub-score in a half, likewise
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of every configuration, item by item.

    values (configurations, items): ROUGE-L recall or exact match, NaN where a configuration was not asked (see
    `eligible`); cell (items,): index into SUB_SCORES; unit (items,)
    and attack_unit (documents,): what documents and persons belong together, by number; nll (configurations,
    documents) of the attack; member (documents,); stratum (units,): units are halved within it. `families` and
    `names` (configurations) say what was measured; one of them is `REFERENCE`, with which all are compared.
    """

    families: list[str]
    names: list[str]
    values: np.ndarray
    cell: np.ndarray
    unit: np.ndarray
    nll: np.ndarray
    member: np.ndarray
    attack_unit: np.ndarray
    stratum: np.ndarray

    @property
    def reference(self) -> int:
        return self.names.index(REFERENCE)


def measured(run: Run) -> Measured | None:
    """What was scored on a run item by item; None where nothing was, or not yet the run's own merge."""
    arrays, about = run.arrays("balance")
    if REFERENCE not in about.get("names", ()):
        return None
    try:
        return Measured(about["families"], about["names"], **arrays)
    except (KeyError, TypeError):
        raise InputError(f"run {run.id}: balance.safetensors", got=f"{sorted(arrays)}", expected="what this version of "
                         "Lethe measures", fix="remove the file and balance again") from None


def eligible(measured: Measured, target: float, seed: int = 0) -> list[int]:
    """The configurations that the rule may choose on either half, whatever their answers are, and the merge as it is.

    Nothing else needs its answers measured, which take ten times as long as the losses that decide this.
    """
    half, found = halves(measured.stratum, seed), {measured.reference}
    for number in (0, 1):
        side = _Side(measured, half == number)
        for family in dict.fromkeys(measured.families):
            found.update(side.candidates(_of(measured, (family,)), target))
    return sorted(found)


def halves(stratum: np.ndarray, seed: int) -> np.ndarray:
    """0 or 1 for each unit: within each stratum a random half, an odd one to one side and the next one to the other."""
    chance, half, first = np.random.default_rng(seed), np.zeros(len(stratum), int), 0
    for name in np.unique(stratum):
        own = chance.permutation(np.flatnonzero(stratum == name))
        half[own] = (np.arange(len(own)) + first) % 2
        first = (first + len(own)) % 2
    return half


def read(measured: Measured, target: float, seed: int = 0) -> dict:
    """Choose on each half, read on the other: a JSON object.

    `families`: for the merge as it is, the balanced merge (the best of the families of merges) and each family: the
    two `folds` (chosen, development and test numbers), the mean `task_aggregate` and `mia_auc` of both tests, and
    `difference`, [value, low, high]: its Task Aggregate less that of the merge as it is, 95 %, units resampled.
    `refused` is why nothing may be concluded, "" where enough was measured. Counts: `configurations`, and `n`, the
    smallest numbers of units per sub-score, members and non-members in a half.
    """
    half = halves(measured.stratum, seed)
    sides = [_Side(measured, half == number) for number in (0, 1)]
    smallest = {key: min(side.counts[key] for side in sides) for key in ("units", "members", "nonmembers")}
    rows = [_family(AS_IT_IS, [measured.reference], sides, target, measured, seed),
            _family(BALANCED, _of(measured, MERGES), sides, target, measured, seed)]
    rows += [_family(name, _of(measured, (name,)), sides, target, measured, seed)
             for name in dict.fromkeys(measured.families)]
    return {"target": target, "seed": seed, "configurations": len(measured.names), "n": smallest,
            "refused": _refusal(smallest), "families": rows}


def _of(measured: Measured, families: Sequence[str]) -> list[int]:
    return [number for number, family in enumerate(measured.families) if family in families]


def _refusal(smallest: dict[str, int]) -> str:
    least = {"units": LEAST_UNITS, "members": LEAST_ATTACKED, "nonmembers": LEAST_ATTACKED}
    words = {"units": "documents or persons of a sub-score", "members": "members", "nonmembers": "non-members"}
    few = [f"{smallest[key]} {words[key]} in a half, of the {least[key]} that a conclusion takes"
           for key in least if smallest[key] < least[key]]
    return "; ".join(few)


class _Side:
    """All configurations on one half of the units."""

    def __init__(self, measured: Measured, chosen: np.ndarray):
        self.items, self.attacked = chosen[measured.unit], chosen[measured.attack_unit]
        self.values, self.cell = measured.values[:, self.items], measured.cell[self.items]
        self.units = measured.unit[self.items]
        self.aggregate = task_aggregates(cell_means(self.values, self.cell))
        member, nll = measured.member[self.attacked], measured.nll[:, self.attacked]
        self.losses = [([*row[member & ~np.isnan(row)]], [*row[~member & ~np.isnan(row)]]) for row in nll]
        self.auc = np.array([mia.auc(*losses) if all(losses) else math.nan for losses in self.losses])
        self.counts = {"units": min(len(np.unique(self.units[self.cell == cell])) for cell in range(len(SUB_SCORES))),
                       "members": int(member.sum()), "nonmembers": int((~member).sum())}

    @property
    def error(self) -> float:
        """Standard error of an AUC of 0.5 on so many members and non-members."""
        m, n = self.counts["members"], self.counts["nonmembers"]
        return math.sqrt((m + n + 1) / (12 * m * n)) if m and n else math.inf

    def candidates(self, configurations: Sequence[int], target: float) -> list[int]:
        """Those whose AUC lies within one standard error of the target; where none does, the nearest (all at a tie)."""
        distance = {number: self._distance(number, target) for number in configurations}
        reach = max(self.error, min(distance.values()))
        return [number for number in configurations if distance[number] <= reach]

    def choose(self, configurations: Sequence[int], target: float) -> int:
        """The rule at the top of this file."""
        aggregate = np.nan_to_num(self.aggregate, nan=-1.0)
        return max(self.candidates(configurations, target),
                   key=lambda number: (aggregate[number], -self._distance(number, target)))

    def _distance(self, number: int, target: float) -> float:
        return math.inf if math.isnan(self.auc[number]) else abs(self.auc[number] - target)

    def numbers(self, number: int) -> dict:
        """Task Aggregate, AUC and the AUC's interval of a configuration."""
        losses = self.losses[number]
        interval = [float(end) for end in mia.auc_interval(*losses, LEVEL)] if all(losses) else None
        return {"task_aggregate": _known(self.aggregate[number]), "mia_auc": _known(self.auc[number]),
                "mia_auc_interval": interval}


def _family(name: str, configurations: list[int], sides: list[_Side], target: float, measured: Measured,
            seed: int) -> dict:
    folds, drawn = [], []
    for development, test in (sides, sides[::-1]):
        chosen = development.choose(configurations, target)
        folds.append({"chosen": measured.names[chosen], "development": development.numbers(chosen),
                      "test": test.numbers(chosen)})
        drawn.append(_resampled_difference(test, chosen, measured.reference, seed))
    mean = {key: _mean([fold["test"][key] for fold in folds]) for key in ("task_aggregate", "mia_auc")}
    reference = _mean([_known(side.aggregate[measured.reference]) for side in sides])
    return {"family": name, "configurations": len(configurations), "folds": folds, **mean,
            "difference": _interval(mean["task_aggregate"], reference, np.mean(drawn, axis=0))}


def _interval(value: float | None, reference: float | None, drawn: np.ndarray) -> list[float] | None:
    """[value less reference, low, high] from the resampled differences; None where a sub-score has no items."""
    if value is None or reference is None or np.isnan(drawn).all():
        return None
    tail = (1 - LEVEL) / 2
    return [value - reference, *(float(end) for end in np.nanquantile(drawn, [tail, 1 - tail]))]


def _resampled_difference(side: _Side, chosen: int, reference: int, seed: int) -> np.ndarray:
    """(resamples,) Task Aggregate of `chosen` less that of `reference` on units drawn with replacement."""
    first, second = resampled(side.values[[chosen, reference]], side.cell, side.units, seed)
    return first - second


def resampled(values: np.ndarray, cell: np.ndarray, unit: np.ndarray, seed: int = 0) -> np.ndarray:
    """(rows, RESAMPLES) Task Aggregates on units drawn with replacement, the same ones for every row of `values` (rows,
    items); NaN where a sub-score was not drawn."""
    units, place = np.unique(unit, return_inverse=True)
    times = np.random.default_rng(seed).multinomial(len(units), np.full(len(units), 1 / len(units)), size=RESAMPLES)
    weights = times[:, place].astype(float)
    return np.stack([task_aggregates(cell_means(row * weights, cell, weights)) for row in values])


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


# ---- scores of many configurations at once ---------------------------------------------------------------------

def cell_means(values: np.ndarray, cell: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(rows, 12) means of the items of each sub-score; `values` (rows, items), times `weights` where they are given.

    NaN where a sub-score has no item (or none was drawn).
    """
    belongs = (cell[:, None] == np.arange(len(SUB_SCORES))).astype(float)
    counts = (belongs.sum(axis=0) if weights is None else weights @ belongs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return values @ belongs / counts


def task_aggregates(means: np.ndarray) -> np.ndarray:
    """(rows,) harmonic means of the twelve terms; 0 as soon as one term is 0 (as officially), NaN where one is."""
    ideal = np.array([metric.ideal for metric in SUB_SCORES])
    terms = np.where(ideal == 0, 1 - means, means)
    with np.errstate(divide="ignore"):
        return len(SUB_SCORES) / (1 / terms).sum(axis=1)
