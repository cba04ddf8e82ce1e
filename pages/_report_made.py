"""The parts of the page Report: what it is to hold, the preview, the files, the command that gives the same file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import streamlit as st

from analysis import report, report_data
from analysis.report import Report
from pages import _cache, _frame, _widgets
from unlearn_core.store import Run

SECTIONS, MADE = "report_sections", "report_made"  # the chosen ones; what was last made, with its run's id
HEIGHT = 900  # pixels of the preview


@dataclass(frozen=True)
class Choice:
    """What a report is to hold."""

    sections: tuple[str, ...]
    title: str
    personal: bool


def show(run: Run) -> None:
    st.caption("Findings, charts and tables of this run in one file, with the numbers of the pages. It opens in any "
               "browser without a connection, and can be printed. Making it takes some seconds.")
    choice = _choice(run)
    if not choice.sections:
        st.info("Choose at least one section.", icon=":material/filter_alt:")
        return
    if st.button("Make the report", icon=":material/description:", type="primary", key="report_make"):
        st.session_state[MADE] = (run.id, choice)
    of, made = st.session_state.get(MADE, (None, None))
    if of != run.id:
        return
    if made != choice:
        st.caption("Shown is what was made before the last change: make it again for the other one.")
    with st.spinner("Making the report", show_time=True):
        found, page = _report(run, made), _page(run, made)
    _files(run, made, found, page)
    with st.container(border=True):
        st.iframe(page, height=HEIGHT, alt="Preview of the report")


# ---- what it is to hold ----------------------------------------------------------------------------------------

def _choice(run: Run) -> Choice:
    chosen = st.multiselect("Sections, in this order", list(report.SECTIONS), default=list(report.SECTIONS),
                            key=SECTIONS, format_func=_name, bind="query-params")
    with _widgets.row():
        moved = st.selectbox("Move", chosen, key="report_moved", format_func=_name, width=260, disabled=not chosen)
        for label, icon, by in (("Earlier", "arrow_upward", -1), ("Later", "arrow_downward", 1)):
            st.button(label, icon=f":material/{icon}:", key=f"report_{label.lower()}", on_click=_move, args=(moved, by),
                      disabled=moved is None or not 0 <= chosen.index(moved) + by < len(chosen))
        title = st.text_input("Title", key="report_title", width=330, max_chars=120, bind="query-params",
                              placeholder=run.meta()["title"] or f"{report.DEFAULT_TITLE}: {run.id}")
        personal = st.toggle("With personal data", key="report_personal", persist_state="session",
                             help="off: names and values of people are masked; the switch is not part of the page's "
                                  "address")
    return Choice(tuple(chosen), title.strip(), personal)


def _name(section: str) -> str:
    return report.SECTIONS[section][0]


def _move(section: str, by: int) -> None:
    """Put a section one place earlier or later."""
    order = list(st.session_state[SECTIONS])
    place = order.index(section)
    order.insert(place + by, order.pop(place))
    st.session_state[SECTIONS] = order


# ---- what was made ---------------------------------------------------------------------------------------------

def _report(run: Run, made: Choice) -> Report:
    return _cache.kept(run, ("report", made), lambda: report.make(
        run, made.sections, title=made.title, personal=made.personal), run.adapter_weights().values())


def _page(run: Run, made: Choice) -> str:
    return _cache.kept(run, ("report page", made), lambda: report.as_html(_report(run, made)),
                       run.adapter_weights().values())


def _files(run: Run, made: Choice, found: Report, page: str) -> None:
    with _widgets.row():
        for label, name, mime, write in (
                ("HTML", "report.html", "text/html", lambda: page),
                ("Markdown", "report.md", "text/markdown", lambda: report.as_markdown(found)),
                ("Tables as CSV", "report-tables.zip", "application/zip", lambda: report_data.as_zip(found)),
                ("Numbers as JSON", "report.json", "application/json", lambda: report_data.as_text(found))):
            st.download_button(label, write, file_name=f"{run.id}-{name}", mime=mime, key=f"report_{name}",
                               icon=":material/download:", on_click="ignore")
    st.caption(f"The HTML file has {len(page.encode()) / 1e6:.1f} MB and needs nothing else. The same in a terminal:")
    words = report.command(_frame.typed(run), made.sections, title=made.title, personal=made.personal, data=True)
    _widgets.command(shlex.join(words))
