"""From the tables of `merging` and `merge_preview` to Plotly figures; each checks its columns."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import theme
from analysis.figures import SIGNED
from analysis.merging import IDEALS, LABELS, MEASURED, METHOD_KINDS
from analysis.panels import Panels, require
from analysis.signs import STATES
from analysis.signs_figures import PATTERNS, STATE_COLORS
from unlearn_core.vocabulary import TIES_STATES, UNLEARNED

SCORES = "Viridis"
IDEAL_LINES = {"mia_auc": 0.5}
# Kinds of rows are no models: a neutral and another colour of the same palette, open and filled.
KIND_LOOKS = {"method": (theme.INK, "circle-open"), "method at one norm": ("#CC79A7", "circle")}
HERE = "#D55E00"
STATIONS = {0.0: "model_1", 1.0: "merged", 2.0: "model_2"}
MARK_LOOKS = {"mean": ("Plain mean", "#FFFFFF", "cross"), "here": ("You are here", HERE, "x"),
              "merged": ("Merged (nearest)", theme.style("merged").color,
                         theme.style("merged").symbol)}



# ---- preview ---------------------------------------------------------------------------------------------------

def states(frame: pd.DataFrame) -> go.Figure:
    """The six states as stacked bars that add up to 1, one bar per row: `merge` (its name) and the states' shares."""
    require(frame, ("merge", *STATES))
    panels = Panels()
    for state in STATES:
        panels.add({"type": "bar", "x": frame[state].to_numpy(), "y": frame["merge"].to_numpy(), "orientation": "h",
                    "name": TIES_STATES[state], "legendgroup": state,
                    "marker": {"color": STATE_COLORS[state], "line": {"width": 0},
                               "pattern": {"shape": PATTERNS.get(state, ""), "solidity": 0.25}},
                    "hovertemplate": "%{y}: %{x:.1%}<extra>%{fullData.name}</extra>"})
    panels.x(title={"text": "Share of entries (0 to 1)"}, range=[0, 1], showgrid=False)
    panels.y(autorange="reversed")
    return panels.figure(250, margin={"t": 70, "l": 64}, barmode="stack", bargap=0.3)


def over_density(here: pd.DataFrame, run: pd.DataFrame, density: float, run_density: float) -> go.Figure:
    """Size (left) and directions (right) of a merge over density: solid with the settings here, dotted those of the
    run; both tables are `merge_preview.over_density`."""
    panels = Panels(["Norm ratio", "Cosine to each parent"], across=0.16)
    lines = [("norm_ratio", "Merged", theme.style("merged"), 1)]
    lines += [(f"cosine_{number}", f"To {theme.short_label(model)}", theme.style(model), 2)
              for number, model in enumerate(UNLEARNED, start=1)]
    for frame, name, dash, at in ((here, "here", "solid", density), (run, "run", "dot", run_density)):
        require(frame, ("density", "norm_ratio", "cosine_1", "cosine_2"))
        sizes = np.where(np.isclose(frame["density"], at), 12, 0)
        for column, label, style, panel in lines:
            panels.add({"type": "scatter", "x": frame["density"].to_numpy(), "y": frame[column].to_numpy(),
                        "mode": "lines+markers", "name": f"{label}, {name}", "legendgroup": f"{label}, {name}",
                        "line": {"color": style.color, "dash": dash, "width": 2},
                        "marker": {"color": style.color, "symbol": style.symbol, "size": sizes},
                        "hovertemplate": "density %{x}: %{y:.3f}<extra>%{fullData.name}</extra>"}, column=panel)
    highest = np.nanmax([1.0, *here["norm_ratio"], *run["norm_ratio"]])
    lowest = np.nanmin([0.0, *here["cosine_1"], *here["cosine_2"], *run["cosine_1"], *run["cosine_2"]])
    panels.x(title={"text": "Density (share of entries kept)"}, range=[0, 1.04], dtick=0.2)
    panels.y(column=1, title={"text": "||merged|| / mean ||parent||"}, range=[0, 1.08 * highest])
    panels.y(column=2, title={"text": "Cosine (1: one direction)"}, range=[1.08 * lowest, 1.04])
    panels.shapes.append({"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": 1, "y1": 1,
                          "line": _dotted()})
    return panels.figure(380, margin={"t": 92, "l": 64}, legend=1.1)


# ---- methods ---------------------------------------------------------------------------------------------------

def method_dots(frame: pd.DataFrame) -> go.Figure:
    """A row per method, a panel per number: open as it comes, filled at the mean norm of the parents.

    `frame` is `merging.methods`. The cosines are the same for both.
    """
    require(frame, ("kind", "name", "norm_ratio", "cosine_1", "cosine_2", *MEASURED))
    panels = ("norm_ratio", "cosine", *MEASURED)
    titles = ["Norm ratio (log scale)", "Cosine to each parent",
              *(f"{LABELS[key]} ({IDEALS[key]})" for key in MEASURED)]
    figure = make_subplots(3, 2, shared_yaxes=True, horizontal_spacing=0.05, vertical_spacing=0.08,
                           subplot_titles=titles)
    names = list(dict.fromkeys(frame["name"]))
    for number, panel in enumerate(panels):
        at = number // 2 + 1, number % 2 + 1
        if panel == "cosine":
            _add_cosines(figure, frame.drop_duplicates("name"), names, at)
            continue
        for shift, (kind, (color, symbol)) in zip((-0.14, 0.14), KIND_LOOKS.items(), strict=True):
            own = frame[frame["kind"] == kind]
            figure.add_trace(go.Scatter(
                x=own[panel].to_numpy(), y=[names.index(name) + shift for name in own["name"]], mode="markers",
                name=METHOD_KINDS[kind], legendgroup=kind, showlegend=number == 0, **_bars(own, panel, "x", color),
                marker={"color": color, "symbol": symbol, "size": 9, "line": {"width": 2, "color": color}},
                customdata=own["name"].to_numpy(),
                hovertemplate="%{customdata}: %{x:.3f}<extra>%{fullData.name}</extra>"), row=at[0], col=at[1])
        if panel == "norm_ratio":
            figure.add_vline(x=1, line=_dotted(), row=at[0], col=at[1])
            figure.update_xaxes(type="log", tickvals=[0.25, 0.5, 1, 2, 4], row=at[0], col=at[1])
        else:
            figure.update_xaxes(range=[-0.04, 1.04], row=at[0], col=at[1])
        if panel in IDEAL_LINES:
            figure.add_vline(x=IDEAL_LINES[panel], line=_dotted(), row=at[0], col=at[1])
    labels = [re.sub(r" \(.*?\)", "", name).replace("delta W", "ΔW").replace(" on ", " · ") for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.5, -0.5])
    left = theme.room(labels)
    return _finish(figure, 210 + 3 * 28 * max(len(names), 4), top=92, left=left, legend=1.03)


def _add_cosines(figure: go.Figure, frame: pd.DataFrame, names: list[str], at: tuple[int, int]) -> None:
    for number, model in enumerate(UNLEARNED, start=1):
        style = theme.style(model)
        figure.add_trace(go.Scatter(
            x=frame[f"cosine_{number}"].to_numpy(), y=[names.index(name) for name in frame["name"]], mode="markers",
            name=f"To {theme.short_label(model)}", customdata=frame["name"].to_numpy(),
            marker={"color": style.color, "symbol": style.symbol, "size": 9},
            hovertemplate="%{customdata}: %{x:.3f}<extra>%{fullData.name}</extra>"), row=at[0], col=at[1])
    lowest = min(0.0, *frame[["cosine_1", "cosine_2"]].min().fillna(0))
    figure.update_xaxes(range=[1.1 * lowest - 0.04, 1.04], row=at[0], col=at[1])


# ---- density and path ------------------------------------------------------------------------------------------

def density_curves(frame: pd.DataFrame, density: float) -> go.Figure:
    """Small multiples of the four scores over density, with intervals; dashed: the run's density.

    `frame` is `merging.of_kind` "density". The Task Aggregate has no interval.
    """
    require(frame, ("density", *MEASURED))
    figure = _panels()
    _add_scores(figure, frame, "density", "density %{x}")
    figure.add_vline(x=density, line={"color": theme.INK, "width": 1.5, "dash": "dash"}, row="all", col="all")
    figure.update_xaxes(range=[0, 1.04], dtick=0.2)
    figure.update_xaxes(title="Density (share of entries kept)", row=2)
    return _finish(figure, 580, top=40).update_layout(showlegend=False)


def path_curves(frame: pd.DataFrame) -> go.Figure:
    """Small multiples of the four scores from model_1 over the merge to model_2; the stations look like their models.

    `frame` is `merging.of_kind` "path".
    """
    require(frame, ("name", "position", *MEASURED))
    figure = _panels()
    _add_scores(figure, frame, "position", "%{x}")
    for number, key in enumerate(MEASURED):
        for place, model in STATIONS.items():
            own = frame[frame["position"] == place]
            style = theme.style(model)
            figure.add_trace(go.Scatter(
                x=own["position"].to_numpy(), y=own[key].to_numpy(), mode="markers", name=theme.short_label(model),
                legendgroup=model, showlegend=number == 0,
                marker={"color": style.color, "symbol": style.symbol, "size": 14},
                hovertemplate="%{y:.3f}<extra>%{fullData.name}</extra>"), row=number // 2 + 1, col=number % 2 + 1)
    figure.update_xaxes(range=[-0.12, 2.12], tickvals=list(STATIONS),
                        ticktext=[theme.short_label(model) for model in STATIONS.values()])
    figure.update_xaxes(title="Way between the updates", row=2)
    return _finish(figure, 600, top=84, legend=1.07)


def _panels() -> go.Figure:
    return make_subplots(2, 2, shared_xaxes=True, horizontal_spacing=0.08, vertical_spacing=0.1,
                         subplot_titles=[f"{LABELS[key]} ({IDEALS[key]})" for key in MEASURED])


def _add_scores(figure: go.Figure, frame: pd.DataFrame, x: str, where: str) -> None:
    style = theme.style("merged")
    for number, key in enumerate(MEASURED):
        at = {"row": number // 2 + 1, "col": number % 2 + 1}
        figure.add_trace(go.Scatter(
            x=frame[x].to_numpy(), y=frame[key].to_numpy(), mode="lines+markers", showlegend=False, name=LABELS[key],
            line={"color": style.color, "width": 2}, **_bars(frame, key, "y", style.color),
            marker={"color": style.color, "symbol": style.symbol, "size": 8}, customdata=frame["name"].to_numpy(),
            hovertemplate=f"{where}: %{{y:.3f}}<br>%{{customdata}}<extra></extra>"), **at)
        if key in IDEAL_LINES:
            figure.add_hline(y=IDEAL_LINES[key], line=_dotted(), **at)
    figure.update_yaxes(range=[-0.03, 1.05])
    figure.update_yaxes(title="Score (0 to 1)", col=1)


def _bars(frame: pd.DataFrame, key: str, axis: str, color: str) -> dict:
    """Error bars from `<key>_low` to `<key>_high`; nothing where there are none."""
    if f"{key}_low" not in frame:
        return {}
    return {f"error_{axis}": {
        "type": "data", "symmetric": False, "array": (frame[f"{key}_high"] - frame[key]).to_numpy(),
        "arrayminus": (frame[key] - frame[f"{key}_low"]).to_numpy(), "color": color, "width": 3, "thickness": 1.2}}


# ---- surface ---------------------------------------------------------------------------------------------------

def surface(frame: pd.DataFrame, marks: dict[str, tuple[float, float]], chosen: str | None = None) -> go.Figure:
    """Four maps over (w1, w2) of the update w1 delta W_1 + w2 delta W_2; a click hits a square whose customdata is the
    point's name, and the `chosen` one is framed.

    `frame` is `merging.of_kind` "surface". `marks`: {model, "mean" or "here": (w1, w2)}.
    """
    require(frame, ("name", "weight_1", "weight_2", *MEASURED))
    figure = make_subplots(2, 2, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.1,
                           subplot_titles=[f"{LABELS[key]} ({IDEALS[key]})" for key in MEASURED])
    wide = frame.pivot(index="weight_2", columns="weight_1", values=list(MEASURED))
    framed = frame[frame["name"] == chosen]
    for number, key in enumerate(MEASURED):
        own = wide[key]
        traces = [
            go.Heatmap(x=own.columns.to_numpy(), y=own.index.to_numpy(), z=own.to_numpy(), xgap=1, ygap=1,
                       hoverinfo="skip", coloraxis="coloraxis2" if key == "mia_auc" else "coloraxis"),
            # A heat map itself cannot be selected.
            go.Scatter(x=frame["weight_1"].to_numpy(), y=frame["weight_2"].to_numpy(), mode="markers",
                       customdata=frame["name"].to_numpy(), text=frame[key].to_numpy(), showlegend=False,
                       marker={"symbol": "square", "size": 40, "opacity": 0}, selected={"marker": {"opacity": 0}},
                       unselected={"marker": {"opacity": 0}},
                       hovertemplate="w1 : w2 = %{customdata}<br>%{text:.3f}<extra></extra>"),
            go.Scatter(x=framed["weight_1"].to_numpy(), y=framed["weight_2"].to_numpy(), mode="markers",
                       hoverinfo="skip", showlegend=False,
                       marker={"symbol": "square-open", "size": 30, "color": "#FFFFFF", "line": {"width": 3}}),
            *_marks(marks, legend=number == 0)]
        figure.add_traces(traces, rows=number // 2 + 1, cols=number % 2 + 1)
    figure.update_xaxes(showgrid=False, **_cells(frame["weight_1"]))
    figure.update_xaxes(title="w1, weight of Model 1", row=2)
    figure.update_yaxes(showgrid=False, **_cells(frame["weight_2"]))
    figure.update_yaxes(title="w2, weight of Model 2", col=1)
    scales = {"coloraxis": {"colorscale": SCORES, "cmin": 0, "cmax": 1, "colorbar": _bar("Score", 0.22)},
              "coloraxis2": {"colorscale": SIGNED, "cmin": 0, "cmid": 0.5, "cmax": 1,
                             "colorbar": _bar("MIA AUC", 0.78) | {"tickvals": [0, 0.5, 1]}}}
    return _finish(figure, 720, top=84, right=96, legend=1.05).update_layout(scales)


def _marks(marks: dict[str, tuple[float, float]], legend: bool) -> list[go.Scatter]:
    """One trace per mark where they are in the legend; else one for all, which is drawn faster."""
    looks = {key: MARK_LOOKS.get(key, (theme.short_label(key), theme.style(key).color, theme.style(key).symbol))
             for key in marks}
    groups = [[key] for key in marks] if legend else [list(marks)]
    return [go.Scatter(
        x=[marks[key][0] for key in keys], y=[marks[key][1] for key in keys], mode="markers", name=looks[keys[0]][0],
        customdata=[looks[key][0] for key in keys], showlegend=legend,
        marker={"size": 15, "color": [looks[key][1] for key in keys], "symbol": [looks[key][2] for key in keys],
                "line": {"width": 2, "color": ["#333333" if key == "mean" else "#FFFFFF" for key in keys]}},
        hovertemplate="w1 %{x:.2f}, w2 %{y:.2f}<extra>%{customdata}</extra>") for keys in groups if keys]


def _cells(weights: pd.Series) -> dict:
    """An axis that names each measured weight and ends with the outer cells."""
    values = np.unique(weights)
    half = np.diff(values).min() / 2 if len(values) > 1 else 0.5
    return {"tickvals": values, "range": [values[0] - half, values[-1] + half]}


def _bar(title: str, middle: float) -> dict:
    return {"title": {"text": title}, "thickness": 14, "len": 0.46, "y": middle, "tickformat": ".2~g"}


# ---- parts of the figures --------------------------------------------------------------------------------------

def _dotted() -> dict:
    return {"color": theme.INK, "dash": "dot", "width": 1.5}


def _finish(figure: go.Figure, height: int, *, top: int = 56, bottom: int = 52, left: float = 64, right: int = 20,
            legend: float = 1.02) -> go.Figure:
    # Automatic margins would draw every axis a second time, which a reader feels at each switch.
    figure.update_xaxes(automargin=False)
    figure.update_yaxes(automargin=False)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(template=theme.TEMPLATE, height=height, legend={"y": legend},
                                margin={"l": left, "r": right, "t": top, "b": bottom})
