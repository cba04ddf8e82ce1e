"""From the tables of `sweeps` to Plotly figures; each checks its columns."""

from __future__ import annotations

import html
import textwrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import sweeps, theme
from analysis.metrics_figures import IDEAL_LINE, error_bars, marks
from analysis.panels import Panels, require
from unlearn_core.vocabulary import METRICS

SHOWN = (("task_aggregate", "mia_auc"), ("mmlu", "aggregate"))  # metrics by row and column of the panels
SEEDS, MEAN, BASE = "Each seed", "Mean over seeds, 95 % interval", "Base, mean over seeds"
SEED_SHIFT = 0.27  # of a row: seeds stand below their mean
LINE, LINES = 22, 2  # characters of a line of a label, and lines
AROUND, BETWEEN = 130, 64  # pixels around both rows of panels, and between them: an axis and its title
LOG_FROM = 20  # largest value beside the smallest from which the axis is logarithmic
HOVER = "%{customdata[0]}: %{customdata[1]:.3f} [%{customdata[2]:.3f}, %{customdata[3]:.3f}], n = %{customdata[4]}"


def dots(summary: pd.DataFrame, scores: pd.DataFrame, model: str, base: dict[str, float]) -> go.Figure:
    """A panel per metric, a row per configuration: the mean with its interval, and each seed below it.

    `summary` and `scores` are those of `sweeps`; `base`: what `sweeps.base` gives, as a dotted line.
    """
    require(summary, sweeps.SUMMARY_COLUMNS)
    require(scores, sweeps.SCORE_COLUMNS)
    names = list(dict.fromkeys(summary["configuration"]))
    place, labels = {name: number for number, name in enumerate(names)}, [_label(name) for name in names]
    height = _height(labels)
    panels = Panels(("", ""), rows=2, across=0.04, down=BETWEEN / (height - AROUND), shared_y=True)
    for row, column, key in _panels():
        own, each = _of(summary, scores, model, key)
        panels.add(_seeds(each) | {"x": each["value"].to_numpy(), "y": _places(each, place) + SEED_SHIFT}, row, column)
        panels.add(_means(own, model) | {"x": own["mean"].to_numpy(), "y": _places(own, place), "error_x": error_bars(
            own, theme.style(model).color, "mean")}, row, column)
        panels.x(row=row, column=column, title={"text": METRICS[key].label}, range=[-0.03, 1.03])
        if key in base:
            panels.add(_base(base[key]) | {"x": [base[key]] * 2, "y": [-0.5, len(names) - 0.5]}, row, column)
        if key == "mia_auc":
            panels.mark(0.5, IDEAL_LINE, column, row)
    panels.y(tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.4, -0.6])
    longest = max((len(line) for label in labels for line in label.split("<br>")), default=0)
    return panels.figure(height, margin={"l": 24 + 7 * longest, "t": 78}, legend=1 + 12 / height)


def lines(summary: pd.DataFrame, scores: pd.DataFrame, model: str, base: dict[str, float],
          axis: tuple[str, dict[str, float]]) -> go.Figure:
    """A panel per metric over the one number that is varied: the mean with its interval, and a thin line per seed.

    `axis` is `sweeps.axis`; the others are as for `dots`.
    """
    require(summary, sweeps.SUMMARY_COLUMNS)
    require(scores, sweeps.SCORE_COLUMNS)
    key_of_x, x_of = axis
    ends = [min(x_of.values()), max(x_of.values())]
    logarithmic = ends[0] > 0 and ends[1] / ends[0] >= LOG_FROM
    panels = Panels(("", ""), rows=2, across=0.17, down=0.16)
    for row, column, key in _panels():
        own, each = _of(summary, scores, model, key)
        for _, mine in each.assign(x=each["configuration"].map(x_of)).sort_values("x").groupby("seed"):
            panels.add(_seeds(mine) | {"mode": "lines+markers", "line": {"color": theme.GHOST, "width": 1},
                                       "x": mine["x"].to_numpy(), "y": mine["value"].to_numpy()}, row, column)
        own = own.assign(x=own["configuration"].map(x_of)).sort_values("x")
        panels.add(_means(own, model) | {
            "mode": "lines+markers", "x": own["x"].to_numpy(), "y": own["mean"].to_numpy(),
            "line": {"color": theme.style(model).color, "dash": theme.style(model).dash, "width": 2},
            "error_y": error_bars(own, theme.style(model).color, "mean")}, row, column)
        if key in base:
            panels.add(_base(base[key]) | {"x": ends, "y": [base[key]] * 2}, row, column)
        if key == "mia_auc":
            panels.add({"type": "scatter", "mode": "lines", "x": ends, "y": [0.5, 0.5], "line": IDEAL_LINE,
                        "hoverinfo": "skip"}, row, column)
        panels.y(row=row, column=column, title={"text": METRICS[key].label}, range=[-0.03, 1.03])
    panels.x(type="log" if logarithmic else "linear", **({} if logarithmic else {"range": _roomy(ends)}))
    panels.x(row=2, title={"text": html.escape(key_of_x) + (" (logarithmic)" if logarithmic else "")})
    return panels.figure(560, margin={"t": 64}, legend=1.03)


def _panels() -> list[tuple[int, int, str]]:
    return [(row, column, key) for row, keys in enumerate(SHOWN, start=1) for column, key in enumerate(keys, start=1)]


def _of(summary: pd.DataFrame, scores: pd.DataFrame, model: str, key: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(means, single runs) of one metric that were measured."""
    own = summary[(summary["metric"] == key) & summary["mean"].notna()]
    return own, scores[(scores["model"] == model) & (scores["metric"] == key)]


def _places(frame: pd.DataFrame, place: dict[str, int]) -> np.ndarray:
    return frame["configuration"].map(place).to_numpy(float)


def _means(own: pd.DataFrame, model: str) -> dict:
    shown = own[["configuration", "mean", "low", "high", "n"]]
    return {"type": "scatter", "mode": "markers", "name": MEAN, "legendgroup": MEAN,
            "marker": marks(theme.style(model)), "hovertemplate": HOVER + "<extra></extra>",
            "customdata": shown.assign(configuration=shown["configuration"].map(html.escape)).to_numpy()}


def _seeds(each: pd.DataFrame) -> dict:
    return {"type": "scatter", "mode": "markers", "name": SEEDS, "legendgroup": SEEDS, "opacity": 0.7,
            "marker": {"color": theme.GHOST, "size": 5}, "customdata": np.column_stack([
                each["configuration"].map(html.escape), each["seed"], each["value"]]),
            "hovertemplate": "%{customdata[0]}, seed %{customdata[1]}: %{customdata[2]:.3f}<extra></extra>"}


def _base(value: float) -> dict:
    style = theme.style("base")
    return {"type": "scatter", "mode": "lines", "name": BASE, "legendgroup": BASE, "hoverinfo": "text",
            "text": f"{BASE}: {value:.3f}", "line": {"color": style.color, "dash": "dash", "width": 1.5}}


def _label(name: str) -> str:
    """A configuration in lines that fit beside the panels."""
    return "<br>".join(map(html.escape, textwrap.wrap(name, LINE, max_lines=LINES, placeholder=" …")))


def _height(labels: list[str]) -> int:
    """Pixels of two panels, one above the other, with these labels."""
    row = 42 if any("<br>" in label for label in labels) else 34
    return AROUND + BETWEEN + 2 * row * max(len(labels), 2)


def _roomy(ends: list[float]) -> list[float]:
    room = 0.04 * (ends[1] - ends[0])
    return [ends[0] - room, ends[1] + room]
