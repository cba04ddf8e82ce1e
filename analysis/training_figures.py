"""From the tables of `training` and `trajectory` to Plotly figures; each checks its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import theme, training, trajectory
from analysis.panels import require
from unlearn_core.vocabulary import LOSS_LABELS, METHOD_TERMS, TASK_LABELS, TASKS

X_TITLES = {
    "step": "Optimizer step",
    "epoch": "Epoch (passes over the data)",
    "tokens": "Real tokens seen",
    "seconds": "Time since the start (s)",
    "progress": "Progress (share of epochs)",
}
COMPONENT_TITLES = LOSS_LABELS | {"loss": "Total: weighted sum"}
REFERENCE = "Reference (before unlearning)"
DOTTED = {"color": theme.INK, "dash": "dot", "width": 1.5}
MAX_DRAWN = 4_000  # points per figure, one or two per pixel of a panel: more is slow in a browser
MARGIN = {"l": 64, "r": 10, "b": 52}  # pixels: room for the labels and titles of the axes
MARKS_AT = (0.2, 0.5, 0.8)  # where along a line a letter stands; a longer mark stands once
LONG_MARK_AT = (0.25,)
KINDS = ("regurgitation", "knowledge")
NPO_ALONE, COMPOSITE = "NPO alone", "NPO+GDR+KLR"  # marks of the two runs of Fig. 3


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



# ---- losses ----------------------------------------------------------------------------------------------------

def loss_components(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Small multiples: one panel per loss term and one for the total, every model in each, each with its own scale.

    `frame` is `training.loss_components`. A log axis has no place for values <= 0.
    """
    require(frame, ("model", view.x, "component", "value"))
    components = list(frame["component"].unique()) or [*METHOD_TERMS, "loss"]
    rows = -(-len(components) // 2)
    titles = [COMPONENT_TITLES[component] for component in components]
    figure = _panels(rows, 2, [*titles, *[""] * (2 * rows - len(titles))])
    for number, component in enumerate(components):
        own, place = frame[frame["component"] == component], (number // 2 + 1, number % 2 + 1)
        _add_lines(figure, own, view, "value", place, legend=number == 0, share=1 / len(components))
        _set_view(figure, own["value"], view, *place)
    figure.update_yaxes(title="Loss", col=1)
    return _finish(figure, view, rows=rows, height=310 * rows)


def answer_nll(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """NLL of the answers against the reference's on the same items: forget above, retain below, a column per model.

    `frame` is `training.steps` or an overlay. Forgetting lifts the upper line off its dotted reference; the lower
    should stay on it.
    """
    require(frame, ("model", view.x, "forget_nll", "forget_nll_reference", "retain_nll", "retain_nll_reference"))
    models = list(frame["model"].unique())
    splits = ("forget", "retain")
    figure = _panels(2, max(len(models), 1), [f"{split.capitalize()}, {theme.short_label(model)}"
                                              for split in splits for model in models], shared_yaxes="rows")
    for row, split in enumerate(splits, start=1):
        for column, model in enumerate(models, start=1):
            own, place = frame[frame["model"] == model], (row, column)
            _add_lines(figure, own, view, f"{split}_nll_reference", place, legend=row == column == 1,
                       share=1 / 4 / len(models), name=REFERENCE, line=DOTTED)
            _add_lines(figure, own, view, f"{split}_nll", place, legend=row == 1, share=1 / 4 / len(models))
        drawn = frame[[f"{split}_nll", f"{split}_nll_reference"]].to_numpy().ravel()
        _set_view(figure, drawn, view, row, None)
    figure.update_yaxes(title="NLL (nats per answer token)", col=1)
    if not (view.log_y or view.cut):
        figure.update_yaxes(rangemode="tozero")
    return _finish(figure, view, rows=2, height=600)


def npo_brake(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """2 sigmoid(-beta Delta), NPO's gradient as a share of gradient ascent's: 1 = full ascent, 0 = stopped.

    `frame` is `training.steps` or an overlay. The scale is always linear and whole.
    """
    require(frame, ("model", view.x, "npo_brake"))
    figure = _panels(1, 1, None)
    _add_lines(figure, frame, view, "npo_brake", (1, 1), legend=True)
    _add_level(figure, 1.0, "1: full gradient ascent", (1, 1))
    _add_level(figure, 0.0, "0: stopped", (1, 1), left=True)
    highest = frame["npo_brake"].max()
    figure.update_yaxes(title="NPO brake (share of ascent)", range=[-0.03, 1.12 * max(1.0, np.nan_to_num(highest))])
    return _finish(figure, view, rows=1, height=360)


def optimizer(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Learning rate and gradient norm as two lanes over one x axis. `frame` is `training.steps` or an overlay."""
    require(frame, ("model", view.x, "lr", "grad_norm"))
    figure = _panels(2, 1, ["Learning rate", "Gradient norm (before clipping)"], shared_xaxes=True)
    _add_lines(figure, frame, View(x=view.x), "lr", (1, 1), legend=True, share=1 / 2)
    _add_lines(figure, frame, view, "grad_norm", (2, 1), legend=False, share=1 / 2)
    _set_view(figure, frame["grad_norm"], view, 2)
    figure.update_yaxes(title="Learning rate", tickformat=".1e", row=1)
    figure.update_yaxes(title="L2 norm", row=2)
    return _finish(figure, view, rows=2, height=480)


def base_loss(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Training loss of the base while it memorises. `frame` is `training.base_steps` or an overlay of them."""
    require(frame, (view.x, "loss"))
    figure = _panels(1, 1, None)
    _add_lines(figure, frame.assign(model="base"), view, "loss", (1, 1), legend=True)
    _set_view(figure, frame["loss"], view, 1)
    figure.update_yaxes(title="Cross-entropy (nats per token)")
    return _finish(figure, view, rows=1, height=380)


# ---- NPO alone against NPO + GDR + KLR -------------------------------------------------------------------------

def against_npo_alone(frame: pd.DataFrame, starts: dict[str, list[float]], view: View = PLAIN) -> go.Figure:
    """Fig. 3 of the paper: total loss (above) and NLL on retain (below) over training progress, a column per model.

    `frame` holds `training.steps` of both runs with the columns `mark` ("NPO alone" or "NPO+GDR+KLR") and
    `progress`. The dotted line of the composite run is its NPO term alone, so that both NPO curves can be compared.
    `starts` gives for each model the values of weighted NPO before the first update.
    """
    require(frame, ("model", "mark", view.x, "loss", "npo_weighted", "retain_nll"))
    models = list(frame["model"].unique())
    titles = [f"{what}, {theme.short_label(model)}" for what in ("Total loss", "NLL on retain") for model in models]
    figure = _panels(2, max(len(models), 1), titles, shared_yaxes="rows")
    for column, model in enumerate(models, start=1):
        own, share = frame[frame["model"] == model], 1 / 3 / len(models)
        composite = own[own["mark"] != NPO_ALONE]
        _add_lines(figure, composite, view, "npo_weighted", (1, column), legend=column == 1, share=share,
                   name="NPO term of NPO+GDR+KLR", line=DOTTED)
        _add_lines(figure, own, view, "loss", (1, column), legend=True, share=share)
        _add_lines(figure, own, view, "retain_nll", (2, column), legend=False, share=share)
        for start in filter(None, starts.get(model, [])):  # without weight NPO starts at its floor
            _add_level(figure, start, f"{start:.3f}: start of NPO", (1, column), log=view.log_y)
        if not view.log_y:
            _add_level(figure, 0.0, "0: floor of NPO", (1, column), left=True)
    _set_view(figure, frame["loss"], view, 1, None)
    _set_view(figure, frame["retain_nll"], view, 2, None)
    figure.update_yaxes(title="Loss", row=1, col=1)
    figure.update_yaxes(title="Nats per answer token", row=2, col=1)
    if not (view.log_y or view.cut):
        figure.update_yaxes(rangemode="tozero")
    return _finish(figure, view, rows=2, height=640)


# ---- scores over checkpoints -----------------------------------------------------------------------------------

def score_curves(frame: pd.DataFrame, view: View = PLAIN) -> go.Figure:
    """Fig. 2 of the paper: the twelve sub-scores over the checkpoints in small multiples, and three summaries.

    Rows: regurgitation, knowledge, then Task Aggregate, MIA AUC and the mean of the six sub-scores; columns: the
    three tasks. `frame` is `trajectory.trajectory`. Colour and marker are the model's; forget is dotted with open
    markers, retain as the model's own line with filled ones. With one model alone the intervals are drawn. A thin
    vertical line marks each model's turning point.
    """
    require(frame, trajectory.COLUMNS)
    titles = [f"{kind.capitalize()},<br>{TASK_LABELS[task]}" for kind in KINDS for task in TASKS]
    figure = _panels(3, 3, [*titles, "Task Aggregate", "MIA AUC (ideal 0.5)", "Mean of the six sub-scores"],
                     vertical_spacing=0.12, horizontal_spacing=0.06)
    wide = trajectory.checkpoints(frame)
    models, alone = list(wide["model"].unique()), wide["model"].nunique() == 1
    for model in models:
        own = frame[frame["model"] == model]
        for row, kind in enumerate(KINDS, start=1):
            for column in range(1, len(TASKS) + 1):
                for split in ("forget", "retain"):
                    points = own[own["metric"] == f"{split}_{kind}_{column}"]
                    _add_scores(figure, points, model, view.x, (row, column), split, intervals=alone,
                                legend=(row, column) == (1, 1))
        for column, metric in enumerate(("task_aggregate", "mia_auc"), start=1):
            _add_scores(figure, own[own["metric"] == metric], model, view.x, (3, column), "retain", intervals=alone)
        for split in ("forget", "retain"):
            means = wide[wide["model"] == model].assign(value=lambda rows, name=split: rows[name])
            _add_scores(figure, means, model, view.x, (3, 3), split)
        turn = wide[(wide["model"] == model) & (wide["step"] == trajectory.turning_point(wide, model))]
        _add_pins(figure, turn.assign(mark=""), View(x=view.x), color=theme.style(model).color)
    figure.add_hline(y=0.5, line=DOTTED, row=3, col=2)
    figure.update_yaxes(range=[-0.04, 1.04])
    figure.update_yaxes(title="Score (0 to 1)", col=1)
    return _finish(figure, view, rows=3, height=860, top=120)


def score_path(frame: pd.DataFrame, merged: dict[str, float] | None = None,
               best: pd.DataFrame | None = None) -> go.Figure:
    """The way of each model through the plane of forget success (x) and retention (y), with an arrow per checkpoint.

    Forget success is 1 - the mean forget score. `frame` and `best` (ringed) are rows of `trajectory.checkpoints`;
    `merged` has the final means `forget` and `retain` of the merged model. The way begins at the base, grey.
    """
    require(frame, ("model", "step", "epoch", "forget", "retain"))
    figure = go.Figure()
    for model, own in frame.dropna(subset=["forget", "retain"]).groupby("model"):
        style, x, y = theme.style(model), (1 - own["forget"]).to_numpy(), own["retain"].to_numpy()
        figure.add_trace(go.Scatter(
            x=x, y=y, mode="lines+markers", name=theme.short_label(model),
            line={"color": style.color, "dash": style.dash, "width": 1.5},
            marker={"color": style.color, "symbol": style.symbol, "size": 7},
            customdata=_places(own), hovertemplate=PATH_HOVER))
        for start, end in zip(zip(x[:-1], y[:-1], strict=True), zip(x[1:], y[1:], strict=True), strict=True):
            figure.add_annotation(x=end[0], y=end[1], ax=start[0], ay=start[1], xref="x", yref="y", axref="x",
                                  ayref="y", showarrow=True, arrowhead=3, arrowsize=1.2, arrowwidth=1.2,
                                  arrowcolor=style.color, standoff=3, text="")
    _add_spot(figure, frame[frame["step"] == 0].head(1), "base", "Base (step 0)")
    if best is not None and not best.empty:
        figure.add_trace(go.Scatter(
            x=(1 - best["forget"]).to_numpy(), y=best["retain"].to_numpy(), mode="markers", name="Best checkpoint",
            marker={"symbol": "circle-open", "size": 18, "color": theme.INK, "line": {"width": 2}},
            customdata=_places(best), hovertemplate=PATH_HOVER))
    if merged is not None:
        _add_spot(figure, pd.DataFrame([merged]).assign(step=np.nan, epoch=np.nan), "merged", "Merged (final)")
    figure.update_layout(template=theme.TEMPLATE, height=520)
    figure.update_xaxes(title="Forget success: 1 - mean forget score (0 to 1, higher is better)", range=[-0.03, 1.03])
    return figure.update_yaxes(title="Retention: mean retain score (0 to 1)", range=[-0.03, 1.05])


PATH_HOVER = "%{customdata}<br>forget success %{x:.3f}<br>retention %{y:.3f}<extra>%{fullData.name}</extra>"


def _places(rows: pd.DataFrame) -> list[str]:
    return [f"step {row.step:.0f}, epoch {row.epoch:.2f}" for row in rows.itertuples()]


def _add_spot(figure: go.Figure, rows: pd.DataFrame, model: str, name: str) -> None:
    rows, style = rows.dropna(subset=["forget", "retain"]), theme.style(model)
    if not rows.empty:
        figure.add_trace(go.Scatter(
            x=(1 - rows["forget"]).to_numpy(), y=rows["retain"].to_numpy(), mode="markers", name=name,
            marker={"color": style.color, "symbol": style.symbol, "size": 14, "line": {"width": 1, "color": theme.INK}},
            hovertemplate="forget success %{x:.3f}<br>retention %{y:.3f}<extra>%{fullData.name}</extra>"))


def _add_scores(figure: go.Figure, rows: pd.DataFrame, model: str, x: str, place: tuple[int, int], split: str, *,
                intervals: bool = False, legend: bool = False) -> None:
    """One curve of scores, in the look of the model and the split. `rows`: one per checkpoint, with `value`."""
    rows, style, name = rows.dropna(subset=["value"]), theme.style(model), f"{theme.short_label(model)}, {split}"
    error = None
    if intervals and "low" in rows:
        error = {"type": "data", "symmetric": False, "array": (rows["high"] - rows["value"]).to_numpy(),
                 "arrayminus": (rows["value"] - rows["low"]).to_numpy(), "width": 0, "thickness": 1}
    figure.add_trace(go.Scatter(
        x=rows[x].to_numpy(), y=rows["value"].to_numpy(), mode="lines+markers", name=name, legendgroup=name,
        showlegend=legend, error_y=error,
        line={"color": style.color, "dash": "dot" if split == "forget" else style.dash, "width": 1.6},
        marker={"color": style.color, "symbol": style.symbol + ("-open" if split == "forget" else ""), "size": 6},
        hovertemplate=f"{_short(x)} %{{x:.4~g}}: %{{y:.3f}}<extra>{name}</extra>"), row=place[0], col=place[1])


# ---- parts of the figures --------------------------------------------------------------------------------------

def _panels(rows: int, columns: int, titles: list[str] | None, **settings: object) -> go.Figure:
    spacing = {"horizontal_spacing": 0.11 if columns > 1 else 0, "vertical_spacing": 0.16 if rows > 1 else 0}
    return make_subplots(rows=rows, cols=columns, subplot_titles=titles, **(spacing | settings))


def _short(x: str) -> str:
    return X_TITLES[x].split(" (")[0]


def _lines(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(mark, model, rows) of each line of a table with the columns model and, among several runs, mark."""
    marked = frame if "mark" in frame else frame.assign(mark="")
    for (mark, model), own in marked.groupby(["mark", "model"], sort=False):
        yield mark, model, own


def _add_lines(figure: go.Figure, frame: pd.DataFrame, view: View, y: str, place: tuple[int, int], *, legend: bool,
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
        hovertemplate=f"{_short(x)} %{{x:.4~g}}: %{{y:.3~g}}<extra>{name}</extra>"), row=place[0], col=place[1])


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


def _add_level(figure: go.Figure, y: float, text: str, place: tuple[int, int], *, left: bool = False,
               log: bool = False) -> None:
    """A dotted horizontal line with its meaning above one of its ends."""
    figure.add_hline(y=y, line=DOTTED, row=place[0], col=place[1])
    axis = _axis(figure, *place)
    figure.add_annotation(
        xref=f"{axis.replace('y', 'x')} domain", x=0.01 if left else 0.99, xanchor="left" if left else "right",
        yref=axis, y=np.log10(y) if log else y, yanchor="bottom", text=text, showarrow=False)


def _set_view(figure: go.Figure, values: pd.Series | np.ndarray, view: View, row: int, column: int | None = 1) -> None:
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


def _add_pins(figure: go.Figure, rows: pd.DataFrame | None, view: View, color: str | None = None) -> None:
    """Vertical lines in all panels at the rows of a pinned step: one where all share the place, else one per model."""
    if rows is None:
        return
    places = rows.drop_duplicates(view.x).dropna(subset=[view.x])
    for row in places.to_dict("records"):
        own = color or (theme.INK if len(places) == 1 else theme.style(row["model"]).color)
        figure.add_vline(x=row[view.x], line={"color": own, "dash": "dot", "width": 1.2}, row="all", col="all")


def _finish(figure: go.Figure, view: View, *, rows: int, height: int, top: int = 80) -> go.Figure:
    """Common layout; the x title stands under the lowest row only, and the legend above the panels' own titles."""
    _add_pins(figure, view.pinned, view)
    # Automatic margins would draw every axis a second time, which a reader feels at each switch.
    figure.update_xaxes(**({"type": "log", "tickformat": ".4~g"} if view.log_x else
                           {"type": "linear", "rangemode": "tozero"}), matches="x", automargin=False)
    figure.update_xaxes(title=X_TITLES[view.x], row=rows)
    figure.update_yaxes(automargin=False)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(template=theme.TEMPLATE, height=height, margin=MARGIN | {"t": top if rows > 1 else 50},
                                legend={"y": 1.08 if rows > 1 else 1.02})
