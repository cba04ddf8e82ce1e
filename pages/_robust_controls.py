"""Sections of the page Robustness: attacks beside their controls, and in which layers the facts still sit."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from analysis import attack_controls, controls, controls_figures, weights
from pages import _cache, _frame, _robust_probes, _widgets, _work
from unlearn_core.store import Run
from unlearn_core.vocabulary import never_saw

VIEWS = {"attacks": "Attacks", "privleak": "PrivLeak", "quality": "Forget quality"}
BOUND = {"bind": "query-params"}


def show(run: Run) -> None:
    view = st.segmented_control("View", list(VIEWS), default="attacks", required=True, key="robust_controls_view",
                                format_func=VIEWS.get, label_visibility="collapsed", **BOUND)
    {"attacks": _attacks, "privleak": _privleak, "quality": _quality}[view](run)
    if not run.brought():
        known = never_saw(run.scores())
        retrained = len(known) if known != ["untrained"] else 0
        _work.job_form(run, (), lambda: _retrain_form(run, retrained), key="robust_retrain_job",
                          first="Train the model that never saw forget", again="Train it with more seeds",
                          measured=retrained > 0)


def _said(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        st.markdown(f"- {_widgets.plain(sentence)}")


def _attacks(run: Run) -> None:
    table = _cache.kept(run, "attack controls", lambda: attack_controls.attack_controls(run))
    if table["auc"].isna().all():
        st.info("Not measured: no attack has members of forget and held-out documents on the model that would be "
                "handed out.", icon=":material/hourglass_empty:")
        return
    _said(attack_controls.describe_all(table))
    _widgets.chart(
        _cache.kept(run, "attack dots", lambda: controls_figures.attack_dots(table)), table, key="robust_attacks",
        terms=("attack", "positive_control", "excess"),
        title="What does an attack find here, and what in a model that never saw the data?",
        alt="AUC of every attack on the handed-out model, the base and a control, with intervals",
        caption=f"n = {table['members'].max():.0f} members of forget and {table['nonmembers'].max():.0f} held out at "
                f"most; seed {run.recipe().seed}; 95 % intervals over documents. Faded: not even the base is "
                "recognised, so the attack says nothing here. Ideal: as the negative control.")


def _privleak(run: Run) -> None:
    table = _cache.kept(run, "privleak", lambda: controls.privleak(run))
    _said([controls.describe_privleak(row) for row in table.to_dict("records")])
    _widgets.show_table(table, key="robust_privleak", alt="PrivLeak of each model with its interval",
                        terms=("privleak", "retrained"))


def _quality(run: Run) -> None:
    table = _cache.kept(run, "forget quality", lambda: controls.forget_quality(run))
    if table.empty:
        st.info("Truth ratios were not measured on this run.", icon=":material/hourglass_empty:")
    else:
        _said([controls.describe_forget_quality(row) for row in table.to_dict("records")])
        _widgets.show_table(table, key="robust_quality", alt="Forget quality of each model",
                            terms=("truth_ratio", "forget_quality"))
    _work.job_form(run, () if run.brought() else ("merged",),
                      lambda: _simple_form(run, "truth_ratio", "Measure the truth ratios"), key="robust_quality_job",
                      first="Measure it", again="Measure it again", measured=len(table) > 0)


def show_depth(run: Run) -> None:
    """The unlearning depth score, layer by layer, beside the size of the weight change."""
    layers = _cache.kept(run, "control depth", lambda: controls.depth(run))
    if layers.empty:
        st.info("The depth of forgetting was not measured on this run.", icon=":material/hourglass_empty:")
    else:
        scores = _cache.kept(run, "depth scores", lambda: controls.depth_scores(run))
        _said(controls.describe_depth(scores, layers))
        measured = _cache.kept(run, "weights", lambda: weights.read(run))
        where = None if measured is None else weights.where(measured)
        change = () if where is None else (weights.profile(where, "group"), weights.measure(where))
        _widgets.chart(
            _cache.kept(run, "depth and change", lambda: controls_figures.depth_and_change(layers, *change)), layers,
            key="robust_depth", title="In which layers does the fact still sit, and which were changed?",
            terms=("d1", "depth_score"),
            alt="Drop of the base's log p when a layer's states are replaced, on forget and retain, and the relative "
                "change of the weights, by layer and model",
            caption=f"n = {layers['n'].max():.0f} documents at most; seed {run.recipe().seed}; 95 % intervals over "
                    "documents. Ideal on forget: D2 as high as D1; on retain: both at 0.")
    _work.job_form(run, () if run.brought() else ("merged",),
                      lambda: _simple_form(run, "depth", "Measure the depth"), key="robust_depth_job",
                      first="Measure it", again="Measure it again", measured=len(layers) > 0)


# ---- jobs ------------------------------------------------------------------------------------------------------

def _simple_form(run: Run, probe: str, label: str) -> None:
    with _widgets.row():
        device = "" if _frame.read_only() else _work.device(f"robust_{probe}_device")
    _robust_probes.start(run, "probe", [probe], device, label, f"robust_{probe}_start")


def _retrain_form(run: Run, there: int) -> None:
    with _widgets.row():
        seeds = st.number_input("Seeds", 1, 20, there + 1, key="robust_seeds", persist_state="session", width=120,
                                help="several tell how far two models lie apart that both never saw forget")
        device = "" if _frame.read_only() else _work.device("robust_retrain_device")
    st.caption("The run's own base recipe on retain and general texts alone, then evaluated. What is there is kept. In "
               "a terminal:")
    _robust_probes.start(run, "train", ["--without", "forget", "--seeds", str(seeds)], device, "Train it",
                         "robust_retrain_start")
