"""What the sections of the loss page share: switches of the view, the pinned step, words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from analysis import theme, training
from analysis.training_lines import View, line_name
from pages import _widgets
from unlearn_core.settings import Recipe
from unlearn_core.vocabulary import UNLEARNED

BOUND = {"bind": "query-params"}  # every switch is part of the address
X_LABELS = {"step": "step", "epoch": "epoch", "tokens": "tokens", "seconds": "time"}


# ---- switches --------------------------------------------------------------------------------------------------

def axis() -> str:
    return st.segmented_control("Horizontal axis", training.X_COLUMNS, default="step", required=True, key="x",
                                format_func=X_LABELS.get, **BOUND)


def view(x: str) -> View:
    """The switches of both axes of a chart of lines over `x`."""
    return with_vertical_axis(View(x=x, log_x=log_axis()))


def with_vertical_axis(view: View) -> View:
    """The view with the switches of the vertical axis."""
    log_y = st.toggle("Log y", key="log_y", help="logarithmic vertical axes", **BOUND)
    cut = st.toggle("Cut outliers", key="loss_cut", **BOUND,
                    help="each panel ends at the 1 % and 99 % quantiles of its values and says how many points lie "
                         "outside the view")
    return replace(view, log_y=log_y, cut=cut)


def log_axis() -> bool:
    return st.toggle("Log x", key="loss_log_x", help="logarithmic horizontal axis", **BOUND)


def reach() -> int:
    """How far the lines are smoothed; 0, the default, is not at all."""
    return st.slider("Smoothing", 0, 100, 0, key="loss_smooth", width=160, **BOUND,
                     help="each point becomes the mean of itself and this many steps on either side; the raw line "
                          "stays, thin")


def models() -> list[str]:
    return st.pills("Models", UNLEARNED, default=UNLEARNED, selection_mode="multi", key="loss_models",
                    format_func=theme.short_label, **BOUND)


def pin() -> int | None:
    return st.number_input("Pin a step", min_value=1, value=None, step=1, key="loss_pin", placeholder="none",
                           width=150, help="a line at this step in every chart, and all its numbers", **BOUND)


def smoothing(view: View) -> str:
    """How the drawn lines come from the logged values, for a caption."""
    return (f"bold: mean of each step and up to {view.reach} on either side; thin: as logged" if view.reach
            else "no smoothing")


# ---- words and tables ------------------------------------------------------------------------------------------

def lengths(steps: pd.DataFrame, recipes: dict[str, Recipe]) -> str:
    """Number of steps and seed of each run of an overlay, in words for a caption; `recipes` by run id."""
    named = steps if "model" in steps else steps.assign(model="base")
    counts = named.groupby(["run", "model"]).size()
    marks = steps.drop_duplicates("run").set_index("run")["mark"]
    there = named["model"].unique()
    shown = [model for model in ("base", *UNLEARNED) if model in there]
    parts = []
    for name, recipe in recipes.items():
        models = ", ".join(f"{theme.short_label(model)}: {counts.get((name, model), 0)} steps" for model in shown)
        mark = marks.get(name, "")
        parts.append((f"**{mark}** {_widgets.plain(name)}: " if mark else "") + f"{models}; seed {recipe.seed}")
    return ". ".join(parts)


def show_reading(steps: pd.DataFrame, step: int | None) -> None:
    """The numbers of the pinned step; `steps` is an overlay."""
    if step is None:
        return
    table = training.reading(steps, step)
    if table.empty:
        st.info(f"Step {step} is not in the log: the last one is step {steps['step'].max():.0f}.",
                icon=":material/push_pin:")
        return
    with st.container(border=True):
        st.markdown(f"**Step {step}**")
        _widgets.show_numbers(table, [line_name(model, mark) for model, mark in table], key="loss_reading",
                     alt=f"All logged numbers of step {step}")


def show_settings(recipes: dict[str, Recipe], marks: Sequence[str] | None = None) -> None:
    """What differs between the trainings of several runs ({run id: recipe}), marked as in their charts."""
    with _widgets.folded("In which settings do these trainings differ?", key="loss_settings") as opened:
        if opened.open:
            table = training.settings_table(recipes, marks)
            names = [line_name(model, mark) for model, mark in table]
            _widgets.show_table(table.set_axis(names, axis=1).rename_axis("setting").reset_index(),
                                key="loss_settings_table", alt="Settings of the trainings that differ")


