"""Section of the method page: NPO beside plain gradient ascent, to drag, with a run's own start and end on it."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from analysis import glossary_formulas as formulas
from analysis import method_figures, method_loss, theme, training
from pages import _cache, _explained_parts, _widgets
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

BETAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LOWEST, HIGHEST = -5.0, 40.0  # Delta in nats
LONG = 18  # tokens of an answer over which a Delta is summed, for comparison


def show(run: Run | None) -> None:
    """The formulas, the two sliders, the curves and what they say."""
    recipe, whose = _explained_parts.subject(run)
    st.markdown("Gradient ascent raises the loss on forget without end. NPO does the same with a brake: its slope is "
                "that of ascent times a factor, which falls as Δ grows.")
    _explained_parts.formula(formulas.WORDS["brake"])
    own = sorted({getattr(recipe, model).beta for model in UNLEARNED})
    with _widgets.row():
        beta = st.select_slider("β", sorted({*BETAS, *own}), value=own[0], key="method_beta", width=320,
                                help=_widgets.defined("temperature of NPO", "unlearn.beta"), **_explained_parts.BOUND)
        delta = st.slider("Δ (nats)", LOWEST, HIGHEST, 2.0, 0.5, key="method_delta", width=420,
                          help=_widgets.defined("rise of forget's NLL above the reference's", "delta"),
                          **_explained_parts.BOUND)
    _numbers(beta, delta)
    points = _points(run, recipe)
    high = max([HIGHEST, *(1.05 * points["delta"])])
    curves = method_loss.curves(beta, min([LOWEST, *points["delta"]]), high)
    _widgets.chart(
        method_figures.brake(curves, points, beta, delta), curves, key="method_brake", terms=("brake", "npo", "delta"),
        title="How hard does NPO still push when an answer is forgotten?",
        alt="NPO and plain gradient ascent over Delta, and the brake below",
        caption=f"β = {beta:g}. Ascent is drawn from where NPO starts, as its tangent. Below Δ = 0 an answer is known "
                f"better than before, and NPO pushes harder than ascent. {_where(points, recipe)}")
    _reductions(recipe, whose, beta, delta)


def _numbers(beta: float, delta: float) -> None:
    with st.container(horizontal=True, gap="medium"):
        for label, value in (("NPO", f"{float(method_loss.npo(delta, beta)):.3f}"),
                             ("Plain ascent", f"{float(method_loss.ascent(delta, beta)):.3f}"),
                             ("Brake", f"{float(method_loss.brake(delta, beta)):.3f}")):
            st.metric(label, value, width="content")


def _points(run: Run | None, recipe: Recipe) -> pd.DataFrame:
    if not _explained_parts.trained(run):
        return pd.DataFrame(columns=list(method_loss.POINT_COLUMNS))
    return method_loss.points(_cache.table(training.steps, run), recipe)


def _where(points: pd.DataFrame, recipe: Recipe) -> str:
    """Where the run stands on the curve."""
    ends = points[points["when"] == method_loss.LAST]
    if ends.empty:
        return "Where a run begins and ends is not measured: no step of unlearning was logged."
    said = [f"{theme.short_label(end.model)} Δ = {end.delta:.2f} (step {end.step}, its own "
            f"β {getattr(recipe, end.model).beta:g})" for end in ends.itertuples()]
    return f"This run at its last steps: {'; '.join(said)}, from the brake that was logged."


def _reductions(recipe: Recipe, whose: str, beta: float, delta: float) -> None:
    """What it changes whether Delta is a mean over tokens or their sum."""
    st.subheader("Why does it matter what Δ is taken over?")
    per_token, summed = (float(method_loss.brake(times * delta, beta)) for times in (1, LONG))
    used = " and ".join(sorted({getattr(recipe, model).npo_reduction for model in UNLEARNED}))
    st.markdown(
        f"If each token of an answer has risen by {delta:g} nats and Δ is their **mean** (`batch_mean`, the released "
        f"code), the brake is **{per_token:.2f}**. If Δ is their **sum** over {LONG} tokens (`sequence_sum`, NPO as "
        f"published), Δ is {LONG * delta:g} and the brake **{summed:.2g}**. Half of the push is gone at Δ = "
        f"(ln 3) / β = {math.log(3) / beta:.3g}. Δ in {whose}: {used}.")
    _widgets.definitions("unlearn.npo_reduction", "unlearn.beta", "ga")
