"""Where, in which directions and how concentrated the adapters of a run change the weights, matrix by matrix."""

import streamlit as st

from pages import _weights_ablation, _weights_direction, _weights_matrix, _weights_parts, _weights_where, _widgets

SECTIONS = {"where": "Where", "direction": "Direction", "spectrum": "Spectrum", "distribution": "Distribution",
            "ablation": "Ablation"}

run = _widgets.selected_run()
section = st.segmented_control("Section", list(SECTIONS), default="where", required=True, key="weights_section",
                               bind="query-params", format_func=SECTIONS.get, label_visibility="collapsed")
with _widgets.bad_input_shown():
    measured = None if section == "ablation" else _weights_parts.measured(run)
    if section == "ablation":
        _widgets.part(_weights_ablation.show, run)
    elif measured is not None:
        types = _weights_parts.types(measured)
        if not types:
            st.info("Choose a module type.", icon=":material/filter_alt:")
        elif section == "where":
            _weights_where.show(run, measured, types)
        elif section == "direction":
            _weights_direction.show(run, measured, types)
        elif section == "spectrum":
            _widgets.part(_weights_matrix.show_spectrum, run, measured, types)
        else:
            _widgets.part(_weights_matrix.show_distribution, run, measured, types)
    _weights_parts.explain(section)
