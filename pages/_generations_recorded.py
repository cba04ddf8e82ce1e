"""Part of the generations page: the recorded answers, listed worst first, and one item with all its models."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from analysis import text_marks, text_modes, texts, theme
from pages import _cache, _frame, _generations_text, _widgets
from unlearn_core.store import Run
from unlearn_core.vocabulary import QA, SC, SPLITS, TASKS

BOUND = {"bind": "query-params"}  # every choice is part of the address
ITEM = "item"  # key and query parameter: other pages link to it
MOST_ROWS, MOST_SIGNS = 300, 160  # of the table; the arrows and the download reach all rows and the whole texts
KIND_LABELS = {SC: "continuation", QA: "question"}
MARKS = {"overlap": "Overlap with the reference", "diff": "Difference from the reference",
         "other": "Difference from a model", "none": "No marks"}
MARK_WORDS = {text_marks.OVERLAP: "word of the longest common subsequence with the reference, as ROUGE-L counts it",
              text_marks.INSERTED: "only in this answer", text_marks.DELETED: "missing in it"}


def table(run: Run) -> pd.DataFrame:
    """The run's recorded answers; a damaged file ends the page."""
    with _frame.bad_input_shown(), st.spinner("Reading the answers", show_time=True):
        return _cache.table(texts.answer_table, run)


def show(run: Run) -> None:
    """The list of items in the chosen mode, and the chosen item."""
    found = table(run)
    if found.empty:
        st.info(texts.absent(run), icon=":material/hourglass_empty:")
        return
    found = found.assign(name=texts.item_names(found))
    models = list(found["model"].unique())
    rows, mode = _choose(run, found, models)
    if not rows.empty:
        _list(rows, mode)
    _item(run, found, models, rows)


# ---- the list --------------------------------------------------------------------------------------------------

def _choose(run: Run, found: pd.DataFrame, models: list[str]) -> tuple[pd.DataFrame, str]:
    """Rows of the chosen mode and filters, and the mode."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        mode = st.segmented_control("Mode", text_modes.MODES, default="all", required=True, key="generations_mode",
                                    format_func=text_modes.MODES.get, **BOUND)
        model = st.selectbox("Model it speaks of", models, index=models.index(text_modes.default_model(models)),
                             key="generations_model", format_func=theme.short_label, width=200, **BOUND)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        split = st.pills("Split", [split for split in SPLITS if split in found["split"].unique()],
                         key="generations_split", **BOUND)
        task = st.pills("Task", TASKS, key="generations_task", **BOUND)
        kind = st.pills("Type", [SC, QA], key="generations_kind", format_func=KIND_LABELS.get, **BOUND)
        search = st.text_input("Search", key="generations_search", icon=":material/search:", width=260,
                               help="words in any order, in the id, the prompt, the reference and the model's answer",
                               **BOUND)
    lacking = text_modes.needs(mode, models)
    if lacking:
        st.info(lacking, icon=":material/hourglass_empty:")
    # The names from all answers: only they show whether an id stands on both sides.
    names = found.drop_duplicates(["split", "id"])[["split", "id", "name"]]
    listed = _cache.kept(run, (mode, model), lambda: text_modes.listing(found, mode, model).merge(
        names, on=["split", "id"], how="left"))
    rows = text_modes.filtered(listed, split=split, task=task, kind=kind, search=search)
    shown = f", the first {MOST_ROWS} of them in the table" if len(rows) > MOST_ROWS else ""
    st.caption(f"**{len(rows)} items**{shown}, of {len(found['name'].unique())}. {text_modes.MODE_HELP[mode]}")
    return rows, mode


def _list(rows: pd.DataFrame, mode: str) -> None:
    shown = rows.head(MOST_ROWS).assign(kind=rows["kind"].map(KIND_LABELS))
    shown = shown.assign(**{column: shown[column].str.slice(0, MOST_SIGNS) for column in
                            ("prompt", "answer", "generation")})
    st.dataframe(
        shown, width="stretch", hide_index=True, height=260, key="generations_list", selection_mode="single-row",
        on_select=lambda: _choose_row(rows), placeholder=_widgets.NOT_MEASURED, alt=f"Items: {text_modes.MODES[mode]}",
        column_order=("split", "task", "kind", "why", "score", "prompt", "answer", "generation", "id"),
        column_config={"split": st.column_config.TextColumn("Split", width=70),
                       "task": st.column_config.TextColumn("Task", width=70),
                       "kind": st.column_config.TextColumn("Type", width=95), "why": "What was found",
                       "score": st.column_config.ProgressColumn("Score", min_value=0, max_value=1, format="%.2f",
                                                                width=90,
                                                                help="ROUGE-L recall of a continuation, exact match "
                                                                     "of a question"),
                       "prompt": "Prompt", "answer": "Reference", "generation": "Answer", "id": "Id"})
    st.download_button("Download the list as CSV", lambda: rows.to_csv(index=False), file_name=f"items-{mode}.csv",
                       mime="text/csv", key="generations_list_csv", icon=":material/download:", on_click="ignore")
    _widgets.definitions("rouge_l_recall", "exact_match", "leak", "collapse")


def _choose_row(rows: pd.DataFrame) -> None:
    chosen = st.session_state["generations_list"].selection.rows
    if chosen:
        st.session_state[ITEM] = rows["name"].iloc[chosen[0]]


# ---- one item --------------------------------------------------------------------------------------------------

def chosen_item(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of one item, by its name or its bare id; empty for an unknown one."""
    own = found[found["name"] == name]
    own = own if len(own) else found[found["id"] == name]
    return own[own["split"] == own["split"].iloc[0]] if len(own) else own


def _item(run: Run, found: pd.DataFrame, models: list[str], rows: pd.DataFrame) -> None:
    st.subheader("What does each model write to it?")
    names = rows["name"].tolist()
    wanted = st.session_state.get(ITEM) or st.query_params.get(ITEM) or (names[0] if names else "")
    own = chosen_item(found, wanted)
    place = names.index(own["name"].iloc[0]) if len(own) and own["name"].iloc[0] in names else None
    _steps(names, place)
    if own.empty:
        st.info(f"There is no item {_widgets.plain(wanted)} in this run." if wanted else
                "No item fits this choice.", icon=":material/search_off:")
        return
    first = own.iloc[0]
    st.caption(f"{_widgets.plain(first['split'])} · {_widgets.plain(first['task'])} · "
               f"{KIND_LABELS.get(first['kind'], '')} · document {_widgets.plain(first['document'])}")
    for column, (title, text) in zip(st.columns(2), (("Prompt", first["prompt"]), ("Reference", first["answer"])),
                                     strict=True):
        with column:
            st.caption(title)
            st.code(text, language=None, wrap_lines=True)
    chosen, marks, other, stacked = _view(models)
    _cards(own, chosen, marks, other, stacked)
    _keep(run, own[own["model"].isin(chosen)])


def _steps(names: list[str], place: int | None) -> None:
    """Previous, next, where one stands, and the item itself."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button("Previous", icon=":material/arrow_back:", key="generations_previous", disabled=not place,
                  on_click=_go_to, args=(names, (place or 0) - 1))
        following = 0 if place is None else place + 1
        st.button("Next", icon=":material/arrow_forward:", key="generations_next", on_click=_go_to,
                  args=(names, following), disabled=following >= len(names))
        st.text_input("Item", key=ITEM, placeholder="id, else the first of the list", width=330, **BOUND)
        where = f"{place + 1} of {len(names)} in the list" if place is not None else "not in the list"
        st.caption(where if names else "the list is empty")


def _go_to(names: list[str], place: int) -> None:
    st.session_state[ITEM] = names[place]


def _view(models: list[str]) -> tuple[list[str], str, str | None, bool]:
    """Which models are shown, with which marks, against which model, and whether below each other."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        chosen = st.pills("Models", models, default=models, selection_mode="multi", key="generations_models",
                          format_func=theme.short_label, **BOUND)
        marks = st.selectbox("Marks", MARKS, key="generations_marks", format_func=MARKS.get, width=260, **BOUND)
        other = st.selectbox("From", models, key="generations_other", format_func=theme.short_label, width=180,
                             **BOUND) if marks == "other" else None
        stacked = st.toggle("Below each other", key="generations_stacked", **BOUND)
    return [model for model in models if model in chosen], marks, other, stacked


def _cards(own: pd.DataFrame, models: list[str], marks: str, other: str | None, stacked: bool) -> None:
    answers = {row["model"]: row for row in own.to_dict("records")}
    if not models:
        st.info("Choose at least one model.", icon=":material/forum:")
        return

    def body(model: str) -> None:
        if model not in answers:
            st.caption(f"{_widgets.NOT_MEASURED}: no answer to this item was recorded")
            return
        row = answers[model]
        _generations_text.show_badges(row)
        _generations_text.show(_pieces(row, marks, answers.get(other)))
        st.caption(_facts(row))

    _generations_text.cards(models, body, stacked=stacked)
    shown = {"overlap": [text_marks.OVERLAP], "diff": [text_marks.INSERTED, text_marks.DELETED],
             "other": [text_marks.INSERTED, text_marks.DELETED]}.get(marks, [])
    if marks == "other" and other not in answers:
        st.caption(f"{theme.short_label(other)} has no answer to compare with.")
    elif shown:
        st.caption(_generations_text.legend(shown, MARK_WORDS))


def _pieces(row: Mapping, marks: str, other: Mapping | None) -> list[text_marks.Piece]:
    if marks == "overlap":
        return text_marks.overlap(row["answer"], row["generation"])
    if marks == "diff":
        return text_marks.word_diff(row["answer"], row["generation"])
    if marks == "other" and other is not None:
        return text_marks.word_diff(other["generation"], row["generation"])
    return [text_marks.Piece(row["generation"])]


def _facts(row: Mapping) -> str:
    """Numbers of a recorded answer, in words."""
    nll = _widgets.NOT_MEASURED if pd.isna(row["nll"]) else f"{row['nll']:.3g} nats per token"
    written = "" if pd.isna(row["new_tokens"]) else f"{row['new_tokens']:.0f} tokens written · "
    return f"{written}loss on the reference: {nll}"


def _keep(run: Run, own: pd.DataFrame) -> None:
    """A note on the item, and what is seen as files; what is asked next."""
    name = own["name"].iloc[0] if len(own) else ""
    note = st.text_area("Note", key=f"generations_note_{run.id}_{name}", persist_state="session", height=80,
                        placeholder="kept until this browser tab is closed, and part of the downloads")
    rows = texts.shown_rows(own, note).assign(run=run.id)
    with st.container(horizontal=True, gap="small"):
        st.download_button("Download what is shown as CSV", lambda: rows.to_csv(index=False), mime="text/csv",
                           file_name="answers.csv", key="generations_csv", icon=":material/download:",
                           on_click="ignore")
        st.download_button("as JSON", lambda: rows.to_json(orient="records", indent=1, force_ascii=False),
                           mime="application/json", file_name="answers.json", key="generations_json",
                           icon=":material/download:", on_click="ignore")
        if _frame.may_change(run) and len(own) and st.button(
                "Ask the models now", icon=":material/forum:", key="generations_ask_item", on_click=_ask, args=(name,),
                help="with this prompt, changed or not, greedily or several times"):
            st.rerun()  # the whole page, which shows the other view


def _ask(name: str) -> None:
    st.session_state[ITEM] = name
    st.session_state["generations_view"] = "live"
