"""How both unlearning runs went: loss terms, NLL, NPO's brake, learning rate, and the scores over the checkpoints."""

import streamlit as st

from pages import _frame, _loss_npo_alone, _loss_steps, _loss_trajectory

# One is drawn at a time: a long training in all of them would keep the reader waiting.
SECTIONS = {"terms": "Loss terms", "nll": "NLL", "optimizer": "Optimizer", "npo": "NPO alone",
            "scores": "Scores over checkpoints", "base": "Base"}

run = _frame.trained_run("are no losses to show")
section = st.segmented_control("Section", list(SECTIONS), default="terms", required=True, key="loss_section",
                               bind="query-params", format_func=SECTIONS.get, label_visibility="collapsed")
with _frame.bad_input_shown():
    if section == "scores":
        _loss_trajectory.show(run)
    elif section == "npo":
        _loss_npo_alone.show(run)
    elif section == "base":
        _frame.part(_loss_steps.show_base, run)
    else:
        _frame.part(_loss_steps.show, run, section)
