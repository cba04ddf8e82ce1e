"""Probes: what brings back what a model was to forget? Relearning a part, storing it coarsely, asking in other words.

Each is measured on the model that would be handed out, on the base (does the probe find what is known there?) and on a
model that never saw forget (what does it "find" where nothing can be?). What was measured in the same way before is
kept, so a stopped probe goes on, and other models or further steps can be added later.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core import data, models, pipeline, run_models
from unlearn_core.data import Item, persons, rephrase
from unlearn_core.errors import InputError
from unlearn_core.evaluation.recall import recall
from unlearn_core.judging import bring, quantise
from unlearn_core.judging.relearn import marks, parts, relearn
from unlearn_core.progress import Report, measuring
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import control, is_retrained, shipped

ASKED, RELEARNED = "asked", "relearned"
SIDES = ("forget", "retain")
Measure = Callable[[PreTrainedModel, PreTrainedTokenizerBase, dict], list[dict]]  # model, tokenizer, place -> rows
# Probe -> its settings beside models, documents and seed.
SETTINGS = {"relearning": ("steps", "on", "share", "lr", "batch"), "quantisation": ("group",), "prompts": ()}


def relearning(run: Run, names: Sequence[str] | None = None, *, steps: int = 50, on: str = "forget",
               share: float = 0.5, lr: float | None = None, batch: int = 8, documents: int = 0, seed: int = 0,
               device: str = "auto", report: Report = lambda *_: None) -> None:
    """Fine-tune a fresh LoRA on a part of forget's documents and ask about the others, at the steps of `marks`.

    `on` "retain": fine-tuned on retain's documents instead, the control for what any such training brings. `share` of
    the documents of each task (`parts`) is learned; `lr` is constant, that of model_1 by default; `documents`: of each
    task and side (0: all); the seed chooses documents, both parts, order and adapter. Rows of probe "relearning":
    setting is the step, part "asked" or "relearned", on.
    """
    recipe = run.recipe()
    lr = recipe.model_1.lr if lr is None else lr
    _expect("steps", steps, steps >= 1, "at least 1")
    _expect("on", on, on in SIDES, f"one of {', '.join(SIDES)}")
    _expect("share", share, 0 < share < 1, "a share between 0 and 1")
    _expect("lr", lr, 0 < lr < math.inf, "a number above 0")
    _expect("batch", batch, batch >= 1, "at least 1")
    chosen, sides = probed(run, names), _sides(run, documents, seed)
    learned, asked = parts(sides["forget"], share, seed)
    learned = learned if on == "forget" else parts(sides["retain"], share, seed)[0]
    if not learned:
        raise InputError(f"run {run.id}", got=f"no task with two documents in {on}",
                         expected="some to relearn and others to ask about")
    found = _Findings(run, "relearning", {
        "documents": documents, "seed": seed, "share": share, "lr": lr, "batch": batch,
        "lora": dataclasses.asdict(recipe.lora), "asked": len({item.document for item in asked})})
    ask, accelerator = _ask(run), pipeline.make_accelerator(device)
    places = [{"setting": step, "part": part, "on": on} for step in marks(steps) for part in (ASKED, RELEARNED)]
    with measuring(run, recipe, report) as progress:

        def curve(name: str, todo: list[dict]) -> None:
            progress(f"relearning: {name}", 0, steps)
            model, tokenizer = _with_fresh_adapter(run, recipe, name, seed, accelerator)

            def measure(step: int) -> None:
                for place in (place for place in todo if place["setting"] == step):
                    found.add(place, ask(model, tokenizer, asked if place["part"] == ASKED else learned))
                progress(f"relearning: {name}", step, steps)

            measure(0)
            relearn(model, tokenizer, learned, recipe.encoding, steps=todo[-1]["setting"], lr=lr, batch=batch,
                    seed=seed, accelerator=accelerator, after=measure)

        for name, todo in found.missing(chosen, places):
            curve(name, todo)


def quantisation(run: Run, names: Sequence[str] | None = None, *, group: int = quantise.GROUP, documents: int = 0,
                 seed: int = 0, device: str = "auto", report: Report = lambda *_: None) -> None:
    """Ask with the weights as they are and rounded to int8 and int4 (`quantise`), about forget and about retain.

    Adapters are merged into the weights before these are rounded. Rows of probe "quantisation": setting is one of
    `quantise.SETTINGS`, part the side, rounded the share of all parameters that is rounded.
    """
    _expect("group", group, group >= 1, "at least 1")
    chosen, sides = probed(run, names), _sides(run, documents, seed)
    found, ask = _Findings(run, "quantisation", {"documents": documents, "seed": seed, "group": group}), _ask(run)

    def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: dict) -> list[dict]:
        share = 0.0 if place["setting"] == quantise.FULL else quantise.rounded_share(model)
        with quantise.quantised(model, place["setting"], group):
            return [row | {"rounded": share} for row in ask(model, tokenizer, sides[place["part"]])]

    _measure_each(found, chosen, [{"setting": setting, "part": part} for setting in quantise.SETTINGS
                                  for part in SIDES], measure, device, report)


def prompts(run: Run, names: Sequence[str] | None = None, *, documents: int = 0, seed: int = 0, device: str = "auto",
            report: Report = lambda *_: None) -> None:
    """Ask about forget in other words and with other words around the prompts (`rephrase`).

    Rows of probe "prompts": setting is the variant's name, part one of `rephrase.PARTS`; a part's variants ask about
    the same items.
    """
    chosen, sides = probed(run, names), _sides(run, documents, seed)
    found, ask = _Findings(run, "prompts", {"documents": documents, "seed": seed}), _ask(run)
    people = persons.persons(sides["forget"])
    wordings: dict[tuple[str, str], list[tuple[Item, str]]] = {}
    for item in sides["forget"]:
        person = people.get(item.document)
        for variant, prompt in rephrase.variants(item, person).items():
            wordings.setdefault((rephrase.part_of(item, person), variant), []).append((item, prompt))

    def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: dict) -> list[dict]:
        items, asked = zip(*wordings[place["part"], place["setting"]], strict=True)
        # Only the items' own prompts leave the answers where they can be teacher-forced.
        return ask(model, tokenizer, items, asked=None if place["setting"] == rephrase.ORIGINAL else asked)

    _measure_each(found, chosen, [{"setting": variant, "part": part} for part, variant in wordings], measure, device,
                  report)


def _measure_each(found: _Findings, chosen: Sequence[str], places: Sequence[dict], measure: Measure, device: str,
                  report: Report) -> None:
    """Load each model of which a place is not measured yet, measure these, and write after each one."""
    run, device = found.run, str(pipeline.make_accelerator(device).device)
    recipe = run.recipe()
    with measuring(run, recipe, report) as progress:
        for name, todo in found.missing(chosen, places):
            progress(f"{found.name}: {name}", 0, len(todo))
            model, tokenizer = run_models.load(run, recipe, name, device)
            for number, place in enumerate(todo):
                progress(f"{found.name}: {name}", number, len(todo))
                found.add(place, measure(model, tokenizer, place))


# ---- which models, which items, what is known ----------------------------------------------------------------

def probed(run: Run, names: Sequence[str] | None = None) -> list[str]:
    """Models to probe: those that are named; else the one that would be handed out, the base, and the best one that
    never saw forget, where its weights are there.

    InputError where the weights of a model are gone, as in recorded runs, or are others than those that were brought.
    """
    recipe = run.recipe()
    known = run_models.evaluated_models(run, recipe)
    run_models.check_names(names, known)
    there = [name for name in known if _is_there(run, recipe, name)]
    usual = (shipped(known), "base" if "base" in known else None, control(there))
    chosen = list(names or filter(None, usual))
    missing = [name for name in chosen if name not in there]
    if missing or not chosen:
        raise InputError(f"run {run.id}", got=f"no weights of {', '.join(missing) or 'any model'}",
                         expected="models whose weights are in the run folder",
                         fix="resume the run, or name others with --models; recorded runs come without weights")
    bring.check_unchanged(run)
    return chosen


def _is_there(run: Run, recipe: Recipe, name: str) -> bool:
    """Whether `run_models.load` can find a model's weights, as far as the run folder tells."""
    if run.brought():
        return True
    if name == "untrained" or is_retrained(name):
        return run.full_model_dir(name).is_dir() or (name == "untrained" and recipe.base.source == "memorise")
    has_base = recipe.base.source == "load" or run.full_model_dir("base").is_dir()
    return has_base and (name == "base" or run.adapter_dir(name).is_dir())


def _sides(run: Run, documents: int, seed: int) -> dict[str, list[Item]]:
    """{side: items of `documents` documents of each task}; forget must have some."""
    _expect("documents", documents, documents >= 0, "0 (all) or more")
    _expect("seed", seed, seed >= 0, "0 or more")
    dataset = data.load_saved(run.data_dir)
    if not dataset.forget:
        raise InputError(f"run {run.id}", got="nothing that is to be forgotten", expected="items of forget")
    return {side: data.subset(getattr(dataset, side), documents, seed) for side in SIDES}


def _ask(run: Run) -> Callable[..., list[dict]]:
    """`recall` as this run is evaluated: (model, tokenizer, items, asked=None) -> rows."""
    dataset, settings = data.load_saved(run.data_dir), run.recipe().evaluation
    return partial(recall, people=persons.persons([*dataset.forget, *dataset.retain]),
                   max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size)


class _Findings:
    """Rows of a probe, written after each addition; those that were measured in the same way before are kept."""

    def __init__(self, run: Run, name: str, about: dict):
        self.run, self.name = run, name
        about = about | {"max_new_tokens": run.recipe().evaluation.max_new_tokens, "adapters": run.adapter_keys(),
                         "brought": run.brought()}
        self.about = json.loads(json.dumps(about))  # as it is read again: a tuple comes back as a list
        before = run.probe(name)
        self.rows = list(before["rows"]) if before.get("about") == self.about else []

    def missing(self, names: Sequence[str], places: Sequence[dict]) -> Iterator[tuple[str, list[dict]]]:
        """(model, what is not measured of it yet) for each model of which something is; a place: setting, part ..."""
        for name in names:
            own = [{"model": name} | place for place in places]
            todo = [place for place in own if not any(place.items() <= row.items() for row in self.rows)]
            if todo:
                yield name, todo

    def add(self, place: dict, measured: list[dict]) -> None:
        self.rows += [place | row for row in measured]
        self.run.write_probe(self.name, self.about, self.rows)


def _expect(what: str, got: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"probe: {what}", got=got, expected=expected)


# ---- relearning ------------------------------------------------------------------------------------------------

def _with_fresh_adapter(run: Run, recipe: Recipe, name: str, seed: int, accelerator: Accelerator
                        ) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """A model of the run, its own adapter merged into the weights, with a new LoRA that changes nothing yet."""
    model, tokenizer = run_models.load(run, recipe, name, str(accelerator.device))
    if recipe.model_1.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return models.add_adapter(model, recipe.lora, seed).to(accelerator.device), tokenizer
