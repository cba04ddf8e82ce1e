"""How the lines of a training are drawn: the view a person chose, panels, lines, marks, levels and pins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import theme, training

X_TITLES = {
    "step": "Optimizer step",
    "epoch": "Epoch (passes over the data)",
    "tokens": "Real tokens seen",
    "seconds": "Time since the start (s)",
    "progress": "Progress (share of epochs)",
}
DOTTED = {"color": theme.INK, "dash": "dot", "width": 1.5}
MAX_DRAWN = 4_000  # points per figure, one or two per pixel of a panel: more is slow in a browser
MARGIN = {"l": 64, "r": 10, "b": 52}  # pixels: room for the labels and titles of the axes
MARKS_AT = (0.2, 0.5, 0.8)  # where along a line a letter stands; a longer mark stands once
LONG_MARK_AT = (0.25,)


@dataclass(frozen=True)
class View:
    """How the lines of a training are looked at.

    `x`: one of `X_TITLES`. `reach`: neighbours on either side that a line is averaged over (see `training.smooth`;
    the raw line stays, thin). `cut`: leave outliers out of the view (see `training.view`). `pinned`: the rows of
    `training.overlay` at which a vertical line stands.
    """

    x: str = "step"
    log_x: bool = False
    log_y: bool = False
    reach: int = 0
    cut: bool = False
    pinned: pd.DataFrame | None = None


PLAIN = View()


def line_name(model: str, mark: str = "") -> str:
    """Name of a line in a legend: the model, and the mark of its run where there are several."""
    return f"{mark} · {theme.short_label(model)}" if mark else theme.short_label(model)


def panels(rows: int, columns: int, titles: list[str] | None, **settings: object) -> go.Figure:
    spacing = {"horizontal_spacing": 0.11 if columns > 1 else 0, "vertical_spacing": 0.16 if rows > 1 else 0}
    return make_subplots(rows=rows, cols=columns, subplot_titles=titles, **(spacing | settings))


def short(x: str) -> str:
    return X_TITLES[x].split(" (")[0]


def _lines(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(mark, model, rows) of each line of a table with the columns model and, among several runs, mark."""
    marked = frame if "mark" in frame else frame.assign(mark="")
    for (mark, model), own in marked.groupby(["mark", "model"], sort=False):
        yield mark, model, own


def add_lines(figure: go.Figure, frame: pd.DataFrame, view: View, y: str, place: tuple[int, int], *, legend: bool,
               share: float = 1.0, name: str | None = None, line: dict | None = None) -> None:
    """A line for each run and model of the table in one panel, which may use `share` of the figure's points.

    `name` and `line` replace the look of the model, for one kind of line that all have in common.
    """
    lines = list(_lines(frame))
    first = lines[0][0] if lines else ""
    limit = min(training.MAX_POINTS, int(share * MAX_DRAWN / max(len(lines), 1)) // (2 if view.reach else 1))
    for number, (mark, model, own) in enumerate(lines):
        style = theme.style(model)
        look = line or {"color": style.color, "dash": style.dash, "width": 2 if mark == first else 1.4}
        title = name or line_name(model, mark)
        points, shown = own[[view.x, y]], legend and (name is None or number == 0)
        if view.reach:
            _add_line(figure, training.thin(points, y, limit), look | {"width": 1}, title, place, False, opacity=0.35)
            points = points.assign(**{y: training.smooth(points[y], view.reach)})
        drawn = training.thin(points, y, limit)
        _add_line(figure, drawn, look, title, place, shown, opacity=1 if mark == first or line else 0.8)
        if mark and line is None and not drawn.empty:
            _add_marks(figure, drawn, mark, style.color, place, shift=0.05 * (number % 5))


def _add_line(figure: go.Figure, points: pd.DataFrame, line: dict, name: str, place: tuple[int, int], legend: bool, *,
              opacity: float) -> None:
    x, y = points.columns
    figure.add_trace(go.Scatter(
        x=points[x].to_numpy(), y=points[y].to_numpy(), mode="lines", name=name, legendgroup=name, showlegend=legend,
        line=line, opacity=opacity,
        hovertemplate=f"{short(x)} %{{x:.4~g}}: %{{y:.3~g}}<extra>{name}</extra>"), row=place[0], col=place[1])


def _add_marks(figure: go.Figure, points: pd.DataFrame, mark: str, color: str, place: tuple[int, int],
               shift: float) -> None:
    """The mark of a run as text at a few places, above the line and its neighbourhood."""
    x, y = points.to_numpy().T
    at = [int((share + shift) * (len(x) - 1)) for share in (MARKS_AT if len(mark) == 1 else LONG_MARK_AT)]
    around = len(x) // 30
    tops = [y[max(index - around, 0):index + around + 1].max() for index in at]
    figure.add_trace(go.Scatter(
        x=x[at], y=tops, mode="text", text=[f"<b>{mark}</b>"] * len(at), textposition="top center",
        textfont={"color": color, "size": 12}, hoverinfo="skip", showlegend=False), row=place[0], col=place[1])


def add_level(figure: go.Figure, y: float, text: str, place: tuple[int, int], *, left: bool = False,
               log: bool = False) -> None:
    """A dotted horizontal line with its meaning above one of its ends."""
    figure.add_hline(y=y, line=DOTTED, row=place[0], col=place[1])
    axis = _axis(figure, *place)
    figure.add_annotation(
        xref=f"{axis.replace('y', 'x')} domain", x=0.01 if left else 0.99, xanchor="left" if left else "right",
        yref=axis, y=np.log10(y) if log else y, yanchor="bottom", text=text, showarrow=False)


def set_view(figure: go.Figure, values: pd.Series | np.ndarray, view: View, row: int, column: int | None = 1) -> None:
    """Scale and limits of a panel's y axis (column None: of a whole row), and how many values lie outside of them."""
    limits, outside = training.view(np.asarray(values, float), view.log_y, view.cut)
    figure.update_yaxes(range=limits, **(_log_scale(np.asarray(values, float)) if view.log_y else {"type": "linear"}),
                        row=row, col=column)
    if outside:
        axis = _axis(figure, row, column or 1)
        figure.update_annotations(selector={"yref": "paper"}, yshift=16)  # the panels' titles make room
        figure.add_annotation(xref=f"{axis.replace('y', 'x')} domain", x=0.5, yref=f"{axis} domain", y=1,
                              yanchor="bottom", text=f"{outside} points outside the view", showarrow=False)


def _log_scale(values: np.ndarray) -> dict:
    """Whole numbers at every tick (by default those between powers of ten are one bare digit), and not all nine."""
    decades = np.ptp(np.log10(values[values > 0])) if (values > 0).any() else 0
    return {"type": "log", "tickformat": ".4~g", "dtick": "D2" if 0.7 < decades < 3 else None}


def _axis(figure: go.Figure, row: int, column: int) -> str:
    """Name by which an annotation refers to a panel's y axis, such as "y3"; its x axis has the same number."""
    return next(figure.select_yaxes(row=row, col=column)).plotly_name.replace("axis", "")


def add_pins(figure: go.Figure, rows: pd.DataFrame | None, view: View, color: str | None = None) -> None:
    """Vertical lines in all panels at the rows of a pinned step: one where all share the place, else one per model."""
    if rows is None:
        return
    places = rows.drop_duplicates(view.x).dropna(subset=[view.x])
    for row in places.to_dict("records"):
        own = color or (theme.INK if len(places) == 1 else theme.style(row["model"]).color)
        figure.add_vline(x=row[view.x], line={"color": own, "dash": "dot", "width": 1.2}, row="all", col="all")


def finish(figure: go.Figure, view: View, *, rows: int, height: int, top: int = 80) -> go.Figure:
    """Common layout; the x title stands under the lowest row only, and the legend above the panels' own titles."""
    add_pins(figure, view.pinned, view)
    # Automatic margins would draw every axis a second time, which a reader feels at each switch.
    figure.update_xaxes(**({"type": "log", "tickformat": ".4~g"} if view.log_x else
                           {"type": "linear", "rangemode": "tozero"}), matches="x", automargin=False)
    figure.update_xaxes(title=X_TITLES[view.x], row=rows)
    figure.update_yaxes(automargin=False)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(template=theme.TEMPLATE, height=height, margin=MARGIN | {"t": top if rows > 1 else 50},
                                legend={"y": 1.08 if rows > 1 else 1.02})
