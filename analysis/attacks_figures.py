"""From the tables of `attacks`, `thresholds` and `memory` to Plotly figures; each checks its columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import attacks, memory, theme, thresholds
from analysis.figures import SIGNED
from analysis.panels import Panels, require

CHANCE = {"color": theme.INK, "dash": "dot", "width": 1.5}
ENDS = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0 ▼ over", "0.25", "0.5 ideal", "0.75", "1 ▲ under"]}
SHORT = {"": "all", "Task1": "stories", "Task2": "people", "Task3": "biogr."}
SPLITS = {"forget": "diamond", "retain": "circle", "holdout": "x-thin"}


def dial(found: pd.DataFrame) -> go.Figure:
    """AUC of one attack on each model with its interval, between its named ends. `found` is `attacks.by_model`."""
    require(found, ("model", "auc", "low", "high", "members", "nonmembers"))
    figure = go.Figure()
    for row in found.dropna(subset=["auc"]).to_dict("records"):
        look, label = theme.style(row["model"]), theme.short_label(row["model"])
        figure.add_trace(go.Scatter(
            x=[row["auc"]], y=[label], name=label, showlegend=False, mode="markers",
            marker={"color": look.color, "symbol": look.symbol, "size": 13, "line": {"width": 2, "color": look.color}},
            error_x={"type": "data", "symmetric": False, "array": [row["high"] - row["auc"]],
                     "arrayminus": [row["auc"] - row["low"]], "color": look.color, "width": 7},
            hovertemplate=f"{label}: AUC %{{x:.3f}} [{row['low']:.3f}, {row['high']:.3f}]<extra></extra>"))
    figure.add_vline(x=0.5, line=CHANCE)
    figure.update_layout(template=theme.TEMPLATE, height=110 + 42 * len(found),
                         margin={"l": theme.room(map(theme.short_label, found["model"]), 110), "r": 40, "t": 16,
                                 "b": 52})
    figure.update_xaxes(title="AUC of the attack", range=[-0.03, 1.03], automargin=False, **ENDS)
    figure.update_yaxes(automargin=False, autorange="reversed")
    return figure


def densities(found: pd.DataFrame, cuts: Mapping[str, float], axis: str) -> go.Figure:
    """Members and held-out documents over their score, one row per model (Fig. 1 of the paper); a dashed line at each
    model's threshold, below which a document is called a member. `found` is `thresholds.bins`."""
    require(found, thresholds.BIN_COLUMNS)
    models = list(dict.fromkeys(found["model"]))
    panels = Panels(("",), len(models), down=0.05)
    for row, model in enumerate(models, start=1):
        for side, own in found[found["model"] == model].groupby("side", sort=False):
            member = side == "members"
            color = theme.style(model).color if member else theme.INK
            edges, shares = np.append(own["low"], own["high"].iloc[-1]), np.append(own["share"], 0.0)
            panels.add({"type": "scatter", "mode": "lines", "line": {"color": color, "shape": "hv", "width": 2,
                                                                      "dash": "solid" if member else "dot"},
                        "fill": "tozeroy" if member else "none", "name": f"{theme.short_label(model)}, {side}",
                        "x": np.append(edges[0], edges), "y": np.append(0.0, shares),
                        "hovertemplate": "%{y:.1%} from %{x:.3g} on<extra>%{fullData.name}</extra>"}, row)
        if model in cuts:
            panels.mark(cuts[model], {"color": theme.INK, "dash": "dash", "width": 1.5}, row=row)
        panels.y(row=row, title={"text": theme.wrapped(theme.short_label(model)), "standoff": 4}, rangemode="tozero",
                 tickformat=".0%", nticks=3)
        panels.x(row=row, matches="x" if row > 1 else None, showticklabels=row == len(models))
    panels.x(row=len(models), title={"text": f"{axis} (left: more like a member)"})
    return panels.figure(90 + 110 * max(len(models), 1), margin={"t": 16, "l": 84})


def roc(curves: Mapping[str, pd.DataFrame], log: bool = False) -> go.Figure:
    """Members recognised over non-members taken for members, one line per model; dotted: chance. `curves` are
    `thresholds.roc`; on log axes the left end shows whether a few members are recognised for sure."""
    figure = go.Figure()
    least = min((1 / (len(curve) - 1) for curve in curves.values() if len(curve) > 1), default=0.01)
    for model, curve in curves.items():
        require(curve, ("fpr", "tpr"))
        look = theme.style(model)
        shown = curve[(curve["fpr"] > 0) & (curve["tpr"] > 0)] if log else curve
        figure.add_trace(go.Scatter(
            x=shown["fpr"].to_numpy(), y=shown["tpr"].to_numpy(), name=theme.short_label(model), mode="lines",
            line={"color": look.color, "dash": look.dash, "width": 2, "shape": "hv"},
            hovertemplate="false alarms %{x:.1%}, recognised %{y:.1%}<extra>%{fullData.name}</extra>"))
    ends = np.array([least, 1.0] if log else [0.0, 1.0])
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=CHANCE, name="chance", hoverinfo="skip"))
    figure.update_layout(template=theme.TEMPLATE, height=470, margin={"l": 72, "r": 20, "t": 60, "b": 52})
    scale = {"type": "log", "range": [float(np.log10(least)), 0.02]} if log else {"range": [-0.02, 1.02]}
    figure.update_xaxes(title="Held-out documents taken for members (share)", automargin=False, **scale)
    figure.update_yaxes(title="Members recognised (share)", automargin=False, **scale)
    return figure


def heat(found: pd.DataFrame, kind: str) -> go.Figure:
    """AUC of every attack (rows) on the member sets of one kind of text (columns), forget and retain side by side.
    In brackets: not told apart from chance when all of the table was tried. `found` is `attacks.table`."""
    require(found, attacks.TABLE_COLUMNS)
    texts = found["auc"].map("{:.2f}".format).where(attacks.told_apart(found), found["auc"].map("({:.2f})".format))
    own = found.assign(text=texts.where(found["auc"].notna(), ""))[found["kind"] == kind]
    grid = own.set_index(["members_of", "attack", "task"])
    panels = Panels(tuple(f"Members: {of}" for of in attacks.MEMBERS), across=0.04)
    for column, of in enumerate(attacks.MEMBERS, start=1):
        places = [[(of, attack, task) for task in SHORT] for attack in attacks.ATTACKS]
        values, said = ([[grid.at[place, name] for place in row] for row in places] for name in ("auc", "text"))
        panels.add({"type": "heatmap", "z": np.array(values, float), "x": list(SHORT.values()),
                    "y": list(attacks.ATTACKS.values()), "text": said, "texttemplate": "%{text}",
                    "colorscale": SIGNED, "zmin": 0, "zmax": 1, "zmid": 0.5, "xgap": 2, "ygap": 2,
                    "showscale": column == 1, "hovertemplate": "%{y} on %{x}: AUC %{z:.3f}<extra></extra>",
                    "colorbar": {"title": {"text": "AUC", "side": "right"}, "tickvals": [0, 0.5, 1], "thickness": 14}},
                   column=column)
    panels.x(showgrid=False)
    panels.y(autorange="reversed", showgrid=False)
    panels.y(column=2, showticklabels=False)
    return panels.figure(360, margin={"l": 96, "t": 36})


def memory_dots(found: pd.DataFrame) -> go.Figure:
    """Each measure of memory per model: forget, retain and the held-out texts that chance is read from, with intervals.
    `found` is `memory.measures`."""
    require(found, memory.COLUMNS)
    models = list(dict.fromkeys(found["model"]))
    labels = [theme.wrapped(theme.short_label(model)) for model in models]  # three panels need the width
    panels = Panels(tuple(name.replace(" ", "<br>", 1) for name in memory.MEASURES.values()), across=0.04)
    for split, symbol in SPLITS.items():  # for the legend, where no model's colour belongs
        panels.add({"type": "scatter", "mode": "markers", "name": split, "legendgroup": split, "x": [None], "y": [None],
                    "marker": {"symbol": symbol, "size": 10, "color": theme.INK, "line": {"width": 2}}})
    for column, measure in enumerate(memory.MEASURES, start=1):
        for number, split in enumerate(SPLITS):
            own = found[(found["measure"] == measure) & (found["split"] == split)]
            place = np.array([models.index(model) for model in own["model"]]) + 0.22 * (number - 1)
            value = own["value"].to_numpy()
            panels.add({
                "type": "scatter", "mode": "markers", "name": split, "legendgroup": split, "x": value, "y": place,
                "marker": {"symbol": SPLITS[split], "size": 10, "color": [theme.style(m).color for m in own["model"]],
                           "line": {"width": 2, "color": [theme.style(m).color for m in own["model"]]}},
                "error_x": {"type": "data", "symmetric": False, "array": own["high"].to_numpy() - value,
                            "arrayminus": value - own["low"].to_numpy(), "color": theme.INK, "thickness": 1.2,
                            "width": 0},
                "cliponaxis": False, "customdata": own[["low", "high", "documents"]].to_numpy(),
                "hovertemplate": "%{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], %{customdata[2]} documents"
                                 f"<extra>{split}</extra>"}, column=column)
    panels.x(range=[-0.03, 1.03])
    panels.y(range=[len(models) - 0.5, -0.5], tickvals=list(range(len(models))), showticklabels=False)
    panels.y(column=1, ticktext=labels, showticklabels=True)
    return panels.figure(150 + 66 * len(models), legend=1.16, margin={"l": theme.room(labels), "t": 90})


def depth_lines(found: pd.DataFrame) -> go.Figure:
    """Mean log-probability of the answers after each layer, forget's and the unseen ones of holdout side by side, one
    line per model with its interval; higher is better known. `found` is `memory.depth`."""
    require(found, memory.DEPTH_COLUMNS)
    panels = Panels(("Forget", "Holdout: never seen"), across=0.04, shared_y=True)
    for column, split in enumerate(("forget", "holdout"), start=1):
        for model, own in found[found["split"] == split].groupby("model", sort=False):
            look, value = theme.style(model), own["value"].to_numpy()
            panels.add({
                "type": "scatter", "mode": "lines+markers", "name": theme.short_label(model), "legendgroup": model,
                "x": own["layer"].to_numpy(), "y": value, "line": {"color": look.color, "dash": look.dash, "width": 2},
                "marker": {"color": look.color, "symbol": look.symbol, "size": 9},
                "error_y": {"type": "data", "symmetric": False, "array": own["high"].to_numpy() - value,
                            "arrayminus": value - own["low"].to_numpy(), "color": look.color, "thickness": 1.2},
                "hovertemplate": "after layer %{x}: log p %{y:.3f}<extra>%{fullData.name}</extra>"}, column=column)
    layers = found[found["layer"] > 0]
    low, high = layers["low"].min(), layers["high"].max()
    # Embeddings that are decoded without a layer say little, and far below they would make one line of all the rest.
    hidden = found["low"].min() < low - (high - low)
    if hidden:
        panels.y(range=[low - 0.05 * (high - low), high + 0.05 * (high - low)])
    panels.x(title={"text": f"After layer (0: embeddings{',<br>below this view' if hidden else ''})"},
             dtick=1 if found["layer"].max() < 16 else None)
    panels.y(column=1, title={"text": "log p of the answers (nats per token)"})
    return panels.figure(460, margin={"t": 84} | ({"b": 72} if hidden else {}), legend=1.08)
