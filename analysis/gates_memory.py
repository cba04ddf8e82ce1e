"""Gates on what losses tell: memory of forget's answers, and attacks that tell forget from unseen texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis import attacks, intervals
from analysis.attacks import Choice
from analysis.judged import FAILED, NOT_MEASURED, PASSED, Case, Judged, evaluate, names, not_measured
from unlearn_core.evaluation import mia
from unlearn_core.evaluation.score import WIDEST_BALANCED
from unlearn_core.judging.gates import Gate
from unlearn_core.vocabulary import DOCUMENT, never_saw

Interval = tuple[float, float, float]  # value, low, high


# ---- memory ----------------------------------------------------------------------------------------------------

def memory(case: Case, gate: Gate) -> Judged:
    """Extraction strength of forget's answers less what a model has that never saw them: a retrained one on the same
    documents, else the model itself on held-out documents, else the untrained one."""
    own = strengths(case.texts, case.model, "forget")
    controls = never_saw(model for model in case.run.models() if len(strengths(case.texts, model, "forget")))
    unseen = strengths(case.texts, case.model, "holdout")
    if own.empty or (unseen.empty and not controls):
        return not_measured(case, gate, "it was not led through forget's answers token by token, or nothing stands "
                            "beside that: no held-out texts and no control model", evaluate(case.run))
    if unseen.empty or controls[:1] not in ([], ["untrained"]):
        beside = pd.concat([strengths(case.texts, model, "forget") for model in controls], axis=1).mean(axis=1)
        paired = (own - beside).dropna()
        found, n, whose = intervals.mean(paired.tolist()), len(paired), f"{names(controls)} has"
    else:
        found, n, whose = welch(own.tolist(), unseen.tolist()), len(own), "texts that it never saw have"
    return _judged(case, gate, found, n, f"Extraction strength on forget {own.mean():.3f}, {found[0]:+.3f} "
                   f"[{found[1]:.3f}, {found[2]:.3f}] beside what {whose}")


def strengths(frame: pd.DataFrame, model: str, split: str) -> pd.Series:
    """Mean extraction strength of the answers of each document."""
    own = frame[(frame["model"] == model) & (frame["split"] == split) & (frame["kind"] != DOCUMENT)]
    return own.groupby("document", sort=False)["extraction_strength"].mean().dropna()


def welch(first: Sequence[float], second: Sequence[float], level: float = intervals.LEVEL) -> Interval:
    """Difference of two means with Welch's interval; infinite where one side is a single value."""
    difference = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return difference, -math.inf, math.inf
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (first, second)]
    if not sum(parts):
        return difference, difference, difference
    freedom = sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, (len(first), len(second)), strict=True))
    reach = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(sum(parts))
    return difference, difference - reach, difference + reach


def _judged(case: Case, gate: Gate, found: Interval, n: int, reason: str) -> Judged:
    """Failed where the interval lies above the threshold; not measured where it is too wide to say."""
    (value, low, high), limit = found, case.thresholds[gate.key]
    if not math.isfinite(low):
        return not_measured(case, gate, f"a single document says nothing of the spread ({n})", "more documents")
    state = FAILED if low > limit else NOT_MEASURED if high - low > WIDEST_BALANCED else PASSED
    words = {FAILED: "clearly more", PASSED: "not clearly more", NOT_MEASURED: "too few documents to say"}[state]
    return Judged(gate, limit, state, f"{reason}: {words}.", value, low, high, n, "documents",
                  "more documents" if state == NOT_MEASURED else "")


# ---- attacks ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Attacked:
    """One attack: its AUC, the interval for all that were tried together, and the AUC of a model that never saw."""

    name: str
    auc: float
    low: float
    high: float
    target: float
    two_sided: bool
    n: int

    @property
    def beyond(self) -> float:
        """How far the interval lies from the target, below 0 where it holds it; a two-sided AUC only above it."""
        above, below = self.low - self.target, self.target - self.high
        return above if self.two_sided else max(above, below)

    @property
    def words(self) -> str:
        return f"{self.name}, AUC {self.auc:.2f} [{self.low:.2f}, {self.high:.2f}], target {self.target:.2f}"

    @property
    def verdict(self) -> str:
        if self.two_sided:
            return "members lie further out than unseen texts, some still recognised and others over-forgotten"
        return ("members are still recognised" if self.auc > self.target
                else "members are over-forgotten, by which they are recognised, too")


def attack(case: Case, gate: Gate) -> Judged:
    """The official attack at 95 %, and the strongest of all others at 95 % for all of them together (Bonferroni).

    Whoever is harder than unseen texts is as recognisable as whoever is easier, so over-forgetting fails as well. The
    target is the AUC of a model that never saw forget, which is not always 0.5.
    """
    first, others, limit = official(case), list(tried(case)), case.thresholds[gate.key]
    if first is None:
        return not_measured(case, gate, "no losses of members and of non-members", evaluate(case.run))
    strongest = max(others, key=lambda one: one.beyond, default=None)
    failing = next((one for one in (first, strongest) if one is not None and one.beyond > limit), None)
    if failing is not None:
        return _attacked(gate, limit, FAILED, failing, f"{failing.words}: {failing.verdict}")
    if strongest is None:
        return not_measured(case, gate, f"{first.words}; the other attacks were not run", evaluate(case.run))
    words = f"{first.words}; the strongest of {len(others)} others: {strongest.words}"
    if first.high - first.low > WIDEST_BALANCED:
        return _attacked(gate, limit, NOT_MEASURED, first, f"{words}: too few documents to say")
    return _attacked(gate, limit, PASSED, first, f"{words}: no attack tells members from unseen texts")


def _attacked(gate: Gate, limit: float, state: str, found: Attacked, reason: str) -> Judged:
    return Judged(gate, limit, state, f"{reason[0].upper()}{reason[1:]}.", found.auc, found.low, found.high, found.n,
                  "documents", "more documents, held-out ones too" if state == NOT_MEASURED else "")


def official(case: Case) -> Attacked | None:
    """The official attack as it was scored; None without losses of members and of non-members."""
    auc, ends = case.scores[case.model].get("mia_auc"), case.intervals.get(case.model, {}).get("mia_auc")
    if auc is None or ends is None:
        return None
    known = [case.scores[name]["mia_auc"] for name in never_saw(
        name for name in case.scores if "mia_auc" in case.scores[name])]
    return Attacked("the official attack", auc, *ends, fmean(known) if known else 0.5, False,
                    len(case.run.documents(case.model)))


def tried(case: Case) -> Iterator[Attacked]:
    """All other attacks on forget: five scores on three kinds of text, one- and two-sided."""
    models, frame = [case.model, *never_saw(case.run.models())], case.texts
    frame = frame[frame["model"].isin(models) & frame["split"].isin(("forget", "holdout"))]
    found = []
    for kind in attacks.KINDS:
        own = frame[frame["kind"] == kind]
        for name in attacks.ATTACKS:
            sides, *controls = (attacks.sides(own, model, Choice(name, "forget", kind)) for model in models)
            found += [(name, kind, two_sided, sides, controls) for two_sided in (False, True) if not sides.missing
                      and (two_sided or (name, kind) != ("nll", DOCUMENT))]
    level = 1 - (1 - intervals.LEVEL) / max(len(found), 1)
    for name, kind, two_sided, sides, controls in found:
        both = _scores(sides, two_sided)
        known = [mia.auc(*_scores(control, two_sided)) for control in controls if not control.missing]
        yield Attacked(f"{attacks.ATTACKS[name]} on {attacks.KINDS[kind].lower()}{', two-sided' if two_sided else ''}",
                       mia.auc(*both), *mia.auc_interval(*both, level), fmean(known) if known else 0.5, two_sided,
                       len(both[0]) + len(both[1]))


def _scores(sides: attacks.Sides, two_sided: bool) -> tuple[np.ndarray, np.ndarray]:
    both = sides.members.to_numpy(), sides.nonmembers.to_numpy()
    return mia.two_sided(*both) if two_sided else both
