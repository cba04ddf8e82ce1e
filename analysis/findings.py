"""A run's findings: one short answer to each question, computed from its numbers, true in every case. Torch-free."""

from __future__ import annotations

from collections.abc import Callable

from analysis import findings_answers, findings_holds, findings_models, findings_weights
from analysis.findings_parts import Facts, Finding
from unlearn_core.store import Run

__all__ = ["FOUND", "Finding", "findings"]

FOUND: dict[str, Callable[[Facts], Finding]] = {
    "knew": findings_models.knew, "over": findings_models.over, "under": findings_models.under,
    "training": findings_models.trained, "merge": findings_models.merged, "weights": findings_weights.moved,
    "conflicts": findings_weights.conflicts, "forgotten": findings_answers.given, "missed": findings_answers.missed,
    "robust": findings_holds.robust, "verdict": findings_holds.verdict}


def findings(run: Run) -> dict[str, Finding]:
    """{key: finding} in the order of a story; where something was not measured, the finding says so and how to."""
    facts = Facts(run)
    return {key: find(facts) for key, find in FOUND.items()}
