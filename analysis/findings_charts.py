"""One chart for each step of a story: few marks and large type, which a projector shows. Torch-free."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from analysis import (
    attacks,
    attacks_figures,
    figures,
    findings_answers,
    frames,
    judging,
    memory,
    theme,
    weights,
    weights_figures,
)
from analysis.attacks import ATTACKS
from analysis.findings_parts import Facts
from analysis.gates import Verdict
from analysis.judged import FAILED, NOT_MEASURED, PASSED
from analysis.panels import Panels
from unlearn_core.errors import InputError
from unlearn_core.vocabulary import UNLEARNED

TEXT = 17  # pixels of all type in a chart
MARKS = 1.35  # times as large as elsewhere
AUC = {"mia_auc": "auc", "mia_auc_low": "low", "mia_auc_high": "high"}
STATES = {FAILED: ("#CC6677", "x"), NOT_MEASURED: (theme.INK, "circle-open"), PASSED: (theme.INK, "circle")}
GATES_HEIGHT, ROW_HEIGHT = 90, 34  # pixels


@dataclass(frozen=True)
class Chart:
    """A figure, the table behind it, what it shows in words, and what to know of it."""

    figure: go.Figure
    table: pd.DataFrame
    alt: str
    caption: str


def chart(facts: Facts, key: str) -> Chart | None:
    """The chart of a finding; None where what it would show was not measured."""
    found = CHARTS[key](facts)
    return None if found is None else Chart(large(found.figure), found.table, found.alt,
                                            f"{found.caption} Seed {facts.run.recipe().seed}.")


def large(figure: go.Figure) -> go.Figure:
    """A copy with type and marks to be read from afar."""
    shown, font = go.Figure(figure), {"size": TEXT}
    shown.update_layout(font=font, legend_font=font, hoverlabel_font=font)
    shown.update_annotations(font=font)
    for update in (shown.update_xaxes, shown.update_yaxes):
        update(title_font=font, tickfont=font, automargin=True)
    if shown.layout.coloraxis.colorscale is not None:
        shown.update_coloraxes(colorbar={"tickfont": font, "title": {"font": font}})
    for trace in shown.data:
        if trace.type == "scatter" and isinstance(trace.marker.size, int | float):
            trace.update(cliponaxis=False, marker_size=MARKS * trace.marker.size)
    return shown


# ---- what the models score -------------------------------------------------------------------------------------

def _twelve(facts: Facts, models: Iterable[str | None], look: str) -> Chart | None:
    """All sub-scores of some models."""
    table = frames.sub_scores(facts.run)
    table = table[table["model"].isin(list(models)) & table["value"].notna()]
    if table.empty:
        return None
    figure = figures.sub_scores(table)
    figure.for_each_annotation(lambda title: title.update(text=title.text.partition(",")[0]))  # too long in large type
    return Chart(figure, table, f"Twelve sub-scores of {_names(table)}, forget left, retain right",
                 f"{look} Regurgitation: mean ROUGE-L recall of continuations; knowledge: share of questions answered "
                 "exactly. Bars: 95 % intervals.")


def _knew(facts: Facts) -> Chart | None:
    return _twelve(facts, ("base", facts.control), "Left, what is to be forgotten; right, what must stay.")


def _given(facts: Facts) -> Chart | None:
    return _twelve(facts, ("base", facts.control, facts.model), "Left, the model should be where one is that never saw "
                   "it; right, where the base is.")


def _aucs(facts: Facts, models: Iterable[str | None]) -> Chart | None:
    """The official attack on some models."""
    scores = frames.score_table(facts.run)
    table = scores[scores["model"].isin(list(models)) & scores["mia_auc"].notna()]
    if table.empty:
        return None
    return Chart(attacks_figures.dial(table.rename(columns=AUC)), table,
                 f"AUC of the official attack on {_names(table)}",
                 f"Does an attack on the losses tell forget from unseen documents? {frames.attack_size(table)}; "
                 "bars: 95 % intervals.")


def _over(facts: Facts) -> Chart | None:
    return _aucs(facts, (facts.control, "base", "model_1")) if "model_1" in facts.scores else None


def _under(facts: Facts) -> Chart | None:
    return _aucs(facts, (facts.control, "base", *UNLEARNED)) if "model_2" in facts.scores else None


def _merge(facts: Facts) -> Chart | None:
    """Task Aggregate against AUC of the merge and its parents."""
    scores = frames.score_table(facts.run)
    table = scores[scores["model"].isin(["merged", *UNLEARNED])].dropna(subset=["task_aggregate", "mia_auc"])
    if not (table["model"] == "merged").any():
        return None
    return Chart(figures.tradeoff(table), table, "Task Aggregate against the attack's AUC of the merge and its parents",
                 f"Best is the right end of the dotted line. {frames.attack_size(table)}; bars: 95 % intervals.")


def _names(table: pd.DataFrame) -> str:
    return ", ".join(map(theme.short_label, table["model"].unique()))


# ---- weights, attacks, gates -----------------------------------------------------------------------------------

def _weights(facts: Facts) -> Chart | None:
    """The size of each matrix's change in both models."""
    try:
        found = weights.read(facts.run)
    except InputError:
        return None
    if found is None or weights.stale(facts.run, found.about):
        return None
    table = weights.where(found)
    table = table[table["model"].isin(UNLEARNED)]
    if table.empty:
        return None
    measure = weights.measure(table)
    what, share = weights.MEASURES[measure], ", as a share of its own size" if measure == "relative" else ""
    return Chart(weights_figures.where_map(table), table,
                 f"{what} of every matrix by layer and type, a panel for each model",
                 f"{what}: the size of the change of a matrix{share}.")


def _missed(facts: Facts) -> Chart | None:
    """What inner layers still know, where they do and no attack tells more than the official one; else the attacks."""
    if facts.model is None:
        return None
    inside = findings_answers.depth(facts).words and not findings_answers.other_attacks(facts).words
    return _layers(facts) if inside else _attacks(facts)


def _layers(facts: Facts) -> Chart:
    models = [model for model in (facts.control, "base", facts.model) if model]
    table = memory.depth(facts.run, models)
    return Chart(attacks_figures.depth_lines(table), table,
                 f"Mean log-probability of the answers after each layer, of {_names(table)}",
                 "Logit lens: how likely the answers are if each layer were the last. High in the middle, on forget "
                 "alone: what the last layers hide is still inside. Bars: 95 % intervals over documents.")


def _attacks(facts: Facts) -> Chart | None:
    """Every attack on whole documents of the model that would be handed out."""
    table = findings_answers.whole_documents(attacks.table(facts.texts, facts.model))
    if table.empty:
        return None
    rows = table.assign(model=table["attack"].map(ATTACKS))  # a row for each attack, as elsewhere for each model
    return Chart(attacks_figures.dial(rows), table, f"AUC of five attacks on {theme.short_label(facts.model)}",
                 f"{theme.short_label(facts.model)}, whole documents: {table['members'].max():.0f} of forget, "
                 f"{table['nonmembers'].max():.0f} unseen. Loss is the official attack; bars: 95 % intervals, each of "
                 "one attack alone.")


def gates(verdict: Verdict) -> go.Figure:
    """A row per gate of a verdict, its mark in the column of its state."""
    panels, order = Panels(), list(STATES)
    for state, (color, symbol) in STATES.items():
        rows = [place for place, one in enumerate(verdict.gates) if one.state == state]
        panels.add({"type": "scatter", "mode": "markers", "x": [order.index(state)] * len(rows), "y": rows,
                    "marker": {"color": color, "symbol": symbol, "size": 13, "line": {"width": 2, "color": color}},
                    "hovertext": [html.escape(verdict.gates[row].reason) for row in rows], "hoverinfo": "text"})
    names = [one.gate.label + ("" if one.gate.vetoes else " (informs)") for one in verdict.gates]
    panels.x(range=[-0.5, len(order) - 0.5], tickvals=list(range(len(order))), side="top", showgrid=False,
             ticktext=[judging.STATES[state] for state in order])
    panels.y(range=[len(names) - 0.5, -0.5], tickvals=list(range(len(names))), ticktext=names)
    return panels.figure(GATES_HEIGHT + ROW_HEIGHT * len(names), margin={"t": 50, "b": 10})


def _verdict(facts: Facts) -> Chart | None:
    if facts.verdict.model is None:
        return None
    return Chart(gates(facts.verdict), judging.table(facts.verdict),
                 "Each gate of the verdict: failed, not measured or passed",
                 "Any gate that fails, or was not measured, keeps the verdict from being good; depth only informs.")


CHARTS: dict[str, Callable[[Facts], Chart | None]] = {
    "knew": _knew, "over": _over, "under": _under, "merge": _merge, "weights": _weights, "forgotten": _given,
    "missed": _missed, "verdict": _verdict}
