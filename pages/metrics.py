"""What the scores say and what they miss: the official view with intervals, models compared, ROUGE, MIA, damage."""

import streamlit as st

from pages import (
    _frame,
    _measures_attack,
    _measures_collapse,
    _measures_compare,
    _measures_memory,
    _measures_quiz,
    _measures_reading,
    _measures_rouge,
    _measures_scores,
)

SECTIONS = {"scores": ("Scores", _measures_scores.show), "compare": ("Compare", _measures_compare.show),
            "attack": ("Attack", _measures_attack.show), "rouge": ("ROUGE", _measures_rouge.show),
            "memory": ("Memory", _measures_memory.show), "knowledge": ("Knowledge", _measures_quiz.show),
            "collapse": ("Collapse", _measures_collapse.show)}

run = _frame.selected_run()
section = st.segmented_control("Section", list(SECTIONS), default="scores", required=True, key="metrics_section",
                               bind="query-params", format_func=lambda name: SECTIONS[name][0],
                               label_visibility="collapsed")
with _frame.bad_input_shown():
    SECTIONS[section][1](run)
    _measures_reading.explain(section)
