"""Where a new run's recipe comes from: a bundled or saved recipe, a file, or a run, with or without its weights."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis import form
from pages import _form, _frame, _widgets
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.settings import Recipe
from unlearn_core.store import Run

START, WEIGHTS = "train_start", "train_weights"  # widgets, bound to the address
VIEW, SOURCE = "train_view", "train_source"  # in the address, where links of other pages set them: see `follow_address`
LOADED = "train_loaded"  # what the form was filled from
NEW_RUN, WATCH = "New run", "Watch"
SAVED, OF_RUN = "saved: ", "run: "
DEFAULT = "demo"
FRESH, BASE, ADAPTERS = "New weights", "Base of that run", "Base and adapters of that run"


def options() -> list[str]:
    """What a run can start from."""
    bundled = sorted(path.stem for path in recipes.RECIPES.glob("*.toml"))
    bundled.sort(key=lambda name: name != DEFAULT)
    return [*bundled, *(f"{SAVED}{path.stem}" for path in _frame.store().saved_recipes()),
            *(f"{OF_RUN}{run.id}" for run in _frame.listing()[0])]


def recipe_of(start: str) -> Recipe:
    """The recipe behind an option; an InputError where it cannot be read."""
    if start.startswith(SAVED):
        paths = {path.stem: path for path in _frame.store().saved_recipes()}
        return recipes.load(str(paths[start.removeprefix(SAVED)]))
    if start.startswith(OF_RUN):
        return _frame.store().open(start.removeprefix(OF_RUN)).recipe()
    return recipes.load(start)


def follow_address() -> None:
    """Do what a link with ?train_source=RUN asks for: the form, to begin with its weights. Before any widget."""
    name = st.query_params.get(SOURCE)
    if name is not None:
        del st.query_params[SOURCE]
        clone(name, BASE)


def clone(run_id: str, weights: str = FRESH) -> None:
    """Show the form with the recipe of a run, to begin with its weights or with new ones."""
    st.session_state[START], st.session_state[WEIGHTS] = f"{OF_RUN}{run_id}", weights
    st.query_params[VIEW] = NEW_RUN
    st.session_state.pop(LOADED, None)


def choose() -> tuple[Run | None, bool]:
    """The choice; fills the form when it changes. (run whose weights are used or None, whether its adapters too)."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        start = st.selectbox("Start from", options(), key=START, bind="query-params")
        with st.popover("Open a file", icon=":material/file_open:"):
            st.file_uploader("Recipe", ["toml", "json"], key="train_upload", on_change=_open_upload,
                             help="A TOML file, or the recipe.json of a run. Unknown settings are refused by name.")
        st.button("Discard changes", icon=":material/undo:", on_click=lambda: st.session_state.pop(LOADED, None),
                  help="Fills the form again from what it started from.")
    st.caption("Fills the form with a bundled recipe, one that you saved, or the recipe of a run.")
    if start != st.session_state.get(LOADED):
        with _frame.bad_input_shown():
            _form.load(recipe_of(start))
        st.session_state[LOADED] = start
    return _weights(start)


def _open_upload() -> None:
    given = st.session_state["train_upload"]
    if given is not None:
        _frame.attempt(lambda: _form.load(recipes.loads(given.getvalue(), Path(given.name).name)))


def _weights(start: str) -> tuple[Run | None, bool]:
    """Whether the run begins with the weights of the run that it starts from."""
    if not start.startswith(OF_RUN):
        return None, False
    with _frame.bad_input_shown():
        source = _frame.store().open(start.removeprefix(OF_RUN))
        has_base = source.full_model_dir("base").is_dir() or source.recipe().base.source == "load"
    if not has_base or not source.data_dir.is_dir():
        st.caption("That run has no base to begin with, so a new run from its recipe trains one.")
        return None, False
    chosen = st.segmented_control("Begin with", [FRESH, BASE, ADAPTERS], default=FRESH, required=True, key=WEIGHTS,
                                  bind="query-params",
                                  help="With weights of that run, data and base are taken from it and only the rest is "
                                       "trained, at step 0 with a fresh optimizer.")
    if chosen == FRESH:
        return None, False
    adapters = chosen == ADAPTERS
    with _frame.bad_input_shown():
        st.session_state[_form.RAW] = form.taken_over(st.session_state[_form.RAW], source.recipe(), adapters)
    st.info(f"This run starts from the weights of {_widgets.plain(source.id)}: its data, its base"
            + (" and its adapters as far as they came." if adapters else ".")
            + " What is taken from it cannot be changed here.", icon=":material/restart_alt:")
    return source, adapters


def changes(start: str, recipe: Recipe) -> list[str]:
    """`table.key=value` of each setting that differs from what the form started from."""
    try:
        return recipes.as_overrides(recipe_of(start), recipe)
    except (InputError, KeyError):  # the saved recipe or the run has gone meanwhile
        return []
