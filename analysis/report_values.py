"""How a reader sees values of tables: numbers as on the pages, gaps in words, few enough rows. Torch-free."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from unlearn_core.vocabulary import METRICS

NOTHING = "not measured"
MOST_ROWS = 60  # of a table that is written for reading; the data files hold all of them
AS_IT_IS = ("n", "p", "k")  # names of columns that are symbols


def column_label(name: str) -> str:
    """The head of a column: the metric's label, else its name as words."""
    if name in METRICS:
        return METRICS[name].label
    words = str(name).replace("_", " ")
    return words if words in AS_IT_IS else f"{words[:1].upper()}{words[1:]}"


def shortened(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """At most `MOST_ROWS` rows, evenly spaced from the first to the last, and a word about it where rows are left
    out."""
    if len(frame) <= MOST_ROWS:
        return frame, ""
    at = np.linspace(0, len(frame) - 1, MOST_ROWS).round().astype(int)
    return frame.iloc[at], f"{MOST_ROWS} of {len(frame)} rows, evenly spaced; the data files hold all of them."


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Every value as text; what is missing says so. Numbers of a column that are all whole have no decimals."""
    return pd.DataFrame({name: _texts(frame[name]) for name in frame}, index=frame.index)


def is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers, which stand to the right."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _texts(column: pd.Series) -> pd.Series:
    known = column.dropna()
    if is_numeric(column) and bool((known == known.round()).all()):
        return column.map(lambda value: NOTHING if pd.isna(value) else f"{value:.0f}").astype(object)
    return column.map(cell).astype(object)


def cell(value: object) -> str:
    """A value of a table as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or pd.isna(value):
        return NOTHING
    return number(float(value)) if isinstance(value, float | np.floating) else str(value)


def number(value: float) -> str:
    """As on the pages, with three decimals; of small numbers three digits, of large ones no decimals."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.3g}"
