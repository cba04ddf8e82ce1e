"""Section of the page Leaks: what leaks in k of several answers to each prompt, and the job that draws them."""

from __future__ import annotations

import streamlit as st

from analysis import leaks, leaks_figures, leaks_sampled, theme, weights
from analysis.leaks import Leaks
from pages import _cache, _frame, _leaking_parts, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.data import persons
from unlearn_core.store import Run
from unlearn_core.vocabulary import control, is_retrained, shipped

SAMPLES, TEMPERATURE = 8, 0.7
PERCENT = st.column_config.NumberColumn(format="percent")


def show(run: Run, found: Leaks) -> None:
    drawn = _cache.kept(run, "leak samples", lambda: leaks_sampled.read(run))
    if drawn:
        _drawn(run, found, drawn)
    else:
        st.info("No samples have been drawn on this run: only its greedy answers are known.",
                icon=":material/hourglass_empty:")
    _work.job_form(run, () if run.brought() else ("merged",), lambda: _form(run), key="leaks_job",
                      first="Draw samples", again="Draw more, or otherwise", measured=bool(drawn))


def _drawn(run: Run, found: Leaks, drawn: leaks_sampled.Drawn) -> None:
    stale = _cache.kept(run, "stale samples", lambda: leaks_sampled.stale(run, drawn), run.adapter_weights().values())
    if stale:
        st.warning(f"What is shown was drawn before the adapter of {weights.named(stale)} was made or changed.",
                   icon=":material/update:")
    table = _cache.kept(run, "leak curves", lambda: leaks_sampled.curves(drawn))
    _leaking_parts.bullets([leaks_sampled.describe(table, model) for model in drawn])
    if table.empty:
        return
    greedy = _leaking_parts.summary(run, found, "forget")
    _widgets.chart(
        _cache.kept(run, "leak curves figure", lambda: leaks_figures.curves(table, greedy)), table, key="leaks_curves",
        terms=("leak_k", "leak"),
        title="Does asking again bring it out?", alt="leak@k over k per model, beside the greedy answers",
        caption=f"n = {table['people'].max()} people of forget; {leaks_sampled.conditions(drawn)}. leak@k: expected "
                "share of people of whom at least one of k answers to each prompt gives something away that does not "
                "follow from their name. Bars: 95 % intervals over people, exact where none or all leak. Ideal: 0.")
    with _widgets.folded("By person and field", key="leaks_samples_rows") as opened:
        if opened.open:
            _by_person(found, drawn)


def _by_person(found: Leaks, drawn: leaks_sampled.Drawn) -> None:
    with _widgets.row():
        model = st.selectbox("Model", list(drawn), index=len(drawn) - 1, key="leaks_samples_model", width=190,
                             format_func=theme.short_label, bind="query-params")
        personal = _leaking_parts.personal()
    table = leaks_sampled.by_person(drawn, model)
    who = [leaks.label(found, document, not personal) if document in found.persons else document
           for document in table["document"]]
    _widgets.show_table(table.assign(document=who, field=table["field"].map(persons.label)).drop(columns="model"),
                        key="leaks_samples", alt="Samples that give away each field of each person", columns={
                            "document": "Person", "field": "Field", "guessable": "Follows from the name",
                            "prompts": "Prompts", "samples": "Samples of all", "leaking": "of them leak",
                            "leak_1": st.column_config.NumberColumn("leak@1", format="percent"),
                            "leak_all": st.column_config.NumberColumn("leak@all", format="percent")})


def _form(run: Run) -> None:
    known = [model for model in run.models() if model in run.brought() or model in ("base", *run.adapter_weights())
             or is_retrained(model)]
    usual = [model for model in (control(known), leaks.BEFORE, shipped(known)) if model in known]
    with _widgets.row():
        models = st.pills("Models", known, default=usual, selection_mode="multi", key="leaks_sampled_models",
                          persist_state="session", format_func=theme.short_label)
        samples = st.number_input("Samples of each prompt", 1, 1000, SAMPLES, key="leaks_sampled_n",
                                  persist_state="session", width=190)
        temperature = st.number_input("Temperature", 0.05, 5.0, TEMPERATURE, 0.1, key="leaks_sampled_temperature",
                                      persist_state="session", width=150)
        people = st.number_input("People", 0, None, 0, key="leaks_sampled_people", persist_state="session", width=120,
                                 help="0: all of forget")
        seed = st.number_input("Seed", 0, None, 0, key="leaks_sampled_seed", persist_state="session", width=120,
                               help="of the draws, and of the choice of people")
        device = "" if _frame.read_only() else _work.device("leaks_device")
    if not models:
        st.caption("Choose at least one model.")
        return
    arguments = ["--models", *models, "--samples", str(samples), "--temperature", f"{temperature:g}", "--people",
                 str(people), "--seed", str(seed)]
    st.caption(f"{samples} times as many answers about people as an evaluation writes, for each model. Older samples "
               "of a model stay until its new ones are there. In a terminal:")
    _widgets.command(launching.command_line(["samples", run.id, *arguments]))
    if not _frame.read_only():
        st.button("Draw the samples", icon=":material/play_arrow:", type="primary", key="leaks_start",
                  on_click=_frame.attempt,
                  args=(lambda: jobs.measure(run, "samples", arguments, device=device),))
