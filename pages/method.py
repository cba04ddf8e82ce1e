"""The method on the chosen run's own numbers, toys of NPO's brake and of TIES, worked scores, and the glossary."""

import streamlit as st

from pages import (
    _explained_brake,
    _explained_glossary,
    _explained_loss,
    _explained_parts,
    _explained_scores,
    _explained_ties,
    _frame,
)

SECTION = "method_section"  # key of the section, also in the address
SECTIONS = {"loss": ("The loss", _explained_loss.show), "brake": ("NPO's brake", _explained_brake.show),
            "ties": ("TIES", _explained_ties.show), "scores": ("Scores", _explained_scores.show),
            "glossary": ("Glossary", _explained_glossary.show)}


def choose_section() -> str:
    """The section that the address names; a link to a term leads to the glossary."""
    # `bind="query-params"` would not let a term decide.
    wanted = st.query_params.get(SECTION)
    if wanted not in SECTIONS:
        wanted = "glossary" if _explained_glossary.TERM in st.query_params else "loss"
    st.session_state[SECTION] = st.query_params[SECTION] = wanted
    return st.segmented_control("Section", list(SECTIONS), required=True, key=SECTION, label_visibility="collapsed",
                                format_func=lambda name: SECTIONS[name][0],
                                on_change=lambda: st.query_params.update({SECTION: st.session_state[SECTION]}))


_frame.frame()
run = _explained_parts.chosen_run()
_frame.part(SECTIONS[choose_section()][1], run)
