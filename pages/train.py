"""Start a run from a recipe, or watch one: how far it is, its losses as they are logged, memory and log."""

import streamlit as st

from pages import _frame, _train_new, _train_start, _train_watch, _widgets, _work
from pages._train_start import NEW_RUN, VIEW, WATCH
from unlearn_core.errors import InputError
from unlearn_core.store import Run


def _is_live(run: Run | None) -> bool:
    """Whether a process works on the run or waits to; a damaged run has none."""
    try:
        return run is not None and run.status()["state"] in _work.LIVE
    except InputError:
        return False


def _choose_view(run: Run | None) -> str:
    """New run or watch, in the address as ?train_view; where it says nothing, a run that lives is watched."""
    # `bind="query-params"` would forbid the links of other pages to set it.
    wanted = st.query_params.get(VIEW)
    if wanted not in (NEW_RUN, WATCH):
        wanted = WATCH if _is_live(run) else NEW_RUN
    st.session_state[VIEW] = st.query_params[VIEW] = wanted
    return st.segmented_control("View", [NEW_RUN, WATCH], key=VIEW, required=True, label_visibility="collapsed",
                                on_change=lambda: st.query_params.update({VIEW: st.session_state[VIEW]}))


_frame.frame()
name = st.session_state.get(_widgets.RUN_KEY)
with _frame.bad_input_shown():
    run = None if name is None else _frame.store().open(name)
if _frame.read_only():
    st.caption("This dashboard only looks: starting, stopping and changing runs is switched off (LETHE_READ_ONLY).")
    view = WATCH
else:
    _train_start.follow_address()
    view = _choose_view(run)
if view == NEW_RUN:
    if run is None:
        _frame.show_problems(_frame.listing()[1])
    _train_new.show()
elif run is None:
    _frame.explain_empty_store()
else:
    _train_watch.show(run)
