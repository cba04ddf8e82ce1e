"""One configuration read on the test half of a run's documents: on request, and counted (see `halves`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from unlearn_core import data, pipeline, run_models
from unlearn_core import recipe as recipes
from unlearn_core.data import Dataset
from unlearn_core.errors import InputError
from unlearn_core.evaluation.evaluate import Evaluated, evaluate
from unlearn_core.merging.task_vectors import Adapter, load_adapter
from unlearn_core.progress import Report, measuring
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.trials import balance, halves, variants
from unlearn_core.trials.experiments import Subset, adapter_keys, load_parents, scorer
from unlearn_core.trials.variants import Parents, Variant
from unlearn_core.vocabulary import OFFICIAL, UNLEARNED, shipped

Make = Callable[[], Adapter]
EDGES = ((1 - balance.LEVEL) / 2, (1 + balance.LEVEL) / 2)
UNTOUCHED = Subset(half=halves.TEST)


def read_test(run: Run, *, model: str = "", custom: Sequence[str] = (), best: bool = False, device: str = "auto",
              report: Report = lambda *_: None) -> dict:
    """Score one configuration on the test half and append it to `Run.readings`; the reading.

    One of: `model`, a model of the run (where nothing is said the one that would be handed out); `custom`, settings of
    a merge as in `--set`; `best`, what has the best Task Aggregate of all merges and checkpoints that were scored on
    the development half. The reading's `intervals` has the Task Aggregate, too (units drawn with replacement), and
    `p_zero` is how often it is 0 then; `n` counts what it rests on. Reading again is one more reading.
    """
    if bool(model) + bool(custom) + best > 1:
        raise InputError("read-test", got="more than one configuration", expected="a model, settings, or the best")
    recipe, device = run.recipe(), str(pipeline.make_accelerator(device).device)
    whole = data.load_saved(run.data_dir)
    if custom or best:
        parents = load_parents(run, recipe, device)
        what, make = _best(run, recipe, parents) if best else _custom(parents, recipe, custom)
    else:
        what, make = _model(run, recipe, model), None
    with measuring(run, recipe, report) as progress:
        progress(f"read-test: {what}", 0, 0)
        found = _of_update(run, recipe, make(), device) if make else _of_model(run, recipe, what, whole, device)
        run.add_reading(what=what, configurations=halves.tried(run), **_numbers(found, whole))
    return run.readings()[-1]


def _of_update(run: Run, recipe: Recipe, update: Adapter, device: str) -> Evaluated:
    score = scorer(run, recipe, UNTOUCHED, device, [run.adapter_dir(name) for name in UNLEARNED])
    return score(update.modules, variants.dense(update, device))


def _of_model(run: Run, recipe: Recipe, name: str, whole: Dataset, device: str) -> Evaluated:
    model, tokenizer = run_models.load(run, recipe, name, device)
    return evaluate(model, tokenizer, UNTOUCHED.of(whole), UNTOUCHED.evaluation(recipe.evaluation))


def _numbers(found: Evaluated, whole: Dataset) -> dict:
    """scores, intervals, p_zero and n of a reading."""
    axes, intervals, zero = halves.axes(UNTOUCHED.of(whole), whole), dict(found.intervals), None
    values = np.array([[float(row[OFFICIAL[row["kind"]]]) for row in found.answers]])
    if "task_aggregate" in found.scores:
        drawn = balance.resampled(values, axes["cell"], axes["unit"])[0]
        zero = float(np.mean(drawn[~np.isnan(drawn)] == 0))
        if np.nanmin(drawn) < np.nanmax(drawn):
            intervals["task_aggregate"] = [float(end) for end in np.nanquantile(drawn, EDGES)]
    return {"scores": found.scores, "intervals": intervals, "p_zero": zero,
            "n": halves.counts(UNTOUCHED.of(whole), whole)}


# ---- what is read ----------------------------------------------------------------------------------------------

def _model(run: Run, recipe: Recipe, name: str) -> str:
    known = [one for one in run_models.evaluated_models(run, recipe) if one != "untrained"]
    if (name or shipped(known)) not in known:
        raise InputError("read-test", got=name or "no model", expected=f"one of {', '.join(known)}")
    return name or shipped(known)


def _custom(parents: Parents, recipe: Recipe, custom: Sequence[str]) -> tuple[str, Make]:
    variant = variants.custom(parents, recipes.changed(recipe, custom).merge)
    return variant.name, variant.make


def _best(run: Run, recipe: Recipe, parents: Parents) -> tuple[str, Make]:
    """The best of what was scored on the development half, the first of equals, and how it is made again."""
    merges, trajectory = ({} if found.get("half") != halves.DEVELOPMENT else found
                          for found in (run.merges(), run.trajectory()))
    if merges.get("key") != adapter_keys(run, UNLEARNED):
        merges = {}
    kept = {(name, step): folder for name in UNLEARNED for step, folder in run.checkpoints(name)}
    rows = [*merges.get("rows", []), *(row for row in trajectory.get("rows", [])
                                       if row["step"] and (row["model"], row["step"]) in kept)]
    row = max(rows, key=lambda row: row["scores"].get("task_aggregate", -math.inf), default=None)
    if row is None or "task_aggregate" not in row["scores"]:
        raise InputError(f"run {run.id}", got="no Task Aggregate of these adapters on the development half",
                         expected="merges or checkpoints to choose from",
                         fix="score some: merge-sweep RUN, or evaluate RUN --checkpoints")
    if "step" in row:
        folder = kept[row["model"], row["step"]]
        return f"{row['model']} at step {row['step']}, the best on development", lambda: load_adapter(folder)
    variant = next(one for one in _again(row, recipe, parents) if (one.kind, one.name) == (row["kind"], row["name"]))
    return f"{row['kind']}: {row['name']}, the best on development", variant.make


def _again(row: dict, recipe: Recipe, parents: Parents) -> Sequence[Variant]:
    """The variants of the kind of a row of `Run.merges`, the row's own among them."""
    if row["kind"] == "custom":
        return [variants.custom(parents, recipes.changed(recipe, row["settings"]).merge)]
    if row["kind"] == "density":
        return list(variants.densities(parents, [row["density"]]))
    return list({"path": variants.path, "surface": variants.surface}.get(row["kind"], variants.methods)(parents))
