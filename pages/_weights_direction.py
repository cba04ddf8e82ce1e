"""Section of the weights page: angles between models, and between the parts of a training (Fig. 4 of the paper)."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import theme, trajectory, weight_angles, weights_figures
from analysis.weight_angles import LEVELS, NORMS, PAIRS
from analysis.weights import Measured
from pages import _cache, _frame, _weights_parts, _widgets
from unlearn_core.store import Run

BY = {"group": "Layer", "type": "Module type"}
BAND = ("Grey: where 95 % of random directions lie, taken as random output sides over one common input side, as two "
        "LoRA adapters begin; drawn apart they would lie even closer to 90°.")


def show(run: Run, measured: Measured, types: list[str]) -> None:
    by = st.segmented_control("Angles per", list(BY), default="group", required=True, key="weights_by",
                              bind="query-params", format_func=lambda name: BY[name].lower())
    if len(measured.models) > 1:
        _between_models(run, measured, types, by)
    else:
        st.info("Angles between models take two of them.", icon=":material/hourglass_empty:")
    if weight_angles.trained(measured):
        _frame.part(_changes, run, measured, types, by)
    else:
        st.info("The way of a training cannot be split: it takes at least three adapter checkpoints, the first at step "
                "0. A run keeps them where its recipe's model_1.checkpoints and model_2.checkpoints are above 0.",
                icon=":material/hourglass_empty:")


def _between_models(run: Run, measured: Measured, types: list[str], by: str) -> None:
    frame = weight_angles.model_angles(measured, by, types)
    whole = frame[frame["group"] == "all"]
    words = "; ".join(f"{theme.short_label(row.first)} and {theme.short_label(row.second)} {row.angle:.1f}°"
                      for row in whole.itertuples())
    _widgets.chart(
        _cache.kept(run, ("model angles", types, by), lambda: weights_figures.model_angles(frame, BY[by])), frame,
        key="weights_angles", terms=("task_vector", "cosine"),
        title="Do both models pull the same way, and which one does the merge follow?",
        alt="Angles between the weight changes of the models, over all matrices and per group",
        caption=f"{_weights_parts.n(measured, types, run.recipe().seed)}. Angle between their ΔW as one long vector. "
                f"Over all matrices (first place): {words}; random 90 ± {whole['spread'].max():.2f}°. {BAND}")


def _changes(run: Run, measured: Measured, types: list[str], by: str) -> None:
    with _widgets.row():
        level = st.segmented_control("Changes of", list(LEVELS), default="delta", required=True, key="weights_level",
                                     bind="query-params", format_func=LEVELS.get)
        steps, why = _split(run, measured)
    frames = {model: weight_angles.changes(measured, model, step, level, by, types) for model, step in steps.items()}
    st.subheader("Did training go on in the same direction after step s?")
    st.caption("; ".join(f"{theme.short_label(model)}: s = {step}{why[model]}" for model, step in steps.items()))
    quantities = {"split": "Split step s", **{name: f"Angle between {label} (°)" for name, label in PAIRS.items()},
                  "spread": "95 % of random directions: 90 ± (°)",
                  **{name: f"Norm of {label}" for name, label in NORMS.items()}}
    whole = pd.concat([frame[frame["group"] == "all"].assign(split=steps[model]) for model, frame in frames.items()])
    _widgets.show_numbers(whole[list(quantities)].rename(columns=quantities).T,
                             [theme.short_label(model) for model in frames], key="weights_split",
                             alt="Angles and norms of the parts of each training, over all matrices")
    key, what = (types, level, by, steps), LEVELS[level]
    table = pd.concat([frame.assign(model=model, split=steps[model]) for model, frame in frames.items()])
    _widgets.chart(
        _cache.kept(run, ("changes", *key), lambda: weights_figures.changes(frames, BY[by])), table,
        key="weights_changes", terms=("task_vector", "turning_point"),
        title=f"Where did it turn? (Fig. 4, {BY[by].lower()} by {BY[by].lower()})",
        alt="Angles between the parts of each training and the whole, and their norms, per group",
        caption=f"n = {len(measured.chosen(types))} matrices; seed {run.recipe().seed}. Changes of {what}: 0→s from "
                "step 0 to s, s→end from there to the last adapter; 0→end is their sum, so the two angles to it add up "
                f"to the angle between the parts. {BAND}")
    over = {model: weight_angles.over_splits(measured, model, level, types) for model in steps}
    _widgets.chart(
        _cache.kept(run, ("over splits", types, level, steps), lambda: weights_figures.over_splits(over, steps)),
        pd.concat([frame.assign(model=model) for model, frame in over.items()]), key="weights_over_splits",
        terms=("task_vector", "turning_point"),
        title="Does the answer depend on the step?",
        alt="The three angles over every possible split step",
        caption=f"Over all chosen matrices, changes of {what}, one point per checkpoint; vertical line: the chosen s. "
                + ", ".join(f"{theme.short_label(model)}: {len(frame)} checkpoints" for model, frame in over.items())
                + f"; seed {run.recipe().seed}.")


def _split(run: Run, measured: Measured) -> tuple[dict[str, int], dict[str, str]]:
    """The step at which each training is split, and in words why, where it was not chosen by hand."""
    scored = trajectory.checkpoints(_cache.table(trajectory.trajectory, run))
    steps, why = {}, {}
    for model in weight_angles.trained(measured):
        usual, reason = weight_angles.default_split(measured, scored, model)
        options = weight_angles.split_steps(measured, model)
        steps[model] = st.selectbox(f"Split step s of {theme.short_label(model)}", options,
                                    index=options.index(usual), key=f"weights_split_{model}", bind="query-params",
                                    width=200)
        why[model] = f" ({reason})" if steps[model] == usual else " (chosen here)"
    return steps, why
