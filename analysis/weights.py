"""From the statistics of a run's weight changes to tidy tables: where, in which direction, how concentrated.

Angles are in degrees, norms are Frobenius norms, and "relative" is ||delta W|| / ||W||.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis import theme
from unlearn_core.errors import InputError
from unlearn_core.store import Run

SCHEMA = 1
TYPE_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENERGY = 0.9  # share for which the number of directions is told
MEASURES = {"relative": "||ΔW|| / ||W||", "norm": "||ΔW||"}
MODULE_COLUMNS = ("module", "layer", "type", "group", "rows", "columns")


@dataclass(frozen=True, eq=False)
class Measured:
    """`geometry.statistics` and `geometry.split_products` of a run, and what they are about (see `weights.measure`)."""

    arrays: dict[str, np.ndarray]
    about: dict

    @property
    def models(self) -> list[str]:
        """Names of the adapters, in the order of their axis."""
        return self.about["adapters"]

    @cached_property
    def modules(self) -> pd.DataFrame:
        """One row per module, columns `MODULE_COLUMNS` and `type_rank`, indexed by the place on its axis and sorted by
        layer and type; `group` is the layer as text, and of a module outside of all layers its name."""
        frame = pd.DataFrame({"module": self.about["modules"]})
        places = [place(name) for name in frame["module"]]
        frame["layer"] = pd.array([layer for layer, _ in places], dtype="Int64")
        frame["type"] = _shortest([kind for _, kind in places])
        frame["group"] = frame["layer"].astype("string").fillna(frame["type"]).astype(str)
        frame[["rows", "columns"]] = np.array(self.about["shapes"]).reshape(-1, 2)
        order = {kind: number for number, kind in enumerate(module_types(frame["type"]))}
        frame["type_rank"] = frame["type"].map(order)
        return frame.sort_values(["layer", "type_rank"], na_position="last", kind="stable")

    def chosen(self, types: list[str] | None) -> pd.DataFrame:
        """The rows of `modules` of these types; None: of all."""
        return self.modules if types is None else self.modules[self.modules["type"].isin(types)]

    def index(self, module: str) -> int:
        """Place of a module on its axis."""
        return self.about["modules"].index(module)


def read(run: Run) -> Measured | None:
    """What was measured; None where nothing was, an InputError where it is not what this version writes."""
    arrays, about = run.arrays("weights")
    if not about:
        return None
    if not _is_whole(arrays, about):
        raise InputError(f"statistics of the weights of {run.id}", got="not what this version writes",
                         expected=f"schema {SCHEMA}, with arrays of the sizes that it names",
                         fix=f"measure again: python -m unlearn_core weights {run.id}")
    return Measured(arrays, about)


def _is_whole(arrays: dict[str, np.ndarray], about: dict) -> bool:
    try:
        size = len(about["adapters"]), len(about["modules"])
        expected = {"norm": size, "base_norm": size[1:], "inner": (size[0], *size), "singular_values": (*size, 64)}
        expected |= {f"checkpoints/{model}/{level}": (len(steps), size[1], 3)
                     for model, steps in about["steps"].items() for level in ("delta", "factors")}
        if about["entries"]:
            bins = arrays["histogram"].shape[-1]
            expected |= {"histogram": (*size, bins), "histogram_edges": (size[1], bins + 1), "largest": size,
                         "map": (*size, 32, 32)}
        return (about["schema"] == SCHEMA and isinstance(about["key"], dict) and len(about["shapes"]) == size[1]
                and set(about["ranks"]) == set(about["adapters"])
                and all(arrays[name].shape == shape for name, shape in expected.items()))
    except (KeyError, TypeError, AttributeError, IndexError):
        return False


def stale(run: Run, about: dict) -> list[str]:
    """Models whose adapter is not the one that was measured, or was not measured; an adapter that is gone is not."""
    return [model for model, key in run.adapter_keys().items() if about["key"].get(model) != key]


# ---- modules -------------------------------------------------------------------------------------------------

def place(module: str) -> tuple[int | None, str]:
    """(layer, module type): model.layers.3.self_attn.q_proj -> (3, self_attn.q_proj), lm_head -> (None, lm_head).

    The layer is the first part of the name that is a number.
    """
    found = re.fullmatch(r"(?:.*?\.)??(\d+)\.(.+)", module)
    return (int(found[1]), found[2]) if found else (None, module)


def _shortest(types: list[str]) -> list[str]:
    """The last part of each type where it tells all types apart, else the whole."""
    ends: dict[str, set[str]] = {}
    for kind in types:
        ends.setdefault(kind.split(".")[-1], set()).add(kind)
    return [end if len(ends[end := kind.split(".")[-1]]) == 1 else kind for kind in types]


def module_types(types: pd.Series) -> list[str]:
    """Distinct module types: attention, then MLP, then what else there is."""
    names = TYPE_ORDER
    return sorted(types.unique(), key=lambda kind: (names.index(kind) if kind in names else len(names), kind))


# ---- where -----------------------------------------------------------------------------------------------------

def where(measured: Measured, types: list[str] | None = None) -> pd.DataFrame:
    """One row per model and module: model, `MODULE_COLUMNS`, norm, base_norm, relative (missing where that is)."""
    modules = measured.chosen(types)
    frames = [modules[list(MODULE_COLUMNS)].assign(
        model=model, norm=measured.arrays["norm"][number][modules.index],
        base_norm=measured.arrays["base_norm"][modules.index]) for number, model in enumerate(measured.models)]
    frame = pd.concat(frames, ignore_index=True)
    frame["relative"] = frame["norm"] / frame["base_norm"].where(frame["base_norm"] > 0)
    return frame[["model", *MODULE_COLUMNS, "norm", "base_norm", "relative"]]


def measure(frame: pd.DataFrame) -> str:
    """"relative" where every base norm is known, else "norm". `frame` is `where`."""
    return "relative" if frame["relative"].notna().all() else "norm"


def difference(frame: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """`measure` of the first model minus that of the second, as `difference`: one row per module. `frame`: `where`."""
    value = measure(frame)
    one, two = (frame[frame["model"] == model].reset_index(drop=True) for model in (first, second))
    return one[list(MODULE_COLUMNS)].assign(difference=one[value] - two[value])


def profile(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean of `measure` over the modules of a layer (by "group") or of a module type (by "type"): model, group, mean,
    modules (how many). `frame` is `where`, whose order of groups is kept."""
    value = measure(frame)
    grouped = frame.assign(group=frame[by]).groupby(["model", "group"], sort=False)[value]
    result = grouped.agg(["mean", "size"]).rename(columns={"size": "modules"}).reset_index()
    return result if by == "group" else _by_type(result)


def _by_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by the usual order of module types within each model."""
    order = {kind: number for number, kind in enumerate(module_types(frame["group"]))}
    return frame.sort_values("group", key=lambda kinds: kinds.map(order), kind="stable", ignore_index=True)


# ---- one matrix ------------------------------------------------------------------------------------------------

def matrices(measured: Measured, types: list[str] | None = None) -> pd.DataFrame:
    """One row per model and module: the columns of `where`, stable_rank (||delta W||_F^2 / ||delta W||_2^2),
    directions (how many hold 90 % of the energy; missing where the stored ones hold less) and largest (magnitude)."""
    frame, modules = where(measured, types), measured.chosen(types)
    values = measured.arrays["singular_values"][:, modules.index].astype(float)
    values = values.reshape(-1, values.shape[-1])
    squares = frame["norm"].to_numpy() ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.cumsum(values**2, axis=1) / squares[:, None]
        frame["stable_rank"] = squares / values[:, 0] ** 2
    enough = share >= ENERGY
    frame["directions"] = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, np.nan)
    if "largest" in measured.arrays:
        frame["largest"] = measured.arrays["largest"][:, modules.index].ravel()
    return frame


def angle(product: np.ndarray, first_square: np.ndarray, second_square: np.ndarray) -> np.ndarray:
    """Angle in degrees (0 to 180) from an inner product and two squared norms; missing where a norm is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = product / np.sqrt(first_square * second_square)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def by_matrix(measured: Measured, types: list[str] | None = None) -> pd.DataFrame:
    """One row per module and one column per model: `measure` of its update, beside module, layer and type."""
    frame = where(measured, types)
    wide = frame.pivot(index="module", columns="model", values=measure(frame))[measured.models]
    places = measured.chosen(types)[["module", "layer", "type"]]
    return places.merge(wide, left_on="module", right_index=True).reset_index(drop=True)


def detail(measured: Measured, module: str) -> pd.DataFrame:
    """One row per model of a matrix: the numbers of `matrices`, and its angle to each other model as angle_<model>."""
    frame, inner = matrices(measured), measured.arrays["inner"][:, :, measured.index(module)]
    frame = frame[frame["module"] == module].drop(columns=list(MODULE_COLUMNS)).reset_index(drop=True)
    squares = inner.diagonal()
    angles = angle(inner, squares[:, None], squares[None, :])
    np.fill_diagonal(angles, 0)
    return frame.assign(**{f"angle_{model}": angles[:, number] for number, model in enumerate(measured.models)})


def spectrum(measured: Measured, module: str) -> pd.DataFrame:
    """Singular values of a matrix, without those that are 0: model, k (from 1), value, energy (share of ||delta W||^2
    in the first k)."""
    at, frames = measured.index(module), []
    for number, model in enumerate(measured.models):
        values = measured.arrays["singular_values"][number, at].astype(float)
        values = values[values > 0]
        square = measured.arrays["norm"][number, at] ** 2
        frames.append(pd.DataFrame({"model": model, "k": np.arange(1, len(values) + 1), "value": values,
                                    "energy": np.minimum(np.cumsum(values**2) / square, 1.0) if square else values}))
    return pd.concat(frames, ignore_index=True)


def energy_of_first(frame: pd.DataFrame, first: int) -> dict[str, float]:
    """Share of energy in the first so many directions of each model; 1 where there are fewer. `frame`: `spectrum`."""
    return frame[frame["k"] <= first].groupby("model", sort=False)["energy"].max().to_dict()


def histogram(measured: Measured, module: str) -> pd.DataFrame | None:
    """Entries of a matrix in bins: model, left, right, count, share; the outer bins hold all that lies beyond.

    None where no entries were taken.
    """
    if not measured.about["entries"]:
        return None
    at = measured.index(module)
    edges, counts = measured.arrays["histogram_edges"][at], measured.arrays["histogram"][:, at]
    return pd.concat([pd.DataFrame({"model": model, "left": edges[:-1], "right": edges[1:], "count": own,
                                    "share": own / own.sum()})
                      for model, own in zip(measured.models, counts, strict=True)], ignore_index=True)


def blocks(measured: Measured, module: str) -> pd.DataFrame | None:
    """Root mean square of each of 32 x 32 blocks of a matrix: model, row, column, value; None without entries."""
    if not measured.about["entries"]:
        return None
    maps = measured.arrays["map"][:, measured.index(module)]
    row, column = (place.ravel() for place in np.indices(maps.shape[1:]))
    return pd.concat([pd.DataFrame({"model": model, "row": row, "column": column, "value": own.ravel()})
                      for model, own in zip(measured.models, maps, strict=True)], ignore_index=True)


# ---- words -----------------------------------------------------------------------------------------------------

def clicked(selection: object) -> str | None:
    """Name of the module of a click on a map, from what Streamlit tells of a selection."""
    points = (selection or {}).get("selection", {}).get("points", [])
    data = points[0].get("customdata") if points else None
    return (data[0] if isinstance(data, list) else data) or None


def largest_change(measured: Measured, types: list[str] | None = None) -> str:
    """The module that the last of the models (the merged one, where it was measured) changes most."""
    frame = where(measured, types)
    own = frame[frame["model"] == measured.models[-1]]
    return own.loc[own[measure(frame)].idxmax(), "module"]


def named(models: list[str]) -> str:
    """Models by their short labels, in a sentence."""
    return " and ".join(filter(None, [", ".join(map(theme.short_label, models[:-1])), theme.short_label(models[-1])]))
