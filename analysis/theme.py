"""How each model looks on every chart, and the template that all figures share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from unlearn_core.vocabulary import MODEL_LABELS, is_retrained

# A neutral that reads on white and on a dark page; in the dashboard the browser puts the page's own text colour.
INK = "#767676"
GRID = "rgba(128, 128, 128, 0.22)"
GHOST = "#8C8C8C"
FONT = "Source Sans, Source Sans Pro, Segoe UI, Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Style:
    """Identity of one model: never colour alone, always with a dash and a marker, and never reassigned."""

    color: str
    dash: str
    symbol: str


# Okabe-Ito's palette (its vermillion for orange: the lighter orange is too pale for lines on white).
STYLES = {
    "untrained": Style("#CC79A7", "dot", "circle-open"),
    "base": Style("#7F7F7F", "solid", "circle"),
    "model_1": Style("#0072B2", "solid", "square"),
    "model_2": Style("#D55E00", "dash", "triangle-up"),
    "merged": Style("#009E73", "solid", "diamond"),
    "retrained": Style("#7F7F7F", "dot", "star-open"),
    "tested": Style("#009E73", "dash", "diamond-tall"),
}
UNKNOWN = Style(INK, "dashdot", "hexagon-open")


def style(model: str) -> Style:
    """Identity of a model; one neutral style for a name that the vocabulary does not know."""
    return STYLES.get("retrained" if is_retrained(model) else model, UNKNOWN)


def short_label(model: str) -> str:
    """Label for a legend: the vocabulary's, without what it adds in brackets."""
    if model not in MODEL_LABELS and is_retrained(model):
        return f"Retrained, seed {model.rpartition('-')[2]}"
    return MODEL_LABELS.get(model, model).split(" (")[0]


def room(labels: Iterable[str], least: float = 64) -> float:
    """Pixels left of a chart for labels of its vertical axis, since automatic margins would draw every axis twice."""
    return max(least, 20 + 6.5 * max((len(line) for label in labels for line in label.split("<br>")), default=0))


def wrapped(label: str) -> str:
    """A long label of a model on two lines."""
    first, _, rest = label.partition(" ")
    return f"{first}<br>{rest}" if len(rest) > 9 else label


def _axis() -> dict:
    return {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True,
            "title": {"standoff": 8, "font": {"size": 13}}, "tickfont": {"size": 12}}


TEMPLATE = go.layout.Template(layout={
    "font": {"family": FONT, "size": 13, "color": INK},
    "paper_bgcolor": "rgba(0, 0, 0, 0)",
    "plot_bgcolor": "rgba(0, 0, 0, 0)",
    "colorway": [s.color for s in STYLES.values()],
    "xaxis": _axis(),
    "yaxis": _axis(),
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"size": 13}},
    "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
    "hoverlabel": {"namelength": -1},
})
