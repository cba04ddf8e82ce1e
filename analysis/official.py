"""The official scores read with care: answers as numbers by independent unit, P(zero) of each term, the twelve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis import frames, theme
from unlearn_core.data import Item, persons
from unlearn_core.files import damaged
from unlearn_core.store import Run
from unlearn_core.vocabulary import OFFICIAL, QA, SC, SPLITS, SUB_SCORES, TASKS, sub_score_key

CELLS = [metric.key for metric in SUB_SCORES]
IDEALS = np.array([metric.ideal for metric in SUB_SCORES])
COLUMNS = ("model", "metric", "label", "split", "kind", "task", "value", "low", "high", "ideal", "chance", "items",
           "units", "p_zero", "why")


def term_label(key: str) -> str:
    """"forget_knowledge_2" -> "Forget: people with PII, knowledge"."""
    split, kind, number = key.split("_")
    name = frames.sub_score_name(TASKS[int(number) - 1], kind)
    return f"{split.capitalize()}: {name[0].lower()}{name[1:]}"


# ---- answers as numbers ----------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one model as numbers, one entry per item.

    values: ROUGE-L recall or exact match, NaN where none is recorded; cell: index into SUB_SCORES; unit: number of the
    document or, for all documents of one person, of the person; stratum (units,): split and task. `units` are their
    names.
    """

    values: np.ndarray
    cell: np.ndarray
    unit: np.ndarray
    stratum: np.ndarray
    units: list[str]

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """(units, 12) sums of the values, and numbers of items."""
        sums, counts = np.zeros((len(self.units), len(CELLS))), np.zeros((len(self.units), len(CELLS)))
        np.add.at(sums, (self.unit, self.cell), self.values)
        np.add.at(counts, (self.unit, self.cell), 1)
        return sums, counts

    @cached_property
    def sizes(self) -> np.ndarray:
        """(12,) units with an item in each cell."""
        return (self.sums[1] > 0).sum(axis=0)

    def means(self, times: np.ndarray) -> np.ndarray:
        """(resamples, 12) means of the cells, each unit counted as often as `times` (resamples, units) says."""
        sums, counts = self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            return (times @ sums) / (times @ counts)


def answers(rows: Sequence[Mapping], where: str = "answers") -> Answers:
    """Rows of `Run.answers` as numbers; a row that is no answer is an InputError that names the place."""
    names = unit_names(rows, where)
    numbers: dict[str, int] = {}
    strata: list[str] = []
    units, cells, values = [], [], []
    for row in rows:
        name = names[row["document"]]
        if name not in numbers:
            numbers[name] = len(numbers)
            strata.append(f"{row['split']} {row['task']}")
        units.append(numbers[name])
        cells.append(CELLS.index(sub_score_key(row["split"], row["kind"], row["task"])))
        value = row.get(OFFICIAL.get(row["kind"]))
        values.append(math.nan if value is None else float(value))
    return Answers(np.array(values, float), np.array(cells, int), np.array(units, int), np.array(strata, object),
                   list(numbers))


def of_run(run: Run) -> dict[str, Answers]:
    """{model: its answers as numbers} of the models that have some."""
    return {model: answers(rows, f"answers of {model} in run {run.id}")
            for model in run.models() if (rows := run.answers(model))}


def unit_names(rows: Sequence[Mapping], where: str = "answers") -> dict[str, str]:
    """{document: name of the independent unit it belongs to}: its person where one is named, else the document."""
    for row in rows:
        if not (all(isinstance(row.get(key), str) for key in ("id", "document", "prompt", "answer"))
                and row.get("split") in SPLITS and row.get("task") in TASKS and row.get("kind") in (SC, QA)):
            raise damaged(where, f"a row {row!r}"[:200])
    people = persons.persons(map(Item.of, rows))
    named = {document: person.name for document, person in people.items() if person.name}
    return {row["document"]: named.get(row["document"], row["document"]) for row in rows}


# ---- P(zero) ---------------------------------------------------------------------------------------------------

def p_zero(found: Answers) -> tuple[np.ndarray, float]:
    """((12,) probability that each term of the harmonic mean is 0, and that the Task Aggregate is) when the units are
    drawn again with replacement within split and task; exact, NaN where a cell has no item.

    A term is 0 where each of its units is: a forget one whose items are all right, a retain one whose items are all
    wrong. Where c of n units are not, none of those is drawn with probability ((n - c) / n)^n.
    """
    above = found.values != 1 - IDEALS[found.cell]  # the item's term is above 0
    alive = np.zeros((len(found.units), len(CELLS)), bool)
    alive[found.unit[above], found.cell[above]] = True
    zero, none = np.full(len(CELLS), np.nan), 1.0
    for name in np.unique(found.stratum):
        own, n = alive[found.stratum == name], int((found.stratum == name).sum())
        cells = np.flatnonzero((found.sums[1][found.stratum == name] > 0).any(axis=0))
        zero[cells] = _none_drawn(own[:, cells].sum(axis=0), n)
        # The cells of a stratum share their units, so "any of them is 0" goes by inclusion and exclusion.
        none *= 1 - sum((-1) ** (len(some) + 1) * _none_drawn(own[:, some].any(axis=1).sum(), n)
                        for size in range(1, len(cells) + 1) for some in itertools.combinations(cells, size))
    zero[np.isnan(found.sums[0]).any(axis=0)] = np.nan
    return zero, math.nan if np.isnan(zero).any() else float(1 - none)


def _none_drawn(alive: np.ndarray | int, n: int) -> np.ndarray | float:
    return ((n - alive) / n) ** n


# ---- the twelve ------------------------------------------------------------------------------------------------

def table(run: Run, found: Mapping[str, Answers], chance: Mapping[str, float]) -> pd.DataFrame:
    """Twelve rows per scored model, columns `COLUMNS`: `frames.sub_scores` with what it takes to read them.

    `chance`: the score of fluent unrelated text; an empty text scores 0 everywhere. `items` and `units` (documents or
    persons) of the cell; `p_zero` of its term; `why` says what is lacking where something is not measured, else "".
    """
    rows = frames.sub_scores(run)
    counts = pd.DataFrame([row for model in rows["model"].unique() for row in _counts(model, found.get(model))],
                          columns=["model", "metric", "items", "units", "p_zero", "lost", "why"])
    rows = rows.assign(chance=rows["metric"].map(chance).astype(float)).merge(counts, on=["model", "metric"])
    rows.loc[rows["lost"] > 0, ["value", "low", "high"]] = np.nan  # a mean over some of the items is another number
    return rows[list(COLUMNS)]


def _counts(model: str, found: Answers | None) -> list[tuple]:
    """(model, metric, items, units, P(zero), items without a score, why something is lacking) of the twelve cells."""
    if found is None or not len(found.values):
        return [(model, key, 0, 0, math.nan, 0, "no answers were recorded") for key in CELLS]
    zero, _ = p_zero(found)
    items = np.bincount(found.cell, minlength=len(CELLS))
    lost = np.bincount(found.cell, np.isnan(found.values), minlength=len(CELLS)).astype(int)
    return [(model, key, items[place], found.sizes[place], zero[place], lost[place],
             _why(items[place], lost[place], found.sizes[place])) for place, key in enumerate(CELLS)]


def _why(items: int, lost: int, units: int) -> str:
    if not items:
        return "the data have no such item"
    if lost:
        return f"{lost} of {items} items have no score"
    return "a single document: nothing is known of the spread" if units == 1 else ""


def gaps(rows: pd.DataFrame) -> list[str]:
    """Sentences on what `table` lacks and why, one per model and reason."""
    lacking = rows[(rows["why"] != "") & (rows["value"].isna() | (rows["units"] == 1))]
    return [f"{theme.short_label(model)}, {_listed(own)}: {'not measured: ' if own['value'].isna().all() else ''}{why}."
            for (model, why), own in lacking.groupby(["model", "why"], sort=False)]


def _listed(own: pd.DataFrame) -> str:
    return "all twelve" if len(own) == len(CELLS) else "; ".join(map(term_label, own["metric"]))


def terms(rows: pd.DataFrame, model: str) -> np.ndarray:
    """(12,) the terms of a model's harmonic mean from `table`: 1 - score on forget, score on retain."""
    value = rows[rows["model"] == model].set_index("metric")["value"].reindex(CELLS).to_numpy(float)
    return np.where(IDEALS == 0, 1 - value, value)
