"""What the Overview shows of the scores of one run as of several: columns of a table and the trade-off."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from analysis import figures, frames, published, theme
from pages import _widgets
from unlearn_core.vocabulary import METRICS, MMLU_GATE_SHARE, shipped

COMPARED = "overview_compare"  # key of the runs to compare with the open one, so also a query parameter
ATTACK, RETENTION = "Task Aggregate × attack", "Forgetting × retention"

number = st.column_config.NumberColumn


def metric_columns(frame: pd.DataFrame) -> dict:
    """Column settings of the metrics in a table; a column with gaps gets the room to say so."""
    return {key: number(METRICS[key].label, help=METRICS[key].help, format="%.3f",
                        width=_widgets.GAP_WIDTH if frame[key].isna().any() else None)
            for key in frame.columns if key in METRICS}


def score_columns() -> dict:
    """Column settings of a score table beside its metrics."""
    return {
        "label": st.column_config.TextColumn("Model", pinned=True), "verdict": "Forgetting",
        "mia_auc_low": number("AUC low", format="%.3f", help="lower end of the AUC's 95 % interval"),
        "mia_auc_high": number("AUC high", format="%.3f", help="upper end of the AUC's 95 % interval"),
        "mmlu_gate": st.column_config.TextColumn("MMLU gate", help=f"at least {MMLU_GATE_SHARE:g} of the base's MMLU"),
    }


def published_numbers() -> None:
    """Table 1 of the paper."""
    others = published.table().drop(columns="model")
    _widgets.show_table(
        others, key="published", alt="Scores that others published",
        columns=metric_columns(others) | {
            "system": "System", "setting": "Setting", "verdict": "Forgetting, in their words"})
    st.caption("Table 1 of arXiv 2503.21088: online = 7B leaderboard of SemEval-2025 Task 4 (gives no AUC), "
               "local = the authors' own evaluation. The verdict is the paper's.")


def tradeoff(scores: pd.DataFrame, about: str,
             draw: Callable[[str, Callable[[], go.Figure]], go.Figure] = lambda name, figure: figure()) -> None:
    """Either view of the trade-off, for the models of one run or of several (`comparison.stacked`).

    `draw(name, figure)` makes the figure, or takes one that it has kept under that name.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        view = st.segmented_control("Trade-off", [ATTACK, RETENTION], default=ATTACK, required=True,
                                    key="overview_tradeoff", bind="query-params")
        ghosts = view == ATTACK and st.toggle("Show published systems", value=True, key="ghosts", bind="query-params")
    size = frames.attack_size(scores)
    tested = shipped(scores["model"].drop_duplicates().tolist()) == "tested"
    if view == ATTACK:
        _widgets.chart(
            draw(f"tradeoff {ghosts}", lambda: figures.tradeoff(scores, published.table() if ghosts else None)), scores,
            key="tradeoff",
            title="Did the tested model land on the 0.5 line?" if tested else
            "Did the merge land on the 0.5 line, further right than its parents?",
            alt="Task Aggregate against the membership attack's AUC for each model",
            caption=f"{about} MIA AUC = P(loss of a member < loss of a non-member), {size}; bars are 95 % intervals. "
                    "Task Aggregate = harmonic mean of the twelve terms: 1 − score on forget, score on retain. "
                    + ("Grey: published numbers of other models on other data." if ghosts else ""))
        return
    _widgets.chart(
        draw("retention", lambda: figures.retention(scores)), scores, key="retention",
        title=f"Is the {'tested model' if tested else 'merge'} in the upper right corner, and its filling grey?",
        alt="Forget success against retention for each model, filled by the membership attack's AUC",
        caption=f"{about} Forget success = 1 − mean of the six forget sub-scores, retention = mean of the six retain "
                f"ones. Filling: MIA AUC, {size}; purple below 0.5, grey at 0.5, orange above. Shape and outline: the "
                "model. Dotted: Pareto line of the models beside "
                f"{' and '.join(theme.short_label(model).lower() for model in frames.NO_RESULTS)}; no published "
                "system gives these two means.")
