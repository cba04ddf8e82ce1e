"""The estimate of a run in words and tables, and what is worth a warning before it starts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import progress, theme
from unlearn_core import recipe as recipes
from unlearn_core.data import layout
from unlearn_core.estimate import Estimate, Model, Time, Workload
from unlearn_core.jobs import Device
from unlearn_core.settings import Recipe
from unlearn_core.store import Run

UNKNOWN = "not known"
RELEASES = ("lume", "semeval", "mmlu")  # what `data fetch` knows; each goes to data/NAME
STAGES = {"evaluation": "scoring"}  # beside the models, which have their own labels


def bundled() -> list[str]:
    """Names of the recipes that come with the program."""
    return sorted(path.stem for path in recipes.RECIPES.glob("*.toml"))


# ---- warnings --------------------------------------------------------------------------------------------------

def warnings(recipe: Recipe, work: Workload, expected: Estimate, device: Device) -> list[str]:
    """What may make the run fail or its result worth less; each in one sentence that says what to do."""
    found = []
    free = device.total_mb - device.used_mb
    if expected.memory_mb and expected.memory_mb > free:
        found.append(f"About {size(expected.memory_mb)} are needed {_stage(expected.peak)}, and {device.name} has "
                     f"{size(free)} free: lower the batch sizes, switch gradient checkpointing on or joined off.")
    if work.lost_ends:
        items = len(work.forget) + len(work.retain)
        found.append(f"{work.lost_ends} of {items} answers lose their end at max length "
                     f"{recipe.encoding.max_length} ({_counted(work)}): what is cut off is neither forgotten nor kept.")
    if not work.attack:
        found.append("The membership-inference attack will not be measured, and so no final score: it needs a holdout "
                     "(only of a base that is trained here) or a folder with member.jsonl and nonmember.jsonl.")
    return found


def _stage(stage: str | None) -> str:
    return f"while {'scoring' if stage == 'evaluation' else f'training {theme.short_label(stage)}'}"


def _counted(work: Workload) -> str:
    return "counted with the base's tokenizer" if work.counted else "estimated from their number of characters"


# ---- words -----------------------------------------------------------------------------------------------------

def size(mb: float | None) -> str:
    """MiB below one GiB, else GiB, with two or three digits."""
    if mb is None:
        return UNKNOWN
    return f"{mb:.0f} MiB" if mb < 1000 else f"{mb / 1024:.3g} GiB"


def steps_in_words(expected: Estimate) -> str:
    return ", ".join(f"{theme.short_label(model)}: {steps:,}" for model, steps in expected.steps.items())


def memory_in_words(expected: Estimate) -> str:
    if expected.peak is None:
        return "the size of the base is not known before it is downloaded"
    return f"{_stage(expected.peak)}; right within a factor of two"


def time_in_words(time: Time | None) -> str:
    """A rough one in its largest unit alone: more would claim too much, and does not fit on a narrow page."""
    if time is None:
        return UNKNOWN
    words = progress.duration(time.total)
    return words if time.same else "~" + " ".join(words.split()[:2])


def model_in_words(model: Model) -> str:
    return (f"{parameters(model.parameters)} parameters, {model.layers} layers, width {model.hidden}, "
            f"vocabulary {model.vocabulary:,}{', as published' if model.published else ''}")


def parameters(count: int) -> str:
    """1_234_567 -> "1.23 million"."""
    for unit, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)


def basis(expected: Estimate, work: Workload, time: Time | None) -> str:
    """Where the numbers of the estimate come from."""
    parts = [f"Steps are exact; lengths of the items are {_counted(work)}"]
    if expected.parameters:
        parts.append(f"base {parameters(expected.parameters)} parameters, each adapter "
                     f"{parameters(expected.adapter_parameters)}")
    if time is None:
        parts.append("time: no earlier run on this device tells")
    elif time.same:
        parts.append(f"time: as measured by the run {time.run} with the same shapes")
    else:
        parts.append(f"time: rough, scaled from the run {time.run} by floating-point operations")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


# ---- tables ----------------------------------------------------------------------------------------------------

def steps_table(expected: Estimate, time: Time | None) -> pd.DataFrame:
    """One row per model that is trained: model, optimizer steps, floating-point operations, seconds."""
    seconds = time.seconds if time else {}
    return pd.DataFrame([{"model": theme.short_label(model), "optimizer steps": steps,
                          "floating-point operations": expected.operations.get(model), "seconds": seconds.get(model)}
                         for model, steps in expected.steps.items()])


def memory_table(expected: Estimate) -> pd.DataFrame:
    """One row per part, stage by stage, and the sum of each stage: stage, part, MiB."""
    rows = []
    for stage in dict.fromkeys(part.stage for part in expected.parts):
        name = STAGES.get(stage, theme.short_label(stage))
        rows += [(name, part.name, part.mb) for part in expected.parts if part.stage == stage]
        rows.append((name, "together", expected.stage_mb(stage)))
    return pd.DataFrame(rows, columns=["stage", "part", "MiB"]).round({"MiB": 1})


# ---- data ------------------------------------------------------------------------------------------------------

def fetch_commands(recipe: Recipe) -> list[list[str]]:
    """Arguments of the engine that download the public releases that the recipe names and that are not there."""
    named = (recipe.data.path, recipe.data.mmlu) if recipe.data.source == "files" else ()
    missing = [name for name in RELEASES if f"data/{name}" in named and not Path(f"data/{name}").is_dir()]
    return [["data", "fetch", name] for name in missing]


def data_stamps(recipe: Recipe, source: Run | None) -> tuple:
    """What changes when the files that a run would read change: (path, time, size) of each."""
    if source is not None:
        return _stamps(sorted(source.data_dir.glob("*.jsonl")))
    if recipe.data.source == "world":
        return ()
    named = [Path(place) for place in (recipe.data.path, recipe.data.forget, recipe.data.retain, recipe.data.mia,
                                       recipe.data.mmlu) if place and not place.startswith(layout.HUB)]
    inside = [file for place in named if place.is_dir()
              for pattern in ("*", "data/*") for file in sorted(place.glob(pattern)) if file.is_file()]
    return _stamps([*named, *inside])


def _stamps(paths: list[Path]) -> tuple:
    found = []
    for path in paths:
        try:
            about = path.stat()
        except OSError:
            continue
        found.append((str(path), about.st_mtime_ns, about.st_size))
    return tuple(found)
