"""Section of the weights page: how far each matrix was moved, as maps and profiles, and one matrix in detail."""

from __future__ import annotations

import streamlit as st

from analysis import theme, weights, weights_figures
from analysis.weights import MEASURES, Measured
from pages import _cache, _frame, _weights_matrix, _weights_parts, _widgets
from unlearn_core.store import Run

MORE = {"profile": "Over layers and kinds", "difference": "Difference of two models"}


def show(run: Run, measured: Measured, types: list[str]) -> None:
    frame = _cache.kept(run, ("where", types), lambda: weights.where(measured, types))
    if weights.measure(frame) == "norm":
        st.info("The size of the base's own weights is not known here, so the maps show ||ΔW|| and not its share of "
                "||W||: large matrices look more changed than small ones.", icon=":material/straighten:")
    _frame.part(_map, run, measured, types)
    # On demand: each chart takes a fifth of a second at every switch.
    more = {"profile": _profile} | ({"difference": _difference} if len(measured.models) > 1 else {})
    chosen = st.segmented_control("Beside the map", list(more), key="weights_more", format_func=MORE.get,
                                  bind="query-params")
    if chosen:
        _frame.part(more[chosen], run, measured, types)


def _map(run: Run, measured: Measured, types: list[str]) -> None:
    frame = _cache.kept(run, ("where", types), lambda: weights.where(measured, types))
    value = weights.measure(frame)
    figure = _cache.kept(run, ("where map", types), lambda: weights_figures.where_map(frame))
    what = ("||ΔW|| / ||W||: Frobenius norm of the change over that of the base's matrix" if value == "relative"
            else "||ΔW||: Frobenius norm of the change")
    _widgets.chart(
        figure, frame, key="weights_where", title="Where did each model change, and is it the same place?",
        terms=("task_vector",),
        alt=f"{MEASURES[value]} of every matrix by layer and module type, a panel per model", on_select=_clicked,
        caption=f"{_weights_parts.n(measured, types, run.recipe().seed)}. {what}. All panels have the same limits. "
                "Click a cell to open its matrix.")
    with _widgets.folded("Choose a matrix from a table", key="weights_rows") as opened:
        if opened.open:
            _rows(run, measured, types)
    chosen = _weights_parts.matrix(measured, types, otherwise="click a cell of the map, or choose here")
    if chosen is not None:
        _weights_matrix.show_detail(run, measured, chosen)


def _clicked() -> None:
    """Open the matrix that was clicked on the map."""
    module = weights.clicked(st.session_state.get("weights_where_chart"))
    if module:
        st.session_state[_weights_parts.MATRIX] = module


def _rows(run: Run, measured: Measured, types: list[str]) -> None:
    """A row per matrix; selecting one opens it."""
    table = _cache.kept(run, ("rows", types), lambda: weights.by_matrix(measured, types))

    def opened() -> None:
        rows = st.session_state["weights_rows_table"]["selection"]["rows"]
        if rows:
            st.session_state[_weights_parts.MATRIX] = table["module"].iloc[rows[0]]

    formats = {name: st.column_config.NumberColumn(theme.short_label(name), format="%.3g") for name in measured.models}
    st.dataframe(table, key="weights_rows_table", hide_index=True, on_select=opened, selection_mode="single-row",
                 column_config=formats, placeholder=_widgets.NOT_MEASURED, height=280,
                 alt="Size of the change of every matrix, one column per model")


def _difference(run: Run, measured: Measured, types: list[str]) -> None:
    with _widgets.row():
        first, second = (
            st.selectbox(label, measured.models, index=index, key=key, format_func=theme.short_label, width=180,
                         bind="query-params")
            for label, index, key in (("Compare", 0, "weights_first"), ("with", 1, "weights_second")))
    frame = _cache.kept(run, ("where", types), lambda: weights.where(measured, types))
    value, table = weights.measure(frame), weights.difference(frame, first, second)
    _widgets.chart(
        _cache.kept(run, ("difference", types, first, second),
                    lambda: weights_figures.difference_map(table, first, second, value)), table,
        key="weights_difference", terms=("task_vector",), title="Which of the two changed a matrix more?",
        alt=f"{MEASURES[value]} of one model minus that of the other for every matrix",
        caption=f"n = {len(table)} matrices; seed {run.recipe().seed}. {MEASURES[value]} of "
                f"{theme.short_label(first)} minus that of {theme.short_label(second)}: red where the first changed it "
                "more, blue where the second did, white where both did alike.")


def _profile(run: Run, measured: Measured, types: list[str]) -> None:
    frame = _cache.kept(run, ("where", types), lambda: weights.where(measured, types))
    value = weights.measure(frame)
    layers, kinds = weights.profile(frame, "group"), weights.profile(frame, "type")
    _widgets.chart(
        _cache.kept(run, ("profile", types), lambda: weights_figures.profile(layers, kinds, value)), layers,
        key="weights_profile", terms=("task_vector",),
        title="Do early or late layers change more, and which kind of matrix?",
        alt=f"Mean {MEASURES[value]} over the layers and per module type, for each model",
        caption=f"{_weights_parts.n(measured, types, run.recipe().seed)}. Plain means of {MEASURES[value]} over "
                "matrices, whatever their size; the scale begins at 0.")
