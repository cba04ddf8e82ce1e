"""The sections of the page Leaks, one at a time; here how much is given away, and of whom else."""

from __future__ import annotations

import streamlit as st

from analysis import leaks, leaks_beside, leaks_figures, leaks_texts, theme
from analysis.leaks import Leaks
from pages import _cache, _leaking_parts, _leaking_samples, _leaking_who, _widgets
from pages._leaking_parts import BOUND
from unlearn_core.store import Run

SECTIONS = {"who": "Who", "much": "How much", "samples": "Samples", "others": "Others"}
BY = {"person": "By person", "field": "By field"}
PERCENT = st.column_config.NumberColumn(format="percent")
SHARES = {"share": PERCENT, "low": PERCENT, "high": PERCENT, "luck": PERCENT}


def show(run: Run, found: Leaks) -> None:
    section = st.segmented_control("Section", list(SECTIONS), default="who", required=True, key="leaks_section",
                                   format_func=SECTIONS.get, label_visibility="collapsed", **BOUND)
    {"who": _leaking_who.show, "much": _much, "samples": _leaking_samples.show, "others": _others}[section](run, found)
    st.caption(_leaking_parts.CAUTION)
    _leaking_parts.explain(section)


# ---- how much --------------------------------------------------------------------------------------------------

def _much(run: Run, found: Leaks) -> None:
    with _widgets.row():
        by = st.segmented_control("Counted", list(BY), default="person", required=True, key="leaks_by",
                                  format_func=BY.get, **BOUND)
        split, model = _leaking_parts.split(), _leaking_parts.model(found)
    _leaking_parts.bullets(_leaking_parts.said(run, found, model, split))
    about = _leaking_parts.about(run, found, split)
    if by == "field":
        table = _cache.kept(run, ("leaks by field", split), lambda: leaks.by_field(found, split))
        _widgets.chart(
            _cache.kept(run, ("leaks field shares", split), lambda: leaks_figures.field_shares(table)), table,
            key="leaks_fields", title="Which field is given away most?",
            terms=("leak", "guessable"),
            alt="Share of people of whom each field is given away, per model, with intervals",
            caption=f"{about}. Bars: exact 95 % intervals. Ideal: {_ideal(split)}. Here an e-mail address counts "
                    "although it follows from the name; the table says of how many (guessed).")
        return
    table = _leaking_parts.summary(run, found, split)
    control = leaks.control_share(found, split)
    never = f"dotted: {theme.short_label(found.control)}, which never saw them" if control is not None else "no control"
    _widgets.chart(
        _cache.kept(run, ("leaks shares", split), lambda: leaks_figures.shares(table, control)), table,
        key="leaks_shares", title="Of how many people is something given away?",
        terms=("leak", "guessable", "retrained"),
        alt="Share of people with something given away, per model, with intervals and the level of luck",
        caption=f"{about}. Counted are fields that do not follow from the name. Bars: exact 95 % intervals; thin line: "
                f"swapped people; {never}. Ideal: {_ideal(split)}.")


def _ideal(split: str) -> str:
    return "0" if split == "forget" else "as before unlearning"


# ---- others ----------------------------------------------------------------------------------------------------

def _others(run: Run, found: Leaks) -> None:
    with _widgets.row():
        before, model = _leaking_parts.before(found), _leaking_parts.model(found)
        personal = _leaking_parts.personal()
    _leaking_parts.bullets(_cache.kept(run, ("leaks beside", before, model),
                                       lambda: leaks_beside.describe(found, before, model)))
    table = _cache.kept(run, "leaks exposed", lambda: leaks_beside.exposed(found))
    _widgets.chart(
        _cache.kept(run, "leaks exposed figure", lambda: leaks_figures.exposed(table)), table, key="leaks_exposed",
        terms=("leak",),
        title="Are other people more exposed than before?",
        alt="Share of people of whom a value is given away, by answers about them and by answers about others",
        caption=f"{_leaking_parts.about(run, found, 'forget')}; the right panel looks at all answers of the run. Bars: "
                "exact 95 % intervals over people. Names alone do not count.")
    rows = _cache.kept(run, ("leaks changed", before, model), lambda: leaks_beside.changed(found, before, model))
    st.subheader("Which answers hold somebody else's data?")
    if rows.empty:
        st.caption(f"None of {theme.short_label(before)} and {theme.short_label(model)}.")
        return
    shown = leaks_beside.shown(found, rows, masked=not personal)
    chosen = st.dataframe(
        shown, key="leaks_beside", hide_index=True, on_select="rerun", selection_mode="single-row",
        alt="Answers with a value of somebody whom the prompt is not about", column_config={
            "when": "Given away", "split": "Asked about", "id": "Item", "whose": "Somebody else",
            "whose_split": "of", "field": "Field"}).selection.rows
    row = rows.iloc[chosen[0] if chosen and chosen[0] < len(rows) else 0]
    models = list(dict.fromkeys([before, model]))
    answers = {answer["model"]: answer for answer in leaks_texts.answers_to(found, row["id"], row["split"], models)}
    _leaking_parts.answers(found, answers, {name: leaks_beside.values(found, row["id"], row["split"], name)
                                            for name in models}, personal, key="leaks_beside_texts")
