"""Sections of the data page about the whole of a data set: problems, counts, lengths, subset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from analysis import data_figures, data_frames
from pages import _data_source, _frame, _widgets
from unlearn_core.data import Item, request
from unlearn_core.data.check import Report
from unlearn_core.settings import MAX_SEED, Encoding, Recipe
from unlearn_core.store import Run, now
from unlearn_core.tokens import SavedTokenizer
from unlearn_core.vocabulary import TASK_LABELS

SAVED = "data_saved"  # (source, name, command) of the data set that was saved last


# ---- problems of the files -------------------------------------------------------------------------------------

def problems(source: data_frames.Source) -> None:
    """What is wrong in the files, row by row; an upload without errors can be saved."""
    counts = ", ".join(f"{split} {len(items)}" for split, items in source.splits.items())
    if source.errors:
        table = data_frames.problems(source.errors[:data_frames.SHOWN])
        more = len(source.errors) - len(table)
        st.error(f"{len(source.errors)} problem{'s' if len(source.errors) > 1 else ''} in "
                 f"{_widgets.plain(source.name)}; good rows: {counts}."
                 + (" What follows is about the good rows." if source.items else ""), icon=":material/rule:")
        st.dataframe(table, width="stretch", hide_index=True, height="content" if len(table) < 12 else 420,
                     column_order=("file", "row", "problem"), alt="Problems of the files by row")
        if more:
            st.caption(f"{more} more problems are in the CSV.")
        st.download_button("Download all problems as CSV",
                           lambda: data_frames.problems(source.errors).to_csv(index=False), file_name="problems.csv",
                           mime="text/csv", key="data_problems", icon=":material/download:", on_click="ignore")
    else:
        st.caption(f"{_widgets.plain(source.name)}: {counts} items, every row readable.")
    if source.complete and source.name == "upload" and not _frame.read_only():
        _save_upload(source)
    if not source.items:
        st.stop()


def _save_upload(source: data_frames.Source) -> None:
    with st.form("data_upload_form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Name of the data set", key="data_upload_name", max_chars=60, placeholder="my-data", width=320)
        st.form_submit_button("Save as a data set", icon=":material/save:", key="data_upload_save",
                              on_click=_frame.attempt, args=(lambda: save(
                                  st.session_state["data_upload_name"], source.splits["forget"],
                                  source.splits["retain"], {"source": "upload"}),))
    show_saved("upload")


def save(name: str, forget: Sequence[Item], retain: Sequence[Item], note: dict, **options: str | bool) -> None:
    """Save a data set under a name, and remember how to run on it; `options` are those of `request.command`."""
    folder = _frame.store().dataset_dir(name.strip())
    request.save(folder, forget, retain, {"created": now(), **note})
    st.session_state[SAVED] = (note["source"], name.strip(), request.command(folder, **options))


def show_saved(source: str) -> None:
    """What was saved last from this source, and how to run on it."""
    saved_from, name, command = st.session_state.get(SAVED, ("", "", ""))
    if name and saved_from == source:
        st.success(f"Saved as {_widgets.plain(name)}: choose it above under Made here, or run on it with:",
                   icon=":material/check_circle:")
        _widgets.command(command)


# ---- counts and lengths ----------------------------------------------------------------------------------------

def counts_and_lengths(source: data_frames.Source, run: Run | None, recipe: Recipe | None, personal: bool) -> None:
    """Counts by task, type and split; token lengths with the cut; what the check says."""
    encoding = chosen_encoding(recipe)
    tokenizer = _data_source.tokenizer(run, recipe)
    report, groups, counts, lengths = _drawn(source.key, str(tokenizer and run.path.resolve()), encoding, source,
                                             tokenizer)
    seed = f"subset seed {recipe.data.subset_seed}, " if recipe and source.name == f"run {run.id}" else ""
    _widgets.chart(
        counts, groups[["split", "task", "kind", "items", "documents"]], key="data_counts",
        terms=("forget", "sc", "task1"),
        title="Is there as much to keep as to forget, of every kind?", alt="Items per task, type and split",
        caption=f"n: {len(source.items)} items, {seed}"
                + "; ".join(f"{task}: {label}" for task, label in TASK_LABELS.items())
                + ". A document has one continuation and one or more questions.")
    _widgets.chart(
        lengths, groups, key="data_lengths",
        terms=("encoding.max_length",),
        title=f"Do the answers fit into {encoding.max_length} tokens?",
        alt="Tokens per item for each task and type, with the cut",
        caption=f"Tokens are {_how_counted(report, run, tokenizer)}. {data_frames.cuts(report)}. Shares per group: see "
                "the table.")
    _findings(report)


def _how_counted(report: Report, run: Run | None, tokenizer: SavedTokenizer | None) -> str:
    if report.tokens == "counted":
        return "counted with the tokenizer of the chosen run's base"
    why = ("there are too many items to count" if tokenizer else
           "the chosen run has no tokenizer on this machine" if run else "no run is chosen that has a tokenizer")
    return f"{report.tokens}, since {why}"


def chosen_encoding(recipe: Recipe | None) -> Encoding:
    """The chosen run's encoding, with the length of the page's field."""
    encoding = recipe.encoding if recipe else Encoding()
    length = st.number_input("Tokens that the model sees of an item", min_value=8, max_value=32_768,
                             value=encoding.max_length, key="data_max_length", bind="query-params", width=320,
                             help="encoding.max_length of a recipe: prompt, answer and end; longer items are cut")
    return dataclasses.replace(encoding, max_length=length)


@st.cache_resource(max_entries=8, show_spinner="Counting tokens")
def _drawn(key: str, tokenizer_of: str, encoding: Encoding, _source: data_frames.Source,
           _tokenizer: SavedTokenizer | None) -> tuple[Report, pd.DataFrame, go.Figure, go.Figure]:
    """The check, its groups, and the figures of counts and lengths. One for all: nobody may change it."""
    report, histogram = data_frames.check(_source, _tokenizer.count if _tokenizer else None, encoding)
    groups = data_frames.groups(report)
    return report, groups, data_figures.counts(groups), data_figures.lengths(histogram, encoding.max_length)


def _findings(report: Report) -> None:
    table = data_frames.problems([], report)
    st.subheader("What the check says")
    if table.empty:
        st.caption("Nothing: no repeated text, nothing on both sides, no answer that is cut.")
        return
    st.caption(f"{len(report.errors)} errors, {len(report.warnings)} warnings. An overlap is an error unless the "
               "recipe declares it with data.allow_overlap.")
    _widgets.show_table(table[["severity", "problem"]].head(data_frames.SHOWN), key="data_findings",
                        alt="Findings of the check", columns={"severity": st.column_config.TextColumn(width="small")})


# ---- subset -----------------------------------------------------------------------------------------------------

def subset(source: data_frames.Source, run: Run | None, recipe: Recipe | None, personal: bool) -> None:
    """How many documents a run takes, and which seed chooses them."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        documents = st.number_input("Documents per task and split", min_value=0, max_value=1_000_000, value=0,
                                    key="data_per_task", bind="query-params", width=260, help="0: all")
        seed = st.number_input("Subset seed", min_value=0, max_value=MAX_SEED, value=0, key="data_subset_seed",
                               bind="query-params", width=260)
    counts = data_frames.subset_counts(source.splits, documents, seed)
    _widgets.chart(
        data_figures.subset_bars(counts), counts, key="data_subset",
        terms=("data.documents_per_task", "data.subset_seed"),
        title="What does a run on the subset learn and forget?",
        alt="Items per task and split in the subset",
        caption=f"Subset seed {seed}; {int(counts['items_kept'].sum())} of {int(counts['items'].sum())} items. Whole "
                "documents are chosen by their ids and the seed; a smaller subset lies inside a larger one.")
    st.caption("The same in a run:")
    _widgets.command(f"--set data.documents_per_task={documents} --set data.subset_seed={seed}")
