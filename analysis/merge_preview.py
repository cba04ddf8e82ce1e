"""What a merge of two adapters would be like, from their stored sign statistics: size, directions, fate of entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.signs import BOTH_KEPT, CONFLICTS, STATES, Signs
from analysis.weights import Measured
from unlearn_core.settings import Merge
from unlearn_core.vocabulary import UNLEARNED

# Whether t1 and t2 are in the merge of an entry, for each state of `TIES_STATES`.
TAKES = {
    "ties": ((0, 0), (1, 0), (0, 1), (1, 1), (1, 0), (0, 1)),
    "linear": ((1, 1),) * 6,
    "magnitude_prune": ((0, 0), (1, 0), (0, 1), (1, 1), (1, 1), (1, 1)),
    "negmerge": ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0), (0, 0)),
}
TRIMMING = ("ties", "magnitude_prune")
LEVEL_SPACES = {"factors": ("A", "B"), "delta": ("dW",)}
SIZES = ("norm_ratio", "cosine_1", "cosine_2")
COLUMNS = ("density", "kept_1", "kept_2", "used_1", "used_2", "conflict", *STATES, *SIZES)
SMALL = 1e-8  # a sum of weights below it divides nothing, as in `merge.disjoint_merge`


@dataclass(frozen=True, eq=False)
class Pooled:
    """Sign statistics of some matrices added up.

    `sums`: {level: (densities, 6 states, 6 sums)} of the entries of A and B ("factors") or of delta W ("delta"), as
    far as measured. `gram` (densities, 4, 4) and `against` (densities, 4, 2): see `signs.factor_products`; None
    without factors. `parents` (2, 2): inner products of both updates; None where they are not known.
    """

    densities: np.ndarray
    scalings: tuple[float, float]
    sums: dict[str, np.ndarray]
    gram: np.ndarray | None
    against: np.ndarray | None
    parents: np.ndarray | None


def pooled(signs: Signs, layers: tuple[int, int] | None = None, measured: Measured | None = None) -> Pooled:
    """The statistics of the matrices of these layers (first and last), or of all (None).

    `measured`: statistics of the weights, which tell the size of the parents where delta W was left out.
    """
    rows = _rows(signs, layers)
    arrays, spaces = signs.arrays, signs.about["spaces"]
    sums = {level: sum(arrays[space][rows].sum(axis=0) for space in parts)
            for level, parts in LEVEL_SPACES.items() if set(parts) <= set(spaces)}
    gram, against = (arrays[name][rows].sum(axis=0) if name in arrays else None for name in ("gram", "against"))
    return Pooled(np.array(signs.densities), tuple(signs.about["scalings"]), sums, gram, against,
                  _parents(signs, rows, sums, measured))


def _rows(signs: Signs, layers: tuple[int, int] | None) -> np.ndarray:
    modules = signs.modules
    if layers is not None:
        modules = modules[modules["layer"].between(*layers).fillna(False).astype(bool)]
    return modules.index.to_numpy()


def _parents(signs: Signs, rows: np.ndarray, sums: dict[str, np.ndarray], measured: Measured | None,
             ) -> np.ndarray | None:
    if "delta" in sums:
        _, one, two, product, *_ = sums["delta"][0].sum(axis=0)
        return np.array([[one, product], [product, two]])
    keys = {} if measured is None else measured.about["key"]
    if any(keys.get(model) is None or keys[model] != signs.about["key"].get(model) for model in UNLEARNED):
        return None
    models = [measured.models.index(model) for model in UNLEARNED]
    places = [measured.index(signs.about["modules"][row]) for row in rows]
    return measured.arrays["inner"][np.ix_(models, models, places)].sum(axis=2)


# ---- the merge -------------------------------------------------------------------------------------------------

def over_density(found: Pooled, choice: Merge) -> pd.DataFrame:
    """One row per measured density, columns `COLUMNS`: the merge of these matrices with `choice` at that density.

    kept_i: share of the entries of a parent that trimming keeps. used_i: share that is in the merge. conflict: share
    of opposite signs in what both keep. The states: shares of all entries. norm_ratio: norm of the merge over the mean
    norm of both parents; cosine_i: of the merge with a parent. What the statistics do not tell is missing, see
    `unknown`. A method that does not trim is the same at every density.
    """
    frame = pd.DataFrame({"density": found.densities}).reindex(columns=list(COLUMNS)).astype(float)
    if choice.level in found.sums and choice.method in TAKES:
        sums = found.sums[choice.level]
        _fill_states(frame, (sums if choice.method in TRIMMING else sums[-1:])[..., 0], np.array(TAKES[choice.method]))
    if not unknown(found, choice):
        for name, values in zip(SIZES, _sizes(found, choice), strict=True):
            frame[name] = values
    return frame


def at(frame: pd.DataFrame, density: float) -> pd.Series:
    """The row of `over_density` at the measured density that is nearest."""
    return frame.loc[(frame["density"] - density).abs().idxmin()]


def unknown(found: Pooled, choice: Merge) -> str:
    """Why size and directions of a merge do not follow from the statistics, in words; "" where they do."""
    trims, elects = choice.method in TRIMMING, choice.method in ("ties", "negmerge")
    if choice.method not in TAKES:
        return "which entries it drops is drawn at random" if choice.method.startswith("dare") else \
            "concatenation is linear on delta W: choose that"
    if choice.level not in found.sums or found.parents is None:
        return "the entries of ΔW were left out of the statistics"
    if choice.level == "factors" and (choice.method != "ties" or choice.divisor not in ("usual", "count")):
        return "for a merge of factors the statistics hold only the products that TIES needs"
    if trims and (choice.trim_scope != "matrix" or choice.rescale not in ("usual", "none")):
        return "the statistics are those of trimming each matrix by itself, without rescaling"
    if elects and choice.elect == "after" and len({*choice.weights}) > 1:
        return "the statistics are those of comparing signs before weighting"
    if choice.rank:
        return "a compressed merge is smaller, by what its rank leaves out"
    return ""


def coefficients(choice: Merge) -> np.ndarray:
    """(6 states, 2): an entry of that state becomes c1 t1 + c2 t2 in a merge of delta W."""
    takes = np.array(TAKES[choice.method], float)
    weighted = takes * choice.weights
    usual = "count" if choice.method in ("ties", "negmerge") else "none"
    divisor = usual if choice.divisor == "usual" else choice.divisor
    if divisor == "none":
        return weighted
    if choice.method == "ties":
        share = (takes if divisor == "count" else weighted).sum(axis=1)
    else:
        share = np.full(len(takes), 2.0 if divisor == "count" else sum(choice.weights))
    return weighted / np.where(np.abs(share) < SMALL, 1, share)[:, None]


def _fill_states(frame: pd.DataFrame, counts: np.ndarray, takes: np.ndarray) -> None:
    """`counts` (densities, 6), or (1, 6) for all of them."""
    total = counts.sum(axis=1)
    both = counts[:, BOTH_KEPT].sum(axis=1)
    with np.errstate(invalid="ignore"):
        columns = dict(zip(STATES, (counts / total[:, None]).T, strict=True))
        columns["conflict"] = counts[:, CONFLICTS].sum(axis=1) / both
        for number, alone in enumerate((1, 2)):
            columns[f"kept_{number + 1}"] = (counts[:, alone] + both) / total
            columns[f"used_{number + 1}"] = counts @ takes[:, number] / total
    for name, values in columns.items():
        frame[name] = values if len(values) == len(frame) else values[0]


def _sizes(found: Pooled, choice: Merge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """norm_ratio, cosine_1, cosine_2, each (densities,)."""
    if choice.level == "factors":
        square, against = _of_factors(found, choice)
    else:
        square, against = _of_deltas(found.sums["delta"], choice)
    size, parents = np.sqrt(np.maximum(square, 0)), np.sqrt(found.parents.diagonal())
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.clip(against / (size[:, None] * parents), -1, 1)
        return size / parents.mean(), *cosines.T


def _of_deltas(sums: np.ndarray, choice: Merge) -> tuple[np.ndarray, np.ndarray]:
    one, two = coefficients(choice).T
    sums = sums if choice.method in TRIMMING else np.broadcast_to(sums[-1:], sums.shape)
    _, t11, t22, t12, *_ = np.moveaxis(sums, 2, 0)
    square = t11 @ one**2 + t22 @ two**2 + 2 * t12 @ (one * two)
    return square, np.stack([t11 @ one + t12 @ two, t12 @ one + t22 @ two], axis=1)


def _of_factors(found: Pooled, choice: Merge) -> tuple[np.ndarray, np.ndarray]:
    """PEFT's dialect: B'_i A'_j with the root of |w_i s_i| |w_j s_j| and the sign of w_j s_j."""
    scaled = np.array(choice.weights) * found.scalings
    roots = np.sqrt(np.abs(scaled))
    products = np.outer(roots, np.copysign(roots, scaled)).ravel()
    return np.einsum("i,dij,j->d", products, found.gram, products), products @ found.against


# ---- places ----------------------------------------------------------------------------------------------------

def nearest_mix(found: Pooled, norm_ratio: float, cosines: tuple[float, float]) -> tuple[float, float] | None:
    """(w1, w2) of the point w1 delta W_1 + w2 delta W_2 that is nearest to a merge of this size and direction.

    None where the parents are not known or parallel.
    """
    if found.parents is None:
        return None
    sizes = np.sqrt(found.parents.diagonal())
    inner = np.array(cosines) * norm_ratio * sizes.mean() * sizes
    if np.linalg.matrix_rank(found.parents) < 2 or not np.isfinite(inner).all():
        return None
    first, second = np.linalg.solve(found.parents, inner)
    return float(first), float(second)


def layer_range(signs: Signs) -> tuple[int, int] | None:
    """First and last layer; None where there is only one, or none."""
    layers = signs.modules["layer"].dropna()
    return (int(layers.min()), int(layers.max())) if layers.nunique() > 1 else None
