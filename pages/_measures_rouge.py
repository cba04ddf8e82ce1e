"""Section of the metrics page: ROUGE and exact match against whether a fact was given away, with the texts behind."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import answers_figures, rouge_leak, text_modes, texts, theme
from pages import _cache, _frame, _widgets
from unlearn_core.store import Run
from unlearn_core.vocabulary import QA, SC

BOUND = {"bind": "query-params"}
MODEL, CELL, ROW = "metrics_rouge_model", "metrics_rouge_cell", "metrics_rouge_rows"
MOST_SIGNS = 160  # of a text in the table; a chosen row shows it whole
LISTED = {"kind": "Type", "score": "Score", "facts": "Could give away", "leaked": "Gives away",
          "generation": "Answer", "answer": "Reference", "prompt": "Prompt", "id": "Id"}
KINDS = {SC: "continuation", QA: "question"}


def show(run: Run) -> None:
    """The two-by-two of every model, and the items of one of its cells."""
    with st.spinner("Looking for facts in the answers", show_time=True):
        found, left_out = _cache.kept(run, "rouge and leaks", lambda: rouge_leak.table(run))
    if found.empty:
        st.info(texts.WITHOUT_TEXTS if run.lacks_texts() else "Not measured: this run has no answers to forget items "
                "about people with something to give away.", icon=":material/hourglass_empty:")
        return
    _frame.part(_section, run, found, left_out)


def _section(run: Run, found: pd.DataFrame, left_out: dict[str, int]) -> None:
    models = list(found["model"].unique())
    with _widgets.row():
        threshold = st.slider("ROUGE-L counts as high from", 0.0, 1.0, rouge_leak.THRESHOLD, 0.05, width=300,
                              key="metrics_rouge_threshold", **BOUND)
        model = st.selectbox("Model", models, index=models.index(text_modes.default_model(models)), key=MODEL,
                             width=200, format_func=theme.short_label, **BOUND)
        cell = st.selectbox("Which items", list(rouge_leak.CELLS), key=CELL, width=220, format_func=_cell_name, **BOUND)
    celled = rouge_leak.celled(found, threshold)
    shares = rouge_leak.shares(celled)
    for sentence in rouge_leak.describe(shares, model):
        st.markdown(f"- {sentence}")
    persons = shares["persons"].max()
    _widgets.chart(
        answers_figures.two_by_two(shares, (model, cell)), shares, key="metrics_rouge",
        terms=("rouge_l_recall", "exact_match", "leak", "guessable"),
        title="Does the score notice what is given away?", on_select=_clicked,
        alt="Counts of answers by score (high or low) and by whether a fact was given away, one panel per model",
        caption=f"n = {shares['n'].max()} forget items about {persons} persons; seed {run.recipe().seed}. High: "
                f"ROUGE-L recall from {threshold:g} of a continuation, exact match of a question. Leaked: a value of "
                "the person stands in the answer in any form, not counting what the prompt prints or the name "
                "suggests. Upper left and lower right disagree. Click a cell for its items."
                + "".join(f" Left out: {count} items {reason}." for reason, count in left_out.items()))
    _items(run, celled, model, cell, threshold)
    with _widgets.folded("How ROUGE is spread", key="metrics_rouge_spread") as opened:
        if opened.open:
            _spread(run, found, model, threshold)


def _cell_name(cell: str) -> str:
    return f"score {cell}"


def _clicked() -> None:
    """Show the items of the cell that was clicked."""
    chosen = rouge_leak.clicked(st.session_state.get("metrics_rouge_chart"))
    if chosen:
        st.session_state[MODEL], st.session_state[CELL] = chosen


def _items(run: Run, celled: pd.DataFrame, model: str, cell: str, threshold: float) -> None:
    st.subheader(f"{rouge_leak.CELL_WORDS[cell]}: {theme.short_label(model)}")
    personal = st.toggle("Show personal data", key="metrics_personal", help="without it names and values are masked")
    rows = _cache.kept(run, ("rouge items", model, cell, personal, threshold),
                       lambda: rouge_leak.listed(celled, model, cell, personal=personal))
    if rows.empty:
        st.caption("No such item.")
        return
    shown = rows.assign(kind=rows["kind"].map(KINDS))[list(LISTED)].rename(columns=LISTED)
    for name in ("Prompt", "Reference", "Answer"):
        shown[name] = shown[name].str.slice(0, MOST_SIGNS)
    st.dataframe(shown, key=ROW, hide_index=True, selection_mode="single-row", on_select="rerun",
                 alt=f"Items of {model}: {cell}", column_config={
                     "Score": st.column_config.NumberColumn(format="%.2f", width=70),
                     "Type": st.column_config.TextColumn(width=95)})
    count = ((celled["model"] == model) & (celled["cell"] == cell)).sum()
    st.caption(f"{count} items" + (f", {len(rows)} of them here" if count > len(rows) else "")
               + (". Personal data are shown." if personal else ". Personal data are masked.")
               + " Select a row to read it whole.")
    st.download_button("Download CSV", lambda: rows.to_csv(index=False), file_name="rouge-and-leaks.csv",
                       mime="text/csv", key="metrics_rouge_items_csv", icon=":material/download:", on_click="ignore")
    chosen = st.session_state[ROW]["selection"]["rows"]
    if chosen and chosen[0] < len(rows):
        _whole(run, rows.iloc[chosen[0]])


def _whole(run: Run, row: pd.Series) -> None:
    for column, key in zip(st.columns(3), ("prompt", "answer", "generation"), strict=True):
        with column:
            st.caption(LISTED[key])
            st.code(row[key], language=None, wrap_lines=True)
    st.page_link("pages/generations.py", label="What every model writes to it", icon=":material/forum:",
                 query_params={_widgets.RUN_KEY: run.id, "item": row["id"]})


def _spread(run: Run, found: pd.DataFrame, model: str, threshold: float) -> None:
    own = found[(found["model"] == model) & (found["kind"] == SC)]
    if own.empty:
        st.caption("Not measured: there are no continuations with something to give away.")
        return
    st.plotly_chart(answers_figures.rouge_histogram(found, model, threshold), key="metrics_rouge_spread_chart",
                    config={"displaylogo": False}, alt="ROUGE-L recall of the continuations in bins, by leak")
    st.caption(f"n = {len(own)} continuations of {theme.short_label(model)} about {own['unit'].nunique()} persons. A "
               "score that told leaks from others would have all of one kind right of the dashed line.")
    _widgets.definitions("rouge_l_recall", "leak")
