"""Section of the metrics page: what a model still holds when it is led through a text, and at which depth."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import attacks_figures, memory
from pages import _cache, _frame, _measures_parts, _widgets
from unlearn_core.store import Run
from unlearn_core.vocabulary import TASK_LABELS, TASKS

VIEWS = {"memory": "Memory", "depth": "Depth"}
BOUND = {"bind": "query-params"}


def show(run: Run) -> None:
    """Memory or depth; or what to do where nothing was measured."""
    texts = _measures_parts.texts(run)
    if texts is not None:
        _frame.part(_section, run, texts)


def _section(run: Run, texts: pd.DataFrame) -> None:
    view = st.segmented_control("View", list(VIEWS), default="memory", required=True, key="metrics_memory_view",
                                format_func=VIEWS.get, label_visibility="collapsed", **BOUND)
    models = [model for model in run.models() if (texts["model"] == model).any()]
    if view == "depth":
        _depth(run, models)
    else:
        _memory(run, texts, models)


def _memory(run: Run, texts: pd.DataFrame, models: list[str]) -> None:
    task = st.selectbox("Task", ["", *TASKS], key="metrics_memory_task", width=180,
                        format_func=lambda task: TASK_LABELS.get(task, "all tasks"), **BOUND)
    table = _cache.kept(run, ("memory", task), lambda: memory.measures(texts, models, task))
    for model in models:
        st.markdown(f"- {memory.describe(table, model)}")
    counts = table.groupby("split")["documents"].max()
    said = ", ".join(f"{counts[split]} of {split}" for split in counts.index)
    _widgets.chart(
        _cache.kept(run, ("memory dots", task), lambda: attacks_figures.memory_dots(table)), table,
        key="metrics_memory", title="How much of the texts is still in there, even if it is not written?",
        terms=("extraction_strength", "exact_memorisation"),
        alt="Extraction strength, exact memorisation and probability of the answers per model and split",
        caption=f"Answers, led through token by token; {TASK_LABELS.get(task, 'all tasks')}; documents: {said}; seed "
                f"{run.recipe().seed}; 95 % intervals over documents. Holdout was never seen: it is what chance gives. "
                + " ".join(f"{memory.MEASURES[key]}: {words}." for key, words in memory.HELP.items())
                + " Ideal: forget as holdout, retain as the base.")


def _depth(run: Run, models: list[str]) -> None:
    table = _cache.kept(run, "depth", lambda: memory.depth(run, models))
    if table.empty:
        st.info("Not measured: no last norm was found in this model, through which a layer could be read.",
                icon=":material/block:")
        return
    for sentence in memory.describe_depth(table):
        st.markdown(f"- {sentence}")
    documents = table.groupby("split")["documents"].max()
    _widgets.chart(
        _cache.kept(run, "depth lines", lambda: attacks_figures.depth_lines(table)), table, key="metrics_depth",
        terms=("logit_lens",),
        title="At which depth does the model still know what it does not say?",
        alt="Mean log-probability of the answers of forget and of holdout after each layer, one line per model",
        caption="Logit lens: the state after a layer, decoded by the model's own last norm and head; answers, led "
                f"through token by token; {', '.join(f'{n} documents of {split}' for split, n in documents.items())}; "
                f"seed {run.recipe().seed}; 95 % intervals over documents. A line that is high in the middle on forget "
                "but not on holdout and falls at the end hides what the model knows. A lens was not trained for inner "
                "layers: low there is no proof of absence.")
