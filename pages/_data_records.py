"""Section of the data page: the records, one of them in full, and what the model sees of it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import data_frames
from pages import _data_source, _data_summary, _widgets
from unlearn_core.data import Item
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import QA, SC, TASKS

# How a token of each part looks: colour and a mark, so that it can be told without colour.
LOOKS = {data_frames.CUT_PROMPT: ":gray[~~{}~~]", data_frames.PROMPT: ":gray-background[{}]",
         data_frames.ANSWER: ":blue-background[**{}**]", data_frames.END: ":violet-background[**{}**]",
         data_frames.CUT_ANSWER: ":orange[~~{}~~]"}
LEGEND = {data_frames.CUT_PROMPT: "cut from the prompt's start", data_frames.PROMPT: "prompt: read, no loss",
          data_frames.ANSWER: "answer: read, and the losses count it", data_frames.END: "end token, in the losses too",
          data_frames.CUT_ANSWER: "cut from the answer's end"}
MOST_CUT = 200  # cut tokens that are shown
SPACES = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "⏎"})


def records(source: data_frames.Source, run: Run | None, recipe: Recipe | None, personal: bool) -> None:
    """Filters, the table, and the chosen record."""
    st.subheader("Which records are there, and what do they say?")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        split = st.pills("Split", list(source.splits), key="data_split", bind="query-params")
        task = st.pills("Task", TASKS, key="data_task", bind="query-params")
        kind = st.pills("Type", [SC, QA], key="data_kind", bind="query-params",
                        format_func=lambda kind: data_frames.KIND_LABELS[kind])
        search = st.text_input("Search", key="data_search", bind="query-params", icon=":material/search:",
                               help="in ids and in the texts as they are shown; personal data are found only while "
                                    "they are shown", width=260)
    people = _data_source.masking(source, personal)
    table, count, unseen = data_frames.records(source.splits, people, split=split, task=task, kind=kind, search=search)
    st.caption(f"{count} records" + (f", the first {len(table)} of them in the table" if count > len(table) else "")
               + (f"; {unseen} more were not searched: choose a split or task" if unseen else "")
               + (". Personal data are masked." if people is not None else ". Personal data are shown."))
    if table.empty:
        return
    st.dataframe(table, width="stretch", hide_index=True, key="data_records", selection_mode="single-row",
                 on_select=lambda: _choose(table), height=320, alt="Records of the choice",
                 column_config={"split": st.column_config.TextColumn("Split", width=70), "task": "Task",
                                "kind": "Type", "id": st.column_config.TextColumn("Id", width="small"),
                                "prompt": st.column_config.TextColumn("Prompt", width="large"),
                                "answer": st.column_config.TextColumn("Answer", width="medium")},
                 column_order=("split", "task", "kind", "id", "prompt", "answer"))
    st.download_button("Download CSV", lambda: table.to_csv(index=False), file_name="records.csv", mime="text/csv",
                       key="data_records_csv", icon=":material/download:", on_click="ignore")
    _one(source, run, recipe, table)


def _choose(table: pd.DataFrame) -> None:
    rows = st.session_state["data_records"].selection.rows
    if rows:
        st.session_state["data_item"] = table["id"].iloc[rows[0]]


# ---- one record ------------------------------------------------------------------------------------------------

def _one(source: data_frames.Source, run: Run | None, recipe: Recipe | None, table: pd.DataFrame) -> None:
    chosen = st.selectbox("Record", table["id"].drop_duplicates().tolist(), key="data_item", bind="query-params",
                          help="or choose a row of the table")
    row = table[table["id"] == chosen].iloc[0]
    items = source.splits[row["split"]]
    index = next(number for number, item in enumerate(items) if item.id == chosen)
    item = items[index]
    for column, part in zip(st.columns(2), ("prompt", "answer"), strict=True):
        with column:
            st.caption(part.capitalize())
            st.code(row[part], language=None, wrap_lines=True)
    if run and source.name == f"run {run.id}":
        st.page_link("pages/generations.py", label="What the models write to it", icon=":material/forum:",
                     query_params={_widgets.RUN_KEY: run.id, "item": item.id})
    masked = (row["prompt"], row["answer"]) != (item.prompt, item.answer)
    _what_the_model_sees(source, run, recipe, items, index, masked)


def _what_the_model_sees(source: data_frames.Source, run: Run | None, recipe: Recipe | None, items: list[Item],
                         index: int, masked: bool) -> None:
    st.subheader("What does the model see of it, and what do the losses count?")
    encoding = _data_summary.chosen_encoding(recipe)
    tokenizer = _data_source.tokenizer(run, recipe)
    if tokenizer is None:
        st.info("Tokens need a tokenizer: choose a run in the sidebar whose base lies on this machine.",
                icon=":material/data_array:")
        return
    sizes = recipe.model_1.batch_size, recipe.model_1.klr_positions == "padded"
    width = data_frames.row_width(tokenizer, items, index, sizes[0], encoding, sizes[1])
    tokens = data_frames.tokens(tokenizer, items[index], encoding, width)
    counts = tokens["part"].value_counts().reindex(data_frames.PARTS, fill_value=0)
    st.markdown(f"**{counts[data_frames.PROMPT]}** tokens of the prompt, read without loss · "
                f"**{int(tokens['loss'].sum())}** in the losses: {counts[data_frames.ANSWER]} of the answer and "
                f"{counts[data_frames.END]} end · **{counts[data_frames.PADDING]}** padding · cut: **"
                f"{counts[data_frames.CUT_PROMPT]}** of the prompt, **{counts[data_frames.CUT_ANSWER]}** of the answer")
    if masked:
        st.info("The tokens spell personal data: they appear with the switch Show personal data.",
                icon=":material/visibility_off:")
    else:
        st.markdown(token_row(tokens))
        with _widgets.folded("Table of the tokens", key="data_token_table") as opened:
            if opened.open:
                _widgets.show_table(tokens, key="data_tokens", alt="Tokens of the record")
    st.caption("  \n".join(["Marks: " + ", ".join(look.format(LEGEND[part]) for part, look in LOOKS.items()) + ".",
                            f"· is a space, ⏎ a line's end. Padding: as in a micro-batch of {sizes[0]} of model 1, if "
                            "micro-batches followed the order of the file; no loss and no attention reaches it. The "
                            "tokenizer is that of the chosen run's base."]))


def token_row(tokens: pd.DataFrame) -> str:
    """The tokens as Markdown, each in the look of its part; padding as one mark, and not more than `MOST_CUT` of
    those that were cut from a side."""
    shown = []
    for _, own in tokens.groupby((tokens["part"] != tokens["part"].shift()).cumsum()):
        name = own["part"].iloc[0]
        if name == data_frames.PADDING:
            shown.append(f":gray-badge[padding × {len(own)}]")
            continue
        texts = own["token"].tolist()
        if name in (data_frames.CUT_PROMPT, data_frames.CUT_ANSWER) and len(texts) > MOST_CUT:
            shown.append(f":gray-badge[{len(texts) - MOST_CUT} more that are cut]")
            texts = texts[-MOST_CUT:] if name == data_frames.CUT_PROMPT else texts[:MOST_CUT]
        shown += [LOOKS[name].format(_widgets.plain(text.translate(SPACES)) or "∅") for text in texts]
    return " ".join(shown)
