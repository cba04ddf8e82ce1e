"""Sections of the merge page: methods as they come and at one norm (Table 2 of the paper), densities (Fig. 5)."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import merging, merging_figures, published
from pages import _cache, _merging_parts, _widgets
from unlearn_core.store import Run

SHOWN = {"name": "Method", "scale": "Scale", "rank": "Rank", "task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC",
         "mia_auc_low": "AUC low", "mia_auc_high": "AUC high", "forget": "Mean forget", "retain": "Mean retain",
         "norm_ratio": "Norm ratio", "cosine_1": "Cosine to Model 1", "cosine_2": "Cosine to Model 2"}


def show_methods(run: Run) -> None:
    """Every method, with what size alone does; the paper's numbers folded."""
    frame = _merging_parts.scored(run, list(merging.METHOD_KINDS))
    if frame is not None:
        _methods(run, frame)
    with _widgets.folded("What the paper reports (Table 2: other models, other data)", key="merge_published") as opened:
        if opened.open:
            table = published.merging_table().rename(columns={"method": "Method", "aggregate": "Aggregate"})
            _widgets.show_table(table, key="merge_published_table", alt="Aggregate of each way of merging, published",
                                columns={"Aggregate": st.column_config.NumberColumn(format="%.3f")})
            st.caption("arXiv 2503.21088, a 7B model on the official data, and the Aggregate, in which MMLU and the "
                       "MIA score count, too. Each as it comes in PEFT; densities and weights of the others are not "
                       "given. Sizes of the updates are not reported.")
    _merging_parts.job(run, ["methods"], measured=frame is not None)


def _methods(run: Run, frame: pd.DataFrame) -> None:
    methods = merging.methods(frame)
    choice = run.recipe().merge
    _widgets.chart(
        _cache.kept(run, "method dots", lambda: merging_figures.method_dots(methods)), methods, key="merge_methods",
        terms=("norm_ratio", "cosine", "merge.method"),
        title="Is it the method, or the size of its update?",
        alt="Norm ratio, scores and cosines of every method, as it comes and at one norm",
        caption=f"{_merging_parts.about(run, len(methods), 'merges')} Density {choice.density:g}, weights "
                f"{' : '.join(f'{weight:g}' for weight in choice.weights)}. Open: as it comes; filled: scaled to the "
                f"mean norm of both parents. {_merging_parts.CAUTIOUS} {_merging_parts.optimistic(run)}")
    for sentence in merging.describe_methods(methods):
        st.markdown(f"- {sentence}")
    if parents := merging.describe_parents(frame):
        st.caption(parents)
    st.subheader("All methods")
    shown = methods.assign(scale=methods["kind"].map(merging.METHOD_KINDS))[list(SHOWN)].rename(columns=SHOWN)
    formats = {name: st.column_config.NumberColumn(format="%.3f") for name in shown.columns[3:]}
    _widgets.show_table(shown, key="merge_methods_table", alt="Scores, size and directions of every method",
                        columns=formats)


def show_density(run: Run) -> None:
    """The run's own method over the densities."""
    frame = _merging_parts.scored(run, ["density"])
    if frame is not None:
        own, choice = merging.of_kind(frame, "density"), run.recipe().merge
        _widgets.chart(
            _cache.kept(run, "density curves", lambda: merging_figures.density_curves(own, choice.density)),
            own, key="merge_density_curves", title="Is the density of this run on a plateau, or on a cliff?",
            terms=("density",),
            alt="Task Aggregate, MIA AUC, mean forget and mean retain score over density",
            caption=f"{_merging_parts.about(run, len(own), 'densities')} Dashed: the run's density, "
                    f"{choice.density:g}; dotted: the ideal AUC. {_merging_parts.CAUTIOUS} "
                    f"{_merging_parts.optimistic(run)}")
        for metric in merging.MEASURED:
            st.markdown(f"- {merging.describe_density(own, metric)}")
        st.caption("Told apart: intervals that do not overlap; for the Task Aggregate those of one of its twelve "
                   "scores. Intervals that overlap do not prove that two densities are equal.")
        if parents := merging.describe_parents(frame):
            st.caption(parents)
    _merging_parts.job(run, ["density"], measured=frame is not None)
