"""Scores of many updates on one base: checkpoints and other merges, with everything else of the run held fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core import data, models, pipeline, run_models
from unlearn_core import recipe as recipes
from unlearn_core.data import Dataset, persons
from unlearn_core.errors import InputError
from unlearn_core.evaluation import leaks
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.merging.task_vectors import load_adapter
from unlearn_core.progress import Report, measuring
from unlearn_core.settings import Evaluation, Recipe
from unlearn_core.store import Run
from unlearn_core.trials import ablation, halves, variants
from unlearn_core.trials.variants import Parents
from unlearn_core.vocabulary import UNLEARNED

_ABLATION = ("kind", "part", "mode", "draw")  # what tells one ablation from another


@dataclasses.dataclass(frozen=True)
class Subset:
    """What is scored: documents of each task and side (0: all) of a half (see `halves`) chosen by a seed, and questions
    per subject (-1: none).

    The attack always uses all documents that it has in the half.
    """

    documents_per_task: int = 0
    seed: int = 0
    mmlu_limit: int = -1
    half: str = halves.DEVELOPMENT

    def of(self, whole: Dataset) -> Dataset:
        """The part of a run's dataset."""
        dataset = halves.part(whole, self.half)
        return dataclasses.replace(
            dataset, forget=data.subset(dataset.forget, self.documents_per_task, self.seed),
            retain=data.subset(dataset.retain, self.documents_per_task, self.seed),
            mmlu_test=[] if self.mmlu_limit < 0 else dataset.mmlu_test)

    def evaluation(self, whole: Evaluation) -> Evaluation:
        if self.mmlu_limit < 0:
            return dataclasses.replace(whole, mmlu_limit=0, mmlu_subjects=())
        return dataclasses.replace(whole, mmlu_limit=self.mmlu_limit)


def sweep(run: Run, *, custom: Sequence[str] = (), densities: Sequence[float] = (), methods: bool = False,
          path: bool = False, surface: bool = False, subset: Subset | None = None, device: str = "auto",
          report: Report = lambda *_: None) -> None:
    """Score other merges of the run's adapters; see `variants` for the sets. Written after each one.

    `custom`: settings as in `--set`, such as "merge.density=0.6", that change the run's own merge to one more.
    What was scored on the same subset and adapters before is kept, all else is replaced. All of this is for choosing,
    so it takes the development half; on all documents it is counted as a look at the test half, which alone is refused.
    """
    subset, recipe = subset or Subset(), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    parents = load_parents(run, recipe, device)
    own = recipes.changed(recipe, custom).merge
    wanted = [*([variants.custom(parents, own)] if custom else ()), *variants.densities(parents, densities),
              *(variants.methods(parents) if methods else ()), *(variants.path(parents) if path else ()),
              *(variants.surface(parents) if surface else ())]
    if not wanted:
        raise InputError("merge-sweep", got="nothing to vary", expected="settings or what to sweep over")
    choice, rows = _kept(run, run.merges(), subset, {"key": adapter_keys(run, UNLEARNED)})
    choice |= {"replaced": halves.replaced(run.merges(), rows)}
    known = {(row["kind"], row["name"]) for row in rows}
    todo = [variant for variant in wanted if (variant.kind, variant.name) not in known]
    _count_look(run, subset, "merge-sweep", len(todo))
    with measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        score = scorer(run, recipe, subset, device, [run.adapter_dir(name) for name in UNLEARNED])
        for number, variant in enumerate(todo):
            progress(f"merge-sweep: {variant.name}", number, len(todo))
            update = variant.make()
            found = score(update.modules, variants.dense(update, device))
            settings = {"settings": list(custom)} if variant.kind == "custom" else {}
            rows = [*rows, {"kind": variant.kind, "name": variant.name, **variant.about, **settings,
                            **parents.geometry(update), "scores": found.scores,
                            "intervals": found.intervals}]
            run.write_merges(choice | {"rows": rows})


def evaluate_checkpoints(run: Run, names: list[str] | None = None, *, subset: Subset | None = None,
                         device: str = "auto", report: Report = lambda *_: None) -> None:
    """Score each adapter checkpoint of the unlearned models on a subset: the performance trajectory of the run.

    Written after each checkpoint; what was scored on the same subset before is kept. The half is as for `sweep`.
    """
    subset, recipe = subset or Subset(), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    run_models.check_names(names, list(UNLEARNED))
    names = [name for name in names or UNLEARNED if run.checkpoints(name)]
    if not names:
        raise InputError(f"run {run.id}", got="no checkpoints", expected="adapter checkpoints of model_1 or model_2",
                         fix="they are kept where the recipe's model_1.checkpoints and model_2.checkpoints are above 0")
    choice, rows = _kept(run, run.trajectory(), subset)
    choice |= {"replaced": halves.replaced(run.trajectory(), rows)}
    known = {(row["model"], row["step"]) for row in rows}
    todo = [(name, step, folder) for name in names for step, folder in run.checkpoints(name)
            if (name, step) not in known]
    _count_look(run, subset, "evaluate --checkpoints", len(todo))
    with measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        score = scorer(run, recipe, subset, device, [folder for _, _, folder in todo])
        for number, (name, step, folder) in enumerate(todo):
            progress(f"evaluate checkpoints: {name} at step {step}", number, len(todo))
            adapter = load_adapter(folder)
            found = score(adapter.modules, variants.dense(adapter, device))
            epochs = {0: 0.0} | {row["step"]: row.get("epoch") for row in run.steps(name)}
            rows = [*rows, {"model": name, "step": step, "epoch": epochs.get(step), "scores": found.scores,
                            "intervals": found.intervals}]
            run.write_trajectory(choice | {"rows": rows})


def _kept(run: Run, before: dict, subset: Subset, about: dict | None = None) -> tuple[dict, list[dict]]:
    """(what is scored, with what else it is `about`; the rows that were scored on the same before).

    What older versions wrote without a half was scored on all documents.
    """
    whole = data.load_saved(run.data_dir)
    choice = dataclasses.asdict(subset) | {"max_new_tokens": run.recipe().evaluation.max_new_tokens,
                                           "n": halves.counts(subset.of(whole), whole)} | (about or {})
    known = {"half": halves.ALL, "n": choice["n"]} | before
    return choice, list(known["rows"]) if known | choice == known else []


def _count_look(run: Run, subset: Subset, what: str, count: int) -> None:
    """The test half is not for choosing: alone it is refused, as a part of all documents counted as a look at it."""
    if subset.half == halves.TEST:
        raise InputError(what, got="the test half", expected="the development half, or all documents",
                         fix="read-test RUN reads one configuration on it, and counts")
    if subset.half == halves.ALL and count:
        run.add_reading(what=f"{what} of {count} configurations on all documents", scores={}, intervals={},
                        configurations=halves.tried(run) + count)


def adapter_keys(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Hashes of the adapters that something is measured on."""
    found = run.adapter_keys()
    return {name: found[name] for name in names}


def ablate(run: Run, *, kinds: Sequence[str] = ablation.KINDS, modes: Sequence[str] = ("remove",), draws: int = 3,
           matrices: Sequence[str] = (), directions: Sequence[int] = ablation.DIRECTIONS, subset: Subset | None = None,
           device: str = "auto", report: Report = lambda *_: None) -> None:
    """Score the merged update with each part (see `ablation`) removed, kept alone or flipped, and with `draws` random
    parts of equal size and norm in its place. Written after each one; the whole update stands first.

    What was scored on the same subset (all documents by default: nothing is chosen by it) and adapters before is kept,
    all else is replaced.
    """
    subset, recipe = subset or Subset(half=halves.ALL), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    parents = load_parents(run, recipe, "cpu")
    merged = load_adapter(run.adapter_dir("merged"))
    update, modules = variants.dense(merged), list(merged.modules)
    whole = ablation.norm(update, modules)
    choice, rows = _kept(run, run.ablations(), subset, {"key": adapter_keys(run, (*UNLEARNED, "merged"))})
    known = {tuple(row[key] for key in _ABLATION) for row in rows}
    parts = list(ablation.parts(kinds, update, parents.adapters, recipe.merge.density, matrices, directions))
    todo = [(part, mode, draw) for part in parts for mode in modes for draw in range(draws + 1)
            if (part.kind, part.name, mode, draw) not in known]
    dataset = data.load_saved(run.data_dir)
    people = persons.persons([*dataset.forget, *dataset.retain])
    with measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        score = scorer(run, recipe, subset, device, [run.adapter_dir(name) for name in (*UNLEARNED, "merged")])

        def add(kind: str, part: str, mode: str, draw: int, changed: ablation.Matrices, **about: float | None) -> None:
            found = score(modules, changed)
            rows.append({"kind": kind, "part": part, "mode": mode, "draw": draw, **about,
                         "leak": leaking(found.answers, people), "scores": found.scores,
                         "intervals": found.intervals})
            run.write_ablations(choice | {"rows": rows})

        if ("whole", "whole", "none", 0) not in known:
            add("whole", "whole", "none", 0, update, share=1.0, norm_share=1.0)
        for number, (part, mode, draw) in enumerate(todo):
            progress(f"ablate: {mode} {part.name}" + (f", random {draw}" if draw else ""), number, len(todo))
            taken = ablation.control(part, modules, draw) if draw else part.of
            add(part.kind, part.name, mode, draw, ablation.intervened(update, taken, mode), share=part.share,
                norm_share=ablation.norm(taken, modules) / whole)


def leaking(answers: list[dict], people: dict[str, persons.Person]) -> float | None:
    """Share of forget's people of whom some answer gives away a field that its prompt does not hold and that does not
    follow from the name (see `evaluation.leaks`); None where there are no people. `answers` as in `Run.answers`."""
    given = leaks.given_away((row for row in answers if row["split"] == "forget"), people)
    return sum(given.values()) / len(given) if given else None


def load_parents(run: Run, recipe: Recipe, device: str) -> Parents:
    """The adapters of model_1 and model_2, on which all other merges build."""
    for name in UNLEARNED:
        if not run.adapter_dir(name).is_dir():
            raise InputError(f"run {run.id}", got=f"no adapter of {name}", expected="a run that has trained both",
                             fix="resume the run; recorded runs come without weights")
    first, second = (load_adapter(run.adapter_dir(name)) for name in UNLEARNED)
    return Parents((first, second), recipe.merge, device)


Measure = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Dataset, Evaluation], Any]
Score = Callable[..., Any]  # (modules, update, measure=evaluate) -> what that measures


def scorer(run: Run, recipe: Recipe, subset: Subset, device: str, adapters: Sequence[Path]) -> Score:
    """A function that measures (as `evaluate` does, or as it is told) the base with an update of these modules added
    to its weights; the base is loaded once.

    InputError where one of the adapter folders, from which the updates come, does not belong to the base.
    """
    dataset, evaluation = subset.of(data.load_saved(run.data_dir)), subset.evaluation(recipe.evaluation)
    model, tokenizer = run_models.load(run, recipe, "base", device)
    for folder in adapters:
        models.check_adapter(model, folder, run_models.base_identity(run, recipe))

    def score(modules: Sequence[str], update: models.Update, measure: Measure = evaluate) -> Any:
        with models.updated(model, modules, update):
            return measure(model, tokenizer, dataset, evaluation)

    return score


def grid(text: str) -> list[float]:
    """"0.2:1.0:0.1" -> 0.2, 0.3, ..., 1.0, and "0.4,0.8" -> these two."""
    try:
        if ":" in text:
            start, end, step = (float(part) for part in text.split(":"))
            count = round((end - start) / step) if step else -1
            values = [round(start + number * step, 10) for number in range(count + 1)]
        else:
            values = [float(part) for part in text.split(",")]
    except (ValueError, OverflowError):
        values = []
    if not values or not all(0 < value <= 1 for value in values):
        raise InputError("densities", got=text, expected="shares above 0 and at most 1, as 0.2:1.0:0.1 or 0.6,0.8")
    return values
