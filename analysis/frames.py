"""From a run folder to tidy tables; every table names its columns, and what was not measured is missing, never 0."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis import theme, verdicts
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import HEADLINES, LOSS_TERMS, SUB_SCORES, TASK_LABELS, TASKS, UNLEARNED

MAX_POINTS = 2000  # per drawn line

X_COLUMNS = ("step", "epoch", "tokens", "seconds")
BASE_COLUMNS = (*X_COLUMNS, "loss", "lr", "grad_norm", "tokens_per_second", "memory_mb")
STEP_COLUMNS = (
    *X_COLUMNS, *LOSS_TERMS, *(f"{term}_weighted" for term in LOSS_TERMS), "loss", "npo_brake",
    "forget_nll", "forget_nll_reference", "retain_nll", "retain_nll_reference",
    "lr", "grad_norm", "tokens_per_second", "memory_mb",
)
RUN_COLUMNS = ("id", "title", "state", "created", "seed", "recipe", "aggregate", "task_aggregate", "mia_auc",
               "elapsed_s", "problem")
SCORE_COLUMNS = ("model", "label", "aggregate", "task_aggregate", "mia_score", "mia_auc", "mia_auc_low",
                 "mia_auc_high", "members", "nonmembers", "verdict", "mmlu", "mmlu_questions", "mmlu_gate")
SUB_SCORE_COLUMNS = ("model", "metric", "label", "split", "kind", "task", "value", "low", "high", "ideal")


# ---- all runs --------------------------------------------------------------------------------------------------

def run_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run, in the given order, columns `RUN_COLUMNS`.

    The three scores are the merged model's. `elapsed_s` is the time from creation to the last status, pauses
    included. `problem` holds the message where the run's files cannot be read, else "".
    """
    frame = pd.DataFrame([_run_row(run) for run in runs], columns=list(RUN_COLUMNS))
    frame["created"] = pd.to_datetime(frame["created"], utc=True, format="ISO8601")
    numbers = ["aggregate", "task_aggregate", "mia_auc", "elapsed_s"]
    return frame.astype(dict.fromkeys(numbers, float))


def _run_row(run: Run) -> dict:
    recipe = run.recipe()
    row = {"id": run.id, "created": run.info()["created"], "seed": recipe.seed, "recipe": recipe.name, "title": "",
           "problem": ""}
    try:
        status = run.status()
        merged = run.scores().get("merged", {})
        row |= {"title": run.meta().get("title") or "", "state": status["state"],
                "elapsed_s": _seconds_between(row["created"], status.get("updated")),
                **{key: merged.get(key) for key in ("aggregate", "task_aggregate", "mia_auc")}}
    except InputError as error:
        row |= {"state": "damaged", "problem": str(error)}
    return row


def _seconds_between(start: str, end: str | None) -> float | None:
    return None if end is None else (pd.Timestamp(end) - pd.Timestamp(start)).total_seconds()


# ---- scores of one run -----------------------------------------------------------------------------------------

def score_table(run: Run) -> pd.DataFrame:
    """One row per scored model, in the vocabulary's order, columns `SCORE_COLUMNS`.

    `members` and `nonmembers` count the documents of the attack, `mmlu_questions` the questions asked. `verdict`
    and `mmlu_gate` are the words of `verdicts`.
    """
    scores, intervals = run.scores(), run.intervals()
    base_mmlu = scores.get("base", {}).get("mmlu")
    rows = []
    for model in _scored(run, scores):
        found = scores[model]
        low, high = intervals.get(model, {}).get("mia_auc", (None, None))
        member = [document["member"] for document in run.documents(model)]
        rows.append({
            "model": model, "label": theme.short_label(model),
            **{metric.key: found.get(metric.key) for metric in HEADLINES},
            "mia_auc_low": low, "mia_auc_high": high,
            "members": sum(member) if member else None, "nonmembers": len(member) - sum(member) if member else None,
            "verdict": verdicts.forgetting(found.get("mia_auc"), low, high),
            "mmlu_questions": len(run.mmlu(model)) or None,
            "mmlu_gate": (verdicts.REFERENCE if model in ("untrained", "base")
                          else verdicts.mmlu_gate(found.get("mmlu"), base_mmlu)),
        })
    frame = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    counts = dict.fromkeys(("members", "nonmembers", "mmlu_questions"), "Int64")
    numbers = dict.fromkeys([m.key for m in HEADLINES] + ["mia_auc_low", "mia_auc_high"], float)
    return frame.astype(counts | numbers)


def attack_size(scores: pd.DataFrame) -> str:
    """How many documents the attack compared, in words, from `score_table`."""
    counted = scores.dropna(subset=["members", "nonmembers"])
    if counted.empty:
        return "number of documents not recorded"
    sizes = counted[["members", "nonmembers"]].drop_duplicates().itertuples(index=False)
    return " or ".join(f"{row.members} members and {row.nonmembers} non-members" for row in sizes)


def quiz_size(scores: pd.DataFrame) -> str:
    """How many MMLU questions were asked, and chance, in words, from `score_table`."""
    counted = scores["mmlu_questions"].dropna().unique()
    return f"{' or '.join(map(str, sorted(counted)))} questions, chance 0.25" if len(counted) else "not measured"


def sub_scores(run: Run) -> pd.DataFrame:
    """Twelve rows per scored model, columns `SUB_SCORE_COLUMNS`; `kind` is regurgitation or knowledge.

    `value` is missing where the sub-score was not measured; `low` and `high` where it has no interval.
    """
    scores, intervals = run.scores(), run.intervals()
    rows = []
    for model in _scored(run, scores):
        for metric in SUB_SCORES:
            split, kind, number = metric.key.split("_")
            low, high = intervals.get(model, {}).get(metric.key, (None, None))
            rows.append({"model": model, "metric": metric.key, "label": metric.label, "split": split, "kind": kind,
                         "task": TASKS[int(number) - 1], "value": scores[model].get(metric.key),
                         "low": low, "high": high, "ideal": metric.ideal})
    frame = pd.DataFrame(rows, columns=list(SUB_SCORE_COLUMNS))
    return frame.astype(dict.fromkeys(("value", "low", "high", "ideal"), float))


def _scored(run: Run, scores: dict) -> list[str]:
    order = run.models()
    return sorted(scores, key=lambda model: order.index(model) if model in order else len(order))


def sub_score_name(task: str, kind: str) -> str:
    """Label of a row of the dot plot, e.g. ("Task2", "knowledge") -> "People with PII, knowledge"."""
    return f"{TASK_LABELS[task][0].upper()}{TASK_LABELS[task][1:]}, {kind}"


# ---- training of one run ---------------------------------------------------------------------------------------

def base_steps(run: Run) -> pd.DataFrame:
    """One row per optimizer step of the base's own training, columns `BASE_COLUMNS`; no rows if it was loaded."""
    return _numbers(run.steps("base"), BASE_COLUMNS)


def steps(run: Run) -> pd.DataFrame:
    """One row per optimizer step of model_1 and model_2, columns `model` and `STEP_COLUMNS`.

    Losses are means over the step's micro-batches; NLLs are nats per answer token; `tokens` counts the real tokens
    seen so far, `seconds` runs from the start of that model's training.
    """
    parts = [_numbers(run.steps(model), STEP_COLUMNS).assign(model=model) for model in UNLEARNED]
    return pd.concat(parts, ignore_index=True)[["model", *STEP_COLUMNS]]


def _numbers(rows: list[dict], columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).astype(float)


def loss_components(steps: pd.DataFrame, weighted: bool) -> pd.DataFrame:
    """`steps` in long form: model, the x columns, `component` (npo, gdr, klr, loss) and `value`.

    `weighted` multiplies the terms by their coefficients; `loss`, the total, is the weighted sum in either case.
    """
    source = {term: f"{term}_weighted" if weighted else term for term in LOSS_TERMS} | {"loss": "loss"}
    keys = steps[["model", *X_COLUMNS]]
    return pd.concat([keys.assign(component=name, value=steps[column]) for name, column in source.items()],
                     ignore_index=True)


def thin(frame: pd.DataFrame, value: str, limit: int = MAX_POINTS) -> pd.DataFrame:
    """At most `limit` rows that keep the first, the last and the extremes of column `value`, in their order.

    Rows are cut into equal stretches and each gives its lowest and its highest; rows without a value are dropped.
    """
    frame = frame[frame[value].notna()].reset_index(drop=True)
    if len(frame) <= limit:
        return frame
    stretches = np.arange(len(frame)) * (limit // 2 - 1) // len(frame)
    groups = frame[value].groupby(stretches)
    keep = {0, len(frame) - 1, *groups.idxmin(), *groups.idxmax()}
    return frame.iloc[sorted(keep)].reset_index(drop=True)
