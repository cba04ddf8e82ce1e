"""Scores of many updates on one base: checkpoints and other merges, with everything else of the run held fixed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core import ablation, data, models, pipeline, variants
from unlearn_core import balance as balances
from unlearn_core import recipe as recipes
from unlearn_core.data import Dataset, persons
from unlearn_core.errors import InputError
from unlearn_core.evaluation import leaks
from unlearn_core.evaluation.evaluate import document_rows, evaluate
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.sampling import sample
from unlearn_core.evaluation.score import official_value
from unlearn_core.recipe import Evaluation, Recipe
from unlearn_core.store import Run, now
from unlearn_core.task_vectors import Adapter, load_adapter
from unlearn_core.variants import Parents, Variant
from unlearn_core.vocabulary import SUB_SCORES, UNLEARNED, sub_score_key

_ABLATION = ("kind", "part", "mode", "draw")  # what tells one ablation from another


@dataclasses.dataclass(frozen=True)
class Subset:
    """What is scored: documents of each task and side (0: all) chosen by a seed, and questions per subject (-1: none).

    The attack always uses all its documents.
    """

    documents_per_task: int = 0
    seed: int = 0
    mmlu_limit: int = -1

    def of(self, dataset: Dataset) -> Dataset:
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
          report: pipeline.Report = lambda *_: None) -> None:
    """Score other merges of the run's adapters; see `variants` for the sets. Written after each one.

    `custom`: settings as in `--set`, such as "merge.density=0.6", that change the run's own merge to one more.
    What was scored on the same subset and adapters before is kept, all else is replaced.
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
    choice, rows = _kept(run.merges(), subset, recipe, {"key": _keys(run, UNLEARNED)})
    known = {(row["kind"], row["name"]) for row in rows}
    todo = [variant for variant in wanted if (variant.kind, variant.name) not in known]
    with pipeline.measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        score = scorer(run, recipe, subset, device, [run.adapter_dir(name) for name in UNLEARNED])
        for number, variant in enumerate(todo):
            progress(f"merge-sweep: {variant.name}", number, len(todo))
            update = variant.make()
            found = score(update.modules, variants.dense(update, device))
            rows = [*rows, {"kind": variant.kind, "name": variant.name, **variant.about, **parents.geometry(update),
                            "scores": found.scores, "intervals": found.intervals}]
            run.write_merges(choice | {"rows": rows})


def evaluate_checkpoints(run: Run, names: list[str] | None = None, *, subset: Subset | None = None,
                         device: str = "auto", report: pipeline.Report = lambda *_: None) -> None:
    """Score each adapter checkpoint of the unlearned models on a subset: the performance trajectory of the run.

    Written after each checkpoint; what was scored on the same subset before is kept.
    """
    subset, recipe = subset or Subset(), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    pipeline.check_names(names, list(UNLEARNED))
    names = [name for name in names or UNLEARNED if run.checkpoints(name)]
    if not names:
        raise InputError(f"run {run.id}", got="no checkpoints", expected="adapter checkpoints of model_1 or model_2",
                         fix="they are kept where the recipe's model_1.checkpoints and model_2.checkpoints are above 0")
    choice, rows = _kept(run.trajectory(), subset, recipe)
    known = {(row["model"], row["step"]) for row in rows}
    todo = [(name, step, folder) for name in names for step, folder in run.checkpoints(name)
            if (name, step) not in known]
    with pipeline.measuring(run, recipe, report) as progress:
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


def _kept(before: dict, subset: Subset, recipe: Recipe, about: dict | None = None) -> tuple[dict, list[dict]]:
    """(what is scored, with what else it is `about`, and the rows that were scored on the same before)."""
    choice = dataclasses.asdict(subset) | {"max_new_tokens": recipe.evaluation.max_new_tokens} | (about or {})
    return choice, list(before["rows"]) if before | choice == before else []


def _keys(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Hashes of the adapters that something is measured on."""
    found = run.adapter_keys()
    return {name: found[name] for name in names}


def ablate(run: Run, *, kinds: Sequence[str] = ablation.KINDS, modes: Sequence[str] = ("remove",), draws: int = 3,
           matrices: Sequence[str] = (), directions: Sequence[int] = ablation.DIRECTIONS, subset: Subset | None = None,
           device: str = "auto", report: pipeline.Report = lambda *_: None) -> None:
    """Score the merged update with each part (see `ablation`) removed, kept alone or flipped, and with `draws` random
    parts of equal size and norm in its place. Written after each one; the whole update stands first.

    What was scored on the same subset and adapters before is kept, all else is replaced.
    """
    subset, recipe = subset or Subset(), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    parents = load_parents(run, recipe, "cpu")
    merged = load_adapter(run.adapter_dir("merged"))
    update, modules = variants.dense(merged), list(merged.modules)
    whole = ablation.norm(update, modules)
    choice, rows = _kept(run.ablations(), subset, recipe, {"key": _keys(run, (*UNLEARNED, "merged"))})
    known = {tuple(row[key] for key in _ABLATION) for row in rows}
    parts = list(ablation.parts(kinds, update, parents.adapters, recipe.merge.density, matrices, directions))
    todo = [(part, mode, draw) for part in parts for mode in modes for draw in range(draws + 1)
            if (part.kind, part.name, mode, draw) not in known]
    dataset = data.load_saved(run.data_dir)
    people = persons.persons([*dataset.forget, *dataset.retain])
    with pipeline.measuring(run, recipe, report) as progress:
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


def balance(run: Run, *, beside: Sequence[Run] = (), seed: int = 0, subset: Subset | None = None, device: str = "auto",
            report: pipeline.Report = lambda *_: None) -> None:
    """Attack the families of `variants.families`, ask those of them that may be chosen, choose on one half of the
    documents and read on the other (see `balance.read`); what was measured on the same subset and adapters before is
    kept.

    The target of the AUC is that of a retrained or of the untrained model, where one was scored, else 0.5. Each
    reading is counted, with its seed of the halves. `beside`: runs on the same base whose model_1 are controls, too
    (see `variants.families_beside`).
    """
    subset, recipe = subset or Subset(), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    parents = load_parents(run, recipe, device)
    checkpoints = [(step, load_adapter(folder)) for step, folder in run.checkpoints("model_1")]
    wanted = list(variants.families(parents, checkpoints))
    for other in beside:
        _check_base(run, other)
        wanted += variants.families_beside(
            parents, other.id, _adopted(other.adapter_dir("model_1"), parents),
            [(step, _adopted(folder, parents)) for step, folder in other.checkpoints("model_1")])
    about = {"subset": dataclasses.asdict(subset), "max_new_tokens": recipe.evaluation.max_new_tokens,
             "key": _keys(run, UNLEARNED), "merge": dataclasses.asdict(recipe.merge)}
    dataset = subset.of(data.load_saved(run.data_dir))
    losses, values = _known_of_balance(run, about)
    with pipeline.measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        score = scorer(run, recipe, subset, device, [run.adapter_dir(name) for name in UNLEARNED])

        def measure(todo: Sequence[Variant], known: dict[str, np.ndarray], what: str, how: Measure) -> None:
            for number, variant in enumerate(todo):
                if variant.name in known:
                    continue
                progress(f"balance, {what}: {variant.name}", number, len(todo))
                update = variant.make()
                known[variant.name] = score(update.modules, variants.dense(update, device), how)
                done = [one for one in wanted if one.name in losses]
                unasked = np.full(len(dataset.forget) + len(dataset.retain), math.nan)
                run.write_arrays("balance", {"nll": np.stack([losses[one.name] for one in done]),
                                             "values": np.stack([values.get(one.name, unasked) for one in done]),
                                             **_axes(dataset)},
                                 about | {"names": [one.name for one in done], "families": [one.kind for one in done]})

        target, source = _target(run)
        measure(wanted, losses, "losses", _attack_losses)
        chosen = balances.eligible(balances.measured(run), target, seed)
        measure([wanted[number] for number in chosen], values, "answers", _official_values)
        readings = [*run.balance().get("readings", []), {"at": now(), "seed": seed}]
        result = balances.read(balances.measured(run), target, seed)
        run.write_balance(result | {"target_from": source, "readings": readings})


def _known_of_balance(run: Run, about: dict) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(losses, values) by configuration that were measured before on the very same, as `balance.Measured` has them."""
    arrays, before = run.arrays("balance")
    if not before or before | json.loads(json.dumps(about)) != before:
        return {}, {}
    losses, values = (dict(zip(before["names"], arrays[name], strict=True)) for name in ("nll", "values"))
    return losses, {name: row for name, row in values.items() if not np.isnan(row).any()}


def _check_base(run: Run, other: Run) -> None:
    """InputError unless both runs have the very same base, so that an adapter of one is one of the other."""
    loaded = [one.recipe().base.model if one.recipe().base.source == "load" else one.base_key() for one in (run, other)]
    if loaded[0] != loaded[1]:
        raise InputError(f"balance --beside {other.id}", got="a run on another base",
                         expected=f"one on that of {run.id}",
                         fix=f"make it with run RECIPE --weights-of {run.id}")


def _adopted(folder: Path, parents: Parents) -> Adapter:
    """An adapter of another run on the same base, which calls that base by a name of its own."""
    adapter, name = load_adapter(folder), parents.adapters[0].config.get("base_model_name_or_path")
    return dataclasses.replace(adapter, config=adapter.config | {"base_model_name_or_path": name})


def _attack_losses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset,
                   evaluation: Evaluation) -> np.ndarray:
    """Per document of the attack its NLL, NaN where it has none."""
    rows = document_rows(model, tokenizer, dataset.attack, batch_size=evaluation.batch_size)
    return np.array([math.nan if row["nll"] is None else row["nll"] for row in rows])


def _official_values(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset,
                     evaluation: Evaluation) -> np.ndarray:
    """Per item of forget, then of retain, its ROUGE-L recall or exact match."""
    items = [*dataset.forget, *dataset.retain]
    written = generate(model, tokenizer, [item.prompt for item in items], max_new_tokens=evaluation.max_new_tokens,
                       batch_size=evaluation.batch_size)
    return np.array([official_value(item.kind, item.answer, generation.text)
                     for item, generation in zip(items, written, strict=True)])


def _axes(dataset: Dataset) -> dict[str, np.ndarray]:
    """What the columns of both belong to: see `balance.Measured`. All documents of a person are one unit."""
    keys = [metric.key for metric in SUB_SCORES]
    rows = [(split, item) for split, items in (("forget", dataset.forget), ("retain", dataset.retain))
            for item in items]
    names = {document: person.name or document
             for document, person in persons.persons([item for _, item in rows]).items()}
    units: dict[str, int] = {}
    strata: list[str] = []

    def unit(document: str, stratum: str) -> int:
        name = names.get(document, document)
        if name not in units:
            units[name] = len(units)
            strata.append(stratum)
        return units[name]

    of_items = [unit(item.document, f"{split} {item.task}") for split, item in rows]
    of_attack = [unit(entry.document, "" if entry.member else "holdout") for entry in dataset.attack]
    return {"cell": np.array([keys.index(sub_score_key(split, item.kind, item.task)) for split, item in rows]),
            "unit": np.array(of_items), "attack_unit": np.array(of_attack),
            "member": np.array([entry.member for entry in dataset.attack]),
            "stratum": np.unique(strata, return_inverse=True)[1]}


def sample_answers(run: Run, names: list[str] | None = None, *, samples: int = 8, temperature: float = 0.7,
                   top_p: float = 1.0, seed: int = 0, people: int = 0, device: str = "auto",
                   report: pipeline.Report = lambda *_: None) -> None:
    """Draw several answers to each prompt about forget's people (`people` of them, chosen by the seed; 0: all) from
    models of the run: what a greedy answer keeps to itself, a patient asker may get.

    Written after each model; what was drawn in the same way from the same adapter before is kept.
    """
    recipe, device = run.recipe(), str(pipeline.make_accelerator(device).device)
    there = [*([] if recipe.base.source == "scratch" else ["untrained"]), "base", *run.adapter_weights()]
    known = [name for name in pipeline.evaluated_models(run, recipe) if name in there]
    pipeline.check_names(names, known)
    items = [item for item in data.load_saved(run.data_dir).forget if item.task == persons.PERSONS_TASK]
    items = data.subset(items, people, seed)
    if not items:
        raise InputError(f"run {run.id}", got="no people in what is to be forgotten",
                         expected=f"items of {persons.PERSONS_TASK}")
    about = {"samples": samples, "temperature": temperature, "top_p": top_p, "seed": seed, "people": people,
             "max_new_tokens": recipe.evaluation.max_new_tokens}
    keys = run.adapter_keys()
    with pipeline.measuring(run, recipe, report) as progress:
        for name in names or known:
            drawn_from = about | {"key": keys.get(name)}
            if run.samples(name)[1] == drawn_from:
                continue
            progress(f"sample {name}", 0, 0)
            model, tokenizer = pipeline.load(run, recipe, name, device)
            drawn = sample(model, tokenizer, [item.prompt for item in items], samples=samples, temperature=temperature,
                           top_p=top_p, seed=seed, max_new_tokens=recipe.evaluation.max_new_tokens,
                           batch_size=recipe.evaluation.batch_size,
                           progress=lambda done, total, _, name=name: progress(f"sample {name}", done, total))
            run.write_samples(name, [
                {"id": item.id, "document": item.document, "split": "forget", "sample": number,
                 "generation": generation.text}
                for item, own in zip(items, drawn, strict=True) for number, generation in enumerate(own)], drawn_from)


def _target(run: Run) -> tuple[float, str]:
    """(AUC that a model has which never saw forget, where that comes from)."""
    for name in ("retrained", "untrained"):
        if "mia_auc" in run.scores().get(name, {}):
            return run.scores()[name]["mia_auc"], name
    return 0.5, "chance"


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
    model, tokenizer = pipeline.load(run, recipe, "base", device)
    for folder in adapters:
        models.check_adapter(model, folder, pipeline.base_identity(run, recipe))

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
