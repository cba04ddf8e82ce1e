"""Reads lists of prompts and answers as items: one's own, LUME's, TOFU's and MUSE's, recognised by columns. Torch-free.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_letters
from typing import NamedTuple

from unlearn_core.data.dataset import normalised
from unlearn_core.data.items import Item
from unlearn_core.data.persons import FIELDS, NAME, PERSONS_TASK, occurrences
from unlearn_core.data.readers import FIELDS as LUME_COLUMNS
from unlearn_core.data.readers import field_error, read_items, read_rows
from unlearn_core.errors import InputError
from unlearn_core.vocabulary import QA, SC, TASKS

# What tells the items of a document apart, one character each. No digits: those number LUME's questions, and
# `persons.field_of` reads a field off them.
CHARACTERS = ascii_letters + "".join(map(chr, range(0x4E00, 0x9FA6)))
PERSON, HASH_LENGTH = "person-", 8  # name of a person's document: this, and so much of the hash of the name


class Layout(NamedTuple):
    """Columns of the prompt and the answer ("": one text holds both), and the kind of its items."""

    prompt: str
    answer: str
    kind: str


LAYOUTS = (Layout("prompt", "answer", QA), Layout("question", "answer", QA), Layout("prompt", "gt", SC),
           Layout("text", "", SC))


def read_lists(files: Mapping[str, Sequence[str | Path]]) -> dict[str, list[Item]]:
    """{split: items} of {split: files}, in their order; an id stands for one item, whatever split it is in.

    Each file is JSON lines, a JSON list, column-wise JSON, Parquet or CSV, and has one of these layouts:

    - prompt, answer: one's own list.
    - question, answer: TOFU, and MUSE's knowmem. What TOFU's perturbed files have besides (paraphrased and perturbed
      answers) is not needed. TOFU has 20 questions per author and no column that says which: unless `document` or
      `person` is added, each row is its own document, and intervals over documents are too narrow.
    - prompt, gt: MUSE's verbmem, continuations.
    - text: MUSE's raw and privleak, whole texts; the first half of the words is the prompt, the rest the answer.
    - id, input, output, task: LUME, see `readers.read_items`.

    All but LUME's may have the columns task (Task1 to Task3), kind (sc or qa), document, person (a name) and field
    (what of the person the answer tells). The answer of a row with a field is the bare value, a birth date as
    1984-12-31: then it is found in other forms as well. Rows with a person or a field belong to Task 2, others to
    Task 1 unless they name a task. A row belongs to the document that it names, else to its person's (named by a hash,
    so that a page can show it while names are masked), else to one of its own: the file's name and the row's number.

    A bad row, two persons in one document, two values of one field and an id that stands twice are InputErrors that
    name the line.
    """
    reader, names = _Reader(), _names(files)
    found = {split: [item for number, path in enumerate(paths) for item in reader.read(path, names[split, number])]
             for split, paths in files.items()}
    for split, items in found.items():
        (first, count), = Counter(item.id for item in items).most_common(1) or [("", 0)]
        if count > 1:
            raise InputError(f"{', '.join(map(str, files[split]))}: id", got=f"{first} {count} times",
                             expected="each id once")
    return found


def whole_texts(items: Iterable[Item]) -> list[Item]:
    """One text per document, as a continuation: the document's first one, or, where it has none, its first item."""
    first: dict[str, Item] = {}
    for item in items:
        if item.document not in first or (item.kind == SC and first[item.document].kind != SC):
            first[item.document] = item
    return [dataclasses.replace(item, id=f"{item.document}{SC}{item.id[-1]}") for item in first.values()]


def _names(files: Mapping[str, Sequence[str | Path]]) -> dict[tuple[str, int], str]:
    """{(split, number of the file): what its documents are called}: the file's name, with the split before it where
    two files share one."""
    stems = {(split, number): Path(path).stem for split, paths in files.items() for number, path in enumerate(paths)}
    shared = Counter(stems.values())
    return {(split, number): stem if shared[stem] == 1 else f"{split}{number + 1}-{stem}"
            for (split, number), stem in stems.items()}


class _Reader:
    """Makes items of rows, and remembers what may not be said twice."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._people: dict[str, tuple[str, str]] = {}  # document -> (name, where it stands)
        self._values: dict[tuple[str, str], tuple[str, str]] = {}  # (document, field) -> (value, where it stands)

    def read(self, path: str | Path, name: str) -> Iterator[Item]:
        """The items of one file, whose own documents are called `name` and a number."""
        rows = read_rows(path, ())
        columns = rows[0][1].keys()
        if set(LUME_COLUMNS) <= columns:
            yield from read_items(path)
            return
        layout = next((one for one in LAYOUTS if {one.prompt, one.answer} - {""} <= columns), None)
        if layout is None:
            layouts = [*map(list, LAYOUTS), [*LUME_COLUMNS, ""]]
            raise InputError(rows[0][0], got=f"columns {', '.join(map(str, columns))}", expected=" or ".join(
                ", ".join(filter(None, one[:-1])) for one in layouts))
        for number, (place, row) in enumerate(rows, start=1):
            yield self._item(row, place, layout, f"{name}-{number}")

    def _item(self, row: Mapping, place: str, layout: Layout, own: str) -> Item:
        prompt, answer = _texts(row, layout, place)
        kind = _one_of(row, "kind", place, (SC, QA)) or layout.kind
        person, field = _stated(row, "person", place), _field(_stated(row, "field", place), place)
        task = _task(_one_of(row, "task", place, TASKS), bool(person or field), place)
        document = _stated(row, "document", place) or _document_of(person) or own
        if person:
            self._check_person(document, person, place)
        if field:
            self._check_value(document, field, answer, place)
        return Item(self._id(document, kind, place), prompt, answer, task, person, field)

    def _id(self, document: str, kind: str, place: str) -> str:
        number = self._counts[document, kind]
        self._counts[document, kind] += 1
        if number == len(CHARACTERS):
            raise InputError(f"{place}: document", got=f"more than {number} items of {document}",
                             expected="documents with fewer", fix="give its parts documents of their own")
        return f"{document}{kind}{CHARACTERS[number]}"

    def _check_person(self, document: str, person: str, place: str) -> None:
        first, where = self._people.setdefault(document, (person, place))
        if normalised(first) != normalised(person):
            raise InputError(f"{place}: person", got=person, expected=f"{first}, of whom document {document} tells in "
                             f"{where}", fix="give each person documents of their own")

    def _check_value(self, document: str, field: str, answer: str, place: str) -> None:
        """A value that is not looked for would be a leak that nobody finds."""
        first, where = self._values.setdefault((document, field), (answer, place))
        if not occurrences(answer, field, first):
            if where == place:
                raise InputError(f"{place}: answer", got=answer, expected="a value with letters or digits")
            raise InputError(f"{place}: answer", got=answer, expected=f"the {field} of {where}, {first}",
                             fix=f"a second value needs a field of its own, such as {field}_2")


def _texts(row: Mapping, layout: Layout, place: str) -> tuple[str, str]:
    """(prompt, answer) of a row."""
    for column in filter(None, (layout.prompt, layout.answer)):
        if error := field_error(row, column, place):
            raise error
    if layout.answer:
        return row[layout.prompt], row[layout.answer]
    text = row[layout.prompt].strip()
    words = text.split()
    if len(words) < 2:
        raise InputError(f"{place}: {layout.prompt}", got="one word", expected="a text of at least two words")
    rest = text.split(maxsplit=len(words) // 2)[-1]
    return text.removesuffix(rest).rstrip(), rest


def _stated(row: Mapping, column: str, place: str) -> str:
    """Text of a column that may be absent or empty: then ""; a whole number counts as text."""
    value = row.get(column)
    if value is None or value == "":
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if error := field_error(row, column, place):
        raise error
    return " ".join(value.split())


def _one_of(row: Mapping, column: str, place: str, known: Sequence[str]) -> str:
    value = _stated(row, column, place)
    if value and value not in known:
        raise InputError(f"{place}: {column}", got=value, expected=f"one of {', '.join(known)}, or nothing")
    return value


def _field(written: str, place: str) -> str:
    """The known field that is meant, however it is spelled; else what is written."""
    if written.lower() == NAME:
        raise InputError(f"{place}: field", got=written, expected="what the answer tells beside the name",
                         fix="a name stands in the column person")
    spelled = {_bare(word): key for key, label in FIELDS.items() for word in (key, label)}
    return spelled.get(_bare(written), written)


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _task(named: str, personal: bool, place: str) -> str:
    if personal and named not in ("", PERSONS_TASK):
        raise InputError(f"{place}: task", got=named, expected=f"{PERSONS_TASK}, or none, for a row about a person")
    return PERSONS_TASK if personal else named or TASKS[0]


def _document_of(person: str) -> str:
    key = hashlib.sha256(normalised(person).encode()).hexdigest()[:HASH_LENGTH]
    return f"{PERSON}{key}" if person else ""
