"""From the tables of `trajectory` to Plotly figures: the scores over the checkpoints; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme, trajectory
from analysis.panels import require
from analysis.training_lines import DOTTED, PLAIN, View, add_pins, finish, panels, short
from unlearn_core.vocabulary import TASK_LABELS, TASKS

KINDS = ("regurgitation", "knowledge")


def score_curves(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Fig. 2 of the paper: the twelve sub-scores over the checkpoints in small multiples, and three summaries.

    Rows: regurgitation, knowledge, then Task Aggregate, MIA AUC and the mean of the six sub-scores; columns: the
    three tasks. `frame` is `trajectory.trajectory`. Colour and marker are the model's; forget is dotted with open
    markers, retain as the model's own line with filled ones. With one model alone the intervals are drawn. A thin
    vertical line marks each model's turning point.
    """
    require(frame, trajectory.COLUMNS)
    titles = [f"{kind.capitalize()},<br>{TASK_LABELS[task]}" for kind in KINDS for task in TASKS]
    figure = panels(3, 3, [*titles, "Task Aggregate", "MIA AUC (ideal 0.5)", "Mean of the six sub-scores"],
                     vertical_spacing=0.12, horizontal_spacing=0.06)
    wide = trajectory.checkpoints(frame)
    models, alone = list(wide["model"].unique()), wide["model"].nunique() == 1
    for model in models:
        own = frame[frame["model"] == model]
        for row, kind in enumerate(KINDS, start=1):
            for column in range(1, len(TASKS) + 1):
                for split in ("forget", "retain"):
                    points = own[own["metric"] == f"{split}_{kind}_{column}"]
                    _add_scores(figure, points, model, view.x, (row, column), split, intervals=alone,
                                legend=(row, column) == (1, 1))
        for column, metric in enumerate(("task_aggregate", "mia_auc"), start=1):
            _add_scores(figure, own[own["metric"] == metric], model, view.x, (3, column), "retain", intervals=alone)
        for split in ("forget", "retain"):
            means = wide[wide["model"] == model].assign(value=lambda rows, name=split: rows[name])
            _add_scores(figure, means, model, view.x, (3, 3), split)
        turn = wide[(wide["model"] == model) & (wide["step"] == trajectory.turning_point(wide, model))]
        add_pins(figure, turn.assign(mark=""), View(x=view.x), color=theme.style(model).color)
    figure.add_hline(y=0.5, line=DOTTED, row=3, col=2)
    figure.update_yaxes(range=[-0.04, 1.04])
    figure.update_yaxes(title="Score (0 to 1)", col=1)
    return finish(figure, view, rows=3, height=860, top=120)


def score_path(frame: pd.DataFrame, merged: dict[str, float] | None = None,
               best: pd.DataFrame | None = None) -> go.Figure:
    """The way of each model through the plane of forget success (x) and retention (y), with an arrow per checkpoint.

    Forget success is 1 - the mean forget score. `frame` and `best` (ringed) are rows of `trajectory.checkpoints`;
    `merged` has the final means `forget` and `retain` of the merged model. The way begins at the base, grey.
    """
    require(frame, ("model", "step", "epoch", "forget", "retain"))
    figure = go.Figure()
    for model, own in frame.dropna(subset=["forget", "retain"]).groupby("model"):
        style, x, y = theme.style(model), (1 - own["forget"]).to_numpy(), own["retain"].to_numpy()
        figure.add_trace(go.Scatter(
            x=x, y=y, mode="lines+markers", name=theme.short_label(model),
            line={"color": style.color, "dash": style.dash, "width": 1.5},
            marker={"color": style.color, "symbol": style.symbol, "size": 7},
            customdata=_places(own), hovertemplate=PATH_HOVER))
        for start, end in zip(zip(x[:-1], y[:-1], strict=True), zip(x[1:], y[1:], strict=True), strict=True):
            figure.add_annotation(x=end[0], y=end[1], ax=start[0], ay=start[1], xref="x", yref="y", axref="x",
                                  ayref="y", showarrow=True, arrowhead=3, arrowsize=1.2, arrowwidth=1.2,
                                  arrowcolor=style.color, standoff=3, text="")
    _add_spot(figure, frame[frame["step"] == 0].head(1), "base", "Base (step 0)")
    if best is not None and not best.empty:
        figure.add_trace(go.Scatter(
            x=(1 - best["forget"]).to_numpy(), y=best["retain"].to_numpy(), mode="markers", name="Best checkpoint",
            marker={"symbol": "circle-open", "size": 18, "color": theme.INK, "line": {"width": 2}},
            customdata=_places(best), hovertemplate=PATH_HOVER))
    if merged is not None:
        _add_spot(figure, pd.DataFrame([merged]).assign(step=np.nan, epoch=np.nan), "merged", "Merged (final)")
    figure.update_layout(template=theme.TEMPLATE, height=520)
    figure.update_xaxes(title="Forget success: 1 - mean forget score (0 to 1, higher is better)", range=[-0.03, 1.03])
    return figure.update_yaxes(title="Retention: mean retain score (0 to 1)", range=[-0.03, 1.05])


PATH_HOVER = "%{customdata}<br>forget success %{x:.3f}<br>retention %{y:.3f}<extra>%{fullData.name}</extra>"


def _places(rows: pd.DataFrame) -> list[str]:
    return [f"step {row.step:.0f}, epoch {row.epoch:.2f}" for row in rows.itertuples()]


def _add_spot(figure: go.Figure, rows: pd.DataFrame, model: str, name: str) -> None:
    rows, style = rows.dropna(subset=["forget", "retain"]), theme.style(model)
    if not rows.empty:
        figure.add_trace(go.Scatter(
            x=(1 - rows["forget"]).to_numpy(), y=rows["retain"].to_numpy(), mode="markers", name=name,
            marker={"color": style.color, "symbol": style.symbol, "size": 14, "line": {"width": 1, "color": theme.INK}},
            hovertemplate="forget success %{x:.3f}<br>retention %{y:.3f}<extra>%{fullData.name}</extra>"))


def _add_scores(figure: go.Figure, rows: pd.DataFrame, model: str, x: str, place: tuple[int, int], split: str, *,
                intervals: bool = False, legend: bool = False) -> None:
    """One curve of scores, in the look of the model and the split. `rows`: one per checkpoint, with `value`."""
    rows, style, name = rows.dropna(subset=["value"]), theme.style(model), f"{theme.short_label(model)}, {split}"
    error = None
    if intervals and "low" in rows:
        error = {"type": "data", "symmetric": False, "array": (rows["high"] - rows["value"]).to_numpy(),
                 "arrayminus": (rows["value"] - rows["low"]).to_numpy(), "width": 0, "thickness": 1}
    figure.add_trace(go.Scatter(
        x=rows[x].to_numpy(), y=rows["value"].to_numpy(), mode="lines+markers", name=name, legendgroup=name,
        showlegend=legend, error_y=error,
        line={"color": style.color, "dash": "dot" if split == "forget" else style.dash, "width": 1.6},
        marker={"color": style.color, "symbol": style.symbol + ("-open" if split == "forget" else ""), "size": 6},
        hovertemplate=f"{short(x)} %{{x:.4~g}}: %{{y:.3f}}<extra>{name}</extra>"), row=place[0], col=place[1])
