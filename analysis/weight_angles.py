"""Angles between a run's weight changes: between models, and between the parts of a training (Fig. 4 of the paper).

Angles are in degrees, norms are Frobenius norms.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from analysis import trajectory
from analysis.weights import Measured, angle, module_types
from unlearn_core.vocabulary import UNLEARNED

RANDOM_SHARE = 1.96  # standard deviations between which 95 % of random directions lie
LEVELS = {"delta": "ΔW", "factors": "factors A and B"}
PAIRS = {"before_after": "0→s and s→end", "before_whole": "0→s and 0→end", "after_whole": "s→end and 0→end"}
NORMS = {"before": "0→s", "after": "s→end", "whole": "0→end"}


def random_dimension(rows: np.ndarray, columns: np.ndarray, rank: int) -> np.ndarray:
    """Effective dimension of the update B A of random B (rows, rank) with a common random A (rank, columns).

    The cosine of two such updates has mean 0 and variance 1 / dimension = (1/rank + 1/columns) / rows: as LoRA begins,
    both have the same input side and only the output sides differ. Of two A drawn apart it would be rows x columns,
    so this one is the more careful baseline.
    """
    return np.asarray(rows) / (1 / rank + 1 / np.asarray(columns))


def random_spread(first_square: np.ndarray, second_square: np.ndarray, dimension: np.ndarray) -> float:
    """Degrees on either side of 90 between which 95 % of random directions lie, for several modules of these squared
    norms taken together: the variances of their inner products add up."""
    whole = first_square.sum() * second_square.sum()
    if not whole:
        return np.nan
    variance = (first_square * second_square / dimension).sum() / whole
    return float(np.degrees(np.arcsin(min(1.0, RANDOM_SHARE * np.sqrt(variance)))))


def groups(modules: pd.DataFrame, by: str) -> list[tuple[str, np.ndarray]]:
    """(name, places on the module axis) of each layer (by "group") or module type (by "type"), and of "all", first."""
    names = module_types(modules["type"]) if by == "type" else modules[by].unique()
    found = [(name, modules.index[modules[by] == name].to_numpy()) for name in names]
    return [("all", modules.index.to_numpy()), *found]


def model_angles(measured: Measured, by: str = "group", types: list[str] | None = None) -> pd.DataFrame:
    """Angle between the updates of each two models, over all modules ("all") and per group: first, second, group,
    angle, spread (of random directions, see `random_spread`), modules."""
    modules, inner = measured.chosen(types), measured.arrays["inner"]
    rows = []
    for (i, one), (j, two) in combinations(enumerate(measured.models), 2):
        dimension = _dimension(measured, min(measured.about["ranks"][one], measured.about["ranks"][two]))
        for name, at in groups(modules, by):
            squares = inner[i, i, at], inner[j, j, at]
            rows.append({
                "first": one, "second": two, "group": name, "modules": len(at),
                "angle": angle(inner[i, j, at].sum(), squares[0].sum(), squares[1].sum()),
                "spread": random_spread(*squares, dimension[at])})
    return pd.DataFrame(rows, columns=["first", "second", "group", "modules", "angle", "spread"])


def _dimension(measured: Measured, rank: int, level: str = "delta") -> np.ndarray:
    """Effective dimension of a random direction in each module, in the order of their axis."""
    rows, columns = np.array(measured.about["shapes"]).reshape(-1, 2).T
    return random_dimension(rows, columns, rank) if level == "delta" else rank * (rows + columns)


def changes(measured: Measured, model: str, step: int, level: str = "delta", by: str = "group",
            types: list[str] | None = None) -> pd.DataFrame:
    """Parameter changes of a training that is split at checkpoint `step` (Fig. 4 of the paper), over all modules and
    per group: group, modules, norms `NORMS`, angles `PAIRS`, spread (of random directions)."""
    modules = measured.chosen(types)
    parts = measured.arrays[f"checkpoints/{model}/{level}"][measured.about["steps"][model].index(step)]
    dimension = _dimension(measured, measured.about["ranks"][model], level)
    rows = [{"group": name, "modules": len(at), **split(parts[at].sum(axis=0)),
             "spread": random_spread(parts[at, 0], parts[at, 1], dimension[at])} for name, at in groups(modules, by)]
    return pd.DataFrame(rows, columns=["group", "modules", *NORMS, *PAIRS, "spread"])


def split(parts: np.ndarray) -> dict[str, float]:
    """Norms and angles of the three changes from ||0->s||^2, ||s->end||^2 and their inner product.

    0->end is the sum of the parts, so its angles to them add up to the angle between the parts.
    """
    before, after, both = parts
    whole = max(before + after + 2 * both, 0.0)
    return {"before": np.sqrt(before), "after": np.sqrt(after), "whole": np.sqrt(whole),
            "before_after": angle(both, before, after), "before_whole": angle(before + both, before, whole),
            "after_whole": angle(after + both, after, whole)}


def over_splits(measured: Measured, model: str, level: str = "delta", types: list[str] | None = None) -> pd.DataFrame:
    """`changes` over all chosen modules for every possible split: step, `NORMS`, `PAIRS`."""
    at, parts = measured.chosen(types).index, measured.arrays[f"checkpoints/{model}/{level}"]
    rows = [{"step": step, **split(parts[number, at].sum(axis=0))}
            for number, step in enumerate(measured.about["steps"][model])]
    return pd.DataFrame(rows, columns=["step", *NORMS, *PAIRS]).dropna(ignore_index=True)


def split_steps(measured: Measured, model: str) -> list[int]:
    """Checkpoints at which a training can be split: on both sides something has changed."""
    return over_splits(measured, model)["step"].astype(int).tolist() if model in measured.about["steps"] else []


def default_split(measured: Measured, scored: pd.DataFrame, model: str) -> tuple[int, str]:
    """The step to split at, and why: the turning point where scores tell one, else the checkpoint nearest the middle.

    `scored` is `trajectory.checkpoints` of the run.
    """
    steps = split_steps(measured, model)
    turn = trajectory.turning_point(scored, model) if len(scored) else None
    if turn in steps:
        return turn, "the turning point: the lowest mean retain score"
    middle = measured.about["steps"][model][-1] / 2
    why = "no turning point was scored" if turn is None else f"the lowest mean retain score is at an end, step {turn}"
    return min(steps, key=lambda step: abs(step - middle)), f"the checkpoint nearest the middle, since {why}"


def trained(measured: Measured) -> list[str]:
    """Models whose training can be split."""
    return [model for model in UNLEARNED if split_steps(measured, model)]
