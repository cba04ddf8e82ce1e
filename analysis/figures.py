"""From tidy tables (see `frames`) to Plotly figures; each checks its columns. Titles belong to the place of use."""

from __future__ import annotations

import html
import textwrap

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import frames, lineage, theme
from analysis.panels import require
from unlearn_core.vocabulary import TASKS

# Purple, grey, orange: an AUC of 0 (over-forgetting), 0.5 (ideal) and 1 (under-forgetting).
SIGNED = ((0.0, "#7B5EA7"), (0.5, "#BDBDBD"), (1.0, "#E08214"))
KINDS = ("regurgitation", "knowledge")



# ---- overview --------------------------------------------------------------------------------------------------

def tradeoff(scores: pd.DataFrame, published: pd.DataFrame | None = None) -> go.Figure:
    """Task Aggregate (x) against the signed MIA AUC (y) with its interval; the ideal is the right end of the 0.5 line.

    `scores` is `frames.score_table`, or several of them as `comparison.stacked`, whose `number` then stands at each
    mark. `published` is `published.table`, drawn as grey ghosts in the shapes of the models they correspond to; a MIA
    score without its AUC is drawn at both AUCs that it fits. What lacks a number is left out.
    """
    require(scores, ("model", "task_aggregate", "mia_auc", "mia_auc_low", "mia_auc_high"))
    figure = go.Figure()
    figure.add_hline(y=0.5, line={"color": theme.INK, "dash": "dot", "width": 1.5})
    if published is not None:
        _add_ghosts(figure, published)
    for model, own in _by_model(scores.dropna(subset=["task_aggregate", "mia_auc"])):
        style = theme.style(model)
        figure.add_trace(go.Scatter(
            x=own["task_aggregate"].to_numpy(), y=own["mia_auc"].to_numpy(), name=theme.short_label(model),
            marker=_marker(style, 14), **_numbers(own),
            error_y={"type": "data", "symmetric": False, "array": (own["mia_auc_high"] - own["mia_auc"]).to_numpy(),
                     "arrayminus": (own["mia_auc"] - own["mia_auc_low"]).to_numpy(), "color": style.color, "width": 6},
            hovertemplate="Task Aggregate %{x:.3f}<br>MIA AUC %{y:.3f}" + _extra(own)))
    for y, text, anchor in ((1.0, "▲ under-forgetting", "top"), (0.5, "● ideal", "bottom"),
                            (0.0, "▼ over-forgetting", "bottom")):
        figure.add_annotation(x=0.1, y=y, text=text, showarrow=False, xanchor="left", yanchor=anchor, font={"size": 13})
    figure.update_layout(template=theme.TEMPLATE, height=460)
    figure.update_xaxes(title="Task Aggregate (0 to 1, higher is better)", range=[-0.04, 1.04])
    figure.update_yaxes(title="MIA AUC (1: members still recognised)", range=[-0.06, 1.06])
    return figure


def retention(points: pd.DataFrame) -> go.Figure:
    """Forget success (x) against retention (y), filled by the signed MIA AUC; the ideal is the upper right corner.

    `points` is `frames.with_halves`, or several of them as `comparison.stacked`, whose `number` then stands at each
    mark. Shape and outline are the model's; without an AUC there is no filling. The dotted steps are the Pareto line:
    left of it and below, some model is better in both.
    """
    require(points, ("model", "forget_success", "retention", "mia_auc"))
    points = points.dropna(subset=["forget_success", "retention"])
    figure = go.Figure()
    line = points[frames.on_pareto_line(points)].sort_values("forget_success")
    figure.add_trace(go.Scatter(
        x=line["forget_success"].to_numpy(), y=line["retention"].to_numpy(), mode="lines", name="Pareto line",
        line={"color": theme.INK, "dash": "dot", "width": 1.5, "shape": "vh"}, hoverinfo="skip", legendrank=2000))
    for model, own in _by_model(points):
        style = theme.style(model)
        # The legend's own mark, not filled: there one AUC would stand for all.
        figure.add_trace(go.Scatter(
            x=[None], y=[None], mode="markers", name=theme.short_label(model), legendgroup=model,
            marker=_marker(style, 14) | {"symbol": _open(style.symbol)}))
        for filled, part in own.groupby(own["mia_auc"].notna()):
            look = {"coloraxis": "coloraxis", "color": part["mia_auc"].to_numpy()} if filled else {"color": style.color}
            figure.add_trace(go.Scatter(
                x=part["forget_success"].to_numpy(), y=part["retention"].to_numpy(), name=theme.short_label(model),
                legendgroup=model, showlegend=False, **_numbers(part),
                marker={"symbol": style.symbol.removesuffix("-open") if filled else _open(style.symbol), "size": 17,
                        "line": {"width": 2.5, "color": style.color}, **look},
                hovertemplate="Forget success %{x:.3f}<br>Retention %{y:.3f}<br>MIA AUC "
                              + ("%{marker.color:.3f}" if filled else "not measured") + _extra(part)))
    figure.update_layout(
        template=theme.TEMPLATE, height=500,
        coloraxis={"colorscale": SIGNED, "cmin": 0, "cmid": 0.5, "cmax": 1, "colorbar": {
            "title": {"text": "MIA AUC", "side": "right"}, "tickvals": [0, 0.5, 1], "thickness": 14,
            "ticktext": ["0 ▼ over-<br>forgetting", "0.5 ● ideal", "1 ▲ under-<br>forgetting"]}})
    figure.update_xaxes(title="Forget success: 1 − mean of six forget scores", range=[-0.04, 1.06])
    figure.update_yaxes(title="Retention: mean of six retain scores", range=[-0.04, 1.06])
    return figure


def _by_model(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each model, in the order in which the models appear."""
    return [(model, frame[frame["model"] == model]) for model in frame["model"].unique()]


def _numbers(own: pd.DataFrame) -> dict:
    """Marks, with the run's number beside each where several runs are drawn."""
    if "number" not in own:
        return {"mode": "markers"}
    return {"mode": "markers+text", "text": own["number"].astype(str).tolist(), "textposition": "middle right",
            "textfont": {"size": 13}}


def _open(symbol: str) -> str:
    """A mark's shape without its filling."""
    return f"{symbol.removesuffix('-open')}-open"


def _extra(own: pd.DataFrame) -> str:
    """The end of a hover text: the model and, where several runs are drawn, the run's number."""
    return "<extra>%{fullData.name}" + (", run %{text}" if "number" in own else "") + "</extra>"


def _marker(style: theme.Style, size: int) -> dict:
    return {"color": style.color, "symbol": style.symbol, "size": size, "line": {"width": 2, "color": style.color}}


def _add_ghosts(figure: go.Figure, published: pd.DataFrame) -> None:
    require(published, ("model", "system", "setting", "task_aggregate", "mia_score", "mia_auc"))
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
    require(frame, frames.SUB_SCORE_COLUMNS)
    return _dots([(theme.short_label(model), theme.style(model), own) for model, own in _by_model(frame)])


def sub_scores_of_runs(frame: pd.DataFrame) -> go.Figure:
    """The twelve sub-scores of one model of several runs, as in `sub_scores`; each dot with its run's number.

    `frame` is `comparison.stacked` of `frames.sub_scores`, with the runs' names in `run`. All dots look like the model.
    """
    require(frame, ("number", "run", *frames.SUB_SCORE_COLUMNS))
    figure = _dots([(str(own["run"].iloc[0]), theme.style(own["model"].iloc[0]), own)
                    for _, own in frame.groupby("number")])
    return figure.update_layout(height=640)


def _dots(groups: list[tuple[str, theme.Style, pd.DataFrame]]) -> go.Figure:
    """Sub-scores of (name, look, rows) groups, each slightly apart from the others in a row."""
    rows = [(task, kind) for task in TASKS for kind in KINDS]
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04,
                           subplot_titles=("Forget: ideal 0, lower is better", "Retain: ideal 1, higher is better"))
    for column, (split, ideal) in enumerate((("forget", 0), ("retain", 1)), start=1):
        for number, (name, style, group) in enumerate(groups):
            own = group[group["split"] == split].dropna(subset=["value"])
            shift = (number - (len(groups) - 1) / 2) * 0.16
            places = [rows.index(pair) + shift for pair in zip(own["task"], own["kind"], strict=True)]
            figure.add_trace(go.Scatter(
                x=own["value"].to_numpy(), y=places, name=html.escape(name), legendgroup=name, showlegend=column == 1,
                marker=_marker(style, 10), **_numbers(own),
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


# ---- lineage ---------------------------------------------------------------------------------------------------

PLACES = {"data": (0, 4, 0.9), "base": (0, 3, 0.9), "model_1": (-0.5, 2, 0.46), "model_2": (0.5, 2, 0.46),
          "merged": (0, 1, 0.9), "evaluation": (0, 0, 0.9)}  # of each stage: column, row, half of its width
HALF_HEIGHT, LINE = 0.36, 92  # of a box: share of a row, characters across the whole width
NARROW = 0.35  # half of the width of a box whose label and state do not fit on one line
SIGNS = {lineage.DONE: "✓", lineage.STARTED: "◐", lineage.OPEN: "○"}


def lineage_graph(frame: pd.DataFrame) -> go.Figure:
    """The stages of a run as boxes from top to bottom, joined by arrows; what is not yet there has a dotted frame.

    `frame` is `lineage.table`.
    """
    require(frame, lineage.COLUMNS)
    figure, places = go.Figure(), _places(list(frame["stage"]))
    for start, end in lineage.arrows(list(frame["stage"])):
        column = next((places[stage][0] for stage in (start, end) if places[stage][0]), 0)
        figure.add_annotation(x=column, y=places[end][1] + HALF_HEIGHT, ax=column, ay=places[start][1] - HALF_HEIGHT,
                              xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True, arrowhead=2,
                              arrowwidth=1.5, arrowcolor=theme.INK)
    for row in frame.to_dict("records"):
        (x, y, half), style = places[row["stage"]], theme.style(row["stage"])
        dash = "dot" if row["state"] == lineage.OPEN else "solid"
        figure.add_shape(type="rect", x0=x - half, x1=x + half, y0=y - HALF_HEIGHT, y1=y + HALF_HEIGHT,
                         line={"color": style.color, "width": 2, "dash": dash})
        lines = textwrap.wrap(row["detail"].replace("\n", " · "), int(LINE * half), max_lines=2, placeholder=" …")
        apart = "<br>" if half < NARROW else " "
        figure.add_annotation(x=x, y=y, showarrow=False, font={"size": 12}, text="<br>".join(
            [f"<b>{row['label']}</b>{apart}{SIGNS[row['state']]} {row['state']}", *map(html.escape, lines)]))
    rows = max(y for _, y, _ in places.values()) + 1
    figure.update_layout(template=theme.TEMPLATE, height=20 + 90 * rows, margin={"l": 0, "r": 0, "t": 10, "b": 10})
    figure.update_xaxes(visible=False, range=[-1, 1], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-0.45, rows - 0.55], fixedrange=True)
    return figure


def _places(stages: list[str]) -> dict[str, tuple[float, int, float]]:
    """`PLACES`, or those of models that were brought: side by side between the data and the evaluation."""
    if set(stages) <= set(PLACES):
        return PLACES
    models, half = stages[1:-1], 0.9 / (len(stages) - 2)
    columns = {model: (-0.9 + half * (2 * place + 1), 1, 0.94 * half) for place, model in enumerate(models)}
    return {"data": (0, 2, 0.9), **columns, "evaluation": (0, 0, 0.9)}
