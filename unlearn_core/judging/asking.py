"""Several answers to each prompt about the people to forget, drawn at random from a run's models."""

from __future__ import annotations

from unlearn_core import data, pipeline, run_models
from unlearn_core.data import persons
from unlearn_core.errors import InputError
from unlearn_core.evaluation.sampling import sample
from unlearn_core.progress import Report, measuring
from unlearn_core.store import Run
from unlearn_core.vocabulary import is_retrained


def sample_answers(run: Run, names: list[str] | None = None, *, samples: int = 8, temperature: float = 0.7,
                   top_p: float = 1.0, seed: int = 0, people: int = 0, device: str = "auto",
                   report: Report = lambda *_: None) -> None:
    """Draw several answers to each prompt about forget's people (`people` of them, chosen by the seed; 0: all) from
    models of the run: what a greedy answer keeps to itself, a patient asker may get.

    Written after each model; what was drawn in the same way from the same adapter before is kept.
    """
    recipe, device = run.recipe(), str(pipeline.make_accelerator(device).device)
    there = [*([] if recipe.base.source == "scratch" else ["untrained"]), "base", *run.adapter_weights(),
             *run.brought()]
    known = [name for name in run_models.evaluated_models(run, recipe) if name in there or is_retrained(name)]
    run_models.check_names(names, known)
    items = [item for item in data.load_saved(run.data_dir).forget if item.task == persons.PERSONS_TASK]
    items = data.subset(items, people, seed)
    if not items:
        raise InputError(f"run {run.id}", got="no people in what is to be forgotten",
                         expected=f"items of {persons.PERSONS_TASK}")
    about = {"samples": samples, "temperature": temperature, "top_p": top_p, "seed": seed, "people": people,
             "max_new_tokens": recipe.evaluation.max_new_tokens}
    keys = run.adapter_keys()
    with measuring(run, recipe, report) as progress:
        for name in names or known:
            drawn_from = about | {"key": keys.get(name)}
            if run.samples(name)[1] == drawn_from:
                continue
            progress(f"sample {name}", 0, 0)
            model, tokenizer = run_models.load(run, recipe, name, device)
            drawn = sample(model, tokenizer, [item.prompt for item in items], samples=samples, temperature=temperature,
                           top_p=top_p, seed=seed, max_new_tokens=recipe.evaluation.max_new_tokens,
                           batch_size=recipe.evaluation.batch_size,
                           progress=lambda done, total, _, name=name: progress(f"sample {name}", done, total))
            run.write_samples(name, [
                {"id": item.id, "document": item.document, "split": "forget", "sample": number,
                 "generation": generation.text}
                for item, own in zip(items, drawn, strict=True) for number, generation in enumerate(own)], drawn_from)
