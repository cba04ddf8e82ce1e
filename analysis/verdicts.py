"""What the scores say in words: over-, under- or balanced forgetting, the utility gate, and a summary of the merge."""

from __future__ import annotations

import pandas as pd

from analysis import theme
from unlearn_core.evaluation import score
from unlearn_core.vocabulary import MMLU_GATE_SHARE, UNLEARNED, shipped

OVER, UNDER, BALANCED = "▼ over-forgetting", "▲ under-forgetting", "● balanced"
UNDECIDED = "◌ undecided: interval too wide"
NO_INTERVAL = "◌ not judged: no interval"
SHOWN = {"over-forgetting": OVER, "under-forgetting": UNDER, "balanced": BALANCED, "undecided": UNDECIDED}

PASSED, FAILED = "✓ passed", "✗ failed"
REFERENCE = "reference"  # the gate is for what comes after the base


def _missing(*values: float | str | None) -> bool:
    return any(pd.isna(value) for value in values)


def forgetting(auc: float | None, low: float | None, high: float | None) -> str | None:
    """The engine's verdict on an attack's AUC, with a symbol; None where the AUC was not measured."""
    if _missing(auc):
        return None
    return NO_INTERVAL if _missing(low, high) else SHOWN[score.verdict((low, high))]


def mmlu_gate(mmlu: float | None, base: float | None) -> str | None:
    """Whether MMLU stays at or above 0.75 of the base's (the organisers' gate); None where either was not measured."""
    if _missing(mmlu, base):
        return None
    return PASSED if score.passes_gate(mmlu, base) else FAILED


def summary(scores: pd.DataFrame) -> list[str]:
    """Sentences that judge the model that would be handed out: forgetting, against its parents where it is a merge,
    gate. [] if it was not scored.

    `scores` is `frames.score_table`.
    """
    rows = {row["model"]: row for row in scores.to_dict("records")}
    own = rows.get(shipped(rows))
    if own is None:
        return []
    sentences = []
    if not _missing(own["mia_auc"]):
        low, high = own["mia_auc_low"], own["mia_auc_high"]
        interval = "" if _missing(low, high) else f" [{low:.2f}, {high:.2f}]"
        sentences.append(f"{own['verdict']}: MIA AUC {own['mia_auc']:.2f}{interval}, ideal 0.5")
    parents = [rows[name] for name in UNLEARNED if name in rows]
    for key, label in (("task_aggregate", "Task Aggregate"), ("aggregate", "Aggregate")):
        sentences += _against_parents(own, parents, key, label)
    if not _missing(own["mmlu_gate"]):
        symbol, word = own["mmlu_gate"].split()
        sign = "≥" if own["mmlu_gate"] == PASSED else "<"
        sentences.append(f"{symbol} MMLU gate {word}: {own['mmlu']:.3f} {sign} "
                         f"{MMLU_GATE_SHARE:g} × the base's {rows['base']['mmlu']:.3f}")
    return sentences


def _against_parents(own: dict, parents: list[dict], key: str, label: str) -> list[str]:
    if len(parents) < len(UNLEARNED) or _missing(own[key], *(parent[key] for parent in parents)):
        return []
    beaten = sum(own[key] > parent[key] for parent in parents)
    words = {2: "✓ above both parents", 1: "◐ between its parents", 0: "✗ above neither parent"}[beaten]
    values = ", ".join(f"{theme.short_label(parent['model'])} {parent[key]:.3f}" for parent in parents)
    return [f"{words}: {label} {own[key]:.3f} ({values})"]
