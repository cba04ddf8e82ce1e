"""The recipe as a form: settings as texts that can be typed, back again, and what is shown where."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import Field, replace
from typing import Any, get_args, get_origin

from unlearn_core import recipe as recipes
from unlearn_core.settings import Recipe
from unlearn_core.vocabulary import UNLEARNED

Raw = dict[str, str | bool]  # {dotted name: text as typed, or bool}

SETTINGS = {name: (field, hint) for name, field, hint in recipes.settings()}

# Tables of the recipe in the order of the form, with their headings; "" are the settings outside of tables.
TABLES = {
    "": "Name, seed, precision", "data": "Data", "world": "Generated world", "base": "Base model",
    "encoding": "Encoding", "lora": "LoRA", "merge": "Merge", "evaluation": "Evaluation",
}
# Settings of an unlearning run that are always in view; the rest are for those who know them.
MAIN = ("npo_weight", "gdr_weight", "klr_weight", "beta", "epochs", "lr", "batch_size")

# What a run that begins with the weights of another takes from it, and so cannot change (see `Run.begin_with`).
TAKEN = ("seed", "precision", "world.", "data.", "base.", "encoding.", "evaluation.mia_members")
TAKEN_WITH_ADAPTERS = (*TAKEN, "lora.")


# ---- texts -----------------------------------------------------------------------------------------------------

def raw_of(recipe: Recipe) -> Raw:
    """Each setting of a recipe as the form holds it."""
    return {name: _text(value) for name, value in recipes.flat(recipe).items()}


def values_of(raw: Raw) -> dict:
    """Nested tables of the values that were typed; what cannot be understood stays text, for the recipe's own check."""
    return recipes.nested({name: value_of(text, SETTINGS[name][1]) for name, text in raw.items()})


def value_of(text: str | bool, hint: type) -> Any:
    """A typed text as a value of this type: 1e-4, or a list with commas; the text itself where it is none."""
    if isinstance(text, bool):
        return text
    if get_origin(hint) is tuple:
        return tuple(value_of(part, get_args(hint)[0]) for part in text.split(",") if part.strip())
    text = text.strip()
    if hint is str:
        return text
    try:
        return hint(text)
    except ValueError:
        return text or "nothing"


def _text(value: Any) -> str | bool:
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value)
    return value if isinstance(value, bool) else str(value)


# ---- what is shown ---------------------------------------------------------------------------------------------

def label(name: str) -> str:
    """"model_1.npo_weight" -> "npo weight"."""
    return name.rpartition(".")[2].replace("_", " ")


def explanation(name: str) -> str:
    """Help of a setting with its limits and its name in TOML, from the recipe's own field."""
    field, hint = SETTINGS[name]
    limits = recipes.bounds(field.metadata)
    kind = " (a list with commas)" if get_origin(hint) is tuple else ""
    return ". ".join(filter(None, [field.metadata["help"] + kind, limits.capitalize(), f"In TOML: {name}"]))


def choices(field: Field) -> tuple[str, ...]:
    """What a setting can be chosen from; () where it is typed."""
    return field.metadata["choices"] or ()


def names_in(table: str) -> list[str]:
    """Dotted names of the settings of a table, in the recipe's order."""
    return [name for name in SETTINGS if name.rpartition(".")[0] == table]


def matters(name: str, raw: Raw) -> bool:
    """Whether a setting has an effect with the others as they are; the form leaves out what has none."""
    table, _, key = name.rpartition(".")
    trained, files = raw["base.source"] != "load", raw["data.source"] == "files"
    if table == "world":
        return not files
    if table == "data" and key in ("path", "forget", "retain", "mia", "mmlu"):
        return files
    if name == "data.holdout_share":
        return trained
    if name == "data.subset_seed":
        return value_of(raw["data.documents_per_task"], int) != 0
    if table == "base" and key in ("vocabulary", "hidden_size", "layers", "heads", "mlp_size", "init_std"):
        return raw["base.source"] == "scratch"
    if name == "base.model":
        return raw["base.source"] != "scratch"
    if table == "base" and key != "source":
        return trained
    if table == "lora" and key in ("r", "alpha", "dropout"):
        return raw["lora.kind"] == "lora"
    if table in UNLEARNED:
        return _matters_in_unlearning(table, key, raw)
    return table != "merge" or _matters_in_a_merge(key, raw["merge.method"], raw["merge.level"])


def _matters_in_unlearning(model: str, key: str, raw: Raw) -> bool:
    term = "simnpo" if key == "simnpo_beta" else "klr" if key.startswith("klr_") and key != "klr_weight" else ""
    if term and value_of(raw[f"{model}.{term}_weight"], float) == 0:
        return False
    return key != "klr_top_k" or raw[f"{model}.klr_reference"] == "top_k"


def _matters_in_a_merge(key: str, method: str, level: str) -> bool:
    trims, drops = method in ("ties", "magnitude_prune"), method.startswith("dare")
    return {"density": trims or drops, "rescale": trims or drops, "trim_scope": trims, "seed": drops,
            "elect": method in ("ties", "dare_ties", "negmerge"), "level": method != "cat",
            "rank": level == "delta" or method == "cat"}.get(key, True)


def differing(raw: Raw) -> set[str]:
    """Names (without a table) of the settings in which model_1 and model_2 differ; 1e-4 and 0.0001 are the same."""
    found = set()
    for name in names_in(UNLEARNED[0]):
        key, hint = name.rpartition(".")[2], SETTINGS[name][1]
        first, second = (value_of(raw[f"{model}.{key}"], hint) for model in UNLEARNED)
        if first != second:
            found.add(key)
    return found


def problems_in(errors: dict[str, str], table: str) -> dict[str, str]:
    """The errors (of `recipes.field_errors`) about a table and its settings."""
    return {name: message for name, message in errors.items()
            if name == table or (name in SETTINGS and name.rpartition(".")[0] == table)}


def is_taken(name: str, adapters: bool) -> bool:
    """Whether a run that begins with another's base (and adapters) has this setting from it."""
    return name.startswith(TAKEN_WITH_ADAPTERS if adapters else TAKEN)


def taken_over(raw: Raw, source: Recipe, adapters: bool) -> Raw:
    """The form with what is taken from the recipe of the run whose weights are used."""
    theirs = raw_of(source)
    return {name: theirs[name] if is_taken(name, adapters) else value for name, value in raw.items()}


# ---- command and file ------------------------------------------------------------------------------------------

def file_name(recipe: Recipe) -> str:
    """Name of the recipe's TOML file."""
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.name)[:60].strip("-.") or "recipe") + ".toml"


def file_command(recipe: Recipe, device: str, runs_dir: str, weights: Iterable[str] = ()) -> list[str]:
    """Arguments of the engine that start the downloaded file."""
    return ["run", file_name(recipe), *weights, "--device", device, "--runs-dir", runs_dir]


def short_command(start: str, recipe: Recipe, device: str, runs_dir: str, weights: Iterable[str] = ()) -> list[str]:
    """Arguments of the engine that start a bundled recipe with what was changed in it."""
    changes = sets(recipes.load(start), recipe)
    return ["run", start, *changes, *weights, "--device", device, "--runs-dir", runs_dir]


def sets(start: Recipe, recipe: Recipe) -> list[str]:
    """Arguments that make one recipe of another."""
    return [part for text in recipes.as_overrides(start, recipe) for part in ("--set", text)]


def device_for(device: str, processes: int) -> str:
    """What `--device` is for so many processes: of several, each takes a GPU of its own."""
    return device.partition(":")[0] if processes > 1 else device


def with_same_updates(recipe: Recipe, processes: int) -> Recipe | None:
    """The recipe with which so many processes make the updates that one makes with this, each accumulating its share of
    the micro-batches; None where they cannot be shared out evenly."""
    models = [getattr(recipe, name) for name in UNLEARNED]
    if any(model.gradient_accumulation % processes for model in models):
        return None
    return replace(recipe, **{
        name: replace(model, gradient_accumulation=model.gradient_accumulation // processes)
        for name, model in zip(UNLEARNED, models, strict=True)})


def weights_arguments(source: str, adapters: bool) -> list[str]:
    """Arguments that begin with another run's weights; [] without one."""
    return [] if not source else ["--weights-of", source, *(["--adapters-too"] if adapters else [])]
