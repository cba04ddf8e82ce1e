"""Looks at the test half of a run's documents, on which nothing is chosen: a table, and what it is worth in words."""

from __future__ import annotations

import math

import pandas as pd

from unlearn_core.store import Run
from unlearn_core.trials import halves

COLUMNS = ("number", "at", "what", "configurations", "task_aggregate", "task_aggregate_low", "task_aggregate_high",
           "p_zero", "mia_auc", "mia_auc_low", "mia_auc_high", "units", "members", "nonmembers")
HEADLINES = {"task_aggregate": "Task Aggregate", "mia_auc": "AUC"}
OPTIMISTIC = "Scores on the documents by which one chooses are optimistic: what is chosen here looks better than it is."


def readings(run: Run) -> pd.DataFrame:
    """One row per look, in order, columns `COLUMNS`: when (UTC) and what was read, how many configurations had been
    tried by then, both headlines with their 95 % intervals, how often the Task Aggregate is 0 when documents are drawn
    again, and on how many documents or persons (of the smallest sub-score), members and non-members it rests.

    What was not measured, or has no interval, is missing; a sweep over all documents has no single score.
    """
    rows = []
    for number, row in enumerate(run.readings(), start=1):
        ends = {f"{key}_{end}": value for key in HEADLINES for end, value in zip(
            ("low", "high"), row["intervals"].get(key, (None, None)), strict=True)}
        rows.append({"number": number, "at": row["at"], "what": row["what"], "configurations": row["configurations"],
                     "p_zero": row.get("p_zero"), **{key: row["scores"].get(key) for key in HEADLINES}, **ends,
                     **(row.get("n") or {})})
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({name: float for name in COLUMNS[4:]} | {"number": int, "configurations": int})


def describe(run: Run) -> list[str]:
    """Sentences on how often the test half was read, what the last reading says, and what it cannot say."""
    frame = readings(run)
    if frame.empty:
        return [f"The test half has not been read. {halves.tried(run)} configurations were scored for choosing.",
                *_seen(run)]
    first, last = frame.iloc[0], frame.iloc[-1]
    times = "once" if len(frame) == 1 else f"{len(frame)} times"
    alone = "that reading was" if len(frame) == 1 else "the first reading alone was"
    if "all documents" in first["what"]:
        alone = "already the first look was for choosing, so no reading is"
    told = [f"The test half was read {times}; {alone} of documents that no choice had seen."]
    if not all(math.isnan(last[key]) for key in HEADLINES):
        told.append(f"The last reading, {last['what']}, after {last['configurations']} configurations tried: "
                    f"{_with_interval(last, 'task_aggregate')}, {_with_interval(last, 'mia_auc')}"
                    f"{_rests_on(last)}.")
    return told + _seen(run)


def chosen_on(about: dict) -> str:
    """What to know of a choice by rows of `Run.merges` or `Run.trajectory`: on which half it was made."""
    if about.get("half", halves.ALL) == halves.DEVELOPMENT:
        return f"Chosen on the development half. {OPTIMISTIC} The test half, on request, says its worth: read-test RUN."
    return f"Chosen on all documents, so no half is left that had no say in it. {OPTIMISTIC}"


def _seen(run: Run) -> list[str]:
    """What else has shown the test half: the run's own evaluation always, and what older versions scored."""
    told = ["The models of the run itself were scored on all documents when it ended. Whoever compares runs or recipes "
            "by those scores has chosen on the test half, too, which is not counted."]
    old = [what for what, found in (("merges", run.merges()), ("checkpoints", run.trajectory()))
           if found.get("rows") and "half" not in found]
    return told + ([f"{' and '.join(old).capitalize()} of this run were scored on all documents by an older version."]
                   if old else [])


def _with_interval(row: pd.Series, key: str) -> str:
    if math.isnan(row[key]):
        return f"{HEADLINES[key]} not measured"
    span = "" if math.isnan(row[f"{key}_low"]) else f" [{row[f'{key}_low']:.2f}, {row[f'{key}_high']:.2f}]"
    return f"{HEADLINES[key]} {row[key]:.2f}{span}"


def _rests_on(row: pd.Series) -> str:
    if math.isnan(row["units"]):
        return ""
    return (f" (smallest sub-score: {row['units']:.0f} documents or persons; {row['members']:.0f} members, "
            f"{row['nonmembers']:.0f} non-members)")
