"""From what models wrote and answered (`collapse`, `rouge_leak`, `quiz`) to Plotly figures; each checks its columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import collapse, quiz, rouge_leak, theme
from analysis.metrics_figures import IDEAL_LINE, STEP, error_bars, marks
from analysis.panels import Panels, require

# Colour and pattern of what is written instead of the answer: nobody has to tell colours apart.
LOOKS = {collapse.SAYS: ("#CC79A7", ""), collapse.REFUSES: ("#56B4E9", "|"), collapse.EMPTY: ("#B8B8B8", "."),
         collapse.REPEATS: ("#E69F00", "/"), collapse.SAME: ("#F0E442", "x"), collapse.OTHER: ("#7F7F7F", "")}
BINS = 20
LEAKED = {True: ("A fact is given away", "#D55E00", "/"), False: ("No fact is given away", "#0072B2", "")}


def outcomes(shares: pd.DataFrame, split: str, models: Sequence[str]) -> go.Figure:
    """What each model writes to the prompts of a split, as stacked bars that add up to 1; `shares` is
    `collapse.shares`."""
    require(shares, collapse.SHARE_COLUMNS)
    shown, panels = shares[(shares["split"] == split) & shares["model"].isin(models)], Panels()
    for outcome, (color, pattern) in LOOKS.items():
        own = shown[shown["outcome"] == outcome]
        panels.add({"type": "bar", "orientation": "h", "x": own["share"].to_numpy(),
                    "y": [theme.short_label(model) for model in own["model"]], "name": outcome.capitalize(),
                    "legendgroup": outcome, "customdata": own[["low", "high", "count", "n"]].to_numpy(),
                    "marker": {"color": color, "pattern": {"shape": pattern, "solidity": 0.25}, "line": {"width": 0}},
                    "hovertemplate": "%{y}: %{x:.1%} [%{customdata[0]:.1%}, %{customdata[1]:.1%}], %{customdata[2]} of "
                                     "%{customdata[3]}<extra>%{fullData.name}</extra>"})
    panels.x(title={"text": f"Share of the answers on {split} (0 to 1)"}, range=[0, 1], showgrid=False)
    panels.y(autorange="reversed")
    return panels.figure(150 + 42 * max(len(models), 2), barmode="stack", bargap=0.3,
                         margin={"t": 74, "l": theme.room(map(theme.short_label, models))})


def two_by_two(shares: pd.DataFrame, chosen: tuple[str, str] | None = None) -> go.Figure:
    """Score against leak, a panel of four counts per model; the invisible squares on top can be clicked, and carry
    (model, cell). `shares` is `rouge_leak.shares`; `chosen` is framed."""
    require(shares, rouge_leak.SHARE_COLUMNS)
    models = shares["model"].tolist()
    panels, most = Panels([theme.short_label(model) for model in models], shared_y=True), max(1, shares["n"].max())
    at = {rouge_leak.NEITHER: (0, 0), rouge_leak.MISSED: (1, 0), rouge_leak.FALSE_ALARM: (0, 1),
          rouge_leak.BOTH: (1, 1)}
    for column, row in enumerate(shares.to_dict("records"), start=1):
        counts = np.zeros((2, 2))
        for cell, (x, y) in at.items():
            counts[y, x] = row[cell]
        panels.add({"type": "heatmap", "x": [0, 1], "y": [0, 1], "z": counts, "zmin": 0, "zmax": most, "xgap": 3,
                    "ygap": 3, "colorscale": "Cividis", "showscale": False, "hoverinfo": "skip",
                    "texttemplate": "%{z:d}", "textfont": {"size": 17}}, column=column)
        cells = list(at)
        panels.add({"type": "scatter", "mode": "markers", "x": [at[cell][0] for cell in cells],
                    "y": [at[cell][1] for cell in cells], "customdata": [[row["model"], cell] for cell in cells],
                    "marker": {"symbol": "square", "size": 60, "opacity": 0},
                    "hovertemplate": "%{customdata[1]}<extra></extra>"}, column=column)
        if chosen and chosen[0] == row["model"]:
            x, y = at[chosen[1]]
            axis = "" if column == 1 else column
            panels.shapes.append({"type": "rect", "xref": f"x{axis}", "yref": f"y{axis}", "x0": x - 0.5, "x1": x + 0.5,
                                  "y0": y - 0.5, "y1": y + 0.5, "line": {"color": "#D55E00", "width": 3}})
    panels.x(tickvals=[0, 1], ticktext=["no leak", "leak"], showgrid=False, range=[-0.5, 1.5])
    panels.y(tickvals=[0, 1], ticktext=["score<br>low", "score<br>high"], showgrid=False, range=[-0.5, 1.5])
    return panels.figure(300, margin={"t": 40, "l": 64, "b": 40})


def rouge_histogram(found: pd.DataFrame, model: str, threshold: float) -> go.Figure:
    """ROUGE-L recall of a model's continuations in bins, stacked by whether a fact is given away; `found` is
    `rouge_leak.table`."""
    require(found, rouge_leak.COLUMNS)
    own, edges = found[(found["model"] == model) & (found["kind"] == "sc")], np.linspace(0, 1, BINS + 1)
    panels = Panels()
    for leaked, (name, color, pattern) in LEAKED.items():
        counts, _ = np.histogram(own.loc[own["leaked"].ne("") == leaked, "score"], edges)
        panels.add({"type": "bar", "x": (edges[:-1] + edges[1:]) / 2, "y": counts, "name": name, "legendgroup": name,
                    "width": 1 / BINS, "marker": {"color": color, "pattern": {"shape": pattern, "solidity": 0.25},
                                                  "line": {"width": 0}},
                    "hovertemplate": "ROUGE-L %{x:.2f}: %{y}<extra>%{fullData.name}</extra>"})
    panels.mark(threshold, {"color": theme.INK, "dash": "dash", "width": 1.5})
    panels.x(title={"text": "ROUGE-L recall of the continuation (0 to 1)"}, range=[0, 1])
    panels.y(title={"text": "Continuations"}, rangemode="tozero")
    return panels.figure(320, barmode="stack", bargap=0.05)


def knowledge(found: pd.DataFrame, models: Sequence[str]) -> go.Figure:
    """General knowledge by how it was asked, with intervals, chance marks and the gate; `found` is `quiz.table`."""
    require(found, quiz.COLUMNS)
    whole = found[(found["subject"] == quiz.ALL) & found["model"].isin(models)]
    return _shares(whole, [name for name in quiz.MEASURES if name in whole["measure"].to_numpy()], "measure", models,
                   [quiz.MEASURES[name].replace(": ", ":<br>") for name in quiz.MEASURES
                    if name in whole["measure"].to_numpy()], 118)


def subjects(found: pd.DataFrame, models: Sequence[str]) -> go.Figure:
    """A row per subject, all of them first, with intervals, chance and gate; `found` is `quiz.subjects`."""
    require(found, quiz.COLUMNS)
    names = list(dict.fromkeys(found["subject"]))
    labels = [name.replace("_", " ") for name in names]
    return _shares(found, names, "subject", models, labels, theme.room(labels))


def _shares(found: pd.DataFrame, rows: Sequence[str], key: str, models: Sequence[str], labels: Sequence[str],
            left: float) -> go.Figure:
    """Shares of right answers as dots: a row per value of `key`, the models slightly apart."""
    panels, height = Panels(), 10 + 6 * len(models)  # of the marks in pixels
    for number, model in enumerate(models):
        style, own = theme.style(model), found[found["model"] == model]
        shift = (number - (len(models) - 1) / 2) * STEP
        panels.add({"type": "scatter", "mode": "markers", "x": own["share"].to_numpy(),
                    "y": np.array([rows.index(name) for name in own[key]], float) + shift,
                    "name": theme.short_label(model), "legendgroup": model, "marker": marks(style, 9),
                    "error_x": error_bars(own, style.color, "share"),
                    "customdata": own[["low", "high", "right", "n"]].to_numpy(),
                    "hovertemplate": "%{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], %{customdata[2]} of "
                                     "%{customdata[3]}<extra>%{fullData.name}</extra>"})
    levels = found.drop_duplicates(key)
    panels.add({"type": "scatter", "mode": "markers", "x": levels["chance"].to_numpy(),
                "y": np.array([rows.index(name) for name in levels[key]], float), "name": "Chance",
                "legendgroup": "chance",
                "marker": {"symbol": "line-ns", "size": height, "line": {"width": 2, "color": theme.INK}},
                "hovertemplate": "chance %{x:.2f}<extra></extra>"})
    gates = found.dropna(subset=["gate"])
    if len(gates):
        panels.add({"type": "scatter", "mode": "markers", "x": [gates["gate"].iloc[0]],
                    "y": [rows.index(gates[key].iloc[0])], "name": "Gate: 0.75 × the base", "legendgroup": "gate",
                    "marker": {"symbol": "line-ns", "size": height, "line": {"width": 3, "color": "#D55E00"}},
                    "hovertemplate": "gate %{x:.3f}<extra></extra>"})
    panels.mark(1.0, IDEAL_LINE)
    panels.x(title={"text": "Share of right answers (0 to 1)"}, range=[-0.03, 1.05])
    panels.y(tickvals=list(range(len(rows))), ticktext=list(labels), range=[len(rows) - 0.5, -0.5])
    return panels.figure(160 + max(26, 12 * len(models) + 8) * len(rows), margin={"l": left, "t": 76})
