"""Section of the method page: each official score with a small example to play with."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import glossary_formulas as formulas
from analysis import method_figures, method_scores, official, text_marks, theme
from pages import _explained_parts, _generations_text, _widgets
from unlearn_core.evaluation import rouge
from unlearn_core.store import Run
from unlearn_core.vocabulary import METRICS, MMLU_GATE_SHARE, shipped

SHARE = {"min_value": 0.0, "max_value": 1.0}


def show(run: Run | None) -> None:
    """ROUGE-L and exact match per item, the attack over documents, then what is made of them."""
    _rouge()
    _exact_match()
    _attack()
    scores = {} if run is None else run.scores()
    _harmonic_mean(scores)
    _gate(scores)


def _rouge() -> None:
    st.subheader("ROUGE-L recall: how much of a text is still there?")
    _explained_parts.formula(formulas.WORDS["rouge_l_recall"])
    reference = st.text_input("What should be there (y)", method_scores.REFERENCE, key="method_reference")
    generation = st.text_input("What a model wrote (ŷ)", method_scores.GENERATION, key="method_generation")
    pieces = text_marks.overlap(reference, generation)
    if generation:
        st.markdown(_generations_text.marked(pieces))
    common, wanted = method_scores.words_in_common(reference, generation)
    st.markdown(f"{common} of {wanted} words stand in the answer in the right order: the longest common subsequence. "
                f"ROUGE-L recall = {common} / {wanted} = **{rouge.rouge_l_recall(reference, generation):.3f}**."
                if wanted else "Without a word that should be there the score is 0.")
    st.caption("Words are lower-cased, split at everything but a-z and 0-9, and stemmed, so that “ships” and “ship” "
               "are one. What follows the right words costs nothing. The score of a continuation; the mean over all of "
               "a split and task is its regurgitation.")
    _widgets.definitions("rouge_l_recall", "forget_regurgitation_1", "retain_regurgitation_1", "chance_level")


def _exact_match() -> None:
    st.subheader("Exact match: is the answer right, and nothing else?")
    own = st.text_input("Another answer to try", "1987-05-04 ", key="method_answer")
    st.dataframe(method_scores.exact_matches(method_scores.RIGHT, dict.fromkeys([*method_scores.ANSWERS, own])),
                 hide_index=True, width=520, alt="Answers and whether they count",
                 column_config={"Exact match": st.column_config.NumberColumn(format="%d")})
    st.caption(f"The right answer is {method_scores.RIGHT}. Outer blanks and case do not count, all else does: a fact "
               "in another format is 0 here and given away all the same. The page Leaks looks for that.")
    _widgets.definitions("exact_match", "forget_knowledge_1", "retain_knowledge_1", "leak")


def _attack() -> None:
    st.subheader("MIA AUC: are members still told from texts that nobody saw?")
    _explained_parts.formula(formulas.SCORES["mia_auc"])
    given = st.data_editor(
        pd.DataFrame([method_scores.MEMBERS, method_scores.NONMEMBERS], columns=["Text 1", "Text 2", "Text 3"],
                     index=pd.Index(["Loss of members", "Loss of non-members"], name="Side")),
        key="method_losses", width=520, alt="Three editable losses of members and three of non-members")
    members, nonmembers = (side.tolist() for side in given.to_numpy(float))
    method_scores.check_losses(members, nonmembers)
    threshold = st.slider("Threshold", 0.0, 5.0, 2.2, 0.1, key="method_threshold", width=520, **_explained_parts.BOUND,
                          help=_widgets.defined("loss below which a text is called a member", "attack"))
    for sentence in method_scores.describe_attack(members, nonmembers, threshold):
        st.markdown(f"- {sentence}")
    _widgets.chart(
        method_figures.losses(members, nonmembers, threshold), method_scores.pairs(members, nonmembers),
        key="method_attack", title="Which side does the threshold take?", terms=("mia_auc", "mia_score", "member"),
        alt="Losses of three members and three non-members with the threshold",
        caption="Members were trained on, non-members are held out. After good forgetting both have the same losses: "
                "AUC 0.5. Below 0.5 members are harder than unseen text: over-forgetting. The table has every pair.")


def _harmonic_mean(scores: dict) -> None:
    st.subheader("Task Aggregate: what does one bad term cost?")
    _explained_parts.formula(formulas.SCORES["task_aggregate"])
    model, own = method_scores.own_scores(scores)
    weakest = method_scores.terms(own)["metric"].iloc[0]
    with _widgets.row():
        key = st.selectbox("Sub-score to change", official.CELLS, index=official.CELLS.index(weakest),
                           key="method_sub_score", format_func=lambda cell: METRICS[cell].label, width=320)
        value = st.slider("Its value", value=float(own[key]), step=0.01, width=320, key=f"method_value_{key}", **SHARE)
    changed = own | {key: value}
    table, (harmonic, plain) = method_scores.terms(changed), method_scores.means(changed)
    first = table.iloc[0]
    st.markdown(f"Task Aggregate: **{harmonic:.3f}**, where the plain mean of the terms would be {plain:.3f}. The "
                f"weakest link is **{first['label']}** with {first['term']:.3f}; were it 1, the Task Aggregate would "
                f"be {first['at_ideal']:.3f}." + (" One term of 0 makes all of it 0." if not harmonic else ""))
    _widgets.chart(
        method_figures.terms(table, harmonic, plain), table, key="method_terms",
        title="How far below the plain mean does the weakest term pull it?",
        terms=("task_aggregate", "weakest_link", key),
        alt="Twelve terms, the weakest first, with harmonic and plain mean",
        caption=f"Terms: 1 − score on forget, score on retain. {_whose(model)} with the value above.")


def _whose(model: str) -> str:
    return f"{theme.short_label(model)} of this run" if model else \
        "Made-up scores, as no model of this run has all twelve,"


def _gate(scores: dict) -> None:
    st.subheader("MMLU gate: does it still know what everybody may know?")
    model = shipped(scores)
    known = [scores.get(name, {}).get("mmlu") for name in ("base", model)]
    measured = None not in known
    with _widgets.row():
        base, own = (st.number_input(f"MMLU of {what}", value=float(value), step=0.01, format="%.3f", width=200,
                                     key=f"method_mmlu_{what.split()[-1]}", **SHARE)
                     for what, value in zip(("the base", "the model"), known if measured else (0.495, 0.40),
                                            strict=True))
    st.markdown(method_scores.describe_gate(base, own))
    start = (f"this run's base and {theme.short_label(model)}" if measured else
             "the competition's 7B base and a made-up model, as MMLU of both is not measured")
    st.caption(f"At first: {start}. At least {MMLU_GATE_SHARE:g} of the base's accuracy must be left. Chance is 0.25: "
               "near it the gate says little.")
    _widgets.definitions("mmlu", "utility_gate", "gate.utility", "aggregate")
