"""Section of the method page: every score, word, setting and gate in a list, and the one that the address asks for."""

from __future__ import annotations

import re

import streamlit as st

from analysis import glossary
from analysis.glossary import Entry
from pages import _explained_parts, _widgets
from unlearn_core.store import Run

TERM = "term"  # in the address: key of the entry to open
CHOICE = "method_term"
FACTS = {"ideal": "Ideal", "direction": "Direction", "chance": "Chance", "default": "Default", "limits": "Limits",
         "source": "Source"}
PAPER = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def show(run: Run | None) -> None:
    """The opened entry, the filters, the list."""
    entry = _chosen()
    if entry is not None:
        with st.container(border=True):
            _open(entry)
    with _widgets.row():
        text = st.text_input("Search", key="method_search", width=260, placeholder="words in name or definition",
                             **_explained_parts.BOUND)
        kinds = st.pills("Kind", list(glossary.KINDS), selection_mode="multi", key="method_kinds",
                         format_func=glossary.KINDS.get, **_explained_parts.BOUND)
    found = glossary.search(text, kinds)
    st.caption(f"{len(found)} of {len(glossary.entries())} entries.")
    for kind, title in glossary.KINDS.items():
        own = [entry for entry in found if entry.kind == kind]
        if own:
            st.subheader(title)
            st.markdown("\n".join(f"- **{entry.name}**: {entry.text}{_in_short(entry)}" for entry in own))


def _chosen() -> Entry | None:
    """The entry of ?term, to change by a choice; one that there is not is named."""
    wanted = st.query_params.get(TERM)
    entry = None if wanted is None else glossary.find(wanted)
    if wanted is not None and entry is None:
        st.warning(f"The glossary has no term {_widgets.plain(wanted)}.", icon=":material/warning:")
    st.session_state[CHOICE] = entry and entry.key
    names = {key: entry.name for key, entry in glossary.entries().items()}
    st.selectbox("Open a term", list(names), index=None, key=CHOICE, format_func=names.get, width=420,
                 placeholder="type to find one", on_change=_follow)
    return entry


def _follow() -> None:
    chosen = st.session_state[CHOICE]
    if chosen is None:
        st.query_params.pop(TERM, None)
    else:
        st.query_params[TERM] = chosen


def _open(entry: Entry) -> None:
    st.subheader(entry.name)
    st.markdown(entry.text)
    if entry.formula:
        _explained_parts.formula(entry.formula)
    st.markdown("\n".join(f"- {name}: {_linked(value)}" for field, name in FACTS.items()
                          if (value := getattr(entry, field))))
    pages = ", ".join(f"[{page}]({_widgets.address(glossary.path(page))})" for page in entry.pages)
    st.caption(f"Where it appears: {pages}. In addresses: {TERM}={entry.key}")


def _in_short(entry: Entry) -> str:
    said = [f"{name} {value}" for name in ("ideal", "default") if (value := getattr(entry, name))]
    return f" *({_widgets.plain('; '.join([*said, *filter(None, [entry.direction])]))})*" if said else ""


def _linked(text: str) -> str:
    """A fact with its papers as links."""
    return PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)
