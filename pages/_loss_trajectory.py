"""Section of the loss page: the scores of the checkpoints (Fig. 2 of the paper), and the job that takes them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from analysis import locked, theme, training, training_lines, trajectory, trajectory_figures
from pages import _cache, _frame, _loss_parts, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.store import Run
from unlearn_core.trials import halves
from unlearn_core.vocabulary import UNLEARNED

DOCUMENTS = 8  # per task and side: enough to see a trend
SHOWN = {"model": "Model", "step": "Step", "epoch": "Epoch", "task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC",
         "mia_score": "MIA score", "forget": "Mean forget (ideal 0)", "retain": "Mean retain (ideal 1)"}


def show(run: Run) -> None:
    """Curves, path and best checkpoint where checkpoints were scored; and the form that has them scored."""
    frame, about = _cache.table(trajectory.trajectory, run), run.trajectory()
    if frame.empty:
        st.info("How the scores moved during training has not been measured on this run.",
                icon=":material/hourglass_empty:")
    else:
        _charts(run, frame, about)
    _job(run, scored=not frame.empty)


# ---- charts ----------------------------------------------------------------------------------------------------

def _charts(run: Run, frame: pd.DataFrame, about: dict) -> None:
    with _widgets.row():
        view = training_lines.View(x=_loss_parts.axis(), log_x=_loss_parts.log_axis())
        models = _loss_parts.models()
        pin = _loss_parts.pin()
        criterion = st.selectbox("Best checkpoint by", list(trajectory.CRITERIA), key="loss_best", width=420,
                                 bind="query-params", format_func=lambda key: trajectory.CRITERIA[key].label)
    frame = frame[frame["model"].isin(models)]
    if frame.empty:
        st.info("No checkpoint of these models was scored.", icon=":material/hourglass_empty:")
        return
    wide = trajectory.checkpoints(frame)
    n = ", ".join(f"{theme.short_label(model)}: {count} checkpoints"
                  for model, count in wide.groupby("model", sort=False).size().items())
    turns = "; ".join(f"{theme.short_label(model)} {trajectory.describe_turn(wide, model)}"
                      for model in wide["model"].unique())
    steps = _cache.table(training.steps, run)
    if pin is not None:
        view = replace(view, pinned=steps[(steps["step"] == pin) & steps["model"].isin(models)])
        table = trajectory.reading(frame, pin)
        with st.container(border=True):
            st.markdown(f"**Checkpoints nearest to step {pin}**")
            _widgets.show_numbers(table, [f"{theme.short_label(model)}, step {step}" for model, step in table],
                               key="loss_score_reading", alt=f"All scores of the checkpoints nearest to step {pin}")
    _widgets.chart(
        trajectory_figures.score_curves(frame, view), frame, key="score_curves",
        terms=("checkpoint", "turning_point"),
        title="Do forget and retain fall together at first, and does retain come back?",
        alt="Twelve sub-scores, Task Aggregate, MIA AUC and mean scores over the checkpoints",
        caption=f"{n}, {halves.scored_on(about)}. Step 0 is the base. Forget should fall to 0, retain stay at 1. "
                f"Turning point: the checkpoint with the lowest mean retain score, a thin vertical line; {turns}."
                + (" Step 0 has no place on a log axis." if view.log_x else ""))
    best = trajectory.best_checkpoints(wide, criterion)
    merged = trajectory.means(run.scores().get("merged", {}))
    final = "" if merged is None else (" The diamond is the merged model's final score, on all documents, so on other "
                                       "items than the path.")
    _widgets.chart(
        trajectory_figures.score_path(wide, merged, best), wide, key="score_path",
        terms=("forget_success",),
        title="Which way did each model take, and where did merging land?",
        alt="Path of each model in the plane of forget success and retention",
        caption=f"{n}, {halves.scored_on(about)}. One arrow per checkpoint; both scores are plain means over six "
                f"sub-scores.{final}")
    _show_best(run, best, criterion, about)


def _show_best(run: Run, best: pd.DataFrame, criterion: str, about: dict) -> None:
    st.subheader("When should training have stopped?")
    label = trajectory.CRITERIA[criterion].label
    if best.empty:
        st.info(f"No checkpoint can be chosen by: {label}.", icon=":material/hourglass_empty:")
        return
    shown = best[list(SHOWN)].rename(columns=SHOWN).replace({"Model": {m: theme.short_label(m) for m in UNLEARNED}})
    _widgets.show_table(shown, key="loss_best_table", alt="Best checkpoint of each model",
                        columns={name: st.column_config.NumberColumn(format="%.3f") for name in shown.columns[2:]})
    st.caption(f"Best by: {label}; never the base itself, the first of equals. {locked.chosen_on(about)}")
    folders = [str(run.checkpoint_dir(row.model, int(row.step))) for row in best.itertuples()]
    if len(folders) > 1 and not run.recorded():
        st.caption("Merge these two:")
        _widgets.command(launching.command_line(["merge", "--adapters", *folders, "--out", f"{run.id}-best"]))


# ---- the job ---------------------------------------------------------------------------------------------------

def _job(run: Run, *, scored: bool) -> None:
    available = {model: len(run.checkpoints(model)) for model in UNLEARNED}
    available = {model: count for model, count in available.items() if count}
    if not available:
        if not scored:
            st.caption("It cannot be made: this run has no adapter checkpoints. A run keeps them where its recipe's "
                       "model_1.checkpoints and model_2.checkpoints are above 0; a recorded run comes without weights.")
        return
    if _work.busy(run):
        st.caption("A process is working on this run, or waits to; checkpoints can be evaluated when it is done. What "
                   "it has scored by then is shown above.")
        return
    opened = st.expander("Evaluate again, on other documents or models" if scored else "Evaluate the checkpoints",
                         expanded=not scored, key="loss_evaluate", on_change="rerun")
    if opened.open:
        with opened:
            _form(run, available)


def _form(run: Run, available: dict[str, int]) -> None:
    with _widgets.row():
        models = st.pills("Models to evaluate", list(available), default=list(available), selection_mode="multi",
                          key="loss_evaluate_models", persist_state="session", format_func=theme.short_label)
        documents = st.number_input("Documents per task and side", 0, None, DOCUMENTS, key="loss_evaluate_documents",
                                    persist_state="session", width=220, help="0: all; few are fast and noisy")
        seed = st.number_input("Seed of the choice", 0, None, 0, key="loss_evaluate_seed", persist_state="session",
                               width=160)
        device = "" if _frame.read_only() else _work.device("loss_evaluate_device")
    if not models:
        st.caption("Choose a model.")
        return
    arguments = ["--checkpoints", "--models", *models, "--documents", str(documents), "--seed", str(seed)]
    st.caption(f"{sum(available[model] for model in models)} evaluations: each checkpoint of each model. What was "
               "scored on the same documents before is kept; other documents replace it. In a terminal:")
    _widgets.command(launching.command_line(["evaluate", run.id, *arguments]))
    if not _frame.read_only():
        st.button("Evaluate checkpoints", icon=":material/play_arrow:", type="primary", key="loss_evaluate_start",
                  on_click=_frame.attempt, args=(lambda: jobs.measure(
                      run, "evaluate", arguments, device=device),))
