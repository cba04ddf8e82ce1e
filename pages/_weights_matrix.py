"""One matrix on the weights page: its spectrum, the distribution of its entries, and all there is about it."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
import streamlit as st

from analysis import theme, weights, weights_figures
from analysis.weights import Measured
from pages import _cache, _weights_parts, _widgets
from unlearn_core.store import Run

NUMBERS = {"norm": "||ΔW||", "relative": "||ΔW|| / ||W||", "stable_rank": "Stable rank",
           "directions": "Directions with 90 %", "largest": "Largest |entry|"}


# ---- sections --------------------------------------------------------------------------------------------------

def show_spectrum(run: Run, measured: Measured, types: list[str]) -> None:
    with _widgets.row():
        module = _matrix(measured, types)
        first = st.number_input("First k", 1, 64, 8, key="weights_k", bind="query-params", width=120,
                                help="the share of energy in the first k directions is told for this k")
    frame = weights.spectrum(measured, module)
    shares = "; ".join(f"{theme.short_label(model)} {share:.3f}"
                       for model, share in weights.energy_of_first(frame, first).items())
    _widgets.chart(
        weights_figures.spectrum(frame, first), frame, key="weights_spectrum",
        terms=("stable_rank",),
        title="Do a few directions do it all?",
        alt=f"Singular values of the change of {module} and the share of energy in the first of them, for each model",
        caption=f"{_about(run, measured, module)} Energy: the squares of the singular values, which add up to ||ΔW||². "
                f"In the first {first}: {shares}. At most the 64 largest are kept.")
    st.subheader("Which matrices were changed in few directions?")
    table = _cache.kept(run, ("matrices", types), lambda: weights.matrices(measured, types))
    shown = table[["model", "module", "stable_rank", "directions"]].replace(
        {"model": {model: theme.short_label(model) for model in measured.models}})
    _widgets.show_table(shown, key="weights_ranks", alt="Stable rank of every change, by model and matrix",
                        columns={"model": "Model", "module": "Matrix",
                                 "stable_rank": st.column_config.NumberColumn(NUMBERS["stable_rank"], format="%.2f"),
                                 "directions": st.column_config.NumberColumn(NUMBERS["directions"], format="%d")})
    st.caption("Stable rank: ||ΔW||² over the square of the largest singular value, 1 where one direction does "
               "everything. Click a column's head to sort.")


def show_distribution(run: Run, measured: Measured, types: list[str]) -> None:
    if not measured.about["entries"]:
        _weights_parts.without_entries(run)
        return
    with _widgets.row():
        module = _matrix(measured, types)
        log_y = st.toggle("Log y", value=True, key="weights_log_y", bind="query-params",
                          help="logarithmic vertical axis, on which tails can be seen")
    frame = weights.histogram(measured, module)
    largest = weights.detail(measured, module).set_index("model")["largest"]
    _widgets.chart(
        weights_figures.histogram(frame, log_y), frame, key="weights_histogram",
        terms=("task_vector",), title="Did every weight move a little, or few weights far?",
        alt=f"Histogram of the entries of the change of {module}, for each model",
        caption=f"{_about(run, measured, module)} All models in the same bins, which reach 6 root mean squares of the "
                "largest change; the outer ones take all beyond. Largest magnitude: "
                + "; ".join(f"{theme.short_label(model)} {value:.3g}" for model, value in largest.items()) + ".")


def _matrix(measured: Measured, types: list[str]) -> str:
    """The chosen matrix, else the most changed one of those shown."""
    usual = weights.largest_change(measured, types)
    return _weights_parts.matrix(measured, types, otherwise=f"the most changed one: {usual}") or usual


# ---- detail ----------------------------------------------------------------------------------------------------

def show_detail(run: Run, measured: Measured, module: str) -> None:
    """Everything that was measured on one matrix."""
    with st.container(border=True):
        st.markdown(f"**{_widgets.plain(module)}**")
        st.caption(_about(run, measured, module))
        table = weights.detail(measured, module)
        names = [theme.short_label(model) for model in table["model"]]
        angles = {f"angle_{model}": f"Angle to {theme.short_label(model)} (°)" for model in measured.models}
        known = NUMBERS | (angles if len(names) > 1 else {})
        rows = table[[name for name in known if name in table]].rename(columns=known).T
        _widgets.show_numbers(rows.set_axis(names, axis=1), names, key="weights_detail",
                                 alt=f"Sizes, ranks and angles of the change of {module}")
        _plot(run, "detail", module, f"Singular values and histogram of the entries of the change of {module}",
              lambda: weights_figures.matrix(weights.spectrum(measured, module), weights.histogram(measured, module)))
        if not measured.about["entries"]:
            _weights_parts.without_entries(run)
            return
        size = measured.about["shapes"][measured.index(module)]
        _plot(run, "detail_map", module, f"Root mean square of the change of {module} in 32 x 32 blocks",
              lambda: weights_figures.block_maps(weights.blocks(measured, module), *size))
        st.caption("Directions with 90 %: how many hold 90 % of the energy, the squared singular values. Map: each "
                   "pixel is the root mean square of the change in one of 32 x 32 blocks, with the same limits in all "
                   "panels; rows that stand out are outputs, columns inputs, that changed more.")
        _widgets.definitions("stable_rank")


def _plot(run: Run, key: str, module: str, alt: str, make: Callable[[], go.Figure]) -> None:
    st.plotly_chart(_cache.kept(run, (key, module), make), key=f"weights_{key}_chart", width="stretch", alt=alt,
                    config={"displaylogo": False})


def _about(run: Run, measured: Measured, module: str) -> str:
    rows, columns = measured.about["shapes"][measured.index(module)]
    ranks = ", ".join(f"{theme.short_label(model)} {rank}" for model, rank in measured.about["ranks"].items())
    return (f"{_widgets.plain(module)}: {rows} x {columns} = {rows * columns:,} entries; seed {run.recipe().seed}. "
            f"Rank of the adapter: {ranks}.")
