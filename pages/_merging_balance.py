"""Section of the merge page: the merge whose AUC meets its target, and honest controls at the same AUC."""

from __future__ import annotations

import streamlit as st

from analysis import balancing, balancing_figures
from pages import _cache, _frame, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.store import Run
from unlearn_core.trials import balance
from unlearn_core.vocabulary import UNLEARNED

SHOWN = {"family": "Family", "configurations": "Tried", "chosen": "Chosen", "task_aggregate": "Task Aggregate",
         "mia_auc": "MIA AUC", "difference": "Less the merge's", "low": "Low", "high": "High"}
TARGETS = {"chance": "0.5: there is neither an untrained nor a retrained model",
           "untrained": "the AUC of the untrained model, which never saw forget",
           "retrained": "the AUC of the retrained model, which never saw forget"}


def show(run: Run) -> None:
    """What was read, the trade-off of all configurations, and the job that measures."""
    found = run.balance()
    if found:
        _result(run, found)
        _tradeoff(run, found)
    else:
        st.info("This run has not been balanced.", icon=":material/hourglass_empty:")
    _work.job_form(run, UNLEARNED, lambda: _form(run), key="balance_job", first="Balance this run",
                      again="Balance again, on other halves or documents", measured=bool(found))


def _result(run: Run, found: dict) -> None:
    table, readings = balancing.families(found), found["readings"]
    halves = found.get("n", {})
    for sentence in balancing.describe(found):
        if found.get("refused"):
            st.warning(sentence, icon=":material/block:")
        else:
            st.markdown(f"- {sentence}")
    if table["difference"].notna().any():
        _widgets.chart(
            _cache.kept(run, "balance differences", lambda: balancing_figures.differences(table)), table,
            key="balance_differences", title="At one AUC, is the merge better than what needs no merge?",
            terms=("balance", "family", "development_half"),
            alt="Task Aggregate of each family less that of the run's merge, with intervals",
            caption=f"Each family's knob is chosen on one half of the documents and persons and read on the other, and "
                    f"the halves change places; seed of the halves {found['seed']}, seed of the run "
                    f"{run.recipe().seed}. Chosen: of the settings whose AUC lies within one standard error of the "
                    f"target the best Task Aggregate, else the nearest AUC. Interval: 95 %, "
                    f"{balance.RESAMPLES} resamples of documents and persons; right of 0 is better.")
    shown = table[list(SHOWN)].rename(columns=SHOWN)
    _widgets.show_table(shown, key="balance_table", alt="Every family at the target of the AUC",
                        columns={name: st.column_config.NumberColumn(format="%.3f") for name in shown.columns[3:]})
    st.caption(f"Target of the AUC: {found['target']:.3f}, {TARGETS.get(found.get('target_from'), 'as given')}. "
               f"{found.get('configurations', 0)} configurations tried; read {len(readings)} "
               f"time{'s' if len(readings) != 1 else ''}, of which the first alone was of documents nobody had read. "
               f"Smallest half: {halves.get('units')} documents or persons of a sub-score, {halves.get('members')} "
               f"members, {halves.get('nonmembers')} non-members.")


def _tradeoff(run: Run, found: dict) -> None:
    curves = _cache.table(balancing.curves, run)
    if curves.empty:
        return
    _widgets.chart(
        _cache.kept(run, "balance tradeoff", lambda: balancing_figures.tradeoff(curves, found["target"])), curves,
        key="balance_tradeoff", title="Which way of turning down forgetting keeps the most at the target?",
        alt="MIA AUC against Task Aggregate of every configuration",
        caption=f"n = {curves['task_aggregate'].count()} of {len(curves)} configurations, on all documents that were "
                "scored: those whose AUC comes near the target on a half, which alone are asked for answers. To look "
                "at; a choice by this picture would be optimistic. Each line is a family along its knob; dotted: the "
                "target of the AUC; ring: the run's merge as it is.")


# ---- the job ---------------------------------------------------------------------------------------------------

def _form(run: Run) -> None:
    with _widgets.row():
        documents = st.number_input("Documents per task and side", 0, None, 0, key="balance_documents",
                                    persist_state="session", width=220, help="0: all, which a conclusion needs")
        halves = st.number_input("Seed of the halves", 0, None, 0, key="balance_halves", persist_state="session",
                                 width=160, help="another seed is another reading, and is counted")
        others = {other.id: str(other.path.resolve()) for other in _frame.listing()[0]
                  if other.id != run.id and other.adapter_weights()}
        beside = st.multiselect("Beside", list(others), key="balance_beside", persist_state="session", width=330,
                                placeholder="other runs on this base", disabled=not others,
                                help="made with --weights-of, or Start fresh from these weights on the page Train; "
                                     "their Model 1 become controls: the same settings and another seed, or loss "
                                     "weights in between")
        device = "" if _frame.read_only() else _work.device("balance_device")
    settings = ["--documents", str(documents), "--halves-seed", str(halves), *(["--beside"] if beside else [])]
    st.caption("About 75 attacks and one for each checkpoint of Model 1, then the answers of those whose AUC comes "
               "near the target, each as long as scoring one model on these documents; what was scored on the same "
               "documents before is kept. In a terminal:")
    _widgets.command(launching.command_line(["balance", run.id, *settings, *beside]))
    if not _frame.read_only():
        st.button("Balance", icon=":material/balance:", type="primary", key="balance_start",
                  on_click=_frame.attempt, args=(lambda: jobs.measure(
                      run, "balance", [*settings, *map(others.get, beside)], device=device),))
