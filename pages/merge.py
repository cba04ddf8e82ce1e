"""Which merge of the two adapters: a preview from their signs, and the scores of methods, densities and mixes."""

import streamlit as st

from pages import _frame, _merging_balance, _merging_mix, _merging_parts, _merging_preview, _merging_scores

SECTIONS = {"preview": ("Preview", _merging_preview.show), "methods": ("Methods", _merging_scores.show_methods),
            "density": ("Density", _merging_scores.show_density), "mix": ("Path and surface", _merging_mix.show),
            "balance": ("Balance", _merging_balance.show)}

run = _frame.trained_run("are no two adapters to merge")
section = st.segmented_control("Section", list(SECTIONS), default="preview", required=True,
                               key=_merging_parts.SECTION, bind="query-params",
                               format_func=lambda name: SECTIONS[name][0], label_visibility="collapsed")
with _frame.bad_input_shown():
    SECTIONS[section][1](run)
    _merging_parts.explain(section)
