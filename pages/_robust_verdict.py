"""Section of the page Robustness: the verdict with every gate, its thresholds, the test half, the evidence file."""

from __future__ import annotations

import json

import streamlit as st

from analysis import evidence, gates, judging, locked
from analysis.gates import Verdict
from pages import _cache, _frame, _widgets
from unlearn_core.judging import gates as thresholds
from unlearn_core.store import Run

STRIPS = {gates.FAILED: (st.error, ":material/gpp_bad:"), gates.INCOMPLETE: (st.warning, ":material/gpp_maybe:"),
          gates.NO_LEAK: (st.success, ":material/verified_user:")}
READINGS = {"number": "Look", "at": "When (UTC)", "what": "What", "configurations": "Tried before",
            "task_aggregate": "Task Aggregate", "mia_auc": "AUC"}


def of_run(run: Run) -> Verdict:
    """`gates.judge`, kept."""
    return _cache.kept(run, "verdict", lambda: gates.judge(run), run.adapter_weights().values())


def strip(found: Verdict) -> None:
    """The verdict in one line, with its reasons below."""
    show, icon = STRIPS[found.overall]
    show(_widgets.plain(found.headline), icon=icon)
    for note in found.notes:
        st.caption(_widgets.plain(note))


def show(run: Run) -> None:
    found = of_run(run)
    strip(found)
    st.subheader("Which gate decides, and why?")
    for row in judging.table(found).to_dict("records"):
        beside = "" if row["Vetoes"] == "yes" else " (informs only)"
        st.markdown(f"- {row['State']} · **{row['Gate']}**{beside}: {_widgets.plain(row['Reason'])}")
    _widgets.definitions("verdict", *(f"gate.{gate.key}" for gate in thresholds.GATES))
    with _widgets.folded("All gates as a table", key="robust_gates_table") as opened:
        if opened.open:
            _widgets.show_table(judging.table(found), key="robust_gates",
                                alt="Every gate with its state, number, threshold and reason")
    todo = [] if run.recorded() else judging.todo(found)
    if todo:
        with _widgets.folded("What is missing, and how to measure it", key="robust_todo") as opened:
            if opened.open:
                _widgets.command("\n".join(todo))
    if _frame.may_change(run):
        _thresholds(run)
    _test_half(run)
    _evidence(run)


# ---- thresholds ------------------------------------------------------------------------------------------------

def _thresholds(run: Run) -> None:
    with _widgets.folded("Thresholds", key="robust_thresholds") as opened:
        if not opened.open:
            return
        stored = run.gates()
        st.caption(f"Locked with the run since {stored['locked'][:16].replace('T', ' ')} UTC." if stored else
                   "The defaults hold until they are locked. Lock them before the test half is read.")
        now = thresholds.thresholds(run)
        with _widgets.row():
            key = st.selectbox("Gate", list(now), key="robust_gate", width=230,
                               format_func=lambda name: thresholds.BY_KEY[name].label)
            value = st.number_input("Threshold", 0.0, None, float(now[key]), 0.05, key=f"robust_threshold_{key}",
                                    width=170, help=thresholds.BY_KEY[key].help)
            if not stored:
                st.button("Lock", icon=":material/lock:", key="robust_lock", on_click=_frame.attempt,
                          args=(lambda: thresholds.lock(run),))
            st.button("Change it", icon=":material/edit:", key="robust_change", on_click=_frame.attempt,
                      args=(lambda: thresholds.change(run, key, value),), disabled=value == now[key],
                      help="the change is logged and shown with the verdict")


# ---- the test half ---------------------------------------------------------------------------------------------

def _test_half(run: Run) -> None:
    st.subheader("Which documents had no say in any choice?")
    for sentence in _cache.kept(run, "locked words", lambda: locked.describe(run)):
        st.markdown(f"- {_widgets.plain(sentence)}")
    table = _cache.kept(run, "readings", lambda: locked.readings(run))
    if len(table):
        _widgets.show_table(table[list(READINGS)].rename(columns=READINGS), key="robust_readings",
                            terms=("reading", "development_half"),
                            alt="Every look at the test half", columns={
                                name: st.column_config.NumberColumn(format="%.3f")
                                for name in ("Task Aggregate", "AUC")})


# ---- the evidence file -----------------------------------------------------------------------------------------

def _evidence(run: Run) -> None:
    st.subheader("What does an auditor get?")
    with _widgets.row():
        personal = st.toggle("With personal data", key="robust_personal", persist_state="session",
                             help="off: people are numbered, names and values masked")

        def made() -> dict:
            return _cache.kept(run, ("evidence", personal), lambda: evidence.evidence(run, personal=personal),
                               run.adapter_weights().values())

        for label, name, mime, write in (
                ("Evidence as HTML", "evidence.html", "text/html", evidence.as_html),
                ("Evidence as JSON", "evidence.json", "application/json",
                 lambda found: json.dumps(found, indent=1, ensure_ascii=False))):
            st.download_button(label, lambda write=write: write(made()), file_name=f"{run.id}-{name}", mime=mime,
                               key=f"robust_{name}", icon=":material/download:", on_click="ignore")
    st.caption("Scope of the request, hashes of data and weights, bounds per person, each attack with its controls, "
               "what was tuned, what still lies around, limits. In a terminal:")
    name = _frame.typed(run)
    _widgets.command(f"python -m analysis.evidence {name} --out evidence\npython -m unlearn_core verify {name}")
