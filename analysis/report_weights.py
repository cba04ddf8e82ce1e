"""Sections of a report on the weights: where and in which direction they moved, and where the models conflict."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis import (
    ablations,
    ablations_figures,
    signs,
    signs_figures,
    theme,
    weight_angles,
    weights,
    weights_figures,
)
from analysis.report_material import Material
from analysis.report_parts import Missing, Part, Says, chart
from analysis.weights import Measured
from unlearn_core.trials import halves
from unlearn_core.vocabulary import SPACES, TIES_STATES

RATE = ("Conflict rate: of what both models keep, the share in which their signs are opposite; two independent random "
        "directions have 0.5.")
STATES = {"conflict": "Conflict rate", "won_by_1": "Won by Model 1", **TIES_STATES}
PARTS = ("layer", "module", "sign")  # kinds of parts whose removal the report shows


# ---- weights ---------------------------------------------------------------------------------------------------

def show(found: Material) -> Iterator[Part]:
    """Where each model changed the weights and in which direction, and the merge without parts, as on Weights."""
    if found.brought:
        yield found.untrained("are no adapters whose changes could be shown")
        return
    yield found.said("weights")
    measured = weights.read(found.run)
    if measured is None:
        yield Missing("The weight changes have not been measured.", found.command("weights"))
    else:
        yield from _stale(found, weights.stale(found.run, measured.about))
        yield from _where(found, measured)
        yield from _directions(found, measured)
    yield from _without(found)


def _stale(found: Material, models: list[str]) -> Iterator[Part]:
    if models:
        yield Missing(f"What follows was measured before the adapter of {weights.named(models)} was made or changed.",
                      found.command("weights"))


def _where(found: Material, measured: Measured) -> Iterator[Part]:
    frame = weights.where(measured)
    value, matrices = weights.measure(frame), weights.by_matrix(measured)
    label = weights.MEASURES[value]
    n = f"n = {len(measured.modules)} matrices of each model. {found.seed}"
    yield chart("where", "Where did each model change, and is it the same place?", weights_figures.where_map(frame),
                matrices, alt=f"{label} of every matrix by layer and module type, a panel per model",
                columns={"module": "Matrix", **{name: theme.short_label(name) for name in measured.models}},
                caption=f"{n} {label}, Frobenius norms. All panels have the same limits.")
    layers, kinds = weights.profile(frame, "group"), weights.profile(frame, "type")
    yield chart("profile", "Do early or late layers change more, and which kind of matrix?",
                weights_figures.profile(layers, kinds, value),
                pd.concat([layers.assign(by="layer"), kinds.assign(by="module type")], ignore_index=True),
                columns={"model": "Model", "by": "By", "group": "Layer or type", "mean": f"Mean {label}",
                         "modules": "Matrices"},
                alt=f"Mean {label} over the layers and per module type, for each model",
                caption=f"{n} Plain means over matrices, whatever their size.")


def _directions(found: Material, measured: Measured) -> Iterator[Part]:
    if len(measured.models) < 2:
        return
    frame = weight_angles.model_angles(measured)
    whole = frame[frame["group"] == "all"]
    words = "; ".join(f"{theme.short_label(row.first)} and {theme.short_label(row.second)} {row.angle:.1f}°"
                      for row in whole.itertuples())
    shown = frame.assign(first=frame["first"].map(theme.short_label), second=frame["second"].map(theme.short_label))
    names = {"first": "Model", "second": "and", "group": "Layer", "angle": "Angle (°)", "spread": "Random 90 ± (°)"}
    yield chart("angles", "Do both models pull the same way, and which one does the merge follow?",
                        weights_figures.model_angles(frame, "Layer"), shown, columns=names,
                        alt="Angles between the weight changes of the models, over all matrices and per layer",
                        caption=f"{found.seed} Angle between their ΔW as one long vector. Over all matrices: {words}. "
                                "Grey: where 95 % of random directions lie.")


def _without(found: Material) -> Iterator[Part]:
    frame, about = ablations.table(found.run), found.run.ablations()
    kinds = [kind for kind in ablations.kinds(frame) if kind in PARTS and "remove" in ablations.modes(frame, kind)]
    if not kinds:
        yield Missing("What the merge does without a part of it has not been measured.",
                      found.command("ablate", "--parts", "layer", "module", "sign", "--draws", "3"))
        return
    base = ablations.whole(frame)
    for kind in kinds:
        own = ablations.compared(frame, kind, "remove")
        yield Says(tuple(ablations.describe(own, base)))
        yield chart(f"without_{kind}", f"{ablations.KINDS[kind]}: does it matter where the weights changed?",
                    ablations_figures.effects(own, base), own,
                    columns={"label": "Part", "norm_share": "Share of the norm",
                             **{name: ablations.MEASURES[name] for name in ablations.MEASURES}},
                    alt="Scores with each part of the merge removed, beside random parts of its size",
                    caption=f"n = {len(own)} parts, each removed, {halves.scored_on(about)}. {found.seed} Dotted: the "
                            "whole merge. Grey: random parts of the same size.")


# ---- conflicts -------------------------------------------------------------------------------------------------

def conflicts(found: Material) -> Iterator[Part]:
    """What TIES does to every entry at the run's density, as on Sign conflicts."""
    if found.brought:
        yield found.untrained("are no two adapters to compare")
        return
    yield found.said("conflicts")
    measured = signs.read(found.run)
    if measured is None:
        yield Missing("The signs of the weight changes have not been compared.", found.command("weights"))
        return
    yield from _stale(found, signs.stale(found.run, measured.about))
    space = [space for space in SPACES if space in measured.about["spaces"]][-1]
    density = measured.about["excerpt_density"]
    totals = signs.over_density(measured, space, "count")
    entries = measured.counted(space, "count")[:, 0].sum()
    about = (f"n = {len(measured.about['modules'])} matrices, {entries:,.0f} entries of {signs.SPACE_LABELS[space]}. "
             f"{found.seed} Density {density:g}; each entry counts 1.")
    layers, kinds = (signs.pooled(measured, space, density, "count", by) for by in ("group", "type"))
    yield chart("states", "What does TIES do to the entries, and how many are in conflict?",
                signs_figures.state_bars(layers, kinds),
                pd.concat([layers.assign(by="layer"), kinds.assign(by="module type")], ignore_index=True),
                columns={"by": "By", "group": "Layer or type", **STATES},
                alt="Shares of the six states of a TIES merge, stacked per layer and per module type",
                caption=f"{about} Each entry is in exactly one state. Striped: both models keep it with opposite "
                        "signs, and the larger magnitude wins.")
    yield from _conflict_maps(signs.matrices(measured, space, density, "count"), about)
    yield chart("density", "Do large entries conflict less than small ones?",
                signs_figures.over_density(totals, density), totals,
                columns={"group": "Matrices", "density": "Density", "conflict": STATES["conflict"]},
                alt="Conflict rate over density, for all matrices and per module type",
                caption=f"{about} {RATE} Dashed: the density of the run.")


def _conflict_maps(frame: pd.DataFrame, about: str) -> Iterator[Part]:
    columns = {"module": "Matrix", "conflict": STATES["conflict"], "won_by_1": STATES["won_by_1"]}
    yield chart("where", "Where do the two models pull in opposite directions?", signs_figures.conflict_map(frame),
                frame, columns=columns, alt="Conflict rate of every matrix by layer and module type",
                caption=f"{about} {RATE}")
    yield chart("winner", "Who wins the conflicts?", signs_figures.winner_map(frame), frame, columns=columns,
                alt="Share of the conflicts that Model 1 wins, by layer and module type",
                caption=f"{about} Share of the conflicts that Model 1 wins, which is where its magnitude is larger.")
