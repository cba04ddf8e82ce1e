"""Section of the merge page: scores on the way between the models, and over all their mixes."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from analysis import merge_preview, merging, merging_figures, signs, weights
from pages import _cache, _frame, _merging_parts, _merging_preview, _widgets
from unlearn_core.errors import InputError
from unlearn_core.store import Run

POINT = "merge_point"  # key of the chosen point of the surface


def show(run: Run) -> None:
    """Path and surface, as far as scored."""
    frame = _merging_parts.scored(run, ["path", "surface"])
    kinds = set() if frame is None else set(frame["kind"])
    if "path" in kinds:
        own = merging.of_kind(frame, "path")
        _widgets.chart(
            _cache.kept(run, "merge path", lambda: merging_figures.path_curves(own)), own, key="merge_path",
            title="Is the merge better than what lies between it and its parents?",
            alt="Scores on the way from Model 1 over the merged model to Model 2",
            caption=f"{_merging_parts.about(run, len(own), 'points')} Straight lines between the updates. "
                    f"On this way: {merging.describe_path(own)} (0: Model 1, 1: merged, 2: Model 2). "
                    f"{_merging_parts.CAUTIOUS} {_merging_parts.optimistic(run)}")
    if "surface" in kinds:
        _frame.part(_surface, run, merging.of_kind(frame, "surface"))
    _merging_parts.job(run, ["path", "surface"], measured=frame is not None)


def _surface(run: Run, frame: pd.DataFrame) -> None:
    marks = _marks(run)
    chosen = st.session_state.get(POINT)
    _widgets.chart(
        _cache.kept(run, ("merge surface", marks, chosen), lambda: merging_figures.surface(frame, marks, chosen)),
        frame, key="merge_surface", title="How much of each model does it take?", on_select=_choose,
        alt="Task Aggregate, MIA AUC, mean forget and mean retain score over the weights of both models",
        caption=f"{_merging_parts.about(run, len(frame), 'mixes')} Update w1 ΔW of Model 1 + w2 ΔW of Model 2. Click a "
                "cell, or choose it below, for all its scores. Merged: the point of this plane that is nearest to it; "
                f"you are here: the weights of the preview. {_merging_parts.optimistic(run)}")
    name = st.selectbox("Mix (w1 : w2)", frame["name"].tolist(), index=None, key=POINT, width=260,
                        placeholder="none chosen", **_merging_parts.BOUND)
    if name is None:
        return
    row = frame[frame["name"] == name].iloc[0]
    with st.container(border=True):
        st.markdown(f"**w1 : w2 = {name}**, norm ratio {row['norm_ratio']:.3f}")
        _widgets.show_table(merging.reading(row), key="merge_point_table", alt=f"All scores of the mix {name}",
                            columns={column: st.column_config.NumberColumn(format="%.3f")
                                     for column in ("score", "low", "high")})
    if st.button("Preview this mix", icon=":material/tune:", key="merge_point_preview",
                 on_click=_merging_preview.preset, args=("linear", "delta", (row["weight_1"], row["weight_2"]))):
        st.rerun()  # the whole page, which shows another section now


def _choose() -> None:
    name = weights.clicked(st.session_state.get("merge_surface_chart"))
    if name is not None:
        st.session_state[POINT] = name


def _marks(run: Run) -> dict[str, tuple[float, float]]:
    """Where the models, their mean, the run's merge and the weights of the preview lie."""
    places = {"base": (0.0, 0.0), "model_1": (1.0, 0.0), "model_2": (0.0, 1.0), "mean": (0.5, 0.5)}
    merged = _cache.kept(run, "nearest mix", lambda: _nearest(run))
    here = _merging_preview.weights_here()
    return places | ({"merged": merged} if merged else {}) | ({"here": here} if here else {})


def _nearest(run: Run) -> tuple[float, float] | None:
    """None where the statistics of the signs do not tell it."""
    try:
        found = signs.read(run)
    except InputError:  # the preview says so
        return None
    if found is None:
        return None
    pooled, choice = merge_preview.pooled(found), run.recipe().merge
    row = merge_preview.at(merge_preview.over_density(pooled, choice), choice.density)
    if math.isnan(row["norm_ratio"]):
        return None
    return merge_preview.nearest_mix(pooled, row["norm_ratio"], (row["cosine_1"], row["cosine_2"]))
