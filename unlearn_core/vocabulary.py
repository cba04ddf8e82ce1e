"""The words used everywhere: splits, tasks, models, loss terms and metrics, each spelled once."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

SPLITS = ("forget", "retain", "holdout")
TASKS = ("Task1", "Task2", "Task3")
TASK_LABELS = {"Task1": "stories", "Task2": "people with PII", "Task3": "biographies"}
SC, QA = "sc", "qa"  # item kinds: sentence completion (regurgitation) and question (knowledge)
OFFICIAL = {SC: "rouge_l", QA: "exact_match"}  # where the rows of answers hold what an item of the kind scored
DOCUMENT = "document"  # kind of a text that is a whole document

METHOD_TERMS = ("npo", "gdr", "klr")  # of the paper's loss
LOSS_TERMS = (*METHOD_TERMS, "ga", "simnpo", "uniform", "refusal", "positive")
LOSS_NAMES = {"npo": "NPO", "gdr": "GDR", "klr": "KLR", "ga": "GA", "simnpo": "SimNPO", "uniform": "uniform target",
              "refusal": "refusals", "positive": "positive targets"}
LOSS_LABELS = {
    "npo": "NPO on forget",
    "gdr": "GDR: cross-entropy on retain",
    "klr": "KLR: KL to the reference on retain",
    "ga": "GA: minus the cross-entropy on forget",
    "simnpo": "SimNPO on forget",
    "uniform": "KL to the uniform distribution on forget",
    "refusal": "Cross-entropy on refusals",
    "positive": "Cross-entropy on positive targets",
}

# Run order. `base` has memorised forget and retain; `untrained` is the model before that, `retrained` the one that
# learned the same without forget, and `tested` somebody's unlearned model that was brought for evaluation.
MODELS = ("untrained", "retrained", "base", "model_1", "model_2", "merged", "tested")
MODEL_LABELS = {
    "untrained": "Untrained (never saw the data)",
    "base": "Base (has memorised)",
    "model_1": "Model 1 (meant to over-forget)",
    "model_2": "Model 2 (meant to under-forget)",
    "merged": "Merged",
    "retrained": "Retrained without forget",
    "tested": "Tested (brought from elsewhere)",
}
UNLEARNED = ("model_1", "model_2")
CONTROLS = ("retrained", "untrained")  # models that never saw forget, the better one first
SHIPPED = ("tested", "merged")  # models that would be handed out: what a verdict is about


def is_retrained(name: str) -> bool:
    """Whether a model is a retrained one: "retrained", or of further seeds "retrained-2", "retrained-3" ..."""
    return re.fullmatch(r"retrained(-\d+)?", name) is not None


def shipped(models: Container[str]) -> str | None:
    """Which of these models would be handed out."""
    return next((name for name in SHIPPED if name in models), None)


def control(models: Container[str]) -> str | None:
    """Which of these models is the best one that never saw forget."""
    return next((name for name in CONTROLS if name in models), None)


def never_saw(models: Iterable[str]) -> list[str]:
    """The models of these that never saw forget: the retrained ones in the order of their seeds, else the untrained."""
    names = list(models)
    seeds = sorted(filter(is_retrained, names), key=lambda name: int(name.rpartition("-")[2]) if "-" in name else 1)
    return seeds or [name for name in names if name == "untrained"]


MERGE_LABELS = {
    "ties": "TIES",
    "linear": "Linear (task arithmetic)",
    "magnitude_prune": "Magnitude prune",
    "dare_linear": "DARE-Linear",
    "dare_ties": "DARE-TIES",
    "negmerge": "NegMerge",
    "cat": "Concatenated",
}
MERGE_METHODS, MERGE_LEVELS, MERGE_SCOPES = tuple(MERGE_LABELS), ("factors", "delta"), ("matrix", "global")
MERGE_ELECTIONS = ("before", "after")
MERGE_DIVISORS, MERGE_RESCALES = ("usual", "count", "weights", "none"), ("usual", "none", "density", "l1")

SPACES = ("A", "B", "dW")  # where entries of two adapters are compared: LoRA's factors, the weight change
TIES_STATES = {  # of an entry in a TIES merge of two, exhaustive
    "trimmed": "Both trimmed",
    "only_1": "Only Model 1 kept",
    "only_2": "Only Model 2 kept",
    "agree": "Both kept, same sign",
    "won_1": "Conflict, won by Model 1",
    "won_2": "Conflict, won by Model 2",
}

MMLU_GATE_SHARE = 0.75  # the organisers' utility gate: 0.371 is 0.75 of the 7B model's 0.495


@dataclass(frozen=True)
class Metric:
    """One number of `scores.json`. `ideal` is the value a perfect unlearning has (None: no fixed one);
    `higher_is_better` is None where the ideal lies inside the range."""

    key: str
    label: str
    ideal: float | None
    higher_is_better: bool | None
    help: str


def _sub_scores() -> list[Metric]:
    rows = []
    for split, ideal in (("forget", 0.0), ("retain", 1.0)):
        for number, task in enumerate(TASKS, start=1):
            for name, unit in (("regurgitation", "mean ROUGE-L recall of the continuations"),
                               ("knowledge", "share of questions answered exactly")):
                rows.append(Metric(
                    key=f"{split}_{name}_{number}",
                    label=f"{split.capitalize()} {name}, {TASK_LABELS[task]}",
                    ideal=ideal,
                    higher_is_better=split == "retain",
                    help=f"{unit} on the {split} split of {task}",
                ))
    return rows


def sub_score_key(split: str, kind: str, task: str) -> str:
    """Key of one of the twelve sub-scores, e.g. ("forget", "sc", "Task1") -> "forget_regurgitation_1"."""
    name = {SC: "regurgitation", QA: "knowledge"}[kind]
    return f"{split}_{name}_{TASKS.index(task) + 1}"


SUB_SCORES = tuple(_sub_scores())

HEADLINES = (
    Metric("aggregate", "Aggregate", 1.0, True, "mean of Task Aggregate, MIA score and MMLU accuracy"),
    Metric("task_aggregate", "Task Aggregate", 1.0, True,
           "harmonic mean of the twelve terms: 1 - score on forget, score on retain; 0 if any term is 0"),
    Metric("mia_score", "MIA score", 1.0, True, "1 - 2 |AUC - 0.5|; hides the direction, so read the AUC beside it"),
    Metric("mia_auc", "MIA AUC", 0.5, None,
           "P(loss of a member < loss of a non-member): 1 = still recognised (under-forgetting), "
           "0.5 = ideal, 0 = harder than unseen text (over-forgetting)"),
    Metric("mmlu", "MMLU", None, True, "accuracy over all general-knowledge questions; must stay near the base's"),
)

METRICS = {metric.key: metric for metric in HEADLINES + SUB_SCORES}
