"""What every page shows alike: charts and tables with caption, alt text, CSV and definitions; text that is not ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis import glossary

RUN_KEY = "run"  # also the name of the query parameter
MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")  # ASCII punctuation: all that Markdown can give a meaning
AUTOLINK = re.compile(r"(?<=[\w.+-]@)(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)")  # where what becomes a link can be broken
WORD_JOINER = "\u2060"  # has no width
NOT_MEASURED = "not measured"
GAP_WIDTH = 108  # pixels that NOT_MEASURED takes in a table


def plain(text: object) -> str:
    """Text that is not our own, on one line, so that Markdown shows it as it is, links nowhere and fetches nothing.

    Signs are escaped. Addresses would become links all the same, so an invisible character breaks them.
    """
    return MARKDOWN.sub(r"\\\1", AUTOLINK.sub(WORD_JOINER, " ".join(str(text).split())))


# ---- charts and tables -----------------------------------------------------------------------------------------

def chart(figure: go.Figure, table: pd.DataFrame, *, key: str, title: str, caption: str, alt: str,
          on_select: Callable[[], None] | None = None, terms: Sequence[str] = ()) -> None:
    """A figure under the title that says what to look for, its caption, the table behind it as CSV, and definitions of
    the scores in that table and of further `terms`, by their keys in the glossary.

    `on_select`: called after a click on a point, which `st.session_state` then has under `<key>_chart`.
    """
    st.subheader(title)
    selection = {"on_select": on_select, "selection_mode": "points"} if on_select else {}
    st.plotly_chart(figure, width="stretch", key=f"{key}_chart", alt=alt, config={"displaylogo": False}, **selection)
    st.caption(caption)
    definitions(*glossary.metrics_in(table), *terms)
    with folded("Table behind this chart", key=f"{key}_table") as opened:
        if opened.open:
            _frame(table, alt=f"Table behind: {title}")
            _download(table, key)


def folded(label: str, *, key: str, unfold: bool = False) -> DeltaGenerator:
    """An expander whose contents the page makes only while `.open`, since what is folded up costs time all the same.

    `unfold`: open it in this rerun, whatever the reader did with it.
    """
    if unfold:
        st.session_state[key] = True
    return st.expander(label, key=key, on_change="rerun")


def show_table(table: pd.DataFrame, *, key: str, alt: str, columns: dict | None = None,
               order: tuple[str, ...] | None = None, terms: Sequence[str] = ()) -> None:
    """A table in which what is missing says so, with a button that downloads all of its columns as CSV, and definitions
    of its scores and of further `terms`."""
    _frame(table, alt=alt, columns=columns, order=order)
    _download(table, key)
    definitions(*glossary.metrics_in(table), *terms)


def _frame(table: pd.DataFrame, *, alt: str, columns: dict | None = None, order: tuple[str, ...] | None = None) -> None:
    st.dataframe(table, width="stretch", hide_index=True, placeholder=NOT_MEASURED, column_config=columns,
                 column_order=order, alt=alt)


def _download(table: pd.DataFrame, key: str) -> None:
    st.download_button("Download CSV", lambda: table.to_csv(index=False), file_name=f"{key}.csv", mime="text/csv",
                       key=f"{key}_csv", icon=":material/download:", on_click="ignore")


def command(lines: str) -> None:
    """Something to type in a terminal, to copy with a click. Without colours, which are too pale on our background."""
    st.code(lines, language=None, wrap_lines=True)


def show_numbers(table: pd.DataFrame, names: list[str], *, key: str, alt: str, terms: Sequence[str] = ()) -> None:
    """A table of numbers of very different sizes, one column per name, its index in front."""
    table = table.set_axis(names, axis=1).rename_axis("quantity").reset_index()
    formats = {name: st.column_config.NumberColumn(format="%.5g") for name in names}
    show_table(table, key=key, alt=alt, columns=formats, terms=terms)


# ---- definitions -----------------------------------------------------------------------------------------------

def address(path: str, **query: str) -> str:
    """A link to a page for Markdown, on the chosen run; it opens in a tab of its own. `path` "" is the Overview."""
    run = st.session_state.get(RUN_KEY)
    return f"{path or './'}?{urlencode(query | ({RUN_KEY: run} if run else {}))}"


def defined(help: str, term: str) -> str:
    """A help text with a link to the definition of a term of the glossary.

    The keyboard reaches no link in a help text, so `definitions` stand nearby.
    """
    return f"{help}. [Definition]({address('method', term=glossary.find(term).key)})"


def definitions(*terms: str) -> None:
    """A line that unfolds to what each of these terms of the glossary is, with a link to all about it."""
    if terms:
        entries = [glossary.find(term) for term in dict.fromkeys(terms)]
        # Not a popover: the keyboard gets into none.
        with st.expander("Definitions", icon=":material/menu_book:", type="compact"):
            st.markdown("\n".join(f"- [{entry.name}]({address('method', term=entry.key)}): {entry.text}"
                                  for entry in entries))


# ---- switches and jobs ----------------------------------------------------------------------------------------

def row() -> DeltaGenerator:
    """A line of switches."""
    return st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
