"""The tables of a report as CSV files and all that it says as one JSON file, unrounded."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.report_parts import Chart, Findings, Headline, Missing, Note, Says, Section, Table
from unlearn_core.errors import InputError
from unlearn_core.files import replacing_dir

if TYPE_CHECKING:
    from analysis.report import Report

SCHEMA_VERSION = 1
NUMBERS = "report.json"


def tables(report: Report) -> dict[str, pd.DataFrame]:
    """{section-table: rows} of every table, those behind charts included."""
    return {f"{section.key}-{table.key}": table.frame for section in report.sections for table in _tables(section)}


def _tables(section: Section) -> Iterator[Table]:
    for part in section.parts:
        if isinstance(part, Table | Chart):
            yield part.table if isinstance(part, Chart) else part


def as_json(report: Report) -> dict:
    """Everything that a report says; keys are stable within `schema_version`. What is missing is null."""
    return {"schema_version": SCHEMA_VERSION, "run": report.run, "title": report.title, "made": report.made,
            "masked": report.masked, "sections": {section.key: _section(section) for section in report.sections}}


def _section(section: Section) -> dict:
    found = {"title": section.title, "findings": [], "sentences": [], "missing": [], "tables": {}}
    for part in section.parts:
        match part:
            case Findings():
                found["findings"] += [{"key": one.key, "title": one.title, "text": one.text, "numbers": one.numbers,
                                       "todo": one.todo} for one in part.found]
            case Headline() | Note():
                found["sentences"].append(part.text)
            case Says():
                found["sentences"] += part.lines
            case Missing():
                found["missing"].append({"what": part.what, "command": part.command})
    for table in _tables(section):
        found["tables"][table.key] = {"caption": table.caption, "rows": table.frame.to_dict("records")}
    return _plain(found)


def _plain(value: object) -> object:
    """JSON: no NaN, no numpy."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


# ---- as files --------------------------------------------------------------------------------------------------

def files(report: Report) -> dict[str, str]:
    """{name: contents}: a CSV file per table, and all numbers as `NUMBERS`."""
    csv = {f"{name}.csv": frame.to_csv(index=False) for name, frame in tables(report).items()}
    return csv | {NUMBERS: as_text(report)}


def as_text(report: Report) -> str:
    """`as_json` as text."""
    return json.dumps(as_json(report), indent=1, ensure_ascii=False, allow_nan=False)


def as_zip(report: Report) -> bytes:
    """`files` in one archive."""
    with io.BytesIO() as out:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, contents in files(report).items():
                archive.writestr(name, contents)
        return out.getvalue()


def refuse_taken(path: Path | None, name: str) -> None:
    """An InputError where something stands at the path that an option names."""
    if path is not None and path.exists():
        raise InputError(f"{name} {path}", got="something that exists", expected="a new place")


def write(report: Report, folder: Path) -> None:
    """`files` into a new folder, whole or not at all; an InputError where it exists."""
    refuse_taken(folder, "--data")
    with replacing_dir(folder) as made:
        for name, contents in files(report).items():
            (made / name).write_text(contents, encoding="utf-8")
