"""Section of the page Leaks: person by field, before and after, and the texts behind a row."""

from __future__ import annotations

import streamlit as st

from analysis import leaks, leaks_texts, text_marks, theme
from analysis.leaks import Leaks
from pages import _cache, _generations_text, _leaking_parts, _widgets
from pages._leaking_parts import BOUND
from unlearn_core.data import persons
from unlearn_core.store import Run

PERSON = "leaks_person"  # key of the chosen document
ROW, HEIGHT = 35, 560  # pixels of a row, and of the matrix at most
WIDTH, NAMES = 76, 84  # pixels of a field, and of a name or document
LEGEND = {text_marks.GIVEN_AWAY: "given away by this answer"}


def show(run: Run, found: Leaks) -> None:
    with _widgets.row():
        split, before = _leaking_parts.split(), _leaking_parts.before(found)
        model, personal = _leaking_parts.model(found), _leaking_parts.personal()
    first = _leaking_parts.said(run, found, before, split)[:1] if before != model else []
    _leaking_parts.bullets(first + _leaking_parts.said(run, found, model, split))
    documents = _cache.kept(run, ("leaks worst", model, before, split),
                            lambda: leaks.worst_first(found, model, before, split))
    if not documents:
        st.info(f"Neither {theme.short_label(before)} nor {theme.short_label(model)} has answers about people of "
                f"{split}.", icon=":material/hourglass_empty:")
        return
    models = list(dict.fromkeys([before, model]))
    _matrix(run, found, documents, models, split, personal)
    if st.session_state.get(PERSON) not in documents:
        st.session_state.pop(PERSON, None)
    chosen = st.selectbox("Person", documents, index=None, key=PERSON, width=460,
                          placeholder="click a row, or choose here: the worst first", **BOUND) or documents[0]
    _person(run, found, chosen, models, split, personal)


def _matrix(run: Run, found: Leaks, documents: list[str], models: list[str], split: str, personal: bool) -> None:
    """A row per person; selecting one opens it."""
    def opened() -> None:
        rows = st.session_state["leaks_matrix"]["selection"]["rows"]
        if rows:
            st.session_state[PERSON] = documents[rows[0]]

    table = _cache.kept(run, ("leaks table", split, tuple(models), personal),
                        lambda: leaks.table(found, models, split, not personal))
    st.subheader("Whose data are given away, before and after?")
    st.dataframe(table.style.map(leaks.look), key="leaks_matrix", hide_index=True, width="stretch", on_select=opened,
                 height=min(ROW * (len(table) + 1) + 3, HEIGHT), selection_mode="single-row",
                 placeholder=_widgets.NOT_MEASURED, column_config={
                     name: st.column_config.TextColumn(width=WIDTH if ": " in name else NAMES) for name in table},
                 alt="Person by field: given away, guessable, no leak found or not testable, before and after")
    st.download_button("Download CSV", lambda: table.to_csv(index=False), file_name="leaks_matrix.csv", mime="text/csv",
                       key="leaks_matrix_csv", icon=":material/download:", on_click="ignore")
    _widgets.definitions("leak", "guessable")
    st.caption(f"{_leaking_parts.about(run, found, split)}; worst person first. n/m: n answers give it away, of m "
               "prompts about the person that do not hold it already. ✗ given away; ~ given away, but follows from the "
               "name; – not testable: every prompt holds it; without a sign no leak was found. Select a row to read "
               "the texts.")


# ---- one person ------------------------------------------------------------------------------------------------

def _person(run: Run, found: Leaks, document: str, models: list[str], split: str, personal: bool) -> None:
    st.subheader("Which texts are behind it?")
    field = st.pills("Field", persons.ordered(found.persons[document].values), key="leaks_field",
                     format_func=_leaking_parts.field_name, **BOUND)
    rows = leaks_texts.answers_about(found, document, split, models)
    given = {model: leaks_texts.given(found, document, split, model) for model in models}
    items = leaks_texts.ordered(rows, given, field)
    rest = f" whose answers give away the {_leaking_parts.field_name(field)}" if field else ", those with a leak first"
    st.markdown(f"**{_widgets.plain(leaks.label(found, document, not personal))}**: {len(items)} prompts{rest}")
    for number, item in enumerate(items):
        answers = {row["model"]: row for row in rows[rows["id"] == item].to_dict("records")}
        _leaking_parts.answers(found, answers, {model: [(document, field) for field in given[model].get(item, [])]
                                                for model in models}, personal, key=f"leaks_item_{number}")
    if items:
        st.caption(_generations_text.legend(LEGEND, LEGEND))
        st.page_link("pages/generations.py", label="All models' answers on the page Generations",
                     icon=":material/forum:", query_params={_widgets.RUN_KEY: run.id, "item": items[0]})
