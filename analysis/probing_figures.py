"""From the tables of `probing` to Plotly figures; each checks its columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import probing, theme
from analysis.metrics_figures import error_bars, marks
from analysis.panels import Panels, require
from unlearn_core.data.rephrase import ORIGINAL

STEP = 0.2  # between the models of a row
AXES = {"rouge_l": "ROUGE-L recall", "exact_match": "Exact match", "extraction_strength": "Extraction strength",
        "probability": "Probability per token", "leaking": "People given away"}
QUANTISED = {"fp": "as it is", "int8": "int8", "int4": "int4"}
HOVER = "[%{customdata[0]:.3f}, %{customdata[1]:.3f}], n = %{customdata[2]}<extra>%{fullData.name}</extra>"


def relearning(frame: pd.DataFrame, measure: str, on: str = "forget") -> go.Figure:
    """One measure over the steps of relearning, a line per model with its intervals: the documents that were only asked
    about on the left, those that were learned on the right. The steps stand evenly, as they grow tenfold.

    `frame` is `probing.table`; `on`: what was learned.
    """
    require(frame, probing.COLUMNS)
    own = frame[(frame["measure"] == measure) & (frame["on"] == on)]
    steps, names = sorted(own["setting"].unique()), probing.models(own)
    panels = Panels([_title(part, on) for part in probing.PARTS["relearning"]], across=0.04, shared_y=True)
    for column, part in enumerate(probing.PARTS["relearning"], start=1):
        for number, model in enumerate(names):
            look = theme.style(model)
            rows = own[(own["part"] == part) & (own["model"] == model)].sort_values("setting")
            # A little apart, so that no bar hides another.
            place = np.array([steps.index(step) for step in rows["setting"]], float)
            panels.add({
                "type": "scatter", "mode": "lines+markers", "name": theme.short_label(model), "legendgroup": model,
                "x": place + 0.06 * (number - (len(names) - 1) / 2), "y": rows["value"].to_numpy(),
                "line": {"color": look.color, "dash": look.dash, "width": 2}, "marker": marks(look, 9),
                "error_y": error_bars(rows, look.color) | {"thickness": 1.2}, "text": rows["setting"].astype(str),
                "customdata": rows[["low", "high", "n"]].to_numpy(),
                "hovertemplate": "after %{text} steps: %{y:.3f} " + HOVER}, column=column)
    panels.x(title={"text": f"Steps of training on a part of {on}"}, tickvals=list(range(len(steps))),
             ticktext=[str(step) for step in steps], range=[-0.4, max(len(steps) - 0.6, 0.4)])
    panels.y(range=[-0.03, 1.03])
    panels.y(column=1, title={"text": _axis(measure)})
    return panels.figure(430, margin={"t": 84}, legend=1.1)


def quantisation(frame: pd.DataFrame, measure: str) -> go.Figure:
    """One measure with the weights as they are and rounded, a row per precision, the models slightly apart with their
    intervals: forget left, retain right. `frame` is `probing.table`."""
    require(frame, probing.COLUMNS)
    own = frame[frame["measure"] == measure]
    rows = [name for name in QUANTISED if name in own["setting"].to_numpy()]
    return _dots(own, probing.PARTS["quantisation"], rows, [QUANTISED[name] for name in rows], measure, 84)


def prompts(frame: pd.DataFrame, measure: str, part: str) -> go.Figure:
    """One measure under each wording of one part's prompts, a row per wording, the models slightly apart with their
    intervals; the data's own wording first. `frame` is `probing.table`."""
    require(frame, probing.COLUMNS)
    own = frame[(frame["measure"] == measure) & (frame["part"] == part)]
    rows = list(dict.fromkeys(own["setting"]))
    labels = ["the data's own" if name == ORIGINAL else name for name in rows]
    return _dots(own, (part,), rows, labels, measure, 150)


def _dots(own: pd.DataFrame, parts: Sequence[str], rows: Sequence[str], labels: Sequence[str], measure: str, left: int
          ) -> go.Figure:
    """A panel per part, a row per setting, the models slightly apart."""
    names = probing.models(own)
    panels = Panels([probing.PART_LABELS[part] for part in parts], across=0.04, shared_y=True)
    for column, part in enumerate(parts, start=1):
        for number, model in enumerate(names):
            look = theme.style(model)
            mine = own[(own["part"] == part) & (own["model"] == model)]
            shift = (number - (len(names) - 1) / 2) * STEP
            panels.add({
                "type": "scatter", "mode": "markers", "name": theme.short_label(model), "legendgroup": model,
                "x": mine["value"].to_numpy(), "y": np.array([rows.index(name) for name in mine["setting"]]) + shift,
                "marker": marks(look), "error_x": error_bars(mine, look.color), "cliponaxis": False,
                "text": mine["setting"].to_numpy(), "customdata": mine[["low", "high", "n"]].to_numpy(),
                "hovertemplate": "%{text}: %{x:.3f} " + HOVER}, column=column)
    panels.x(title={"text": _axis(measure)}, range=[-0.03, 1.03])
    panels.y(tickvals=list(range(len(rows))), ticktext=list(labels), range=[len(rows) - 0.5, -0.5])
    height = 22 + 12 * len(names)  # of a row, in pixels
    return panels.figure(150 + height * max(len(rows), 1), margin={"l": left, "t": 84},
                         legend=1 + 28 / (1 + height * max(len(rows), 1)))


def _title(part: str, on: str) -> str:
    return probing.PART_LABELS[part] if part == "relearned" or on == "forget" else "Forget: asked only"


def _axis(measure: str) -> str:
    return f"{AXES[measure]} (0 to 1)"
