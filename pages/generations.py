"""What the models of a run write, side by side: the recorded answers worst first, and prompts answered now."""

import streamlit as st

from pages import _frame, _generations_live, _generations_recorded

VIEWS = {"recorded": "Recorded answers", "live": "Ask the models"}

run = _frame.selected_run()
# Asking loads models on the device, which a dashboard that only looks must not do.
view = "recorded" if not _frame.may_change(run) else st.segmented_control(
    "View", VIEWS, default="recorded", required=True, key="generations_view", bind="query-params",
    format_func=VIEWS.get, label_visibility="collapsed")
if view == "live":
    _generations_live.show(run)
else:
    _frame.part(_generations_recorded.show, run)
