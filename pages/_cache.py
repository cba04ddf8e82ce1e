"""Tables kept between reruns, for as long as no file of their run has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import streamlit as st

from unlearn_core.store import Run

Stamp = tuple[tuple[str, int, int], ...]


def table(make: Callable[[Run], pd.DataFrame], run: Run) -> pd.DataFrame:
    """`make(run)`, computed again only when a result or log of the run has another time or size."""
    return _table(make.__name__, make, str(run.path.resolve()), _stamp(run.path))


@st.cache_data(max_entries=64, show_spinner=False)
def _table(name: str, _make: Callable[[Run], pd.DataFrame], path: str, stamp: Stamp) -> pd.DataFrame:
    return _make(Run(Path(path)))


def _stamp(folder: Path) -> Stamp:
    """(path, modification time in ns, size) of each JSON file and log in a run folder."""
    found = []
    for path in sorted(folder.rglob("*.json*")):
        try:
            stat = path.stat()
        except OSError:  # a running engine may have moved it
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)
