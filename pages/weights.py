"""Where, in which directions and how concentrated the adapters of a run change the weights, matrix by matrix."""

import streamlit as st

from pages import _frame, _weights_ablation, _weights_direction, _weights_matrix, _weights_parts, _weights_where
from unlearn_core.store import Run

SECTIONS = {"where": "Where", "direction": "Direction", "spectrum": "Spectrum", "distribution": "Distribution",
            "ablation": "Ablation"}

SHOW = {"where": _weights_where.show, "direction": _weights_direction.show, "spectrum": _weights_matrix.show_spectrum,
        "distribution": _weights_matrix.show_distribution}


def show(run: Run) -> None:
    """The chosen section."""
    section = st.segmented_control("Section", list(SECTIONS), default="where", required=True, key="weights_section",
                                   bind="query-params", format_func=SECTIONS.get, label_visibility="collapsed")
    if section == "ablation":
        _weights_ablation.show(run)
    elif (measured := _weights_parts.measured(run)) is not None:
        types = _weights_parts.types(measured)
        if types:
            SHOW[section](run, measured, types)
        else:
            st.info("Choose a module type.", icon=":material/filter_alt:")
    _weights_parts.explain(section)


_frame.part(show, _frame.trained_run("are no adapters whose changes could be shown"))
