"""Tables kept between reruns, for as long as no file of their run has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pandas as pd
import streamlit as st

from unlearn_core.store import Run, Store

T = TypeVar("T")
Stamp = tuple[tuple[str, int, int], ...]


def table(make: Callable[[Run], pd.DataFrame], run: Run) -> pd.DataFrame:
    """`make(run)`, computed again only when a result or log of the run has another time or size."""
    return _table(f"{make.__module__}.{make.__qualname__}", make, str(run.path.resolve()), _stamp(run.result_files()))


@st.cache_data(max_entries=64, show_spinner=False)
def _table(name: str, _make: Callable[[Run], pd.DataFrame], path: str, stamp: Stamp) -> pd.DataFrame:
    return _make(Run(Path(path)))


def kept(run: Run, key: object, make: Callable[[], T], files: Iterable[Path] = ()) -> T:
    """`make()`, again only when a result of the run, one of these further `files` or `repr(key)` has changed.

    One for all: nobody may change it.
    """
    return _kept(str(run.path.resolve()), _stamp([*run.result_files(), *files]), repr(key), make)


@st.cache_resource(max_entries=128, show_spinner=False)
def _kept(path: str, stamp: Stamp, key: str, _make: Callable[[], T]) -> T:
    return _make()


def listing(store: Store) -> tuple[list[Run], list[str]]:
    """`store.scan()`, done again only when a run has come or gone, or its manifest or recipe has changed."""
    return _listing(store, _stamp(file for run in store.folders() for file in run.identity_files()))


@st.cache_data(max_entries=4, show_spinner=False, hash_funcs={Store: lambda store: (store.root, store.examples)})
def _listing(store: Store, stamp: Stamp) -> tuple[list[Run], list[str]]:
    return store.scan()


def _stamp(paths: Iterable[Path]) -> Stamp:
    """(path, modification time in ns, size) of each file that is there."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:  # a running engine may have moved it
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)
