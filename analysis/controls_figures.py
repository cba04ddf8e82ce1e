"""From the tables of `controls` and `attack_controls` to Plotly figures; each checks its columns."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis import attack_controls, controls, theme
from analysis.attack_controls import FAILS
from analysis.attacks import ATTACKS, KINDS
from analysis.attacks_figures import CHANCE
from analysis.panels import Panels, require
from analysis.weights import MEASURES

DROPS = {"d1": "d1_retain", "d2": "d2_retain"}  # of forget, and the same on retain
FADED = 0.35
MOST_TICKS = 16


def depth_and_change(layers: pd.DataFrame, change: pd.DataFrame | None = None, measured: str = "relative") -> go.Figure:
    """What it costs the base when a layer's states are those of another model, on forget and, as a control, on retain,
    beside how much that layer's weights were changed; one line per model, with 95 % intervals.

    `layers` is `controls.depth`, `change` is `weights.profile` by group (None: without its panel) and `measured` what
    that is of, as `weights.measure` says.
    """
    require(layers, controls.DEPTH_COLUMNS)
    titles = ["Forget", "Retain: the control", *([] if change is None else [f"Mean {MEASURES[measured]}"])]
    panels = Panels(titles, across=0.05 if change is None else 0.075)
    for forget, retain in DROPS.items():
        for column, measure in enumerate((forget, retain), start=1):
            for model, own in layers[layers["measure"] == measure].groupby("model", sort=False):
                _add_drops(panels, model, own, "D1" if forget == "d1" else "D2", column)
    last = layers["layer"].max() if len(layers) else 0
    if change is not None:
        last = max(last, _add_change(panels, change))
        panels.y(column=3, rangemode="tozero")
    panels.x(title={"text": "Layer"}, range=[-0.35, last + 0.35], dtick=1 if last < MOST_TICKS else None)
    panels.y(column=1, title={"text": "Drop of log p (nats per token)"})
    panels.y(column=2, matches="y", showticklabels=False)
    return panels.figure(440, margin={"t": 84}, legend=1.1)


def _add_drops(panels: Panels, model: str, own: pd.DataFrame, name: str, column: int) -> None:
    look, value, label = theme.style(model), own["value"].to_numpy(), f"{theme.short_label(model)} ({name})"
    panels.add({
        **_line(label, model, look), "x": own["layer"].to_numpy(), "y": value,
        "error_y": {"type": "data", "symmetric": False, "array": own["high"].to_numpy() - value,
                    "arrayminus": value - own["low"].to_numpy(), "color": look.color, "thickness": 1.2},
        "customdata": own[["low", "high", "n"]].to_numpy(),
        "hovertemplate": "layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], %{customdata[2]} documents"
                         f"<extra>{label}</extra>"}, column=column)


def _add_change(panels: Panels, change: pd.DataFrame) -> int:
    """The third panel; the last layer in it. What is outside of all layers has no place on their axis."""
    require(change, ("model", "group", "mean"))
    inside = change[change["group"].str.isdigit()]
    for model, own in inside.groupby("model", sort=False):
        label = theme.short_label(model)
        panels.add({**_line(f"{label} (D2)", model, theme.style(model)), "x": own["group"].astype(int).to_numpy(),
                    "y": own["mean"].to_numpy(), "hovertemplate": f"layer %{{x}}: %{{y:.3~g}}<extra>{label}</extra>"},
                   column=3)
    return inside["group"].astype(int).max() if len(inside) else 0


def _line(label: str, model: str, look: theme.Style) -> dict:
    edge = {"width": 2, "color": look.color}
    return {"type": "scatter", "mode": "lines+markers", "name": label, "legendgroup": model,
            "line": {"dash": look.dash, **edge}, "marker": {"color": look.color, "symbol": look.symbol, "size": 9,
                                                            "line": edge}}


def attack_dots(table: pd.DataFrame) -> go.Figure:
    """AUC of each attack, one panel per kind of text, with 95 % intervals: on the base (does it find the data?), on the
    model that would be handed out, and on models that never saw the data; thin marks: the ends over several of these.
    Faded: the attack does not work here. `table` is `attack_controls.attack_controls`."""
    require(table, attack_controls.COLUMNS)
    panels = Panels(tuple(KINDS.values()), across=0.04)
    for column, kind in enumerate(KINDS, start=1):
        own = table[table["kind"] == kind]
        control = next(filter(None, own["reference"]), "untrained")
        shipped = own["model"].iloc[0] if len(own) else "merged"
        _add_dots(panels, own, ("positive", "positive_low", "positive_high"), "base", "positive control", -0.24, column)
        _add_dots(panels, own, ("auc", "low", "high"), shipped, "handed out", 0.0, column)
        _add_dots(panels, own, ("negative", "negative_low", "negative_high"), control, "negative control", 0.24, column)
        for end in ("least", "most"):
            _add_ends(panels, own[own["seeds"] > 1], end, control, column)
        panels.mark(0.5, CHANCE, column=column)
    panels.x(range=[-0.03, 1.03], title={"text": "AUC"}, tickvals=[0, 0.25, 0.5, 0.75, 1])
    panels.y(range=[len(ATTACKS) - 0.5, -0.5], tickvals=list(range(len(ATTACKS))), showticklabels=False)
    panels.y(column=1, ticktext=list(ATTACKS.values()), showticklabels=True)
    return panels.figure(150 + 60 * len(ATTACKS), margin={"l": 96, "t": 84}, legend=1.1)


def _places(own: pd.DataFrame, shift: float) -> list[float]:
    return [list(ATTACKS).index(attack) + shift for attack in own["attack"]]


def _add_dots(panels: Panels, own: pd.DataFrame, names: tuple[str, str, str], model: str, role: str, shift: float,
              column: int) -> None:
    look, label = theme.style(model), f"{theme.short_label(model)} ({role})"
    value, low, high = (own[name].to_numpy() for name in names)
    panels.add({
        "type": "scatter", "mode": "markers", "name": label, "legendgroup": role, "x": value, "y": _places(own, shift),
        "marker": {"color": look.color, "symbol": look.symbol, "size": 10, "line": {"width": 2, "color": look.color},
                   "opacity": own["state"].eq(FAILS).map({True: FADED, False: 1.0}).to_numpy()},
        "error_x": {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low,
                    "color": look.color, "thickness": 1.2, "width": 0},
        "cliponaxis": False, "customdata": own.assign(low=low, high=high)[["low", "high", "state"]].to_numpy(),
        "hovertemplate": "AUC %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]; the attack %{customdata[2]}"
                         f"<extra>{label}</extra>"}, column=column)


def _add_ends(panels: Panels, own: pd.DataFrame, end: str, model: str, column: int) -> None:
    panels.add({"type": "scatter", "mode": "markers", "x": own[end].to_numpy(), "y": _places(own, 0.24),
                "name": "over the seeds", "legendgroup": "negative control", "showlegend": False, "cliponaxis": False,
                "marker": {"symbol": "line-ns-open", "size": 12, "color": theme.style(model).color},
                "hovertemplate": f"{end} over the seeds %{{x:.3f}}<extra></extra>"}, column=column)
