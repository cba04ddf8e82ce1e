"""From the tables of `shadows` to Plotly figures; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import shadows, theme
from analysis.metrics_figures import error_bars, marks
from analysis.panels import Panels, require
from unlearn_core.vocabulary import TASK_LABELS

CHANCE = {"color": theme.INK, "dash": "dot", "width": 1.5}
SIDES = {True: "Forgotten by this run", False: "Never seen"}
TASKS = {"Task1": "circle", "Task2": "square", "Task3": "triangle-up"}


def aucs(table: pd.DataFrame) -> go.Figure:
    """AUC of each model with its interval under U-LiRA, under the plain loss attack, and with shuffled shadows (95 % of
    the shuffles); dotted: chance. `table` is `shadows.table`."""
    require(table, shadows.COLUMNS)
    models = list(dict.fromkeys(table["model"]))
    panels = Panels(tuple(shadows.SETTINGS.values()), across=0.03, shared_y=True)
    for column, setting in enumerate(shadows.SETTINGS, start=1):
        for place, model in enumerate(models):
            look, own = theme.style(model), table[(table["setting"] == setting) & (table["model"] == model)]
            own = own.dropna(subset=["auc"]).rename(columns={"auc_low": "low", "auc_high": "high"})
            panels.add({
                "type": "scatter", "mode": "markers", "x": own["auc"].to_numpy(), "y": np.full(len(own), place),
                "name": theme.short_label(model), "marker": marks(look), "cliponaxis": False,
                "error_x": error_bars(own, look.color, "auc"), "customdata": own[["low", "high", "members",
                                                                                   "nonmembers"]].to_numpy(),
                "hovertemplate": "AUC %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], %{customdata[2]} members, "
                                 "%{customdata[3]} non-members<extra>%{fullData.name}</extra>"}, column=column)
        panels.mark(0.5, CHANCE, column)
    panels.x(title={"text": "AUC"}, range=[-0.03, 1.03])
    panels.y(range=[len(models) - 0.5, -0.5], tickvals=list(range(len(models))),
             ticktext=[theme.short_label(model) for model in models])
    return panels.figure(130 + 44 * len(models), margin={"l": 96, "t": 40})


def traces(found: pd.DataFrame) -> go.Figure:
    """Each document: how far this model's log p lies above that of shadows that never saw it (x), and how far that of
    shadows that unlearned it does (y). Right of the dotted line U-LiRA takes it for a forgotten one where y is above 0,
    left of it where y is below. `found` is `shadows.documents`."""
    require(found, shadows.DOCUMENT_COLUMNS)
    panels = Panels(tuple(SIDES.values()), across=0.04, shared_y=True)
    reach = 1.1 * max(float(np.abs(found[["above", "trace"]].to_numpy()).max(initial=0.0)), 0.1)
    for column, side in enumerate(SIDES, start=1):
        for task, symbol in TASKS.items():
            own = found[(found["member"] == side) & (found["task"] == task)]
            panels.add({
                "type": "scatter", "mode": "markers", "name": TASK_LABELS[task], "legendgroup": task,
                "x": own["above"].to_numpy(), "y": own["trace"].to_numpy(), "customdata": own[["document",
                                                                                                "score"]].to_numpy(),
                "marker": {"symbol": symbol, "size": 8, "color": theme.INK, "opacity": 0.8},
                "hovertemplate": "%{customdata[0]}<br>log likelihood ratio %{customdata[1]:.2f}<extra></extra>"},
                column=column)
        panels.add({"type": "scatter", "mode": "lines", "x": [-reach / 2, reach / 2], "y": [-reach, reach],
                    "line": CHANCE, "hoverinfo": "skip", "name": "as likely seen as not", "legendgroup": "even"},
                   column=column)
    panels.x(title={"text": "This model above shadows that never saw it (nats per token)"}, range=[-reach, reach])
    panels.y(range=[-reach, reach])
    panels.y(column=1, title={"text": "Shadows that unlearned it above them"})
    return panels.figure(440, margin={"t": 84}, legend=1.1)
