"""General knowledge before and after: multiple choice (MMLU) and open questions, by subject, with exact intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis import intervals, theme
from unlearn_core.evaluation import score
from unlearn_core.files import damaged
from unlearn_core.store import Run
from unlearn_core.vocabulary import MMLU_GATE_SHARE

CHOICE, EXACT, CONTAINED = "choice", "exact", "contained"
MEASURES = {CHOICE: "Multiple choice", CONTAINED: "Open: contains the answer", EXACT: "Open: exactly the answer"}
# A guess: one option of four, as all of MMLU's questions have; what could be answered openly cannot be counted.
CHANCE = {CHOICE: 0.25, CONTAINED: 0.0, EXACT: 0.0}
ALL = "All subjects"
COLUMNS = ("model", "measure", "subject", "n", "right", "share", "low", "high", "chance", "gate")


def table(run: Run) -> pd.DataFrame:
    """One row per model, measure (`MEASURES`) and subject, and one for all subjects (`ALL`), columns `COLUMNS`.

    `low`, `high`: Clopper-Pearson, 95 %, questions being independent. `gate`: the least that the organisers let pass,
    0.75 of the base's accuracy, on the row of multiple choice over all subjects; else missing.
    """
    rows = []
    for model in run.models():
        for measure, found in _hits(run, model).items():
            subjects: dict[str, list[int]] = {ALL: [hit for _, hit in found]}
            for subject, hit in found:
                subjects.setdefault(subject, []).append(hit)
            rows += [(model, measure, subject, len(hits), sum(hits), sum(hits) / len(hits),
                      *intervals.share(sum(hits), len(hits)), CHANCE[measure]) for subject, hits in subjects.items()]
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    whole = frame[(frame["measure"] == CHOICE) & (frame["subject"] == ALL)].set_index("model")["share"]
    gate = MMLU_GATE_SHARE * whole.get("base", math.nan)
    gated = (frame["measure"] == CHOICE) & (frame["subject"] == ALL)
    return frame.assign(gate=pd.Series(gate, frame.index, float).where(gated))


def _hits(run: Run, model: str) -> dict[str, list[tuple[str, int]]]:
    """{measure: (subject, 1 for a right answer) of each question}, of the measures that were taken."""
    try:
        choice = [(str(row["subject"]), int(row["correct"] == row["predicted"])) for row in run.mmlu(model)]
        opened = run.knowledge(model)
        found = {CHOICE: choice, **{measure: [(str(row["subject"]), int(bool(row[measure]))) for row in opened]
                                    for measure in (CONTAINED, EXACT)}}
    except (KeyError, TypeError) as error:
        raise damaged(f"general knowledge of {model} in run {run.id}", f"a row without {error}") from None
    return {measure: hits for measure, hits in found.items() if hits}


def lacking(found: pd.DataFrame, run: Run) -> list[str]:
    """Sentences on what was not measured."""
    if run.lacks_texts():
        return ["The questions and their answers are not part of the recording."]
    said = []
    if not (found["measure"] == CHOICE).any():
        said.append("Multiple choice: not measured, no questions were asked.")
    if not found["measure"].isin((CONTAINED, EXACT)).any():
        how = ("It takes MMLU's questions: evaluate --model ... --mmlu DIR" if run.brought() else
               f"They are asked by an evaluation: python -m unlearn_core evaluate {run.id}")
        said.append(f"Open questions: not measured. {how}")
    return said


def subjects(found: pd.DataFrame, measure: str, models: Sequence[str]) -> pd.DataFrame:
    """Rows of `table` of one measure and these models; after `ALL` come the subjects by their loss from the base (else
    the first of the models) to the last of the models, the largest first."""
    own = found[(found["measure"] == measure) & found["model"].isin(models)]
    shares = own.pivot_table(index="subject", columns="model", values="share", sort=False).reindex(columns=models)
    lost = (shares[before(models)] - shares[models[-1]]).fillna(0)
    order = [ALL, *(name for name in lost.sort_values(ascending=False, kind="stable").index if name != ALL)]
    return own.sort_values(["subject", "model"], kind="stable", key=lambda column: column.map(
        {name: place for place, name in enumerate([*order, *models])})).reset_index(drop=True)


def before(models: Sequence[str]) -> str:
    """The model with which others are compared: the base, else the first."""
    return "base" if "base" in models else models[0]


def describe(found: pd.DataFrame, model: str) -> list[str]:
    """Sentences on a model beside the base: the gate, and multiple choice beside open answers."""
    whole = found[found["subject"] == ALL].set_index(["model", "measure"])
    said, name = [], theme.short_label(model)
    if (model, CHOICE) in whole.index:
        own = whole.loc[(model, CHOICE)]
        if not math.isnan(own["gate"]):
            passed = score.passes_gate(own["share"], own["gate"] / MMLU_GATE_SHARE)
            certain = own["low"] >= own["gate"] or own["high"] < own["gate"]
            said.append(f"{name} {'passes' if passed else 'fails'} the gate: {_number(own)}, at least "
                        f"{own['gate']:.3f} is asked, chance {own['chance']:g}"
                        + ("." if certain else "; the interval holds the gate, so this could be luck."))
        if own["low"] <= own["chance"]:
            said.append(f"Its multiple-choice score cannot be told from guessing ({own['chance']:g}).")
    pairs = [(measure, whole.loc[("base", measure)], whole.loc[(model, measure)]) for measure in (CHOICE, CONTAINED)
             if ("base", measure) in whole.index and (model, measure) in whole.index]
    if len(pairs) == 2 and model != "base":
        said += [f"{MEASURES[measure]}: base {_number(base)}, {name} {_number(own)}, a loss of "
                 f"**{base['share'] - own['share']:.3f}**." for measure, base, own in pairs]
        said.append(_contrast(*pairs))
    return said


def _contrast(choice: tuple, opened: tuple) -> str:
    """What open answers say beside multiple choice, by whether the intervals of base and model are apart."""
    lost, more = ([own["high"] < base["low"] for _, base, own in (choice, opened)],
                  opened[1]["low"] - opened[2]["high"] > choice[1]["share"] - choice[2]["share"])
    if lost[1] and (more or not lost[0]):
        return "What can still be pointed at can no longer be said: open answers lose more than multiple choice shows."
    return {(True, True): "Both show a loss.", (True, False): "Multiple choice shows a loss, open answers do not.",
            (False, False): "Neither shows a clear loss."}[bool(lost[0]), bool(lost[1])]


def _number(row: pd.Series) -> str:
    return f"{row['share']:.3f} [{row['low']:.3f}, {row['high']:.3f}] of {row['n']}"
