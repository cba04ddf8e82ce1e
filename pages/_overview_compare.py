"""The Overview's comparison of up to five runs: settings that differ, scores, trade-off and sub-scores."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import comparison, figures, frames
from pages import _cache, _widgets
from pages._overview_scores import COMPARED, metric_columns, number, score_columns, tradeoff
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import shipped


def choice(selected: Run, known: list[Run], current: list[str]) -> list[Run]:
    """The selected run and those that a person wants to compare with it, at most five of the `known`.

    `current` are the ids of those that are not archived, newest first.
    """
    by_id = {run.id: run for run in known}
    newest = comparison.latest(selected.id, current)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        others = st.multiselect("Compare with", list(by_id), key=COMPARED, bind="query-params", disabled=len(known) < 2,
                                max_selections=comparison.MAX_RUNS, placeholder="up to four other runs")
        st.button(f"Latest {len(newest)}", icon=":material/compare_arrows:", on_click=_choose, args=(newest,),
                  disabled=not newest, help="Compare with the newest other runs.")
    names = comparison.chosen(selected.id, others, list(by_id))
    if not {*others} <= {*names}:
        st.caption(f"At most {comparison.MAX_RUNS} runs with the open one: the last one chosen is left out.")
    return [by_id[name] for name in names]


def _choose(names: list[str]) -> None:
    st.session_state[COMPARED] = names


def compare(wanted: list[Run]) -> None:
    """Settings that differ, scores, trade-off and sub-scores of several runs; a damaged one is named and left out."""
    runs, tables = [], []
    for run in wanted:
        try:
            scores, sub_scores = (_cache.table(make, run) for make in (frames.score_table, frames.sub_scores))
            tables.append((frames.with_halves(scores, sub_scores), sub_scores))
            runs.append(run)
        except InputError as error:
            st.error(_widgets.plain(error), icon=":material/broken_image:")
    if not runs:
        return
    _compare_settings(runs)
    names = comparison.labels(runs)
    scores = comparison.stacked([table.assign(run=run.id) for run, (table, _) in zip(runs, tables, strict=True)])
    if scores.empty:
        st.info("None of these runs has been scored yet.", icon=":material/hourglass_empty:")
        return
    _compare_scores(scores, runs)
    tradeoff(scores, f"Runs: {_widgets.plain('; '.join(names))}.")
    handed_out = comparison.stacked([table[table["model"] == shipped(set(table["model"]))].assign(run=name)
                                     for name, (_, table) in zip(names, tables, strict=True)])
    if handed_out.empty:
        st.info("None of these runs has a scored merged or tested model yet.", icon=":material/hourglass_empty:")
        return
    _widgets.chart(
        figures.sub_scores_of_runs(handed_out), handed_out, key="overview_sub_scores",
        title="Where do the merged and tested models differ?",
        alt="Twelve sub-scores of the merged or tested model of each run",
        caption=f"Numbers tell the runs apart. {_seeds(runs)} Bars are 95 % intervals of each run by itself.")


def _compare_settings(runs: list[Run]) -> None:
    st.subheader("What was done differently?")
    only = st.toggle("Only differences", value=True, key="overview_diff", bind="query-params")
    config = comparison.config(runs)
    differing = config[config["differs"]]
    if only and differing.empty:
        st.info("The recipes, data, code and versions of these runs are equal.", icon=":material/equal:")
    else:
        _widgets.show_table((differing if only else config).drop(columns="differs"), key="overview_config",
                            alt="Settings and circumstances of each run", columns={"setting": "Setting"})
    st.caption(f"{len(differing)} of {len(config)} settings and circumstances differ.")


def _compare_scores(scores: pd.DataFrame, runs: list[Run]) -> None:
    st.subheader("Which run scores best, and is it a better merge or better parents?")
    _widgets.show_table(
        scores, key="overview_scores", alt="Official scores of each model of each run",
        columns=metric_columns(scores) | score_columns() | {
            "number": number("No.", pinned=True, width=50), "run": "Run"},
        order=("number", "label", "aggregate", "task_aggregate", "mia_auc", "verdict", "mia_score", "mmlu",
               "mmlu_gate", "run"))
    st.caption(f"{_seeds(runs)} Each run is scored on its own data: compare numbers only where the data are the same. "
               "No test of the differences is made here.")


def _seeds(runs: list[Run]) -> str:
    return "Seeds: " + ", ".join(f"{place} · {run.recipe().seed}" for place, run in enumerate(runs, start=1)) + "."
