"""What is forgotten and what is kept: counts, lengths, near-duplicates, records, subsets and forget requests."""

import streamlit as st

from analysis.data_frames import Source
from pages import _data_duplicates, _data_records, _data_request, _data_source, _data_summary, _frame
from unlearn_core.settings import Recipe
from unlearn_core.store import Run

VIEWS = {"counts": ("Counts and lengths", _data_summary.counts_and_lengths),
         "duplicates": ("Near-duplicates", _data_duplicates.near_duplicates),
         "records": ("Records", _data_records.records),
         "request": ("Forget request", _data_request.forget_request),
         "subset": ("Subset", _data_summary.subset)}


def show(source: Source, run: Run | None, recipe: Recipe | None) -> None:
    """The chosen view, with or without personal data."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        view = st.segmented_control("Show", VIEWS, default="counts", required=True, key="data_view",
                                    bind="query-params", format_func=lambda name: VIEWS[name][0], wrap=True)
        personal = st.toggle("Show personal data", key="data_personal", persist_state="session",
                             help="off: names, birth dates, numbers, mail and home addresses of the people of Task 2 "
                                  "are masked; the switch is not part of the page's address")
    VIEWS[view][1](source, run, recipe, personal)


_frame.frame()
run = _data_source.chosen_run()
source = _data_source.choose(run)
with _frame.bad_input_shown():
    recipe = run.recipe() if run else None
_data_summary.problems(source)
_frame.part(show, source, run, recipe)
