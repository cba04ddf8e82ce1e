"""From a run folder to a table of where its results come from: data, base, both unlearned models, merge, evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import theme
from analysis.training import weights_in_words
from unlearn_core.data import load_saved
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import MODELS, UNLEARNED

COLUMNS = ("stage", "label", "state", "detail")
STAGES = ("data", "base", *UNLEARNED, "merged", "evaluation")
ARROWS = (("data", "base"), ("base", "model_1"), ("base", "model_2"), ("model_1", "merged"), ("model_2", "merged"),
          ("merged", "evaluation"))
DONE, STARTED, OPEN = "done", "started", "not yet"
HASH_LENGTH = 8  # shown characters of a SHA-256


def table(run: Run) -> pd.DataFrame:
    """One row per stage, columns `COLUMNS`; `state` is done, started or not yet, by the files there are. Stages are
    `STAGES`, or, of a run that brought its models, data, each of these, and evaluation.

    `detail` is one or more lines of text, which may come from outside.
    """
    recipe, brought = run.recipe(), run.brought()
    made = [("base", "Base", *_base(run, recipe)),
            *((model, theme.short_label(model), *_unlearned(run, recipe, model)) for model in UNLEARNED),
            ("merged", "Merged", *_merged(run, recipe))]
    given = [(model, theme.short_label(model), *_brought(run, model, brought[model])) for model in MODELS
             if model in brought]
    rows = [("data", "Data", *_data(run, recipe)), *(given or made), ("evaluation", "Evaluation", *_evaluation(
        run, recipe))]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def arrows(stages: Sequence[str]) -> list[tuple[str, str]]:
    """From which of these stages of `table` to which something goes; models that were brought answer the data."""
    if set(STAGES) <= set(stages):
        return list(ARROWS)
    return [pair for model in stages[1:-1] for pair in (("data", model), (model, "evaluation"))]


def _data(run: Run, recipe: Recipe) -> tuple[str, str]:
    source = {"world": "generated world", "files": recipe.data.path or recipe.data.forget}.get(
        recipe.data.source, recipe.data.source)
    if not run.data_dir.is_dir():
        return OPEN, source
    data = load_saved(run.data_dir)
    counts = [f"{split}: {len({item.document for item in items})} documents"
              for split, items in (("forget", data.forget), ("retain", data.retain))]
    hashes = _part(run, "data_hashes")
    known = [f"{name.removesuffix('.jsonl')} {hashes[name][:HASH_LENGTH]}" for name in ("forget.jsonl", "retain.jsonl")
             if isinstance(hashes.get(name), str)]
    return DONE, "\n".join([source, *counts, *(["SHA-256: " + ", ".join(known)] if known else [])])


def _base(run: Run, recipe: Recipe) -> tuple[str, str]:
    words = {"scratch": "trained from scratch here", "memorise": f"{recipe.base.model}, memorises here",
             "load": f"{recipe.base.model}, loaded"}[recipe.base.source]
    source = _part(run, "started_from").get("run")
    words = f"{words}\nstarted from run {source}" if source else words
    steps = len(run.steps("base"))
    words = f"{words}\n{steps} steps" if steps else words
    reached = run.is_evaluated("base") or run.full_model_dir("base").is_dir() or any(map(run.steps, UNLEARNED))
    return DONE if reached else STARTED if steps else OPEN, words


def _brought(run: Run, model: str, about: dict) -> tuple[str, str]:
    adapter = f"\nwith {Path(about['adapter']).name}" if about["adapter"] else ""
    key = f"\nSHA-256 {about['sha256'][:HASH_LENGTH]}" if isinstance(about.get("sha256"), str) else ""
    return DONE if run.is_evaluated(model) else OPEN, f"{Path(about['model']).name}{adapter}{key}"


def _unlearned(run: Run, recipe: Recipe, model: str) -> tuple[str, str]:
    settings, steps = getattr(recipe, model), len(run.steps(model))
    words = weights_in_words(settings)
    words = f"{words}\n{steps} steps" if steps else words
    return DONE if _is_there(run, model) else STARTED if steps else OPEN, words


def _merged(run: Run, recipe: Recipe) -> tuple[str, str]:
    merge = recipe.merge
    weights = " : ".join(f"{weight:g}" for weight in merge.weights)
    return (DONE if _is_there(run, "merged") else OPEN,
            f"{merge.method} on {merge.level}\ndensity {merge.density:g}, weights {weights}")


def _evaluation(run: Run, recipe: Recipe) -> tuple[str, str]:
    made = list(run.brought()) or [model for model in ("untrained", "base", *UNLEARNED, "merged")
                                   if model != "untrained" or recipe.base.source != "load"]
    expected = [model for model in MODELS if model in made or run.is_evaluated(model)]
    scored = [model for model in expected if run.is_evaluated(model)]
    checkpoints = len(run.trajectory().get("rows", []))
    words = f"{len(scored)} of {len(expected)} models"
    words = f"{words}\n{checkpoints} scored checkpoints" if checkpoints else words
    return DONE if scored == expected else STARTED if scored else OPEN, words


def _is_there(run: Run, model: str) -> bool:
    """Whether the model was made: by its adapter, or, in a folder without weights, by its scores."""
    return run.adapter_dir(model).is_dir() or run.is_evaluated(model)


def _part(run: Run, key: str) -> dict:
    value = run.info().get(key)
    return value if isinstance(value, dict) else {}
