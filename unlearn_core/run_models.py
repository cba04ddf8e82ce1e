"""The models of a run: which it has, each loaded as it would be shipped, and written as full models."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging as transformers_logging

from unlearn_core import models
from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import load_adapter
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import MODELS, UNLEARNED, is_retrained

BASE_OF_A_RUN = "models/base/model"


def base_path(run: Run, recipe: Recipe) -> str:
    """Folder or hub id of the model that has memorised."""
    return recipe.base.model if recipe.base.source == "load" else str(run.full_model_dir("base"))


def base_identity(run: Run, recipe: Recipe) -> str:
    """Name of the base written into adapters: it tells bases of different runs apart, wherever the runs folder is."""
    return recipe.base.model if recipe.base.source == "load" else f"{run.info()['id']}/{BASE_OF_A_RUN}"


def evaluated_models(run: Run, recipe: Recipe) -> list[str]:
    """Models that get official scores, in run order."""
    if brought := run.brought():
        return [name for name in MODELS if name in brought]
    untrained = [] if recipe.base.source == "load" else ["untrained"]
    retrained = [name for name in run.models() if is_retrained(name) and run.full_model_dir(name).is_dir()]
    return [*untrained, *retrained, "base", *UNLEARNED, "merged"]


def load(run: Run, recipe: Recipe, name: str, device: str):
    """(model, tokenizer) of any model of the run; an adapter comes merged into the weights."""
    if brought := run.brought():
        model, tokenizer = models.load_model(brought[name]["model"], recipe.precision, device)
        adapter = brought[name]["adapter"]
        return (models.with_adapter(model, Path(adapter)) if adapter else model), tokenizer
    if name == "untrained" and recipe.base.source == "memorise":
        return models.load_model(recipe.base.model, recipe.precision, device)
    if name == "untrained" or is_retrained(name):
        return models.load_model(str(run.full_model_dir(name)), recipe.precision, device)
    if name == "base":
        return models.load_model(base_path(run, recipe), recipe.precision, device)
    return with_adapter(run, recipe, run.adapter_dir(name), device)


def with_adapter(run: Run, recipe: Recipe, folder: Path, device: str):
    """(model, tokenizer): the run's base with an adapter of the run merged into it."""
    model, tokenizer = models.load_model(base_path(run, recipe), recipe.precision, device)
    return models.with_adapter(model, folder, base_identity(run, recipe)), tokenizer


def check_names(names: list[str] | None, known: list[str]) -> None:
    for name in names or ():
        if name not in known:
            raise InputError("evaluate --models", got=name, expected=f"one of {', '.join(known)}")


def export(base: str, adapter: Path, target: Path, precision: str = "fp32") -> None:
    """Base + adapter as one full model in Hugging Face's layout."""
    if target.exists():
        raise InputError(f"--full-model {target}", got="something that exists", expected="a new folder")
    transformers_logging.disable_progress_bar()
    model, tokenizer = models.load_model(base, precision)
    named = load_adapter(adapter).config.get("base_model_name_or_path") or ""
    # A hub id may lie in a folder of any name; the base of a run lies at the end of its path.
    expected = base if named.endswith(BASE_OF_A_RUN) and not Path(base).resolve().as_posix().endswith(named) else ""
    models.save_model(models.with_adapter(model, adapter, expected), tokenizer, target)


def export_of_run(run: Run, name: str, target: Path) -> None:
    """A model of the run, its adapter merged into the weights, as a full model in Hugging Face's layout."""
    if target.exists():
        raise InputError(f"--out {target}", got="something that exists", expected="a new folder")
    recipe = run.recipe()
    check_names([name], evaluated_models(run, recipe))
    transformers_logging.disable_progress_bar()
    model, tokenizer = load(run, recipe, name, "cpu")
    models.save_model(model, tokenizer, target)
