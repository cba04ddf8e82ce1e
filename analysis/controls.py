"""A run's models beside one that never saw forget: PrivLeak, forget quality, depth of forgetting.

`least` and `most` are the ends over several retrained models, each of another seed, where there are some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import kstwobign

from analysis import intervals, theme
from unlearn_core import vocabulary
from unlearn_core.evaluation import truth_ratio
from unlearn_core.store import Run
from unlearn_core.vocabulary import never_saw

PRIVLEAK_COLUMNS = ("model", "auc", "reference", "seeds", "reference_auc", "value", "low", "high", "least", "most",
                    "why")
QUALITY_COLUMNS = ("model", "reference", "seeds", "distance", "p", "holm", "n", "detectable", "least", "most", "why")
DEPTH_COLUMNS = ("model", "layer", "measure", "value", "low", "high", "n")
SCORE_COLUMNS = ("model", "reference", "value", "low", "high", "n", "items", "without", "why")
NO_CONTROL = "no model that never saw forget was measured"
ALPHA = 1 - intervals.LEVEL


def against(reference: str, seeds: int = 1) -> str:
    """The control in a sentence: "the retrained model", "3 retrained models"."""
    kind = "retrained" if vocabulary.is_retrained(reference) else reference
    return f"the {kind} model" if seeds == 1 else f"{seeds} {kind} models"


# ---- PrivLeak --------------------------------------------------------------------------------------------------

def privleak(run: Run) -> pd.DataFrame:
    """One row per model that saw forget, columns `PRIVLEAK_COLUMNS`: ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref) in %
    of the official attack (MUSE, arXiv 2407.06460); below 0: recognised more than by a model that never saw forget.

    AUC_ref is the mean over the retrained models, else the untrained one's. low and high are what the corners of both
    AUCs' 95 % intervals give: wider than an interval that knew how the two depend on each other.
    """
    spans = run.intervals()
    known = {model: np.array([own["mia_auc"], *spans[model]["mia_auc"]]) for model, own in run.scores().items()
             if "mia_auc" in own and "mia_auc" in spans.get(model, {})}
    references = never_saw(known)
    rows = [{"model": model, **_privleak(known.get(model), [known[name] for name in references]),
             "reference": references[0] if references else "", "seeds": len(references)}
            for model in run.scores() if model not in references]
    return pd.DataFrame(rows, columns=list(PRIVLEAK_COLUMNS))


def _privleak(own: np.ndarray | None, references: Sequence[np.ndarray]) -> dict:
    if own is None or not references:
        return {"why": "the attack was not measured on it" if own is None else NO_CONTROL}
    auc, low, high = own
    mean, mean_low, mean_high = np.mean(references, axis=0)
    if mean == 1:
        return {"auc": auc, "reference_auc": mean, "why": "undefined where the control's AUC is 1"}
    each = [100 * (other - auc) / (1 - other) for other, _, _ in references if other < 1]
    return {"auc": auc, "reference_auc": mean, "value": 100 * (mean - auc) / (1 - mean),
            "low": 100 * ((1 - high) / (1 - mean_low) - 1),
            "high": 100 * ((1 - low) / (1 - mean_high) - 1) if mean_high < 1 else math.inf,
            "least": min(each), "most": max(each), "why": ""}


def describe_privleak(row: pd.Series | dict) -> str:
    """What a row of `privleak` says."""
    label = theme.short_label(row["model"])
    if row["why"]:
        return f"{label}: PrivLeak not measured: {row['why']}."
    said = ("members of forget are recognised more than by a model that never saw them" if row["high"] < 0 else
            "members of forget are harder to it than to a model that never saw them" if row["low"] > 0 else
            "not told apart from a model that never saw the data")
    value, low, high, least, most = (_percent(row[key]) for key in ("value", "low", "high", "least", "most"))
    spread = f" (each alone: {least} to {most})" if row["seeds"] > 1 else ""
    return (f"{label}: PrivLeak {value} % [{low}, {high}] against {against(row['reference'], row['seeds'])}{spread}: "
            f"{said}.")


def _percent(value: float) -> str:
    return "+∞" if math.isinf(value) else f"{round(value):+d}"


# ---- forget quality --------------------------------------------------------------------------------------------

def forget_quality(run: Run) -> pd.DataFrame:
    """One row per model with truth ratios, columns `QUALITY_COLUMNS`: the Kolmogorov-Smirnov test of its ratios, one
    per document, against those of the first retrained or else the untrained model (see `truth_ratio.forget_quality`).

    holm: p corrected for the number of models that saw forget; NaN for another retrained model, whose distance says how
    far two models lie apart that both never saw it. detectable: the distance that so many documents would tell apart.
    """
    ratios = {row["model"]: row["ratios"] for row in run.probe("truth_ratio").get("rows", [])}
    references = never_saw(ratios)
    rows = []
    for model, own in ratios.items():
        beside = [name for name in references if name != model]
        if model not in references[:1]:
            rows.append({"model": model, "reference": next(iter(beside), ""), "seeds": len(beside),
                         **_quality(own, [ratios[name] for name in beside])})
    found = pd.DataFrame(rows, columns=list(QUALITY_COLUMNS))
    saw = ~found["model"].isin(vocabulary.CONTROLS) & ~found["model"].map(vocabulary.is_retrained).astype(bool)
    found["holm"] = intervals.holm(found["p"].astype(float).where(saw))
    return found


def _quality(own: dict[str, float], references: Sequence[dict[str, float]]) -> dict:
    if not references or not own.keys() & references[0].keys():
        return {"why": "no document has a truth ratio under both models" if references else NO_CONTROL}
    first, *others = [truth_ratio.forget_quality(own, reference) for reference in references]
    distances = [found["distance"] for found in (first, *others)]
    return {**first, "detectable": min(1.0, float(kstwobign.isf(ALPHA)) * math.sqrt(2 / first["n"])),
            "least": min(distances), "most": max(distances), "why": ""}


def describe_forget_quality(row: pd.Series | dict) -> str:
    """What a row of `forget_quality` says."""
    label = theme.short_label(row["model"])
    if row["why"]:
        return f"{label}: forget quality not measured: {row['why']}."
    corrected = "" if math.isnan(row["holm"]) else f", {row['holm']:.2g} after Holm's correction"
    beside = against(row["reference"], row["seeds"])
    spread = f"; D {row['least']:.2f} to {row['most']:.2f} over {beside}" if row["seeds"] > 1 else ""
    p = row["p"] if math.isnan(row["holm"]) else row["holm"]
    said = ("they differ" if p < ALPHA else
            f"not told apart, and with so few documents only a D above {row['detectable']:.2f} would be")
    return (f"{label}: truth ratios of {row['n']:.0f} documents beside those of {against(row['reference'])}: D "
            f"{row['distance']:.2f}, p {row['p']:.2g}{corrected}{spread}: {said}.")


# ---- depth -----------------------------------------------------------------------------------------------------

def depth(run: Run) -> pd.DataFrame:
    """One row per model, layer (as in the names of modules, from 0) and measure, columns `DEPTH_COLUMNS`: d1 and
    encoding of the reference, d2 of the others, and d1_retain and d2_retain, the control (`controls.measure_depth`)."""
    rows = [{**row, "layer": row["setting"]} for row in run.probe("depth").get("rows", []) if row["measure"] != "uds"]
    return pd.DataFrame(rows, columns=list(DEPTH_COLUMNS)).astype(dict.fromkeys(("value", "low", "high"), float))


def depth_scores(run: Run) -> pd.DataFrame:
    """The unlearning depth score of each model, columns `SCORE_COLUMNS`."""
    probe = run.probe("depth")
    rows = [{**row, "reference": probe["about"]["reference"]} for row in probe.get("rows", [])
            if row["measure"] == "uds"]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype(dict.fromkeys(("value", "low", "high"), float))


def describe_depth(scores: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
    """Sentences on `depth_scores` and `depth`: each model's score, and how far the reference can be trusted."""
    said = []
    for row in scores.to_dict("records"):
        label = theme.short_label(row["model"])
        if row["why"]:
            said.append(f"{label}: depth not measured: {row['why']}.")
            continue
        without = f"; {row['without']:.0f} more are encoded by no layer" if row["without"] else ""
        said.append(f"{label}: depth score {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] over "
                    f"{row['items']:.0f} answers of {row['n']:.0f} documents (0: as intact inside as in the base, 1: "
                    f"erased as far as in {against(row['reference'])}{without}).")
    return [*said, *_trust(scores, layers)]


def _trust(scores: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
    """How much of the reference's drop is no lack of these answers."""
    if layers.empty:
        return []
    if (scores["reference"] == "untrained").any():
        return ["The reference is the untrained model: its states lack all that was learned and not these answers "
                "alone, so a low score does not show that they are left. A retrained model tells more."]
    lost, foreign = (layers.loc[layers["measure"] == name, "value"].sum() for name in ("d1", "d1_retain"))
    if lost <= 0:
        return ["The retrained model's states cost the base nothing: no layer is shown to hold the answers."]
    text = f"The retrained model's states cost the base {lost:.2f} nats per token on forget, all layers together"
    if not (layers["measure"] == "d1_retain").any():
        return [f"{text}; what they cost on retain, which it knows, was not measured."]
    text += f", and {foreign:.2f} on retain, which it knows"
    if foreign >= lost:
        return [f"{text}: the two models do not understand each other's states, and the score says nothing here."]
    return [f"{text}: {max(foreign, 0) / lost:.0%} of the drop is a difference between the two models and no lack of "
            "these answers, so a model that has lost them and nothing else scores below 1."]
