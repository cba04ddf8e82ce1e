"""Does the forgetting hold: a verdict with its gates, attacks beside their controls, and what may bring it back."""

import streamlit as st

from pages import _frame, _robust_controls, _robust_probes, _robust_reading, _robust_verdict

SECTIONS = {"verdict": ("Verdict", _robust_verdict.show), "controls": ("Controls", _robust_controls.show),
            "probes": ("Probes", _robust_probes.show), "depth": ("Depth", _robust_controls.show_depth)}

run = _frame.selected_run()
section = st.segmented_control("Section", list(SECTIONS), default="verdict", required=True, key="robust_section",
                               bind="query-params", format_func=lambda name: SECTIONS[name][0],
                               label_visibility="collapsed")
with _frame.bad_input_shown():
    _frame.part(SECTIONS[section][1], run)
    _robust_reading.explain(section)
