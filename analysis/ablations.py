"""From the scored interventions of a run to tables: what a part of the merge does, beside random parts of its size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.trajectory import means
from unlearn_core.store import Run
from unlearn_core.vocabulary import TIES_STATES

MEASURES = {"forget": "Mean forget score", "retain": "Mean retain score", "leak": "Share of people who leak",
            "mia_auc": "MIA AUC", "task_aggregate": "Task Aggregate"}
COLUMNS = ("kind", "part", "mode", "draw", "share", "norm_share", *MEASURES)
COMPARED = ("kind", "part", "mode", "label", "share", "norm_share", "draws",
            *(f"{measure}{what}" for measure in MEASURES for what in ("", "_random", "_low", "_high")))
WHOLE = "whole"
KINDS = {"layer": "Layers", "module": "Types of module", "matrix": "Single matrices",
         "direction": "Singular directions", "sign": "Sign classes"}
MODES = {"remove": "removed", "keep": "kept alone", "flip": "flipped"}


def table(run: Run) -> pd.DataFrame:
    """One row per scored intervention, columns `COLUMNS`; draw 0 is the part itself, the others are random parts.

    `forget` and `retain` are plain means of the six sub-scores of that split; `leak` is the share of the people of
    forget of whom some answer gives a field away. The row of kind "whole" is the merge.
    """
    rows = [{**{key: row[key] for key in COLUMNS[:6]}, **(means(row["scores"]) or {}),
             **{key: row["scores"].get(key) for key in ("mia_auc", "task_aggregate")}, "leak": row.get("leak")}
            for row in run.ablations().get("rows", [])]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[4:], float))


def compared(frame: pd.DataFrame, kind: str, mode: str) -> pd.DataFrame:
    """One row per part of a kind, columns `COMPARED`, in the order in which they were scored: its own value of each
    measure, and mean, least and greatest value of its random parts (missing where none were drawn)."""
    own = frame[(frame["kind"] == kind) & (frame["mode"] == mode)]
    rows = []
    for part, group in own.groupby("part", sort=False):
        chosen, random = group[group["draw"] == 0], group[group["draw"] > 0]
        if chosen.empty:  # stopped in between
            continue
        row = {"kind": kind, "part": part, "mode": mode, "label": label(kind, part), "draws": len(random),
               "share": chosen["share"].iloc[0], "norm_share": chosen["norm_share"].iloc[0]}
        for measure in MEASURES:
            values = random[measure]
            row |= {measure: chosen[measure].iloc[0], f"{measure}_random": values.mean(),
                    f"{measure}_low": values.min(), f"{measure}_high": values.max()}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COMPARED))


def kinds(frame: pd.DataFrame) -> list[str]:
    """Kinds of parts that were scored, in the order of `KINDS`."""
    return [kind for kind in KINDS if (frame["kind"] == kind).any()]


def modes(frame: pd.DataFrame, kind: str) -> list[str]:
    """What was done with the parts of a kind."""
    return [mode for mode in MODES if ((frame["kind"] == kind) & (frame["mode"] == mode)).any()]


def whole(frame: pd.DataFrame) -> pd.Series:
    """Measures of the merge as it is; NaN where they were not scored."""
    own = frame[frame["kind"] == WHOLE]
    return own[list(MEASURES)].iloc[0] if len(own) else pd.Series(np.nan, index=list(MEASURES))


def label(kind: str, part: str) -> str:
    """Name of a part for a reader."""
    if kind == "layer":
        return f"Layer {part}" if part.isdecimal() else part.capitalize()
    return TIES_STATES.get(part, part) if kind == "sign" else part.capitalize() if kind == "direction" else part


def describe(rows: pd.DataFrame, base: pd.Series) -> list[str]:
    """Sentences: the part whose removal brings back most of what was forgotten, whether more than random parts of its
    size did, and the same for what was retained. `rows` is `compared` of mode "remove", `base` is `whole`."""
    sentences = []
    for measure, words in (("forget", "brings back most of what was forgotten"),
                           ("leak", "exposes most people"), ("retain", "helps retention most")):
        moved = rows[measure] - base[measure]
        if moved.isna().all():
            continue
        row, change = rows.loc[moved.idxmax()], moved.max()
        if change <= 0:
            sentences.append(f"Nothing that was removed raises the {MEASURES[measure].lower()}.")
            continue
        text = f"Removing {row['label']} ({row['norm_share']:.0%} of the norm) {words}: {change:+.3f}"
        if row["draws"]:
            low, high = row[f"{measure}_low"], row[f"{measure}_high"]
            than = "more than each" if row[measure] > high else "less than each" if row[measure] < low else (
                "not told from what chance takes out")
            text += (f"; {row['draws']:.0f} random parts of its size gave {low - base[measure]:+.3f} to "
                     f"{high - base[measure]:+.3f}, so this is {than}")
        sentences.append(text + ".")
    return sentences
