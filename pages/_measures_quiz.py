"""Section of the metrics page: general knowledge before and after, by multiple choice and openly, by subject."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import answers_figures, quiz, text_modes, theme
from pages import _cache, _frame, _measures_scores, _widgets
from unlearn_core.store import Run

BOUND = {"bind": "query-params"}
VIEWS = {"asked": "By how it is asked", "subjects": "By subject"}


def show(run: Run) -> None:
    """Multiple choice beside open questions, or either by subject."""
    _frame.part(_section, run)


def _section(run: Run) -> None:
    found = _cache.kept(run, "quiz", lambda: quiz.table(run))
    known = list(found["model"].unique())
    missing = quiz.lacking(found, run)
    if known:
        with _widgets.row():
            view = st.segmented_control("View", list(VIEWS), default="asked", required=True, key="metrics_quiz_view",
                                        format_func=VIEWS.get, **BOUND)
            models = _measures_scores.choose_models(known)
        if models:
            for sentence in quiz.describe(found, text_modes.default_model(models)):
                st.markdown(f"- {sentence}")
            (_asked if view == "asked" else _subjects)(run, found, models)
    for sentence in missing:
        st.info(_widgets.plain(sentence), icon=":material/hourglass_empty:")


def _asked(run: Run, found: pd.DataFrame, models: list[str]) -> None:
    own = found[(found["subject"] == quiz.ALL) & found["model"].isin(models)]
    _widgets.chart(
        _cache.kept(run, ("quiz chart", models), lambda: answers_figures.knowledge(found, models)), own,
        key="metrics_quiz", title="Is general knowledge still there when nobody offers the answer?",
        terms=("mmlu", "open_knowledge", "utility_gate"),
        alt="Share of right answers by multiple choice and by open questions, one mark per model",
        caption=f"{_sizes(own)}; seed {run.recipe().seed}. Bars: exact 95 % intervals; upright lines: chance, 0.25 for "
                "four options, practically 0 openly; orange: the gate, 0.75 of the base's multiple choice; ideal: the "
                "base's.")


def _subjects(run: Run, found: pd.DataFrame, models: list[str]) -> None:
    measures = [measure for measure in quiz.MEASURES if (found["measure"] == measure).any()]
    measure = st.segmented_control("Measure", measures, default=measures[0], required=True, key="metrics_quiz_measure",
                                   format_func=quiz.MEASURES.get, **BOUND)
    own = _cache.kept(run, ("subjects", measure, models), lambda: quiz.subjects(found, measure, models))
    ends = " to ".join(theme.short_label(model) for model in (quiz.before(models), models[-1]))
    _widgets.chart(
        _cache.kept(run, ("subject chart", measure, models), lambda: answers_figures.subjects(own, models)), own,
        key="metrics_subjects", title="Which subjects have suffered?",
        terms=("mmlu", "open_knowledge"),
        alt=f"Share of right answers by subject: {quiz.MEASURES[measure]}",
        caption=f"{quiz.MEASURES[measure]}; {_sizes(own[own['subject'] == quiz.ALL])}; seed {run.recipe().seed}; the "
                f"largest loss from {ends} first. Bars: exact 95 % intervals of each subject by itself; upright lines: "
                "chance; orange: the gate, for all subjects together.")


def _sizes(whole: pd.DataFrame) -> str:
    """How many questions were asked, by measure."""
    sizes = whole.groupby("measure", sort=False)["n"].max()
    return "n = " + ", ".join(f"{n} questions ({quiz.MEASURES[measure].lower()})" for measure, n in sizes.items())
