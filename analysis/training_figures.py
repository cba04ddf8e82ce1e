"""From the tables of `training` to Plotly figures; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme
from analysis.panels import require
from analysis.training_lines import DOTTED, PLAIN, View, add_level, add_lines, finish, panels, set_view
from unlearn_core.vocabulary import LOSS_LABELS, METHOD_TERMS

COMPONENT_TITLES = LOSS_LABELS | {"loss": "Total: weighted sum"}
REFERENCE = "Reference (before unlearning)"
NPO_ALONE, COMPOSITE = "NPO alone", "NPO+GDR+KLR"  # marks of the two runs of Fig. 3


def loss_components(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Small multiples: one panel per loss term and one for the total, every model in each, each with its own scale.

    `frame` is `training.loss_components`. A log axis has no place for values <= 0.
    """
    require(frame, ("model", view.x, "component", "value"))
    components = list(frame["component"].unique()) or [*METHOD_TERMS, "loss"]
    rows = -(-len(components) // 2)
    titles = [COMPONENT_TITLES[component] for component in components]
    figure = panels(rows, 2, [*titles, *[""] * (2 * rows - len(titles))])
    for number, component in enumerate(components):
        own, place = frame[frame["component"] == component], (number // 2 + 1, number % 2 + 1)
        add_lines(figure, own, view, "value", place, legend=number == 0, share=1 / len(components))
        set_view(figure, own["value"], view, *place)
    figure.update_yaxes(title="Loss", col=1)
    return finish(figure, view, rows=rows, height=310 * rows)


def answer_nll(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """NLL of the answers against the reference's on the same items: forget above, retain below, a column per model.

    `frame` is `training.steps` or an overlay. Forgetting lifts the upper line off its dotted reference; the lower
    should stay on it.
    """
    require(frame, ("model", view.x, "forget_nll", "forget_nll_reference", "retain_nll", "retain_nll_reference"))
    models = list(frame["model"].unique())
    splits = ("forget", "retain")
    figure = panels(2, max(len(models), 1), [f"{split.capitalize()}, {theme.short_label(model)}"
                                              for split in splits for model in models], shared_yaxes="rows")
    for row, split in enumerate(splits, start=1):
        for column, model in enumerate(models, start=1):
            own, place = frame[frame["model"] == model], (row, column)
            add_lines(figure, own, view, f"{split}_nll_reference", place, legend=row == column == 1,
                       share=1 / 4 / len(models), name=REFERENCE, line=DOTTED)
            add_lines(figure, own, view, f"{split}_nll", place, legend=row == 1, share=1 / 4 / len(models))
        drawn = frame[[f"{split}_nll", f"{split}_nll_reference"]].to_numpy().ravel()
        set_view(figure, drawn, view, row, None)
    figure.update_yaxes(title="NLL (nats per answer token)", col=1)
    if not (view.log_y or view.cut):
        figure.update_yaxes(rangemode="tozero")
    return finish(figure, view, rows=2, height=600)


def npo_brake(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """2 sigmoid(-beta Delta), NPO's gradient as a share of gradient ascent's: 1 = full ascent, 0 = stopped.

    `frame` is `training.steps` or an overlay. The scale is always linear and whole.
    """
    require(frame, ("model", view.x, "npo_brake"))
    figure = panels(1, 1, None)
    add_lines(figure, frame, view, "npo_brake", (1, 1), legend=True)
    add_level(figure, 1.0, "1: full gradient ascent", (1, 1))
    add_level(figure, 0.0, "0: stopped", (1, 1), left=True)
    highest = frame["npo_brake"].max()
    figure.update_yaxes(title="NPO brake (share of ascent)", range=[-0.03, 1.12 * max(1.0, np.nan_to_num(highest))])
    return finish(figure, view, rows=1, height=360)


def optimizer(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Learning rate and gradient norm as two lanes over one x axis. `frame` is `training.steps` or an overlay."""
    require(frame, ("model", view.x, "lr", "grad_norm"))
    figure = panels(2, 1, ["Learning rate", "Gradient norm (before clipping)"], shared_xaxes=True)
    add_lines(figure, frame, View(x=view.x), "lr", (1, 1), legend=True, share=1 / 2)
    add_lines(figure, frame, view, "grad_norm", (2, 1), legend=False, share=1 / 2)
    set_view(figure, frame["grad_norm"], view, 2)
    figure.update_yaxes(title="Learning rate", tickformat=".1e", row=1)
    figure.update_yaxes(title="L2 norm", row=2)
    return finish(figure, view, rows=2, height=480)


def base_loss(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Training loss of the base while it memorises. `frame` is `training.base_steps` or an overlay of them."""
    require(frame, (view.x, "loss"))
    figure = panels(1, 1, None)
    add_lines(figure, frame.assign(model="base"), view, "loss", (1, 1), legend=True)
    set_view(figure, frame["loss"], view, 1)
    figure.update_yaxes(title="Cross-entropy (nats per token)")
    return finish(figure, view, rows=1, height=380)


# ---- NPO alone against NPO + GDR + KLR -------------------------------------------------------------------------

def against_npo_alone(frame: pd.DataFrame, starts: dict[str, list[float]], view: View = PLAIN) -> go.Figure:
    """Fig. 3 of the paper: total loss (above) and NLL on retain (below) over training progress, a column per model.

    `frame` holds `training.steps` of both runs with the columns `mark` ("NPO alone" or "NPO+GDR+KLR") and
    `progress`. The dotted line of the composite run is its NPO term alone, so that both NPO curves can be compared.
    `starts` gives for each model the values of weighted NPO before the first update.
    """
    require(frame, ("model", "mark", view.x, "loss", "npo_weighted", "retain_nll"))
    models = list(frame["model"].unique())
    titles = [f"{what}, {theme.short_label(model)}" for what in ("Total loss", "NLL on retain") for model in models]
    figure = panels(2, max(len(models), 1), titles, shared_yaxes="rows")
    for column, model in enumerate(models, start=1):
        own, share = frame[frame["model"] == model], 1 / 3 / len(models)
        composite = own[own["mark"] != NPO_ALONE]
        add_lines(figure, composite, view, "npo_weighted", (1, column), legend=column == 1, share=share,
                   name="NPO term of NPO+GDR+KLR", line=DOTTED)
        add_lines(figure, own, view, "loss", (1, column), legend=True, share=share)
        add_lines(figure, own, view, "retain_nll", (2, column), legend=False, share=share)
        for start in filter(None, starts.get(model, [])):  # without weight NPO starts at its floor
            add_level(figure, start, f"{start:.3f}: start of NPO", (1, column), log=view.log_y)
        if not view.log_y:
            add_level(figure, 0.0, "0: floor of NPO", (1, column), left=True)
    set_view(figure, frame["loss"], view, 1, None)
    set_view(figure, frame["retain_nll"], view, 2, None)
    figure.update_yaxes(title="Loss", row=1, col=1)
    figure.update_yaxes(title="Nats per answer token", row=2, col=1)
    if not (view.log_y or view.cut):
        figure.update_yaxes(rangemode="tozero")
    return finish(figure, view, rows=2, height=640)
