"""The recipe's fields as widgets, each with its help, and what is wrong with it right below.

The dict of texts in the session is the truth, not the widgets: it survives leaving the page and hiding a field.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from analysis import form, theme
from pages import _widgets
from unlearn_core.settings import Recipe
from unlearn_core.vocabulary import UNLEARNED

RAW = "train_raw"  # the form's texts in the session
OPEN = "train_open"  # set when a recipe was loaded whose models differ in the less important settings
FIELD_WIDTH = 210  # pixels, below which a row holds fewer fields
TALL = ("description",)  # fields that take a row of their own


def field(name: str, error: str = "", *, disabled: bool = False, alone: bool = True) -> None:
    """One setting: switch, choice or text, by its type. `alone`: with its label and help (else only for readers)."""
    metadata, hint = form.SETTINGS[name]
    key, raw = f"train_field_{name}", st.session_state[RAW]
    st.session_state[key] = raw[name]
    named = {"label": form.label(name) if alone else f"{form.label(name)}, {name.split('.')[0]}",
             "label_visibility": "visible" if alone else "collapsed",
             "help": _widgets.defined(form.explanation(name), name) if alone else None,
             "key": key, "disabled": disabled, "on_change": _take, "args": (name,)}
    if hint is bool:
        st.toggle(**named)
    elif form.choices(metadata):
        st.selectbox(options=form.choices(metadata), **named)
    else:
        st.text_input(**named)
    if error:
        st.markdown(f":red[:material/error: {_widgets.plain(error)}]")


def _take(name: str) -> None:
    st.session_state[RAW][name] = st.session_state[f"train_field_{name}"]


def table(name: str, errors: dict[str, str], taken: frozenset[str] = frozenset()) -> None:
    """The settings of one table of the recipe; those without effect are left out unless they are wrong."""
    raw = st.session_state[RAW]
    own = form.problems_in(errors, name)
    if name in own:
        st.markdown(f":red[:material/error: {_widgets.plain(own[name])}]")
    shown = [n for n in form.names_in(name) if n in own or form.matters(n, raw)]
    with st.grid(3, min_column_width=FIELD_WIDTH) as grid:
        for n in shown:
            with grid.cell(column_span=2 if n in TALL else 1):
                field(n, own.get(n, ""), disabled=n in taken)
    _widgets.definitions(*shown)


def models(errors: dict[str, str]) -> None:
    """model_1 and model_2 side by side, a row per setting, those that differ marked."""
    st.subheader("Two models: what differs between them?")
    different = form.differing(st.session_state[RAW])
    only = st.toggle("Only what differs", key="train_only_differing", persist_state="session",
                     help="off: every setting of both models, those that differ marked ≠")
    for model in UNLEARNED:
        if model in errors:
            st.markdown(f":red[:material/error: {theme.short_label(model)}: {_widgets.plain(errors[model])}]")
    _heading()
    keys = [name.rpartition(".")[2] for name in form.names_in(UNLEARNED[0])]
    rest = [key for key in keys if key not in form.MAIN]
    if only:
        _rows([key for key in (*form.MAIN, *rest) if key in different], different, errors)
        if not different:
            st.caption("Both models have the same settings, so the merge is of two equals.")
        return
    _rows(form.MAIN, different, errors)
    raw = st.session_state[RAW]
    rest = [key for key in rest if any(form.matters(name, raw) or name in errors
                                       for name in (f"{model}.{key}" for model in UNLEARNED))]
    wrong = any(f"{model}.{key}" in errors for model in UNLEARNED for key in rest)
    with _widgets.folded("More settings of both models", key="train_more",
                         unfold=wrong or st.session_state.pop(OPEN, False)) as more:
        if more.open:
            _rows(rest, different, errors)


def _heading() -> None:
    for column, text in zip(_columns(), ("", *(f"**{theme.short_label(model)}**" for model in UNLEARNED)),
                            strict=True):
        column.markdown(text)


def _columns() -> list:
    return st.columns([1.1, 1, 1], vertical_alignment="center", gap="small")


def _rows(keys: Sequence[str], different: set[str], errors: dict[str, str]) -> None:
    for key in keys:
        _row(key, key in different, errors)
    _widgets.definitions(*(f"{UNLEARNED[0]}.{key}" for key in keys))


def _row(key: str, differs: bool, errors: dict[str, str]) -> None:
    name, *fields = _columns()
    text = form.label(key)
    setting = f"{UNLEARNED[0]}.{key}"
    with name:
        st.markdown(f":orange-background[**≠ {text}**]" if differs else text,
                    help=_widgets.defined(form.explanation(setting).replace(f"{UNLEARNED[0]}.", ""), setting))
    for column, model in zip(fields, UNLEARNED, strict=True):
        with column:
            field(f"{model}.{key}", errors.get(f"{model}.{key}", ""), alone=False)


def load(recipe: Recipe) -> None:
    """Put a recipe into the form."""
    st.session_state[RAW] = raw = form.raw_of(recipe)
    st.session_state[OPEN] = not form.differing(raw) <= set(form.MAIN)
