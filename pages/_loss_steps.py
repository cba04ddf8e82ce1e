"""The sections of the loss page that draw what was logged at each optimizer step, of one run or of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from analysis import theme, training, training_figures
from analysis.training_lines import View
from pages import _cache, _frame, _loss_parts, _widgets
from unlearn_core.errors import InputError
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

MAX_OTHERS = 4  # runs beside the chosen one
Recipes = dict[str, Recipe]  # by run id


def show(run: Run, section: str) -> None:
    """Section "terms", "nll" or "optimizer"."""
    with _widgets.row():
        view = View(x=_loss_parts.axis(), log_x=_loss_parts.log_axis(), reach=_loss_parts.reach())
        pin = _loss_parts.pin()
    with _widgets.row():
        also = _other_runs(run)
        models = _loss_parts.models()
    steps, recipes = _read(training.steps, run, also)
    _say_what_is_absent(steps, run)
    steps = steps[steps["model"].isin(models)]
    if steps.empty:
        return
    view = replace(view, pinned=None if pin is None else steps[steps["step"] == pin])
    _loss_parts.show_reading(steps, pin)
    counted = _loss_parts.lengths(steps, recipes)
    if section == "terms":
        _frame.part(_terms, run, steps, view, recipes, counted)
        _brake(run, steps, view, recipes, counted)
    elif section == "nll":
        _frame.part(_nll, run, steps, view, counted)
    else:
        _frame.part(_optimizer, run, steps, view, counted)
    if len(recipes) > 1:
        _loss_parts.show_settings(recipes)


def show_base(run: Run) -> None:
    """Training of the base while it memorises."""
    with _widgets.row():
        view = _loss_parts.view(_loss_parts.axis())
        also = _other_runs(run)
        view = replace(view, reach=_loss_parts.reach())
    steps, recipes = _read(training.base_steps, run, also)
    if steps.empty:
        st.info("No steps: the base of this run was loaded, or its training has not begun.",
                icon=":material/hourglass_empty:")
        return
    _widgets.chart(
        training_figures.base_loss(steps, view), steps, key="base_loss", terms=("nll",),
        title="Base: does the loss reach its floor?",
        alt="Training loss of the base while it memorises",
        caption=f"{_loss_parts.lengths(steps, recipes)}. Mean cross-entropy per optimizer step, "
                f"{_loss_parts.smoothing(view)}.")


# ---- the runs --------------------------------------------------------------------------------------------------

def _other_runs(run: Run) -> list[Run]:
    """Choice of runs to draw beside the chosen one."""
    others = {other.id: other for other in _frame.listing()[0] if other.id != run.id}
    chosen = st.multiselect("Also show", list(others), max_selections=MAX_OTHERS, key="loss_runs", bind="query-params",
                            placeholder="up to four other runs", disabled=not others, width=330)
    return [others[name] for name in chosen]


def _read(make: Callable[[Run], pd.DataFrame], run: Run, also: list[Run]) -> tuple[pd.DataFrame, Recipes]:
    """An overlay of `make`'s tables, and the recipes; another run that cannot be read is named and left out."""
    tables, recipes = {run.id: _cache.table(make, run)}, {run.id: run.recipe()}
    for other in also:
        try:
            tables[other.id], recipes[other.id] = _cache.table(make, other), other.recipe()
        except InputError as error:
            st.warning(_widgets.plain(error), icon=":material/broken_image:")
    return training.overlay(tables), recipes


def _say_what_is_absent(steps: pd.DataFrame, run: Run) -> None:
    there = steps.loc[steps["run"] == run.id, "model"].unique()
    absent = [theme.short_label(model) for model in UNLEARNED if model not in there]
    if absent:
        st.info(f"No steps yet of {' and '.join(absent)}: this run has not come that far, or it was stopped before.",
                icon=":material/hourglass_empty:")


# ---- charts ----------------------------------------------------------------------------------------------------

def _kept(run: Run, steps: pd.DataFrame, view: View, make: Callable[[pd.DataFrame, View], go.Figure],
          *key: object) -> go.Figure:
    """`make(steps, view)`, kept where only this run's files, the view, the models and `key` decide how it looks."""
    if steps["run"].nunique() > 1 or view.pinned is not None:
        return make(steps, view)
    return _cache.kept(run, (make.__name__, view, *steps["model"].unique(), *key), lambda: make(steps, view))


def _terms(run: Run, steps: pd.DataFrame, view: View, recipes: Recipes, counted: str) -> None:
    with _widgets.row():
        view = _loss_parts.with_vertical_axis(view)
        weighted = st.toggle("Weighted terms", value=True, key="weighted", bind="query-params",
                             help="each term times its coefficient, as it enters the total; off: the bare terms")

    def components(steps: pd.DataFrame, view: View) -> go.Figure:
        return training_figures.loss_components(training.loss_components(steps, weighted), view)

    names = [f"{term}_weighted" if weighted else term for term in training.terms(steps)]
    _widgets.chart(
        _kept(run, steps, view, components, weighted), _columns(steps, *names, "loss"), key="loss_components",
        terms=("npo", "gdr", "klr", "ga"),
        title="Which term drives the training, and does one of them run away?",
        alt="Loss terms and total of the chosen models over training",
        caption=f"{counted}. {'Weighted' if weighted else 'Unweighted'} terms, means over a step's micro-batches, "
                f"{_loss_parts.smoothing(view)}; the total is always the weighted sum."
                + (f" Weights: {_weights(*recipes.values())}." if len(recipes) == 1 else ""))


def _weights(recipe: Recipe) -> str:
    return "; ".join(
        f"{theme.short_label(model)}: {training.weights_in_words(getattr(recipe, model))}" for model in UNLEARNED)


def _brake(run: Run, steps: pd.DataFrame, view: View, recipes: Recipes, counted: str) -> None:
    betas = f" {_betas(*recipes.values())}." if len(recipes) == 1 else ""
    _widgets.chart(
        _kept(run, steps, view, training_figures.npo_brake), _columns(steps, "npo_brake"), key="npo_brake",
        terms=("brake", "delta", "unlearn.beta"),
        title="Does NPO slow down once the items are forgotten?",
        alt="Brake of NPO over training, for each model",
        caption=f"{counted}. 2 sigmoid(-beta Delta), Delta = NLL - reference NLL on forget: NPO's gradient as a share "
                f"of plain gradient ascent's, {_loss_parts.smoothing(view)}.{betas}")


def _betas(recipe: Recipe) -> str:
    settings = {model: getattr(recipe, model) for model in UNLEARNED}
    return ", ".join(f"{theme.short_label(model)} beta {own.beta:g}, Delta by {own.npo_reduction.replace('_', ' ')}"
                     for model, own in settings.items())


def _nll(run: Run, steps: pd.DataFrame, view: View, counted: str) -> None:
    with _widgets.row():
        view = _loss_parts.with_vertical_axis(view)
    _widgets.chart(
        _kept(run, steps, view, training_figures.answer_nll),
        _columns(steps, *(name for name in steps if "nll" in name)), key="nll",
        terms=("nll", "reference"),
        title="Does forget rise above its reference while retain stays on it?",
        alt="NLL of forget and retain answers against the reference, for each model",
        caption=f"{counted}. Mean NLL in nats per answer token on the items of each step, "
                f"{_loss_parts.smoothing(view)}; dotted: the same items under the model before unlearning.")


def _optimizer(run: Run, steps: pd.DataFrame, view: View, counted: str) -> None:
    with _widgets.row():
        view = _loss_parts.with_vertical_axis(view)
    _widgets.chart(
        _kept(run, steps, view, training_figures.optimizer), _columns(steps, "lr", "grad_norm"), key="optimizer",
        terms=("unlearn.lr", "unlearn.clip"),
        title="Are the updates steady?",
        alt="Learning rate and gradient norm of the chosen models over training",
        caption=f"{counted}. Warm-up, then linear decay to 0; L2 norm of the gradient before clipping, "
                f"{_loss_parts.smoothing(view)}.")


def _columns(steps: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table behind a chart."""
    return steps[["run", "model", *training.X_COLUMNS, *names]]
