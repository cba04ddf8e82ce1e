"""What a report is made of, however it is written: sections of sentences, tables and charts. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme
from analysis.report_values import column_label

if TYPE_CHECKING:
    from analysis.findings_parts import Finding

DIGITS = 5  # that a drawn number keeps
Cover = Callable[[str], str]


# ---- parts -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Headline:
    """The one sentence above all; `state` passed, failed or neither."""

    text: str
    state: str = ""


@dataclass(frozen=True)
class Heading:
    """The title of what follows within a section."""

    text: str


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Says:
    """Sentences that belong together; **stars** make words stand out."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What `findings.findings` says about a section."""

    found: tuple[Finding, ...]


@dataclass(frozen=True)
class Missing:
    """Something that was not measured, and the commands that measure it, one a line ("": none does)."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Command:
    """Something that a reader may do, and how."""

    what: str
    command: str


@dataclass(frozen=True)
class Code:
    """A text as it is, folded up under its label."""

    label: str
    text: str


@dataclass(frozen=True)
class Table:
    """`frame` is what the data files hold, with its own names of columns; `shown` what stands in the text, all of
    `frame` where there is none. `key` is the table's name within its section."""

    key: str
    caption: str
    frame: pd.DataFrame
    shown: pd.DataFrame | None = None

    def reading(self) -> pd.DataFrame:
        """What a reader sees: columns and models by their labels."""
        frame = self.frame if self.shown is None else self.shown
        if "model" in frame:
            frame = frame.assign(model=frame["model"].map(theme.short_label))
        return frame.rename(columns=column_label)


@dataclass(frozen=True)
class Chart:
    """A picture (`drawn`) under the title that says what to look for, with its words and the table behind it."""

    title: str
    drawing: dict
    table: Table
    caption: str
    alt: str


Part = Headline | Heading | Note | Says | Findings | Missing | Command | Code | Table | Chart


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    parts: tuple[Part, ...]


# ---- how parts are made ----------------------------------------------------------------------------------------

def table(key: str, caption: str, frame: pd.DataFrame, columns: Mapping[str, str] | None = None) -> Table:
    """A table of which a reader sees these columns ({name: label}), or all of them."""
    return Table(key, caption, frame, None if columns is None else labelled(frame, columns))


def labelled(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """These columns of a table under these names; values of `model` by their labels."""
    shown = frame[list(columns)]
    if "model" in shown:
        shown = shown.assign(model=shown["model"].map(theme.short_label))
    return shown.rename(columns=dict(columns))


def rows(key: str, caption: str, columns: Iterable[str], values: Iterable[Iterable]) -> Table:
    """A table from rows of values."""
    return Table(key, caption, pd.DataFrame(list(map(tuple, values)), columns=list(columns)))


def chart(key: str, title: str, figure: go.Figure, frame: pd.DataFrame, *, caption: str, alt: str,
          columns: Mapping[str, str] | None = None) -> Chart:
    """A chart with the table behind it, of which a reader sees these columns."""
    return Chart(title, drawn(figure), table(key, f"Table behind: {title}", frame, columns), caption, alt)


def drawn(figure: go.Figure) -> dict:
    """A figure as JSON, its numbers rounded to what can be seen; axes make room for their labels in any font."""
    found = _rounded(figure.to_plotly_json())
    for name, axis in found["layout"].items():
        if name.startswith(("xaxis", "yaxis")):
            axis["automargin"] = True
    return found


def _rounded(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return None if value is pd.NA else value


def without_commands(part: Part) -> Part:
    """A part of a report on a recording, on which no command measures anything."""
    match part:
        case Missing():
            return Missing(part.what)
        case Findings():
            return Findings(tuple(replace(one, todo="") for one in part.found))
    return part


def covered(value: object, cover: Cover) -> object:
    """A part, or anything in it, with every text covered; names of columns and keys stay."""
    if isinstance(value, str):
        return cover(value)
    if isinstance(value, pd.DataFrame):
        texts = value.select_dtypes(exclude="number").columns
        return value.assign(**{name: value[name].map(lambda cell: covered(cell, cover)) for name in texts})
    if isinstance(value, Mapping):
        return {key: covered(one, cover) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(covered(one, cover) for one in value)
    if is_dataclass(value):
        return replace(value, **{field.name: covered(getattr(value, field.name), cover) for field in fields(value)
                                 if field.name != "key"})
    return value
