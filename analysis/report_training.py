"""Sections of a report on the way to the model: losses and scores over the training, and the merge."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis import (
    balancing,
    balancing_figures,
    locked,
    merge_preview,
    merging,
    merging_figures,
    signs,
    theme,
    training,
    training_figures,
    trajectory,
    trajectory_figures,
    weights,
)
from analysis.report_material import Material
from analysis.report_parts import Missing, Part, Says, chart, rows, table
from unlearn_core.trials import halves
from unlearn_core.vocabulary import MERGE_LABELS, UNLEARNED

CHECKPOINT = {"model": "Model", "step": "Step", "epoch": "Epoch", "task_aggregate": "Task Aggregate",
              "mia_auc": "MIA AUC", "mia_score": "MIA score", "forget": "Mean forget", "retain": "Mean retain"}
NLL = {"model": "Model", "step": "Step", "epoch": "Epoch", "forget_nll": "Forget NLL",
       "forget_nll_reference": "Forget NLL, reference", "retain_nll": "Retain NLL",
       "retain_nll_reference": "Retain NLL, reference"}
MERGES = {"name": "Merge", "task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC", "mia_auc_low": "AUC low",
          "mia_auc_high": "AUC high", "forget": "Mean forget", "retain": "Mean retain", "norm_ratio": "Norm ratio"}
METHODS = {"name": "Method", "scale": "Scale", "rank": "Rank", **dict(list(MERGES.items())[1:]),
           "cosine_1": "Cosine to Model 1", "cosine_2": "Cosine to Model 2"}
FAMILIES = {"family": "Family", "configurations": "Tried", "chosen": "Chosen", "task_aggregate": "Task Aggregate",
            "mia_auc": "MIA AUC", "difference": "Less the merge's", "low": "Low", "high": "High"}
FACTS = {"norm_ratio": "Norm ratio: ||ΔW of the merge|| / mean ||ΔW of a parent||", "cosine_1": "Cosine to Model 1",
         "cosine_2": "Cosine to Model 2", "conflict": "Conflicts where both keep",
         "used_1": "Share of Model 1's entries in it", "used_2": "Share of Model 2's entries in it"}


def show(found: Material) -> Iterator[Part]:
    """Losses step by step and scores over the checkpoints, as on Loss."""
    if found.brought:
        yield found.untrained("are no losses to show")
        return
    yield found.said("training")
    yield from _losses(found)
    yield from _checkpoints(found)


# ---- losses ----------------------------------------------------------------------------------------------------

def _losses(found: Material) -> Iterator[Part]:
    steps = found.steps
    if steps.empty:
        yield Missing("No training step of either model is logged yet.", found.evaluation())
        return
    counted = (", ".join(f"{theme.short_label(model)}: {count} steps" for model, count in
                         steps.groupby("model", sort=False).size().items()) + f". {found.seed}")
    settings = "; ".join(f"{theme.short_label(model)}: {training.weights_in_words(getattr(found.run.recipe(), model))}"
                         for model in UNLEARNED)
    terms = {f"{term}_weighted": training.QUANTITIES[f"{term}_weighted"] for term in training.terms(steps)}
    yield chart("losses", "Which term drives the training, and does one of them run away?",
                training_figures.loss_components(training.loss_components(steps, True)),
                _columns(steps, *terms, "loss"),
                columns={"model": "Model", "step": "Step", "epoch": "Epoch", **terms, "loss": "Total loss"},
                alt="Loss terms and total of both models over training",
                caption=f"{counted} Weighted terms, means over a step's micro-batches, no smoothing. Weights: "
                        f"{settings}.")
    yield chart("nll", "Does forget rise above its reference while retain stays on it?",
                training_figures.answer_nll(steps), _columns(steps, *list(NLL)[3:]), columns=NLL,
                alt="NLL of forget and retain answers against the reference, for each model",
                caption=f"{counted} Mean NLL in nats per answer token on the items of each step; dotted: the same "
                        "items under the model before unlearning.")
    yield chart("brake", "Does NPO slow down once the items are forgotten?", training_figures.npo_brake(steps),
                _columns(steps, "npo_brake"),
                columns={"model": "Model", "step": "Step", "epoch": "Epoch", "npo_brake": "NPO brake"},
                alt="Brake of NPO over training, for each model",
                caption=f"{counted} 2 sigmoid(-beta Delta), Delta = NLL - reference NLL on forget: NPO's gradient as a "
                        "share of plain gradient ascent's.")


def _columns(steps: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table behind a chart."""
    return steps[["model", *training.X_COLUMNS, *names]]


# ---- checkpoints -----------------------------------------------------------------------------------------------

def _checkpoints(found: Material) -> Iterator[Part]:
    frame, about = trajectory.trajectory(found.run), found.run.trajectory()
    if frame.empty:
        yield Missing("How the scores moved during training has not been measured.",
                      found.command("evaluate", "--checkpoints", "--documents", "8"))
        return
    wide = trajectory.checkpoints(frame)
    turns = tuple(f"{theme.short_label(model)} {trajectory.describe_turn(wide, model)}"
                  for model in wide["model"].unique())
    scored = f"{len(wide)} checkpoints, {halves.scored_on(about)}. {found.seed}"
    yield chart("scores", "Do forget and retain fall together at first, and does retain come back?",
                trajectory_figures.score_curves(frame), frame,
                columns={"model": "Model", "step": "Step", "metric": "Score", "value": "Value", "low": "Low",
                         "high": "High"},
                alt="Twelve sub-scores, Task Aggregate, MIA AUC and mean scores over the checkpoints",
                caption=f"{scored} Step 0 is the base. Thin vertical lines: turning points, the lowest mean retain "
                        f"score; {'; '.join(turns)}.")
    best = trajectory.best_checkpoints(wide, "balance")
    yield chart("path", "Which way did each model take, and where did merging land?",
                trajectory_figures.score_path(wide, trajectory.means(found.scores.get("merged", {})), best), wide,
                columns=CHECKPOINT, alt="Path of each model in the plane of forget success and retention",
                caption=f"{scored} One arrow per checkpoint; both scores are plain means over six sub-scores. The "
                        "diamond is the merged model's final score, on all documents.")
    yield table("best", f"Best checkpoint of each model by the {trajectory.CRITERIA['balance'].label}. "
                f"{locked.chosen_on(about)}", best, CHECKPOINT)


# ---- merge -----------------------------------------------------------------------------------------------------

def merge(found: Material) -> Iterator[Part]:
    """The run's own merge, other merges with scores, and honest controls, as on Merge."""
    if found.brought:
        yield found.untrained("are no two adapters to merge")
        return
    yield found.said("merge")
    yield from _own(found)
    frame = merging.table(found.run)
    yield from _methods(found, frame)
    yield from _density(found, frame)
    yield from _path(found, frame)
    yield from _balance(found)


def _own(found: Material) -> Iterator[Part]:
    """Size and direction of the run's merge, from the statistics of its signs."""
    measured, own = signs.read(found.run), found.run.recipe().merge
    settings = (f"{MERGE_LABELS[own.method]} on {own.level}, density {own.density:g}, weights "
                + " : ".join(f"{weight:g}" for weight in own.weights))
    if measured is None:
        yield Missing(f"The merge of this run is {settings}; its size and direction have not been measured.",
                      found.command("weights"))
        return
    sizes = None if "dW" in measured.about["spaces"] else weights.read(found.run)
    row = merge_preview.at(merge_preview.over_density(merge_preview.pooled(measured, None, sizes), own), own.density)
    yield rows("own", f"The merge of this run: {settings}. {found.seed}", ("Number", "Value"),
               ((label, float(row[name])) for name, label in FACTS.items()))


def _about(found: Material, n: int, what: str) -> str:
    return f"n = {n} {what}, {halves.scored_on(found.run.merges())}. {found.seed}"


def _methods(found: Material, frame: pd.DataFrame) -> Iterator[Part]:
    own = merging.methods(frame)
    if own.empty:
        yield Missing("Other methods of merging have not been scored.", found.command("merge-sweep", "--methods"))
        return
    own = own.assign(scale=own["kind"].map(merging.METHOD_KINDS))
    yield Says(tuple(merging.describe_methods(own)))
    yield chart("methods", "Is it the method, or the size of its update?", merging_figures.method_dots(own), own,
                columns=METHODS, alt="Norm ratio, scores and cosines of every method, as it comes and at one norm",
                caption=f"{_about(found, len(own), 'merges')} Open: as it comes; filled: scaled to the mean norm of "
                        f"both parents. {locked.chosen_on(found.run.merges())}")


def _density(found: Material, frame: pd.DataFrame) -> Iterator[Part]:
    own, density = merging.of_kind(frame, "density"), found.run.recipe().merge.density
    if own.empty:
        yield Missing("Other densities have not been scored.", found.command("merge-sweep", "--density", "0.2:1.0:0.1"))
        return
    yield Says(tuple(merging.describe_density(own, metric) for metric in merging.MEASURED))
    yield chart("density", "Is the density of this run on a plateau, or on a cliff?",
                merging_figures.density_curves(own, density), own, columns={"density": "Density", **MERGES},
                alt="Task Aggregate, MIA AUC, mean forget and mean retain score over density",
                caption=f"{_about(found, len(own), 'densities')} Dashed: the run's density, {density:g}; dotted: the "
                        f"ideal AUC. {locked.chosen_on(found.run.merges())}")


def _path(found: Material, frame: pd.DataFrame) -> Iterator[Part]:
    own = merging.of_kind(frame, "path")
    if own.empty:
        yield Missing("What lies between the merge and its parents has not been scored.",
                      found.command("merge-sweep", "--path"))
        return
    yield chart("path", "Is the merge better than what lies between it and its parents?",
                merging_figures.path_curves(own), own, columns={"position": "Position", **MERGES},
                alt="Scores on the way from Model 1 over the merged model to Model 2",
                caption=f"{_about(found, len(own), 'points')} Straight lines between the updates: 0 Model 1, 1 merged, "
                        f"2 Model 2. On this way: {merging.describe_path(own)}.")


def _balance(found: Material) -> Iterator[Part]:
    own = found.run.balance()
    if not own:
        yield Missing("The merge has not been compared with honest controls at one AUC.", found.command("balance"))
        return
    yield Says(tuple(balancing.describe(own)))
    frame = balancing.families(own)
    if frame["difference"].notna().any():
        yield chart("balance", "At one AUC, is the merge better than what needs no merge?",
                    balancing_figures.differences(frame), frame, columns=FAMILIES,
                    alt="Task Aggregate of each family less that of the run's merge, with intervals",
                    caption="Each family's knob is chosen on one half of the documents and persons and read on the "
                            f"other, and the halves change places; seed of the halves {own['seed']}. {found.seed} "
                            "Interval: 95 %; right of 0 is better.")
