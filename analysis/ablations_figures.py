"""From the tables of `ablations` to Plotly figures; each checks its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme
from analysis.ablations import COMPARED
from analysis.panels import Panels, require

PART, RANDOM = "The part", "Random parts of its size: mean, least, greatest"
DRAWN = {"forget": "Mean<br>forget", "retain": "Mean<br>retain", "leak": "People<br>who leak", "mia_auc": "MIA<br>AUC"}
SIZE = "Share of<br>the norm"



def effects(rows: pd.DataFrame, base: pd.Series) -> go.Figure:
    """One line per part: how large it is, then each measure with the part changed (diamond) beside random parts of its
    size (grey with their range); dotted: the whole merge. `rows` is `ablations.compared`, `base` `ablations.whole`."""
    require(rows, COMPARED)
    panels = Panels([SIZE, *DRAWN.values()], across=0.025)
    y = rows["label"].to_numpy()
    panels.add({"type": "bar", "orientation": "h", "x": rows["norm_share"].to_numpy(), "y": y, "width": 0.5,
                "marker": {"color": theme.GHOST}, "hovertemplate": "%{y}: %{x:.1%} of the norm<extra></extra>"})
    for column, measure in enumerate(DRAWN, start=2):
        mean = rows[f"{measure}_random"].to_numpy()
        panels.add({"type": "scatter", "mode": "markers", "x": mean, "y": y, "name": RANDOM, "legendgroup": "random",
                    "marker": {"color": theme.GHOST, "symbol": "circle-open", "size": 9},
                    "error_x": {"type": "data", "symmetric": False, "array": rows[f"{measure}_high"].to_numpy() - mean,
                                "arrayminus": mean - rows[f"{measure}_low"].to_numpy(), "color": theme.GHOST},
                    "hovertemplate": "%{y}, random: %{x:.3f}<extra></extra>"}, column=column)
        panels.add({"type": "scatter", "mode": "markers", "x": rows[measure].to_numpy(), "y": y, "name": PART,
                    "legendgroup": "part", "marker": {"color": theme.style("merged").color, "symbol": "diamond",
                                                      "size": 11},
                    "hovertemplate": "%{y}: %{x:.3f}<extra></extra>"}, column=column)
        if not np.isnan(base[measure]):
            panels.mark(float(base[measure]), {"color": theme.INK, "dash": "dot", "width": 1.5}, column)
        panels.x(column=column, range=[-0.04, 1.04], tickvals=[0, 0.5, 1])
        panels.y(column=column, showticklabels=False)
    panels.x(column=1, rangemode="tozero", tickformat=".0%", nticks=3)
    panels.y(range=[len(rows) - 0.5, -0.5], type="category")
    return panels.figure(140 + 34 * len(rows), margin={"l": 170, "t": 104, "b": 36}, legend=1 + 48 / (34 * len(rows)))
