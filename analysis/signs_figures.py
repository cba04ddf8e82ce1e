"""From the tables of `signs` to Plotly figures; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import signs, theme
from analysis.panels import Panels, require
from analysis.signs import OVERALL, RANDOM, STATES, Steps
from analysis.weights import module_types
from unlearn_core.vocabulary import TIES_STATES, UNLEARNED

ONE, TWO = (theme.style(model).color for model in UNLEARNED)
# A state of one model alone has a tint of its colour; a conflict the full colour of its winner, and stripes.
STATE_COLORS = {"trimmed": "#C9C9C9", "only_1": "#9CCBE6", "only_2": "#F5C3A1", "agree": "#E8D66B", "won_1": ONE,
                "won_2": TWO}
PATTERNS = {"won_1": "/", "won_2": "\\"}
STRIPES = {"fillmode": "overlay", "fgcolor": "#FFFFFF", "fgopacity": 0.6, "size": 6, "solidity": 0.2}
CURRENT = {"color": theme.INK, "width": 2, "dash": "dash"}  # line at the current density
DENSITY_AXIS = {"title": "Density (share of entries kept)", "range": [0, 1.04], "dtick": 0.2}
GLYPHS = ("·", "1", "2", "=", "1!", "2!")  # of the states, on a map of single entries
RATES, SIGNED = "Cividis", "RdBu_r"
WINNERS = ((0.0, TWO), (0.5, "#F2F2F2"), (1.0, ONE))
# Module types are no models: other colours, seen on white and on a dark page, each with a marker of its own.
TYPE_LOOKS = (("#CC6677", "circle"), ("#4C9F70", "square"), ("#7B74D6", "diamond"), ("#A89B30", "triangle-up"),
              ("#3FA7B5", "cross"), ("#A6603A", "x"), ("#B864B8", "star"))
MOST_TICKS = 16
GAP = 1  # cells between the panels of the steps



# ---- states ----------------------------------------------------------------------------------------------------

def state_bars(layers: pd.DataFrame, types: pd.DataFrame) -> go.Figure:
    """The six states as stacked bars that add up to 1: per layer (left) and per module type (right).

    Both tables are `signs.pooled`.
    """
    panels = Panels(["Per layer", "Per module type"], shared_y=True)
    for column, frame in enumerate((layers, types), start=1):
        require(frame, ("group", *STATES))
        _add_states(panels, frame, frame["group"].to_numpy(), column)
        panels.x(column=column, type="category", **_ticks(list(frame["group"])))
    panels.x(column=1, title="Layer")
    panels.x(column=2, tickangle=-40)  # the panel's title says what they are
    panels.y(range=[0, 1])
    panels.y(column=1, title="Share (0 to 1)")
    return panels.figure(500, margin={"t": 112, "b": 88}, legend=1.1, barmode="stack", bargap=0.25)


def matrix_states(frame: pd.DataFrame, density: float) -> go.Figure:
    """The six states of one matrix as stacked bars over density, with a line at the current one: `signs.of_matrix`."""
    require(frame, ("density", *STATES))
    panels = Panels()
    _add_states(panels, frame, frame["density"].to_numpy(), 1)
    panels.mark(density, CURRENT | {"color": "#000000"})  # on bars that fill the panel
    panels.x(**DENSITY_AXIS)
    panels.y(title="Share (0 to 1)", range=[0, 1])
    return panels.figure(400, margin={"t": 92}, legend=1.03, barmode="stack", bargap=0.1)


def _add_states(panels: Panels, frame: pd.DataFrame, x: np.ndarray, column: int) -> None:
    for state, label in TIES_STATES.items():
        panels.add({"type": "bar", "x": x, "y": frame[state].to_numpy(), "name": label, "legendgroup": state,
                    "marker": {"color": STATE_COLORS[state], "line": {"width": 0},
                               "pattern": STRIPES | {"shape": PATTERNS.get(state, "")}},
                    "hovertemplate": f"%{{x}}: %{{y:.1%}}<extra>{label}</extra>"}, column=column)


# ---- where -----------------------------------------------------------------------------------------------------

def conflict_map(frame: pd.DataFrame, chosen: str | None = None) -> go.Figure:
    """Layer x module type: share of conflicts in what both keep, on a scale from 0 to at least 0.5 (random).

    `frame` is `signs.matrices`. A click hits an invisible square whose customdata is the module; `chosen` is framed.
    """
    require(frame, ("module", "group", "type", "conflict"))
    top = max(RANDOM, float(np.nan_to_num(frame["conflict"]).max()))
    ticks = [0, 0.1, 0.2, 0.3, 0.4, 0.5, *([round(top, 2)] if top > 0.55 else [])]
    return _map(frame, "conflict", chosen, {
        "colorscale": RATES, "cmin": 0, "cmax": top,
        "colorbar": {"title": {"text": "Conflict rate"}, "thickness": 14, "tickvals": ticks,
                     "ticktext": ["0.5 random" if tick == RANDOM else f"{tick:g}" for tick in ticks]}})


def winner_map(frame: pd.DataFrame, chosen: str | None = None) -> go.Figure:
    """Layer x module type: share of the conflicts that Model 1 wins, 0.5 neutral. `frame`: `signs.matrices`."""
    require(frame, ("module", "group", "type", "won_by_1"))
    return _map(frame, "won_by_1", chosen, {
        "colorscale": WINNERS, "cmin": 0, "cmid": 0.5, "cmax": 1,
        "colorbar": {"title": {"text": "Won by Model 1"}, "thickness": 14, "tickvals": [0, 0.5, 1],
                     "ticktext": ["0 Model 2", "0.5 even", "1 Model 1"]}})


def _map(frame: pd.DataFrame, value: str, chosen: str | None, scale: dict) -> go.Figure:
    panels = Panels()
    x, y, z = (frame[name].to_numpy() for name in ("group", "type", value))
    panels.add({"type": "heatmap", "x": x, "y": y, "z": z, "coloraxis": "coloraxis", "xgap": 1, "ygap": 1,
                "hoverinfo": "skip"})
    invisible = {"marker": {"opacity": 0}}
    panels.add({  # a heat map itself cannot be selected
        "x": x, "y": y, "mode": "markers", "customdata": frame["module"].to_numpy(), "text": z,
        "marker": {"symbol": "square", "size": 28, "opacity": 0}, "selected": invisible, "unselected": invisible,
        "hovertemplate": "%{customdata}<br>%{text:.3f}<extra></extra>"})
    mark = frame[frame["module"] == chosen]
    for color, width in (("#FFFFFF", 5), ("#000000", 2)) if len(mark) else ():  # seen on any colour
        panels.add({"x": mark["group"].to_numpy(), "y": mark["type"].to_numpy(), "mode": "markers",
                    "hoverinfo": "skip",
                    "marker": {"symbol": "square-open", "size": 18, "color": color, "line": {"width": width}}})
    groups, types = list(frame["group"].unique()), module_types(frame["type"])
    panels.x(type="category", title="Layer", showgrid=False, range=[-0.5, len(groups) - 0.5], **_ticks(groups))
    panels.y(type="category", showgrid=False, range=[-0.5, len(types) - 0.5], categoryorder="array",
             categoryarray=types[::-1])
    left = 90 if max(map(len, types)) < 12 else 190
    # Without a limit of the distance a click anywhere in a wide cell hits the square in its middle.
    return panels.figure(72 + 30 * max(len(types), 5), margin={"t": 20, "l": left, "r": 120}, coloraxis=scale,
                         hovermode="closest", hoverdistance=-1)


# ---- over density ----------------------------------------------------------------------------------------------

def over_density(frame: pd.DataFrame, density: float) -> go.Figure:
    """Conflict rate over density, bold for all matrices and thin per module type; dotted: random directions.

    `frame` is `signs.over_density`.
    """
    require(frame, ("group", "density", "conflict"))
    panels = Panels()
    for number, (name, own) in enumerate(frame.groupby("group", sort=False)):
        color, symbol = (theme.INK, "circle") if name == OVERALL else TYPE_LOOKS[(number - 1) % len(TYPE_LOOKS)]
        panels.add({"x": own["density"].to_numpy(), "y": own["conflict"].to_numpy(), "mode": "lines+markers",
                    "name": name, "legendgroup": name, "marker": {"symbol": symbol, "size": 6},
                    "line": {"color": color, "width": 3 if name == OVERALL else 1.4},
                    "hovertemplate": "density %{x}: %{y:.1%}<extra>%{fullData.name}</extra>"})
    panels.level(RANDOM, {"color": theme.INK, "dash": "dot", "width": 1.5})
    panels.layout["annotations"].append({
        "xref": "paper", "x": 0.01, "y": RANDOM, "yanchor": "bottom", "xanchor": "left", "showarrow": False,
        "text": "0.5: two random directions", "font": {"size": 13}})
    panels.mark(density, CURRENT)
    panels.x(**DENSITY_AXIS)
    highest = max(RANDOM, float(np.nan_to_num(frame["conflict"]).max()))
    panels.y(title="Conflict rate (0 to 1)", range=[0, 1.15 * highest])
    return panels.figure(420, margin={"t": 84}, legend=1.03)


# ---- TIES step by step -----------------------------------------------------------------------------------------

def ties_steps(found: Steps) -> go.Figure:
    """The three steps on a window of a matrix: entries, trimmed, and elected sign above the merge; red +, blue -.

    All panels have the same symmetric limits; the numbers are in units of `signs.unit`. What is 0 is left empty. The
    panels are one heat map with gaps, which a browser draws several times as fast as six.
    """
    one, two = map(theme.short_label, UNLEARNED)
    limit = max(np.abs(own).max() for own in found.entries) or 1.0
    panels = {f"{one}: entries": found.entries[0], f"{one}: 1. trimmed": found.trimmed[0],
              "2. elected sign": found.elected * limit / 2, f"{two}: entries": found.entries[1],
              f"{two}: 1. trimmed": found.trimmed[1], "3. merged": found.merged}
    rows, columns = found.states.shape
    z = np.full((2 * rows + GAP, 3 * columns + 2 * GAP), np.nan)
    text, hover = np.full(z.shape, "", dtype=object), np.full(z.shape, "", dtype=object)
    figure = Panels()
    for number, (title, values) in enumerate(panels.items()):
        row, column = number // 3 * (rows + GAP), number % 3 * (columns + GAP)
        place = slice(row, row + rows), slice(column, column + columns)
        signed = np.where(values > 0, "+", "−")
        shown = signed if values is panels["2. elected sign"] else np.rint(values / signs.unit(found)).astype(int)
        z[place], text[place] = np.where(values == 0, np.nan, values), np.where(values == 0, "", shown.astype(str))
        exact = signed if shown is signed else np.char.mod("%.3g", values)
        hover[place] = [[f"{title}<br>row {i}, column {j}: {exact[i, j]}" for j in range(columns)] for i in range(rows)]
        figure.layout["annotations"].append({
            "x": column + (columns - 1) / 2, "y": row - 0.6, "text": title, "showarrow": False, "yanchor": "bottom",
            "font": {"size": 13}})
    figure.add({"type": "heatmap", "z": z, "text": text, "texttemplate": "%{text}", "textfont": {"size": 11},
                "hovertext": hover, "hoverinfo": "text", "hoverongaps": False, "coloraxis": "coloraxis", "xgap": 1,
                "ygap": 1})
    return _window(figure, 640, coloraxis={"colorscale": SIGNED, "cmin": -limit, "cmid": 0, "cmax": limit,
                                           "showscale": False})


def state_map(found: Steps) -> go.Figure:
    """The state of each entry of the window, by colour and sign; the legend has both."""
    panels, step = Panels(), 1 / len(STATES)
    colors = [(edge, STATE_COLORS[state]) for number, state in enumerate(STATES)
              for edge in (number * step, (number + 1) * step)]
    labels = np.array(list(TIES_STATES.values()))
    panels.add({"type": "heatmap", "z": found.states, "zmin": -0.5, "zmax": 5.5, "colorscale": colors,
                "showscale": False, "xgap": 1, "ygap": 1, "text": np.array(GLYPHS)[found.states],
                "texttemplate": "%{text}", "textfont": {"size": 13}, "customdata": labels[found.states],
                "hovertemplate": "row %{y}, column %{x}: %{customdata}<extra></extra>"})
    for state, glyph in zip(STATES, GLYPHS, strict=True):
        panels.add({"x": [None], "y": [None], "mode": "markers", "name": f"{glyph}  {TIES_STATES[state]}",
                    "legendgroup": state, "marker": {"symbol": "square", "size": 12, "color": STATE_COLORS[state]}})
    return _window(panels, 330, legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"})


def _window(panels: Panels, height: int, **layout: object) -> go.Figure:
    panels.x(showgrid=False, showticklabels=False)
    panels.y(showgrid=False, showticklabels=False, autorange="reversed")
    return panels.figure(height, margin={"l": 12, "r": 20, "t": 36, "b": 12}).update_layout(**layout)


# ---- parts of the figures --------------------------------------------------------------------------------------

def _ticks(names: list[str]) -> dict:
    """Categories in this order; of many, every few are named."""
    every = -(-len(names) // MOST_TICKS)
    return {"categoryorder": "array", "categoryarray": names, "tickmode": "array", "tickvals": names[::every]}
