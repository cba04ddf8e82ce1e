"""Section of the metrics page: what the models write instead, and whether one of them has collapsed or refuses."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import answers_figures, collapse, texts, theme
from pages import _cache, _frame, _measures_scores, _widgets
from unlearn_core.store import Run

BOUND = {"bind": "query-params"}
SPLITS = {"forget": "Forget", "retain": "Retain"}


def show(run: Run) -> None:
    """What is written on forget or on retain."""
    with st.spinner("Reading the answers", show_time=True):
        shares, measures = _cache.kept(run, "collapse", lambda: _measured(run))
    if shares.empty:
        st.info(texts.absent(run), icon=":material/hourglass_empty:")
        return
    _frame.part(_section, run, shares, measures)


def _measured(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = collapse.outcomes(_cache.table(texts.answer_table, run))
    return collapse.shares(found), collapse.measures(found, collapse.entropies(run))


def _section(run: Run, shares: pd.DataFrame, measures: pd.DataFrame) -> None:
    with _widgets.row():
        split = st.segmented_control("Split", list(SPLITS), default="forget", required=True, key="metrics_split",
                                     format_func=SPLITS.get, **BOUND)
        models = _measures_scores.choose_models(list(shares["model"].unique()))
    if not models:
        return
    for sentence in filter(None, (collapse.describe(shares, model, split) for model in models)):
        st.markdown(f"- {sentence}")
    own = shares[(shares["split"] == split) & shares["model"].isin(models)]
    if own.empty:
        st.info(f"Not measured: there are no answers on {split}.", icon=":material/hourglass_empty:")
        return
    _widgets.chart(
        _cache.kept(run, ("outcomes", split, models), lambda: answers_figures.outcomes(own, split, models)), own,
        key="metrics_collapse", title="What do the models write to these prompts?",
        terms=("collapse",),
        alt=f"Shares of answers on {split} that say it, refuse, are empty, repeat themselves, are one text, or other",
        caption=f"n = {own['n'].max()} answers about {own['units'].max()} documents or persons; seed "
                f"{run.recipe().seed}. Each answer counts once, for the first that fits. Ideal: on forget other text, "
                "on retain says it. Intervals stand at the bars and in the table.")
    st.subheader("Measures of damage, against the base")
    grid = collapse.grid(measures[measures["model"].isin(models)], split)
    _widgets.show_table(grid, key="metrics_damage", alt=f"Measures of collapse on {split}, a column per model",
                        columns={"measure": st.column_config.TextColumn("Measure", pinned=True)})
    st.caption("Mean [95 % interval] over documents or persons. The base's value is the ideal. Entropy, of the next "
               "token on the reference answers: far below the base's the model is sure of whatever it writes, far "
               "above it guesses." + ("" if (measures["measure"] == collapse.ENTROPY).any() else
                                      " It is not measured here; this measures it:"))
    if not (measures["measure"] == collapse.ENTROPY).any():
        _widgets.command(f"python -m unlearn_core evaluate {run.id}")
    st.page_link("pages/generations.py", label=f"The garbled answers of {theme.short_label(models[-1])}",
                 icon=":material/forum:", query_params={_widgets.RUN_KEY: run.id, "generations_mode": "Garbled",
                                                        "generations_split": split})
