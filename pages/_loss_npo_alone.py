"""Section of the loss page: NPO alone against NPO with its retain terms (Fig. 3 of the paper), from two runs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from analysis import theme, training, training_figures, training_lines
from analysis.training_figures import COMPOSITE, NPO_ALONE
from pages import _cache, _frame, _loss_parts, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.settings import Recipe
from unlearn_core.store import Run

SOME = 5  # differing settings that are named


def show(run: Run) -> None:
    """The comparison where the store has a second run for it, else how to make that run."""
    alone = training.is_npo_alone(run.recipe())
    found = {other.id: other for other in training.partners(run, _frame.listing()[0])}
    if not found:
        _explain(run, alone)
        return
    with _widgets.row():
        name = st.selectbox("Run with retain terms" if alone else "Run of NPO alone", list(found), key="loss_partner",
                            bind="query-params", width=420)
        models = _loss_parts.models()
        pin = _loss_parts.pin()
    with _widgets.row():
        view = replace(_loss_parts.view("progress"), reach=_loss_parts.reach())
    composite, bare = (found[name], run) if alone else (run, found[name])
    marks, recipes = (COMPOSITE, NPO_ALONE), {composite.id: composite.recipe(), bare.id: bare.recipe()}
    tables = {one.id: training.progress(_cache.table(training.steps, one), one.recipe()) for one in (composite, bare)}
    for one, table in tables.items():
        if table.empty:
            st.info(f"No steps yet of {_widgets.plain(one)}.", icon=":material/hourglass_empty:")
    steps = training.overlay(tables, marks)
    steps = steps[steps["model"].isin(models)]
    if steps.empty:
        return
    further = training.further_differences(*recipes.values())
    if further:
        st.info(f"These two runs differ in more than the weights of the retain terms: {_some(further)}.",
                icon=":material/difference:")
    _loss_parts.show_reading(steps, pin)
    _draw(steps, replace(view, pinned=None if pin is None else steps[steps["step"] == pin]), recipes, bare.recipe())
    _loss_parts.show_settings(recipes, marks)
    if further and not alone:
        with _widgets.folded("Make a run of NPO alone that differs in nothing else",
                             key="loss_partner_form") as opened:
            if opened.open:
                _form(run)


def _draw(steps: pd.DataFrame, view: training_lines.View, recipes: dict[str, Recipe], bare: Recipe) -> None:
    models = list(steps["model"].unique())
    starts = {model: sorted({training.npo_start(getattr(recipe, model)) for recipe in recipes.values()})
              for model in models}
    formulas = "; ".join(f"{theme.short_label(model)}: {settings.npo_weight:g} x (2 / {settings.beta:g}) ln 2 = "
                         f"{training.npo_start(settings):.3f}"
                         for model in models for settings in [getattr(bare, model)])
    _widgets.chart(
        training_figures.against_npo_alone(steps, starts, view),
        steps[["run", "mark", "model", *training.X_COLUMNS, "progress", "loss", "npo_weighted", "retain_nll"]],
        key="npo_alone", title="NPO alone falls, but what becomes of retain?",
        terms=("npo", "gdr", "klr"),
        alt="Total loss and retain NLL of NPO alone and of NPO+GDR+KLR over training progress",
        caption=f"{_loss_parts.lengths(steps, recipes)}. Total loss as optimised: means over a step's micro-batches, "
                f"{_loss_parts.smoothing(view)}. Weighted NPO starts at its weight x (2 / beta) ln 2 ({formulas}) and "
                "cannot fall below 0. Below: NLL of the retain answers on the items of each step.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SOME]) + (f" and {len(names) - SOME} more" if len(names) > SOME else "")


def _explain(run: Run, alone: bool) -> None:
    if alone:
        st.info("This run trains NPO alone. To set it against NPO+GDR+KLR, make a run of the same recipe with "
                "gdr_weight or klr_weight above 0.", icon=":material/compare_arrows:")
        return
    st.info("There is no run of NPO alone yet, with gdr_weight = klr_weight = 0 in both models. Make one:",
            icon=":material/compare_arrows:")
    _form(run)


def _form(run: Run) -> None:
    """The command that makes the counterpart of NPO alone, and a button that starts it."""
    if run.recorded():
        st.caption("It begins with the data and the base of a run, which a recording has not.")
        return
    command = training.npo_alone_command(run)
    if command is not None:
        _widgets.command(launching.command_line(command))
    if not _frame.read_only():
        device = _work.device("loss_partner_device")
        st.button("Train NPO alone from this run's data and base", icon=":material/play_arrow:",
                  key="loss_partner_start", on_click=_frame.attempt, args=(lambda: jobs.start_run(
                      _frame.store(), training.npo_alone(run.recipe()), device=device, source=run),))
