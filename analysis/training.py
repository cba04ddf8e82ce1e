"""From a run's logs to tidy tables of its training; what was not measured is missing, never 0."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

import numpy as np
import pandas as pd

from unlearn_core import recipe as recipes
from unlearn_core.settings import Recipe, Unlearning
from unlearn_core.store import Run
from unlearn_core.vocabulary import LOSS_LABELS, LOSS_NAMES, LOSS_TERMS, METHOD_TERMS, UNLEARNED

MAX_POINTS = 2000  # per drawn line
CUT = (0.01, 0.99)  # quantiles between which the view lies where outliers are cut off
MARGIN = 0.04  # of the view's height, above and below

NOT_TRAINING = ("name", "description", "threads", "merge.", "evaluation.")  # settings that no step depends on

X_COLUMNS = ("step", "epoch", "tokens", "seconds")
BASE_COLUMNS = (*X_COLUMNS, "loss", "lr", "grad_norm", "tokens_per_second", "memory_mb")
STEP_COLUMNS = (
    *X_COLUMNS, *LOSS_TERMS, *(f"{term}_weighted" for term in LOSS_TERMS), "loss", "npo_brake",
    "forget_nll", "forget_nll_reference", "retain_nll", "retain_nll_reference",
    "lr", "grad_norm", "tokens_per_second", "memory_mb",
)
QUANTITIES = {
    "epoch": "Epoch", "tokens": "Real tokens seen", "seconds": "Time since the start (s)",
    "loss": "Total loss",
    **{f"{term}_weighted": f"{label}, weighted" for term, label in LOSS_LABELS.items()}, **LOSS_LABELS,
    "npo_brake": "NPO brake",
    "forget_nll": "Forget NLL (nats per token)", "forget_nll_reference": "Forget NLL of the reference",
    "retain_nll": "Retain NLL (nats per token)", "retain_nll_reference": "Retain NLL of the reference",
    "lr": "Learning rate", "grad_norm": "Gradient norm",
    "tokens_per_second": "Tokens per second", "memory_mb": "Memory (MiB)",
}


# ---- steps -----------------------------------------------------------------------------------------------------

def base_steps(run: Run) -> pd.DataFrame:
    """One row per optimizer step of the base's own training, columns `BASE_COLUMNS`; no rows if it was loaded."""
    return _numbers(run.steps("base"), BASE_COLUMNS)


def steps(run: Run) -> pd.DataFrame:
    """One row per optimizer step of model_1 and model_2, columns `model` and `STEP_COLUMNS`.

    Losses are means over the step's micro-batches; NLLs are nats per answer token; `tokens` counts the real tokens
    seen so far, `seconds` runs from the start of that model's training.
    """
    parts = [_numbers(run.steps(model), STEP_COLUMNS).assign(model=model) for model in UNLEARNED]
    return pd.concat(parts, ignore_index=True)[["model", *STEP_COLUMNS]]


def _numbers(rows: list[dict], columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).astype(float)


def overlay(tables: dict[str, pd.DataFrame], marks: Sequence[str] | None = None) -> pd.DataFrame:
    """Tables of several runs ({run id: table}) as one, with the columns `run` and `mark` in front.

    A mark tells a run's lines apart: by default a letter, A for the first run; "" where there is only one.
    """
    parts = [table.assign(run=name, mark=mark)
             for (name, table), mark in zip(tables.items(), marks or _letters(tables), strict=True)]
    together = pd.concat(parts, ignore_index=True)
    return together[["run", "mark", *together.columns.drop(["run", "mark"])]]


def _letters(runs: dict) -> list[str]:
    return list(ascii_uppercase[:len(runs)]) if len(runs) > 1 else [""]


def terms(steps: pd.DataFrame) -> list[str]:
    """Loss terms to look at: those of the paper's method, and further ones that a run logged."""
    return [term for term in LOSS_TERMS if term in METHOD_TERMS or steps[term].notna().any()]


def weights_in_words(settings: Unlearning) -> str:
    """"NPO 0.4, GDR 0.2, KLR 0.4": weights of the method's terms, and of others that count."""
    return ", ".join(f"{LOSS_NAMES[term]} {weight:g}" for term, weight in settings.weights.items()
                     if weight or term in METHOD_TERMS)


def loss_components(steps: pd.DataFrame, weighted: bool) -> pd.DataFrame:
    """`steps` in long form: model, the x columns, `component` (the `terms` and loss) and `value`.

    `weighted` multiplies the terms by their coefficients; `loss`, the total, is the weighted sum in either case.
    Columns `run` and `mark` of an overlay stay.
    """
    source = {term: f"{term}_weighted" if weighted else term for term in terms(steps)} | {"loss": "loss"}
    keys = steps[[column for column in ("run", "mark", "model", *X_COLUMNS) if column in steps]]
    return pd.concat([keys.assign(component=name, value=steps[column]) for name, column in source.items()],
                     ignore_index=True)


def settings_table(runs: dict[str, Recipe], marks: Sequence[str] | None = None) -> pd.DataFrame:
    """What differs in the unlearning of several runs ({run id: recipe}), as text: a row per setting.

    Columns are (model, mark), marks as in `overlay`.
    """
    columns = {(model, mark): {"seed of the run": recipe.seed} | dataclasses.asdict(getattr(recipe, model))
               for recipe, mark in zip(runs.values(), marks or _letters(runs), strict=True) for model in UNLEARNED}
    table = pd.DataFrame(columns).astype(str)
    return table[table.nunique(axis=1) > 1]


def reading(steps: pd.DataFrame, step: int) -> pd.DataFrame:
    """All numbers of one optimizer step: rows `QUANTITIES`, one column per run and model that has this step.

    `steps` is an `overlay`; a column is named by model and, among several runs, mark: ("model_1", "A").
    """
    found = steps[steps["step"] == step].drop_duplicates(["model", "mark"], keep="last")
    table = found.set_index(["model", "mark"])[[name for name in QUANTITIES if name in found]].T
    return table.rename(index=QUANTITIES)


# ---- what is drawn ---------------------------------------------------------------------------------------------

def thin(frame: pd.DataFrame, value: str, limit: int = MAX_POINTS) -> pd.DataFrame:
    """At most `limit` rows that keep the first, the last and the extremes of column `value`, in their order.

    Rows are cut into equal stretches and each gives its lowest and its highest; rows without a value are dropped.
    """
    frame = frame[frame[value].notna()].reset_index(drop=True)
    if len(frame) <= limit:
        return frame
    values, count = frame[value].to_numpy(float), limit // 2 - 1
    starts = -(-np.arange(count) * len(frame) // count)  # of each stretch; rounded up
    stretches = list(zip(starts, [*starts[1:], len(frame)], strict=True))
    keep = {0, len(frame) - 1, *(start + values[start:end].argmin() for start, end in stretches),
            *(start + values[start:end].argmax() for start, end in stretches)}
    return frame.iloc[sorted(keep)].reset_index(drop=True)


def smooth(values: pd.Series, reach: int) -> pd.Series:
    """Mean of each value and up to `reach` neighbours on either side (fewer at the ends); a gap stays a gap.

    Centred, so that nothing is shifted to the right; reach 0 gives the values themselves.
    """
    means = values.rolling(2 * reach + 1, center=True, min_periods=1).mean()
    return means.where(values.notna())


def view(values: np.ndarray, log: bool, cut: bool) -> tuple[tuple[float, float] | None, int]:
    """Limits of an axis (None: all that can be drawn fits by itself) and how many values lie outside of the view.

    A log axis has no place for values <= 0; its limits are powers of ten. `cut` leaves what lies below the 1 % or
    above the 99 % quantile out of the view.
    """
    measured = values[np.isfinite(values)]
    drawable = np.log10(measured[measured > 0]) if log else measured
    if not cut or not len(drawable):
        return None, len(measured) - len(drawable)
    low, high = np.quantile(drawable, CUT)
    margin = MARGIN * (high - low) or MARGIN
    low, high = float(low - margin), float(high + margin)
    inside = int(((drawable >= low) & (drawable <= high)).sum())
    return (low, high), len(measured) - inside


# ---- NPO alone against NPO + GDR + KLR -------------------------------------------------------------------------

def is_npo_alone(recipe: Recipe) -> bool:
    """Whether no retain term has weight in either model."""
    return all(getattr(recipe, model).gdr_weight == getattr(recipe, model).klr_weight == 0 for model in UNLEARNED)


def npo_alone(recipe: Recipe) -> Recipe:
    """The same recipe without its retain terms."""
    bare = {model: dataclasses.replace(getattr(recipe, model), gdr_weight=0.0, klr_weight=0.0) for model in UNLEARNED}
    return dataclasses.replace(recipe, name=f"{recipe.name}-npo-only", **bare)


def npo_alone_command(run: Run) -> list[str] | None:
    """Arguments of the engine that train `npo_alone` from the run's own data and base; None for a recipe of one's own.

    The recipe is told as a bundled one and what differs from it.
    """
    wanted = npo_alone(run.recipe())
    if run.recipe().name not in {path.stem for path in recipes.RECIPES.glob("*.toml")}:
        return None
    changes = [f"{name}={json.dumps(value)}" for name, _, value in
               recipes.differing(recipes.load(run.recipe().name), wanted)]
    return ["run", run.recipe().name, "--weights-of", run.id, *(part for text in changes for part in ("--set", text))]


def partners(run: Run, others: Iterable[Run]) -> list[Run]:
    """Runs to set against `run` in Fig. 3: NPO alone where it has retain terms, and the reverse.

    Those that differ in nothing but these weights come first, in the given order.
    """
    own = run.recipe()
    found = [other for other in others if other.id != run.id and is_npo_alone(other.recipe()) != is_npo_alone(own)]
    return sorted(found, key=lambda other: bool(further_differences(own, other.recipe())))


def further_differences(one: Recipe, other: Recipe) -> list[str]:
    """Dotted names of the settings, beside the weights of the retain terms, in which two trainings differ."""
    changed = (name for name, _, _ in recipes.differing(npo_alone(one), npo_alone(other)))
    return [name for name in changed if not name.startswith(NOT_TRAINING)]


def progress(steps: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """`steps` with the column `progress`: the share of the planned epochs that is done, 0 to 1."""
    planned = steps["model"].map({model: getattr(recipe, model).epochs for model in UNLEARNED}).astype(float)
    return steps.assign(progress=steps["epoch"] / planned)


def npo_start(settings: Unlearning) -> float:
    """Weighted NPO before the first update, where Delta = 0: npo_weight (2 / beta) ln 2. Its floor is 0."""
    return settings.npo_weight * 2 / settings.beta * math.log(2)
