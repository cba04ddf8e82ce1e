"""What a model writes instead of the answer, and whether it has collapsed, refuses or is silent, against the base."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import intervals, official, texts, theme
from unlearn_core.evaluation import collapse, score
from unlearn_core.store import Run
from unlearn_core.vocabulary import QA, SC

SAYS, REFUSES, EMPTY, REPEATS, SAME, OTHER = OUTCOMES = ("says it", "refuses", "empty", "repeats itself",
                                                         "one text for many", "other text")
BROKEN = "collapsed"  # repeats itself or one text for many
COLLAPSED = 0.5  # share of the answers above which a model counts as collapsed, refusing or silent
# An answer is one text for many if it is given to so many items of a split, and twice as often as it is right.
LEAST_SAME, SHARE_SAME = 3, 0.05
SHARE_COLUMNS = ("model", "split", "outcome", "count", "n", "units", "share", "low", "high")
MEASURE_COLUMNS = ("model", "split", "measure", "value", "low", "high", "base", "units", "about")
ENTROPY, FREQUENT = "next-token entropy (nats)", "share of its most frequent word or sign"
VERDICTS = {"collapsed": "✗ collapsed", "refuses": "◐ refuses", "silent": "✗ silent", "partly": "◐ partly collapsed",
            "sound": "✓ not collapsed", "undecided": "◌ undecided: too few answers"}


# ---- what is written instead -----------------------------------------------------------------------------------

def outcomes(answers: pd.DataFrame) -> pd.DataFrame:
    """`texts.answer_table` with the columns `outcome`, one of `OUTCOMES` (the first that holds), and `unit`, the
    document or person that an item belongs to."""
    if answers.empty:
        return answers.assign(outcome=pd.Series(dtype=object), unit=pd.Series(dtype=object))
    names = official.unit_names(answers.drop_duplicates(["split", "id"]).to_dict("records"))
    written = answers["generation"].str.strip().str.lower()
    repeated = answers["repetitive"].to_numpy()
    found = np.select(
        [texts.says_it(answers), answers["generation"].map(texts.refuses), written == "", repeated,
         _one_for_many(answers.assign(written=written))], OUTCOMES[:-1], OUTCOMES[-1])
    return answers.assign(outcome=found, unit=answers["document"].map(names))


def _one_for_many(answers: pd.DataFrame) -> pd.Series:
    """Which answers are a text that their model gives to many items of the split, though it is seldom right."""
    same = pd.Series(False, index=answers.index)
    for _, own in answers.groupby(["model", "split"], sort=False):
        counts, right = Counter(own["written"]), Counter(own["answer"].str.strip().str.lower())
        least = max(LEAST_SAME, SHARE_SAME * len(own))
        many = {text for text, count in counts.items() if count >= least and count > 2 * right[text]}
        same[own.index] = own["written"].isin(many)
    return same


def shares(found: pd.DataFrame) -> pd.DataFrame:
    """One row per model, split and outcome (`OUTCOMES`, and `BROKEN`), columns `SHARE_COLUMNS`; intervals 95 %, with
    documents or persons as units. `found` is `outcomes`."""
    rows = []
    for (model, split), own in found.groupby(["model", "split"], sort=False):
        for outcome in (*OUTCOMES, BROKEN):
            hits = own["outcome"].isin((REPEATS, SAME) if outcome == BROKEN else (outcome,))
            ends = score.mean_interval(hits.astype(float).tolist(), own["unit"].tolist())
            rows.append((model, split, outcome, int(hits.sum()), len(own), own["unit"].nunique(), hits.mean(), *ends))
    return pd.DataFrame(rows, columns=list(SHARE_COLUMNS))


def verdict(found: pd.DataFrame, model: str, split: str) -> str | None:
    """A key of `VERDICTS` by `shares`: what more than half of the answers certainly are; "partly" where the collapsed
    ones are certainly more than the base's. None where the model has no answers."""
    own = _rows(found, model, split)
    if own.empty:
        return None
    for key, outcome in (("collapsed", BROKEN), ("refuses", REFUSES), ("silent", EMPTY)):
        if own.loc[outcome, "low"] > COLLAPSED:
            return key
    base = _rows(found, "base", split)
    if model != "base" and len(base) and own.loc[BROKEN, "low"] > base.loc[BROKEN, "high"]:
        return "partly"
    return "sound" if own.loc[[BROKEN, REFUSES, EMPTY], "high"].max() < COLLAPSED else "undecided"


def describe(found: pd.DataFrame, model: str, split: str) -> str:
    """A sentence on what `verdict` says and why; "" without answers."""
    said, own, name = verdict(found, model, split), _rows(found, model, split), theme.short_label(model)
    if said is None:
        return ""
    outcome = {"refuses": REFUSES, "silent": EMPTY}.get(said, BROKEN)
    what = {REFUSES: "decline to answer", EMPTY: "are empty",
            BROKEN: "repeat themselves or are one text for many"}[outcome]
    base = _rows(found, "base", split)
    beside = "" if model == "base" or base.empty else f", the base's {_percent(base.loc[outcome])}"
    meaning = {
        "collapsed": "Scores of forgetting reward that: any text without the answer has perfect forget terms.",
        "silent": "Scores of forgetting reward that: an empty text has perfect forget terms.",
        "refuses": "Refusing is not forgetting: whether the memory is still there is told by the losses.",
        "partly": "That part of its forget terms is damage and not forgetting."}
    return (f"**{VERDICTS[said]}** on {split}: {_percent(own.loc[outcome])} of the answers of {name} {what}{beside}. "
            f"{(meaning if split == 'forget' else {}).get(said, '')}").strip()


def _rows(found: pd.DataFrame, model: str, split: str) -> pd.DataFrame:
    return found[(found["model"] == model) & (found["split"] == split)].set_index("outcome")


def _percent(row: pd.Series) -> str:
    return f"{row['share']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


# ---- measures --------------------------------------------------------------------------------------------------

def measures(found: pd.DataFrame, entropy: Mapping[str, Sequence[Mapping]] | None = None) -> pd.DataFrame:
    """One row per model, split and measure, columns `MEASURE_COLUMNS`; `base` is the base's value on the same split.

    `found` is `outcomes`; `entropy` {model: rows of `Run.memory`}. Shares: 95 % intervals with documents or persons as
    units; lengths, runs and entropies: Student's t over the units' means.
    """
    rows = []
    for (model, split), own in found.groupby(["model", "split"], sort=False):
        words = [collapse.words_of(text) for text in own["generation"]]
        top = collapse.most_frequent(words)
        values = {
            f"rep-{collapse.N} of words": own["repetition"].tolist(),
            FREQUENT: [text.count(top) / len(text) if text else 0.0 for text in words],
            "share repeating itself": own["repetitive"].astype(float).tolist(),
            "share at the length limit": own["hit_limit"].astype(float).tolist(),
            "longest run of a word": own["word_run"].tolist(), "longest run of a sign": own["sign_run"].tolist(),
            "length in tokens": own["new_tokens"].tolist()}
        rows += [(model, split, name, *_mean(name, numbers, own["unit"].tolist()), own["unit"].nunique(),
                  top if name == FREQUENT else "")
                 for name, numbers in values.items()]
    names = dict(zip(found["document"], found["unit"], strict=True))
    for model, recorded in (entropy or {}).items():
        for split in ("forget", "retain"):
            own = [row for row in recorded if row["split"] == split and row["kind"] in (SC, QA)
                   and row.get("entropy") is not None]
            if own:
                units = [names.get(row["document"], row["document"]) for row in own]
                rows.append((model, split, ENTROPY, *_mean(ENTROPY, [row["entropy"] for row in own], units),
                             len(set(units)), "on the reference answers"))
    frame = pd.DataFrame(rows, columns=[name for name in MEASURE_COLUMNS if name != "base"])
    base = frame.loc[frame["model"] == "base", ["split", "measure", "value"]].rename(columns={"value": "base"})
    return frame.merge(base, on=["split", "measure"], how="left")[list(MEASURE_COLUMNS)]


def _mean(name: str, values: Sequence[float], units: Sequence[str]) -> tuple[float, float, float]:
    """(mean, low, high) over units; NaN where a value is missing."""
    numbers = np.array(values, float)
    if np.isnan(numbers).any():
        return math.nan, math.nan, math.nan
    if name.startswith(("share", "rep-")):
        binary = np.isin(numbers, (0.0, 1.0)).all()
        return float(numbers.mean()), *score.mean_interval(numbers.tolist(), units, score.PRIOR[QA if binary else SC])
    by_unit = pd.Series(numbers).groupby(list(units)).mean()
    mean, low, high = intervals.mean(by_unit.tolist())
    return mean, max(low, 0.0) if math.isfinite(low) else math.nan, high if math.isfinite(high) else math.nan


def grid(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """`measures` of a split for reading: a row per measure, a column of "value [low, high]" per model."""
    own = frame[frame["split"] == split]
    wide = own.assign(text=[_text(row) for row in own.to_dict("records")]).pivot(index="measure", columns="model",
                                                                                 values="text")
    wide = wide.reindex(index=own["measure"].unique(), columns=own["model"].unique())
    return wide.rename(columns=theme.short_label).rename_axis(columns=None).reset_index()


def _text(row: Mapping) -> str | None:
    if math.isnan(row["value"]):
        return None
    span = "" if math.isnan(row["low"]) else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['value']:.3g}{span}" + (f" “{row['about']}”" if row["measure"] == FREQUENT and row["about"] else "")


def entropies(run: Run) -> dict[str, list[dict]]:
    """{model: rows of `Run.memory`}, of the models that have some."""
    return {model: rows for model in run.models() if (rows := run.memory(model))}
