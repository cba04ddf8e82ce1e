"""From the tables of `method_loss`, `method_ties` and `method_scores` to Plotly figures; each checks its columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import headlines, method_loss, method_ties, theme
from analysis.metrics_figures import marks
from analysis.panels import Panels, require
from analysis.signs import Steps
from unlearn_core.vocabulary import UNLEARNED

DOTTED = {"color": theme.INK, "dash": "dot", "width": 1.5}
DASHED = {"color": theme.INK, "dash": "dash", "width": 2}
CURVE = "#CC79A7"  # Okabe-Ito's pink, which no model has here
MEAN = "Plain mean"


def brake(curves: pd.DataFrame, points: pd.DataFrame, beta: float, delta: float) -> go.Figure:
    """NPO beside plain ascent above, the brake below, over Delta; a vertical line at `delta`, and where the models of
    a run began (open) and ended (filled). `curves` and `points` are those of `method_loss`."""
    require(curves, method_loss.CURVE_COLUMNS)
    require(points, method_loss.POINT_COLUMNS)
    panels, x = Panels(rows=2, down=0.08, heights=(3, 2)), curves["delta"].to_numpy()
    lines = ((1, "npo", "NPO", {"color": CURVE, "width": 3}), (1, "ascent", "Plain gradient ascent", DASHED),
             (2, "brake", "NPO", {"color": CURVE, "width": 3}))
    for row, column, name, line in lines:
        panels.add({"type": "scatter", "mode": "lines", "x": x, "y": curves[column].to_numpy(), "name": name,
                    "legendgroup": name, "line": line, "hovertemplate": "Δ %{x:.2f}: %{y:.3f}"}, row)
    panels.add({"type": "scatter", "mode": "lines", "x": x[[0, -1]], "y": [1, 1], "name": "Plain gradient ascent",
                "legendgroup": "Plain gradient ascent", "line": DASHED, "hoverinfo": "skip"}, 2)
    for row, value in ((1, method_loss.npo), (2, method_loss.brake)):
        _add_models(panels, points, row, lambda at, value=value: value(at, beta))
        panels.add({"type": "scatter", "mode": "markers", "x": [delta], "y": [float(value(delta, beta))],
                    "name": "At the slider", "legendgroup": "slider", "hovertemplate": "Δ %{x:.2f}: %{y:.3f}",
                    "marker": {"symbol": "circle-open", "size": 16, "color": theme.INK, "line": {"width": 2}}}, row)
        panels.mark(delta, DOTTED, row=row)
    panels.x(range=[x[0], x[-1]])
    panels.x(row=2, title={"text": "Δ: rise of forget's NLL above the reference's (nats)"})
    panels.x(row=1, showticklabels=False)
    panels.y(row=1, title={"text": "Loss"})
    panels.y(row=2, title={"text": "Brake (share of ascent)"}, range=[0, 2.05])
    return panels.figure(560)


def _add_models(panels: Panels, points: pd.DataFrame, row: int, value) -> None:
    for point in points.itertuples():
        style, name = theme.style(point.model), f"{theme.short_label(point.model)}, {point.when}"
        symbol = style.symbol + ("-open" if point.when == method_loss.FIRST else "")
        panels.add({"type": "scatter", "mode": "markers", "x": [point.delta], "y": [float(value(point.delta))],
                    "name": name, "legendgroup": name, "marker": marks(style, 11) | {"symbol": symbol},
                    "hovertemplate": f"step {point.step}, Δ %{{x:.2f}}: %{{y:.3f}}"}, row)


def ties(found: Steps, weights: Sequence[float] = (1.0, 1.0)) -> go.Figure:
    """Each entry of both vectors as bars, striped where trimmed, with the merge and the plain mean as marks beside."""
    places, figure = np.arange(1, len(found.merged) + 1), Panels()
    for number, model in enumerate(UNLEARNED):
        style, kept = theme.style(model), found.trimmed[number] != 0
        for name, those, pattern in ((theme.short_label(model), kept, ""),
                                     (f"{theme.short_label(model)}, trimmed", ~kept, "/")):
            figure.add({"type": "bar", "x": places[those] + (number - 0.5) * 0.26, "y": found.entries[number][those],
                        "width": 0.24, "name": name, "legendgroup": name,
                        "marker": {"color": style.color, "line": {"width": 1.5, "color": style.color},
                                   "pattern": {"shape": pattern, "fillmode": "replace", "size": 6}},
                        "hovertemplate": "%{y:.3g}"})
    style = theme.style("merged")
    for name, values, mark, shift in (
            ("TIES", found.merged, marks(style, 13), 0.31),
            (MEAN, method_ties.mean(found, weights), marks(theme.UNKNOWN, 11) | {"symbol": "x"}, 0.46)):
        figure.add({"type": "scatter", "mode": "markers", "x": places + shift, "y": values, "name": name,
                    "legendgroup": name, "marker": mark, "hovertemplate": "%{y:.3g}"})
    figure.level(0, {"color": theme.INK, "width": 1})
    figure.x(tickvals=places.tolist(), ticktext=[method_ties.ENTRY.format(place) for place in places],
             range=[0.5, len(places) + 0.7], showgrid=False)
    figure.y(title={"text": "Value"})
    return figure.figure(380, barmode="overlay")


def losses(members: Sequence[float], nonmembers: Sequence[float], threshold: float) -> go.Figure:
    """Members above, non-members below along their loss, and the threshold left of which all are called members."""
    figure = Panels()
    for name, values, symbol, color, row in (
            ("Members", members, "circle", "#E08214", 1), ("Non-members", nonmembers, "circle-open", "#7B5EA7", 0)):
        figure.add({"type": "scatter", "mode": "markers", "x": list(values), "y": [row] * len(values), "name": name,
                    "legendgroup": name, "hovertemplate": "loss %{x:g}",
                    "marker": {"symbol": symbol, "size": 16, "color": color, "line": {"width": 3, "color": color}}})
    figure.mark(threshold, {"color": theme.INK, "dash": "dash", "width": 2})
    low, high = min(0, *members, *nonmembers), 1.05 * max(*members, *nonmembers, threshold)
    left = threshold > low + 0.3 * (high - low)  # room for words on this side of the line
    figure.layout["annotations"].append({
        "x": threshold, "y": 1.5, "text": "called members ◂" if left else "◂ called members", "showarrow": False,
        "xanchor": "right" if left else "left", "xshift": -6 if left else 6})
    figure.x(title={"text": "Loss (nats per token)"}, range=[low, high])
    figure.y(tickvals=[0, 1], ticktext=["non-members", "members"], range=[-0.6, 1.8], showgrid=False)
    return figure.figure(260, margin={"l": 100})


def terms(table: pd.DataFrame, harmonic: float, plain: float) -> go.Figure:
    """The twelve terms as bars, the weakest first, with the harmonic and the plain mean as lines; `table` is
    `method_scores.terms`."""
    require(table, headlines.LINK_COLUMNS)
    labels = table["label"].to_list()[::-1]
    figure = go.Figure({"type": "bar", "orientation": "h", "x": table["term"].to_numpy()[::-1], "y": labels,
                        "marker": {"color": [theme.GHOST] * (len(labels) - 1) + [CURVE]}, "showlegend": False,
                        "customdata": table["pull"].to_numpy()[::-1],
                        "hovertemplate": "%{y}: %{x:.3f}, pull %{customdata:.0%}<extra></extra>"})
    for value, name, dash in ((harmonic, "harmonic mean", "solid"), (plain, "plain mean", "dot")):
        figure.add_shape(type="line", x0=value, x1=value, yref="paper", y0=0, y1=1,
                         line={"color": theme.INK, "dash": dash, "width": 2})
        figure.add_annotation(x=value, y=1, yref="paper", text=f"{name} {value:.3f}", showarrow=False,
                              yanchor="bottom", xanchor="right" if dash == "solid" else "left")
    return figure.update_layout(
        template=theme.TEMPLATE, height=430, margin={"l": 262, "r": 40, "t": 34, "b": 52},
        xaxis={"title": {"text": "Term (0 to 1)"}, "range": [0, 1.02], "automargin": False},
        yaxis={"automargin": False})
