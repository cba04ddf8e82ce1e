"""Worked examples of the official scores, computed by the engine's own functions. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import headlines, official
from unlearn_core.errors import InputError
from unlearn_core.evaluation import mia, rouge, score
from unlearn_core.vocabulary import MMLU_GATE_SHARE, shipped

REFERENCE = "Mira Olsen was born on 4 May 1987 in Bergen and works as a ship builder."
GENERATION = "Mira Olsen was born in 1978 in Bergen, and she builds ships."
RIGHT, ANSWERS = "1987-05-04", ("1987-05-04", " 1987-05-04 ", "May 4, 1987", "1987-05-04.", "1987-05-04 in Bergen")
MEMBERS, NONMEMBERS = (1.0, 1.6, 2.4), (2.0, 2.8, 3.2)
EXAMPLE = "example"  # in place of a model's name
SCORES = dict(zip(official.CELLS, (0.10, 0.05, 0.20, 0.05, 0.15, 0.10, 0.90, 0.95, 0.85, 0.40, 0.90, 0.95),
                  strict=True))
PAIR_COLUMNS = ("member", "nonmember", "counts")


def exact_matches(right: str, answers: Sequence[str]) -> pd.DataFrame:
    """A row per answer: itself, and whether it counts."""
    return pd.DataFrame({"Answer": [f"“{answer}”" for answer in answers],
                         "Exact match": [score.exact_match(right, answer) for answer in answers]})


def words_in_common(reference: str, generation: str) -> tuple[int, int]:
    """(length of the longest common subsequence, words of the reference): `rouge_l_recall` is their ratio."""
    wanted, written = rouge.words_of(reference), rouge.words_of(generation)
    return rouge.lcs_length(wanted, written), len(wanted)


# ---- the attack ------------------------------------------------------------------------------------------------

def check_losses(members: Sequence[float], nonmembers: Sequence[float]) -> None:
    """InputError unless both sides are numbers."""
    for name, losses in (("members", members), ("non-members", nonmembers)):
        if not len(losses) or not all(math.isfinite(loss) for loss in losses):
            raise InputError(f"losses of {name}", got=list(losses), expected="at least one, all numbers")


def pairs(members: Sequence[float], nonmembers: Sequence[float]) -> pd.DataFrame:
    """Every pair of a member and a non-member, columns `PAIR_COLUMNS`: 1 where the member's loss is lower, 1/2 where
    both are equal. Their mean is the AUC."""
    rows = [(member, other, 1.0 if member < other else 0.5 if member == other else 0.0)
            for member in members for other in nonmembers]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def describe_attack(members: Sequence[float], nonmembers: Sequence[float], threshold: float) -> list[str]:
    """The AUC by counting pairs, the score it gives, and what one threshold gets right and wrong."""
    counted, auc = pairs(members, nonmembers), mia.auc(members, nonmembers)
    caught, alarms = (int(sum(loss < threshold for loss in side)) for side in (members, nonmembers))
    return [
        f"AUC: in {counted['counts'].sum():g} of {len(counted)} pairs the member has the lower loss, so it is "
        f"**{auc:.3f}**. MIA score: 1 − 2 |{auc:.3f} − 0.5| = **{mia.mia_score(auc):.3f}**.",
        f"At the threshold {threshold:g} what is below it is called a member: {caught} of {len(members)} members are "
        f"recognised, {alarms} of {len(nonmembers)} non-members are false alarms. The AUC needs no threshold: it is "
        "the mean over all of them."]


# ---- the harmonic mean -----------------------------------------------------------------------------------------

def terms(scores: Mapping[str, float]) -> pd.DataFrame:
    """`headlines.links` of twelve sub-scores: their terms, the weakest first, and what each costs."""
    return headlines.links(_rows(scores), EXAMPLE)


def means(scores: Mapping[str, float]) -> tuple[float, float]:
    """(harmonic mean, plain mean) of the terms of twelve sub-scores."""
    own = official.terms(_rows(scores), EXAMPLE)
    return score.harmonic_mean(own.tolist()), float(np.mean(own))


def _rows(scores: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame([{"model": EXAMPLE, "metric": cell, "value": scores[cell]} for cell in official.CELLS])


def own_scores(scores: Mapping[str, Mapping[str, float]]) -> tuple[str, dict[str, float]]:
    """(model, its twelve sub-scores) of the one that would be handed out, as `Run.scores` has them; ("", `SCORES`), an
    example, where not all twelve were measured."""
    model = shipped(scores)
    own = {cell: scores.get(model, {}).get(cell) for cell in official.CELLS}
    return ("", SCORES) if None in own.values() else (model, own)


# ---- the gate --------------------------------------------------------------------------------------------------

def describe_gate(base: float, model: float) -> str:
    """Whether a model keeps enough of the base's MMLU, in a sentence."""
    passed = score.passes_gate(model, base)
    return (f"{MMLU_GATE_SHARE:g} × {base:.3f} = {MMLU_GATE_SHARE * base:.3f}, and {model:.3f} is "
            f"{'not below' if passed else 'below'} it: the gate is **{'passed' if passed else 'not passed'}**.")
