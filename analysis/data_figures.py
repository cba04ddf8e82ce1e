"""From the tables of `data_frames` to Plotly figures; each checks its columns."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import data_frames, theme
from analysis.panels import require
from unlearn_core.vocabulary import QA, SC, TASK_LABELS, TASKS

# Identity of a split: colour and pattern, apart from the models' colours.
SPLIT_STYLES = {"forget": ("#E69F00", "/"), "retain": ("#56B4E9", ""), "holdout": ("#9A9A9A", "x")}
OTHER_STYLE = (theme.INK, ".")
PANEL = 150  # pixels of height of a row of panels



def _bar(split: str, **settings) -> go.Bar:
    color, pattern = SPLIT_STYLES.get(split, OTHER_STYLE)
    return go.Bar(name=split, legendgroup=split, **settings, marker={
        "color": color, "line": {"color": color, "width": 1},
        "pattern": {"shape": pattern, "fgcolor": "rgba(0, 0, 0, 0.55)", "fillmode": "overlay", "size": 6}})


def counts(groups: pd.DataFrame) -> go.Figure:
    """Items of each task and kind, one bar per split; `groups` is `data_frames.groups`."""
    require(groups, ("split", "task", "kind", "items", "documents"))
    figure = go.Figure()
    for split in dict.fromkeys(groups["split"]):
        own = groups[groups["split"] == split]
        names = [data_frames.group_name(task, kind).replace(", ", "<br>")
                 for task, kind in zip(own["task"], own["kind"], strict=True)]
        figure.add_trace(_bar(
            split, x=names, y=own["items"].to_numpy(), customdata=own["documents"].to_numpy(),
            text=own["items"].to_numpy(), textposition="outside", cliponaxis=False,
            hovertemplate="%{y} items of %{customdata} documents<extra>%{fullData.name}</extra>"))
    figure.update_layout(template=theme.TEMPLATE, height=360, barmode="group", bargap=0.25, showlegend=True)
    figure.update_yaxes(title="Items", rangemode="tozero")
    return figure


def lengths(histogram: pd.DataFrame, max_length: int) -> go.Figure:
    """Tokens per item (x) against items (y), a panel per task (row) and kind (column), with the cut at `max_length`.

    `histogram` is binned: `data_frames.check`.
    """
    require(histogram, data_frames.HISTOGRAM_COLUMNS)
    tasks = [task for task in TASKS if task in set(histogram["task"])] or [TASKS[0]]
    kinds = [kind for kind in (SC, QA) if kind in set(histogram["kind"])] or [SC]
    figure = make_subplots(
        rows=len(tasks), cols=len(kinds), shared_xaxes="columns", horizontal_spacing=0.08, vertical_spacing=0.09,
        subplot_titles=[data_frames.group_name(task, kind) for task in tasks for kind in kinds])
    named = set()
    for row, task in enumerate(tasks, start=1):
        for column, kind in enumerate(kinds, start=1):
            panel = histogram[(histogram["task"] == task) & (histogram["kind"] == kind)]
            for split in dict.fromkeys(panel["split"]):
                own = panel[panel["split"] == split]
                figure.add_trace(_bar(
                    split, x=((own["low"] + own["high"]) / 2).to_numpy(), y=own["items"].to_numpy(),
                    width=(own["high"] - own["low"]).to_numpy(), showlegend=split not in named,
                    customdata=own[["low", "high"]].to_numpy(),
                    hovertemplate="%{y} items of %{customdata[0]} to under %{customdata[1]} tokens"
                                  "<extra>%{fullData.name}</extra>"), row=row, col=column)
                named.add(split)
            figure.add_vline(x=max_length, line={"color": theme.INK, "dash": "dot", "width": 2}, row=row, col=column)
            if row == 1:
                figure.add_annotation(x=max_length, y=1, yref="y domain" if column == 1 else f"y{column} domain",
                                      xref="x" if column == 1 else f"x{column}", text=f"cut at {max_length} ",
                                      showarrow=False, xanchor="right", yanchor="top")
    figure.update_layout(template=theme.TEMPLATE, height=PANEL * len(tasks) + 130, barmode="stack",
                         margin={"t": 80}, legend={"y": 1.06 + 0.05 / len(tasks)})
    figure.update_annotations(font={"size": 13})
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="Items", col=1)
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(title="Tokens of prompt + answer + end", row=len(tasks))
    return figure


def subset_bars(counts: pd.DataFrame) -> go.Figure:
    """Items of each task in a subset, one bar per split; `counts` is `data_frames.subset_counts`."""
    require(counts, data_frames.SUBSET_COLUMNS)
    figure = go.Figure()
    for split in dict.fromkeys(counts["split"]):
        own = counts[counts["split"] == split]
        figure.add_trace(_bar(split, x=[TASK_LABELS[task] for task in own["task"]], y=own["items_kept"].to_numpy(),
                              text=own["items_kept"].to_numpy(), textposition="outside", cliponaxis=False,
                              hovertemplate="%{y} items<extra>%{fullData.name}</extra>"))
    figure.update_layout(template=theme.TEMPLATE, height=320, barmode="group", bargap=0.3, showlegend=True)
    figure.update_yaxes(title="Items in the subset", rangemode="tozero")
    return figure
