"""A forget request: what of a data set is to be forgotten, by document, by person or by field; the rest is retained."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_core.data.dataset import overlap
from unlearn_core.data.items import Item
from unlearn_core.data.persons import FIELDS, Person, carries, field_of, persons
from unlearn_core.data.readers import write_items
from unlearn_core.errors import InputError
from unlearn_core.files import read_json, replacing_dir, write_json
from unlearn_core.vocabulary import QA, SC, TASKS

# Why an item stays in forget, in the order in which it is told.
DOCUMENT, QUESTION, TEXT, OTHER = "document", "question", "text", "other"


@dataclass(frozen=True)
class Request:
    """What is to be forgotten: whole documents and whole persons by document id, or, where `fields` names some, only
    these fields of the persons (of all in forget, where none is named)."""

    documents: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requested:
    """Both sides after a request, in the order of the data; what went over stands after what was in retain."""

    forget: list[Item]
    retain: list[Item]
    reasons: dict[str, str]  # id of a forget item -> DOCUMENT, QUESTION, TEXT or OTHER
    moved: list[Item]  # what went from forget to retain
    besides: dict[str, int]  # field that was not asked for -> kept texts that hold it, too
    still_in_retain: list[Item]  # items that were in retain before and hold a value to be forgotten
    overlaps: bool  # whether a document or a text now stands on both sides


def apply(forget: Sequence[Item], retain: Sequence[Item], request: Request) -> Requested:
    """Keep in forget what the request names, and send the rest of forget to retain.

    Of a person whose fields are asked for, the questions about them stay, and the texts that hold their values in
    any form. Whatever else of forget holds a value to be forgotten stays too, so nothing that is moved teaches it.
    """
    people = persons(forget)
    _check(request, forget, people)
    whole = set(request.documents) | (set() if request.fields else set(request.persons))
    asked = set(request.persons or people) - whole if request.fields else set()
    values = _values(people, whole, asked, request.fields)
    reasons = {}
    for item in forget:
        reason = _reason(item, whole, asked, request.fields, people)
        if reason or carries(item, values):
            reasons[item.id] = reason or OTHER
    kept = [item for item in forget if item.id in reasons]
    if not kept:
        raise InputError("the request", got="nothing of forget that it names", expected="at least one item to forget")
    moved = [item for item in forget if item.id not in reasons]
    side = [*retain, *_new(moved, retain)]
    return Requested(kept, side, reasons, moved, _besides(kept, reasons, people, request.fields),
                     [item for item in retain if carries(item, values)], bool(overlap(kept, side)))


def _check(request: Request, forget: Sequence[Item], people: Mapping[str, Person]) -> None:
    """Refuse ids and fields that are not there, naming the first."""
    for what, names, known in (("document", request.documents, {item.document for item in forget}),
                               ("person", request.persons, people), ("field", request.fields, FIELDS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"the request: {what}", got=unknown[0], expected=f"a {what} of the forget split"
                             if what != "field" else f"one of {', '.join(FIELDS)}")
    if not (request.documents or request.persons or request.fields):
        raise InputError("the request", got="no document, person or field", expected="at least one of them")


def _values(people: Mapping[str, Person], whole: set[str], asked: set[str], fields: Sequence[str]
            ) -> list[tuple[str, str]]:
    """(field, value) of everything personal that is to be forgotten."""
    return list(dict.fromkeys(
        (key, value) for document, person in people.items() for key, value in person.values.items()
        if document in whole or (document in asked and key in fields)))


def _reason(item: Item, whole: set[str], asked: set[str], fields: Sequence[str], people: Mapping[str, Person]) -> str:
    if item.document in whole:
        return DOCUMENT
    if item.document not in asked:
        return ""
    if field_of(item) in fields:
        return QUESTION
    own = [(key, value) for key, value in people[item.document].values.items() if key in fields]
    return TEXT if carries(item, own, shapes=item.kind == SC) else ""


def _new(moved: Sequence[Item], retain: Sequence[Item]) -> list[Item]:
    """What was moved and does not stand in retain already; one id for two contents cannot be kept on one side."""
    there = {item.id: item for item in retain}
    for item in moved:
        if there.get(item.id, item) != item:
            raise InputError(f"item {item.id}", got="another item of this id in retain",
                             expected="each id once", fix="rename one of them")
    return [item for item in moved if item.id not in there]


def _besides(kept: Iterable[Item], reasons: Mapping[str, str], people: Mapping[str, Person], fields: Sequence[str]
             ) -> dict[str, int]:
    counts = Counter()
    for item in kept:
        if reasons[item.id] == TEXT:
            counts.update(key for key, value in people[item.document].values.items()
                          if key not in fields and carries(item, [(key, value)]))
    return {key: counts[key] for key in FIELDS if counts[key]}


# ---- in words ------------------------------------------------------------------------------------------------

def explain(outcome: Requested, request: Request) -> list[str]:
    """What stays in forget and why, and what goes to retain, one sentence each."""
    why = Counter(outcome.reasons.values())
    fields = ", ".join(FIELDS[key] for key in request.fields)
    lines = [f"{len(outcome.forget)} items stay in forget, {len(outcome.moved)} go to retain, which then has "
             f"{len(outcome.retain)}."]
    if why[DOCUMENT]:
        lines.append(f"{why[DOCUMENT]} items are of documents or persons that are to be forgotten as a whole.")
    if request.fields:
        lines.append(f"{why[QUESTION]} questions ask for the {fields}.")
    if why[TEXT]:
        others = ", ".join(f"{FIELDS[key]} ({count})" for key, count in outcome.besides.items())
        lines.append(f"{why[TEXT]} texts stay in forget because they hold the {fields} in some form"
                     + (f"; they hold other fields as well, whose text is then unlearned too: {others}." if others
                        else "."))
    if why[OTHER]:
        lines.append(f"{why[OTHER]} items of others stay in forget because they hold the same value, such as a shared "
                     "birth date.")
    if outcome.still_in_retain:
        lines.append(f"{len(outcome.still_in_retain)} items that were in retain before hold a value that is to be "
                     f"forgotten, the first {outcome.still_in_retain[0].id}: training on retain keeps it alive there.")
    if outcome.overlaps:
        lines.append("Some documents now stand on both sides: a run needs data.allow_overlap=true, and holds none of "
                     "these documents out.")
    held = {(item.task, item.kind) for item in outcome.forget}
    absent = [f"{task} {kind.upper()}" for task in TASKS for kind in (SC, QA) if (task, kind) not in held]
    if absent:
        lines.append(f"Forget then has no {', '.join(absent)}: a run on it measures no Task Aggregate, which needs all "
                     "twelve sub-scores.")
    return lines


# ---- as a data set -------------------------------------------------------------------------------------------

def save(folder: Path, forget: Iterable[Item], retain: Iterable[Item], note: dict) -> None:
    """Write a data set in LUME's layout with `request.json`, which says where it comes from.

    An older data set of this name is never replaced: that is an InputError.
    """
    if folder.exists():
        raise InputError(f"data set {folder.name}", got="one of this name", expected="a new name")
    try:
        with replacing_dir(folder) as temporary:
            write_items(temporary / "forget.jsonl", forget)
            write_items(temporary / "retain.jsonl", retain)
            write_json(temporary / "request.json", note)
    except OSError as error:
        raise InputError(f"data set {folder.name}", got=error.strerror or str(error),
                         expected="a folder that can be written") from None


def note(request: Request, *, source: str, asked_by: str, created: str) -> dict:
    """What `request.json` holds about a request: who asked for what, of which data, and when."""
    return {"source": source, "asked_by": asked_by, "created": created, **dataclasses.asdict(request)}


def origin(folder: Path) -> dict:
    """`request.json` of a data set made in the dashboard; {} where there is none."""
    return read_json(folder / "request.json") or {}


def command(folder: Path, *, recipe: str = "demo", overlaps: bool = False) -> str:
    """The command that runs a recipe on a data set."""
    settings = ["data.source=files", f"data.path={folder}", *(["data.allow_overlap=true"] if overlaps else [])]
    return " ".join(["python -m unlearn_core run", shlex.quote(recipe),
                     *(f"--set {shlex.quote(setting)}" for setting in settings)])
