"""Scored checkpoints as `evaluate --checkpoints` writes them, with curves of a known shape; nothing is evaluated."""

from __future__ import annotations

import statistics

from unlearn_core.store import Run
from unlearn_core.vocabulary import SUB_SCORES

# model -> step -> (each forget score, each retain score, MIA AUC)
CURVES = {
    "model_1": {0: (1.0, 1.0, 1.0), 30: (0.5, 0.4, 0.9), 60: (0.2, 0.5, 0.6), 90: (0.1, 0.7, 0.3),
                120: (0.1, 0.6, 0.2)},
    "model_2": {0: (1.0, 1.0, 1.0), 20: (0.8, 0.9, 0.95), 40: (0.5, 0.95, 0.8), 60: (0.4, 0.8, 0.7)},
}


def scores(forget: float, retain: float, auc: float) -> dict[str, float]:
    """The twelve sub-scores, all equal within a split, and what follows from them."""
    subs = {metric.key: forget if metric.key.startswith("forget") else retain for metric in SUB_SCORES}
    terms = [1 - forget] * 6 + [retain] * 6
    return subs | {"task_aggregate": statistics.harmonic_mean(terms), "mia_auc": auc,
                   "mia_score": 1 - 2 * abs(auc - 0.5)}


def write(run: Run, documents: int = 8) -> None:
    """A trajectory of both models with `CURVES`; only the AUC has an interval."""
    rows = [{"model": model, "step": step, "epoch": step / 24, "scores": scores(*values),
             "intervals": {"mia_auc": [max(values[2] - 0.1, 0), min(values[2] + 0.1, 1)]}}
            for model, curve in CURVES.items() for step, values in curve.items()]
    run.write_trajectory({"documents_per_task": documents, "seed": 3, "mmlu_limit": -1, "max_new_tokens": 32,
                          "rows": rows})
