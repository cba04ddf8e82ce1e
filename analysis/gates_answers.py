"""Gates on what a model answers: utility, retention, collapse."""

from __future__ import annotations

import numpy as np

from analysis import collapse, intervals, quiz, theme
from analysis.judged import FAILED, NOT_MEASURED, PASSED, Case, Judged, evaluate, not_answered, not_measured
from analysis.official import CELLS, Answers
from unlearn_core.judging.gates import Gate

CLOSE = 1e-9  # a share that is the threshold up to rounding has reached it
RETAIN = [place for place, key in enumerate(CELLS) if key.startswith("retain")]


# ---- utility ---------------------------------------------------------------------------------------------------

def utility(case: Case, gate: Gate) -> Judged:
    """MMLU as a share of the base's (of the retrained model's without a base), and open questions beside it."""
    found = quiz.table(case.run)
    choice = found[(found["measure"] == quiz.CHOICE) & (found["subject"] == quiz.ALL)].set_index("model")
    reference = case.reference(choice.index)
    if case.model not in choice.index or reference is None:
        return not_answered(case, gate, "multiple-choice questions were not put to both it and the base",
                            f"{evaluate(case.run)} (the data need a quiz: data.mmlu)")
    own, base = choice.loc[case.model], choice.loc[reference]
    if base["low"] <= base["chance"]:
        return not_measured(case, gate, f"{theme.short_label(reference)} cannot be told from guessing itself (MMLU "
                            f"{base['share']:.3f}, chance {base['chance']:g}), so a share of it says nothing",
                            "ask questions that the base can answer: data.mmlu, evaluation.mmlu_scoring")
    limit = case.thresholds[gate.key]
    value, low, high = (float(own[key] / base["share"]) for key in ("share", "low", "high"))
    return Judged(gate, limit, PASSED if value >= limit - CLOSE else FAILED,
                  f"MMLU {own['share']:.3f} is {value:.2f} of {theme.short_label(reference)}'s {base['share']:.3f}, at "
                  f"least {limit:g} is asked{_luck(low, high, limit)}{_open(found, case.model, reference)}.",
                  value, low, high, int(own["n"]), "questions")


def _luck(low: float, high: float, limit: float) -> str:
    """What to add where the interval holds the threshold."""
    return "; the interval holds that, so this could be luck" if low < limit <= high else ""


def _open(found, model: str, reference: str) -> str:
    """Open questions beside multiple choice, in words."""
    rows = found[(found["measure"] == quiz.CONTAINED) & (found["subject"] == quiz.ALL)].set_index("model")["share"]
    if model not in rows.index or reference not in rows.index:
        return "; open questions not measured"
    return f"; of open questions it answers {rows[model]:.3f}, {theme.short_label(reference)} {rows[reference]:.3f}"


# ---- retention -------------------------------------------------------------------------------------------------

def retention(case: Case, gate: Gate) -> Judged:
    """Mean of the retain sub-scores that the data have as a share of the base's, both on the same items."""
    reference = case.reference(case.answers)
    if case.model not in case.answers or reference is None:
        return not_answered(case, gate, "answers of it and of the base were not both recorded", evaluate(case.run))
    own, base = case.answers[case.model], case.answers[reference]
    cells = [cell for cell in RETAIN if own.sizes[cell]]
    if not _paired(own, base):
        return not_measured(case, gate, f"it and {theme.short_label(reference)} answered different items",
                            evaluate(case.run))
    whole = np.ones((1, len(own.units)))
    before = base.means(whole)[0, cells].mean() if cells else 0.0
    if not before > 0:
        return not_measured(case, gate, "the data have no retain items of which the base knows anything",
                            evaluate(case.run))
    value, limit = float(own.means(whole)[0, cells].mean() / before), case.thresholds[gate.key]
    low, high = _interval(own, base, cells)
    return Judged(gate, limit, PASSED if value >= limit - CLOSE else FAILED,
                  f"The mean of {len(cells)} retain scores is {value:.2f} [{low:.2f}, {high:.2f}] of "
                  f"{theme.short_label(reference)}'s {before:.3f}, at least {limit:g} is asked"
                  f"{_luck(low, high, limit)}.",
                  value, low, high, _units(own, cells), "documents or persons")


def _paired(own: Answers, base: Answers) -> bool:
    return own.units == base.units and np.array_equal(own.cell, base.cell) and np.array_equal(own.unit, base.unit)


def _units(own: Answers, cells: list[int]) -> int:
    return int((own.sums[1][:, cells].sum(axis=1) > 0).sum())


def _interval(own: Answers, base: Answers, cells: list[int]) -> tuple[float, float]:
    """95 %, the same documents and persons drawn again for both, within split and task."""
    times = intervals.times(own.stratum)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = own.means(times)[:, cells].mean(axis=1) / base.means(times)[:, cells].mean(axis=1)
    low, high = intervals.percentile(ratios[np.isfinite(ratios)], int(own.sizes[cells].min()))
    return max(low, 0.0), high


# ---- collapse --------------------------------------------------------------------------------------------------

def collapsed(case: Case, gate: Gate) -> Judged:
    """Broken and empty answers on forget and on retain. Refusals are none: losses tell what they hide, and retention
    counts those on retain."""
    said = {split: collapse.verdict(case.written, case.model, split) for split in ("forget", "retain")}
    said = {split: word for split, word in said.items() if word}
    if not said:
        return not_answered(case, gate, "its answers were not recorded", evaluate(case.run))
    limit, rows = case.thresholds[gate.key], case.written[case.written["model"] == case.model]
    rows = rows[rows["outcome"].isin((collapse.BROKEN, collapse.EMPTY))]
    worst = rows.loc[rows["low"].idxmax()]
    state = FAILED if worst["low"] > limit else NOT_MEASURED if rows["high"].max() > limit else PASSED
    words = "; ".join(f"{split.capitalize()}: {collapse.VERDICTS[word][2:]}" for split, word in said.items())
    return Judged(gate, limit, state,
                  f"{words}. At worst {worst['share']:.0%} [{worst['low']:.0%}, {worst['high']:.0%}] of the answers on "
                  f"{worst['split']} are {'empty' if worst['outcome'] == collapse.EMPTY else 'broken'}.",
                  *(float(worst[key]) for key in ("share", "low", "high")), int(worst["units"]), "documents or persons",
                  "more documents" if state == NOT_MEASURED else "")
