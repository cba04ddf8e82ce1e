"""From the tables of `balancing` to Plotly figures; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme
from analysis.balancing import COLUMNS, CURVE_COLUMNS, setting
from analysis.panels import require
from unlearn_core.trials import balance

# No family is a model of the run, but the merge's and model_1's bear their looks. Okabe-Ito; never colour alone.
LOOKS = {
    balance.MERGED: (theme.style("merged").color, "solid", "diamond"),
    balance.MEAN: ("#CC79A7", "solid", "cross"),
    balance.MIXED: ("#E69F00", "dash", "x"),
    "model_1 scaled": (theme.style("model_1").color, "solid", "square"),
    "model_1 stopped early": (theme.style("model_1").color, "dot", "square-open"),
    "mean of model_1's checkpoints, scaled": ("#56B4E9", "dash", "triangle-up"),
}
OTHER = (theme.INK, "dashdot", "hexagon")



def tradeoff(curves: pd.DataFrame, target: float) -> go.Figure:
    """AUC (x) against Task Aggregate (y) of every configuration, each family a line along its knob; higher at the
    target is better. `curves` is `balancing.curves`; the ring marks the run's merge."""
    require(curves, CURVE_COLUMNS)
    figure = go.Figure()
    for family, own in curves.groupby("family", sort=False):
        color, dash, symbol = LOOKS.get(family, OTHER)
        names = [setting(family, name) for name in own["name"]]
        figure.add_trace(go.Scatter(
            x=own["mia_auc"].to_numpy(), y=own["task_aggregate"].to_numpy(), name=family, text=names,
            mode="lines+markers" if len(own) > 1 else "markers", line={"color": color, "dash": dash, "width": 1.5},
            marker={"color": color, "symbol": symbol, "size": 8},
            hovertemplate="%{text}<br>AUC %{x:.3f}, Task Aggregate %{y:.3f}<extra>%{fullData.name}</extra>"))
    own = curves[curves["name"] == balance.REFERENCE]
    figure.add_trace(go.Scatter(x=own["mia_auc"].to_numpy(), y=own["task_aggregate"].to_numpy(), mode="markers",
                                name=balance.AS_IT_IS, hoverinfo="skip",
                                marker={"symbol": "circle-open", "size": 18, "color": theme.INK, "line": {"width": 2}}))
    figure.add_vline(x=target, line={"color": theme.INK, "dash": "dot", "width": 1.5})
    figure.update_layout(template=theme.TEMPLATE, height=520, margin={"l": 64, "r": 20, "t": 110, "b": 52})
    figure.update_xaxes(title="MIA AUC (1: still recognised)", range=[-0.02, 1.02], automargin=False)
    figure.update_yaxes(title="Task Aggregate (0 to 1)", range=[-0.02, 1.02], automargin=False)
    return figure


def differences(families: pd.DataFrame) -> go.Figure:
    """Task Aggregate of each family less that of the run's merge, with its interval, at matched AUC: right is better.

    `families` is `balancing.families`."""
    require(families, COLUMNS)
    shown = families[families["family"] != balance.AS_IT_IS].iloc[::-1]
    value = shown["difference"].to_numpy()
    colors = [LOOKS.get(family, OTHER)[0] for family in shown["family"]]
    figure = go.Figure(go.Scatter(
        x=value, y=shown["family"].to_numpy(), mode="markers", customdata=shown[["mia_auc", "chosen"]].to_numpy(),
        marker={"color": colors, "size": 10, "symbol": [LOOKS.get(family, OTHER)[2] for family in shown["family"]]},
        error_x={"type": "data", "array": shown["high"].to_numpy() - value, "color": theme.INK, "thickness": 1.5,
                 "arrayminus": value - shown["low"].to_numpy(), "symmetric": False},
        hovertemplate="%{y}: %{x:+.3f}, AUC %{customdata[0]:.2f}, %{customdata[1]}<extra></extra>", showlegend=False))
    figure.add_vline(x=0, line={"color": theme.INK, "dash": "dot", "width": 1.5})
    widest = np.nanmax(np.abs([*shown["low"], *shown["high"], 0.05]))
    figure.update_layout(template=theme.TEMPLATE, height=110 + 34 * len(shown),
                         margin={"l": 250, "r": 20, "t": 20, "b": 52})
    figure.update_xaxes(title="Task Aggregate less that of the run's merge", range=[-1.1 * widest, 1.1 * widest],
                        automargin=False)
    figure.update_yaxes(automargin=False)
    return figure
