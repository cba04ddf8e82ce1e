"""From the tables of `weights` and `weight_angles` to Plotly figures; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme
from analysis.panels import MARGIN, Panels, require
from analysis.weight_angles import NORMS, PAIRS
from analysis.weights import MEASURES, measure, module_types

SIZES, SIGNED = "Viridis", "RdBu_r"
BAND = "rgba(128, 128, 128, 0.28)"
# Pairs of changes are no models: other colours of the same palette, each with a dash and a marker of its own.
PAIR_LOOKS = {"before_after": theme.Style("#CC79A7", "solid", "circle"),
              "before_whole": theme.Style("#56B4E9", "dash", "square"),
              "after_whole": theme.Style("#E69F00", "dot", "diamond")}
NORM_LOOKS = {"before": PAIR_LOOKS["before_whole"], "after": PAIR_LOOKS["after_whole"],
              "whole": theme.Style(theme.INK, "solid", "circle")}
CHOSEN = {"color": theme.INK, "dash": "dot", "width": 1.2}
MOST_TICKS = 16



# ---- where -----------------------------------------------------------------------------------------------------

def where_map(frame: pd.DataFrame) -> go.Figure:
    """Layer x module type, one panel per model with the same limits: how large the update of each matrix is.

    `frame` is `weights.where`. A click hits an invisible square whose customdata is the module.
    """
    require(frame, ("model", "module", "group", "type", "norm", "relative"))
    models, value = list(frame["model"].unique()), measure(frame)
    panels = Panels([theme.short_label(model) for model in models], across=0.02, shared_y=True)
    for column, model in enumerate(models, start=1):
        _add_map(panels, frame[frame["model"] == model], value, column)
    return _finish_map(panels, frame, MARGIN["t"], {
        "colorscale": SIZES, "cmin": 0, "cmax": _top(frame[value]), "colorbar": _bar(MEASURES[value])})


def difference_map(frame: pd.DataFrame, first: str, second: str, measured: str) -> go.Figure:
    """Layer x module type: which of two models changes a matrix more. `frame`: `weights.difference`; `measured`: of
    what, one of `weights.MEASURES`."""
    require(frame, ("module", "group", "type", "difference"))
    panels, limit = Panels(), _top(frame["difference"].abs())
    _add_map(panels, frame, "difference", 1)
    title = f"{MEASURES[measured]}<br>{theme.short_label(first)} −<br>{theme.short_label(second)}"
    return _finish_map(panels, frame, 16, {
        "colorscale": SIGNED, "cmin": -limit, "cmid": 0, "cmax": limit, "colorbar": _bar(title)})


def _add_map(panels: Panels, own: pd.DataFrame, value: str, column: int) -> None:
    places = {"x": own["group"].to_numpy(), "y": own["type"].to_numpy()}
    panels.add({"type": "heatmap", **places, "z": own[value].to_numpy(), "coloraxis": "coloraxis", "xgap": 1, "ygap": 1,
                "hoverinfo": "skip"}, column=column)
    # A heat map itself cannot be selected.
    panels.add({"type": "scatter", **places, "mode": "markers", "customdata": own["module"].to_numpy(),
                "text": own[value].to_numpy(), "marker": {"symbol": "square", "size": 18, "opacity": 0},
                # Each panel would keep its own mark of what was clicked there last.
                "selected": {"marker": {"opacity": 0}}, "unselected": {"marker": {"opacity": 0}},
                "hovertemplate": "%{customdata}<br>%{text:.3~g}<extra></extra>"}, column=column)


def _finish_map(panels: Panels, frame: pd.DataFrame, top: int, coloraxis: dict) -> go.Figure:
    groups, types = list(frame["group"].unique()), module_types(frame["type"])
    panels.x(type="category", title={"text": "Layer"}, showgrid=False, range=[-0.5, len(groups) - 0.5],
             **_ticks(groups, panels.columns))
    panels.y(type="category", showgrid=False, range=[-0.5, len(types) - 0.5], categoryorder="array",
             categoryarray=types[::-1])
    margin = {"t": top, "l": 90 if max(map(len, types)) < 12 else 190}
    # Without a limit of the distance a click anywhere in a wide cell hits the mark in its middle.
    return panels.figure(top + MARGIN["b"] + 30 * max(len(types), 5), margin=margin, coloraxis=coloraxis,
                         hovermode="closest", hoverdistance=-1)


def profile(layers: pd.DataFrame, types: pd.DataFrame, measured: str) -> go.Figure:
    """Mean size of the update over the layers (left) and per module type (right), a line per model.

    Both tables are `weights.profile`; `measured` is one of `weights.MEASURES`.
    """
    panels = Panels(["Per layer", "Per module type"], shared_y=True)
    for column, frame in enumerate((layers, types), start=1):
        require(frame, ("model", "group", "mean", "modules"))
        for model, own in frame.groupby("model", sort=False):
            _add_groups(panels, own, "mean", theme.short_label(model), theme.style(model), (1, column), unit=":.3~g")
        panels.x(column=column, type="category", **_ticks(list(frame["group"].unique()), 3 - column))
    panels.x(column=1, title={"text": "Layer"})
    panels.x(column=2, tickangle=-40)  # the panel's title says what they are
    panels.y(rangemode="tozero")
    panels.y(column=1, title={"text": f"Mean {MEASURES[measured]}"})
    return panels.figure(420, margin={"t": 84, "b": 84}, legend=1.1)


# ---- direction -------------------------------------------------------------------------------------------------

def model_angles(frame: pd.DataFrame, axis: str) -> go.Figure:
    """Angle between each two models over the groups, the first place being all of them; grey: random directions.

    `frame` is `weight_angles.model_angles`; `axis`: what the groups are.
    """
    require(frame, ("first", "second", "group", "angle", "spread"))
    panels = Panels()
    for (first, second), own in frame.groupby(["first", "second"], sort=False):
        # An angle to the merged model is drawn in the look of the other one, that between both in a neutral one.
        style = theme.style(first) if second == "merged" else theme.Style(theme.INK, "dot", "circle")
        _add_groups(panels, own, "angle", f"{theme.short_label(first)} and {theme.short_label(second)}", style, (1, 1))
    _add_band(panels, frame.groupby("group", sort=False)["spread"].max().reset_index(), 1)
    _set_angles(panels)
    panels.x(type="category", title={"text": axis}, **_ticks(list(frame["group"].unique())))
    return panels.figure(420, margin={"t": 60})


def changes(frames: dict[str, pd.DataFrame], axis: str) -> go.Figure:
    """Fig. 4 of the paper per group: angles (above) and norms (below) of the parts of a training, a column per model.

    `frames` is {model: `weight_angles.changes`}; their first row, all groups together, has no norm here, as it would
    dwarf the others.
    """
    panels = Panels([theme.short_label(model) for model in frames], rows=2, heights=(0.62, 0.38), shared_y=True)
    highest = 0.0
    for column, frame in enumerate(frames.values(), start=1):
        require(frame, ("group", "spread", *NORMS, *PAIRS))
        for key, name in PAIRS.items():
            _add_groups(panels, frame, key, name, PAIR_LOOKS[key], (1, column))
        _add_band(panels, frame, column)
        parts = frame[frame["group"] != "all"]
        highest = np.fmax(highest, parts[list(NORMS)].max().max())
        for key, name in NORMS.items():
            _add_groups(panels, parts, key, name, NORM_LOOKS[key], (2, column), unit=":.3~g")
        panels.x(column=column, type="category", range=[-0.5, len(frame) - 0.5],
                 **_ticks(list(frame["group"]), len(frames)))
    panels.x(row=1, showticklabels=False)
    panels.x(row=2, title={"text": axis})
    _set_angles(panels)
    panels.y(row=2, range=[0, 1.08 * highest if highest > 0 else 1])
    panels.y(row=2, column=1, title={"text": "Norm of the change"})
    return panels.figure(600, margin={"t": 104}, legend=1.09)


def over_splits(frames: dict[str, pd.DataFrame], steps: dict[str, int]) -> go.Figure:
    """The three angles over every possible split, a column per model; a vertical line at the chosen one.

    `frames` is {model: `weight_angles.over_splits`}, `steps` {model: chosen step}.
    """
    panels = Panels([theme.short_label(model) for model in frames], shared_y=True)
    for column, (model, frame) in enumerate(frames.items(), start=1):
        require(frame, ("step", *PAIRS))
        for key, name in PAIRS.items():
            panels.add({**_line(frame["step"], frame[key], name, PAIR_LOOKS[key]),
                        "hovertemplate": f"split at step %{{x}}: %{{y:.1f}}°<extra>{name}</extra>"}, column=column)
        panels.mark(steps[model], CHOSEN | {"dash": "solid"}, column=column)
    panels.x(title={"text": "Split step s"}, rangemode="tozero")
    _set_angles(panels)
    return panels.figure(380, margin={"t": 84}, legend=1.1)


def _add_groups(panels: Panels, own: pd.DataFrame, value: str, name: str, style: theme.Style, at: tuple[int, int],
                unit: str = ":.1f") -> None:
    """A line over the layers; what is no layer, such as all of them, are marks beside it."""
    names, values = own["group"].to_numpy(), own[value].to_numpy(float)
    layer = np.array([name.isdigit() for name in names], bool)
    gaps = np.flatnonzero(~(layer[1:] & layer[:-1])) + 1
    names, values = np.insert(names, gaps, names[gaps]), np.insert(values, gaps, np.nan)
    trace = _line(names, values, name, style)
    trace["marker"] |= {"size": np.where(names == "all", 10, 7), "line": {"width": 0}}
    panels.add({**trace, "hovertemplate": f"%{{x}}: %{{y{unit}}}<extra>{name}</extra>"}, *at)


def _add_band(panels: Panels, frame: pd.DataFrame, column: int) -> None:
    """Where 95 % of random directions lie: a bar around 90 degrees at each group."""
    spread = frame["spread"].to_numpy()
    panels.add({"type": "bar", "x": frame["group"].to_numpy(), "y": 2 * spread, "base": 90 - spread, "width": 1,
                "marker": {"color": BAND, "line": {"width": 0}}, "name": "95 % of random directions",
                "legendgroup": "random", "customdata": spread,
                "hovertemplate": "random: 90 ± %{customdata:.2f}°<extra></extra>"}, column=column)


def _set_angles(panels: Panels) -> None:
    """The first row's scale: 0 to 180 degrees, with 90 marked."""
    panels.level(90, CHOSEN)
    panels.y(row=1, range=[0, 180], tickvals=[0, 45, 90, 135, 180])
    panels.y(row=1, column=1, title={"text": "Angle (degrees)"})


# ---- one matrix ------------------------------------------------------------------------------------------------

def spectrum(frame: pd.DataFrame, first: int = 0) -> go.Figure:
    """Singular values of a matrix (left, log scale) and the share of energy in the first k (right), a line per model.

    `frame` is `weights.spectrum`; `first` > 0: a vertical line at that k.
    """
    panels = Panels(["Singular values of ΔW", "Energy in the first k"], across=0.14)
    _add_values(panels, frame, "value", 1)
    _add_values(panels, frame, "energy", 2)
    panels.y(column=2, title={"text": "Share (0 to 1)"}, range=[0, 1.03])
    for column in (1, 2) if first else ():
        panels.mark(first, CHOSEN, column=column)
    return panels.figure(420, margin={"t": 84}, legend=1.1)


def histogram(frame: pd.DataFrame, log_y: bool = True) -> go.Figure:
    """Entries of a matrix as steps, a line per model over the same bins. `frame` is `weights.histogram`.

    An empty bin has no place on a log axis.
    """
    panels = Panels()
    _add_entries(panels, frame, log_y, 1)
    return panels.figure(420, margin={"t": 60})


def matrix(values: pd.DataFrame, entries: pd.DataFrame | None) -> go.Figure:
    """Both at a glance: singular values (left) and entries (right; left out where they are None), on log scales.

    `values` is `weights.spectrum`, `entries` is `weights.histogram`.
    """
    panels = Panels(["Singular values of ΔW"] + ([] if entries is None else ["Entries of ΔW"]), across=0.2)
    _add_values(panels, values, "value", 1)
    if entries is not None:
        _add_entries(panels, entries, True, 2)
    return panels.figure(360, margin={"t": 84}, legend=1.12)


def _add_values(panels: Panels, frame: pd.DataFrame, value: str, column: int) -> None:
    require(frame, ("model", "k", value))
    for model, own in frame.groupby("model", sort=False):
        panels.add({**_line(own["k"], own[value], theme.short_label(model), theme.style(model), 5),
                    "hovertemplate": "k = %{x}: %{y:.3~g}<extra>%{fullData.name}</extra>"}, column=column)
    panels.x(column=column, title={"text": "k, from the largest"}, rangemode="tozero")
    if value == "value":
        panels.y(column=column, title={"text": "Singular value"}, **_log_scale(frame["value"]))


def _add_entries(panels: Panels, frame: pd.DataFrame, log_y: bool, column: int) -> None:
    require(frame, ("model", "left", "right", "share"))
    for model, own in frame.groupby("model", sort=False):
        share = own["share"].to_numpy()
        trace = _line((own["left"] + own["right"]) / 2, np.where(share > 0, share, np.nan) if log_y else share,
                      theme.short_label(model), theme.style(model))
        panels.add({**trace, "mode": "lines", "line": trace["line"] | {"shape": "hvh"},
                    "hovertemplate": "%{x:.3~g}: %{y:.3~g}<extra>%{fullData.name}</extra>"}, column=column)
    panels.x(column=column, title={"text": "Entry of ΔW"})
    panels.y(column=column, title={"text": "Share of entries"},
             **(_log_scale(frame["share"]) if log_y else {"rangemode": "tozero"}))


def block_maps(frame: pd.DataFrame, rows: int, columns: int) -> go.Figure:
    """A down-sampled picture of a matrix of this size, a panel per model with the same limits: `weights.blocks`."""
    require(frame, ("model", "row", "column", "value"))
    models = list(frame["model"].unique())
    panels = Panels([theme.short_label(model) for model in models], shared_y=True)
    for number, model in enumerate(models, start=1):
        own = frame[frame["model"] == model]
        down, across = int(own["row"].max()) + 1, int(own["column"].max()) + 1
        panels.add({"type": "heatmap", "z": own["value"].to_numpy().reshape(down, across), "coloraxis": "coloraxis",
                    "x0": columns / across / 2, "dx": columns / across, "y0": rows / down / 2, "dy": rows / down,
                    "hovertemplate": "input %{x:.0f}, output %{y:.0f}: %{z:.3~g}<extra></extra>"}, column=number)
    panels.x(title={"text": "Input (column)"}, showgrid=False, range=[0, columns])
    panels.y(showgrid=False, range=[rows, 0])
    panels.y(column=1, title={"text": "Output (row)"})
    return panels.figure(340, coloraxis={"colorscale": SIZES, "cmin": 0, "cmax": _top(frame["value"]),
                                         "colorbar": _bar("root mean<br>square")})


# ---- parts of the figures --------------------------------------------------------------------------------------

def _line(x: pd.Series | np.ndarray, y: pd.Series | np.ndarray, name: str, style: theme.Style, size: int = 7) -> dict:
    """A line with markers in the look of a style."""
    return {"type": "scatter", "x": np.asarray(x), "y": np.asarray(y), "mode": "lines+markers", "name": name,
            "legendgroup": name, "line": {"color": style.color, "dash": style.dash, "width": 1.8},
            "marker": {"color": style.color, "symbol": style.symbol, "size": size}}


def _log_scale(values: pd.Series) -> dict:
    """Powers of ten, or where the values span less than two of them, some numbers between."""
    values = values[values > 0]
    wide = len(values) == 0 or values.max() / values.min() > 30
    ticks = {"dtick": 1, "exponentformat": "power"} if wide else {"dtick": "D2", "tickformat": ".2~g"}
    return {"type": "log", **ticks}


def _bar(title: str) -> dict:
    return {"title": {"text": title}, "thickness": 14, "tickformat": ".2~g", "nticks": 6}


def _top(values: pd.Series) -> float:
    """Upper limit of a scale; something above 0 even where nothing has changed."""
    highest = values.max()
    return float(highest) if highest > 0 else 1.0


def _ticks(names: list[str], panels: int = 1) -> dict:
    """Categories in this order; of many, every few are named, fewer where several panels stand side by side."""
    every = -(-len(names) * panels // MOST_TICKS)
    return {"categoryorder": "array", "categoryarray": names, "tickmode": "array", "tickvals": names[::every]}
