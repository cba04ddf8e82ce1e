"""What the merge does without a part of it: section of the weights page, and of the sign conflicts page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis import ablations, ablations_figures
from pages import _cache, _frame, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

DOCUMENTS = 8  # per task and side: enough to see a trend
DRAWS = 3
PLACES = ("layer", "module", "matrix", "direction")


def show(run: Run, kinds: Sequence[str] = PLACES, key: str = "weights_ablation") -> None:
    """Effects of the parts of these kinds, and the job that scores them; `key` begins the keys of all widgets."""
    frame = _cache.table(ablations.table, run)
    there = [kind for kind in ablations.kinds(frame) if kind in kinds]
    if there:
        _effects(run, frame, there, key)
    else:
        st.info("This has not been measured on this run.", icon=":material/hourglass_empty:")
    offered = [kind for kind in kinds if kind != "matrix"]  # single matrices are named on the command line
    _work.job_form(run, (*UNLEARNED, "merged"), lambda: _form(run, offered, key), key=f"{key}_job",
                      first="Score the merge without parts of it", again="Score more, or on other documents",
                      measured=bool(there))


def _effects(run: Run, frame: pd.DataFrame, kinds: list[str], key: str) -> None:
    with _widgets.row():
        kind = kinds[0]
        if len(kinds) > 1:
            kind = st.segmented_control("Parts", kinds, default=kinds[0], required=True, key=f"{key}_kind",
                                        bind="query-params", format_func=ablations.KINDS.get)
        modes = ablations.modes(frame, kind)
        mode = modes[0]
        if len(modes) > 1:
            mode = st.segmented_control("Each part is", modes, default=modes[0], required=True, key=f"{key}_mode",
                                        bind="query-params", format_func=ablations.MODES.get)
    rows, base, found = ablations.compared(frame, kind, mode), ablations.whole(frame), run.ablations()
    _widgets.chart(
        _cache.kept(run, ("ablation", kind, mode), lambda: ablations_figures.effects(rows, base)), rows, key=key,
        terms=("ablation",),
        title="Does it matter where the weights changed, or only how much?",
        alt="Scores with each part of the merge changed, beside random parts of its size",
        caption=f"n = {len(rows)} parts, each {ablations.MODES[mode]}, scored on "
                f"{found['documents_per_task'] or 'all'} documents per task and side (seed {found['seed']}); seed of "
                f"the run {run.recipe().seed}. Dotted: the whole merge. A random part has as many entries (or "
                "directions), drawn from all matrices (sign classes: from the same matrix), and the same norm. "
                "Forget scores: low is forgotten; retain: high is kept; people who leak: share of forget's people of "
                "whom some answer gives away a date, number or address that its prompt does not hold; AUC: 0.5 is "
                "ideal.")
    if mode == "remove":
        for sentence in ablations.describe(rows, base):
            st.markdown(f"- {sentence}")


# ---- the job ---------------------------------------------------------------------------------------------------

def _form(run: Run, kinds: list[str], key: str) -> None:
    before = run.ablations()
    with _widgets.row():
        chosen = kinds
        if len(kinds) > 1:
            chosen = st.pills("What", kinds, default=kinds[:2], selection_mode="multi", key=f"{key}_parts",
                              persist_state="session", format_func=ablations.KINDS.get)
        modes = st.pills("Each part is", ablations.MODES, default=["remove"], selection_mode="multi",
                         key=f"{key}_modes", persist_state="session", format_func=ablations.MODES.get)
        draws = st.number_input("Random parts for each", 0, 20, DRAWS, key=f"{key}_draws", persist_state="session",
                                width=170)
        documents = st.number_input("Documents per task and side", 0, None, before.get("documents_per_task", DOCUMENTS),
                                    key=f"{key}_documents", persist_state="session", width=220,
                                    help="0: all; few are fast and noisy")
        seed = st.number_input("Seed of the choice", 0, None, before.get("seed", 0), key=f"{key}_seed",
                               persist_state="session", width=160)
        device = "" if _frame.read_only() else _work.device(f"{key}_device")
    if not (chosen and modes):
        st.caption("Choose what is changed, and how.")
        return
    arguments = ["--parts", *chosen, "--mode", *modes, "--draws", str(draws), "--documents", str(documents), "--seed",
                 str(seed)]
    st.caption(f"{(draws + 1) * len(modes)} evaluations for each part, each as long as scoring one model on these "
               "documents. What was scored on the same documents before is kept; other documents replace all of it. "
               "In a terminal:")
    _widgets.command(launching.command_line(["ablate", run.id, *arguments]))
    if not _frame.read_only():
        st.button("Score these parts", icon=":material/play_arrow:", type="primary", key=f"{key}_start",
                  on_click=_frame.attempt, args=(lambda: jobs.measure(run, "ablate", arguments, device=device),))
