"""From the tables of `official`, `headlines` and `differences` to Plotly figures; each checks its columns."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import differences, frames, headlines, official, theme
from analysis.panels import Panels, require
from unlearn_core.vocabulary import TASKS

ROWS = [(task, kind) for task in TASKS for kind in ("regurgitation", "knowledge")]
TITLES = {"forget": "Forget: ideal 0, lower is better", "retain": "Retain: ideal 1, higher is better"}
IDEAL_LINE = {"color": theme.INK, "dash": "dot", "width": 1.5}
STEP = 0.15  # between the models of a row
CHANCE, NOTHING = "Chance: fluent text about something else", "Chance: an empty text"
OF_RUNS = ("task_aggregate", "mia_auc", "mmlu", "aggregate")


def error_bars(frame: pd.DataFrame, color: str, value: str = "value") -> dict:
    """Horizontal bars from `low` to `high` around a value; none where an end is missing."""
    return {"type": "data", "symmetric": False, "array": (frame["high"] - frame[value]).to_numpy(),
            "arrayminus": (frame[value] - frame["low"]).to_numpy(), "color": color, "width": 3, "thickness": 1.5}


def marks(style: theme.Style, size: int = 10) -> dict:
    """The mark of a model."""
    return {"color": style.color, "symbol": style.symbol, "size": size, "line": {"width": 2, "color": style.color}}


def scores(table: pd.DataFrame, models: Sequence[str]) -> go.Figure:
    """The twelve sub-scores as dots with intervals: forget left, retain right, a row per task and kind, the models
    slightly apart. Beside each row the chance levels, dotted the ideal. `table` is `official.table`."""
    require(table, official.COLUMNS)
    panels = Panels([TITLES["forget"], TITLES["retain"]], across=0.04, shared_y=True)
    for column, (split, ideal) in enumerate((("forget", 0), ("retain", 1)), start=1):
        side = table[table["split"] == split]
        for number, model in enumerate(models):
            style, own = theme.style(model), side[(side["model"] == model) & side["value"].notna()]
            shift = (number - (len(models) - 1) / 2) * STEP
            panels.add({
                "type": "scatter", "mode": "markers", "x": own["value"].to_numpy(), "y": _places(own) + shift,
                "name": theme.short_label(model), "legendgroup": model, "marker": marks(style),
                "error_x": error_bars(own, style.color),
                "customdata": own[["label", "low", "high", "units"]].to_numpy(),
                "hovertemplate": "%{customdata[0]}: %{x:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}], "
                                 "n = %{customdata[3]}<extra>%{fullData.name}</extra>"}, column=column)
        rows = side.drop_duplicates("metric")
        for name, values, symbol in ((CHANCE, rows["chance"].to_numpy(), "line-ns"),
                                     (NOTHING, np.zeros(len(rows)), "x-thin")):
            panels.add({"type": "scatter", "mode": "markers", "x": values, "y": _places(rows), "name": name,
                        "legendgroup": name, "marker": {"symbol": symbol, "size": 34 if symbol == "line-ns" else 8,
                                                        "line": {"width": 2, "color": theme.INK}, "color": theme.INK},
                        "hovertemplate": "%{x:.3f}<extra>%{fullData.name}</extra>"}, column=column)
        panels.mark(ideal, IDEAL_LINE, column)
    panels.x(title={"text": "Score (0 to 1)"}, range=[-0.05, 1.05])
    panels.y(tickvals=list(range(len(ROWS))), ticktext=[_two_lines(*pair) for pair in ROWS],
             range=[len(ROWS) - 0.5, -0.5])
    return panels.figure(max(460, 100 + 6 * (22 * len(models) + 12)), margin={"l": 118, "t": 116}, legend=1.08)


def _places(rows: pd.DataFrame) -> np.ndarray:
    return np.array([ROWS.index(pair) for pair in zip(rows["task"], rows["kind"], strict=True)], float)


def _two_lines(task: str, kind: str) -> str:
    return frames.sub_score_name(task, kind).replace(", ", "<br>")


def radar(table: pd.DataFrame, models: Sequence[str]) -> go.Figure:
    """The twelve terms of the harmonic mean around a circle, the ideal at the rim; `table` is `official.table`."""
    require(table, official.COLUMNS)
    labels = [_spoke(key) for key in official.CELLS]
    chance = table.drop_duplicates("metric").set_index("metric")["chance"].reindex(official.CELLS).to_numpy(float)
    ignorant = np.where(official.IDEALS == 0, 1 - chance, chance)
    lines = [(theme.short_label(model), theme.style(model).color, theme.style(model).dash,
              official.terms(table, model)) for model in models]
    figure = go.Figure([
        {"type": "scatterpolar", "r": np.append(terms, terms[0]), "theta": [*labels, labels[0]], "name": name,
         "mode": "lines+markers", "line": {"color": color, "dash": dash, "width": 2}, "marker": {"size": 5},
         "hovertemplate": "%{theta}: %{r:.3f}<extra>%{fullData.name}</extra>"}
        for name, color, dash, terms in [*lines, (CHANCE, theme.INK, "dot", ignorant)]])
    axis = {"range": [0, 1], "gridcolor": theme.GRID, "tickvals": [0.25, 0.5, 0.75, 1], "angle": 15}
    return figure.update_layout(
        template=theme.TEMPLATE, height=560, margin={"l": 90, "r": 90, "t": 90, "b": 40}, legend={"y": 1.08},
        polar={"bgcolor": "rgba(0, 0, 0, 0)", "radialaxis": axis, "angularaxis": {
            "gridcolor": theme.GRID, "linecolor": theme.GRID, "direction": "clockwise", "rotation": 90}})


def _spoke(key: str) -> str:
    split, kind, number = key.split("_")
    return f"{split}<br>{kind}<br>{TASKS[int(number) - 1]}"


def paired(table: pd.DataFrame) -> go.Figure:
    """Paired differences with intervals: right of 0 the second model is better, filled where the two are told apart.
    `table` is `differences.compare`; the AUC, which has no better direction, stands in the table alone."""
    require(table, differences.COLUMNS)
    shown = table[table["metric"] != "mia_auc"].iloc[::-1]
    value, style = shown["difference"].to_numpy(), theme.style("merged")
    symbols = ["circle" if told else "circle-open" for told in shown["told_apart"]]
    figure = go.Figure({
        "type": "scatter", "mode": "markers", "x": value, "y": shown["label"].to_numpy(), "showlegend": False,
        "marker": {"color": style.color, "symbol": symbols, "size": 11, "line": {"width": 2, "color": style.color}},
        "error_x": error_bars(shown, style.color, "difference"),
        "customdata": shown[["first", "second", "low", "high"]].to_numpy(),
        "hovertemplate": "%{y}: %{x:+.3f} [%{customdata[2]:+.3f}, %{customdata[3]:+.3f}]<br>"
                         "first %{customdata[0]:.3f}, second %{customdata[1]:.3f}<extra></extra>"})
    widest = np.nanmax(np.abs([*shown["low"], *shown["high"], *value, 0.05]))
    figure.add_shape(type="line", x0=0, x1=0, yref="paper", y0=0, y1=1, line=IDEAL_LINE)
    return figure.update_layout(
        template=theme.TEMPLATE, height=90 + 30 * len(shown), margin={"l": 262, "r": 20, "t": 20, "b": 52},
        xaxis={"title": {"text": "Difference (above 0: the second is better)"}, "automargin": False,
               "range": [-1.08 * widest, 1.08 * widest]}, yaxis={"automargin": False})


def headlines_of_runs(table: pd.DataFrame) -> go.Figure:
    """A panel per headline, a row per run, with interval, chance mark and ideal line; `table` is `headlines.headlines`
    of one model of each run, stacked with `number` and `run`."""
    require(table, ("number", "run", *headlines.HEADLINE_COLUMNS))
    numbers = list(dict.fromkeys(table["number"]))
    panels = Panels([headlines.HEADLINES[metric] for metric in OF_RUNS], across=0.03, shared_y=True)
    for column, metric in enumerate(OF_RUNS, start=1):
        own = table[(table["metric"] == metric) & table["value"].notna()]
        model = table["model"].iloc[0]
        panels.add({"type": "scatter", "mode": "markers", "x": own["value"].to_numpy(),
                    "y": [numbers.index(number) for number in own["number"]], "name": theme.short_label(model),
                    "legendgroup": "model", "marker": marks(theme.style(model), 11),
                    "error_x": error_bars(own, theme.style(model).color),
                    "customdata": own[["run", "n"]].map(html.escape).to_numpy(),
                    "hovertemplate": "%{x:.3f}, %{customdata[0]}, n = %{customdata[1]}<extra></extra>"}, column=column)
        known = table[table["metric"] == metric]
        panels.add({"type": "scatter", "mode": "markers", "x": known["chance"].to_numpy(),
                    "y": [numbers.index(number) for number in known["number"]], "name": "Chance", "legendgroup": "c",
                    "marker": {"symbol": "line-ns", "size": 26, "line": {"width": 2, "color": theme.INK}},
                    "hovertemplate": "chance %{x:.3f}<extra></extra>"}, column=column)
        ideals = known["ideal"].dropna().unique()
        if len(ideals) == 1:
            panels.mark(float(ideals[0]), IDEAL_LINE, column)
        panels.x(column=column, range=[-0.05, 1.05], tickvals=[0, 0.5, 1], title={"text": "0 to 1"})
    panels.y(tickvals=list(range(len(numbers))), ticktext=[f"run {number}" for number in numbers],
             range=[len(numbers) - 0.5, -0.5])
    return panels.figure(170 + 46 * max(len(numbers), 2), margin={"t": 96, "l": 64}, legend=1.16)
