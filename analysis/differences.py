"""Two models on the same documents: paired differences of the twelve scores, Task Aggregate, AUC and MMLU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import intervals, official
from analysis.official import CELLS, IDEALS, Answers
from unlearn_core.evaluation import mia, score
from unlearn_core.store import Run
from unlearn_core.trials import balance
from unlearn_core.vocabulary import METRICS, QA, SC

ALPHA = 0.05
COLUMNS = ("metric", "label", "first", "second", "difference", "low", "high", "p", "holm", "units", "told_apart")
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Rows:
    """What was recorded of one model: rows of `Run.answers`, `.documents` and `.mmlu`."""

    answers: Sequence[Mapping]
    documents: Sequence[Mapping] = ()
    mmlu: Sequence[Mapping] = ()


def rows_of(run: Run, model: str) -> Rows:
    return Rows(run.answers(model), run.documents(model), run.mmlu(model))


def compare(first: Rows, second: Rows, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """(a row per number with columns `COLUMNS`, sentences on what cannot be compared and why).

    `difference`: the second less the first, on forget the first less the second, so that above 0 the second is better;
    of the AUC it has no such direction. `low`, `high`: 95 %, the same documents (persons, questions) drawn again for
    both models, within split and task; NaN where every draw is the same. `p`: share of swaps of the two models, unit by
    unit, with at least this difference; `holm`: corrected for the twelve. `told_apart`: `holm` below 0.05, without one
    an interval that leaves out 0. Models that were measured on different items are not compared.
    """
    parts = (_scores, _attack, _quiz)
    found, refused = [], []
    for part in parts:
        rows, reason = part(first, second, seed)
        found += rows
        refused += [reason] if reason else []
    table = pd.DataFrame(found, columns=["metric", "first", "second", "difference", "low", "high", "p", "units"])
    table["label"] = [METRICS[key].label if key not in CELLS else official.term_label(key) for key in table["metric"]]
    table["holm"] = intervals.holm(table["p"])
    by_interval = (table["low"] > 0) | (table["high"] < 0)
    table["told_apart"] = (table["holm"] < ALPHA).where(table["p"].notna(), by_interval).astype(bool)
    return table[list(COLUMNS)], refused


def _unpaired(first: Sequence[Mapping], second: Sequence[Mapping], key: Sequence[str], equal: Sequence[str],
              what: str) -> tuple[list[Mapping], str]:
    """(rows of the second in the order of the first, why they cannot be paired or "")."""
    if not first or not second:
        return [], f"{what}: nothing was recorded for {'both' if not first and not second else 'one'} of the two."
    mine, others = ({tuple(row.get(k) for k in key): row for row in rows} for rows in (first, second))
    alone, beside, changed = (len(mine.keys() - others.keys()), len(others.keys() - mine.keys()),
                              sum(any(row.get(k) != others[name].get(k) for k in equal)
                                  for name, row in mine.items() if name in others))
    if alone or beside or changed or not len(mine) == len(first) == len(second):
        return [], (f"{what}: measured on different ones ({alone} only with the first, {beside} only with the second, "
                    f"{changed} with other contents), so a difference would compare the data and not the models.")
    return [others[tuple(row.get(k) for k in key)] for row in first], ""


# ---- the twelve and their harmonic mean ------------------------------------------------------------------------

def _scores(first: Rows, second: Rows, seed: int) -> tuple[list[tuple], str]:
    paired, reason = _unpaired(first.answers, second.answers, ("split", "id"),
                               ("document", "task", "kind", "prompt", "answer"), "Forget and retain items")
    if reason:
        return [], reason
    a, b = (official.answers(rows) for rows in (first.answers, paired))
    times = intervals.times(a.stratum, seed=seed)
    means, drawn = ([side.means(weights) for side in (a, b)] for weights in (np.ones((1, len(a.units))), times))
    sign = np.where(IDEALS == 0, -1.0, 1.0)
    differences, p = sign * (drawn[1] - drawn[0]), _swap_tests(a, b, seed)
    rows = []
    for place, key in enumerate(CELLS):
        value = sign[place] * (means[1][0, place] - means[0][0, place]) + 0.0  # no minus before a 0
        if not math.isnan(value):
            ends = _interval(differences[:, place], int(a.sizes[place]),
                             [_own(side, place, key, sign[place]) for side in (a, b)])
            rows.append((key, means[0][0, place], means[1][0, place], value, *ends, p[place], int(a.sizes[place])))
    wholes = [balance.task_aggregates(side)[0] for side in means]
    if not np.isnan(wholes).any():
        drawn_wholes = [balance.task_aggregates(side) for side in drawn]
        ends = _interval(drawn_wholes[1] - drawn_wholes[0], int(a.sizes.min()))
        rows.append(("task_aggregate", *wholes, wholes[1] - wholes[0], *ends, math.nan, len(a.units)))
    return rows, ""


def _swap_tests(a: Answers, b: Answers, seed: int) -> np.ndarray:
    """(12,) two-sided p values: were the two models alike, any unit's answers could as well be the other's."""
    differences = b.sums[0] - a.sums[0]
    swapped = np.abs((1.0 - 2.0 * intervals.swaps(len(a.units), seed=seed)) @ differences)
    p = (swapped >= np.abs(differences.sum(axis=0)) - 1e-9).mean(axis=0)
    return np.where(np.isnan(differences.sum(axis=0)) | (a.sizes == 0), np.nan, p)


def _own(side: Answers, place: int, key: str, sign: float) -> Interval:
    """Interval of one model's own score, as it enters the difference."""
    own = side.cell == place
    low, high = score.mean_interval(side.values[own].tolist(), side.unit[own].tolist(),
                                    score.PRIOR[SC if "regurgitation" in key else QA])
    return (low, high) if sign > 0 else (-high, -low)


def _interval(drawn: np.ndarray, units: int, own: Sequence[Interval] = ()) -> Interval:
    """From resampled differences. Where all are the same, resampling cannot tell how far off they may be: the models'
    own intervals bound it, if they are given."""
    if np.nanmax(drawn) > np.nanmin(drawn):
        return intervals.percentile(drawn, units)
    return (own[1][0] - own[0][1], own[1][1] - own[0][0]) if own else (math.nan, math.nan)


# ---- the attack and the quiz -----------------------------------------------------------------------------------

def _attack(first: Rows, second: Rows, seed: int) -> tuple[list[tuple], str]:
    paired, reason = _unpaired(first.documents, second.documents, ("document", "member"), ("tokens",),
                               "Documents of the attack")
    if reason:
        return [], reason
    both = [(a, b) for a, b in zip(first.documents, paired, strict=True) if _known(a) and _known(b)]
    names = official.unit_names(first.answers)
    sides, places, strata = [], {}, []
    for member in (True, False):
        own = [(a, b) for a, b in both if a["member"] == member]
        if not own:
            return [], f"AUC: there is no {'member' if member else 'non-member'} with a loss."
        units = [names.get(a["document"], a["document"]) if member else f"non-member {a['document']}" for a, _ in own]
        for unit, (a, _) in zip(units, own, strict=True):
            if unit not in places:
                places[unit] = len(places)
                strata.append(f"{member} {a.get('task')}")
        sides.append((np.array([places[unit] for unit in units]), np.array([[a["nll"], b["nll"]] for a, b in own]).T))
    times = intervals.times(np.array(strata), seed=seed)
    (member_units, members), (other_units, others) = sides
    drawn = [_drawn_auc(members[k], others[k], times[:, member_units], times[:, other_units]) for k in (0, 1)]
    values = [mia.auc(members[k], others[k]) for k in (0, 1)]
    ends = _interval(drawn[1] - drawn[0], min(len(set(member_units)), len(set(other_units))),
                     [mia.auc_interval(members[k], others[k]) for k in (0, 1)])
    return [("mia_auc", *values, values[1] - values[0], *ends, math.nan, len(places))], ""


def _known(row: Mapping) -> bool:
    return row.get("nll") is not None and not math.isnan(row["nll"])


def _drawn_auc(members: np.ndarray, others: np.ndarray, member_times: np.ndarray, other_times: np.ndarray
               ) -> np.ndarray:
    """(resamples,) AUC with each loss counted as often as it was drawn."""
    below = (members[:, None] < others) + 0.5 * (members[:, None] == others)
    return ((member_times @ below) * other_times).sum(axis=1) / (member_times.sum(axis=1) * other_times.sum(axis=1))


def _quiz(first: Rows, second: Rows, seed: int) -> tuple[list[tuple], str]:
    paired, reason = _unpaired(first.mmlu, second.mmlu, ("subject", "question", "correct"), ("options",),
                               "MMLU questions")
    if reason:
        return [], reason
    right = np.array([[row["correct"] == row["predicted"] for row in rows] for rows in (first.mmlu, paired)], float)
    times = intervals.times(np.zeros(right.shape[1]), seed=seed)
    shares, questions = right.mean(axis=1), right.shape[1]
    ends = _interval(times @ (right[1] - right[0]) / questions, questions,
                     [score.mean_interval(side.tolist(), range(questions)) for side in right])
    return [("mmlu", *shares, shares[1] - shares[0], *ends, math.nan, questions)], ""


# ---- in words --------------------------------------------------------------------------------------------------

def describe(table: pd.DataFrame, first: str, second: str) -> list[str]:
    """Sentences on `compare`; `first` and `second` are the names of the two."""
    said, twelve = [], table[table["metric"].isin(CELLS)]
    if len(twelve):
        told = twelve[twelve["told_apart"]]
        better, worse = (told["difference"] > 0).sum(), (told["difference"] < 0).sum()
        said.append(f"Of {len(twelve)} scores {second} is better than {first} in {better} and worse in {worse}; "
                    f"{len(twelve) - len(told)} cannot be told apart (corrected for their number by Holm).")
    for row in table[~table["metric"].isin(CELLS)].to_dict("records"):
        span = "no interval: every draw is the same" if math.isnan(row["low"]) else (
            f"[{row['low']:+.3f}, {row['high']:+.3f}], " + ("told apart" if row["told_apart"] else "not told apart"))
        said.append(f"{row['label']}: {second} {row['second']:.3f}, {first} {row['first']:.3f}, difference "
                    f"**{row['difference']:+.3f}** ({span}).")
    return said
