"""Section of the page Robustness: what may bring back what was forgotten, each beside its controls, and its job."""

from __future__ import annotations

import streamlit as st

from analysis import probing, probing_figures, shadows, shadows_figures
from pages import _cache, _frame, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

PROBES = {"relearning": "Relearning", "quantisation": "Quantisation", "prompts": "Prompts", "shadows": "Shadows"}
TITLES = {"relearning": "Does a little training on a part bring the rest back?",
          "quantisation": "Does rounding the weights bring it back?",
          "prompts": "Does another wording bring it out?",
          "shadows": "Does a document's loss betray that it was once learned?"}
ALTS = {"relearning": "A measure of forget over the steps of relearning, per model, with intervals",
        "quantisation": "A measure of forget and retain at full precision, 8 and 4 bits, per model, with intervals",
        "prompts": "A measure of forget under each wording, per model, with intervals"}
TERMS = {"relearning": ("relearning", "came_back"), "quantisation": ("round_to_nearest", "came_back"),
         "prompts": ("probe", "leak")}
USUAL = {"relearning": ["extraction_strength"], "quantisation": ["extraction_strength"],
         "prompts": ["leaking", "exact_match", "rouge_l"]}  # measures to begin with
BOUND = {"bind": "query-params"}


def show(run: Run) -> None:
    probe = st.segmented_control("Probe", list(PROBES), default="relearning", required=True, key="robust_probe",
                                 format_func=PROBES.get, label_visibility="collapsed", **BOUND)
    if probe == "shadows":
        _shadows(run)
    else:
        _probe(run, probe)


def _probe(run: Run, probe: str) -> None:
    table = _cache.kept(run, ("probe", probe), lambda: probing.table(run, probe))
    if table.empty:
        st.info(f"{PROBES[probe]} was not tried on this run.", icon=":material/hourglass_empty:")
    else:
        for sentence in _cache.kept(run, ("probe words", probe), lambda: probing.describe(run, probe),
                                    run.adapter_weights().values()):
            st.markdown(f"- {_widgets.plain(sentence)}")
        _chart(run, probe, table)
    _work.job_form(run, _needs(run), lambda: _form(run, probe), key=f"robust_{probe}_job",
                      first=f"Try {PROBES[probe].lower()}", again="Try again, or otherwise", measured=len(table) > 0)


def _needs(run: Run) -> tuple[str, ...]:
    return () if run.brought() else ("merged",)


def _chart(run: Run, probe: str, table: object) -> None:
    with _widgets.row():
        parts = [part for part in probing.PARTS[probe] if (table["part"] == part).any()]
        chosen, own = "", table
        if probe == "prompts":
            chosen = st.selectbox("Prompts", parts, format_func=probing.PART_LABELS.get, width=230,
                                  key="robust_prompts_part", **BOUND)
            own = table[table["part"] == chosen]
        known = probing.varied(own)
        usual = next((name for name in USUAL[probe] if name in known), known[0])
        measure = st.selectbox("Measure", known, index=known.index(usual), format_func=probing_figures.AXES.get,
                               width=220, key=f"robust_{probe}_measure", **BOUND)
        learned = [on for on in ("forget", "retain") if (table["on"] == on).any()]
        if len(learned) > 1:
            chosen = st.segmented_control("Trained on a part of", learned, default=learned[0], required=True,
                                          key="robust_relearning_on", **BOUND)
    make = {"relearning": lambda: probing_figures.relearning(table, measure, chosen or "forget"),
            "quantisation": lambda: probing_figures.quantisation(table, measure),
            "prompts": lambda: probing_figures.prompts(table, measure, chosen)}[probe]
    _widgets.chart(_cache.kept(run, ("probe figure", probe, measure, chosen), make), table, key=f"robust_{probe}",
                   title=TITLES[probe], alt=ALTS[probe], terms=TERMS[probe],
                   caption=f"n = {table['n'].max():.0f} documents or people at most; {probing.conditions(run, probe)}; "
                           f"seed of the run {run.recipe().seed}. Ideal on forget: as the control, in every setting.")


def _form(run: Run, probe: str) -> None:
    with _widgets.row():
        documents = st.number_input("Documents per task and side", 0, None, 0, key=f"robust_{probe}_documents",
                                    persist_state="session", width=220, help="0: all")
        seed = st.number_input("Seed", 0, None, 0, key=f"robust_{probe}_seed", persist_state="session", width=120)
        arguments = ["--documents", str(documents), "--seed", str(seed)]
        if probe == "relearning":
            steps = st.number_input("Steps", 1, 1000, 50, key="robust_steps", persist_state="session", width=120)
            on = st.segmented_control("Train on a part of", ["forget", "retain"], default="forget", required=True,
                                      key="robust_on", persist_state="session",
                                      help="retain teaches nothing of forget: what it brings back any training would")
            arguments += ["--steps", str(steps), "--on", on]
        device = "" if _frame.read_only() else _work.device(f"robust_{probe}_device")
    st.caption("Measured on the model that would be handed out, the base, and the best control. In a terminal:")
    start(run, "probe", [probe, *arguments], device, f"Try {PROBES[probe].lower()}", f"robust_{probe}_start")


def start(run: Run, command: str, arguments: list[str], device: str, label: str, key: str) -> None:
    _widgets.command(launching.command_line([command, run.id, *arguments]))
    if not _frame.read_only():
        st.button(label, icon=":material/play_arrow:", type="primary", key=key, on_click=_frame.attempt,
                  args=(lambda: jobs.measure(run, command, arguments, device=device),))


# ---- shadow models ---------------------------------------------------------------------------------------------

def _shadows(run: Run) -> None:
    table = _cache.kept(run, "shadows", lambda: shadows.table(run))
    if table.empty:
        st.info("No shadow models were trained for this run.", icon=":material/hourglass_empty:")
    else:
        for sentence in _cache.kept(run, "shadow words", lambda: shadows.describe(run),
                                    run.adapter_weights().values()):
            st.markdown(f"- {_widgets.plain(sentence)}")
        _widgets.chart(_cache.kept(run, "shadow figure", lambda: shadows_figures.aucs(table)), table,
                       key="robust_shadows", title=TITLES["shadows"],
                       terms=("u_lira", "mia_auc"),
                       alt="AUC of the likelihood-ratio attack with shadow models beside the plain attack and controls",
                       caption=f"Seed of the run {run.recipe().seed}; 95 % intervals over documents. Ideal: 0.5.")
    _work.job_form(run, (*UNLEARNED, "merged"), lambda: _shadow_form(run), key="robust_shadows_job",
                      first="Train shadow models", again="Train more shadow models", measured=len(table) > 0)


def _shadow_form(run: Run) -> None:
    with _widgets.row():
        count = st.number_input("Shadow models", 4, 256, 8, 2, key="robust_shadows_n", persist_state="session",
                                width=160, help="an even number; more tell more")
        device = "" if _frame.read_only() else _work.device("robust_shadows_device")
    st.caption("Each takes as long as the run's own training; what is there is kept. In a terminal:")
    start(run, "shadows", ["--shadows", str(count)], device, "Train them", "robust_shadows_start")
