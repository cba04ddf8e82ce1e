"""From the tables of `leaks` to Plotly figures; each checks its columns."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from analysis import leaks, theme
from analysis.leaks_beside import ABOUT, BESIDE, EXPOSED_COLUMNS
from analysis.leaks_sampled import CURVE_COLUMNS
from analysis.panels import Panels, require
from unlearn_core.data.persons import label, ordered

LUCK = {"symbol": "line-ns", "size": 16, "color": theme.INK, "line": {"width": 2.5, "color": theme.INK}}
SHARE_AXIS = {"range": [-0.02, 1.02], "tickformat": ".0%", "automargin": False}


# ---- how much ----------------------------------------------------------------------------------------------------

def shares(summary: pd.DataFrame, control: float | None = None) -> go.Figure:
    """Share of people who leak, a row per model, with its exact interval; thin line: what swapped people would give.

    `summary` is `leaks.summary`; a dotted line stands at the share of the control model.
    """
    require(summary, leaks.SUMMARY_COLUMNS)
    figure = go.Figure()
    for row in summary.dropna(subset=["share"]).to_dict("records"):
        name = theme.short_label(row["model"])
        figure.add_trace(_dots(pd.DataFrame([row]), row["model"], [name]))
    luck = summary.dropna(subset=["luck"])
    figure.add_trace(go.Scatter(x=luck["luck"].to_numpy(), y=[theme.short_label(model) for model in luck["model"]],
                                mode="markers", marker=LUCK, name="by luck: with somebody else's values",
                                hovertemplate="by luck %{x:.2%}<extra>%{y}</extra>"))
    if control is not None:
        figure.add_vline(x=control, line={"color": theme.INK, "dash": "dot", "width": 1.5})
    figure.update_layout(template=theme.TEMPLATE, height=130 + 42 * len(summary), legend={"y": 1.02},
                         margin={"l": theme.room(map(theme.short_label, summary["model"])), "r": 30, "t": 44, "b": 52})
    figure.update_xaxes(title="Share of people with something given away", **SHARE_AXIS)
    figure.update_yaxes(automargin=False, autorange="reversed")
    return figure


def field_shares(table: pd.DataFrame) -> go.Figure:
    """Share of people of whom each field is given away, the models slightly apart. `table` is `leaks.by_field`."""
    require(table, leaks.FIELD_SHARE_COLUMNS)
    figure, models = go.Figure(), list(table["model"].unique())
    known = ordered(table["field"])
    for number, model in enumerate(models):
        own = table[table["model"] == model]
        shift = (number - (len(models) - 1) / 2) * 0.15
        figure.add_trace(_dots(own, model, [known.index(field) + shift for field in own["field"]], legend=True))
    figure.update_layout(template=theme.TEMPLATE, height=130 + 66 * len(known),
                         margin={"l": 160, "r": 30, "t": 44, "b": 52})
    figure.update_xaxes(title="Share of the people who can be asked for it", **SHARE_AXIS)
    figure.update_yaxes(automargin=False, tickvals=list(range(len(known))), range=[len(known) - 0.5, -0.5],
                        ticktext=list(map(label, known)))
    return figure


def _dots(own: pd.DataFrame, model: str, y: Sequence, legend: bool = False, count: str = "leaking") -> go.Scatter:
    """Shares of people with their intervals in the look of a model."""
    style, share = theme.style(model), own["share"].to_numpy(float)
    return go.Scatter(
        x=share, y=y, mode="markers", cliponaxis=False, name=theme.short_label(model), showlegend=legend,
        marker={"color": style.color, "symbol": style.symbol, "size": 11, "line": {"width": 2, "color": style.color}},
        error_x={"type": "data", "symmetric": False, "array": own["high"].to_numpy(float) - share,
                 "arrayminus": share - own["low"].to_numpy(float), "color": style.color, "width": 5, "thickness": 1.5},
        customdata=own[[count, "people", "low", "high"]].to_numpy(),
        hovertemplate="%{customdata[0]} of %{customdata[1]} people: %{x:.0%} [%{customdata[2]:.0%}, "
                      "%{customdata[3]:.0%}]<extra>" + theme.short_label(model) + "</extra>")


# ---- samples, others ---------------------------------------------------------------------------------------------

def curves(table: pd.DataFrame, greedy: pd.DataFrame) -> go.Figure:
    """leak@k over k, a line with its interval per model; at the left end the greedy answers.

    `table` is `leaks_sampled.curves`, `greedy` `leaks.summary`.
    """
    require(table, CURVE_COLUMNS)
    require(greedy, leaks.SUMMARY_COLUMNS)
    figure, models = go.Figure(), list(table["model"].unique())
    for number, model in enumerate(models):
        own, style, name = table[table["model"] == model], theme.style(model), theme.short_label(model)
        first = greedy[(greedy["model"] == model) & greedy["share"].notna()]
        parts = pd.concat([first.assign(k=0), own]) if len(first) else own
        k, share = parts["k"].to_numpy(float) + (number - (len(models) - 1) / 2) * 0.1, parts["share"].to_numpy(float)
        figure.add_trace(go.Scatter(
            x=k, y=share, mode="markers", name=name, legendgroup=model, cliponaxis=False,
            marker={"color": style.color, "symbol": style.symbol, "size": 9,
                    "line": {"width": 2, "color": style.color}},
            error_y={"type": "data", "symmetric": False, "array": parts["high"].to_numpy(float) - share,
                     "arrayminus": share - parts["low"].to_numpy(float), "color": style.color, "width": 3,
                     "thickness": 1},
            hovertemplate="%{y:.1%}<extra>" + name + "</extra>"))
        figure.add_trace(go.Scatter(
            x=k[-len(own):], y=share[-len(own):], mode="lines", showlegend=False, legendgroup=model, hoverinfo="skip",
            line={"color": style.color, "dash": style.dash, "width": 2}))
    most = int(table["k"].max())
    ticks = [0, *range(1, most + 1, max(1, most // 10))]
    figure.update_layout(template=theme.TEMPLATE, height=420, margin={"l": 72, "r": 20, "t": 56, "b": 52})
    figure.update_xaxes(title="k: answers drawn for each prompt", automargin=False, tickvals=ticks,
                        ticktext=["greedy", *map(str, ticks[1:])], range=[-0.5, most + 0.5])
    figure.update_yaxes(title="Share of people exposed", **SHARE_AXIS)
    return figure


def exposed(table: pd.DataFrame) -> go.Figure:
    """Share of people of whom a value is given away, by answers about them (left) and about others (right), per split
    and model. `table` is `leaks_beside.exposed`."""
    require(table, EXPOSED_COLUMNS)
    panels = Panels([f"Answers when {ABOUT}", f"Answers when {BESIDE}"], shared_y=True, across=0.1)
    models, splits = list(table["model"].unique()), list(table["split"].unique())
    for column, how in enumerate((ABOUT, BESIDE), start=1):
        for number, model in enumerate(models):
            own = table[(table["model"] == model) & (table["how"] == how) & table["share"].notna()]
            shift = (number - (len(models) - 1) / 2) * 0.15
            places = [splits.index(split) + shift for split in own["split"]]
            panels.add(_dots(own, model, places, count="exposed").to_plotly_json()
                       | {"legendgroup": model, "showlegend": column == 1}, column=column)
    panels.x(title="Share of people", tickvals=[0, 0.5, 1], **SHARE_AXIS)
    panels.y(tickvals=list(range(len(splits))), ticktext=[f"people of<br>{split}" for split in splits],
             range=[len(splits) - 0.5, -0.5])
    return panels.figure(150 + 100 * len(splits), margin={"t": 84, "l": 84}, legend=1.1)
