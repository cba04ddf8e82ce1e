"""What figures are made with: the check of their table, and a grid of panels put together from plain dicts.

`make_subplots` and a call for each trace and axis take ten times as long, which a reader feels at every switch.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from analysis import theme

MARGIN = {"l": 72, "r": 20, "t": 56, "b": 52}  # pixels: room for the labels and titles of the axes


def require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """ValueError that names what a figure needs and its table has not."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"the figure needs the columns {missing}; the table has {list(frame.columns)}")


class Panels:
    """Panels in rows and columns, counted from 1, with a title above each panel of the first row.

    `across` and `down`: gaps between columns and between rows, as shares of the figure. `heights`: how the rows share
    the height (evenly by default). `shared_y`: the panels of a row have one vertical scale, with labels on the left.
    """

    def __init__(self, titles: Sequence[str] = ("",), rows: int = 1, *, across: float = 0.03, down: float = 0.1,
                 heights: Sequence[float] | None = None, shared_y: bool = False):
        self.columns, self.rows, self.shapes = len(titles), rows, []
        self.traces: list[dict] = []
        self.layout: dict = {"annotations": []}
        heights = heights or [1.0] * rows
        width, unit = (1 - across * (self.columns - 1)) / self.columns, (1 - down * (rows - 1)) / sum(heights)
        top = 1.0
        for row, height in enumerate(heights, start=1):
            for column, title in enumerate(titles, start=1):
                left, number = (column - 1) * (width + across), self._number(row, column)
                # Automatic margins would draw every axis a second time.
                self.layout["xaxis" + number] = {"domain": [left, left + width], "anchor": "y" + number,
                                                 "automargin": False}
                self.layout["yaxis" + number] = {"domain": [max(top - height * unit, 0), top], "anchor": "x" + number,
                                                 "automargin": False}
                if shared_y and column > 1:
                    self.layout["yaxis" + number] |= {"matches": "y" + self._number(row, 1), "showticklabels": False}
                if title and row == 1:
                    self.layout["annotations"].append({
                        "text": title, "x": left + width / 2, "y": 1, "xref": "paper", "yref": "paper",
                        "xanchor": "center", "yanchor": "bottom", "showarrow": False, "font": {"size": 13}})
            top -= height * unit + down

    def _number(self, row: int, column: int) -> str:
        """What Plotly appends to the names of a panel's axes: nothing for the first."""
        number = (row - 1) * self.columns + column
        return "" if number == 1 else str(number)

    def add(self, trace: dict, row: int = 1, column: int = 1) -> None:
        """A trace as Plotly's dict. Of several with one `legendgroup` the first alone stands in the legend."""
        group, number = trace.get("legendgroup"), self._number(row, column)
        shown = group is not None and not any(other.get("legendgroup") == group for other in self.traces)
        self.traces.append({"showlegend": shown, **trace, "xaxis": "x" + number, "yaxis": "y" + number})

    def x(self, *, row: int | None = None, column: int | None = None, **settings: object) -> None:
        """Settings of the horizontal axes of a row, a column, one panel or all."""
        self._set("xaxis", row, column, settings)

    def y(self, *, row: int | None = None, column: int | None = None, **settings: object) -> None:
        """Settings of the vertical axes of a row, a column, one panel or all."""
        self._set("yaxis", row, column, settings)

    def _set(self, axis: str, row: int | None, column: int | None, settings: dict) -> None:
        for i in range(1, self.rows + 1) if row is None else (row,):
            for j in range(1, self.columns + 1) if column is None else (column,):
                self.layout[axis + self._number(i, j)].update(settings)

    def level(self, y: float, line: dict, row: int = 1) -> None:
        """A horizontal line through all panels of a row."""
        for column in range(1, self.columns + 1):
            number = self._number(row, column)
            self.shapes.append({"type": "line", "xref": f"x{number} domain", "x0": 0, "x1": 1, "yref": "y" + number,
                                "y0": y, "y1": y, "line": line})

    def mark(self, x: float, line: dict, column: int = 1, row: int | None = None) -> None:
        """A vertical line through one panel of a column, or through all of them."""
        for place in range(1, self.rows + 1) if row is None else (row,):
            number = self._number(place, column)
            self.shapes.append({"type": "line", "xref": "x" + number, "x0": x, "x1": x, "yref": f"y{number} domain",
                                "y0": 0, "y1": 1, "line": line})

    def figure(self, height: int, *, margin: dict | None = None, legend: float = 1.02, **layout: object) -> go.Figure:
        """The figure; `margin` changes `MARGIN`, `legend` is its height above the panels."""
        return go.Figure(data=self.traces, layout={
            **self.layout, "shapes": self.shapes, "template": theme.TEMPLATE, "height": height,
            "margin": MARGIN | (margin or {}), "legend": {"y": legend}, **layout})
