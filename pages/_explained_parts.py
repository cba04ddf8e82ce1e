"""What the sections of the method page share: the run that they speak of, if any, and the recipe otherwise."""

from __future__ import annotations

import streamlit as st

from pages import _frame, _widgets
from unlearn_core import recipe as recipes
from unlearn_core.settings import Recipe
from unlearn_core.store import Run

BOUND = {"bind": "query-params"}  # every switch is part of the address
PAPER = "paper"  # the recipe that is shown where no run trains anything


def chosen_run() -> Run | None:
    """The chosen run; None where the store has none, and the page explains the method all the same."""
    name = st.session_state.get(_widgets.RUN_KEY)
    if name is None:
        _frame.show_problems(_frame.listing()[1])
        return None
    with _frame.bad_input_shown():
        return _frame.store().open(name)
    return st.stop()


def formula(text: str) -> None:
    """A formula in LaTeX."""
    # A last subscript sticks out by a pixel, so that the formula could be scrolled, but by no keyboard.
    st.latex(rf"{text}\,")


def trained(run: Run | None) -> bool:
    """Whether the run trains its models, so that its recipe and its steps are about them."""
    return run is not None and not run.brought()


def subject(run: Run | None) -> tuple[Recipe, str]:
    """The recipe to speak of, and whose it is."""
    if trained(run):
        return run.recipe(), f"run {_widgets.plain(run.id)}"
    why = "there is no run yet" if run is None else "the chosen run brought its models and trained nothing"
    return recipes.load(PAPER), f"recipe {PAPER}, as {why}"
