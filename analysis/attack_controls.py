"""Every attack beside its two controls: does it find the data in the base, and what in a model that never saw them?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis import attacks, intervals, theme
from analysis.attacks import ATTACKS, KINDS, Choice, Sides
from analysis.controls import ALPHA, against
from unlearn_core import vocabulary
from unlearn_core.store import Run

COLUMNS = ("attack", "kind", "model", "members", "nonmembers", "auc", "low", "high", "positive", "positive_low",
           "positive_high", "negative", "negative_low", "negative_high", "reference", "seeds", "least", "most",
           "excess", "excess_low", "excess_high", "p", "holm", "state", "why")
TEXTS = ("attack", "kind", "model", "reference", "state", "why")  # of the columns; all others are numbers
WORKS, FAILS, UNKNOWN = STATES = ("works here", "does not work here", "not measured")


def attack_controls(run: Run, members_of: str = "forget") -> pd.DataFrame:
    """One row per attack and kind of text, columns `COLUMNS`: its AUC on the model that would be handed out, on
    its positive control, the base (does it find the data there?), and on its negative one, the retrained models' mean
    or else the untrained model (what does it "find" where the data never were?).

    state: `WORKS` only if the positive control's interval lies above 0.5. excess: AUC less the negative control's, with
    a 95 % interval and p by DeLong's paired method, Student's t; holm: p corrected for all that were tried. Where every
    document says the same, the corners of both intervals stand in, and there is no p.
    """
    texts = attacks.texts(run)
    models = list(dict.fromkeys(texts["model"]))
    model, references = vocabulary.shipped(models), vocabulary.never_saw(models)
    rows = []
    for kind in KINDS if model else ():
        for attack in ATTACKS:
            choice = Choice(attack, members_of, kind)
            found = {name: attacks.sides(texts, name, choice) for name in (model, "base", *references)}
            rows.append({"attack": attack, "kind": kind, "model": model, **_beside_controls(found, model, references)})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = table.astype({name: float for name in COLUMNS if name not in TEXTS})
    return table.assign(holm=intervals.holm(table["p"]))


def _beside_controls(found: dict[str, Sides], model: str, references: Sequence[str]) -> dict:
    own, base = found[model], found["base"]
    negatives = {name: found[name] for name in references if not found[name].missing}
    row = {"members": len(own.members), "nonmembers": len(own.nonmembers), "state": UNKNOWN, "why": own.missing,
           "reference": next(iter(negatives), ""), "seeds": len(negatives)}
    if not base.missing:
        row |= dict(zip(("positive", "positive_low", "positive_high"), _auc(base), strict=True))
        row["state"] = WORKS if row["positive_low"] > 0.5 else FAILS
    if negatives:
        each = [_auc(sides) for sides in negatives.values()]
        row |= dict(zip(("negative", "negative_low", "negative_high"), np.mean(each, axis=0), strict=True))
        row |= {"least": min(each)[0], "most": max(each)[0]}
    if not own.missing:
        row |= dict(zip(("auc", "low", "high"), _auc(own), strict=True))
        row |= _excess(own, list(negatives.values()), row) if negatives else {}
    return row


def _auc(sides: Sides) -> tuple[float, float, float]:
    found = attacks.measure(sides)
    return found["auc"], found["low"], found["high"]


def _excess(own: Sides, negatives: Sequence[Sides], row: dict) -> dict:
    """How much further the attack comes than on the negative controls, on the documents that all have."""
    shares = [_shares(sides) for sides in (own, *negatives)]
    differences = [_difference([both[side] for both in shares]) for side in (0, 1)]
    least = min(map(len, differences))
    if least < 2:
        return {}
    value = float(differences[0].mean())
    variance = sum(float(part.var()) / len(part) for part in differences)
    if not variance:
        return {"excess": value, "excess_low": row["low"] - row["negative_high"],
                "excess_high": row["high"] - row["negative_low"]}
    error = math.sqrt(variance)
    reach = float(t.ppf(1 - ALPHA / 2, least - 1)) * error
    return {"excess": value, "excess_low": max(value - reach, -1.0), "excess_high": min(value + reach, 1.0),
            "p": float(2 * t.sf(abs(value) / error, least - 1))}


def _difference(shares: Sequence[pd.Series]) -> pd.Series:
    """The first less the mean of the others, for the documents that all have."""
    return (shares[0] - pd.concat(shares[1:], axis=1).mean(axis=1, skipna=False)).dropna()


def _shares(sides: Sides) -> tuple[pd.Series, pd.Series]:
    """Per member the share of the held-out texts with a higher loss, ties half, and per held-out text the share of the
    members with a lower one: both have the AUC as their mean."""
    members, others = sides.members.to_numpy()[:, None], sides.nonmembers.to_numpy()
    below = (members < others) + 0.5 * (members == others)
    return pd.Series(below.mean(axis=1), sides.members.index), pd.Series(below.mean(axis=0), sides.nonmembers.index)


# ---- words -----------------------------------------------------------------------------------------------------

def describe(row: pd.Series | dict) -> str:
    """What a row of `attack_controls` says."""
    name = f"{ATTACKS[row['attack']]} on {KINDS[row['kind']].lower()}"
    if row["why"] or row["state"] == UNKNOWN:
        return f"{name}: not measured: {row['why'] or 'no base to see whether the attack finds the data there'}."
    base = f"{name} {row['state']} (base {_span(row, 'positive')})"
    if row["state"] == FAILS:
        return f"{base}: whether it finds anything in the {row['model']} model shows nothing."
    text = f"{base}: AUC {_span(row, 'auc')} on the {row['model']} model"
    if math.isnan(row["negative"]):
        return f"{text}; no negative control."
    spread = f", from {row['least']:.2f} to {row['most']:.2f}" if row["seeds"] > 1 else ""
    control = against(row["reference"], int(row["seeds"]))
    text += f", {_span(row, 'negative')} on {control}, never shown the data{spread}"
    if math.isnan(row["excess"]):
        return f"{text}; too few documents for the difference."
    return f"{text}; excess {row['excess']:+.2f} [{row['excess_low']:+.2f}, {row['excess_high']:+.2f}], {_found(row)}."


def _span(row: pd.Series | dict, name: str) -> str:
    prefix = "" if name == "auc" else f"{name}_"
    return f"{row[name]:.2f} [{row[prefix + 'low']:.2f}, {row[prefix + 'high']:.2f}]"


def _found(row: pd.Series | dict) -> str:
    if row["excess_low"] > 0:
        return "more than in a model that never saw the data"
    if row["excess_high"] < 0:
        return "less than in a model that never saw the data"
    return "not told apart from a model that never saw the data"


def describe_all(table: pd.DataFrame) -> list[str]:
    """Sentences on all of `attack_controls`: how many attacks were tried, how many work, what those that do find."""
    if table.empty:
        return ["Not measured: the model that would be handed out was not led through the texts."]
    counts = table["state"].where(table["why"] == "", UNKNOWN).value_counts()
    said = [f"{len(table)} attacks and kinds of text were tried: " + ", ".join(
        f"{counts[state]} {'work here' if state == WORKS else 'do not work here' if state == FAILS else UNKNOWN}"
        for state in STATES if state in counts) + ". An attack works here if it finds the data in the base."]
    works = table[(table["state"] == WORKS) & table["excess"].notna()]
    if works.empty:
        return [*said, "None that works has a negative control, so there is no excess to tell."]
    more, less = (int(((works["holm"] < ALPHA) & (sign * works["excess"] > 0)).sum()) for sign in (1, -1))
    model = theme.short_label(works["model"].iloc[0])
    return [*said, f"{model}: of {len(works)} that work and have a negative control, {more} find more and {less} less "
                   "than in a model that never saw the data (5 % after Holm's correction for all that were tried)."]
