"""Two halves of a run's documents: one to choose on, and one that is read on request and counted. Torch-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from unlearn_core.data import Dataset, Item, persons
from unlearn_core.data.dataset import normalised, one_text_each
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.trials import balance
from unlearn_core.vocabulary import SUB_SCORES, sub_score_key

DEVELOPMENT, TEST, ALL = HALVES = ("development", "test", "all")
SEED = 0  # of these halves; `balance` may be asked for others, which mix both
CELLS = [metric.key for metric in SUB_SCORES]


# ---- units -----------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """What belongs together: `of` gives each document's unit by number (all documents of a person are one), `stratum`
    (units,) the number of the unit's stratum: split and task, or the held-out documents of the attack."""

    of: dict[str, int]
    stratum: np.ndarray

    def half(self, seed: int = SEED) -> np.ndarray:
        """(units,) 0 for development, 1 for test."""
        return balance.halves(self.stratum, seed)


def units(dataset: Dataset) -> Units:
    """The units of everything that is scored. A member of the attack that stands in a file of its own belongs to the
    document of forget or retain whose text it is."""
    splits = [("forget", dataset.forget), ("retain", dataset.retain)]
    names = unit_names([*dataset.forget, *dataset.retain])
    twins = {normalised(item.text): item.document for _, items in splits for item in one_text_each(items)}
    numbers: dict[str, int] = {}
    found: dict[str, int] = {}
    strata: list[str] = []

    def add(document: str, name: str, stratum: str) -> None:
        if name not in numbers:
            numbers[name] = len(numbers)
            strata.append(stratum)
        found.setdefault(document, numbers[name])

    for split, items in splits:
        for item in items:
            add(item.document, names[item.document], f"{split} {item.task}")
    for entry in dataset.attack:
        document = entry.document if entry.document in names else twins.get(normalised(entry.text), entry.document)
        add(entry.document, names.get(document, document), "" if entry.member else "holdout")
    return Units(found, np.unique(strata, return_inverse=True)[1] if strata else np.zeros(0, int))


def unit_names(items: Iterable[Item]) -> dict[str, str]:
    """{document: name of its unit}: the person's where one is named, so that all their documents are one unit."""
    items = list(items)
    people = persons.persons(items)
    named = {document: person.name for document, person in people.items() if person.name}
    return {item.document: named.get(item.document, item.document) for item in items}


# ---- halves ----------------------------------------------------------------------------------------------------

def development(dataset: Dataset) -> set[str]:
    """Documents on which anything may be chosen: a random half of each split and task and of the held-out documents of
    the attack, persons whole. The others are the test half."""
    found = units(dataset)
    half = found.half()
    return {document for document, unit in found.of.items() if half[unit] == 0}


def part(dataset: Dataset, half: str) -> Dataset:
    """The dataset with the documents of one of `HALVES` only; its questions stay, which are no documents."""
    if half not in HALVES:
        raise InputError("half of the documents", got=half, expected=f"one of {', '.join(HALVES)}")
    if half == ALL:
        return dataset
    chosen = development(dataset)
    return dataclasses.replace(dataset, **{
        name: [one for one in getattr(dataset, name) if (one.document in chosen) == (half == DEVELOPMENT)]
        for name in ("forget", "retain", "holdout", "attack")})


def axes(dataset: Dataset, whole: Dataset) -> dict[str, np.ndarray]:
    """What each item of a dataset (forget, then retain) and each document of its attack belongs to: the arrays of
    `balance.Measured` but the measured ones. `whole` is the run's dataset, whose halves these are."""
    found, rows = units(whole), [("forget", item) for item in dataset.forget]
    rows += [("retain", item) for item in dataset.retain]
    return {"cell": np.array([CELLS.index(sub_score_key(split, item.kind, item.task)) for split, item in rows], int),
            "unit": np.array([found.of[item.document] for _, item in rows], int),
            "attack_unit": np.array([found.of[entry.document] for entry in dataset.attack], int),
            "member": np.array([entry.member for entry in dataset.attack], bool), "stratum": found.stratum}


def counts(dataset: Dataset, whole: Dataset) -> dict[str, int]:
    """What scores of a dataset rest on: `units`, the smallest number of documents or persons of a sub-score, and
    `members` and `nonmembers` of the attack."""
    found = axes(dataset, whole)
    smallest = min(len(np.unique(found["unit"][found["cell"] == cell])) for cell in range(len(CELLS)))
    members = int(found["member"].sum())
    return {"units": smallest, "members": members, "nonmembers": len(found["member"]) - members}


# ---- what was tried --------------------------------------------------------------------------------------------

def configurations(found: dict) -> set[str]:
    """Names of what was scored in `Run.merges` or `Run.trajectory`, now or before it was replaced; the base is none."""
    return set(found.get("replaced", ())) | {
        f"{row['kind']}: {row['name']}" if "kind" in row else f"{row['model']} at step {row['step']}"
        for row in found.get("rows", []) if row.get("step") != 0}


def replaced(before: dict, rows: list[dict]) -> list[str]:
    """Names of what was scored `before` and is not among the rows that are kept: it was tried all the same."""
    return sorted(configurations(before) - configurations({"rows": rows}))


def tried(run: Run) -> int:
    """How many configurations of a run were scored so far: other merges, checkpoints, and those of `balance`."""
    return (len(configurations(run.merges())) + len(configurations(run.trajectory()))
            + run.balance().get("configurations", 0))


# ---- words -----------------------------------------------------------------------------------------------------

def scored_on(about: dict) -> str:
    """What the rows of `Run.trajectory`, `Run.merges` or `Run.ablations` were scored on, for a caption."""
    size, quiz, half = about["documents_per_task"], about["mmlu_limit"], about.get("half", ALL)
    documents = f"{size} document{'s' * (size > 1)}" if size else "all documents"
    where, own = (f" of the {half} half", " of that half") if half != ALL else ("", "")
    return (f"scored on {documents} per task and side (seed {about['seed']}){where}, at most "
            f"{about['max_new_tokens']} new tokens; the attack uses all its documents{own}" + _counted(about.get("n"))
            + ("" if quiz < 0 else "; MMLU with " + (f"{quiz} questions per subject" if quiz else "all questions")))


def _counted(n: dict | None) -> str:
    if not n:
        return ""
    units = "1 document or person" if n["units"] == 1 else f"{n['units']} documents or persons"
    return f" ({n['members']} members, {n['nonmembers']} non-members; the smallest sub-score has {units})"
