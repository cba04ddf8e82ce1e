"""Section of the data page: a forget request, its outcome in numbers and words, and the data set it makes."""

from __future__ import annotations

import streamlit as st

from analysis import data_frames
from pages import _data_source, _data_summary, _frame, _widgets
from unlearn_core.data import persons, request
from unlearn_core.data.request import Request, Requested
from unlearn_core.errors import InputError
from unlearn_core.recipe import RECIPES
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, now
from unlearn_core.vocabulary import TASKS

REASONS = {request.DOCUMENT: "its document or person is to be forgotten", request.QUESTION: "asks for the field",
           request.TEXT: "holds the field's value", request.OTHER: "holds the same value as somebody's who asked"}


def forget_request(source: data_frames.Source, run: Run | None, recipe: Recipe | None, personal: bool) -> None:
    """The choice, what it does to both sides, and the form that saves it."""
    st.subheader("What is to be forgotten?")
    if not source.complete:
        st.info("A request needs both sides without errors: a forget and a retain file in which every row is good.",
                icon=":material/rule:")
        return
    st.caption("A request for part of the forget split: what it does not name goes to retain.")
    asked = _choice(source, personal)
    if asked == Request():
        return
    try:
        outcome = _outcome(source.key, asked, source)
    except InputError as error:
        st.error(_widgets.plain(error), icon=":material/rule:")
        return
    _show(source, asked, outcome, personal)
    if _frame.read_only():
        return
    st.subheader("Save it as a data set")
    with st.form("data_request_form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Name of the data set", key="data_request_name", max_chars=60, width=280,
                      placeholder="forget-numbers")
        st.text_input("Asked by", key="data_request_by", max_chars=200, width=280,
                      help="who asked for it; kept in request.json beside the data")
        st.form_submit_button("Save as a data set", icon=":material/save:", key="data_request_save",
                              on_click=_frame.attempt, args=(lambda: _save(source, asked, outcome, recipe),))
    _data_summary.show_saved(source.name)
    st.caption("It holds forget.jsonl, retain.jsonl and request.json. A run on it measures MMLU only if data.mmlu "
               "names a folder with its questions.")


def _choice(source: data_frames.Source, personal: bool) -> Request:
    forget = source.splits["forget"]
    people = {document: person for document, person in _data_source.people(source.key, source).items()
              if document in {item.document for item in forget}}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        documents = st.multiselect("Whole documents", list(dict.fromkeys(item.document for item in forget)), width=480,
                                   key="data_documents", bind="query-params", placeholder="document ids")
        tasks = st.pills("All documents of", [task for task in TASKS if task in {item.task for item in forget}],
                         selection_mode="multi", key="data_request_tasks", bind="query-params")
    documents += [item.document for item in forget if item.task in tasks]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        chosen = st.multiselect(
            "Persons", list(people), key="data_persons", persist_state="session", width=480, disabled=not people,
            placeholder="all that they are, or only the fields" if people else "no people in forget",
            format_func=lambda document: data_frames.person_label(people[document], masked=not personal))
        fields = st.pills("Only these fields", list(persons.FIELDS), selection_mode="multi", key="data_fields",
                          bind="query-params", format_func=persons.FIELDS.__getitem__, disabled=not people, wrap=True,
                          help="of the chosen persons, or of all if none is chosen")
    return Request(tuple(dict.fromkeys(documents)), tuple(chosen), tuple(fields))


@st.cache_resource(max_entries=8, show_spinner="Sorting the items")
def _outcome(key: str, asked: Request, _source: data_frames.Source) -> Requested:
    return request.apply(_source.splits["forget"], _source.splits["retain"], asked)


def _show(source: data_frames.Source, asked: Request, outcome: Requested, personal: bool) -> None:
    st.markdown("\n".join(f"- {_widgets.plain(sentence)}" for sentence in request.explain(outcome, asked)))
    _widgets.show_table(data_frames.request_counts(source.splits, outcome), key="data_request", columns={
        "task": "Task", "kind": "Type", "forget": "Forget before", "forget_then": "Forget after",
        "retain": "Retain before", "retain_then": "Retain after"},
        alt="Items on both sides before and after the request")
    with _widgets.folded("Items that stay in forget, and why", key="data_request_kept") as opened:
        if not opened.open:
            return
        table, count, _ = data_frames.records({"forget": outcome.forget}, _data_source.masking(source, personal))
        table.insert(1, "why", [REASONS[outcome.reasons[name]] for name in table["id"]])
        _widgets.show_table(table.drop(columns="split"), key="data_request_items", alt="Items that stay in forget",
                            order=("id", "why", "prompt", "answer"))
        if count > len(table):
            st.caption(f"The first {len(table)} of {count}.")


def _save(source: data_frames.Source, asked: Request, outcome: Requested, recipe: Recipe | None) -> None:
    known = recipe and (RECIPES / f"{recipe.name}.toml").is_file()
    note = request.note(asked, source=source.name, asked_by=st.session_state["data_request_by"].strip(), created=now())
    _data_summary.save(st.session_state["data_request_name"], outcome.forget, outcome.retain, note,
                       recipe=recipe.name if known else "demo", overlaps=outcome.overlaps)
