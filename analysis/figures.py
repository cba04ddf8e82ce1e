"""From tidy tables (see `frames`) to Plotly figures; each checks its columns. Titles belong to the place of use."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import frames, theme
from unlearn_core.vocabulary import LOSS_LABELS, LOSS_TERMS, TASKS

X_TITLES = {
    "step": "Optimizer step",
    "epoch": "Epoch (passes over the data)",
    "tokens": "Real tokens seen",
    "seconds": "Time since the start of training (s)",
}
COMPONENT_TITLES = LOSS_LABELS | {"loss": "Total: weighted sum"}
KINDS = ("regurgitation", "knowledge")


def _require(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"the figure needs the columns {missing}; the table has {list(frame.columns)}")


# ---- overview --------------------------------------------------------------------------------------------------

def tradeoff(scores: pd.DataFrame, published: pd.DataFrame | None = None) -> go.Figure:
    """Task Aggregate (x) against the signed MIA AUC (y) with its interval; the ideal is the right end of the 0.5 line.

    `scores` is `frames.score_table`. `published` is `published.table`, drawn as grey ghosts in the shapes of the
    models they correspond to; a MIA score without its AUC is drawn at both AUCs that it fits. What lacks a number is
    left out.
    """
    _require(scores, ("model", "task_aggregate", "mia_auc", "mia_auc_low", "mia_auc_high"))
    figure = go.Figure()
    figure.add_hline(y=0.5, line={"color": theme.INK, "dash": "dot", "width": 1.5})
    if published is not None:
        _add_ghosts(figure, published)
    for row in scores.dropna(subset=["task_aggregate", "mia_auc"]).to_dict("records"):
        style = theme.style(row["model"])
        figure.add_trace(go.Scatter(
            x=[row["task_aggregate"]], y=[row["mia_auc"]], mode="markers", name=theme.short_label(row["model"]),
            marker=_marker(style, 14),
            error_y={"type": "data", "symmetric": False, "array": [row["mia_auc_high"] - row["mia_auc"]],
                     "arrayminus": [row["mia_auc"] - row["mia_auc_low"]], "color": style.color, "width": 6},
            hovertemplate="Task Aggregate %{x:.3f}<br>MIA AUC %{y:.3f}<extra>%{fullData.name}</extra>"))
    for y, text, anchor in ((1.0, "▲ under-forgetting", "top"), (0.5, "● ideal", "bottom"),
                            (0.0, "▼ over-forgetting", "bottom")):
        figure.add_annotation(x=0.1, y=y, text=text, showarrow=False, xanchor="left", yanchor=anchor, font={"size": 13})
    figure.update_layout(template=theme.TEMPLATE, height=460)
    figure.update_xaxes(title="Task Aggregate (0 to 1, higher is better)", range=[-0.04, 1.04])
    figure.update_yaxes(title="MIA AUC (1: members still recognised)", range=[-0.06, 1.06])
    return figure


def _marker(style: theme.Style, size: int) -> dict:
    return {"color": style.color, "symbol": style.symbol, "size": size, "line": {"width": 2, "color": style.color}}


def _add_ghosts(figure: go.Figure, published: pd.DataFrame) -> None:
    _require(published, ("model", "system", "setting", "task_aggregate", "mia_score", "mia_auc"))
    known = published.dropna(subset=["mia_auc"])
    folded = published[published["mia_auc"].isna()]
    hover = "Task Aggregate %{x:.3f}<br>MIA AUC %{y:.3f}<extra>%{customdata}</extra>"
    figure.add_trace(go.Scatter(
        x=known["task_aggregate"].to_numpy(), y=known["mia_auc"].to_numpy(), mode="markers",
        customdata=[f"{row.system}, published ({row.setting})" for row in known.itertuples()],
        marker={"color": theme.GHOST, "symbol": [f"{theme.style(model).symbol}-open" for model in known["model"]],
                "size": 13, "line": {"width": 1.5, "color": theme.GHOST}},
        name="Published (other models, other data)", legendrank=2000, hovertemplate=hover))
    for number, row in enumerate(folded.itertuples()):
        away = (1 - row.mia_score) / 2
        figure.add_trace(go.Scatter(
            x=[row.task_aggregate] * 2, y=[0.5 - away, 0.5 + away], mode="lines+markers", opacity=0.6,
            marker={"color": theme.GHOST, "symbol": "line-ew", "size": 10, "line": {"width": 2, "color": theme.GHOST}},
            line={"color": theme.GHOST, "width": 1, "dash": "dot"},
            customdata=[f"{row.system}, published ({row.setting}), one of two"] * 2,
            name="Published without direction: one of two ends", legendgroup="folded", showlegend=number == 0,
            legendrank=2001, hovertemplate=hover))


def sub_scores(frame: pd.DataFrame) -> go.Figure:
    """The twelve sub-scores as dots: forget (ideal 0) left, retain (ideal 1) right, one row per task and kind.

    `frame` is `frames.sub_scores`. Models stand slightly apart in a row; what was not measured has no dot.
    """
    _require(frame, frames.SUB_SCORE_COLUMNS)
    rows = [(task, kind) for task in TASKS for kind in KINDS]
    models = list(dict.fromkeys(frame["model"]))
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04,
                           subplot_titles=("Forget: ideal 0, lower is better", "Retain: ideal 1, higher is better"))
    for column, (split, ideal) in enumerate((("forget", 0), ("retain", 1)), start=1):
        for number, model in enumerate(models):
            own = frame[(frame["model"] == model) & (frame["split"] == split)].dropna(subset=["value"])
            shift = (number - (len(models) - 1) / 2) * 0.14
            places = [rows.index(pair) + shift for pair in zip(own["task"], own["kind"], strict=True)]
            style = theme.style(model)
            figure.add_trace(go.Scatter(
                x=own["value"].to_numpy(), y=places,
                mode="markers", name=theme.short_label(model), legendgroup=model, showlegend=column == 1,
                marker=_marker(style, 10),
                error_x={"type": "data", "symmetric": False, "array": (own["high"] - own["value"]).to_numpy(),
                         "arrayminus": (own["value"] - own["low"]).to_numpy(), "color": style.color, "width": 3,
                         "thickness": 1},
                customdata=own["label"].tolist(),
                hovertemplate="%{customdata}: %{x:.3f}<extra>%{fullData.name}</extra>"), row=1, col=column)
        figure.add_vline(x=ideal, line={"color": theme.INK, "dash": "dot", "width": 1.5}, col=column)
    figure.update_layout(template=theme.TEMPLATE, height=520, margin={"t": 90}, legend={"y": 1.09})
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(title="Score (0 to 1)", range=[-0.05, 1.05])
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[_two_lines(*pair) for pair in rows],
                        range=[len(rows) - 0.5, -0.5])
    return figure


def _two_lines(task: str, kind: str) -> str:
    return frames.sub_score_name(task, kind).replace(", ", "<br>")


# ---- training --------------------------------------------------------------------------------------------------

def loss_components(frame: pd.DataFrame, x: str = "step", log_y: bool = False) -> go.Figure:
    """Small multiples: one panel per loss term and one for the total, both models in each, each with its own scale.

    `frame` is `frames.loss_components`; `x` is one of `frames.X_COLUMNS`. A log axis has no place for values <= 0.
    """
    _require(frame, ("model", x, "component", "value"))
    components = (*LOSS_TERMS, "loss")
    figure = _panels(2, 2, [COMPONENT_TITLES[component] for component in components])
    for number, component in enumerate(components):
        for model, own in frame[frame["component"] == component].groupby("model"):
            _add_line(figure, own, model, x, "value", place=(number // 2 + 1, number % 2 + 1), legend=number == 0)
    figure.update_yaxes(**_scale(log_y))
    figure.update_yaxes(title="Loss", col=1)
    return _finish(figure, x, rows=2, height=620)


def answer_nll(frame: pd.DataFrame, x: str = "step") -> go.Figure:
    """NLL of the answers against the reference's on the same items: forget above, retain below, a column per model.

    `frame` is `frames.steps`. Forgetting lifts the upper line off its dotted reference; the lower should stay on it.
    """
    _require(frame, ("model", x, "forget_nll", "forget_nll_reference", "retain_nll", "retain_nll_reference"))
    models = list(dict.fromkeys(frame["model"]))
    splits = ("forget", "retain")
    figure = _panels(2, max(len(models), 1), [f"{split.capitalize()}, {theme.short_label(model)}"
                                              for split in splits for model in models], shared_yaxes="rows")
    for row, split in enumerate(splits, start=1):
        for column, model in enumerate(models, start=1):
            own, place = frame[frame["model"] == model], (row, column)
            _add_line(figure, own, model, x, f"{split}_nll", place=place, legend=row == 1)
            _add_line(figure, own, model, x, f"{split}_nll_reference", place=place, legend=row == column == 1,
                      name="Reference (before unlearning)", line={"color": theme.INK, "dash": "dot", "width": 1.5})
    figure.update_yaxes(title="NLL (nats per answer token)", rangemode="tozero", col=1)
    return _finish(figure, x, rows=2, height=600)


def npo_brake(frame: pd.DataFrame, x: str = "step") -> go.Figure:
    """2 sigmoid(-beta Delta), NPO's gradient as a share of gradient ascent's: 1 = full ascent, 0 = stopped.

    `frame` is `frames.steps`.
    """
    _require(frame, ("model", x, "npo_brake"))
    figure = _panels(1, 1, None)
    for model, own in frame.groupby("model"):
        _add_line(figure, own, model, x, "npo_brake", place=(1, 1), legend=True)
    for y, text, anchor in ((1.0, "1: full gradient ascent", "bottom"), (0.0, "0: stopped", "bottom")):
        figure.add_hline(y=y, line={"color": theme.INK, "dash": "dot", "width": 1.5})
        figure.add_annotation(xref="paper", x=0.99, y=y, text=text, showarrow=False, xanchor="right", yanchor=anchor,
                              font={"size": 12})
    figure.update_yaxes(title="NPO brake (share of ascent)", range=[-0.03, max(1.12, 1.12 * frame["npo_brake"].max())])
    return _finish(figure, x, rows=1, height=360)


def optimizer(frame: pd.DataFrame, x: str = "step", log_y: bool = False) -> go.Figure:
    """Learning rate and gradient norm as two lanes over one x axis. `frame` is `frames.steps`."""
    _require(frame, ("model", x, "lr", "grad_norm"))
    figure = _panels(2, 1, ["Learning rate", "Gradient norm (before clipping)"], shared_xaxes=True)
    for model, own in frame.groupby("model"):
        _add_line(figure, own, model, x, "lr", place=(1, 1), legend=True)
        _add_line(figure, own, model, x, "grad_norm", place=(2, 1), legend=False)
    figure.update_yaxes(title="Learning rate", tickformat=".1e", row=1)
    figure.update_yaxes(title="L2 norm", **_scale(log_y), row=2)
    return _finish(figure, x, rows=2, height=480)


def base_loss(frame: pd.DataFrame, x: str = "step", log_y: bool = False) -> go.Figure:
    """Training loss of the base while it memorises. `frame` is `frames.base_steps`."""
    _require(frame, (x, "loss"))
    figure = _panels(1, 1, None)
    _add_line(figure, frame, "base", x, "loss", place=(1, 1), legend=True)
    figure.update_yaxes(title="Cross-entropy (nats per token)", **_scale(log_y))
    return _finish(figure, x, rows=1, height=340)


def _panels(rows: int, columns: int, titles: list[str] | None, **shared: object) -> go.Figure:
    return make_subplots(rows=rows, cols=columns, subplot_titles=titles, horizontal_spacing=0.11 if columns > 1 else 0,
                         vertical_spacing=0.16 if rows > 1 else 0, **shared)


def _scale(log: bool) -> dict:
    # Whole numbers at every tick: by default the ticks between powers of ten show one bare digit.
    return {"type": "log", "tickformat": ".2~g"} if log else {"type": "linear"}


def _add_line(figure: go.Figure, frame: pd.DataFrame, model: str, x: str, y: str, *, place: tuple[int, int],
              legend: bool, name: str | None = None, line: dict | None = None) -> None:
    style, points, name = theme.style(model), frames.thin(frame, y), name or theme.short_label(model)
    figure.add_trace(go.Scatter(
        x=points[x].to_numpy(), y=points[y].to_numpy(), mode="lines", name=name, legendgroup=name, showlegend=legend,
        line=line or {"color": style.color, "dash": style.dash, "width": 2},
        hovertemplate=f"{X_TITLES[x].split(' (')[0]} %{{x:.4~g}}: %{{y:.3~g}}<extra>{name}</extra>"),
        row=place[0], col=place[1])


def _finish(figure: go.Figure, x: str, *, rows: int, height: int) -> go.Figure:
    """Common layout; the x title stands under the lowest row only, and the legend above the panels' own titles."""
    figure.update_xaxes(rangemode="tozero", matches="x")
    figure.update_xaxes(title=X_TITLES[x], row=rows)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(template=theme.TEMPLATE, height=height, margin={"t": 80 if rows > 1 else 50},
                                legend={"y": 1.08 if rows > 1 else 1.02})
