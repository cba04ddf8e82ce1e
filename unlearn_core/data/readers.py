"""Reads and writes items, attack documents and MMLU questions; every bad row becomes an error that names its line."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from unlearn_core.data import layout
from unlearn_core.data.items import LETTERS, Item, Question, document_and_kind
from unlearn_core.errors import InputError
from unlearn_core.files import replacing, write_rows
from unlearn_core.vocabulary import TASKS

FIELDS = ("id", "input", "output", "task")

# One row of a file with its place, or what is wrong at that place.
Rows = Iterator[tuple[str, dict | InputError]]


# ---- items ---------------------------------------------------------------------------------------------------

def read_items(path: str | Path, tasks: tuple[str, ...] = TASKS) -> list[Item]:
    """Items of a file, in its order: JSON lines, a JSON list, column-wise JSON, Parquet or CSV with id, input, output,
    task.

    The first bad row is an InputError; `scan_items` finds them all.
    """
    return _all_or_error(path, *scan_items(path, tasks))


def scan_items(path: str | Path, tasks: tuple[str, ...] = TASKS, name: str = "") -> tuple[list[Item], list[InputError]]:
    """The good items of a file and one error for each thing that is wrong in it, both in file order.

    Errors call the file `name`, where it is known to its owner by another one than its path.
    """
    items, errors, seen = [], [], {}
    for place, row in _rows(path, FIELDS, name):
        found = [row] if isinstance(row, InputError) else list(_item_errors(row, place, tasks))
        if not found and row["id"] in seen:
            found = [InputError(f"{place}: duplicate id", got=row["id"], expected="each id once",
                                fix=f"it stands first in {seen[row['id']]}")]
        if found:
            errors.extend(found)
        else:
            seen[row["id"]] = place
            stated = [row[name] if isinstance(row.get(name), str) else "" for name in ("person", "field")]
            items.append(Item(row["id"], row["input"], row["output"], row["task"], *stated))
    return items, errors


def _item_errors(row: dict, place: str, tasks: tuple[str, ...]) -> Iterator[InputError]:
    wrong = {name: error for name in FIELDS if (error := field_error(row, name, place))}
    yield from wrong.values()
    if "id" not in wrong and document_and_kind(row["id"]) is None:
        yield InputError(f"{place}: id", got=row["id"], expected="a document id, then sc or qa, then one character",
                         fix="the official rule drops the last character and reads sc or qa before it")
    if "task" not in wrong and row["task"] not in tasks:
        yield InputError(f"{place}: task", got=row["task"], expected=f"one of {', '.join(tasks)}")


def field_error(row: dict, name: str, place: str) -> InputError | None:
    """What is wrong with a field that must hold text, or None."""
    where = f"{place}: field {name}"
    if name not in row:
        return InputError(where, got=f"only {', '.join(map(str, row)) or 'no fields'}", expected=f"a field {name}")
    value = row[name]
    if not isinstance(value, str):
        return InputError(where, got=value if value is not None else "no value", expected="text")
    if not value.strip():
        return InputError(where, got="empty text", expected="text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return InputError(where, got=ascii(value), expected="text without half surrogate pairs")
    return None


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as JSON lines with LUME's fields, whole or not at all."""
    write_rows(path, ({"id": i.id, "input": i.prompt, "output": i.answer, "task": i.task, **i.stated} for i in items))


# ---- documents of the attack ---------------------------------------------------------------------------------

def read_documents(path: str | Path) -> list[str]:
    """Texts of a `member.jsonl` or `nonmember.jsonl`: the field `document` of each row."""
    return _all_or_error(path, *scan_documents(path))


def scan_documents(path: str | Path) -> tuple[list[str], list[InputError]]:
    """The good texts of a file and one error for each bad row."""
    texts, errors = [], []
    for place, row in _rows(path, ("document",)):
        error = row if isinstance(row, InputError) else field_error(row, "document", place)
        if error:
            errors.append(error)
        else:
            texts.append(row["document"])
    return texts, errors


# ---- rows of any format --------------------------------------------------------------------------------------

def read_rows(path: str | Path, columns: tuple[str, ...]) -> list[tuple[str, dict]]:
    """(file and line, row) for each row of a file, with at least these columns; unlike a log, it must be whole."""
    rows = []
    for place, row in _rows(path, columns):
        if isinstance(row, InputError):
            raise row
        _require_columns(row, place, columns)
        rows.append((place, row))
    return rows


def _rows(path: str | Path, columns: tuple[str, ...], name: str = "") -> Rows:
    """(place, row) for each row of a file; a file that cannot be read as a whole gives one error.

    `columns` must all be there where the format has columns, so a missing one is told once and not per row.
    """
    name, empty = name or str(path), True
    try:
        path = layout.local(path)
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            rows = _parquet_rows(path, name, columns)
        elif suffix == ".csv":
            rows = _csv_rows(_text(path, name), name, columns)
        elif suffix in layout.SUFFIXES:
            rows = _json_rows(_bytes(path, name), name, columns)
        else:
            raise InputError(name, got=f"a file ending in {suffix or 'nothing'}",
                             expected=f"one of {', '.join(layout.SUFFIXES)}")
        for place, row in rows:
            empty = False
            yield place, row
        if empty:
            yield name, InputError(name, got="no rows", expected=f"rows with {', '.join(columns) or 'texts'}")
    except InputError as error:
        yield name, error


def _json_rows(raw: bytes, name: str, columns: tuple[str, ...]) -> Rows:
    """JSON lines, a list of objects, or a column-wise object ({"id": {"0": ...}, ...}) whatever the file is called."""
    try:
        whole = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # more than one line, or broken: the lines tell
        whole = None
    if isinstance(whole, dict) and _is_column_wise(whole):
        yield from _column_rows(whole, name, columns)
        return
    if isinstance(whole, list):
        for number, row in enumerate(whole, start=1):
            yield f"{name}, row {number}", _object(row, f"{name}, row {number}")
        return
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            place = f"{name}, line {number}"
            yield place, _json_object(line, place)


def _is_column_wise(whole: dict) -> bool:
    """Whether an object holds columns: a row holds texts, and may hold lists beside them."""
    kinds = set(map(type, whole.values()))
    return bool(kinds & {dict, list}) and str not in kinds


def _json_object(line: bytes, place: str) -> dict | InputError:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return InputError(place, got=f"byte {line[error.start]:#x}", expected="UTF-8", fix="convert the file to UTF-8")
    except (ValueError, RecursionError) as error:
        return InputError(place, got=f"broken JSON ({error})", expected="one whole JSON object per line")
    return _object(row, place)


def _object(row: object, place: str) -> dict | InputError:
    return row if isinstance(row, dict) else InputError(place, got=row, expected="a JSON object")


def _column_rows(columns: dict, name: str, wanted: tuple[str, ...]) -> Rows:
    _require_columns(columns, name, wanted)
    cells = {c: dict(enumerate(v)) if isinstance(v, list) else v for c, v in columns.items()}
    for column, values in cells.items():
        if not isinstance(values, dict):
            raise InputError(f"{name}: column {column}", got=values, expected="an object or a list of cells")
    keys = dict.fromkeys(key for values in cells.values() for key in values)
    for number, key in enumerate(keys, start=1):
        yield f"{name}, row {number}", {column: values[key] for column, values in cells.items() if key in values}


def _csv_rows(text: str, name: str, columns: tuple[str, ...]) -> Rows:
    header = None
    for place, cells in _csv_cells(text, name):
        if header is None:
            header = cells
            _require_columns(header, name, columns)
        elif len(cells) == len(header):
            yield place, dict(zip(header, cells, strict=True))
        else:
            yield place, InputError(place, got=f"{len(cells)} cells", expected=f"{len(header)} as in the header")


def _csv_cells(text: str, name: str) -> Iterator[tuple[str, list[str]]]:
    """(file and line, cells) of each row that is not blank; a row over several lines is named by its first."""
    lines, start = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        for cells in lines:
            place, start = f"{name}, line {start}", lines.line_num + 1
            if cells:
                yield place, cells
    except csv.Error as error:
        raise InputError(f"{name}, line {start}", got=f"broken CSV ({error})",
                         expected="comma-separated values") from None


def _parquet_rows(path: Path, name: str, columns: tuple[str, ...]) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
        _require_columns(table.column_names, name, columns)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(name, got=f"no readable Parquet ({error})", expected="a Parquet file") from None
    for number, row in enumerate(rows, start=1):
        yield f"{name}, row {number}", row


def _require_columns(found: Iterable[str], name: str, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{name}: missing field {', '.join(missing)}", got=f"columns {', '.join(found)}",
                         expected=f"columns {', '.join(columns)}")


def _bytes(path: Path, name: str) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(name, got=error.strerror or str(error), expected="a readable file") from None
    if not raw.strip():
        raise InputError(name, got="an empty file", expected="at least one row")
    return raw


def _text(path: Path, name: str) -> str:
    raw = _bytes(path, name)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}", got=f"byte {raw[error.start]:#x}", expected="UTF-8",
                         fix="convert the file to UTF-8") from None


def _all_or_error(path: str | Path, found: list | tuple, errors: list[InputError]) -> list | tuple:
    """What was found, or the first error and how to see the others."""
    if errors:
        known = Path(path).exists()  # the check finds no more in a file that is not there
        see_all = f"see all problems with: python -m unlearn_core data check {shlex.quote(str(path))}"
        raise InputError(str(errors[0]), fix=see_all if known else "")
    return found


# ---- MMLU ----------------------------------------------------------------------------------------------------

def read_mmlu(folder: str | Path) -> tuple[list[Question], list[Question]]:
    """(dev, test) questions of `folder`/dev/*_dev.csv and test/*_test.csv, by subject.

    The files have no header: question, four options, letter of the right one. A subject without dev file is an
    error, since its solved examples come from there.
    """
    dev, test, errors = scan_mmlu(folder)
    return _all_or_error(folder, (dev, test), errors)


def scan_mmlu(folder: str | Path) -> tuple[list[Question], list[Question], list[InputError]]:
    """The good questions (dev, test) and one error for each bad line."""
    folder, errors, found = layout.local(folder), [], {}
    for part in ("dev", "test"):
        files = {path.name.removesuffix(f"_{part}.csv"): path for path in (folder / part).glob(f"*_{part}.csv")}
        found[part] = {subject: _scan_subject(subject, files[subject], errors) for subject in sorted(files)}
        if not files:
            errors.append(InputError(f"{folder / part}", got=f"no *_{part}.csv", expected="MMLU's CSV files"))
    for subject in found["test"]:
        if found["dev"] and subject not in found["dev"]:
            errors.append(InputError(f"{folder / 'dev' / f'{subject}_dev.csv'}", got="no such file",
                                     expected="solved examples for each subject of test/"))
    dev, test = (list(chain.from_iterable(found[part].values())) for part in ("dev", "test"))
    return dev, test, errors


def _scan_subject(subject: str, path: Path, errors: list[InputError]) -> list[Question]:
    questions = []
    try:
        for place, cells in _csv_cells(_text(path, str(path)), str(path)):
            problem = _question_problem(cells)
            if problem:
                errors.append(InputError(place, got=problem, expected="question, four options, answer A-D"))
            else:
                questions.append(Question(subject, cells[0], tuple(cells[1:5]), LETTERS.index(cells[5])))
    except InputError as error:
        errors.append(error)
    return questions


def _question_problem(cells: list[str]) -> str:
    if len(cells) != 6:
        return f"{len(cells)} columns"
    if len(cells[5]) != 1 or cells[5] not in LETTERS:
        return f"answer {cells[5]!r}"
    return "an empty cell" if any(not cell.strip() for cell in cells) else ""


def write_mmlu(folder: Path, dev: Iterable[Question], test: Iterable[Question]) -> None:
    """Write questions in MMLU's CSV form under `folder`, one file per subject and part."""
    for part, questions in (("dev", dev), ("test", test)):
        by_subject: dict[str, list[Question]] = {}
        for question in questions:
            by_subject.setdefault(question.subject, []).append(question)
        (folder / part).mkdir(parents=True, exist_ok=True)
        for subject, rows in by_subject.items():
            with replacing(folder / part / f"{subject}_{part}.csv") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    [q.question, *q.options, LETTERS[q.correct]] for q in rows)
