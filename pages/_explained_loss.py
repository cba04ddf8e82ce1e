"""Section of the method page: the loss term by term, its settings in both models, and a run's first and last step."""

from __future__ import annotations

import streamlit as st

from analysis import glossary_formulas as formulas
from analysis import method_loss, theme, training
from pages import _cache, _explained_parts, _widgets
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

TERMS = {
    "npo": "**NPO** pushes the answers of forget away. Δ is how much their NLL has risen above that of the reference, "
           "the model before unlearning. The loss falls as Δ grows, ever more slowly: the slope is the brake.",
    "gdr": "**GDR** keeps the answers of retain: the usual cross-entropy on their T tokens.",
    "klr": "**KLR** keeps the whole distribution on retain where the reference has it, at N positions, token by token.",
}

MODELS = {theme.short_label(model): st.column_config.TextColumn(width=92) for model in UNLEARNED}


def show(run: Run | None) -> None:
    """The idea, the loss and its terms, the two settings, and what a run went through."""
    st.markdown(
        "One base is unlearned twice. **Model 1** is meant to forget too much, **Model 2** too little; both minimise "
        "the same loss with other weights. Then **TIES** merges the two, so that their opposite faults meet in the "
        "middle (arXiv 2503.21088).")
    st.subheader("What is minimised?")
    _explained_parts.formula(formulas.TOTAL)
    for term, words in TERMS.items():
        with st.container(border=True):
            st.markdown(words)
            _explained_parts.formula(formulas.WORDS[term])
    _two_settings(run)
    _steps(run)


def _two_settings(run: Run | None) -> None:
    recipe, whose = _explained_parts.subject(run)
    st.subheader("Which settings make one forget too much and the other too little?")
    _widgets.show_table(method_loss.symbols(recipe), key="method_symbols", alt="Symbols, settings and values",
                        columns={"Symbol": st.column_config.TextColumn(width=64), **MODELS},
                        terms=[f"model_1.{name}" for name in method_loss.SYMBOLS])
    st.caption(f"Settings of {whose}. {method_loss.starts(recipe)}")


def _steps(run: Run | None) -> None:
    st.subheader("What did the loss do in this run?")
    if not _explained_parts.trained(run):
        st.info("Not measured: nothing was trained here.", icon=":material/hourglass_empty:")
        return
    table = method_loss.first_and_last(_cache.table(training.steps, run))
    if table.empty:
        st.info("Not measured: this run has no steps of unlearning yet.", icon=":material/hourglass_empty:")
        return
    _widgets.show_numbers(table, list(table.columns), key="method_steps",
                          alt="Loss terms and NLL at the first and the last step of each model",
                          terms=("npo", "gdr", "klr", "brake", "nll", "reference"))
    st.caption(f"Seed {run.recipe().seed}. One step reads a few items, so single steps scatter; the page Loss has all "
               "of them. Terms are bare, the total is weighted; NLL in nats per answer token. The first step is read "
               "before the first update, so the brake is there nearly 1.")
