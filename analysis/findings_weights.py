"""Findings on the weight changes of a run: where they are, their sizes and angle, and how their signs conflict.

Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from analysis import signs, weight_angles, weights
from analysis.findings_parts import NOTHING_TRAINED, Facts, Finding, label, missing, said
from analysis.weights import Measured
from unlearn_core.errors import InputError
from unlearn_core.vocabulary import SPACES, UNLEARNED


def moved(facts: Facts) -> Finding:
    """The matrix that each model changed most, how much longer one change is, and the angle between them."""
    found = _statistics(facts, "weights", weights.read, weights.stale)
    if isinstance(found, Finding):
        return found
    models = [model for model in UNLEARNED if model in found.models]
    if not models:
        return missing("weights", "neither Model 1 nor Model 2 was measured", facts.command("weights"))
    frame = weights.where(found)
    text, numbers = _most(frame, models)
    if len(models) < len(UNLEARNED):
        return said("weights", text, numbers)
    words, more = _beside(found, frame)
    return said("weights", f"{text} {words}", numbers | more)


def _most(frame: pd.DataFrame, models: list[str]) -> tuple[str, dict[str, float]]:
    """The matrix that each model changed most."""
    value = weights.measure(frame)
    unit = "of its norm" if value == "relative" else "in norm"
    tops = {model: frame.loc[frame.loc[frame["model"] == model, value].idxmax()] for model in models}
    numbers = {f"{model}_{value}": top[value] for model, top in tops.items()}
    numbers |= {f"{model}_layer": top["layer"] for model, top in tops.items() if not pd.isna(top["layer"])}
    places = [top["type"] if pd.isna(top["layer"]) else f"{top['type']} of layer {top['layer']}"
              for top in tops.values()]
    sizes = [f"{top[value]:.2f}" for top in tops.values()]
    if len(models) > 1 and len(set(places)) == 1:
        return f"Both models changed {places[0]} most ({' and '.join(sizes)} {unit}).", numbers
    parts = [f"{label(model)} changed {place} most ({size} {unit})"
             for model, place, size in zip(models, places, sizes, strict=True)]
    return f"{', '.join(parts)}.", numbers


def _beside(found: Measured, frame: pd.DataFrame) -> tuple[str, dict[str, float]]:
    """Sizes of the two whole changes, and the angle between them."""
    sizes = (frame.assign(square=frame["norm"] ** 2).groupby("model")["square"].sum() ** 0.5)[list(UNLEARNED)]
    rows = weight_angles.model_angles(found)
    both = rows[(rows["first"] == UNLEARNED[0]) & (rows["second"] == UNLEARNED[1]) & (rows["group"] == "all")].iloc[0]
    if not sizes.min() > 0 or math.isnan(both["angle"]):
        return "One of the two changes is zero.", {}
    longer = sizes.idxmax()
    other = next(model for model in UNLEARNED if model != longer)
    ratio, angle, spread = sizes[longer] / sizes[other], float(both["angle"]), float(both["spread"])
    chance = ("nearer than random ones" if angle < 90 - spread else "further apart than random ones"
              if angle > 90 + spread else "like random ones")
    return (f"{label(longer)}'s whole change is {ratio:.2f} times as long as {label(other)}'s, at {angle:.0f}° to it, "
            f"{chance} (90 ± {spread:.1f}°).", {"ratio": ratio, "angle": angle, "random": 90, "spread": spread})


def conflicts(facts: Facts) -> Finding:
    """How many entries both models keep at the run's density, with opposite signs, and who wins."""
    found = _statistics(facts, "conflicts", signs.read, signs.stale)
    if isinstance(found, Finding):
        return found
    space = [space for space in SPACES if space in found.about["spaces"]][-1]
    density, rows = found.about["excerpt_density"], signs.over_density(found, space, "count")
    row = rows[(rows["group"] == signs.OVERALL) & (rows["density"] == density)].iloc[0]
    both, rate, won = row[list(signs.STATES[signs.BOTH_KEPT])].sum(), row["conflict"], row["won_by_1"]
    what = {"A": "entries of factor A", "B": "entries of factor B", "dW": "entries of the weight change"}[space]
    kept = f"At density {density:g} both models keep the same {both:.0%} of the {what}"
    numbers = {"density": density, "kept": both}
    if math.isnan(rate):
        return said("conflicts", f"{kept}, so no signs can conflict.", numbers)
    numbers |= {"conflict": rate, "random": signs.RANDOM}
    text = f"{kept}; {rate:.1%} of these have opposite signs, random directions {signs.RANDOM:.0%}"
    if math.isnan(won):
        return said("conflicts", f"{text}.", numbers)
    winner, share = (UNLEARNED[0], won) if won >= 0.5 else (UNLEARNED[1], 1 - won)
    return said("conflicts", f"{text}. {label(winner)} wins {share:.0%} of the conflicts.", numbers | {"won": share})


def _statistics(facts: Facts, key: str, read: Callable, stale: Callable) -> Measured | Finding:
    """Statistics of the adapters that the run has now; else a finding that says why there are none."""
    if facts.brought:
        return missing(key, NOTHING_TRAINED)
    try:
        found = read(facts.run)
    except InputError:
        return missing(key, "another version of Lethe measured the weights", facts.command("weights"))
    if found is None:
        absent = [model for model in UNLEARNED if model not in facts.keys]
        if absent:
            return missing(key, f"there is no adapter of {weights.named(absent)}",
                           "" if facts.finished else facts.evaluation())
        return missing(key, "the weight changes were not compared", facts.command("weights"))
    changed = [model for model in stale(facts.run, found.about) if model in UNLEARNED]
    if changed:
        return missing(key, f"it was measured before the adapter of {weights.named(changed)} was changed",
                       facts.command("weights"))
    return found
