"""The method's loss in numbers: NPO and its brake as formulas, what stands for which setting, what a run went through.

The formulas are those of `unlearn_core.training.losses` at one Delta. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pandas as pd

from analysis import theme, training
from analysis.weights import Measured
from unlearn_core.settings import Merge, Recipe, Unlearning
from unlearn_core.vocabulary import LOSS_NAMES, LOSS_TERMS, MERGE_LABELS, METHOD_TERMS, UNLEARNED

CURVE_COLUMNS = ("delta", "npo", "ascent", "brake")
POINT_COLUMNS = ("model", "when", "step", "delta")
POINTS = 301  # of a curve
FIRST, LAST = "first step", "last step"
SYMBOLS = {"npo_weight": "λ_NPO", "gdr_weight": "λ_GDR", "klr_weight": "λ_KLR", "beta": "β", "npo_reduction": "Δ",
           "klr_positions": "N", "epochs": "", "lr": "", "batch_size": ""}  # by the setting of a model that each one is
READ = {"loss": "Total, weighted", "forget_nll": "NLL of forget", "forget_nll_reference": "NLL of forget, reference",
        "retain_nll": "NLL of retain", "retain_nll_reference": "NLL of retain, reference", "npo_brake": "Brake"}


# ---- NPO -------------------------------------------------------------------------------------------------------

def npo(delta: np.ndarray, beta: float) -> np.ndarray:
    """-(2 / beta) log sigmoid(beta Delta) (Zhang et al. 2024, arXiv 2404.05868), finite for any Delta."""
    return 2 / beta * np.logaddexp(0, -beta * np.asarray(delta, float))


def brake(delta: np.ndarray, beta: float) -> np.ndarray:
    """2 sigmoid(-beta Delta): minus the slope of `npo`, which is the share of plain gradient ascent that is left."""
    return 2 * np.exp(-np.logaddexp(0, beta * np.asarray(delta, float)))


def ascent(delta: np.ndarray, beta: float) -> np.ndarray:
    """Plain gradient ascent, -Delta, raised so that it starts where NPO does: NPO's tangent at Delta = 0."""
    return 2 / beta * math.log(2) - np.asarray(delta, float)


def delta_of(brake: float, beta: float) -> float:
    """The Delta at which `brake` has this value; nan for what no Delta has."""
    return math.log(2 / brake - 1) / beta if 0 < brake < 2 else math.nan


def curves(beta: float, low: float, high: float) -> pd.DataFrame:
    """NPO, ascent and brake from one Delta to another, columns `CURVE_COLUMNS`."""
    delta = np.linspace(low, high, POINTS)
    return pd.DataFrame({"delta": delta, "npo": npo(delta, beta), "ascent": ascent(delta, beta),
                         "brake": brake(delta, beta)})


# ---- settings and runs -----------------------------------------------------------------------------------------

def symbols(recipe: Recipe) -> pd.DataFrame:
    """A row per setting that the loss reads: symbol, setting, its value in both models, meaning; further terms are
    among them where they have weight."""
    models = {theme.short_label(model): getattr(recipe, model) for model in UNLEARNED}
    further = [f"{term}_weight" for term in LOSS_TERMS if term not in METHOD_TERMS
               and any(own.weights[term] for own in models.values())]
    help = {field.name: field.metadata["help"] for field in fields(Unlearning)}
    return pd.DataFrame([{"Symbol": SYMBOLS.get(name, ""), "Setting": name,
                          **{label: str(getattr(own, name)) for label, own in models.items()}, "Meaning": help[name]}
                         for name in (*SYMBOLS, *further)])


def points(steps: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Where each model began and ended on NPO's curve, columns `POINT_COLUMNS`; models without a logged brake are left
    out. `steps` is `training.steps`.

    Delta is the one that gives the logged brake, so it is right for every `npo_reduction`.
    """
    rows = []
    for model in UNLEARNED:
        own = steps[(steps["model"] == model) & steps["npo_brake"].notna()]
        for when, row in zip((FIRST, LAST), (own.head(1), own.tail(1)), strict=True):
            for step, value in zip(row["step"], row["npo_brake"], strict=True):
                rows.append((model, when, int(step), delta_of(value, getattr(recipe, model).beta)))
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS)).dropna()


def first_and_last(steps: pd.DataFrame) -> pd.DataFrame:
    """The bare loss terms and `READ` at the first and the last step of each model that was trained: a row per number, a
    column per model and step. `steps` is `training.steps`."""
    rows, columns = {term: LOSS_NAMES[term] for term in training.terms(steps)} | READ, {}
    for model in UNLEARNED:
        own = steps[steps["model"] == model]
        for values in [*own.head(1).to_dict("records"), *own.tail(1).to_dict("records")]:
            columns[f"{theme.short_label(model)}, step {values['step']:.0f}"] = [values[key] for key in rows]
    return pd.DataFrame(columns, index=list(rows.values()), dtype=float)


def starts(recipe: Recipe) -> str:
    """Where weighted NPO starts in each model, in a sentence."""
    said = []
    for model in UNLEARNED:
        own = getattr(recipe, model)
        said.append(f"{theme.short_label(model)}: {own.npo_weight:g} × (2 / {own.beta:g}) ln 2 = "
                    f"{training.npo_start(own):.3f}")
    return f"At Δ = 0 weighted NPO is {'; '.join(said)}. Its floor is 0."


# ---- the merge -------------------------------------------------------------------------------------------------

def sizes(measured: Measured | None) -> dict[str, float]:
    """{model: norm of its whole change of the weights} of what was measured."""
    if measured is None:
        return {}
    return {model: float(np.sqrt((norms.astype(float) ** 2).sum()))
            for model, norms in zip(measured.models, measured.arrays["norm"], strict=True)}


def sizes_in_words(norms: Mapping[str, float]) -> str:
    """Norms of the parents and of the merge, and their ratio; what was not measured is named."""
    if not norms:
        return "Norms of the changes: not measured."
    said = [f"{theme.short_label(model)} " + (f"{norms[model]:.3g}" if model in norms else "not measured")
            for model in (*UNLEARNED, "merged")]
    parents, ratio = sum(norms.get(model, math.nan) for model in UNLEARNED) / 2, ""
    if parents > 0 and "merged" in norms:
        ratio = f" Norm ratio: {norms['merged'] / parents:.3f}."
    return f"Norms of the changes: {', '.join(said)}.{ratio}"


def merge_in_words(choice: Merge) -> str:
    """How a recipe merges."""
    level = {"factors": "on the factors A and B, each apart", "delta": "on the changes ΔW"}[choice.level]
    return (f"{MERGE_LABELS[choice.method]} {level}, density {choice.density:g}, weights "
            f"{' and '.join(f'{weight:g}' for weight in choice.weights)}")
