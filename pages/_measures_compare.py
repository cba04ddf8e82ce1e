"""Section of the metrics page: two models on the same documents, and up to five runs by their headlines."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import differences, metrics_figures, runs_compared, text_modes, theme
from pages import _cache, _frame, _overview_compare, _widgets
from unlearn_core.errors import InputError
from unlearn_core.store import Run

BOUND = {"bind": "query-params"}
VIEWS = {"models": "Two models", "runs": "Runs and seeds"}
PAIRED = {"number": "Run", "label": "Number", "first": "First", "second": "This one", "difference": "Difference",
          "low": "95 % low", "high": "95 % high", "units": "n", "told_apart": "Told apart"}
NUMBERS = dict.fromkeys(("First", "This one", "Difference", "95 % low", "95 % high"),
                        st.column_config.NumberColumn(format="%.3f"))


def show(run: Run) -> None:
    """Two models of the run, or one model of several runs."""
    view = st.segmented_control("View", list(VIEWS), default="models", required=True, key="metrics_compare_view",
                                format_func=VIEWS.get, label_visibility="collapsed", **BOUND)
    _frame.part(_models if view == "models" else _runs, run)


# ---- two models ------------------------------------------------------------------------------------------------

def _models(run: Run) -> None:
    known = [model for model in run.models() if run.is_evaluated(model)]
    if len(known) < 2:
        st.info("Not measured: it takes two scored models.", icon=":material/hourglass_empty:")
        return
    with _widgets.row():
        first = st.selectbox("First", known, index=len(known) - 2, key="metrics_first", format_func=theme.short_label,
                             width=240, **BOUND)
        second = st.selectbox("Second", known, index=len(known) - 1, key="metrics_second",
                              format_func=theme.short_label, width=240, **BOUND)
    if first == second:
        st.info("Choose two different models.", icon=":material/filter_alt:")
        return
    table, refused = _cache.kept(run, ("pair", first, second), lambda: differences.compare(
        differences.rows_of(run, first), differences.rows_of(run, second)))
    names = theme.short_label(first), theme.short_label(second)
    for sentence in differences.describe(table, *names):
        st.markdown(f"- {sentence}")
    for reason in refused:
        st.info(f"Not compared. {_widgets.plain(reason)}", icon=":material/block:")
    if table["metric"].ne("mia_auc").any():
        _widgets.chart(
            _cache.kept(run, ("pair chart", first, second), lambda: metrics_figures.paired(table)), table,
            key="metrics_pair", title=f"Where is {names[1]} better than {names[0]}, and where is that certain?",
            terms=("told_apart",),
            alt=f"Paired differences of all scores between {names[0]} and {names[1]} with intervals",
            caption=f"{names[1]} less {names[0]} on the same documents; seed "
                    f"{run.recipe().seed}. Above 0 {names[1]} is better: on forget scores count as 1 − score. Bars: "
                    "95 %, documents drawn again for both at once, all of one person together. Filled: told apart "
                    "(twelve scores: p by Holm below 0.05; others: the interval leaves out 0). The AUC, whose best is "
                    "in the middle, stands above and in the table, as do n and the p values.")


# ---- runs ------------------------------------------------------------------------------------------------------

def _runs(run: Run) -> None:
    known, _ = _frame.listing()
    chosen = _overview_compare.choice(run, known, [other.id for other in known if not _archived(other)])
    models = list(dict.fromkeys(model for other in chosen for model in other.models() if other.is_evaluated(model)))
    if not models:
        st.info("Not measured: no model of these runs has been scored.", icon=":material/hourglass_empty:")
        return
    model = st.selectbox("Model", models, index=models.index(text_modes.default_model(models)),
                         key="metrics_runs_model", format_func=theme.short_label, width=240, **BOUND)
    runs, tables = _readable(chosen, model)
    stacked = runs_compared.stacked(runs, tables) if runs else pd.DataFrame()
    if stacked.empty:
        st.info(f"Not measured: {theme.short_label(model)} has no scores in these runs.",
                icon=":material/hourglass_empty:")
        return
    if runs_compared.differ_by_seed_only(runs):
        for sentence in runs_compared.describe_seeds(stacked):
            st.markdown(f"- {sentence}")
    names = "; ".join(dict.fromkeys(stacked["run"]))
    seeds = ", ".join(str(other.recipe().seed) for other in runs)
    _widgets.chart(
        metrics_figures.headlines_of_runs(stacked), stacked, key="metrics_runs",
        title="Do the runs agree, within what chance allows?",
        alt=f"Headline scores of {theme.short_label(model)} of each run with intervals, chance levels and ideals",
        caption=f"{theme.short_label(model)} of {len(runs)} runs: {_widgets.plain(names)}. Seeds: {seeds}; n stands in "
                "the table. Bars: 95 % intervals of each run by itself; upright lines: chance on its own items; "
                "dotted: the ideal, where it is one for all. Mean over seeds: each run is one observation, by "
                "Student's t.")
    if len(runs) > 1:
        _paired(runs, model)


def _archived(run: Run) -> bool:
    try:
        return run.meta()["archived"]
    except InputError:  # damaged: said where it is chosen
        return False


def _readable(chosen: list[Run], model: str) -> tuple[list[Run], list[pd.DataFrame]]:
    """The runs that can be read, and their headlines; a damaged one is named and left out."""
    runs, tables = [], []
    for run in chosen:
        try:
            tables.append(_cache.kept(run, ("headlines of", model), lambda run=run: runs_compared.headlines_of(
                run, model)))
            runs.append(run)
        except InputError as error:
            st.error(_widgets.plain(error), icon=":material/broken_image:")
    return runs, tables


def _paired(runs: list[Run], model: str) -> None:
    st.subheader("How does each run differ from the first on the same documents?")
    files = [path for other in runs[1:] for path in other.result_files()]
    table, refused = _cache.kept(runs[0], ("paired runs", [run.id for run in runs], model),
                                 lambda: runs_compared.paired_with_first(runs, model), files)
    if len(table):
        _widgets.show_table(table[list(PAIRED)].rename(columns=PAIRED), key="metrics_paired_runs", columns=NUMBERS,
                            alt="Paired differences of each run from the first")
        st.caption("The run less the first, 95 % intervals, the same documents drawn again for both. Above 0 the "
                   "other is better, but of the AUC, whose best is 0.5.")
    for reason in refused:
        st.caption(f"Not paired. {_widgets.plain(reason)}")
